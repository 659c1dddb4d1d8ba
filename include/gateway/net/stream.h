/*
 * stream: a byte stream over TCP or TLS, front or back. Reads, writes, pause reasons, half-close; nothing about HTTP.
 *
 * Cost rules: registered once, edge-triggered, for read and write; one read(2) per wake-up into the loop's scratch
 * buffer; writes of one callback leave in one writev(2); OpenSSL reads and writes memory (a BIO of our own); an idle
 * stream owns no buffer.
 *
 * Rules for owners:
 *   - `data` hands over everything that was read; the bytes are valid until the callback returns. To stop the flow,
 * call stream_pause: at most one more LOOP_SCRATCH_BYTES is not held back.
 *   - stream_write takes all bytes, always; look at stream_room before producing more. What can't be sent is queued.
 *   - operations never call back; events come from the loop.
 *   - after stream_close or stream_reset no event comes and the pointer is gone.
 */
#ifndef GATEWAY_NET_STREAM_H
#define GATEWAY_NET_STREAM_H

#include "gateway/base/ip.h"
#include "gateway/base/slice.h"
#include "gateway/base/status.h"
#include "gateway/net/loop.h"
#include "gateway/net/tls.h"

#include <sys/uio.h>

struct stream;

struct stream_events {
    /* Connected; for TLS, the handshake is complete. */
    void (*ready)(void *owner);
    void (*data)(void *owner, const char *data, size_t len);
    /* The peer ended its direction in order (FIN; for TLS close_notify). At most once; no data follows. */
    void (*eof)(void *owner);
    /* One of these comes soon: see poller_events; `ahead` is less than POLLER_MAX_AHEAD. May be NULL. */
    void (*soon)(void *owner, unsigned ahead);
    /* Bytes went to the stream of stream_splice without passing here. May be NULL. */
    void (*moved)(void *owner, size_t bytes);
    /* The queue is below the low mark again after stream_room said 0. */
    void (*room)(void *owner);
    /* Reset, TLS error, truncated TLS, timeout, connect error. At most once and last; the owner must still close it. */
    void (*failed)(void *owner, enum status status);
};

/* Why reading is paused; several can hold at once. */
enum stream_pause_reason {
    STREAM_PAUSE_OWNER = 1 << 0,  /* the mux has what it needs for now */
    STREAM_PAUSE_CREDIT = 1 << 1, /* the other side of the exchange is full */
    STREAM_PAUSE_SPLICE = 1 << 2, /* stream_splice: the other stream takes no more */
};

enum {
    STREAM_HIGH_MARK = 131072, /* bytes in the send queue */
    STREAM_LOW_MARK = 32768,
    STREAM_MAX_CLOSING_BYTES = 1 << 28, /* that a loop's closed streams may still have to send, before the first go */
};

/*
 * Takes ownership of a connected non-blocking socket. tls: NULL for plain TCP. TLS handshakes as server and fails with
 * TLS_TIMEOUT after handshake_ms. No event comes before this has returned.
 */
struct stream *stream_accept(struct loop *loop, int fd, const struct ip_addr *peer, uint16_t peer_port,
                             struct tls_server *tls, uint64_t handshake_ms, const struct stream_events *events,
                             void *owner);

/* Begins to connect (RFC 9293). Fails with CONNECT_*, after connect_ms with CONNECT_TIMEOUT. */
struct stream *stream_connect(struct loop *loop, const struct ip_addr *addr, uint16_t port, uint64_t connect_ms,
                              const struct stream_events *events, void *owner);

/*
 * What comes from one may go to the other inside the kernel, when it comes in bulk; else it is `data` as ever, which
 * the owner writes to that stream. Both are TCP without TLS; each is in at most one pair a direction. Ends with either.
 */
void stream_splice(struct stream *from, struct stream *to);

/*
 * TLS as a server begins on a TCP stream: what comes from now on is the handshake, with its own deadline. any_alpn: the
 * first protocol that the client offers is taken, whatever it is.
 */
void stream_start_tls(struct stream *stream, struct tls_server *tls, bool any_alpn, uint64_t handshake_ms);

/*
 * Only from inside `data`: these bytes are handed out again as soon as the callback returns, to TLS after
 * stream_start_tls, else to the owner that is bound by then. They must stay valid until the turn ends.
 */
void stream_hand_back(struct stream *stream, const char *data, size_t len);

/*
 * Only from the loop, outside of the stream's events: `data` is called with these bytes, which its owner had kept. The
 * stream may be gone afterwards.
 */
void stream_hand_out(struct stream *stream, const char *data, size_t len);

/* Changes who gets the events. */
void stream_bind(struct stream *stream, const struct stream_events *events, void *owner);

void stream_write(struct stream *stream, const void *data, size_t len);
/* The same for several pieces in a row. */
void stream_writev(struct stream *stream, const struct iovec *pieces, int count);

/* How many bytes may be queued before the owner should wait for `room`; 0: wait. */
size_t stream_room(struct stream *stream);
/* Bytes that have not been handed to the kernel yet. */
size_t stream_queued(const struct stream *stream);

void stream_pause(struct stream *stream, enum stream_pause_reason reason);
void stream_resume(struct stream *stream, enum stream_pause_reason reason);

/* Flush once at the end of each round instead of after each callback: for owners that many callbacks write to (h2). */
void stream_set_late_flush(struct stream *stream, bool late);

/* Ends our direction after what is queued: close_notify, FIN. Reading goes on. */
void stream_shutdown(struct stream *stream);

/*
 * Ends both directions: sends what is queued, as long as the peer takes some of it, close_notify, FIN. With `linger`,
 * input is then read and thrown away until the peer ends or some seconds pass, so that a late byte of the peer does
 * not turn our last answer into a reset. Clears the pointer.
 */
void stream_close(struct stream **stream, bool linger);

/* Ends at once with RST; what is queued is lost. Clears the pointer. */
void stream_reset(struct stream **stream);

bool stream_is_ready(const struct stream *stream);
bool stream_has_eof(const struct stream *stream);
bool stream_is_tls(const struct stream *stream);
/* For net/tls's facts about a connection, until `ready` returns. NULL for TCP, and for TLS 1.3 afterwards. */
SSL *stream_ssl(struct stream *stream);
struct loop *stream_loop(const struct stream *stream);
/* Our end of the connection; asks the kernel. False: it has no IP address. */
bool stream_local(const struct stream *stream, struct ip_addr *ret_addr, uint16_t *ret_port);

/* Bytes as the wire saw them (TLS included) would cost; these count what owners saw. */
uint64_t stream_bytes_in(const struct stream *stream);
uint64_t stream_bytes_out(const struct stream *stream);

/* One line about the stream's state for /v1/connections and failed asserts; returns its length. */
size_t stream_dump(const struct stream *stream, char *buffer, size_t size);

#endif
