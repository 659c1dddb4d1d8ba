/*
 * upstream: which instance of an app gets a request.
 *
 * Of the running instances with a weight, two are drawn by weight and the one with fewer requests in progress (of this
 * worker, relative to its weight) wins, unless one has failed lately. A port of an instance that fails again and again
 * is ejected for a growing pause (proxy/health).
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

/* Why none of the instances takes a request: the most hopeful state wins. */
enum status upstream_why_none(const struct route_instance *instances, size_t count);

/*
 * What became of a try on this claim, which is still referenced and the one of instance `id`: every failure is told,
 * and those that speak against the instance count; not to be told of a reused connection that was closed while it was
 * idle.
 */
void upstream_failed(struct proxy *proxy, const struct claim *claim, struct slice id, uint16_t port, enum status why);
/* http_status: 0 for what is not HTTP; asked_us: when the request was begun. */
void upstream_answered(struct proxy *proxy, const struct claim *claim, struct slice id, uint16_t port, int http_status,
                       uint64_t asked_us);

#endif
