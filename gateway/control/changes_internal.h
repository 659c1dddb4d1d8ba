/*
 * What the files of `changes` share. Private.
 *
 *   changes.c           calls, the queue, group commit
 *   changes_batch.c     the lines of one POST /v1/changes
 *   changes_snapshot.c  a whole table, or a difference, from elsewhere
 *   changes_record.c    what a batch leaves behind: in the store, in the history
 *   changes_gate.c      what somebody else must write first
 *   changes_load.c      the start
 *   changes_left_out.c  what the start has left out
 */
#ifndef GATEWAY_CONTROL_CHANGES_INTERNAL_H
#define GATEWAY_CONTROL_CHANGES_INTERNAL_H

#include "gateway/control/changes.h"
#include "gateway/control/history.h"
#include "gateway/control/id_set.h"
#include "gateway/control/store.h"

enum change_request_kind {
    CHANGE_REQUEST_PUT,
    CHANGE_REQUEST_DELETE,
    CHANGE_REQUEST_PATCH,
    CHANGE_REQUEST_BATCH,
    CHANGE_REQUEST_SNAPSHOT,
};

struct change_request {
    struct list link; /* of changes: waiting, batch, gated, or at_gate */
    enum change_request_kind kind;
    struct route_app *app;
    struct changes_batch *lines;
    struct changes_snapshot *snapshot;
    char *app_id;
    char *instance_id;
    char *json;
    uint64_t expected_revision;
    struct change_result result;
    change_done_cb done;
    void *arg;
};

struct deletion {
    char *app_id;
    uint64_t revision;
};

/* Apps that were deleted since the last commit, in order. */
struct deletions {
    struct deletion *items;
    size_t count;
    size_t capacity;
};

struct changes {
    struct loop *loop;
    struct route_table *table;
    struct store *store;
    struct history *history;
    changes_revoked_cb revoked;
    void *revoked_arg;
    const struct route_rules *rules;
    size_t max_apps; /* 0: any number */
    const struct changes_gate *gate;
    struct list watchers;
    struct list waiting;
    struct list batch;   /* staged; being committed */
    struct list gated;   /* for the gate to write, in the order of their coming */
    struct list at_gate; /* being written by it */
    unsigned gate_tries; /* that ended in a conflict, since the last group that did not */
    bool for_gate;       /* what is being staged */
    struct deletions deletions;
    struct id_set returning; /* deleted by what is staged, only to be put again */
    size_t returning_count;
    uint64_t digest;
    uint64_t forgetting;    /* the floor that the batch brings, 0: none */
    struct id_set replaced; /* of left_out, by the batch, which is a snapshot of the whole table */
    bool restarting;        /* the batch has revisions of another table, or out of order: the history begins anew */
    struct deferred deferred;
    bool committing;
    bool ended;             /* freed by its owner; goes when nothing is on its way to it any more */
    struct id_set left_out; /* in the store, but not in the table: see changes_load */
    /* Records of those ids, as far as they could be read, and some of ids that have left the set since. */
    struct route_app **kept;
    size_t kept_count;
    size_t kept_capacity;
    bool return_due; /* some of them may be valid by now */
};

/* A copy that ends with NUL; malloc'ed. */
char *changes_copy(struct slice text);

/* ---- requests ---- */

/* Tells the result, and frees it. */
void change_request_finish(struct change_request *request);
void change_request_refuse(struct change_request *request, enum status status, const char *field, const char *detail);
/* Into its result. `again`: it stays as it is, so that it can be staged once more; not so batches and snapshots. */
void change_request_stage(struct change_request *request, struct changes *changes, bool again);

/* What waits is taken up, if nothing is being committed. */
void changes_start(struct changes *changes);

/* ---- what is in the store, but not in the table ---- */

/* Said in the log. Takes the app; NULL: the record could not be read, and so will never be let in. */
void changes_leave_out(struct changes *changes, const char *app_id, struct route_app *app,
                       const struct route_problem *problem);
/*
 * Puts those of the records left out that are valid by now back into the table, as the next start would: with their
 * revisions, beside all that is there. Nothing is staged. True if there were any.
 */
bool changes_return_left_out(struct changes *changes);
/* Frees the records of those; the ids stay. */
void changes_drop_kept(struct changes *changes);
/* For qsort, of pointers to apps. */
int changes_newest_first(const void *a, const void *b);

/* ---- the gate ---- */

/* Takes a request over, or refuses it. */
void changes_gate_take(struct changes *changes, struct change_request *request);
/* There is something for changes_gate_run to do. */
bool changes_gate_is_ready(const struct changes *changes);
/* Hands the next group to the gate. Nothing is staged or being committed. */
void changes_gate_run(struct changes *changes);
/* It is where the gate writes, but the table has it not, or not so. */
bool changes_gate_leaves_out(const struct changes *changes, const char *app_id);
void changes_gate_left_out_each(const struct changes *changes, void (*each)(void *arg, const char *app_id), void *arg);

/* ---- staging; each changes nothing when it fails ---- */

/* TABLE_FULL, with the problem filled. */
enum status changes_refuse_full(const struct changes *changes, struct route_problem *ret_problem);

/*
 * Checks and stages an app under a revision, 0: the next. *app is NULL afterwards when the table has it. successors:
 * see route_table_stage_put_among; may be NULL.
 */
MUST_CHECK enum status changes_stage_put(struct changes *changes, struct route_app **app, uint64_t revision,
                                         const struct route_successors *successors, struct route_problem *ret_problem);
/* APP_UNKNOWN if neither the table nor the store has it, nor, for the gate, the place where that writes. */
MUST_CHECK enum status changes_stage_delete(struct changes *changes, struct slice app_id, uint64_t revision,
                                            struct route_problem *ret_problem);
/* The same of an app that is to be put again: meanwhile nobody new gets its place below the limit. */
MUST_CHECK enum status changes_stage_out(struct changes *changes, struct slice app_id, uint64_t revision,
                                         struct route_problem *ret_problem);
/* The revision of the app's last change, its deletion included; 0: not known. */
uint64_t changes_staged_revision(const struct changes *changes, struct slice app_id);

/* Stages line by line; each gets its outcome. */
void changes_batch_stage(struct changes_batch *batch, struct changes *changes);

/*
 * Stages the difference: deletions first, then what is new or differs. Apps that conflict with others are counted in
 * ret_result->refused, the first with its problem.
 */
void changes_snapshot_stage(struct changes_snapshot *snapshot, struct change_result *ret_result);
void changes_snapshot_set_options(struct changes_snapshot *snapshot, const struct changes_snapshot_options *options);
void changes_snapshot_forget(struct changes_snapshot *snapshot);             /* nobody hears of what it refuses */
bool changes_snapshot_has_revision(const struct changes_snapshot *snapshot); /* of the whole, from the caller */
enum changes_snapshot_mode changes_snapshot_mode_of(const struct changes_snapshot *snapshot);
struct changes *changes_snapshot_owner(const struct changes_snapshot *snapshot);

/* ---- what is staged ---- */

bool changes_record_is_empty(const struct changes *changes);
void changes_record_store(struct changes *changes, struct store_batch *batch);
/* Call it when the store has the batch, before it is published. */
void changes_record_history(struct changes *changes);
void changes_record_drop(struct changes *changes);
/* Publishes what is staged, and in the store already with the same revisions. */
void changes_publish_stored(struct changes *changes);

#endif
