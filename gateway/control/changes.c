#include "changes_internal.h"

#include "gateway/control/app_document.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

static void free_request(struct change_request *r)
{
    list_remove(&r->link);
    route_app_free(&r->app);
    changes_batch_free(&r->lines);
    changes_snapshot_abort(&r->snapshot);
    free(r->app_id);
    free(r->instance_id);
    free(r->json);
    free(r);
}

void change_request_finish(struct change_request *r)
{
    if (r->done)
        r->done(r->arg, &r->result);
    free_request(r);
}

void change_request_refuse(struct change_request *r, enum status status, const char *field, const char *detail)
{
    r->result.status = r->result.problem.status = status;
    snprintf(r->result.problem.field, sizeof r->result.problem.field, "%s", field);
    snprintf(r->result.problem.detail, sizeof r->result.problem.detail, "%s", detail);
}

char *changes_copy(struct slice text)
{
    char *out = malloc(text.len + 1);
    if (!out)
        abort();
    if (text.len > 0)
        memcpy(out, text.ptr, text.len);
    out[text.len] = 0;
    return out;
}

/* ---- staging ---- */

enum status changes_refuse_full(const struct changes *c, struct route_problem *ret_problem)
{
    return route_problem_set(ret_problem, STATUS_TABLE_FULL, "app_id",
                             "limits.apps is %zu; delete apps that are gone, or raise it", c->max_apps);
}

/* What is stored beyond the limit may change all the same. */
static bool is_too_many(const struct changes *c, const struct route_app *app)
{
    return c->max_apps > 0 && route_table_staged_app_count(c->table) + c->returning_count >= c->max_apps &&
           !route_table_staged_app(c->table, slice_str(app->id)) && !id_set_has(&c->returning, app->id);
}

static void note_return(struct changes *c, const char *app_id)
{
    if (!id_set_has(&c->returning, app_id))
        return;
    id_set_remove(&c->returning, app_id);
    c->returning_count--;
}

enum status changes_stage_put(struct changes *c, struct route_app **app, uint64_t revision,
                              const struct route_successors *successors, struct route_problem *ret_problem)
{
    enum status status = route_app_check(*app, c->rules, ret_problem);
    if (status == STATUS_OK && is_too_many(c, *app))
        status = changes_refuse_full(c, ret_problem);
    if (status == STATUS_OK) {
        (*app)->revision = revision != 0 ? revision : route_table_staged_revision(c->table) + 1;
        status = route_table_stage_put_among(c->table, *app, successors, ret_problem);
    }
    if (status != STATUS_OK)
        return status;
    note_return(c, (*app)->id);
    *app = NULL; /* the table has it */
    return STATUS_OK;
}

static void record_deletion(struct changes *c, struct slice app_id, uint64_t revision)
{
    struct deletions *d = &c->deletions;
    if (d->count == d->capacity) {
        d->capacity = d->capacity > 0 ? 2 * d->capacity : 16;
        d->items = realloc(d->items, d->capacity * sizeof *d->items);
        if (!d->items)
            abort();
    }
    d->items[d->count++] = (struct deletion){changes_copy(app_id), revision};
}

enum status changes_stage_delete(struct changes *c, struct slice app_id, uint64_t revision,
                                 struct route_problem *ret_problem)
{
    char *id = changes_copy(app_id);
    bool is_left_out = id_set_has(&c->left_out, id) || (c->for_gate && changes_gate_leaves_out(c, id));
    bool is_elsewhere = is_left_out && !route_table_staged_app(c->table, app_id);
    enum status status = is_elsewhere ? STATUS_OK : route_table_stage_delete(c->table, app_id, ret_problem);
    free(id);
    if (status != STATUS_OK)
        return status;
    record_deletion(c, app_id, revision);
    route_table_stage_revision(c->table, revision);
    return STATUS_OK;
}

enum status changes_stage_out(struct changes *c, struct slice app_id, uint64_t revision,
                              struct route_problem *ret_problem)
{
    bool is_there = route_table_staged_app(c->table, app_id) != NULL;
    enum status status = changes_stage_delete(c, app_id, revision, ret_problem);
    if (status != STATUS_OK || !is_there)
        return status;
    char *id = changes_copy(app_id);
    id_set_add(&c->returning, id);
    c->returning_count++;
    free(id);
    return STATUS_OK;
}

