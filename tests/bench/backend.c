/*
 * bench_backend: the server behind the proxies that `tests/bench/run proxies` compares. HTTP/1.1, or gRPC
 * (backend_h2.h).
 *
 * usage: bench_backend --port PORT --hosts N [--tls CERTIFICATE KEY | --grpc | --bare]
 *
 * Listens on each host's address (traffic.h), prints "ready", and ends when its standard input does.
 *
 *     GET /bytes/N     a body of N bytes
 *     POST /upload     checks the body, of Content-Length bytes
 *     GET /websocket   an upgrade; then each message of TRAFFIC_MESSAGE_BYTES comes back
 *
 * A proxy must have sent the host's own name, X-Forwarded-For and X-Forwarded-Proto; with --tls or --bare, where it
 * only passes bytes on, the name is enough. Whatever is wrong ends the program with a line that says what.
 */
#include "backend_h2.h"
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

enum { MAX_HEAD = 4096, OUT_BYTES = 4096, MAX_EVENTS = 256, FRAME_HEAD = 2, MASK_BYTES = 4 };

enum kind { KIND_STDIN, KIND_LISTENER, KIND_CONN };

enum state { STATE_HANDSHAKE, STATE_HEAD, STATE_UPLOAD, STATE_ANSWER, STATE_WEBSOCKET, STATE_H2 };

/* What an event is about. */
struct source {
    enum kind kind;
    unsigned host;
    int fd;
};

struct conn {
    struct source source;
    struct link link;
    enum state state;
    bool wants_out;
    uint8_t out[OUT_BYTES];
    size_t out_length, out_sent;
    char in[MAX_HEAD + 1]; /* a head, or a message, as far as it is there */
    size_t in_length;
    uint64_t upload_at, upload_bytes;
    uint64_t body_at, body_bytes; /* of the answer; what is not in `out` */
    struct backend_h2 *h2;
    const uint8_t *piece; /* of what it sends */
    size_t piece_length;
};

static struct {
    unsigned port, hosts;
    bool grpc, bare;
    SSL_CTX *tls;
    int epoll;
    char date[40];
} backend;

static void watch(struct source *source, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(backend.epoll, operation, source->fd, &event) != 0)
        traffic_die("backend: epoll_ctl: %s", strerror(errno));
}

/* ---- answers ---- */

static void begin_answer(struct conn *conn, uint64_t bytes)
{
    char tag[TRAFFIC_TAG_BYTES + 1];
    traffic_tag(conn->source.host, tag);
    int head = snprintf((char *)conn->out, OUT_BYTES,
                        "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: %s\r\nContent-Type: application/octet-stream\r\n"
                        "Cache-Control: no-store\r\nContent-Length: %llu\r\n\r\n",
                        backend.date, (unsigned long long)bytes);
    size_t first = OUT_BYTES - (size_t)head;
    first = bytes < first ? (size_t)bytes : first;
    uint8_t *body = conn->out + head;
    memcpy(body, traffic_pattern(0), first);
    memcpy(body, tag, first < TRAFFIC_TAG_BYTES ? first : TRAFFIC_TAG_BYTES);
    conn->out_length = (size_t)head + first;
    conn->out_sent = 0;
    conn->body_at = first;
    conn->body_bytes = bytes;
    conn->state = STATE_ANSWER;
}

static ssize_t send_piece(struct conn *conn)
{
    ssize_t sent;
    if (conn->out_sent < conn->out_length) {
        sent = link_write(&conn->link, conn->out + conn->out_sent, conn->out_length - conn->out_sent);
        conn->out_sent += sent > 0 ? (size_t)sent : 0;
    } else {
        uint64_t left = conn->body_bytes - conn->body_at;
        size_t piece = left < TRAFFIC_MAX_PIECE ? (size_t)left : TRAFFIC_MAX_PIECE;
        sent = link_write(&conn->link, traffic_pattern(conn->body_at), piece);
        conn->body_at += sent > 0 ? (uint64_t)sent : 0;
    }
    return sent;
}

