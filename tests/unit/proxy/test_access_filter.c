#include "gateway/proxy/access_filter.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char sample[] =
    "{\"time\":\"2026-01-31T23:59:59.123Z\",\"host\":\"Shop.example.com\",\"app_id\":\"abc\",\"instance_id\":\"abc-"
    "i1\","
    "\"port\":80,\"method\":\"GET\",\"path\":\"/a/\\\"b\\\\c\\u001b\\u00e9\\u202e?q=/z\",\"status\":502,\"bytes_in\":0,"
    "\"total_ms\":1500.250,\"error\":\"connect_refused\",\"user_agent\":\"},\\\"status\\\":200,\"}\n";

static bool wants(const char *name, const char *value)
{
    struct access_filter filter = {.status_count = 0};
    struct access_line line;
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    if (!access_filter_set(&filter, slice_str(name), slice_str(value), problem))
        fail_msg("%s=%s: %s", name, value, problem);
    assert_true(access_line_parse(slice_str(sample), &line));
    return access_filter_wants(&filter, &line);
}

static void test_a_line_is_read_as_it_was_written(void **state)
{
    struct access_line line;
    (void)state;
    assert_true(access_line_parse(slice_str(sample), &line));
    assert_true(slice_eq(line.app_id, SLICE("abc")));
    assert_true(slice_eq(line.status, SLICE("502")));
    assert_true(slice_eq(line.total_ms, SLICE("1500.250")));
    assert_true(slice_eq(line.error, SLICE("connect_refused")));
    assert_true(slice_eq(line.method, SLICE("GET")));
}

static void test_what_is_no_line(void **state)
{
    static const char *const cases[] = {"",       "\n",        "{",          "{\"a\":x",    "[]",
                                        "{\"a\"", "{\"a\":",   "{\"a\":\"b", "{\"a\":1,",   "{\"a\":\"\\",
                                        "{a:1}",  "{\"a\" 1}", "{\"a\":}",   "combined log"};
    struct access_line line;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (access_line_parse(slice_str(cases[i]), &line))
            fail_msg("%s is taken for a line", cases[i]);
}

static void test_statuses(void **state)
{
    (void)state;
    assert_true(wants("status", "502"));
    assert_true(wants("status", "5xx"));
    assert_true(wants("status", "5XX"));
    assert_true(wants("status", ">=502"));
    assert_true(wants("status", ">501"));
    assert_true(wants("status", "<503"));
    assert_true(wants("status", "<=502"));
    assert_true(wants("status", "500-502"));
    assert_true(wants("status", "404, 5xx"));
    assert_false(wants("status", "404,4xx"));
    assert_false(wants("status", ">502"));
    assert_false(wants("status", "<502"));
    assert_false(wants("status", "400-501"));
}

static void test_durations(void **state)
{
    (void)state;
    assert_true(wants("slower_than", "1500ms"));
    assert_true(wants("slower_than", "1.5s"));
    assert_true(wants("slower_than", "1500249us"));
    assert_true(wants("slower_than", "0s"));
    assert_true(wants("slower_than", "0.025m"));
    assert_false(wants("slower_than", "1500250us"));
    assert_false(wants("slower_than", "1.501s"));
    assert_false(wants("slower_than", "1m"));
}

static void test_texts(void **state)
{
    (void)state;
    assert_true(wants("app", "ABC"));
    assert_true(wants("app", "abc-i1"));
    assert_false(wants("app", "ab"));
    assert_true(wants("host", "*.EXAMPLE.com"));
    assert_false(wants("host", "*.example.org"));
    assert_true(wants("method", "get"));
    assert_false(wants("method", "POST"));
    assert_true(wants("error", ""));
    assert_true(wants("error", "1"));
    assert_true(wants("error", "connect_*"));
    assert_false(wants("error", "app_unknown"));
}

