#include "gateway/proxy/upstream.h"

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
    static const uint16_t equal[3] = {1, 1, 1}, uneven[3] = {1, 3, 0};
    struct proxy_fixture *f = *state;
    unsigned counts[3];
    enum status status;
    put_instances(f, all_running, equal);
    pick_often(f, &none_tried, counts, &status);
    for (int i = 0; i < 3; i++)
        assert_in_range(counts[i], TRIES / 6, TRIES / 2);
    put_instances(f, all_running, uneven);
    pick_often(f, &none_tried, counts, &status);
    assert_true(counts[1] > counts[0]);
    assert_true(counts[0] > 0);
    assert_int_equal(counts[2], 0);
    assert_int_equal(counts[0] + counts[1], TRIES);
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
    enum status status;
    bool reused;
    put_instances(f, two_running, equal);
    uint16_t port = 0;
    int listening = listen_at(FIRST_HOST, &port);
    route_table_read_begin();
    struct claim *claim = route_table_app(f->table, SLICE("app"))->instances[0].claim;
    struct pool_target target = {.claim = claim, .port = port};
    endpoint = pool_open(f->proxy->pool, f->settings, &target, false, &reused, &status);
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

int main(void)
{
    route_table_thread_begin();
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(requests_spread_by_weight), TEST(only_running_instances_get_requests),
        TEST(why_there_is_none_is_told), TEST(what_was_tried_is_not_picked_again),
        TEST(the_busier_of_two_loses),   TEST(a_name_of_one_instance_means_that_one),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
