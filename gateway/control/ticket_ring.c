#include "gateway/control/ticket_ring.h"

#include <string.h>

static const struct ticket_ring_slot *slot_of(const struct ticket_ring *ring, uint64_t period)
{
    const struct ticket_ring_slot *slot = &ring->slots[period % TICKET_RING_SLOTS];
    return slot->period == period ? slot : NULL;
}

void ticket_ring_add(struct ticket_ring *ring, uint64_t now, uint64_t period, const struct tls_ticket_key *key)
{
    struct ticket_ring_slot *slot = &ring->slots[period % TICKET_RING_SLOTS];
    uint64_t last = now + TICKET_RING_MAX_AHEAD;
    bool is_newer = slot->period > period && slot->period <= last; /* else it is of before the clock was set back */
    if (period == 0 || period > last || is_newer || (slot->period == period && slot->readable))
        return;
    slot->period = period;
    slot->readable = key != NULL;
    if (key)
        slot->key = *key;
}

uint64_t ticket_ring_missing(const struct ticket_ring *ring, uint64_t now)
{
    for (uint64_t period = now; period <= now + TICKET_RING_AHEAD; period++)
        if (!slot_of(ring, period))
            return period;
    return 0;
}

static void append(const struct ticket_ring *ring, uint64_t period, struct tls_ticket_keys *keys)
{
    const struct ticket_ring_slot *slot = slot_of(ring, period);
    if (slot && slot->readable)
        keys->keys[keys->count++] = slot->key;
}

bool ticket_ring_keys(const struct ticket_ring *ring, uint64_t now, struct tls_ticket_keys *ret_keys)
{
    struct tls_ticket_keys keys = {.count = 0};
    for (uint64_t back = 0; back <= TICKET_RING_BEHIND && back < now; back++)
        append(ring, now - back, &keys);
    bool has_any = keys.count > 0;
    for (uint64_t ahead = 1; ahead <= TICKET_RING_AHEAD; ahead++)
        append(ring, now + ahead, &keys);
    if (has_any)
        *ret_keys = keys;
    explicit_bzero(&keys, sizeof keys);
    return has_any;
}
