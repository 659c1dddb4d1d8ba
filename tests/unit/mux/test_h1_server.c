/* h1_mux as a server. */
#include "mux/mux_fixture.h"

#define HOST "Host: a\r\n"

static int set_up(void **state)
{
    struct mux_fixture *f = fixture_new();
    fixture_open(f, true);
    f->on_complete = answer_ok;
    *state = f;
    return 0;
}

/* The test answers. */
static int set_up_manual(void **state)
{
    set_up(state);
    ((struct mux_fixture *)*state)->on_complete = NULL;
    return 0;
}

static void connections_are_kept_alive(void **state)
{
    struct mux_fixture *f = *state;
    for (int i = 1; i <= 3; i++) {
        inbox_clear(&f->inbox);
        send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
        AWAIT_PEER(f, "\r\n\r\nok");
        assert_null(strcasestr(f->inbox.bytes, "connection:"));
        assert_int_equal(f->idles, i);
    }
    assert_string_equal(f->events.bytes, "head /x;end;head /x;end;head /x;end;");
    char line[256];
    assert_in_range(h1_mux_dump(f->mux, line, sizeof line), 10, sizeof line);
    assert_non_null(strstr(line, "requests=3"));
}

static void pipelined_requests_come_one_after_the_other(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "GET /1 HTTP/1.1\r\n" HOST "\r\n\r\nGET /2 HTTP/1.1\r\n" HOST "\r\nGET /3 HTT");
    AWAIT_EVENT(f, "/1;end;");
    AWAIT_PEER(f, "ok");
    AWAIT_EVENT(f, "/2;end;");
    send_text(f->peer, "P/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "head /1;end;head /2;end;head /3;end;");
}

static void a_request_that_is_not_answered_holds_the_next(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "GET /1 HTTP/1.1\r\n" HOST "\r\nGET /2 HTTP/1.1\r\n" HOST "\r\n");
    turn_some(f->loop);
    assert_string_equal(f->events.bytes, "head /1;end;");
    send_text(f->peer, "GET /3 HTTP/1.1\r\n" HOST "\r\n");
    turn_some(f->loop);
    f->on_complete = answer_ok;
    answer_ok(f);
    AWAIT_EVENT(f, "head /1;end;head /2;end;head /3;end;");
}

static void stray_line_ends_between_requests_leave_it_idle(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "POST /1 HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\nbody\r\n");
    turn_some(f->loop);
    answer_ok(f);
    TURN_UNTIL(f->loop, f->idles == 1);
    f->on_complete = answer_ok;
    send_text(f->peer, "\r\nGET /2 HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "/2;end;");
    assert_int_equal(f->requests, 2);
}

static void bodies_come_as_pieces(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "POST /l HTTP/1.1\r\n" HOST "Content-Length: 6\r\n\r\nabc");
    AWAIT_EVENT(f, "body abc;");
    send_text(f->peer, "def");
    AWAIT_EVENT(f, "body def;end;");
    send_text(f->peer,
              "POST /c HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nuv\r\n1\r\nw\r\n0\r\nX-T: t\r\n\r\n");
    AWAIT_EVENT(f, "head /c;body uv;body w;trailers t;end;");
    send_text(f->peer, "POST /e HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    AWAIT_EVENT(f, "head /e;end;");
}

static void a_malformed_request_is_answered_and_ends_the_connection(void **state)
{
    static const char *const bad[] = {
        "GET /x HTTP/1.1\r\n\r\n",
        "GET  /x HTTP/1.1\r\n" HOST "\r\n",
        "GET /x HTTP/1.1\r\nHost : a\r\n\r\n",
        "POST /x HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        set_up(state);
        struct mux_fixture *f = *state;
        send_text(f->peer, "GET /before HTTP/1.1\r\n" HOST "\r\n");
        AWAIT_PEER(f, "ok");
        inbox_clear(&f->inbox);
        send_text(f->peer, bad[i]);
        AWAIT_OVER(f);
        assert_int_equal(f->inbox.error, 0);
        assert_non_null(strstr(f->inbox.bytes, "HTTP/1.1 400 "));
        assert_non_null(strcasestr(f->inbox.bytes, "connection: close\r\n"));
        TURN_UNTIL(f->loop, f->closed);
        fixture_tear_down(state);
    }
}

