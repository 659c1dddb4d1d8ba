#include "gateway/control/changes_snapshot.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 64, PAGE = 1024 };

struct changes_snapshot {
    struct changes *changes;
    struct route_app **apps; /* NULL: taken by the table */
    size_t count;
    size_t capacity;
    size_t *slots; /* hash of app ids: index + 1 into apps, 0: free; at least twice the capacity */
    size_t slot_count;
};

static size_t hash(struct slice id)
{
    uint64_t h = 0xcbf29ce484222325U; /* FNV-1a; the ids come from our own control plane */
    for (size_t i = 0; i < id.len; i++)
        h = (h ^ (uint8_t)id.ptr[i]) * 0x100000001b3U;
    return (size_t)(h ^ h >> 29);
}

/* The slot that holds the id, or the free one where it belongs. */
static size_t *slot_of(const struct changes_snapshot *s, struct slice id)
{
    size_t i = hash(id) & (s->slot_count - 1);
    while (s->slots[i] != 0) {
        const struct route_app *app = s->apps[s->slots[i] - 1];
        if (slice_eq(slice_str(app->id), id))
            break;
        i = (i + 1) & (s->slot_count - 1);
    }
    return &s->slots[i];
}

static void grow(struct changes_snapshot *s)
{
    if (s->count < s->capacity)
        return;
    s->capacity = s->capacity ? 2 * s->capacity : FIRST_CAPACITY;
    s->slot_count = 2 * s->capacity;
    s->apps = realloc(s->apps, s->capacity * sizeof(struct route_app *));
    free(s->slots);
    s->slots = calloc(s->slot_count, sizeof *s->slots);
    if (!s->apps || !s->slots)
        abort();
    for (size_t i = 0; i < s->count; i++)
        *slot_of(s, slice_str(s->apps[i]->id)) = i + 1;
}

struct changes_snapshot *changes_snapshot_begin(struct changes *changes)
{
    struct changes_snapshot *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->changes = changes;
    grow(s);
    return s;
}

struct changes *changes_snapshot_owner(const struct changes_snapshot *s)
{
    return s->changes;
}

enum status changes_snapshot_add(struct changes_snapshot *s, struct route_app *app, struct route_problem *ret_problem)
{
    enum status status = route_app_check(app, changes_rules(s->changes), ret_problem);
    if (status != STATUS_OK)
        return status;
    grow(s);
    size_t *slot = slot_of(s, slice_str(app->id));
    if (*slot != 0)
        return route_problem_set(ret_problem, STATUS_INVALID_RECORD, "app_id", "%s is in the snapshot twice", app->id);
    s->apps[s->count++] = app;
    *slot = s->count;
    return STATUS_OK;
}

void changes_snapshot_abort(struct changes_snapshot **snapshot)
{
    struct changes_snapshot *s = *snapshot;
    if (!s)
        return;
    *snapshot = NULL;
    for (size_t i = 0; i < s->count; i++)
        route_app_free(&s->apps[i]);
    free(s->apps);
    free(s->slots);
    free(s);
}

/* ---- staging ---- */

struct missing {
    const struct changes_snapshot *snapshot;
    const char *ids[PAGE]; /* of the table's records, which live until the publication */
    size_t count;
    const char *last;
};

static void note_missing(void *arg, const struct route_app *app)
{
    struct missing *missing = arg;
    missing->last = app->id;
    if (*slot_of(missing->snapshot, slice_str(app->id)) == 0)
        missing->ids[missing->count++] = app->id;
}

static void stage_deletions(struct changes_snapshot *s, struct route_table *table)
{
    struct missing missing = {.snapshot = s};
    size_t seen = PAGE;
    while (seen == PAGE) {
        missing.count = 0;
        seen = route_table_each(table, slice_str(missing.last), PAGE, note_missing, &missing);
        struct route_problem problem;
        for (size_t i = 0; i < missing.count; i++) {
            enum status status = route_table_stage_delete(table, slice_str(missing.ids[i]), &problem);
            (void)status; /* it is there: route_table_each has just shown it */
        }
    }
}

static bool is_unchanged(const struct route_table *table, const struct route_app *app)
{
    const struct route_app *now = route_table_staged_app(table, slice_str(app->id));
    return now && route_app_equal(now, app);
}

/* One pass over what is not staged yet; true if it got anywhere. `ret_result` has what is left. */
static bool stage_pass(struct changes_snapshot *s, struct route_table *table, struct change_result *ret_result)
{
    bool progress = false;
    ret_result->refused = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct route_problem problem;
        if (!s->apps[i])
            continue;
        if (is_unchanged(table, s->apps[i])) {
            route_app_free(&s->apps[i]);
            continue;
        }
        if (route_table_stage_put(table, s->apps[i], &problem) == STATUS_OK) {
            s->apps[i] = NULL;
            progress = true;
        } else if (ret_result->refused++ == 0) {
            ret_result->problem = problem;
        }
    }
    return progress;
}

void changes_snapshot_stage(struct changes_snapshot *s, struct route_table *table, struct change_result *ret_result)
{
    stage_deletions(s, table);
    /* An address that moves between two apps is free once its old app is staged: try again while that helps. */
    while (stage_pass(s, table, ret_result) && ret_result->refused > 0)
        ;
    ret_result->status = STATUS_OK;
    ret_result->revision = route_table_staged_revision(table);
}
