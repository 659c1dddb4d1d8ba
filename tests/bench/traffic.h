/*
 * traffic: what the load generator (load*.c) and the backend (backend.c) of `tests/bench/run proxies` agree on, and the
 * byte streams that both work on.
 *
 * Host number n is named app<n>-<backend's port>.cluster.example, and its backend has an address of its own. The body
 * of an answer starts with the number of the host whose address was dialled, as seven digits and a newline, which
 * proves the route; the byte at offset i of the rest, and of an upload, is that of a pattern that repeats every 251
 * bytes.
 */
#ifndef TESTS_BENCH_TRAFFIC_H
#define TESTS_BENCH_TRAFFIC_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TRAFFIC_TAG_BYTES = 8,
    TRAFFIC_MAX_PIECE = 256 * 1024, /* of the pattern, that traffic_pattern() can point at */
    TRAFFIC_HOST_MAX = 64,
    TRAFFIC_MESSAGE_BYTES = 64, /* of a WebSocket message, either way */
    TRAFFIC_PREFIX_BYTES = 5,   /* of gRPC, before each message */
    TRAFFIC_CALL_BYTES = 64,
    TRAFFIC_REPLY_BYTES = 128,
};

/* The key and its answer of RFC 6455, section 1.3. */
#define TRAFFIC_WEBSOCKET_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define TRAFFIC_WEBSOCKET_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

void traffic_host_name(unsigned number, unsigned port, char ret_name[TRAFFIC_HOST_MAX]);

/* In network order: 127.77.0.0 and what follows. */
uint32_t traffic_address(unsigned number);

void traffic_tag(unsigned number, char ret_tag[TRAFFIC_TAG_BYTES + 1]);

/* What gRPC puts before a message of so many bytes. */
void traffic_prefix(size_t bytes, uint8_t ret_prefix[TRAFFIC_PREFIX_BYTES]);

/* TRAFFIC_MAX_PIECE bytes of the pattern, from this offset on. */
const uint8_t *traffic_pattern(uint64_t offset);

bool traffic_matches(uint64_t offset, const uint8_t *data, size_t length);

/* A field's value in a head ("name: value" in lines, names in any case), or NULL. */
const char *traffic_field(const char *head, const char *name, size_t *ret_length);

uint64_t traffic_now_ns(void);

/* Says why on stderr, and ends the program with status 1. */
void traffic_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Both of the process's limits of open files become the higher one. */
void traffic_raise_limits(void);

/* ---- a non-blocking byte stream: TCP, or TLS over it ---- */

struct link {
    int fd;
    SSL *ssl; /* NULL: without TLS */
};

enum { LINK_END = 0, LINK_AGAIN = -1, LINK_ERROR = -2 };

/* How many bytes, or one of LINK_*. */
ssize_t link_read(struct link *link, void *buffer, size_t size);
ssize_t link_write(struct link *link, const void *data, size_t length);

/* True once it is over; it failed when this is false and *ret_again is too. */
bool link_handshake(struct link *link, bool *ret_again);

void link_close(struct link *link);

#endif