static void what_follows_a_malformed_request_is_not_read(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "BAD\r\n\r\nGET /smuggled HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_OVER(f);
    assert_null(strstr(f->events.bytes, "smuggled"));
    assert_int_equal(f->requests, 1);
}

/* ---- what is sent ---- */

static void send_unknown_length(struct mux_fixture *f)
{
    struct message_head head = {.status = 200, .version = HTTP_1_1, .body = BODY_CHUNKED};
    static const struct fields none;
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    f->endpoint->ops->send_body(f->endpoint, "part", 4, false);
    f->endpoint->ops->send_trailers(f->endpoint, &none);
    release(f, STATUS_OK);
}

static void an_unknown_length_is_chunked(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = send_unknown_length;
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_PEER(f, "\r\n\r\n4\r\npart\r\n0\r\n\r\n");
    TURN_UNTIL(f->loop, f->idles == 1);
}

static void an_unknown_length_ends_with_the_connection_for_http_1_0(void **state)
{
    struct mux_fixture *f = *state;
    f->on_complete = send_unknown_length;
    send_text(f->peer, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    AWAIT_OVER(f);
    assert_non_null(strstr(f->inbox.bytes, "\r\n\r\npart"));
    assert_null(strcasestr(f->inbox.bytes, "transfer-encoding"));
    assert_non_null(strcasestr(f->inbox.bytes, "connection: close"));
    assert_string_equal(f->inbox.bytes + f->inbox.len - 4, "part");
}

static void http_1_0_stays_open_only_if_it_asks(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    AWAIT_PEER(f, "ok");
    assert_non_null(strcasestr(f->inbox.bytes, "connection: keep-alive"));
    inbox_clear(&f->inbox);
    send_text(f->peer, "GET /2 HTTP/1.0\r\n\r\n");
    AWAIT_OVER(f);
    assert_non_null(strcasestr(f->inbox.bytes, "connection: close"));
}

static void a_client_that_asks_for_close_gets_it(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "GET /1 HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    assert_non_null(strcasestr(f->inbox.bytes, "connection: close"));
    assert_non_null(strstr(f->inbox.bytes, "\r\n\r\nok"));
}

static void the_answer_to_head_has_no_body(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "HEAD /x HTTP/1.1\r\n" HOST "\r\nGET /y HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_PEER(f, "\r\n\r\nok");
    char *second = strstr(f->inbox.bytes, "\r\n\r\n") + 4;
    assert_non_null(strcasestr(f->inbox.bytes, "content-length: 2"));
    assert_int_equal(strncmp(second, "HTTP/1.1 200", 12), 0);
}

static void interim_answers_are_not_for_http_1_0(void **state)
{
    struct mux_fixture *f = *state;
    struct message_head hints = {.status = 103, .version = HTTP_1_1};
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "end;");
    f->endpoint->ops->send_head(f->endpoint, &hints, false);
    AWAIT_PEER(f, "HTTP/1.1 103 ");
    answer_ok(f);
    AWAIT_PEER(f, "ok");
    inbox_clear(&f->events);
    inbox_clear(&f->inbox);
    send_text(f->peer, "GET /x HTTP/1.0\r\n\r\n");
    AWAIT_EVENT(f, "end;");
    f->endpoint->ops->send_head(f->endpoint, &hints, false);
    answer_ok(f);
    AWAIT_OVER(f);
    assert_null(strstr(f->inbox.bytes, "103"));
}

static void expect_continue_waits_for_the_owner(void **state)
{
    struct mux_fixture *f = *state;
    struct message_head go_on = {.status = 100, .version = HTTP_1_1};
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    AWAIT_EVENT(f, "head /x;");
    assert_true(f->head.expect_continue);
    f->endpoint->ops->send_head(f->endpoint, &go_on, false);
    AWAIT_PEER(f, "HTTP/1.1 100 Continue\r\n\r\n");
    send_text(f->peer, "body");
    AWAIT_EVENT(f, "body body;end;");
    answer_ok(f);
    AWAIT_PEER(f, "ok");
}

