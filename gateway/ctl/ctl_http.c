#include "ctl.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { CONNECT_SECONDS = 10, STALL_SECONDS = 120, POLL_MS = 1000, MAX_TOKEN = 4096 };

/* What the callbacks of one transfer need. */
struct transfer {
    CURL *curl;
    const struct ctl_call *call;
    struct ctl_reply *reply;
    int write_error; /* errno of our own output, or input; 0: none */
    int read_error;
    bool is_given_up;    /* by the caller's look at the upload */
    curl_off_t received; /* of a stream, when it was last looked at */
    time_t received_at;
    bool is_silent; /* not even a sign of life came for too long */
};

static void grow(struct ctl_reply *reply, const char *data, size_t len)
{
    reply->body = realloc(reply->body, reply->len + len + 1);
    if (!reply->body)
        abort();
    memcpy(reply->body + reply->len, data, len);
    reply->len += len;
    reply->body[reply->len] = '\0';
}

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    long status = 0;
    size_t len = size * count;
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    if (transfer->call->data && status / 100 == 2) {
        if (transfer->call->data(transfer->call->data_arg, data, len))
            return len;
        transfer->write_error = errno;
        return 0;
    }
    if (transfer->call->download && status / 100 == 2) {
        ctl_progress_add(transfer->call->progress, data, len);
        if (fwrite(data, 1, len, transfer->call->download) == len)
            return len;
        transfer->write_error = errno;
        return 0;
    }
    grow(transfer->reply, data, len);
    return len;
}

static size_t on_read(char *buffer, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    const struct ctl_call *call = transfer->call;
    size_t len = fread(buffer, 1, size * count, call->upload);
    if (len == 0 && ferror(call->upload)) {
        transfer->read_error = errno;
        return CURL_READFUNC_ABORT;
    }
    transfer->is_given_up = call->uploads && !call->uploads(call->uploads_arg, buffer, len);
    if (transfer->is_given_up)
        return CURL_READFUNC_ABORT;
    ctl_progress_add(call->progress, buffer, len);
    if (len == 0)
        ctl_progress_phase(call->progress, "sent; the gateway stores it");
    return len;
}

/* libcurl calls it several times a second while a transfer waits. */
static int on_time(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    struct transfer *transfer = arg;
    struct timespec now;
    (void)down_total;
    (void)up_total;
    (void)up;
    ctl_progress_tick(transfer->call->progress);
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (down != transfer->received || transfer->received_at == 0) {
        transfer->received = down;
        transfer->received_at = now.tv_sec;
    }
    transfer->is_silent = transfer->call->data && now.tv_sec - transfer->received_at > STALL_SECONDS;
    return transfer->is_silent;
}

/* ---- where to ---- */

static char *format_url(const char *base, const char *path)
{
    char *url;
    size_t len = strlen(base);
    if (asprintf(&url, "%.*s%s", (int)(len > 0 && base[len - 1] == '/' ? len - 1 : len), base, path) < 0)
        abort();
    return url;
}

static void set_credentials(CURL *curl, const struct ctl_options *options)
{
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    if (options->cacert)
        curl_easy_setopt(curl, CURLOPT_CAINFO, options->cacert);
    if (options->cert)
        curl_easy_setopt(curl, CURLOPT_SSLCERT, options->cert);
    if (options->key)
        curl_easy_setopt(curl, CURLOPT_SSLKEY, options->key);
}

