/* A stream's life, its events and its read side. stream_write.c sends, stream_tls.c encrypts. */
#include "stream_internal.h"

#include "gateway/base/log.h"
#include "gateway/base/prefetch.h"
#include "gateway/net/tls_record.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLOSE_LOOK_MS = 15000,       /* from one look at a closed stream to the next */
    CLOSE_LOOK_MIN_BYTES = 4096, /* that its peer must take in between */
    LEFT_MS = 30000,             /* a stream whose peer has left may stay paused for */
};

static const char *const state_names[] = {"connecting", "handshake", "open", "failed", "closing", "linger", "dead"};

/* To: connecting, handshake, open, failed, closing, linger, dead. */
static const uint8_t legal_edges[] = {
    [STREAM_CONNECTING] = 1 << STREAM_OPEN | 1 << STREAM_FAILED | 1 << STREAM_CLOSING | 1 << STREAM_DEAD,
    [STREAM_HANDSHAKE] = 1 << STREAM_OPEN | 1 << STREAM_FAILED | 1 << STREAM_CLOSING | 1 << STREAM_DEAD,
    [STREAM_OPEN] = 1 << STREAM_HANDSHAKE | 1 << STREAM_FAILED | 1 << STREAM_CLOSING | 1 << STREAM_DEAD,
    [STREAM_FAILED] = 1 << STREAM_CLOSING | 1 << STREAM_DEAD,
    [STREAM_CLOSING] = 1 << STREAM_LINGER | 1 << STREAM_DEAD,
    [STREAM_LINGER] = 1 << STREAM_DEAD,
    [STREAM_DEAD] = 0,
};

void stream_set_state(struct stream *s, enum stream_state state)
{
    assert(legal_edges[s->state] & 1U << state);
    s->state = (uint8_t)state;
}

void stream_mark_ready(struct stream *s)
{
    if (list_is_empty(&s->ready_link))
        list_push(&s->loop->ready, &s->ready_link);
}

void stream_fail(struct stream *s, enum status status)
{
    if (s->state == STREAM_CLOSING || s->state == STREAM_LINGER) {
        stream_destroy(s);
        return;
    }
    if (!stream_is_owned(s))
        return;
    timer_disarm(&s->timer);
    stream_set_state(s, STREAM_FAILED);
    s->events->failed(s->owner, status);
}

void stream_fail_later(struct stream *s, enum status status)
{
    s->broken = status;
    stream_mark_ready(s);
}

static void free_stream(struct deferred *deferred)
{
    free(CONTAINER_OF(deferred, struct stream, deferred));
}

void stream_destroy(struct stream *s)
{
    stream_set_state(s, STREAM_DEAD);
    poller_close(s->loop->poller, &s->fd);
    stream_splice_end(s);
    stream_leave_closing(s);
    stream_drop_queue(s);
    tls_connection_free(&s->ssl);
    tls_handed_over_free(&s->record, &s->tls);
    if (s->partial)
        loop_block_give(s->loop, s->partial);
    timer_forget(&s->timer);
    list_remove(&s->dirty_link);
    list_remove(&s->ready_link);
    list_remove(&s->all_link);
    loop_defer(s->loop, &s->deferred, free_stream);
}

void stream_destroy_all(struct loop *loop)
{
    LIST_EACH_SAFE (link, &loop->streams) {
        stream_destroy(CONTAINER_OF(link, struct stream, all_link));
    }
}

/* ---- reading ---- */

static void got_end(struct stream *s)
{
    s->readable = s->hangup = false;
    if (!stream_is_owned(s)) {
        s->eof = true;
        if (s->state == STREAM_LINGER)
            stream_destroy(s);
        return;
    }
    if (s->eof || s->was_reset) { /* close_notify or FIN came before */
        if (s->write_broken)
            stream_fail(s, STATUS_PEER_RESET);
        return;
    }
    if (stream_is_tls(s)) {
        bool handshake = s->state == STREAM_HANDSHAKE;
        s->tls_broken = true;
        if (handshake)
            COUNTER_INC(s->loop->counters, handshakes_failed_total);
        stream_fail(s, handshake ? STATUS_PEER_CLOSED : STATUS_TLS_TRUNCATED);
        return;
    }
    s->eof = true;
    s->events->eof(s->owner);
    if (s->write_broken)
        stream_fail(s, STATUS_PEER_RESET);
}

