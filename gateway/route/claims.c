#include "gateway/route/claims.h"

#include "name_index.h"
#include "route_alloc.h"

#include <assert.h>

enum { FIRST_SLOTS = 16, FIRST_LIST = 8 };

/* The owner that staging has found for an address, or that it has none (app: NULL). */
struct staged_owner {
    const struct ip_addr *address; /* in a record; NULL: an empty slot */
    struct route_app *app;
    size_t instance;
};

/* Open addressing with linear probing; nothing is removed but all at once. */
struct staged_owners {
    struct staged_owner *slots;
    size_t slot_count; /* a power of two, or 0 */
    size_t used;
};

struct claim_list {
    struct claim **items; /* each holds a reference */
    size_t count;
    size_t capacity;
};

struct claims {
    struct name_index published; /* addresses, read by this thread only */
    struct staged_owners staged; /* of each address that staging has touched */
    struct claim_list revoked;   /* not yet reported */
    uint64_t next_serial;
};

/* ---- claims ---- */

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
        block_free(dropped);
}

struct claim *claim_new(uint64_t serial, uint64_t generation, const struct ip_addr *address)
{
    struct claim *claim = block_alloc(sizeof *claim);
    *claim = (struct claim){.serial = serial, .generation = generation, .address = *address};
    atomic_init(&claim->revoked, false);
    atomic_init(&claim->refs, 1);
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

/* ---- what is staged ---- */

/* The address's slot, or the empty one where it belongs; NULL if there are no slots. */
static struct staged_owner *find_staged(const struct claims *claims, const struct ip_addr *address)
{
    const struct staged_owners *staged = &claims->staged;
    if (staged->slot_count == 0)
        return NULL;
    size_t mask = staged->slot_count - 1;
    size_t i = name_hash(&claims->published.seed, NAME_ADDRESS, name_of_address(address)) & mask;
    while (staged->slots[i].address && !ip_equal(staged->slots[i].address, address))
        i = (i + 1) & mask;
    return &staged->slots[i];
}

static void grow(struct claims *claims)
{
    struct staged_owners old = claims->staged;
    claims->staged.slot_count = old.slot_count > 0 ? old.slot_count * 2 : FIRST_SLOTS;
    claims->staged.slots = route_alloc(claims->staged.slot_count, sizeof *old.slots);
    for (size_t i = 0; i < old.slot_count; i++)
        if (old.slots[i].address)
            *find_staged(claims, old.slots[i].address) = old.slots[i];
    free(old.slots);
}

static void stage_owner(struct claims *claims, const struct ip_addr *address, struct route_app *app, size_t instance)
{
    struct staged_owners *staged = &claims->staged;
    if ((staged->used + 1) * 4 > staged->slot_count * 3)
        grow(claims);
    struct staged_owner *slot = find_staged(claims, address);
    if (!slot->address) {
        slot->address = address;
        staged->used++;
    }
    slot->app = app;
    slot->instance = instance;
}

static void forget_staged(struct claims *claims)
{
    free(claims->staged.slots);
    claims->staged = (struct staged_owners){0};
}

static const struct route_instance *staged_instance(const struct staged_owner *slot)
{
    return slot->app ? &slot->app->instances[slot->instance] : NULL;
}

/* ---- calls ---- */

struct claims *claims_new(void)
{
    struct claims *claims = route_alloc(1, sizeof *claims);
    name_index_init(&claims->published);
    claims->next_serial = 1;
    return claims;
}

void claims_free(struct claims **claims)
{
    struct claims *dropped = *claims;
    if (!dropped)
        return;
    *claims = NULL;
    forget_staged(dropped);
    list_clear(&dropped->revoked);
    name_index_fini(&dropped->published);
    free(dropped);
}

/* False if nobody owns the address. */
static bool find_published(const struct claims *claims, const struct ip_addr *address, struct name_place *ret_owner)
{
    return name_index_find(&claims->published, NAME_ADDRESS, name_of_address(address), ret_owner);
}

static const struct route_instance *instance_at(const struct name_place *owner)
{
    return &owner->app->instances[owner->number - NAME_OF_ADDRESSES];
}

const struct route_instance *claims_owner(const struct claims *claims, const struct ip_addr *address)
{
    struct name_place owner;
    return find_published(claims, address, &owner) ? instance_at(&owner) : NULL;
}

const struct route_instance *claims_staged_owner(const struct claims *claims, const struct ip_addr *address)
{
    const struct staged_owner *slot = find_staged(claims, address);
    return slot && slot->address ? staged_instance(slot) : claims_owner(claims, address);
}

void claims_stage_release(struct claims *claims, const struct route_instance *instance)
{
    if (claims_staged_owner(claims, &instance->address) == instance)
        stage_owner(claims, &instance->address, NULL, 0);
}

/* The claim goes on: not of another app, whose clients must not go on with what they have open to the instance. */
static bool is_same_owner(const struct name_place *before, const struct route_app *app,
                          const struct route_instance *instance)
{
    const struct route_instance *old = instance_at(before);
    return old->generation == instance->generation && strcmp(old->id, instance->id) == 0 &&
           strcmp(before->app->id, app->id) == 0;
}

void claims_stage_take(struct claims *claims, struct route_app *app, size_t index)
{
    struct route_instance *instance = &app->instances[index];
    struct name_place before;
    assert(!claims_staged_owner(claims, &instance->address));
    if (find_published(claims, &instance->address, &before) && is_same_owner(&before, app, instance))
        instance->claim = claim_ref(instance_at(&before)->claim);
    else
        instance->claim = claim_new(claims->next_serial++, instance->generation, &instance->address);
    stage_owner(claims, &instance->address, app, index);
}

static void publish_owner(struct claims *claims, const struct staged_owner *slot)
{
    struct name_place place;
    const struct route_instance *before = NULL;
    const struct route_instance *after = staged_instance(slot);
    if (find_published(claims, slot->address, &place))
        before = instance_at(&place);
    if (before && (!after || after->claim != before->claim)) {
        atomic_store_explicit(&before->claim->revoked, true, memory_order_release);
        list_add(&claims->revoked, claim_ref(before->claim));
    }
    if (after)
        name_index_put(&claims->published, slot->app, (unsigned)(NAME_OF_ADDRESSES + slot->instance));
    else if (before)
        name_index_remove(&claims->published, place.app, place.number);
}

void claims_publish(struct claims *claims)
{
    for (size_t i = 0; i < claims->staged.slot_count; i++)
        if (claims->staged.slots[i].address)
            publish_owner(claims, &claims->staged.slots[i]);
    name_index_collect(&claims->published);
    forget_staged(claims);
}

void claims_report_revoked(struct claims *claims, claims_each_cb each, void *arg)
{
    struct claim_list revoked = claims->revoked;
    claims->revoked = (struct claim_list){0};
    for (size_t i = 0; each && i < revoked.count; i++)
        each(arg, revoked.items[i]);
    list_clear(&revoked);
}

void claims_abort(struct claims *claims)
{
    forget_staged(claims);
}
