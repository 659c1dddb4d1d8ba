#include "gateway/mux/h1_mux.h"

#include "h1_mux_internal.h"

#include "gateway/base/log.h"
#include "gateway/base/prefetch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_BLANK_LINES = 4 };

static struct h1_mux *mux_of(struct mux *mux)
{
    return CONTAINER_OF(mux, struct h1_mux, base);
}

static void feed(struct h1_mux *m, const char *data, size_t len);

/* ---- deadlines of a server ---- */

void h1_mux_arm_check(struct h1_mux *m)
{
    const struct mux_settings *settings = m->base.settings;
    if (!m->server)
        return;
    uint32_t ms = settings->body_idle_ms < settings->send_stall_ms ? settings->body_idle_ms : settings->send_stall_ms;
    loop_timer_arm(m->loop, &m->timer, ms);
}

void h1_mux_begin_window(struct h1_mux *m)
{
    m->window_start_ms = loop_now_ms(m->loop);
    m->window_bytes = 0;
    m->window_paused = m->uncredited >= H1_WINDOW_BYTES;
}

static void malformed(struct h1_mux *m, enum status status)
{
    static const struct message_head nothing;
    m->in = H1_IN_BROKEN;
    m->close = true;
    h1_mux_arm_check(m);
    m->endpoint.events->malformed(m->endpoint.owner, status, m->parser.head ? m->parser.head : &nothing);
}

static void check_body_rate(struct h1_mux *m)
{
    const struct mux_settings *settings = m->base.settings;
    uint64_t elapsed = loop_now_ms(m->loop) - m->window_start_ms;
    if (elapsed + TIMER_TICK_MS < settings->body_idle_ms)
        return;
    if (m->awaits_continue)
        h1_mux_begin_window(m);
    else if (!m->window_paused && m->window_bytes == 0)
        malformed(m, STATUS_BODY_TIMEOUT);
    else if (!m->window_paused && m->window_bytes < elapsed * settings->body_min_rate / 1000U)
        malformed(m, STATUS_BODY_TOO_SLOW);
    else
        h1_mux_begin_window(m);
}

static void tell_reset(struct h1_mux *m, enum status status)
{
    m->endpoint.events->reset(m->endpoint.owner, status);
    assert(!m->open); /* the owner has released it */
}

/* Between messages. Input that nobody will read must not turn the last answer into a reset. */
static void close_in_order(struct h1_mux *m, enum status status)
{
    stream_close(&m->base.stream, m->held != NULL);
    h1_mux_gone(m, status);
}

static bool is_stalled(struct h1_mux *m)
{
    return send_watch_is_stalled(&m->send_watch, m->base.stream, m->base.settings->send_stall_ms);
}

static void check_idle(struct h1_mux *m)
{
    if (!m->held) {
        close_in_order(m, STATUS_IDLE_TIMEOUT);
    } else if (is_stalled(m)) {
        stream_reset(&m->base.stream);
        h1_mux_gone(m, STATUS_CLIENT_STALLED);
    } else {
        h1_mux_arm_check(m);
    }
}

static void on_timer(struct timer *timer)
{
    struct h1_mux *m = CONTAINER_OF(timer, struct h1_mux, timer);
    if (m->gone)
        return;
    if (!m->open) {
        check_idle(m);
        return;
    }
    if (m->in == H1_IN_HEAD) {
        malformed(m, STATUS_HEAD_TIMEOUT);
        return;
    }
    if (is_stalled(m)) {
        tell_reset(m, STATUS_CLIENT_STALLED);
        return;
    }
    if (m->in == H1_IN_BODY && m->out == H1_OUT_HEAD) /* else a dialogue: only its owner sees both sides */
        check_body_rate(m);
    if (!m->gone && m->open)
        h1_mux_arm_check(m);
}

/* ---- the end of the turn ---- */

static void free_mux(struct h1_mux *m)
{
    if (m->base.events)
        m->base.events->closed(m->base.owner, m->close_status);
    timer_forget(&m->timer);
    free(m->held);
    free(m);
}

/*
 * No request is begun while the answers to those before it fill the queue: a client that asks and does not read would
 * make it grow without an end. If not, `room` follows, and until then the deadline of a client that does not read runs.
 */
static bool can_begin(struct h1_mux *m)
{
    if (stream_room(m->base.stream) > 0)
        return true;
    h1_mux_arm_check(m);
    return false;
}

static void feed_held(struct h1_mux *m)
{
    char *held = m->held;
    size_t len = m->held_len;
    m->held = NULL;
    m->held_len = 0;
    stream_resume(m->base.stream, STREAM_PAUSE_OWNER);
    feed(m, held, len);
    free(held);
}

