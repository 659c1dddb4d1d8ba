/*
 * h2_mux: HTTP/2 (RFC 9113) over one stream, on nghttp2: many message exchanges at once. In the server role so far.
 *
 * Takes ownership of the stream. Flow-control windows open only as bytes are credited: a slow receiver
 * slows its own stream. What all streams together may have uncredited is bounded too (the connection's window), so that
 * one client can't pin much memory: when that many bytes wait for slow apps, its other uploads wait as well. What one
 * turn produces leaves in one write.
 */
#ifndef GATEWAY_MUX_H2_MUX_H
#define GATEWAY_MUX_H2_MUX_H

#include "gateway/mux/endpoint.h"

/* The stream is ready (handshake done). */
struct mux *h2_mux_server(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner);

/* One line for /v1/connections; returns its length. */
size_t h2_mux_dump(const struct mux *mux, char *buffer, size_t size);

#endif
