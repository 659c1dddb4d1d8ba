/*
 * ticket_ring: which session ticket keys the gateways of a fleet use when. Pure.
 *
 * Time is cut into periods; each has one key, made by whoever comes first. The key of the present period seals; those
 * of the next (a member's clock may be ahead) and of the two before open. So every member opens what any of them has
 * sealed, for two to three periods.
 */
#ifndef GATEWAY_CONTROL_TICKET_RING_H
#define GATEWAY_CONTROL_TICKET_RING_H

#include "gateway/net/tls.h"

enum {
    TICKET_RING_PERIOD_S = 3600,
    TICKET_RING_AHEAD = 1,
    TICKET_RING_BEHIND = 2,
    TICKET_RING_USED = TICKET_RING_AHEAD + 1 + TICKET_RING_BEHIND,
    TICKET_RING_SLOTS = 8, /* for all from those in use to MAX_AHEAD */
    TICKET_RING_MAX_AHEAD = TICKET_RING_SLOTS - 1 - TICKET_RING_BEHIND,
};
_Static_assert((int)TICKET_RING_USED == (int)TLS_TICKET_KEYS, "all that are in use fit");

struct ticket_ring_slot {
    uint64_t period; /* 0: free */
    bool readable;   /* false: somebody has made it, but we can't open it */
    struct tls_ticket_key key;
};

struct ticket_ring {
    struct ticket_ring_slot slots[TICKET_RING_SLOTS]; /* by period modulo their number */
};

/*
 * key NULL: it is there, but can't be read. Ignored: what is older than the period in its slot, and what is so far
 * ahead of `now`, by some clock that is wrong, that it would take the place of what is needed sooner.
 */
void ticket_ring_add(struct ticket_ring *ring, uint64_t now, uint64_t period, const struct tls_ticket_key *key);

/* The period, `now` or the next, whose key nobody has made yet; 0: there is none. */
uint64_t ticket_ring_missing(const struct ticket_ring *ring, uint64_t now);

/* The keys to use now, that which seals first: of this period, or else of the last before it. False: there is none. */
bool ticket_ring_keys(const struct ticket_ring *ring, uint64_t now, struct tls_ticket_keys *ret_keys);

#endif
