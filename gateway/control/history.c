#include "gateway/control/history.h"

#include "gateway/base/name_hash.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_RING = 65536, DEFAULT_TOMBSTONES = 65536, FIRST_CAPACITY = 64 };

/* Open addressing with linear probing, at most half full; a free slot has revision 0. */
struct tombstones {
    struct history_entry *slots;
    size_t slot_count; /* a power of two, or 0 */
    size_t count;
};

struct history {
    struct name_hash_seed seed;
    struct tombstones tombstones;
    size_t max_tombstones;
    uint64_t floor;
    uint64_t epoch;
    struct history_entry *ring;
    size_t ring_capacity; /* a power of two, or 0 */
    size_t max_ring;
    uint64_t first;         /* place of the oldest entry */
    uint64_t end;           /* place of the next one */
    uint64_t ring_revision; /* the ring has all changes later than this */
};

static void set_entry(struct history_entry *entry, struct slice app_id, uint64_t revision)
{
    assert(app_id.len < sizeof entry->app_id && revision > 0);
    entry->revision = revision;
    memcpy(entry->app_id, app_id.ptr, app_id.len);
    entry->app_id[app_id.len] = '\0';
}

/* ---- tombstones ---- */

static size_t home_of(const struct history *h, struct slice app_id)
{
    return name_hash(&h->seed, 0, app_id) & (h->tombstones.slot_count - 1);
}

/* The slot that has the id, or the free one where it belongs. */
static struct history_entry *slot_of(const struct history *h, struct slice app_id)
{
    const struct tombstones *t = &h->tombstones;
    size_t i = home_of(h, app_id);
    while (t->slots[i].revision != 0 && !slice_eq(slice_str(t->slots[i].app_id), app_id))
        i = (i + 1) & (t->slot_count - 1);
    return &t->slots[i];
}

static void resize_tombstones(struct history *h, size_t slot_count)
{
    struct tombstones *t = &h->tombstones;
    struct history_entry *old = t->slots;
    size_t old_count = t->slot_count;
    t->slots = calloc(slot_count, sizeof *t->slots);
    if (!t->slots)
        abort();
    t->slot_count = slot_count;
    for (size_t i = 0; i < old_count; i++)
        if (old[i].revision != 0)
            *slot_of(h, slice_str(old[i].app_id)) = old[i];
    free(old);
}

static void bury(struct history *h, struct slice app_id, uint64_t revision)
{
    struct tombstones *t = &h->tombstones;
    if (2 * (t->count + 1) > t->slot_count)
        resize_tombstones(h, t->slot_count > 0 ? 2 * t->slot_count : FIRST_CAPACITY);
    struct history_entry *slot = slot_of(h, app_id);
    if (slot->revision == 0)
        t->count++;
    set_entry(slot, app_id, revision);
}

/* Empties a slot, and moves up what could not be found behind a free one any more. */
static void unbury(struct history *h, struct history_entry *slot)
{
    struct tombstones *t = &h->tombstones;
    size_t mask = t->slot_count - 1;
    size_t hole = (size_t)(slot - t->slots);
    for (size_t i = (hole + 1) & mask; t->slots[i].revision != 0; i = (i + 1) & mask) {
        size_t home = home_of(h, slice_str(t->slots[i].app_id));
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    }
    t->slots[hole].revision = 0;
    t->count--;
}

uint64_t history_tombstone(const struct history *h, struct slice app_id)
{
    return h->tombstones.count > 0 ? slot_of(h, app_id)->revision : 0;
}

size_t history_max_tombstones(const struct history *h)
{
    return h->max_tombstones;
}

void history_tombstones_each(const struct history *h, uint64_t since, history_tombstone_cb each, void *arg)
{
    for (size_t i = 0; i < h->tombstones.slot_count; i++) {
        const struct history_entry *slot = &h->tombstones.slots[i];
        if (slot->revision > since)
            each(arg, slice_str(slot->app_id), slot->revision);
    }
}

