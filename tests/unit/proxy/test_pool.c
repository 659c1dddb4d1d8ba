#include "gateway/proxy/pool.h"

#include "net/sockets.h"
#include "proxy/proxy_fixture.h"

struct fixture {
    struct counters counters;
    struct loop *loop;
    struct pool *pool;
    struct settings *settings;
    struct claims *claims;
    struct claim *claim;
    struct arena arena;
    int listening;
    uint16_t port;
};

/* One use of a connection: the other side of an endpoint. */
struct use {
    struct fixture *f;
    struct endpoint *endpoint;
    int resets;
    int ends;
    enum status status;
};

static void use_head(void *owner, const struct message_head *head, bool end)
{
    struct use *use = owner;
    assert_int_equal(head->status, 204);
    assert_true(end);
    use->ends++;
    use->endpoint->ops->release(&use->endpoint, STATUS_OK);
}

static void use_room(void *owner)
{
    (void)owner;
}

static void use_reset(void *owner, enum status status)
{
    struct use *use = owner;
    use->resets++;
    use->status = status;
    use->endpoint->ops->release(&use->endpoint, status);
}

static const struct endpoint_events use_events = {.head = use_head, .room = use_room, .reset = use_reset};

static struct claim *take_claim(struct fixture *f, const char *id, const char *address)
{
    struct ip_addr addr = fixture_ip(address);
    struct claim *claim = claims_stage_take(f->claims, id, 1, &addr);
    claims_publish(f->claims);
    return claim;
}

static int set_up(void **state)
{
    struct fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    signal(SIGPIPE, SIG_IGN);
    f->loop = loop_new(&f->counters);
    f->pool = pool_new(f->loop);
    f->settings = fixture_settings();
    f->claims = claims_new();
    f->claim = take_claim(f, "one", "127.0.0.1");
    arena_init(&f->arena, &f->loop->arenas);
    f->listening = listen_any(&f->port);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pool_close_idle(f->pool);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    assert_int_equal(f->counters.upstream_connections, 0);
    assert_int_equal(f->counters.upstream_connections_idle, 0);
    pool_free(&f->pool);
    pool_free(&f->pool); /* accepts NULL */
    settings_unref(&f->settings);
    claim_unref(&f->claim);
    claims_free(&f->claims);
    arena_reset(&f->arena);
    close(f->listening);
    loop_free(&f->loop);
    free(f);
    return 0;
}

static bool open_use(struct fixture *f, struct use *use, bool fresh)
{
    struct message_head head = {
        .method = METHOD_GET, .method_text = SLICE("GET"), .path = SLICE("/"), .version = HTTP_1_1};
    bool reused;
    enum status status = STATUS_OK;
    *use = (struct use){.f = f};
    struct pool_target target = {.claim = f->claim, .port = f->port};
    use->endpoint = pool_open(f->pool, f->settings, &target, fresh, &reused, &status);
    assert_non_null(use->endpoint);
    endpoint_bind(use->endpoint, &use_events, use, &f->arena);
    use->endpoint->ops->send_head(use->endpoint, &head, true);
    return reused;
}

