#include "gateway/route/claims.h"

#include "route_alloc.h"

#include "gateway/base/name_hash.h"

#include <assert.h>

enum { FIRST_SLOTS = 16, FIRST_LIST = 8 };

/* An address with its owner now and its owner when what is staged is published; one of them is not NULL. */
struct owner_slot {
    struct claim *published;
    struct claim *staged;
};

struct claim_list {
    struct claim **items;
    size_t count;
    size_t capacity;
};

/* Open addressing, linear probing, deletion by shifting back. Each pointer in it and in the lists holds a reference. */
struct claims {
    struct name_hash_seed seed;
    struct owner_slot *slots;
    size_t slot_count; /* a power of two */
    size_t used;
    uint64_t next_serial;
    struct claim_list touched; /* any claim of each address that staging has touched; an address may be there twice */
    struct claim_list revoked; /* not yet reported */
};

struct claim *claim_ref(struct claim *claim)
{
    atomic_fetch_add_explicit(&claim->refs, 1, memory_order_relaxed);
    return claim;
}

void claim_unref(struct claim **claim)
{
    struct claim *dropped = *claim;
    if (!dropped)
        return;
    *claim = NULL;
    if (atomic_fetch_sub_explicit(&dropped->refs, 1, memory_order_acq_rel) == 1)
        free(dropped);
}

static struct claim *claim_new(uint64_t serial, const char *instance_id, uint64_t generation,
                               const struct ip_addr *address)
{
    size_t id_size = strlen(instance_id) + 1;
    struct claim *claim = route_alloc(1, sizeof *claim + id_size);
    claim->serial = serial;
    claim->generation = generation;
    claim->address = *address;
    atomic_init(&claim->revoked, false);
    atomic_init(&claim->refs, 1);
    memcpy(claim->instance_id, instance_id, id_size);
    return claim;
}

/* Takes the caller's reference. */
static void list_add(struct claim_list *list, struct claim *claim)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity > 0 ? list->capacity * 2 : FIRST_LIST;
        list->items = reallocarray(list->items, list->capacity, sizeof(struct claim *));
        if (!list->items)
            abort();
    }
    list->items[list->count++] = claim;
}

static void list_clear(struct claim_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        claim_unref(&list->items[i]);
    free(list->items);
    *list = (struct claim_list){0};
}

struct claims *claims_new(void)
{
    struct claims *claims = route_alloc(1, sizeof *claims);
    claims->seed = name_hash_seed_new();
    claims->slot_count = FIRST_SLOTS;
    claims->slots = route_alloc(claims->slot_count, sizeof *claims->slots);
    claims->next_serial = 1;
    return claims;
}

void claims_free(struct claims **claims)
{
    struct claims *dropped = *claims;
    if (!dropped)
        return;
    *claims = NULL;
    list_clear(&dropped->touched);
    list_clear(&dropped->revoked);
    for (size_t i = 0; i < dropped->slot_count; i++) {
        claim_unref(&dropped->slots[i].published);
        claim_unref(&dropped->slots[i].staged);
    }
    free(dropped->slots);
    free(dropped);
}

static const struct ip_addr *slot_address(const struct owner_slot *slot)
{
    if (slot->published)
        return &slot->published->address;
    return slot->staged ? &slot->staged->address : NULL;
}

static size_t home_index(const struct claims *claims, const struct ip_addr *address)
{
    uint64_t hash = name_hash(&claims->seed, address->family, slice_make(address->bytes, sizeof address->bytes));
    return hash & (claims->slot_count - 1);
}

/* The address's slot, or the empty one where it belongs. */
static struct owner_slot *find(const struct claims *claims, const struct ip_addr *address)
{
    for (size_t i = home_index(claims, address);; i = (i + 1) & (claims->slot_count - 1)) {
        const struct ip_addr *there = slot_address(&claims->slots[i]);
        if (!there || ip_equal(there, address))
            return &claims->slots[i];
    }
}

