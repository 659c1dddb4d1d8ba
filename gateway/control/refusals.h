/*
 * refusals: ids of apps with the revision at which they were refused. Private to sync.
 *
 * As those of a route table, its digest is the XOR over all members of changes_digest_of.
 */
#ifndef GATEWAY_CONTROL_REFUSALS_H
#define GATEWAY_CONTROL_REFUSALS_H

#include "gateway/base/slice.h"

/* An empty one is zeroed. */
struct refusals {
    void *root; /* of a balanced tree */
    size_t count;
    uint64_t digest;
};

bool refusals_has(const struct refusals *refusals, struct slice app_id, uint64_t revision);
void refusals_put(struct refusals *refusals, struct slice app_id, uint64_t revision); /* replaces an older one */
void refusals_remove(struct refusals *refusals, struct slice app_id);
void refusals_clear(struct refusals *refusals);

#endif
