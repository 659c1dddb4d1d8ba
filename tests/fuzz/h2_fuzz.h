/*
 * h2_fuzz: one HTTP/2 mux at a time on a socket, which is fed the fuzzer's bytes in pieces. Each target has the owners
 * of its endpoints.
 */
#ifndef GATEWAY_TESTS_FUZZ_H2_FUZZ_H
#define GATEWAY_TESTS_FUZZ_H2_FUZZ_H

#include "gateway/mux/h2_mux.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { H2_FUZZ_MAX_PIECES = 64, H2_FUZZ_LAST_TURNS = 8 };

/* The one that runs. */
static struct {
    struct counters counters;
    struct loop *loop;
    struct mux *mux; /* NULL when it is closed */
    int peer;
} h2_fuzz;

static inline void h2_fuzz_idle(void *owner)
{
    (void)owner;
}

static inline void h2_fuzz_closed(void *owner, enum status status)
{
    (void)owner, (void)status;
    h2_fuzz.mux = NULL;
}

static const struct mux_settings h2_fuzz_settings = {
    .request_limits = {.max_head_bytes = 1024, .max_target_bytes = 100, .max_fields = 10},
    .response_limits = {.max_head_bytes = 1024, .max_target_bytes = 100, .max_fields = 10},
    .head_ms = 10000,
    .keepalive_ms = 10000,
    .body_idle_ms = 10000,
    .send_stall_ms = 10000,
    .silent_ms = 10000,
};

/* What the mux says is thrown away. */
static inline void h2_fuzz_turn(void)
{
    char drop[4096];
    loop_turn(h2_fuzz.loop, 0);
    while (recv(h2_fuzz.peer, drop, sizeof drop, MSG_DONTWAIT) > 0)
        ;
}

static inline void h2_fuzz_open(bool server, const struct mux_events *events)
{
    static const struct stream_events no_events;
    int pair[2];
    struct ip_addr addr = {.family = 0};
    if (!h2_fuzz.loop)
        h2_fuzz.loop = loop_new(&h2_fuzz.counters);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
    h2_fuzz.peer = pair[0];
    struct stream *stream = stream_accept(h2_fuzz.loop, pair[1], &addr, 1, NULL, 0, &no_events, NULL);
    h2_fuzz.mux = server ? h2_mux_server(stream, &h2_fuzz_settings, events, NULL)
                         : h2_mux_client(stream, &h2_fuzz_settings, events, NULL);
}

/* The first byte is the size of the pieces. */
static inline void h2_fuzz_feed(const uint8_t *data, size_t size)
{
    size_t piece = 1 + data[0] * 8U;
    for (size_t at = 1, i = 0; at < size && i < H2_FUZZ_MAX_PIECES && h2_fuzz.mux; at += piece, i++) {
        (void)!send(h2_fuzz.peer, data + at, piece < size - at ? piece : size - at, MSG_NOSIGNAL);
        h2_fuzz_turn();
    }
    for (int i = 0; i < H2_FUZZ_LAST_TURNS && h2_fuzz.mux; i++)
        h2_fuzz_turn();
}

static inline void h2_fuzz_close(enum status status)
{
    if (h2_fuzz.mux)
        h2_fuzz.mux->ops->close(h2_fuzz.mux, status);
    while (h2_fuzz.mux)
        h2_fuzz_turn();
    if (h2_fuzz.counters.h2_windows_extra_bytes != 0)
        abort(); /* each connection gives back what it was allowed */
    close(h2_fuzz.peer);
    for (int i = 0; i < 2; i++)
        loop_turn(h2_fuzz.loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
