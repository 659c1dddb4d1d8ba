/* h1_mux as a client. */
#include "mux/mux_fixture.h"

static int set_up(void **state)
{
    struct mux_fixture *f = fixture_new();
    fixture_open(f, false);
    *state = f;
    return 0;
}

static void ask(struct mux_fixture *f, enum method method, struct slice upgrade, enum body_kind body)
{
    struct message_head head = {.method = method,
                                .method_text = method_name(method),
                                .path = SLICE("/x"),
                                .version = HTTP_1_1,
                                .upgrade = upgrade,
                                .body = body};
    f->endpoint = f->mux->ops->open(f->mux);
    assert_non_null(f->endpoint);
    assert_null(f->mux->ops->open(f->mux)); /* one at a time */
    endpoint_bind(f->endpoint, &endpoint_events, f, &f->arena);
    f->endpoint->ops->send_head(f->endpoint, &head, body == BODY_NONE);
}

static void get(struct mux_fixture *f)
{
    ask(f, METHOD_GET, SLICE_NONE, BODY_NONE);
    inbox_clear(&f->inbox);
    AWAIT_PEER(f, "GET /x HTTP/1.1\r\n");
}

static void release_ok(struct mux_fixture *f)
{
    release(f, STATUS_OK);
}

static void every_kind_of_answer_that_keeps_the_connection(void **state)
{
    static const struct {
        enum method method;
        const char *answer, *events;
    } cases[] = {
        {METHOD_GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "head 200;body abc;end;"},
        {METHOD_GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "head 200;end;"},
        {METHOD_GET, "HTTP/1.1 204 No Content\r\n\r\n", "head 204;end;"},
        {METHOD_GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "head 304;end;"},
        {METHOD_HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "head 200;end;"},
        {METHOD_HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "head 200;end;"},
        {METHOD_GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
         "head 200;body abc;end;"},
        {METHOD_GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: t\r\n\r\n",
         "head 200;body a;trailers t;end;"},
        {METHOD_GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
         "head 100;head 103;head 204;end;"},
        {METHOD_GET, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", "head 200;body a;end;"},
    };
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        inbox_clear(&f->events);
        ask(f, cases[i].method, SLICE_NONE, BODY_NONE);
        turn_some(f->loop);
        send_text(f->peer, cases[i].answer);
        AWAIT_EVENT(f, cases[i].events);
        assert_string_equal(f->events.bytes, cases[i].events);
        TURN_UNTIL(f->loop, f->idles == (int)i + 1);
    }
}

static void an_answer_may_come_byte_by_byte(void **state)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    get(f);
    for (size_t i = 0; answer[i]; i++) {
        assert_int_equal(send(f->peer, answer + i, 1, MSG_NOSIGNAL), 1);
        loop_turn(f->loop, 1);
    }
    AWAIT_EVENT(f, "head 200;body a;end;");
    TURN_UNTIL(f->loop, f->idles == 1);
}

static void an_answer_may_end_with_the_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    get(f);
    send_text(f->peer, "HTTP/1.1 200 OK\r\n\r\nall of");
    AWAIT_EVENT(f, "body all of;");
    send_text(f->peer, " it");
    shutdown(f->peer, SHUT_WR);
    AWAIT_EVENT(f, "body  it;end;");
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->idles, 0);
}

static void an_answer_that_says_close_ends_the_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    get(f);
    send_text(f->peer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
    AWAIT_EVENT(f, "body a;end;");
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->idles, 0);
}

static void the_request_body_is_framed(void **state)
{
    struct mux_fixture *f = *state;
    struct fields trailers = FIELDS_NONE;
    f->on_complete = release_ok;
    ask(f, METHOD_POST, SLICE_NONE, BODY_CHUNKED);
    f->endpoint->ops->send_body(f->endpoint, "abc", 3, false);
    fields_add(&trailers, &f->arena, SLICE("X-T"), SLICE("t"));
    f->endpoint->ops->send_trailers(f->endpoint, &trailers);
    AWAIT_PEER(f, "\r\n\r\n3\r\nabc\r\n0\r\nX-T: t\r\n\r\n");
    send_text(f->peer, "HTTP/1.1 204 No Content\r\n\r\n");
    TURN_UNTIL(f->loop, f->idles == 1);
}

/* The next answer must not begin with bytes that were there before its request. */
static void an_early_answer_does_not_keep_the_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    ask(f, METHOD_POST, SLICE_NONE, BODY_CHUNKED);
    f->endpoint->ops->send_body(f->endpoint, "abc", 3, false);
    AWAIT_PEER(f, "abc");
    send_text(f->peer, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
    AWAIT_EVENT(f, "head 413;body big;end;");
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->idles, 0);
}

