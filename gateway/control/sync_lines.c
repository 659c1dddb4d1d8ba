#include "sync_internal.h"

#include "app_document_internal.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOGGED_PER_SECOND = 10,
    DISTRUST_MS = 600 * 1000, /* a source whose digest did not fit its own snapshot gets no other one so soon */
};

/* ---- what is refused ---- */

static void add_verdict(struct sync_verdicts *verdicts, struct slice app_id, uint64_t revision)
{
    if (verdicts->count == verdicts->capacity) {
        verdicts->capacity = verdicts->capacity > 0 ? 2 * verdicts->capacity : 16;
        verdicts->items = realloc(verdicts->items, verdicts->capacity * sizeof *verdicts->items);
        if (!verdicts->items)
            abort();
    }
    struct sync_verdict *verdict = &verdicts->items[verdicts->count++];
    snprintf(verdict->app_id, sizeof verdict->app_id, "%.*s", SLICE_ARG(app_id));
    verdict->revision = revision;
}

static void drop_verdicts(struct sync_verdicts *verdicts)
{
    free(verdicts->items);
    *verdicts = (struct sync_verdicts){.count = 0};
}

static void apply_verdicts(struct sync *s)
{
    for (size_t i = 0; i < s->committing_verdicts.count; i++) {
        const struct sync_verdict *verdict = &s->committing_verdicts.items[i];
        if (verdict->revision != 0)
            refusals_put(&s->refused, slice_str(verdict->app_id), verdict->revision);
        else
            refusals_remove(&s->refused, slice_str(verdict->app_id));
    }
    drop_verdicts(&s->committing_verdicts);
}

/* Each revision of an app is said once, however often it is read. */
static void say_refused(struct sync *s, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    const char *detail = problem->detail[0] ? problem->detail : status_what(problem->status);
    if ((app_id.len > 0 && refusals_has(&s->refused, app_id, revision)) ||
        !log_limit_pass(&s->log_limit, LOGGED_PER_SECOND))
        return;
    log_error("sync: app %.*s at revision %" PRIu64 " is left out: %s%s%s", SLICE_ARG(app_id), revision, problem->field,
              problem->field[0] ? ": " : "", detail);
}

/* `app_id` may be empty and `revision` 0: they could not be read. */
static void refuse(struct sync *s, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    say_refused(s, app_id, revision, problem);
    if (app_id.len == 0 || revision == 0)
        s->unnamed++;
    else
        add_verdict(&s->verdicts, app_id, revision);
}

/* In force again, or gone. */
static void absolve(struct sync *s, struct slice app_id)
{
    if (s->refused.count > 0 || s->committing_verdicts.count > 0 || s->verdicts.count > 0)
        add_verdict(&s->verdicts, app_id, 0);
}

/* Called while it is being committed. */
static void on_conflict(void *arg, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    struct sync *s = arg;
    say_refused(s, app_id, revision, problem);
    add_verdict(&s->committing_verdicts, app_id, revision);
}

/* ---- equal or not ---- */

static void compare(struct sync *s)
{
    uint64_t difference = s->heartbeat.digest ^ changes_digest(s->changes) ^ s->refused.digest;
    uint64_t apps = route_table_app_count(s->table) + s->refused.count;
    bool was_fresh = s->is_fresh;
    s->is_fresh = false;
    if (difference == 0 && apps == s->heartbeat.apps) {
        s->digest_differs = false;
        s->unnamed = 0;
    } else if (was_fresh) {
        s->digest_differs = true;
        s->known_difference = difference;
        log_error("sync: right after its snapshot was loaded, %s has %" PRIu64 " apps and this gateway %" PRIu64
                  " with those left out, or their revisions differ; goes on",
                  s->options.source, s->heartbeat.apps, apps);
    } else if (!s->digest_differs ||
               (s->known_difference != difference && loop_now_ms(s->loop) - s->snapshot_at_ms > DISTRUST_MS)) {
        log_warn("sync: the routes differ from those of %s at revision %" PRIu64 "; loading its snapshot",
                 s->options.source, s->heartbeat.revision);
        sync_reload(s);
        return;
    }
    sync_in_step(s);
}

/* ---- committing ---- */

static void commit(struct sync *s, uint64_t revision, change_done_cb done)
{
    struct changes_snapshot_options options = {.revision = revision, .refused = on_conflict, .refused_arg = s};
    s->committing_verdicts = s->verdicts;
    s->verdicts = (struct sync_verdicts){.count = 0};
    s->committing = true;
    changes_snapshot_commit(&s->staged, &options, done, s);
}

