/*
 * load: the load generator of `tests/bench/run proxies`. load.c keeps the connections and the time, load_h1.c and
 * load_h2.c speak the protocols. There is one `load` in a process, and one thread.
 *
 * Nothing that goes wrong is counted: a lost connection, another status or byte than expected, a protocol that was not
 * negotiated end the program with status 1 and a line that says what and where.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "traffic.h"

enum { LOAD_OUT_BYTES = 64 * 1024, LOAD_MAX_HEAD = 2048, LOAD_MAX_STREAMS = 256 };

#define LOAD_USER_AGENT "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
#define LOAD_ACCEPT     "text/html,application/xhtml+xml,*/*;q=0.8"
#define LOAD_COOKIE     "session=5f2b8c0e9d7a4c61b3e0f4a8d2c79b16"

struct h2_stream;
struct nghttp2_session;

struct load_conn {
    struct link link;
    bool open;      /* TCP and TLS are there */
    bool served;    /* it has had an answer, as this connection or an earlier one in its place */
    bool over;      /* to be closed at the end of the turn */
    bool wants_out; /* writability is watched */
    unsigned host;
    char host_name[TRAFFIC_HOST_MAX];
    SSL_SESSION *session; /* of the last connection, with --resume */
    unsigned requests;    /* in progress */
    uint8_t *out;         /* LOAD_OUT_BYTES, or NULL when nothing waits to be written */
    size_t out_length, out_sent;
    /* HTTP/1.1 and WebSocket: */
    char head[LOAD_MAX_HEAD + 1]; /* of an answer, or a message, as far as it is there */
    size_t head_length;
    bool in_body, upgraded;
    uint64_t body_at, upload_at;
    /* HTTP/2: */
    struct nghttp2_session *h2;
    struct h2_stream *streams;
};

struct load_protocol {
    const char *name, *alpn;
    void (*open)(struct load_conn *conn); /* begins the first requests */
    void (*input)(struct load_conn *conn, const uint8_t *data, size_t length);
    void (*fill)(struct load_conn *conn); /* puts what there is to send, as far as there is room */
    void (*close)(struct load_conn *conn);
};

extern const struct load_protocol load_h1, load_websocket, load_h2, load_grpc;

struct load_options {
    const struct load_protocol *protocol;
    const char *certificate; /* that the server's must be, or an authority's behind it */
    const char *clocks;      /* processes whose CPU time is measured */
    unsigned port, backend_port, hosts, connections, streams;
    uint64_t answer_bytes, upload_bytes;
    bool new_connections, resume, idle;
    bool is_direct; /* there is no proxy: the first host's backend is asked itself */
    double warm_up, seconds;
};

extern struct load_options load_options;

/* Whether another request is to begin on this connection. */
bool load_wants_request(const struct load_conn *conn);

/* A whole right answer (or message) is there. */
void load_answered(struct load_conn *conn);

/* Bytes of bodies that were sent or received. */
void load_count_bytes(size_t bytes);

/* Checks these bytes of an answer's body, and counts them. */
void load_check_body(struct load_conn *conn, uint64_t offset, const uint8_t *data, size_t length);

size_t load_out_room(const struct load_conn *conn);
void load_put(struct load_conn *conn, const void *data, size_t length);

void load_fail(const struct load_conn *conn, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

#endif
