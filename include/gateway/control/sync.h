/*
 * sync: follows the route table of another control API (an orchestrator or another gateway) by its GET /v1/snapshot and
 * GET /v1/watch, so that this table becomes equal to that one, revisions included.
 *
 * It resumes by revision, loads the snapshot only when it must (nothing known yet, the revision is gone, the digests
 * differ), and applies what belongs together at once. When the source is away or talks nonsense, the routes stay as
 * they are: nothing but a complete answer changes them. A record that this gateway refuses is left out alone. While a
 * source is set, other calls that change routes are refused (changes_set_gate); until it has been read, a table without
 * routes is awaited (route_table_set_awaited).
 *
 * Lives on the control thread.
 */
#ifndef GATEWAY_CONTROL_SYNC_H
#define GATEWAY_CONTROL_SYNC_H

#include "gateway/control/changes.h"
#include "gateway/control/fetch.h"

struct sync;

struct sync_options {
    const char *source;     /* https://…, http://… of this machine, or unix:PATH; NULL: follow nothing */
    const char *token_file; /* NULL: none */
    const char *ca;         /* NULL: the system's */
    const char *certificate;
    const char *private_key;
    uint32_t connect_ms;
    uint32_t idle_ms; /* no byte for so long: the connection is dead */
};

/* X(name, text): what it is doing */
#define SYNC_STATES(X)                                                                                                 \
    X(OFF, "off")           /* no source */                                                                            \
    X(WAITING, "waiting")   /* for the next try */                                                                     \
    X(LOADING, "loading")   /* the snapshot */                                                                         \
    X(APPLYING, "applying") /* the snapshot is whole and being stored */                                               \
    X(CATCHING_UP, "catching_up")                                                                                      \
    X(FOLLOWING, "following") /* in step */

enum sync_state {
#define X(name, text) SYNC_##name,
    SYNC_STATES(X)
#undef X
};

struct sync_status {
    enum sync_state state;
    const char *state_name; /* "following" */
    const char *source;
    bool connected;         /* an answer of the source is coming in */
    uint64_t revision;      /* of the source, that the table is at */
    uint64_t word_age_ms;   /* since the last line from the source; before the first one: since the start */
    uint64_t retry_ms;      /* WAITING: until the next try */
    uint64_t resyncs_total; /* snapshots applied */
    uint64_t failures_total;
    size_t refused;      /* records of the source that are left out here */
    bool digest_differs; /* still, after a snapshot: the tables are not equal */
    const char *error;   /* why it is not connected, or the last trouble; "" when following */
};

/* All pointers are borrowed. Does nothing until sync_configure. */
struct sync *sync_new(struct loop *loop, struct fetcher *fetcher, struct changes *changes, struct route_table *table);
/* At the end, before changes_free and fetcher_free, with no turn of the loop between. Accepts NULL. */
void sync_free(struct sync **sync);

/* Follows from now on what the options say; copies them. Another source begins with its snapshot. */
void sync_configure(struct sync *sync, const struct sync_options *options);

/* The rules for records have changed: what was left out is looked at again. */
void sync_rules_changed(struct sync *sync);

/* The texts live until the next turn of the loop. */
void sync_get_status(const struct sync *sync, struct sync_status *ret_status);

#endif
