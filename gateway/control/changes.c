#include "gateway/control/changes.h"

#include "gateway/base/log.h"
#include "gateway/control/app_document.h"
#include "gateway/control/changes_snapshot.h"
#include "gateway/control/id_set.h"
#include "gateway/control/store.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_PUT, KIND_DELETE, KIND_PATCH, KIND_SNAPSHOT };

struct request {
    struct list link; /* waiting, or in the batch */
    enum kind kind;
    struct route_app *app;
    struct changes_snapshot *snapshot;
    char *app_id;
    char *instance_id;
    char *json;
    uint64_t expected_revision;
    bool strict;
    struct change_result result;
    change_done_cb done;
    void *arg;
};

struct changes {
    struct loop *loop;
    struct route_table *table;
    struct store *store;
    changes_revoked_cb revoked;
    void *revoked_arg;
    const struct route_rules *rules;
    struct list waiting;
    struct list batch; /* staged; being committed */
    struct deferred deferred;
    bool committing;
    bool ended;             /* freed by its owner; goes when nothing is on its way to it any more */
    struct id_set left_out; /* in the store, but not in the table: see changes_load */
};

/* ---- requests ---- */

static void free_request(struct request *r)
{
    list_remove(&r->link);
    route_app_free(&r->app);
    changes_snapshot_abort(&r->snapshot);
    free(r->app_id);
    free(r->instance_id);
    free(r->json);
    free(r);
}

static void finish(struct request *r)
{
    if (r->done)
        r->done(r->arg, &r->result);
    free_request(r);
}

static void refuse(struct request *r, enum status status, const char *field, const char *detail)
{
    r->result.status = r->result.problem.status = status;
    snprintf(r->result.problem.field, sizeof r->result.problem.field, "%s", field);
    snprintf(r->result.problem.detail, sizeof r->result.problem.detail, "%s", detail);
}

static char *copy(struct slice text)
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

static bool is_expected(struct changes *c, struct request *r, struct slice app_id)
{
    const struct route_app *now = route_table_staged_app(c->table, app_id);
    if (r->expected_revision == CHANGES_ANY_REVISION || (now && now->revision == r->expected_revision))
        return true;
    char detail[128];
    if (now)
        snprintf(detail, sizeof detail, "the app is at revision %llu now", (unsigned long long)now->revision);
    else
        snprintf(detail, sizeof detail, "the app does not exist (any more)");
    refuse(r, STATUS_REVISION_CONFLICT, "If-Match", detail);
    return false;
}

static void stage_app(struct changes *c, struct request *r, struct route_app **app)
{
    struct slice id = slice_str((*app)->id);
    bool existed = route_table_staged_app(c->table, id) != NULL;
    r->result.status = route_app_check(*app, c->rules, &r->result.problem);
    if (r->result.status == STATUS_OK)
        r->result.status = route_table_stage_put(c->table, *app, &r->result.problem);
    if (r->result.status != STATUS_OK)
        return;
    r->result.revision = (*app)->revision;
    r->result.created = !existed;
    *app = NULL; /* the table has it */
}

static void stage_patch(struct changes *c, struct request *r)
{
    struct slice id = slice_str(r->app_id);
    const struct route_app *now = route_table_staged_app(c->table, id);
    if (!now) {
        refuse(r, STATUS_APP_UNKNOWN, "app_id", "there is no such app");
        return;
    }
    struct route_app *app = route_app_copy(now);
    r->result.status =
        app_document_patch_instance(slice_str(r->json), app, slice_str(r->instance_id), &r->result.problem);
    if (r->result.status == STATUS_OK)
        stage_app(c, r, &app);
    route_app_free(&app);
}

/* An app that is in the store but not in the table can be deleted too: a new revision, which add_left_out writes. */
static void stage_delete(struct changes *c, struct request *r)
{
    struct slice id = slice_str(r->app_id);
    if (!route_table_staged_app(c->table, id) && id_set_has(&c->left_out, r->app_id))
        route_table_stage_revision(c->table, route_table_staged_revision(c->table) + 1);
    else
        r->result.status = route_table_stage_delete(c->table, id, &r->result.problem);
    r->result.revision = route_table_staged_revision(c->table);
}

