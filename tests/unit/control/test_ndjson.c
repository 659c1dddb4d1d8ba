#include "gateway/control/ndjson.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_LINE = 8 };

static char seen[256];

static void note(void *arg, uint64_t number, struct slice line, bool too_long)
{
    (void)arg;
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof seen - len, "%d:%.*s%s|", (int)number, SLICE_ARG(line), too_long ? "TOO LONG" : "");
}

/* What comes out of the text when it comes in pieces of this size. */
static const char *lines_of(const char *text, size_t piece)
{
    struct ndjson ndjson;
    struct slice rest = slice_str(text);
    seen[0] = '\0';
    ndjson_init(&ndjson, MAX_LINE, note, NULL);
    while (rest.len > 0) {
        size_t len = rest.len < piece ? rest.len : piece;
        ndjson_feed(&ndjson, slice_make(rest.ptr, len));
        rest = slice_from(rest, len);
    }
    ndjson_end(&ndjson);
    ndjson_free(&ndjson);
    return seen;
}

static void test_lines(void **state)
{
    static const struct {
        const char *text;
        const char *lines;
    } cases[] = {
        {"", ""},
        {"a\nb\n", "1:a|2:b|"},
        {"a\r\nb", "1:a|2:b|"},
        {"\n\n  \r\na\n", "4:a|"},
        {" {a b} \n", "1:{a b}|"},
        {"12345678\n123456789\nc\n", "1:12345678|2:12345678TOO LONG|3:c|"},
        {"c\n1234567890123456789", "1:c|2:12345678TOO LONG|"},
        {"123456789\n", "1:12345678TOO LONG|"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t piece = 1; piece <= 24; piece++)
            assert_string_equal(lines_of(cases[i].text, piece), cases[i].lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
