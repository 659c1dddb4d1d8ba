#include "gateway/proxy/checks.h"

#include "proxy/proxy_fixture.h"

enum { MANY = CHECKS_MAX_RUNNING + 20, MANY_APPS = MANY / 4 };

static int set_up(void **state)
{
    struct proxy_fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    fixture_start(f, fixture_settings(), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct proxy_fixture *f = *state;
    checks_stop(f->proxy->checks);
    TURN_UNTIL(f->loop, checks_running(f->proxy->checks) == 0);
    fixture_stop(f);
    free(f);
    return 0;
}

/* Its addresses begin with 127.9.<net>. */
static void put_other(struct proxy_fixture *f, const char *app_id, unsigned net, unsigned instances,
                      const struct route_check *check)
{
    static uint64_t generation;
    struct route_app *app = route_app_new(app_id);
    generation++;
    for (unsigned i = 0; i < instances; i++) {
        char id[32], address[32];
        snprintf(id, sizeof id, "%s-i%u", app_id, i);
        snprintf(address, sizeof address, "127.9.%u.%u", net, 1 + i);
        fixture_add_instance(app, id, address, generation, ROUTE_STATE_RUNNING);
    }
    fixture_add_port(app, check->port, ROUTE_PROTOCOL_HTTP);
    app->checks = calloc(1, sizeof *app->checks);
    app->checks[0] = *check;
    app->check_count = 1;
    fixture_put(f, app);
}

static void put_app(struct proxy_fixture *f, unsigned instances, const struct route_check *check)
{
    put_other(f, "app", 0, instances, check);
}

static bool watch_other(struct proxy_fixture *f, const char *app_id, uint16_t port)
{
    route_table_read_begin();
    bool watched = checks_watch(f->proxy->checks, route_table_app(f->table, slice_str(app_id)), port);
    route_table_read_end();
    return watched;
}

static bool watch(struct proxy_fixture *f, uint16_t port)
{
    return watch_other(f, "app", port);
}

static uint64_t serial_of(struct proxy_fixture *f, const char *app_id)
{
    route_table_read_begin();
    uint64_t serial = route_table_app(f->table, slice_str(app_id))->instances[0].claim->serial;
    route_table_read_end();
    return serial;
}

static uint64_t first_serial(struct proxy_fixture *f)
{
    return serial_of(f, "app");
}

static void let_time_pass(struct proxy_fixture *f, unsigned ms)
{
    uint64_t begun_us = f->loop->now_us;
    TURN_UNTIL(f->loop, f->loop->now_us - begun_us > ms * 1000);
}

static struct route_check http_check(uint16_t port)
{
    return (struct route_check){.port = port,
                                .type = ROUTE_CHECK_HTTP,
                                .rise = 1,
                                .fall = 1,
                                .interval_ms = 60000,
                                .timeout_ms = 60000,
                                .path = "/"};
}

/* Nobody answers: each check lasts until its deadline, and others wait for their turn. */
static void only_so_many_run_at_once(void **state)
{
    struct proxy_fixture *f = *state;
    uint16_t port = 0;
    int listening = listen_at(INADDR_ANY, &port);
    struct route_check check = http_check(port);
    for (unsigned i = 0; i < MANY_APPS; i++) {
        char id[16];
        snprintf(id, sizeof id, i == 0 ? "app" : "app%u", i);
        put_other(f, id, i, MANY / MANY_APPS, &check);
        assert_false(watch_other(f, id, 1));
        assert_int_equal(checks_count(f->proxy->checks), i * MANY / MANY_APPS);
        assert_true(watch_other(f, id, port));
        assert_true(watch_other(f, id, port)); /* once each, however often they are wanted */
    }
    assert_int_equal(checks_count(f->proxy->checks), MANY);
    TURN_UNTIL(f->loop, checks_running(f->proxy->checks) == CHECKS_MAX_RUNNING);
    let_time_pass(f, 1500); /* all have wanted to by then */
    assert_int_equal(f->counters.upstream_checks_total, CHECKS_MAX_RUNNING);
    assert_int_equal(checks_running(f->proxy->checks), CHECKS_MAX_RUNNING);
    assert_false(checks_is_down(f->proxy->checks, first_serial(f), port)); /* nothing is known yet */
    close(listening);
}

static void slow_checks_of_one_app_do_not_keep_others_waiting(void **state)
{
    struct proxy_fixture *f = *state;
    uint16_t port = 0, closed;
    int listening = listen_at(INADDR_ANY, &port);
    close(listen_any(&closed));
    struct route_check slow = http_check(port), quick = http_check(closed);
    quick.interval_ms = 1000;
    put_other(f, "slow", 1, MANY, &slow);
    put_other(f, "quick", 2, 1, &quick);
    assert_true(watch_other(f, "slow", port));
    let_time_pass(f, 1500);
    assert_true(watch_other(f, "quick", closed));
    TURN_UNTIL(f->loop, checks_is_down(f->proxy->checks, serial_of(f, "quick"), closed));
    TURN_UNTIL(f->loop, f->counters.upstream_checks_failed_total == 3); /* and on, at its pace */
    assert_int_equal(f->counters.upstream_checks_total, CHECKS_MAX_OF_APP + 3);
    TURN_UNTIL(f->loop, checks_running(f->proxy->checks) == CHECKS_MAX_OF_APP);
    put_other(f, "slow", 1, 1, &slow); /* those that wait go too */
    assert_int_equal(checks_count(f->proxy->checks), 1);
    TURN_UNTIL(f->loop, checks_running(f->proxy->checks) == 0);
    close(listening);
}

static void each_has_its_turn(void **state)
{
    enum { WAITING = 3 * CHECKS_MAX_OF_APP };
    struct proxy_fixture *f = *state;
    uint16_t port = 0;
    int listening = listen_at(INADDR_ANY, &port);
    struct route_check check = http_check(port);
    check.timeout_ms = 400;
    put_app(f, WAITING, &check);
    assert_true(watch(f, port));
    TURN_UNTIL(f->loop, f->counters.upstream_down == WAITING);
    assert_int_equal(f->counters.upstream_checks_total, WAITING);
    close(listening);
}

static void checks_that_fail_at_once_leave_time_for_traffic(void **state)
{
    enum { WAITING = 250 };
    struct proxy_fixture *f = *state;
    uint16_t port;
    close(listen_any(&port));
    struct route_check check = http_check(port);
    put_app(f, WAITING, &check);
    assert_true(watch(f, port));
    usleep(1200000); /* all are due when the loop turns again */
    loop_turn(f->loop, 10);
    assert_in_range(f->counters.upstream_checks_total, 1, WAITING / 2);
    TURN_UNTIL(f->loop, f->counters.upstream_down == WAITING);
    assert_int_equal(f->counters.upstream_checks_total, WAITING);
}

static void a_verdict_goes_with_its_claim(void **state)
{
    struct proxy_fixture *f = *state;
    uint16_t port;
    close(listen_any(&port)); /* nobody listens */
    struct route_check check = http_check(port);
    put_app(f, 1, &check);
    assert_true(watch(f, port));
    uint64_t serial = first_serial(f);
    TURN_UNTIL(f->loop, checks_is_down(f->proxy->checks, serial, port));
    assert_int_equal(f->counters.upstream_down, 1);
    assert_int_equal(f->counters.upstream_checks_failed_total, 1);
    put_app(f, 1, &check); /* a newer generation */
    assert_int_equal(checks_count(f->proxy->checks), 0);
    assert_int_equal(f->counters.upstream_down, 0);
    assert_false(checks_is_down(f->proxy->checks, first_serial(f), port));
}

static void a_claim_that_goes_ends_the_check_that_runs(void **state)
{
    struct proxy_fixture *f = *state;
    uint16_t port = 0;
    int listening = listen_at(INADDR_ANY, &port);
    struct route_check check = http_check(port);
    put_app(f, 1, &check);
    assert_true(watch(f, port));
    TURN_UNTIL(f->loop, checks_running(f->proxy->checks) == 1);
    put_app(f, 1, &check);
    assert_int_equal(checks_count(f->proxy->checks), 0);
    TURN_UNTIL(f->loop, checks_running(f->proxy->checks) == 0);
    assert_int_equal(f->counters.upstream_checks_failed_total, 0);
    close(listening);
}

static void nothing_begins_after_the_stop(void **state)
{
    struct proxy_fixture *f = *state;
    struct route_check check = http_check(80);
    put_app(f, 3, &check);
    checks_stop(f->proxy->checks);
    assert_true(watch(f, 80));
    assert_int_equal(checks_count(f->proxy->checks), 0);
}

int main(void)
{
    route_table_thread_begin();
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(only_so_many_run_at_once),
        TEST(slow_checks_of_one_app_do_not_keep_others_waiting),
        TEST(each_has_its_turn),
        TEST(checks_that_fail_at_once_leave_time_for_traffic),
        TEST(a_verdict_goes_with_its_claim),
        TEST(a_claim_that_goes_ends_the_check_that_runs),
        TEST(nothing_begins_after_the_stop),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
