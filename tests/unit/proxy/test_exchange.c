/* Exchanges between an h1 front and an h1 back: a real loop and frontend, clients and origins played by the test. */
#include "proxy/exchange_fixture.h"

#include <poll.h>

/* ---- the ordinary way ---- */

static void a_request_and_its_answer_pass_through(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /path?q=1", "X-Own: kept\r\nConnection: X-Hop\r\nX-Hop: dropped\r\n", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    assert_int_equal(strncmp(f->origin.in.bytes, "GET /path?q=1 HTTP/1.1\r\n", 24), 0);
    assert_non_null(strstr(f->origin.in.bytes, "X-Own: kept\r\n"));
    assert_non_null(strcasestr(f->origin.in.bytes, "x-forwarded-for: 127.0.0.1\r\n"));
    assert_null(strstr(f->origin.in.bytes, "dropped"));
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
    assert_non_null(strstr(f->client.in.bytes, "HTTP/1.1 200 OK\r\n"));
    assert_null(strcasestr(f->client.in.bytes, "connection: close"));
}

static void connections_are_reused_on_both_sides(void **state)
{
    struct proxy_fixture *f = *state;
    warm_up(f);
    client_ask(f, "GET /again", "", "");
    AWAIT_TEXT(f, origin, "GET /again");
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
    assert_int_equal(f->counters.connections_total, 1);
    assert_int_equal(f->counters.upstream_connects_total, 1);
    assert_int_equal(f->counters.upstream_reused_total, 1);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /first", "", "");
    client_ask(f, "GET /second", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "GET /first");
    ASSERT_LACKS(f, origin, "/second");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    AWAIT_TEXT(f, client, "one");
    AWAIT_TEXT(f, origin, "GET /second");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    AWAIT_TEXT(f, client, "two");
}

static void pipelined_requests_that_are_answered_here_need_no_further_event(void **state)
{
    struct proxy_fixture *f = *state;
    char text[2048] = "";
    for (int i = 0; i < 10; i++)
        strcat(text, "GET / HTTP/1.1\r\nHost: nobody-80.t.test\r\n\r\n");
    strcat(text, "GET / HTTP/1.1\r\nHost: last-80.other.test\r\n\r\n");
    send_text(f->client.fd, text);
    AWAIT_TEXT(f, client, "host_unknown");
    assert_int_equal(f->counters.requests_total, 11);
    assert_non_null(strstr(f->client.in.bytes, "app_unknown"));
}

static void bodies_and_trailers_pass_both_ways(void **state)
{
    struct proxy_fixture *f = *state;
    warm_up(f);
    client_ask(f, "POST /upload", "Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n");
    AWAIT_TEXT(f, origin, "X-Sum: abc\r\n\r\n");
    assert_non_null(strstr(f->origin.in.bytes, "4\r\nbody\r\n"));
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nreply\r\n0\r\nX-End: z\r\n\r\n");
    AWAIT_TEXT(f, client, "X-End: z\r\n\r\n");
    assert_non_null(strstr(f->client.in.bytes, "5\r\nreply\r\n"));
}

/* All of it is there before the connection to the origin is. */
static void trailers_while_connecting_end_the_kept_body(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /upload", "Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n");
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
}

static void a_body_is_kept_until_the_origin_is_connected(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /upload", "Content-Length: 10\r\n", "01234");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n01234");
    send_text(f->client.fd, "56789");
    AWAIT_TEXT(f, origin, "\r\n\r\n0123456789");
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
}

/* It comes with the event that says that the connection is there. */
static void an_answer_before_the_question_leaves_the_question_whole(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /upload", "Content-Length: 4\r\n", "body");
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 1);
    struct pollfd listening = {.fd = f->origins[0], .events = POLLIN};
    assert_int_equal(poll(&listening, 1, SOCKETS_DEADLINE_MS), 1);
    assert_true(origin_accept(f, 0));
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    AWAIT_TEXT(f, origin, "\r\n\r\nbody");
    send_text(f->origin.fd, "hello");
    AWAIT_TEXT(f, client, "hello");
    client_ask(f, "GET /next", "", "");
    AWAIT_TEXT(f, origin, "\r\n\r\nbodyGET /next HTTP/1.1\r\n");
}