static void an_answer_before_the_end_of_the_request_ends_in_order(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\nsome");
    AWAIT_EVENT(f, "body some;");
    answer_ok(f);
    send_text(f->peer, "more");
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    assert_non_null(strstr(f->inbox.bytes, "ok"));
}

static void an_aborted_answer_is_a_reset(void **state)
{
    struct mux_fixture *f = *state;
    struct message_head head = {
        .status = 200, .version = HTTP_1_1, .body = BODY_LENGTH, .has_content_length = true, .content_length = 100};
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "end;");
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    release(f, STATUS_UPSTREAM_TRUNCATED);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, ECONNRESET);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_UPSTREAM_TRUNCATED);
}

/* ---- upgrade ---- */

static void an_upgrade_is_raw_after_the_101_only(void **state)
{
    struct mux_fixture *f = *state;
    struct message_head head = {.status = 101, .version = HTTP_1_1, .body = BODY_RAW, .upgrade = SLICE("echo")};
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "Connection: upgrade\r\nUpgrade: echo\r\n\r\nearly");
    AWAIT_EVENT(f, "head /x;end;");
    turn_some(f->loop);
    assert_string_equal(f->events.bytes, "head /x;end;");
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    AWAIT_EVENT(f, "body early;");
    send_text(f->peer, "more");
    AWAIT_EVENT(f, "body more;");
    f->endpoint->ops->send_body(f->endpoint, "hi", 2, false);
    AWAIT_PEER(f, "\r\n\r\nhi");
    f->endpoint->ops->send_body(f->endpoint, NULL, 0, true);
    AWAIT_OVER(f);
    send_text(f->peer, "last");
    shutdown(f->peer, SHUT_WR);
    AWAIT_EVENT(f, "body last;end;");
    release(f, STATUS_OK);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->inbox.error, 0);
}

/* ---- backpressure ---- */

