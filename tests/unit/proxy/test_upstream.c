#include "gateway/proxy/upstream.h"

#include "gateway/proxy/health.h"

#include "proxy/proxy_fixture.h"

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
    fixture_stop(f);
    free(f);
    return 0;
}

/* Instances one, two, three with these states and weights; a state of -1: no such instance. */
static void put_instances(struct proxy_fixture *f, const int states[3], const uint16_t weights[3])
{
    static const char *const ids[] = {"one", "two", "three"};
    static uint64_t generation;
    struct route_app *app = route_app_new("app");
    generation++;
    for (unsigned i = 0; i < 3; i++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.%u", 11 + i);
        if (states[i] >= 0)
            fixture_add_instance(app, ids[i], address, generation, (enum route_state)states[i])->weight = weights[i];
    }
    fixture_put(f, app);
}

enum { TRIES = 4000 };

/* How often each of the three was picked for an app; fills the last status. */
static void pick_often(struct proxy_fixture *f, const struct upstream_tried *tried, unsigned ret_counts[3],
                       enum status *ret_status)
{
    struct route_target target = {.status = STATUS_OK};
    route_table_read_begin();
    target.app = route_table_app(f->table, SLICE("app"));
    assert_non_null(target.app);
    memset(ret_counts, 0, 3 * sizeof *ret_counts);
    *ret_status = STATUS_OK;
    for (int i = 0; i < TRIES; i++) {
        const struct route_instance *picked = upstream_pick(f->proxy, &target, tried, ret_status);
        if (picked)
            ret_counts[picked->id[0] == 'o' ? 0 : picked->id[1] == 'w' ? 1 : 2]++;
    }
    route_table_read_end();
}

static const struct upstream_tried none_tried;

static void requests_spread_by_weight(void **state)
{
    static const int all_running[3] = {ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING};
    static const uint16_t equal[3] = {1, 1, 1}, uneven[3] = {1, 3, 0}, steps[3] = {1, 3, 6};
    struct proxy_fixture *f = *state;
    unsigned counts[3];
    enum status status;
    put_instances(f, all_running, equal);
    pick_often(f, &none_tried, counts, &status);
    for (int i = 0; i < 3; i++)
        assert_in_range(counts[i], TRIES / 6, TRIES / 2);
    put_instances(f, all_running, uneven);
    pick_often(f, &none_tried, counts, &status);
    assert_in_range(counts[0], TRIES / 5, TRIES * 3 / 10); /* a quarter */
    assert_int_equal(counts[2], 0);
    assert_int_equal(counts[0] + counts[1], TRIES);
    put_instances(f, all_running, steps);
    pick_often(f, &none_tried, counts, &status);
    assert_in_range(counts[0], TRIES * 7 / 100, TRIES * 13 / 100);
    assert_in_range(counts[1], TRIES * 26 / 100, TRIES * 34 / 100);
    assert_in_range(counts[2], TRIES * 55 / 100, TRIES * 65 / 100);
}

static void only_running_instances_get_requests(void **state)
{
    static const int mixed[3] = {ROUTE_STATE_DRAINING, ROUTE_STATE_RUNNING, ROUTE_STATE_STARTING};
    static const uint16_t equal[3] = {1, 1, 1};
    struct proxy_fixture *f = *state;
    unsigned counts[3];
    enum status status;
    put_instances(f, mixed, equal);
    pick_often(f, &none_tried, counts, &status);
    assert_int_equal(counts[1], TRIES);
}

static void why_there_is_none_is_told(void **state)
{
    static const struct {
        int states[3];
        uint16_t weights[3];
        enum status status;
    } cases[] = {
        {{ROUTE_STATE_STARTING, ROUTE_STATE_STOPPED, -1}, {1, 1, 1}, STATUS_APP_STARTING},
        {{ROUTE_STATE_STOPPED, ROUTE_STATE_STOPPED, -1}, {1, 1, 1}, STATUS_APP_STOPPED},
        {{ROUTE_STATE_DRAINING, ROUTE_STATE_STOPPED, -1}, {1, 1, 1}, STATUS_NO_INSTANCE},
        {{ROUTE_STATE_RUNNING, -1, -1}, {0, 1, 1}, STATUS_NO_INSTANCE},
        {{-1, -1, -1}, {1, 1, 1}, STATUS_NO_INSTANCE},
    };
    struct proxy_fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned counts[3];
        enum status status;
        put_instances(f, cases[i].states, cases[i].weights);
        pick_often(f, &none_tried, counts, &status);
        assert_int_equal(counts[0] + counts[1] + counts[2], 0);
        assert_int_equal(status, cases[i].status);
    }
}

