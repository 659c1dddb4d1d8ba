#include "gateway/proxy/access_ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * head and tail only grow; an offset is one modulo size. The producer's stores to head and the consumer's loads are
 * sequentially consistent: access_log's sleep protocol needs their order with its flag.
 */
struct access_ring {
    char *base; /* size bytes, mapped twice */
    size_t size;
    _Alignas(64) _Atomic size_t head; /* written by the producer */
    _Alignas(64) _Atomic size_t tail; /* written by the consumer */
};

static char *map_twice(int fd, size_t size)
{
    char *base = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    const int access = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_FIXED;
    if (mmap(base, size, access, flags, fd, 0) == MAP_FAILED ||
        mmap(base + size, size, access, flags, fd, 0) == MAP_FAILED) {
        munmap(base, 2 * size);
        return NULL;
    }
    return base;
}

static char *map_new(size_t size)
{
    int fd = memfd_create("access-log", MFD_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *base = ftruncate(fd, (off_t)size) == 0 ? map_twice(fd, size) : NULL;
    close(fd);
    return base;
}

struct access_ring *access_ring_new(size_t size)
{
    assert((size & (size - 1)) == 0 && size % (size_t)sysconf(_SC_PAGESIZE) == 0);
    char *base = map_new(size);
    if (!base)
        return NULL;
    struct access_ring *ring = aligned_alloc(_Alignof(struct access_ring), sizeof *ring);
    if (!ring)
        abort();
    ring->base = base;
    ring->size = size;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    return ring;
}

void access_ring_free(struct access_ring **ring)
{
    if (!*ring)
        return;
    munmap((*ring)->base, 2 * (*ring)->size);
    free(*ring);
    *ring = NULL;
}

char *access_ring_reserve(struct access_ring *ring, size_t len)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t used = head - atomic_load_explicit(&ring->tail, memory_order_acquire);
    assert(used <= ring->size);
    return ring->size - used >= len ? ring->base + (head & (ring->size - 1)) : NULL;
}

size_t access_ring_commit(struct access_ring *ring, size_t len)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed) + len;
    size_t used = head - atomic_load_explicit(&ring->tail, memory_order_relaxed);
    assert(used <= ring->size);
    atomic_store_explicit(&ring->head, head, memory_order_seq_cst);
    return used;
}

struct slice access_ring_pending(const struct access_ring *ring)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    size_t head = atomic_load_explicit(&ring->head, memory_order_seq_cst);
    return slice_make(ring->base + (tail & (ring->size - 1)), head - tail);
}

void access_ring_consume(struct access_ring *ring, size_t len)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    assert(len <= atomic_load_explicit(&ring->head, memory_order_relaxed) - tail);
    atomic_store_explicit(&ring->tail, tail + len, memory_order_release);
}