static void interim_answers_pass_before_the_final_one(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /upload", "Content-Length: 4\r\nExpect: 100-continue\r\n", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    assert_non_null(strcasestr(f->origin.in.bytes, "expect: 100-continue"));
    send_text(f->origin.fd, "HTTP/1.1 100 Continue\r\n\r\n");
    AWAIT_TEXT(f, client, "HTTP/1.1 100 Continue\r\n");
    send_text(f->client.fd, "body");
    AWAIT_TEXT(f, origin, "\r\n\r\nbody");
    send_text(f->origin.fd, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
    assert_non_null(strstr(f->client.in.bytes, "103 Early Hints"));
}

static void a_close_delimited_answer_becomes_chunked(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.0 200 OK\r\n\r\nold");
    AWAIT_TEXT(f, client, "3\r\nold\r\n");
    party_close(&f->origin);
    AWAIT_TEXT(f, client, "0\r\n\r\n");
    inbox_clear(&f->client.in);
    client_ask(f, "GET /next", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "GET /next");
}

static void large_transfers_stay_in_step_with_a_slow_client(void **state)
{
    struct proxy_fixture *f = *state;
    enum { LEN = 20000000 };
    static char chunk[65536];
    size_t sent = 0;
    bool was_full = false;
    memset(chunk, 'x', sizeof chunk);
    client_ask(f, "GET /large", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n");
    for (uint64_t begun = sockets_now_ms(); sent < LEN || f->client.in.len < LEN;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        size_t left = LEN - sent < sizeof chunk ? LEN - sent : sizeof chunk;
        ssize_t n = left > 0 ? send(f->origin.fd, chunk, left, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(f->loop, 0);
        assert_true(f->loop->free_block_count < 64);
        if (n < 0 || left == 0) {
            was_full = true;
            inbox_read(&f->client.in, f->client.fd);
        }
    }
    assert_true(was_full);
    assert_true(f->client.in.len > LEN);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
}

static void large_uploads_stay_in_step_with_a_slow_origin(void **state)
{
    struct proxy_fixture *f = *state;
    enum { LEN = 20000000 };
    static char chunk[65536];
    size_t sent = 0;
    memset(chunk, 'x', sizeof chunk);
    client_ask(f, "PUT /large", "Content-Length: 20000000\r\n", "");
    AWAIT_ORIGIN(f, 0);
    for (uint64_t begun = sockets_now_ms(); sent < LEN || f->origin.in.len < LEN;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        size_t left = LEN - sent < sizeof chunk ? LEN - sent : sizeof chunk;
        ssize_t n = left > 0 ? send(f->client.fd, chunk, left, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(f->loop, 0);
        if (n < 0 || left == 0)
            inbox_read(&f->origin.in, f->origin.fd);
    }
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
}

/* ---- early answers ---- */

static void an_early_answer_ends_the_front_connection_and_says_so(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /upload", "Content-Length: 1000000\r\n", "some");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "some");
    send_text(f->origin.fd, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    AWAIT_TEXT(f, client, "big");
    assert_non_null(strcasestr(f->client.in.bytes, "connection: close\r\n"));
    send_text(f->client.fd, "more of the body");
    AWAIT_END(f, client);
    assert_int_equal(f->client.in.error, 0);
    AWAIT_END(f, origin);
    assert_int_equal(f->counters.upstream_connections_idle, 0);
}

static void an_answer_before_the_head_was_sent_is_taken(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /upload", "Content-Length: 4\r\n", "body");
    AWAIT_ORIGIN(f, 0);
    send_text(f->origin.fd, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy");
    shutdown(f->origin.fd, SHUT_WR);
    AWAIT_TEXT(f, client, "busy");
}

/* ---- claims ---- */

static void a_claim_revoked_while_waiting_is_an_error(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    fixture_put(f, fixture_app_of(1, 2));
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "address_revoked");
    ASSERT_LACKS(f, client, "hello");
    AWAIT_END(f, origin);
}

static void a_claim_revoked_while_connecting_sends_nothing(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /secret", "Content-Length: 4\r\n", "body");
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 1);
    fixture_put(f, fixture_app_of(1, 2));
    AWAIT_TEXT(f, client, "address_revoked");
    assert_int_equal(pool_count(f->proxy->pool), 0);
}

static void a_claim_revoked_while_streaming_cuts_the_answer(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nmine ");
    AWAIT_TEXT(f, client, "mine");
    fixture_put(f, fixture_app_of(1, 2));
    send_text(f->origin.fd, "theirs");
    AWAIT_END(f, client);
    ASSERT_LACKS(f, client, "theirs");
}

/* Whoever accepts the connection, not a byte is for it. */
static void a_request_does_not_reach_a_new_owner(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /secret", "Cookie: secret\r\nContent-Length: 4\r\n", "body");
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 1);
    fixture_move_address(f);
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, client, "address_revoked");
    AWAIT_END(f, origin);
    assert_int_equal(f->origin.in.len, 0);
    assert_int_equal(f->counters.upstream_revoked_total, 1);
}

static void trailers_of_a_new_owner_do_not_pass(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "TE: trailers\r\nConnection: TE\r\n", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n");
    AWAIT_TEXT(f, client, "mine");
    fixture_move_address(f);
    send_text(f->origin.fd, "0\r\nX-Sum: theirs\r\n\r\n");
    AWAIT_END(f, client);
    ASSERT_LACKS(f, client, "theirs");
}

static void trailers_do_not_reach_a_new_owner(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /", "Transfer-Encoding: chunked\r\n", "4\r\nmine\r\n");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "mine");
    fixture_move_address(f);
    send_text(f->client.fd, "0\r\nX-Sum: secret\r\n\r\n");
    AWAIT_TEXT(f, client, "address_revoked");
    AWAIT_END(f, origin);
    ASSERT_LACKS(f, origin, "secret");
}

static void a_revoked_claim_takes_its_idle_connections_along(void **state)
{
    struct proxy_fixture *f = *state;
    warm_up(f);
    fixture_put(f, fixture_app_of(1, 2));
    AWAIT_END(f, origin);
    client_ask(f, "GET /next", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "GET /next");
}

/* ---- tunnels ---- */

static void open_tunnel(struct proxy_fixture *f, const char *early)
{
    client_ask(f, "GET /ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n", early);
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    assert_null(strstr(f->origin.in.bytes, "early"));
    send_text(f->origin.fd, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi");
    AWAIT_TEXT(f, client, "\r\n\r\nhi");
    assert_non_null(strcasestr(f->client.in.bytes, "upgrade: websocket"));
}

static void a_tunnel_carries_bytes_both_ways_from_the_first(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f, "early");
    AWAIT_TEXT(f, origin, "\r\n\r\nearly");
    send_text(f->client.fd, "ping");
    AWAIT_TEXT(f, origin, "earlyping");
    send_text(f->origin.fd, "pong");
    AWAIT_TEXT(f, client, "hipong");
    assert_int_equal(f->counters.tunnels_active, 1);
}

static void each_side_of_a_tunnel_ends_on_its_own(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f, "");
    send_text(f->client.fd, "last");
    shutdown(f->client.fd, SHUT_WR);
    AWAIT_END(f, origin);
    assert_non_null(strstr(f->origin.in.bytes, "last"));
    assert_int_equal(f->origin.in.error, 0);
    send_text(f->origin.fd, "and more");
    AWAIT_TEXT(f, client, "and more");
    shutdown(f->origin.fd, SHUT_WR);
    AWAIT_END(f, client);
    assert_int_equal(f->client.in.error, 0);
    TURN_UNTIL(f->loop, f->counters.tunnels_active == 0);
}

static void the_origin_may_end_a_tunnel_first(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f, "");
    shutdown(f->origin.fd, SHUT_WR);
    AWAIT_END(f, client);
    send_text(f->client.fd, "still talking");
    AWAIT_TEXT(f, origin, "still talking");
    close(f->client.fd);
    f->client.fd = -1;
    TURN_UNTIL(f->loop, f->counters.tunnels_active == 0);
}

