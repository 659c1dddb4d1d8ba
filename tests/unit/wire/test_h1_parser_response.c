#include "h1_cases.h"

#define LIMITS                                                                                                         \
    {                                                                                                                  \
        .max_head_bytes = 32768, .max_target_bytes = 8192, .max_fields = 100                                           \
    }

static const struct h1_run to_get = {.direction = H1_RESPONSES, .limits = LIMITS, .request_method = METHOD_GET};
static const struct h1_run to_head = {.direction = H1_RESPONSES, .limits = LIMITS, .request_method = METHOD_HEAD};
static const struct h1_run to_upgrade = {
    .direction = H1_RESPONSES, .limits = LIMITS, .request_method = METHOD_GET, .upgrade_asked = true};

static const struct h1_case good[] = {
    {"nothing", CASE(""), "eof"},
    {"length", CASE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
     "200 OK  length {Content-Length: 5} <hello> END eof"},
    {"length 0", CASE("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "200 OK  none {Content-Length: 0} END eof"},
    {"empty reason", CASE("HTTP/1.1 404 \r\nContent-Length: 1\r\n\r\nx"),
     "404   length {Content-Length: 1} <x> END eof"},
    {"no reason", CASE("HTTP/1.1 404\r\nContent-Length: 1\r\n\r\nx"), "404   length {Content-Length: 1} <x> END eof"},
    {"reason of words", CASE("HTTP/1.1 404 Not  here\t\xe9\r\nContent-Length: 1\r\n\r\nx"),
     "404 Not  here\\x09\\xe9  length {Content-Length: 1} <x> END eof"},
    {"until close", CASE("HTTP/1.1 200 OK\r\n\r\nsome\r\nthing"),
     "200 OK  until-close close <some\\x0d\\x0athing> END"},
    {"until close, empty", CASE("HTTP/1.1 200 OK\r\n\r\n"), "200 OK  until-close close END"},
    {"HTTP/1.0", CASE("HTTP/1.0 200 OK\r\n\r\nx"), "200 OK  until-close 1.0 close <x> END"},
    {"chunked", CASE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
     "200 OK  chunked {Transfer-Encoding: chunked} <abc> END eof"},
    {"204", CASE("HTTP/1.1 204 No Content\r\n\r\n"), "204 No Content  none END eof"},
    {"304 with a length", CASE("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
     "304 Not Modified  none {Content-Length: 7} END eof"},
    {"304, then 200", CASE("HTTP/1.1 304 NM\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
     "304 NM  none END 200 OK  length {Content-Length: 1} <x> END eof"},
    {"100, then 200", CASE("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
     "100 Continue  none 200 OK  length {Content-Length: 1} <x> END eof"},
    {"103 with fields, twice",
     CASE("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"
          "HTTP/1.1 204 NC\r\n\r\n"),
     "103 Early Hints  none {Link: </a>} 103 Early Hints  none {Link: </b>} 204 NC  none END eof"},
};

static const struct h1_case good_to_head[] = {
    {"with a length", CASE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), "200 OK  none {Content-Length: 5} END eof"},
    {"chunked", CASE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "200 OK  none {Transfer-Encoding: chunked} END eof"},
    {"without either", CASE("HTTP/1.1 200 OK\r\n\r\n"), "200 OK  none END eof"},
};

static const struct h1_case good_to_upgrade[] = {
    {"101", CASE("HTTP/1.1 101 SP\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02HTTP/1.1 200\r\n\r\n"),
     "101 SP  raw {Connection: Upgrade} {Upgrade: websocket} "
     "<\\x81\\x02HTTP/1.1 200\\x0d\\x0a\\x0d\\x0a> END"},
    {"101 and nothing", CASE("HTTP/1.1 101 SP\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
     "101 SP  raw {Connection: Upgrade} {Upgrade: x} END"},
    {"200 instead", CASE("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
     "200 OK  length {Content-Length: 2} <no> END eof"},
};

#define BAD "FAIL upstream_bad_response"

static const struct h1_case bad[] = {
    {"empty line first", CASE("\r\nHTTP/1.1 200 OK\r\n\r\n"), BAD},
    {"not HTTP", CASE("SSH-2.0-OpenSSH_9.2\r\n\r\n"), BAD},
    {"bare LF", CASE("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), BAD},
    {"CR in the reason", CASE("HTTP/1.1 200 O\rK\r\n\r\n"), BAD},
    {"NUL in the reason", CASE("HTTP/1.1 200 O\0K\r\n\r\n"), BAD},
    {"space first", CASE(" HTTP/1.1 200 OK\r\n\r\n"), BAD},
    {"two spaces", CASE("HTTP/1.1  200 OK\r\n\r\n"), BAD},
    {"no status", CASE("HTTP/1.1\r\n\r\n"), BAD},
    {"two digits", CASE("HTTP/1.1 20 OK\r\n\r\n"), BAD},
    {"four digits", CASE("HTTP/1.1 2000 OK\r\n\r\n"), BAD},
    {"signed status", CASE("HTTP/1.1 +20 OK\r\n\r\n"), BAD},
    {"status below 100", CASE("HTTP/1.1 099 OK\r\n\r\n"), BAD},
    {"HTTP/2", CASE("HTTP/2.0 200 OK\r\n\r\n"), BAD},
    {"lower case", CASE("http/1.1 200 OK\r\n\r\n"), BAD},
    {"folded line", CASE("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"), BAD},
    {"space before the colon", CASE("HTTP/1.1 200 OK\r\nX : a\r\n\r\n"), BAD},
    {"no colon", CASE("HTTP/1.1 200 OK\r\nX\r\n\r\n"), BAD},
    {"control character", CASE("HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n"), BAD},
    {"CL and TE", CASE("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), BAD},
    {"bad length", CASE("HTTP/1.1 200 OK\r\nContent-Length: 3a\r\n\r\n"), BAD},
    {"101 that nobody asked for", CASE("HTTP/1.1 101 SP\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), BAD},
    {"bad chunk", CASE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx"),
     "200 OK  chunked {Transfer-Encoding: chunked} " BAD},
    {"100, then nonsense", CASE("HTTP/1.1 100 C\r\n\r\nnonsense\r\n\r\n"), "100 C  none " BAD},
};

static const struct h1_case ends[] = {
    {"in the head", CASE("HTTP/1.1 200 OK\r\n"), "FAIL peer_closed"},
    {"behind an interim head", CASE("HTTP/1.1 100 C\r\n\r\n"), "100 C  none FAIL peer_closed"},
    {"in a body of known length", CASE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
     "200 OK  length {Content-Length: 5} <hell> FAIL upstream_truncated"},
    {"in a chunk", CASE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell"),
     "200 OK  chunked {Transfer-Encoding: chunked} <hell> FAIL upstream_truncated"},
    {"before the last chunk", CASE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"),
     "200 OK  chunked {Transfer-Encoding: chunked} <he> FAIL upstream_truncated"},
    {"in the trailers", CASE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n"),
     "200 OK  chunked {Transfer-Encoding: chunked} FAIL upstream_truncated"},
};

#define RUN(run, table) h1_cases_run(run, table, sizeof table / sizeof *(table))

static void test_good(void **state)
{
    (void)state;
    RUN(&to_get, good);
    RUN(&to_head, good_to_head);
    RUN(&to_upgrade, good_to_upgrade);
}

static void test_bad(void **state)
{
    (void)state;
    RUN(&to_get, bad);
}

static void test_ends(void **state)
{
    (void)state;
    RUN(&to_get, ends);
}

/* Feeds the same bytes until the parser refuses them; returns how often they were taken. */
static unsigned feed_until_refused(const char *first, const char *again, enum status expected)
{
    struct h1_trace trace;
    unsigned times = 0;
    h1_trace_init(&trace, &to_get);
    h1_trace_feed(&trace, first, strlen(first));
    for (; times < 100000 && !trace.failed; times++)
        h1_trace_feed(&trace, again, strlen(again));
    assert_true(trace.failed);
    assert_int_equal(trace.parser.status, expected);
    free(h1_trace_fini(&trace));
    return times;
}

static void test_limits(void **state)
{
    (void)state;
    feed_until_refused("HTTP/1.1 200 OK\r\nX: ", "yyyyyyyyyyyyyyyy", STATUS_UPSTREAM_HEAD_TOO_LARGE);
    feed_until_refused("", "HTTP/1.1 200 OK", STATUS_UPSTREAM_HEAD_TOO_LARGE);
}

static void test_field_count(void **state)
{
    (void)state;
    char bytes[2048];
    size_t len = (size_t)snprintf(bytes, sizeof bytes, "HTTP/1.1 204 NC\r\n");
    for (unsigned i = 0; i < to_get.limits.max_fields + 1; i++)
        len += (size_t)snprintf(bytes + len, sizeof bytes - len, "X: y\r\n");
    struct h1_trace trace;
    h1_trace_init(&trace, &to_get);
    h1_trace_feed(&trace, bytes, len);
    h1_trace_feed(&trace, "\r\n", 2);
    assert_int_equal(trace.parser.status, STATUS_UPSTREAM_HEAD_TOO_LARGE);
    free(h1_trace_fini(&trace));
}

/* A server may say "not yet" for minutes, but not without end. */
static void test_interim_heads_are_bounded(void **state)
{
    (void)state;
    unsigned times = feed_until_refused("", "HTTP/1.1 102 Processing\r\n\r\n", STATUS_UPSTREAM_HEAD_TOO_LARGE);
    assert_in_range(times, 300, 1000);
}

static void test_has_begun(void **state)
{
    (void)state;
    struct h1_trace trace;
    h1_trace_init(&trace, &to_get);
    assert_false(h1_parser_has_begun(&trace.parser));
    h1_trace_feed(&trace, "H", 1);
    assert_true(h1_parser_has_begun(&trace.parser));
    h1_trace_feed(&trace, "TTP/1.1 100 C\r\n\r\n", 17);
    assert_true(h1_parser_has_begun(&trace.parser));
    free(h1_trace_fini(&trace));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_ends),        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_field_count), cmocka_unit_test(test_interim_heads_are_bounded),
        cmocka_unit_test(test_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