static void got_data(struct stream *s, const char *data, size_t len)
{
    if (!stream_is_owned(s))
        return; /* lingering, or the owner is gone */
    if (stream_is_tls(s)) {
        stream_tls_received(s, data, len);
        return;
    }
    s->bytes_in += len;
    stream_tell_data(s, data, len);
}

void stream_tell_data(struct stream *s, const char *data, size_t len)
{
    s->events->data(s->owner, data, len);
    while (s->again_len > 0 && stream_is_owned(s)) {
        data = s->again;
        len = s->again_len;
        s->again_len = 0;
        if (s->state == STREAM_HANDSHAKE)
            stream_tls_received(s, data, len);
        else
            s->events->data(s->owner, data, len);
    }
}

void stream_hand_back(struct stream *s, const char *data, size_t len)
{
    s->again = data;
    s->again_len = len;
}

void stream_hand_out(struct stream *s, const char *data, size_t len)
{
    struct loop *loop = s->loop;
    if (s->state == STREAM_OPEN)
        stream_tell_data(s, data, len);
    stream_flush_dirty(loop);
}

static bool may_read(const struct stream *s)
{
    switch ((enum stream_state)s->state) {
    case STREAM_HANDSHAKE:
    case STREAM_LINGER:
        return true;
    case STREAM_OPEN:
        return s->pauses == 0;
    case STREAM_CONNECTING:
    case STREAM_FAILED:
    case STREAM_DEAD:
        return false;
    case STREAM_CLOSING:
        return s->linger;
    }
    return false;
}

/* The next read brings the end of the peer's input, and nothing that would cut off what was said before it. */
static bool ends_in_order(const struct stream *s)
{
    return s->hangup && !s->has_error && !s->write_broken && !s->urgent && (!stream_is_tls(s) || s->eof);
}

/* One read; true if another one may bring more now. */
static bool read_once(struct stream *s)
{
    ssize_t n;
    if (stream_splice_is_due(s)) {
        stream_splice_run(s);
        return s->readable && !s->is_bulk; /* of bulk, others get their turn first */
    }
    size_t size = s->is_bulk && loop_may_read_large(s->loop) ? LOOP_SCRATCH_BYTES : LOOP_READ_BYTES;
    do
        n = recv(s->fd.fd, s->loop->scratch, size, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        bool full = (size_t)n == size;
        s->is_bulk = n >= LOOP_READ_BYTES && !s->urgent;
        s->readable = full || s->hangup || s->write_broken || s->urgent;
        got_data(s, s->loop->scratch, (size_t)n);
        if (!full && ends_in_order(s) && may_read(s))
            got_end(s); /* the FIN was there before the read, which has taken all that precedes it */
        s->just_read = s->readable;
        return false;
    }
    s->readable = false;
    if (n == 0)
        got_end(s);
    else if (s->write_broken || errno != EAGAIN)
        stream_fail(s, STATUS_PEER_RESET);
    return false;
}

static void read_some(struct stream *s)
{
    while (may_read(s) && read_once(s))
        ;
    if (s->readable && may_read(s))
        stream_mark_ready(s);
}

/* What it said goes out with this round, before what follows, a failure as a rule, cuts that off. */
static bool is_for_next_round(const struct stream *s)
{
    return s->just_read && !s->is_bulk && !list_is_empty(&s->ready_link);
}

