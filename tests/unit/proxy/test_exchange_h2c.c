/* Exchanges between an h1 front and an HTTP/2 back, whose frames the test writes by hand. */
#include "proxy/proxy_fixture.h"

enum { RST_STREAM = 3, REFUSED_STREAM = 7, INTERNAL_ERROR = 2 };

static int start(void **state)
{
    struct proxy_fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    fixture_start(f, fixture_settings(), 1);
    client_connect(f);
    *state = f;
    return 0;
}

static int stop(void **state)
{
    struct proxy_fixture *f = *state;
    fixture_stop(f);
    free(f);
    return 0;
}

/* To the name that means HTTP/2 behind. */
static void ask(struct proxy_fixture *f, const char *what, const char *fields, const char *body)
{
    char text[4096];
    int n = snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: app-%ug.t.test\r\n%s\r\n%s", what, f->back_port, fields,
                     body);
    assert_in_range(n, 1, sizeof text - 1);
    send_text(f->client.fd, text);
}

static void send_bytes(struct proxy_fixture *f, const char *bytes, size_t len)
{
    assert_int_equal(send(f->origin.fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void send_settings(struct proxy_fixture *f)
{
    send_bytes(f, "\0\0\0\4\0\0\0\0\0", 9);
}

static void send_reset(struct proxy_fixture *f, unsigned stream, unsigned code)
{
    const char frame[] = {0, 0, 4, RST_STREAM, 0, 0, 0, 0, (char)stream, 0, 0, 0, (char)code};
    send_bytes(f, frame, sizeof frame);
}

/* SETTINGS_MAX_CONCURRENT_STREAMS */
static void allow_streams(struct proxy_fixture *f, unsigned count)
{
    const char frame[] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, (char)count};
    send_bytes(f, frame, sizeof frame);
}

/* 204 */
static void send_answer(struct proxy_fixture *f, unsigned stream)
{
    const char frame[] = {0, 0, 1, 1, 5, 0, 0, 0, (char)stream, (char)0x89};
    send_bytes(f, frame, sizeof frame);
}

/* Frames of a type on a stream that came with a payload of at least this length. */
static bool got_frame(struct proxy_fixture *f, unsigned type, unsigned stream, size_t min_len, const char *payload)
{
    enum { MAGIC = 24 };
    inbox_read(&f->origin.in, f->origin.fd);
    for (size_t at = MAGIC; at + 9 <= f->origin.in.len;) {
        const unsigned char *head = (const unsigned char *)f->origin.in.bytes + at;
        size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        if (at + 9 + len > f->origin.in.len)
            return false;
        bool same = !payload || (len >= strlen(payload) && memcmp(head + 9, payload, strlen(payload)) == 0);
        if (head[3] == type && head[8] == stream && len >= min_len && same)
            return true;
        at += 9 + len;
    }
    return false;
}

#define AWAIT_FRAME(f, type, stream, min_len, payload)                                                                 \
    TURN_UNTIL((f)->loop, got_frame(f, type, stream, min_len, payload))

static void accept_origin(struct proxy_fixture *f)
{
    AWAIT_ORIGIN(f, 0);
    send_settings(f);
}

static void a_request_and_its_answer_pass_through(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "GET /path", "", "");
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    send_answer(f, 1);
    AWAIT_TEXT(f, client, "HTTP/1.1 204 No Content\r\n");
    ask(f, "GET /again", "", "");
    AWAIT_FRAME(f, 1, 3, 5, NULL);
    inbox_clear(&f->client.in);
    send_answer(f, 3);
    AWAIT_TEXT(f, client, "HTTP/1.1 204 No Content\r\n");
    assert_int_equal(f->counters.upstream_connects_total, 1);
}

static void a_refused_request_is_sent_again_with_its_body(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "POST /", "Content-Length: 8\r\n", "half");
    accept_origin(f);
    AWAIT_FRAME(f, 0, 1, 4, "half");
    send_reset(f, 1, REFUSED_STREAM);
    AWAIT_FRAME(f, 0, 3, 4, "half");
    send_text(f->client.fd, "rest");
    AWAIT_FRAME(f, 0, 3, 4, "rest");
    send_answer(f, 3);
    AWAIT_TEXT(f, client, "HTTP/1.1 204 No Content\r\n");
    assert_int_equal(f->counters.upstream_retries_total, 1);
}

