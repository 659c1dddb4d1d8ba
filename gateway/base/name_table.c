#include "gateway/base/name_table.h"

#include <assert.h>
#include <stdlib.h>

enum { FIRST_BUCKETS = 16 };

static struct name_entry **new_buckets(size_t count)
{
    struct name_entry **buckets = calloc(count, sizeof(struct name_entry *));
    if (!buckets)
        abort();
    return buckets;
}

void name_table_init(struct name_table *table)
{
    *table = (struct name_table){
        .seed = name_hash_seed_new(), .buckets = new_buckets(FIRST_BUCKETS), .bucket_count = FIRST_BUCKETS};
}

void name_table_fini(struct name_table *table)
{
    free(table->buckets);
    *table = (struct name_table){.buckets = NULL};
}

static struct name_entry **bucket_of(const struct name_table *table, uint64_t hash)
{
    return &table->buckets[hash & (table->bucket_count - 1)];
}

struct name_entry *name_table_find(const struct name_table *table, struct slice name)
{
    uint64_t hash = name_hash(&table->seed, 0, name);
    struct name_entry *entry = *bucket_of(table, hash);
    while (entry && (entry->hash != hash || !slice_eq(entry->name, name)))
        entry = entry->next;
    return entry;
}

/* Entries of one name keep their order: each bucket is walked from its end. */
static void grow(struct name_table *table)
{
    struct name_entry **old = table->buckets;
    size_t old_count = table->bucket_count;
    table->bucket_count = old_count * 2;
    table->buckets = new_buckets(table->bucket_count);
    for (size_t i = 0; i < old_count; i++) {
        struct name_entry *reversed = NULL;
        for (struct name_entry *entry = old[i], *next; entry; entry = next) {
            next = entry->next;
            entry->next = reversed;
            reversed = entry;
        }
        for (struct name_entry *entry = reversed, *next; entry; entry = next) {
            struct name_entry **bucket = bucket_of(table, entry->hash);
            next = entry->next;
            entry->next = *bucket;
            *bucket = entry;
        }
    }
    free(old);
}

void name_table_add(struct name_table *table, struct name_entry *entry)
{
    if (table->count >= table->bucket_count)
        grow(table);
    entry->hash = name_hash(&table->seed, 0, entry->name);
    struct name_entry **bucket = bucket_of(table, entry->hash);
    entry->next = *bucket;
    *bucket = entry;
    table->count++;
}

void name_table_remove(struct name_table *table, struct name_entry *entry)
{
    struct name_entry **place = bucket_of(table, entry->hash);
    while (*place != entry) {
        assert(*place);
        place = &(*place)->next;
    }
    *place = entry->next;
    table->count--;
}