static void a_body_that_is_not_credited_pauses_reading(void **state)
{
    struct mux_fixture *f = *state;
    static char chunk[65536];
    size_t sent = 0;
    memset(chunk, 'x', sizeof chunk);
    f->credits = false;
    send_text(f->peer, "PUT /x HTTP/1.1\r\n" HOST "Content-Length: 50000000\r\n\r\n");
    for (int stuck = 0; stuck < 5;) {
        ssize_t n = send(f->peer, chunk, sizeof chunk, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        stuck = n > 0 ? 0 : stuck + 1;
        turn_some(f->loop);
        assert_true(f->uncredited <= 2 * LOOP_SCRATCH_BYTES);
    }
    assert_true(sent > f->uncredited);
    f->credits = true;
    f->endpoint->ops->credit(f->endpoint, f->uncredited);
    f->uncredited = 0;
    inbox_clear(&f->events);
    AWAIT_EVENT(f, "body xxx;");
}

/* ---- clients that pipeline and do not read ---- */

enum { PIPELINED = 20000, PIPELINED_BODY = 2048 };

/* Answers with what was asked for, so that the order shows. */
static void answer_target(struct mux_fixture *f)
{
    char body[PIPELINED_BODY + 1];
    struct slice target = f->head.target;
    memset(body, '.', PIPELINED_BODY);
    body[PIPELINED_BODY] = '\0';
    memcpy(body, target.ptr, target.len);
    send_answer(f, 200, body);
    release(f, STATUS_OK);
}

struct pipeline {
    char *bytes;
    size_t len, sent;
};

static struct pipeline pipeline_new(int count)
{
    enum { REQUEST_MAX = 64 };
    struct pipeline p = {.bytes = malloc((size_t)count * REQUEST_MAX)};
    assert_non_null(p.bytes);
    for (int i = 0; i < count; i++)
        p.len += (size_t)snprintf(p.bytes + p.len, REQUEST_MAX, "GET /%05d HTTP/1.1\r\n" HOST "\r\n", i);
    return p;
}

/* Sends what the socket takes; true if that was something. */
static bool pipeline_push(struct pipeline *p, int fd)
{
    ssize_t n = p->sent < p->len ? send(fd, p->bytes + p->sent, p->len - p->sent, MSG_NOSIGNAL) : 0;
    p->sent += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* Until nothing moves any more: the queue must not hold more than one answer above its mark. */
static void pipeline_push_all(struct pipeline *p, struct mux_fixture *f)
{
    for (int before = -1, stuck = 0; stuck < 5; before = f->requests) {
        bool moved = pipeline_push(p, f->peer);
        turn_some(f->loop);
        stuck = moved || f->requests > before ? 0 : stuck + 1;
        assert_in_range(stream_queued(f->mux->stream), 0, STREAM_HIGH_MARK + 2 * PIPELINED_BODY);
    }
}

static void requests_wait_until_the_client_takes_its_answers(void **state)
{
    struct mux_fixture *f = *state;
    struct pipeline p = pipeline_new(PIPELINED);
    f->on_complete = answer_target;
    pipeline_push_all(&p, f);
    assert_in_range(f->requests, 1, PIPELINED - 1);
    TURN_UNTIL(f->loop, inbox_has(&f->inbox, f->peer, "\r\n\r\n/00000"));
    size_t answer = (size_t)(strstr(f->inbox.bytes, "\r\n\r\n") + 4 - f->inbox.bytes) + PIPELINED_BODY;
    TURN_UNTIL(f->loop, (pipeline_push(&p, f->peer), inbox_read(&f->inbox, f->peer) == PIPELINED * answer));
    for (size_t i = 0; i < PIPELINED; i++) {
        char target[16];
        snprintf(target, sizeof target, "/%05zu.", i);
        assert_memory_equal(f->inbox.bytes + (i + 1) * answer - PIPELINED_BODY, target, strlen(target));
    }
    assert_int_equal(f->requests, PIPELINED);
    free(p.bytes);
}

static void a_client_that_only_pipelines_is_given_up(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.send_stall_ms = 150;
    f->on_complete = answer_target;
    fixture_open(f, true);
    struct pipeline p = pipeline_new(PIPELINED);
    TURN_UNTIL(f->loop, (pipeline_push(&p, f->peer), f->closed));
    assert_int_equal(f->closed_status, STATUS_CLIENT_STALLED);
    assert_in_range(f->requests, 1, PIPELINED - 1);
    free(p.bytes);
}

/* Sends until the client, which does not read, makes the queue full. */
static void fill(struct mux_fixture *f)
{
    static char chunk[65536];
    for (int full = 0; full < 5; turn_some(f->loop)) {
        bool has_room = f->endpoint->ops->room(f->endpoint) > 0;
        full = has_room ? 0 : full + 1;
        if (has_room)
            f->endpoint->ops->send_body(f->endpoint, chunk, sizeof chunk, false);
    }
}

static void a_request_waits_for_room_after_one_that_did(void **state)
{
    struct mux_fixture *f = *state;
    struct message_head head = {.status = 200, .version = HTTP_1_1, .body = BODY_CHUNKED};
    send_text(f->peer, "GET /1 HTTP/1.1\r\n" HOST "\r\nGET /2 HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "head /1;end;");
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    fill(f);
    assert_int_equal(f->rooms, 0);
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->peer), f->rooms == 1));
    fill(f);
    f->endpoint->ops->send_body(f->endpoint, NULL, 0, true);
    f->on_complete = answer_ok;
    release(f, STATUS_OK);
    turn_some(f->loop);
    assert_int_equal(f->requests, 1);
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->peer), f->requests == 2));
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->peer), memcmp(f->inbox.bytes + f->inbox.len - 2, "ok", 2) == 0));
}

/* What it has not taken yet must not be lost in a reset because of what we have not read. */
static void draining_sends_the_answers_that_wait(void **state)
{
    struct mux_fixture *f = *state;
    struct pipeline p = pipeline_new(PIPELINED);
    f->on_complete = answer_target;
    pipeline_push_all(&p, f);
    f->mux->ops->drain(f->mux);
    TURN_UNTIL(f->loop, f->closed);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    char last[16];
    snprintf(last, sizeof last, "\r\n/%05d.", f->requests - 1);
    assert_non_null(strstr(f->inbox.bytes + f->inbox.len - 2 * PIPELINED_BODY, last));
    free(p.bytes);
}

