#include "changes_internal.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 64, PAGE = 1024 };

/* One app that was added, or is to be deleted (DELTA). */
struct entry {
    const char *id;        /* the app's, or the copy */
    char *id_copy;         /* when no app is held */
    struct route_app *app; /* NULL: as it is in the table already, taken by the table, or deleted */
    uint64_t deleted;      /* the revision; 0: it is not */
    uint64_t kept;         /* the revision at which the table had it already; 0: it had not */
    bool is_left_alone;    /* only a bad record of it came: what there is of the app stays */
};

struct changes_snapshot {
    struct changes *changes;
    enum changes_snapshot_mode mode;
    struct changes_snapshot_options options;
    uint64_t begun_at; /* the table's revision */
    struct entry *entries;
    size_t count;
    size_t capacity;
    size_t *slots; /* hash of app ids: index + 1 into entries, 0: free; at least twice the capacity */
    size_t slot_count;
    size_t left_alone; /* of the entries */
    bool is_behind;    /* something was staged whose revision is not later than all that was told before */
    bool is_giving_up; /* what the apps that are left won't have any more stands in nobody's way */
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
    while (s->slots[i] != 0 && !slice_eq(slice_str(s->entries[s->slots[i] - 1].id), id))
        i = (i + 1) & (s->slot_count - 1);
    return &s->slots[i];
}

static void grow(struct changes_snapshot *s)
{
    if (s->count < s->capacity)
        return;
    s->capacity = s->capacity ? 2 * s->capacity : FIRST_CAPACITY;
    s->slot_count = 2 * s->capacity;
    s->entries = realloc(s->entries, s->capacity * sizeof *s->entries);
    free(s->slots);
    s->slots = calloc(s->slot_count, sizeof *s->slots);
    if (!s->entries || !s->slots)
        abort();
    for (size_t i = 0; i < s->count; i++)
        *slot_of(s, slice_str(s->entries[i].id)) = i + 1;
}

struct changes_snapshot *changes_snapshot_begin(struct changes *changes, enum changes_snapshot_mode mode)
{
    struct changes_snapshot *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->changes = changes;
    s->mode = mode;
    s->begun_at = route_table_revision(changes->table);
    grow(s);
    return s;
}

struct changes *changes_snapshot_owner(const struct changes_snapshot *s)
{
    return s->changes;
}

enum changes_snapshot_mode changes_snapshot_mode_of(const struct changes_snapshot *s)
{
    return s->mode;
}

bool changes_snapshot_has_revision(const struct changes_snapshot *s)
{
    return s->options.revision != 0;
}

void changes_snapshot_set_options(struct changes_snapshot *s, const struct changes_snapshot_options *options)
{
    s->options = *options;
}

void changes_snapshot_forget(struct changes_snapshot *s)
{
    s->options.refused = NULL;
}

/* ---- filling ---- */

static void drop_content(struct entry *entry)
{
    free(entry->id_copy);
    route_app_free(&entry->app);
    *entry = (struct entry){.id = NULL};
}

static void set_without_app(struct entry *entry, struct slice app_id, uint64_t deleted)
{
    char *id = changes_copy(app_id);
    *entry = (struct entry){.id = id, .id_copy = id, .deleted = deleted};
}

static bool is_in_table(const struct changes_snapshot *s, struct slice id)
{
    route_table_read_begin();
    bool is_there = route_table_app(s->changes->table, id) != NULL;
    route_table_read_end();
    return is_there;
}

/* Those that are there may stay. Of a batch of a watch, others that are deleted may come later. */
static bool is_full(const struct changes_snapshot *s, struct slice id)
{
    size_t max = s->changes->max_apps, slot = *slot_of(s, id);
    bool is_counted = slot != 0 && !s->entries[slot - 1].is_left_alone;
    if (s->mode == CHANGES_DELTA || max == 0 || s->count - s->left_alone < max || is_counted)
        return false;
    return !is_in_table(s, id);
}

/* The entry of this id; `ret_is_new` if it was made, without an id yet. */
static struct entry *entry_for(struct changes_snapshot *s, struct slice id, bool *ret_is_new)
{
    grow(s);
    size_t *slot = slot_of(s, id);
    *ret_is_new = *slot == 0;
    if (*ret_is_new) {
        s->entries[s->count] = (struct entry){.id = NULL};
        *slot = ++s->count;
    }
    return &s->entries[*slot - 1];
}

