#include "h1_cases.h"

static const struct h1_run requests = {
    .direction = H1_REQUESTS,
    .limits = {.max_head_bytes = 1024, .max_target_bytes = 512, .max_fields = 10},
};

#define HEAD    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#define SAYS    "POST / chunked {Host: a} {Transfer-Encoding: chunked} "
#define BAD     SAYS "FAIL chunk_invalid"
#define BODY(s) CASE(HEAD s)
#define LAST    "0\r\n\r\n"

static const struct h1_case good[] = {
    {"empty", BODY("0\r\n\r\n"), SAYS "END eof"},
    {"one chunk", BODY("5\r\nhello\r\n0\r\n\r\n"), SAYS "<hello> END eof"},
    {"three chunks", BODY("1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"), SAYS "<abcdef> END eof"},
    {"hex, both cases", BODY("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"),
     SAYS "<01234567890123456789a> END eof"},
    {"leading zeros", BODY("0000000000000002\r\nhi\r\n0000000000000000\r\n\r\n"), SAYS "<hi> END eof"},
    {"CRLF in the data", BODY("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), SAYS "<\\x0d\\x0a0\\x0d\\x0a\\x0d\\x0a> END eof"},
    {"pipelined behind", BODY("1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"),
     SAYS "<x> END GET / none {Host: b} END eof"},
};

/* RFC 9112 section 7.1.1 */
static const struct h1_case extensions[] = {
    {"name", BODY("1;a\r\nx\r\n" LAST), SAYS "<x> END eof"},
    {"name and value", BODY("1;a=b\r\nx\r\n0;c=d\r\n\r\n"), SAYS "<x> END eof"},
    {"several", BODY("1;a=b;c;d=e\r\nx\r\n" LAST), SAYS "<x> END eof"},
    {"white space", BODY("1 ; a\t= b ;c \t;d\r\nx\r\n" LAST), SAYS "<x> END eof"},
    {"quoted", BODY("1;a=\"b c\"\r\nx\r\n" LAST), SAYS "<x> END eof"},
    {"quoted, empty", BODY("1;a=\"\";b\r\nx\r\n" LAST), SAYS "<x> END eof"},
    {"semicolon and quote in quotes", BODY("1;a=\"b;\\\"c\\\\\" ;d\r\nx\r\n" LAST), SAYS "<x> END eof"},
    {"no name", BODY("1;\r\nx\r\n" LAST), BAD},
    {"no value", BODY("1;a=\r\nx\r\n" LAST), BAD},
    {"no semicolon", BODY("1 a\r\nx\r\n" LAST), BAD},
    {"two names", BODY("1;a b\r\nx\r\n" LAST), BAD},
    {"two values", BODY("1;a=b c\r\nx\r\n" LAST), BAD},
    {"text behind quotes", BODY("1;a=\"b\"c\r\nx\r\n" LAST), BAD},
    {"white space at the end of a name", BODY("1;a \r\nx\r\n" LAST), BAD},
    {"white space at the end of a value", BODY("1;a=b \r\nx\r\n" LAST), BAD},
    {"CRLF in quotes", BODY("1;a=\"b\r\nx\r\n" LAST), BAD},
    {"escaped CR", BODY("1;a=\"b\\\r\nx\r\n" LAST), BAD},
    {"NUL in quotes", BODY("1;a=\"\0\"\r\nx\r\n" LAST), BAD},
    {"bare LF behind", BODY("1;a\nx\r\n" LAST), BAD},
    {"CR in a name", BODY("1;a\rb\r\nx\r\n" LAST), BAD},
    {"separator for a name", BODY("1;(\r\nx\r\n" LAST), BAD},
};

static const struct h1_case bad[] = {
    {"no size", BODY("\r\nx\r\n" LAST), BAD},
    {"only an extension", BODY(";a\r\nx\r\n" LAST), BAD},
    {"not hex", BODY("g\r\nx\r\n" LAST), BAD},
    {"0x", BODY("0x1\r\nx\r\n" LAST), BAD},
    {"minus", BODY("-1\r\nx\r\n" LAST), BAD},
    {"plus", BODY("+1\r\nx\r\n" LAST), BAD},
    {"space before", BODY(" 1\r\nx\r\n" LAST), BAD},
    {"space behind", BODY("1 \r\nx\r\n" LAST), BAD},
    {"underscore", BODY("1_0\r\nx\r\n" LAST), BAD},
    {"17 digits", BODY("00000000000000001\r\nx\r\n" LAST), BAD},
    {"bare LF", BODY("1\nx\r\n" LAST), BAD},
    {"CR without LF", BODY("1\rx\r\n" LAST), BAD},
    {"NUL", BODY("1\0\r\nx\r\n" LAST), BAD},
    {"data too long", BODY("1\r\nxy\r\n" LAST), SAYS "<x> FAIL chunk_invalid"},
    {"data too short", BODY("3\r\nx\r\n0\r\n\r\n"), SAYS "<x\\x0d\\x0a> FAIL chunk_invalid"},
    {"LF behind the data", BODY("1\r\nx\n0\r\n\r\n"), SAYS "<x> FAIL chunk_invalid"},
    {"CR and no LF behind the data", BODY("1\r\nx\r0\r\n\r\n"), SAYS "<x> FAIL chunk_invalid"},
    {"end in the size", BODY("1"), SAYS "FAIL client_cancelled"},
    {"end in the data", BODY("2\r\nx"), SAYS "<x> FAIL client_cancelled"},
    {"end behind the last chunk", BODY("0\r\n"), SAYS "FAIL client_cancelled"},
};

/* RFC 9112 section 7.1.2 */
static const struct h1_case trailers[] = {
    {"one", BODY("1\r\nx\r\n0\r\nA: b\r\n\r\n"), SAYS "<x> trailers {A: b} END eof"},
    {"two", BODY("0\r\nA: b\r\nGrpc-Status:0\r\n\r\n"), SAYS "trailers {A: b} {Grpc-Status: 0} END eof"},
    {"forbidden ones are dropped", BODY("0\r\nContent-Length: 3\r\nA: b\r\nTransfer-Encoding: x\r\nHost: c\r\n\r\n"),
     SAYS "trailers {A: b} END eof"},
    {"only forbidden ones", BODY("0\r\nContent-Length: 3\r\n\r\n"), SAYS "END eof"},
    {"pipelined behind", BODY("0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"),
     SAYS "trailers {A: b} END GET / none {Host: b} END eof"},
    {"folded", BODY("0\r\nA: b\r\n c\r\n\r\n"), SAYS "FAIL trailer_invalid"},
    {"no colon", BODY("0\r\nA\r\n\r\n"), SAYS "FAIL trailer_invalid"},
    {"bare LF", BODY("0\r\nA: b\n\n"), SAYS "FAIL trailer_invalid"},
    {"LF at once", BODY("0\r\n\n"), SAYS "FAIL trailer_invalid"},
    {"bare CR", BODY("0\r\nA: b\rc\r\n\r\n"), SAYS "FAIL trailer_invalid"},
    {"NUL", BODY("0\r\nA: \0\r\n\r\n"), SAYS "FAIL trailer_invalid"},
    {"space before the colon", BODY("0\r\nA : b\r\n\r\n"), SAYS "FAIL trailer_invalid"},
    {"eleven", BODY("0\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n"),
     SAYS "FAIL too_many_fields"},
};

#define RUN(table) h1_cases_run(&requests, table, sizeof table / sizeof *(table))

static void test_good(void **state)
{
    (void)state;
    RUN(good);
}

static void test_extensions(void **state)
{
    (void)state;
    RUN(extensions);
}

static void test_bad(void **state)
{
    (void)state;
    RUN(bad);
}

static void test_trailers(void **state)
{
    (void)state;
    RUN(trailers);
}

static void feed_filler(struct h1_trace *trace, size_t len)
{
    char filler[2048];
    assert_true(len <= sizeof filler);
    memset(filler, 'e', len);
    h1_trace_feed(trace, filler, len);
}

/* The semicolon counts. */
static void test_extension_bytes_of_a_line(void **state)
{
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        struct h1_trace trace;
        h1_trace_init(&trace, &requests);
        h1_trace_feed(&trace, HEAD "1;", sizeof HEAD "1;" - 1);
        feed_filler(&trace, 255 + over);
        h1_trace_feed(&trace, "\r\n", 2);
        assert_int_equal(trace.failed, over == 1);
        assert_int_equal(trace.parser.status, over ? STATUS_CHUNK_INVALID : STATUS_OK);
        free(h1_trace_fini(&trace));
    }
}

static void test_extension_bytes_of_a_body(void **state)
{
    (void)state;
    struct h1_trace trace;
    h1_trace_init(&trace, &requests);
    h1_trace_feed(&trace, HEAD, sizeof HEAD - 1);
    for (unsigned i = 0; i < 16384 / 256; i++) {
        h1_trace_feed(&trace, "1;", 2);
        feed_filler(&trace, 255);
        h1_trace_feed(&trace, "\r\nx\r\n", 5);
    }
    assert_false(trace.failed);
    h1_trace_feed(&trace, "1;", 2);
    assert_true(trace.failed);
    free(h1_trace_fini(&trace));
}

static void test_trailer_bytes(void **state)
{
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        struct h1_trace trace;
        h1_trace_init(&trace, &requests);
        h1_trace_feed(&trace, HEAD "0\r\nA: ", sizeof HEAD "0\r\nA: " - 1);
        feed_filler(&trace, requests.limits.max_head_bytes - 7 + over);
        h1_trace_feed(&trace, "\r\n\r\n", 4);
        assert_int_equal(trace.parser.status, over ? STATUS_HEAD_TOO_LARGE : STATUS_OK);
        free(h1_trace_fini(&trace));
    }
}

/* The largest size that 16 digits can say is a size like any other. */
static void test_largest_chunk(void **state)
{
    (void)state;
    struct h1_trace trace;
    h1_trace_init(&trace, &requests);
    h1_trace_feed(&trace, HEAD "ffffffffffffffff\r\nabc", sizeof HEAD "ffffffffffffffff\r\nabc" - 1);
    assert_false(trace.failed);
    char *text = h1_trace_fini(&trace);
    assert_string_equal(text, SAYS "<abc");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_extension_bytes_of_a_line),
        cmocka_unit_test(test_extension_bytes_of_a_body),
        cmocka_unit_test(test_trailer_bytes),
        cmocka_unit_test(test_largest_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
