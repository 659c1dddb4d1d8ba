/*
 * tunnel: a client's stream and an instance's, relayed as bytes: TLS passthrough, and raw TCP inside the client's TLS.
 *
 * Half-closes are passed on (FIN and close_notify mean the same), resets too: a side that was cut off never looks to
 * the other like one that ended in order. While the instance connects, what the client has sent is kept, so that
 * another instance can get it.
 */
#ifndef GATEWAY_PROXY_TUNNEL_H
#define GATEWAY_PROXY_TUNNEL_H

#include "gateway/proxy/frontend.h"

enum tunnel_kind {
    TUNNEL_PASSTHROUGH, /* the client's TLS ends in the CVM */
    TUNNEL_TCP,         /* it ends here */
    /*
     * The same for a client that has been silent so far: should the app be silent too, and the client's first bytes
     * begin an HTTP request, the connection is HTTP after all.
     */
    TUNNEL_TCP_SILENT,
};

/* Takes the connection's stream, finds the app by the name (copied) and connects. Bytes come as `data` of the stream.
 */
void tunnel_begin(struct connection *connection, enum tunnel_kind kind, struct slice name);

/* Ends the connection's tunnel now. */
void tunnel_close(struct connection *connection, enum status status);

#endif
