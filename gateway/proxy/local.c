#include "gateway/proxy/local.h"

#include <assert.h>
#include <stdlib.h>

enum { LOCAL_WINDOW_BYTES = 65536 };

/* What the exchange has sent and the service has not been told yet. */
struct piece {
    struct piece *next;
    size_t len;
    char data[];
};

struct local {
    struct endpoint endpoint; /* the back side of an exchange */
    struct loop *loop;
    const struct local_service *service;
    void *service_arg;
    const struct local_handler *handler;
    void *self;
    struct deferred deferred;
    struct message_head request;
    struct fields fields; /* of the response */
    struct piece *first;  /* of the request body */
    struct piece *last;
    size_t unread; /* request body bytes that were sent and not credited by the service */
    size_t unsent; /* response bytes that the exchange has not credited */
    struct arena arena;
    enum status aborted;
    bool is_verified;
    bool has_request;
    bool request_told;
    bool request_ended;
    bool end_told;
    bool begun;
    bool finished;
    bool wants_room;
    bool room_due;
    bool sender_waits; /* the exchange saw no room */
    bool sender_due;
    bool released;
    bool abort_due;
};

static struct local *local_of(struct endpoint *endpoint)
{
    return CONTAINER_OF(endpoint, struct local, endpoint);
}

static void run(struct deferred *deferred);

static void later(struct local *l)
{
    loop_defer(l->loop, &l->deferred, run);
}

/* ---- telling the service ---- */

static void tell_pieces(struct local *l)
{
    while (l->first && l->handler && !l->released) {
        struct piece *piece = l->first;
        l->first = piece->next;
        if (!l->first)
            l->last = NULL;
        if (l->handler->body)
            l->handler->body(l->self, slice_make(piece->data, piece->len));
        else
            local_credit(l, piece->len);
        free(piece);
    }
}

/*
 * RFC 9110 section 10.1.1: who announced a body waits for a word before it sends it. One is owed only where the service
 * reads it, and has not answered already.
 */
static bool owes_continue(const struct local *l)
{
    return l->request.expect_continue && !l->request_ended && !l->first && l->handler && l->handler->end && !l->begun &&
           !l->released;
}

static void tell_request(struct local *l)
{
    static const struct message_head go_on = {.version = HTTP_1_1, .status = 100};
    l->request_told = true;
    l->service->request(l->service_arg, l, &l->request);
    if (owes_continue(l))
        l->endpoint.events->head(l->endpoint.owner, &go_on, false);
}

static void tell_service(struct local *l)
{
    if (l->has_request && !l->request_told)
        tell_request(l);
    tell_pieces(l);
    if (l->request_ended && !l->first && !l->end_told && l->handler && !l->released) {
        l->end_told = true;
        if (l->handler->end)
            l->handler->end(l->self);
    }
    if (l->room_due && !l->released) {
        l->room_due = false;
        if (l->handler && l->handler->room && !l->finished)
            l->handler->room(l->self);
    }
}

static void free_local(struct local *l)
{
    if (l->handler && l->handler->gone)
        l->handler->gone(l->self);
    while (l->first) {
        struct piece *piece = l->first;
        l->first = piece->next;
        free(piece);
    }
    arena_reset(&l->arena);
    free(l);
}

static void run(struct deferred *deferred)
{
    struct local *l = CONTAINER_OF(deferred, struct local, deferred);
    if (!l->released)
        tell_service(l);
    if (l->sender_due && !l->released) {
        l->sender_due = false;
        l->endpoint.events->room(l->endpoint.owner);
    }
    if (l->abort_due && !l->released)
        l->endpoint.events->reset(l->endpoint.owner, l->aborted);
    if (l->released && !l->deferred.queued)
        free_local(l);
}

/* ---- what the exchange does ---- */

static void send_head(struct endpoint *endpoint, const struct message_head *head, bool end)
{
    struct local *l = local_of(endpoint);
    l->request = *head;
    l->has_request = true;
    l->request_ended = end;
    later(l);
}

static void send_body(struct endpoint *endpoint, const char *data, size_t len, bool end)
{
    struct local *l = local_of(endpoint);
    l->request_ended |= end;
    if (len > 0) {
        struct piece *piece = malloc(sizeof *piece + len);
        if (!piece)
            abort();
        piece->next = NULL;
        piece->len = len;
        memcpy(piece->data, data, len);
        if (l->last)
            l->last->next = piece;
        else
            l->first = piece;
        l->last = piece;
        l->unread += len;
    }
    later(l);
}

