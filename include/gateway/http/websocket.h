/*
 * websocket: the one computation of the WebSocket handshake that a gateway between HTTP versions needs (RFC 6455).
 */
#ifndef GATEWAY_HTTP_WEBSOCKET_H
#define GATEWAY_HTTP_WEBSOCKET_H

#include "gateway/base/arena.h"
#include "gateway/base/slice.h"

/* The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2). */
struct slice websocket_accept(struct slice key, struct arena *arena);

#endif
