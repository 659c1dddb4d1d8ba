/*
 * arena: memory that is freed all at once.
 *
 * One arena per exchange. Blocks come from an arena_pool (one per event loop, not thread-safe) and go back to it on
 * reset, so that a steady load allocates nothing. Allocation aborts the process when the system has no memory: callers
 * bound what they ask for (header limits), so it never returns NULL.
 */
#ifndef GATEWAY_BASE_ARENA_H
#define GATEWAY_BASE_ARENA_H

#include "gateway/base/slice.h"

#include <stddef.h>

struct arena_block;

struct arena_pool {
    struct arena_block *free;
    size_t free_count;
    size_t max_free; /* blocks kept for reuse */
};

struct arena {
    struct arena_pool *pool; /* NULL: plain malloc */
    struct arena_block *blocks;
    char *next;
    char *end;
};

void arena_pool_init(struct arena_pool *pool, size_t max_free);
void arena_pool_fini(struct arena_pool *pool);

/* Takes no memory until the first allocation. `pool` may be NULL and must outlive the arena. */
void arena_init(struct arena *arena, struct arena_pool *pool);

/* Frees everything that was allocated; the arena can be used again. */
void arena_reset(struct arena *arena);

/* `size` bytes aligned for any type, not zeroed. The _zeroed form clears them. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_alloc_zeroed(struct arena *arena, size_t size);

/* A copy of the bytes. */
struct slice arena_copy(struct arena *arena, struct slice bytes);

/* A formatted string; NUL-terminated, the NUL is not counted. */
struct slice arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