static void send_trailers(struct endpoint *endpoint, const struct fields *trailers)
{
    (void)trailers;
    send_body(endpoint, NULL, 0, true);
}

static size_t room(struct endpoint *endpoint)
{
    struct local *l = local_of(endpoint);
    if (l->unread < LOCAL_WINDOW_BYTES)
        return LOCAL_WINDOW_BYTES - l->unread;
    l->sender_waits = true;
    return 0;
}

static void credit(struct endpoint *endpoint, size_t bytes)
{
    struct local *l = local_of(endpoint);
    assert(bytes <= l->unsent);
    l->unsent -= bytes;
    if (l->wants_room && l->unsent < LOCAL_WINDOW_BYTES / 2) {
        l->wants_room = false;
        l->room_due = true;
        later(l);
    }
}

static void release(struct endpoint **endpoint, enum status status)
{
    (void)status;
    struct local *l = local_of(*endpoint);
    *endpoint = NULL;
    l->released = true;
    later(l);
}

static const struct endpoint_ops ops = {
    .send_head = send_head,
    .send_body = send_body,
    .send_trailers = send_trailers,
    .room = room,
    .credit = credit,
    .release = release,
};

struct endpoint *local_open(struct loop *loop, const struct local_service *service, void *service_arg, bool is_verified)
{
    struct local *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->endpoint.ops = &ops;
    l->loop = loop;
    l->service = service;
    l->service_arg = service_arg;
    l->is_verified = is_verified;
    arena_init(&l->arena, &loop->arenas);
    return &l->endpoint;
}

/* ---- what the service does ---- */

void local_handle(struct local *l, const struct local_handler *handler, void *self)
{
    l->handler = handler;
    l->self = self;
}

void local_credit(struct local *l, size_t bytes)
{
    assert(bytes <= l->unread);
    l->unread -= bytes;
    if (l->sender_waits && l->unread < LOCAL_WINDOW_BYTES / 2) {
        l->sender_waits = false;
        l->sender_due = true;
        later(l);
    }
}

void local_add_field(struct local *l, struct slice name, struct slice value)
{
    assert(!l->begun);
    fields_add(&l->fields, &l->arena, arena_copy(&l->arena, name), arena_copy(&l->arena, value));
}

static void begin(struct local *l, struct message_head *head, struct slice content_type, bool end)
{
    assert(!l->begun);
    l->begun = true;
    if (l->released)
        return;
    if (content_type.len > 0)
        fields_add_known(&l->fields, &l->arena, FIELD_CONTENT_TYPE, content_type);
    head->version = HTTP_1_1;
    head->fields = l->fields;
    l->endpoint.events->head(l->endpoint.owner, head, end);
}

void local_respond(struct local *l, int http_status, struct slice content_type, struct slice body)
{
    bool no_body = l->request.method == METHOD_HEAD || http_status == 204 || body.len == 0;
    struct message_head head = {
        .status = http_status,
        .body = no_body ? BODY_NONE : BODY_LENGTH,
        .has_content_length = http_status != 204,
        .content_length = body.len,
    };
    l->finished = true;
    begin(l, &head, content_type, no_body);
    if (!no_body && !l->released) {
        l->unsent += body.len;
        l->endpoint.events->body(l->endpoint.owner, body.ptr, body.len, true);
    }
}

void local_begin(struct local *l, int http_status, struct slice content_type)
{
    struct message_head head = {.status = http_status, .body = BODY_CHUNKED};
    bool no_body = l->request.method == METHOD_HEAD;
    l->finished = no_body;
    begin(l, &head, content_type, no_body);
}

size_t local_room(struct local *l)
{
    if (l->unsent < LOCAL_WINDOW_BYTES)
        return LOCAL_WINDOW_BYTES - l->unsent;
    l->wants_room = true;
    return 0;
}

void local_send(struct local *l, struct slice piece)
{
    assert(l->begun);
    if (l->released || l->finished || piece.len == 0)
        return;
    l->unsent += piece.len;
    l->endpoint.events->body(l->endpoint.owner, piece.ptr, piece.len, false);
}

void local_finish(struct local *l)
{
    assert(l->begun);
    if (l->released || l->finished)
        return;
    l->finished = true;
    l->endpoint.events->body(l->endpoint.owner, NULL, 0, true);
}

void local_abort(struct local *l, enum status status)
{
    if (l->released)
        return;
    l->finished = true;
    l->abort_due = true;
    l->aborted = status;
    later(l);
}

bool local_is_verified(const struct local *l)
{
    return l->is_verified;
}

struct arena *local_arena(struct local *l)
{
    return &l->arena;
}
