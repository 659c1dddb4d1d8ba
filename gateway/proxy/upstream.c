#include "gateway/proxy/upstream.h"

#include "gateway/proxy/checks.h"
#include "gateway/proxy/health.h"
#include "gateway/proxy/pool.h"

static bool was_tried(const struct upstream_tried *tried, uint64_t serial)
{
    for (unsigned i = 0; i < tried->count; i++)
        if (tried->serials[i] == serial)
            return true;
    return false;
}

/* One search among an app's instances. */
struct search {
    struct proxy *proxy;
    const struct route_app *app;
    const struct upstream_tried *tried;
    uint16_t port;
    bool is_checked;    /* the port has an active check */
    bool spare_ejected; /* they are not chosen, nor those whose check says that they are down */
};

static bool takes_requests(const struct route_instance *instance)
{
    return instance->state == ROUTE_STATE_RUNNING && instance->weight > 0 && instance->claim &&
           !claim_is_revoked(instance->claim);
}

static struct health_verdict verdict_of(const struct search *search, const struct route_instance *instance)
{
    struct health_verdict verdict = {0};
    if (health_count(search->proxy->health) > 0)
        verdict = health_look(search->proxy->health, instance->claim->serial, search->port);
    if (search->is_checked)
        verdict.is_ejected |= checks_is_down(search->proxy->checks, instance->claim->serial, search->port);
    return verdict;
}

static bool is_eligible(const struct search *search, const struct route_instance *instance)
{
    return takes_requests(instance) && !was_tried(search->tried, instance->claim->serial) &&
           !(search->spare_ejected && verdict_of(search, instance).is_ejected);
}

enum status upstream_why_none(const struct route_instance *instances, size_t count)
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
static const struct route_instance *at_weight(const struct search *search, uint64_t point)
{
    for (unsigned i = 0; i < search->app->instance_count; i++) {
        const struct route_instance *instance = &search->app->instances[i];
        if (!is_eligible(search, instance))
            continue;
        if (point < instance->weight)
            return instance;
        point -= instance->weight;
    }
    return NULL;
}

/*
 * An instance that fails at once always looks idle: the one with fewer failures wins, whatever the load. Of two idle
 * ones the first wins: it was drawn by weight, which must not count twice.
 */
static const struct route_instance *better(const struct search *search, const struct route_instance *a,
                                           const struct route_instance *b)
{
    uint32_t failures_a = verdict_of(search, a).failures, failures_b = verdict_of(search, b).failures;
    if (failures_a != failures_b)
        return failures_a < failures_b ? a : b;
    uint64_t load_a = (uint64_t)pool_active(search->proxy->pool, a->claim) * b->weight;
    uint64_t load_b = (uint64_t)pool_active(search->proxy->pool, b->claim) * a->weight;
    return load_b < load_a ? b : a;
}

static const struct route_instance *pick_of_two(const struct search *search, uint64_t total)
{
    const struct route_instance *a = at_weight(search, proxy_random(search->proxy) % total);
    const struct route_instance *b = at_weight(search, proxy_random(search->proxy) % total);
    if (!a || !b || a == b) /* a claim can be revoked while we look */
        return a ? a : b;
    return better(search, a, b);
}

static const struct route_instance *pick_among(const struct search *search)
{
    uint64_t total = 0;
    const struct route_instance *only = NULL;
    unsigned eligible = 0;
    for (unsigned i = 0; i < search->app->instance_count; i++)
        if (is_eligible(search, &search->app->instances[i])) {
            only = &search->app->instances[i];
            total += only->weight;
            eligible++;
        }
    return eligible > 1 ? pick_of_two(search, total) : only;
}

/* When too many are out, the fault may well be on our side: then a try is better than none. */
static bool is_panic(const struct search *search)
{
    unsigned ejected = 0, all = 0;
    for (unsigned i = 0; i < search->app->instance_count; i++)
        if (takes_requests(&search->app->instances[i])) {
            ejected += verdict_of(search, &search->app->instances[i]).is_ejected;
            all++;
        }
    return ejected * 100ULL > all * (uint64_t)search->proxy->settings->ejection.panic_percent;
}

const struct route_instance *upstream_pick(struct proxy *proxy, const struct route_target *target,
                                           const struct upstream_tried *tried, enum status *ret_status)
{
    struct search search = {.proxy = proxy, .app = target->app, .tried = tried, .port = target->port};
    if (target->app->check_count > 0)
        search.is_checked = checks_watch(proxy->checks, target->app, target->port);
    if (target->instance) {
        if (is_eligible(&search, target->instance))
            return target->instance;
        *ret_status = upstream_why_none(target->instance, 1);
        return NULL;
    }
    const struct route_instance *picked = NULL;
    if ((search.is_checked || health_count(proxy->health) > 0) && !is_panic(&search)) {
        search.spare_ejected = true;
        picked = pick_among(&search);
        search.spare_ejected = false;
    }
    if (!picked)
        picked = pick_among(&search);
    if (!picked)
        *ret_status = upstream_why_none(target->app->instances, target->app->instance_count);
    return picked;
}

static bool is_instance_failure(enum status status)
{
    return (status >= STATUS_CONNECT_REFUSED && status <= STATUS_CONNECT_TIMEOUT) || status == STATUS_UPSTREAM_RESET ||
           status == STATUS_UPSTREAM_CLOSED || status == STATUS_UPSTREAM_TIMEOUT;
}

void upstream_failed(struct proxy *proxy, const struct claim *claim, struct slice id, uint16_t port, enum status why)
{
    if (is_instance_failure(why))
        health_failed(proxy->health, &proxy->settings->ejection, claim, id, port, why, proxy_random(proxy));
}

void upstream_answered(struct proxy *proxy, const struct claim *claim, struct slice id, uint16_t port, int http_status,
                       uint64_t asked_us)
{
    const struct ejection_settings *settings = &proxy->settings->ejection;
    if (http_status >= 500 && settings->server_errors)
        health_failed(proxy->health, settings, claim, id, port, STATUS_UPSTREAM_BAD_RESPONSE, proxy_random(proxy));
    else if (health_count(proxy->health) > 0)
        health_succeeded(proxy->health, claim->serial, port, asked_us);
}
