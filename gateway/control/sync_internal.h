/*
 * sync_internal: the inside of sync: sync.c (when to call the source, and what its answers mean for the next call) and
 * sync_lines.c (what the lines of an answer become).
 */
#ifndef GATEWAY_CONTROL_SYNC_INTERNAL_H
#define GATEWAY_CONTROL_SYNC_INTERNAL_H

#include "gateway/base/arena.h"
#include "gateway/base/log.h"
#include "gateway/control/change_line.h"
#include "gateway/control/ndjson.h"
#include "gateway/control/sync.h"

#include "refusals.h"

enum { SYNC_ERROR_TEXT_MAX = 512 };

/* What one batch does to the refusals, once it is committed. */
struct sync_verdict {
    char app_id[HOSTNAME_MAX_LABEL + 1];
    uint64_t revision; /* 0: it is not refused any more */
};

struct sync_verdicts {
    struct sync_verdict *items;
    size_t count;
    size_t capacity;
};

/* All changes up to this revision were sent; what the source's table is then. */
struct sync_heartbeat {
    uint64_t revision;
    uint64_t apps;
    uint64_t digest;
};

struct sync {
    struct loop *loop;
    struct fetcher *fetcher;
    struct changes *changes;
    struct route_table *table;
    struct arena arena; /* of the options */
    struct sync_options options;
    struct changes_gate gate;
    enum sync_state state;
    struct fetch *fetch;
    struct timer retry;
    uint64_t retry_at_ms;
    unsigned failures;       /* in a row */
    unsigned snapshots;      /* begun within a short time */
    uint64_t snapshot_at_ms; /* the last one of them */
    bool needs_snapshot;
    bool connected;
    bool is_delimited; /* the answer: its end can be told from a connection that breaks off */
    bool reconfigured; /* while a commit was on its way: begin anew when it is done */
    bool was_read;     /* the source's snapshot was applied, or the tables were equal */
    char error[SYNC_ERROR_TEXT_MAX];
    uint64_t revision;
    uint64_t word_us;
    uint64_t resyncs_total;
    uint64_t failures_total;
    struct log_limit log_limit;
    /* what the lines become */
    bool reading; /* lines are of the present stream */
    struct ndjson lines;
    struct changes_snapshot *staged;
    size_t accepted;               /* snapshot: records staged */
    uint64_t snapshot_revision;    /* of its head */
    struct sync_verdicts verdicts; /* of what is staged */
    bool committing;
    struct sync_verdicts committing_verdicts;
    struct sync_heartbeat heartbeat; /* that is being committed, or was last */
    struct sync_heartbeat held;      /* came while a commit was on its way, and nothing after it */
    bool has_held;
    struct refusals refused;
    size_t unnamed; /* refused records whose app could not be read, since the last snapshot */
    bool is_fresh;  /* a snapshot was applied and no heartbeat has been compared since */
    bool digest_differs;
    uint64_t known_difference; /* of the digests, right after a snapshot */
};

/* ---- sync.c ---- */

/* Ends what is going on and tries again later; the routes stay. */
void sync_fail(struct sync *sync, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The snapshot is needed: at once, if it was not loaded just now. */
void sync_reload(struct sync *sync);
/* What the source has is in the table. */
void sync_was_read(struct sync *sync);
/* The tables are equal, or as equal as they can be. */
void sync_in_step(struct sync *sync);
/* The snapshot is applied: watches from its revision on. */
void sync_follow(struct sync *sync);
/* A commit has ended. False if what it came from has ended meanwhile, or does now: the options have changed. */
bool sync_goes_on(struct sync *sync);

/* ---- sync_lines.c ---- */

/* A response begins; what it becomes depends on the state. */
void sync_lines_begin(struct sync *sync);
void sync_lines_feed(struct sync *sync, struct slice piece);
/* The response is whole: takes its last line, which may have no newline. False if that gave the stream up. */
bool sync_lines_end(struct sync *sync);
/* Commits the snapshot that has ended, or fails. */
void sync_lines_apply_snapshot(struct sync *sync);
/* Drops what is not being committed yet. */
void sync_lines_drop(struct sync *sync);
void sync_lines_free(struct sync *sync);

#endif
