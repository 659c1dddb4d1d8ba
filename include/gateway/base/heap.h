/*
 * heap: where malloc() takes a thread's memory from. Connections are some kilobytes each, in many blocks: in pages of
 * 4 KiB, those of a few hundred need more entries than the processor's first TLB has.
 */
#ifndef GATEWAY_BASE_HEAP_H
#define GATEWAY_BASE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

/* Of an arena that glibc makes for a thread, at a multiple of it (HEAP_MAX_SIZE of its malloc on 64-bit systems). */
#define HEAP_ARENA_BYTES (UINT64_C(64) << 20)

/*
 * Asks for huge pages under the arena that `block` was allocated from, and so under all that its thread allocates while
 * it has room. An arena grows by so little that no page fault could be met with a huge page, so its whole address range
 * is made accessible as well; memory is still taken only where it is used. False if `block` lies in no such arena (the
 * first thread's heap, a sanitizer's allocator), or the system refuses: then malloc() goes on as before.
 */
bool heap_use_huge_pages(const void *block);

#endif
