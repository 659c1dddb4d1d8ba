/* Bytes of a client into an HTTP/2 server whose owner echoes bodies. The first byte is the size of the pieces. */
#include "h2_fuzz.h"

struct exchange {
    struct endpoint *endpoint;
    struct arena arena;
    bool answered;
};

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
    arena_init(&x->arena, &h2_fuzz.loop->arenas);
    endpoint_bind(endpoint, &endpoint_events, x, &x->arena);
}

static const struct mux_events mux_events = {.request = on_request, .idle = h2_fuzz_idle, .closed = h2_fuzz_closed};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    h2_fuzz_open(true, &mux_events);
    h2_fuzz_feed(data, size);
    if (h2_fuzz.mux && data[1] & 2) {
        h2_fuzz.mux->ops->drain(h2_fuzz.mux);
        h2_fuzz_turn();
    }
    h2_fuzz_close(data[1] & 1 ? STATUS_SHUTDOWN : STATUS_EVICTED);
    return 0;
}
