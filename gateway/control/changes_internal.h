/*
 * What the files of `changes` share. Private.
 *
 *   changes.c           calls, the queue, group commit
 *   changes_batch.c     the lines of one POST /v1/changes
 *   changes_snapshot.c  a whole table, or a difference, from elsewhere
 *   changes_record.c    what a batch leaves behind: in the store, in the history
 *   changes_load.c      the start
 */
#ifndef GATEWAY_CONTROL_CHANGES_INTERNAL_H
#define GATEWAY_CONTROL_CHANGES_INTERNAL_H

#include "gateway/control/changes.h"
#include "gateway/control/history.h"
#include "gateway/control/id_set.h"
#include "gateway/control/store.h"

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
    const struct changes_gate *gate;
    struct list watchers;
    struct list waiting;
    struct list batch; /* staged; being committed */
    struct deletions deletions;
    uint64_t digest;
    uint64_t forgetting; /* the floor that the batch brings, 0: none */
    bool replacing;      /* the batch is a snapshot of the whole table */
    bool restarting;     /* … whose revisions are another table's */
    struct deferred deferred;
    bool committing;
    bool ended;             /* freed by its owner; goes when nothing is on its way to it any more */
    struct id_set left_out; /* in the store, but not in the table: see changes_load */
};

/* A copy that ends with NUL; malloc'ed. */
char *changes_copy(struct slice text);

/* ---- staging; each changes nothing when it fails ---- */

/* Checks and stages an app under a revision, 0: the next. *app is NULL afterwards when the table has it. */
MUST_CHECK enum status changes_stage_put(struct changes *changes, struct route_app **app, uint64_t revision,
                                         struct route_problem *ret_problem);
/* APP_UNKNOWN if neither the table nor the store has it. */
MUST_CHECK enum status changes_stage_delete(struct changes *changes, struct slice app_id, uint64_t revision,
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
enum changes_snapshot_mode changes_snapshot_mode_of(const struct changes_snapshot *snapshot);
struct changes *changes_snapshot_owner(const struct changes_snapshot *snapshot);

/* ---- what is staged ---- */

bool changes_record_is_empty(const struct changes *changes);
void changes_record_store(struct changes *changes, struct store_batch *batch);
/* Call it when the store has the batch, before it is published. */
void changes_record_history(struct changes *changes);
void changes_record_drop(struct changes *changes);

#endif
