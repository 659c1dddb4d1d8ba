#include "changes_internal.h"

#include "gateway/base/name_hash.h"
#include "gateway/control/app_document.h"

#include <stdlib.h>

/* ---- digest ---- */

uint64_t changes_digest_of(struct slice app_id, uint64_t revision)
{
    static const struct name_hash_seed seed = {UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344)};
    return name_hash_fold(name_hash(&seed, 0, app_id) ^ revision, UINT64_C(0xa4093822299f31d1));
}

uint64_t changes_digest(const struct changes *c)
{
    return c->digest;
}

/* ---- the store ---- */

struct storing {
    const struct changes *changes;
    struct store_batch *batch;
};

static void store_staged(void *arg, struct slice app_id, const struct route_app *app)
{
    const struct storing *storing = arg;
    store_batch_add(storing->batch, app_id, app ? app->revision : 0, app ? app_document_format(app) : NULL);
    if (app && history_tombstone(storing->changes->history, app_id) != 0)
        store_batch_unbury(storing->batch, app_id);
}

static void store_deletion(void *batch, const char *app_id)
{
    store_batch_add(batch, slice_str(app_id), 0, NULL);
}

/* Left alone, a record that is only in the store would come back one day, though it was deleted. */
static void store_deletions(struct changes *c, struct store_batch *batch)
{
    bool too_many = c->deletions.count > history_max_tombstones(c->history);
    for (size_t i = 0; i < c->deletions.count; i++) {
        const struct deletion *it = &c->deletions.items[i];
        if (id_set_has(&c->left_out, it->app_id))
            store_deletion(batch, it->app_id);
        if (!too_many && !c->restarting && !route_table_staged_app(c->table, slice_str(it->app_id)))
            store_batch_bury(batch, slice_str(it->app_id), it->revision);
    }
    c->forgetting = too_many ? route_table_staged_revision(c->table) : history_excess(c->history);
    if (c->restarting)
        store_batch_forget(batch, UINT64_MAX, route_table_staged_revision(c->table));
    else if (c->forgetting > 0)
        store_batch_forget(batch, c->forgetting, c->forgetting);
}

bool changes_record_is_empty(const struct changes *c)
{
    return !route_table_has_staged(c->table) && c->deletions.count == 0 && !c->restarting && c->replaced.count == 0 &&
           route_table_staged_revision(c->table) == route_table_revision(c->table);
}

void changes_record_store(struct changes *c, struct store_batch *batch)
{
    struct storing storing = {c, batch};
    id_set_each(&c->replaced, store_deletion, batch);
    store_deletions(c, batch); /* before what was put again */
    route_table_staged_each(c->table, store_staged, &storing);
}

/* ---- the history ---- */

struct note {
    uint64_t revision;
    struct slice app_id;
    bool deleted;
};

struct notes {
    struct changes *changes;
    struct note *items;
    size_t count;
    size_t capacity;
};

static void add_note(struct notes *notes, struct note note)
{
    if (notes->count == notes->capacity) {
        notes->capacity = notes->capacity > 0 ? 2 * notes->capacity : 64;
        notes->items = realloc(notes->items, notes->capacity * sizeof *notes->items);
        if (!notes->items)
            abort();
    }
    notes->items[notes->count++] = note;
}

/* What holds wherever the record is from. */
static void take_note(struct changes *c, struct slice app_id, const struct route_app *app)
{
    route_table_read_begin();
    const struct route_app *before = route_table_app(c->table, app_id);
    if (before)
        c->digest ^= changes_digest_of(app_id, before->revision);
    LIST_EACH (link, &c->watchers) {
        struct changes_watcher *watcher = CONTAINER_OF(link, struct changes_watcher, link);
        if (watcher->changing)
            watcher->changing(watcher, app_id, before);
    }
    route_table_read_end();
    if (!app)
        return;
    c->digest ^= changes_digest_of(app_id, app->revision);
    id_set_remove(&c->left_out, app->id);
}

static void note_staged(void *arg, struct slice app_id, const struct route_app *app)
{
    struct notes *notes = arg;
    take_note(notes->changes, app_id, app);
    if (app)
        add_note(notes, (struct note){app->revision, app_id, false});
}

static int by_revision(const void *a, const void *b)
{
    const struct note *x = a;
    const struct note *y = b;
    return x->revision < y->revision ? -1 : x->revision > y->revision;
}

static void note_deletions(struct changes *c, struct notes *notes)
{
    for (size_t i = 0; i < c->deletions.count; i++) {
        const struct deletion *it = &c->deletions.items[i];
        id_set_remove(&c->left_out, it->app_id);
        if (!route_table_staged_app(c->table, slice_str(it->app_id)))
            add_note(notes, (struct note){it->revision, slice_str(it->app_id), true});
    }
}

static void end_left_out(void *arg, const char *app_id)
{
    struct changes *c = arg;
    id_set_remove(&c->left_out, app_id);
}

void changes_record_history(struct changes *c)
{
    struct notes notes = {.changes = c};
    route_table_staged_each(c->table, note_staged, &notes);
    note_deletions(c, &notes);
    id_set_each(&c->replaced, end_left_out, c);
    if (c->left_out.count == 0)
        changes_drop_kept(c);
    if (c->restarting) {
        history_restart(c->history, route_table_staged_revision(c->table));
    } else {
        history_forget(c->history, c->forgetting);
        if (notes.count > 1)
            qsort(notes.items, notes.count, sizeof *notes.items, by_revision);
        for (size_t i = 0; i < notes.count; i++) {
            const struct note *note = &notes.items[i];
            (note->deleted ? history_delete : history_put)(c->history, note->app_id, note->revision);
        }
    }
    free(notes.items);
}

void changes_record_drop(struct changes *c)
{
    for (size_t i = 0; i < c->deletions.count; i++)
        free(c->deletions.items[i].app_id);
    free(c->deletions.items);
    c->deletions = (struct deletions){.items = NULL};
    id_set_clear(&c->returning);
    c->returning_count = 0;
    c->forgetting = 0;
    id_set_clear(&c->replaced);
    c->restarting = false;
}

/* ---- without a change ---- */

static void note_stored(void *arg, struct slice app_id, const struct route_app *app)
{
    take_note(arg, app_id, app);
}

void changes_publish_stored(struct changes *c)
{
    route_table_staged_each(c->table, note_stored, c);
    route_table_publish(c->table, c->revoked, c->revoked_arg);
}
