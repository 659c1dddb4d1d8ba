/* h2_mux as a server; the peer is an nghttp2 client, or frames written by hand. */
#include "mux/h2_server_fixture.h"

static void requests_are_answered(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    for (int i = 1; i <= 3; i++) {
        inbox_clear(&h->told);
        ask(h, false);
        AWAIT_TOLD(h, "end");
        assert_non_null(strstr(h->told.bytes, "status 200;"));
        TURN_UNTIL(h->f->loop, h->f->idles == i);
    }
    assert_string_equal(h->f->events.bytes, "head /;end;head /;end;head /;end;");
    char line[256];
    assert_in_range(h2_mux_dump(h->f->mux, line, sizeof line), 10, sizeof line);
    assert_non_null(strstr(line, "requests=3"));
}

static void an_upload_waits_for_credit(void **state)
{
    struct h2_fixture *h = *state;
    h->f->credits = false;
    h->to_upload = 1000000;
    h->upload_ends = true;
    both_open(h);
    ask(h, true);
    TURN_UNTIL(h->f->loop, (client_turn(h), h->f->uncredited == 1 << 18));
    for (int i = 0; i < 10; i++) {
        client_turn(h);
        turn_some(h->f->loop);
    }
    assert_int_equal(h->f->uncredited, 1 << 18);
    h->f->credits = true;
    h->f->endpoint->ops->credit(h->f->endpoint, h->f->uncredited);
    h->f->uncredited = 0;
    AWAIT_TOLD(h, "end");
}

static void an_early_answer_stops_the_upload(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    ask(h, true);
    AWAIT_EVENT(h->f, "head /;");
    answer_ok(h->f);
    AWAIT_TOLD(h, "rst 0;");
    assert_non_null(strstr(h->told.bytes, "status 200;end"));
    ask(h, false);
    TURN_UNTIL(h->f->loop, (client_turn(h), h->f->requests == 2));
}

static void a_body_that_stops_is_answered_once(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.body_idle_ms = 200;
    both_open(h);
    ask(h, true);
    AWAIT_TOLD(h, "status 408;");
    AWAIT_TOLD(h, "rst 0;");
    assert_string_equal(h->f->events.bytes, "head /;malformed /;");
    assert_int_equal(h->f->status, STATUS_BODY_TIMEOUT);
}

static void send_frame(struct h2_fixture *h, uint8_t type, uint8_t flags, uint8_t stream, const char *payload,
                       size_t len)
{
    const char head[9] = {0, (char)(len >> 8), (char)len, (char)type, (char)flags, 0, 0, 0, (char)stream};
    assert_int_equal(send(h->f->peer, head, 9, MSG_NOSIGNAL), 9);
    assert_int_equal(send(h->f->peer, payload, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void a_head_that_stops_ends_the_connection(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.head_ms = 200;
    server_open(h);
    send_text(h->f->peer, NGHTTP2_CLIENT_MAGIC);
    send_frame(h, NGHTTP2_SETTINGS, 0, 0, "", 0);
    send_frame(h, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, "\x82\x87", 2); /* no END_HEADERS */
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_string_equal(h->f->events.bytes, "reset;");
    assert_int_equal(h->f->status, STATUS_HEAD_TIMEOUT);
}

static void a_connection_without_a_request_ends(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.head_ms = 200;
    both_open(h);
    AWAIT_TOLD(h, "goaway 0;");
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->requests, 0);
}

static void other_protocols_are_refused(void **state)
{
    struct h2_fixture *h = *state;
    server_open(h);
    send_text(h->f->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    AWAIT_OVER(h->f);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->requests, 0);
}

static void a_window_that_stays_closed_ends_the_stream(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.send_stall_ms = 200;
    server_open(h);
    client_open(h, 0);
    ask(h, false);
    AWAIT_TOLD(h, "rst 8;");
    assert_non_null(strstr(h->told.bytes, "status 200;"));
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
}

static void send_part(struct mux_fixture *f)
{
    struct message_head head = {.status = 200, .version = HTTP_1_1, .body = BODY_CHUNKED};
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    f->endpoint->ops->send_body(f->endpoint, "part", 4, false);
}

static void an_owner_hears_that_its_stream_stalls(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.send_stall_ms = 200;
    h->f->on_complete = send_part;
    server_open(h);
    client_open(h, 0);
    ask(h, false);
    AWAIT_EVENT(h->f, "reset;");
    assert_int_equal(h->f->status, STATUS_CLIENT_STALLED);
}

/* A proxy closes idle connections to make room: one that still has to send is not idle. */
static void what_is_queued_keeps_the_connection_busy(void **state)
{
    struct h2_fixture *h = *state;
    server_open(h);
    client_open(h, 0);
    ask(h, false);
    AWAIT_TOLD(h, "status 200;");
    h->f->mux->ops->drain(h->f->mux);
    AWAIT_TOLD(h, "goaway 0;");
    turn_some(h->f->loop);
    assert_int_equal(h->f->idles, 0);
    assert_false(h->f->closed);
    nghttp2_submit_window_update(h->client, NGHTTP2_FLAG_NONE, 1, 1000);
    AWAIT_TOLD(h, "end 1;");
    assert_int_equal(h->received, 2);
    TURN_UNTIL(h->f->loop, h->f->closed);
}

static void an_idle_connection_says_goodbye(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    ask(h, false);
    AWAIT_TOLD(h, "end");
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
    h->f->mux->ops->close(h->f->mux, STATUS_EVICTED);
    AWAIT_TOLD(h, "goaway 0;");
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->closed_status, STATUS_EVICTED);
}

static void what_comes_while_it_closes_is_not_begun(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    turn_some(h->f->loop);
    ask(h, false);
    h->f->mux->ops->close(h->f->mux, STATUS_EVICTED);
    AWAIT_TOLD(h, "goaway 0;");
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->closed_status, STATUS_EVICTED);
    assert_int_equal(h->f->requests, 0);
}