static void run_deferred(struct deferred *deferred)
{
    struct h1_mux *m = CONTAINER_OF(deferred, struct h1_mux, deferred);
    if (m->gone) {
        assert(!m->open);
        free_mux(m);
        return;
    }
    if (m->want_close) {
        m->want_close = false;
        if (m->open)
            tell_reset(m, m->close_status);
        else
            close_in_order(m, m->close_status);
        return;
    }
    bool was_idle = m->idle_due;
    m->idle_due = false;
    if (m->held && (m->in == H1_IN_RAW || (m->server && m->in == H1_IN_IDLE && can_begin(m))))
        feed_held(m);
    if (was_idle && !m->open && !m->gone && !m->idle_due)
        m->base.events->idle(m->base.owner);
}

void h1_mux_defer(struct h1_mux *m)
{
    loop_defer(m->loop, &m->deferred, run_deferred);
}

void h1_mux_gone(struct h1_mux *m, enum status status)
{
    m->gone = true;
    m->close_status = status;
    timer_disarm(&m->timer);
    h1_mux_defer(m);
}

/* ---- receiving ---- */

static void hold(struct h1_mux *m, const char *data, size_t len)
{
    if (len == 0)
        return;
    char *held = realloc(m->held, m->held_len + len);
    if (!held)
        abort();
    memcpy(held + m->held_len, data, len);
    m->held = held;
    m->held_len += len;
    stream_pause(m->base.stream, STREAM_PAUSE_OWNER);
}

void h1_mux_become_raw(struct h1_mux *m)
{
    m->in = H1_IN_RAW;
    m->out = H1_OUT_RAW;
    m->chunked = false;
    m->close = true;
    if (m->server)
        h1_mux_arm_check(m);
    if (m->held)
        h1_mux_defer(m);
}

static void begin_request(struct h1_mux *m)
{
    m->open = true;
    m->in = H1_IN_HEAD;
    m->out = H1_OUT_HEAD;
    m->blank_lines = 0;
    m->chunked = m->upgrade_asked = false;
    m->requests++;
    if (m->base.settings->max_requests > 0 && m->requests >= m->base.settings->max_requests)
        m->close = true;
    m->base.events->request(m->base.owner, &m->endpoint);
    assert(m->endpoint.arena);
    h1_parser_begin(&m->parser, m->endpoint.arena, METHOD_OTHER, false);
}

/* The last piece of a message was passed on as such: the parser's own end says nothing new. */
static void swallow_end(struct h1_mux *m)
{
    size_t used;
    enum h1_event event = h1_parser_feed(&m->parser, NULL, 0, &used);
    assert(event == H1_END);
    (void)event;
}

static void got_head(struct h1_mux *m)
{
    const struct message_head *head = m->parser.head;
    if (head_is_interim(head)) {
        m->endpoint.events->head(m->endpoint.owner, head, false);
        return;
    }
    m->close |= head->close;
    if (!m->server && head->body == BODY_RAW) {
        h1_mux_become_raw(m);
        m->endpoint.events->head(m->endpoint.owner, head, false);
        return;
    }
    bool last = h1_parser_is_last(&m->parser);
    m->in = last ? H1_IN_DONE : H1_IN_BODY;
    if (last)
        swallow_end(m);
    if (m->server) {
        m->peer_is_1_0 = head->version == HTTP_1_0;
        m->method = head->method;
        m->awaits_continue = head->expect_continue && !last;
        h1_mux_begin_window(m);
        h1_mux_arm_check(m);
    }
    m->endpoint.events->head(m->endpoint.owner, head, last);
}

static void got_body(struct h1_mux *m, const char *data, size_t len, bool last)
{
    m->window_bytes += len;
    m->awaits_continue = false;
    m->uncredited += len;
    if (m->uncredited >= H1_WINDOW_BYTES) {
        m->window_paused = true;
        stream_pause(m->base.stream, STREAM_PAUSE_CREDIT);
    }
    if (last)
        m->in = H1_IN_DONE;
    m->endpoint.events->body(m->endpoint.owner, data, len, last);
}

static void got_failure(struct h1_mux *m, enum status status)
{
    if (m->server)
        malformed(m, status);
    else
        tell_reset(m, status);
}

