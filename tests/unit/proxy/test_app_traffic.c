#include "gateway/proxy/traffic_report.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint64_t second_us = 1000000;

static struct app_traffic_entry *enter(struct app_traffic *traffic, const char *app, uint64_t now_us)
{
    return app_traffic_enter(traffic, slice_str(app), now_us);
}

/* One whole request. */
static void make_request(struct app_traffic *traffic, const char *app, int status, uint64_t latency_us, uint64_t now_us)
{
    struct app_traffic_entry *entry = enter(traffic, app, now_us);
    app_traffic_answered(entry, latency_us);
    COUNTER_ADD(entry, bytes_in, 10);
    COUNTER_ADD(entry, bytes_out, 1000);
    app_traffic_leave(&entry, status, status == 502, now_us + latency_us);
    assert_null(entry);
}

static struct traffic_report *report_since(const struct traffic_sample *before, struct app_traffic *a,
                                           struct app_traffic *b)
{
    const struct app_traffic *const workers[] = {a, b};
    return traffic_report_new(before, workers, 2);
}

static struct traffic_sample *sample(struct app_traffic *a, struct app_traffic *b)
{
    const struct app_traffic *const workers[] = {a, b};
    return traffic_sample_take(workers, 2);
}

struct pair {
    struct app_traffic *a;
    struct app_traffic *b;
};

static int set_up(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    if (!pair)
        return -1;
    pair->a = app_traffic_new();
    pair->b = app_traffic_new();
    *state = pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;
    app_traffic_free(&pair->a);
    app_traffic_free(&pair->b);
    free(pair);
    return 0;
}

static void test_what_happened_between_two_moments(void **state)
{
    struct pair *p = *state;
    make_request(p->a, "one", 200, 1000, 1);
    struct traffic_sample *before = sample(p->a, p->b);
    make_request(p->a, "one", 404, 1000, 2);
    make_request(p->b, "one", 502, 3000, 2);
    make_request(p->b, "two", 200, 5000, 2);
    struct app_traffic_entry *open = enter(p->b, "three", 3);
    struct traffic_report *report = report_since(before, p->a, p->b);
    assert_true(traffic_report_sort(report, SLICE("app")));
    assert_int_equal(report->count, 3);
    assert_string_equal(report->rows[0].id, "one");
    assert_int_equal(report->rows[0].requests, 2);
    assert_int_equal(report->rows[0].responses_4xx, 1);
    assert_int_equal(report->rows[0].responses_5xx, 1);
    assert_int_equal(report->rows[0].gateway_errors, 1);
    assert_int_equal(report->rows[0].bytes_out, 2000);
    assert_int_equal(report->rows[0].in_progress, 0);
    assert_string_equal(report->rows[1].id, "three");
    assert_int_equal(report->rows[1].in_progress, 1);
    assert_string_equal(report->rows[2].id, "two");
    assert_int_equal(report->total.requests, 4);
    assert_int_equal(report->others.requests, 0);
    traffic_report_free(&report);
    traffic_sample_free(&before);

    before = sample(p->a, p->b);
    report = report_since(before, p->a, p->b);
    assert_int_equal(report->count, 1); /* what is in progress is shown, though nothing happens */
    assert_int_equal(report->rows[0].requests, 0);
    traffic_report_free(&report);
    app_traffic_leave(&open, 200, false, 9);
    report = report_since(before, p->a, p->b);
    assert_int_equal(report->count, 0);
    traffic_report_free(&report);
    traffic_sample_free(&before);
}

static void test_orders(void **state)
{
    static const char *const orders[] = {"requests", "active", "p50", "p99", "errors", "in", "out"};
    struct pair *p = *state;
    struct traffic_sample *before = sample(p->a, p->b);
    make_request(p->a, "small", 200, 100, 1);
    for (int i = 0; i < 3; i++)
        make_request(p->a, "great", 502, 90000, 1);
    struct app_traffic_entry *open = enter(p->a, "great", 1);
    struct traffic_report *report = report_since(before, p->a, p->b);
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        assert_true(traffic_report_sort(report, SLICE("app")));
        assert_true(traffic_report_sort(report, slice_str(orders[i])));
        assert_string_equal(report->rows[0].id, "great");
    }
    assert_false(traffic_report_sort(report, SLICE("size")));
    traffic_report_free(&report);
    traffic_sample_free(&before);
    app_traffic_leave(&open, 200, false, 2);
}

