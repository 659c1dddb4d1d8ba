/*
 * The control API without a network: requests go into a local endpoint, answers are recorded. `changes` is a fake that
 * publishes at once and answers one turn later.
 */
#ifndef TESTS_CONTROL_API_FIXTURE_H
#define TESTS_CONTROL_API_FIXTURE_H

#include "gateway/control/api.h"
#include "gateway/control/app_document.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- the fake changes ---- */

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

struct changes_snapshot *changes_snapshot_begin(struct changes *changes)
{
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

void changes_snapshot_commit(struct changes_snapshot **snapshot, change_done_cb done, void *arg)
{
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

/* ---- the program around the API ---- */

struct fixture {
    struct counters counters;
    struct loop *loop;
    struct changes changes;
    struct api *api;
    struct api_listener listener;
    bool ready;
    bool draining;
    unsigned reloads;
    const char *reload_error;

    /* the last answer */
    struct arena arena;
    struct endpoint *endpoint;
    bool stalled; /* the client does not read: nothing is credited */
    int status;
    bool ended;
    bool was_reset;
    size_t body_len;
    char fields[2048]; /* "name: value\n" */
    char *body;        /* NUL-terminated */
    size_t max_uncredited;
    size_t uncredited;
};

static void on_head(void *owner, const struct message_head *head, bool end)
{
    struct fixture *f = owner;
    size_t len = 0;
    assert_int_equal(f->status, 0);
    f->status = head->status;
    for (size_t i = 0; i < head->fields.count; i++)
        len += (size_t)snprintf(f->fields + len, sizeof f->fields - len, "%.*s: %.*s\n",
                                SLICE_ARG(head->fields.items[i].name), SLICE_ARG(head->fields.items[i].value));
    f->ended = end;
}

static void on_body(void *owner, const char *data, size_t len, bool end)
{
    struct fixture *f = owner;
    f->body = realloc(f->body, f->body_len + len + 1);
    assert_non_null(f->body);
    if (len > 0)
        memcpy(f->body + f->body_len, data, len);
    f->body_len += len;
    f->body[f->body_len] = '\0';
    f->ended = end;
    f->uncredited += len;
    if (f->uncredited > f->max_uncredited)
        f->max_uncredited = f->uncredited;
}

static void on_room(void *owner)
{
    (void)owner;
}

static void on_reset(void *owner, enum status status)
{
    struct fixture *f = owner;
    (void)status;
    f->was_reset = true;
}

static const struct endpoint_events recorder = {.head = on_head, .body = on_body, .room = on_room, .reset = on_reset};

static void turn(struct fixture *f)
{
    loop_turn(f->loop, 0);
    if (f->endpoint && !f->stalled && f->uncredited > 0) {
        size_t bytes = f->uncredited;
        f->uncredited = 0;
        f->endpoint->ops->credit(f->endpoint, bytes);
    }
}

static void fill_status(void *arg, struct api_status *ret_status)
{
    const struct fixture *f = arg;
    ret_status->workers = 2;
    ret_status->started_wall_us = 1700000000000000U;
    ret_status->ready = f->ready;
    ret_status->draining = f->draining;
    ret_status->config_path = "/etc/gateway.yaml";
    ret_status->last_reload_error = f->reload_error;
}

static void do_drain(void *arg)
{
    ((struct fixture *)arg)->draining = true;
}

static void do_reload(void *arg)
{
    ((struct fixture *)arg)->reloads++;
}

static const struct slice fixture_domains[] = {SLICE_INIT("prod5.phala.network"), SLICE_INIT("other.example")};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    route_table_thread_begin();
    f->loop = loop_new(&f->counters);
    f->changes.loop = f->loop;
    f->changes.table = route_table_new();
    f->ready = true;
    f->reload_error = "";
    struct api_params params = {.loop = f->loop,
                                .table = f->changes.table,
                                .changes = &f->changes,
                                .base_domains = fixture_domains,
                                .base_domain_count = 2,
                                .status = fill_status,
                                .drain = do_drain,
                                .reload = do_reload,
                                .arg = f};
    f->api = api_new(&params);
    f->listener.api = f->api;
    *state = f;
    return 0;
}

/* The client leaves, or has read all. */
static void hang_up(struct fixture *f)
{
    if (f->endpoint)
        f->endpoint->ops->release(&f->endpoint, STATUS_OK);
    loop_turn(f->loop, 0);
    loop_turn(f->loop, 0);
    arena_reset(&f->arena);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    hang_up(f);
    api_free(&f->api);
    delete_all(&f->changes);
    route_table_free(&f->changes.table);
    loop_free(&f->loop);
    route_table_thread_end();
    free(f->body);
    free(f);
    return 0;
}

/* ---- calls ---- */

/* Begins a request; `fields` is "name: value\n…". The body follows with send_piece. */
static void begin_call(struct fixture *f, const char *method, const char *path, const char *fields, bool has_body)
{
    struct message_head head = {.method = method_of(slice_str(method)),
                                .method_text = slice_str(method),
                                .target = slice_str(path),
                                .path = slice_str(path),
                                .version = HTTP_1_1,
                                .body = has_body ? BODY_CHUNKED : BODY_NONE};
    hang_up(f);
    free(f->body);
    f->body = NULL;
    f->body_len = f->uncredited = f->max_uncredited = 0;
    f->status = 0;
    f->ended = f->was_reset = false;
    f->fields[0] = '\0';
    arena_init(&f->arena, NULL);
    while (*fields) {
        const char *colon = strchr(fields, ':');
        const char *end = strchr(fields, '\n');
        fields_add(&head.fields, &f->arena, slice_make(fields, (size_t)(colon - fields)),
                   slice_make(colon + 2, (size_t)(end - colon - 2)));
        fields = end + 1;
    }
    f->endpoint = local_open(f->loop, &api_service, &f->listener);
    endpoint_bind(f->endpoint, &recorder, f, &f->arena);
    f->endpoint->ops->send_head(f->endpoint, &head, !has_body);
    turn(f);
}

static void send_piece(struct fixture *f, const char *data, size_t len, bool end)
{
    f->endpoint->ops->send_body(f->endpoint, data, len, end);
    turn(f);
}

static void await_answer(struct fixture *f)
{
    for (int i = 0; i < 20000 && !f->ended; i++) {
        loop_turn(f->loop, 5);
        turn(f);
    }
    assert_true(f->ended);
}

/* A whole call; body NULL: none. Returns the status. */
static int call_with(struct fixture *f, const char *method, const char *path, const char *fields, const char *body)
{
    begin_call(f, method, path, fields, body != NULL);
    for (size_t sent = 0, len = body ? strlen(body) : 0; body && sent <= len && !f->ended; sent += 50000) {
        size_t part = len - sent < 50000 ? len - sent : 50000;
        send_piece(f, body + sent, part, sent + part == len);
        if (part == len - sent)
            break;
    }
    await_answer(f);
    return f->status;
}

static int call(struct fixture *f, const char *method, const char *path, const char *body)
{
    return call_with(f, method, path, body ? "Content-Type: application/json\n" : "", body);
}

/* A member of the last answer as JSON text, in a static buffer. */
static const char *answer_member(struct fixture *f, const char *key)
{
    static char text[512];
    json_t *json = json_loadb(f->body, f->body_len, 0, NULL);
    assert_non_null(json);
    char *dumped = json_dumps(json_object_get(json, key), JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(text, sizeof text, "%s", dumped ? dumped : "-");
    free(dumped);
    json_decref(json);
    return text;
}

#define assert_field(f, line)   assert_non_null(strstr((f)->fields, line))
#define assert_member(f, k, v)  assert_string_equal(answer_member(f, k), v)
#define assert_in_body(f, text) assert_non_null(strstr((f)->body, text))

#endif
