/* How many requests at once an h2 client sends. */
#include "mux/h2_client_fixture.h"

static void as_many_streams_as_the_peer_allows(void **state)
{
    struct h2_fixture *h = *state;
    both_settle(h, 2);
    unsigned limit;
    assert_true(h2_mux_client_limit(h->f->mux, &limit));
    assert_int_equal(limit, 2);
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 2);
    call_send(h, 0, "GET", true);
    call_send(h, 1, "GET", true);
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 0);
    assert_false(call_open(&h->calls[2], h->f->mux));
    AWAIT_TOLD(h, "end 3;");
    respond(h, 1, "204", 0);
    AWAIT_CALL(h, 0, "end;");
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 1);
    call_send(h, 0, "GET", true);
    respond(h, 3, "204", 0);
    AWAIT_TOLD(h, "end 5;");
    respond(h, 5, "204", 0);
    AWAIT_CALL(h, 0, "end;");
    AWAIT_CALL(h, 1, "end;");
}

static void what_is_taken_for_the_limit_before_it_is_known(void **state)
{
    struct h2_fixture *h = *state;
    client_open(h);
    unsigned limit;
    assert_false(h2_mux_client_limit(h->f->mux, &limit));
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 100);
    h2_mux_client_expect(h->f->mux, 1);
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 1);
    server_open(h, NULL, 0);
    TURN_UNTIL(h->f->loop, is_settled(h));
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 1000); /* unlimited */
}

/* ---- a limit of 0 ---- */

static void call_queue(struct h2_fixture *h, unsigned i, const char *method, bool end)
{
    struct message_head head = request_of(method, FIELDS_NONE);
    struct endpoint *endpoint = h2_mux_client_queue(h->f->mux);
    assert_non_null(endpoint);
    call_bind(&h->calls[i], h->f->mux, endpoint);
    head.body = end ? BODY_NONE : BODY_CHUNKED;
    endpoint->ops->send_head(endpoint, &head, end);
    assert_int_equal(endpoint->ops->room(endpoint), 0);
}

static void allow(struct h2_fixture *h, uint32_t max_streams)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams}};
    nghttp2_submit_settings(h->server, NGHTTP2_FLAG_NONE, settings, 1);
}

static void some_turns(struct h2_fixture *h)
{
    for (int i = 0; i < 5; i++) {
        server_turn(h);
        turn_some(h->f->loop);
    }
}

static void requests_wait_until_the_peer_allows_some(void **state)
{
    struct h2_fixture *h = *state;
    both_settle(h, 0);
    assert_false(call_open(&h->calls[0], h->f->mux));
    for (unsigned i = 0; i < 3; i++)
        call_queue(h, i, "GET", true);
    some_turns(h);
    assert_null(h->told.bytes);
    allow(h, 2);
    AWAIT_TOLD(h, "end 3;");
    assert_int_equal(h->calls[0].rooms, 1);
    some_turns(h);
    assert_null(strstr(h->told.bytes, "end 5;")); /* one must end first */
    assert_int_equal(h->calls[2].rooms, 0);
    respond(h, 1, "204", 0);
    AWAIT_TOLD(h, "end 5;");
    respond(h, 3, "204", 0);
    respond(h, 5, "204", 0);
    for (unsigned i = 0; i < 3; i++)
        AWAIT_CALL(h, i, "end;");
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
}

static void what_waits_may_be_a_whole_request(void **state)
{
    struct h2_fixture *h = *state;
    struct arena arena;
    struct fields trailers = FIELDS_NONE;
    both_settle(h, 0);
    h->body_ends = false;
    call_queue(h, 0, "POST", false);
    struct endpoint *endpoint = h->calls[0].endpoint;
    endpoint->ops->send_body(endpoint, "body", 4, false);
    arena_init(&arena, NULL);
    fields_add(&trailers, &arena, SLICE("x-in"), SLICE("v"));
    endpoint->ops->send_trailers(endpoint, &trailers);
    arena_reset(&arena);
    allow(h, 1);
    AWAIT_TOLD(h, "x-in=v,head 1;end 1;");
    assert_int_equal(h->received, 4);
    respond(h, 1, "204", 0);
    AWAIT_CALL(h, 0, "end;");
}

static void who_waits_no_more_is_not_sent(void **state)
{
    struct h2_fixture *h = *state;
    both_settle(h, 0);
    call_queue(h, 0, "GET", true);
    call_queue(h, 1, "GET", true);
    call_release(&h->calls[0], STATUS_UPSTREAM_NO_STREAMS);
    allow(h, 100);
    AWAIT_TOLD(h, "end 1;");
    respond(h, 1, "204", 0);
    AWAIT_CALL(h, 1, "end;");
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
    assert_null(strstr(h->told.bytes, "end 3;"));
}

static void who_waits_hears_of_a_goaway(void **state)
{
    struct h2_fixture *h = *state;
    both_settle(h, 0);
    call_queue(h, 0, "GET", true);
    nghttp2_submit_goaway(h->server, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
    AWAIT_CALL(h, 0, "reset upstream_refused;");
    TURN_UNTIL(h->f->loop, h->f->closed);
}

static void no_more_while_the_peer_is_silent(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.silent_ms = 200;
    both_settle(h, 100);
    for (int i = 0; i < 5; i++) { /* also what it has to say of our SETTINGS */
        server_turn(h);
        turn_some(h->f->loop);
    }
    call_send(h, 0, "GET", true);
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 99);
    TURN_UNTIL(h->f->loop, h->f->mux->ops->room(h->f->mux) == 0);
    AWAIT_TOLD(h, "end 1;");
    respond(h, 1, "204", 0);
    AWAIT_CALL(h, 0, "end;");
    assert_int_equal(h->f->mux->ops->room(h->f->mux), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(as_many_streams_as_the_peer_allows),
        TEST(what_is_taken_for_the_limit_before_it_is_known),
        TEST(requests_wait_until_the_peer_allows_some),
        TEST(what_waits_may_be_a_whole_request),
        TEST(who_waits_no_more_is_not_sent),
        TEST(who_waits_hears_of_a_goaway),
        TEST(no_more_while_the_peer_is_silent),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
