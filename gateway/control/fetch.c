#include "gateway/control/fetch.h"

#include "gateway/control/text_file.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    MAX_EVENTS = 16,
    MAX_IDLE_CONNECTIONS = 4,
    BUFFER_BYTES = 65536,
    KEEPALIVE_SECONDS = 15,
    TURN_BYTES = 2 * BUFFER_BYTES, /* of one fetch in one turn: libcurl would take megabytes at once */
};

struct fetcher {
    struct loop *loop;
    CURLM *multi;
    int epoll_fd; /* libcurl's sockets and wake_fd; the loop watches it as one descriptor */
    int wake_fd;  /* there is something for `advance` to do */
    struct loop_watch *watch;
    struct timer timer; /* libcurl's */
    bool timer_is_due;
    struct list live;
    struct list ended; /* told or cancelled; freed by `advance` */
};

struct fetch {
    struct list link;
    struct fetcher *fetcher;
    CURL *easy;
    struct curl_slist *fields; /* may hold a token, as `body` a password: both are wiped */
    char *body;                /* libcurl reads it here; NULL: none, or empty */
    size_t body_len;
    const struct fetch_events *events;
    void *arg;
    struct timer idle;
    uint32_t idle_ms;
    bool added;     /* to the multi handle */
    bool over;      /* told or cancelled: no event any more */
    bool head_told; /* of the final response */
    bool paused;
    size_t turn_bytes;
    bool held;                        /* libcurl keeps data back, because we did not take it when it came */
    bool is_unix;                     /* libcurl's own texts would speak of localhost */
    char unusable[CURL_ERROR_SIZE];   /* why it can't even begin */
    char curl_error[CURL_ERROR_SIZE]; /* written by libcurl */
};

static void wake(struct fetcher *fetcher)
{
    uint64_t one = 1;
    ssize_t n = write(fetcher->wake_fd, &one, sizeof one);
    (void)n; /* a full counter wakes as well */
}

/* ---- the end of a fetch ---- */

static void retire(struct fetch *f)
{
    f->over = true;
    list_remove(&f->link);
    list_push(&f->fetcher->ended, &f->link);
    timer_forget(&f->idle);
    wake(f->fetcher);
}

static void tell(struct fetch *f, enum fetch_end end, const char *text)
{
    long status = 0;
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    struct fetch_result result = {.end = end, .status = f->head_told ? (int)status : 0, .text = text};
    retire(f);
    f->events->done(f->arg, &result);
}

static void wipe_request(struct fetch *f)
{
    for (struct curl_slist *field = f->fields; field; field = field->next)
        explicit_bzero(field->data, strlen(field->data));
    curl_slist_free_all(f->fields);
    if (f->body)
        explicit_bzero(f->body, f->body_len);
    free(f->body);
}

static void free_fetch(struct fetch *f)
{
    list_remove(&f->link);
    timer_forget(&f->idle);
    if (f->added)
        curl_multi_remove_handle(f->fetcher->multi, f->easy);
    curl_easy_cleanup(f->easy);
    wipe_request(f);
    free(f);
}

static void on_idle(struct timer *timer)
{
    struct fetch *f = CONTAINER_OF(timer, struct fetch, idle);
    char text[64];
    snprintf(text, sizeof text, "no byte came for %u ms", f->idle_ms);
    tell(f, FETCH_SILENT, text);
}

static enum fetch_end end_of(const struct fetch *f, CURLcode code)
{
    double connected = 0;
    curl_easy_getinfo(f->easy, CURLINFO_PRETRANSFER_TIME, &connected);
    if (code == CURLE_OK && f->head_told)
        return FETCH_COMPLETE;
    return connected > 0 ? FETCH_BROKEN : FETCH_UNREACHABLE;
}

