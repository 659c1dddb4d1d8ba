#include "gateway/mux/h2_mux.h"

#include "h2_mux_internal.h"

#include "gateway/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static struct h2_mux *mux_of(struct mux *mux)
{
    return CONTAINER_OF(mux, struct h2_mux, base);
}

/* What became of an exchange whose peer left or broke the rules. */
static enum status ended_by_peer(const struct h2_mux *m, enum status upstream)
{
    if (!m->server)
        return upstream;
    return m->peer_broke_rules ? STATUS_CLIENT_PROTOCOL : STATUS_CLIENT_CANCELLED;
}

static enum status fault_of_peer(const struct h2_mux *m)
{
    return m->server ? STATUS_CLIENT_PROTOCOL : STATUS_UPSTREAM_BAD_RESPONSE;
}

/* ---- streams ---- */

struct h2_stream *h2_stream_new(struct h2_mux *m)
{
    struct h2_stream *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->mux = m;
    s->open = true;
    h2_window_init(s);
    s->endpoint = (struct endpoint){.ops = &h2_endpoint_ops, .mux = &m->base};
    arena_init(&s->arena, &m->loop->arenas);
    list_init(&s->room_link);
    list_push(&m->streams, &s->link);
    m->open_count++;
    m->stream_count++;
    m->requests++;
    m->glitches -= m->glitches > 0;
    m->idle_due = false;
    return s;
}

/* nghttp2 may still be using what its callback was given: the memory goes at the end of the mux's turn, when an owner
 * that was sending hears of it too. */
void h2_stream_left(struct h2_stream *s)
{
    if (!s->open && !s->in_session)
        s->mux->stream_count--;
    h2_mux_defer(s->mux);
}

static void free_stream(struct h2_stream *s)
{
    list_remove(&s->link);
    list_remove(&s->room_link);
    h2_send_drop_queue(s);
    arena_reset(&s->arena);
    free(s);
}

static void free_unused_streams(struct h2_mux *m)
{
    LIST_EACH_SAFE (link, &m->streams) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        if (!s->open && !s->in_session)
            free_stream(s);
    }
}

void h2_stream_tell_reset(struct h2_stream *s, enum status status)
{
    s->endpoint.events->reset(s->endpoint.owner, status);
    assert(!s->open); /* the owner has released it */
}

void h2_stream_tell_malformed(struct h2_stream *s, enum status status)
{
    if (s->malformed_told)
        return;
    s->malformed = status;
    s->malformed_told = true;
    s->endpoint.events->malformed(s->endpoint.owner, status, &s->head);
}

/* ---- sending ---- */

void h2_mux_pump(struct h2_mux *m)
{
    if (m->receiving || m->gone) {
        h2_mux_defer(m);
        return;
    }
    const uint8_t *data;
    ssize_t n = 0;
    while (stream_queued(m->base.stream) < STREAM_HIGH_MARK && (n = nghttp2_session_mem_send(m->session, &data)) > 0)
        stream_write(m->base.stream, data, (size_t)n);
    h2_memory_spoil();
    if (n < 0)
        log_warn("h2: %s", nghttp2_strerror((int)n));
    if (stream_queued(m->base.stream) >= STREAM_HIGH_MARK)
        (void)stream_room(m->base.stream); /* asks for `room` */
}

/* ---- deadlines ---- */

void h2_stream_begin_window(struct h2_stream *s)
{
    s->window_start_ms = loop_now_ms(s->mux->loop);
    s->window_bytes = 0;
    s->window_paused = s->uncredited >= H2_STREAM_WINDOW_BYTES / 2;
}

static void arm(struct h2_mux *m)
{
    const struct mux_settings *settings = m->base.settings;
    if (!m->server) { /* exchanges have deadlines of their own, and the pool has one for idle connections */
        if (!list_is_empty(&m->streams))
            loop_timer_arm(m->loop, &m->timer, settings->head_ms);
        return;
    }
    if (m->drain_phase == H2_DRAIN_NOTICE)
        return; /* its own deadline runs */
    uint32_t ms = settings->body_idle_ms < settings->send_stall_ms ? settings->body_idle_ms : settings->send_stall_ms;
    ms = settings->head_ms < ms ? settings->head_ms : ms;
    ms = list_is_empty(&m->streams) ? settings->keepalive_ms : ms;
    loop_timer_arm(m->loop, &m->timer, ms);
}

