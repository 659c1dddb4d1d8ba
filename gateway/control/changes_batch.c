#include "changes_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct changes_batch *changes_batch_new(void)
{
    struct changes_batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        abort();
    return batch;
}

void changes_batch_free(struct changes_batch **batch)
{
    struct changes_batch *dropped = *batch;
    if (!dropped)
        return;
    *batch = NULL;
    for (size_t i = 0; i < dropped->count; i++)
        route_app_free(&dropped->lines[i].app);
    free(dropped->lines);
    free(dropped);
}

struct changes_line *changes_batch_add(struct changes_batch *batch)
{
    if (batch->count == batch->capacity) {
        batch->capacity = batch->capacity > 0 ? 2 * batch->capacity : 16;
        batch->lines = realloc(batch->lines, batch->capacity * sizeof *batch->lines);
        if (!batch->lines)
            abort();
    }
    struct changes_line *line = &batch->lines[batch->count++];
    *line = (struct changes_line){.outcome = CHANGES_APPLIED};
    return line;
}

/* ---- staging ---- */

static void set_outcome(struct changes_line *line, enum changes_outcome outcome, enum status status, const char *field)
{
    line->outcome = outcome;
    line->problem.status = status;
    snprintf(line->problem.field, sizeof line->problem.field, "%s", field);
}

/* A delete of an app that there is no trace of, so that nothing of it is left to do. */
static bool is_gone_already(const struct changes *c, const struct changes_line *line)
{
    bool is_delete = line->problem.status == STATUS_OK && !line->app;
    return is_delete && changes_staged_revision(c, slice_str(line->app_id)) == 0 &&
           !id_set_has(&c->left_out, line->app_id);
}

/* Not newer than what is known: a repeat, overtaken by another change of the app, or not ours. */
static void judge_old(struct changes *c, struct changes_line *line)
{
    if (is_gone_already(c, line)) {
        set_outcome(line, CHANGES_IGNORED, STATUS_APP_UNKNOWN, "app_id");
        snprintf(line->problem.detail, sizeof line->problem.detail, "there is no app %s", line->app_id);
        return;
    }
    unsigned long long known = route_table_staged_revision(c->table);
    uint64_t latest = line->app_id[0] ? changes_staged_revision(c, slice_str(line->app_id)) : 0;
    set_outcome(line, latest >= line->revision ? CHANGES_IGNORED : CHANGES_REFUSED, STATUS_REVISION_TAKEN, "revision");
    if (latest == line->revision)
        snprintf(line->problem.detail, sizeof line->problem.detail, "this change is known already");
    else if (latest > line->revision)
        snprintf(line->problem.detail, sizeof line->problem.detail, "the app has changed since, in revision %llu",
                 (unsigned long long)latest);
    else
        snprintf(line->problem.detail, sizeof line->problem.detail,
                 "the table is at revision %llu, and this revision was another change; continue with %llu", known,
                 known + 1);
}

static void judge_gap(struct changes *c, struct changes_line *line)
{
    unsigned long long known = route_table_staged_revision(c->table);
    set_outcome(line, CHANGES_REFUSED, STATUS_REVISION_GAP, "revision");
    snprintf(line->problem.detail, sizeof line->problem.detail,
             "the table is at revision %llu; %llu must come next, or a snapshot", known, known + 1);
}

static enum status apply(struct changes *c, struct changes_line *line, uint64_t revision)
{
    enum status status = line->app ? changes_stage_put(c, &line->app, revision, NULL, &line->problem)
                                   : changes_stage_delete(c, slice_str(line->app_id), revision, &line->problem);
    line->problem.status = status;
    return status;
}

/* A revision that came with a line is used up, whatever becomes of it: a bad record must not hold up those behind it.
 */
static void stage_line(struct changes *c, struct changes_line *line)
{
    uint64_t next = route_table_staged_revision(c->table) + 1;
    bool numbered = line->revision != 0;
    bool readable = line->problem.status == STATUS_OK;
    if (readable && apply(c, line, next) == STATUS_OK) {
        line->revision = next;
        return;
    }
    bool is_missing = readable && !line->app && line->problem.status == STATUS_APP_UNKNOWN;
    line->outcome = is_missing ? CHANGES_IGNORED : CHANGES_REFUSED;
    if (numbered)
        route_table_stage_revision(c->table, next);
}

static bool is_unreadable(const struct changes_line *line)
{
    return line->revision == 0 && line->problem.status != STATUS_OK;
}

/*
 * Of unreadable lines not even the revision is known. If the next line with one leaves as many free as there are of
 * them, those are theirs. Returns the index behind them.
 */
static size_t number_unreadable(struct changes_batch *batch, size_t first, uint64_t known)
{
    size_t end = first;
    while (end < batch->count && is_unreadable(&batch->lines[end]))
        end++;
    if (end == batch->count || batch->lines[end].revision != known + (end - first) + 1)
        return end;
    for (size_t i = first; i < end; i++)
        batch->lines[i].revision = ++known;
    return end;
}

void changes_batch_stage(struct changes_batch *batch, struct changes *c)
{
    size_t readable = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct changes_line *line = &batch->lines[i];
        uint64_t known = route_table_staged_revision(c->table);
        if (i >= readable)
            readable = number_unreadable(batch, i, known);
        if (line->revision > known + 1) {
            judge_gap(c, line);
            batch->has_gap = true;
        } else if (line->revision != 0 && line->revision <= known) {
            judge_old(c, line);
        } else {
            stage_line(c, line);
        }
    }
}
