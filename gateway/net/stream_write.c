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

void stream_drop_queue(struct stream *s)
{
    block_queue_drop(s->loop, &s->queue);
    if (s->plain) {
        loop_block_give(s->loop, s->plain);
        s->plain = NULL;
    }
}

static size_t total_of(const struct iovec *pieces, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += pieces[i].iov_len;
    return total;
}

/* What the kernel took, 0 when it takes nothing now or ever. */
static size_t send_pieces(struct stream *s, struct iovec *pieces, int count)
{
    ssize_t n;
    do
        n = count == 1 ? send(s->fd.fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
                       : writev(s->fd.fd, pieces, count);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return (size_t)n;
    stream_send_failed(s);
    return 0;
}

void stream_send_failed(struct stream *s)
{
    if (errno == EAGAIN) {
        stream_block(s);
        return;
    }
    /* What the peer said before it left may still be unread: reading ends with the reason. */
    s->write_broken = true;
    s->was_reset = errno != EPIPE; /* told once: reading would then end as if in order */
    s->readable = true;
    stream_mark_ready(s);
}

static bool can_send(const struct stream *s)
{
    return !s->blocked && !s->write_broken && s->state != STREAM_CONNECTING && s->state != STREAM_DEAD;
}

static void flush_queue(struct stream *s)
{
    while (s->queue.bytes > 0 && can_send(s)) {
        struct iovec pieces[MAX_PIECES];
        int count = block_queue_pieces(&s->queue, SIZE_MAX, pieces, MAX_PIECES);
        size_t total = total_of(pieces, count);
        size_t sent = send_pieces(s, pieces, count);
        block_queue_consume(s->loop, &s->queue, sent);
        if (sent < total) {
            stream_block(s);
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
    if (s->queue.bytes > 0 || !stream_splice_flush(s))
        return false;
    if (s->shutdown && !s->shutdown_done && s->state != STREAM_CONNECTING) {
        s->shutdown_done = true;
        shutdown(s->fd.fd, SHUT_WR);
    }
    return true;
}

/* Large plain writes skip the queue, together with what is queued before them. */
static void write_plain(struct stream *s, const struct iovec *data, int count, size_t len)
{
    struct iovec pieces[MAX_PIECES];
    size_t sent = 0, before = s->queue.bytes;
    if (len >= DIRECT_MIN_BYTES && can_send(s) && count < MAX_PIECES) {
        int queued = block_queue_pieces(&s->queue, SIZE_MAX, pieces, MAX_PIECES - count);
        if (total_of(pieces, queued) == before) { /* else it would overtake the rest of the queue */
            memcpy(pieces + queued, data, (size_t)count * sizeof *data);
            sent = send_pieces(s, pieces, queued + count);
            if (sent < before + len)
                stream_block(s);
            size_t from_queue = sent < before ? sent : before;
            block_queue_consume(s->loop, &s->queue, from_queue);
            sent -= from_queue;
        }
    }
    for (int i = 0; i < count; i++) {
        size_t skip = sent < data[i].iov_len ? sent : data[i].iov_len;
        sent -= skip;
        block_queue_append(s->loop, &s->queue, (const char *)data[i].iov_base + skip, data[i].iov_len - skip);
    }
}

void stream_writev(struct stream *s, const struct iovec *pieces, int count)
{
    size_t len = total_of(pieces, count);
    if (!stream_is_owned(s) || s->shutdown || s->write_broken || len == 0)
        return;
    s->bytes_out += len;
    if (stream_is_tls(s))
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
    return s->queue.bytes + (s->plain ? s->plain->end : 0);
}

size_t stream_room(struct stream *s)
{
    if (s->state == STREAM_CONNECTING || s->state == STREAM_HANDSHAKE) {
        s->want_room = true;
        return 0;
    }
    size_t queued = stream_queued(s);
    if (queued < STREAM_HIGH_MARK)
        return STREAM_HIGH_MARK - queued;
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
    if (stream_is_tls(s))
        stream_tls_close_notify(s);
    s->shutdown = true;
    stream_mark_dirty(s);
}

/* ---- closed streams ---- */

void stream_leave_closing(struct stream *s)
{
    s->loop->closing_bytes -= s->closing_bytes;
    s->closing_bytes = 0;
    list_remove(&s->closing_link);
}

/*
 * No owner waits for it and no limit of connections counts it: peers that ask, and do not take what they get, must not
 * make ever more of them.
 */
static void enter_closing(struct stream *s)
{
    struct loop *loop = s->loop;
    s->closing_bytes = s->queue.bytes;
    loop->closing_bytes += s->closing_bytes;
    list_push(&loop->closing, &s->closing_link);
    while (loop->closing_bytes > STREAM_MAX_CLOSING_BYTES && loop->closing.next != &s->closing_link) {
        COUNTER_INC(loop->counters, closings_cut_total);
        stream_destroy(CONTAINER_OF(loop->closing.next, struct stream, closing_link));
    }
}

/* After a flush: what the queue's length means for the owner, or for the end of the stream. */
static void flushed(struct stream *s, bool empty)
{
    if (s->state == STREAM_CLOSING && (empty || s->write_broken)) {
        if (s->linger && !s->eof && !s->write_broken) {
            stream_leave_closing(s);
            stream_set_state(s, STREAM_LINGER);
            loop_timer_arm(s->loop, &s->timer, STREAM_LINGER_MS);
            shutdown(s->fd.fd, SHUT_WR);
        } else {
            stream_destroy(s);
        }
        return;
    }
    if (s->state == STREAM_CLOSING && list_is_empty(&s->closing_link))
        enter_closing(s);
    if (s->want_room && s->state == STREAM_OPEN && stream_queued(s) <= STREAM_LOW_MARK) {
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
