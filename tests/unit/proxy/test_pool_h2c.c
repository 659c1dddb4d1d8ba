/* Connections of HTTP/2: each serves many exchanges. The instance is played with frames written by hand. */
#include "proxy/pool_fixture.h"

static int set_up_h2c(void **state)
{
    int result = set_up(state);
    struct fixture *f = *state;
    f->protocol = POOL_H2C;
    return result;
}

static void send_bytes(int fd, const char *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* SETTINGS with MAX_CONCURRENT_STREAMS. */
static void send_settings(int fd, unsigned max_streams)
{
    const char frame[] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, (char)max_streams};
    send_bytes(fd, frame, sizeof frame);
}

/* SETTINGS_INITIAL_WINDOW_SIZE, and a WINDOW_UPDATE of the connection. */
static void send_wide_windows(int fd)
{
    const char frames[] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, -1, -1, -1, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0, -1, -1, -1};
    send_bytes(fd, frames, sizeof frames);
}

/* A whole response: 204. */
static void send_answer(int fd, unsigned stream)
{
    const char frame[] = {0, 0, 1, 1, 5, 0, 0, 0, (char)stream, (char)0x89};
    send_bytes(fd, frame, sizeof frame);
}

static void answer_one(struct fixture *f, int fd, unsigned stream, struct use *use)
{
    send_answer(fd, stream);
    TURN_UNTIL(f->loop, use->ends == 1);
}

/* The connection's SETTINGS have come; it has answered its first request and is idle. */
static int warm_up(struct fixture *f, unsigned max_streams)
{
    struct use use;
    assert_false(open_use(f, &use, false));
    int fd = accept_one(f);
    send_settings(fd, max_streams);
    answer_one(f, fd, 1, &use);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    return fd;
}

static void one_connection_serves_many(void **state)
{
    struct fixture *f = *state;
    struct use uses[5];
    for (int i = 0; i < 5; i++)
        assert_false(open_use(f, &uses[i], false)); /* not connected yet */
    assert_int_equal(pool_count(f->pool), 1);
    assert_int_equal(pool_active(f->pool, f->claim), 5);
    int fd = accept_one(f);
    send_settings(fd, 100);
    for (int i = 0; i < 5; i++) {
        answer_one(f, fd, (unsigned)i * 2 + 1, &uses[i]);
        assert_int_equal(pool_active(f->pool, f->claim), 4 - i);
    }
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    assert_true(open_use(f, &uses[0], false));
    assert_int_equal(f->counters.upstream_connections_idle, 0);
    answer_one(f, fd, 11, &uses[0]);
    assert_int_equal(f->counters.upstream_connects_total, 1);
    assert_int_equal(f->counters.upstream_reused_total, 5);
    close(fd);
}

static void another_one_is_opened_when_all_are_full(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fd = warm_up(f, 1);
    assert_true(open_use(f, &uses[0], false));
    assert_false(open_use(f, &uses[1], false));
    int second = accept_one(f);
    assert_false(open_use(f, &uses[2], false)); /* what the app allows is known before the second one says so */
    int third = accept_one(f);
    assert_int_equal(pool_count(f->pool), 3);
    answer_one(f, fd, 3, &uses[0]);
    const int fds[] = {second, third};
    for (int i = 0; i < 2; i++) {
        send_settings(fds[i], 1);
        answer_one(f, fds[i], 1, &uses[i + 1]);
        close(fds[i]);
    }
    close(fd);
}

/* No connection is opened beside it: that would not be allowed more. */
static void a_limit_of_0_opens_no_other(void **state)
{
    struct fixture *f = *state;
    struct use uses[2];
    int fd = warm_up(f, 0);
    struct pool_target target = {.claim = f->claim, .port = f->port, .protocol = f->protocol};
    struct pool_opened opened;
    assert_null(pool_open(f->pool, f->settings, &target, 0, &opened));
    assert_int_equal(opened.status, STATUS_UPSTREAM_NO_STREAMS);
    for (int i = 0; i < 2; i++) {
        opened = open_with(f, &uses[i], &target, POOL_QUEUE);
        assert_true(opened.queued && opened.reused);
    }
    assert_int_equal(pool_count(f->pool), 1);
    assert_int_equal(pool_active(f->pool, f->claim), 2);
    assert_int_equal(f->counters.upstream_connections_idle, 0);
    send_settings(fd, 2);
    TURN_UNTIL(f->loop, uses[0].rooms + uses[1].rooms == 2);
    answer_one(f, fd, 3, &uses[0]);
    answer_one(f, fd, 5, &uses[1]);
    assert_int_equal(f->counters.upstream_connects_total, 1);
    assert_true(open_use(f, &uses[0], false));
    answer_one(f, fd, 7, &uses[0]);
    close(fd);
}

