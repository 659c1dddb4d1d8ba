/* A `changes` for tests of the API: publishes at once, answers one turn later, stores nothing. */
#ifndef TESTS_CONTROL_CHANGES_FAKE_H
#define TESTS_CONTROL_CHANGES_FAKE_H

#include "gateway/control/api.h"
#include "gateway/control/app_document.h"

#include "changes_fake_rest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct pending {
    change_done_cb done;
    void *arg;
    struct change_result result;
    bool used;
};

struct changes {
    struct loop *loop;
    struct route_table *table;
    struct pending pending[8];
    enum status next_failure; /* the next change fails with it */
    unsigned forgotten;
    unsigned commits;
    unsigned aborts;
    char left_alone[256]; /* ids, a space behind each */
};

struct changes_snapshot {
    struct changes *changes;
    struct route_app *apps[4096];
    size_t count;
};

static void deliver(void *arg)
{
    struct pending *pending = arg;
    struct pending copy = *pending;
    pending->used = false;
    if (copy.done)
        copy.done(copy.arg, &copy.result);
}

static void ignore_revoked(void *arg, struct claim *claim)
{
    (void)arg;
    (void)claim;
}

static void finish_change(struct changes *changes, struct change_result result, change_done_cb done, void *arg)
{
    size_t i = 0;
    while (changes->pending[i].used)
        i++;
    if (result.status == STATUS_OK)
        route_table_publish(changes->table, ignore_revoked, NULL);
    else
        route_table_abort(changes->table);
    changes->pending[i] = (struct pending){done, arg, result, true};
    loop_post(changes->loop, deliver, &changes->pending[i]);
}

static enum status check_before(struct changes *changes, struct slice app_id, uint64_t expected,
                                struct change_result *result)
{
    enum status failure = changes->next_failure;
    const struct route_app *app = route_table_staged_app(changes->table, app_id);
    changes->next_failure = STATUS_OK;
    result->created = app == NULL;
    if (failure == STATUS_OK && expected != CHANGES_ANY_REVISION && (!app || app->revision != expected))
        failure = STATUS_REVISION_CONFLICT;
    return failure;
}

void changes_put(struct changes *changes, struct route_app *app, uint64_t expected_revision, change_done_cb done,
                 void *arg)
{
    struct change_result result = {.status = STATUS_OK};
    struct slice id = slice_str(app->id);
    result.status = check_before(changes, id, expected_revision, &result);
    if (result.status == STATUS_OK)
        result.status = route_table_stage_put(changes->table, app, &result.problem);
    if (result.status == STATUS_OK)
        result.revision = app->revision;
    else
        route_app_free(&app);
    finish_change(changes, result, done, arg);
}

void changes_delete(struct changes *changes, struct slice app_id, uint64_t expected_revision, change_done_cb done,
                    void *arg)
{
    struct change_result result = {.status = STATUS_OK};
    result.status = check_before(changes, app_id, expected_revision, &result);
    if (result.status == STATUS_OK)
        result.status = route_table_stage_delete(changes->table, app_id, &result.problem);
    finish_change(changes, result, done, arg);
}

void changes_patch_instance(struct changes *changes, struct slice app_id, struct slice instance_id, struct slice json,
                            uint64_t expected_revision, change_done_cb done, void *arg)
{
    struct change_result result = {.status = STATUS_APP_UNKNOWN};
    const struct route_app *old = route_table_staged_app(changes->table, app_id);
    struct route_app *app = old ? route_app_copy(old) : NULL;
    if (app) {
        app->revision = 0;
        result.status = check_before(changes, app_id, expected_revision, &result);
        if (result.status == STATUS_OK)
            result.status = app_document_patch_instance(json, app, instance_id, &result.problem);
        if (result.status == STATUS_OK)
            result.status = route_table_stage_put(changes->table, app, &result.problem);
        if (result.status == STATUS_OK)
            result.revision = app->revision;
        else
            route_app_free(&app);
    }
    finish_change(changes, result, done, arg);
}

struct changes_snapshot *changes_snapshot_begin(struct changes *changes, enum changes_snapshot_mode mode)
{
    assert_int_equal(mode, CHANGES_REPLACE);
    struct changes_snapshot *snapshot = calloc(1, sizeof *snapshot);
    assert_non_null(snapshot);
    snapshot->changes = changes;
    return snapshot;
}

enum status changes_snapshot_add(struct changes_snapshot *snapshot, struct route_app *app,
                                 struct route_problem *ret_problem)
{
    for (size_t i = 0; i < snapshot->count; i++) {
        if (strcmp(snapshot->apps[i]->id, app->id) == 0) {
            *ret_problem = (struct route_problem){.status = STATUS_INVALID_RECORD, .field = "app_id"};
            return STATUS_INVALID_RECORD;
        }
    }
    snapshot->apps[snapshot->count++] = app;
    return STATUS_OK;
}

void changes_snapshot_leave_alone(struct changes_snapshot *snapshot, struct slice app_id)
{
    char *text = snapshot->changes->left_alone;
    size_t len = strlen(text);
    snprintf(text + len, sizeof snapshot->changes->left_alone - len, "%.*s ", SLICE_ARG(app_id));
}

static void collect_id(void *arg, const struct route_app *app)
{
    snprintf(arg, HOSTNAME_MAX_LABEL + 1, "%s", app->id);
}

static void delete_all(struct changes *changes)
{
    char id[HOSTNAME_MAX_LABEL + 1] = "";
    struct route_problem problem;
    while (route_table_each(changes->table, SLICE_NONE, 1, collect_id, id) > 0) {
        assert_int_equal(route_table_stage_delete(changes->table, slice_str(id), &problem), STATUS_OK);
        route_table_publish(changes->table, ignore_revoked, NULL);
    }
}

void changes_snapshot_commit(struct changes_snapshot **snapshot, const struct changes_snapshot_options *options,
                             change_done_cb done, void *arg)
{
    (void)options;
    struct changes *changes = (*snapshot)->changes;
    struct change_result result = {.status = changes->next_failure};
    changes->next_failure = STATUS_OK;
    changes->commits++;
    if (result.status == STATUS_OK)
        delete_all(changes);
    for (size_t i = 0; i < (*snapshot)->count; i++) {
        if (result.status == STATUS_OK)
            assert_int_equal(route_table_stage_put(changes->table, (*snapshot)->apps[i], &result.problem), STATUS_OK);
        else
            route_app_free(&(*snapshot)->apps[i]);
    }
    free(*snapshot);
    *snapshot = NULL;
    finish_change(changes, result, done, arg);
}

void changes_snapshot_abort(struct changes_snapshot **snapshot)
{
    if (!*snapshot)
        return;
    (*snapshot)->changes->aborts++;
    for (size_t i = 0; i < (*snapshot)->count; i++)
        route_app_free(&(*snapshot)->apps[i]);
    free(*snapshot);
    *snapshot = NULL;
}

void changes_forget(struct changes *changes, void *arg)
{
    changes->forgotten++;
    for (size_t i = 0; i < sizeof changes->pending / sizeof changes->pending[0]; i++)
        if (changes->pending[i].used && changes->pending[i].arg == arg)
            changes->pending[i].done = NULL;
}

#endif
