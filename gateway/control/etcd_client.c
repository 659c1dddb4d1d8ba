#include "gateway/control/etcd_client.h"

#include "gateway/control/ndjson.h"
#include "gateway/control/text_file.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ERROR_BYTES = 64 << 10 };

struct etcd_client {
    struct etcd_client_params params;
    size_t current; /* of the endpoints */
    char *token;    /* NULL: none yet, or none is needed */
};

/* One POST, after another one for the token if need be. */
struct etcd_call {
    struct etcd_client *client;
    const char *path;
    char *body;
    size_t max_bytes;
    uint32_t quiet_ms;
    bool authenticating;
    bool renewed;    /* the token, because etcd did not know it */
    size_t endpoint; /* of this attempt */
    size_t attempts; /* at other endpoints, before this one */
    struct fetch *fetch;
    int status;
    char *answer;
    size_t answer_len, answer_capacity;
    bool too_large;
    bool is_watch;
    struct ndjson lines;
    bool in_feed;
    bool cancelled; /* in the middle of a piece: freed at its end */
    etcd_line_cb line;
    etcd_done_cb done;
    void *arg;
    struct timer failed; /* before anything was sent: told from the loop */
    char failure[TEXT_FILE_ERROR_TEXT_MAX];
};

static const char *endpoint_of(const struct etcd_client *client, size_t index)
{
    return client->params.config->endpoints[index];
}

/* ---- the client ---- */

struct etcd_client *etcd_client_new(const struct etcd_client_params *params)
{
    struct etcd_client *client = calloc(1, sizeof *client);
    if (!client)
        abort();
    client->params = *params;
    return client;
}

static void forget_token(struct etcd_client *client)
{
    if (client->token)
        explicit_bzero(client->token, strlen(client->token));
    free(client->token);
    client->token = NULL;
}

void etcd_client_free(struct etcd_client **client)
{
    if (!*client)
        return;
    forget_token(*client);
    free(*client);
    *client = NULL;
}

const char *etcd_client_endpoint(const struct etcd_client *client)
{
    return endpoint_of(client, client->current);
}

static void leave(struct etcd_client *client, size_t endpoint)
{
    if (client->current == endpoint) /* else another call has left it */
        client->current = (endpoint + 1) % client->params.config->endpoint_count;
}

void etcd_client_renew(struct etcd_client *client)
{
    forget_token(client);
}

void etcd_client_leave(struct etcd_client *client)
{
    leave(client, client->current);
}

/* ---- the end of a call ---- */

static void wipe_answer(struct etcd_call *call)
{
    if (call->answer)
        explicit_bzero(call->answer, call->answer_len);
    free(call->answer);
    call->answer = NULL;
    call->answer_len = call->answer_capacity = 0;
}

static void free_call(struct etcd_call *call)
{
    fetch_cancel(&call->fetch);
    timer_forget(&call->failed);
    wipe_answer(call);
    if (call->is_watch)
        ndjson_free(&call->lines);
    explicit_bzero(call->body, strlen(call->body));
    free(call->body);
    free(call);
}

static void finish(struct etcd_call *call, struct etcd_result *result)
{
    etcd_done_cb done = call->done;
    void *arg = call->arg;
    result->body = slice_make(call->answer, result->end == ETCD_ANSWERED ? call->answer_len : 0);
    done(arg, result);
    free_call(call);
}

static void describe(const struct etcd_call *call, struct etcd_result *result, const char *text)
{
    snprintf(result->text, sizeof result->text, "%s: %s", endpoint_of(call->client, call->endpoint), text);
}

/* ---- sending ---- */

static void start(struct etcd_call *call);

static void on_failed(struct timer *timer)
{
    struct etcd_call *call = CONTAINER_OF(timer, struct etcd_call, failed);
    struct etcd_result result = {.end = ETCD_UNSENT};
    describe(call, &result, call->failure);
    finish(call, &result);
}

static void fail_later(struct etcd_call *call, const char *text)
{
    snprintf(call->failure, sizeof call->failure, "%s", text);
    loop_timer_arm(call->client->params.loop, &call->failed, 1);
}

/* The request for a token; NULL with the reason. The password is the first line of its file. */
static char *make_credentials(const struct config_etcd *config, char error[TEXT_FILE_ERROR_TEXT_MAX])
{
    size_t len = 0, end = 0;
    char *text = text_file_read(config->password_file, &len, error);
    if (!text)
        return NULL;
    while (end < len && text[end] != '\n' && text[end] != '\r')
        end++;
    char *body = etcd_wire_authenticate_request(slice_str(config->user), slice_make(text, end));
    if (!body)
        snprintf(error, TEXT_FILE_ERROR_TEXT_MAX, "%s: the password is not UTF-8", config->password_file);
    explicit_bzero(text, len);
    free(text);
    return body;
}

