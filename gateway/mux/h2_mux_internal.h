/*
 * h2_mux_internal: the inside of an HTTP/2 mux: h2_mux.c (life, deadlines), h2_receive.c (what nghttp2 tells of a
 * client's frames), h2_client.c (the client role: requests to an instance and what its frames mean), h2_send.c (what
 * endpoints send), h2_window.c (what the peer may send).
 */
#ifndef GATEWAY_MUX_H2_MUX_INTERNAL_H
#define GATEWAY_MUX_H2_MUX_INTERNAL_H

#include "gateway/http/semantics.h"
#include "gateway/mux/h2_mux.h"
#include "gateway/mux/send_watch.h"
#include "gateway/net/block_queue.h"

#include "h2_window.h"

#include <nghttp2/nghttp2.h>

enum {
    H2_STREAM_WINDOW_BYTES = 1 << 18,     /* what a peer may send on one stream before it is credited */
    H2_CONNECTION_WINDOW_BYTES = 1 << 20, /* and on all streams together */
    H2_CLIENT_CONNECTION_WINDOW_BYTES = 1 << 26,
    H2_MAX_STREAMS = 128,
    H2_QUEUE_BYTES = 65536,              /* of one stream's body that waits for its window */
    H2_CONNECTION_QUEUE_BYTES = 1 << 20, /* of all streams of a client together */
    H2_GLITCHES = 2000,                  /* frames that did no work, more than those that did; old ones are forgotten */
    H2_UPDATE_BYTES = 1024,              /* of DATA that we send: they may be answered with a WINDOW_UPDATE */
    H2_MAX_UPDATES = 65536,              /* that may be owed */
    H2_RESET_GLITCHES = 3,               /* what a request costs that is cancelled before its answer (CVE-2023-44487) */
    H2_MAX_SENT_HEAD_BYTES = 1 << 20,
};

/* X(NAME, text for the log): what a peer can do too often. */
#define H2_GLITCH_TABLE(X)                                                                                             \
    X(EMPTY_DATA, "empty DATA frames")                                                                                 \
    X(PRIORITY, "PRIORITY frames")                                                                                     \
    X(CANCEL, "cancelled requests")                                                                                    \
    X(SETTINGS, "SETTINGS frames")                                                                                     \
    X(PING, "PING frames")                                                                                             \
    X(WINDOW_UPDATE, "WINDOW_UPDATE frames")                                                                           \
    X(CONTINUATION, "CONTINUATION frames")                                                                             \
    X(UNKNOWN, "unknown frames")                                                                                       \
    X(REFUSED, "streams above the limit")                                                                              \
    X(MALFORMED, "streams that must be reset")                                                                         \
    X(FIELDS, "header fields")                                                                                         \
    X(QUEUE, "frames to be answered")                                                                                  \
    X(APP, "frames of an app")

enum h2_glitch {
#define X(name, text) H2_GLITCH_##name,
    H2_GLITCH_TABLE(X)
#undef X
};

enum { H2_REMEMBERED = 16 };

/* Of a client's stream identifiers. */
struct h2_guard {
    int64_t next_id; /* above all that were used */
    uint8_t head[9]; /* of the frame that arrives */
    size_t head_len;
    size_t skip;           /* bytes to its end */
    int32_t widest_window; /* of the streams, before SETTINGS change them */
    int64_t initial_window;
    unsigned ended_count;
    unsigned skipped_count;
    int32_t ended[H2_REMEMBERED]; /* the last ones that the client has ended */
    struct h2_skipped {
        int32_t first, last;
    } skipped[H2_REMEMBERED]; /* ranges that it has left out */
};

enum h2_drain_phase {
    H2_DRAIN_NONE,
    H2_DRAIN_NOTICE, /* new streams may still come */
    H2_DRAIN_FINAL,
};

