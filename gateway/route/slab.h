/*
 * slab: memory for what a large table consists of, in few huge pages. Private to the route layer.
 *
 * Look-ups in a table of a million apps go all over its memory. In pages of 4 KiB nearly each of them misses the
 * processor's cache of addresses as well (TLB); in pages of 2 MiB that is rare, and blocks that begin at a cache line
 * and have no malloc header touch fewer lines. A chunk of 2 MiB holds blocks of one size. The kernel is asked for huge
 * pages only where a size fills more than one chunk, so that a small table stays small.
 *
 * Any thread may call these, and none waits until the kernel has given or taken memory for another. A size has no
 * limit: a block of more than SLAB_MAX_SHARED bytes is a mapping of its own.
 */
#ifndef GATEWAY_ROUTE_SLAB_H
#define GATEWAY_ROUTE_SLAB_H

#include <stddef.h>

enum { SLAB_ALIGN = 16, SLAB_LINE = 64, SLAB_CHUNK_BYTES = 2 << 20, SLAB_MAX_SHARED = 128 << 10 };

/* The size of the block that slab_alloc gives for `size`: at least that, and all of it may be used. */
size_t slab_block_size(size_t size);

/*
 * Not zeroed. Aligned to SLAB_ALIGN, to SLAB_LINE if slab_block_size is a multiple of it. Aborts without memory.
 * Free with slab_free, which takes NULL too.
 */
void *slab_alloc(size_t size);
void slab_free(void *block);

/* Bytes of memory that are mapped now. */
size_t slab_mapped(void);

#endif
