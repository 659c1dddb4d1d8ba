#include "api_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

void api_text_append(struct api_text *text, struct slice bytes)
{
    if (bytes.len == 0)
        return;
    if (text->capacity - text->len < bytes.len) {
        size_t capacity = text->capacity > 0 ? text->capacity : 4096;
        while (capacity - text->len < bytes.len)
            capacity *= 2;
        text->ptr = realloc(text->ptr, capacity);
        if (!text->ptr)
            abort();
        text->capacity = capacity;
    }
    memcpy(text->ptr + text->len, bytes.ptr, bytes.len);
    text->len += bytes.len;
}

void api_text_free(struct api_text *text)
{
    free(text->ptr);
    *text = (struct api_text){.ptr = NULL};
}

__attribute__((format(printf, 4, 0))) static void fill(struct route_problem *problem, enum status status,
                                                       const char *field, const char *format, va_list args)
{
    problem->status = status;
    snprintf(problem->field, sizeof problem->field, "%s", field);
    vsnprintf(problem->detail, sizeof problem->detail, format, args);
}

void api_problem_fill(struct route_problem *problem, enum status status, const char *field, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(problem, status, field, format, args);
    va_end(args);
}

json_t *api_json_text(struct slice text)
{
    json_t *json = json_stringn(text.len > 0 ? text.ptr : "", text.len);
    if (json)
        return json;
    char *copy = malloc(text.len + 1);
    if (!copy)
        abort();
    for (size_t i = 0; i < text.len; i++)
        copy[i] = (unsigned char)text.ptr[i] < 0x80 ? text.ptr[i] : '?';
    json = json_stringn(copy, text.len);
    free(copy);
    assert(json);
    return json;
}

static int http_of(enum status status)
{
    return status_http(status) != 0 ? status_http(status) : 500;
}

json_t *api_problem_json(const struct route_problem *problem)
{
    enum status status = problem->status;
    const char *detail = problem->detail[0] ? problem->detail : status_what(status);
    json_t *json =
        json_pack("{ss ss si so ss}", "type", "about:blank", "title", status_reason(http_of(status)), "status",
                  http_of(status), "detail", api_json_text(slice_str(detail)), "code", status_code(status));
    if (problem->field[0])
        json_object_set_new(json, "field", api_json_text(slice_str(problem->field)));
    if (status_advice(status)[0])
        json_object_set_new(json, "advice", json_string(status_advice(status)));
    return json;
}

void api_answer_add_common(struct api_call *call)
{
    local_add_field(call->local, SLICE("Cache-Control"), SLICE("no-store"));
    local_add_field(call->local, SLICE("X-Content-Type-Options"), SLICE("nosniff"));
}

void api_answer_add_etag(struct api_call *call, uint64_t revision)
{
    char text[32];
    int len = snprintf(text, sizeof text, "\"%" PRIu64 "\"", revision);
    local_add_field(call->local, SLICE("ETag"), slice_make(text, (size_t)len));
}

void api_answer_text(struct api_call *call, int http_status, struct slice content_type, struct slice body)
{
    assert(!call->answered);
    call->answered = true;
    api_answer_add_common(call);
    local_respond(call->local, http_status, content_type, body);
}

static void answer_json(struct api_call *call, int http_status, struct slice content_type, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (!text)
        abort();
    struct api_text body = {.ptr = NULL};
    api_text_append(&body, slice_str(text));
    api_text_append(&body, SLICE("\n"));
    free(text);
    api_answer_text(call, http_status, content_type, slice_make(body.ptr, body.len));
    api_text_free(&body);
}

void api_answer_json(struct api_call *call, int http_status, json_t *json)
{
    answer_json(call, http_status, SLICE("application/json"), json);
}

void api_answer_problem_with(struct api_call *call, const struct route_problem *problem, json_t *members)
{
    json_t *json = api_problem_json(problem);
    if (members)
        json_object_update_missing(json, members);
    json_decref(members);
    answer_json(call, http_of(problem->status), SLICE("application/problem+json"), json);
}

void api_answer_problem(struct api_call *call, const struct route_problem *problem)
{
    api_answer_problem_with(call, problem, NULL);
}

void api_answer_refuse(struct api_call *call, enum status status, const char *field, const char *format, ...)
{
    struct route_problem problem;
    va_list args;
    va_start(args, format);
    fill(&problem, status, field, format, args);
    va_end(args);
    api_answer_problem(call, &problem);
}