static void dispatch(struct h1_mux *m, enum h1_event event)
{
    switch (event) {
    case H1_NEED_MORE:
        break;
    case H1_HEAD:
        got_head(m);
        break;
    case H1_BODY: {
        struct slice body = m->parser.body;
        bool last = h1_parser_is_last(&m->parser);
        if (last)
            swallow_end(m);
        got_body(m, body.ptr, body.len, last);
        break;
    }
    case H1_TRAILERS:
        m->in = H1_IN_DONE;
        swallow_end(m);
        m->endpoint.events->trailers(m->endpoint.owner, &m->parser.trailers);
        break;
    case H1_END:
        if (m->in == H1_IN_BODY)
            got_body(m, NULL, 0, true);
        break;
    case H1_FAILED:
        got_failure(m, m->parser.status);
        break;
    }
}

static void skip_blank_lines(struct h1_mux *m, const char **data, size_t *len)
{
    while (*len >= 2 && (*data)[0] == '\r' && (*data)[1] == '\n' && m->blank_lines < MAX_BLANK_LINES) {
        *data += 2;
        *len -= 2;
        m->blank_lines++;
    }
}

/* One step; false when nothing more can be done with the input now. */
static bool step(struct h1_mux *m, const char **data, size_t *len)
{
    if (m->in == H1_IN_RAW) {
        size_t n = *len;
        *len = 0;
        got_body(m, *data, n, false);
        return false;
    }
    if (m->in == H1_IN_IDLE && m->server) {
        skip_blank_lines(m, data, len);
        if (*len == 0 || m->want_close || !can_begin(m))
            return false;
        begin_request(m);
    }
    if (m->in != H1_IN_HEAD && m->in != H1_IN_BODY)
        return false;
    size_t used = 0;
    enum h1_event event = h1_parser_feed(&m->parser, *data, *len, &used);
    *data += used;
    *len -= used;
    dispatch(m, event);
    return event != H1_NEED_MORE;
}

static void feed(struct h1_mux *m, const char *data, size_t len)
{
    bool was_open = m->open;
    while (len > 0 && !m->gone && step(m, &data, &len)) {
        if (was_open && !m->open)
            break; /* released: what is left belongs to the next message */
        was_open = m->open;
    }
    if (m->gone || m->in == H1_IN_BROKEN || m->in == H1_IN_RAW_END)
        return;
    if (len > 0 && !m->server && m->in != H1_IN_RAW) {
        m->close = true; /* bytes after the response: nothing of this connection can be trusted */
        if (!m->open) {
            stream_reset(&m->base.stream);
            h1_mux_gone(m, STATUS_UPSTREAM_BAD_RESPONSE);
        }
        return;
    }
    hold(m, data, len);
    if (len > 0 && !m->open)
        h1_mux_defer(m);
    bool waits = m->server && m->in == H1_IN_HEAD;
    if (waits && !m->head_waits)
        loop_timer_arm(m->loop, &m->timer, m->base.settings->head_ms);
    m->head_waits = waits;
}

static void on_data(void *owner, const char *data, size_t len)
{
    struct h1_mux *m = owner;
    if (m->held)
        hold(m, data, len);
    else
        feed(m, data, len);
}

/* ---- the end of the stream ---- */

static void peer_ended_message(struct h1_mux *m)
{
    enum h1_event event = h1_parser_eof(&m->parser);
    if (event == H1_END && m->in == H1_IN_BODY)
        got_body(m, NULL, 0, true);
    else if (event == H1_NEED_MORE)
        tell_reset(m, STATUS_UPSTREAM_CLOSED);
    else
        tell_reset(m, STATUS_UPSTREAM_TRUNCATED);
}

static void on_eof(void *owner)
{
    struct h1_mux *m = owner;
    m->close = true;
    if (m->gone)
        return;
    if (!m->open) {
        close_in_order(m, STATUS_PEER_CLOSED);
    } else if (m->in == H1_IN_RAW) {
        m->in = H1_IN_RAW_END;
        m->endpoint.events->body(m->endpoint.owner, NULL, 0, true);
    } else if (m->server) {
        tell_reset(m, STATUS_CLIENT_CANCELLED);
    } else if (m->in == H1_IN_HEAD || m->in == H1_IN_BODY) {
        peer_ended_message(m);
    }
}

/* Whether a byte of the answer was there decides about sending the request again. */
static enum status upstream_status(const struct h1_mux *m, enum status status)
{
    if (status != STATUS_PEER_RESET)
        return status;
    return m->in == H1_IN_HEAD && h1_parser_has_begun(&m->parser) ? STATUS_UPSTREAM_TRUNCATED : STATUS_UPSTREAM_RESET;
}