uint64_t changes_staged_revision(const struct changes *c, struct slice app_id)
{
    const struct route_app *now = route_table_staged_app(c->table, app_id);
    if (now)
        return now->revision;
    for (size_t i = c->deletions.count; i > 0; i--)
        if (slice_eq(slice_str(c->deletions.items[i - 1].app_id), app_id))
            return c->deletions.items[i - 1].revision;
    return history_tombstone(c->history, app_id);
}

static bool is_expected(struct changes *c, struct change_request *r)
{
    const struct route_app *now = route_table_staged_app(c->table, slice_str(r->app_id));
    bool wants_none = r->expected_revision == CHANGES_NO_APP;
    if (r->expected_revision == CHANGES_ANY_REVISION || (now ? now->revision == r->expected_revision : wants_none))
        return true;
    char detail[128];
    if (now)
        snprintf(detail, sizeof detail, "the app is at revision %llu now", (unsigned long long)now->revision);
    else
        snprintf(detail, sizeof detail, "the app does not exist (any more)");
    change_request_refuse(r, STATUS_REVISION_CONFLICT, wants_none ? "If-None-Match" : "If-Match", detail);
    return false;
}

static bool is_table_expected(struct changes *c, struct change_request *r)
{
    uint64_t now = route_table_staged_revision(c->table);
    uint64_t wanted = r->expected_revision == CHANGES_NEVER ? 0 : r->expected_revision;
    if (r->expected_revision == CHANGES_ANY_REVISION || now == wanted)
        return true;
    char detail[128];
    snprintf(detail, sizeof detail, "the table is at revision %llu now", (unsigned long long)now);
    change_request_refuse(r, STATUS_REVISION_CONFLICT, "If-Match", detail);
    return false;
}

static void stage_app(struct changes *c, struct change_request *r, struct route_app **app)
{
    bool existed = route_table_staged_app(c->table, slice_str((*app)->id)) != NULL;
    r->result.status = changes_stage_put(c, app, 0, NULL, &r->result.problem);
    r->result.revision = route_table_staged_revision(c->table);
    r->result.created = !existed;
}

static void stage_patch(struct changes *c, struct change_request *r)
{
    struct slice id = slice_str(r->app_id);
    const struct route_app *now = route_table_staged_app(c->table, id);
    if (!now) {
        change_request_refuse(r, STATUS_APP_UNKNOWN, "app_id", "there is no such app");
        return;
    }
    struct route_app *app = route_app_copy(now);
    r->result.status =
        app_document_patch_instance(slice_str(r->json), app, slice_str(r->instance_id), &r->result.problem);
    if (r->result.status == STATUS_OK)
        stage_app(c, r, &app);
    route_app_free(&app);
}

static void stage_delete(struct changes *c, struct change_request *r)
{
    uint64_t revision = route_table_staged_revision(c->table) + 1;
    r->result.status = changes_stage_delete(c, slice_str(r->app_id), revision, &r->result.problem);
    r->result.revision = revision;
}

/* The request may have to be staged again: it keeps its app. */
static void stage_copy(struct changes *c, struct change_request *r)
{
    struct route_app *app = route_app_copy(r->app);
    stage_app(c, r, &app);
    route_app_free(&app);
}

void change_request_stage(struct change_request *r, struct changes *c, bool again)
{
    switch (r->kind) {
    case CHANGE_REQUEST_PUT:
        if (is_expected(c, r))
            (again ? stage_copy(c, r) : stage_app(c, r, &r->app));
        break;
    case CHANGE_REQUEST_PATCH:
        if (is_expected(c, r))
            stage_patch(c, r);
        break;
    case CHANGE_REQUEST_DELETE:
        if (is_expected(c, r))
            stage_delete(c, r);
        break;
    case CHANGE_REQUEST_BATCH:
        if (is_table_expected(c, r)) {
            changes_batch_stage(r->lines, c);
            r->result.batch = r->lines;
        }
        break;
    case CHANGE_REQUEST_SNAPSHOT:
        if (is_table_expected(c, r))
            changes_snapshot_stage(r->snapshot, &r->result);
        break;
    }
}

/* ---- batches ---- */

static void release(struct changes *c);

static void finish_batch(struct changes *c, enum status status, const char *text)
{
    struct list *link;
    while ((link = c->batch.next) != &c->batch) {
        struct change_request *r = CONTAINER_OF(link, struct change_request, link);
        if (r->kind == CHANGE_REQUEST_BATCH || r->kind == CHANGE_REQUEST_SNAPSHOT)
            r->result.revision = route_table_revision(c->table);
        if (status != STATUS_OK)
            change_request_refuse(r, status, "", text);
        change_request_finish(r);
    }
}

