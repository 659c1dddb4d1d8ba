/* h2_mux as a client; the peer is an nghttp2 server that does what the test tells it to, or frames written by hand. */
#include "mux/h2_client_fixture.h"

/* ---- requests and responses ---- */

static void a_request_and_its_response(struct h2_fixture *h)
{
    struct arena arena;
    struct fields fields = FIELDS_NONE;
    both_open(h);
    arena_init(&arena, NULL);
    fields_add_known(&fields, &arena, FIELD_HOST, SLICE("app.test"));
    fields_add(&fields, &arena, SLICE("X-Upper"), SLICE("v"));
    struct message_head head = request_of("GET", fields);
    head.te_trailers = true;
    assert_true(call_open(&h->calls[0], h->f->mux));
    assert_int_equal(h->load, 1);
    h->calls[0].endpoint->ops->send_head(h->calls[0].endpoint, &head, true);
    AWAIT_TOLD(h, "end 1;");
    assert_non_null(strstr(h->told.bytes, ":method=GET,:scheme=http,:authority=app.test,:path=/path,x-upper=v,"
                                          "te=trailers,head 1;"));
    arena_reset(&arena);
    respond(h, 1, "200", 5);
    AWAIT_CALL(h, 0, "end;");
    assert_string_equal(h->calls[0].events.bytes, ";head 200;body ddddd;end;");
    assert_int_equal(h->calls[0].head.version, HTTP_2);
    assert_int_equal(h->load, 0);
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
}

static void requests_are_answered(void **state)
{
    a_request_and_its_response(*state);
}

static void requests_are_answered_byte_by_byte(void **state)
{
    struct h2_fixture *h = *state;
    h->by_bytes = true;
    a_request_and_its_response(h);
}

static void bodies_and_trailers_pass_both_ways(void **state)
{
    struct h2_fixture *h = *state;
    struct arena arena;
    struct fields trailers = FIELDS_NONE;
    both_open(h);
    h->body_ends = false;
    call_send(h, 0, "POST", false);
    struct endpoint *endpoint = h->calls[0].endpoint;
    endpoint->ops->send_body(endpoint, "body", 4, false);
    arena_init(&arena, NULL);
    fields_add(&trailers, &arena, SLICE("x-in"), SLICE("v"));
    endpoint->ops->send_trailers(endpoint, &trailers);
    arena_reset(&arena);
    AWAIT_TOLD(h, "x-in=v,head 1;end 1;");
    assert_int_equal(h->received, 4);
    respond(h, 1, "200", 3);
    AWAIT_CALL(h, 0, "end;");
    assert_string_equal(h->calls[0].events.bytes, ";head 200;body ddd;trailers abc;end;");
}

static void interim_heads_come_before_the_final_one(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    call_send(h, 0, "GET", true);
    AWAIT_TOLD(h, "end 1;");
    const nghttp2_nv early[] = {pair_of(":status", "103"), pair_of("link", "</a>")};
    nghttp2_submit_headers(h->server, NGHTTP2_FLAG_NONE, 1, NULL, early, 2, NULL);
    nghttp2_submit_headers(h->server, NGHTTP2_FLAG_NONE, 1, NULL, early, 2, NULL);
    server_say(h);
    AWAIT_CALL(h, 0, "head 103;head 103;");
    respond(h, 1, "204", 0);
    AWAIT_CALL(h, 0, "head 204;end;");
    assert_int_equal(h->calls[0].head.fields.count, 1);
}

static void many_at_once(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    for (unsigned i = 0; i < MAX_CALLS; i++)
        call_send(h, i, "GET", true);
    assert_int_equal(h->load, MAX_CALLS);
    AWAIT_TOLD(h, "end 15;");
    for (int i = MAX_CALLS; i-- > 0;) {
        respond(h, i * 2 + 1, "200", 5);
        AWAIT_CALL(h, (unsigned)i, "end;");
    }
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
    char line[256];
    assert_in_range(h2_mux_dump(h->f->mux, line, sizeof line), 10, sizeof line);
    assert_non_null(strstr(line, "h2 client streams=0 requests=8"));
}

/* ---- flow control ---- */

