#include "changes_internal.h"

#include "gateway/base/log.h"
#include "gateway/control/app_document.h"

#include <stdlib.h>

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
        status = changes_stage_put(load->changes, &app, revision, &problem);
    if (status == STATUS_OK) {
        load->loaded++;
        return;
    }
    route_app_free(&app);
    load->left_out++;
    char *id = changes_copy(app_id);
    id_set_add(&load->changes->left_out, id);
    free(id);
    log_error("routes: app %.*s in the store is left out: %s: %s", SLICE_ARG(app_id), problem.field, problem.detail);
}

static void load_tombstone(void *arg, struct slice app_id, uint64_t revision)
{
    struct changes *c = arg;
    if (app_id.len <= HOSTNAME_MAX_LABEL && revision > 0)
        history_restore(c->history, app_id, revision);
}

static void digest_one(void *arg, struct slice app_id, const struct route_app *app)
{
    struct changes *c = arg;
    if (app)
        c->digest ^= changes_digest_of(app_id, app->revision);
}

enum status changes_load(struct changes *c, char ret_error[CHANGES_ERROR_TEXT_MAX])
{
    struct load load = {.changes = c};
    uint64_t last_revision = 0, floor = 0;
    enum status status = store_load(c->store, load_one, &load, &last_revision, ret_error);
    if (status == STATUS_OK)
        status = store_load_tombstones(c->store, load_tombstone, c, &floor, ret_error);
    if (status != STATUS_OK) {
        route_table_abort(c->table);
        return status;
    }
    route_table_staged_each(c->table, digest_one, c);
    route_table_stage_revision(c->table, last_revision);
    route_table_publish(c->table, c->revoked, c->revoked_arg);
    history_begin(c->history, floor, last_revision);
    if (load.loaded + load.left_out > 0)
        log_info("routes: %zu apps from the store, %zu left out", load.loaded, load.left_out);
    return STATUS_OK;
}
