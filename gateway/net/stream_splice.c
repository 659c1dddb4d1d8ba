/*
 * From one TCP stream to another inside the kernel (splice(2)), through a pipe that is borrowed from the loop while
 * bytes are in it. Used while bytes come in bulk: small pieces cost less by read and write.
 */
#include "stream_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PIPE_BYTES = 1 << 18,
    BULK_BYTES = 1 << 14, /* a splice that moved less is the end of the bulk */
    TURN_BYTES = 1 << 20, /* of one stream in a row */
    MAX_FREE_PIPES = 32,
};

/* ---- pipes ---- */

static struct stream_pipe *take_pipe(struct loop *loop)
{
    struct stream_pipe *p = loop->free_pipes;
    if (p) {
        loop->free_pipes = p->next;
        loop->free_pipe_count--;
        return p;
    }
    p = calloc(1, sizeof *p);
    if (!p)
        abort();
    if (pipe2(p->fds, O_NONBLOCK | O_CLOEXEC) != 0) { /* no descriptor is left: bytes go by read and write */
        free(p);
        return NULL;
    }
    fcntl(p->fds[1], F_SETPIPE_SZ, PIPE_BYTES); /* as large as the system allows, or as it was */
    return p;
}

static void close_pipe(struct stream_pipe *p)
{
    close(p->fds[0]);
    close(p->fds[1]);
    free(p);
}

/* One with bytes in it is of no use to others. */
static void give_pipe(struct stream *s)
{
    struct stream_pipe *p = s->pipe;
    struct loop *loop = s->loop;
    s->pipe = NULL;
    if (p->bytes > 0 || loop->free_pipe_count >= MAX_FREE_PIPES) {
        close_pipe(p);
        return;
    }
    p->next = loop->free_pipes;
    loop->free_pipes = p;
    loop->free_pipe_count++;
}

void stream_splice_loop_end(struct loop *loop)
{
    while (loop->free_pipes) {
        struct stream_pipe *p = loop->free_pipes;
        loop->free_pipes = p->next;
        close_pipe(p);
    }
}

/* ---- pairs ---- */

void stream_splice(struct stream *from, struct stream *to)
{
    assert(!from->splice_to && !to->splice_from && !stream_is_tls(from) && !stream_is_tls(to));
    from->splice_to = to;
    to->splice_from = from;
}

static void unpair(struct stream *from)
{
    if (!from || !from->splice_to)
        return;
    from->splice_to->splice_from = NULL;
    from->splice_to = NULL;
    from->is_bulk = false;
    if (from->pipe)
        give_pipe(from);
}

void stream_splice_end(struct stream *s)
{
    unpair(s);
    unpair(s->splice_from);
}

/* ---- moving ---- */

static ssize_t move(int from, int to, size_t len)
{
    ssize_t n;
    do
        n = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Out of the pipe; false if some must wait for the receiver. */
static bool empty_pipe(struct stream *s)
{
    struct stream *to = s->splice_to;
    while (s->pipe->bytes > 0 && !to->blocked && !to->write_broken) {
        ssize_t n = move(s->pipe->fds[0], to->fd.fd, s->pipe->bytes);
        if (n > 0) {
            s->pipe->bytes -= (size_t)n;
            to->bytes_out += (uint64_t)n;
        } else if (n == 0) {
            stream_block(to);
        } else {
            stream_send_failed(to);
        }
    }
    return s->pipe->bytes == 0;
}

bool stream_splice_flush(struct stream *to)
{
    struct stream *from = to->splice_from;
    if (!from || (from->pauses & STREAM_PAUSE_SPLICE) == 0)
        return true;
    if (from->pipe && !empty_pipe(from) && !to->write_broken)
        return false;
    if (from->pipe)
        give_pipe(from);
    stream_resume(from, STREAM_PAUSE_SPLICE);
    return true;
}

bool stream_splice_is_due(const struct stream *s)
{
    const struct stream *to = s->splice_to;
    return to && s->is_bulk && to->state == STREAM_OPEN && !to->write_broken && !to->shutdown;
}

enum moved { MOVED_ALL, MOVED_PART, MOVED_NOTHING, MOVED_END, MOVED_ERROR };

/* One pipe full. */
static enum moved move_some(struct stream *s, size_t *moved)
{
    ssize_t n = move(s->fd.fd, s->pipe->fds[1], PIPE_BYTES);
    if (n == 0)
        return MOVED_END;
    if (n < 0)
        return errno == EAGAIN ? MOVED_NOTHING : MOVED_ERROR;
    s->pipe->bytes = (size_t)n;
    s->bytes_in += (uint64_t)n;
    *moved += (size_t)n;
    s->is_bulk = n >= BULK_BYTES;
    return empty_pipe(s) ? MOVED_ALL : MOVED_PART;
}

void stream_splice_run(struct stream *s)
{
    struct stream *to = s->splice_to;
    size_t moved = 0;
    enum moved last = MOVED_ALL;
    if (to->queue.bytes > 0 || to->blocked) { /* what was read before goes first */
        stream_pause(s, STREAM_PAUSE_SPLICE);
        return;
    }
    s->pipe = take_pipe(s->loop);
    s->is_bulk = s->pipe != NULL;
    while (s->is_bulk && last == MOVED_ALL && moved < TURN_BYTES)
        last = move_some(s, &moved);
    if (last == MOVED_PART && !to->write_broken)
        stream_pause(s, STREAM_PAUSE_SPLICE);
    else if (s->pipe)
        give_pipe(s);
    s->readable = last != MOVED_NOTHING;
    if (last == MOVED_END)
        s->is_bulk = false; /* reading tells the owner */
    if (moved > 0 && s->events->moved)
        s->events->moved(s->owner, moved);
    if (last == MOVED_ERROR && stream_is_owned(s)) /* the socket tells its error only once */
        stream_fail(s, STATUS_PEER_RESET);
}
