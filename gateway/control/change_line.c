#include "gateway/control/change_line.h"

#include "app_document_internal.h"

#include "gateway/control/changes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- from text ---- */

static enum status refuse(struct route_problem *problem, const char *field, const char *detail)
{
    return route_problem_set(problem, STATUS_INVALID_RECORD, field, "%s", detail);
}

static enum status read_op(const json_t *root, uint64_t max_revision, struct change_line *line,
                           struct route_problem *problem)
{
    struct route_problem ignored;
    static const char *const names[] = {"put", "delete", "heartbeat", "end"};
    const char *op = json_string_value(json_object_get(root, "op"));
    for (size_t i = 0; op && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(op, names[i]) == 0) {
            line->op = (enum change_op)i;
            return STATUS_OK;
        }
    if (app_document_integer(root, "revision", max_revision, &line->revision, &ignored) != STATUS_OK)
        line->revision = 0;
    return refuse(problem, "op", "it must be \"put\" or \"delete\"");
}

static enum status check_app_revision(const struct route_app *app, struct route_problem *problem)
{
    if (app->revision <= CHANGES_MAX_REVISION)
        return STATUS_OK;
    return route_problem_set(problem, STATUS_INVALID_RECORD, "app.revision", "%ju is out of range; use 0 to %ju",
                             (uintmax_t)app->revision, (uintmax_t)CHANGES_MAX_REVISION);
}

static enum status read_put(const json_t *root, struct change_line *line, struct route_problem *problem)
{
    static const char *const known[] = {"revision", "op", "app", NULL};
    const json_t *app = json_object_get(root, "app");
    enum status status = app_document_check_members(root, known, problem);
    if (status != STATUS_OK)
        return status;
    if (!json_is_object(app))
        return refuse(problem, "app", "it must be there: the app as an object");
    struct route_problem ignored;
    char id[HOSTNAME_MAX_LABEL + 1];
    if (app_document_id(app, "app_id", id, &ignored) == STATUS_OK)
        memcpy(line->app_id, id, sizeof line->app_id);
    status = app_document_read(app, "app.", &line->app, problem);
    if (status == STATUS_OK && (status = check_app_revision(line->app, problem)) != STATUS_OK)
        route_app_free(&line->app);
    return status;
}

static enum status read_delete(const json_t *root, struct change_line *line, struct route_problem *problem)
{
    static const char *const known[] = {"revision", "op", "app_id", NULL};
    char id[HOSTNAME_MAX_LABEL + 1];
    enum status status = app_document_check_members(root, known, problem);
    if (status == STATUS_OK)
        status = app_document_id(root, "app_id", id, problem);
    if (status == STATUS_OK)
        memcpy(line->app_id, id, sizeof line->app_id);
    return status;
}

static enum status read_heartbeat(const json_t *root, struct change_line *line, struct route_problem *problem)
{
    static const char *const known[] = {"revision", "op", "apps", "digest", NULL};
    const char *digest = json_string_value(json_object_get(root, "digest"));
    char *end = NULL;
    enum status status = app_document_check_members(root, known, problem);
    if (status == STATUS_OK)
        status = app_document_integer(root, "apps", INT64_MAX, &line->apps, problem);
    if (status != STATUS_OK)
        return status;
    if (!digest || strlen(digest) != 16 || strspn(digest, "0123456789abcdef") != 16)
        return refuse(problem, "digest", "it must be 16 hex digits");
    line->digest = strtoull(digest, &end, 16);
    return STATUS_OK;
}

static enum status read_end(const json_t *root, struct change_line *line, struct route_problem *problem)
{
    const char *code = json_string_value(json_object_get(root, "code"));
    const char *detail = json_string_value(json_object_get(root, "detail"));
    (void)problem;
    snprintf(line->code, sizeof line->code, "%s", code ? code : "");
    snprintf(line->detail, sizeof line->detail, "%s", detail ? detail : "");
    return STATUS_OK;
}

static enum status read_line(const json_t *root, uint64_t max_revision, struct change_line *line,
                             struct route_problem *problem)
{
    enum status status = read_op(root, max_revision, line, problem); /* first: a bad heartbeat must be known as one */
    if (status == STATUS_OK && line->op != CHANGE_END)
        status = app_document_integer(root, "revision", max_revision, &line->revision, problem);
    if (status != STATUS_OK)
        return status;
    switch (line->op) {
    case CHANGE_PUT:
        return read_put(root, line, problem);
    case CHANGE_DELETE:
        return read_delete(root, line, problem);
    case CHANGE_HEARTBEAT:
        return read_heartbeat(root, line, problem);
    case CHANGE_END:
        return read_end(root, line, problem);
    }
    return STATUS_INTERNAL;
}

enum status change_line_parse(struct slice json, uint64_t max_revision, struct change_line *ret_line,
                              struct route_problem *ret_problem)
{
    json_t *root;
    *ret_line = (struct change_line){.op = CHANGE_PUT};
    enum status status = app_document_load(json, CHANGE_LINE_MAX_BYTES, &root, ret_problem);
    if (status != STATUS_OK)
        return status;
    status = read_line(root, max_revision, ret_line, ret_problem);
    json_decref(root);
    return status;
}

/* ---- to text ---- */

__attribute__((format(printf, 1, 2))) static char *format(const char *text, ...)
{
    char *line = NULL;
    va_list args;
    va_start(args, text);
    int len = vasprintf(&line, text, args);
    va_end(args);
    if (len < 0)
        abort();
    return line;
}

char *change_line_put(const struct route_app *app)
{
    char *document = app_document_format(app);
    char *line = format("{\"revision\":%" PRIu64 ",\"op\":\"put\",\"app\":%s}\n", app->revision, document);
    free(document);
    return line;
}

char *change_line_delete(struct slice app_id, uint64_t revision)
{
    return format("{\"revision\":%" PRIu64 ",\"op\":\"delete\",\"app_id\":\"%.*s\"}\n", revision, SLICE_ARG(app_id));
}

char *change_line_heartbeat(uint64_t revision, size_t apps, uint64_t digest)
{
    return format("{\"revision\":%" PRIu64 ",\"op\":\"heartbeat\",\"apps\":%zu,\"digest\":\"%016" PRIx64 "\"}\n",
                  revision, apps, digest);
}

char *change_line_end(enum status status, const char *detail)
{
    json_t *json = json_pack("{ss ss ss}", "op", "end", "code", status_code(status), "detail", detail);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text)
        abort();
    char *line = format("%s\n", text);
    free(text);
    return line;
}
