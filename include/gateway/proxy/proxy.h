/*
 * proxy: one loop's data path: what its frontends, exchanges and pool share. Each worker has one; the control thread
 * has one for the control API, without a pool and without an access log.
 *
 * Not thread-safe: other threads reach it through loop_post.
 */
#ifndef GATEWAY_PROXY_PROXY_H
#define GATEWAY_PROXY_PROXY_H

#include "gateway/net/tls.h"
#include "gateway/proxy/access_log.h"
#include "gateway/proxy/settings.h"
#include "gateway/route/route_table.h"

struct app_traffic;
struct domains;
struct pool;
struct health;
struct checks;
struct exchange;

struct proxy {
    struct loop *loop;
    struct settings *settings; /* a reference; the newest */
    struct route_table *table; /* borrowed */
    struct tls_server *tls;    /* owned; the newest */
    struct pool *pool;
    struct domains *domains; /* owned; NULL: custom domains by route records only */
    struct health *health;
    struct checks *checks;
    struct app_traffic *traffic;    /* borrowed; NULL: not counted */
    struct access_log_ring *log;    /* owned; NULL: none */
    struct list connections_idle;   /* oldest first: evicted when the proxy is full */
    struct list connections_active; /* handshaking or with a request in progress */
    uint32_t connection_count;
    struct exchange *free_exchanges;
    uint32_t free_exchange_count;
    uint64_t request_id_prefix; /* random */
    uint64_t request_id_next;
    uint64_t random;
    bool draining;
    struct timer grace;         /* when it ends, idle connections are closed */
    void (*drained)(void *arg); /* called once when draining and nothing is left */
    void *drained_arg;
};

/* The settings reference, the TLS server and the ring pass to the proxy. */
struct proxy *proxy_new(struct loop *loop, struct settings *settings, struct route_table *table, struct tls_server *tls,
                        struct access_log_ring *log);
/* No connection is left. */
void proxy_free(struct proxy **proxy);

/*
 * New connections of clients use these; old ones keep what they began with, but for what concerns apps: whom the
 * gateway may connect to, and how, is what the newest say. NULL: unchanged. Ownership passes.
 */
void proxy_reload(struct proxy *proxy, struct settings *settings, struct tls_server *tls);

/* Closes every connection that uses this claim. */
void proxy_revoke(struct proxy *proxy, const struct claim *claim);

/*
 * Lets requests end, also those that are on their way, closes idle connections a moment later; then calls `drained`.
 * Listeners must be closed already.
 */
void proxy_drain(struct proxy *proxy, void (*drained)(void *arg), void *arg);
/* Closes everything now. */
void proxy_close_all(struct proxy *proxy, enum status status);
/*
 * Turns the loop, once no connection is left: idle connections to instances and last bytes to clients get a moment to
 * go, however many turns that takes; and another one whenever a client has taken some, until `must_end`.
 */
void proxy_send_last_bytes(struct proxy *proxy, const bool *must_end);

/* Pseudo-random, for balancing; not for secrets. */
uint64_t proxy_random(struct proxy *proxy);

#endif