/* False if that was not it: the rest is done. */
static bool end_commit(struct sync *s, const struct change_result *result)
{
    s->committing = false;
    if (result->status == STATUS_OK)
        return true;
    drop_verdicts(&s->committing_verdicts);
    if (result->status != STATUS_SHUTDOWN && sync_goes_on(s))
        sync_fail(s, "what it sent could not be applied: %s", result->problem.detail);
    return false;
}

static void apply_heartbeat(struct sync *s);

static void on_delta_committed(void *arg, const struct change_result *result)
{
    struct sync *s = arg;
    if (!end_commit(s, result))
        return;
    s->revision = s->heartbeat.revision;
    apply_verdicts(s);
    if (!sync_goes_on(s))
        return;
    if (s->fetch)
        fetch_resume(s->fetch);
    if (s->has_held)
        apply_heartbeat(s);
    else
        compare(s);
}

/* What was staged up to the held heartbeat. While it is stored no more is read. */
static void apply_heartbeat(struct sync *s)
{
    s->has_held = false;
    if (s->held.revision < s->revision) {
        sync_reload(s);
        return;
    }
    s->heartbeat = s->held;
    if (!s->staged && s->held.revision == s->revision) {
        compare(s);
        return;
    }
    if (!s->staged)
        s->staged = changes_snapshot_begin(s->changes, CHANGES_DELTA);
    if (s->fetch)
        fetch_pause(s->fetch);
    commit(s, s->held.revision, on_delta_committed);
}

static void on_snapshot_committed(void *arg, const struct change_result *result)
{
    struct sync *s = arg;
    if (!end_commit(s, result))
        return;
    refusals_clear(&s->refused);
    apply_verdicts(s);
    s->resyncs_total++;
    if (!sync_goes_on(s)) /* it may be another source's, or was judged by other rules */
        return;
    s->revision = s->snapshot_revision;
    s->is_fresh = true;
    s->needs_snapshot = false;
    sync_was_read(s);
    log_info("sync: loaded the snapshot of %s: revision %" PRIu64 ", %zu apps, %zu left out", s->options.source,
             s->revision, route_table_app_count(s->table), s->refused.count + s->unnamed);
    sync_follow(s);
}

/* ---- lines of the snapshot ---- */

/* Who a document is of that can't be taken. */
static void read_identity(struct slice json, char ret_app_id[HOSTNAME_MAX_LABEL + 1], uint64_t *ret_revision)
{
    struct route_problem ignored;
    json_t *root;
    if (app_document_load(json, APP_DOCUMENT_MAX_BYTES, &root, &ignored) != STATUS_OK)
        return;
    enum status status = app_document_id(root, "app_id", ret_app_id, &ignored);
    if (status != STATUS_OK || app_document_integer(root, "revision", INT64_MAX, ret_revision, &ignored) != STATUS_OK)
        ret_app_id[0] = '\0';
    json_decref(root);
}

static void take_document(struct sync *s, struct slice line)
{
    struct route_app *app = NULL;
    struct route_problem problem = {.status = STATUS_OK};
    char app_id[HOSTNAME_MAX_LABEL + 1] = "";
    uint64_t revision = 0;
    enum status status = app_document_parse(line, &app, &problem);
    if (status != STATUS_OK) {
        read_identity(line, app_id, &revision);
        refuse(s, slice_str(app_id), revision, &problem);
        return;
    }
    if (changes_snapshot_add(s->staged, app, &problem) == STATUS_OK) {
        s->accepted++;
        return;
    }
    refuse(s, slice_str(app->id), app->revision, &problem);
    route_app_free(&app);
}

/* ---- lines of the watch ---- */

static struct changes_snapshot *delta(struct sync *s)
{
    s->has_held = false; /* more belongs to it now: the next heartbeat takes its place */
    if (!s->staged)
        s->staged = changes_snapshot_begin(s->changes, CHANGES_DELTA);
    return s->staged;
}

/* Also what was in force before goes: it is not what the source has. */
static void leave_out(struct sync *s, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    if (app_id.len > 0 && revision > 0)
        changes_snapshot_delete(delta(s), app_id, revision);
    refuse(s, app_id, revision, problem);
}

static void take_put(struct sync *s, const struct change_line *line)
{
    struct route_problem problem;
    struct slice app_id = slice_str(line->app_id);
    struct route_app *app = line->app;
    if (line->revision != 0)
        app->revision = line->revision;
    if (changes_snapshot_add(delta(s), app, &problem) == STATUS_OK) {
        absolve(s, app_id);
        return;
    }
    leave_out(s, app_id, app->revision, &problem);
    route_app_free(&app);
}

