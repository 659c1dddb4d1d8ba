#include "proxy/pool_fixture.h"

static void answer(struct fixture *f, int fd, struct use *use)
{
    struct inbox inbox = {.len = 0};
    TURN_UNTIL(f->loop, inbox_has(&inbox, fd, "\r\n\r\n"));
    inbox_clear(&inbox);
    send_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    TURN_UNTIL(f->loop, use->ends == 1);
}

static void an_idle_connection_is_used_again(void **state)
{
    struct fixture *f = *state;
    struct use use;
    assert_false(open_use(f, &use, false));
    assert_int_equal(pool_active(f->pool, f->claim), 1);
    int fd = accept_one(f);
    answer(f, fd, &use);
    TURN_UNTIL(f->loop, pool_active(f->pool, f->claim) == 0);
    assert_int_equal(pool_count(f->pool), 1);
    assert_true(open_use(f, &use, false));
    assert_int_equal(pool_count(f->pool), 1);
    answer(f, fd, &use);
    close(fd);
}

static void a_fresh_one_is_a_new_one(void **state)
{
    struct fixture *f = *state;
    struct use first, second;
    open_use(f, &first, false);
    int fd = accept_one(f);
    answer(f, fd, &first);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    assert_false(open_use(f, &second, true));
    int fd2 = accept_one(f);
    answer(f, fd2, &second);
    assert_int_equal(pool_count(f->pool), 2);
    close(fd);
    close(fd2);
}

