/*
 * name_table: a hash table from host names to objects that embed an entry. For one thread.
 *
 * Several entries may have the same name; the one added last is found first. Names are in lower case and borrowed from
 * the object. The hash is keyed, since names come from clients.
 */
#ifndef GATEWAY_BASE_NAME_TABLE_H
#define GATEWAY_BASE_NAME_TABLE_H

#include "gateway/base/name_hash.h"

struct name_entry {
    struct name_entry *next;
    uint64_t hash;
    struct slice name;
};

struct name_table {
    struct name_hash_seed seed;
    struct name_entry **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
};

void name_table_init(struct name_table *table);
/* Entries are not touched. */
void name_table_fini(struct name_table *table);

/* NULL if there is none. */
struct name_entry *name_table_find(const struct name_table *table, struct slice name);
/* entry->name is set by the caller. */
void name_table_add(struct name_table *table, struct name_entry *entry);
/* It must be there. */
void name_table_remove(struct name_table *table, struct name_entry *entry);

#endif
