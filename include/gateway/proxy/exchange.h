/*
 * exchange: one request with its response: pairs a front endpoint with a back endpoint and carries heads, bodies,
 * trailers and ends between them, in both directions, for every pair of protocols. The only pump.
 */
#ifndef GATEWAY_PROXY_EXCHANGE_H
#define GATEWAY_PROXY_EXCHANGE_H

#include "gateway/proxy/frontend.h"

/* A request begins on this endpoint of the connection; binds it. The exchange frees itself when it is over. */
void exchange_begin(struct connection *connection, struct endpoint *front);

/* Frees the proxy's stock of unused exchanges. */
void exchange_free_stock(struct proxy *proxy);

#endif