static bool is_same(const struct changes_snapshot *s, const struct route_app *now, const struct route_app *app)
{
    if (!now || !route_app_equal(now, app))
        return false;
    return s->mode == CHANGES_REPLACE ? !changes_gate_leaves_out(s->changes, app->id) : now->revision == app->revision;
}

static bool is_in_table_so(const struct changes_snapshot *s, const struct route_app *app)
{
    route_table_read_begin();
    bool same = is_same(s, route_table_app(s->changes->table, slice_str(app->id)), app);
    route_table_read_end();
    return same;
}

enum status changes_snapshot_add(struct changes_snapshot *s, struct route_app *app, struct route_problem *ret_problem)
{
    bool is_new;
    enum status status = route_app_check(app, s->changes->rules, ret_problem);
    if (status != STATUS_OK)
        return status;
    if (s->mode != CHANGES_REPLACE && app->revision > CHANGES_MAX_REVISION)
        return route_problem_set(ret_problem, STATUS_INVALID_RECORD, "revision", "%ju is out of range; use 0 to %ju",
                                 (uintmax_t)app->revision, (uintmax_t)CHANGES_MAX_REVISION);
    if (is_full(s, slice_str(app->id)))
        return changes_refuse_full(s->changes, ret_problem);
    struct entry *entry = entry_for(s, slice_str(app->id), &is_new);
    if (!is_new && s->mode != CHANGES_DELTA && !entry->is_left_alone)
        return route_problem_set(ret_problem, STATUS_INVALID_RECORD, "app_id", "%s is in the snapshot twice", app->id);
    s->left_alone -= entry->is_left_alone;
    if (!is_new)
        drop_content(entry);
    if (s->mode != CHANGES_DELTA && is_in_table_so(s, app)) {
        set_without_app(entry, slice_str(app->id), 0);
        entry->kept = app->revision;
        route_app_free(&app);
    } else {
        *entry = (struct entry){.id = app->id, .app = app};
    }
    return STATUS_OK;
}

void changes_snapshot_delete(struct changes_snapshot *s, struct slice app_id, uint64_t revision)
{
    bool is_new;
    struct entry *entry = entry_for(s, app_id, &is_new);
    if (!is_new)
        drop_content(entry);
    set_without_app(entry, app_id, revision);
}

void changes_snapshot_leave_alone(struct changes_snapshot *s, struct slice app_id)
{
    bool is_new;
    if (changes_snapshot_has(s, app_id))
        return;
    struct entry *entry = entry_for(s, app_id, &is_new);
    set_without_app(entry, app_id, 0);
    entry->is_left_alone = true;
    s->left_alone++;
}

bool changes_snapshot_has(const struct changes_snapshot *s, struct slice app_id)
{
    return *slot_of(s, app_id) != 0;
}

void changes_snapshot_abort(struct changes_snapshot **snapshot)
{
    struct changes_snapshot *s = *snapshot;
    if (!s)
        return;
    *snapshot = NULL;
    for (size_t i = 0; i < s->count; i++)
        drop_content(&s->entries[i]);
    free(s->entries);
    free(s->slots);
    free(s);
}

/* ---- staging deletions ---- */

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

static void stage_deletion(struct changes_snapshot *s, const char *app_id, uint64_t revision)
{
    struct route_problem problem;
    enum status status = changes_stage_delete(s->changes, slice_str(app_id), revision, &problem);
    (void)status; /* gone already is as good */
}

/* It is in the way of what it, or another app, is to become. */
static void stage_out(struct changes_snapshot *s, const char *app_id, uint64_t revision)
{
    struct route_problem problem;
    enum status status = changes_stage_out(s->changes, slice_str(app_id), revision, &problem);
    (void)status; /* not there is as good */
}

struct missing_elsewhere {
    struct changes_snapshot *snapshot;
    uint64_t revision;
};

static void delete_elsewhere(void *arg, const char *app_id)
{
    const struct missing_elsewhere *missing = arg;
    if (*slot_of(missing->snapshot, slice_str(app_id)) == 0)
        stage_deletion(missing->snapshot, app_id, missing->revision);
}

