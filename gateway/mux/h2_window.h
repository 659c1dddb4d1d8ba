/* h2_window: how much an HTTP/2 peer may send before it is credited; see h2_window.c. Inside of the mux. */
#ifndef GATEWAY_MUX_H2_WINDOW_H
#define GATEWAY_MUX_H2_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct h2_mux;
struct h2_stream;

/* Of a stream or a connection whose window was opened, until bytes come that were only sent because of that. */
struct h2_probe {
    uint64_t opened_us; /* 0: none is looked at */
    uint64_t used_up_us;
    size_t left; /* what the peer could send without */
};

void h2_window_init(struct h2_stream *s);
/* Bytes that its owner has to credit. */
void h2_window_received(struct h2_stream *s, size_t len);
void h2_window_credited(struct h2_stream *s, size_t len);
/* Nobody will credit anything of it any more. */
void h2_window_leave(struct h2_stream *s);
/* At the end of a turn. */
void h2_window_open_connection(struct h2_mux *m);
/* No stream is left. True: what the peer may still send is better promised to others, so that the mux should drain. */
bool h2_window_idle(struct h2_mux *m);
void h2_window_close(struct h2_mux *m);

#endif
