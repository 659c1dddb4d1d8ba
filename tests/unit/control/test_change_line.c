/* change_line: what is read of a line, and what is refused. Whole calls are in tests/e2e/test_changes.py. */
#include "gateway/control/change_line.h"

#include "gateway/control/changes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST     "4611686018427387904"
#define TOO_MUCH "4611686018427387905"

static const struct {
    const char *json;
    enum change_op op; /* also of a line that is refused */
    enum status status;
    const char *field;
} revisions[] = {
    {"{\"op\":\"heartbeat\",\"revision\":" MOST ",\"apps\":0,\"digest\":\"0123456789abcdef\"}", CHANGE_HEARTBEAT,
     STATUS_OK, ""},
    {"{\"op\":\"heartbeat\",\"revision\":" TOO_MUCH ",\"apps\":0,\"digest\":\"0123456789abcdef\"}", CHANGE_HEARTBEAT,
     STATUS_INVALID_RECORD, "revision"},
    {"{\"op\":\"delete\",\"revision\":" MOST ",\"app_id\":\"a\"}", CHANGE_DELETE, STATUS_OK, ""},
    {"{\"revision\":" TOO_MUCH ",\"op\":\"delete\",\"app_id\":\"a\"}", CHANGE_DELETE, STATUS_INVALID_RECORD,
     "revision"},
    {"{\"op\":\"put\",\"revision\":" MOST ",\"app\":{\"app_id\":\"a\",\"revision\":" MOST "}}", CHANGE_PUT, STATUS_OK,
     ""},
    {"{\"op\":\"put\",\"revision\":" TOO_MUCH ",\"app\":{\"app_id\":\"a\"}}", CHANGE_PUT, STATUS_INVALID_RECORD,
     "revision"},
    {"{\"op\":\"put\",\"app\":{\"app_id\":\"a\",\"revision\":" TOO_MUCH "}}", CHANGE_PUT, STATUS_INVALID_RECORD,
     "app.revision"},
    {"{\"op\":\"end\",\"code\":\"shutdown\",\"revision\":" TOO_MUCH "}", CHANGE_END, STATUS_OK, ""},
};

static void test_revisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof revisions / sizeof revisions[0]; i++) {
        struct change_line line;
        struct route_problem problem = {.status = STATUS_OK};
        enum status status = change_line_parse(slice_str(revisions[i].json), CHANGES_MAX_REVISION, &line, &problem);
        if (status != revisions[i].status || strcmp(problem.field, revisions[i].field) != 0)
            fail_msg("%s: %s: %s", revisions[i].json, problem.field, problem.detail);
        assert_int_equal(line.op, revisions[i].op);
        if (status != STATUS_OK) {
            assert_null(line.app);
            assert_int_equal(line.revision, 0);
            assert_string_equal(problem.detail, TOO_MUCH " is out of range; use 0 to " MOST);
        }
        route_app_free(&line.app);
    }
}

static void test_the_greatest_revision_is_the_callers_to_say(void **state)
{
    static const char *const lines[] = {"{\"op\":\"delete\",\"revision\":8,\"app_id\":\"x\"}",
                                        "{\"op\":\"rename\",\"revision\":8}"};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct change_line line;
        struct route_problem problem;
        assert_int_equal(change_line_parse(slice_str(lines[i]), 7, &line, &problem), STATUS_INVALID_RECORD);
        assert_int_equal(line.revision, 0);
        assert_int_equal(change_line_parse(slice_str(lines[i]), 8, &line, &problem),
                         i == 0 ? STATUS_OK : STATUS_INVALID_RECORD);
        assert_int_equal(line.revision, 8);
    }
}

static void test_a_refused_line_has_its_revision(void **state)
{
    static const char *const lines[] = {"{\"op\":\"rename\",\"revision\":7}", "{\"revision\":7}",
                                        "{\"op\":\"put\",\"revision\":7,\"app\":{\"app_id\":\"x\",\"ports\":7}}",
                                        "{\"op\":\"delete\",\"revision\":7,\"app\":1}"};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct change_line line;
        struct route_problem problem = {.status = STATUS_OK};
        assert_int_equal(change_line_parse(slice_str(lines[i]), CHANGES_MAX_REVISION, &line, &problem),
                         STATUS_INVALID_RECORD);
        assert_int_equal(line.revision, 7);
        assert_null(line.app);
    }
}

