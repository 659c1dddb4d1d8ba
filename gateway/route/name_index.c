#include "name_index.h"

#include "name_map.h"
#include "route_alloc.h"

#include <assert.h>

/* A word: the address of a record, which has 16 bits of zeros above (user space of 64-bit systems), with the number of
 * the name there. */
enum { ADDRESS_BITS = 48, NUMBER_BITS = 16 };
enum { BUCKET_BYTES = 64, BUCKET_PLACES = 7, TAG_BITS = 8 };
/* Of its places, a full array has names in so many; a new one has room for so many of those that it is made for. */
enum { FULL_PERCENT = 85, GROW_PERCENT = 115 };
enum { PREFETCH_LINES = 4, PREFETCH_AHEAD = 8 };
#define ADDRESS_MASK ((UINT64_C(1) << ADDRESS_BITS) - 1)
#define EACH_BYTE    UINT64_C(0x0101010101010101)

/*
 * One cache line: seven words, and a byte for each of them with a part of its name's hash, never 0, or 0 if the place
 * is free. The eighth byte counts the names that found no place here and are in a bucket behind; at its most it stays.
 */
struct bucket {
    _Atomic uint64_t tags;
    _Atomic uint64_t words[BUCKET_PLACES];
};

enum { PASSED_SHIFT = BUCKET_PLACES * TAG_BITS, PASSED_MAX = (1 << TAG_BITS) - 1 };
#define PASSED_ONE (UINT64_C(1) << PASSED_SHIFT)

/* All but the buckets is the writer's. */
struct name_shard {
    struct name_shard *next; /* replaced earlier */
    uint32_t live;           /* names */
    _Alignas(BUCKET_BYTES) struct bucket buckets[];
};

/* An array with its number of buckets, which the index keeps in one word too: a reader need not go there to know it. */
struct shard_ref {
    struct name_shard *shard; /* NULL: there is nothing yet */
    uint32_t bucket_count;
};

static_assert(NAME_NUMBERS <= 1 << NUMBER_BITS, "a number fits into a word");
static_assert(ADDRESS_BITS + NUMBER_BITS == 64, "a word is full");
static_assert(sizeof(struct bucket) == BUCKET_BYTES, "a bucket is a cache line");

/* ---- words ---- */

static uint64_t word_make(const void *address, unsigned number)
{
    assert(((uintptr_t)address & ~ADDRESS_MASK) == 0);
    return (uint64_t)number << ADDRESS_BITS | (uintptr_t)address;
}

static void *word_address(uint64_t word)
{
    return (void *)(uintptr_t)(word & ADDRESS_MASK);
}

static struct name_place word_place(uint64_t word)
{
    return (struct name_place){word_address(word), (unsigned)(word >> ADDRESS_BITS)};
}

static struct shard_ref load_shard(const struct name_index *index, size_t number)
{
    uint64_t word = atomic_load_explicit(&index->shards[number], memory_order_acquire);
    return (struct shard_ref){word_address(word), (uint32_t)(word >> ADDRESS_BITS)};
}

static void store_shard(struct name_index *index, size_t number, struct shard_ref ref)
{
    atomic_store_explicit(&index->shards[number], word_make(ref.shard, ref.bucket_count), memory_order_release);
}

/* ---- tags ---- */

/* The upper bit of each byte of the places that is `tag`. */
static uint64_t tags_equal(uint64_t tags, uint64_t tag)
{
    uint64_t differs = tags ^ tag * EACH_BYTE;
    uint64_t all_but_upper = EACH_BYTE * (PASSED_MAX >> 1);
    return ~(((differs & all_but_upper) + all_but_upper) | differs | all_but_upper) & (PASSED_ONE - 1);
}

/* The place of the lowest bit that tags_equal gave. */
static unsigned first_place(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits) / TAG_BITS;
}

static uint64_t tag_at(unsigned place, uint64_t tag)
{
    return tag << place * TAG_BITS;
}