static void a_response_waits_for_credit_and_holds_up_nobody(void **state)
{
    enum { STREAM_WINDOW = 1 << 18 };
    struct h2_fixture *h = *state;
    both_open(h);
    h->calls[0].keeps = true;
    call_send(h, 0, "GET", true);
    AWAIT_TOLD(h, "end 1;");
    respond(h, 1, "200", 1000000);
    TURN_UNTIL(h->f->loop, (server_turn(h), h->calls[0].uncredited == STREAM_WINDOW));
    for (int i = 0; i < 10; i++) {
        server_turn(h);
        turn_some(h->f->loop);
    }
    assert_int_equal(h->calls[0].uncredited, STREAM_WINDOW);
    h->calls[0].keeps = false;
    h->calls[0].endpoint->ops->credit(h->calls[0].endpoint, STREAM_WINDOW);
    h->calls[0].uncredited = 0;
    AWAIT_CALL(h, 0, "end;");
}

static void a_request_waits_for_the_window(void **state)
{
    static char body[400000];
    struct h2_fixture *h = *state;
    both_open(h);
    call_send(h, 0, "POST", false);
    struct endpoint *endpoint = h->calls[0].endpoint;
    TURN_UNTIL(h->f->loop, is_settled(h));
    nghttp2_session_set_local_window_size(h->server, NGHTTP2_FLAG_NONE, 1, 1000);
    endpoint->ops->send_body(endpoint, body, sizeof body, true);
    assert_int_equal(endpoint->ops->room(endpoint), 0);
    AWAIT_TOLD(h, "end 1;");
    assert_int_equal(h->received, sizeof body);
    assert_true(h->calls[0].rooms > 0);
    respond(h, 1, "200", 1);
    AWAIT_CALL(h, 0, "end;");
}

static void no_more_when_draining(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    call_send(h, 0, "GET", true);
    h->f->mux->ops->drain(h->f->mux);
    assert_false(call_open(&h->calls[1], h->f->mux));
    AWAIT_TOLD(h, "end 1;");
    respond(h, 1, "200", 5);
    AWAIT_CALL(h, 0, "end;");
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->closed_status, STATUS_OK);
}

/* ---- streams that end otherwise ---- */

static void a_goaway_leaves_out_later_streams(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    for (unsigned i = 0; i < 3; i++)
        call_send(h, i, "POST", true);
    AWAIT_TOLD(h, "end 5;");
    nghttp2_submit_goaway(h->server, NGHTTP2_FLAG_NONE, 1, NGHTTP2_NO_ERROR, NULL, 0);
    AWAIT_CALL(h, 1, "reset upstream_refused;");
    AWAIT_CALL(h, 2, "reset upstream_refused;");
    assert_false(call_open(&h->calls[1], h->f->mux));
    respond(h, 1, "200", 5);
    AWAIT_CALL(h, 0, "body ddddd;end;");
    TURN_UNTIL(h->f->loop, h->f->closed);
}

static void resets_tell_what_happened(void **state)
{
    static const struct {
        uint32_t code;
        enum status status;
    } cases[] = {
        {NGHTTP2_REFUSED_STREAM, STATUS_UPSTREAM_REFUSED},
        {NGHTTP2_INTERNAL_ERROR, STATUS_UPSTREAM_RESET},
        {NGHTTP2_CANCEL, STATUS_UPSTREAM_RESET},
        {NGHTTP2_NO_ERROR, STATUS_UPSTREAM_RESET},
    };
    struct h2_fixture *h = *state;
    both_open(h);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char told[32];
        call_send(h, 0, "GET", true);
        snprintf(told, sizeof told, "end %u;", i * 2 + 1);
        AWAIT_TOLD(h, told);
        nghttp2_submit_rst_stream(h->server, NGHTTP2_FLAG_NONE, (int32_t)i * 2 + 1, cases[i].code);
        AWAIT_CALL(h, 0, "reset");
        assert_int_equal(h->calls[0].status, cases[i].status);
    }
    TURN_UNTIL(h->f->loop, h->f->idles > 0);
}

static void a_cancelled_request_resets_its_stream(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    call_send(h, 0, "POST", false);
    AWAIT_TOLD(h, "head 1;");
    call_release(&h->calls[0], STATUS_CLIENT_CANCELLED);
    AWAIT_TOLD(h, "rst 8;");
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
}

static void an_early_response_cancels_the_rest_of_the_request(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    call_send(h, 0, "POST", false);
    AWAIT_TOLD(h, "head 1;");
    respond(h, 1, "413", 0);
    AWAIT_CALL(h, 0, "head 413;end;");
    AWAIT_TOLD(h, "rst 8;");
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
}