static void grow(struct claims *claims)
{
    struct owner_slot *old = claims->slots;
    size_t old_count = claims->slot_count;
    claims->slot_count *= 2;
    claims->slots = route_alloc(claims->slot_count, sizeof *claims->slots);
    for (size_t i = 0; i < old_count; i++)
        if (slot_address(&old[i]))
            *find(claims, slot_address(&old[i])) = old[i];
    free(old);
}

/* Empties a slot and moves those behind it that would no longer be found. */
static void remove_slot(struct claims *claims, struct owner_slot *slot)
{
    size_t mask = claims->slot_count - 1;
    size_t hole = (size_t)(slot - claims->slots);
    for (size_t i = (hole + 1) & mask; slot_address(&claims->slots[i]); i = (i + 1) & mask) {
        size_t home = home_index(claims, slot_address(&claims->slots[i]));
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        claims->slots[hole] = claims->slots[i];
        hole = i;
    }
    claims->slots[hole] = (struct owner_slot){0};
    claims->used--;
}

struct claim *claims_owner(const struct claims *claims, const struct ip_addr *address)
{
    return find(claims, address)->published;
}

struct claim *claims_staged_owner(const struct claims *claims, const struct ip_addr *address)
{
    return find(claims, address)->staged;
}

void claims_stage_release(struct claims *claims, const struct claim *claim)
{
    struct owner_slot *slot = find(claims, &claim->address);
    if (slot->staged != claim)
        return;
    struct claim *released = slot->staged;
    slot->staged = NULL;
    if (!slot->published)
        remove_slot(claims, slot);
    list_add(&claims->touched, released);
}

static bool is_same(const struct claim *claim, const char *instance_id, uint64_t generation)
{
    return claim && claim->generation == generation && strcmp(claim->instance_id, instance_id) == 0;
}

struct claim *claims_stage_take(struct claims *claims, const char *instance_id, uint64_t generation,
                                const struct ip_addr *address)
{
    if ((claims->used + 1) * 4 > claims->slot_count * 3)
        grow(claims);
    struct owner_slot *slot = find(claims, address);
    assert(!slot->staged);
    if (!slot->published)
        claims->used++;
    if (is_same(slot->published, instance_id, generation))
        slot->staged = claim_ref(slot->published);
    else
        slot->staged = claim_new(claims->next_serial++, instance_id, generation, address);
    list_add(&claims->touched, claim_ref(slot->staged));
    return claim_ref(slot->staged);
}

static void publish_slot(struct claims *claims, struct owner_slot *slot)
{
    if (slot->published == slot->staged)
        return;
    struct claim *ended = slot->published;
    slot->published = slot->staged ? claim_ref(slot->staged) : NULL;
    if (!slot->published)
        remove_slot(claims, slot);
    if (!ended)
        return;
    atomic_store_explicit(&ended->revoked, true, memory_order_release);
    list_add(&claims->revoked, ended);
}

void claims_publish(struct claims *claims)
{
    for (size_t i = 0; i < claims->touched.count; i++)
        publish_slot(claims, find(claims, &claims->touched.items[i]->address));
    list_clear(&claims->touched);
}

void claims_report_revoked(struct claims *claims, claims_each_cb each, void *arg)
{
    struct claim_list revoked = claims->revoked;
    claims->revoked = (struct claim_list){0};
    for (size_t i = 0; each && i < revoked.count; i++)
        each(arg, revoked.items[i]);
    list_clear(&revoked);
}

static void abort_slot(struct claims *claims, struct owner_slot *slot)
{
    if (slot->published == slot->staged)
        return;
    struct claim *forgotten = slot->staged;
    slot->staged = slot->published ? claim_ref(slot->published) : NULL;
    if (!slot->staged)
        remove_slot(claims, slot);
    claim_unref(&forgotten);
}

void claims_abort(struct claims *claims)
{
    for (size_t i = 0; i < claims->touched.count; i++)
        abort_slot(claims, find(claims, &claims->touched.items[i]->address));
    list_clear(&claims->touched);
}