static void a_refused_request_that_is_not_kept_is_an_error(void **state)
{
    static char body[70000];
    struct proxy_fixture *f = *state;
    ask(f, "POST /", "Content-Length: 70001\r\n", "");
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    for (size_t sent = 0; sent < sizeof body;) {
        ssize_t n = send(f->client.fd, body + sent, sizeof body - sent, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(f->loop, 1);
    }
    TURN_UNTIL(f->loop, (inbox_read(&f->origin.in, f->origin.fd), f->origin.in.len > 65535));
    send_reset(f, 1, REFUSED_STREAM);
    AWAIT_TEXT(f, client, "upstream_refused");
    assert_int_equal(f->counters.upstream_retries_total, 0);
}

static void a_refused_request_whose_trailers_left_is_an_error(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "POST /", "Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n");
    accept_origin(f);
    AWAIT_FRAME(f, 0, 1, 4, "body");
    send_text(f->client.fd, "0\r\nX-Sum: abc\r\n\r\n");
    AWAIT_FRAME(f, 1, 1, 5, "\x40"); /* a literal field: the trailers */
    send_reset(f, 1, REFUSED_STREAM);
    AWAIT_TEXT(f, client, "upstream_refused");
}

static void other_resets_are_errors(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "GET /", "", "");
    accept_origin(f);
    for (unsigned i = 1; i <= 3; i += 2) { /* also on a connection that was used before */
        AWAIT_FRAME(f, 1, i, 5, NULL);
        send_reset(f, i, INTERNAL_ERROR);
        AWAIT_TEXT(f, client, "upstream_reset");
        inbox_clear(&f->client.in);
        if (i == 1)
            ask(f, "GET /again", "", "");
    }
    assert_int_equal(f->counters.upstream_retries_total, 0);
}

/* Those that are told try again at once: not on the connection that ends. */
static void a_stale_connection_is_replaced(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "GET /first", "", "");
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    send_answer(f, 1);
    AWAIT_TEXT(f, client, "HTTP/1.1 204 No Content\r\n");
    ask(f, "GET /second", "", "");
    AWAIT_FRAME(f, 1, 3, 5, NULL);
    inbox_clear(&f->client.in);
    close_hard(f->origin.fd);
    f->origin.fd = -1;
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    send_answer(f, 1);
    AWAIT_TEXT(f, client, "HTTP/1.1 204 No Content\r\n");
    assert_int_equal(f->counters.upstream_retries_total, 1);
}

/* Its body is complete before it is sent: from then on it is late only if the app is. */
static void a_queued_request_with_trailers_has_the_deadlines_of_others(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "GET /", "", "");
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    allow_streams(f, 0);
    send_answer(f, 1);
    AWAIT_TEXT(f, client, "HTTP/1.1 204 No Content\r\n");
    inbox_clear(&f->client.in);
    f->settings->first_byte_ms = 100;
    ask(f, "POST /", "Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n");
    TURN_UNTIL(f->loop, f->counters.requests_active == 1);
    allow_streams(f, 1);
    AWAIT_FRAME(f, 0, 3, 4, "body");
    AWAIT_FRAME(f, 1, 3, 5, "\x40"); /* the trailers */
    AWAIT_TEXT(f, client, "upstream_");
    assert_true(inbox_has(&f->client.in, f->client.fd, "upstream_timeout"));
}

static void a_client_that_leaves_cancels_the_stream(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "GET /", "", "");
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    party_close(&f->client);
    AWAIT_FRAME(f, RST_STREAM, 1, 4, NULL);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
}

static void a_claim_revoked_while_waiting_is_an_error(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "GET /", "", "");
    accept_origin(f);
    AWAIT_FRAME(f, 1, 1, 20, NULL);
    fixture_put(f, fixture_app_of(1, 2));
    AWAIT_TEXT(f, client, "address_revoked");
    AWAIT_END(f, origin);
}

/* Whoever accepts the connection, not a byte is for it. */
static void a_request_does_not_reach_a_new_owner(void **state)
{
    struct proxy_fixture *f = *state;
    ask(f, "POST /secret", "Cookie: secret\r\nContent-Length: 4\r\n", "body");
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 1);
    fixture_move_address(f);
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, client, "address_revoked");
    AWAIT_END(f, origin);
    assert_int_equal(f->origin.in.len, 0);
    assert_int_equal(f->counters.upstream_revoked_total, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(a_request_and_its_answer_pass_through),
        TEST(a_refused_request_is_sent_again_with_its_body),
        TEST(a_refused_request_that_is_not_kept_is_an_error),
        TEST(a_refused_request_whose_trailers_left_is_an_error),
        TEST(other_resets_are_errors),
        TEST(a_stale_connection_is_replaced),
        TEST(a_queued_request_with_trailers_has_the_deadlines_of_others),
        TEST(a_client_that_leaves_cancels_the_stream),
        TEST(a_claim_revoked_while_waiting_is_an_error),
        TEST(a_request_does_not_reach_a_new_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