static void on_head(void *arg, const struct fetch_head *head);
static void on_data(void *arg, struct slice piece);
static void on_done(void *arg, const struct fetch_result *end);

static char *join(const char *first, const char *second)
{
    char *text;
    if (asprintf(&text, "%s%s", first, second) < 0)
        abort();
    return text;
}

static void post(struct etcd_call *call, const char *path, const char *body)
{
    static const struct fetch_events events = {.head = on_head, .data = on_data, .done = on_done};
    const struct etcd_client *client = call->client;
    const struct config_etcd *config = client->params.config;
    bool has_token = client->token && !call->authenticating;
    char *url = join(endpoint_of(client, call->endpoint), path);
    char *authorization = has_token ? join("Authorization: ", client->token) : NULL;
    const char *fields[] = {authorization, NULL};
    struct fetch_request request = {
        .method = "POST",
        .url = url,
        .fields = fields,
        .body = slice_str(body),
        .has_body = true,
        .tls = {.ca = config->ca, .certificate = config->certificate, .private_key = config->private_key},
        .connect_ms = client->params.connect_ms,
        .idle_ms = call->is_watch && !call->authenticating ? call->quiet_ms : client->params.answer_ms,
    };
    call->status = 0;
    wipe_answer(call);
    call->fetch = fetch_start(client->params.fetcher, &request, &events, call);
    if (authorization)
        explicit_bzero(authorization, strlen(authorization));
    free(authorization);
    free(url);
}

static void start(struct etcd_call *call)
{
    const struct etcd_client *client = call->client;
    char error[TEXT_FILE_ERROR_TEXT_MAX];
    call->endpoint = client->current;
    call->authenticating = client->params.config->user && !client->token;
    if (!call->authenticating) {
        post(call, call->path, call->body);
        return;
    }
    char *credentials = make_credentials(client->params.config, error);
    if (!credentials) {
        fail_later(call, error);
        return;
    }
    post(call, "/v3/auth/authenticate", credentials);
    explicit_bzero(credentials, strlen(credentials));
    free(credentials);
}

/* ---- receiving ---- */

static bool is_stream(const struct etcd_call *call)
{
    return call->is_watch && !call->authenticating && call->status / 100 == 2;
}

static void on_head(void *arg, const struct fetch_head *head)
{
    struct etcd_call *call = arg;
    call->status = head->status;
}

static void append(struct etcd_call *call, struct slice piece)
{
    if (call->answer_capacity - call->answer_len < piece.len) {
        size_t capacity = call->answer_capacity > 0 ? call->answer_capacity : 4096;
        while (capacity - call->answer_len < piece.len)
            capacity *= 2;
        call->answer = realloc(call->answer, capacity);
        if (!call->answer)
            abort();
        call->answer_capacity = capacity;
    }
    memcpy(call->answer + call->answer_len, piece.ptr, piece.len);
    call->answer_len += piece.len;
}

static void fail_now(struct etcd_call *call, enum etcd_end end, const char *text)
{
    struct etcd_result result = {.end = end};
    describe(call, &result, text);
    if (end != ETCD_TOO_LARGE)
        leave(call->client, call->endpoint);
    finish(call, &result);
}

/* A line may end the watch: ndjson then goes on to the end of the piece, and what it says is not passed on. */
static void on_line(void *arg, uint64_t number, struct slice line, bool too_long)
{
    struct etcd_call *call = arg;
    (void)number;
    if (call->cancelled || call->too_large)
        return;
    if (too_long)
        call->too_large = true;
    else
        call->line(call->arg, line);
}

static void feed(struct etcd_call *call, struct slice piece)
{
    call->in_feed = true;
    ndjson_feed(&call->lines, piece);
    call->in_feed = false;
    if (call->cancelled)
        free_call(call);
    else if (call->too_large)
        fail_now(call, ETCD_TOO_LARGE, "a line of the watch is too long");
}

static void on_data(void *arg, struct slice piece)
{
    struct etcd_call *call = arg;
    if (is_stream(call)) {
        feed(call, piece);
        return;
    }
    size_t max = call->status / 100 == 2 && !call->authenticating ? call->max_bytes : MAX_ERROR_BYTES;
    if (piece.len > max - call->answer_len)
        fail_now(call, ETCD_TOO_LARGE, "the answer is too large");
    else
        append(call, piece);
}

