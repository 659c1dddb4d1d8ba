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

#include "gateway/net/loop.h"
#include "gateway/route/route_table.h"

struct changes;
struct store;

enum { CHANGES_ANY_REVISION = 0 };

struct change_result {
    enum status status;
    struct route_problem problem; /* when status is not OK */
    uint64_t revision;            /* of the app after the change */
    bool created;                 /* put: there was none before */
    size_t refused;               /* snapshot: apps left out because they conflict with others; problem: the first */
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
 * in the log, and stays in the store until its app is put or deleted, or a snapshot replaces everything. On failure
 * the text says why.
 */
enum { CHANGES_ERROR_TEXT_MAX = 512 };
MUST_CHECK enum status changes_load(struct changes *changes, char ret_error[CHANGES_ERROR_TEXT_MAX]);

/* The rules that later records are checked against; borrowed until replaced. */
void changes_set_rules(struct changes *changes, const struct route_rules *rules);

/*
 * Each takes effect or is refused as a whole; `done` is called once, from the loop, never before the call returns.
 * expected_revision: the app's revision that the caller saw, else REVISION_CONFLICT; CHANGES_ANY_REVISION: any.
 */
void changes_put(struct changes *changes, struct route_app *app, uint64_t expected_revision, change_done_cb done,
                 void *arg); /* takes the app */
void changes_delete(struct changes *changes, struct slice app_id, uint64_t expected_revision, change_done_cb done,
                    void *arg);
/* json: members to change (see app_document_patch_instance); applied to the app as it is when its turn comes. */
void changes_patch_instance(struct changes *changes, struct slice app_id, struct slice instance_id, struct slice json,
                            uint64_t expected_revision, change_done_cb done, void *arg);

/*
 * Replaces the whole table: begin, add every app, commit. Nothing is visible or durable before commit is done; apps
 * that are equal to what is there keep their revision and claims; those not added are deleted. A bad record is refused
 * alone (add says why) and does not stop the rest.
 */
struct changes_snapshot;
struct changes_snapshot *changes_snapshot_begin(struct changes *changes);
MUST_CHECK enum status changes_snapshot_add(struct changes_snapshot *snapshot, struct route_app *app,
                                            struct route_problem *ret_problem); /* takes the app when OK */
/* strict: a conflict between its apps refuses all of it; else such an app is left out and counted. */
void changes_snapshot_commit(struct changes_snapshot **snapshot, bool strict, change_done_cb done, void *arg);
void changes_snapshot_abort(struct changes_snapshot **snapshot); /* accepts NULL */

/* `done` of these requests is not called any more; the changes go on. */
void changes_forget(struct changes *changes, void *arg);

#endif