static void stage(struct changes *c, struct request *r)
{
    struct slice id = slice_str(r->app_id);
    switch (r->kind) {
    case KIND_PUT:
        if (is_expected(c, r, id))
            stage_app(c, r, &r->app);
        break;
    case KIND_PATCH:
        if (is_expected(c, r, id))
            stage_patch(c, r);
        break;
    case KIND_DELETE:
        if (is_expected(c, r, id))
            stage_delete(c, r);
        break;
    case KIND_SNAPSHOT:
        changes_snapshot_stage(r->snapshot, c->table, &r->result);
        if (r->strict && r->result.refused > 0)
            r->result.status = r->result.problem.status;
        break;
    }
}

/* ---- batches ---- */

static void add_staged(void *arg, struct slice app_id, const struct route_app *app)
{
    struct store_batch *batch = arg;
    store_batch_add(batch, app_id, app ? app->revision : 0, app ? app_document_format(app) : NULL);
}

static void add_deletion(void *batch, const char *app_id)
{
    store_batch_add(batch, slice_str(app_id), 0, NULL);
}

/*
 * Left alone, a record that is only in the store would come back one day, though it was deleted. What is put in the
 * same batch is added after this, and wins.
 */
static void add_left_out(const struct changes *c, struct store_batch *batch)
{
    LIST_EACH (link, &c->batch) {
        const struct request *r = CONTAINER_OF(link, struct request, link);
        if (r->kind == KIND_SNAPSHOT)
            id_set_each(&c->left_out, add_deletion, batch);
        else if (r->kind == KIND_DELETE && id_set_has(&c->left_out, r->app_id))
            add_deletion(batch, r->app_id);
    }
}

/* What has been put or deleted is not left out any more. */
static void update_left_out(struct changes *c)
{
    LIST_EACH (link, &c->batch) {
        const struct request *r = CONTAINER_OF(link, struct request, link);
        if (r->kind == KIND_SNAPSHOT)
            id_set_clear(&c->left_out);
        else
            id_set_remove(&c->left_out, r->app_id);
    }
}

static void start_if_waiting(struct changes *c);
static void release(struct changes *c);

static void on_committed(void *arg, enum status status, const char *text)
{
    struct changes *c = arg;
    c->committing = false;
    if (c->ended) {
        release(c);
        return;
    }
    if (status == STATUS_OK) {
        update_left_out(c);
        route_table_publish(c->table, c->revoked, c->revoked_arg);
    } else {
        route_table_abort(c->table);
    }
    struct list *link;
    while ((link = c->batch.next) != &c->batch) {
        struct request *r = CONTAINER_OF(link, struct request, link);
        if (status != STATUS_OK)
            refuse(r, status, "", text);
        finish(r);
    }
    start_if_waiting(c);
}

