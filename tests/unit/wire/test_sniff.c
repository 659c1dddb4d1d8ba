/* Do first bytes begin an HTTP request? Each case whole, and every prefix of it. */
#include "gateway/wire/sniff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define BYTES(literal) SLICE_INIT(literal)

/* `from`: the shortest prefix that has an answer; all shorter ones need more. */
static const struct sniff_case {
    struct slice bytes;
    enum sniff_result result;
    size_t from;
} cases[] = {
    /* HTTP, strict or not */
    {BYTES("GET / HTTP/1.1\r\n"), SNIFF_HTTP, 4},
    {BYTES("get / HTTP/1.1\r\n"), SNIFF_HTTP, 4},
    {BYTES("GeT\t/"), SNIFF_HTTP, 4},
    {BYTES("GET\r\n"), SNIFF_HTTP, 4},
    {BYTES("GET /\r\n"), SNIFF_HTTP, 4},
    {BYTES("OPTIONS * HTTP/1.1\r\n"), SNIFF_HTTP, 8},
    {BYTES("\r\n\r\n \tPOST / HTTP/1.1"), SNIFF_HTTP, 11},
    {BYTES("\v\fPOST /"), SNIFF_HTTP, 7},
    {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), SNIFF_HTTP, 4},
    {BYTES("M-SEARCH * HTTP/1.1\r\n"), SNIFF_HTTP, 9},
    {BYTES("NONSENSE / HTTP/1.1\r\n"), SNIFF_HTTP, 16},
    {BYTES("x y http/9.9\n"), SNIFF_HTTP, 9},
    {BYTES("x \0 HTTP/1.1\n"), SNIFF_HTTP, 9},
    {BYTES("x ///HTTP/"), SNIFF_HTTP, 10},
    {BYTES("x HTTPHTTP/"), SNIFF_HTTP, 11},
    /* not HTTP */
    {BYTES("\0\0\0\x08\x04\xd2\x16\x2f"), SNIFF_RAW, 1},
    {BYTES("\x16\x03\x01\x02\0\x01"), SNIFF_RAW, 1},
    {BYTES("G\0ET / HTTP/1.1"), SNIFF_RAW, 2},
    {BYTES("GET\x80 /"), SNIFF_RAW, 4},
    {BYTES(" \0GET / HTTP/1.1"), SNIFF_RAW, 2},
    {BYTES("{\"id\":1}"), SNIFF_RAW, 1},
    {BYTES("SSH-2.0-OpenSSH_9.2\r\n"), SNIFF_RAW, 21},
    {BYTES("SSH-2.0-OpenSSH_9.2 Debian-2\r\n"), SNIFF_RAW, 30},
    {BYTES("*1\r\n$4\r\nPING\r\n"), SNIFF_RAW, 4},
    {BYTES("PING\r\n"), SNIFF_RAW, 6},
    {BYTES("EHLO a.example\r\n"), SNIFF_RAW, 16},
    {BYTES("x /TTP/ HTT/HTTPS/ HTTP\n/HTTP/"), SNIFF_RAW, 24},
    {BYTES("user:GET / HTTP/1.1\r\n"), SNIFF_RAW, 5},
    {BYTES("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa / HTTP/1.1\r\n"), SNIFF_RAW, 64},
    {BYTES("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa / HTTP/1.1\r\n"), SNIFF_HTTP, 71},
    {BYTES("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa / HTTP/1.1\r\n"), SNIFF_RAW, 64},
    /* nothing yet */
    {BYTES(""), SNIFF_NEED_MORE, 1},
    {BYTES(" \r\n"), SNIFF_NEED_MORE, 4},
    {BYTES("GET"), SNIFF_NEED_MORE, 4},
    {BYTES("NONSENSE / HTTP"), SNIFF_NEED_MORE, 16},
};

static void every_prefix_has_its_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t len = 0; len <= cases[i].bytes.len; len++) {
            enum sniff_result expected = len < cases[i].from ? SNIFF_NEED_MORE : cases[i].result;
            char *exact = malloc(len + 1); /* so that a read too far is seen */
            memcpy(exact, cases[i].bytes.ptr, len);
            enum sniff_result result = sniff_first_bytes(slice_make(exact, len));
            free(exact);
            if (result != expected)
                fail_msg("case %zu, %zu bytes: %d, expected %d", i, len, result, expected);
        }
}

static void endless_lines_are_left_to_the_parser(void **state)
{
    (void)state;
    static char line[SNIFF_MAX_LINE + 2];
    memset(line, ' ', sizeof line);
    assert_int_equal(sniff_first_bytes(slice_make(line, SNIFF_MAX_LINE - 1)), SNIFF_NEED_MORE);
    assert_int_equal(sniff_first_bytes(slice_make(line, SNIFF_MAX_LINE)), SNIFF_HTTP);
    line[0] = 'x';
    assert_int_equal(sniff_first_bytes(slice_make(line, SNIFF_MAX_LINE - 1)), SNIFF_NEED_MORE);
    assert_int_equal(sniff_first_bytes(slice_make(line, SNIFF_MAX_LINE)), SNIFF_HTTP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prefix_has_its_answer),
        cmocka_unit_test(endless_lines_are_left_to_the_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
