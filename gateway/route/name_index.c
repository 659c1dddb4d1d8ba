#include "name_index.h"

#include "name_map.h"
#include "route_alloc.h"

#include <assert.h>

/*
 * A word: the address of a record, which has 16 bits of zeros above (user space of 64-bit systems) and 4 below
 * (malloc's alignment), with the number of the name (12 bits) and a part of its hash (8) in their place.
 */
enum { ADDRESS_BITS = 48, SPARE_LOW_BITS = 4, NUMBER_BITS = 12, TAG_BITS = 8 };
enum { CAPACITY_UNIT = 8 };
enum { LINE_BYTES = 64, PREFETCH_LINES = 4, PREFETCH_AHEAD = 8 };
#define ADDRESS_MASK (((UINT64_C(1) << ADDRESS_BITS) - 1) & ~((UINT64_C(1) << SPARE_LOW_BITS) - 1))

static const uint64_t word_none = 0;
static const uint64_t word_gone = 1; /* removed: there may be more behind */

/* All but the words is the writer's. */
struct name_shard {
    struct name_shard *next; /* replaced earlier */
    uint32_t used;           /* places and marks of removed ones */
    uint32_t live;           /* places */
    _Atomic uint64_t words[];
};

/* An array with its number of words, which the index keeps in one word too: a reader need not go there to know it. */
struct shard_ref {
    struct name_shard *shard; /* NULL: there is nothing yet */
    uint32_t capacity;        /* a multiple of CAPACITY_UNIT */
};

static_assert(NAME_NUMBERS <= 1 << NUMBER_BITS, "a number fits into a word");
static_assert(ADDRESS_BITS + NUMBER_BITS + TAG_BITS - SPARE_LOW_BITS == 64, "a word is full");

/* ---- words ---- */

static uint64_t word_make(const struct route_app *app, unsigned number, uint64_t tag)
{
    uint64_t address = (uintptr_t)app;
    assert((address & ~ADDRESS_MASK) == 0);
    uint64_t high = tag << (NUMBER_BITS - SPARE_LOW_BITS) | number >> SPARE_LOW_BITS;
    return high << ADDRESS_BITS | address | (number & ((1U << SPARE_LOW_BITS) - 1));
}

static struct name_place word_place(uint64_t word)
{
    unsigned high = (unsigned)(word >> ADDRESS_BITS) & ((1U << (NUMBER_BITS - SPARE_LOW_BITS)) - 1);
    unsigned low = (unsigned)word & ((1U << SPARE_LOW_BITS) - 1);
    void *app = (void *)(uintptr_t)(word & ADDRESS_MASK);
    return (struct name_place){app, high << SPARE_LOW_BITS | low};
}

static uint64_t word_tag(uint64_t word)
{
    return word >> (64 - TAG_BITS);
}

static struct shard_ref load_shard(const struct name_index *index, size_t number)
{
    uint64_t word = atomic_load_explicit(&index->shards[number], memory_order_acquire);
    void *shard = (void *)(uintptr_t)(word & ADDRESS_MASK);
    return (struct shard_ref){shard, (uint32_t)(word >> ADDRESS_BITS) * CAPACITY_UNIT};
}

static void store_shard(struct name_index *index, size_t number, struct shard_ref ref)
{
    uint64_t address = (uintptr_t)ref.shard;
    assert((address & ~ADDRESS_MASK) == 0);
    atomic_store_explicit(&index->shards[number], (uint64_t)(ref.capacity / CAPACITY_UNIT) << ADDRESS_BITS | address,
                          memory_order_release);
}

/* ---- names ---- */

enum name_space name_space(unsigned number)
{
    if (number < NAME_OF_DOMAINS)
        return NAME_ID;
    return number < NAME_OF_ADDRESSES ? NAME_DOMAIN : NAME_ADDRESS;
}

struct slice name_of_address(const struct ip_addr *address)
{
    return slice_make(address, sizeof *address);
}

struct slice name_text(const struct route_app *app, unsigned number)
{
    if (number == NAME_OF_APP)
        return slice_str(app->id);
    if (number < NAME_OF_DOMAINS)
        return slice_str(app->instances[number - NAME_OF_INSTANCES].id);
    if (number < NAME_OF_ADDRESSES)
        return slice_str(app->domains[number - NAME_OF_DOMAINS].name);
    return name_of_address(&app->instances[number - NAME_OF_ADDRESSES].address);
}

/* ---- hashes: the upper bits tell the shard, the next the tag, the lower half where to begin ---- */

static size_t hash_shard(uint64_t hash)
{
    return hash >> 54;
}

static uint64_t hash_tag(uint64_t hash)
{
    return hash >> 46 & ((1U << TAG_BITS) - 1);
}

static uint32_t hash_home(uint64_t hash, uint32_t capacity)
{
    return (uint32_t)((hash & UINT32_MAX) * capacity >> 32);
}

static_assert(NAME_INDEX_SHARDS == 1 << 10, "hash_shard has ten bits");

static uint32_t next_index(struct shard_ref ref, uint32_t i)
{
    return i + 1 < ref.capacity ? i + 1 : 0;
}

