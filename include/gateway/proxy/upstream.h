/*
 * upstream: which instance of an app gets a request.
 *
 * Of the running instances with a weight, two are drawn by weight and the one with fewer requests in progress (of this
 * worker, relative to its weight) wins.
 */
#ifndef GATEWAY_PROXY_UPSTREAM_H
#define GATEWAY_PROXY_UPSTREAM_H

#include "gateway/proxy/proxy.h"

enum { UPSTREAM_MAX_TRIED = 8 };

/* Instances that have failed this request, by claim serial. */
struct upstream_tried {
    unsigned count;
    uint64_t serials[UPSTREAM_MAX_TRIED];
};

/*
 * Picks inside a read section of the route table; the result is valid until it ends. NULL: ret_status says why
 * (APP_STARTING, APP_STOPPED, NO_INSTANCE).
 */
const struct route_instance *upstream_pick(struct proxy *proxy, const struct route_target *target,
                                           const struct upstream_tried *tried, enum status *ret_status);

#endif