/* Its window stays closed: no byte of the response can be sent. */
static bool check_stalled(struct h2_stream *s)
{
    struct h2_mux *m = s->mux;
    if ((s->queue.bytes == 0 && !s->starved) ||
        loop_now_ms(m->loop) - s->sent_ms + TIMER_TICK_MS < m->base.settings->send_stall_ms)
        return false;
    if (s->open)
        h2_stream_tell_reset(s, STATUS_CLIENT_STALLED);
    else
        nghttp2_submit_rst_stream(m->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
    h2_mux_defer(m);
    return true;
}

/* Streams that hold the connection's window are as good as a pause of this one. */
static bool is_connection_paused(const struct h2_mux *m)
{
    return nghttp2_session_get_local_window_size(m->session) < H2_CONNECTION_WINDOW_BYTES / 16;
}

static void check_stream(struct h2_stream *s)
{
    const struct mux_settings *settings = s->mux->base.settings;
    uint64_t elapsed = loop_now_ms(s->mux->loop) - s->window_start_ms;
    if (check_stalled(s))
        return;
    if (s->open && !s->head_told && elapsed + TIMER_TICK_MS >= settings->head_ms) {
        s->mux->base.ops->close(&s->mux->base, STATUS_HEAD_TIMEOUT); /* a header block is never left half read */
        return;
    }
    s->window_paused |= is_connection_paused(s->mux);
    bool may_be_silent = s->out_head_sent || head_is_grpc(&s->head); /* a dialogue: only its owner sees both sides */
    bool receives = s->open && s->head_told && !s->in_ended && !s->is_tunnel && s->head.body != BODY_NONE;
    if (!receives || may_be_silent || s->malformed != STATUS_OK || elapsed + TIMER_TICK_MS < settings->body_idle_ms)
        return;
    if (!s->window_paused && s->window_bytes == 0 && !s->awaits_continue)
        h2_stream_tell_malformed(s, STATUS_BODY_TIMEOUT);
    else if (!s->window_paused && s->window_bytes > 0 && s->window_bytes < elapsed * settings->body_min_rate / 1000U)
        h2_stream_tell_malformed(s, STATUS_BODY_TOO_SLOW);
    else
        h2_stream_begin_window(s);
}

/* Of a client: tunnels that have ended on both sides may still have bytes to send. */
static void check_left_streams(struct h2_mux *m)
{
    LIST_EACH_SAFE (link, &m->streams) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        if (!s->open && s->in_session)
            (void)check_stalled(s);
    }
}

/* What a client's owners have left behind may end only with the connection: no RST_STREAM overtakes what is queued. */
static void on_client_timer(struct h2_mux *m)
{
    bool stalled = send_watch_is_stalled(&m->send_watch, m->base.stream, m->base.settings->send_stall_ms);
    if (stalled && m->open_count == 0) {
        m->base.ops->close(&m->base, STATUS_UPSTREAM_STALLED);
        return;
    }
    check_left_streams(m);
    arm(m);
}

static void on_timer(struct timer *timer)
{
    struct h2_mux *m = CONTAINER_OF(timer, struct h2_mux, timer);
    if (m->gone)
        return;
    m->glitches /= 2;
    m->updates /= 2;
    if (!m->server) {
        on_client_timer(m);
        return;
    }
    h2_drain_on_timer(m);
    if (list_is_empty(&m->streams)) {
        m->base.ops->drain(&m->base);
        return;
    }
    if (send_watch_is_stalled(&m->send_watch, m->base.stream, m->base.settings->send_stall_ms)) {
        m->base.ops->close(&m->base, STATUS_CLIENT_STALLED);
        return;
    }
    LIST_EACH_SAFE (link, &m->streams)
        check_stream(CONTAINER_OF(link, struct h2_stream, link));
    arm(m);
}

/* ---- the end of the turn ---- */

static void tell_room(struct h2_mux *m)
{
    struct list *link;
    while (!m->gone && (link = list_pop(&m->room_due))) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, room_link);
        if (!s->want_room || !s->open)
            continue;
        s->want_room = s->starved = false;
        s->endpoint.events->room(s->endpoint.owner);
    }
}

/* Streams that ended while their owner was sending: it was not told then, since operations never call back. */
static void tell_ended(struct h2_mux *m)
{
    LIST_EACH_SAFE (link, &m->streams) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        if (s->open && s->begun && !s->in_session && !(s->in_ended && s->out_ended))
            h2_stream_tell_reset(s, s->end_status);
    }
}

static void reset_all(struct h2_mux *m, enum status status)
{
    LIST_EACH_SAFE (link, &m->streams) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        s->endpoint.is_lost = true;
        bool cut =
            s->answered && (status == STATUS_UPSTREAM_CLOSED || (status == STATUS_UPSTREAM_RESET && !s->head_told));
        if (s->open)
            h2_stream_tell_reset(s, cut ? STATUS_UPSTREAM_TRUNCATED : status);
    }
}

