#include "gateway/proxy/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_defaults(void **state)
{
    (void)state;
    struct settings *settings = settings_new();
    assert_int_equal(settings->mux.request_limits.max_head_bytes, 32768);
    assert_int_equal(settings->mux.request_limits.max_target_bytes, 8192);
    assert_int_equal(settings->mux.request_limits.max_fields, 100);
    assert_int_equal(settings->mux.response_limits.max_head_bytes, 65536);
    assert_int_equal(settings->mux.response_limits.max_fields, 200);
    assert_int_equal(settings->mux.head_ms, 10000);
    assert_int_equal(settings->mux.keepalive_ms, 75000);
    assert_int_equal(settings->mux.body_idle_ms, 30000);
    assert_int_equal(settings->mux.body_min_rate, 100);
    assert_int_equal(settings->mux.send_stall_ms, 60000);
    assert_int_equal(settings->mux.max_requests, 0);
    assert_int_equal(settings->handshake_ms, 10000);
    assert_int_equal(settings->connect_ms, 5000);
    assert_int_equal(settings->first_byte_ms, 300000);
    assert_int_equal(settings->response_idle_ms, 600000);
    assert_int_equal(settings->tunnel_idle_ms, 600000);
    assert_int_equal(settings->upstream_idle_ms, 55000);
    assert_int_equal(settings->max_retries, 2);
    assert_int_equal(settings->max_connections, 16384);
    assert_int_equal(settings->max_idle_per_instance, 256);
    assert_int_equal(settings->ejection.failures, 5);
    assert_int_equal(settings->ejection.base_ms, 1000);
    assert_int_equal(settings->ejection.max_ms, 60000);
    assert_int_equal(settings->ejection.panic_percent, 50);
    assert_false(settings->ejection.server_errors);
    assert_int_equal(settings->base_domain_count, 0);
    settings_unref(&settings);
    assert_null(settings);
}

/* The sanitizer says if anything is freed too early, twice or never. */
static void test_references_and_ownership(void **state)
{
    (void)state;
    struct settings *first = settings_new();
    first->base_domains = calloc(1, sizeof *first->base_domains);
    first->base_domains[0] = slice_str(strdup("prod5.phala.network"));
    first->base_domain_count = 1;
    first->trusted_proxies = calloc(2, sizeof *first->trusted_proxies);
    first->rules.allow = calloc(2, sizeof *first->rules.allow);
    first->rules.own_listeners = calloc(2, sizeof *first->rules.own_listeners);
    struct settings *second = settings_ref(first);
    assert_ptr_equal(first, second);
    settings_unref(&first);
    assert_null(first);
    assert_true(slice_eq(second->base_domains[0], SLICE("prod5.phala.network")));
    settings_unref(&second);
    settings_unref(&second);
}

static void test_trusted(void **state)
{
    (void)state;
    static const struct {
        const char *peer;
        bool trusted;
    } cases[] = {
        {"10.1.2.3", true},    {"11.0.0.1", false},    {"192.0.2.7", true},       {"192.0.2.8", false},
        {"2001:db8::5", true}, {"2001:db9::5", false}, {"::ffff:10.0.0.1", true},
    };
    static const char *const networks[] = {"10.0.0.0/8", "192.0.2.7", "2001:db8::/32"};
    struct settings *settings = settings_new();
    settings->trusted_proxy_count = 3;
    settings->trusted_proxies = calloc(3, sizeof *settings->trusted_proxies);
    for (size_t i = 0; i < 3; i++)
        assert_true(ip_network_parse(slice_str(networks[i]), &settings->trusted_proxies[i]));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_addr peer;
        assert_true(ip_parse(slice_str(cases[i].peer), &peer));
        assert_int_equal(settings_is_trusted(settings, &peer), cases[i].trusted);
    }
    settings_unref(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_references_and_ownership),
        cmocka_unit_test(test_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
