#include "slab.h"

#include "gateway/base/list.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Sizes of blocks: multiples of 16, then of 32, which keeps larger ones from beginning anywhere in a cache line; then
 * eight to each doubling. */
enum { FINE_STEP = 16, FINE_END = 128, FINE_STEPS = FINE_END / FINE_STEP };
enum { STEP = 32, STEPS_END = 512, STEPS = FINE_STEPS + (STEPS_END - FINE_END) / STEP };
enum { PER_DOUBLING = 8, DOUBLINGS = 8, CLASSES = STEPS + DOUBLINGS * PER_DOUBLING };
enum { PAGE_BYTES = 4096, RETURNED_FROM = 4 * PAGE_BYTES, ROOM_AGAIN = 15 };

static_assert(STEPS_END << DOUBLINGS == SLAB_MAX_SHARED, "the classes reach as far as chunks are shared");

struct free_block {
    struct free_block *next;
};

/* At the start of its memory, which begins at a multiple of SLAB_CHUNK_BYTES. */
struct chunk {
    struct list node; /* of those of its class that have room */
    struct free_block *free;
    size_t bytes;
    uint32_t class_number; /* CLASSES: one block of its own */
    uint32_t block_size;
    uint32_t never_used; /* where the blocks begin that were never given */
    uint32_t live;
    bool is_listed;
    _Alignas(SLAB_LINE) char blocks[];
};

struct class
{
    struct list with_room;
    size_t chunks;
};

static struct slab {
    pthread_mutex_t lock;
    bool is_ready;
    struct class classes[CLASSES];
    struct chunk *spare; /* without blocks: so that one block that comes and goes is no mapping each time */
    size_t mapped;
} slab = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- classes ---- */

static unsigned class_of(size_t size)
{
    if (size <= FINE_END)
        return size > 0 ? (unsigned)((size - 1) / FINE_STEP) : 0;
    if (size <= STEPS_END)
        return FINE_STEPS + (unsigned)((size - FINE_END - 1) / STEP);
    unsigned doubling = 0;
    while (size > (size_t)STEPS_END << (doubling + 1))
        doubling++;
    size_t base = (size_t)STEPS_END << doubling;
    return STEPS + doubling * PER_DOUBLING + (unsigned)((size - base - 1) / (base / PER_DOUBLING));
}

static size_t class_size(unsigned number)
{
    if (number < FINE_STEPS)
        return (number + 1) * (size_t)FINE_STEP;
    if (number < STEPS)
        return FINE_END + (number - FINE_STEPS + 1) * (size_t)STEP;
    size_t base = (size_t)STEPS_END << (number - STEPS) / PER_DOUBLING;
    return base + ((number - STEPS) % PER_DOUBLING + 1) * (base / PER_DOUBLING);
}

static size_t own_mapping(size_t size)
{
    size_t bytes = sizeof(struct chunk) + size;
    return (bytes + SLAB_CHUNK_BYTES - 1) / SLAB_CHUNK_BYTES * SLAB_CHUNK_BYTES;
}

size_t slab_block_size(size_t size)
{
    return size <= SLAB_MAX_SHARED ? class_size(class_of(size)) : own_mapping(size) - sizeof(struct chunk);
}

/* ---- chunks ---- */

/* The kernel's calls take long, and workers wait for the lock when they let go of a claim: all are made without it. */

/*
 * What the kernel gives begins anywhere: what is before and behind a place that fits goes back. The advice has to come
 * before the first byte: a huge page is given whole or not at all.
 */
static void *map(size_t bytes, int advice)
{
    size_t all = bytes + SLAB_CHUNK_BYTES;
    char *given = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (given == MAP_FAILED)
        abort();
    size_t before = (SLAB_CHUNK_BYTES - (uintptr_t)given % SLAB_CHUNK_BYTES) % SLAB_CHUNK_BYTES;
    if (before > 0)
        munmap(given, before);
    munmap(given + before + bytes, all - before - bytes);
    madvise(given + before, bytes, advice); /* refused by a system without huge pages: so be it */
    return given + before;
}

/* With the lock, which it lets go of meanwhile. */
static struct chunk *chunk_new(unsigned class_number, size_t block_size, size_t bytes, int advice)
{
    struct chunk *chunk = bytes == SLAB_CHUNK_BYTES ? slab.spare : NULL;
    if (chunk)
        slab.spare = NULL;
    else
        slab.mapped += bytes;
    pthread_mutex_unlock(&slab.lock);
    if (!chunk)
        chunk = map(bytes, advice);
    *chunk = (struct chunk){.bytes = bytes, .class_number = class_number, .block_size = (uint32_t)block_size};
    pthread_mutex_lock(&slab.lock);
    return chunk;
}

