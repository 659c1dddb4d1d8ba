/* POST /v1/changes: numbered changes as NDJSON, applied in one transaction, with an outcome for each line. */
#include "api_internal.h"

#include "gateway/control/change_line.h"
#include "gateway/control/ndjson.h"

enum { MAX_LINES = 10000, MAX_BYTES = 32 << 20 };

struct push {
    struct api_call *call;
    struct ndjson lines;
    struct changes_batch *batch;
    uint64_t expected_revision;
    size_t bytes;
};

static void refuse_push(struct push *push, const char *what, int limit)
{
    changes_batch_free(&push->batch);
    api_answer_refuse(push->call, STATUS_PAYLOAD_TOO_LARGE, "",
                      "one call takes at most %d %s; nothing was changed: send it in parts, or a snapshot", limit,
                      what);
}

static void on_line(void *arg, uint64_t number, struct slice text, bool too_long)
{
    struct push *push = arg;
    struct change_line content = {.op = CHANGE_PUT};
    if (!push->batch)
        return;
    if (push->batch->count == MAX_LINES) {
        refuse_push(push, "lines", MAX_LINES);
        return;
    }
    struct changes_line *line = changes_batch_add(push->batch);
    line->number = number;
    if (too_long) {
        api_problem_fill(&line->problem, STATUS_PAYLOAD_TOO_LARGE, "", "the line has more than %d bytes",
                         CHANGE_LINE_MAX_BYTES);
        return;
    }
    enum status status = change_line_parse(text, CHANGES_MAX_GIVEN_REVISION, &content, &line->problem);
    if (status == STATUS_OK && content.op != CHANGE_PUT && content.op != CHANGE_DELETE)
        api_problem_fill(&line->problem, STATUS_INVALID_RECORD, "op", "it must be \"put\" or \"delete\"");
    else
        line->problem.status = status;
    line->revision = content.revision;
    memcpy(line->app_id, content.app_id, sizeof line->app_id);
    line->app = content.app;
}

static void on_body(void *self, struct slice piece)
{
    struct push *push = self;
    push->bytes += piece.len;
    if (push->batch && push->bytes > MAX_BYTES)
        refuse_push(push, "bytes", MAX_BYTES);
    if (push->batch)
        ndjson_feed(&push->lines, piece);
    local_credit(push->call->local, piece.len);
}

/* ---- the answer ---- */

static json_t *outcome_json(const struct changes_line *line)
{
    static const char *const names[] = {
        [CHANGES_APPLIED] = "applied", [CHANGES_IGNORED] = "ignored", [CHANGES_REFUSED] = "refused"};
    const struct route_problem *problem = &line->problem;
    json_t *json = json_pack("{sI ss}", "line", (json_int_t)line->number, "outcome", names[line->outcome]);
    if (line->app_id[0])
        json_object_set_new(json, "app_id", json_string(line->app_id));
    if (line->revision != 0)
        json_object_set_new(json, "revision", json_integer((json_int_t)line->revision));
    if (line->outcome == CHANGES_APPLIED)
        return json;
    json_object_set_new(json, "code", json_string(status_code(problem->status)));
    if (problem->field[0])
        json_object_set_new(json, "field", api_json_text(slice_str(problem->field)));
    json_object_set_new(json, "detail",
                        api_json_text(slice_str(problem->detail[0] ? problem->detail : status_what(problem->status))));
    return json;
}

static json_t *outcomes_json(const struct changes_batch *batch, uint64_t revision)
{
    json_int_t counts[3] = {0};
    json_t *results = json_array();
    for (size_t i = 0; i < batch->count; i++) {
        counts[batch->lines[i].outcome]++;
        json_array_append_new(results, outcome_json(&batch->lines[i]));
    }
    return json_pack("{sI sI sI sI so}", "revision", (json_int_t)revision, "applied", counts[CHANGES_APPLIED],
                     "ignored", counts[CHANGES_IGNORED], "refused", counts[CHANGES_REFUSED], "results", results);
}

static void on_changed(void *arg, const struct change_result *result)
{
    struct api_call *call = arg;
    struct route_problem problem = result->problem;
    call->changing = false;
    problem.status = result->status;
    if (result->status != STATUS_OK) {
        uint64_t revision = route_table_revision(call->api->params.table);
        api_answer_problem_with(call, &problem, json_pack("{sI}", "revision", (json_int_t)revision));
        return;
    }
    json_t *outcomes = outcomes_json(result->batch, result->revision);
    if (!result->batch->has_gap) {
        api_answer_json(call, 200, outcomes);
        return;
    }
    api_problem_fill(&problem, STATUS_REVISION_GAP, "revision", "the table is at revision %ju now",
                     (uintmax_t)result->revision);
    api_answer_problem_with(call, &problem, outcomes);
}

static void on_end(void *self)
{
    struct push *push = self;
    struct api_call *call = push->call;
    if (push->batch)
        ndjson_end(&push->lines);
    if (!push->batch)
        return;
    if (push->batch->count == 0) {
        api_answer_refuse(call, STATUS_INVALID_JSON, "", "the body has no line; send one change a line");
        return;
    }
    call->changing = true;
    changes_submit(call->api->params.changes, &push->batch, push->expected_revision, on_changed, call);
}

static void on_gone(void *self)
{
    struct push *push = self;
    changes_batch_free(&push->batch);
    ndjson_free(&push->lines);
    api_call_gone(push->call);
}

void api_changes_post(struct api_call *call)
{
    static const struct local_handler handler = {.body = on_body, .end = on_end, .gone = on_gone};
    uint64_t expected_revision;
    if (!api_check_content_type(call) || !api_check_table_if_match(call, &expected_revision))
        return;
    struct push *push = arena_alloc_zeroed(call->arena, sizeof *push);
    push->call = call;
    push->expected_revision = expected_revision;
    push->batch = changes_batch_new();
    ndjson_init(&push->lines, CHANGE_LINE_MAX_BYTES, on_line, push);
    local_handle(call->local, &handler, push);
}