static void stage_deletions(struct changes_snapshot *s, uint64_t revision)
{
    struct missing_elsewhere elsewhere = {s, revision};
    struct missing missing = {.snapshot = s};
    size_t seen = PAGE;
    while (s->mode != CHANGES_DELTA && seen == PAGE) {
        missing.count = 0;
        seen = route_table_each(s->changes->table, slice_str(missing.last), PAGE, note_missing, &missing);
        for (size_t i = 0; i < missing.count; i++)
            stage_deletion(s, missing.ids[i], revision);
    }
    if (s->mode == CHANGES_REPLACE)
        changes_gate_left_out_each(s->changes, delete_elsewhere, &elsewhere);
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].deleted != 0)
            stage_deletion(s, s->entries[i].id, s->entries[i].deleted);
}

/* ---- staging apps ---- */

/* The table has the app, or does not need it. */
static void settle(struct entry *entry)
{
    entry->id = NULL;
    entry->app = NULL;
}

/*
 * What is mirrored was deleted and put again at the source if an instance has gone back to an older generation, which a
 * put alone may not do.
 */
static bool has_gone_back(const struct route_app *now, const struct route_app *app)
{
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct route_instance *instance = &app->instances[i];
        for (size_t k = 0; k < now->instance_count; k++)
            if (now->instances[k].generation > instance->generation && strcmp(now->instances[k].id, instance->id) == 0)
                return true;
    }
    return false;
}

/* What an app of the table is to become: none if its record would be refused whatever the others are. */
static const struct route_app *successor_of(void *arg, const struct route_app *now)
{
    const struct changes_snapshot *s = arg;
    struct route_problem ignored;
    size_t slot = *slot_of(s, slice_str(now->id));
    const struct route_app *app = slot != 0 ? s->entries[slot - 1].app : NULL;
    if (!app || has_gone_back(now, app) || route_app_check(app, s->changes->rules, &ignored) != STATUS_OK)
        return NULL;
    return app;
}

static bool stage_entry(struct changes_snapshot *s, struct entry *entry, uint64_t revision,
                        struct route_problem *ret_problem)
{
    const struct route_successors successors = {successor_of, s};
    struct changes *c = s->changes;
    struct route_app *app = entry->app;
    const struct route_app *now = route_table_staged_app(c->table, slice_str(app->id));
    if (is_same(s, now, app)) {
        route_app_free(&app);
        settle(entry);
        return true;
    }
    if (s->mode != CHANGES_REPLACE && now && has_gone_back(now, app))
        stage_out(s, app->id, revision);
    if (s->mode != CHANGES_REPLACE && app->revision != 0)
        revision = app->revision;
    if (changes_stage_put(c, &app, revision, s->is_giving_up ? &successors : NULL, ret_problem) != STATUS_OK)
        return false;
    s->is_behind |= revision <= route_table_revision(c->table);
    settle(entry);
    return true;
}

/* One pass over what is not staged yet; true if it got anywhere. `ret_result` has what is left. */
static bool stage_pass(struct changes_snapshot *s, uint64_t revision, struct change_result *ret_result)
{
    bool progress = false;
    ret_result->refused = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct route_problem problem;
        struct entry *entry = &s->entries[i];
        if (!entry->app)
            continue;
        if (stage_entry(s, entry, revision, &problem))
            progress = true;
        else if (ret_result->refused++ == 0)
            ret_result->problem = problem;
    }
    return progress;
}

/* An address that moves between two apps is free once its old app is staged: try again while that helps. */
static void stage_passes(struct changes_snapshot *s, uint64_t revision, struct change_result *ret_result)
{
    while (stage_pass(s, revision, ret_result) && ret_result->refused > 0)
        ;
}

/* Old states must not stand in the way of what the source has, as when two apps have changed places. */
static void delete_old_states(struct changes_snapshot *s, uint64_t revision)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].app)
            stage_out(s, s->entries[i].id, revision);
}

static void stage_rest(struct changes_snapshot *s, uint64_t revision, struct change_result *ret_result)
{
    if (s->mode == CHANGES_REPLACE)
        s->is_giving_up = true;
    else
        delete_old_states(s, revision);
    stage_passes(s, revision, ret_result);
}