static bool is_passed(uint64_t tags)
{
    return tags >> PASSED_SHIFT > 0;
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
    uint64_t tag = hash >> 46 & ((1U << TAG_BITS) - 1);
    return tag > 0 ? tag : 1;
}

static uint32_t hash_home(uint64_t hash, uint32_t bucket_count)
{
    return (uint32_t)((hash & UINT32_MAX) * bucket_count >> 32);
}

static_assert(NAME_INDEX_SHARDS == 1 << 10, "hash_shard has ten bits");

static uint32_t next_bucket(struct shard_ref ref, uint32_t i)
{
    return i + 1 < ref.bucket_count ? i + 1 : 0;
}

/* Where a name is. */
struct found {
    struct bucket *bucket; /* NULL: nowhere */
    unsigned place;
    uint64_t word;
};

static struct found find_name(struct shard_ref ref, uint64_t hash, enum name_space space, struct slice name)
{
    uint64_t tag = hash_tag(hash);
    uint32_t at = hash_home(hash, ref.bucket_count);
    for (uint32_t left = ref.bucket_count; left > 0; left--, at = next_bucket(ref, at)) {
        struct bucket *bucket = &ref.shard->buckets[at];
        uint64_t tags = atomic_load_explicit(&bucket->tags, memory_order_acquire);
        for (uint64_t equal = tags_equal(tags, tag); equal > 0; equal &= equal - 1) {
            unsigned i = first_place(equal);
            uint64_t word = atomic_load_explicit(&bucket->words[i], memory_order_acquire);
            struct name_place place = word_place(word);
            if (name_space(place.number) == space && slice_eq(name_text(place.app, place.number), name))
                return (struct found){bucket, i, word};
        }
        if (!is_passed(tags))
            break;
    }
    return (struct found){NULL, 0, 0};
}

bool name_index_find(const struct name_index *index, enum name_space space, struct slice name,
                     struct name_place *ret_place)
{
    uint64_t hash = name_hash(&index->seed, space, name);
    struct found found = find_name(load_shard(index, hash_shard(hash)), hash, space, name);
    if (!found.bucket)
        return false;
    *ret_place = word_place(found.word);
    return true;
}

/* ---- the writer ---- */

static uint64_t writers_tags(const struct bucket *bucket)
{
    return atomic_load_explicit(&bucket->tags, memory_order_relaxed);
}

/* For readers, what was written before is there once they see the tags. */
static void set_tags(struct bucket *bucket, uint64_t tags)
{
    atomic_store_explicit(&bucket->tags, tags, memory_order_release);
}

static uint64_t tags_passed_by(uint64_t tags)
{
    return tags >> PASSED_SHIFT < PASSED_MAX ? tags + PASSED_ONE : tags;
}

/* One that had passed by is gone: a count at its most tells no more how many there are. */
static uint64_t tags_passed_less(uint64_t tags)
{
    return tags >> PASSED_SHIFT < PASSED_MAX ? tags - PASSED_ONE : tags;
}

/* A new name: there is room. */
static void add_word(struct shard_ref ref, uint64_t hash, uint64_t word)
{
    uint32_t at = hash_home(hash, ref.bucket_count);
    uint64_t is_free;
    for (;; at = next_bucket(ref, at)) {
        uint64_t tags = writers_tags(&ref.shard->buckets[at]);
        is_free = tags_equal(tags, 0);
        if (is_free > 0)
            break;
        set_tags(&ref.shard->buckets[at], tags_passed_by(tags));
    }
    struct bucket *bucket = &ref.shard->buckets[at];
    unsigned place = first_place(is_free);
    atomic_store_explicit(&bucket->words[place], word, memory_order_release);
    set_tags(bucket, writers_tags(bucket) | tag_at(place, hash_tag(hash)));
    ref.shard->live++;
}