static void busy_connections_are_not_shared(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fds[3];
    for (int i = 0; i < 3; i++) {
        assert_false(open_use(f, &uses[i], false));
        fds[i] = accept_one(f);
    }
    assert_int_equal(pool_active(f->pool, f->claim), 3);
    for (int i = 0; i < 3; i++)
        answer(f, fds[i], &uses[i]);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void another_port_is_another_connection(void **state)
{
    struct fixture *f = *state;
    struct use use, other;
    open_use(f, &use, false);
    int fd = accept_one(f);
    answer(f, fd, &use);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    uint16_t port;
    int listening = listen_any(&port);
    f->port = port;
    assert_false(open_use(f, &other, false));
    TURN_UNTIL(f->loop, pool_active(f->pool, f->claim) == 1);
    close(listening);
    TURN_UNTIL(f->loop, other.resets == 1); /* never accepted: reset */
    close(fd);
}

static void an_idle_connection_that_ended_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct use use;
    open_use(f, &use, false);
    int fd = accept_one(f);
    answer(f, fd, &use);
    close(fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void too_long_idle_is_closed(void **state)
{
    struct fixture *f = *state;
    struct use use;
    f->settings->upstream_idle_ms = 50;
    open_use(f, &use, false);
    int fd = accept_one(f);
    answer(f, fd, &use);
    await_end(f, fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void too_many_idle_are_closed(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fds[3];
    f->settings->max_idle_per_instance = 1;
    for (int i = 0; i < 3; i++) {
        open_use(f, &uses[i], false);
        fds[i] = accept_one(f);
    }
    for (int i = 0; i < 3; i++)
        answer(f, fds[i], &uses[i]);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 1);
    assert_int_equal(f->counters.upstream_connections_idle, 1);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void a_revoked_claim_closes_all_of_its_connections(void **state)
{
    struct fixture *f = *state;
    struct use idle, busy;
    open_use(f, &idle, false);
    open_use(f, &busy, false);
    int fd = accept_one(f), fd2 = accept_one(f);
    answer(f, fd, &idle);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    pool_revoke(f->pool, f->claim);
    assert_int_equal(busy.resets, 0); /* not inside the call */
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    assert_int_equal(busy.resets, 1);
    assert_int_equal(busy.status, STATUS_ADDRESS_REVOKED);
    assert_int_equal(f->counters.upstream_revoked_total, 2);
    await_end(f, fd);
    await_end(f, fd2);
    pool_revoke(f->pool, f->claim); /* nothing of it is left */
}

static void a_claim_revoked_in_use_is_not_kept(void **state)
{
    struct fixture *f = *state;
    struct use use;
    struct inbox inbox = {.len = 0};
    open_use(f, &use, false);
    int fd = accept_one(f);
    TURN_UNTIL(f->loop, inbox_has(&inbox, fd, "\r\n\r\n"));
    inbox_clear(&inbox);
    atomic_store(&f->claim->revoked, true);
    send_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    TURN_UNTIL(f->loop, use.ends == 1);
    await_end(f, fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void a_forbidden_address_is_not_dialed(void **state)
{
    struct fixture *f = *state;
    struct pool_opened opened;
    struct claim *claim = take_claim(f, "10.1.2.3");
    struct pool_target target = {.claim = claim, .port = f->port};
    assert_null(pool_open(f->pool, f->settings, &target, 0, &opened));
    assert_int_equal(opened.status, STATUS_ADDRESS_FORBIDDEN);
    assert_int_equal(pool_count(f->pool), 0);
    claim_unref(&claim);
}

static void other_rules_end_what_they_forbid(void **state)
{
    struct fixture *f = *state;
    struct use uses[2];
    struct ip_network network;
    const struct route_rules same = f->settings->rules;
    open_use(f, &uses[0], false);
    int idle = accept_one(f);
    open_use(f, &uses[1], false);
    int busy = accept_one(f);
    answer(f, idle, &uses[0]);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    pool_apply_rules(f->pool, &same);
    assert_true(open_use(f, &uses[0], false));
    answer(f, idle, &uses[0]);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);

    assert_true(ip_network_parse(slice_str("10.0.0.0/8"), &network));
    pool_apply_rules(f->pool, &(struct route_rules){.allow = &network, .allow_count = 1});
    await_end(f, idle);
    assert_int_equal(pool_count(f->pool), 1);
    answer(f, busy, &uses[1]);
    assert_int_equal(uses[1].ends, 1);
    await_end(f, busy);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void a_refused_connection_is_counted(void **state)
{
    struct fixture *f = *state;
    struct use use;
    uint16_t port;
    close(listen_any(&port));
    f->port = port;
    open_use(f, &use, false);
    TURN_UNTIL(f->loop, use.resets == 1);
    assert_int_equal(use.status, STATUS_CONNECT_REFUSED);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    assert_int_equal(f->counters.upstream_connect_errors_total, 1);
}

static void many_claims_have_buckets_of_their_own(void **state)
{
    enum { MANY = 200 };
    struct fixture *f = *state;
    struct claim *own = f->claim, *claims[MANY];
    static struct use uses[MANY];
    uint16_t port;
    close(listen_any(&port));
    f->port = port;
    for (unsigned i = 0; i < MANY; i++) {
        char text[32];
        snprintf(text, sizeof text, "127.1.%u.1", i);
        claims[i] = f->claim = take_claim(f, text);
        open_use(f, &uses[i], false);
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(pool_active(f->pool, claims[i]), 1);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(uses[i].resets, 1);
        claim_unref(&claims[i]);
    }
    f->claim = own;
}

/* A client of whom the instance is told: its connections are listed, and nobody else's. */
static void a_header_comes_first_and_separates_clients(void **state)
{
    struct fixture *f = *state;
    struct list owners[2];
    struct use use;
    int fds[4];
    static const char *const headers[] = {"ONE\r\n", "ONE\r\n", "TWO\r\n"};
    list_init(&owners[0]);
    list_init(&owners[1]);
    for (int i = 0; i < 3; i++) { /* another client, and another header of that client */
        struct pool_target target = {
            .claim = f->claim, .port = f->port, .header = slice_str(headers[i]), .owner = &owners[i == 0 ? 0 : 1]};
        struct inbox inbox = {.len = 0};
        assert_false(open_target(f, &use, &target, false));
        fds[i] = accept_one(f);
        TURN_UNTIL(f->loop, inbox_has(&inbox, fds[i], "GET / HTTP/1.1\r\n"));
        assert_memory_equal(inbox.bytes, headers[i], strlen(headers[i]));
        inbox_clear(&inbox);
        send_text(fds[i], "HTTP/1.1 204 No Content\r\n\r\n");
        TURN_UNTIL(f->loop, use.ends == 1);
        TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == (unsigned)i + 1);
    }
    assert_false(open_use(f, &use, false)); /* one of whom nothing is told gets none of them */
    fds[3] = accept_one(f);
    use.endpoint->ops->release(&use.endpoint, STATUS_CLIENT_CANCELLED);
    await_end(f, fds[3]);
    struct pool_target again = {
        .claim = f->claim, .port = f->port, .header = slice_str(headers[0]), .owner = &owners[0]};
    assert_true(open_target(f, &use, &again, false));
    answer(f, fds[0], &use);
    pool_leave_owner(&owners[1]);
    assert_true(list_is_empty(&owners[1]));
    await_end(f, fds[1]);
    await_end(f, fds[2]);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 1);
    assert_false(list_is_empty(&owners[0]));
    pool_leave_owner(&owners[0]);
    await_end(f, fds[0]);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_idle_connection_is_used_again),
        TEST(a_fresh_one_is_a_new_one),
        TEST(busy_connections_are_not_shared),
        TEST(another_port_is_another_connection),
        TEST(an_idle_connection_that_ended_is_forgotten),
        TEST(too_long_idle_is_closed),
        TEST(too_many_idle_are_closed),
        TEST(a_revoked_claim_closes_all_of_its_connections),
        TEST(a_claim_revoked_in_use_is_not_kept),
        TEST(a_forbidden_address_is_not_dialed),
        TEST(other_rules_end_what_they_forbid),
        TEST(a_refused_connection_is_counted),
        TEST(a_header_comes_first_and_separates_clients),
        TEST(many_claims_have_buckets_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
