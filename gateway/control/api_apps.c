#include "api_internal.h"

#include "gateway/control/app_document.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

static struct slice app_id_of(const struct api_call *call)
{
    return call->captures[0];
}

/* The app's document, malloc'ed, and its revision; NULL if there is no such app. */
static char *format_app(const struct api_call *call, uint64_t *ret_revision)
{
    char *text = NULL;
    route_table_read_begin();
    const struct route_app *app = route_table_app(call->api->params.table, app_id_of(call));
    if (app) {
        text = app_document_format(app);
        *ret_revision = app->revision;
    }
    route_table_read_end();
    return text;
}

static void refuse_unknown_app(struct api_call *call)
{
    api_answer_refuse(call, STATUS_APP_UNKNOWN, "app_id", "there is no app with this id; GET /v1/apps lists them");
}

static void answer_app(struct api_call *call, int http_status, char *text, uint64_t revision)
{
    api_answer_add_etag(call, revision);
    api_answer_text(call, http_status, SLICE("application/json"), slice_str(text));
    free(text);
}

void api_apps_get(struct api_call *call)
{
    uint64_t revision = 0;
    char *text = format_app(call, &revision);
    if (text)
        answer_app(call, 200, text, revision);
    else
        refuse_unknown_app(call);
}

/* ---- put ---- */

/*
 * True if the JSON object has no app_id of its own. Text that is no object is left to app_document_parse, which says
 * what is wrong with it.
 */
static bool lacks_app_id(struct slice json, bool *ret_is_empty)
{
    json_t *root = json_loadb(json.len > 0 ? json.ptr : "", json.len, 0, NULL);
    bool lacks = json_is_object(root) && !json_object_get(root, "app_id");
    *ret_is_empty = lacks && json_object_size(root) == 0;
    json_decref(root);
    return lacks;
}

/* Writes the path's id in front of the members. The id has passed hostname_is_id, so it needs no escaping. */
static void insert_app_id(struct api_call *call, bool is_empty)
{
    struct slice old = {call->body.ptr, call->body.len};
    const char *brace = memchr(old.ptr, '{', old.len);
    assert(brace);
    struct slice member =
        arena_printf(call->arena, "{\"app_id\":\"%.*s\"%s", SLICE_ARG(app_id_of(call)), is_empty ? "" : ",");
    struct api_text text = {.ptr = NULL};
    api_text_append(&text, member);
    api_text_append(&text, slice_from(old, (size_t)(brace - old.ptr) + 1));
    api_text_free(&call->body);
    call->body = text;
}

/* The app in the body, or NULL when the call was refused. */
static struct route_app *parse_body(struct api_call *call)
{
    struct route_app *app = NULL;
    struct route_problem problem = {.status = STATUS_OK};
    bool is_empty;
    if (!hostname_is_id(app_id_of(call))) {
        api_answer_refuse(call, STATUS_INVALID_RECORD, "app_id",
                          "the id in the path is not valid; use 1 to 63 of a-z, 0-9 and inner hyphens");
        return NULL;
    }
    if (lacks_app_id(slice_make(call->body.ptr, call->body.len), &is_empty))
        insert_app_id(call, is_empty);
    if (app_document_parse(slice_make(call->body.ptr, call->body.len), &app, &problem) != STATUS_OK) {
        api_answer_problem(call, &problem);
        return NULL;
    }
    if (!slice_eq(slice_str(app->id), app_id_of(call))) {
        api_answer_refuse(call, STATUS_INVALID_RECORD, "app_id", "it is %s, but the path says %.*s; make them equal",
                          app->id, SLICE_ARG(app_id_of(call)));
        route_app_free(&app);
    }
    return app;
}

/* What is left to say of a state that has changed again. malloc'ed. */
static char *format_overtaken(const struct api_call *call, uint64_t revision)
{
    json_t *json = json_pack("{so sI}", "app_id", api_json_text(app_id_of(call)), "revision", (json_int_t)revision);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text)
        abort();
    return text;
}

/*
 * Answers a put or patch that is done with the document as stored. If another change of the same batch came after it,
 * the answer has this change's revision all the same: an If-Match with it must not pass for the other's state.
 */
static void answer_changed(struct api_call *call, const struct change_result *result)
{
    uint64_t revision = 0;
    char *text = format_app(call, &revision);
    if (text && revision != result->revision) {
        free(text);
        text = NULL;
    }
    if (!text)
        text = format_overtaken(call, result->revision);
    if (result->created)
        local_add_field(call->local, SLICE("Location"),
                        arena_printf(call->arena, "/v1/apps/%.*s", SLICE_ARG(app_id_of(call))));
    answer_app(call, result->created ? 201 : 200, text, result->revision);
}

static void answer_failed(struct api_call *call, const struct change_result *result)
{
    struct route_problem problem = result->problem;
    problem.status = result->status;
    api_answer_problem(call, &problem);
}

static void on_changed(void *arg, const struct change_result *result)
{
    struct api_call *call = arg;
    call->changing = false;
    if (result->status == STATUS_OK)
        answer_changed(call, result);
    else
        answer_failed(call, result);
}

void api_apps_put(struct api_call *call)
{
    uint64_t revision;
    struct route_app *app = parse_body(call);
    if (!app)
        return;
    if (!api_check_put_condition(call, &revision)) {
        route_app_free(&app);
        return;
    }
    call->changing = true;
    changes_put(call->api->params.changes, app, revision, on_changed, call);
}

void api_apps_patch_instance(struct api_call *call)
{
    uint64_t revision;
    if (!api_check_if_match(call, &revision))
        return;
    call->changing = true;
    changes_patch_instance(call->api->params.changes, app_id_of(call), call->captures[1],
                           slice_make(call->body.ptr, call->body.len), revision, on_changed, call);
}

/* ---- delete ---- */

static void on_deleted(void *arg, const struct change_result *result)
{
    struct api_call *call = arg;
    call->changing = false;
    if (result->status == STATUS_OK)
        api_answer_text(call, 204, SLICE_NONE, SLICE_NONE);
    else
        answer_failed(call, result);
}

/* What is left out in a fleet goes by its key, which somebody has written, in whatever case. */
static struct slice id_to_delete(const struct api_call *call)
{
    struct slice as_sent = call->target.segments[call->target.segment_count - 1];
    return changes_leaves_out(call->api->params.changes, as_sent) ? as_sent : app_id_of(call);
}

void api_apps_delete(struct api_call *call)
{
    uint64_t revision;
    if (!api_check_if_match(call, &revision))
        return;
    api_call_await(call);
    changes_delete(call->api->params.changes, id_to_delete(call), revision, on_deleted, call);
}
