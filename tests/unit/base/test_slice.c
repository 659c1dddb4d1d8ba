#include "gateway/base/slice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_equality(void **state)
{
    (void)state;
    assert_true(slice_eq(SLICE("ab"), SLICE("ab")));
    assert_false(slice_eq(SLICE("ab"), SLICE("aB")));
    assert_false(slice_eq(SLICE("ab"), SLICE("abc")));
    assert_true(slice_eq(SLICE_NONE, SLICE("")));
    assert_true(slice_eq_nocase(SLICE("aB-9"), SLICE("Ab-9")));
    assert_false(slice_eq_nocase(SLICE("@["), SLICE("`{")));
    assert_true(slice_eq_nocase(SLICE_NONE, SLICE_NONE));
}

static void test_parts(void **state)
{
    (void)state;
    assert_true(slice_has_prefix(SLICE("abc"), SLICE("ab")));
    assert_true(slice_has_prefix(SLICE("abc"), SLICE_NONE));
    assert_false(slice_has_prefix(SLICE("a"), SLICE("ab")));
    assert_true(slice_eq(slice_from(SLICE("abc"), 1), SLICE("bc")));
    assert_int_equal(slice_from(SLICE("abc"), 3).len, 0);
    assert_int_equal(slice_from(SLICE("abc"), 9).len, 0);
    assert_int_equal(slice_str(NULL).len, 0);
}

static void test_trim(void **state)
{
    (void)state;
    assert_true(slice_eq(slice_trim(SLICE(" \t a b\t ")), SLICE("a b")));
    assert_int_equal(slice_trim(SLICE(" \t ")).len, 0);
    assert_int_equal(slice_trim(SLICE_NONE).len, 0);
    assert_true(slice_eq(slice_trim(SLICE("\x0b"
                                          "a")),
                         SLICE("\x0b"
                               "a")));
}

static void test_list_elements(void **state)
{
    static const char *const wanted[] = {"a", "b c", "\"x, y\"", "\"\\\"\"", "d"};
    struct slice list = SLICE(" ,a,, b c\t,\"x, y\",\"\\\"\",,d, ,"), element;
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_true(slice_next_element(&list, &element));
        assert_true(slice_eq(element, slice_str(wanted[i])));
    }
    assert_false(slice_next_element(&list, &element));
    list = SLICE("\"open, b\\");
    assert_true(slice_next_element(&list, &element));
    assert_true(slice_eq(element, SLICE("\"open, b\\")));
    assert_false(slice_next_element(&list, &element));
}

static void test_list_has(void **state)
{
    (void)state;
    assert_true(slice_list_has(SLICE("keep-alive, Upgrade"), SLICE("upgrade")));
    assert_false(slice_list_has(SLICE("keep-alive, Upgraded"), SLICE("upgrade")));
    assert_false(slice_list_has(SLICE("\"upgrade\""), SLICE("upgrade")));
    assert_false(slice_list_has(SLICE_NONE, SLICE("upgrade")));
}

static void test_numbers(void **state)
{
    static const char *const bad[] = {
        "", "+1", "-1", " 1", "1 ", "1a", "0x1", "18446744073709551616", "99999999999999999999"};
    uint64_t value = 7;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(slice_to_u64(slice_str(bad[i]), &value));
    assert_true(value == 7);
    assert_true(slice_to_u64(SLICE("18446744073709551615"), &value) && value == UINT64_MAX);
    assert_true(slice_to_u64(SLICE("007"), &value) && value == 7);
    assert_true(slice_to_u64(SLICE("0"), &value) && value == 0);
}

static void test_eq_nocase_of_all_lengths(void **state)
{
    (void)state;
    for (size_t len = 0; len <= 26; len++) {
        char *a = malloc(len + 1), *b = malloc(len + 1); /* one more: for a NULL of malloc(0) */
        assert_true(a && b);
        for (size_t i = 0; i < len; i++) {
            a[i] = (char)('a' + i);
            b[i] = (char)('A' + i);
        }
        assert_true(slice_eq_nocase(slice_make(a, len), slice_make(b, len)));
        assert_false(slice_eq_nocase(slice_make(a, len), slice_make(b, len + 1)));
        for (size_t i = 0; i < len; i++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                b[i] = (char)byte;
                assert_int_equal(slice_eq_nocase(slice_make(a, len), slice_make(b, len)),
                                 ascii_lower((char)byte) == a[i]);
            }
            b[i] = a[i];
        }
        free(a);
        free(b);
    }
}

/* Every byte in every place of a word. */
static void test_lower(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++)
        for (size_t len = 1; len <= 20; len++)
            for (size_t at = 0; at < len; at++) {
                char text[20], copy[20];
                for (size_t i = 0; i < len; i++)
                    text[i] = (char)(i % 2 ? 0xff : 'Z');
                text[at] = (char)byte;
                ascii_lower_copy(copy, slice_make(text, len));
                for (size_t i = 0; i < len; i++)
                    assert_int_equal(copy[i], ascii_lower(text[i]));
            }
    ascii_lower_copy(NULL, SLICE_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equality),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_list_elements),
        cmocka_unit_test(test_list_has),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_eq_nocase_of_all_lengths),
        cmocka_unit_test(test_lower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