static void test_paths_are_compared_without_escapes_and_query(void **state)
{
    (void)state;
    assert_true(wants("path", "/a/\"b\\c\x1b\xc3\xa9\xe2\x80\xae"));
    assert_true(wants("path", "/a/*"));
    assert_true(wants("path", "*\xae"));
    assert_true(wants("path", "/?/?b*"));
    assert_true(wants("path", "*a*b*c*"));
    assert_true(wants("path", "**"));
    assert_false(wants("path", "*z"));
    assert_false(wants("path", "/A/*"));
    assert_false(wants("path", "/a/"));
}

static void test_all_conditions_hold(void **state)
{
    struct access_filter filter = {.status_count = 0};
    struct access_line line;
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    (void)state;
    assert_true(access_line_parse(slice_str(sample), &line));
    assert_true(access_filter_wants(&filter, &line));
    assert_true(access_filter_set(&filter, SLICE("status"), SLICE("5xx"), problem));
    assert_true(access_filter_set(&filter, SLICE("app"), SLICE("abc"), problem));
    assert_true(access_filter_wants(&filter, &line));
    assert_true(access_filter_set(&filter, SLICE("method"), SLICE("PUT"), problem));
    assert_false(access_filter_wants(&filter, &line));
}

static void test_a_line_without_the_member_does_not_match(void **state)
{
    static const char *const conditions[][2] = {
        {"status", "<999"}, {"app", "*x"}, {"error", "1"}, {"slower_than", "0s"}};
    (void)state;
    for (size_t i = 0; i < sizeof conditions / sizeof conditions[0]; i++) {
        struct access_filter filter = {.status_count = 0};
        struct access_line line;
        char problem[ACCESS_FILTER_PROBLEM_MAX];
        assert_true(access_filter_set(&filter, slice_str(conditions[i][0]), slice_str(conditions[i][1]), problem));
        assert_true(access_line_parse(SLICE("{\"time\":\"x\"}\n"), &line));
        assert_false(access_filter_wants(&filter, &line));
    }
}

static void test_wrong_conditions(void **state)
{
    static const char *const cases[][2] = {
        {"status", ""},
        {"status", "-"},
        {"status", "x"},
        {"status", "1000"},
        {"status", "500-400"},
        {"status", ">=5xx"},
        {"status", "5x"},
        {"status", "404,,x"},
        {"status", "1-"},
        {"status", ">"},
        {"slower_than", ""},
        {"slower_than", "5"},
        {"slower_than", "ms"},
        {"slower_than", "1.s"},
        {"slower_than", "-1s"},
        {"slower_than", "1.2345s"},
        {"slower_than", "1h"},
        {"slower_than", "1e3ms"},
        {"app", ""},
        {"host", ""},
        {"nothing", "x"},
        {"slower_than", "99999999999s"},
        {"status", "1,2,3,4,5,6,7,8,9"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_filter filter = {.status_count = 0};
        char problem[ACCESS_FILTER_PROBLEM_MAX] = "";
        if (access_filter_set(&filter, slice_str(cases[i][0]), slice_str(cases[i][1]), problem))
            fail_msg("%s=%s is taken", cases[i][0], cases[i][1]);
    }
    char long_text[ACCESS_FILTER_TEXT_MAX + 1];
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    struct access_filter filter = {.status_count = 0};
    memset(long_text, 'a', sizeof long_text);
    assert_false(access_filter_set(&filter, SLICE("path"), slice_make(long_text, sizeof long_text), problem));
    assert_true(access_filter_set(&filter, SLICE("path"), slice_make(long_text, sizeof long_text - 1), problem));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_is_read_as_it_was_written),
        cmocka_unit_test(test_what_is_no_line),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_paths_are_compared_without_escapes_and_query),
        cmocka_unit_test(test_all_conditions_hold),
        cmocka_unit_test(test_a_line_without_the_member_does_not_match),
        cmocka_unit_test(test_wrong_conditions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