/* Its end looks like a half-close until bytes for it are answered with a reset. */
static void a_client_that_left_a_tunnel_ends_it(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f, "");
    party_close(&f->client);
    for (uint64_t begun = sockets_now_ms(); f->counters.tunnels_active;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        ssize_t n = send(f->origin.fd, "feed", 4, MSG_NOSIGNAL);
        (void)n;
        turn_some(f->loop);
    }
    AWAIT_END(f, origin);
}

static void a_claim_revoked_closes_its_tunnels(void **state)
{
    struct proxy_fixture *f = *state;
    open_tunnel(f, "");
    fixture_put(f, fixture_app_of(1, 2));
    send_text(f->origin.fd, "theirs");
    AWAIT_END(f, client);
    ASSERT_LACKS(f, client, "theirs");
    AWAIT_END(f, origin);
}

static void a_refused_upgrade_is_an_ordinary_answer(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
    client_ask(f, "GET /next", "", "");
    AWAIT_TEXT(f, origin, "GET /next");
}

/* ---- clients that leave ---- */

static void a_client_that_leaves_takes_its_request_along(void **state)
{
    static const char *const answers[] = {"", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"};
    struct proxy_fixture *f = *state;
    for (int hard = 0; hard < 2; hard++)
        for (size_t i = 0; i < 2; i++) {
            client_connect(f);
            client_ask(f, "GET /", "", "");
            AWAIT_ORIGIN(f, 0);
            AWAIT_TEXT(f, origin, "\r\n\r\n");
            send_text(f->origin.fd, answers[i]);
            turn_some(f->loop);
            if (hard)
                close_hard(f->client.fd);
            else
                close(f->client.fd);
            f->client.fd = -1;
            AWAIT_END(f, origin);
            TURN_UNTIL(f->loop, f->proxy->connection_count == 0);
        }
    assert_int_equal(f->counters.requests_aborted_total, 4);
}

static void a_client_that_leaves_within_its_request(void **state)
{
    static const char *const parts[] = {"", "GET / HT", "POST / HTTP/1.1\r\nHost: a"};
    struct proxy_fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        client_connect(f);
        send_text(f->client.fd, parts[i]);
        turn_some(f->loop);
        party_close(&f->client);
        TURN_UNTIL(f->loop, f->proxy->connection_count == 0);
    }
    client_connect(f);
    client_ask(f, "POST /upload", "Content-Length: 100\r\n", "half");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "half");
    party_close(&f->client);
    AWAIT_END(f, origin);
}