static void what_was_tried_is_not_picked_again(void **state)
{
    static const int all_running[3] = {ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING};
    static const uint16_t equal[3] = {1, 1, 1};
    struct proxy_fixture *f = *state;
    struct upstream_tried tried = {.count = 0};
    unsigned counts[3];
    enum status status;
    put_instances(f, all_running, equal);
    route_table_read_begin();
    const struct route_app *app = route_table_app(f->table, SLICE("app"));
    uint64_t serials[3] = {app->instances[0].claim->serial, app->instances[1].claim->serial,
                           app->instances[2].claim->serial};
    route_table_read_end();
    for (unsigned i = 0; i < 3; i++) {
        tried.serials[tried.count++] = serials[i];
        pick_often(f, &tried, counts, &status);
        assert_int_equal(counts[0] + counts[1] + counts[2], i < 2 ? TRIES : 0);
        for (unsigned j = 0; j <= i; j++)
            assert_int_equal(counts[j], 0);
    }
    assert_int_equal(status, STATUS_NO_INSTANCE);
}

static void the_busier_of_two_loses(void **state)
{
    static const int two_running[3] = {ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING, -1};
    static const uint16_t equal[3] = {1, 1, 1};
    struct proxy_fixture *f = *state;
    struct endpoint *endpoint;
    unsigned counts[3];
    struct pool_opened opened;
    enum status status;
    put_instances(f, two_running, equal);
    uint16_t port = 0;
    int listening = listen_at(FIRST_HOST, &port);
    route_table_read_begin();
    struct claim *claim = route_table_app(f->table, SLICE("app"))->instances[0].claim;
    struct pool_target target = {.claim = claim, .port = port};
    endpoint = pool_open(f->proxy->pool, f->settings, &target, 0, &opened);
    route_table_read_end();
    assert_non_null(endpoint);
    pick_often(f, &none_tried, counts, &status);
    assert_true(counts[1] > counts[0] * 2); /* one is picked only when it is drawn twice */
    endpoint->ops->release(&endpoint, STATUS_CLIENT_CANCELLED);
    close(listening);
}

static void a_name_of_one_instance_means_that_one(void **state)
{
    static const int mixed[3] = {ROUTE_STATE_RUNNING, ROUTE_STATE_STARTING, ROUTE_STATE_STOPPED};
    static const uint16_t equal[3] = {1, 1, 1};
    static const enum status expected[] = {STATUS_OK, STATUS_APP_STARTING, STATUS_APP_STOPPED};
    struct proxy_fixture *f = *state;
    put_instances(f, mixed, equal);
    route_table_read_begin();
    const struct route_app *app = route_table_app(f->table, SLICE("app"));
    for (unsigned i = 0; i < 3; i++) {
        struct route_target target = {.app = app, .instance = &app->instances[i]};
        enum status status = STATUS_OK;
        const struct route_instance *picked = upstream_pick(f->proxy, &target, &none_tried, &status);
        assert_int_equal(status, expected[i]);
        assert_ptr_equal(picked, i == 0 ? &app->instances[0] : NULL);
    }
    route_table_read_end();
}

/* ---- ejection ---- */

static const int three_running[3] = {ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING};
static const uint16_t same_weight[3] = {1, 1, 1};

enum { PORT = 80, JITTER = 4, MS = 1000 };

static struct claim *claim_of(struct proxy_fixture *f, unsigned index)
{
    route_table_read_begin();
    struct claim *claim = route_table_app(f->table, SLICE("app"))->instances[index].claim;
    route_table_read_end();
    return claim;
}

static void refuse(struct proxy_fixture *f, unsigned index, unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        upstream_failed(f->proxy, claim_of(f, index), SLICE("cvm"), PORT, STATUS_CONNECT_REFUSED);
}

static bool is_ejected(struct proxy_fixture *f, unsigned index)
{
    return health_look(f->proxy->health, claim_of(f, index)->serial, PORT).is_ejected;
}

/* How long the instance is ejected from now on; the clock stands at the end of it. */
static uint64_t sit_out(struct proxy_fixture *f, unsigned index)
{
    uint64_t ms = 0;
    for (; is_ejected(f, index); ms++)
        f->loop->now_us += MS;
    return ms;
}

