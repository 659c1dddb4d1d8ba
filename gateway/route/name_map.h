/*
 * name_map: names to pointers, for what one batch of changes stages. Private to the route layer, for one thread.
 *
 * Open addressing with linear probing. Nothing is removed but all at once. Keys are borrowed, NUL-terminated strings.
 */
#ifndef GATEWAY_ROUTE_NAME_MAP_H
#define GATEWAY_ROUTE_NAME_MAP_H

#include "gateway/base/name_hash.h"

#include <stdint.h>

struct name_map_slot {
    const char *name; /* NULL: empty */
    uint64_t hash;
    void *value;
};

struct name_map {
    struct name_hash_seed seed;
    struct name_map_slot *slots;
    size_t slot_count; /* a power of two, or 0 */
    size_t used;
};

/* Takes no memory until the first name is put in. */
void name_map_init(struct name_map *map);
void name_map_clear(struct name_map *map);

/* NULL if the name is not there. */
void *name_map_get(const struct name_map *map, struct slice name);
/* Adds, or replaces key and value. */
void name_map_set(struct name_map *map, const char *name, void *value);

/* True if the NUL-terminated `name` is equal to `key`, which may hold any bytes. */
static inline bool name_is(const char *name, struct slice key)
{
    return strnlen(name, key.len + 1) == key.len && (key.len == 0 || memcmp(name, key.ptr, key.len) == 0);
}

#endif
