#include "gateway/base/status.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void test_rows_are_complete(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STATUS_COUNT; i++) {
        enum status status = (enum status)i;
        int http = status_http(status);
        const char *code = status_code(status);
        assert_true(strlen(code) > 0 && strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(code));
        assert_true(strlen(status_what(status)) > 0);
        assert_true(http == 0 || http == 200 || (http >= 400 && http < 600));
        assert_true(status_h2(status) <= H2_HTTP_1_1_REQUIRED);
        const char *advice = status_advice(status);
        assert_true(advice[0] == '\0' || advice[strlen(advice) - 1] == '.');
        if (http != 0 && status_reason(http)[0] == '\0')
            fail_msg("%s: %d has no reason phrase", code, http);
    }
}

static void test_codes_are_unique(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STATUS_COUNT; i++)
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(status_code((enum status)i), status_code((enum status)j));
}

static void test_some_rows(void **state)
{
    (void)state;
    assert_int_equal(STATUS_OK, 0);
    assert_string_equal(status_code(STATUS_HOST_UNKNOWN), "host_unknown");
    assert_int_equal(status_http(STATUS_HOST_UNKNOWN), 404);
    assert_int_equal(status_http(STATUS_PEER_CLOSED), 0);
    assert_int_equal(status_h2(STATUS_HEAD_TOO_LARGE), H2_ENHANCE_YOUR_CALM);
}

static void test_reasons(void **state)
{
    (void)state;
    assert_string_equal(status_reason(200), "OK");
    assert_string_equal(status_reason(421), "Misdirected Request");
    assert_string_equal(status_reason(299), "");
    assert_string_equal(status_reason(-1), "");
}

/* A grpc-message is sent as it is: without what would have to be percent-encoded. */
static void test_grpc(void **state)
{
    (void)state;
    assert_int_equal(status_grpc(STATUS_APP_UNKNOWN), 12);
    assert_int_equal(status_grpc(STATUS_UNAUTHORIZED), 16);
    assert_int_equal(status_grpc(STATUS_BAD_FIELD_VALUE), 13);
    assert_int_equal(status_grpc(STATUS_RATE_LIMITED), 14);
    assert_int_equal(status_grpc(STATUS_CONNECT_REFUSED), 14);
    assert_int_equal(status_grpc(STATUS_CONNECT_TIMEOUT), 14);
    assert_int_equal(status_grpc(STATUS_APP_STARTING), 14);
    assert_int_equal(status_grpc(STATUS_UPSTREAM_TIMEOUT), 4);
    assert_int_equal(status_grpc(STATUS_UPSTREAM_STALLED), 4);
    assert_int_equal(status_grpc(STATUS_HEAD_TOO_LARGE), 2);
    for (unsigned i = 1; i < STATUS_COUNT; i++) {
        assert_in_range(status_grpc((enum status)i), 1, 16);
        for (const char *c = status_what((enum status)i); *c; c++)
            assert_true(*c >= ' ' && *c <= '~' && *c != '%');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_complete),
        cmocka_unit_test(test_codes_are_unique),
        cmocka_unit_test(test_some_rows),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_grpc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
