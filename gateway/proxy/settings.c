#include "gateway/proxy/settings.h"

#include <assert.h>
#include <stdlib.h>

enum { SECOND_MS = 1000, KIB = 1024 };

struct settings *settings_new(void)
{
    struct settings *settings = calloc(1, sizeof *settings);
    if (!settings)
        abort();
    atomic_init(&settings->refs, 1);
    settings->mux = (struct mux_settings){
        .request_limits = {.max_head_bytes = 32 * KIB, .max_target_bytes = 8 * KIB, .max_fields = 100},
        .response_limits = {.max_head_bytes = 64 * KIB, .max_target_bytes = 8 * KIB, .max_fields = 200},
        .head_ms = 10 * SECOND_MS,
        .keepalive_ms = 75 * SECOND_MS,
        .body_idle_ms = 30 * SECOND_MS,
        .body_min_rate = 100,
        .send_stall_ms = 60 * SECOND_MS,
        .silent_ms = 10 * SECOND_MS,
        .max_requests = 0,
    };
    settings->handshake_ms = 10 * SECOND_MS;
    settings->connect_ms = 5 * SECOND_MS;
    settings->proxy_header_ms = 5 * SECOND_MS;
    settings->sniff_ms = SECOND_MS;
    settings->first_byte_ms = 300 * SECOND_MS;
    settings->response_idle_ms = 600 * SECOND_MS;
    settings->tunnel_idle_ms = 600 * SECOND_MS;
    settings->upstream_idle_ms = 55 * SECOND_MS;
    settings->max_retries = 2;
    settings->max_connections = 16384;
    settings->max_idle_per_instance = 256;
    settings->ejection =
        (struct ejection_settings){.failures = 5, .base_ms = SECOND_MS, .max_ms = 60 * SECOND_MS, .panic_percent = 50};
    return settings;
}

/* Readers see a const snapshot; its owner count and its end are not part of what is constant. */
static void *mutable(const void *memory)
{
    return (void *)(uintptr_t)memory;
}

struct settings *settings_ref(const struct settings *settings)
{
    struct settings *owned = mutable(settings);
    uint32_t before = atomic_fetch_add_explicit(&owned->refs, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return owned;
}

void settings_unref(struct settings **settings)
{
    struct settings *old = *settings;
    *settings = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < old->base_domain_count; i++)
        free(mutable(old->base_domains[i].ptr));
    free(old->base_domains);
    free(old->trusted_proxies);
    free(mutable(old->rules.allow));
    free(mutable(old->rules.own_listeners));
    free(old);
}

bool settings_is_trusted(const struct settings *settings, const struct ip_addr *peer)
{
    for (size_t i = 0; i < settings->trusted_proxy_count; i++)
        if (ip_network_has(&settings->trusted_proxies[i], peer))
            return true;
    return false;
}