static void responses_that_are_none_reset_their_stream(void **state)
{
    static const struct {
        const char *method;
        nghttp2_nv head[3];
        size_t count;
        size_t body;
        enum status status;
    } cases[] = {
#define NV(n, v)                                                                                                       \
    {.name = (uint8_t *)(uintptr_t)n,                                                                                  \
     .value = (uint8_t *)(uintptr_t)v,                                                                                 \
     .namelen = sizeof n - 1,                                                                                          \
     .valuelen = sizeof v - 1}
        {"GET", {NV(":status", "200"), NV("content-length", "9")}, 2, 5, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "200"), NV("content-length", "3")}, 2, 5, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "200"), NV("content-length", "3")}, 2, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"HEAD", {NV(":status", "200"), NV("content-length", "5")}, 2, 5, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "204")}, 1, 5, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "304")}, 1, 5, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "101")}, 1, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "103")}, 1, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "2x0")}, 1, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV("x-own", "no status")}, 1, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "200"), NV("connection", "close")}, 2, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "200"), NV("bad name", "x")}, 2, 0, STATUS_UPSTREAM_BAD_RESPONSE},
        {"GET", {NV(":status", "200"), NV("x-bad", "a\nb")}, 2, 0, STATUS_UPSTREAM_BAD_RESPONSE},
#undef NV
    };
    struct h2_fixture *h = *state;
    both_open(h);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char told[32];
        nghttp2_data_provider body = {.read_callback = read_response};
        int32_t id = (int32_t)i * 2 + 1;
        call_send(h, 0, cases[i].method, true);
        snprintf(told, sizeof told, "end %d;", id);
        AWAIT_TOLD(h, told);
        h->to_send = cases[i].body;
        nghttp2_submit_response(h->server, id, cases[i].head, cases[i].count, cases[i].body > 0 ? &body : NULL);
        AWAIT_CALL(h, 0, "reset");
        if (h->calls[0].status != cases[i].status)
            fail_msg("case %u: %s", i, h->calls[0].events.bytes);
    }
    AWAIT_TOLD(h, "rst ");
}

static void a_head_over_the_limits_resets_its_stream(void **state)
{
    static char value[5000];
    struct h2_fixture *h = *state;
    both_open(h);
    memset(value, 'v', sizeof value - 1);
    nghttp2_nv large[] = {pair_of(":status", "200"), pair_of("x-large", value)}, many[30] = {pair_of(":status", "200")};
    for (int i = 1; i < 30; i++)
        many[i] = pair_of("x-many", "v");
    call_send(h, 0, "GET", true);
    call_send(h, 1, "GET", true);
    AWAIT_TOLD(h, "end 3;");
    nghttp2_submit_response(h->server, 1, large, 2, NULL);
    nghttp2_submit_response(h->server, 3, many, 30, NULL);
    AWAIT_CALL(h, 0, "reset upstream_head_too_large;");
    AWAIT_CALL(h, 1, "reset upstream_head_too_large;");
}

static void bodiless_responses_may_end_late(void **state)
{
    static const char *const statuses[] = {"204", "304"};
    struct h2_fixture *h = *state;
    both_open(h);
    for (unsigned i = 0; i < 2; i++) {
        const nghttp2_nv head[] = {pair_of(":status", statuses[i])};
        nghttp2_data_provider nothing = {.read_callback = read_response};
        char told[32];
        call_send(h, 0, "GET", true);
        snprintf(told, sizeof told, "end %u;", i * 2 + 1);
        AWAIT_TOLD(h, told);
        h->to_send = 0;
        nghttp2_submit_response(h->server, (int32_t)i * 2 + 1, head, 1, &nothing);
        AWAIT_CALL(h, 0, "end;");
    }
}

/* ---- connections that end ---- */

static void another_protocol_is_a_bad_response(void **state)
{
    struct h2_fixture *h = *state;
    client_open(h);
    call_send(h, 0, "GET", true);
    turn_some(h->f->loop);
    send_text(h->f->peer, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_string_equal(h->calls[0].events.bytes, ";reset upstream_bad_response;");
}

static void an_end_before_settings(void **state)
{
    struct h2_fixture *h = *state;
    client_open(h);
    call_send(h, 0, "GET", true);
    turn_some(h->f->loop);
    shutdown(h->f->peer, SHUT_WR);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_string_equal(h->calls[0].events.bytes, ";reset upstream_closed;");
}

/* Who is told that it ends tries again at once: that must be elsewhere. */
static void a_connection_that_ends_takes_no_more(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    h->calls[0].again = h->f->mux;
    call_send(h, 0, "GET", true);
    AWAIT_TOLD(h, "end 1;");
    shutdown(h->f->peer, SHUT_WR);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->calls[0].status, STATUS_UPSTREAM_CLOSED);
    assert_false(h->calls[0].got_another);
}