static enum ctl_exit set_base(CURL *curl, const struct ctl_options *options, const struct ctl_call *call)
{
    char *url = format_url(call->base, call->path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    free(url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    set_credentials(curl, options);
    return CTL_OK;
}

static enum ctl_exit set_target(CURL *curl, const struct ctl_options *options, const char *path)
{
    struct slice control = slice_str(options->control);
    bool is_unix = slice_has_prefix(control, SLICE("unix:"));
    if (!is_unix && !slice_has_prefix(control, SLICE("https://"))) {
        ctl_error("--control %s: give unix:PATH or https://HOST:PORT", options->control);
        return CTL_USAGE;
    }
    char *url = format_url(is_unix ? "http://localhost" : options->control, path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    free(url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, is_unix ? "http" : "https");
    if (is_unix)
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, options->control + strlen("unix:"));
    set_credentials(curl, options);
    return CTL_OK;
}

/* ---- what to send ---- */

char *ctl_http_read_token(const char *file)
{
    size_t len;
    char *text = ctl_read_file(file, &len);
    if (!text)
        return NULL;
    struct slice line = slice_trim(slice_make(text, strcspn(text, "\r\n")));
    char *token = line.len > 0 && line.len <= MAX_TOKEN ? strndup(line.ptr, line.len) : NULL;
    if (!token)
        ctl_error("%s: the first line is not a token", file);
    explicit_bzero(text, len);
    free(text);
    return token;
}

void ctl_http_free_token(char **token)
{
    if (*token)
        explicit_bzero(*token, strlen(*token));
    free(*token);
    *token = NULL;
}

static void add_header(struct curl_slist **headers, const char *name, const char *before, const char *value,
                       const char *after)
{
    char *line;
    if (asprintf(&line, "%s:%s%s%s%s", name, *value ? " " : "", before, value, after) < 0)
        abort();
    struct curl_slist *list = curl_slist_append(*headers, line);
    free(line);
    if (!list)
        abort();
    *headers = list;
}

static void set_headers(const struct ctl_options *options, const struct ctl_call *call, struct curl_slist **headers)
{
    add_header(headers, "Accept", "", "application/json", "");
    add_header(headers, "Expect", "", "", "");
    add_header(headers, "Content-Type", "", call->content_type ? call->content_type : "", "");
    if (call->if_match)
        add_header(headers, "If-Match", "\"", call->if_match, "\"");
    if (call->if_none_match)
        add_header(headers, "If-None-Match", "", "*", "");
    if (call->authorization)
        add_header(headers, "Authorization", "", call->authorization, "");
    if (options->token && !call->base)
        add_header(headers, "Authorization", "Bearer ", options->token, "");
}

static void set_body(CURL *curl, struct transfer *transfer)
{
    const struct ctl_call *call = transfer->call;
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    if (call->upload) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(curl, CURLOPT_READDATA, transfer);
    } else if (call->content_type || strcmp(call->method, "POST") == 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body.ptr ? call->body.ptr : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len);
    }
}

/* ---- the call ---- */

/* For a unix socket libcurl would speak of localhost and port 80. */
static void print_unreachable(const struct transfer *transfer, const struct ctl_options *options, const char *error)
{
    CURL *curl = transfer->curl;
    long os_error = 0;
    if (transfer->call->base) {
        ctl_error("cannot reach %s: %s", transfer->call->base, error);
        return;
    }
    bool is_unix = slice_has_prefix(slice_str(options->control), SLICE("unix:"));
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
    ctl_error("cannot reach the gateway at %s: %s\n  Check that it runs; --control or $GATEWAY_CONTROL says where.",
              options->control, is_unix && os_error != 0 ? strerror((int)os_error) : error);
}

/* As curl_easy_perform, but that two descriptors of the caller's are watched too. */
static CURLcode perform_watched(CURL *curl, const struct ctl_call *call)
{
    CURLM *multi = curl_multi_init();
    CURLcode code = CURLE_ABORTED_BY_CALLBACK;
    int running = 1, rest;
    bool goes_on = true;
    if (!multi || curl_multi_add_handle(multi, curl) != CURLM_OK)
        abort();
    while (running > 0 && goes_on) {
        struct curl_waitfd fds[] = {{.fd = call->watch_fds[0], .events = CURL_WAIT_POLLIN},
                                    {.fd = call->watch_fds[1], .events = CURL_WAIT_POLLIN}};
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            break;
        if (running > 0)
            curl_multi_poll(multi, fds, 2, POLL_MS, NULL);
        goes_on = call->watch(call->watch_arg);
    }
    const CURLMsg *message = curl_multi_info_read(multi, &rest);
    if (running == 0 && message)
        code = message->data.result;
    curl_multi_remove_handle(multi, curl);
    curl_multi_cleanup(multi);
    return code;
}

static enum ctl_exit perform(CURL *curl, const struct ctl_options *options, struct transfer *transfer)
{
    char error[CURL_ERROR_SIZE] = "";
    long sent_bytes = 0;
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    /* A stream may be slower than a byte a second for as long as nothing happens. */
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, transfer->call->data ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, transfer->call->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, transfer->call->progress || transfer->call->data ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_time);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, transfer);
    CURLcode code = transfer->call->watch ? perform_watched(curl, transfer->call) : curl_easy_perform(curl);
    if (transfer->is_silent)
        snprintf(error, sizeof error, "it is silent");
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &transfer->reply->status);
    curl_easy_getinfo(curl, CURLINFO_REQUEST_SIZE, &sent_bytes);
    transfer->reply->is_sent = sent_bytes > 0;
    if (code == CURLE_ABORTED_BY_CALLBACK && transfer->call->watch)
        return CTL_OK;
    if (transfer->is_given_up)
        return CTL_USAGE;
    /* The gateway may refuse an upload before it has read all of it: the answer is what counts. */
    if (code != CURLE_OK && !(code == CURLE_SEND_ERROR && transfer->reply->status >= 400)) {
        if (transfer->write_error || transfer->read_error) {
            ctl_error("cannot %s: %s", transfer->write_error ? "write" : "read the input",
                      strerror(transfer->write_error ? transfer->write_error : transfer->read_error));
            return CTL_USAGE;
        }
        if (!transfer->call->quiet)
            print_unreachable(transfer, options, error[0] ? error : curl_easy_strerror(code));
        return CTL_UNREACHABLE;
    }
    return transfer->reply->status / 100 == 2 ? CTL_OK : CTL_REFUSED;
}