static bool is_sent(const struct conn *conn)
{
    return conn->out_sent == conn->out_length && conn->body_at == conn->body_bytes;
}

static void want_out(struct conn *conn, bool wants)
{
    if (conn->wants_out == wants)
        return;
    conn->wants_out = wants;
    watch(&conn->source, EPOLL_CTL_MOD, EPOLLIN | (wants ? EPOLLOUT : 0U));
}

/* False: the connection is lost. */
static bool send_h2(struct conn *conn)
{
    while (conn->piece_length > 0 || (conn->piece_length = backend_h2_next(conn->h2, &conn->piece)) > 0) {
        ssize_t sent = link_write(&conn->link, conn->piece, conn->piece_length);
        if (sent == LINK_ERROR)
            return false;
        if (sent == LINK_AGAIN)
            break;
        conn->piece += sent;
        conn->piece_length -= (size_t)sent;
    }
    want_out(conn, conn->piece_length > 0);
    return true;
}

/* False: the connection is lost. */
static bool send_answer(struct conn *conn)
{
    while (!is_sent(conn)) {
        ssize_t sent = send_piece(conn);
        if (sent == LINK_ERROR)
            return false;
        if (sent == LINK_AGAIN)
            break;
    }
    if (is_sent(conn) && conn->state == STATE_ANSWER)
        conn->state = STATE_HEAD;
    want_out(conn, !is_sent(conn));
    return true;
}

/* ---- requests ---- */

static void require_field(const struct conn *conn, const char *name, const char *expected)
{
    size_t length = 0;
    const char *value = traffic_field(conn->in, name, &length);
    if (!value || length != strlen(expected) || memcmp(value, expected, length) != 0)
        traffic_die("backend: host %u got %s: %.*s, not %s, in the head\n%s", conn->source.host, name, (int)length,
                    value ? value : "", expected, conn->in);
}

static void begin_upload(struct conn *conn)
{
    size_t length = 0;
    const char *value = traffic_field(conn->in, "Content-Length", &length);
    if (!value)
        traffic_die("backend: an upload without Content-Length\n%s", conn->in);
    conn->upload_at = 0;
    conn->upload_bytes = strtoull(value, NULL, 10);
    conn->state = STATE_UPLOAD;
}

static void begin_websocket(struct conn *conn)
{
    require_field(conn, "Upgrade", "websocket");
    require_field(conn, "Sec-WebSocket-Key", TRAFFIC_WEBSOCKET_KEY);
    conn->out_length = (size_t)snprintf((char *)conn->out, OUT_BYTES,
                                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                                        TRAFFIC_WEBSOCKET_ACCEPT);
    conn->out_sent = 0;
    conn->state = STATE_WEBSOCKET;
}

static void on_head(struct conn *conn)
{
    char host[TRAFFIC_HOST_MAX];
    unsigned long long bytes;
    traffic_host_name(conn->source.host, backend.port, host);
    require_field(conn, "Host", host);
    if (!backend.tls && !backend.bare) {
        require_field(conn, "X-Forwarded-For", "127.0.0.1");
        require_field(conn, "X-Forwarded-Proto", "https");
    }
    if (sscanf(conn->in, "GET /bytes/%llu HTTP/1.1", &bytes) == 1 && bytes >= TRAFFIC_TAG_BYTES)
        begin_answer(conn, bytes);
    else if (strncmp(conn->in, "POST /upload HTTP/1.1", 21) == 0)
        begin_upload(conn);
    else if (strncmp(conn->in, "GET /websocket HTTP/1.1", 23) == 0)
        begin_websocket(conn);
    else
        traffic_die("backend: no such request\n%s", conn->in);
}

