#include "gateway/proxy/app_traffic.h"

#include "gateway/base/name_hash.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { LATENCY_UNIT_US = 16, SUB_BITS = 3, SUB_BUCKETS = 1 << SUB_BITS, MAX_TRIES = 100 };

_Static_assert((APP_TRAFFIC_SETS & (APP_TRAFFIC_SETS - 1)) == 0, "a set is found by the low bits of a hash");

/* The tags of a set are one cache line: an entry that is not the app's is never touched. */
struct set {
    uint64_t tags[APP_TRAFFIC_WAYS]; /* hashes of ids; 0: free */
};

struct app_traffic {
    struct name_hash_seed seed;
    struct set sets[APP_TRAFFIC_SETS] __attribute__((aligned(64)));
    struct app_traffic_entry entries[APP_TRAFFIC_ENTRIES];
};

/* Mapped: a page is there when an app needs it. */
struct app_traffic *app_traffic_new(void)
{
    struct app_traffic *traffic =
        mmap(NULL, sizeof *traffic, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (traffic == MAP_FAILED)
        abort();
    traffic->seed = name_hash_seed_new();
    return traffic;
}

void app_traffic_free(struct app_traffic **traffic)
{
    if (*traffic)
        munmap(*traffic, sizeof **traffic);
    *traffic = NULL;
}

/* ---- entries ---- */

static uint64_t get(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void set(_Atomic uint64_t *value, uint64_t to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

/* Readers see the old app, or the new one, or that the version is odd or has changed. */
static void give(struct app_traffic_entry *entry, struct slice id)
{
    uint64_t words[APP_TRAFFIC_ID_WORDS] = {0};
    uint64_t version = get(&entry->version);
    memcpy(words, id.ptr, id.len < APP_TRAFFIC_ID_MAX ? id.len : APP_TRAFFIC_ID_MAX - 1);
    set(&entry->version, version + 1);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < APP_TRAFFIC_ID_WORDS; i++)
        set(&entry->id[i], words[i]);
#define X(name, kind) set(&entry->name, 0);
    APP_TRAFFIC_TABLE(X)
#undef X
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++)
        atomic_store_explicit(&entry->latency[i], 0, memory_order_relaxed);
    atomic_store_explicit(&entry->version, version + 2, memory_order_release);
}

static bool has_id(const struct app_traffic_entry *entry, struct slice id)
{
    char text[APP_TRAFFIC_ID_MAX];
    for (size_t i = 0; i < APP_TRAFFIC_ID_WORDS; i++) {
        uint64_t word = get(&entry->id[i]);
        memcpy(text + 8 * i, &word, 8);
    }
    return slice_eq(slice_make(text, strnlen(text, sizeof text)), id);
}

static bool is_idle(const struct app_traffic_entry *entry, uint64_t now_us)
{
    return get(&entry->in_progress) == 0 && now_us >= entry->used_us + APP_TRAFFIC_IDLE_MS * (uint64_t)1000;
}

/* The app's entry; else one that is free or whose app has been idle longest; else the one without a name. */
static struct app_traffic_entry *find(struct app_traffic *traffic, struct slice id, uint64_t now_us)
{
    uint64_t tag = name_hash(&traffic->seed, 0, id) | 1;
    size_t first = (tag >> 1 & (APP_TRAFFIC_SETS - 1)) * APP_TRAFFIC_WAYS;
    struct set *tags = &traffic->sets[first / APP_TRAFFIC_WAYS];
    size_t place = APP_TRAFFIC_WAYS;
    for (size_t i = 0; i < APP_TRAFFIC_WAYS; i++)
        if (tags->tags[i] == tag && has_id(&traffic->entries[first + i], id))
            return &traffic->entries[first + i];
    for (size_t i = 0; i < APP_TRAFFIC_WAYS; i++) {
        const struct app_traffic_entry *entry = &traffic->entries[first + i];
        if (tags->tags[i] == 0) {
            place = i;
            break;
        }
        if (is_idle(entry, now_us) &&
            (place == APP_TRAFFIC_WAYS || entry->used_us < traffic->entries[first + place].used_us))
            place = i;
    }
    if (place == APP_TRAFFIC_WAYS)
        return &traffic->entries[APP_TRAFFIC_ENTRIES - 1];
    tags->tags[place] = tag;
    give(&traffic->entries[first + place], id);
    return &traffic->entries[first + place];
}

struct app_traffic_entry *app_traffic_enter(struct app_traffic *traffic, struct slice app_id, uint64_t now_us)
{
    struct app_traffic_entry *entry = find(traffic, app_id, now_us);
    entry->used_us = now_us;
    COUNTER_INC(entry, in_progress);
    COUNTER_INC(entry, requests);
    return entry;
}

void app_traffic_leave(struct app_traffic_entry **entry_ptr, int http_status, bool gateway_error, uint64_t now_us)
{
    struct app_traffic_entry *entry = *entry_ptr;
    *entry_ptr = NULL;
    if (!entry)
        return;
    entry->used_us = now_us;
    COUNTER_DEC(entry, in_progress);
    if (http_status / 100 == 4)
        COUNTER_INC(entry, responses_4xx);
    if (http_status / 100 == 5)
        COUNTER_INC(entry, responses_5xx);
    if (gateway_error)
        COUNTER_INC(entry, gateway_errors);
}

/* ---- latencies ---- */

/* Up to SUB_BUCKETS units one bucket a unit, then SUB_BUCKETS for each doubling. */
static size_t bucket_of(uint64_t latency_us)
{
    uint64_t units = latency_us / LATENCY_UNIT_US;
    if (units < SUB_BUCKETS)
        return units;
    unsigned shift = 63U - (unsigned)__builtin_clzll(units) - SUB_BITS;
    size_t bucket = (shift + 1) * (size_t)SUB_BUCKETS + (units >> shift & (SUB_BUCKETS - 1));
    return bucket < APP_TRAFFIC_BUCKETS ? bucket : APP_TRAFFIC_BUCKETS - 1;
}

/* The middle of a bucket. */
static uint64_t latency_of(size_t bucket)
{
    if (bucket < SUB_BUCKETS)
        return bucket * LATENCY_UNIT_US + LATENCY_UNIT_US / 2;
    unsigned shift = (unsigned)(bucket / SUB_BUCKETS) - 1;
    uint64_t units = (SUB_BUCKETS + (uint64_t)(bucket % SUB_BUCKETS)) << shift;
    return units * LATENCY_UNIT_US + ((uint64_t)LATENCY_UNIT_US << shift) / 2;
}

void app_traffic_answered(struct app_traffic_entry *entry, uint64_t latency_us)
{
    _Atomic uint32_t *bucket = &entry->latency[bucket_of(latency_us)];
    atomic_store_explicit(bucket, atomic_load_explicit(bucket, memory_order_relaxed) + 1, memory_order_relaxed);
}

uint64_t app_traffic_latency_us(const uint32_t latency[APP_TRAFFIC_BUCKETS], unsigned permille)
{
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++)
        total += latency[i];
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++) {
        seen += latency[i];
        if (seen > 0 && seen * 1000 >= total * permille)
            return latency_of(i);
    }
    return 0;
}

