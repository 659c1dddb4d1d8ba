/*
 * mux_fixture: an h1 mux over a socket, with an owner that writes down the events of its endpoint as text and sends
 * what the test tells it to.
 */
#ifndef TESTS_UNIT_MUX_MUX_FIXTURE_H
#define TESTS_UNIT_MUX_MUX_FIXTURE_H

#include "gateway/mux/h1_mux.h"

#include "net/sockets.h"

struct mux_fixture {
    struct counters counters;
    struct loop *loop;
    struct mux_settings settings;
    struct mux *mux; /* NULL when it is closed */
    struct endpoint *endpoint;
    struct arena arena;
    int peer;
    struct inbox inbox;  /* of the peer */
    struct inbox events; /* "head GET /;body abc;end;" … */
    size_t uncredited;
    bool credits; /* at once */
    int requests;
    int idles;
    int rooms;
    bool closed;
    enum status closed_status;
    enum status status;       /* of malformed or reset */
    struct message_head head; /* the last one */
    /* A server that answers by itself when a request is complete. */
    void (*on_complete)(struct mux_fixture *f);
};

static inline void note(struct mux_fixture *f, const char *what, struct slice detail)
{
    inbox_add(&f->events, what, strlen(what));
    if (detail.len > 0) {
        inbox_add(&f->events, " ", 1);
        inbox_add(&f->events, detail.ptr, detail.len);
    }
    inbox_add(&f->events, ";", 1);
}

static inline void release(struct mux_fixture *f, enum status status)
{
    f->endpoint->ops->release(&f->endpoint, status);
    assert_null(f->endpoint);
    arena_reset(&f->arena); /* heads of the released message are gone: the sanitizer sees who still looks */
    f->uncredited = 0;
}

static inline void complete(struct mux_fixture *f, bool end)
{
    if (!end)
        return;
    note(f, "end", SLICE_NONE);
    if (f->on_complete)
        f->on_complete(f);
}

static inline void on_head(void *owner, const struct message_head *head, bool end)
{
    struct mux_fixture *f = owner;
    char status[8];
    f->head = *head;
    snprintf(status, sizeof status, "%d", head->status);
    note(f, "head", head_is_request(head) ? head->target : slice_str(status));
    complete(f, end);
}

static inline void on_body(void *owner, const char *data, size_t len, bool end)
{
    struct mux_fixture *f = owner;
    if (len > 0)
        note(f, "body", slice_make(data, len < 100 ? len : 3));
    f->uncredited += len;
    if (f->credits && f->endpoint && len > 0) {
        f->endpoint->ops->credit(f->endpoint, len);
        f->uncredited = 0;
    }
    complete(f, end);
}

static inline void on_trailers(void *owner, const struct fields *trailers)
{
    struct mux_fixture *f = owner;
    note(f, "trailers", trailers->items[0].value);
    complete(f, true);
}

static inline void on_endpoint_room(void *owner)
{
    struct mux_fixture *f = owner;
    f->rooms++;
}

static inline void send_answer(struct mux_fixture *f, int status, const char *body)
{
    struct message_head head = {.status = status, .version = HTTP_1_1, .body = BODY_LENGTH, .has_content_length = true};
    head.content_length = strlen(body);
    bool none = body[0] == '\0' || f->head.method == METHOD_HEAD;
    if (none)
        head.body = BODY_NONE;
    f->endpoint->ops->send_head(f->endpoint, &head, none);
    if (!none)
        f->endpoint->ops->send_body(f->endpoint, body, strlen(body), true);
}

static inline void answer_ok(struct mux_fixture *f)
{
    send_answer(f, 200, "ok");
    release(f, STATUS_OK);
}

static inline void on_malformed(void *owner, enum status status, const struct message_head *head)
{
    struct mux_fixture *f = owner;
    f->status = status;
    note(f, "malformed", head->target);
    send_answer(f, status_http(status), "bad");
    release(f, STATUS_OK);
}

static inline void on_reset(void *owner, enum status status)
{
    struct mux_fixture *f = owner;
    f->status = status;
    note(f, "reset", SLICE_NONE);
    release(f, status);
}

static const struct endpoint_events endpoint_events = {.head = on_head,
                                                       .body = on_body,
                                                       .trailers = on_trailers,
                                                       .room = on_endpoint_room,
                                                       .malformed = on_malformed,
                                                       .reset = on_reset};

static inline void on_request(void *owner, struct endpoint *endpoint)
{
    struct mux_fixture *f = owner;
    assert_null(f->endpoint);
    f->requests++;
    f->endpoint = endpoint;
    f->head = (struct message_head){.status = 0};
    endpoint_bind(endpoint, &endpoint_events, f, &f->arena);
}

static inline void on_idle(void *owner)
{
    struct mux_fixture *f = owner;
    assert_null(f->endpoint);
    f->idles++;
}

static inline void on_closed(void *owner, enum status status)
{
    struct mux_fixture *f = owner;
    assert_null(f->endpoint);
    f->closed = true;
    f->closed_status = status;
    f->mux = NULL;
}

static const struct mux_events test_mux_events = {.request = on_request, .idle = on_idle, .closed = on_closed};

static const struct stream_events no_stream_events;

static inline struct mux_fixture *fixture_new(void)
{
    struct mux_fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    signal(SIGPIPE, SIG_IGN);
    f->loop = loop_new(&f->counters);
    f->credits = true;
    f->peer = -1;
    arena_init(&f->arena, &f->loop->arenas);
    f->settings = (struct mux_settings){
        .request_limits = {.max_head_bytes = 4096, .max_target_bytes = 1024, .max_fields = 20},
        .response_limits = {.max_head_bytes = 4096, .max_target_bytes = 1024, .max_fields = 20},
        .head_ms = 10000,
        .keepalive_ms = 10000,
        .body_idle_ms = 10000,
        .body_min_rate = 0,
        .send_stall_ms = 10000,
        .silent_ms = 10000,
    };
    return f;
}

static inline void fixture_open(struct mux_fixture *f, bool server)
{
    int pair[2];
    struct ip_addr addr = loopback_ip();
    tcp_pair(pair);
    f->peer = pair[0];
    struct stream *stream = stream_accept(f->loop, pair[1], &addr, 1, NULL, 0, &no_stream_events, NULL);
    f->mux = server ? h1_mux_server(stream, &f->settings, &test_mux_events, f)
                    : h1_mux_client(stream, &f->settings, &test_mux_events, f);
}

static inline int fixture_tear_down(void **state)
{
    struct mux_fixture *f = *state;
    if (f->mux)
        f->mux->ops->close(f->mux, STATUS_SHUTDOWN);
    TURN_UNTIL(f->loop, !f->mux);
    if (f->peer >= 0)
        close(f->peer);
    inbox_clear(&f->inbox);
    inbox_clear(&f->events);
    arena_reset(&f->arena);
    loop_free(&f->loop);
    free(f);
    return 0;
}

#define AWAIT_EVENT(f, text) TURN_UNTIL((f)->loop, (f)->events.bytes &&strstr((f)->events.bytes, text))
#define AWAIT_PEER(f, text)  TURN_UNTIL((f)->loop, inbox_has(&(f)->inbox, (f)->peer, text))
#define AWAIT_OVER(f)        TURN_UNTIL((f)->loop, inbox_is_over(&(f)->inbox, (f)->peer))

#endif