static void an_end_in_a_response_is_a_truncation(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    h->calls[0].keeps = true;
    call_send(h, 0, "GET", true);
    call_send(h, 1, "GET", true);
    AWAIT_TOLD(h, "end 3;");
    respond(h, 1, "200", 1000000);
    AWAIT_CALL(h, 0, "head 200;");
    shutdown(h->f->peer, SHUT_WR);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->calls[0].status, STATUS_UPSTREAM_TRUNCATED);
    assert_int_equal(h->calls[1].status, STATUS_UPSTREAM_CLOSED);
}

static void a_refused_connection_resets_with_the_reason(void **state)
{
    struct h2_fixture *h = *state;
    struct ip_addr addr = loopback_ip();
    uint16_t port;
    close(listen_any(&port));
    struct stream *stream = stream_connect(h->f->loop, &addr, port, 10000, &no_stream_events, NULL);
    h->f->mux = h2_mux_client(stream, &h->f->settings, &test_mux_events, h->f);
    h->f->mux->load = &h->load;
    assert_true(call_open(&h->calls[0], h->f->mux));
    assert_int_equal(h->calls[0].endpoint->ops->room(h->calls[0].endpoint), 0);
    struct message_head head = request_of("GET", FIELDS_NONE);
    h->calls[0].endpoint->ops->send_head(h->calls[0].endpoint, &head, true);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->calls[0].status, STATUS_CONNECT_REFUSED);
    assert_int_equal(h->f->closed_status, STATUS_CONNECT_REFUSED);
}

static void a_close_resets_what_is_open(void **state)
{
    struct h2_fixture *h = *state;
    both_open(h);
    call_send(h, 0, "GET", true);
    AWAIT_TOLD(h, "end 1;");
    h->f->mux->ops->close(h->f->mux, STATUS_ADDRESS_REVOKED);
    assert_non_null(h->calls[0].endpoint); /* not inside the call */
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->calls[0].status, STATUS_ADDRESS_REVOKED);
}

static void a_flood_ends_the_connection(void **state)
{
    struct h2_fixture *h = *state;
    const uint8_t opaque[8] = {0};
    both_open(h);
    call_send(h, 0, "GET", true);
    AWAIT_TOLD(h, "end 1;");
    for (uint64_t begun = sockets_now_ms(); !h->f->closed;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        for (int i = 0; i < 100; i++)
            nghttp2_submit_ping(h->server, NGHTTP2_FLAG_NONE, opaque);
        server_turn(h);
        loop_turn(h->f->loop, 0);
    }
    assert_int_equal(h->calls[0].status, STATUS_UPSTREAM_BAD_RESPONSE);
}

/* Frames of a body that have only padding. */
static void a_flood_of_padding_ends_the_connection(void **state)
{
    struct h2_fixture *h = *state;
    const nghttp2_nv status = pair_of(":status", "200");
    const uint8_t padding[10] = {0, 0, 1, NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 0, 0, 0, 1, 0};
    both_open(h);
    call_send(h, 0, "GET", true);
    AWAIT_TOLD(h, "end 1;");
    nghttp2_submit_headers(h->server, NGHTTP2_FLAG_NONE, 1, NULL, &status, 1, NULL);
    AWAIT_CALL(h, 0, "head 200;");
    for (uint64_t begun = sockets_now_ms(); !h->f->closed;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        for (int i = 0; i < 100; i++)
            (void)!send(h->f->peer, padding, sizeof padding, MSG_NOSIGNAL);
        loop_turn(h->f->loop, 0);
    }
    assert_int_equal(h->calls[0].status, STATUS_UPSTREAM_BAD_RESPONSE);
}

/* ---- tunnels (RFC 8441) ---- */

