#include "gateway/proxy/upstream.h"

#include "gateway/proxy/pool.h"

static bool was_tried(const struct upstream_tried *tried, uint64_t serial)
{
    for (unsigned i = 0; i < tried->count; i++)
        if (tried->serials[i] == serial)
            return true;
    return false;
}

static bool is_eligible(const struct route_instance *instance, const struct upstream_tried *tried)
{
    return instance->state == ROUTE_STATE_RUNNING && instance->weight > 0 && instance->claim &&
           !claim_is_revoked(instance->claim) && !was_tried(tried, instance->claim->serial);
}

/* Why none of the instances can be used: the most hopeful state wins. */
static enum status why_none(const struct route_instance *instances, size_t count)
{
    bool starting = false, stopped = false, other = false;
    for (size_t i = 0; i < count; i++) {
        starting |= instances[i].state == ROUTE_STATE_STARTING;
        stopped |= instances[i].state == ROUTE_STATE_STOPPED;
        other |= instances[i].state == ROUTE_STATE_RUNNING || instances[i].state == ROUTE_STATE_DRAINING;
    }
    return starting ? STATUS_APP_STARTING : stopped && !other ? STATUS_APP_STOPPED : STATUS_NO_INSTANCE;
}

/* The eligible instance at this point of the sum of weights. */
static const struct route_instance *at_weight(const struct route_app *app, const struct upstream_tried *tried,
                                              uint64_t point)
{
    for (unsigned i = 0; i < app->instance_count; i++) {
        const struct route_instance *instance = &app->instances[i];
        if (!is_eligible(instance, tried))
            continue;
        if (point < instance->weight)
            return instance;
        point -= instance->weight;
    }
    return NULL;
}

static const struct route_instance *pick_of_two(struct proxy *proxy, const struct route_app *app,
                                                const struct upstream_tried *tried, uint64_t total)
{
    const struct route_instance *a = at_weight(app, tried, proxy_random(proxy) % total);
    const struct route_instance *b = at_weight(app, tried, proxy_random(proxy) % total);
    if (!a || !b || a == b) /* a claim can be revoked while we look */
        return a ? a : b;
    uint64_t load_a = (pool_active(proxy->pool, a->claim) + 1ULL) * b->weight;
    uint64_t load_b = (pool_active(proxy->pool, b->claim) + 1ULL) * a->weight;
    return load_b < load_a ? b : a;
}

const struct route_instance *upstream_pick(struct proxy *proxy, const struct route_target *target,
                                           const struct upstream_tried *tried, enum status *ret_status)
{
    const struct route_app *app = target->app;
    if (target->instance) {
        if (is_eligible(target->instance, tried))
            return target->instance;
        *ret_status = why_none(target->instance, 1);
        return NULL;
    }
    uint64_t total = 0;
    const struct route_instance *only = NULL;
    unsigned eligible = 0;
    for (unsigned i = 0; i < app->instance_count; i++)
        if (is_eligible(&app->instances[i], tried)) {
            only = &app->instances[i];
            total += only->weight;
            eligible++;
        }
    if (eligible > 1)
        only = pick_of_two(proxy, app, tried, total);
    if (!only)
        *ret_status = why_none(app->instances, app->instance_count);
    return only;
}