/* Bytes behind its request stop reading; then only writing shows that it has left. */
static void a_client_that_pipelined_and_left_ends_an_endless_answer(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "POST /events", "Content-Length: 4\r\n", "body\r\n");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "body");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    AWAIT_TEXT(f, client, "200 OK");
    party_close(&f->client);
    for (uint64_t begun = sockets_now_ms(); f->proxy->connection_count;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        ssize_t n = send(f->origin.fd, "5\r\nevent\r\n", 10, MSG_NOSIGNAL);
        (void)n;
        turn_some(f->loop);
    }
    AWAIT_END(f, origin);
}

/* ---- answers made here ---- */

static void names_that_lead_nowhere_are_told_why(void **state)
{
    static const struct {
        const char *host, *code;
    } cases[] = {
        {"nobody-80.t.test", "app_unknown"},
        {"app-1.other.test", "host_unknown"},
        {"t.test", "host_unknown"},
        {"app-443s.t.test", "misdirected"},
    };
    struct proxy_fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        inbox_clear(&f->client.in);
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", cases[i].host);
        send_text(f->client.fd, text);
        AWAIT_TEXT(f, client, cases[i].code);
    }
    assert_int_equal(f->counters.connections_total, 1);
}

static void health_is_answered_without_an_app(void **state)
{
    struct proxy_fixture *f = *state;
    send_text(f->client.fd, "GET / HTTP/1.1\r\nHost: health.t.test\r\n\r\n");
    AWAIT_TEXT(f, client, "ready\n");
}

static void an_answer_to_an_unfinished_request_says_close(void **state)
{
    struct proxy_fixture *f = *state;
    send_text(f->client.fd, "POST / HTTP/1.1\r\nHost: nobody-80.t.test\r\nContent-Length: 100\r\n\r\nsome");
    AWAIT_END(f, client);
    assert_non_null(strstr(f->client.in.bytes, "app_unknown"));
    assert_non_null(strcasestr(f->client.in.bytes, "connection: close"));
    assert_int_equal(f->client.in.error, 0);
}