static int compare_revisions(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t history_excess(const struct history *h)
{
    const struct tombstones *t = &h->tombstones;
    if (t->count <= h->max_tombstones)
        return 0;
    size_t count = 0;
    uint64_t *revisions = malloc(t->count * sizeof *revisions);
    if (!revisions)
        abort();
    for (size_t i = 0; i < t->slot_count; i++)
        if (t->slots[i].revision != 0)
            revisions[count++] = t->slots[i].revision;
    qsort(revisions, count, sizeof *revisions, compare_revisions);
    uint64_t floor = revisions[count - (h->max_tombstones - h->max_tombstones / 8) - 1];
    free(revisions);
    return floor;
}

void history_forget(struct history *h, uint64_t floor)
{
    struct tombstones *t = &h->tombstones;
    size_t slot_count = FIRST_CAPACITY;
    if (floor <= h->floor)
        return;
    h->floor = floor;
    t->count = 0;
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].revision <= floor)
            t->slots[i].revision = 0;
        else
            t->count++;
    }
    while (slot_count < 2 * (t->count + 1))
        slot_count *= 2;
    resize_tombstones(h, slot_count);
}

uint64_t history_floor(const struct history *h)
{
    return h->floor;
}

/* ---- the ring ---- */

static struct history_entry *entry_at(const struct history *h, uint64_t place)
{
    return &h->ring[place & (h->ring_capacity - 1)];
}

static void grow_ring(struct history *h)
{
    struct history_entry *old = h->ring;
    size_t old_capacity = h->ring_capacity;
    h->ring_capacity = old_capacity > 0 ? 2 * old_capacity : FIRST_CAPACITY;
    if (h->ring_capacity > h->max_ring)
        h->ring_capacity = h->max_ring;
    h->ring = malloc(h->ring_capacity * sizeof *h->ring);
    if (!h->ring)
        abort();
    for (uint64_t place = h->first; place < h->end; place++)
        *entry_at(h, place) = old[place & (old_capacity - 1)];
    free(old);
}

static void append(struct history *h, struct slice app_id, uint64_t revision)
{
    if (h->end - h->first == h->ring_capacity && h->ring_capacity < h->max_ring)
        grow_ring(h);
    if (h->end - h->first == h->ring_capacity)
        h->ring_revision = entry_at(h, h->first++)->revision;
    set_entry(entry_at(h, h->end++), app_id, revision);
}

void history_put(struct history *h, struct slice app_id, uint64_t revision)
{
    struct history_entry *slot = h->tombstones.count > 0 ? slot_of(h, app_id) : NULL;
    if (slot && slot->revision != 0)
        unbury(h, slot);
    append(h, app_id, revision);
}

void history_delete(struct history *h, struct slice app_id, uint64_t revision)
{
    if (revision > h->floor)
        bury(h, app_id, revision);
    append(h, app_id, revision);
}

bool history_seek(const struct history *h, uint64_t since, uint64_t *ret_place)
{
    uint64_t low = h->first;
    uint64_t high = h->end;
    if (since < h->ring_revision)
        return false;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (entry_at(h, middle)->revision > since)
            high = middle;
        else
            low = middle + 1;
    }
    *ret_place = low;
    return true;
}

uint64_t history_end(const struct history *h)
{
    return h->end;
}

const struct history_entry *history_at(const struct history *h, uint64_t place)
{
    return place >= h->first && place < h->end ? entry_at(h, place) : NULL;
}

/* ---- life ---- */

struct history *history_new(const struct history_limits *limits)
{
    struct history *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->seed = name_hash_seed_new();
    h->max_ring = limits && limits->ring_entries > 0 ? limits->ring_entries : DEFAULT_RING;
    h->max_tombstones = limits && limits->tombstones > 0 ? limits->tombstones : DEFAULT_TOMBSTONES;
    return h;
}

void history_free(struct history **history)
{
    struct history *h = *history;
    if (!h)
        return;
    *history = NULL;
    free(h->tombstones.slots);
    free(h->ring);
    free(h);
}

void history_restore(struct history *h, struct slice app_id, uint64_t revision)
{
    bury(h, app_id, revision);
}

void history_begin(struct history *h, uint64_t floor, uint64_t revision)
{
    h->floor = floor;
    h->ring_revision = revision;
}

void history_restart(struct history *h, uint64_t revision)
{
    h->epoch++;
    h->floor = 0;
    h->first = h->end;
    h->ring_revision = revision;
    history_forget(h, UINT64_MAX);
    h->floor = revision;
}

void history_interrupt(struct history *h)
{
    h->epoch++;
}

uint64_t history_epoch(const struct history *h)
{
    return h->epoch;
}