/* For a unix socket libcurl would speak of localhost and port 80. */
static const char *text_of(const struct fetch *f, CURLcode code)
{
    long os_error = 0;
    curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &os_error);
    if (code == CURLE_OK)
        return f->head_told ? "" : "the response ended within its head"; /* libcurl does not mind */
    if (f->is_unix && code == CURLE_COULDNT_CONNECT && os_error != 0)
        return strerror((int)os_error);
    return f->curl_error[0] ? f->curl_error : curl_easy_strerror(code);
}

static void tell_finished(struct fetcher *fetcher)
{
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(fetcher->multi, &left))) {
        struct fetch *f = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &f);
        if (!f->over)
            tell(f, end_of(f, code), text_of(f, code));
    }
}

/* ---- what is to be done outside of libcurl's callbacks ---- */

static void begin(struct fetch *f)
{
    if (f->unusable[0]) {
        tell(f, FETCH_UNREACHABLE, f->unusable);
        return;
    }
    f->added = true;
    if (curl_multi_add_handle(f->fetcher->multi, f->easy) != CURLM_OK)
        abort();
}

/* Starts, resumes and frees. What it tells may start and cancel other fetches: they come in another turn. */
static void advance(struct fetcher *fetcher)
{
    struct list work;
    list_init(&work);
    while (!list_is_empty(&fetcher->ended))
        free_fetch(CONTAINER_OF(fetcher->ended.next, struct fetch, link));
    while (!list_is_empty(&fetcher->live))
        list_push(&work, list_pop(&fetcher->live));
    while (!list_is_empty(&work)) {
        struct fetch *f = CONTAINER_OF(list_pop(&work), struct fetch, link);
        list_push(&fetcher->live, &f->link);
        f->turn_bytes = 0;
        if (!f->added) {
            begin(f);
        } else if (f->held && !f->paused) {
            f->held = false;
            curl_easy_pause(f->easy, CURLPAUSE_CONT);
        }
    }
}

static void drive(struct fetcher *fetcher, int fd, int what)
{
    int running;
    curl_multi_socket_action(fetcher->multi, fd, what, &running);
    tell_finished(fetcher);
}