static void open_tunnel(struct h2_fixture *h, struct arena *arena)
{
    struct fields fields = FIELDS_NONE;
    fields_add_known(&fields, arena, FIELD_SEC_WEBSOCKET_KEY, SLICE("dGhlIHNhbXBsZSBub25jZQ=="));
    struct message_head head = request_of("GET", fields);
    head.upgrade = SLICE("websocket");
    assert_true(call_open(&h->calls[0], h->f->mux));
    h->calls[0].endpoint->ops->send_head(h->calls[0].endpoint, &head, true);
    arena_reset(arena);
}

static void a_tunnel_waits_for_settings_and_carries_both_ways(void **state)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}};
    struct h2_fixture *h = *state;
    struct arena arena;
    client_open(h);
    arena_init(&arena, NULL);
    open_tunnel(h, &arena);
    turn_some(h->f->loop);
    server_open(h, settings, 1);
    AWAIT_TOLD(h, "head 1;");
    assert_non_null(strstr(h->told.bytes, ":method=CONNECT,:protocol=websocket,:scheme=http,:authority=app.test,"
                                          ":path=/path,head 1;"));
    const nghttp2_nv ok[] = {pair_of(":status", "200")};
    nghttp2_data_provider body = {.read_callback = read_response};
    h->to_send = 3;
    nghttp2_submit_response(h->server, 1, ok, 1, &body);
    h->calls[0].releases = false;
    AWAIT_CALL(h, 0, "head 101;body ddd;end;");
    assert_int_equal(h->calls[0].head.body, BODY_RAW);
    struct slice accept = fields_value(&h->calls[0].head.fields, FIELD_SEC_WEBSOCKET_ACCEPT);
    assert_true(slice_eq(accept, SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    struct endpoint *endpoint = h->calls[0].endpoint;
    endpoint->ops->send_body(endpoint, "up", 2, false);
    endpoint->ops->send_body(endpoint, NULL, 0, true);
    call_release(&h->calls[0], STATUS_OK);
    AWAIT_TOLD(h, "end 1;");
    assert_int_equal(h->received, 2);
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
}

static void other_upgrades_are_left_out(void **state)
{
    struct h2_fixture *h = *state;
    struct message_head head = request_of("GET", FIELDS_NONE);
    both_open(h);
    head.upgrade = SLICE("TLS/1.0");
    assert_true(call_open(&h->calls[0], h->f->mux));
    h->calls[0].endpoint->ops->send_head(h->calls[0].endpoint, &head, true);
    AWAIT_TOLD(h, ":method=GET,:scheme=http,:authority=app.test,:path=/path,head 1;end 1;");
    respond(h, 1, "200", 1);
    AWAIT_CALL(h, 0, "head 200;body d;end;");
}

static void a_peer_without_tunnels_is_an_error(void **state)
{
    struct h2_fixture *h = *state;
    struct arena arena;
    client_open(h);
    arena_init(&arena, NULL);
    open_tunnel(h, &arena);
    server_open(h, NULL, 0);
    AWAIT_CALL(h, 0, "reset upstream_no_tunnel;");
    open_tunnel(h, &arena);
    assert_non_null(h->calls[0].endpoint); /* not inside the call */
    AWAIT_CALL(h, 0, "reset upstream_no_tunnel;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(requests_are_answered),
        TEST(requests_are_answered_byte_by_byte),
        TEST(bodies_and_trailers_pass_both_ways),
        TEST(interim_heads_come_before_the_final_one),
        TEST(many_at_once),
        TEST(a_response_waits_for_credit_and_holds_up_nobody),
        TEST(a_request_waits_for_the_window),
        TEST(no_more_when_draining),
        TEST(a_goaway_leaves_out_later_streams),
        TEST(resets_tell_what_happened),
        TEST(a_cancelled_request_resets_its_stream),
        TEST(an_early_response_cancels_the_rest_of_the_request),
        TEST(responses_that_are_none_reset_their_stream),
        TEST(a_head_over_the_limits_resets_its_stream),
        TEST(bodiless_responses_may_end_late),
        TEST(another_protocol_is_a_bad_response),
        TEST(an_end_before_settings),
        TEST(a_connection_that_ends_takes_no_more),
        TEST(an_end_in_a_response_is_a_truncation),
        TEST(a_refused_connection_resets_with_the_reason),
        TEST(a_close_resets_what_is_open),
        TEST(a_flood_ends_the_connection),
        TEST(a_flood_of_padding_ends_the_connection),
        TEST(a_tunnel_waits_for_settings_and_carries_both_ways),
        TEST(other_upgrades_are_left_out),
        TEST(a_peer_without_tunnels_is_an_error),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
