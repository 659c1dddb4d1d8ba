/*
 * The memory of nghttp2's sessions. Each allocates, when it is made, the buffer in which it puts together one frame at
 * a time: 16 KiB that an idle connection would keep, although what is in it leaves before nghttp2_session_mem_send is
 * called again, and no two sessions of a thread are in that function at once. So they share one of the thread. (A block
 * of fields that is longer than a frame needs more such buffers for a while; these are ordinary memory.) What a request
 * takes comes from blocks that the thread keeps.
 */
#include "h2_mux_internal.h"

#include "gateway/base/watched.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

enum { FRAME_BUFFER_BYTES = 9 + 1 + 16384 };

static _Thread_local unsigned char frame_buffer[FRAME_BUFFER_BYTES] __attribute__((aligned(16)));

/*
 * What is said above was read in, and is tested with, this version; in any other, each session keeps its own. Builds
 * with AddressSanitizer spoil the buffer whenever a session has sent (h2_memory_spoil), so that a byte that nghttp2
 * expected to find again would break every test.
 */
enum { KNOWN_VERSION = 0x013400 };

/* A client's session keeps the connection preface in it until it sends first. */
static bool may_share(const struct h2_mux *m)
{
    return m->server && !m->shares_frame_buffer && nghttp2_version(0)->version_num == KNOWN_VERSION;
}

/*
 * A request is some thirty small blocks, and those of many requests at once are more than malloc keeps at hand: each
 * thread keeps some of each size that malloc makes. With AddressSanitizer none, so that each block is watched.
 */
enum { KEPT_BYTES_MAX = ALLOCATIONS_ARE_WATCHED ? 0 : 256 * 1024 };
/* A block's number tells what it has room for: 24 bytes, 40, 56 and so on, as glibc's blocks have. */
enum { SIZE_STEP = 16, SIZE_OVERHEAD = 8, SIZES = 65 };

struct kept {
    struct kept *next;
};

static _Thread_local struct kept *kept[SIZES];
static _Thread_local size_t kept_bytes;

static size_t room_of(size_t number)
{
    return number * SIZE_STEP + SIZE_OVERHEAD;
}

static void *take_block(size_t size)
{
    size_t number = size <= room_of(1) ? 1 : (size - SIZE_OVERHEAD + SIZE_STEP - 1) / SIZE_STEP;
    struct kept *block = number < SIZES ? kept[number] : NULL;
    if (!block)
        return malloc(size);
    kept[number] = block->next;
    kept_bytes -= room_of(number);
    return block;
}

static void give_block(void *block)
{
    size_t size = block ? malloc_usable_size(block) : 0;
    size_t number = size < room_of(1) ? SIZES : (size - SIZE_OVERHEAD) / SIZE_STEP; /* whichever malloc it is from */
    if (number >= SIZES || kept_bytes + room_of(number) > KEPT_BYTES_MAX) {
        free(block);
        return;
    }
    struct kept *first = block;
    first->next = kept[number];
    kept[number] = first;
    kept_bytes += room_of(number);
}

static void *take(size_t size, void *user_data)
{
    struct h2_mux *m = user_data;
    if (size != FRAME_BUFFER_BYTES || !may_share(m))
        return take_block(size);
    m->shares_frame_buffer = true;
    return frame_buffer;
}

static void give(void *block, void *user_data)
{
    struct h2_mux *m = user_data;
    if (block == frame_buffer)
        m->shares_frame_buffer = false;
    else
        give_block(block);
}

static void *take_zeroed(size_t count, size_t size, void *user_data)
{
    (void)user_data;
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *block = take_block(bytes);
    return block ? memset(block, 0, bytes) : NULL;
}

static void *resize(void *block, size_t size, void *user_data)
{
    if (!block)
        return take(size, user_data);
    if (block != frame_buffer)
        return realloc(block, size);
    void *other = malloc(size);
    if (!other)
        return NULL;
    memcpy(other, block, size < FRAME_BUFFER_BYTES ? size : FRAME_BUFFER_BYTES);
    give(block, user_data);
    return other;
}

void h2_memory_spoil(void)
{
    if (ALLOCATIONS_ARE_WATCHED)
        memset(frame_buffer, 0xa5, sizeof frame_buffer);
}

nghttp2_mem h2_memory(struct h2_mux *m)
{
    return (nghttp2_mem){.mem_user_data = m, .malloc = take, .free = give, .calloc = take_zeroed, .realloc = resize};
}
