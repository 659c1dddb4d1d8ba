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
        enum status status = change_line_parse(slice_str(revisions[i].json), &line, &problem);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_revisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