/* Where the name is, with what stands there; or word_none, and the first free place. */
static uint64_t find_word(struct shard_ref ref, uint64_t hash, enum name_space space, struct slice name,
                          uint32_t *ret_index)
{
    uint64_t tag = hash_tag(hash);
    uint32_t free_index = UINT32_MAX;
    for (uint32_t i = hash_home(hash, ref.capacity);; i = next_index(ref, i)) {
        uint64_t word = atomic_load_explicit(&ref.shard->words[i], memory_order_acquire);
        if (word == word_none) {
            *ret_index = free_index < UINT32_MAX ? free_index : i;
            return word_none;
        }
        if (word == word_gone) {
            free_index = free_index < UINT32_MAX ? free_index : i;
            continue;
        }
        if (word_tag(word) != tag)
            continue;
        struct name_place place = word_place(word);
        if (name_space(place.number) == space && slice_eq(name_text(place.app, place.number), name)) {
            *ret_index = i;
            return word;
        }
    }
}

bool name_index_find(const struct name_index *index, enum name_space space, struct slice name,
                     struct name_place *ret_place)
{
    uint64_t hash = name_hash(&index->seed, space, name);
    struct shard_ref ref = load_shard(index, hash_shard(hash));
    uint32_t at;
    uint64_t word = ref.shard ? find_word(ref, hash, space, name, &at) : word_none;
    if (word == word_none)
        return false;
    *ret_place = word_place(word);
    return true;
}

/* ---- the writer ---- */

/* Names lie all over the memory: fetched some ahead of their use, they are not waited for one by one. */
static void prefetch_names(struct shard_ref ref, uint32_t i)
{
    uint64_t word = i < ref.capacity ? atomic_load_explicit(&ref.shard->words[i], memory_order_relaxed) : word_none;
    const char *record = (const char *)word_place(word).app;
    for (size_t line = 0; record && line < PREFETCH_LINES; line++)
        __builtin_prefetch(record + line * LINE_BYTES);
}

static void copy_words(const struct name_index *index, struct shard_ref from, struct shard_ref to)
{
    for (uint32_t i = 0; i < from.capacity; i++) {
        uint64_t word = atomic_load_explicit(&from.shard->words[i], memory_order_relaxed);
        prefetch_names(from, i + PREFETCH_AHEAD);
        if (word == word_none || word == word_gone)
            continue;
        struct name_place place = word_place(word);
        struct slice name = name_text(place.app, place.number);
        uint32_t at = hash_home(name_hash(&index->seed, name_space(place.number), name), to.capacity);
        while (atomic_load_explicit(&to.shard->words[at], memory_order_relaxed) != word_none)
            at = next_index(to, at);
        atomic_store_explicit(&to.shard->words[at], word, memory_order_relaxed);
    }
    to.shard->used = to.shard->live = from.shard->live;
}

/* The array with room for one more; readers find a new one when it is complete. */
static struct shard_ref shard_with_room(struct name_index *index, size_t number)
{
    struct shard_ref old = load_shard(index, number);
    if (old.shard && (old.shard->used + 1) * 5U <= old.capacity * 4U)
        return old;
    /* Three fifths full at first. */
    uint32_t wanted = ((old.shard ? old.shard->live : 0) + 1) * 5U / 3U;
    struct shard_ref ref = {.capacity = (wanted / CAPACITY_UNIT + 1) * CAPACITY_UNIT};
    ref.shard = route_alloc(1, sizeof *ref.shard + ref.capacity * sizeof ref.shard->words[0]);
    if (ref.capacity / CAPACITY_UNIT > UINT16_MAX) /* some 400 million names */
        abort();
    if (old.shard)
        copy_words(index, old, ref);
    store_shard(index, number, ref);
    if (old.shard) {
        old.shard->next = index->replaced;
        index->replaced = old.shard;
    }
    return ref;
}

void name_index_put(struct name_index *index, struct route_app *app, unsigned number)
{
    enum name_space space = name_space(number);
    struct slice name = name_text(app, number);
    uint64_t hash = name_hash(&index->seed, space, name);
    struct shard_ref ref = shard_with_room(index, hash_shard(hash));
    uint32_t at;
    if (find_word(ref, hash, space, name, &at) == word_none) {
        ref.shard->live++;
        if (atomic_load_explicit(&ref.shard->words[at], memory_order_relaxed) == word_none)
            ref.shard->used++;
    }
    atomic_store_explicit(&ref.shard->words[at], word_make(app, number, hash_tag(hash)), memory_order_release);
}

void name_index_remove(struct name_index *index, const struct route_app *app, unsigned number)
{
    enum name_space space = name_space(number);
    struct slice name = name_text(app, number);
    uint64_t hash = name_hash(&index->seed, space, name);
    struct shard_ref ref = load_shard(index, hash_shard(hash));
    uint32_t at;
    uint64_t word = ref.shard ? find_word(ref, hash, space, name, &at) : word_none;
    if (word == word_none || word_place(word).app != app)
        return;
    atomic_store_explicit(&ref.shard->words[at], word_gone, memory_order_release);
    ref.shard->live--;
}

/* ---- life ---- */

void name_index_init(struct name_index *index)
{
    index->seed = name_hash_seed_new();
    index->replaced = NULL;
    for (size_t i = 0; i < NAME_INDEX_SHARDS; i++)
        atomic_init(&index->shards[i], 0);
}

void name_index_collect(struct name_index *index)
{
    while (index->replaced) {
        struct name_shard *shard = index->replaced;
        index->replaced = shard->next;
        free(shard);
    }
}

void name_index_fini(struct name_index *index)
{
    name_index_collect(index);
    for (size_t i = 0; i < NAME_INDEX_SHARDS; i++)
        free(load_shard(index, i).shard);
}
