/* The send side of a stream: queue, flush, room, shutdown. */
#include "stream_internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    DIRECT_MIN_BYTES = 8192, /* larger writes go to the kernel from where they are */
    MAX_PIECES = 16,
};

void stream_mark_dirty(struct stream *s)
{
    if (list_is_empty(&s->dirty_link))
        list_push(s->late ? &s->loop->dirty_late : &s->loop->dirty, &s->dirty_link);
}

void stream_queue(struct stream *s, const char *data, size_t len)
{
    s->queued += len;
    while (len > 0) {
        struct block *block = s->last;
        if (!block || block->end == sizeof block->data) {
            block = loop_block_take(s->loop);
            if (s->last)
                s->last->next = block;
            else
                s->first = block;
            s->last = block;
        }
        size_t room = sizeof block->data - block->end;
        size_t n = len < room ? len : room;
        memcpy(block->data + block->end, data, n);
        block->end += (uint32_t)n;
        data += n;
        len -= n;
    }
}

void stream_drop_queue(struct stream *s)
{
    while (s->first) {
        struct block *block = s->first;
        s->first = block->next;
        loop_block_give(s->loop, block);
    }
    s->last = NULL;
    if (s->plain) {
        loop_block_give(s->loop, s->plain);
        s->plain = NULL;
    }
    s->queued = 0;
}

static void consume(struct stream *s, size_t sent)
{
    s->queued -= sent;
    while (s->first && sent >= s->first->end - s->first->start) {
        struct block *block = s->first;
        sent -= block->end - block->start;
        s->first = block->next;
        loop_block_give(s->loop, block);
    }
    if (!s->first)
        s->last = NULL;
    else
        s->first->start += (uint32_t)sent;
}

static int queued_pieces(const struct stream *s, struct iovec *pieces, int max)
{
    int count = 0;
    for (struct block *block = s->first; block && count < max; block = block->next)
        pieces[count++] = (struct iovec){block->data + block->start, block->end - block->start};
    return count;
}

/* What the kernel took, 0 when it takes nothing now or ever. */
static size_t send_pieces(struct stream *s, struct iovec *pieces, int count)
{
    ssize_t n;
    do
        n = count == 1 ? write(event_get_fd(&s->event), pieces[0].iov_base, pieces[0].iov_len)
                       : writev(event_get_fd(&s->event), pieces, count);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return (size_t)n;
    if (errno == EAGAIN) {
        s->blocked = true;
        return 0;
    }
    /* What the peer said before it left may still be unread: reading ends with the reason. */
    s->write_broken = true;
    s->was_reset = errno == ECONNRESET; /* told once: reading would then end as if in order */
    s->readable = true;
    stream_mark_ready(s);
    return 0;
}

static bool can_send(const struct stream *s)
{
    return !s->blocked && !s->write_broken && s->state != STREAM_CONNECTING && s->state != STREAM_DEAD;
}

static void flush_queue(struct stream *s)
{
    while (s->first && can_send(s)) {
        struct iovec pieces[MAX_PIECES];
        int count = queued_pieces(s, pieces, MAX_PIECES);
        size_t total = 0;
        for (int i = 0; i < count; i++)
            total += pieces[i].iov_len;
        size_t sent = send_pieces(s, pieces, count);
        consume(s, sent);
        if (sent < total) {
            s->blocked |= !s->write_broken;
            break;
        }
    }
    if (s->write_broken)
        stream_drop_queue(s);
}

bool stream_flush(struct stream *s)
{
    if (s->plain)
        stream_tls_encrypt_plain(s);
    flush_queue(s);
    if (s->first)
        return false;
    if (s->shutdown && !s->shutdown_done && s->state != STREAM_CONNECTING) {
        s->shutdown_done = true;
        shutdown(event_get_fd(&s->event), SHUT_WR);
    }
    return true;
}

static bool is_queue_within(const struct stream *s, int blocks)
{
    const struct block *block = s->first;
    while (block && blocks-- > 0)
        block = block->next;
    return !block;
}

