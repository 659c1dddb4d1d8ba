#include "gateway/proxy/proxy.h"

#include "gateway/net/stream_flush.h"
#include "gateway/proxy/checks.h"
#include "gateway/proxy/domains.h"
#include "gateway/proxy/exchange.h"
#include "gateway/proxy/health.h"
#include "gateway/proxy/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    GRACE_MS = 1000, /* a drain waits so long for requests that idle connections bring, as h2_drain does */
    LAST_BYTES_MS = 2000,
    LAST_BYTES_TURN_MS = 20,
};

static void on_grace_over(struct timer *timer)
{
    connections_drain_idle(CONTAINER_OF(timer, struct proxy, grace));
}

struct proxy *proxy_new(struct loop *loop, struct settings *settings, struct route_table *table, struct tls_server *tls,
                        struct access_log_ring *log)
{
    struct proxy *proxy = calloc(1, sizeof *proxy);
    uint64_t seed[2];
    if (!proxy || getrandom(seed, sizeof seed, 0) != sizeof seed)
        abort();
    proxy->loop = loop;
    proxy->settings = settings;
    proxy->table = table;
    proxy->tls = tls;
    proxy->log = log;
    proxy->pool = pool_new(loop);
    proxy->health = health_new(loop);
    proxy->checks = checks_new(proxy);
    proxy->request_id_prefix = seed[0];
    proxy->random = seed[1] | 1;
    list_init(&proxy->connections_idle);
    list_init(&proxy->connections_active);
    timer_init(&proxy->grace, on_grace_over);
    return proxy;
}

void proxy_free(struct proxy **proxy_ptr)
{
    struct proxy *proxy = *proxy_ptr;
    if (!proxy)
        return;
    *proxy_ptr = NULL;
    assert(proxy->connection_count == 0);
    timer_forget(&proxy->grace);
    exchange_free_stock(proxy);
    pool_free(&proxy->pool);
    domains_free(&proxy->domains);
    checks_free(&proxy->checks);
    health_free(&proxy->health);
    tls_server_free(&proxy->tls);
    access_log_detach(&proxy->log);
    settings_unref(&proxy->settings);
    free(proxy);
}

void proxy_reload(struct proxy *proxy, struct settings *settings, struct tls_server *tls)
{
    if (settings) {
        settings_unref(&proxy->settings);
        proxy->settings = settings;
        pool_apply_rules(proxy->pool, &settings->rules);
    }
    if (tls) {
        tls_server_free(&proxy->tls);
        proxy->tls = tls;
    }
}

void proxy_revoke(struct proxy *proxy, const struct claim *claim)
{
    pool_revoke(proxy->pool, claim);
    health_forget(proxy->health, claim->serial);
    checks_forget(proxy->checks, claim->serial);
}

void proxy_drain(struct proxy *proxy, void (*drained)(void *arg), void *arg)
{
    proxy->draining = true;
    proxy->drained = drained;
    proxy->drained_arg = arg;
    pool_close_idle(proxy->pool);
    checks_stop(proxy->checks);
    loop_timer_arm(proxy->loop, &proxy->grace, GRACE_MS);
    connections_drain(proxy);
}

void proxy_close_all(struct proxy *proxy, enum status status)
{
    checks_stop(proxy->checks);
    connections_close_all(proxy, status);
    pool_close_idle(proxy->pool);
}

static bool has_last_work(const struct proxy *proxy)
{
    return !list_is_empty(&proxy->loop->streams) || checks_running(proxy->checks) > 0;
}

void proxy_send_last_bytes(struct proxy *proxy, const bool *must_end)
{
    struct loop *loop = proxy->loop;
    uint64_t until_ms = loop_now_ms(loop) + LAST_BYTES_MS;
    size_t unsent = stream_count_unsent(loop);
    while (has_last_work(proxy) && loop_now_ms(loop) < until_ms) {
        pool_close_idle(proxy->pool);
        loop_turn(loop, LAST_BYTES_TURN_MS);
        size_t left = stream_count_unsent(loop);
        if (left < unsent && !*must_end)
            until_ms = loop_now_ms(loop) + LAST_BYTES_MS;
        unsent = left;
    }
    pool_close_all(proxy->pool);
    loop_turn(loop, 0);
}

/* xorshift64* */
uint64_t proxy_random(struct proxy *proxy)
{
    uint64_t x = proxy->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    proxy->random = x;
    return x * 0x2545F4914F6CDD1DU >> 16;
}
