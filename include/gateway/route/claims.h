/*
 * claims: which instance owns which address inside the gateway. One live owner per address (DESIGN section 4).
 *
 * A claim is made when a record with a live instance (running or draining, with an address) is published, and revoked
 * when the instance goes away, stops, changes its address or generation, or is superseded by a newer generation. A
 * revoked claim never comes back: a new one has a new serial. Workers keep a reference per pool of connections and look
 * at `revoked` before they use a connection and before they pass on a response head.
 *
 * The index is owned by the control thread; `revoked` and the reference count are shared.
 */
#ifndef GATEWAY_ROUTE_CLAIMS_H
#define GATEWAY_ROUTE_CLAIMS_H

#include "gateway/route/route_record.h"

#include <stdatomic.h>

struct claim {
    uint64_t serial; /* unique in this process; stands for (instance, generation, address) */
    uint64_t generation;
    struct ip_addr address;
    _Atomic bool revoked;
    _Atomic uint32_t refs;
};

/* With one reference. Of no index yet: claims_stage_take makes those. */
struct claim *claim_new(uint64_t serial, uint64_t generation, const struct ip_addr *address);
struct claim *claim_ref(struct claim *claim);
void claim_unref(struct claim **claim);

static inline bool claim_is_revoked(const struct claim *claim)
{
    return atomic_load_explicit(&claim->revoked, memory_order_acquire);
}

struct claims; /* the index: address -> instance that owns it, by its claim */

struct claims *claims_new(void);
void claims_free(struct claims **claims);

/* The live owner of an address, or NULL: as published, and as it will be when what is staged is published. */
const struct route_instance *claims_owner(const struct claims *claims, const struct ip_addr *address);
const struct route_instance *claims_staged_owner(const struct claims *claims, const struct ip_addr *address);

/*
 * Records are borrowed: one whose instance has been staged as owner, or is published as one, stays until a batch that
 * takes the address away from it has been published, or the batch that gave it was forgotten.
 */

/* Stages the end of an instance's ownership. Nothing if it is not the staged owner of its address. */
void claims_stage_release(struct claims *claims, const struct route_instance *instance);

/*
 * Stages an instance's ownership of its address, which is free, and gives it its claim. If the published owner is the
 * same instance of the same app in the same generation, that claim goes on: its connections live.
 */
void claims_stage_take(struct claims *claims, struct route_app *app, size_t instance);

/* Makes what is staged the published state: the claims that ended are revoked when this returns. */
void claims_publish(struct claims *claims);

/* Calls `each` (may be NULL) for the claims that claims_publish revoked, once, and drops the index's references. */
typedef void (*claims_each_cb)(void *arg, struct claim *claim);
void claims_report_revoked(struct claims *claims, claims_each_cb each, void *arg);

/* Forgets what is staged. */
void claims_abort(struct claims *claims);

#endif