static void pauses_grow_to_a_limit(void **state)
{
    struct proxy_fixture *f = *state;
    put_instances(f, three_running, same_weight);
    refuse(f, 0, 4);
    assert_false(is_ejected(f, 0));
    refuse(f, 0, 1);
    for (uint64_t nominal = 1000; nominal < 600000; nominal *= 2) {
        uint64_t capped = nominal < 60000 ? nominal : 60000;
        assert_true(is_ejected(f, 0));
        assert_int_equal(f->counters.upstream_ejected, 1);
        refuse(f, 0, 3); /* what was on its way does not make it longer */
        assert_in_range(sit_out(f, 0), capped - capped / JITTER, capped + 1);
        refuse(f, 0, 1); /* the first one after a pause decides */
    }
    assert_int_equal(f->counters.upstream_ejections_total, 11);
}

static void an_answer_ends_the_verdict(void **state)
{
    struct proxy_fixture *f = *state;
    put_instances(f, three_running, same_weight);
    refuse(f, 0, 5);
    sit_out(f, 0);
    uint64_t before_us = f->loop->now_us;
    f->loop->now_us += MS;
    refuse(f, 0, 1);
    upstream_answered(f->proxy, claim_of(f, 0), SLICE("cvm"), PORT, 200, before_us);
    assert_true(is_ejected(f, 0)); /* it was asked before it failed */
    sit_out(f, 0);
    upstream_answered(f->proxy, claim_of(f, 0), SLICE("cvm"), PORT, 503, f->loop->now_us);
    assert_int_equal(health_count(f->proxy->health), 0);
    assert_int_equal(f->counters.upstream_ejected, 0);
    refuse(f, 0, 4);
    assert_false(is_ejected(f, 0));
}

static void only_failures_of_the_instance_count(void **state)
{
    static const enum status others[] = {STATUS_UPSTREAM_REFUSED, STATUS_ADDRESS_REVOKED, STATUS_ADDRESS_FORBIDDEN,
                                         STATUS_OVERLOADED, STATUS_UPSTREAM_BAD_RESPONSE};
    static const enum status counted[] = {STATUS_CONNECT_REFUSED, STATUS_CONNECT_UNREACHABLE, STATUS_CONNECT_TIMEOUT,
                                          STATUS_UPSTREAM_RESET,  STATUS_UPSTREAM_CLOSED,     STATUS_UPSTREAM_TIMEOUT};
    struct proxy_fixture *f = *state;
    put_instances(f, three_running, same_weight);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        upstream_failed(f->proxy, claim_of(f, 0), SLICE("cvm"), PORT, others[i]);
    assert_int_equal(health_count(f->proxy->health), 0);
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++)
        upstream_failed(f->proxy, claim_of(f, 0), SLICE("cvm"), PORT, counted[i]);
    assert_int_equal(health_look(f->proxy->health, claim_of(f, 0)->serial, PORT).failures, 6);
    upstream_answered(f->proxy, claim_of(f, 1), SLICE("cvm"), PORT, 500, 0);
    assert_int_equal(health_count(f->proxy->health), 1);
    f->settings->ejection.server_errors = true;
    upstream_answered(f->proxy, claim_of(f, 1), SLICE("cvm"), PORT, 500, 0);
    assert_int_equal(health_count(f->proxy->health), 2);
}

static void ejected_ones_are_spared_until_too_many_are(void **state)
{
    struct proxy_fixture *f = *state;
    unsigned counts[3];
    enum status status;
    struct route_target target;
    put_instances(f, three_running, same_weight);
    refuse(f, 0, 5);
    for (unsigned second = 0; second < 2; second++) {
        memset(counts, 0, sizeof counts);
        target = (struct route_target){.status = STATUS_OK, .port = PORT};
        route_table_read_begin();
        target.app = route_table_app(f->table, SLICE("app"));
        for (int i = 0; i < TRIES; i++)
            counts[upstream_pick(f->proxy, &target, &none_tried, &status) - target.app->instances]++;
        route_table_read_end();
        if (second == 0) {
            assert_int_equal(counts[0], 0);
            assert_true(counts[1] > 0 && counts[2] > 0);
            refuse(f, 1, 5); /* two of three: more than half */
        }
    }
    assert_true(counts[0] > 0 && counts[1] > 0 && counts[2] > counts[0]);
    pick_often(f, &none_tried, counts, &status); /* of another port, to which no verdict applies */
    assert_true(counts[0] > TRIES / 6);
}

static void the_last_one_is_tried_in_spite_of_all(void **state)
{
    static const int one_running[3] = {ROUTE_STATE_RUNNING, -1, -1};
    struct proxy_fixture *f = *state;
    struct route_target target = {.status = STATUS_OK, .port = PORT};
    enum status status;
    f->settings->ejection.panic_percent = 100;
    put_instances(f, one_running, same_weight);
    refuse(f, 0, 9);
    assert_true(is_ejected(f, 0));
    route_table_read_begin();
    target.app = route_table_app(f->table, SLICE("app"));
    assert_non_null(upstream_pick(f->proxy, &target, &none_tried, &status));
    target.instance = &target.app->instances[0];
    assert_non_null(upstream_pick(f->proxy, &target, &none_tried, &status));
    route_table_read_end();
}