/* ---- reading ---- */

static bool copy_once(const struct app_traffic_entry *entry, struct app_traffic_copy *copy)
{
    copy->version = atomic_load_explicit(&entry->version, memory_order_acquire);
    if (copy->version % 2 != 0)
        return false;
    for (size_t i = 0; i < APP_TRAFFIC_ID_WORDS; i++) {
        uint64_t word = get(&entry->id[i]);
        memcpy(copy->id + 8 * i, &word, 8);
    }
#define X(name, kind) copy->name = get(&entry->name);
    APP_TRAFFIC_TABLE(X)
#undef X
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++)
        copy->latency[i] = atomic_load_explicit(&entry->latency[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return get(&entry->version) == copy->version;
}

bool app_traffic_read(const struct app_traffic *traffic, size_t index, struct app_traffic_copy *ret_copy)
{
    const struct app_traffic_entry *entry = &traffic->entries[index];
    assert(index < APP_TRAFFIC_ENTRIES);
    bool has_name = index < APP_TRAFFIC_ENTRIES - 1;
    if (has_name ? get(&entry->version) == 0 : get(&entry->requests) == 0)
        return false;
    for (int i = 0; i < MAX_TRIES; i++)
        if (copy_once(entry, ret_copy))
            return true;
    return false;
}
