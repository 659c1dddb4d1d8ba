/*
 * changes: the path of every change to the routes: validate -> store -> publish -> acknowledge.
 *
 * Runs on the control thread; the store thread does the writing. Requests are taken in the order in which they came.
 * While a batch is being committed, later requests wait; when it is done, all that wait form the next batch, staged one
 * by one (a bad one is refused alone) and committed in one transaction: group commit. If the commit fails, none of the
 * batch is applied and each of its requests gets STORE_FAILED.
 */
#ifndef GATEWAY_CONTROL_CHANGES_H
#define GATEWAY_CONTROL_CHANGES_H

#include "gateway/base/list.h"
#include "gateway/net/loop.h"
#include "gateway/route/route_table.h"

struct changes;
struct changes_batch;
struct history;
struct store;

enum { CHANGES_ANY_REVISION = 0 };
/*
 * The greatest that is read, from a source that is followed or from etcd; it fits into the signed integers of JSON and
 * SQLite. Callers may only set the table to half of it: those that follow must be able to read all that come then.
 */
#define CHANGES_MAX_REVISION       (UINT64_C(1) << 62)
#define CHANGES_MAX_GIVEN_REVISION (UINT64_C(1) << 61)
#define CHANGES_NO_APP             UINT64_MAX /* for changes_put, in the place of a revision: there must be none yet */
#define CHANGES_NEVER              UINT64_MAX /* in the place of the table's revision: it must be 0 */

struct change_result {
    enum status status;
    struct route_problem problem; /* when status is not OK */
    uint64_t revision;            /* of the app after the change; batch and snapshot: of the table */
    bool created;                 /* put: there was none before */
    size_t refused;               /* snapshot: apps left out because they conflict with others; problem: the first */
    const struct changes_batch *batch; /* batch: with the outcomes; valid during the call */
};
typedef void (*change_done_cb)(void *arg, const struct change_result *result);

/* What the data path must do when a claim has ended: close its connections. Called after it is visible. */
typedef void (*changes_revoked_cb)(void *arg, struct claim *claim);

/* All pointers are borrowed. */
struct changes *changes_new(struct loop *loop, struct route_table *table, struct store *store,
                            changes_revoked_cb revoked, void *revoked_arg);
/* Waits for nothing: what is queued or being stored is answered with SHUTDOWN. Call it before store_close. */
void changes_free(struct changes **changes);

/*
 * Before the first change: publishes what the store has. A record that is not valid any more is left out, with a line
 * in the log, and stays in the store until its app is put or deleted, or a snapshot replaces everything. So is one when
 * a newer record, by its revision, has an address or name of it: while it was left out, that could be given away. On
 * failure the text says why, and the table has some of it.
 */
enum { CHANGES_ERROR_TEXT_MAX = 512 };
MUST_CHECK enum status changes_load(struct changes *changes, char ret_error[CHANGES_ERROR_TEXT_MAX]);

/*
 * The rules that later records are checked against; borrowed until replaced. Records that were left out are looked at
 * again with them, soon: one that is valid by now, and has nothing of any other, is in the table again.
 */
void changes_set_rules(struct changes *changes, const struct route_rules *rules);
const struct route_rules *changes_rules(const struct changes *changes);

/* How many records are in the store only: see changes_load. */
size_t changes_left_out(const struct changes *changes);

/*
 * How many apps the table may come to have; 0, as at first: any number. Those that are there, or stored, stay. A new
 * one beyond them is refused with TABLE_FULL, in a snapshot too, which so takes no more memory than that many apps and
 * those that are there.
 */
void changes_set_max_apps(struct changes *changes, size_t max_apps);

/*
 * Each takes effect or is refused as a whole; `done` is called once, from the loop, never before the call returns.
 * expected_revision: the app's revision that the caller saw, else REVISION_CONFLICT; CHANGES_ANY_REVISION: any;
 * CHANGES_NO_APP.
 */
void changes_put(struct changes *changes, struct route_app *app, uint64_t expected_revision, change_done_cb done,
                 void *arg); /* takes the app */
