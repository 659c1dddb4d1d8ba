/* Local services behind a frontend of their own. */
#include "gateway/proxy/local.h"

#include "proxy/proxy_fixture.h"

struct service {
    struct local *local;
    struct inbox body;
    int ends;
    int rooms;
    int gone;
    bool credits;
    bool answers_at_once;
    bool answers_at_end;
    bool aborts;
    size_t left; /* to stream */
    char method[16];
};

static void on_body(void *self, struct slice piece)
{
    struct service *s = self;
    inbox_add(&s->body, piece.ptr, piece.len);
    if (s->credits)
        local_credit(s->local, piece.len);
}

static void on_end(void *self)
{
    struct service *s = self;
    s->ends++;
    if (s->answers_at_end) {
        local_add_field(s->local, SLICE("X-Own"), SLICE("field"));
        local_respond(s->local, 200, SLICE("text/plain"), slice_make(s->body.bytes, s->body.len));
    }
}

static void stream_on(struct service *s)
{
    static char chunk[10000];
    memset(chunk, 'x', sizeof chunk);
    while (s->left > 0) {
        size_t room = local_room(s->local);
        if (room == 0)
            return;
        size_t n = s->left < sizeof chunk ? s->left : sizeof chunk;
        local_send(s->local, slice_make(chunk, n));
        s->left -= n;
    }
    local_finish(s->local);
}

static void on_room(void *self)
{
    struct service *s = self;
    s->rooms++;
    stream_on(s);
}

static void on_gone(void *self)
{
    struct service *s = self;
    s->gone++;
    s->local = NULL;
}

static const struct local_handler handler = {.body = on_body, .end = on_end, .room = on_room, .gone = on_gone};

static void on_request(void *arg, struct local *local, const struct message_head *head)
{
    struct service *s = arg;
    s->local = local;
    snprintf(s->method, sizeof s->method, "%.*s", SLICE_ARG(head->method_text));
    assert_non_null(local_arena(local));
    local_handle(local, &handler, s);
    if (s->answers_at_once) {
        local_respond(local, 403, SLICE("text/plain"), SLICE("no"));
    } else if (s->left > 0) {
        local_begin(local, 200, SLICE("text/plain"));
        if (s->aborts)
            local_send(local, SLICE("half"));
        if (s->aborts)
            local_abort(local, STATUS_INTERNAL);
        else
            stream_on(s);
    }
}

static const struct local_service local_service = {.request = on_request};

struct fixture {
    struct proxy_fixture base;
    struct service service;
};

static int set_up(void **state)
{
    struct fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    fixture_start(&f->base, fixture_settings(), 0);
    frontend_free(&f->base.frontend);
    struct frontend_params params = {.kind = FRONTEND_LOCAL, .service = &local_service, .service_arg = &f->service};
    f->base.frontend = frontend_new(f->base.proxy, listen_any(&f->base.front_port), &params);
    f->service.credits = true;
    client_connect(&f->base);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    fixture_stop(&f->base);
    assert_null(f->service.local);
    inbox_clear(&f->service.body);
    free(f);
    return 0;
}

static void a_whole_answer_and_the_next_request(void **state)
{
    struct fixture *f = *state;
    f->service.answers_at_end = true;
    for (int i = 1; i <= 3; i++) {
        inbox_clear(&f->base.client.in);
        inbox_clear(&f->service.body);
        client_ask(&f->base, "PUT /echo", "Content-Length: 5\r\n", "hel");
        turn_some(f->base.loop);
        send_text(f->base.client.fd, "lo");
        AWAIT_TEXT(&f->base, client, "\r\n\r\nhello");
        assert_non_null(strstr(f->base.client.in.bytes, "X-Own: field\r\n"));
        assert_null(strcasestr(f->base.client.in.bytes, "connection: close"));
        assert_string_equal(f->service.method, "PUT");
        assert_int_equal(f->service.ends, i);
        TURN_UNTIL(f->base.loop, f->service.gone == i);
    }
}

static void a_request_without_a_body_ends_too(void **state)
{
    struct fixture *f = *state;
    f->service.answers_at_end = true;
    client_ask(&f->base, "GET /", "", "");
    AWAIT_TEXT(&f->base, client, "\r\n\r\n");
    assert_int_equal(f->service.ends, 1);
    TURN_UNTIL(f->base.loop, f->service.gone == 1);
}

static void pipelined_requests_are_answered_one_by_one(void **state)
{
    struct fixture *f = *state;
    f->service.answers_at_end = true;
    client_ask(&f->base, "PUT /1", "Content-Length: 3\r\n", "one");
    client_ask(&f->base, "PUT /2", "Content-Length: 3\r\n", "two");
    AWAIT_TEXT(&f->base, client, "onetwo"); /* the service's body goes on growing */
    TURN_UNTIL(f->base.loop, f->service.gone == 2);
}

static void an_answer_to_an_unread_body_says_close(void **state)
{
    struct fixture *f = *state;
    f->service.answers_at_once = true;
    client_ask(&f->base, "PUT /", "Content-Length: 1000000\r\n", "some");
    AWAIT_END(&f->base, client);
    assert_int_equal(f->base.client.in.error, 0);
    assert_non_null(strstr(f->base.client.in.bytes, "403"));
    assert_non_null(strcasestr(f->base.client.in.bytes, "connection: close"));
    TURN_UNTIL(f->base.loop, f->service.gone == 1);
}