static void enlist(struct chunk *chunk)
{
    list_push(&slab.classes[chunk->class_number].with_room, &chunk->node);
    chunk->is_listed = true;
}

static void unlist(struct chunk *chunk)
{
    list_remove(&chunk->node);
    chunk->is_listed = false;
}

static struct chunk *chunk_for_class(unsigned number)
{
    struct class *class = &slab.classes[number];
    if (!list_is_empty(&class->with_room))
        return CONTAINER_OF(class->with_room.next, struct chunk, node);
    int advice = class->chunks > 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
    struct chunk *chunk = chunk_new(number, class_size(number), SLAB_CHUNK_BYTES, advice);
    class->chunks++;
    enlist(chunk);
    return chunk;
}

static uint32_t chunk_room(const struct chunk *chunk)
{
    return (uint32_t)((chunk->bytes - sizeof *chunk) / chunk->block_size) - chunk->live;
}

/*
 * One that was full takes blocks again when this much of it is free. If every hole were filled at once, a few new
 * blocks would come into each old chunk, and keep it when all that is old has gone, as it does when a snapshot changes
 * everything.
 */
static bool has_room_again(const struct chunk *chunk)
{
    return chunk_room(chunk) > chunk->live / ROOM_AGAIN;
}

static void *take_block(struct chunk *chunk)
{
    void *block = chunk->free;
    if (block) {
        chunk->free = chunk->free->next;
    } else {
        block = chunk->blocks + chunk->never_used;
        chunk->never_used += chunk->block_size;
    }
    chunk->live++;
    if (chunk_room(chunk) == 0)
        unlist(chunk);
    return block;
}

/* Returns the chunk if it is to be unmapped. */
static struct chunk *drop_chunk(struct chunk *chunk)
{
    unlist(chunk);
    slab.classes[chunk->class_number].chunks--;
    if (!slab.spare) {
        slab.spare = chunk;
        return NULL;
    }
    slab.mapped -= chunk->bytes;
    return chunk;
}

/*
 * What is free in a chunk that has others is no use to anyone else: its whole pages go back. With the lock, which it
 * lets go of meanwhile: the block is nobody's yet, and keeps the chunk alive.
 */
static void return_pages(const struct chunk *chunk, struct free_block *block)
{
    uintptr_t begin = ((uintptr_t)block + sizeof *block + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t end = ((uintptr_t)block + chunk->block_size) & ~(uintptr_t)(PAGE_BYTES - 1);
    if (chunk->block_size < RETURNED_FROM || chunk->live == 1)
        return;
    pthread_mutex_unlock(&slab.lock);
    madvise((void *)begin, end - begin, MADV_DONTNEED);
    pthread_mutex_lock(&slab.lock);
}

/* Returns the chunk if it is to be unmapped. */
static struct chunk *give_back(struct chunk *chunk, struct free_block *block)
{
    return_pages(chunk, block);
    block->next = chunk->free;
    chunk->free = block;
    chunk->live--;
    if (!chunk->is_listed && has_room_again(chunk))
        enlist(chunk);
    return chunk->live == 0 ? drop_chunk(chunk) : NULL;
}

/* The same for a block that has a mapping of its own. */
static struct chunk *drop_own(struct chunk *chunk)
{
    slab.mapped -= chunk->bytes;
    return chunk;
}

/* ---- calls ---- */

static void make_ready(void)
{
    for (unsigned i = 0; !slab.is_ready && i < CLASSES; i++)
        list_init(&slab.classes[i].with_room);
    slab.is_ready = true;
}

void *slab_alloc(size_t size)
{
    pthread_mutex_lock(&slab.lock);
    make_ready();
    void *block = size <= SLAB_MAX_SHARED ? take_block(chunk_for_class(class_of(size)))
                                          : chunk_new(CLASSES, 0, own_mapping(size), MADV_HUGEPAGE)->blocks;
    pthread_mutex_unlock(&slab.lock);
    return block;
}

void slab_free(void *block)
{
    if (!block)
        return;
    struct chunk *chunk = (struct chunk *)((uintptr_t)block & ~(uintptr_t)(SLAB_CHUNK_BYTES - 1));
    pthread_mutex_lock(&slab.lock);
    struct chunk *unused = chunk->class_number == CLASSES ? drop_own(chunk) : give_back(chunk, block);
    pthread_mutex_unlock(&slab.lock);
    if (unused)
        munmap(unused, unused->bytes);
}

size_t slab_mapped(void)
{
    pthread_mutex_lock(&slab.lock);
    size_t mapped = slab.mapped;
    pthread_mutex_unlock(&slab.lock);
    return mapped;
}
