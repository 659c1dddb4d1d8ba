#include "gateway/base/backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { DRAWS = 200 };

static void half_to_all_of_it(void **state)
{
    (void)state;
    uint64_t first = backoff_jittered(100000);
    unsigned others = 0;
    for (int i = 0; i < DRAWS; i++) {
        uint64_t ms = backoff_jittered(100000);
        assert_in_range(ms, 50000, 100000);
        others += ms != first;
    }
    assert_int_not_equal(others, 0);
}

static void small_and_large_ones(void **state)
{
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        assert_int_equal(backoff_jittered(0), 0);
        assert_int_equal(backoff_jittered(1), 1);
        assert_in_range(backoff_jittered(2), 1, 2);
        assert_in_range(backoff_jittered(UINT64_MAX), UINT64_MAX / 2, UINT64_MAX);
    }
}

static void twice_as_long_after_each_failure(void **state)
{
    (void)state;
    static const uint64_t wanted[] = {200, 400, 800, 1600, 3200, 5000, 5000};
    for (unsigned failures = 0; failures < sizeof wanted / sizeof *wanted; failures++)
        for (int i = 0; i < DRAWS; i++)
            assert_in_range(backoff_ms(200, 5000, failures), wanted[failures] / 2, wanted[failures]);
    assert_in_range(backoff_ms(200, 5000, UINT32_MAX), 2500, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_to_all_of_it),
        cmocka_unit_test(small_and_large_ones),
        cmocka_unit_test(twice_as_long_after_each_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