static void on_ready(void *arg)
{
    struct fetcher *fetcher = arg;
    struct epoll_event events[MAX_EVENTS];
    int count = epoll_wait(fetcher->epoll_fd, events, MAX_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        uint32_t got = events[i].events;
        if (events[i].data.fd == fetcher->wake_fd) {
            uint64_t value;
            ssize_t n = read(fetcher->wake_fd, &value, sizeof value);
            (void)n;
            continue;
        }
        int what = (got & EPOLLIN ? CURL_CSELECT_IN : 0) | (got & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (got & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
        drive(fetcher, events[i].data.fd, what);
    }
    if (fetcher->timer_is_due) {
        fetcher->timer_is_due = false;
        drive(fetcher, CURL_SOCKET_TIMEOUT, 0);
    }
    advance(fetcher);
}

static void on_timer(struct timer *timer)
{
    drive(CONTAINER_OF(timer, struct fetcher, timer), CURL_SOCKET_TIMEOUT, 0);
}

/* ---- libcurl's callbacks: nothing here may call libcurl but for information ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
    const struct fetcher *fetcher = arg;
    struct epoll_event event = {.data.fd = fd};
    (void)easy;
    (void)unused;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(fetcher->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U);
    if (epoll_ctl(fetcher->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 &&
        epoll_ctl(fetcher->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        abort();
    return 0;
}

static int on_timer_wanted(CURLM *multi, long ms, void *arg)
{
    struct fetcher *fetcher = arg;
    (void)multi;
    timer_disarm(&fetcher->timer);
    fetcher->timer_is_due = ms == 0;
    if (ms == 0)
        wake(fetcher);
    else if (ms > 0)
        loop_timer_arm(fetcher->loop, &fetcher->timer, (uint64_t)ms);
    return 0;
}

static struct slice field(const struct fetch *f, const char *name)
{
    struct curl_header *header;
    if (curl_easy_header(f->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return SLICE_NONE;
    return slice_str(header->value);
}

static size_t on_field(char *line, size_t size, size_t count, void *arg)
{
    struct fetch *f = arg;
    long status = 0;
    size_t len = size * count;
    bool is_last = len > 0 && (line[0] == '\r' || line[0] == '\n');
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    if (f->over)
        return 0;
    loop_timer_arm(f->fetcher->loop, &f->idle, f->idle_ms);
    if (!is_last || status < 200 || f->head_told)
        return len;
    struct fetch_head head = {
        .status = (int)status,
        .etag = field(f, "ETag"),
        .content_type = field(f, "Content-Type"),
        .is_delimited = field(f, "Transfer-Encoding").len > 0 || field(f, "Content-Length").len > 0,
    };
    f->head_told = true;
    f->events->head(f->arg, &head);
    return f->over ? 0 : len;
}

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct fetch *f = arg;
    size_t len = size * count;
    if (f->over)
        return 0;
    if (f->paused || f->turn_bytes >= TURN_BYTES) {
        f->held = true;
        wake(f->fetcher);
        return CURL_WRITEFUNC_PAUSE;
    }
    f->turn_bytes += len;
    loop_timer_arm(f->fetcher->loop, &f->idle, f->idle_ms);
    f->events->data(f->arg, slice_make(data, len));
    return f->over ? 0 : len;
}

/* ---- a request ---- */

static void add_field(struct fetch *f, const char *line)
{
    struct curl_slist *list = curl_slist_append(f->fields, line);
    if (!list)
        abort();
    f->fields = list;
}

static bool names_content_type(const char *const *fields)
{
    for (; fields && *fields; fields++)
        if (slice_eq_nocase(slice_make(*fields, strcspn(*fields, ":")), SLICE("Content-Type")))
            return true;
    return false;
}

static void add_token(struct fetch *f, const char *path)
{
    struct slice token;
    char error[TEXT_FILE_ERROR_TEXT_MAX], *line;
    if (text_file_token(path, &token, error) != STATUS_OK) {
        snprintf(f->unusable, sizeof f->unusable, "token_file %.200s", error);
        return;
    }
    if (asprintf(&line, "Authorization: Bearer %.*s", SLICE_ARG(token)) < 0)
        abort();
    add_field(f, line);
    explicit_bzero(line, strlen(line));
    free(line);
    text_file_wipe(&token);
}

static void set_fields(struct fetch *f, const struct fetch_request *request)
{
    for (const char *const *line = request->fields; line && *line; line++)
        add_field(f, *line);
    add_field(f, "Expect:"); /* no 100-continue, which some servers let wait */
    if (request->has_body && !names_content_type(request->fields))
        add_field(f, "Content-Type: application/json");
    if (request->token_file)
        add_token(f, request->token_file);
    curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->fields);
}

static void set_tls(CURL *easy, const struct fetch_tls *tls)
{
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
    curl_easy_setopt(easy, CURLOPT_KEYPASSWD, ""); /* else OpenSSL would ask at the terminal */
    if (tls->ca) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, tls->ca);
        curl_easy_setopt(easy, CURLOPT_CAPATH, (char *)NULL);
    }
    if (tls->certificate)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->certificate);
    if (tls->private_key)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->private_key);
}

static void set_body(struct fetch *f, struct slice body)
{
    f->body_len = body.len;
    if (body.len > 0) {
        f->body = malloc(body.len);
        if (!f->body)
            abort();
        memcpy(f->body, body.ptr, body.len);
    }
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDS, f->body ? f->body : "");
}

static void set_request(struct fetch *f, const struct fetch_request *request)
{
    curl_easy_setopt(f->easy, CURLOPT_URL, request->url);
    curl_easy_setopt(f->easy, CURLOPT_CUSTOMREQUEST, request->method);
    if (request->unix_socket)
        curl_easy_setopt(f->easy, CURLOPT_UNIX_SOCKET_PATH, request->unix_socket);
    if (request->has_body)
        set_body(f, request->body);
    else if (strcmp(request->method, "HEAD") == 0)
        curl_easy_setopt(f->easy, CURLOPT_NOBODY, 1L);
    set_fields(f, request);
    set_tls(f->easy, &request->tls);
}

