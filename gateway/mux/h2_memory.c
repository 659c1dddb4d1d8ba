/*
 * The memory of nghttp2's sessions. Each allocates, when it is made, the buffer in which it puts together one frame at
 * a time: 16 KiB that an idle connection would keep, although what is in it leaves before nghttp2_session_mem_send is
 * called again, and no two sessions of a thread are in that function at once. So they share one of the thread. (A block
 * of fields that is longer than a frame needs more such buffers for a while; these are ordinary memory.)
 */
#include "h2_mux_internal.h"

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

static void *take(size_t size, void *user_data)
{
    struct h2_mux *m = user_data;
    if (size != FRAME_BUFFER_BYTES || !may_share(m))
        return malloc(size);
    m->shares_frame_buffer = true;
    return frame_buffer;
}

static void give(void *block, void *user_data)
{
    struct h2_mux *m = user_data;
    if (block == frame_buffer)
        m->shares_frame_buffer = false;
    else
        free(block);
}

static void *take_zeroed(size_t count, size_t size, void *user_data)
{
    (void)user_data;
    return calloc(count, size);
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
#ifdef __SANITIZE_ADDRESS__
    memset(frame_buffer, 0xa5, sizeof frame_buffer);
#endif
}

nghttp2_mem h2_memory(struct h2_mux *m)
{
    return (nghttp2_mem){.mem_user_data = m, .malloc = take, .free = give, .calloc = take_zeroed, .realloc = resize};
}