static void requests_of_one_connection_are_limited(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.max_requests = 2;
    both_open(h);
    ask(h, false);
    AWAIT_TOLD(h, "end 1;");
    ask(h, false);
    AWAIT_TOLD(h, "goaway 0;");
    AWAIT_TOLD(h, "end 3;");
    TURN_UNTIL(h->f->loop, h->f->closed);
}

static void a_close_resets_what_is_open(void **state)
{
    struct h2_fixture *h = *state;
    h->f->on_complete = NULL;
    both_open(h);
    ask(h, false);
    AWAIT_EVENT(h->f, "end;");
    h->f->mux->ops->close(h->f->mux, STATUS_SHUTDOWN);
    AWAIT_EVENT(h->f, "reset;");
    assert_int_equal(h->f->status, STATUS_SHUTDOWN);
    AWAIT_TOLD(h, "rst 8;");
    AWAIT_TOLD(h, "goaway 0;");
}

/* Operations never call back: an owner that sends on a stream that has failed hears of it later, in its turn. */
static void an_owner_that_sends_is_not_called(void **state)
{
    static char part[400000];
    struct h2_fixture *h = *state;
    struct mux_fixture *f = h->f;
    server_open(h);
    send_text(f->peer, NGHTTP2_CLIENT_MAGIC);
    send_frame(h, NGHTTP2_SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6); /* INITIAL_WINDOW_SIZE */
    send_frame(h, NGHTTP2_WINDOW_UPDATE, 0, 0, "\x7f\0\0\0", 4);
    send_frame(h, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1,
               "\x83\x87\x84\x41\1a\x0f\x0d\1"
               "1",
               10);
    AWAIT_EVENT(f, "head /;");
    send_part(f);
    while (stream_queued(f->mux->stream) < STREAM_HIGH_MARK) {
        f->endpoint->ops->send_body(f->endpoint, part, sizeof part, false);
        loop_turn(f->loop, 0);
    }
    send_frame(h, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "xx", 2); /* longer than its content-length */
    turn_some(f->loop);
    assert_non_null(f->endpoint);
    while (f->endpoint && stream_queued(f->mux->stream) >= STREAM_HIGH_MARK) {
        (void)!recv(f->peer, part, 16384, MSG_DONTWAIT);
        loop_turn(f->loop, 0);
    }
    if (f->endpoint) {
        f->endpoint->ops->send_body(f->endpoint, part, 1, false);
        assert_non_null(f->endpoint);
    }
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->peer), !f->endpoint));
    assert_int_equal(f->status, STATUS_CLIENT_PROTOCOL);
}

static void a_protocol_error_resets_what_is_open(void **state)
{
    struct h2_fixture *h = *state;
    h->f->on_complete = NULL;
    both_open(h);
    ask(h, false);
    AWAIT_EVENT(h->f, "end;");
    send_frame(h, NGHTTP2_DATA, 0, 0, "x", 1); /* RFC 9113 section 6.1: DATA on stream 0 */
    AWAIT_EVENT(h->f, "reset;");
    assert_int_equal(h->f->status, STATUS_CLIENT_PROTOCOL);
    AWAIT_TOLD(h, "goaway 1;");
    TURN_UNTIL(h->f->loop, h->f->closed);
}

static void answer_much(struct mux_fixture *f)
{
    static const char body[30000];
    const struct message_head head = {.status = 200, .version = HTTP_1_1, .body = BODY_CHUNKED};
    f->rooms += f->endpoint->ops->room(f->endpoint) > 0;
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    f->endpoint->ops->send_body(f->endpoint, body, sizeof body, true);
    release(f, STATUS_OK);
}