static void tell_refused(struct changes_snapshot *s, uint64_t revision)
{
    struct route_problem problem;
    for (size_t i = 0; i < s->count && s->options.refused; i++)
        if (s->entries[i].app && !stage_entry(s, &s->entries[i], revision, &problem))
            s->options.refused(s->options.refused_arg, slice_str(s->entries[i].id), s->entries[i].app->revision,
                               &problem);
}

/* A snapshot of the control plane with a revision that is not new may only repeat what is there. */
static bool is_too_old(const struct changes_snapshot *s, struct change_result *ret_result)
{
    uint64_t known = route_table_revision(s->changes->table);
    uint64_t revision = s->options.revision;
    if (s->mode != CHANGES_REPLACE || revision == 0 || revision > known ||
        (revision == known && !route_table_has_staged(s->changes->table)))
        return false;
    ret_result->status =
        route_problem_set(&ret_result->problem, STATUS_REVISION_TAKEN, "revision",
                          "the table is at revision %ju; a snapshot that differs needs a newer one", (uintmax_t)known);
    return true;
}

static int by_revision(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    uint64_t left = x->app ? x->app->revision : 0, right = y->app ? y->app->revision : 0;
    return (left > right) - (left < right);
}

/*
 * Which of two apps gets an address that both claim must not depend on the order of the lines: everybody who follows
 * the source has to come to the same end, so the one that was there first keeps it. The slots are of no use afterwards.
 */
static void sort(struct changes_snapshot *s)
{
    if (s->mode != CHANGES_REPLACE && s->count > 1)
        qsort(s->entries, s->count, sizeof *s->entries, by_revision);
}

/* What equalled the table when it was added was not kept: if it has changed since, the mirror would not be one. */
static bool is_overtaken(const struct changes_snapshot *s, struct change_result *ret_result)
{
    struct route_table *table = s->changes->table;
    bool may_be = s->mode == CHANGES_MIRROR && route_table_revision(table) != s->begun_at;
    for (size_t i = 0; i < s->count && may_be; i++) {
        const struct entry *entry = &s->entries[i];
        const struct route_app *now = entry->kept > 0 ? route_table_staged_app(table, slice_str(entry->id)) : NULL;
        if (entry->kept == 0 || (now && now->revision == entry->kept))
            continue;
        ret_result->status = route_problem_set(&ret_result->problem, STATUS_REVISION_CONFLICT, "",
                                               "app %s has changed since its record was read", entry->id);
        return true;
    }
    return false;
}

/* If not, all that watchers were told is still true. */
static bool differs(const struct changes_snapshot *s, uint64_t revision)
{
    const struct changes *c = s->changes;
    return route_table_has_staged(c->table) || c->deletions.count > 0 || revision != route_table_revision(c->table);
}

static void note_replaced(void *arg, const char *app_id)
{
    const struct changes_snapshot *s = arg;
    size_t slot = s->mode == CHANGES_REPLACE ? *slot_of(s, slice_str(app_id)) : 0;
    if (slot == 0 || !s->entries[slot - 1].is_left_alone)
        id_set_add(&s->changes->replaced, app_id);
}

void changes_snapshot_stage(struct changes_snapshot *s, struct change_result *ret_result)
{
    struct changes *c = s->changes;
    uint64_t known = route_table_staged_revision(c->table);
    uint64_t revision = s->options.revision != 0 ? s->options.revision : known + 1;
    if (is_overtaken(s, ret_result))
        return;
    if (s->mode != CHANGES_DELTA)
        id_set_each(&c->left_out, note_replaced, s);
    stage_deletions(s, revision);
    sort(s);
    stage_passes(s, revision, ret_result);
    if (ret_result->refused > 0) {
        stage_rest(s, revision, ret_result);
        tell_refused(s, revision);
    }
    c->restarting = s->mode == CHANGES_MIRROR ? differs(s, revision) : s->is_behind;
    ret_result->status = STATUS_OK;
    if (is_too_old(s, ret_result))
        return;
    if (s->options.revision != 0 || s->mode != CHANGES_REPLACE)
        route_table_stage_revision(c->table, revision);
    ret_result->revision = route_table_staged_revision(c->table);
    if (s->options.strict && ret_result->refused > 0)
        ret_result->status = ret_result->problem.status;
}