static void the_one_with_the_most_room_is_used(void **state)
{
    struct fixture *f = *state;
    struct use uses[4];
    int fd = warm_up(f, 2);
    assert_true(open_use(f, &uses[0], false));
    assert_true(open_use(f, &uses[1], false));
    assert_false(open_use(f, &uses[2], false));
    int second = accept_one(f);
    send_settings(second, 2);
    answer_one(f, second, 1, &uses[2]);
    answer_one(f, fd, 3, &uses[0]);
    assert_true(open_use(f, &uses[3], false)); /* the second one has room for two, the first for one */
    answer_one(f, second, 3, &uses[3]);
    answer_one(f, fd, 5, &uses[1]);
    close(fd);
    close(second);
}

static void a_fresh_one_is_not_connected_yet(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fd = warm_up(f, 100);
    assert_false(open_use(f, &uses[0], true));
    assert_false(open_use(f, &uses[1], true)); /* many that retry share it */
    assert_int_equal(pool_count(f->pool), 2);
    int second = accept_one(f);
    send_settings(second, 100);
    answer_one(f, second, 1, &uses[0]);
    assert_false(open_use(f, &uses[2], true));
    assert_int_equal(pool_count(f->pool), 3);
    int third = accept_one(f);
    send_settings(third, 100);
    answer_one(f, third, 1, &uses[2]);
    answer_one(f, second, 3, &uses[1]);
    close(fd);
    close(second);
    close(third);
}