struct h2_mux {
    struct mux base;
    struct loop *loop;
    nghttp2_session *session;
    struct list streams;  /* h2_stream.link: all */
    struct list room_due; /* h2_stream.room_link */
    struct timer timer;
    struct deferred deferred;
    unsigned open_count;     /* endpoints in use */
    unsigned stream_count;   /* those, and streams that nghttp2 still knows */
    unsigned begun_count;    /* client: those that nghttp2 knows */
    unsigned waiting_count;  /* client: heads that can't be sent yet */
    unsigned expected_limit; /* client: of concurrent streams, until settings_seen; 0: nothing is known */
    unsigned glitches;
    unsigned updates;                /* WINDOW_UPDATE frames that are no glitch, as they answer what we have sent */
    size_t queued_bytes;             /* of all streams */
    size_t uncredited;               /* of all streams */
    size_t shared_window;            /* a server's connection window, but for */
    size_t wide_bytes;               /* what is promised to streams beyond the usual */
    size_t extra;                    /* see h2_window.c; counted in the worker's sum */
    struct h2_probe probe;           /* server */
    struct h2_guard guard;           /* server */
    enum h2_drain_phase drain_phase; /* server */
    unsigned early_priority_count;
    int32_t early_priority[H2_REMEMBERED]; /* streams whose PRIORITY_UPDATE came before their HEADERS */
    struct send_watch send_watch;
    uint32_t requests;
    size_t data_left;  /* of the DATA frame that is being received; SIZE_MAX: not known */
    uint64_t asked_ms; /* client: when the first request was sent since something came; 0: none was */
    enum status close_status;
    bool server;
    bool settings_seen; /* client: the peer's first SETTINGS */
    bool receiving;     /* inside nghttp2's receive function, which must not send */
    bool draining;
    bool shares_frame_buffer;
    bool has_starved;      /* streams */
    bool peer_broke_rules; /* a GOAWAY says so */
    bool want_close;       /* close_status is to be told to the endpoints */
    bool gone;             /* the stream is closed; `closed` is due */
    bool idle_due;
};

/* One stream; lives while its endpoint is in use or nghttp2 knows it. */
struct h2_stream {
    struct endpoint endpoint;
    struct h2_mux *mux;
    struct list link;
    struct list room_link;
    struct message_head head; /* that arrives */
    struct fields trailers;   /* that arrive */
    struct arena arena;       /* what must outlive the endpoint's use: names and trailers to send */
    struct fields trailers_out;
    struct block_queue queue; /* body to send that the window does not take yet */
    const char *direct;       /* body to send from where it is, within send_body */
    size_t direct_len;
    size_t head_bytes; /* as counted by RFC 9113 section 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE */
    size_t uncredited;
    size_t window;           /* what the peer should have or get, with what is not credited */
    size_t promised;         /* what it has, if that is more, but never less than the usual */
    size_t credited;         /* for a window's width of bytes */
    size_t least_uncredited; /* meanwhile */
    struct h2_probe probe;
    uint64_t window_start_ms; /* of the body rate; before the head is complete: when it began */
    uint64_t window_bytes;
    uint64_t body_bytes; /* received in all */
    uint64_t sent_ms;    /* when the queue began or last became shorter */
    enum status malformed;
    enum status end_status;         /* client: why it ended, if its owner has not been told */
    struct semantics_asked asked;   /* client: what the response answers */
    struct message_head *held_head; /* client: of a response that must have no body, until it ends */
    nghttp2_nv *waiting;            /* client: a head that waits for the peer's SETTINGS, or for its limit */
    size_t waiting_count;
    int32_t id;
    bool open;       /* the endpoint is in use */
    bool in_session; /* nghttp2 knows it */
    bool begun;      /* client: its head was sent */
    bool reset_by_peer;
    bool head_told;
    bool answered; /* client: a head has come, which may be an interim one */
    bool malformed_told;
    bool awaits_continue; /* 100 (Continue): no byte of the body is due */
    bool in_ended;
    bool is_tunnel_asked;
    bool is_tunnel;
    bool out_head_sent;
    bool waiting_ends;
    bool out_ending; /* no more body comes from the owner */
    bool out_ended;  /* END_STREAM is sent */
    bool want_room;
    bool window_paused;
    bool starved; /* it may have no room, because of what other streams have queued */
};

extern const struct endpoint_ops h2_endpoint_ops;