void changes_delete(struct changes *changes, struct slice app_id, uint64_t expected_revision, change_done_cb done,
                    void *arg);
/* json: members to change (see app_document_patch_instance); applied to the app as it is when its turn comes. */
void changes_patch_instance(struct changes *changes, struct slice app_id, struct slice instance_id, struct slice json,
                            uint64_t expected_revision, change_done_cb done, void *arg);

/* ---- a batch: the lines of a control plane that numbers its changes ---- */

enum changes_outcome {
    CHANGES_APPLIED,
    CHANGES_IGNORED, /* a repeat, or overtaken: what was wanted is so, or newer things are known */
    CHANGES_REFUSED,
};

struct changes_line {
    uint64_t number;                     /* in the input */
    uint64_t revision;                   /* given with the change; 0: the next one, which is put here */
    char app_id[HOSTNAME_MAX_LABEL + 1]; /* "": the line could not be read that far */
    struct route_app *app;               /* owned; NULL: the app is deleted */
    struct route_problem problem;        /* before: why the line cannot be read. After: why not applied */
    enum changes_outcome outcome;        /* after */
};

struct changes_batch {
    struct changes_line *lines;
    size_t count;
    size_t capacity;
    bool has_gap; /* after: a line was refused because revisions before it are missing */
};

struct changes_batch *changes_batch_new(void);
void changes_batch_free(struct changes_batch **batch); /* accepts NULL */
/* A zeroed line to fill; valid until the next one is added. */
struct changes_line *changes_batch_add(struct changes_batch *batch);

/*
 * Applies the lines in order, each alone, in one transaction. A revision must be the next one: an older one is ignored,
 * or refused when it was another change; after a gap it is refused. What is refused for its content uses its revision
 * up; lines that can't even be read so far use up those that are missing before the next line with a revision, if they
 * are as many. expected_revision: of the table; CHANGES_ANY_REVISION; CHANGES_NEVER. The status tells of the batch as a
 * whole.
 */
void changes_submit(struct changes *changes, struct changes_batch **batch, uint64_t expected_revision,
                    change_done_cb done, void *arg);

/* ---- a snapshot: the whole table, or a difference, from elsewhere ---- */

enum changes_snapshot_mode {
    CHANGES_REPLACE, /* apps that differ get a new revision; what was not added is deleted */
    CHANGES_MIRROR,  /* the same, but each app keeps the revision that it comes with, at most CHANGES_MAX_REVISION:
                        the table follows another one */
    CHANGES_DELTA,   /* as MIRROR, but only what was added or deleted changes; an app whose revision is not later than
                        the table's begins the history anew */
};

struct changes_snapshot_options {
    bool strict;       /* REPLACE: a conflict between its apps refuses all of it; else such an app is left out */
    uint64_t revision; /* that the table takes; 0: REPLACE: the next one if anything differs */
    uint64_t expected_revision; /* of the table, else REVISION_CONFLICT; CHANGES_ANY_REVISION: any; CHANGES_NEVER */
    /*
     * An app is left out for a conflict with another one; the revision is the one that it would have. Before `done`,
     * and like it not after changes_forget. May be NULL.
     */
    void (*refused)(void *arg, struct slice app_id, uint64_t revision, const struct route_problem *problem);
    void *refused_arg;
};

/*
 * Begin, add every app, commit. Nothing is visible or durable before commit is done; apps that are equal to what is
 * there keep their revision and claims, and are not held in memory: one that somebody else changes between its add and
 * the commit keeps that change (REPLACE), or has the commit end with REVISION_CONFLICT (MIRROR). A bad record is
 * refused alone (add says why) and does not stop the rest; leave_alone keeps it from deleting its app too. Of a DELTA,
 * the last word on an app counts. Apps are staged in an order that lets addresses and names move between them.
 *
 * An app of a REPLACE that conflicts with another one is left out, that is, it stays as it is in the table. If its new
 * record is valid in itself, it does not stand in others' way with what that record has not any more: apps may have
 * changed places, and who is given its old address or name gets it, its own instance there is STOPPED, its own domain
 * of that name gone. What both of its records have it keeps, against equal and older generations; and everything if the
 * new record brings back an older generation of an instance, which only a record can do that is older than the table.
 */