static void on_failed(void *owner, enum status status)
{
    struct h1_mux *m = owner;
    m->close = true;
    if (m->gone)
        return;
    if (m->open) {
        tell_reset(m, m->server ? STATUS_CLIENT_CANCELLED : upstream_status(m, status));
        return;
    }
    close_in_order(m, status);
}

/* What was sent before waits in the stream; `room` follows. */
static void on_ready(void *owner)
{
    struct h1_mux *m = owner;
    enum status status = m->base.events->connected ? m->base.events->connected(m->base.owner) : STATUS_OK;
    if (status == STATUS_OK || m->gone)
        return;
    m->close = true;
    if (m->open) {
        tell_reset(m, status);
        return;
    }
    stream_reset(&m->base.stream);
    h1_mux_gone(m, status);
}

static void on_room(void *owner)
{
    struct h1_mux *m = owner;
    if (m->gone)
        return;
    if (m->open)
        m->endpoint.events->room(m->endpoint.owner);
    else if (m->held)
        h1_mux_defer(m);
}

static void on_soon(void *owner, unsigned ahead)
{
    struct h1_mux *m = owner;
    if (ahead > 1)
        prefetch(m, sizeof *m);
    else if (m->open && m->endpoint.events && m->endpoint.events->soon)
        m->endpoint.events->soon(m->endpoint.owner);
}

static const struct stream_events stream_events = {
    .soon = on_soon,
    .ready = on_ready,
    .data = on_data,
    .eof = on_eof,
    .room = on_room,
    .failed = on_failed,
};

/* ---- mux operations ---- */

static unsigned mux_room(struct mux *mux)
{
    const struct h1_mux *m = mux_of(mux);
    assert(!m->server);
    return m->open || m->gone || m->close || m->want_close ? 0 : 1;
}

static struct endpoint *mux_open(struct mux *mux)
{
    struct h1_mux *m = mux_of(mux);
    if (mux_room(mux) == 0)
        return NULL;
    m->open = true;
    if (mux->load)
        ++*mux->load;
    m->idle_due = false;
    m->in = H1_IN_IDLE;
    m->out = H1_OUT_HEAD;
    return &m->endpoint;
}

static void mux_drain(struct mux *mux)
{
    struct h1_mux *m = mux_of(mux);
    m->close = true;
    if (m->open || m->gone)
        return;
    close_in_order(m, STATUS_SHUTDOWN);
}

static void mux_close(struct mux *mux, enum status status)
{
    struct h1_mux *m = mux_of(mux);
    if (m->gone || m->want_close)
        return;
    m->want_close = true;
    m->close_status = status;
    h1_mux_defer(m);
}

static const struct mux_ops mux_ops = {.open = mux_open, .room = mux_room, .drain = mux_drain, .close = mux_close};

static struct h1_mux *new_mux(struct stream *stream, const struct mux_settings *settings,
                              const struct mux_events *events, void *owner, bool server)
{
    struct h1_mux *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->base = (struct mux){.ops = &mux_ops, .events = events, .owner = owner, .stream = stream, .settings = settings};
    m->endpoint = (struct endpoint){.ops = &h1_endpoint_ops, .mux = &m->base};
    m->loop = stream_loop(stream);
    m->server = server;
    timer_init(&m->timer, on_timer);
    if (server)
        h1_parser_init(&m->parser, H1_REQUESTS, &settings->request_limits);
    else
        h1_parser_init(&m->parser, H1_RESPONSES, &settings->response_limits);
    stream_bind(stream, &stream_events, m);
    return m;
}

struct mux *h1_mux_server(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner)
{
    struct h1_mux *m = new_mux(stream, settings, events, owner, true);
    loop_timer_arm(m->loop, &m->timer, settings->head_ms);
    return &m->base;
}

struct mux *h1_mux_client(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner)
{
    return &new_mux(stream, settings, events, owner, false)->base;
}

size_t h1_mux_dump(const struct mux *mux, char *buffer, size_t size)
{
    static const char *const in[] = {"idle", "head", "body", "done", "raw", "raw-end", "broken"};
    static const char *const out[] = {"idle", "head", "body", "done", "raw", "raw-end"};
    const struct h1_mux *m = (const void *)((const char *)mux - offsetof(struct h1_mux, base));
    int n = snprintf(buffer, size, "h1 %s in=%s out=%s requests=%u uncredited=%zu held=%zu%s%s",
                     m->server ? "server" : "client", in[m->in], out[m->out], m->requests, m->uncredited, m->held_len,
                     m->close ? " close" : "", m->gone ? " gone" : "");
    return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}
