#include "name_map.h"

#include "route_alloc.h"

enum { FIRST_SLOTS = 16 };

void name_map_init(struct name_map *map)
{
    *map = (struct name_map){.seed = name_hash_seed_new()};
}

void name_map_clear(struct name_map *map)
{
    free(map->slots);
    map->slots = NULL;
    map->slot_count = 0;
    map->used = 0;
}

/* The name's slot, or the empty one where it belongs. */
static struct name_map_slot *find(const struct name_map *map, uint64_t hash, struct slice name)
{
    size_t mask = map->slot_count - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct name_map_slot *slot = &map->slots[i];
        if (!slot->name || (slot->hash == hash && name_is(slot->name, name)))
            return slot;
    }
}

static void grow(struct name_map *map)
{
    struct name_map_slot *old = map->slots;
    size_t old_count = map->slot_count;
    map->slot_count = old_count > 0 ? old_count * 2 : FIRST_SLOTS;
    map->slots = route_alloc(map->slot_count, sizeof *map->slots);
    for (size_t i = 0; i < old_count; i++)
        if (old[i].name)
            *find(map, old[i].hash, slice_str(old[i].name)) = old[i];
    free(old);
}

void *name_map_get(const struct name_map *map, struct slice name)
{
    if (map->used == 0)
        return NULL;
    return find(map, name_hash(&map->seed, 0, name), name)->value;
}

void name_map_set(struct name_map *map, const char *name, void *value)
{
    if ((map->used + 1) * 4 > map->slot_count * 3)
        grow(map);
    uint64_t hash = name_hash(&map->seed, 0, slice_str(name));
    struct name_map_slot *slot = find(map, hash, slice_str(name));
    if (!slot->name)
        map->used++;
    *slot = (struct name_map_slot){name, hash, value};
}
