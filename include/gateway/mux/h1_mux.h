/*
 * h1_mux: HTTP/1.1 over one stream, in either role: one message exchange at a time, keep-alive, pipelined requests
 * answered in order, Upgrade to raw bytes (RFC 9112).
 *
 * Takes ownership of the stream. Between messages it owns no buffers and no arena.
 */
#ifndef GATEWAY_MUX_H1_MUX_H
#define GATEWAY_MUX_H1_MUX_H

#include "gateway/mux/endpoint.h"

/* The stream is ready (handshake done). */
struct mux *h1_mux_server(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner);

/* The stream may still be connecting: a head that is sent before waits for it. */
struct mux *h1_mux_client(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner);

/* One line for /v1/connections; returns its length. */
size_t h1_mux_dump(const struct mux *mux, char *buffer, size_t size);

#endif
