/* Bytes of an instance into an HTTP/2 client with a few requests. The first byte is the size of the pieces. */
#include "gateway/mux/h2_mux.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PIECES = 64, LAST_TURNS = 8, REQUESTS = 5 };

struct call {
    struct endpoint *endpoint;
    struct arena arena;
};

static struct counters counters;
static struct loop *loop;
static struct mux *mux; /* NULL when it is closed */
static unsigned load;
static unsigned requests;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void begin(unsigned kind);

static void finish(struct call *call, enum status status)
{
    call->endpoint->ops->release(&call->endpoint, status);
    arena_reset(&call->arena);
    free(call);
}

static void on_head(void *owner, const struct message_head *head, bool end)
{
    struct call *call = owner;
    if (head->status < 100 || (end && head->body == BODY_CHUNKED))
        abort();
    if (head->body == BODY_RAW) {
        call->endpoint->ops->send_body(call->endpoint, "up", 2, false);
        call->endpoint->ops->send_body(call->endpoint, NULL, 0, true);
    }
    if (end)
        finish(call, STATUS_OK);
}

static void on_body(void *owner, const char *data, size_t len, bool end)
{
    struct call *call = owner;
    (void)data;
    if (len % 3 > 0)
        call->endpoint->ops->credit(call->endpoint, len);
    if (end)
        finish(call, STATUS_OK);
}

static void on_trailers(void *owner, const struct fields *trailers)
{
    if (trailers->count == 0)
        abort();
    finish(owner, STATUS_OK);
}

static void on_room(void *owner)
{
    (void)owner;
}

/* Another request takes its place, unless the connection ends. */
static void on_reset(void *owner, enum status status)
{
    finish(owner, status);
    if (requests < REQUESTS * 2)
        begin(requests);
}

static const struct endpoint_events endpoint_events = {
    .head = on_head, .body = on_body, .trailers = on_trailers, .room = on_room, .reset = on_reset};

static void begin(unsigned kind)
{
    static const struct message_head heads[REQUESTS] = {
        {.method = METHOD_GET, .method_text = SLICE_INIT("GET"), .path = SLICE_INIT("/")},
        {.method = METHOD_HEAD, .method_text = SLICE_INIT("HEAD"), .path = SLICE_INIT("/")},
        {.method = METHOD_POST, .method_text = SLICE_INIT("POST"), .path = SLICE_INIT("/"), .body = BODY_CHUNKED},
        {.method = METHOD_POST, .method_text = SLICE_INIT("POST"), .path = SLICE_INIT("/"), .body = BODY_CHUNKED},
        {.method = METHOD_GET,
         .method_text = SLICE_INIT("GET"),
         .path = SLICE_INIT("/"),
         .upgrade = SLICE_INIT("websocket")},
    };
    const struct message_head *head = &heads[kind % REQUESTS];
    struct endpoint *endpoint = mux->ops->open(mux);
    if (!endpoint)
        return;
    struct call *call = calloc(1, sizeof *call);
    call->endpoint = endpoint;
    requests++;
    arena_init(&call->arena, &loop->arenas);
    endpoint_bind(endpoint, &endpoint_events, call, &call->arena);
    endpoint->ops->send_head(endpoint, head, head->body == BODY_NONE);
    if (head->body != BODY_NONE)
        endpoint->ops->send_body(endpoint, "body", 4, kind % REQUESTS == 3);
}

static void on_idle(void *owner)
{
    (void)owner;
}

static void on_closed(void *owner, enum status status)
{
    (void)owner, (void)status;
    mux = NULL;
}

static const struct mux_events mux_events = {.idle = on_idle, .closed = on_closed};
static const struct stream_events no_events;
static const struct mux_settings settings = {
    .response_limits = {.max_head_bytes = 1024, .max_target_bytes = 100, .max_fields = 10},
    .head_ms = 10000,
    .send_stall_ms = 10000,
    .silent_ms = 10000,
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
    struct stream *stream = stream_accept(loop, pair[1], &addr, 1, NULL, 0, &no_events, NULL);
    mux = h2_mux_client(stream, &settings, &mux_events, NULL);
    mux->load = &load;
    requests = 0;
    for (unsigned i = 0; i < REQUESTS; i++)
        begin(i);
    size_t piece = 1 + data[0] * 8U;
    for (size_t at = 1, i = 0; at < size && i < MAX_PIECES && mux; at += piece, i++) {
        (void)!send(pair[0], data + at, piece < size - at ? piece : size - at, MSG_NOSIGNAL);
        turn(pair[0]);
    }
    for (int i = 0; i < LAST_TURNS && mux; i++)
        turn(pair[0]);
    if (mux)
        mux->ops->close(mux, data[1] & 1 ? STATUS_SHUTDOWN : STATUS_ADDRESS_REVOKED);
    while (mux)
        turn(pair[0]);
    if (load != 0)
        abort();
    close(pair[0]);
    for (int i = 0; i < 2; i++)
        loop_turn(loop, 0);
    return 0;
}
