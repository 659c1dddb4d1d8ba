#include "gateway/net/block_queue.h"

#include <assert.h>

/* The block that the next `len` bytes go into. */
static struct block *open_block(struct loop *loop, struct block_queue *queue, size_t len)
{
    struct block *block = queue->last;
    if (block && block->end + len <= sizeof block->data)
        return block;
    block = loop_block_take(loop);
    if (queue->last)
        queue->last->next = block;
    else
        queue->first = block;
    queue->last = block;
    return block;
}

void block_queue_append(struct loop *loop, struct block_queue *queue, const char *data, size_t len)
{
    queue->bytes += len;
    while (len > 0) {
        struct block *block = open_block(loop, queue, 1);
        size_t room = sizeof block->data - block->end;
        size_t n = len < room ? len : room;
        memcpy(block->data + block->end, data, n);
        block->end += (uint32_t)n;
        data += n;
        len -= n;
    }
}

char *block_queue_reserve(struct loop *loop, struct block_queue *queue, size_t len)
{
    struct block *block = open_block(loop, queue, len);
    assert(len <= sizeof block->data - block->end);
    return block->data + block->end;
}

void block_queue_commit(struct block_queue *queue, size_t len)
{
    queue->last->end += (uint32_t)len;
    queue->bytes += len;
}

int block_queue_pieces(const struct block_queue *queue, size_t max_bytes, struct iovec *pieces, int max_pieces)
{
    int count = 0;
    for (struct block *block = queue->first; block && count < max_pieces && max_bytes > 0; block = block->next) {
        size_t n = block->end - block->start;
        n = n < max_bytes ? n : max_bytes;
        pieces[count++] = (struct iovec){block->data + block->start, n};
        max_bytes -= n;
    }
    return count;
}

void block_queue_consume(struct loop *loop, struct block_queue *queue, size_t len)
{
    assert(len <= queue->bytes);
    queue->bytes -= len;
    while (queue->first && len >= queue->first->end - queue->first->start) {
        struct block *block = queue->first;
        len -= block->end - block->start;
        queue->first = block->next;
        loop_block_give(loop, block);
    }
    if (queue->first)
        queue->first->start += (uint32_t)len;
    else
        queue->last = NULL;
}

void block_queue_drop(struct loop *loop, struct block_queue *queue)
{
    block_queue_consume(loop, queue, queue->bytes);
}
