/* route_alloc: memory for records and indexes. Like base/arena, it aborts when the system has none. Private. */
#ifndef GATEWAY_ROUTE_ROUTE_ALLOC_H
#define GATEWAY_ROUTE_ROUTE_ALLOC_H

#include <stdlib.h>

/* Zeroed; free with free(). */
static inline void *route_alloc(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

#endif