void stream_read_ready(struct loop *loop)
{
    struct list now;
    list_init(&now);
    struct list *link;
    while ((link = list_pop(&loop->ready)))
        list_push(&now, link);
    while ((link = list_pop(&now))) {
        struct stream *s = CONTAINER_OF(link, struct stream, ready_link);
        if (s->just_read && !s->is_bulk) {
            s->just_read = false;
            stream_mark_ready(s);
        } else if (s->broken) {
            enum status status = s->broken;
            s->broken = STATUS_OK;
            stream_fail(s, status);
        } else if (s->write_broken && s->pauses & STREAM_PAUSE_OWNER) {
            stream_fail(s, STATUS_PEER_RESET); /* the owner reads no more before it has written: it never would */
        } else if (s->write_broken && s->pauses && s->state == STREAM_OPEN) {
            loop_timer_arm(loop, &s->timer, LEFT_MS); /* what the peer said before may still be wanted */
        } else if (s->readable) {
            read_some(s);
        }
        stream_flush_dirty(loop);
    }
}

/* ---- events ---- */

static enum status connect_status(int error)
{
    return error == ECONNREFUSED ? STATUS_CONNECT_REFUSED
           : error == ETIMEDOUT  ? STATUS_CONNECT_TIMEOUT
                                 : STATUS_CONNECT_UNREACHABLE;
}

static int connect_error(const struct stream *s)
{
    int error = 0;
    socklen_t len = sizeof error;
    return getsockopt(s->fd.fd, SOL_SOCKET, SO_ERROR, &error, &len) ? errno : error;
}

static void finish_connect(struct stream *s, uint32_t events)
{
    int error = events & (EPOLLERR | EPOLLHUP) ? connect_error(s) : 0;
    if (error) {
        stream_fail(s, connect_status(error));
        return;
    }
    timer_disarm(&s->timer);
    stream_set_state(s, STREAM_OPEN);
    s->events->ready(s->owner);
    if (s->state == STREAM_OPEN && (stream_queued(s) > 0 || s->want_room || s->shutdown))
        stream_mark_dirty(s);
}

static void on_event(struct poller_fd *fd, uint32_t events)
{
    struct stream *s = CONTAINER_OF(fd, struct stream, fd);
    struct loop *loop = s->loop;
    s->hangup = s->hangup || events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    s->has_error = s->has_error || events & EPOLLERR;
    if (events & EPOLLPRI) {
        s->urgent = true;
        s->is_bulk = false;
    }
    if (s->state == STREAM_CONNECTING)
        finish_connect(s, events);
    if (s->blocked && events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        s->blocked = false;
        stream_mark_dirty(s);
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        s->readable = true;
        if (!is_for_next_round(s))
            read_some(s);
    }
    stream_flush_dirty(loop);
}

static void on_soon(struct poller_fd *fd, unsigned ahead)
{
    struct stream *s = CONTAINER_OF(fd, struct stream, fd);
    if (ahead == POLLER_MAX_AHEAD) {
        prefetch(s, sizeof *s);
        return;
    }
    if (s->record && ahead == POLLER_MAX_AHEAD - 1)
        tls_record_prefetch(s->record);
    if (stream_is_owned(s) && s->events->soon)
        s->events->soon(s->owner, ahead);
}

static const struct poller_events accepted_events = {.ready = on_event, .soon = on_soon, .asks_for_work = true},
                                  connected_events = {.ready = on_event, .soon = on_soon};

static bool wait_for(struct stream *s, uint32_t events)
{
    return poller_want(s->loop->poller, &s->fd, events | EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET);
}

/*
 * Few accepted streams are ever blocked, and one that waited for room from the start would wake the loop at once, as
 * its send buffer is empty.
 */
void stream_block(struct stream *s)
{
    if (s->write_broken)
        return;
    s->blocked = true;
    if (!(s->fd.wanted & EPOLLOUT) && !wait_for(s, EPOLLOUT))
        stream_fail_later(s, STATUS_INTERNAL);
}

/* How much of a closed stream has not arrived at the peer. */
static size_t count_unsent(const struct stream *s)
{
    int in_kernel = 0;
    ioctl(s->fd.fd, SIOCOUTQ, &in_kernel);
    return s->queue.bytes + (size_t)in_kernel;
}