/* A POST whose body is more than the kernel takes from us while the peer does not read; returns its length. */
static size_t ask_more_than_is_taken(struct mux_fixture *f)
{
    static char chunk[65536];
    size_t sent = 0;
    ask(f, METHOD_POST, SLICE_NONE, BODY_CHUNKED);
    for (int full = 0; full < 5; turn_some(f->loop)) {
        bool has_room = f->endpoint->ops->room(f->endpoint) > 0;
        full = has_room ? 0 : full + 1;
        if (has_room)
            f->endpoint->ops->send_body(f->endpoint, chunk, sizeof chunk, false);
        sent += has_room ? sizeof chunk : 0;
    }
    f->endpoint->ops->send_body(f->endpoint, NULL, 0, true);
    turn_some(f->loop);
    assert_in_range(stream_queued(f->mux->stream), 1, STREAM_HIGH_MARK + sizeof chunk);
    return sent;
}

/* Whoever had the connection next would wait behind a body that nobody reads; who does read it gets all of it. */
static void an_answer_before_the_request_has_left_does_not_keep_the_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    size_t sent = ask_more_than_is_taken(f);
    send_text(f->peer, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    AWAIT_EVENT(f, "head 401;body no;end;");
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->idles, 0);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    assert_true(f->inbox.len > sent);
    assert_memory_equal(f->inbox.bytes + f->inbox.len - 7, "\r\n0\r\n\r\n", 7);
}

static void a_large_request_that_has_left_keeps_the_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    size_t sent = ask_more_than_is_taken(f);
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->peer) > sent &&
                            memcmp(f->inbox.bytes + f->inbox.len - 7, "\r\n0\r\n\r\n", 7) == 0);
    send_text(f->peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    AWAIT_EVENT(f, "head 200;body ok;end;");
    TURN_UNTIL(f->loop, f->idles == 1);
}

static void bytes_behind_an_answer_do_not_keep_the_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    get(f);
    send_text(f->peer, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\npoison");
    AWAIT_EVENT(f, "body a;end;");
    TURN_UNTIL(f->loop, f->closed);
    assert_null(strstr(f->events.bytes, "poison"));
    assert_int_equal(f->idles, 0);
}

static void bytes_on_an_idle_connection_close_it(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "HTTP/1.1 408 Request Timeout\r\n\r\n");
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->requests, 0);
}

static void an_idle_connection_may_be_closed_by_the_peer(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    get(f);
    send_text(f->peer, "HTTP/1.1 204 No Content\r\n\r\n");
    TURN_UNTIL(f->loop, f->idles == 1);
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_PEER_CLOSED);
}

