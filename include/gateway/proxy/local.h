/*
 * local: answers made in this process, as a back endpoint of an exchange: the control API and probes. The same HTTP
 * stack carries them as carries tenants' traffic.
 *
 * A service gets each request with its head; it reads the body as it comes and answers whole or in pieces. Everything
 * is on the loop of the connection. A `struct local` lives from `request` until `gone`.
 */
#ifndef GATEWAY_PROXY_LOCAL_H
#define GATEWAY_PROXY_LOCAL_H

#include "gateway/mux/endpoint.h"

struct local;

/* Who answers: one per listener or purpose. */
struct local_service {
    /*
     * A request begins. The head and `peer` live until `gone`. The service calls local_handle before it returns, or
     * answers at once with local_respond.
     */
    void (*request)(void *service, struct local *local, const struct message_head *head);
};

/* What the service wants to hear about one request; members may be NULL. */
struct local_handler {
    /* A piece of the request body. The service credits it (local_credit) when it is done with it. */
    void (*body)(void *self, struct slice piece);
    /*
     * The request is complete. Also called when it has no body. Who has this event reads the body: a client that waits
     * for 100 (Continue) before it sends it gets that.
     */
    void (*end)(void *self);
    /* local_room is not 0 any more. */
    void (*room)(void *self);
    /* The exchange is over (answered or aborted): the local is gone after this. Always called, last. */
    void (*gone)(void *self);
};

void local_handle(struct local *local, const struct local_handler *handler, void *self);
void local_credit(struct local *local, size_t bytes);

/* A field of the response; before local_respond or local_begin. The slices are copied. */
void local_add_field(struct local *local, struct slice name, struct slice value);

/* A whole answer. The body is copied. The rest of the request body, if any, is not read. */
void local_respond(struct local *local, int http_status, struct slice content_type, struct slice body);

/* An answer in pieces: begin, send while local_room says so, finish. Pieces are copied. */
void local_begin(struct local *local, int http_status, struct slice content_type);
size_t local_room(struct local *local);
void local_send(struct local *local, struct slice piece);
void local_finish(struct local *local);

/* Breaks off an answer that has begun and cannot be completed. */
void local_abort(struct local *local, enum status status);

struct arena *local_arena(struct local *local); /* lives until gone */

/* The client's connection began with a client certificate that was checked. */
bool local_is_verified(const struct local *local);

/* Makes the back endpoint for an exchange. */
struct endpoint *local_open(struct loop *loop, const struct local_service *service, void *service_arg,
                            bool is_verified);

#endif
