/*
 * pool: connections of one loop to instances, in use and idle, keyed by what makes them interchangeable (struct
 * pool_target): the claim, which stands for (instance, generation, address), so that a connection can never serve
 * another owner of the address; the port; what is spoken there; and if the app is told about clients (PROXY protocol),
 * the client connection and what was said of it. A connection of HTTP/2 serves many exchanges at once.
 */
#ifndef GATEWAY_PROXY_POOL_H
#define GATEWAY_PROXY_POOL_H

#include "gateway/mux/endpoint.h"
#include "gateway/proxy/settings.h"
#include "gateway/route/claims.h"

struct pool;

enum pool_protocol { POOL_HTTP_1, POOL_H2C };

/* Connections to equal targets are interchangeable. */
struct pool_target {
    struct claim *claim;
    uint16_t port;
    enum pool_protocol protocol;
    struct slice header; /* copied; sent first of all; empty: none */
    struct list *owner;  /* with a header: the list of connections that serve this client alone; else NULL */
};

struct pool *pool_new(struct loop *loop);
void pool_free(struct pool **pool); /* no connection is left */

enum {
    POOL_FRESH = 1 << 0, /* none that may have been closed by its peer meanwhile, so none that is connected already */
    POOL_QUEUE = 1 << 1, /* see struct pool_opened */
};

/* What became of pool_open. */
struct pool_opened {
    bool reused;        /* it was connected */
    bool queued;        /* the app allows no requests at present (HTTP/2): this one waits until it does */
    enum status status; /* without an endpoint: ADDRESS_FORBIDDEN, or without POOL_QUEUE also UPSTREAM_NO_STREAMS */
};

/*
 * An endpoint on a connection to the target: an idle one, or of HTTP/2 the one with the most room, else a new one that
 * is still connecting. But none is opened beside one on which the app said that it allows no requests. To be bound at
 * once; its release gives the connection back. Clients share connections, so the settings are the newest, not those
 * that the client's connection began with.
 */
struct endpoint *pool_open(struct pool *pool, struct settings *settings, const struct pool_target *target,
                           unsigned flags, struct pool_opened *ret);

/*
 * A connection to a claim that is not the pool's, but lives and dies with the claim: one side of a tunnel. The owner
 * embeds it; `revoked` is called when the claim is, and leaves.
 */
struct pool_guest {
    struct list link;
    struct bucket *bucket; /* NULL: not there */
    void (*revoked)(struct pool_guest *guest);
};

/*
 * Connects to the target and makes it a guest, until pool_leave, which the stream's owner calls whenever the stream
 * ends. NULL when the address is forbidden.
 */
struct stream *pool_dial(struct pool *pool, struct settings *settings, struct claim *claim, uint16_t port,
                         struct pool_guest *guest, const struct stream_events *events, void *owner);
void pool_leave(struct pool *pool, struct pool_guest *guest);

/* How many endpoints and guests of the claim there are. */
unsigned pool_active(const struct pool *pool, const struct claim *claim);

/* Closes all connections of the claim; those in use get `reset` with ADDRESS_REVOKED. */
void pool_revoke(struct pool *pool, const struct claim *claim);

/* With other rules than before: connections to what they forbid end after what is in progress, and take nothing more.
 */
void pool_apply_rules(struct pool *pool, const struct route_rules *rules);

/* The client is gone: closes the connections in its list, those in use after what is in progress. */
void pool_leave_owner(struct list *owner);

void pool_close_idle(struct pool *pool);
/* Also those on which bytes wait that an app does not take, though nobody uses them any more. */
void pool_close_all(struct pool *pool);
size_t pool_count(const struct pool *pool); /* connections, in use and idle */

#endif
