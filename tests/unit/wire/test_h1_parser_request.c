#include "h1_cases.h"

#include "gateway/base/clock.h"

#define HOST "Host: a\r\n"

static const struct h1_run requests = {
    .direction = H1_REQUESTS,
    .limits = {.max_head_bytes = 32768, .max_target_bytes = 8192, .max_fields = 100},
};

static const struct h1_case good[] = {
    {"nothing", CASE(""), "eof"},
    {"GET", CASE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "GET / none {Host: a} END eof"},
    {"HTTP/1.0", CASE("GET / HTTP/1.0\r\n\r\n"), "GET / none 1.0 close END eof"},
    {"minor version over 1", CASE("GET / HTTP/1.9\r\nHost: a\r\n\r\n"), "GET / none {Host: a} END eof"},
    {"other method", CASE("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n"), "BREW /pot none {Host: a} END eof"},
    {"asterisk-form", CASE("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), "OPTIONS * none {Host: a} END eof"},
    {"absolute-form", CASE("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n"), "GET /b?c none {Host: a} END eof"},
    {"white space around values", CASE("GET / HTTP/1.1\r\nHost:a\r\nX: \t y z\t \r\nE:\r\nF:  \r\n\r\n"),
     "GET / none {Host: a} {X: y z} {E: } {F: } END eof"},
    {"tab and obs-text in a value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: b\tc \xe2\x82\xac 12345678\r\n\r\n"),
     "GET / none {Host: a} {X: b\\x09c \\xe2\\x82\\xac 12345678} END eof"},
    {"colons in a value", CASE("GET / HTTP/1.1\r\nHost: a:80\r\nX: :b:\r\n\r\n"),
     "GET / none {Host: a:80} {X: :b:} END eof"},
    {"all token characters", CASE("GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: 1\r\n\r\n"),
     "GET / none {Host: a} {!#$%&'*+-.^_`|~09azAZ: 1} END eof"},
    {"length", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
     "POST / length {Host: a} {Content-Length: 5} <hello> END eof"},
    {"length 0", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
     "POST / none {Host: a} {Content-Length: 0} END eof"},
    {"empty lines first", CASE("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), "GET / none {Host: a} END eof"},
    {"only empty lines", CASE("\r\n\r\n\r"), "eof"},
    {"empty line between", CASE("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\r\n"),
     "GET /1 none {Host: a} END GET /2 none {Host: a} END eof"},
    {"pipelined",
     CASE("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
          "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
          "GET /4 HTTP/1.1\r\nHost: b\r\n\r\n"),
     "GET /1 none {Host: a} END POST /2 length {Host: a} {Content-Length: 3} <abc> END "
     "POST /3 chunked {Host: a} {Transfer-Encoding: chunked} <hi> END GET /4 none {Host: b} END eof"},
    {"upgrade", CASE("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
     "GET /ws none {Host: a} {Connection: Upgrade} {Upgrade: websocket} END eof"},
    {"close", CASE("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
     "GET / none close {Host: a} {Connection: close} END eof"},
};

/* RFC 9112 sections 2 and 3: the start line. */
static const struct h1_case bad_start_lines[] = {
    {"five empty lines", CASE("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n"), "FAIL bad_request_line"},
    {"CR before the request", CASE("\rGET / HTTP/1.1\r\n"), "FAIL bare_cr"},
    {"LF before the request", CASE("\nGET / HTTP/1.1\r\n"), "FAIL bad_request_line"},
    {"bare LF", CASE("GET / HTTP/1.1\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"space first", CASE(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"two spaces", CASE("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"two spaces before the version", CASE("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"tab", CASE("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"space last", CASE("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"space in the target", CASE("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"no target", CASE("GET HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"no version", CASE("GET /\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"one word", CASE("GET\r\n\r\n"), "FAIL bad_request_line"},
    {"a response", CASE("HTTP/1.1 200 OK\r\n\r\n"), "FAIL bad_request_line"},
    {"lower-case version", CASE("GET / http/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"long version", CASE("GET / HTTP/1.10\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"short version", CASE("GET / HTTP/1\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"letters in the version", CASE("GET / HTTP/1.x\r\nHost: a\r\n\r\n"), "FAIL bad_request_line"},
    {"HTTP/2 preface", CASE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "FAIL bad_version"},
    {"HTTP/0.9", CASE("GET / HTTP/0.9\r\nHost: a\r\n\r\n"), "FAIL bad_version"},
    {"method", CASE("G@T / HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_method"},
    {"NUL in the method", CASE("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_method"},
    {"CONNECT", CASE("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), "FAIL method_not_allowed"},
    {"NUL in the target", CASE("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"control character in the target", CASE("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"DEL in the target", CASE("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"byte over 0x7f in the target", CASE("GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"fragment", CASE("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"no slash", CASE("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"asterisk with GET", CASE("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bad_target"},
    {"CR in the target", CASE("GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL bare_cr"},
    {"CR before CRLF", CASE("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"), "FAIL bare_cr"},
};

/* RFC 9112 section 5: field lines. */
static const struct h1_case bad_fields[] = {
    {"bare LF", CASE("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), "FAIL bad_field_value"},
    {"bare LF at the end", CASE("GET / HTTP/1.1\r\nHost: a\r\n\n"), "FAIL bad_field_value"},
    {"two LF", CASE("GET / HTTP/1.1\r\nHost: a\n\n"), "FAIL bad_field_value"},
    {"CR in a value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"), "FAIL bare_cr"},
    {"CR before CRLF", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n"), "FAIL bare_cr"},
    {"CR in a name", CASE("GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n"), "FAIL bare_cr"},
    {"CR before the empty line", CASE("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"), "FAIL bare_cr"},
    {"NUL in a value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"), "FAIL bad_field_value"},
    {"NUL in a long value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789\0abcdefghij\r\n\r\n"),
     "FAIL bad_field_value"},
    {"NUL in a name", CASE("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"), "FAIL bad_field_name"},
    {"control character in a value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[0m\r\n\r\n"), "FAIL bad_field_value"},
    {"DEL in a value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"), "FAIL bad_field_value"},
    {"DEL in a long value", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: 01234567\x7f\x7f\x7f\x7f\r\n\r\n"),
     "FAIL bad_field_value"},
    {"folded line", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"), "FAIL obs_fold"},
    {"folded with a tab", CASE("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"), "FAIL obs_fold"},
    {"space before the first field", CASE("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), "FAIL obs_fold"},
    {"line of white space", CASE("GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n"), "FAIL obs_fold"},
    {"space before the colon", CASE("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), "FAIL bad_field_name"},
    {"tab before the colon", CASE("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"), "FAIL bad_field_name"},
    {"space in a name", CASE("GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n"), "FAIL bad_field_name"},
    {"no name", CASE("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"), "FAIL bad_field_name"},
    {"no colon", CASE("GET / HTTP/1.1\r\nHost\r\nX: b\r\n\r\n"), "FAIL bad_field_name"},
    {"no colon at the end", CASE("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"), "FAIL bad_field_name"},
    {"separator in a name", CASE("GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n"), "FAIL bad_field_name"},
    {"byte over 0x7f in a name", CASE("GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n"), "FAIL bad_field_name"},
};

/* What http/semantics refuses must come through. */
static const struct h1_case bad_meaning[] = {
    {"no Host", CASE("GET / HTTP/1.1\r\n\r\n"), "FAIL host_missing"},
    {"two Hosts", CASE("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), "FAIL host_duplicate"},
    {"bad Host", CASE("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), "FAIL host_invalid"},
    {"other Host", CASE("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"), "FAIL host_mismatch"},
    {"CL and TE", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "FAIL framing_conflict"},
    {"TE and CL", CASE("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"),
     "FAIL framing_conflict"},
    {"two lengths", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n"),
     "FAIL content_length_invalid"},
    {"list of lengths", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n"),
     "FAIL content_length_invalid"},
    {"signed length", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n"), "FAIL content_length_invalid"},
    {"huge length", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"),
     "FAIL content_length_invalid"},
    {"unknown coding", CASE("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
     "FAIL transfer_coding_invalid"},
    {"chunked is not last", CASE("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
     "FAIL transfer_coding_invalid"},
    {"coding in HTTP/1.0", CASE("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "FAIL transfer_coding_invalid"},
    {"upgrade with a body",
     CASE("POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx"),
     "FAIL upgrade_with_body"},
    {"the second of two", CASE("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
     "GET /1 none {Host: a} END FAIL host_missing"},
};

static const struct h1_case ends[] = {
    {"in the start line", CASE("GET"), "FAIL peer_closed"},
    {"in the fields", CASE("GET / HTTP/1.1\r\nHost: a\r\n"), "FAIL peer_closed"},
    {"behind the head", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
     "POST / length {Host: a} {Content-Length: 5} FAIL client_cancelled"},
    {"in the body", CASE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"),
     "POST / length {Host: a} {Content-Length: 5} <hell> FAIL client_cancelled"},
};

#define RUN(table) h1_cases_run(&requests, table, sizeof table / sizeof *(table))

static void test_good(void **state)
{
    (void)state;
    RUN(good);
}

static void test_bad_start_lines(void **state)
{
    (void)state;
    RUN(bad_start_lines);
}

static void test_bad_fields(void **state)
{
    (void)state;
    RUN(bad_fields);
}

static void test_bad_meaning(void **state)
{
    (void)state;
    RUN(bad_meaning);
}

static void test_ends(void **state)
{
    (void)state;
    RUN(ends);
}

/* ---- limits: at the limit it passes, one over it fails ---- */

struct text {
    char bytes[65536];
    size_t len;
};

static void add(struct text *text, const char *what)
{
    size_t len = strlen(what);
    assert_true(text->len + len <= sizeof text->bytes);
    memcpy(text->bytes + text->len, what, len);
    text->len += len;
}

static void add_filler(struct text *text, size_t len)
{
    assert_true(text->len + len <= sizeof text->bytes);
    memset(text->bytes + text->len, 'x', len);
    text->len += len;
}

static void expect_status(const struct h1_run *run, const struct text *text, enum status expected)
{
    const size_t steps[] = {text->len, 1, 7, 1460};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct h1_trace trace;
        h1_trace_init(&trace, run);
        for (size_t at = 0; at < text->len && !trace.failed; at += steps[i])
            h1_trace_feed(&trace, text->bytes + at, text->len - at < steps[i] ? text->len - at : steps[i]);
        if (trace.failed != (expected != STATUS_OK) || trace.parser.status != expected)
            fail_msg("pieces of %zu: %s, expected %s", steps[i], status_code(trace.parser.status),
                     status_code(expected));
        free(h1_trace_fini(&trace));
    }
}

static void test_head_bytes(void **state)
{
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        struct text text = {.len = 0};
        add(&text, "\r\nGET / HTTP/1.1\r\n" HOST "Cookie: ");
        add_filler(&text, requests.limits.max_head_bytes + 2 + over - text.len - 4);
        add(&text, "\r\n\r\n");
        expect_status(&requests, &text, over ? STATUS_HEAD_TOO_LARGE : STATUS_OK);
    }
}

static void test_endless_head(void **state)
{
    (void)state;
    struct text text = {.len = 0};
    add(&text, "GET / HTTP/1.1\r\n");
    while (text.len < 40000)
        add(&text, "X-Filler: y\r\n");
    expect_status(&requests, &text, STATUS_HEAD_TOO_LARGE);
}

static void test_target_bytes(void **state)
{
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        struct text text = {.len = 0};
        add(&text, "GET /");
        add_filler(&text, requests.limits.max_target_bytes - 1 + over);
        add(&text, " HTTP/1.1\r\n" HOST "\r\n");
        expect_status(&requests, &text, over ? STATUS_TARGET_TOO_LONG : STATUS_OK);
    }
}

static void test_endless_target(void **state)
{
    (void)state;
    struct text text = {.len = 0};
    add(&text, "GET /");
    add_filler(&text, 40000);
    expect_status(&requests, &text, STATUS_TARGET_TOO_LONG);
}

static void test_field_count(void **state)
{
    (void)state;
    for (unsigned over = 0; over < 2; over++) {
        struct text text = {.len = 0};
        add(&text, "GET / HTTP/1.1\r\n" HOST);
        for (unsigned i = 1; i < requests.limits.max_fields + over; i++)
            add(&text, "X: y\r\n");
        add(&text, "\r\n");
        expect_status(&requests, &text, over ? STATUS_TOO_MANY_FIELDS : STATUS_OK);
    }
}

/* A megabyte in single bytes: quick if each byte is looked at once, a minute and more if each costs a search. */
static void test_slow_head_is_linear(void **state)
{
    (void)state;
    struct h1_run run = requests;
    struct h1_parser parser;
    struct arena arena;
    size_t used;
    run.limits.max_head_bytes = 1 << 20;
    arena_init(&arena, NULL);
    h1_parser_init(&parser, H1_REQUESTS, &run.limits);
    h1_parser_begin(&parser, &arena, METHOD_OTHER, false);
    uint64_t start = clock_now_us();
    for (size_t i = 1; i < run.limits.max_head_bytes; i++)
        assert_int_equal(h1_parser_feed(&parser, "x", 1, &used), H1_NEED_MORE);
    assert_int_equal(h1_parser_feed(&parser, "x", 1, &used), H1_FAILED);
    assert_true(clock_now_us() - start < 10000000);
    arena_reset(&arena);
}

/* The access log names a refused request. */
static void test_failed_request_is_named(void **state)
{
    (void)state;
    static const struct slice inputs[] = {
        SLICE_INIT("POST /p HTTP/1.1\r\nHost : a\r\n\r\n"),
        SLICE_INIT("POST /p HTTP/1.1\r\nHost: a\n"),
        SLICE_INIT("POST /p HTTP/1.1\r\n\r\n"),
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        struct h1_trace trace;
        h1_trace_init(&trace, &requests);
        h1_trace_feed(&trace, inputs[i].ptr, inputs[i].len);
        assert_true(trace.failed);
        assert_int_equal(trace.parser.head->method, METHOD_POST);
        assert_true(slice_eq(trace.parser.head->path, SLICE("/p")));
        free(h1_trace_fini(&trace));
    }
}

static void test_has_begun(void **state)
{
    (void)state;
    struct h1_trace trace;
    h1_trace_init(&trace, &requests);
    h1_trace_feed(&trace, "\r\n\r", 3);
    assert_false(h1_parser_has_begun(&trace.parser));
    h1_trace_feed(&trace, "\nG", 2);
    assert_true(h1_parser_has_begun(&trace.parser));
    h1_trace_feed(&trace, "ET / HTTP/1.1\r\nHost: a\r\n\r\n", 26);
    assert_false(h1_parser_has_begun(&trace.parser));
    free(h1_trace_fini(&trace));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad_start_lines),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_bad_meaning),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_head_bytes),
        cmocka_unit_test(test_endless_head),
        cmocka_unit_test(test_target_bytes),
        cmocka_unit_test(test_endless_target),
        cmocka_unit_test(test_field_count),
        cmocka_unit_test(test_slow_head_is_linear),
        cmocka_unit_test(test_failed_request_is_named),
        cmocka_unit_test(test_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