/* ---- deadlines ---- */

static void a_connection_without_a_request_is_closed_silently(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.head_ms = 100;
    fixture_open(f, true);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.len, 0);
    assert_int_equal(f->requests, 0);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_IDLE_TIMEOUT);
}

/* The head of the request before must not show: its memory is gone. */
static void a_head_that_takes_too_long_is_answered(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.head_ms = 150;
    f->on_complete = answer_ok;
    fixture_open(f, true);
    send_text(f->peer, "GET /before HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_PEER(f, "ok");
    send_text(f->peer, "GET /slow HTTP/1.1\r\n");
    AWAIT_OVER(f);
    assert_int_equal(f->status, STATUS_HEAD_TIMEOUT);
    assert_non_null(strstr(f->inbox.bytes, "HTTP/1.1 408 "));
    assert_non_null(strstr(f->events.bytes, "malformed;"));
}

/* Bytes that trickle do not move the deadline. */
static void a_head_that_trickles_is_late_too(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.head_ms = 200;
    fixture_open(f, true);
    send_text(f->peer, "GET /slow HTTP/1.1\r\nX: ");
    for (uint64_t begun = sockets_now_ms(), last = 0; f->status == STATUS_OK;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        if (sockets_now_ms() - last >= 20) {
            last = sockets_now_ms();
            ssize_t n = send(f->peer, "x", 1, MSG_NOSIGNAL);
            (void)n;
        }
        loop_turn(f->loop, 5);
    }
    assert_int_equal(f->status, STATUS_HEAD_TIMEOUT);
    TURN_UNTIL(f->loop, f->closed);
}

static void a_body_that_stops_is_answered(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.body_idle_ms = 150;
    fixture_open(f, true);
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nsome");
    AWAIT_OVER(f);
    assert_int_equal(f->status, STATUS_BODY_TIMEOUT);
    assert_non_null(strstr(f->inbox.bytes, "HTTP/1.1 408 "));
}

static void a_body_that_is_too_slow_is_answered(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.body_idle_ms = 150;
    f->settings.body_min_rate = 1000000000; /* more than one byte a turn can be */
    fixture_open(f, true);
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n");
    for (uint64_t begun = sockets_now_ms(); f->status == STATUS_OK;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        ssize_t n = send(f->peer, "x", 1, MSG_NOSIGNAL);
        (void)n;
        loop_turn(f->loop, 20);
    }
    assert_int_equal(f->status, STATUS_BODY_TOO_SLOW);
    TURN_UNTIL(f->loop, f->closed);
}

/* It is ours not to read: no deadline of the client's runs. */
static void a_body_that_waits_for_100_is_not_late(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.body_idle_ms = 100;
    fixture_open(f, true);
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() - begun < 500;)
        loop_turn(f->loop, 20);
    assert_int_equal(f->status, STATUS_OK);
    struct message_head interim = {.status = 103};
    f->endpoint->ops->send_head(f->endpoint, &interim, false);
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() - begun < 500;)
        loop_turn(f->loop, 20);
    assert_int_equal(f->status, STATUS_OK);
    interim.status = 100;
    f->endpoint->ops->send_head(f->endpoint, &interim, false);
    AWAIT_OVER(f);
    assert_int_equal(f->status, STATUS_BODY_TIMEOUT);
}

static void a_body_that_we_do_not_read_is_not_late(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    static char chunk[200000];
    memset(chunk, 'x', sizeof chunk);
    f->settings.body_idle_ms = 100;
    f->credits = false;
    fixture_open(f, true);
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 200000\r\n\r\n");
    assert_true(send(f->peer, chunk, sizeof chunk, MSG_NOSIGNAL) > 65536);
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() - begun < 500;)
        loop_turn(f->loop, 20);
    assert_int_equal(f->status, STATUS_OK);
    assert_non_null(f->endpoint);
}

/* It must come faster than anything can, until an answer with this head has been sent. */
static struct mux_fixture *with_a_body_in_progress(const struct message_head *answer)
{
    struct mux_fixture *f = fixture_new();
    f->settings.body_idle_ms = 150;
    f->settings.body_min_rate = 1000000000;
    fixture_open(f, true);
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    AWAIT_EVENT(f, "body a;");
    f->endpoint->ops->send_head(f->endpoint, answer, false);
    return f;
}

