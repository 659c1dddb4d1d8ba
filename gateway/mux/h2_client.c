/* The client role: streams that we open toward an instance, and what its frames mean. */
#include "h2_mux_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_STREAMS = 1000,         /* of one connection, whatever the peer allows */
    SPARE_STREAM_IDS = 1 << 20, /* a connection that has used up all others takes no more requests */
    PSEUDO_FIELDS = 5,
    ADDED_FIELDS = PSEUDO_FIELDS + 3, /* content-length, te, expect */
};

static struct h2_mux *mux_of(struct mux *mux)
{
    return CONTAINER_OF(mux, struct h2_mux, base);
}

static struct h2_stream *stream_by_id(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* ---- opening ---- */

static unsigned limit_of(const struct h2_mux *m)
{
    uint32_t limit = nghttp2_session_get_remote_settings(m->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (!m->settings_seen && m->expected_limit > 0 && m->expected_limit < limit)
        limit = m->expected_limit;
    return limit < MAX_STREAMS ? limit : MAX_STREAMS;
}

/* Its machine may be gone, which TCP notices only after many minutes; those that wait there have their deadlines. */
static bool is_silent(const struct h2_mux *m)
{
    return m->asked_ms > 0 && loop_now_ms(m->loop) - m->asked_ms >= m->base.settings->silent_ms;
}

bool h2_mux_client_takes_requests(const struct mux *mux)
{
    const struct h2_mux *m = (const void *)((const char *)mux - offsetof(struct h2_mux, base));
    return !m->gone && !m->want_close && !m->draining && !is_silent(m) &&
           nghttp2_session_check_request_allowed(m->session) &&
           nghttp2_session_get_next_stream_id(m->session) <= INT32_MAX - SPARE_STREAM_IDS;
}

unsigned h2_client_room(struct mux *mux)
{
    const struct h2_mux *m = mux_of(mux);
    unsigned limit = h2_mux_client_takes_requests(mux) ? limit_of(m) : 0;
    return limit > m->stream_count ? limit - m->stream_count : 0;
}

/* While it has no streams nobody looks whether it sends: a stall is counted from now on. */
static void begin_watch(struct h2_mux *m)
{
    (void)send_watch_is_stalled(&m->send_watch, m->base.stream, m->base.settings->send_stall_ms);
    loop_timer_arm(m->loop, &m->timer, m->base.settings->head_ms);
}

static struct endpoint *open_stream(struct mux *mux)
{
    struct h2_mux *m = mux_of(mux);
    if (list_is_empty(&m->streams))
        begin_watch(m);
    struct h2_stream *s = h2_stream_new(m);
    if (mux->load)
        ++*mux->load;
    return &s->endpoint;
}

struct endpoint *h2_client_open(struct mux *mux)
{
    return h2_client_room(mux) > 0 ? open_stream(mux) : NULL;
}

struct endpoint *h2_mux_client_queue(struct mux *mux)
{
    return h2_mux_client_takes_requests(mux) ? open_stream(mux) : NULL;
}

bool h2_mux_client_limit(const struct mux *mux, unsigned *ret_limit)
{
    const struct h2_mux *m = (const void *)((const char *)mux - offsetof(struct h2_mux, base));
    if (m->settings_seen)
        *ret_limit = limit_of(m);
    return m->settings_seen;
}

void h2_mux_client_expect(struct mux *mux, unsigned limit)
{
    mux_of(mux)->expected_limit = limit;
}

/* ---- sending a head ---- */

static size_t put_pseudo(const struct h2_stream *s, const struct message_head *head, nghttp2_nv *nv)
{
    size_t count = 0;
    nv[count++] = h2_send_named(SLICE(":method"), s->is_tunnel_asked ? SLICE("CONNECT") : head->method_text);
    if (s->is_tunnel_asked)
        nv[count++] = h2_send_named(SLICE(":protocol"), s->asked.protocol);
    nv[count++] = h2_send_named(SLICE(":scheme"), SLICE("http"));
    nv[count++] = h2_send_named(SLICE(":authority"), head->authority);
    nv[count++] = h2_send_named(SLICE(":path"), head->path);
    return count;
}

static void submit(struct h2_stream *s, const nghttp2_nv *nv, size_t count, bool end)
{
    nghttp2_data_provider body = {.source = {.ptr = s}, .read_callback = h2_send_read_body};
    s->begun = true;
    s->out_ending |= end;
    s->id = nghttp2_submit_request(s->mux->session, NULL, nv, count, end ? NULL : &body, s);
    s->in_session = s->id > 0;
    s->mux->begun_count += s->in_session;
    s->end_status = STATUS_UPSTREAM_REFUSED; /* told if it was never sent */
    if (s->mux->asked_ms == 0)
        s->mux->asked_ms = loop_now_ms(s->mux->loop);
    h2_mux_pump(s->mux);
}

/* RFC 8441: whether the peer knows extended CONNECT is only known from its SETTINGS. */
static bool knows_tunnels(const struct h2_mux *m)
{
    return nghttp2_session_get_remote_settings(m->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

static void keep_waiting(struct h2_stream *s, const nghttp2_nv *nv, size_t count, bool end)
{
    s->waiting = arena_alloc(&s->arena, count * sizeof *nv);
    s->waiting_count = count;
    s->waiting_ends = end;
    s->mux->waiting_count++;
    for (size_t i = 0; i < count; i++) {
        struct slice name = arena_copy(&s->arena, slice_make((const char *)nv[i].name, nv[i].namelen));
        struct slice value = arena_copy(&s->arena, slice_make((const char *)nv[i].value, nv[i].valuelen));
        s->waiting[i] = h2_send_nv(name, value);
        s->waiting[i].flags = nv[i].flags & NGHTTP2_NV_FLAG_NO_INDEX;
    }
}

static bool may_begin(const struct h2_stream *s)
{
    return s->mux->settings_seen ? s->mux->begun_count < limit_of(s->mux) : !s->is_tunnel_asked;
}

/* Told at the end of the turn. */
static void refuse(struct h2_stream *s, enum status status)
{
    s->begun = true;
    s->end_status = status;
    h2_mux_defer(s->mux);
}

static void begin(struct h2_stream *s, const nghttp2_nv *nv, size_t count, bool end)
{
    if (!may_begin(s))
        keep_waiting(s, nv, count, end);
    else if (s->is_tunnel_asked && !knows_tunnels(s->mux))
        refuse(s, STATUS_UPSTREAM_NO_TUNNEL);
    else
        submit(s, nv, count, end && !s->is_tunnel_asked);
}

void h2_client_stop_waiting(struct h2_stream *s)
{
    s->mux->waiting_count -= s->waiting != NULL;
    s->waiting = NULL;
}

void h2_client_send_waiting(struct h2_mux *m)
{
    bool over = m->waiting_count > 0 && !nghttp2_session_check_request_allowed(m->session);
    for (struct list *link = m->streams.next; m->waiting_count > 0 && link != &m->streams; link = link->next) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        nghttp2_nv *nv = s->waiting;
        if (!nv || !(over || may_begin(s)))
            continue;
        h2_client_stop_waiting(s);
        if (over) {
            refuse(s, STATUS_UPSTREAM_REFUSED);
            continue;
        }
        begin(s, nv, s->waiting_count, s->waiting_ends);
        s->want_room = true;
        if (list_is_empty(&s->room_link))
            list_push(&m->room_due, &s->room_link);
    }
}

void h2_client_send_head(struct h2_stream *s, const struct message_head *head, bool end)
{
    char length[SLICE_U64_BYTES];
    nghttp2_nv *nv = arena_alloc(&s->arena, (head->fields.count + ADDED_FIELDS) * sizeof *nv);
    if (s->mux->gone || s->begun || s->waiting)
        return;
    s->is_tunnel_asked = slice_eq_nocase(head->upgrade, SLICE("websocket")); /* others may be ignored */
    s->asked.method = head->method;
    s->asked.protocol = s->is_tunnel_asked ? SLICE("websocket") : SLICE_NONE;
    s->asked.websocket_key = arena_copy(&s->arena, fields_value(&head->fields, FIELD_SEC_WEBSOCKET_KEY));
    size_t count = h2_send_put_fields(s, &head->fields, nv, put_pseudo(s, head, nv));
    if (head->has_content_length && !s->is_tunnel_asked)
        nv[count++] =
            h2_send_named(SLICE("content-length"), slice_from_u64(head->content_length, length + sizeof length));
    if (head->te_trailers || head_is_grpc(head))
        nv[count++] = h2_send_named(SLICE("te"), SLICE("trailers"));
    if (head->expect_continue)
        nv[count++] = h2_send_named(SLICE("expect"), SLICE("100-continue"));
    begin(s, nv, count, end);
}

/* ---- a response ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)user_data;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    if (s && !s->head_told)
        s->head = (struct message_head){.status = 0}; /* an interim one came before */
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name_buffer,
                     nghttp2_rcbuf *value_buffer, uint8_t flags, void *user_data)
{
    (void)flags;
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    if (!s || !s->open || s->malformed != STATUS_OK)
        return 0;
    nghttp2_vec name_bytes = nghttp2_rcbuf_get_buf(name_buffer), value_bytes = nghttp2_rcbuf_get_buf(value_buffer);
    if (!h2_receive_is_within_limits(s, &m->base.settings->response_limits, name_bytes.len, value_bytes.len))
        return 0;
    struct arena *arena = s->endpoint.arena;
    struct slice name = h2_receive_copy(arena, name_buffer), value = h2_receive_copy(arena, value_buffer);
    uint64_t status;
    if (slice_eq(name, SLICE(":status")))
        s->head.status = slice_to_u64(value, &status) && status < 1000 ? (int)status : 0;
    else
        fields_add(s->head_told ? &s->trailers : &s->head.fields, arena, name, value);
    return 0;
}

static enum status status_of_malformed(const struct h2_stream *s)
{
    bool too_large = s->malformed == STATUS_HEAD_TOO_LARGE || s->malformed == STATUS_TOO_MANY_FIELDS;
    return too_large ? STATUS_UPSTREAM_HEAD_TOO_LARGE : STATUS_UPSTREAM_BAD_RESPONSE;
}

static void got_end(struct h2_stream *s)
{
    const struct message_head *head = s->held_head;
    s->in_ended = true;
    s->held_head = NULL;
    if (!s->open)
        return;
    if (head)
        s->endpoint.events->head(s->endpoint.owner, head, true);
    else
        s->endpoint.events->body(s->endpoint.owner, NULL, 0, true);
}

static void got_head(struct h2_stream *s, bool end)
{
    struct message_head *head = arena_alloc(s->endpoint.arena, sizeof *head);
    *head = s->head;
    enum status status = s->malformed == STATUS_OK
                             ? semantics_check_h2_response(head, end, &s->asked, s->endpoint.arena)
                             : status_of_malformed(s);
    if (status != STATUS_OK) {
        h2_stream_tell_reset(s, status);
        return;
    }
    s->answered = true;
    if (head_is_interim(head)) {
        s->endpoint.events->head(s->endpoint.owner, head, false);
        return;
    }
    s->head_told = true;
    s->is_tunnel = head->body == BODY_RAW;
    s->head = *head;
    if (!end && head->body == BODY_NONE) { /* a body may still follow, which is a fault */
        s->held_head = head;
        return;
    }
    s->in_ended = end && !s->is_tunnel;
    s->endpoint.events->head(s->endpoint.owner, head, s->in_ended);
    if (end && s->is_tunnel)
        got_end(s);
}

static void got_trailers(struct h2_stream *s)
{
    if (s->malformed != STATUS_OK) {
        h2_stream_tell_reset(s, status_of_malformed(s));
        return;
    }
    semantics_filter_trailers(&s->trailers);
    if (s->held_head || s->is_tunnel || s->trailers.count == 0) {
        got_end(s);
        return;
    }
    s->in_ended = true;
    s->endpoint.events->trailers(s->endpoint.owner, &s->trailers);
}

static bool is_useful(const nghttp2_frame *frame)
{
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    return frame->hd.type == NGHTTP2_HEADERS ||
           (frame->hd.type == NGHTTP2_DATA && (end || frame->hd.length > frame->data.padlen));
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    bool is_update = frame->hd.type == NGHTTP2_WINDOW_UPDATE;
    if (is_update ? h2_guard_update(m, H2_GLITCH_APP) : !is_useful(frame) && h2_guard_glitch(m, H2_GLITCH_APP, 1))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        m->settings_seen = true;
        h2_mux_defer(m); /* heads that wait */
    }
    if (!s)
        return 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        s->reset_by_peer = true;
    else if (frame->hd.type == NGHTTP2_DATA && end && !s->in_ended)
        got_end(s);
    else if (frame->hd.type == NGHTTP2_HEADERS && s->open && !s->head_told)
        got_head(s, end);
    else if (frame->hd.type == NGHTTP2_HEADERS && s->open)
        got_trailers(s);
    return 0;
}

/* The connection's window is only there because the protocol has one: a slow client must not stop the others. */
static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                   void *user_data)
{
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, id);
    nghttp2_session_consume_connection(session, len);
    if (!s || !s->open)
        return 0;
    m->glitches -= m->glitches > 0;
    h2_window_received(s, len);
    bool last = h2_receive_is_last(s, flags, len);
    s->endpoint.events->body(s->endpoint.owner, (const char *)data, len, last);
    return 0;
}

/* ---- the end of a stream ---- */

static enum status end_status(const struct h2_stream *s, uint32_t error_code)
{
    if (error_code == NGHTTP2_REFUSED_STREAM) /* RFC 9113 section 8.7; also what a GOAWAY leaves out */
        return STATUS_UPSTREAM_REFUSED;
    return s->reset_by_peer ? STATUS_UPSTREAM_RESET : STATUS_UPSTREAM_BAD_RESPONSE;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user_data)
{
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, id);
    if (!s)
        return 0;
    s->in_session = false;
    m->begun_count--;
    s->end_status = end_status(s, error_code);
    h2_send_drop_queue(s);
    if (s->open && m->receiving && !(s->in_ended && s->out_ended))
        h2_stream_tell_reset(s, s->end_status);
    else
        h2_stream_left(s);
    return 0;
}

void h2_client_set_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}