/* What a retry depends on. */
static void how_an_answer_fails_tells_whether_a_byte_of_it_was_there(void **state)
{
    static const struct {
        const char *answer;
        bool hard;
        enum status status;
    } cases[] = {
        {"", false, STATUS_UPSTREAM_CLOSED},
        {"", true, STATUS_UPSTREAM_RESET},
        {"HTTP/1.1 20", false, STATUS_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 20", true, STATUS_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 100 Continue\r\n\r\n", false, STATUS_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 100 Continue\r\n\r\n", true, STATUS_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false, STATUS_UPSTREAM_TRUNCATED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true, STATUS_UPSTREAM_RESET},
        {"HTTP/1.1 200 OK\r\n\r\nhalf", true, STATUS_UPSTREAM_RESET},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha", false, STATUS_UPSTREAM_TRUNCATED},
        {"ICY 200 OK\r\n\r\n", false, STATUS_UPSTREAM_BAD_RESPONSE},
        {"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false, STATUS_UPSTREAM_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_up(state);
        struct mux_fixture *f = *state;
        get(f);
        if (cases[i].answer[0])
            send_text(f->peer, cases[i].answer);
        turn_some(f->loop);
        if (cases[i].hard)
            close_hard(f->peer);
        else
            close(f->peer);
        f->peer = -1;
        TURN_UNTIL(f->loop, f->closed);
        if (f->status != cases[i].status)
            fail_msg("case %zu: %s", i, status_code(f->status));
        fixture_tear_down(state);
    }
}

static void an_upgrade_becomes_raw(void **state)
{
    struct mux_fixture *f = *state;
    ask(f, METHOD_GET, SLICE("echo"), BODY_NONE);
    AWAIT_PEER(f, "\r\n\r\n");
    assert_non_null(strcasestr(f->inbox.bytes, "upgrade: echo\r\n"));
    send_text(f->peer, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    AWAIT_EVENT(f, "head 101;body first;");
    f->endpoint->ops->send_body(f->endpoint, "hello", 5, false);
    AWAIT_PEER(f, "\r\n\r\nhello");
    shutdown(f->peer, SHUT_WR);
    AWAIT_EVENT(f, "body first;end;");
    f->endpoint->ops->send_body(f->endpoint, "bye", 3, true);
    AWAIT_PEER(f, "hellobye");
    AWAIT_OVER(f);
    release(f, STATUS_OK);
    TURN_UNTIL(f->loop, f->closed);
}

static void an_upgrade_may_be_refused(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = release_ok;
    ask(f, METHOD_GET, SLICE("echo"), BODY_NONE);
    AWAIT_PEER(f, "\r\n\r\n");
    send_text(f->peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    AWAIT_EVENT(f, "head 200;body no;end;");
    TURN_UNTIL(f->loop, f->idles == 1);
}

static void an_answer_that_is_not_credited_pauses_reading(void **state)
{
    struct mux_fixture *f = *state;
    static char chunk[65536];
    memset(chunk, 'x', sizeof chunk);
    f->credits = false;
    get(f);
    send_text(f->peer, "HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
    for (int stuck = 0; stuck < 5;) {
        stuck = send(f->peer, chunk, sizeof chunk, MSG_NOSIGNAL) > 0 ? 0 : stuck + 1;
        turn_some(f->loop);
        assert_true(f->uncredited <= 2 * LOOP_SCRATCH_BYTES);
    }
    f->endpoint->ops->credit(f->endpoint, f->uncredited);
    size_t before = f->uncredited = 0;
    TURN_UNTIL(f->loop, f->uncredited > before);
    release(f, STATUS_CLIENT_CANCELLED);
    TURN_UNTIL(f->loop, f->closed);
}

static void draining_and_closing_end_an_idle_connection(void **state)
{
    struct mux_fixture *f = *state;
    f->mux->ops->close(f->mux, STATUS_IDLE_TIMEOUT);
    assert_null(f->mux->ops->open(f->mux));
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_IDLE_TIMEOUT);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
}

static void a_refused_connection_is_told(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    uint16_t port;
    struct ip_addr addr = loopback_ip();
    close(listen_any(&port));
    f->mux = h1_mux_client(stream_connect(f->loop, &addr, port, 5000, &no_stream_events, NULL), &f->settings,
                           &test_mux_events, f);
    ask(f, METHOD_GET, SLICE_NONE, BODY_NONE);
    assert_int_equal(f->endpoint->ops->room(f->endpoint), 0);
    AWAIT_EVENT(f, "reset;");
    assert_int_equal(f->status, STATUS_CONNECT_REFUSED);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_CONNECT_REFUSED);
}

static void room_comes_when_connected(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    uint16_t port;
    struct ip_addr addr = loopback_ip();
    int listening = listen_any(&port);
    f->mux = h1_mux_client(stream_connect(f->loop, &addr, port, 5000, &no_stream_events, NULL), &f->settings,
                           &test_mux_events, f);
    ask(f, METHOD_GET, SLICE_NONE, BODY_NONE);
    assert_int_equal(f->endpoint->ops->room(f->endpoint), 0);
    TURN_UNTIL(f->loop, f->rooms == 1);
    TURN_UNTIL(f->loop, (f->peer = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    AWAIT_PEER(f, "GET /x HTTP/1.1\r\n");
    close(listening);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)
#define OWN(name)  cmocka_unit_test_teardown(name, fixture_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_kind_of_answer_that_keeps_the_connection),
        TEST(an_answer_may_come_byte_by_byte),
        TEST(an_answer_may_end_with_the_connection),
        TEST(an_answer_that_says_close_ends_the_connection),
        TEST(the_request_body_is_framed),
        TEST(an_early_answer_does_not_keep_the_connection),
        TEST(an_answer_before_the_request_has_left_does_not_keep_the_connection),
        TEST(a_large_request_that_has_left_keeps_the_connection),
        TEST(bytes_behind_an_answer_do_not_keep_the_connection),
        TEST(bytes_on_an_idle_connection_close_it),
        TEST(an_idle_connection_may_be_closed_by_the_peer),
        cmocka_unit_test(how_an_answer_fails_tells_whether_a_byte_of_it_was_there),
        TEST(an_upgrade_becomes_raw),
        TEST(an_upgrade_may_be_refused),
        TEST(an_answer_that_is_not_credited_pauses_reading),
        TEST(draining_and_closing_end_an_idle_connection),
        OWN(a_refused_connection_is_told),
        OWN(room_comes_when_connected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
