/*
 * access_ring: a byte ring for one producer thread and one consumer thread, without locks.
 *
 * The memory is mapped twice, one copy behind the other, so free space and content are always contiguous. Pages are
 * touched only when used.
 */
#ifndef GATEWAY_PROXY_ACCESS_RING_H
#define GATEWAY_PROXY_ACCESS_RING_H

#include "gateway/base/slice.h"

struct access_ring;

/* size: a power of two, a multiple of the page size. NULL when the system refuses; errno says why. */
struct access_ring *access_ring_new(size_t size);
void access_ring_free(struct access_ring **ring); /* accepts NULL */

/* Producer: a place for at least len bytes, NULL when that much is not free. */
char *access_ring_reserve(struct access_ring *ring, size_t len);
/* Producer: publishes the first len bytes of the reserved place; returns how many bytes the ring holds. */
size_t access_ring_commit(struct access_ring *ring, size_t len);

/* Consumer: all that is published. */
struct slice access_ring_pending(const struct access_ring *ring);
/* Consumer: gives the first len bytes of that back. */
void access_ring_consume(struct access_ring *ring, size_t len);

#endif
