/* Bytes of an instance into an HTTP/2 client with a few requests. The first byte is the size of the pieces. */
#include "h2_fuzz.h"

enum { REQUESTS = 5 };

struct call {
    struct endpoint *endpoint;
    struct arena arena;
};

static unsigned load;
static unsigned requests;

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
    struct mux *mux = h2_fuzz.mux;
    struct endpoint *endpoint = kind % 2 ? mux->ops->open(mux) : h2_mux_client_queue(mux);
    if (!endpoint)
        return;
    struct call *call = calloc(1, sizeof *call);
    call->endpoint = endpoint;
    requests++;
    arena_init(&call->arena, &h2_fuzz.loop->arenas);
    endpoint_bind(endpoint, &endpoint_events, call, &call->arena);
    endpoint->ops->send_head(endpoint, head, head->body == BODY_NONE);
    if (head->body != BODY_NONE)
        endpoint->ops->send_body(endpoint, "body", 4, kind % REQUESTS == 3);
}

static const struct mux_events mux_events = {.idle = h2_fuzz_idle, .closed = h2_fuzz_closed};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    h2_fuzz_open(false, &mux_events);
    h2_fuzz.mux->load = &load;
    requests = 0;
    for (unsigned i = 0; i < REQUESTS; i++)
        begin(i);
    h2_fuzz_feed(data, size);
    h2_fuzz_close(data[1] & 1 ? STATUS_SHUTDOWN : STATUS_ADDRESS_REVOKED);
    if (load != 0)
        abort();
    return 0;
}