static void a_client_that_waits_is_told_to_go_on(void **state)
{
    struct fixture *f = *state;
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    f->service.answers_at_end = true;
    client_ask(&f->base, "PUT /", "Expect: 100-continue\r\nContent-Length: 5\r\n", "");
    AWAIT_TEXT(&f->base, client, "\r\n\r\n");
    assert_string_equal(f->base.client.in.bytes, go_on);
    assert_int_equal(f->service.ends, 0);
    send_text(f->base.client.fd, "hello");
    AWAIT_TEXT(&f->base, client, "\r\n\r\nhello");
    assert_int_equal(strncmp(f->base.client.in.bytes + strlen(go_on), "HTTP/1.1 200", 12), 0);
    assert_null(strcasestr(f->base.client.in.bytes, "connection: close"));
    TURN_UNTIL(f->base.loop, f->service.gone == 1);
}

static void nobody_is_told_to_go_on_who_has_no_need(void **state)
{
    struct fixture *f = *state;
    f->service.answers_at_end = true;
    client_ask(&f->base, "PUT /1", "Expect: 100-continue\r\nContent-Length: 5\r\n", "hello");
    AWAIT_TEXT(&f->base, client, "\r\n\r\nhello");
    assert_int_equal(strncmp(f->base.client.in.bytes, "HTTP/1.1 200", 12), 0);
    inbox_clear(&f->base.client.in);
    f->service.answers_at_once = true;
    client_ask(&f->base, "PUT /2", "Expect: 100-continue\r\nContent-Length: 5\r\n", "");
    AWAIT_END(&f->base, client);
    assert_int_equal(strncmp(f->base.client.in.bytes, "HTTP/1.1 403", 12), 0);
    TURN_UNTIL(f->base.loop, f->service.gone == 2);
}

static void a_streamed_answer_waits_for_the_client(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 8000000 };
    f->service.left = LEN;
    client_ask(&f->base, "GET /", "", "");
    for (int i = 0; i < 50; i++)
        loop_turn(f->base.loop, 5);
    assert_true(f->service.left > 0);
    AWAIT_TEXT(&f->base, client, "\r\n0\r\n\r\n");
    assert_true(f->base.client.in.len > LEN);
    assert_int_equal(f->service.left, 0);
    assert_true(f->service.rooms > 0);
}

static void a_body_that_is_not_credited_waits(void **state)
{
    struct fixture *f = *state;
    static char chunk[65536];
    size_t sent = 0;
    memset(chunk, 'x', sizeof chunk);
    f->service.credits = false;
    client_ask(&f->base, "PUT /", "Content-Length: 50000000\r\n", "");
    for (int stuck = 0; stuck < 5;) {
        ssize_t n = send(f->base.client.fd, chunk, sizeof chunk, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        stuck = n > 0 ? 0 : stuck + 1;
        turn_some(f->base.loop);
        assert_true(f->service.body.len < 400000);
    }
    assert_true(sent > f->service.body.len);
    size_t before = f->service.body.len;
    f->service.credits = true;
    local_credit(f->service.local, before);
    TURN_UNTIL(f->base.loop, f->service.body.len > before);
}

static void an_answer_that_is_given_up_is_cut_off(void **state)
{
    struct fixture *f = *state;
    f->service.left = 100;
    f->service.aborts = true;
    client_ask(&f->base, "GET /", "", "");
    AWAIT_END(&f->base, client);
    assert_int_equal(f->base.client.in.error, ECONNRESET);
    TURN_UNTIL(f->base.loop, f->service.gone == 1);
}

static void a_client_that_leaves_is_noticed(void **state)
{
    struct fixture *f = *state;
    client_ask(&f->base, "GET /", "", "");
    TURN_UNTIL(f->base.loop, f->service.ends == 1);
    party_close(&f->base.client);
    TURN_UNTIL(f->base.loop, f->service.gone == 1);
}

static void the_answer_to_head_has_no_body(void **state)
{
    struct fixture *f = *state;
    f->service.answers_at_once = true;
    client_ask(&f->base, "HEAD /1", "", "");
    client_ask(&f->base, "HEAD /2", "", "");
    TURN_UNTIL(f->base.loop, f->service.gone == 2);
    turn_some(f->base.loop);
    AWAIT_TEXT(&f->base, client, "\r\n\r\nHTTP/1.1 403");
    assert_string_equal(f->base.client.in.bytes + f->base.client.in.len - 4, "\r\n\r\n");
}

int main(void)
{
    route_table_thread_begin();
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_whole_answer_and_the_next_request),
        TEST(a_request_without_a_body_ends_too),
        TEST(pipelined_requests_are_answered_one_by_one),
        TEST(an_answer_to_an_unread_body_says_close),
        TEST(a_client_that_waits_is_told_to_go_on),
        TEST(nobody_is_told_to_go_on_who_has_no_need),
        TEST(a_streamed_answer_waits_for_the_client),
        TEST(a_body_that_is_not_credited_waits),
        TEST(an_answer_that_is_given_up_is_cut_off),
        TEST(a_client_that_leaves_is_noticed),
        TEST(the_answer_to_head_has_no_body),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
