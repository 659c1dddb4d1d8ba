/*
 * bench_relay: the least that a proxy in user space does to pass TLS through by SNI; the floor of the case passthrough
 * of `tests/bench/run`.
 *
 * usage: bench_relay --port PORT --backend-port PORT --log FILE
 *
 * Accepts on 127.0.0.1, finds the host's number in the ClientHello (traffic.h), connects, and copies what each side
 * says until both have ended: one that ended first still hears the other. One line in the log for each connection.
 * What a real proxy needs besides is left out: routes, limits, timeouts, a parser, and queues. A ClientHello that comes
 * in pieces, or what the kernel does not take at once, ends the program with a line that says so.
 */
#include "traffic.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HELLO = 4096, BUFFER_BYTES = 16384, MAX_EVENTS = 64, LOG_MS = 50 };

struct conn;

struct side {
    struct conn *conn;
    int fd; /* -1: there is none yet */
    bool has_ended;
};

struct conn {
    struct side front, back;
    bool is_connected, is_closed;
    unsigned host;
    uint64_t bytes;
    size_t hello_length;
    char hello[MAX_HELLO];
    struct conn *next; /* in relay.closed or relay.unused */
};

static struct {
    unsigned port, backend_port;
    int epoll, listener;
    FILE *log;
    struct conn *closed; /* in this turn: events may still name them */
    struct conn *unused;
} relay;

static void watch(struct side *side)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = side};
    if (epoll_ctl(relay.epoll, EPOLL_CTL_ADD, side->fd, &event) != 0)
        traffic_die("relay: epoll_ctl: %s", strerror(errno));
}

static void finish(struct conn *conn)
{
    close(conn->front.fd);
    if (conn->back.fd >= 0)
        close(conn->back.fd);
    conn->is_closed = true;
    conn->next = relay.closed;
    relay.closed = conn;
    fprintf(relay.log, "%lld host %u, %llu bytes\n", (long long)time(NULL), conn->host,
            (unsigned long long)conn->bytes);
}

static void send_all(const struct side *to, const char *data, size_t length)
{
    ssize_t sent = send(to->fd, data, length, MSG_NOSIGNAL);
    if (sent >= 0 && (size_t)sent < length)
        traffic_die("relay: %zd of %zu bytes sent", sent, length);
    if (sent < 0 && errno != EPIPE && errno != ECONNRESET)
        traffic_die("relay: send: %s", strerror(errno));
    to->conn->bytes += length;
}

static void connect_back(struct conn *conn)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)relay.backend_port)};
    address.sin_addr.s_addr = traffic_address(conn->host);
    conn->back.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(conn->back.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(conn->back.fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        traffic_die("relay: connect: %s", strerror(errno));
    watch(&conn->back);
}

/* The name is in it as it is. */
static void read_hello(struct conn *conn)
{
    ssize_t got = recv(conn->front.fd, conn->hello, sizeof conn->hello - 1, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        finish(conn);
        return;
    }
    char domain[TRAFFIC_HOST_MAX];
    int length = snprintf(domain, sizeof domain, "-%u.cluster.example", relay.backend_port);
    const char *end = memmem(conn->hello, (size_t)got, domain, (size_t)length), *number = end;
    while (number && number > conn->hello && number[-1] >= '0' && number[-1] <= '9')
        number--;
    if (number == end)
        traffic_die("relay: %zd bytes without a host's name", got);
    conn->host = (unsigned)atoi(number);
    conn->hello_length = (size_t)got;
    connect_back(conn);
}

static void copy(struct side *from, struct side *to)
{
    char buffer[BUFFER_BYTES];
    ssize_t got = recv(from->fd, buffer, sizeof buffer, 0);
    if (got > 0) {
        send_all(to, buffer, (size_t)got);
    } else if (got == 0 && !to->has_ended) {
        from->has_ended = true;
        shutdown(to->fd, SHUT_WR);
    } else if (got == 0 || errno != EAGAIN) {
        finish(from->conn);
    }
}

static void on_event(struct side *side, uint32_t events)
{
    struct conn *conn = side->conn;
    if (conn->is_closed)
        return;
    if (conn->back.fd < 0) {
        read_hello(conn);
        return;
    }
    if (side == &conn->back && !conn->is_connected && (events & EPOLLOUT)) {
        conn->is_connected = true;
        send_all(&conn->back, conn->hello, conn->hello_length);
    }
    if (!conn->is_connected || !(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        return;
    struct side *other = side == &conn->front ? &conn->back : &conn->front;
    if (!side->has_ended)
        copy(side, other);
    if ((events & EPOLLRDHUP) && !conn->is_closed && !side->has_ended)
        copy(side, other); /* the end, after the last bytes */
}

static void on_acceptable(void)
{
    int fd = accept4(relay.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct conn *conn = relay.unused;
    if (conn)
        relay.unused = conn->next;
    else if (!(conn = malloc(sizeof *conn)))
        traffic_die("relay: no memory");
    memset(conn, 0, offsetof(struct conn, hello));
    conn->front = (struct side){.conn = conn, .fd = fd};
    conn->back = (struct side){.conn = conn, .fd = -1};
    watch(&conn->front);
}

static void parse_arguments(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            relay.port = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--backend-port") == 0)
            relay.backend_port = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--log") == 0)
            relay.log = fopen(argv[i + 1], "ae");
    }
    if (relay.port - 1 > 65534 || relay.backend_port - 1 > 65534 || !relay.log)
        traffic_die("usage: bench_relay --port PORT --backend-port PORT --log FILE");
}

static void open_listener(void)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)relay.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    relay.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(relay.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(relay.listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* accepted sockets inherit it */
    if (relay.listener < 0 || bind(relay.listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(relay.listener, 4096) != 0)
        traffic_die("relay: port %u: %s", relay.port, strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    relay.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(relay.epoll, EPOLL_CTL_ADD, relay.listener, &event) != 0)
        traffic_die("relay: epoll_ctl: %s", strerror(errno));
}

/* Calls a batch of events. */
static void turn(void)
{
    struct epoll_event events[MAX_EVENTS];
    int count = epoll_wait(relay.epoll, events, MAX_EVENTS, LOG_MS);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            on_event(events[i].data.ptr, events[i].events);
        else
            on_acceptable();
    }
    while (relay.closed) {
        struct conn *conn = relay.closed;
        relay.closed = conn->next;
        conn->next = relay.unused;
        relay.unused = conn;
    }
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    traffic_raise_limits();
    open_listener();
    const uint64_t log_ns = LOG_MS * UINT64_C(1000000);
    for (uint64_t logged = traffic_now_ns();;) {
        turn();
        uint64_t now = traffic_now_ns();
        if (now - logged >= log_ns) {
            fflush(relay.log);
            logged = now;
        }
    }
}
