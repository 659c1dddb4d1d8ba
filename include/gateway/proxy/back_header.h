/*
 * back_header: what the PROXY protocol tells an instance about a client connection (HAProxy's specification). The
 * app's port record asks for it, never a host name.
 */
#ifndef GATEWAY_PROXY_BACK_HEADER_H
#define GATEWAY_PROXY_BACK_HEADER_H

#include "gateway/proxy/frontend.h"
#include "gateway/wire/proxy_protocol.h"

/*
 * Version 1 or 2; returns the length. `authority` is the name that the client asked for; version 2 carries it with ALPN
 * and TLS facts where they are known.
 */
size_t back_header_write(const struct connection *connection, struct slice authority, unsigned version,
                         uint8_t buffer[PROXY_WRITE_MAX_BYTES]);

#endif
