#include "gateway/route/meter.h"

#include "gateway/route/route_table.h"

#include "route/route_fixture.h"

#include <pthread.h>

enum { SECOND_US = 1000000 };

static void places_are_limited(void **state)
{
    (void)state;
    struct meter *meter = meter_new(), *in[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(meter_enter(meter, 3, 0, 0), STATUS_OK);
        in[i] = meter;
    }
    assert_int_equal(meter_enter(meter, 3, 0, 0), STATUS_APP_BUSY);
    assert_int_equal(meter_enter(meter, 4, 0, 0), STATUS_OK); /* a new record raised it */
    meter_leave(&in[0]);
    assert_null(in[0]);
    meter_leave(&in[0]); /* accepts NULL */
    assert_int_equal(meter_enter(meter, 3, 0, 0), STATUS_APP_BUSY);
    meter_leave(&in[1]);
    assert_int_equal(meter_enter(meter, 3, 0, 0), STATUS_OK);
    meter_leave(&in[2]);
    in[0] = in[1] = meter;
    meter_leave(&in[0]);
    meter_leave(&in[1]);
    assert_int_equal(meter->in_progress, 0);
    meter_unref(&meter);
    meter_unref(&meter); /* accepts NULL */
}

static bool enters(struct meter *meter, uint32_t per_second, uint64_t now_us)
{
    struct meter *in = meter;
    enum status status = meter_enter(meter, 0, per_second, now_us);
    if (status == STATUS_OK)
        meter_leave(&in);
    else
        assert_int_equal(status, STATUS_RATE_LIMITED);
    return status == STATUS_OK;
}

static void a_seconds_worth_may_come_at_once(void **state)
{
    (void)state;
    struct meter *meter = meter_new();
    uint64_t now_us = 77 * SECOND_US;
    for (int i = 0; i < 10; i++)
        assert_true(enters(meter, 10, now_us));
    assert_false(enters(meter, 10, now_us));
    now_us += SECOND_US / 10;
    assert_true(enters(meter, 10, now_us)); /* one is paid back */
    assert_false(enters(meter, 10, now_us));
    assert_false(enters(meter, 10, now_us + SECOND_US / 10 - 1));
    now_us += 1000ULL * SECOND_US; /* idleness saves up no more than that */
    for (int i = 0; i < 10; i++)
        assert_true(enters(meter, 10, now_us));
    assert_false(enters(meter, 10, now_us));
    assert_int_equal(meter->in_progress, 0);
    meter_unref(&meter);
}

static void extreme_rates(void **state)
{
    (void)state;
    struct meter *meter = meter_new();
    assert_true(enters(meter, 1, SECOND_US));
    assert_false(enters(meter, 1, 2 * SECOND_US - 1));
    assert_true(enters(meter, 1, 2 * SECOND_US));
    for (int i = 0; i < 1000; i++)
        assert_true(enters(meter, UINT32_MAX, 9 * SECOND_US));
    meter_unref(&meter);
}

enum { THREADS = 4, TRIES = 20000, PLACES = 3, RATE = 5000 };

struct shared {
    struct meter *meter;
    _Atomic unsigned inside;
    _Atomic unsigned most;
    _Atomic unsigned entered;
};

static void *enter_often(void *arg)
{
    struct shared *shared = arg;
    for (int i = 0; i < TRIES; i++) {
        struct meter *in = shared->meter;
        if (meter_enter(shared->meter, PLACES, RATE, SECOND_US) != STATUS_OK)
            continue;
        unsigned inside = atomic_fetch_add(&shared->inside, 1) + 1, most = atomic_load(&shared->most);
        while (inside > most && !atomic_compare_exchange_weak(&shared->most, &most, inside))
            continue;
        atomic_fetch_add(&shared->entered, 1);
        atomic_fetch_sub(&shared->inside, 1);
        meter_leave(&in);
    }
    return NULL;
}

/* The clock stands: exactly one second's worth may enter, however many ask. */
static void limits_hold_over_threads(void **state)
{
    (void)state;
    struct shared shared = {.meter = meter_new()};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, enter_often, &shared), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(shared.entered, RATE);
    assert_in_range(shared.most, 1, PLACES);
    assert_int_equal(shared.meter->in_progress, 0);
    assert_int_equal(shared.meter->refs, 1);
    meter_unref(&shared.meter);
}

static struct route_app *limited_app(uint32_t max_connections)
{
    struct route_app *app = route_app_new("app");
    app->max_connections = max_connections;
    return app;
}

static const struct meter *put(struct route_table *table, struct route_app *app)
{
    struct route_problem problem;
    assert_int_equal(route_table_stage_put(table, app, &problem), STATUS_OK);
    route_table_publish(table, NULL, NULL);
    return app->meter;
}

static void an_apps_meter_goes_on_from_record_to_record(void **state)
{
    (void)state;
    struct route_table *table = route_table_new();
    struct route_problem problem;
    assert_null(put(table, limited_app(0)));
    const struct meter *meter = put(table, limited_app(5));
    assert_non_null(meter);
    assert_ptr_equal(put(table, limited_app(6)), meter);
    assert_int_equal(route_table_stage_put(table, limited_app(7), &problem), STATUS_OK);
    route_table_abort(table);
    assert_int_equal(meter->refs, 1);
    assert_null(put(table, limited_app(0)));
    assert_non_null(put(table, limited_app(8)));
    route_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_limited),
        cmocka_unit_test(a_seconds_worth_may_come_at_once),
        cmocka_unit_test(extreme_rates),
        cmocka_unit_test(limits_hold_over_threads),
        cmocka_unit_test(an_apps_meter_goes_on_from_record_to_record),
    };
    route_table_thread_begin();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