/* Takes the part of the head that is in `data`; returns its length. */
static size_t take_head(struct conn *conn, const uint8_t *data, size_t length)
{
    size_t before = conn->in_length, room = MAX_HEAD - before, taken = length < room ? length : room;
    memcpy(conn->in + before, data, taken);
    conn->in[before + taken] = 0;
    const char *end = strstr(conn->in, "\r\n\r\n");
    if (!end) {
        conn->in_length += taken;
        if (conn->in_length == MAX_HEAD)
            traffic_die("backend: a head over %d bytes", MAX_HEAD);
        return taken;
    }
    size_t head = (size_t)(end + 4 - conn->in);
    conn->in[head] = 0;
    conn->in_length = 0;
    on_head(conn);
    return head - before;
}

static size_t take_upload(struct conn *conn, const uint8_t *data, size_t length)
{
    uint64_t left = conn->upload_bytes - conn->upload_at;
    size_t taken = length < left ? length : (size_t)left;
    if (!traffic_matches(conn->upload_at, data, taken))
        traffic_die("backend: wrong bytes in an upload, near byte %llu", (unsigned long long)conn->upload_at);
    conn->upload_at += taken;
    if (conn->upload_at == conn->upload_bytes)
        begin_answer(conn, TRAFFIC_TAG_BYTES);
    return taken;
}

/* RFC 6455: a client's frames are masked, a server's are not. */
static size_t take_message(struct conn *conn, const uint8_t *data, size_t length)
{
    enum { WHOLE = FRAME_HEAD + MASK_BYTES + TRAFFIC_MESSAGE_BYTES };
    size_t room = WHOLE - conn->in_length, taken = length < room ? length : room;
    memcpy(conn->in + conn->in_length, data, taken);
    conn->in_length += taken;
    if (conn->in_length < WHOLE)
        return taken;
    const uint8_t *frame = (const uint8_t *)conn->in, *mask = frame + FRAME_HEAD, *payload = mask + MASK_BYTES;
    if (frame[0] != 0x82 || frame[1] != (0x80 | TRAFFIC_MESSAGE_BYTES))
        traffic_die("backend: the WebSocket frame starts with %02x %02x", frame[0], frame[1]);
    if (!is_sent(conn))
        traffic_die("backend: a message before the one before it was answered");
    conn->out[0] = 0x82;
    conn->out[1] = TRAFFIC_MESSAGE_BYTES;
    for (size_t i = 0; i < TRAFFIC_MESSAGE_BYTES; i++)
        conn->out[FRAME_HEAD + i] = (uint8_t)(payload[i] ^ mask[i % MASK_BYTES]);
    conn->out_length = FRAME_HEAD + TRAFFIC_MESSAGE_BYTES;
    conn->out_sent = conn->in_length = 0;
    return taken;
}

static void take(struct conn *conn, const uint8_t *data, size_t length)
{
    for (size_t taken = 0; length > 0; data += taken, length -= taken) {
        switch (conn->state) {
        case STATE_HEAD:
            taken = take_head(conn, data, length);
            break;
        case STATE_UPLOAD:
            taken = take_upload(conn, data, length);
            break;
        case STATE_WEBSOCKET:
            taken = take_message(conn, data, length);
            break;
        case STATE_H2:
            backend_h2_feed(conn->h2, data, taken = length);
            break;
        case STATE_ANSWER:
        case STATE_HANDSHAKE:
            traffic_die("backend: a request before the one before it was answered");
        }
    }
}

/* ---- connections ---- */

/* False: the connection is over. */
static bool turn(struct conn *conn)
{
    static uint8_t buffer[TRAFFIC_MAX_PIECE];
    bool again = false;
    if (conn->state == STATE_HANDSHAKE) {
        if (!link_handshake(&conn->link, &again))
            return again;
        conn->state = STATE_HEAD;
    }
    ssize_t got;
    while ((got = link_read(&conn->link, buffer, sizeof buffer)) > 0) {
        take(conn, buffer, (size_t)got);
        if (!conn->link.ssl)
            break; /* what is left makes another event */
    }
    if (got == LINK_END || got == LINK_ERROR)
        return false;
    return conn->h2 ? send_h2(conn) : send_answer(conn);
}