static void on_drained(void *arg)
{
    struct proxy_fixture *f = arg;
    f->drained = true;
}

static void draining_ends_connections_when_their_exchange_does(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    frontend_stop(f->frontend);
    proxy_drain(f->proxy, on_drained, f);
    turn_some(f->loop);
    assert_false(f->drained);
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_END(f, client);
    assert_non_null(strstr(f->client.in.bytes, "hello"));
    assert_non_null(strcasestr(f->client.in.bytes, "connection: close"));
    TURN_UNTIL(f->loop, f->drained);
}

/* It was sent before the client could hear of the drain. */
static void a_request_that_crosses_a_drain_is_answered(void **state)
{
    struct proxy_fixture *f = *state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: nobody-80.t.test\r\n\r\n";
    int other = connect_to(f->front_port); /* asks no second time */
    send_text(other, request);
    send_text(f->client.fd, request);
    AWAIT_TEXT(f, client, "app_unknown");
    TURN_UNTIL(f->loop, f->counters.connections_idle == 2);
    inbox_clear(&f->client.in);
    frontend_stop(f->frontend);
    proxy_drain(f->proxy, on_drained, f);
    send_text(f->client.fd, request);
    AWAIT_TEXT(f, client, "app_unknown");
    AWAIT_END(f, client);
    assert_non_null(strcasestr(f->client.in.bytes, "connection: close"));
    assert_int_equal(f->client.in.error, 0);
    TURN_UNTIL(f->loop, f->drained);
    close(other);
}

int main(void)
{
    route_table_thread_begin();
#define ONE(name) cmocka_unit_test_setup_teardown(name, start_one, stop)
    const struct CMUnitTest tests[] = {
        ONE(a_request_and_its_answer_pass_through),
        ONE(connections_are_reused_on_both_sides),
        ONE(pipelined_requests_are_answered_in_order),
        ONE(pipelined_requests_that_are_answered_here_need_no_further_event),
        ONE(bodies_and_trailers_pass_both_ways),
        ONE(trailers_while_connecting_end_the_kept_body),
        ONE(a_body_is_kept_until_the_origin_is_connected),
        ONE(an_answer_before_the_question_leaves_the_question_whole),
        ONE(interim_answers_pass_before_the_final_one),
        ONE(a_close_delimited_answer_becomes_chunked),
        ONE(large_transfers_stay_in_step_with_a_slow_client),
        ONE(large_uploads_stay_in_step_with_a_slow_origin),
        ONE(an_early_answer_ends_the_front_connection_and_says_so),
        ONE(an_answer_before_the_head_was_sent_is_taken),
        ONE(a_claim_revoked_while_waiting_is_an_error),
        ONE(a_claim_revoked_while_connecting_sends_nothing),
        ONE(a_claim_revoked_while_streaming_cuts_the_answer),
        ONE(a_request_does_not_reach_a_new_owner),
        ONE(trailers_of_a_new_owner_do_not_pass),
        ONE(trailers_do_not_reach_a_new_owner),
        ONE(a_revoked_claim_takes_its_idle_connections_along),
        ONE(a_tunnel_carries_bytes_both_ways_from_the_first),
        ONE(each_side_of_a_tunnel_ends_on_its_own),
        ONE(the_origin_may_end_a_tunnel_first),
        ONE(a_client_that_left_a_tunnel_ends_it),
        ONE(a_claim_revoked_closes_its_tunnels),
        ONE(a_refused_upgrade_is_an_ordinary_answer),
        ONE(a_client_that_leaves_takes_its_request_along),
        ONE(a_client_that_leaves_within_its_request),
        ONE(a_client_that_pipelined_and_left_ends_an_endless_answer),
        ONE(names_that_lead_nowhere_are_told_why),
        ONE(health_is_answered_without_an_app),
        ONE(an_answer_to_an_unfinished_request_says_close),
        ONE(draining_ends_connections_when_their_exchange_does),
        ONE(a_request_that_crosses_a_drain_is_answered),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