/* A watcher may end, its own or another's watch too. */
static void tell_watchers(struct changes *c)
{
    struct list told;
    list_init(&told);
    while (!list_is_empty(&c->watchers)) {
        struct changes_watcher *watcher = CONTAINER_OF(c->watchers.next, struct changes_watcher, link);
        list_remove(&watcher->link);
        list_push(&told, &watcher->link);
        if (watcher->changed)
            watcher->changed(watcher);
    }
    while (!list_is_empty(&told)) {
        struct list *link = told.next;
        list_remove(link);
        list_push(&c->watchers, link);
    }
}

static void on_committed(void *arg, enum status status, const char *text)
{
    struct changes *c = arg;
    c->committing = false;
    if (c->ended) {
        release(c);
        return;
    }
    if (status == STATUS_OK) {
        changes_record_history(c);
        route_table_publish(c->table, c->revoked, c->revoked_arg);
    } else {
        route_table_abort(c->table);
    }
    changes_record_drop(c);
    finish_batch(c, status, text);
    if (status == STATUS_OK)
        tell_watchers(c);
    changes_start(c);
}

static bool is_gated(const struct changes *c, const struct change_request *r)
{
    return c->gate && (r->kind != CHANGE_REQUEST_SNAPSHOT || changes_snapshot_mode_of(r->snapshot) == CHANGES_REPLACE);
}

/* A snapshot makes a batch of its own, so that it can be given up as a whole. */
static void stage_batch(struct changes *c)
{
    struct list *link;
    while ((link = c->waiting.next) != &c->waiting) {
        struct change_request *r = CONTAINER_OF(link, struct change_request, link);
        if (r->kind == CHANGE_REQUEST_SNAPSHOT && !list_is_empty(&c->batch))
            return;
        if (is_gated(c, r)) {
            changes_gate_take(c, r);
            continue;
        }
        change_request_stage(r, c, false);
        if (r->result.status != STATUS_OK) {
            if (r->kind == CHANGE_REQUEST_SNAPSHOT) {
                route_table_abort(c->table);
                changes_record_drop(c);
            }
            change_request_finish(r);
            continue;
        }
        list_remove(&r->link);
        list_push(&c->batch, &r->link);
        if (r->kind == CHANGE_REQUEST_SNAPSHOT)
            return;
    }
}

static void run_batch(struct deferred *deferred)
{
    struct changes *c = CONTAINER_OF(deferred, struct changes, deferred);
    if (c->ended) {
        release(c);
        return;
    }
    if (c->committing)
        return;
    if (c->return_due && changes_return_left_out(c))
        tell_watchers(c);
    stage_batch(c);
    if (list_is_empty(&c->batch)) {
        changes_gate_run(c);
        return;
    }
    if (changes_record_is_empty(c)) {
        changes_record_drop(c);
        finish_batch(c, STATUS_OK, "");
        changes_start(c);
        return;
    }
    struct store_batch *batch = store_batch_new();
    changes_record_store(c, batch);
    c->committing = true;
    store_commit(c->store, batch, route_table_staged_revision(c->table), on_committed, c);
}

void changes_start(struct changes *c)
{
    if (!c->committing && (c->return_due || !list_is_empty(&c->waiting) || changes_gate_is_ready(c)))
        loop_defer(c->loop, &c->deferred, run_batch);
}

/* ---- calls ---- */

static void submit(struct changes *c, struct change_request content)
{
    struct change_request *r = malloc(sizeof *r);
    if (!r)
        abort();
    *r = content;
    list_init(&r->link);
    list_push(&c->waiting, &r->link);
    changes_start(c);
}

void changes_put(struct changes *c, struct route_app *app, uint64_t expected_revision, change_done_cb done, void *arg)
{
    submit(c, (struct change_request){.kind = CHANGE_REQUEST_PUT,
                                      .app = app,
                                      .app_id = changes_copy(slice_str(app->id)),
                                      .expected_revision = expected_revision,
                                      .done = done,
                                      .arg = arg});
}

void changes_delete(struct changes *c, struct slice app_id, uint64_t expected_revision, change_done_cb done, void *arg)
{
    submit(c, (struct change_request){.kind = CHANGE_REQUEST_DELETE,
                                      .app_id = changes_copy(app_id),
                                      .expected_revision = expected_revision,
                                      .done = done,
                                      .arg = arg});
}

