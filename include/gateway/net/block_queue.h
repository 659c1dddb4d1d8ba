/*
 * block_queue: bytes that wait to be sent, in the loop's blocks. An empty queue owns no memory.
 *
 * Used by whoever must keep bytes that cannot leave now: streams, h2 streams whose window is closed, exchanges that
 * still connect. A zeroed struct is an empty queue.
 */
#ifndef GATEWAY_NET_BLOCK_QUEUE_H
#define GATEWAY_NET_BLOCK_QUEUE_H

#include "gateway/net/loop.h"

#include <sys/uio.h>

struct block_queue {
    struct block *first;
    struct block *last;
    size_t bytes;
};

/* Copies the bytes to the end. */
void block_queue_append(struct loop *loop, struct block_queue *queue, const char *data, size_t len);

/*
 * A place for `len` bytes (at most what a block has) at the end, to be filled before anything else happens to the
 * queue; commit appends the first `len` bytes of it.
 */
char *block_queue_reserve(struct loop *loop, struct block_queue *queue, size_t len);
void block_queue_commit(struct block_queue *queue, size_t len);

/* The first bytes as pieces for writev, at most max_bytes and max_pieces of them; returns how many pieces. They are
 * valid until the queue changes. */
int block_queue_pieces(const struct block_queue *queue, size_t max_bytes, struct iovec *pieces, int max_pieces);

/* Takes `len` bytes off the front; there are that many. */
void block_queue_consume(struct loop *loop, struct block_queue *queue, size_t len);

/* Takes all of them. */
void block_queue_drop(struct loop *loop, struct block_queue *queue);

#endif
