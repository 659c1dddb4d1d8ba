/*
 * How much a peer may send before it is credited. A window is a promise of memory, which is kept when an owner stops
 * crediting: so a stream begins with a small one, and gets a wider one when the peer had to wait for a window that was
 * open already, because the way to it is long. What connections promise beyond a usual share is bounded for each and
 * for all of a worker (the gauge h2_windows_extra_bytes counts it); where nothing is left, windows stay as they are.
 *
 * nghttp2 is never told what was consumed: each WINDOW_UPDATE is made here, so that what the peer may send and what is
 * not credited is never more than the window. A narrower window is one that is not opened for a while.
 */
#include "h2_mux_internal.h"

enum {
    STREAM_BYTES = H2_STREAM_WINDOW_BYTES,
    BUSY_STREAM_BYTES = 1 << 20, /* what is left of a wide window when the owner turns out to be slower than the peer */
    MAX_STREAM_BYTES = 1 << 24,
    STEP_BYTES = 1 << 20, /* what is missing is given at the latest when it is that much */
    CONNECTION_STEP_BYTES = H2_CONNECTION_WINDOW_BYTES / 4, /* also when most of the window is held by few streams */
    USUAL_BYTES = 1 << 22,                                  /* of a connection; what it promises beyond is extra */
    MAX_EXTRA_BYTES = 1 << 24,                              /* of a connection */
    WORKER_EXTRA_BYTES = 1 << 26,                           /* of all its connections */
    MIN_WAIT_US = 1000,                                     /* less is no long way, but a busy machine */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- does the peer wait? ---- */

/* A window is opened while the peer may still send `left` bytes. One is looked at at a time. */
static void probe_begin(struct h2_probe *probe, size_t left, uint64_t now_us)
{
    if (probe->opened_us == 0 && left > 0)
        *probe = (struct h2_probe){.opened_us = now_us, .left = left};
}

/*
 * Bytes have come. Those that a peer could only send when it knew of the opened window tell how long the way is; it
 * waited if it had used up all that it knew of, to the byte, a while before. Returns how many times wider the window
 * should be.
 */
static unsigned probe_end(struct h2_probe *probe, size_t len, uint64_t now_us)
{
    if (probe->opened_us == 0)
        return 1;
    if (len <= probe->left) {
        probe->left -= len;
        probe->used_up_us = now_us;
        return 1;
    }
    uint64_t trip_us = now_us - probe->opened_us, waited_us = probe->left == 0 ? now_us - probe->used_up_us : 0;
    *probe = (struct h2_probe){.opened_us = 0};
    return waited_us < MIN_WAIT_US ? 1 : waited_us < trip_us / 2 ? 2 : 4;
}

/* ---- what is promised ---- */

static size_t window_of(const struct h2_mux *m)
{
    return m->shared_window + m->wide_bytes;
}

/* A client's connection is credited at once: what counts are its streams. */
static size_t promised(const struct h2_mux *m)
{
    if (!m->server || m->gone)
        return window_of(m);
    return most(window_of(m), m->uncredited + (size_t)nghttp2_session_get_local_window_size(m->session));
}

static void count_extra(struct h2_mux *m, size_t extra)
{
    COUNTER_ADD(m->loop->counters, h2_windows_extra_bytes, extra - m->extra);
    m->extra = extra;
}

static size_t extra_of_worker(const struct h2_mux *m)
{
    return atomic_load_explicit(&m->loop->counters->h2_windows_extra_bytes, memory_order_relaxed);
}

static void settle(struct h2_mux *m)
{
    size_t bytes = promised(m);
    count_extra(m, bytes > USUAL_BYTES ? bytes - USUAL_BYTES : 0);
}

/* How much more may be promised. */
static size_t headroom(struct h2_mux *m)
{
    settle(m);
    size_t bytes = promised(m), all = extra_of_worker(m);
    size_t usual = bytes < USUAL_BYTES ? USUAL_BYTES - bytes : 0;
    size_t own = m->extra < MAX_EXTRA_BYTES ? MAX_EXTRA_BYTES - m->extra : 0;
    return usual + least(own, all < WORKER_EXTRA_BYTES ? WORKER_EXTRA_BYTES - all : 0);
}

static size_t widened(struct h2_mux *m, size_t window, unsigned times)
{
    size_t wanted = least(window * times, MAX_STREAM_BYTES);
    return wanted > window ? window + least(wanted - window, headroom(m)) : window;
}

/* ---- streams ---- */

void h2_window_init(struct h2_stream *s)
{
    s->window = s->promised = STREAM_BYTES;
    s->least_uncredited = SIZE_MAX;
}

/* Until the peer has acknowledged our SETTINGS, nghttp2 counts from the window that it would have without. */
static size_t may_come(const struct h2_stream *s)
{
    if (!s->in_session || s->in_ended)
        return 0;
    uint32_t initial = nghttp2_session_get_local_settings(s->mux->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
    return (size_t)nghttp2_session_get_stream_local_window_size(s->mux->session, s->id) + STREAM_BYTES - initial;
}

static void promise(struct h2_stream *s, size_t bytes)
{
    bytes = most(bytes, STREAM_BYTES);
    s->mux->wide_bytes += bytes - s->promised;
    s->promised = bytes;
}

/* Opens the window to its full width, unless so little is missing that it can wait, or that the peer needs no more. */
static void open_stream(struct h2_stream *s)
{
    size_t expected = may_come(s), held = expected + s->uncredited;
    if (s->in_ended || !s->in_session)
        s->window = STREAM_BYTES;
    bool is_enough = s->in_ended || !s->in_session;
    if (s->head.has_content_length && s->head.content_length >= s->body_bytes) {
        uint64_t left = s->head.content_length - s->body_bytes;
        is_enough |= left <= expected;
        if (left < s->window)
            s->window = least(s->window, most(s->uncredited + (size_t)left, STREAM_BYTES));
    }
    promise(s, most(s->window, held));
    if (is_enough || held + least(s->window / 2, STEP_BYTES) > s->window)
        return;
    probe_begin(&s->probe, expected, s->mux->loop->now_us);
    nghttp2_submit_window_update(s->mux->session, NGHTTP2_FLAG_NONE, s->id, (int32_t)(s->window - held));
}

static void widen_stream(struct h2_stream *s, unsigned times)
{
    if (s->uncredited > s->window / 4)
        return; /* the owner is what is slow */
    s->window = widened(s->mux, s->window, times);
    open_stream(s);
}

/* It is wider than any one stream's window; several may need more. */
static void widen_connection(struct h2_mux *m, unsigned times)
{
    if (m->open_count > 1 && m->uncredited <= window_of(m) / 4)
        m->shared_window = widened(m, m->shared_window, times);
}

void h2_window_received(struct h2_stream *s, size_t len)
{
    struct h2_mux *m = s->mux;
    unsigned times = probe_end(&s->probe, len, m->loop->now_us);
    if (times > 1)
        widen_stream(s, times);
    if (m->server && (times = probe_end(&m->probe, len, m->loop->now_us)) > 1)
        widen_connection(m, times);
    s->uncredited += len;
    m->uncredited += len;
}

/* A wide window that never empties is of no use: it only keeps bytes waiting here. */
static void note_slowness(struct h2_stream *s, size_t credited)
{
    s->least_uncredited = least(s->least_uncredited, s->uncredited);
    s->credited += credited;
    if (s->credited < s->window)
        return;
    if (s->least_uncredited > s->window / 2 && s->window > BUSY_STREAM_BYTES)
        s->window = most(s->window / 2, BUSY_STREAM_BYTES);
    s->credited = 0;
    s->least_uncredited = SIZE_MAX;
}

void h2_window_credited(struct h2_stream *s, size_t len)
{
    s->uncredited -= len;
    s->mux->uncredited -= len;
    if (s->mux->gone)
        return;
    note_slowness(s, len);
    open_stream(s);
}

void h2_window_leave(struct h2_stream *s)
{
    s->mux->uncredited -= s->uncredited;
    s->uncredited = 0;
    promise(s, 0);
}

/* ---- connections ---- */

void h2_window_open_connection(struct h2_mux *m)
{
    settle(m);
    if (!m->server)
        return;
    size_t left = (size_t)nghttp2_session_get_local_window_size(m->session), held = left + m->uncredited;
    size_t window = window_of(m);
    if (held + CONNECTION_STEP_BYTES > window)
        return;
    probe_begin(&m->probe, left, m->loop->now_us);
    nghttp2_submit_window_update(m->session, NGHTTP2_FLAG_NONE, 0, (int32_t)(window - held));
}

bool h2_window_idle(struct h2_mux *m)
{
    m->shared_window = H2_CONNECTION_WINDOW_BYTES;
    settle(m);
    return m->extra > 0 && extra_of_worker(m) > WORKER_EXTRA_BYTES / 2;
}

void h2_window_close(struct h2_mux *m)
{
    count_extra(m, 0);
}
