/*
 * stream_flush: what a loop asks of its streams at the seams of a turn, and at the end of a round. For net/loop and who
 * runs one.
 */
#ifndef GATEWAY_NET_STREAM_FLUSH_H
#define GATEWAY_NET_STREAM_FLUSH_H

#include "gateway/net/loop.h"

/* Makes and frees what all streams of a loop share (the BIO). */
void stream_loop_begin(struct loop *loop);
void stream_loop_end(struct loop *loop);

/* Sends what was written since the last call, at the end of each callback; and, at the end of the round, for late ones.
 */
void stream_flush_dirty(struct loop *loop);
void stream_flush_late(struct loop *loop);

/* Reads again from streams that had more than one round takes. */
void stream_read_ready(struct loop *loop);

/* Bytes of closed streams that have not arrived at their peers. */
size_t stream_count_unsent(const struct loop *loop);

/* Ends streams whose owners have closed them but whose last bytes nobody takes. */
void stream_destroy_all(struct loop *loop);

#endif