/* ---- what an answer means ---- */

/* True: a new token may help, and has not been tried. */
static bool wants_new_token(const struct etcd_call *call, const struct etcd_wire_error *error)
{
    return etcd_wire_error_is_token(error) && !call->authenticating && call->client->params.config->user &&
           !call->renewed;
}

static void take_refusal(struct etcd_call *call)
{
    struct etcd_result result = {.end = ETCD_REFUSED};
    char text[ETCD_CLIENT_TEXT_MAX];
    if (etcd_wire_error_read(slice_make(call->answer, call->answer_len), &result.error))
        snprintf(text, sizeof text, "%s", result.error.text);
    else
        snprintf(text, sizeof text, "it answered with status %d; is this the client URL of etcd 3.4 or newer?",
                 call->status);
    if (wants_new_token(call, &result.error)) {
        call->renewed = true;
        forget_token(call->client);
        start(call);
        return;
    }
    describe(call, &result, text);
    if (etcd_wire_error_is_uncertain(call->status, &result.error)) {
        result.end = call->authenticating ? ETCD_UNSENT : ETCD_UNCERTAIN;
        leave(call->client, call->endpoint);
    }
    finish(call, &result);
}

static void take_token(struct etcd_call *call)
{
    char *token;
    if (!etcd_wire_authenticate_read(slice_make(call->answer, call->answer_len), &token)) {
        fail_now(call, ETCD_UNCERTAIN, "its answer to the authentication makes no sense");
        return;
    }
    forget_token(call->client);
    call->client->token = token;
    start(call);
}

static void take_answer(struct etcd_call *call)
{
    struct etcd_result result = {.end = ETCD_ANSWERED};
    if (call->status / 100 != 2) {
        take_refusal(call);
    } else if (call->authenticating) {
        take_token(call);
    } else if (call->is_watch) {
        result.end = ETCD_UNCERTAIN;
        describe(call, &result, "the watch has ended");
        finish(call, &result);
    } else {
        finish(call, &result);
    }
}

static void on_done(void *arg, const struct fetch_result *end)
{
    struct etcd_call *call = arg;
    call->fetch = NULL;
    if (end->end == FETCH_COMPLETE) {
        take_answer(call);
        return;
    }
    leave(call->client, call->endpoint);
    bool is_unsent = end->end == FETCH_UNREACHABLE || call->authenticating;
    if (is_unsent && ++call->attempts < call->client->params.config->endpoint_count) {
        start(call);
        return;
    }
    struct etcd_result result = {.end = is_unsent ? ETCD_UNSENT : ETCD_UNCERTAIN};
    describe(call, &result, end->text);
    finish(call, &result);
}

/* ---- calls ---- */

static struct etcd_call *new_call(struct etcd_client *client, char *body, etcd_done_cb done, void *arg)
{
    struct etcd_call *call = calloc(1, sizeof *call);
    if (!call)
        abort();
    call->client = client;
    call->body = body;
    call->done = done;
    call->arg = arg;
    timer_init(&call->failed, on_failed);
    return call;
}

struct etcd_call *etcd_client_call(struct etcd_client *client, const char *path, char *body, size_t max_bytes,
                                   etcd_done_cb done, void *arg)
{
    struct etcd_call *call = new_call(client, body, done, arg);
    call->path = path;
    call->max_bytes = max_bytes;
    start(call);
    return call;
}

struct etcd_call *etcd_client_watch(struct etcd_client *client, char *body, uint32_t quiet_ms, etcd_line_cb line,
                                    etcd_done_cb done, void *arg)
{
    struct etcd_call *call = new_call(client, body, done, arg);
    call->path = "/v3/watch";
    call->is_watch = true;
    call->quiet_ms = quiet_ms;
    call->line = line;
    ndjson_init(&call->lines, ETCD_CLIENT_MAX_LINE, on_line, call);
    start(call);
    return call;
}

void etcd_call_pause(struct etcd_call *call)
{
    if (call->fetch)
        fetch_pause(call->fetch);
}

void etcd_call_resume(struct etcd_call *call)
{
    if (call->fetch)
        fetch_resume(call->fetch);
}

void etcd_call_cancel(struct etcd_call **call_ptr)
{
    struct etcd_call *call = *call_ptr;
    *call_ptr = NULL;
    if (!call)
        return;
    call->cancelled = true;
    fetch_cancel(&call->fetch);
    if (!call->in_feed)
        free_call(call);
}