/* Names lie all over the memory: fetched some ahead of their use, they are not waited for one by one. */
static void prefetch_names(const struct bucket *bucket)
{
    for (unsigned i = 0; i < BUCKET_PLACES; i++) {
        const char *record = word_address(atomic_load_explicit(&bucket->words[i], memory_order_relaxed));
        for (size_t line = 0; record && line < PREFETCH_LINES; line++)
            __builtin_prefetch(record + line * BUCKET_BYTES);
    }
}

static void copy_bucket(const struct name_index *index, const struct bucket *bucket, struct shard_ref to)
{
    uint64_t tags = writers_tags(bucket);
    for (unsigned i = 0; i < BUCKET_PLACES; i++) {
        if ((tags & tag_at(i, PASSED_MAX)) == 0)
            continue;
        uint64_t word = atomic_load_explicit(&bucket->words[i], memory_order_relaxed);
        struct name_place place = word_place(word);
        struct slice name = name_text(place.app, place.number);
        add_word(to, name_hash(&index->seed, name_space(place.number), name), word);
    }
}

static void copy_names(const struct name_index *index, struct shard_ref from, struct shard_ref to)
{
    for (uint32_t i = 0; i < from.bucket_count; i++) {
        if (i + 1 < from.bucket_count)
            prefetch_names(&from.shard->buckets[i + 1]);
        copy_bucket(index, &from.shard->buckets[i], to);
    }
}

/* Names that fit into an array before it is full. */
static uint32_t room_of(uint32_t bucket_count)
{
    return (uint32_t)((uint64_t)bucket_count * BUCKET_PLACES * FULL_PERCENT / 100);
}

/* Without a word, for this many names and some more: as many buckets as a block of memory has room for. */
static struct shard_ref shard_new(uint32_t names)
{
    size_t buckets = ((uint64_t)names * GROW_PERCENT / FULL_PERCENT) / BUCKET_PLACES + 1;
    size_t bytes = slab_block_size(sizeof(struct name_shard) + buckets * sizeof(struct bucket));
    buckets = (bytes - sizeof(struct name_shard)) / sizeof(struct bucket);
    if (buckets > UINT16_MAX) /* some 300 million names */
        abort();
    struct shard_ref ref = {block_alloc(bytes), (uint32_t)buckets};
    memset(ref.shard, 0, bytes);
    return ref;
}

/* The array with room for one more; readers find a new one when it is complete. */
static struct shard_ref shard_with_room(struct name_index *index, size_t number)
{
    struct shard_ref old = load_shard(index, number);
    uint32_t names = old.shard ? old.shard->live + 1 : 1;
    if (names <= room_of(old.bucket_count))
        return old;
    struct shard_ref ref = shard_new(names);
    if (old.shard)
        copy_names(index, old, ref);
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
    uint64_t word = word_make(app, number);
    struct found found = find_name(load_shard(index, hash_shard(hash)), hash, space, name);
    if (found.bucket)
        atomic_store_explicit(&found.bucket->words[found.place], word, memory_order_release);
    else
        add_word(shard_with_room(index, hash_shard(hash)), hash, word);
}

void name_index_remove(struct name_index *index, const struct route_app *app, unsigned number)
{
    enum name_space space = name_space(number);
    struct slice name = name_text(app, number);
    uint64_t hash = name_hash(&index->seed, space, name);
    struct shard_ref ref = load_shard(index, hash_shard(hash));
    struct found found = find_name(ref, hash, space, name);
    if (!found.bucket || word_address(found.word) != app)
        return;
    set_tags(found.bucket, writers_tags(found.bucket) & ~tag_at(found.place, PASSED_MAX));
    for (uint32_t at = hash_home(hash, ref.bucket_count); &ref.shard->buckets[at] != found.bucket;
         at = next_bucket(ref, at))
        set_tags(&ref.shard->buckets[at], tags_passed_less(writers_tags(&ref.shard->buckets[at])));
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
        block_free(shard);
    }
}

void name_index_fini(struct name_index *index)
{
    name_index_collect(index);
    for (size_t i = 0; i < NAME_INDEX_SHARDS; i++)
        block_free(load_shard(index, i).shard);
}