static void an_idle_one_that_fails_is_not_preferred(void **state)
{
    static const int two_running[3] = {ROUTE_STATE_RUNNING, ROUTE_STATE_RUNNING, -1};
    struct proxy_fixture *f = *state;
    struct endpoint *busy[8];
    struct pool_opened opened;
    enum status status;
    unsigned counts[2] = {0, 0};
    uint16_t port = 0;
    int listening = listen_at(FIRST_HOST + 1, &port);
    put_instances(f, two_running, same_weight);
    struct pool_target pooled = {.claim = claim_of(f, 1), .port = port};
    for (size_t i = 0; i < 8; i++)
        busy[i] = pool_open(f->proxy->pool, f->settings, &pooled, 0, &opened);
    refuse(f, 0, 1);
    route_table_read_begin();
    struct route_target target = {.app = route_table_app(f->table, SLICE("app")), .port = PORT};
    for (int i = 0; i < TRIES; i++)
        counts[upstream_pick(f->proxy, &target, &none_tried, &status) - target.app->instances]++;
    route_table_read_end();
    assert_true(counts[0] > 0);
    assert_true(counts[1] > counts[0] * 2); /* only when it is drawn twice */
    for (size_t i = 0; i < 8; i++)
        busy[i]->ops->release(&busy[i], STATUS_CLIENT_CANCELLED);
    close(listening);
}

static void the_next_boot_starts_clean(void **state)
{
    struct proxy_fixture *f = *state;
    put_instances(f, three_running, same_weight);
    struct claim *old = claim_ref(claim_of(f, 0));
    refuse(f, 0, 5);
    put_instances(f, three_running, same_weight); /* of a newer generation */
    assert_false(is_ejected(f, 0));
    assert_int_equal(health_count(f->proxy->health), 0);
    assert_int_equal(f->counters.upstream_ejected, 0);
    upstream_failed(f->proxy, old, SLICE("cvm"), PORT, STATUS_CONNECT_REFUSED);
    assert_int_equal(health_count(f->proxy->health), 0);
    claim_unref(&old);
}

static void old_failures_are_forgiven_and_memory_is_bounded(void **state)
{
    struct proxy_fixture *f = *state;
    put_instances(f, three_running, same_weight);
    refuse(f, 0, 4);
    f->loop->now_us += 61000 * MS;
    refuse(f, 0, 4);
    assert_false(is_ejected(f, 0));
    for (unsigned port = 1000; port < 2000; port++)
        upstream_failed(f->proxy, claim_of(f, 1), SLICE("cvm"), (uint16_t)port, STATUS_CONNECT_REFUSED);
    assert_int_equal(health_count(f->proxy->health), HEALTH_MAX_PORTS + 1);
    for (uint64_t serial = 1000; serial < 1000 + HEALTH_MAX_ENTRIES; serial++) {
        struct claim claim = {.serial = serial};
        upstream_failed(f->proxy, &claim, SLICE("cvm"), PORT, STATUS_CONNECT_REFUSED);
    }
    assert_int_equal(health_count(f->proxy->health), HEALTH_MAX_ENTRIES);
    assert_int_equal(health_look(f->proxy->health, claim_of(f, 0)->serial, PORT).failures, 0);
}

static void failures_never_eject_when_that_is_off(void **state)
{
    struct proxy_fixture *f = *state;
    f->settings->ejection.failures = 0;
    put_instances(f, three_running, same_weight);
    refuse(f, 0, 100);
    assert_false(is_ejected(f, 0));
}

int main(void)
{
    route_table_thread_begin();
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(requests_spread_by_weight),
        TEST(only_running_instances_get_requests),
        TEST(why_there_is_none_is_told),
        TEST(what_was_tried_is_not_picked_again),
        TEST(the_busier_of_two_loses),
        TEST(a_name_of_one_instance_means_that_one),
        TEST(pauses_grow_to_a_limit),
        TEST(an_answer_ends_the_verdict),
        TEST(only_failures_of_the_instance_count),
        TEST(ejected_ones_are_spared_until_too_many_are),
        TEST(the_last_one_is_tried_in_spite_of_all),
        TEST(an_idle_one_that_fails_is_not_preferred),
        TEST(the_next_boot_starts_clean),
        TEST(old_failures_are_forgiven_and_memory_is_bounded),
        TEST(failures_never_eject_when_that_is_off),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