static void test_latencies(void **state)
{
    struct pair *p = *state;
    struct app_traffic_copy copy;
    uint32_t none[APP_TRAFFIC_BUCKETS] = {0};
    struct app_traffic_entry *entry = enter(p->a, "one", 1);
    assert_int_equal(app_traffic_latency_us(none, 500), 0);
    for (uint64_t us = 20; us < 100 * second_us; us += us / 3) {
        struct app_traffic *fresh = app_traffic_new();
        make_request(fresh, "app", 200, us, 1);
        for (size_t i = 0; i + 1 < APP_TRAFFIC_ENTRIES; i++)
            if (app_traffic_read(fresh, i, &copy))
                assert_in_range(app_traffic_latency_us(copy.latency, 500), us - us / 14 - 16, us + us / 14 + 16);
        app_traffic_free(&fresh);
    }
    for (int i = 1; i <= 1000; i++)
        app_traffic_answered(entry, i <= 980 ? 1000 : 50000);
    app_traffic_answered(entry, UINT64_MAX);
    for (size_t i = 0; i + 1 < APP_TRAFFIC_ENTRIES; i++) {
        if (!app_traffic_read(p->a, i, &copy))
            continue;
        assert_in_range(app_traffic_latency_us(copy.latency, 500), 930, 1070);
        assert_in_range(app_traffic_latency_us(copy.latency, 990), 46500, 53500);
        assert_true(app_traffic_latency_us(copy.latency, 1000) > 100 * second_us);
    }
    app_traffic_leave(&entry, 200, false, 2);
}

static void test_idle_apps_give_their_entries(void **state)
{
    struct pair *p = *state;
    char app[32];
    uint64_t idle_us = APP_TRAFFIC_IDLE_MS * (uint64_t)1000;
    for (int i = 0; i < 5000; i++) {
        snprintf(app, sizeof app, "early-%d", i);
        make_request(p->a, app, 200, 100, 1);
    }
    struct traffic_sample *before = sample(p->a, p->b);
    for (int i = 0; i < 5000; i++) {
        snprintf(app, sizeof app, "late-%d", i);
        make_request(p->a, app, 200, 100, idle_us + 200);
    }
    struct traffic_report *report = report_since(before, p->a, p->b);
    assert_int_equal(report->total.requests, 5000); /* none is lost, and none counted twice */
    assert_true(report->others.requests > 0);
    assert_int_equal(report->count + report->others.requests, 5000);
    assert_in_range(report->count, APP_TRAFFIC_ENTRIES * 9 / 10, APP_TRAFFIC_ENTRIES - 1);
    for (size_t i = 0; i < report->count; i++)
        assert_int_equal(strncmp(report->rows[i].id, "late-", 5), 0);
    traffic_report_free(&report);
    traffic_sample_free(&before);
}

static void test_busy_apps_keep_theirs(void **state)
{
    struct pair *p = *state;
    char app[32];
    struct app_traffic_entry *open = enter(p->a, "busy", 1);
    for (int i = 0; i < 5000; i++) {
        snprintf(app, sizeof app, "app-%d", i);
        make_request(p->a, app, 200, 100, 3600 * second_us + (uint64_t)i);
    }
    assert_ptr_equal(enter(p->a, "busy", 7200 * second_us), open);
    struct app_traffic_entry *again = open;
    app_traffic_leave(&open, 200, false, 7200 * second_us);
    app_traffic_leave(&again, 200, false, 7200 * second_us);
    app_traffic_leave(&again, 200, false, 7200 * second_us); /* NULL */
}

static void test_long_ids(void **state)
{
    struct pair *p = *state;
    const char *id = "0123456789012345678901234567890123456789012345678901234567890ab"; /* 63 bytes */
    struct traffic_sample *before = sample(p->a, p->b);
    make_request(p->a, id, 200, 1, 1);
    make_request(p->a, id, 200, 1, 1);
    struct traffic_report *report = report_since(before, p->a, p->b);
    assert_int_equal(report->count, 1);
    assert_string_equal(report->rows[0].id, id);
    assert_int_equal(report->rows[0].requests, 2);
    traffic_report_free(&report);
    traffic_sample_free(&before);
}

/* ---- a reader beside the worker ---- */

static void *churn(void *arg)
{
    struct app_traffic *traffic = arg;
    char app[32];
    uint64_t now_us = 1;
    for (int round = 0; round < 300; round++, now_us += 11 * second_us)
        for (int i = 0; i < 200; i++) {
            snprintf(app, sizeof app, "%d", round * 200 + i);
            for (int k = 0; k < 2; k++) {
                struct app_traffic_entry *entry = enter(traffic, app, now_us);
                COUNTER_ADD(entry, bytes_in, round * 200 + i);
                app_traffic_leave(&entry, 200, false, now_us);
            }
        }
    return NULL;
}

static void test_readers_see_no_mixture_of_apps(void **state)
{
    struct pair *p = *state;
    pthread_t thread;
    struct app_traffic_copy copy;
    assert_int_equal(pthread_create(&thread, NULL, churn, p->a), 0);
    for (int round = 0; round < 100; round++)
        for (size_t i = 0; i + 1 < APP_TRAFFIC_ENTRIES; i++) {
            if (!app_traffic_read(p->a, i, &copy))
                continue;
            uint64_t number;
            assert_true(slice_to_u64(slice_str(copy.id), &number));
            assert_true(copy.bytes_in == 0 || copy.bytes_in == number || copy.bytes_in == 2 * number);
            assert_in_range(copy.requests, 0, 2);
        }
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_happened_between_two_moments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_orders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_latencies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idle_apps_give_their_entries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_busy_apps_keep_theirs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_ids, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_readers_see_no_mixture_of_apps, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