/* A dialogue: the client may listen for as long as it likes. */
static void a_body_is_not_late_once_the_answer_has_begun(void **state)
{
    struct message_head head = {.status = 200, .version = HTTP_1_1, .body = BODY_CHUNKED};
    struct mux_fixture *f = *state = with_a_body_in_progress(&head);
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() - begun < 600;)
        loop_turn(f->loop, 20);
    send_text(f->peer, "1\r\nb\r\n0\r\n\r\n");
    AWAIT_EVENT(f, "body b;end;");
    f->endpoint->ops->send_body(f->endpoint, "ok", 2, true);
    release(f, STATUS_OK);
    AWAIT_PEER(f, "ok\r\n0\r\n\r\n");
}

static void a_body_is_late_after_an_interim_answer_too(void **state)
{
    struct message_head hints = {.status = 103, .version = HTTP_1_1};
    struct mux_fixture *f = *state = with_a_body_in_progress(&hints);
    AWAIT_OVER(f);
    assert_int_equal(f->status, STATUS_BODY_TOO_SLOW);
    assert_non_null(strstr(f->inbox.bytes, "HTTP/1.1 408 "));
}

static void an_idle_connection_is_closed(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.keepalive_ms = 100;
    f->on_complete = answer_ok;
    fixture_open(f, true);
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_IDLE_TIMEOUT);
}

static void a_client_that_does_not_read_its_answer_is_given_up(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    static char chunk[65536];
    struct message_head head = {.status = 200, .version = HTTP_1_1, .body = BODY_CHUNKED};
    f->settings.send_stall_ms = 150;
    fixture_open(f, true);
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "end;");
    f->endpoint->ops->send_head(f->endpoint, &head, false);
    while (f->endpoint->ops->room(f->endpoint) > 0) {
        f->endpoint->ops->send_body(f->endpoint, chunk, sizeof chunk, false);
        loop_turn(f->loop, 0);
    }
    AWAIT_EVENT(f, "reset;");
    assert_int_equal(f->status, STATUS_CLIENT_STALLED);
}

/* ---- ends ---- */

static void a_client_that_leaves_is_told_at_every_stage(void **state)
{
    static const struct {
        const char *sent;
        bool is_told; /* an endpoint was open */
    } stages[] = {
        {"", false},
        {"GET /x", true},
        {"POST /x HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n", true},
        {"POST /x HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nhalf", true},
        {"GET /x HTTP/1.1\r\n" HOST "\r\n", true},
    };
    for (int hard = 0; hard < 2; hard++)
        for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
            set_up_manual(state);
            struct mux_fixture *f = *state;
            if (stages[i].sent[0])
                send_text(f->peer, stages[i].sent);
            turn_some(f->loop);
            if (hard)
                close_hard(f->peer);
            else
                close(f->peer);
            f->peer = -1;
            TURN_UNTIL(f->loop, f->closed);
            assert_int_equal(f->status, stages[i].is_told ? STATUS_CLIENT_CANCELLED : STATUS_OK);
            fixture_tear_down(state);
        }
}

static void draining_closes_an_idle_connection_now(void **state)
{
    struct mux_fixture *f = *state;
    f->mux->ops->drain(f->mux);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    assert_true(f->closed);
}

static void draining_lets_a_request_end_and_says_close(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "end;");
    f->mux->ops->drain(f->mux);
    turn_some(f->loop);
    assert_false(f->closed);
    answer_ok(f);
    AWAIT_OVER(f);
    assert_non_null(strcasestr(f->inbox.bytes, "connection: close"));
    assert_non_null(strstr(f->inbox.bytes, "ok"));
}