struct changes_snapshot;
struct changes_snapshot *changes_snapshot_begin(struct changes *changes, enum changes_snapshot_mode mode);
MUST_CHECK enum status changes_snapshot_add(struct changes_snapshot *snapshot, struct route_app *app,
                                            struct route_problem *ret_problem); /* takes the app when OK */
/* REPLACE: unless the app is added too, what there is of it at the commit stays, in the table or left out of it. */
void changes_snapshot_leave_alone(struct changes_snapshot *snapshot, struct slice app_id);
/* DELTA; an app that is not there is fine. */
void changes_snapshot_delete(struct changes_snapshot *snapshot, struct slice app_id, uint64_t revision);
/* The app was added or deleted. */
bool changes_snapshot_has(const struct changes_snapshot *snapshot, struct slice app_id);
void changes_snapshot_commit(struct changes_snapshot **snapshot, const struct changes_snapshot_options *options,
                             change_done_cb done, void *arg);
void changes_snapshot_abort(struct changes_snapshot **snapshot); /* accepts NULL */

/* ---- who else decides ---- */

/* One app that calls want to change elsewhere. */
struct changes_write {
    const char *app_id;
    const char *document; /* without a revision; NULL: deleted */
    bool has_expected;    /* the app must be at this revision there, as it is in the table */
    uint64_t expected_revision;
    /* Filled in by the gate: */
    bool is_written;                     /* also if another one was not */
    uint64_t revision;                   /* that it has got there; 0: that of all */
    const struct route_problem *problem; /* why the table leaves it out all the same, NULL: it does not; until `done` */
};

struct changes_written {
    enum status status; /* REVISION_CONFLICT: an expectation did not hold */
    const char *text;   /* what is wrong; "" if OK */
    uint64_t revision;  /* the latest of what is written. After OK and REVISION_CONFLICT the table has it by now */
};
typedef void (*changes_written_cb)(void *arg, const struct changes_written *written);

/*
 * Set when the routes come from elsewhere. Calls that change them, save MIRROR and DELTA, are refused with the status,
 * or, if there is `write`, checked against the table and then handed over; they are done when the table has followed.
 */
struct changes_gate {
    enum status status;
    char detail[256];
    /* What it gets lives until `done`, which comes exactly once and never inside the call. One call at a time. */
    void (*write)(void *arg, struct changes_write *writes, size_t count, changes_written_cb done, void *done_arg);
    /* With `write`: apps that are there, but were left out here: the table has them not, or not so. */
    bool (*is_left_out)(void *arg, const char *app_id);
    void (*left_out_each)(void *arg, void (*each)(void *each_arg, const char *app_id), void *each_arg);
    void *arg;
};
void changes_set_gate(struct changes *changes, const struct changes_gate *gate); /* borrowed; NULL: none */
/* Its is_left_out, of an id just as it is spelt there; false if there is none. */
bool changes_leaves_out(const struct changes *changes, struct slice app_id);

/* ---- what has changed ---- */

/* Members may be NULL. Neither may watch or unwatch another one in `changing`. */
struct changes_watcher {
    struct list link;
    /* Before a publication, for each app that it changes: as it is now, NULL if it is not there. */
    void (*changing)(struct changes_watcher *watcher, struct slice app_id, const struct route_app *before);
    /* After each publication. */
    void (*changed)(struct changes_watcher *watcher);
};
void changes_watch(struct changes *changes, struct changes_watcher *watcher);
void changes_unwatch(struct changes_watcher *watcher); /* also of one that does not watch, if zeroed */

const struct history *changes_history(const struct changes *changes);

/* XOR over all apps of changes_digest_of: equal tables have equal digests. Against mistakes, not against attackers. */
uint64_t changes_digest(const struct changes *changes);
uint64_t changes_digest_of(struct slice app_id, uint64_t revision);

/* Nothing of these requests, those with this `arg` of `done`, is told any more; the changes go on. */
void changes_forget(struct changes *changes, void *arg);

#endif
