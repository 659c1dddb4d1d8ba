/* route_alloc: memory for records and indexes. Like base/arena, it aborts when the system has none. Private. */
#ifndef GATEWAY_ROUTE_ROUTE_ALLOC_H
#define GATEWAY_ROUTE_ROUTE_ALLOC_H

#include "slab.h"

#include "gateway/base/watched.h"

#include <stdlib.h>

/* Zeroed; free with free(). */
static inline void *route_alloc(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

/*
 * For what a table has a great many of; see slab.h. Not zeroed. AddressSanitizer watches allocations of malloc, so with
 * it they are that.
 */
#if ALLOCATIONS_ARE_WATCHED
static inline void *block_alloc(size_t size)
{
    void *block = aligned_alloc(SLAB_LINE, (size + SLAB_LINE - 1) / SLAB_LINE * SLAB_LINE);
    if (!block)
        abort();
    return block;
}

static inline void block_free(void *block)
{
    free(block);
}
#else
static inline void *block_alloc(size_t size)
{
    return slab_alloc(size);
}

static inline void block_free(void *block)
{
    slab_free(block);
}
#endif

#endif