static void closing_resets_what_is_in_progress(void **state)
{
    struct mux_fixture *f = *state;
    send_text(f->peer, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_EVENT(f, "end;");
    f->mux->ops->close(f->mux, STATUS_SHUTDOWN);
    assert_non_null(f->endpoint); /* not inside the call */
    AWAIT_EVENT(f, "reset;");
    assert_int_equal(f->status, STATUS_SHUTDOWN);
    TURN_UNTIL(f->loop, f->closed);
}

/* It arrives in the turn in which the connection is given up: an app that had got it would have acted on it. */
static void what_comes_while_it_closes_is_not_begun(void **state)
{
    struct mux_fixture *f = *state;
    turn_some(f->loop);
    send_text(f->peer, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    f->mux->ops->close(f->mux, STATUS_EVICTED);
    AWAIT_OVER(f);
    assert_int_equal(f->inbox.error, 0);
    TURN_UNTIL(f->loop, f->closed);
    assert_int_equal(f->closed_status, STATUS_EVICTED);
    assert_int_equal(f->requests, 0);
}

static void the_last_request_of_a_connection_is_told_so(void **state)
{
    struct mux_fixture *f = fixture_new();
    *state = f;
    f->settings.max_requests = 2;
    f->on_complete = answer_ok;
    fixture_open(f, true);
    send_text(f->peer, "GET /1 HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_PEER(f, "ok");
    assert_null(strcasestr(f->inbox.bytes, "connection: close"));
    send_text(f->peer, "GET /2 HTTP/1.1\r\n" HOST "\r\n");
    AWAIT_OVER(f);
    assert_non_null(strcasestr(f->inbox.bytes, "connection: close"));
}

int main(void)
{
#define AUTO(name)   cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)
#define MANUAL(name) cmocka_unit_test_setup_teardown(name, set_up_manual, fixture_tear_down)
#define OWN(name)    cmocka_unit_test_teardown(name, fixture_tear_down)
    const struct CMUnitTest tests[] = {
        AUTO(connections_are_kept_alive),
        AUTO(pipelined_requests_come_one_after_the_other),
        MANUAL(a_request_that_is_not_answered_holds_the_next),
        MANUAL(stray_line_ends_between_requests_leave_it_idle),
        AUTO(bodies_come_as_pieces),
        cmocka_unit_test(a_malformed_request_is_answered_and_ends_the_connection),
        AUTO(what_follows_a_malformed_request_is_not_read),
        AUTO(an_unknown_length_is_chunked),
        AUTO(an_unknown_length_ends_with_the_connection_for_http_1_0),
        AUTO(http_1_0_stays_open_only_if_it_asks),
        AUTO(a_client_that_asks_for_close_gets_it),
        AUTO(the_answer_to_head_has_no_body),
        MANUAL(interim_answers_are_not_for_http_1_0),
        MANUAL(expect_continue_waits_for_the_owner),
        MANUAL(an_answer_before_the_end_of_the_request_ends_in_order),
        MANUAL(an_aborted_answer_is_a_reset),
        MANUAL(an_upgrade_is_raw_after_the_101_only),
        MANUAL(a_body_that_is_not_credited_pauses_reading),
        MANUAL(requests_wait_until_the_client_takes_its_answers),
        OWN(a_client_that_only_pipelines_is_given_up),
        MANUAL(a_request_waits_for_room_after_one_that_did),
        MANUAL(draining_sends_the_answers_that_wait),
        OWN(a_connection_without_a_request_is_closed_silently),
        OWN(a_head_that_takes_too_long_is_answered),
        OWN(a_head_that_trickles_is_late_too),
        OWN(a_body_that_stops_is_answered),
        OWN(a_body_that_is_too_slow_is_answered),
        OWN(a_body_that_waits_for_100_is_not_late),
        OWN(a_body_that_we_do_not_read_is_not_late),
        OWN(a_body_is_not_late_once_the_answer_has_begun),
        OWN(a_body_is_late_after_an_interim_answer_too),
        OWN(an_idle_connection_is_closed),
        OWN(a_client_that_does_not_read_its_answer_is_given_up),
        cmocka_unit_test(a_client_that_leaves_is_told_at_every_stage),
        AUTO(draining_closes_an_idle_connection_now),
        MANUAL(draining_lets_a_request_end_and_says_close),
        MANUAL(closing_resets_what_is_in_progress),
        AUTO(what_comes_while_it_closes_is_not_begun),
        OWN(the_last_request_of_a_connection_is_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
