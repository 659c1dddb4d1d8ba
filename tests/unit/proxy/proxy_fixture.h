/*
 * proxy_fixture: a proxy with a cleartext front listener, a route table, and origins that a test plays itself.
 */
#ifndef TESTS_UNIT_PROXY_PROXY_FIXTURE_H
#define TESTS_UNIT_PROXY_PROXY_FIXTURE_H

#include "gateway/proxy/exchange.h"
#include "gateway/proxy/frontend.h"
#include "gateway/proxy/pool.h"

#include "net/sockets.h"
#include "route/route_fixture.h"

/* 127.0.0.11 and on: one address for each instance, the same port on all. */
enum { FIRST_HOST = 0x7F00000B, MAX_ORIGINS = 4 };

struct party {
    int fd; /* -1: none */
    struct inbox in;
};

struct proxy_fixture {
    struct counters counters;
    struct loop *loop;
    struct route_table *table;
    struct settings *settings; /* the proxy's */
    struct proxy *proxy;
    struct frontend *frontend;
    uint16_t front_port;
    uint16_t back_port;
    int origins[MAX_ORIGINS]; /* listening */
    bool drained;
    struct party client;
    struct party origin; /* the connection that the test looks at */
};

static inline struct settings *fixture_settings(void)
{
    struct settings *settings = settings_new();
    struct ip_network *allow = calloc(1, sizeof *allow);
    settings->base_domains = calloc(1, sizeof *settings->base_domains);
    settings->base_domains[0] = slice_str(strdup("t.test"));
    settings->base_domain_count = 1;
    assert_true(ip_network_parse(slice_str("127.0.0.0/8"), allow));
    settings->rules.allow = allow;
    settings->rules.allow_count = 1;
    return settings;
}

static inline void fixture_revoked(void *arg, struct claim *claim)
{
    struct proxy_fixture *f = arg;
    proxy_revoke(f->proxy, claim);
}

static inline void fixture_put(struct proxy_fixture *f, struct route_app *app)
{
    struct route_problem problem = {.status = STATUS_OK};
    if (route_table_stage_put(f->table, app, &problem) != STATUS_OK)
        fail_msg("%s: %s", problem.field, problem.detail);
    route_table_publish(f->table, fixture_revoked, f);
}

/* An app "app" with running instances one, two, … on the first addresses, of this generation. */
static inline struct route_app *fixture_app_of(unsigned instances, uint64_t generation)
{
    static const char *const ids[] = {"one", "two", "three", "four"};
    struct route_app *app = route_app_new("app");
    for (unsigned i = 0; i < instances; i++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.%u", (FIRST_HOST & 255U) + i);
        fixture_add_instance(app, ids[i], address, generation, ROUTE_STATE_RUNNING);
    }
    return app;
}

static inline void fixture_not_told_yet(void *arg, struct claim *claim)
{
    (void)arg;
    assert_true(claim_is_revoked(claim));
}

/* The address of the first instance gets another owner; the message that says so is still on its way. */
static inline void fixture_move_address(struct proxy_fixture *f)
{
    struct route_problem problem = {.status = STATUS_OK};
    assert_int_equal(route_table_stage_put(f->table, fixture_app_of(1, 2), &problem), STATUS_OK);
    route_table_publish(f->table, fixture_not_told_yet, NULL);
}

static inline void fixture_start(struct proxy_fixture *f, struct settings *settings, unsigned instances)
{
    struct frontend_params params = {.kind = FRONTEND_PROXY};
    signal(SIGPIPE, SIG_IGN);
    f->client.fd = f->origin.fd = -1;
    for (unsigned i = 0; i < MAX_ORIGINS; i++)
        f->origins[i] = -1;
    f->loop = loop_new(&f->counters);
    f->table = route_table_new();
    f->settings = settings;
    f->proxy = proxy_new(f->loop, settings, f->table, NULL, NULL);
    int fd = listen_any(&f->front_port);
    params.port = f->front_port;
    f->frontend = frontend_new(f->proxy, fd, &params);
    for (unsigned i = 0; i < instances; i++)
        f->origins[i] = listen_at(FIRST_HOST + i, &f->back_port);
    if (instances > 0)
        fixture_put(f, fixture_app_of(instances, 1));
}

static inline void party_close(struct party *party)
{
    if (party->fd >= 0)
        close(party->fd);
    party->fd = -1;
    inbox_clear(&party->in);
}

static inline void fixture_stop(struct proxy_fixture *f)
{
    party_close(&f->client);
    party_close(&f->origin);
    for (unsigned i = 0; i < MAX_ORIGINS; i++)
        if (f->origins[i] >= 0)
            close(f->origins[i]);
    proxy_close_all(f->proxy, STATUS_SHUTDOWN);
    TURN_UNTIL(f->loop, f->proxy->connection_count == 0);
    pool_close_idle(f->proxy->pool);
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 0);
    assert_int_equal(f->counters.requests_active, 0);
    assert_int_equal(f->counters.tunnels_active, 0);
    assert_int_equal(f->counters.connections, 0);
    assert_int_equal(f->counters.connections_idle, 0);
    assert_int_equal(f->counters.upstream_connections, 0);
    assert_int_equal(f->counters.upstream_connections_idle, 0);
    frontend_free(&f->frontend);
    proxy_free(&f->proxy);
    loop_free(&f->loop);
    route_table_free(&f->table);
}

static inline void client_connect(struct proxy_fixture *f)
{
    party_close(&f->client);
    f->client.fd = connect_to(f->front_port);
}

/* "METHOD path" and further fields, each line with its CRLF. */
static inline void client_ask(struct proxy_fixture *f, const char *what, const char *fields, const char *body)
{
    char text[4096];
    int n =
        snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: app-%u.t.test\r\n%s\r\n%s", what, f->back_port, fields, body);
    assert_in_range(n, 1, sizeof text - 1);
    send_text(f->client.fd, text);
}

/* Accepts at one of the listening sockets; false if nobody is there. */
static inline bool origin_accept(struct proxy_fixture *f, unsigned index)
{
    int fd = accept4(f->origins[index], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return false;
    party_close(&f->origin);
    f->origin.fd = fd;
    return true;
}

#define AWAIT_ORIGIN(f, index)       TURN_UNTIL((f)->loop, origin_accept(f, index))
#define AWAIT_TEXT(f, party, text)   TURN_UNTIL((f)->loop, inbox_has(&(f)->party.in, (f)->party.fd, text))
#define AWAIT_END(f, party)          TURN_UNTIL((f)->loop, inbox_is_over(&(f)->party.in, (f)->party.fd))
#define ASSERT_LACKS(f, party, text) assert_false(inbox_has(&(f)->party.in, (f)->party.fd, text))

#endif
