/*
 * exchange_fixture: a proxy fixture for tests of exchanges, with one origin or two, and a client that is connected.
 */
#ifndef TESTS_UNIT_PROXY_EXCHANGE_FIXTURE_H
#define TESTS_UNIT_PROXY_EXCHANGE_FIXTURE_H

#include "proxy/proxy_fixture.h"

static inline int start(void **state, unsigned instances)
{
    struct proxy_fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    memset(f, 0, sizeof *f);
    fixture_start(f, fixture_settings(), instances);
    client_connect(f);
    *state = f;
    return 0;
}

static inline int start_one(void **state)
{
    return start(state, 1);
}

static inline int start_two(void **state)
{
    return start(state, 2);
}

static inline int stop(void **state)
{
    struct proxy_fixture *f = *state;
    fixture_stop(f);
    free(f);
    return 0;
}

#define OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* One request and answer; leaves the back connection idle in the pool. */
static inline void warm_up(struct proxy_fixture *f)
{
    client_ask(f, "GET /warm", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm");
    AWAIT_TEXT(f, client, "warm");
    TURN_UNTIL(f->loop, f->counters.upstream_connections_idle == 1);
    inbox_clear(&f->client.in);
    inbox_clear(&f->origin.in);
}

#endif
