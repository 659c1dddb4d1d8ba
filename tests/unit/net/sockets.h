/*
 * sockets: a loop with a deadline, and the plain sockets that tests hold at the other end of it.
 */
#ifndef TESTS_UNIT_NET_SOCKETS_H
#define TESTS_UNIT_NET_SOCKETS_H

#include "gateway/base/clock.h"
#include "gateway/base/ip.h"
#include "gateway/net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* An upper bound for everything that a test waits for; nothing takes that long unless it never comes. */
enum { SOCKETS_DEADLINE_MS = 20000 };

static inline uint64_t sockets_now_ms(void)
{
    return clock_now_us() / 1000U;
}

/* Turns the loop until `condition` holds. */
#define TURN_UNTIL(loop, condition)                                                                                    \
    do {                                                                                                               \
        for (uint64_t begun_ = sockets_now_ms(); !(condition);) {                                                      \
            if (sockets_now_ms() - begun_ > SOCKETS_DEADLINE_MS)                                                       \
                fail_msg("%s:%d: never: %s", __FILE__, __LINE__, #condition);                                          \
            loop_turn(loop, 10);                                                                                       \
        }                                                                                                              \
    } while (0)

/* A few turns, for what must not happen. */
static inline void turn_some(struct loop *loop)
{
    for (int i = 0; i < 5; i++)
        loop_turn(loop, 2);
}

static inline void set_nonblocking(int fd)
{
    assert_return_code(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), errno);
}

/* A listening socket on 127.0.0.x at a port that the kernel picks. */
static inline int listen_at(uint32_t host, uint16_t *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(host)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_return_code(bind(fd, (struct sockaddr *)(void *)&at, sizeof at), errno);
    assert_return_code(listen(fd, 64), errno);
    assert_return_code(getsockname(fd, (struct sockaddr *)(void *)&at, &len), errno);
    *port = ntohs(at.sin_port);
    return fd;
}

static inline int listen_any(uint16_t *port)
{
    *port = 0;
    return listen_at(INADDR_LOOPBACK, port);
}

/* A connected non-blocking client socket. */
static inline int connect_to(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(connect(fd, (struct sockaddr *)(void *)&to, sizeof to), errno);
    set_nonblocking(fd);
    return fd;
}

/* Two ends of a TCP connection over loopback, both non-blocking. */
static inline void tcp_pair(int ret[2])
{
    uint16_t port;
    int listening = listen_any(&port);
    ret[0] = connect_to(port);
    ret[1] = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_return_code(ret[1], errno);
    close(listening);
}

static inline struct ip_addr loopback_ip(void)
{
    struct ip_addr addr;
    assert_true(ip_parse(slice_str("127.0.0.1"), &addr));
    return addr;
}

/* Closes with RST. */
static inline void close_hard(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

static inline void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What a peer socket has received so far. */
struct inbox {
    char *bytes; /* NUL-terminated */
    size_t len;
    size_t capacity;
    bool ended;
    int error;
};

static inline void inbox_add(struct inbox *inbox, const char *bytes, size_t len)
{
    if (inbox->len + len + 1 > inbox->capacity) {
        inbox->capacity = (inbox->len + len + 1) * 2;
        inbox->bytes = realloc(inbox->bytes, inbox->capacity);
        assert_non_null(inbox->bytes);
    }
    if (len > 0)
        memcpy(inbox->bytes + inbox->len, bytes, len);
    inbox->len += len;
    inbox->bytes[inbox->len] = '\0';
}

/* Reads what is there. Returns the inbox's length. */
static inline size_t inbox_read(struct inbox *inbox, int fd)
{
    static char buffer[65536];
    ssize_t n;
    while (!inbox->ended && !inbox->error && (n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT)) != -1) {
        inbox_add(inbox, buffer, (size_t)n);
        inbox->ended = n == 0;
    }
    if (!inbox->ended && !inbox->error && errno != EAGAIN)
        inbox->error = errno;
    return inbox->len;
}

static inline bool inbox_has(struct inbox *inbox, int fd, const char *text)
{
    inbox_read(inbox, fd);
    return inbox->bytes && strstr(inbox->bytes, text);
}

/* Ended in order or by a reset. */
static inline bool inbox_is_over(struct inbox *inbox, int fd)
{
    inbox_read(inbox, fd);
    return inbox->ended || inbox->error;
}

static inline void inbox_clear(struct inbox *inbox)
{
    free(inbox->bytes);
    *inbox = (struct inbox){.len = 0};
}

#endif