void h2_mux_defer(struct h2_mux *m);
/* The stream ends; `closed` follows at the end of the turn. */
void h2_mux_gone(struct h2_mux *m, enum status status);
/* What nghttp2 has to say goes to the stream. */
void h2_mux_pump(struct h2_mux *m);
struct h2_stream *h2_stream_new(struct h2_mux *m);
/* It may have left the session, or its owner: freed when both have let it go. */
void h2_stream_left(struct h2_stream *s);
void h2_stream_tell_reset(struct h2_stream *s, enum status status);
void h2_stream_tell_malformed(struct h2_stream *s, enum status status);
void h2_stream_begin_window(struct h2_stream *s);

void h2_guard_init(struct h2_mux *m);
void h2_guard_set_callbacks(nghttp2_session_callbacks *callbacks);
/* What came, to nghttp2; < 0: the connection ends. */
ssize_t h2_guard_receive(struct h2_mux *m, const uint8_t *data, size_t len);
/* Counts it; for nghttp2 to return: not 0 when the connection ends for it. */
int h2_guard_glitch(struct h2_mux *m, enum h2_glitch kind, unsigned cost);
/* RFC 9113 section 6.9.1 leaves it to the receiver how finely it returns what it has read: Go does so twice, for the
 * stream and the connection, for every 4 KiB. */
void h2_guard_sent(struct h2_mux *m, size_t len);
int h2_guard_update(struct h2_mux *m, enum h2_glitch kind);
/* Is it one of nghttp2's own limits against floods? */
bool h2_guard_take_error(struct h2_mux *m, ssize_t error);
/* A SETTINGS frame has come. */
int h2_guard_check_windows(struct h2_mux *m);
void h2_guard_goaway_sent(struct h2_mux *m, uint32_t error_code);
/* The client sends nothing more on it. */
void h2_guard_client_ended(struct h2_mux *m, int32_t id);

/* What nghttp2 allocates with; it copies the struct. */
nghttp2_mem h2_memory(struct h2_mux *m);
/* The thread's shared frame buffer holds nothing of worth now. */
void h2_memory_spoil(void);

void h2_drain_begin(struct h2_mux *m);
void h2_drain_on_ping(struct h2_mux *m, const nghttp2_ping *ping);
void h2_drain_on_timer(struct h2_mux *m);

void h2_priority_update(struct h2_mux *m, const nghttp2_extension *frame);
/* The head is there. */
void h2_priority_begin(struct h2_stream *s);

void h2_receive_set_shared_callbacks(nghttp2_session_callbacks *callbacks);
void h2_receive_set_server_callbacks(nghttp2_session_callbacks *callbacks);
struct slice h2_receive_copy(struct arena *arena, nghttp2_rcbuf *buffer);
/* Takes note of a piece of a body; true if it is the last. */
bool h2_receive_is_last(struct h2_stream *s, uint8_t flags, size_t len);
bool h2_receive_is_within_limits(struct h2_stream *s, const struct h1_limits *limits, size_t name_len,
                                 size_t value_len);

void h2_client_set_callbacks(nghttp2_session_callbacks *callbacks);
struct endpoint *h2_client_open(struct mux *mux);
unsigned h2_client_room(struct mux *mux);
void h2_client_send_head(struct h2_stream *s, const struct message_head *head, bool end);
/* Sends those of the heads that wait which may go now. */
void h2_client_send_waiting(struct h2_mux *m);
/* It is released. */
void h2_client_stop_waiting(struct h2_stream *s);

nghttp2_nv h2_send_nv(struct slice name, struct slice value);
/* The same for a name that is there as long as the program. */
nghttp2_nv h2_send_named(struct slice name, struct slice value);
/* Puts the fields that go on the wire behind `count` others; returns the new count. */
size_t h2_send_put_fields(struct h2_stream *s, const struct fields *fields, nghttp2_nv *nv, size_t count);
ssize_t h2_send_read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *flags,
                          nghttp2_data_source *source, void *user_data);
int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t len,
                 nghttp2_data_source *source, void *user_data);
void h2_send_drop_queue(struct h2_stream *s);
/* A stream that waits for room may have some now. */
bool h2_send_may_go_on(const struct h2_stream *s);
/* True, and it will be woken by h2_send_wake_starved, if it may not get more because of what others have queued. */
bool h2_send_look_starved(struct h2_stream *s);
/* Windows have opened, or queues have become shorter. */
void h2_send_wake_starved(struct h2_mux *m);

#endif
