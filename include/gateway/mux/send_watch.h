/*
 * send_watch: has a stream stopped sending? For the deadline of a peer that does not read.
 */
#ifndef GATEWAY_MUX_SEND_WATCH_H
#define GATEWAY_MUX_SEND_WATCH_H

#include "gateway/net/stream.h"

/* Zeroed at first. */
struct send_watch {
    uint64_t sent; /* bytes that had left when progress was last seen, and when that was */
    uint64_t seen_ms;
};

/* Looked at from time to time: true if bytes wait and none has left for stall_ms. */
bool send_watch_is_stalled(struct send_watch *watch, const struct stream *stream, uint32_t stall_ms);

#endif
