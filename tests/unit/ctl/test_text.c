#include "gateway/ctl/text.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* What text_put writes, and that it says how wide it is. */
static void expect(const char *text, size_t len, size_t max, const char *wanted, size_t columns)
{
    char *out = NULL;
    size_t out_len = 0;
    FILE *file = open_memstream(&out, &out_len);
    assert_non_null(file);
    size_t used = text_put(file, slice_make(text, len), max);
    assert_int_equal(fclose(file), 0);
    assert_string_equal(out, wanted);
    assert_int_equal(used, columns);
    free(out);
}

static void whole(const char *text, const char *wanted, size_t columns)
{
    expect(text, strlen(text), SIZE_MAX, wanted, columns);
    expect(text, strlen(text), columns, wanted, columns);
    assert_int_equal(text_columns(slice_str(text)), columns);
}

static void test_letters_stay(void **state)
{
    (void)state;
    whole("", "", 0);
    whole("GET /a?b=c~", "GET /a?b=c~", 11);
    whole("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", 4);
    whole("\xe6\xbc\xa2", "\xe6\xbc\xa2", 2);
}

static void test_nothing_reaches_the_terminal_that_moves_it(void **state)
{
    (void)state;
    whole("\x1b[2J", "\\x1b[2J", 7);
    whole("a\r\nb\tc\x7f", "a\\x0d\\x0ab\\x09c\\x7f", 19);
    whole("\xc2\x9b"
          "2J",
          "\\u009b2J", 8);               /* CSI as one character */
    whole("\xe2\x80\xae", "\\u202e", 6); /* right-to-left override */
    whole("a\xcc\x81", "a\\u0301", 7);
    expect("a\0b", 3, SIZE_MAX, "a\\x00b", 6);
}

static void test_bytes_that_are_no_text(void **state)
{
    (void)state;
    whole("\xff\xfe", "\\xff\\xfe", 8);
    whole("a\xc3", "a\\xc3", 5);                  /* ends too early */
    whole("\xc0\xaf", "\\xc0\\xaf", 8);           /* overlong */
    whole("\xed\xa0\x80", "\\xed\\xa0\\x80", 12); /* a surrogate */
}

static void test_cut_with_an_ellipsis(void **state)
{
    (void)state;
    expect("abcdef", 6, 5, "abcd\xe2\x80\xa6", 5);
    expect("abcdef", 6, 1, "\xe2\x80\xa6", 1);
    expect("abcdef", 6, 0, "", 0);
    expect("\xe6\xbc\xa2\xe6\xbc\xa2", 6, 3, "\xe6\xbc\xa2\xe2\x80\xa6", 3);
    expect("\xe6\xbc\xa2\xe6\xbc\xa2", 6, 2, "\xe2\x80\xa6", 1); /* half a letter is none */
    expect("a\x1b\x1b", 3, 5, "a\xe2\x80\xa6", 2);               /* nor is half an escape */
}

static void test_a_locale_of_ascii(void **state)
{
    (void)state;
    assert_non_null(setlocale(LC_CTYPE, "C"));
    whole("\xc3\xbc", "\\xc3\\xbc", 8);
    expect("abcdef", 6, 5, "ab...", 5);
    expect("abcdef", 6, 2, "", 0);
    assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
}

static void fit(size_t total, size_t a, size_t b, size_t c)
{
    size_t widths[] = {4, 40, 20};
    text_fit(widths, 3, total, 6);
    assert_int_equal(widths[0], a);
    assert_int_equal(widths[1], b);
    assert_int_equal(widths[2], c);
}

static void test_the_widest_columns_give_way(void **state)
{
    (void)state;
    fit(64, 4, 40, 20);
    fit(63, 4, 39, 20);
    fit(44, 4, 20, 20);
    fit(43, 4, 20, 19);
    fit(16, 4, 6, 6);
    fit(0, 4, 6, 6);
    text_fit(NULL, 0, 10, 6);
}

int main(void)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_letters_stay),
        cmocka_unit_test(test_nothing_reaches_the_terminal_that_moves_it),
        cmocka_unit_test(test_bytes_that_are_no_text),
        cmocka_unit_test(test_cut_with_an_ellipsis),
        cmocka_unit_test(test_a_locale_of_ascii),
        cmocka_unit_test(test_the_widest_columns_give_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
