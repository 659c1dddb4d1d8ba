/*
 * h1_mux_internal: the inside of an HTTP/1.1 mux: h1_mux.c (life, receiving) and h1_send.c (sending).
 */
#ifndef GATEWAY_MUX_H1_MUX_INTERNAL_H
#define GATEWAY_MUX_H1_MUX_INTERNAL_H

#include "gateway/mux/h1_mux.h"
#include "gateway/mux/send_watch.h"

enum h1_in {
    H1_IN_IDLE, /* between messages */
    H1_IN_HEAD,
    H1_IN_BODY,
    H1_IN_DONE,
    H1_IN_RAW,     /* after the upgrade */
    H1_IN_RAW_END, /* the peer has half-closed */
    H1_IN_BROKEN,  /* malformed: what follows is thrown away */
};

enum h1_out {
    H1_OUT_IDLE,
    H1_OUT_HEAD, /* the final head is still to be sent */
    H1_OUT_BODY,
    H1_OUT_DONE,
    H1_OUT_RAW,
    H1_OUT_RAW_END,
};

enum { H1_WINDOW_BYTES = 65536 }; /* received and not credited before reading pauses */

struct h1_mux {
    struct mux base;
    struct endpoint endpoint;
    struct loop *loop;
    struct h1_parser parser;
    struct timer timer;
    struct deferred deferred;
    char *held; /* pipelined bytes that belong to a later message */
    size_t held_len;
    size_t uncredited;
    uint64_t window_start_ms; /* of the body rate */
    uint64_t window_bytes;
    struct send_watch send_watch;
    uint32_t requests;
    enum method method; /* of the request in progress */
    enum status close_status;
    uint8_t in;
    uint8_t out;
    uint8_t blank_lines;
    bool server;
    bool open;       /* the endpoint is in use */
    bool close;      /* after this message */
    bool want_close; /* close_status is to be told to the endpoint */
    bool gone;       /* the stream is closed; `closed` is due */
    bool idle_due;
    bool peer_is_1_0;
    bool chunked; /* what is sent */
    bool upgrade_asked;
    bool window_paused;   /* reading was paused in this window */
    bool awaits_continue; /* the client holds its body back until we say 100 */
    bool head_waits;      /* the head deadline runs */
};

extern const struct endpoint_ops h1_endpoint_ops;

/* The stream ends; `closed` follows at the end of the turn. */
void h1_mux_gone(struct h1_mux *m, enum status status);
void h1_mux_defer(struct h1_mux *m);
void h1_mux_arm_check(struct h1_mux *m);
/* A new window of the body rate. */
void h1_mux_begin_window(struct h1_mux *m);
/* Both sides speak raw bytes from here on. */
void h1_mux_become_raw(struct h1_mux *m);

#endif