/* What is the same for all. */
static void set_habits(struct fetch *f, const struct fetch_request *request)
{
    curl_easy_setopt(f->easy, CURLOPT_PRIVATE, f);
    curl_easy_setopt(f->easy, CURLOPT_ERRORBUFFER, f->curl_error);
    curl_easy_setopt(f->easy, CURLOPT_HEADERFUNCTION, on_field);
    curl_easy_setopt(f->easy, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(f->easy, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(f->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(f->easy, CURLOPT_USERAGENT, "phala-gateway/" GW_VERSION);
    curl_easy_setopt(f->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(f->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(f->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(f->easy, CURLOPT_TCP_KEEPALIVE, 1L); /* a stream may be silent for minutes */
    curl_easy_setopt(f->easy, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_SECONDS);
    curl_easy_setopt(f->easy, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_SECONDS);
    curl_easy_setopt(f->easy, CURLOPT_QUICK_EXIT, 1L); /* a cancelled name look-up must not be waited for */
    curl_easy_setopt(f->easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(f->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)request->connect_ms);
}

struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_request *request,
                          const struct fetch_events *events, void *arg)
{
    struct fetch *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    *f = (struct fetch){
        .fetcher = fetcher,
        .easy = curl_easy_init(),
        .events = events,
        .arg = arg,
        .idle_ms = request->idle_ms,
        .is_unix = request->unix_socket != NULL,
    };
    if (!f->easy)
        abort();
    timer_init(&f->idle, on_idle);
    list_init(&f->link);
    list_push(&fetcher->live, &f->link);
    set_habits(f, request);
    set_request(f, request);
    loop_timer_arm(fetcher->loop, &f->idle, (uint64_t)request->connect_ms + request->idle_ms);
    wake(fetcher);
    return f;
}

void fetch_cancel(struct fetch **fetch)
{
    if (*fetch)
        retire(*fetch);
    *fetch = NULL;
}

void fetch_pause(struct fetch *f)
{
    f->paused = true;
    timer_disarm(&f->idle);
}

void fetch_resume(struct fetch *f)
{
    if (!f->paused)
        return;
    f->paused = false;
    loop_timer_arm(f->fetcher->loop, &f->idle, f->idle_ms);
    wake(f->fetcher);
}

/* ---- life ---- */

static void init_library(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
}

struct fetcher *fetcher_new(struct loop *loop)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_library);
    struct fetcher *fetcher = calloc(1, sizeof *fetcher);
    if (!fetcher)
        abort();
    fetcher->loop = loop;
    fetcher->multi = curl_multi_init();
    fetcher->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    fetcher->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fetcher->wake_fd};
    if (!fetcher->multi || fetcher->epoll_fd < 0 || fetcher->wake_fd < 0 ||
        epoll_ctl(fetcher->epoll_fd, EPOLL_CTL_ADD, fetcher->wake_fd, &event) < 0)
        abort();
    list_init(&fetcher->live);
    list_init(&fetcher->ended);
    timer_init(&fetcher->timer, on_timer);
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAXCONNECTS, (long)MAX_IDLE_CONNECTIONS);
    fetcher->watch = loop_watch_new(loop, fetcher->epoll_fd, on_ready, fetcher);
    return fetcher;
}

static void free_all(struct list *list)
{
    while (!list_is_empty(list))
        free_fetch(CONTAINER_OF(list->next, struct fetch, link));
}

void fetcher_free(struct fetcher **fetcher_ptr)
{
    struct fetcher *fetcher = *fetcher_ptr;
    if (!fetcher)
        return;
    *fetcher_ptr = NULL;
    free_all(&fetcher->live);
    free_all(&fetcher->ended);
    curl_multi_cleanup(fetcher->multi);
    timer_forget(&fetcher->timer);
    loop_watch_free(&fetcher->watch);
    close(fetcher->wake_fd);
    close(fetcher->epoll_fd);
    free(fetcher);
}