/* As long as a record can be, but for what it is judged by as a whole. */
static void fill_longest(struct route_app *app)
{
    static char path[ROUTE_CHECK_MAX_PATH + 1], label[HOSTNAME_MAX_LABEL + 1], name[HOSTNAME_MAX + 1];
    struct route_instance instance = {
        .id = label, .generation = INT64_MAX, .state = ROUTE_STATE_STARTING, .weight = ROUTE_MAX_WEIGHT};
    memset(path, '"', sizeof path - 1);
    memset(label, 'a', sizeof label - 1);
    memset(name, 'a', sizeof name - 1);
    path[0] = '/';
    assert_true(ip_parse(SLICE("1111:2222:3333:4444:5555:6666:7777:8888"), &instance.address));
    app->id = label;
    app->revision = CHANGES_MAX_REVISION;
    app->max_connections = app->requests_per_second = UINT32_MAX;
    for (size_t i = 0; i < ROUTE_MAX_PORTS; i++) {
        uint16_t port = (uint16_t)(UINT16_MAX - ROUTE_MAX_PORTS + i);
        app->ports[i] = (struct route_port){.port = port, .protocol = ROUTE_PROTOCOL_PASSTHROUGH};
        app->checks[i] = (struct route_check){port, ROUTE_CHECK_HTTP, 10, 10, 300000, 60000, path};
        app->domains[i] = (struct route_domain){name, UINT16_MAX};
    }
    for (size_t i = 0; i < ROUTE_MAX_INSTANCES; i++)
        app->instances[i] = instance;
}

/* What one gateway holds can be told to another, however long it is. */
static void test_the_longest_record_fits(void **state)
{
    static struct route_port ports[ROUTE_MAX_PORTS];
    static struct route_check checks[ROUTE_MAX_PORTS];
    static struct route_domain domains[ROUTE_MAX_DOMAINS];
    static struct route_instance instances[ROUTE_MAX_INSTANCES];
    struct route_app app = {.ports = ports, .checks = checks, .domains = domains, .instances = instances};
    struct change_line line;
    struct route_problem problem;
    (void)state;
    app.port_count = app.check_count = ROUTE_MAX_PORTS;
    app.domain_count = ROUTE_MAX_DOMAINS;
    app.instance_count = ROUTE_MAX_INSTANCES;
    fill_longest(&app);
    char *text = change_line_put(&app);
    assert_in_range(strlen(text), APP_DOCUMENT_MAX_BYTES / 4, APP_DOCUMENT_MAX_BYTES);
    if (change_line_parse(slice_str(text), CHANGES_MAX_REVISION, &line, &problem) != STATUS_OK)
        fail_msg("%s: %s", problem.field, problem.detail);
    assert_true(route_app_equal(line.app, &app));
    route_app_free(&line.app);
    free(text);
}

static void test_the_longest_line(void **state)
{
    static const char json[] = "{\"op\":\"put\",\"app\":{\"app_id\":\"a\"}}";
    struct change_line line;
    struct route_problem problem;
    char *text = test_malloc(CHANGE_LINE_MAX_BYTES + 1);
    (void)state;
    memset(text, ' ', CHANGE_LINE_MAX_BYTES + 1);
    memcpy(text, json, sizeof json - 1);
    assert_int_equal(change_line_parse(slice_make(text, CHANGE_LINE_MAX_BYTES), CHANGES_MAX_REVISION, &line, &problem),
                     STATUS_OK);
    route_app_free(&line.app);
    assert_int_equal(
        change_line_parse(slice_make(text, CHANGE_LINE_MAX_BYTES + 1), CHANGES_MAX_REVISION, &line, &problem),
        STATUS_PAYLOAD_TOO_LARGE);
    assert_non_null(strstr(problem.detail, "at most 1049600 are read"));
    test_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_the_greatest_revision_is_the_callers_to_say),
        cmocka_unit_test(test_a_refused_line_has_its_revision),
        cmocka_unit_test(test_the_longest_record_fits),
        cmocka_unit_test(test_the_longest_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
