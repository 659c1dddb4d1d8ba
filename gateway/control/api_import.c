/* PUT /v1/snapshot: the whole table from NDJSON, line by line as it comes, applied at once at the end. */
#include "api_internal.h"

#include "gateway/control/app_document.h"
#include "gateway/control/ndjson.h"
#include "gateway/http/hostname.h"

enum { MAX_ERRORS = 100, MAX_IDS = 16 }; /* of a refused line, which may be two in one */

struct import {
    struct api_call *call;
    struct changes_snapshot *snapshot;
    struct ndjson lines;
    struct changes_snapshot_options options;
    bool may_be_empty;
    uint64_t line_number;
    uint64_t accepted;
    uint64_t refused;
    json_t *errors;
};

/* `what` (taken) says what is refused. */
static void add_error(struct import *import, json_t *what, const struct route_problem *problem)
{
    const char *detail = problem->detail[0] ? problem->detail : status_what(problem->status);
    if (json_array_size(import->errors) == MAX_ERRORS) {
        json_decref(what);
        return;
    }
    json_object_set_new(what, "code", json_string(status_code(problem->status)));
    json_object_set_new(what, "field", api_json_text(slice_str(problem->field)));
    json_object_set_new(what, "detail", api_json_text(slice_str(detail)));
    json_array_append_new(import->errors, what);
}

/* The app that a refused line is of is not missing: it stays as it is. */
static void leave_alone(struct import *import, struct slice line)
{
    struct slice id;
    char lower[HOSTNAME_MAX_LABEL];
    for (int i = 0; i < MAX_IDS && app_document_next_id(&line, &id); i++) {
        if (id.len > sizeof lower)
            continue;
        ascii_lower_copy(lower, id);
        changes_snapshot_leave_alone(import->snapshot, slice_make(lower, id.len));
    }
}

static void refuse_line(struct import *import, struct slice line, const struct route_problem *problem)
{
    import->refused++;
    leave_alone(import, line);
    add_error(import, json_pack("{sI}", "line", (json_int_t)import->line_number), problem);
}

static void take_document(struct import *import, struct slice json)
{
    struct route_app *app = NULL;
    struct route_problem problem = {.status = STATUS_OK};
    enum status status = app_document_parse(json, &app, &problem);
    if (status == STATUS_OK) {
        status = changes_snapshot_add(import->snapshot, app, &problem);
        if (status != STATUS_OK)
            route_app_free(&app);
    }
    if (status == STATUS_OK) {
        import->accepted++;
        return;
    }
    problem.status = status;
    refuse_line(import, json, &problem);
}

static void on_line(void *arg, uint64_t number, struct slice line, bool too_long)
{
    struct import *import = arg;
    struct route_problem problem;
    import->line_number = number;
    if (!too_long) {
        take_document(import, line);
        return;
    }
    api_problem_fill(&problem, STATUS_PAYLOAD_TOO_LARGE, "", "the line has more than %d bytes", API_MAX_DOCUMENT_BYTES);
    refuse_line(import, line, &problem);
}

static void on_body(void *self, struct slice piece)
{
    struct import *import = self;
    ndjson_feed(&import->lines, piece);
    local_credit(import->call->local, piece.len);
}

static json_t *counts_of(const struct import *import)
{
    return json_pack("{sI sI sO}", "apps", (json_int_t)import->accepted, "refused", (json_int_t)import->refused,
                     "errors", import->errors);
}

/* Valid alone, but in conflict with others of the snapshot. */
static void on_conflict(void *arg, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    struct import *import = arg;
    (void)revision;
    import->accepted--;
    import->refused++;
    add_error(import, json_pack("{so}", "app_id", api_json_text(app_id)), problem);
}

static void on_committed(void *arg, const struct change_result *result)
{
    struct api_call *call = arg;
    json_t *counts = counts_of(call->state);
    call->changing = false;
    if (result->status == STATUS_OK) {
        uint64_t revision = route_table_revision(call->api->params.table);
        json_object_set_new(counts, "revision", json_integer((json_int_t)revision));
        api_answer_json(call, 200, counts);
        return;
    }
    struct route_problem problem = result->problem;
    problem.status = result->status;
    api_answer_problem_with(call, &problem, counts);
}

static void refuse_whole(struct import *import, const char *why)
{
    struct route_problem problem;
    changes_snapshot_abort(&import->snapshot);
    api_problem_fill(&problem, STATUS_INVALID_RECORD, "", "%s; nothing was changed", why);
    api_answer_problem_with(import->call, &problem, counts_of(import));
}

/* A body without one valid line is taken for a mistake, not for the wish to delete every route. */
static void on_end(void *self)
{
    struct import *import = self;
    struct api_call *call = import->call;
    ndjson_end(&import->lines);
    if (import->refused > 0 && import->options.strict) {
        refuse_whole(import, "strict was asked for and not every line is valid");
        return;
    }
    if (import->refused > 0 && import->accepted == 0) {
        refuse_whole(import, "no line is valid");
        return;
    }
    if (import->accepted == 0 && !import->may_be_empty && route_table_app_count(call->api->params.table) > 0) {
        refuse_whole(import, "the body is empty; add empty=1 to delete every route");
        return;
    }
    call->changing = true;
    import->options.refused = on_conflict;
    import->options.refused_arg = import;
    changes_snapshot_commit(&import->snapshot, &import->options, on_committed, call);
}

static void on_gone(void *self)
{
    struct import *import = self;
    changes_snapshot_abort(&import->snapshot);
    ndjson_free(&import->lines);
    json_decref(import->errors);
    api_call_gone(import->call);
}

/* False if the call was refused. */
static bool read_options(struct api_call *call, struct changes_snapshot_options *ret_options)
{
    struct slice value;
    struct changes_snapshot_options options = {.strict = false};
    if (!api_check_flag(call, "strict", &options.strict) || !api_check_table_if_match(call, &options.expected_revision))
        return false;
    if (api_target_parameter(&call->target, "revision", &value) &&
        (!slice_to_u64(value, &options.revision) || options.revision == 0 ||
         options.revision > CHANGES_MAX_GIVEN_REVISION)) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "revision",
                          "it is the revision that the table has with this snapshot, a number from 1 to %ju",
                          (uintmax_t)CHANGES_MAX_GIVEN_REVISION);
        return false;
    }
    *ret_options = options;
    return true;
}

void api_import_snapshot(struct api_call *call)
{
    static const struct local_handler handler = {.body = on_body, .end = on_end, .gone = on_gone};
    struct changes_snapshot_options options;
    bool may_be_empty;
    if (!api_check_content_type(call) || !read_options(call, &options) || !api_check_flag(call, "empty", &may_be_empty))
        return;
    struct import *import = arena_alloc_zeroed(call->arena, sizeof *import);
    import->call = call;
    import->options = options;
    import->may_be_empty = may_be_empty;
    import->errors = json_array();
    ndjson_init(&import->lines, API_MAX_DOCUMENT_BYTES, on_line, import);
    import->snapshot = changes_snapshot_begin(call->api->params.changes, CHANGES_REPLACE);
    call->state = import;
    local_handle(call->local, &handler, import);
}