/* With a PROXY header: however many others have a connection that says the same. */
static void each_client_has_its_own(void **state)
{
    struct fixture *f = *state;
    enum { CLIENTS = 8 };
    struct list owners[CLIENTS];
    struct use uses[2 * CLIENTS];
    for (int i = 0; i < 2 * CLIENTS; i++) {
        struct list *owner = &owners[i % CLIENTS];
        if (i < CLIENTS)
            list_init(owner);
        struct pool_target target = {.claim = f->claim, .port = f->port, .protocol = POOL_H2C};
        target.header = SLICE("PROXY UNKNOWN\r\n");
        target.owner = owner;
        assert_false(open_target(f, &uses[i], &target, false)); /* not connected yet */
        assert_int_equal(pool_count(f->pool), i < CLIENTS ? i + 1 : CLIENTS);
        assert_ptr_equal(owner->next->next, owner); /* one each */
        if (i >= CLIENTS)
            assert_ptr_equal(uses[i].endpoint->mux, uses[i - CLIENTS].endpoint->mux);
    }
    for (int i = 0; i < CLIENTS; i++)
        pool_leave_owner(&owners[i]);
    pool_revoke(f->pool, f->claim);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void another_protocol_is_another_connection(void **state)
{
    struct fixture *f = *state;
    struct use use;
    int fd = warm_up(f, 100);
    f->protocol = POOL_HTTP_1;
    assert_false(open_use(f, &use, false));
    assert_int_equal(pool_count(f->pool), 2);
    int second = accept_one(f);
    send_text(second, "HTTP/1.1 204 No Content\r\n\r\n");
    TURN_UNTIL(f->loop, use.ends == 1);
    close(fd);
    close(second);
}

static void too_long_idle_is_closed(void **state)
{
    struct fixture *f = *state;
    f->settings->upstream_idle_ms = 50;
    int fd = warm_up(f, 100);
    await_end(f, fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void a_revoked_claim_resets_all_streams(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fd = warm_up(f, 100);
    for (int i = 0; i < 3; i++)
        assert_true(open_use(f, &uses[i], false));
    pool_revoke(f->pool, f->claim);
    assert_int_equal(uses[0].resets, 0); /* not inside the call */
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(uses[i].resets, 1);
        assert_int_equal(uses[i].status, STATUS_ADDRESS_REVOKED);
    }
    await_end(f, fd);
    assert_int_equal(f->counters.upstream_revoked_total, 1);
}

static void other_rules_let_streams_end(void **state)
{
    struct fixture *f = *state;
    struct use uses[2];
    struct ip_network network;
    open_use(f, &uses[0], false);
    int fd = accept_one(f);
    send_settings(fd, 100);
    assert_true(ip_network_parse(slice_str("10.0.0.0/8"), &network));
    pool_apply_rules(f->pool, &(struct route_rules){.allow = &network, .allow_count = 1});
    open_use(f, &uses[1], false); /* on another one */
    assert_int_equal(f->counters.upstream_connects_total, 2);
    int other = accept_one(f);
    send_settings(other, 100);
    answer_one(f, fd, 1, &uses[0]);
    await_end(f, fd);
    answer_one(f, other, 1, &uses[1]);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 1);
    close(other);
}

static void a_connection_that_ended_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct use use;
    int fd = warm_up(f, 100);
    assert_true(open_use(f, &use, false));
    close(fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    assert_int_equal(use.resets, 1);
}

static void open_upload(struct fixture *f, struct use *use)
{
    struct message_head head = {.method = METHOD_POST, .method_text = SLICE("POST"), .path = SLICE("/")};
    struct pool_target target = {.claim = f->claim, .port = f->port, .protocol = f->protocol};
    struct pool_opened opened;
    *use = (struct use){.f = f};
    use->endpoint = pool_open(f->pool, f->settings, &target, 0, &opened);
    assert_non_null(use->endpoint);
    endpoint_bind(use->endpoint, &use_events, use, &f->arena);
    head.body = BODY_CHUNKED;
    use->endpoint->ops->send_head(use->endpoint, &head, false);
}

/* True if it had no room for more. */
static bool upload_is_stuck(struct use *use)
{
    static const char piece[16384];
    if (use->endpoint->ops->room(use->endpoint) == 0)
        return stream_queued(use->endpoint->mux->stream) >= STREAM_HIGH_MARK;
    use->endpoint->ops->send_body(use->endpoint, piece, sizeof piece, false);
    return false;
}

/* The instance hangs: its kernel takes what it has room for. */
static void a_connection_that_is_stuck_is_forgotten(void **state)
{
    const int small = 4096;
    struct fixture *f = *state;
    struct use uses[3];
    setsockopt(f->listening, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    f->settings->mux.head_ms = 100;
    f->settings->mux.send_stall_ms = 300;
    int fd = warm_up(f, 100);
    send_wide_windows(fd);
    for (int i = 0; i < 3; i++)
        open_upload(f, &uses[i]);
    for (int stuck = 0; stuck < 30; loop_turn(f->loop, 2)) /* ten turns long */
        for (int i = 0; i < 3; i++)
            stuck = upload_is_stuck(&uses[i]) ? stuck + 1 : 0;
    for (int i = 0; i < 3; i++)
        uses[i].endpoint->ops->release(&uses[i].endpoint, STATUS_CLIENT_CANCELLED);
    assert_int_equal(pool_active(f->pool, f->claim), 0);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(uses[i].resets, 0);
    await_end(f, fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_h2c, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(one_connection_serves_many),
        TEST(another_one_is_opened_when_all_are_full),
        TEST(a_limit_of_0_opens_no_other),
        TEST(the_one_with_the_most_room_is_used),
        TEST(a_fresh_one_is_not_connected_yet),
        TEST(each_client_has_its_own),
        TEST(another_protocol_is_another_connection),
        TEST(too_long_idle_is_closed),
        TEST(a_revoked_claim_resets_all_streams),
        TEST(other_rules_let_streams_end),
        TEST(a_connection_that_ended_is_forgotten),
        TEST(a_connection_that_is_stuck_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