static void free_mux(struct h2_mux *m)
{
    m->base.events->closed(m->base.owner, m->close_status);
    LIST_EACH_SAFE (link, &m->streams)
        free_stream(CONTAINER_OF(link, struct h2_stream, link));
    nghttp2_session_del(m->session);
    h2_window_close(m);
    timer_forget(&m->timer);
    free(m);
}

static void end_stream(struct h2_mux *m, enum status status, bool abrupt)
{
    if (m->gone)
        return;
    m->draining = true; /* whoever is told now may try again, but not here */
    reset_all(m, status);
    if (!abrupt) {
        h2_mux_pump(m); /* once it is to end, nghttp2 sends no RST_STREAM any more */
        nghttp2_session_terminate_session(m->session, NGHTTP2_NO_ERROR);
        h2_mux_pump(m);
        stream_close(&m->base.stream, true);
    } else {
        stream_reset(&m->base.stream);
    }
    h2_mux_gone(m, status);
}

/* How it is closed: a peer that takes nothing would keep a polite end waiting. */
static bool is_abrupt(const struct h2_mux *m)
{
    if (m->close_status == STATUS_UPSTREAM_STALLED)
        return true;
    return m->open_count > 0 && m->close_status != STATUS_SHUTDOWN && m->close_status != STATUS_CLIENT_FLOOD;
}

static bool is_finished(const struct h2_mux *m)
{
    return !nghttp2_session_want_read(m->session) && !nghttp2_session_want_write(m->session);
}

static void run_deferred(struct deferred *deferred)
{
    struct h2_mux *m = CONTAINER_OF(deferred, struct h2_mux, deferred);
    if (m->gone) {
        free_mux(m);
        return;
    }
    if (m->want_close) {
        m->want_close = false;
        end_stream(m, m->close_status, is_abrupt(m));
        return; /* freed in the next run, which this has asked for */
    }
    h2_client_send_waiting(m);
    tell_ended(m);
    tell_room(m);
    h2_window_open_connection(m);
    h2_mux_pump(m);
    free_unused_streams(m);
    bool drained = m->draining && m->drain_phase != H2_DRAIN_NOTICE && list_is_empty(&m->streams);
    if (is_finished(m) || drained) {
        end_stream(m, m->open_count > 0 ? ended_by_peer(m, STATUS_UPSTREAM_BAD_RESPONSE) : STATUS_OK, false);
    } else if (m->idle_due && list_is_empty(&m->streams)) {
        m->idle_due = false;
        if (h2_window_idle(m))
            m->base.ops->drain(&m->base);
        arm(m);
        m->base.events->idle(m->base.owner);
    }
}

void h2_mux_defer(struct h2_mux *m)
{
    loop_defer(m->loop, &m->deferred, run_deferred);
}

void h2_mux_gone(struct h2_mux *m, enum status status)
{
    m->gone = true;
    m->close_status = status;
    timer_disarm(&m->timer);
    h2_mux_defer(m);
}

/* ---- the stream's events ---- */

static void on_data(void *owner, const char *data, size_t len)
{
    struct h2_mux *m = owner;
    if (m->gone || m->want_close)
        return;
    bool was_idle = list_is_empty(&m->streams);
    m->asked_ms = 0;
    m->receiving = true;
    ssize_t n = m->server ? h2_guard_receive(m, (const uint8_t *)data, len)
                          : nghttp2_session_mem_recv(m->session, (const uint8_t *)data, len);
    m->receiving = false;
    if (n < 0) {
        if (m->want_close || h2_guard_take_error(m, n))
            return; /* at the end of the turn */
        nghttp2_session_terminate_session(m->session, NGHTTP2_PROTOCOL_ERROR);
        end_stream(m, fault_of_peer(m), false);
        return;
    }
    if (was_idle && !list_is_empty(&m->streams))
        arm(m);
    h2_mux_pump(m);
    h2_mux_defer(m);
}

static void on_eof(void *owner)
{
    end_stream(owner, ended_by_peer(owner, STATUS_UPSTREAM_CLOSED), false);
}

static void on_failed(void *owner, enum status status)
{
    end_stream(owner, ended_by_peer(owner, status == STATUS_PEER_RESET ? STATUS_UPSTREAM_RESET : status), false);
}

static void on_ready(void *owner)
{
    struct h2_mux *m = owner;
    enum status status = m->base.events->connected ? m->base.events->connected(m->base.owner) : STATUS_OK;
    if (status != STATUS_OK)
        end_stream(m, status, true);
}

