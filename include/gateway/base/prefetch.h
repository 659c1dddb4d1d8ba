/*
 * prefetch: asks the processor for memory that is read soon, and goes on without it.
 */
#ifndef GATEWAY_BASE_PREFETCH_H
#define GATEWAY_BASE_PREFETCH_H

#include <stddef.h>

enum { CACHE_LINE_BYTES = 64 };

/* Any address will do, also one that is not valid any more. */
static inline void prefetch(const void *start, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += CACHE_LINE_BYTES)
        __builtin_prefetch((const char *)start + i, 1);
}

#endif
