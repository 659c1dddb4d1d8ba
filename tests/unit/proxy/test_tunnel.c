/* Tunnels over plain streams: what comes before one, TLS and names, is left out. */
#include "proxy/proxy_fixture.h"

#include "gateway/proxy/preface.h"
#include "gateway/proxy/tunnel.h"

static int start(void **state)
{
    struct proxy_fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    fixture_start(f, fixture_settings(), 1);
    client_connect(f);
    *state = f;
    return 0;
}

static int stop(void **state)
{
    struct proxy_fixture *f = *state;
    fixture_stop(f);
    free(f);
    return 0;
}

static struct connection *begin_any(struct proxy_fixture *f)
{
    char name[64];
    snprintf(name, sizeof name, "app-%u.t.test", f->back_port);
    TURN_UNTIL(f->loop, f->proxy->connection_count == 1);
    struct connection *c = CONTAINER_OF(f->proxy->connections_active.next, struct connection, link);
    preface_end(c);
    tunnel_begin(c, TUNNEL_TCP, slice_str(name));
    return c;
}

static void begin(struct proxy_fixture *f)
{
    assert_non_null(begin_any(f)->tunnel);
}

static void open_tunnel(struct proxy_fixture *f)
{
    begin(f);
    AWAIT_ORIGIN(f, 0);
    send_text(f->origin.fd, "welcome");
    AWAIT_TEXT(f, client, "welcome");
}

static void bytes_go_both_ways(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f);
    send_text(f->client.fd, "hello");
    AWAIT_TEXT(f, origin, "hello");
    assert_int_equal(f->counters.tunnels_active, 1);
}

static void a_forbidden_address_leads_to_another_instance(void **state)
{
    struct proxy_fixture *f = *state;
    struct ip_network *allow = (struct ip_network *)(uintptr_t)f->settings->rules.allow;
    f->origins[1] = listen_at(FIRST_HOST + 1, &f->back_port);
    fixture_put(f, fixture_app_of(2, 1));
    assert_true(ip_network_parse(slice_str("127.0.0.12/32"), allow)); /* a reload has narrowed it */
    for (int round = 0; round < 10; round++) {
        begin(f);
        AWAIT_ORIGIN(f, 1);
        send_text(f->origin.fd, "welcome");
        AWAIT_TEXT(f, client, "welcome");
        party_close(&f->client);
        party_close(&f->origin);
        TURN_UNTIL(f->loop, f->proxy->connection_count == 0);
        client_connect(f);
    }
    assert_true(ip_network_parse(slice_str("127.0.0.99/32"), allow));
    begin_any(f);
    AWAIT_END(f, client);
}

static void a_claim_revoked_while_connecting_gets_nothing(void **state)
{
    struct proxy_fixture *f = *state;
    begin(f);
    fixture_move_address(f);
    send_text(f->client.fd, "for the old owner");
    AWAIT_ORIGIN(f, 0);
    AWAIT_END(f, client);
    AWAIT_END(f, origin);
    assert_int_equal(f->origin.in.len, 0);
    assert_int_equal(f->counters.upstream_revoked_total, 1);
}

static void a_revoked_claim_gets_nothing_more(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f);
    fixture_move_address(f);
    send_text(f->client.fd, "for the old owner");
    AWAIT_END(f, client);
    AWAIT_END(f, origin);
    ASSERT_LACKS(f, origin, "for the old owner");
}

static void nothing_more_comes_from_a_revoked_claim(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f);
    fixture_move_address(f);
    send_text(f->origin.fd, "of the new owner");
    AWAIT_END(f, origin);
    AWAIT_END(f, client);
    ASSERT_LACKS(f, client, "of the new owner");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
        TEST(bytes_go_both_ways),
        TEST(a_forbidden_address_leads_to_another_instance),
        TEST(a_claim_revoked_while_connecting_gets_nothing),
        TEST(a_revoked_claim_gets_nothing_more),
        TEST(nothing_more_comes_from_a_revoked_claim),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