static void take_heartbeat(struct sync *s, const struct change_line *line)
{
    s->held = (struct sync_heartbeat){.revision = line->revision, .apps = line->apps, .digest = line->digest};
    s->has_held = true;
    if (!s->committing)
        apply_heartbeat(s);
}

static void take_end(struct sync *s, const struct change_line *line)
{
    if (strcmp(line->code, status_code(STATUS_REVISION_GONE)) == 0)
        sync_reload(s);
    else
        sync_fail(s, "it ended the stream: %s: %s", line->code, line->detail);
}

static void take_change(struct sync *s, struct slice text)
{
    struct change_line line;
    struct route_problem problem;
    if (change_line_parse(text, CHANGES_MAX_REVISION, &line, &problem) != STATUS_OK) {
        if (line.op == CHANGE_HEARTBEAT)
            sync_fail(s, "its heartbeat can't be read: %s: %s", problem.field, problem.detail);
        else
            leave_out(s, slice_str(line.app_id), line.revision, &problem);
        return;
    }
    switch (line.op) {
    case CHANGE_PUT:
        take_put(s, &line);
        break;
    case CHANGE_DELETE:
        changes_snapshot_delete(delta(s), slice_str(line.app_id), line.revision);
        absolve(s, slice_str(line.app_id));
        break;
    case CHANGE_HEARTBEAT:
        take_heartbeat(s, &line);
        break;
    case CHANGE_END:
        take_end(s, &line);
        break;
    }
}

/* ---- all lines ---- */

static void on_line(void *arg, uint64_t number, struct slice line, bool too_long)
{
    struct sync *s = arg;
    struct route_problem problem;
    (void)number;
    if (!s->reading) /* the rest of a piece in which the stream was given up */
        return;
    s->word_us = clock_now_us();
    if (too_long) {
        route_problem_set(&problem, STATUS_PAYLOAD_TOO_LARGE, "", "a line has more than %zu bytes", s->lines.max_bytes);
        refuse(s, SLICE_NONE, 0, &problem);
    } else if (s->state == SYNC_LOADING) {
        take_document(s, line);
    } else {
        take_change(s, line);
    }
}

void sync_lines_begin(struct sync *s)
{
    sync_lines_drop(s);
    ndjson_free(&s->lines);
    ndjson_init(&s->lines, s->state == SYNC_LOADING ? APP_DOCUMENT_MAX_BYTES : CHANGE_LINE_MAX_BYTES, on_line, s);
    s->reading = true;
    if (s->state != SYNC_LOADING)
        return;
    s->staged = changes_snapshot_begin(s->changes, CHANGES_MIRROR);
    s->accepted = 0;
    s->unnamed = 0;
}

void sync_lines_feed(struct sync *s, struct slice piece)
{
    ndjson_feed(&s->lines, piece);
}

/* The source has never had anything, and neither have we: nothing is to be stored. */
static void accept_nothing(struct sync *s)
{
    struct change_result result = {.status = STATUS_OK};
    sync_lines_drop(s);
    on_snapshot_committed(s, &result);
}

bool sync_lines_end(struct sync *s)
{
    ndjson_end(&s->lines);
    bool was_reading = s->reading;
    s->reading = false;
    return was_reading;
}

void sync_lines_apply_snapshot(struct sync *s)
{
    size_t apps = route_table_app_count(s->table);
    if (s->accepted == 0 && apps > 0)
        sync_fail(s, "its snapshot has no app that can be taken (%zu refused), which is taken for a mistake",
                  s->verdicts.count + s->unnamed);
    else if (s->snapshot_revision == 0 && s->accepted > 0)
        sync_fail(s, "its snapshot has apps, but its ETag says that nothing has ever changed");
    else if (s->snapshot_revision == 0)
        accept_nothing(s);
    else
        commit(s, s->snapshot_revision, on_snapshot_committed);
}

void sync_lines_drop(struct sync *s)
{
    s->reading = false;
    s->has_held = false;
    changes_snapshot_abort(&s->staged);
    drop_verdicts(&s->verdicts);
}

void sync_lines_free(struct sync *s)
{
    sync_lines_drop(s);
    ndjson_free(&s->lines);
    drop_verdicts(&s->committing_verdicts);
    refusals_clear(&s->refused);
}
