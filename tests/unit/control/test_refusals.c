/* refusals: what is in the set, and its digest. */
#include "../../../gateway/control/refusals.h"

#include "gateway/control/changes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>

static void members_and_digest(void **state)
{
    (void)state;
    struct refusals r = {.root = NULL};
    assert_false(refusals_has(&r, SLICE("a"), 1));
    refusals_remove(&r, SLICE("a"));
    refusals_put(&r, SLICE("a"), 1);
    refusals_put(&r, SLICE("bb"), 7);
    assert_true(refusals_has(&r, SLICE("a"), 1));
    assert_false(refusals_has(&r, SLICE("a"), 2));
    assert_false(refusals_has(&r, SLICE("b"), 7));
    assert_int_equal(r.count, 2);
    assert_true(r.digest == (changes_digest_of(SLICE("a"), 1) ^ changes_digest_of(SLICE("bb"), 7)));
    refusals_put(&r, SLICE("a"), 2); /* instead of the older one */
    assert_int_equal(r.count, 2);
    assert_false(refusals_has(&r, SLICE("a"), 1));
    assert_true(r.digest == (changes_digest_of(SLICE("a"), 2) ^ changes_digest_of(SLICE("bb"), 7)));
    refusals_remove(&r, SLICE("bb"));
    assert_true(r.digest == changes_digest_of(SLICE("a"), 2));
    refusals_clear(&r);
    assert_int_equal(r.count, 0);
    assert_true(r.digest == 0);
    refusals_clear(&r);
}

static void many(void **state)
{
    (void)state;
    struct refusals r = {.root = NULL};
    char id[16];
    for (int i = 0; i < 1000; i++) {
        int len = snprintf(id, sizeof id, "app-%d", i);
        refusals_put(&r, slice_make(id, (size_t)len), (uint64_t)i + 1);
    }
    assert_int_equal(r.count, 1000);
    for (int i = 0; i < 1000; i += 2) {
        int len = snprintf(id, sizeof id, "app-%d", i);
        refusals_remove(&r, slice_make(id, (size_t)len));
    }
    assert_int_equal(r.count, 500);
    assert_true(refusals_has(&r, SLICE("app-999"), 1000));
    assert_false(refusals_has(&r, SLICE("app-998"), 999));
    refusals_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_and_digest),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