size_t stream_count_unsent(const struct loop *loop)
{
    size_t count = 0;
    LIST_EACH (link, &loop->closing)
        count += count_unsent(CONTAINER_OF(link, struct stream, closing_link));
    return count;
}

/* As long as the peer takes what was said to it, it gets the rest. */
static void look_at_closing(struct stream *s)
{
    size_t unsent = count_unsent(s);
    if (unsent + CLOSE_LOOK_MIN_BYTES > s->unsent_before) {
        stream_destroy(s);
        return;
    }
    s->unsent_before = unsent;
    loop_timer_arm(s->loop, &s->timer, CLOSE_LOOK_MS);
}

static void on_timer(struct timer *timer)
{
    struct stream *s = CONTAINER_OF(timer, struct stream, timer);
    switch ((enum stream_state)s->state) {
    case STREAM_CONNECTING:
        stream_fail(s, STATUS_CONNECT_TIMEOUT);
        break;
    case STREAM_HANDSHAKE:
        s->tls_broken = true;
        COUNTER_INC(s->loop->counters, handshakes_failed_total);
        stream_fail(s, STATUS_TLS_TIMEOUT);
        break;
    case STREAM_CLOSING:
        look_at_closing(s);
        break;
    case STREAM_LINGER:
        stream_destroy(s);
        break;
    case STREAM_OPEN:
        if (s->write_broken && s->pauses)
            stream_fail(s, STATUS_PEER_RESET);
        break;
    case STREAM_FAILED:
    case STREAM_DEAD:
        break;
    }
}

/* ---- making ---- */

static struct stream *new_stream(struct loop *loop, int fd, enum stream_state state, const struct stream_events *events,
                                 void *owner)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->loop = loop;
    s->events = events;
    s->owner = owner;
    s->state = (uint8_t)state;
    list_init(&s->dirty_link);
    list_init(&s->ready_link);
    list_init(&s->closing_link);
    list_push(&loop->streams, &s->all_link);
    timer_init(&s->timer, on_timer);
    s->fd = (struct poller_fd){.events = state == STREAM_CONNECTING ? &connected_events : &accepted_events, .fd = fd};
    return s;
}

static void begin_tls(struct stream *s, struct tls_server *tls, bool any_alpn, uint64_t handshake_ms)
{
    s->ssl = tls_server_accept(tls, any_alpn);
    if (!s->ssl)
        abort();
    BIO_up_ref(s->loop->bio);
    SSL_set_bio(s->ssl, s->loop->bio, s->loop->bio);
    loop_timer_arm(s->loop, &s->timer, handshake_ms);
}

void stream_start_tls(struct stream *s, struct tls_server *tls, bool any_alpn, uint64_t handshake_ms)
{
    assert(!stream_is_tls(s));
    stream_set_state(s, STREAM_HANDSHAKE);
    s->bytes_in = 0; /* what came before is TLS's, not the owner's */
    begin_tls(s, tls, any_alpn, handshake_ms);
}

struct stream *stream_accept(struct loop *loop, int fd, const struct ip_addr *peer, uint16_t peer_port,
                             struct tls_server *tls, uint64_t handshake_ms, const struct stream_events *events,
                             void *owner)
{
    struct stream *s = new_stream(loop, fd, tls ? STREAM_HANDSHAKE : STREAM_OPEN, events, owner);
    s->peer = *peer;
    s->peer_port = peer_port;
    if (tls)
        begin_tls(s, tls, false, handshake_ms);
    if (!wait_for(s, 0))
        stream_fail_later(s, STATUS_INTERNAL);
    return s;
}