/* Many streams whose windows stay closed: beyond 1 MiB for all of them, there is no room. */
static void what_all_streams_queue_is_bounded(void **state)
{
    enum { STREAMS = 50, BODY = 30000, WITH_ROOM = ((1 << 20) + BODY - 1) / BODY };
    struct h2_fixture *h = *state;
    h->f->on_complete = answer_much;
    server_open(h);
    client_open(h, 0);
    for (int i = 0; i < STREAMS; i++) {
        ask(h, false);
        TURN_UNTIL(h->f->loop, (client_turn(h), h->f->requests == i + 1));
    }
    assert_int_equal(h->f->rooms, WITH_ROOM);
    nghttp2_submit_window_update(h->client, NGHTTP2_FLAG_NONE, 0, STREAMS * BODY);
    for (int32_t i = 0; i < STREAMS; i++)
        nghttp2_submit_window_update(h->client, NGHTTP2_FLAG_NONE, 2 * i + 1, BODY);
    TURN_UNTIL(h->f->loop, (client_turn(h), h->received == (size_t)STREAMS * BODY));
    ask(h, false);
    TURN_UNTIL(h->f->loop, (client_turn(h), h->f->requests == STREAMS + 1));
    assert_int_equal(h->f->rooms, WITH_ROOM + 1);
}

/* RFC 9113 section 5.2.1. */
static void more_than_the_window_is_refused(void **state)
{
    static char part[16384];
    struct h2_fixture *h = *state;
    memset(part, 'x', sizeof part);
    h->f->credits = false;
    h->f->on_complete = NULL;
    both_open(h);
    ask(h, true);
    AWAIT_EVENT(h->f, "head /;");
    for (int i = 0; i <= (1 << 18) / 16384; i++) {
        send_frame(h, NGHTTP2_DATA, 0, 1, part, sizeof part);
        turn_some(h->f->loop);
    }
    AWAIT_EVENT(h->f, "reset;");
    assert_int_equal(h->f->status, STATUS_CLIENT_PROTOCOL);
    AWAIT_TOLD(h, "rst 3;");
}

/* A client that does not answer the PING has a second. */
static void a_drain_ends_without_an_answer(void **state)
{
    struct h2_fixture *h = *state;
    server_open(h);
    send_text(h->f->peer, NGHTTP2_CLIENT_MAGIC);
    send_frame(h, NGHTTP2_SETTINGS, 0, 0, "", 0);
    turn_some(h->f->loop);
    h->f->mux->ops->drain(h->f->mux);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->closed_status, STATUS_OK);
}

/* … also when it goes on asking. */
static void requests_do_not_put_off_the_end_of_a_drain(void **state)
{
    struct h2_fixture *h = *state;
    server_open(h);
    send_text(h->f->peer, NGHTTP2_CLIENT_MAGIC);
    send_frame(h, NGHTTP2_SETTINGS, 0, 0, "", 0);
    turn_some(h->f->loop);
    h->f->mux->ops->drain(h->f->mux);
    for (int i = 0; i < 100 && !h->f->closed; i++) {
        if (i > 0)
            usleep(50000);
        send_frame(h, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, (uint8_t)(2 * i + 1),
                   "\x82\x87\x84\x41\1a", 6);
        turn_some(h->f->loop);
        inbox_read(&h->f->inbox, h->f->peer);
    }
    assert_true(h->f->closed);
    assert_true(h->f->requests > 0);
}

/* RFC 9113 section 6.8: what the client sent before it heard of the drain is answered. */
static void a_request_that_crosses_a_drain_is_answered(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    AWAIT_TOLD(h, "settings");
    h->f->mux->ops->drain(h->f->mux);
    for (int i = 0; i < 3; i++)
        loop_turn(h->f->loop, 0);
    ask(h, false);
    AWAIT_TOLD(h, "goaway 0;");
    AWAIT_TOLD(h, "end 1;");
    TURN_UNTIL(h->f->loop, (client_turn(h), h->f->closed));
    assert_int_equal(h->f->requests, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(requests_are_answered),
        TEST(an_upload_waits_for_credit),
        TEST(an_early_answer_stops_the_upload),
        TEST(a_body_that_stops_is_answered_once),
        TEST(a_head_that_stops_ends_the_connection),
        TEST(a_connection_without_a_request_ends),
        TEST(other_protocols_are_refused),
        TEST(a_window_that_stays_closed_ends_the_stream),
        TEST(an_owner_hears_that_its_stream_stalls),
        TEST(what_is_queued_keeps_the_connection_busy),
        TEST(an_idle_connection_says_goodbye),
        TEST(what_comes_while_it_closes_is_not_begun),
        TEST(requests_of_one_connection_are_limited),
        TEST(a_close_resets_what_is_open),
        TEST(an_owner_that_sends_is_not_called),
        TEST(a_protocol_error_resets_what_is_open),
        TEST(what_all_streams_queue_is_bounded),
        TEST(more_than_the_window_is_refused),
        TEST(a_drain_ends_without_an_answer),
        TEST(requests_do_not_put_off_the_end_of_a_drain),
        TEST(a_request_that_crosses_a_drain_is_answered),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