/* Large plain writes skip the queue, together with what is queued before them. */
static void write_plain(struct stream *s, const struct iovec *data, int count, size_t len)
{
    size_t sent = 0;
    if (len >= DIRECT_MIN_BYTES && can_send(s) && count < MAX_PIECES && is_queue_within(s, MAX_PIECES - count)) {
        struct iovec pieces[MAX_PIECES];
        int queued = queued_pieces(s, pieces, MAX_PIECES - count);
        memcpy(pieces + queued, data, (size_t)count * sizeof *data);
        size_t before = s->queued;
        sent = send_pieces(s, pieces, queued + count);
        if (sent < before + len)
            s->blocked |= !s->write_broken;
        size_t from_queue = sent < before ? sent : before;
        consume(s, from_queue);
        sent -= from_queue;
    }
    for (int i = 0; i < count; i++) {
        size_t skip = sent < data[i].iov_len ? sent : data[i].iov_len;
        sent -= skip;
        stream_queue(s, (const char *)data[i].iov_base + skip, data[i].iov_len - skip);
    }
}

void stream_writev(struct stream *s, const struct iovec *pieces, int count)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += pieces[i].iov_len;
    if (!stream_is_owned(s) || s->shutdown || s->write_broken || len == 0)
        return;
    s->bytes_out += len;
    if (s->ssl)
        for (int i = 0; i < count; i++)
            stream_tls_write(s, pieces[i].iov_base, pieces[i].iov_len);
    else
        write_plain(s, pieces, count, len);
    stream_mark_dirty(s);
}

void stream_write(struct stream *s, const void *data, size_t len)
{
    union {
        const void *in;
        void *out;
    } unconst = {.in = data}; /* iovec serves reading too */
    stream_writev(s, &(struct iovec){unconst.out, len}, 1);
}

size_t stream_queued(const struct stream *s)
{
    return s->queued;
}

size_t stream_room(struct stream *s)
{
    if (s->state == STREAM_CONNECTING || s->state == STREAM_HANDSHAKE) {
        s->want_room = true;
        return 0;
    }
    if (s->queued < STREAM_HIGH_MARK)
        return STREAM_HIGH_MARK - s->queued;
    s->want_room = true;
    return 0;
}

void stream_set_late_flush(struct stream *s, bool late)
{
    s->late = late;
}

void stream_shutdown(struct stream *s)
{
    if (!stream_is_owned(s) || s->shutdown)
        return;
    if (s->ssl)
        stream_tls_close_notify(s);
    s->shutdown = true;
    stream_mark_dirty(s);
}

/* After a flush: what the queue's length means for the owner, or for the end of the stream. */
static void flushed(struct stream *s, bool empty)
{
    if (s->state == STREAM_CLOSING && (empty || s->write_broken)) {
        if (s->linger && !s->eof && !s->write_broken) {
            stream_set_state(s, STREAM_LINGER);
            loop_timer_arm(s->loop, &s->timer, STREAM_LINGER_MS);
            shutdown(event_get_fd(&s->event), SHUT_WR);
        } else {
            stream_destroy(s);
        }
        return;
    }
    if (s->want_room && s->state == STREAM_OPEN && s->queued <= STREAM_LOW_MARK) {
        s->want_room = false;
        s->events->room(s->owner);
    }
}

static void flush_list(struct list *list)
{
    struct list *link;
    while ((link = list_pop(list))) {
        struct stream *s = CONTAINER_OF(link, struct stream, dirty_link);
        flushed(s, stream_flush(s));
    }
}

void stream_flush_dirty(struct loop *loop)
{
    flush_list(&loop->dirty);
}

void stream_flush_late(struct loop *loop)
{
    do {
        flush_list(&loop->dirty);
        flush_list(&loop->dirty_late);
    } while (!list_is_empty(&loop->dirty)); /* `room` of a late stream was answered with a write to another */
}
