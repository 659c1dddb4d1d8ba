/*
 * access_log: one line per exchange and per tunnel (DESIGN section 6).
 *
 * A worker formats a line straight into a ring of its own (single producer, single consumer, no lock, no allocation, no
 * system call while the log thread is awake); the log thread collects from all rings and writes the file. When a ring
 * is full the line is dropped and counted: a slow disk never blocks a worker. Bytes from the network are escaped, so
 * nobody can forge a line.
 */
#ifndef GATEWAY_PROXY_ACCESS_LOG_H
#define GATEWAY_PROXY_ACCESS_LOG_H

#include "gateway/base/counters.h"
#include "gateway/base/ip.h"
#include "gateway/base/slice.h"
#include "gateway/base/status.h"

enum { ACCESS_LOG_MAX_LINE = 8192, ACCESS_LOG_RING_BYTES = 1 << 20, ACCESS_LOG_ERROR_TEXT_MAX = 512 };

enum access_client { ACCESS_CLIENT_FULL, ACCESS_CLIENT_MASKED, ACCESS_CLIENT_OFF }; /* masked: /24, /48 */
enum access_query { ACCESS_QUERY_FULL, ACCESS_QUERY_DROPPED, ACCESS_QUERY_HASHED };

struct access_log_options {
    const char *path;   /* NULL: standard output */
    const char *format; /* "json", "combined", "off", or a format string with $name or ${name} for the members below */
    enum access_client client;
    enum access_query query;
};

/* All slices may be empty, numbers 0 where unknown. Durations in microseconds. */
struct access_record {
    uint64_t wall_us; /* when the request's first byte came; wall clock */
    struct slice request_id;
    struct ip_addr client;
    uint16_t client_port;
    struct slice host;
    struct slice app_id;
    struct slice instance_id;
    uint16_t port; /* of the app */
    struct slice method;
    struct slice path;    /* with query */
    const char *protocol; /* "http/1.1", "h2", "websocket", "tcp", "passthrough" */
    int status;
    uint64_t bytes_in;  /* request body or tunnel, from the client */
    uint64_t bytes_out; /* response body or tunnel, to the client */
    uint64_t total_us;
    uint64_t connect_us;     /* dialing the instance; 0: pooled */
    uint64_t first_byte_us;  /* from the request to the response head */
    const char *tls_version; /* "" for cleartext; for these three NULL means "" */
    const char *tls_cipher;
    const char *alpn;
    bool tls_resumed;
    struct ip_addr back_address;
    uint16_t back_port;
    const char *back_protocol; /* "http/1.1" */
    bool back_reused;
    unsigned retries;
    enum status error; /* OK: none */
    const char *close; /* of tunnels: who ended it: "client", "app", "idle", "gateway"; NULL or "" else */
    struct slice user_agent;
    struct slice referer;
};

struct access_log;      /* shared; owned by the control thread */
struct access_log_ring; /* one worker's */

/*
 * Opens the file (append, created 0640) and starts the log thread. On failure the text says why. With format "off"
 * nothing is written, but that access_follow sees the lines.
 */
MUST_CHECK enum status access_log_start(const struct access_log_options *options, struct access_log **ret_log,
                                        char ret_error[ACCESS_LOG_ERROR_TEXT_MAX]);

/* True if the format string is valid; else the text names what is wrong. */
bool access_log_check_format(const char *format, char ret_error[ACCESS_LOG_ERROR_TEXT_MAX]);

/* Opens the path again (SIGUSR1, after logrotate). The old file is used until that has worked. Thread-safe. */
void access_log_reopen(struct access_log *log);

/*
 * Writes what is in the rings, then ends the thread. All rings must have been detached. A file that takes nothing for
 * some seconds is given up, and the thread left to itself. Accepts NULL.
 */
void access_log_stop(struct access_log **log);

/* Makes a ring for the calling worker; counters are the worker's. */
struct access_log_ring *access_log_attach(struct access_log *log, struct counters *counters);
/* What is in it will still be written. Accepts NULL. */
void access_log_detach(struct access_log_ring **ring);

/* False if access_log_write would do nothing: nobody needs the record. Accepts a NULL ring. */
bool access_log_is_wanted(const struct access_log_ring *ring);
/* Formats one line; drops it when there is no room. Accepts a NULL ring (no log). */
void access_log_write(struct access_log_ring *ring, const struct access_record *record);

#endif
