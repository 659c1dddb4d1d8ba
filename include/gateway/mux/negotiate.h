/*
 * negotiate: from a stream that is ready to the mux that its protocol needs (ALPN, RFC 7301).
 */
#ifndef GATEWAY_MUX_NEGOTIATE_H
#define GATEWAY_MUX_NEGOTIATE_H

#include "gateway/mux/endpoint.h"

/* What servers offer, in order of preference, NULL-terminated; for tls_options.alpn. */
extern const char *const negotiate_alpn[];

/* The mux for the protocol that the handshake chose; HTTP/1.1 without ALPN or TLS. Takes the stream. */
struct mux *negotiate_server(struct stream *stream, const struct mux_settings *settings,
                             const struct mux_events *events, void *owner);

/* A static string for a protocol that negotiate_alpn has, else "". */
const char *negotiate_alpn_name(struct slice alpn);

#endif
