/*
 * listener: accepts connections on one address for one loop.
 *
 * Each worker has a listening socket of its own on the same address (SO_REUSEPORT): the kernel spreads connections by
 * hash. The control API has one, which nobody else can share: a change is for this gateway. When file descriptors run
 * out, accepting pauses for a moment instead of spinning.
 */
#ifndef GATEWAY_NET_LISTENER_H
#define GATEWAY_NET_LISTENER_H

#include "gateway/base/ip.h"
#include "gateway/base/status.h"
#include "gateway/net/loop.h"

struct listener;

enum { LISTENER_ERROR_TEXT_MAX = 256 };

/* fd is connected, non-blocking, close-on-exec and belongs to the callee. TCP_NODELAY is set. peer: family 0 for unix.
 */
typedef void (*listener_accept_cb)(void *owner, int fd, const struct ip_addr *peer, uint16_t peer_port);

/*
 * Binds and listens; shared: beside other sockets that are shared. On failure the text says what is wrong
 * ("127.0.0.1:443: permission denied, …").
 */
MUST_CHECK int listener_open_tcp(const struct ip_addr *addr, uint16_t port, bool shared,
                                 char ret_error[LISTENER_ERROR_TEXT_MAX]);
/* A stale socket file is replaced if nobody listens on it; mode is set before anyone can connect. */
MUST_CHECK int listener_open_unix(const char *path, unsigned mode, char ret_error[LISTENER_ERROR_TEXT_MAX]);

/* Takes ownership of a listening socket. */
struct listener *listener_new(struct loop *loop, int fd, listener_accept_cb accepted, void *owner);

/*
 * Accepts who waits in the kernel's queue, at most as many as it holds, then stops: they connected already, and would
 * be reset. Accepts NULL.
 */
void listener_close(struct listener **listener);

/* Stops accepting and closes the socket. Accepts NULL. */
void listener_free(struct listener **listener);

#endif