static int accept_one(struct fixture *f)
{
    int fd;
    TURN_UNTIL(f->loop, (fd = accept4(f->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    return fd;
}

static void answer(struct fixture *f, int fd, struct use *use)
{
    struct inbox inbox = {.len = 0};
    TURN_UNTIL(f->loop, inbox_has(&inbox, fd, "\r\n\r\n"));
    inbox_clear(&inbox);
    send_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    TURN_UNTIL(f->loop, use->ends == 1);
}

static void await_end(struct fixture *f, int fd)
{
    struct inbox inbox = {.len = 0};
    TURN_UNTIL(f->loop, inbox_is_over(&inbox, fd));
    inbox_clear(&inbox);
    close(fd);
}

static void an_idle_connection_is_used_again(void **state)
{
    struct fixture *f = *state;
    struct use use;
    assert_false(open_use(f, &use, false));
    assert_int_equal(pool_active(f->pool, f->claim), 1);
    int fd = accept_one(f);
    answer(f, fd, &use);
    TURN_UNTIL(f->loop, pool_active(f->pool, f->claim) == 0);
    assert_int_equal(pool_count(f->pool), 1);
    assert_true(open_use(f, &use, false));
    assert_int_equal(pool_count(f->pool), 1);
    answer(f, fd, &use);
    close(fd);
}

static void a_fresh_one_is_a_new_one(void **state)
{
    struct fixture *f = *state;
    struct use first, second;
    open_use(f, &first, false);
    int fd = accept_one(f);
    answer(f, fd, &first);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    assert_false(open_use(f, &second, true));
    int fd2 = accept_one(f);
    answer(f, fd2, &second);
    assert_int_equal(pool_count(f->pool), 2);
    close(fd);
    close(fd2);
}

static void busy_connections_are_not_shared(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fds[3];
    for (int i = 0; i < 3; i++) {
        assert_false(open_use(f, &uses[i], false));
        fds[i] = accept_one(f);
    }
    assert_int_equal(pool_active(f->pool, f->claim), 3);
    for (int i = 0; i < 3; i++)
        answer(f, fds[i], &uses[i]);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void another_port_is_another_connection(void **state)
{
    struct fixture *f = *state;
    struct use use, other;
    open_use(f, &use, false);
    int fd = accept_one(f);
    answer(f, fd, &use);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    uint16_t port;
    int listening = listen_any(&port);
    f->port = port;
    assert_false(open_use(f, &other, false));
    TURN_UNTIL(f->loop, pool_active(f->pool, f->claim) == 1);
    close(listening);
    TURN_UNTIL(f->loop, other.resets == 1); /* never accepted: reset */
    close(fd);
}

static void an_idle_connection_that_ended_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct use use;
    open_use(f, &use, false);
    int fd = accept_one(f);
    answer(f, fd, &use);
    close(fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void too_long_idle_is_closed(void **state)
{
    struct fixture *f = *state;
    struct use use;
    f->settings->upstream_idle_ms = 50;
    open_use(f, &use, false);
    int fd = accept_one(f);
    answer(f, fd, &use);
    await_end(f, fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void too_many_idle_are_closed(void **state)
{
    struct fixture *f = *state;
    struct use uses[3];
    int fds[3];
    f->settings->max_idle_per_instance = 1;
    for (int i = 0; i < 3; i++) {
        open_use(f, &uses[i], false);
        fds[i] = accept_one(f);
    }
    for (int i = 0; i < 3; i++)
        answer(f, fds[i], &uses[i]);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 1);
    assert_int_equal(f->counters.upstream_connections_idle, 1);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void a_revoked_claim_closes_all_of_its_connections(void **state)
{
    struct fixture *f = *state;
    struct use idle, busy;
    open_use(f, &idle, false);
    open_use(f, &busy, false);
    int fd = accept_one(f), fd2 = accept_one(f);
    answer(f, fd, &idle);
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    pool_revoke(f->pool, f->claim);
    assert_int_equal(busy.resets, 0); /* not inside the call */
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    assert_int_equal(busy.resets, 1);
    assert_int_equal(busy.status, STATUS_ADDRESS_REVOKED);
    assert_int_equal(f->counters.upstream_revoked_total, 2);
    await_end(f, fd);
    await_end(f, fd2);
    pool_revoke(f->pool, f->claim); /* nothing of it is left */
}

static void a_claim_revoked_in_use_is_not_kept(void **state)
{
    struct fixture *f = *state;
    struct use use;
    open_use(f, &use, false);
    int fd = accept_one(f);
    atomic_store(&f->claim->revoked, true);
    answer(f, fd, &use);
    await_end(f, fd);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
}

static void a_forbidden_address_is_not_dialed(void **state)
{
    struct fixture *f = *state;
    bool reused;
    enum status status = STATUS_OK;
    struct claim *claim = take_claim(f, "two", "10.1.2.3");
    struct pool_target target = {.claim = claim, .port = f->port};
    assert_null(pool_open(f->pool, f->settings, &target, false, &reused, &status));
    assert_int_equal(status, STATUS_ADDRESS_FORBIDDEN);
    assert_int_equal(pool_count(f->pool), 0);
    claim_unref(&claim);
}

static void a_refused_connection_is_counted(void **state)
{
    struct fixture *f = *state;
    struct use use;
    uint16_t port;
    close(listen_any(&port));
    f->port = port;
    open_use(f, &use, false);
    TURN_UNTIL(f->loop, use.resets == 1);
    assert_int_equal(use.status, STATUS_CONNECT_REFUSED);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    assert_int_equal(f->counters.upstream_connect_errors_total, 1);
}

static void many_claims_have_buckets_of_their_own(void **state)
{
    enum { MANY = 200 };
    struct fixture *f = *state;
    struct claim *own = f->claim, *claims[MANY];
    static struct use uses[MANY];
    uint16_t port;
    close(listen_any(&port));
    f->port = port;
    for (unsigned i = 0; i < MANY; i++) {
        char text[32];
        snprintf(text, sizeof text, "127.1.%u.1", i);
        claims[i] = f->claim = take_claim(f, text, text);
        open_use(f, &uses[i], false);
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(pool_active(f->pool, claims[i]), 1);
    TURN_UNTIL(f->loop, pool_count(f->pool) == 0);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(uses[i].resets, 1);
        claim_unref(&claims[i]);
    }
    f->claim = own;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_idle_connection_is_used_again),
        TEST(a_fresh_one_is_a_new_one),
        TEST(busy_connections_are_not_shared),
        TEST(another_port_is_another_connection),
        TEST(an_idle_connection_that_ended_is_forgotten),
        TEST(too_long_idle_is_closed),
        TEST(too_many_idle_are_closed),
        TEST(a_revoked_claim_closes_all_of_its_connections),
        TEST(a_claim_revoked_in_use_is_not_kept),
        TEST(a_forbidden_address_is_not_dialed),
        TEST(a_refused_connection_is_counted),
        TEST(many_claims_have_buckets_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