static void accept_all(const struct source *listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *conn = calloc(1, sizeof *conn);
        if (!conn)
            traffic_die("backend: no memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn->source = (struct source){KIND_CONN, listener->host, fd};
        conn->link.fd = fd;
        conn->state = backend.tls ? STATE_HANDSHAKE : STATE_HEAD;
        if (backend.tls) {
            conn->link.ssl = SSL_new(backend.tls);
            SSL_set_fd(conn->link.ssl, fd);
            SSL_set_accept_state(conn->link.ssl);
        }
        if (backend.grpc) {
            conn->state = STATE_H2;
            conn->h2 = backend_h2_new(listener->host, backend.port);
        }
        watch(&conn->source, EPOLL_CTL_ADD, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        traffic_die("backend: accept: %s", strerror(errno));
}

static void listen_on(struct source *listener, unsigned host)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)backend.port)};
    address.sin_addr.s_addr = traffic_address(host);
    *listener = (struct source){KIND_LISTENER, host, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener->fd < 0 || bind(listener->fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener->fd, 1024) != 0)
        traffic_die("backend: port %u of host %u: %s", backend.port, host, strerror(errno));
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
}

static int choose_http1(SSL *ssl, const unsigned char **ret_out, unsigned char *ret_length, const unsigned char *in,
                        unsigned in_length, void *arg)
{
    static const unsigned char known[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, ret_length, known, sizeof known - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret_out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void load_certificate(const char *certificate, const char *key)
{
    backend.tls = SSL_CTX_new(TLS_server_method());
    if (!backend.tls || SSL_CTX_use_certificate_chain_file(backend.tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(backend.tls, key, SSL_FILETYPE_PEM) != 1)
        traffic_die("backend: cannot use %s and %s", certificate, key);
    SSL_CTX_set_mode(backend.tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_alpn_select_cb(backend.tls, choose_http1, NULL);
}

static void parse_arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--grpc") == 0) {
            backend.grpc = true;
        } else if (strcmp(argv[i], "--bare") == 0) {
            backend.bare = true;
        } else if (i + 1 < argc && strcmp(argv[i], "--port") == 0) {
            backend.port = (unsigned)atoi(argv[++i]);
        } else if (i + 1 < argc && strcmp(argv[i], "--hosts") == 0) {
            backend.hosts = (unsigned)atoi(argv[++i]);
        } else if (i + 2 < argc && strcmp(argv[i], "--tls") == 0) {
            load_certificate(argv[i + 1], argv[i + 2]);
            i += 2;
        }
    }
    if (backend.port == 0 || backend.port > 65535 || backend.hosts == 0)
        traffic_die("usage: bench_backend --port PORT --hosts N [--tls CERTIFICATE KEY | --grpc | --bare]");
}

static void on_event(struct source *source)
{
    char byte;
    switch (source->kind) {
    case KIND_STDIN:
        if (read(source->fd, &byte, 1) <= 0)
            exit(0);
        break;
    case KIND_LISTENER:
        accept_all(source);
        break;
    case KIND_CONN: {
        struct conn *conn = (struct conn *)source;
        if (!turn(conn)) {
            link_close(&conn->link);
            backend_h2_free(&conn->h2);
            free(conn);
        }
        break;
    }
    }
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    traffic_raise_limits();
    time_t now = time(NULL);
    strftime(backend.date, sizeof backend.date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
    backend.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct source input = {KIND_STDIN, 0, STDIN_FILENO};
    watch(&input, EPOLL_CTL_ADD, EPOLLIN);
    struct source *listeners = calloc(backend.hosts, sizeof *listeners);
    for (unsigned host = 0; listeners && host < backend.hosts; host++)
        listen_on(&listeners[host], host);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int count = epoll_wait(backend.epoll, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr);
    }
}