void changes_patch_instance(struct changes *c, struct slice app_id, struct slice instance_id, struct slice json,
                            uint64_t expected_revision, change_done_cb done, void *arg)
{
    submit(c, (struct change_request){.kind = CHANGE_REQUEST_PATCH,
                                      .app_id = changes_copy(app_id),
                                      .instance_id = changes_copy(instance_id),
                                      .json = changes_copy(json),
                                      .expected_revision = expected_revision,
                                      .done = done,
                                      .arg = arg});
}

void changes_submit(struct changes *c, struct changes_batch **batch, uint64_t expected_revision, change_done_cb done,
                    void *arg)
{
    submit(c, (struct change_request){.kind = CHANGE_REQUEST_BATCH,
                                      .lines = *batch,
                                      .expected_revision = expected_revision,
                                      .done = done,
                                      .arg = arg});
    *batch = NULL;
}

void changes_snapshot_commit(struct changes_snapshot **snapshot, const struct changes_snapshot_options *options,
                             change_done_cb done, void *arg)
{
    struct changes *c = changes_snapshot_owner(*snapshot);
    changes_snapshot_set_options(*snapshot, options);
    submit(c, (struct change_request){.kind = CHANGE_REQUEST_SNAPSHOT,
                                      .snapshot = *snapshot,
                                      .expected_revision = options->expected_revision,
                                      .done = done,
                                      .arg = arg});
    *snapshot = NULL;
}

static void forget_in(struct list *list, const void *arg)
{
    LIST_EACH (link, list) {
        struct change_request *r = CONTAINER_OF(link, struct change_request, link);
        if (r->arg != arg)
            continue;
        r->done = NULL;
        if (r->snapshot)
            changes_snapshot_forget(r->snapshot);
    }
}

void changes_forget(struct changes *c, void *arg)
{
    forget_in(&c->waiting, arg);
    forget_in(&c->batch, arg);
    forget_in(&c->gated, arg);
    forget_in(&c->at_gate, arg);
}

/* ---- life ---- */

struct changes *changes_new(struct loop *loop, struct route_table *table, struct store *store,
                            changes_revoked_cb revoked, void *revoked_arg)
{
    struct changes *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    *c = (struct changes){.loop = loop, .table = table, .store = store, .revoked = revoked, .revoked_arg = revoked_arg};
    c->history = history_new(NULL);
    list_init(&c->watchers);
    list_init(&c->waiting);
    list_init(&c->batch);
    list_init(&c->gated);
    list_init(&c->at_gate);
    return c;
}

static void refuse_all(struct list *list)
{
    while (!list_is_empty(list)) {
        struct change_request *r = CONTAINER_OF(list->next, struct change_request, link);
        change_request_refuse(r, STATUS_SHUTDOWN, "", status_what(STATUS_SHUTDOWN));
        change_request_finish(r);
    }
}

static void release(struct changes *c)
{
    if (c->committing || c->deferred.queued)
        return;
    changes_record_drop(c);
    history_free(&c->history);
    free(c);
}

void changes_free(struct changes **changes)
{
    struct changes *c = *changes;
    if (!c)
        return;
    *changes = NULL;
    if (c->committing)
        route_table_abort(c->table);
    c->ended = true;
    refuse_all(&c->batch);
    refuse_all(&c->at_gate);
    refuse_all(&c->gated);
    refuse_all(&c->waiting);
    id_set_clear(&c->left_out);
    changes_drop_kept(c);
    release(c);
}

void changes_set_rules(struct changes *c, const struct route_rules *rules)
{
    c->rules = rules;
    c->return_due = c->left_out.count > 0;
    changes_start(c);
}

const struct route_rules *changes_rules(const struct changes *c)
{
    return c->rules;
}

void changes_set_max_apps(struct changes *c, size_t max_apps)
{
    c->max_apps = max_apps;
}

void changes_set_gate(struct changes *c, const struct changes_gate *gate)
{
    c->gate = gate;
}

void changes_watch(struct changes *c, struct changes_watcher *watcher)
{
    list_init(&watcher->link);
    list_push(&c->watchers, &watcher->link);
}

void changes_unwatch(struct changes_watcher *watcher)
{
    if (watcher->link.next)
        list_remove(&watcher->link);
}

const struct history *changes_history(const struct changes *c)
{
    return c->history;
}