struct stream *stream_connect(struct loop *loop, const struct ip_addr *addr, uint16_t port, uint64_t connect_ms,
                              const struct stream_events *events, void *owner)
{
    union ip_sockaddr to;
    socklen_t len = ip_to_sockaddr(addr, port, &to);
    int fd = socket(addr->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct stream *s = new_stream(loop, fd, STREAM_CONNECTING, events, owner);
    s->peer = *addr;
    s->peer_port = port;
    if (fd < 0) {
        log_warn("connect: no socket: %s", strerror(errno));
        stream_fail_later(s, STATUS_OVERLOADED);
        return s;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, &to.sa, len) != 0 && errno != EINPROGRESS)
        stream_fail_later(s, connect_status(errno));
    else if (!wait_for(s, EPOLLOUT))
        stream_fail_later(s, STATUS_INTERNAL);
    loop_timer_arm(loop, &s->timer, connect_ms);
    return s;
}

void stream_bind(struct stream *s, const struct stream_events *events, void *owner)
{
    s->events = events;
    s->owner = owner;
}

/* ---- operations ---- */

void stream_pause(struct stream *s, enum stream_pause_reason reason)
{
    s->pauses |= (uint8_t)reason;
}

void stream_resume(struct stream *s, enum stream_pause_reason reason)
{
    if (s->pauses == 0)
        return;
    s->pauses &= (uint8_t)~reason;
    if (s->pauses == 0 && s->readable && stream_is_owned(s))
        stream_mark_ready(s);
}

void stream_close(struct stream **stream_ptr, bool linger)
{
    struct stream *s = *stream_ptr;
    *stream_ptr = NULL;
    bool nothing_to_say = s->state == STREAM_CONNECTING || (s->state == STREAM_FAILED && !stream_is_tls(s));
    if (nothing_to_say || s->fd.fd < 0) {
        stream_destroy(s);
        return;
    }
    if (stream_is_tls(s))
        stream_tls_close_notify(s);
    s->linger = linger && s->state == STREAM_OPEN && !s->eof;
    s->broken = STATUS_OK;
    stream_splice_end(s);
    stream_set_state(s, STREAM_CLOSING);
    if (s->linger && s->readable) /* it was paused: no event need come */
        stream_mark_ready(s);
    s->unsent_before = SIZE_MAX;
    loop_timer_arm(s->loop, &s->timer, CLOSE_LOOK_MS);
    stream_mark_dirty(s);
}

void stream_reset(struct stream **stream_ptr)
{
    struct stream *s = *stream_ptr;
    *stream_ptr = NULL;
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(s->fd.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    stream_destroy(s);
}

/* ---- facts ---- */

bool stream_is_ready(const struct stream *s)
{
    return s->state == STREAM_OPEN;
}

bool stream_has_eof(const struct stream *s)
{
    return s->eof;
}

bool stream_is_tls(const struct stream *s)
{
    return s->ssl || s->record;
}

SSL *stream_ssl(struct stream *s)
{
    return s->ssl;
}

struct loop *stream_loop(const struct stream *s)
{
    return s->loop;
}

bool stream_local(const struct stream *s, struct ip_addr *ret_addr, uint16_t *ret_port)
{
    union ip_sockaddr local = {.sa = {.sa_family = AF_UNSPEC}};
    socklen_t len = sizeof local;
    if (getsockname(s->fd.fd, &local.sa, &len) != 0)
        return false;
    ip_from_sockaddr(&local.sa, ret_addr, ret_port);
    return ret_addr->family != 0;
}

uint64_t stream_bytes_in(const struct stream *s)
{
    return s->bytes_in;
}

uint64_t stream_bytes_out(const struct stream *s)
{
    return s->bytes_out;
}

size_t stream_dump(const struct stream *s, char *buffer, size_t size)
{
    char peer[IP_PORT_TEXT_MAX];
    ip_port_format(&s->peer, s->peer_port, peer);
    int n = snprintf(buffer, size, "stream peer=%s state=%s tls=%d in=%llu out=%llu queued=%zu paused=%u%s%s%s%s", peer,
                     state_names[s->state], stream_is_tls(s), (unsigned long long)s->bytes_in,
                     (unsigned long long)s->bytes_out, stream_queued(s), s->pauses, s->eof ? " eof" : "",
                     s->shutdown ? " shutdown" : "", s->blocked ? " blocked" : "", s->write_broken ? " broken" : "");
    return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}
