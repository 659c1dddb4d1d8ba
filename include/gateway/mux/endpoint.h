/*
 * endpoint: one side of one HTTP message exchange, whatever the HTTP version and role; and mux: one HTTP version over
 * one stream, which makes endpoints. The seam between protocols and the proxy (DESIGN section 3).
 *
 * An endpoint of a server mux receives a request and sends a response; one of a client mux sends a request and receives
 * a response. proxy/exchange pairs two of them and knows only this file. 1xx heads, Upgrade, extended CONNECT and
 * trailers pass through it.
 *
 * Rules:
 *   - operations never call back synchronously; events come from the loop
 *   - send_body takes all bytes; look at room() to know when to stop the other side
 *   - whoever receives body bytes credits them once they are passed on; a receiver that does not credit is soon paused
 *   - `reset` comes at most once and is the last event; then only release may be called
 *   - release ends the owner's interest: no event comes after it. Objects are freed at the end of the turn
 */
#ifndef GATEWAY_MUX_ENDPOINT_H
#define GATEWAY_MUX_ENDPOINT_H

#include "gateway/base/arena.h"
#include "gateway/base/status.h"
#include "gateway/http/message.h"
#include "gateway/net/stream.h"
#include "gateway/wire/h1_parser.h"

struct endpoint;
struct mux;

struct endpoint_ops {
    /* A 1xx may precede the final response head. `end`: no body follows. Slices are used at once, not kept. */
    void (*send_head)(struct endpoint *endpoint, const struct message_head *head, bool end);
    void (*send_body)(struct endpoint *endpoint, const char *data, size_t len, bool end);
    /* Ends the message. */
    void (*send_trailers)(struct endpoint *endpoint, const struct fields *trailers);
    /* Bytes that send_body should get for now; 0: wait for `room`. It is 0 until a client's stream is connected. */
    size_t (*room)(struct endpoint *endpoint);
    void (*credit)(struct endpoint *endpoint, size_t bytes);
    /*
     * The owner is done. Both directions complete and status OK: the mux may be reused. A server's response that is
     * complete while the request is not: the stream is closed in order. Otherwise the message is aborted with the
     * status. Clears the pointer.
     */
    void (*release)(struct endpoint **endpoint, enum status status);
};

struct endpoint_events {
    /* One of these comes soon: fetch what it needs from memory (see poller_events). May be NULL. */
    void (*soon)(void *owner);
    /* The head is valid as long as the bound arena. Interim responses come as heads of their own, before the final one.
     */
    void (*head)(void *owner, const struct message_head *head, bool end);
    void (*body)(void *owner, const char *data, size_t len, bool end);
    /* Ends the message. */
    void (*trailers)(void *owner, const struct fields *trailers);
    void (*room)(void *owner);
    /*
     * A server's request is malformed or late, in its head or body; a response can still be sent if none has begun,
     * then the stream closes. `head` says what was understood. No more of the request comes.
     */
    void (*malformed)(void *owner, enum status status, const struct message_head *head);
    void (*reset)(void *owner, enum status status);
};

struct endpoint {
    const struct endpoint_ops *ops;
    const struct endpoint_events *events;
    void *owner;
    struct arena *arena; /* where heads are kept */
    struct mux *mux;
    bool is_lost; /* in `reset`: the connection has ended, not only this message (HTTP/2) */
};

/* Must be called in the `request` event (server) or right after mux open (client). */
static inline void endpoint_bind(struct endpoint *endpoint, const struct endpoint_events *events, void *owner,
                                 struct arena *arena)
{
    endpoint->events = events;
    endpoint->owner = owner;
    endpoint->arena = arena;
}

/* ---- mux ---- */

struct mux_ops {
    /* Client: a new endpoint, to be bound at once; NULL when none can be opened now. */
    struct endpoint *(*open)(struct mux *mux);
    /* Client: how many endpoints `open` would give now. */
    unsigned (*room)(struct mux *mux);
    /* Ends after what is in progress: h1 Connection: close, h2 GOAWAY. An idle one closes now; an h2 server's when it
     * can't have a request on its way any more. */
    void (*drain)(struct mux *mux);
    /* Ends now; endpoints get `reset` with the status. `closed` is called from the loop. */
    void (*close)(struct mux *mux, enum status status);
};

struct mux_events {
    /* Server: a request begins (its first byte is there). The owner binds the endpoint before it returns. */
    void (*request)(void *owner, struct endpoint *endpoint);
    /*
     * Client: the stream is connected, and what waits is about to leave. Not OK: nothing leaves; the connection ends
     * with the status. NULL: it may always.
     */
    enum status (*connected)(void *owner);
    /* Nothing is in progress any more: the mux waits for a request (server) or may be given one (client). */
    void (*idle)(void *owner);
    /* The stream is gone. Last event; the mux frees itself. */
    void (*closed)(void *owner, enum status status);
};

/* Limits and deadlines of muxes; owned by the settings snapshot, outlives the mux. */
struct mux_settings {
    struct h1_limits request_limits;
    struct h1_limits response_limits;
    uint32_t head_ms;       /* server: from the first byte (or accept) to a whole head */
    uint32_t keepalive_ms;  /* server: between requests */
    uint32_t body_idle_ms;  /* server: window of the next two */
    uint32_t body_min_rate; /* server: bytes a second of a request body, averaged over a window that was not paused */
    uint32_t send_stall_ms; /* no byte could be sent, of a response or of what a client's owners have left */
    uint32_t silent_ms;     /* HTTP/2 client: requests were sent and nothing came since: no more are sent there */
    uint32_t max_requests;  /* server: of one connection, 0: unlimited */
};

struct mux {
    const struct mux_ops *ops;
    const struct mux_events *events;
    void *owner;
    struct stream *stream;
    const struct mux_settings *settings;
    const char *flood; /* what kind of frames the peer sent too many of, when it was closed for that */
    unsigned *load;    /* the owner's count of endpoints in use, kept by a client mux; may be NULL */
};

#endif
