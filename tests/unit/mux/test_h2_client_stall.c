/* An h2 client whose peer takes no bytes any more, or few. */
#include "mux/h2_client_fixture.h"

enum {
    CALLS = 4,
    SMALL_BUFFER_BYTES = 4096, /* of a socket */
    WIDE_WINDOW_BYTES = 1 << 24,
    PIECE_BYTES = 16384,
};

/* As tcp_pair; the buffers must be small from the beginning, or more than they hold is promised. */
static void narrow_pair(int ret[2])
{
    const int small = SMALL_BUFFER_BYTES;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint16_t port;
    int listening = listen_any(&port);
    to.sin_port = htons(port);
    ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(ret[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_return_code(connect(ret[0], (struct sockaddr *)(void *)&to, sizeof to), errno);
    set_nonblocking(ret[0]);
    ret[1] = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_return_code(ret[1], errno);
    setsockopt(ret[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    close(listening);
}

/* Small buffers in the kernel, wide windows. Returns the descriptor of the mux. */
static int narrow_open(struct h2_fixture *h)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WIDE_WINDOW_BYTES}};
    int pair[2];
    struct ip_addr addr = loopback_ip();
    narrow_pair(pair);
    h->f->peer = pair[0];
    struct stream *stream = stream_accept(h->f->loop, pair[1], &addr, 1, NULL, 0, &no_stream_events, NULL);
    h->f->mux = h2_mux_client(stream, &h->f->settings, &test_mux_events, h->f);
    h->f->mux->load = &h->load;
    server_open(h, settings, 1);
    nghttp2_session_set_local_window_size(h->server, NGHTTP2_FLAG_NONE, 0, WIDE_WINDOW_BYTES);
    TURN_UNTIL(h->f->loop, is_settled(h));
    return pair[1];
}

/* True if somebody had room. */
static bool send_pieces(struct h2_fixture *h)
{
    static const char piece[PIECE_BYTES];
    bool sent = false;
    for (unsigned i = 0; i < CALLS; i++) {
        struct endpoint *endpoint = h->calls[i].endpoint;
        if (endpoint->ops->room(endpoint) == 0)
            continue;
        endpoint->ops->send_body(endpoint, piece, sizeof piece, false);
        sent = true;
    }
    return sent;
}

/* Uploads of which the peer takes only the heads, until nobody has room. */
static void fill_up(struct h2_fixture *h)
{
    for (unsigned i = 0; i < CALLS; i++)
        call_send(h, i, "POST", false);
    AWAIT_TOLD(h, "head 7;");
    for (int turns_without_room = 0; turns_without_room < 5;) {
        turns_without_room = send_pieces(h) ? 0 : turns_without_room + 1;
        loop_turn(h->f->loop, 2);
    }
    assert_true(stream_queued(h->f->mux->stream) >= STREAM_HIGH_MARK);
}

static void release_all(struct h2_fixture *h)
{
    for (unsigned i = 0; i < CALLS; i++)
        call_release(&h->calls[i], STATUS_CLIENT_CANCELLED);
}

static void what_nobody_waits_for_ends_with_its_stall(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.head_ms = 100;
    h->f->settings.send_stall_ms = 300;
    int fd = narrow_open(h);
    fill_up(h);
    release_all(h);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(h->f->closed_status, STATUS_UPSTREAM_STALLED);
    assert_int_equal(h->f->idles, 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* at once: nothing of it will be taken */
}

/* Those that still wait have deadlines of their own. */
static void a_stall_ends_no_request(void **state)
{
    struct h2_fixture *h = *state;
    h->f->settings.head_ms = 100;
    h->f->settings.send_stall_ms = 100;
    narrow_open(h);
    fill_up(h);
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() - begun < 1000;)
        loop_turn(h->f->loop, 10);
    assert_false(h->f->closed);
    release_all(h);
    TURN_UNTIL(h->f->loop, h->f->closed);
}

static void who_takes_a_little_is_not_cut(void **state)
{
    enum { STALL_MS = 1500, PAUSE_MS = 50 };
    char buffer[1024];
    struct h2_fixture *h = *state;
    h->f->settings.head_ms = 100;
    h->f->settings.send_stall_ms = STALL_MS;
    narrow_open(h);
    fill_up(h);
    release_all(h);
    uint64_t begun = sockets_now_ms();
    while (sockets_now_ms() - begun < 2 * STALL_MS && !h->f->closed) {
        ssize_t n = recv(h->f->peer, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n > 0)
            nghttp2_session_mem_recv(h->server, (const uint8_t *)buffer, (size_t)n);
        for (uint64_t read = sockets_now_ms(); sockets_now_ms() - read < PAUSE_MS;)
            loop_turn(h->f->loop, PAUSE_MS);
    }
    assert_false(h->f->closed);
    assert_int_equal(h->f->idles, 0); /* it was slow for all that time */
    AWAIT_TOLD(h, "rst 8;");
    TURN_UNTIL(h->f->loop, (server_turn(h), h->f->idles == 1));
}

static bool is_allowed_none(struct h2_fixture *h)
{
    unsigned limit;
    server_say(h);
    return h2_mux_client_limit(h->f->mux, &limit) && limit == 0;
}

/* Whether the peer takes bytes again says nothing of when it takes requests. */
static void who_waits_for_a_stream_is_not_told_of_room(void **state)
{
    const nghttp2_settings_entry none[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0}};
    struct h2_fixture *h = *state;
    const int wide = 1 << 20;
    struct call *waiting = &h->calls[CALLS];
    struct message_head head = request_of("GET", FIELDS_NONE);
    narrow_open(h);
    fill_up(h);
    nghttp2_submit_settings(h->server, NGHTTP2_FLAG_NONE, none, 1);
    TURN_UNTIL(h->f->loop, is_allowed_none(h));
    call_bind(waiting, h->f->mux, h2_mux_client_queue(h->f->mux));
    waiting->endpoint->ops->send_head(waiting->endpoint, &head, true);
    assert_int_equal(waiting->endpoint->ops->room(waiting->endpoint), 0);
    setsockopt(h->f->peer, SOL_SOCKET, SO_RCVBUF, &wide, sizeof wide);
    for (unsigned i = 0; i < CALLS; i++)
        TURN_UNTIL(h->f->loop, (server_turn(h), h->calls[i].rooms > 0));
    assert_int_equal(waiting->rooms, 0);
    call_release(waiting, STATUS_CLIENT_CANCELLED);
    release_all(h);
    TURN_UNTIL(h->f->loop, (server_turn(h), h->f->idles == 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(what_nobody_waits_for_ends_with_its_stall),
        TEST(a_stall_ends_no_request),
        TEST(who_takes_a_little_is_not_cut),
        TEST(who_waits_for_a_stream_is_not_told_of_room),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