static void on_room(void *owner)
{
    struct h2_mux *m = owner;
    if (m->gone)
        return;
    h2_mux_pump(m);
    LIST_EACH (link, &m->streams) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        if (!s->want_room || s->waiting || h2_send_look_starved(s)) /* the latter are woken when the window opens */
            continue;
        if (h2_send_may_go_on(s) && list_is_empty(&s->room_link))
            list_push(&m->room_due, &s->room_link);
    }
    h2_mux_defer(m);
}

static const struct stream_events stream_events = {
    .ready = on_ready,
    .data = on_data,
    .eof = on_eof,
    .room = on_room,
    .failed = on_failed,
};

/* ---- mux operations ---- */

/* RFC 9113 section 6.8: streams that the client has begun are finished. */
static void mux_drain(struct mux *mux)
{
    struct h2_mux *m = mux_of(mux);
    if (m->gone || m->draining)
        return;
    m->draining = true;
    if (m->server)
        h2_drain_begin(m);
    h2_mux_defer(m);
}

static void mux_close(struct mux *mux, enum status status)
{
    struct h2_mux *m = mux_of(mux);
    if (m->gone || m->want_close)
        return;
    m->want_close = true;
    m->close_status = status;
    h2_mux_defer(m);
}

static const struct mux_ops server_ops = {.drain = mux_drain, .close = mux_close};
static const struct mux_ops client_ops = {
    .open = h2_client_open, .room = h2_client_room, .drain = mux_drain, .close = mux_close};

/* ---- the session ---- */

static nghttp2_session *new_session(struct h2_mux *m)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option))
        abort();
    h2_receive_set_shared_callbacks(callbacks);
    if (m->server) {
        h2_receive_set_server_callbacks(callbacks);
        h2_guard_set_callbacks(callbacks);
    } else {
        h2_client_set_callbacks(callbacks);
    }
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_builtin_recv_extension_type(option, NGHTTP2_PRIORITY_UPDATE);
    nghttp2_option_set_stream_reset_rate_limit(option, H2_GLITCHES, H2_GLITCHES); /* ours comes first, and is counted */
    nghttp2_option_set_max_send_header_block_length(option, H2_MAX_SENT_HEAD_BYTES);
    nghttp2_mem memory = h2_memory(m);
    if (m->server ? nghttp2_session_server_new3(&session, callbacks, m, option, &memory)
                  : nghttp2_session_client_new3(&session, callbacks, m, option, &memory))
        abort();
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return session;
}

static void submit_server_settings(struct h2_mux *m)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_MAX_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)m->base.settings->request_limits.max_head_bytes},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    nghttp2_submit_settings(m->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]);
    nghttp2_session_set_local_window_size(m->session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW_BYTES);
}

static void submit_client_settings(struct h2_mux *m)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)m->base.settings->response_limits.max_head_bytes},
    };
    nghttp2_submit_settings(m->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]);
    nghttp2_session_set_local_window_size(m->session, NGHTTP2_FLAG_NONE, 0, H2_CLIENT_CONNECTION_WINDOW_BYTES);
}

static struct h2_mux *new_mux(struct stream *stream, const struct mux_settings *settings,
                              const struct mux_events *events, void *owner, bool server)
{
    struct h2_mux *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->base = (struct mux){.events = events, .owner = owner, .stream = stream, .settings = settings};
    m->base.ops = server ? &server_ops : &client_ops;
    m->loop = stream_loop(stream);
    m->server = server;
    m->shared_window = H2_CONNECTION_WINDOW_BYTES;
    m->session = new_session(m);
    list_init(&m->streams);
    list_init(&m->room_due);
    timer_init(&m->timer, on_timer);
    stream_bind(stream, &stream_events, m);
    stream_set_late_flush(stream, true);
    h2_mux_defer(m); /* SETTINGS leave at the end of the turn */
    return m;
}

struct mux *h2_mux_server(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner)
{
    struct h2_mux *m = new_mux(stream, settings, events, owner, true);
    h2_guard_init(m);
    submit_server_settings(m);
    loop_timer_arm(m->loop, &m->timer, settings->head_ms);
    return &m->base;
}

struct mux *h2_mux_client(struct stream *stream, const struct mux_settings *settings, const struct mux_events *events,
                          void *owner)
{
    struct h2_mux *m = new_mux(stream, settings, events, owner, false);
    submit_client_settings(m);
    return &m->base;
}

size_t h2_mux_dump(const struct mux *mux, char *buffer, size_t size)
{
    const struct h2_mux *m = (const void *)((const char *)mux - offsetof(struct h2_mux, base));
    int n = snprintf(buffer, size, "h2 %s streams=%u requests=%u glitches=%u%s%s", m->server ? "server" : "client",
                     m->open_count, m->requests, m->glitches, m->draining ? " draining" : "", m->gone ? " gone" : "");
    return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}
