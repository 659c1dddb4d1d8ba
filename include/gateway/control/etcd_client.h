/*
 * etcd_client: calls to an etcd cluster over fetch: picks a member, authenticates, tells refusals from failures.
 *
 * One member is used at a time, until it fails or is left; then the next one of the list. A call that no member has
 * seen is tried on each of them; one that a member may have executed ends as ETCD_UNCERTAIN, and the caller decides.
 * Events come from the loop, never inside a call. Control thread only.
 */
#ifndef GATEWAY_CONTROL_ETCD_CLIENT_H
#define GATEWAY_CONTROL_ETCD_CLIENT_H

#include "gateway/control/config.h"
#include "gateway/control/etcd_wire.h"
#include "gateway/control/fetch.h"

enum { ETCD_CLIENT_TEXT_MAX = 400, ETCD_CLIENT_MAX_LINE = 16 << 20 };

struct etcd_client;
struct etcd_call;

struct etcd_client_params {
    struct loop *loop;
    struct fetcher *fetcher;
    const struct config_etcd *config;
    uint32_t connect_ms;
    uint32_t answer_ms; /* a call's answer is silent for so long */
};
/* Copies the struct; what it points to is borrowed. */
struct etcd_client *etcd_client_new(const struct etcd_client_params *params);
/* No call is left. Accepts NULL. */
void etcd_client_free(struct etcd_client **client);

/* The member in use, and going on to the next one. */
const char *etcd_client_endpoint(const struct etcd_client *client);
void etcd_client_leave(struct etcd_client *client);
/* The next call authenticates anew. A watch hears of a token that is not known any more only as "permission denied". */
void etcd_client_renew(struct etcd_client *client);

enum etcd_end {
    ETCD_ANSWERED,
    ETCD_REFUSED,   /* by etcd: see error; it was not executed */
    ETCD_UNSENT,    /* no member could be reached */
    ETCD_UNCERTAIN, /* a member took it, but did not say how it ended */
    ETCD_TOO_LARGE, /* the answer has more than max_bytes */
};

struct etcd_result {
    enum etcd_end end;
    struct slice body; /* ANSWERED; lives until the callback returns */
    struct etcd_wire_error error;
    char text[ETCD_CLIENT_TEXT_MAX]; /* for people, with the endpoint; "" if answered */
};
typedef void (*etcd_done_cb)(void *arg, const struct etcd_result *result);

/* path: "/v3/kv/range". The body is malloc'ed text and taken. */
struct etcd_call *etcd_client_call(struct etcd_client *client, const char *path, char *body, size_t max_bytes,
                                   etcd_done_cb done, void *arg);
void etcd_call_cancel(struct etcd_call **call); /* accepts NULL; no callback any more */

/*
 * The same for the stream of a watch, which is not meant to end: each line as it comes, then `done`, never ANSWERED.
 * quiet_ms: no byte for so long ends it.
 */
typedef void (*etcd_line_cb)(void *arg, struct slice line);
struct etcd_call *etcd_client_watch(struct etcd_client *client, char *body, uint32_t quiet_ms, etcd_line_cb line,
                                    etcd_done_cb done, void *arg);
/* No line comes until it is resumed, but for those of the piece that was being read. */
void etcd_call_pause(struct etcd_call *call);
void etcd_call_resume(struct etcd_call *call);

#endif
