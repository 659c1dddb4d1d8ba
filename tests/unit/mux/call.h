/*
 * call: the owner of an endpoint of a client mux, which writes down its events as text.
 */
#ifndef TESTS_UNIT_MUX_CALL_H
#define TESTS_UNIT_MUX_CALL_H

#include "gateway/mux/endpoint.h"

#include "net/sockets.h"

/* One exchange: the owner of an endpoint. */
struct call {
    struct endpoint *endpoint;
    struct arena arena;
    struct inbox events; /* "head 200;body abc;end;" … */
    struct message_head head;
    enum status status; /* of reset */
    size_t uncredited;
    bool keeps;    /* does not credit */
    bool releases; /* at its end */
    int rooms;
    struct mux *again; /* asked for another endpoint when this one is reset */
    bool got_another;
};

static inline void call_note(struct call *call, const char *what, struct slice detail)
{
    inbox_add(&call->events, what, strlen(what));
    if (detail.len > 0)
        inbox_add(&call->events, " ", 1);
    inbox_add(&call->events, detail.ptr ? detail.ptr : "", detail.len);
    inbox_add(&call->events, ";", 1);
}

static inline void call_release(struct call *call, enum status status)
{
    call->endpoint->ops->release(&call->endpoint, status);
    assert_null(call->endpoint);
    call->uncredited = 0;
    arena_reset(&call->arena);
}

static inline void call_end(struct call *call)
{
    call_note(call, "end", SLICE_NONE);
    if (call->releases)
        call_release(call, STATUS_OK);
}

static inline void call_head(void *owner, const struct message_head *head, bool end)
{
    struct call *call = owner;
    char status[8];
    snprintf(status, sizeof status, "%d", head->status);
    call->head = *head;
    call_note(call, "head", slice_str(status));
    if (end)
        call_end(call);
}

static inline void call_body(void *owner, const char *data, size_t len, bool end)
{
    struct call *call = owner;
    if (len > 0 && len < 100)
        call_note(call, "body", slice_make(data, len));
    call->uncredited += len;
    if (!call->keeps && len > 0) {
        call->endpoint->ops->credit(call->endpoint, len);
        call->uncredited = 0;
    }
    if (end)
        call_end(call);
}

static inline void call_trailers(void *owner, const struct fields *trailers)
{
    struct call *call = owner;
    call_note(call, "trailers", trailers->items[0].value);
    call_end(call);
}

static inline void call_room(void *owner)
{
    struct call *call = owner;
    call->rooms++;
}

static inline void call_reset(void *owner, enum status status)
{
    struct call *call = owner;
    call->status = status;
    call_note(call, "reset", slice_str(status_code(status)));
    call_release(call, status);
    call->got_another = call->again && call->again->ops->open(call->again);
}

static const struct endpoint_events call_events = {
    .head = call_head, .body = call_body, .trailers = call_trailers, .room = call_room, .reset = call_reset};

static inline void call_bind(struct call *call, struct mux *mux, struct endpoint *endpoint)
{
    inbox_clear(&call->events);
    call_note(call, "", SLICE_NONE);
    call->endpoint = endpoint;
    call->status = STATUS_OK;
    call->releases = true;
    arena_init(&call->arena, &stream_loop(mux->stream)->arenas);
    endpoint_bind(endpoint, &call_events, call, &call->arena);
}

static inline bool call_open(struct call *call, struct mux *mux)
{
    struct endpoint *endpoint = mux->ops->open(mux);
    if (endpoint)
        call_bind(call, mux, endpoint);
    return endpoint != NULL;
}

static inline struct message_head request_of(const char *method, struct fields fields)
{
    return (struct message_head){.method = method_of(slice_str(method)),
                                 .method_text = slice_str(method),
                                 .scheme = SLICE("https"),
                                 .authority = SLICE("app.test"),
                                 .path = SLICE("/path"),
                                 .version = HTTP_1_1,
                                 .body = BODY_NONE,
                                 .fields = fields};
}

#endif
