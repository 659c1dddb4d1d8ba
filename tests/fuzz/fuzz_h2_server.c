/* Bytes of a client into an HTTP/2 server whose owner echoes bodies. The first byte is the size of the pieces. */
#include "gateway/mux/h2_mux.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PIECES = 64, LAST_TURNS = 8 };

struct exchange {
    struct endpoint *endpoint;
    struct arena arena;
    bool answered;
};

static struct counters counters;
static struct loop *loop;
static bool is_closed;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void finish(struct exchange *x, enum status status)
{
    x->endpoint->ops->release(&x->endpoint, status);
    arena_reset(&x->arena);
    free(x);
}

static void answer(struct exchange *x, int status)
{
    struct message_head head = {.status = status, .version = HTTP_1_1, .body = BODY_CHUNKED};
    x->answered = true;
    x->endpoint->ops->send_head(x->endpoint, &head, false);
}

static void on_head(void *owner, const struct message_head *head, bool end)
{
    struct exchange *x = owner;
    const struct fields trailers = FIELDS_NONE;
    if (head->upgrade.len > 0) {
        struct message_head tunnel = {.status = 101, .version = HTTP_1_1, .body = BODY_RAW};
        x->endpoint->ops->send_head(x->endpoint, &tunnel, false);
        return;
    }
    answer(x, 200);
    if (!end)
        return;
    x->endpoint->ops->send_trailers(x->endpoint, &trailers);
    finish(x, STATUS_OK);
}

static void on_body(void *owner, const char *data, size_t len, bool end)
{
    struct exchange *x = owner;
    x->endpoint->ops->send_body(x->endpoint, data, len, end);
    if (x->endpoint->ops->room(x->endpoint) > 0 && len % 3 > 0)
        x->endpoint->ops->credit(x->endpoint, len);
    if (end)
        finish(x, STATUS_OK);
}

static void on_trailers(void *owner, const struct fields *trailers)
{
    struct exchange *x = owner;
    x->endpoint->ops->send_trailers(x->endpoint, trailers);
    finish(x, STATUS_OK);
}

static void on_room(void *owner)
{
    (void)owner;
}

static void on_malformed(void *owner, enum status status, const struct message_head *head)
{
    struct exchange *x = owner;
    (void)head;
    if (x->answered) {
        finish(x, status);
        return;
    }
    answer(x, 400);
    x->endpoint->ops->send_body(x->endpoint, "bad", 3, true);
    finish(x, STATUS_OK);
}

static void on_reset(void *owner, enum status status)
{
    finish(owner, status);
}

static const struct endpoint_events endpoint_events = {.head = on_head,
                                                       .body = on_body,
                                                       .trailers = on_trailers,
                                                       .room = on_room,
                                                       .malformed = on_malformed,
                                                       .reset = on_reset};

static void on_request(void *owner, struct endpoint *endpoint)
{
    (void)owner;
    struct exchange *x = calloc(1, sizeof *x);
    x->endpoint = endpoint;
    arena_init(&x->arena, &loop->arenas);
    endpoint_bind(endpoint, &endpoint_events, x, &x->arena);
}

static void on_idle(void *owner)
{
    (void)owner;
}

static void on_closed(void *owner, enum status status)
{
    (void)owner, (void)status;
    is_closed = true;
}

static const struct mux_events mux_events = {.request = on_request, .idle = on_idle, .closed = on_closed};
static const struct stream_events no_events;
static const struct mux_settings settings = {
    .request_limits = {.max_head_bytes = 1024, .max_target_bytes = 100, .max_fields = 10},
    .head_ms = 10000,
    .keepalive_ms = 10000,
    .body_idle_ms = 10000,
    .send_stall_ms = 10000,
};

static void turn(int peer)
{
    char drop[4096];
    loop_turn(loop, 0);
    while (recv(peer, drop, sizeof drop, MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    struct ip_addr addr = {.family = 0};
    if (size < 2)
        return 0;
    if (!loop)
        loop = loop_new(&counters);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
    is_closed = false;
    struct stream *stream = stream_accept(loop, pair[1], &addr, 1, NULL, 0, &no_events, NULL);
    struct mux *mux = h2_mux_server(stream, &settings, &mux_events, NULL);
    size_t piece = 1 + data[0] * 8U;
    for (size_t at = 1, i = 0; at < size && i < MAX_PIECES && !is_closed; at += piece, i++) {
        (void)!send(pair[0], data + at, piece < size - at ? piece : size - at, MSG_NOSIGNAL);
        turn(pair[0]);
    }
    for (int i = 0; i < LAST_TURNS && !is_closed; i++)
        turn(pair[0]);
    if (!is_closed && data[1] & 2) {
        mux->ops->drain(mux);
        turn(pair[0]);
    }
    if (!is_closed)
        mux->ops->close(mux, data[1] & 1 ? STATUS_SHUTDOWN : STATUS_EVICTED);
    while (!is_closed)
        turn(pair[0]);
    close(pair[0]);
    for (int i = 0; i < 2; i++)
        loop_turn(loop, 0);
    return 0;
}
