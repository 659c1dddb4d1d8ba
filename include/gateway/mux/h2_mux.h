/*
 * h2_mux: HTTP/2 (RFC 9113) over one stream, on nghttp2, in either role: many message exchanges at once.
 *
 * Takes ownership of the stream. Flow-control windows open only as bytes are credited: a slow receiver
 * slows its own stream. What all streams of a server together may have uncredited is bounded too (the connection's
 * window), so that one client can't pin much memory: when that many bytes wait for slow apps, its other uploads wait as
 * well. A client's connection carries requests of many: there a slow reader holds up nobody else. What one turn
 * produces leaves in one write.
 */
#ifndef GATEWAY_MUX_H2_MUX_H
#define GATEWAY_MUX_H2_MUX_H

#include "gateway/mux/endpoint.h"

/* The stream is ready (handshake done). */
struct mux *h2_mux_server(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner);

/*
 * Prior knowledge, without TLS or Upgrade. The stream may still be connecting: heads that are sent before wait for it.
 * A request that the peer has refused or that a GOAWAY has left out is reset with UPSTREAM_REFUSED: it was not
 * processed.
 */
struct mux *h2_mux_client(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner);

/* How many streams at once the peer of a client allows. False: it has not said yet. */
bool h2_mux_client_limit(const struct mux *mux, unsigned *ret_limit);
/* It has not begun to end, and is not silent. */
bool h2_mux_client_takes_requests(const struct mux *mux);
/*
 * An endpoint whose request waits, unsent and with no room for its body, until the peer allows more streams: for those
 * that allow none at times. NULL when the connection takes no requests any more.
 */
struct endpoint *h2_mux_client_queue(struct mux *mux);
/* What to take for that limit until the peer has said it; without, 100. */
void h2_mux_client_expect(struct mux *mux, unsigned limit);

/* One line for /v1/connections; returns its length. */
size_t h2_mux_dump(const struct mux *mux, char *buffer, size_t size);

#endif