/* A snapshot makes a batch of its own, so that it can be given up as a whole. */
static void stage_batch(struct changes *c)
{
    struct list *link;
    while ((link = c->waiting.next) != &c->waiting) {
        struct request *r = CONTAINER_OF(link, struct request, link);
        if (r->kind == KIND_SNAPSHOT && !list_is_empty(&c->batch))
            return;
        stage(c, r);
        if (r->result.status != STATUS_OK) {
            if (r->kind == KIND_SNAPSHOT)
                route_table_abort(c->table);
            finish(r);
            continue;
        }
        list_remove(&r->link);
        list_push(&c->batch, &r->link);
        if (r->kind == KIND_SNAPSHOT)
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
    stage_batch(c);
    if (list_is_empty(&c->batch))
        return;
    struct store_batch *batch = store_batch_new();
    add_left_out(c, batch);
    route_table_staged_each(c->table, add_staged, batch);
    c->committing = true;
    store_commit(c->store, batch, route_table_staged_revision(c->table), on_committed, c);
}

static void start_if_waiting(struct changes *c)
{
    if (!c->committing && !list_is_empty(&c->waiting))
        loop_defer(c->loop, &c->deferred, run_batch);
}

/* ---- calls ---- */

static void submit(struct changes *c, struct request content)
{
    struct request *r = malloc(sizeof *r);
    if (!r)
        abort();
    *r = content;
    list_init(&r->link);
    list_push(&c->waiting, &r->link);
    start_if_waiting(c);
}

void changes_put(struct changes *c, struct route_app *app, uint64_t expected_revision, change_done_cb done, void *arg)
{
    submit(c, (struct request){.kind = KIND_PUT,
                               .app = app,
                               .app_id = copy(slice_str(app->id)),
                               .expected_revision = expected_revision,
                               .done = done,
                               .arg = arg});
}

void changes_delete(struct changes *c, struct slice app_id, uint64_t expected_revision, change_done_cb done, void *arg)
{
    submit(c, (struct request){.kind = KIND_DELETE,
                               .app_id = copy(app_id),
                               .expected_revision = expected_revision,
                               .done = done,
                               .arg = arg});
}

void changes_patch_instance(struct changes *c, struct slice app_id, struct slice instance_id, struct slice json,
                            uint64_t expected_revision, change_done_cb done, void *arg)
{
    submit(c, (struct request){.kind = KIND_PATCH,
                               .app_id = copy(app_id),
                               .instance_id = copy(instance_id),
                               .json = copy(json),
                               .expected_revision = expected_revision,
                               .done = done,
                               .arg = arg});
}

void changes_snapshot_commit(struct changes_snapshot **snapshot, bool strict, change_done_cb done, void *arg)
{
    struct changes *c = changes_snapshot_owner(*snapshot);
    submit(c,
           (struct request){.kind = KIND_SNAPSHOT, .snapshot = *snapshot, .strict = strict, .done = done, .arg = arg});
    *snapshot = NULL;
}

static void forget_in(struct list *list, const void *arg)
{
    LIST_EACH (link, list) {
        struct request *r = CONTAINER_OF(link, struct request, link);
        if (r->arg == arg)
            r->done = NULL;
    }
}

void changes_forget(struct changes *c, void *arg)
{
    forget_in(&c->waiting, arg);
    forget_in(&c->batch, arg);
}

/* ---- life ---- */

struct changes *changes_new(struct loop *loop, struct route_table *table, struct store *store,
                            changes_revoked_cb revoked, void *revoked_arg)
{
    struct changes *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    *c = (struct changes){.loop = loop, .table = table, .store = store, .revoked = revoked, .revoked_arg = revoked_arg};
    list_init(&c->waiting);
    list_init(&c->batch);
    return c;
}

static void refuse_all(struct list *list)
{
    while (!list_is_empty(list)) {
        struct request *r = CONTAINER_OF(list->next, struct request, link);
        refuse(r, STATUS_SHUTDOWN, "", status_what(STATUS_SHUTDOWN));
        finish(r);
    }
}

static void release(struct changes *c)
{
    if (!c->committing && !c->deferred.queued)
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
    refuse_all(&c->waiting);
    id_set_clear(&c->left_out);
    release(c);
}

void changes_set_rules(struct changes *c, const struct route_rules *rules)
{
    c->rules = rules;
}

const struct route_rules *changes_rules(const struct changes *c)
{
    return c->rules;
}

/* ---- at boot ---- */

struct load {
    struct changes *changes;
    size_t loaded;
    size_t left_out;
};

static void load_one(void *arg, struct slice app_id, uint64_t revision, struct slice document)
{
    struct load *load = arg;
    struct route_app *app = NULL;
    struct route_problem problem = {.status = STATUS_OK};
    enum status status = app_document_parse(document, &app, &problem);
    if (status == STATUS_OK && !slice_eq(app_id, slice_str(app->id)))
        status = route_problem_set(&problem, STATUS_INVALID_RECORD, "app_id", "the document is of app %s", app->id);
    if (status == STATUS_OK)
        status = route_app_check(app, load->changes->rules, &problem);
    if (status == STATUS_OK) {
        app->revision = revision;
        status = route_table_stage_restore(load->changes->table, app, &problem);
    }
    if (status == STATUS_OK) {
        load->loaded++;
        return;
    }
    route_app_free(&app);
    load->left_out++;
    char *id = copy(app_id);
    id_set_add(&load->changes->left_out, id);
    free(id);
    log_error("routes: app %.*s in the store is left out: %s: %s", SLICE_ARG(app_id), problem.field, problem.detail);
}

enum status changes_load(struct changes *c, char ret_error[CHANGES_ERROR_TEXT_MAX])
{
    struct load load = {.changes = c};
    uint64_t last_revision = 0;
    enum status status = store_load(c->store, load_one, &load, &last_revision, ret_error);
    if (status != STATUS_OK) {
        route_table_abort(c->table);
        return status;
    }
    route_table_stage_revision(c->table, last_revision);
    route_table_publish(c->table, c->revoked, c->revoked_arg);
    if (load.loaded + load.left_out > 0)
        log_info("routes: %zu apps from the store, %zu left out", load.loaded, load.left_out);
    return STATUS_OK;
}
