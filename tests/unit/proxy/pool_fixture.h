/*
 * pool_fixture: a pool with one claim, whose instance is a listening socket of the test; uses are the owners of
 * endpoints of pooled connections.
 */
#ifndef TESTS_UNIT_PROXY_POOL_FIXTURE_H
#define TESTS_UNIT_PROXY_POOL_FIXTURE_H

#include "gateway/proxy/pool.h"

#include "net/sockets.h"
#include "proxy/proxy_fixture.h"

struct fixture {
    struct counters counters;
    struct loop *loop;
    struct pool *pool;
    struct settings *settings;
    struct claim *claim;
    uint64_t last_serial;
    struct arena arena;
    int listening;
    uint16_t port;
    enum pool_protocol protocol;
};

/* One use of a connection: the other side of an endpoint. */
struct use {
    struct fixture *f;
    struct endpoint *endpoint;
    int resets;
    int ends;
    int rooms;
    enum status status;
};

static inline void use_head(void *owner, const struct message_head *head, bool end)
{
    struct use *use = owner;
    assert_int_equal(head->status, 204);
    assert_true(end);
    use->ends++;
    use->endpoint->ops->release(&use->endpoint, STATUS_OK);
}

static inline void use_room(void *owner)
{
    struct use *use = owner;
    use->rooms++;
}

static inline void use_reset(void *owner, enum status status)
{
    struct use *use = owner;
    use->resets++;
    use->status = status;
    use->endpoint->ops->release(&use->endpoint, status);
}

static const struct endpoint_events use_events = {.head = use_head, .room = use_room, .reset = use_reset};

static inline struct claim *take_claim(struct fixture *f, const char *address)
{
    struct ip_addr addr = fixture_ip(address);
    return claim_new(++f->last_serial, 1, &addr);
}

static inline int set_up(void **state)
{
    struct fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    signal(SIGPIPE, SIG_IGN);
    f->loop = loop_new(&f->counters);
    f->pool = pool_new(f->loop);
    f->settings = fixture_settings();
    f->claim = take_claim(f, "127.0.0.1");
    arena_init(&f->arena, &f->loop->arenas);
    f->listening = listen_any(&f->port);
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
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
    arena_reset(&f->arena);
    close(f->listening);
    loop_free(&f->loop);
    free(f);
    return 0;
}

static inline struct pool_opened open_with(struct fixture *f, struct use *use, const struct pool_target *target,
                                           unsigned flags)
{
    struct message_head head = {
        .method = METHOD_GET, .method_text = SLICE("GET"), .path = SLICE("/"), .version = HTTP_1_1};
    struct pool_opened opened;
    *use = (struct use){.f = f};
    use->endpoint = pool_open(f->pool, f->settings, target, flags, &opened);
    assert_non_null(use->endpoint);
    endpoint_bind(use->endpoint, &use_events, use, &f->arena);
    use->endpoint->ops->send_head(use->endpoint, &head, true);
    return opened;
}

static inline bool open_target(struct fixture *f, struct use *use, const struct pool_target *target, bool fresh)
{
    return open_with(f, use, target, fresh ? POOL_FRESH : 0).reused;
}

static inline bool open_use(struct fixture *f, struct use *use, bool fresh)
{
    struct pool_target target = {.claim = f->claim, .port = f->port, .protocol = f->protocol};
    return open_target(f, use, &target, fresh);
}

static inline int accept_one(struct fixture *f)
{
    int fd;
    TURN_UNTIL(f->loop, (fd = accept4(f->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    return fd;
}

static inline void await_end(struct fixture *f, int fd)
{
    struct inbox inbox = {.len = 0};
    TURN_UNTIL(f->loop, inbox_is_over(&inbox, fd));
    inbox_clear(&inbox);
    close(fd);
}

#endif