enum ctl_exit ctl_http_try(const struct ctl_options *options, const struct ctl_call *call, struct ctl_reply *ret_reply)
{
    struct curl_slist *headers = NULL;
    CURL *curl = curl_easy_init();
    struct transfer transfer = {.curl = curl, .call = call, .reply = ret_reply};
    if (!curl)
        abort();
    *ret_reply = (struct ctl_reply){.status = 0};
    grow(ret_reply, "", 0);
    enum ctl_exit result = call->base ? set_base(curl, options, call) : set_target(curl, options, call->path);
    if (result == CTL_OK) {
        set_headers(options, call, &headers);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        set_body(curl, &transfer);
        result = perform(curl, options, &transfer);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return result;
}

static void print_member(const json_t *problem, const char *key)
{
    const char *text = ctl_string(problem, key);
    if (!*text)
        return;
    fprintf(stderr, "  %s: %*s", key, (int)(strlen("advice") - strlen(key)), "");
    ctl_put_text(stderr, text, SIZE_MAX);
    fputc('\n', stderr);
}

void ctl_http_print_problem(const struct ctl_options *options, const struct ctl_reply *reply)
{
    json_t *problem = json_loadb(reply->body, reply->len, 0, NULL);
    if (!json_is_object(problem)) {
        ctl_error("the gateway answered %ld: %.500s", reply->status, reply->body);
    } else if (options->json) {
        json_dumpf(problem, stderr, JSON_COMPACT | ctl_json_flags(stderr));
        fputc('\n', stderr);
    } else {
        ctl_error("refused: %s", ctl_string(problem, "detail"));
        fprintf(stderr, "  code:   %s (%ld)\n", ctl_string(problem, "code"), reply->status);
        print_member(problem, "field");
        print_member(problem, "advice");
    }
    json_decref(problem);
}

enum ctl_exit ctl_http_call(const struct ctl_options *options, const struct ctl_call *call, struct ctl_reply *ret_reply)
{
    enum ctl_exit result = ctl_http_try(options, call, ret_reply);
    if (result == CTL_REFUSED)
        ctl_http_print_problem(options, ret_reply);
    return result;
}

void ctl_reply_free(struct ctl_reply *reply)
{
    free(reply->body);
    *reply = (struct ctl_reply){.status = 0};
}

json_t *ctl_reply_json(const struct ctl_reply *reply)
{
    json_t *json = json_loadb(reply->body, reply->len, 0, NULL);
    if (!json)
        ctl_error("the answer is not JSON; is this the control socket of the gateway? It begins: %.100s", reply->body);
    return json;
}

char *ctl_http_encode(const char *text)
{
    char *encoded = malloc(strlen(text) * 3 + 1);
    char *out = encoded;
    if (!encoded)
        abort();
    for (; *text; text++) {
        char lower = ascii_lower(*text);
        if ((lower >= 'a' && lower <= 'z') || ascii_is_digit(*text) || strchr("-._~", *text))
            *out++ = *text;
        else
            out += sprintf(out, "%%%02X", (unsigned char)*text);
    }
    *out = '\0';
    return encoded;
}

enum ctl_exit ctl_http_json(const struct ctl_options *options, const struct ctl_call *call, json_t **ret_json)
{
    struct ctl_reply reply;
    enum ctl_exit result = ctl_http_call(options, call, &reply);
    *ret_json = result == CTL_OK ? ctl_reply_json(&reply) : NULL;
    ctl_reply_free(&reply);
    return result == CTL_OK && !*ret_json ? CTL_UNREACHABLE : result;
}

enum ctl_exit ctl_http_show(const struct ctl_options *options, const char *path)
{
    json_t *json;
    enum ctl_exit result = ctl_http_json(options, &(struct ctl_call){.method = "GET", .path = path}, &json);
    if (json) {
        json_dumpf(json, stdout, (options->json ? JSON_COMPACT : JSON_INDENT(2)) | ctl_json_flags(stdout));
        putchar('\n');
    }
    json_decref(json);
    return result;
}

char *ctl_app_path(const char *app_id)
{
    char *path;
    char *encoded = ctl_http_encode(app_id);
    if (asprintf(&path, "/v1/apps/%s", encoded) < 0)
        abort();
    free(encoded);
    return path;
}
