#include "gateway/base/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK_SIZE = 4096 };

struct arena_block {
    struct arena_block *next;
    size_t size; /* of the whole block; only those of BLOCK_SIZE are pooled */
    max_align_t data[];
};

void arena_pool_init(struct arena_pool *pool, size_t max_free)
{
    *pool = (struct arena_pool){.max_free = max_free};
}

void arena_pool_fini(struct arena_pool *pool)
{
    while (pool->free) {
        struct arena_block *block = pool->free;
        pool->free = block->next;
        free(block);
    }
    pool->free_count = 0;
}

static struct arena_block *block_take(struct arena_pool *pool, size_t size)
{
    if (size == BLOCK_SIZE && pool && pool->free) {
        struct arena_block *block = pool->free;
        pool->free = block->next;
        pool->free_count--;
        return block;
    }
    struct arena_block *block = malloc(size);
    if (!block)
        abort();
    block->size = size;
    return block;
}

static void block_give(struct arena_pool *pool, struct arena_block *block)
{
    if (block->size == BLOCK_SIZE && pool && pool->free_count < pool->max_free) {
        block->next = pool->free;
        pool->free = block;
        pool->free_count++;
    } else {
        free(block);
    }
}

void arena_init(struct arena *arena, struct arena_pool *pool)
{
    *arena = (struct arena){.pool = pool};
}

void arena_reset(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        block_give(arena->pool, block);
    }
    arena->next = arena->end = NULL;
}

static void *alloc_in_new_block(struct arena *arena, size_t size)
{
    const size_t header = offsetof(struct arena_block, data);
    bool large = size > BLOCK_SIZE / 2;
    struct arena_block *block = block_take(arena->pool, large ? header + size : BLOCK_SIZE);
    if (large && arena->blocks) { /* keep filling the current block */
        block->next = arena->blocks->next;
        arena->blocks->next = block;
        return block->data;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    arena->next = (char *)block->data + size;
    arena->end = (char *)block + block->size;
    return block->data;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
    if ((size_t)(arena->end - arena->next) < size || !arena->next)
        return alloc_in_new_block(arena, size);
    void *p = arena->next;
    arena->next += size;
    return p;
}

void *arena_alloc_zeroed(struct arena *arena, size_t size)
{
    return memset(arena_alloc(arena, size), 0, size);
}

struct slice arena_copy(struct arena *arena, struct slice bytes)
{
    if (bytes.len == 0)
        return SLICE_NONE;
    return slice_make(memcpy(arena_alloc(arena, bytes.len), bytes.ptr, bytes.len), bytes.len);
}

struct slice arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(len >= 0);
    char *text = arena_alloc(arena, (size_t)len + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
    return slice_make(text, (size_t)len);
}
