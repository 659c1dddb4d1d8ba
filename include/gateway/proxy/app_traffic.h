/*
 * app_traffic: what each busy app does on one worker: requests, errors, bytes, latency. For GET /v1/top.
 *
 * A table of a fixed size for the apps that have traffic; apps without any cost nothing, however many are registered.
 * An app that was idle for a while gives its entry to another; when no entry is free, what remains is counted together,
 * in an entry without a name. The worker writes plain stores, with neither lock nor shared cache line; any other thread
 * reads an entry whole or not at all (a sequence lock).
 */
#ifndef GATEWAY_PROXY_APP_TRAFFIC_H
#define GATEWAY_PROXY_APP_TRAFFIC_H

#include "gateway/base/counters.h"
#include "gateway/base/slice.h"

/* X(name, kind) */
#define APP_TRAFFIC_TABLE(X)                                                                                           \
    X(in_progress, GAUGE)     /* requests and tunnels */                                                               \
    X(tunnels, GAUGE)         /* of these: upgraded connections and tunnels */                                         \
    X(requests, COUNTER)      /* requests and tunnels begun */                                                         \
    X(responses_4xx, COUNTER) /* with the gateway's own */                                                             \
    X(responses_5xx, COUNTER)                                                                                          \
    X(gateway_errors, COUNTER) /* errors that the gateway saw or answered */                                           \
    X(bytes_in, COUNTER)       /* body and tunnel bytes from clients */                                                \
    X(bytes_out, COUNTER)

enum {
    APP_TRAFFIC_SETS = 128,
    APP_TRAFFIC_WAYS = 8,
    APP_TRAFFIC_ENTRIES = APP_TRAFFIC_SETS * APP_TRAFFIC_WAYS + 1, /* with the one without a name */
    APP_TRAFFIC_ID_MAX = 64,
    APP_TRAFFIC_ID_WORDS = APP_TRAFFIC_ID_MAX / 8,
    APP_TRAFFIC_IDLE_MS = 10000, /* after this an entry may go to another app */
    APP_TRAFFIC_BUCKETS = 176,   /* of latencies, eight for each doubling, from 16 us to two minutes */
};

struct app_traffic_entry {
#define X(name, kind) _Atomic uint64_t name;
    APP_TRAFFIC_TABLE(X)
#undef X
    _Atomic uint64_t version; /* odd while the entry is given to another app */
    _Atomic uint64_t id[APP_TRAFFIC_ID_WORDS];
    _Atomic uint32_t latency[APP_TRAFFIC_BUCKETS]; /* from the request to the head of its answer */
    uint64_t used_us;                              /* the worker's */
};

struct app_traffic;

struct app_traffic *app_traffic_new(void);
void app_traffic_free(struct app_traffic **traffic); /* accepts NULL */

/* ---- the worker's ---- */

/* A request or tunnel of the app begins; the entry is good until app_traffic_leave. */
struct app_traffic_entry *app_traffic_enter(struct app_traffic *traffic, struct slice app_id, uint64_t now_us);
/* The head of its answer came from an instance. */
void app_traffic_answered(struct app_traffic_entry *entry, uint64_t latency_us);
/* It is over; http_status 0: it had no answer. Accepts NULL; clears the pointer. */
void app_traffic_leave(struct app_traffic_entry **entry, int http_status, bool gateway_error, uint64_t now_us);

/* Bytes, tunnels: COUNTER_ADD(entry, …). */

/* ---- any thread's ---- */

/* One entry as it was at one moment. */
struct app_traffic_copy {
#define X(name, kind) uint64_t name;
    APP_TRAFFIC_TABLE(X)
#undef X
    uint64_t version;            /* the same: the same app since the last copy */
    char id[APP_TRAFFIC_ID_MAX]; /* NUL-terminated; "" for the entry without a name */
    uint32_t latency[APP_TRAFFIC_BUCKETS];
};

/* index: below APP_TRAFFIC_ENTRIES. False if there is nothing in it. */
bool app_traffic_read(const struct app_traffic *traffic, size_t index, struct app_traffic_copy *ret_copy);

/* The latency that `permille` of those in the buckets do not exceed, within 7 %; 0 if there are none. */
uint64_t app_traffic_latency_us(const uint32_t latency[APP_TRAFFIC_BUCKETS], unsigned permille);

#endif
