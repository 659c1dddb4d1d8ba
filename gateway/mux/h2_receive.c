/* What nghttp2 tells of a peer's frames. */
#include "h2_mux_internal.h"

#include "gateway/http/semantics.h"

#include <assert.h>
#include <stdlib.h>

enum { FIELD_OVERHEAD = 32 }; /* RFC 9113 section 6.5.2 */

static struct h2_stream *stream_by_id(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_mux *m = user_data;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct h2_stream *s = h2_stream_new(m);
    s->id = frame->hd.stream_id;
    s->in_session = s->begun = true;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    s->end_status = STATUS_CLIENT_CANCELLED;
    s->window_start_ms = loop_now_ms(m->loop);
    s->head.version = HTTP_2;
    m->base.events->request(m->base.owner, &s->endpoint);
    assert(s->endpoint.arena);
    if (m->base.settings->max_requests > 0 && m->requests >= m->base.settings->max_requests)
        m->base.ops->drain(&m->base);
    return 0;
}

struct slice h2_receive_copy(struct arena *arena, nghttp2_rcbuf *buffer)
{
    nghttp2_vec bytes = nghttp2_rcbuf_get_buf(buffer);
    struct slice slice = slice_make(bytes.base, bytes.len);
    return nghttp2_rcbuf_is_static(buffer) ? slice : arena_copy(arena, slice);
}

/* The pseudo-header fields that requests may have; nghttp2 has checked their order and number. */
static void take_pseudo(struct h2_stream *s, struct slice name, struct slice value)
{
    struct message_head *head = &s->head;
    if (slice_eq(name, SLICE(":method")))
        head->method_text = value;
    else if (slice_eq(name, SLICE(":scheme")))
        head->scheme = value;
    else if (slice_eq(name, SLICE(":authority")))
        head->authority = value;
    else if (slice_eq(name, SLICE(":path")))
        head->target = value;
    else if (slice_eq(name, SLICE(":protocol")))
        head->upgrade = value;
}

/* By count and by bytes. */
bool h2_receive_is_within_limits(struct h2_stream *s, const struct h1_limits *limits, size_t name_len, size_t value_len)
{
    s->head_bytes += name_len + value_len + FIELD_OVERHEAD;
    if (s->head_bytes > limits->max_head_bytes)
        s->malformed = STATUS_HEAD_TOO_LARGE;
    else if (s->head.fields.count + s->trailers.count >= limits->max_fields)
        s->malformed = STATUS_TOO_MANY_FIELDS;
    return s->malformed == STATUS_OK;
}

/* More of them is only work: a bomb. */
static bool is_over_limits(const struct h2_stream *s)
{
    return s->malformed == STATUS_HEAD_TOO_LARGE || s->malformed == STATUS_TOO_MANY_FIELDS;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name_buffer,
                     nghttp2_rcbuf *value_buffer, uint8_t flags, void *user_data)
{
    (void)flags;
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    if (s && is_over_limits(s))
        return h2_guard_glitch(m, H2_GLITCH_FIELDS, 1);
    if (!s || !s->open || s->malformed != STATUS_OK)
        return 0;
    nghttp2_vec name_bytes = nghttp2_rcbuf_get_buf(name_buffer), value_bytes = nghttp2_rcbuf_get_buf(value_buffer);
    if (!h2_receive_is_within_limits(s, &s->mux->base.settings->request_limits, name_bytes.len, value_bytes.len))
        return 0;
    struct arena *arena = s->endpoint.arena;
    struct slice name = h2_receive_copy(arena, name_buffer), value = h2_receive_copy(arena, value_buffer);
    if (name.len > 0 && name.ptr[0] == ':')
        take_pseudo(s, name, value);
    else
        fields_add(s->head_told ? &s->trailers : &s->head.fields, arena, name, value);
    return 0;
}

static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                             nghttp2_rcbuf *value, uint8_t flags, void *user_data)
{
    (void)name, (void)value, (void)flags, (void)user_data;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    if (s && s->malformed == STATUS_OK)
        s->malformed = STATUS_BAD_FIELD_VALUE;
    return 0;
}

static void tell_head(struct h2_stream *s, bool end)
{
    struct message_head *head = &s->head;
    s->head_told = true;
    s->is_tunnel_asked = head->upgrade.len > 0;
    head->method = method_of(head->method_text); /* of a head that is refused, too */
    if (s->malformed == STATUS_OK && head->target.len > s->mux->base.settings->request_limits.max_target_bytes)
        s->malformed = STATUS_TARGET_TOO_LONG;
    enum status status = s->malformed;
    if (status == STATUS_OK)
        status = semantics_check_h2_request(head, end, s->endpoint.arena);
    if (status != STATUS_OK) {
        h2_stream_tell_malformed(s, status);
        return;
    }
    h2_stream_begin_window(s);
    s->awaits_continue = head->expect_continue;
    bool last = end || s->is_tunnel_asked || head->body == BODY_NONE;
    s->endpoint.events->head(s->endpoint.owner, head, last);
}

static void tell_end(struct h2_stream *s)
{
    bool told = s->head.body == BODY_NONE && !s->is_tunnel;
    bool too_early = s->is_tunnel_asked && !s->out_head_sent;
    s->in_ended = true;
    if (s->open && too_early) /* the tunnel would never hear of the end */
        nghttp2_submit_rst_stream(s->mux->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_PROTOCOL_ERROR);
    else if (s->open && !told && s->malformed == STATUS_OK)
        s->endpoint.events->body(s->endpoint.owner, NULL, 0, true);
}

static void tell_trailers(struct h2_stream *s)
{
    if (s->malformed != STATUS_OK) {
        h2_stream_tell_malformed(s, s->malformed);
        return;
    }
    semantics_filter_trailers(&s->trailers);
    if (s->head.body == BODY_NONE || s->is_tunnel) {
        tell_end(s);
        return;
    }
    if (s->trailers.count > 0)
        s->endpoint.events->trailers(s->endpoint.owner, &s->trailers);
    else
        s->endpoint.events->body(s->endpoint.owner, NULL, 0, true);
}

/* As empty as DATA without any length, which h2_guard.c counts when it sees the frame's head. */
static bool is_padding_only(const nghttp2_frame *frame)
{
    return frame->hd.type == NGHTTP2_DATA && !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && frame->data.padlen > 0 &&
           frame->hd.length <= frame->data.padlen;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    bool may_end = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    bool end = may_end && frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_PING)
        h2_drain_on_ping(m, &frame->ping);
    if (frame->hd.type == NGHTTP2_WINDOW_UPDATE || frame->hd.type == NGHTTP2_SETTINGS)
        h2_send_wake_starved(m);
    if (frame->hd.type == NGHTTP2_SETTINGS && h2_guard_check_windows(m))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (frame->hd.type == NGHTTP2_PRIORITY_UPDATE)
        h2_priority_update(m, &frame->ext);
    if (is_padding_only(frame) && h2_guard_glitch(m, H2_GLITCH_EMPTY_DATA, 1))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!s)
        return 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        s->reset_by_peer = true;
        if (s->open && !s->out_head_sent && h2_guard_glitch(m, H2_GLITCH_CANCEL, H2_RESET_GLITCHES - 1))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (end || frame->hd.type == NGHTTP2_RST_STREAM)
        h2_guard_client_ended(m, s->id);
    if (frame->hd.type == NGHTTP2_HEADERS && s->open && !s->head_told) {
        s->in_ended = end;
        h2_priority_begin(s);
        tell_head(s, end);
    } else if (frame->hd.type == NGHTTP2_HEADERS) {
        s->in_ended = true;
        if (s->open)
            tell_trailers(s);
    } else if (frame->hd.type == NGHTTP2_DATA && end && !s->in_ended) {
        tell_end(s);
    }
    return 0;
}

/* So that the end of a body can be told with its last piece. With padding, that is not known in time. */
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user_data)
{
    (void)session;
    struct h2_mux *m = user_data;
    m->data_left = hd->flags & NGHTTP2_FLAG_PADDED ? SIZE_MAX : hd->length;
    return 0;
}

/* A length that is not kept is a fault, which nghttp2 finds at the frame's end. */
bool h2_receive_is_last(struct h2_stream *s, uint8_t flags, size_t len)
{
    struct h2_mux *m = s->mux;
    s->body_bytes += len;
    m->data_left -= m->data_left == SIZE_MAX ? 0 : len;
    bool last = flags & NGHTTP2_FLAG_END_STREAM && m->data_left == 0 &&
                (!s->head.has_content_length || s->head.content_length == s->body_bytes);
    s->in_ended |= last;
    return last;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                   void *user_data)
{
    struct h2_mux *m = user_data;
    struct h2_stream *s = stream_by_id(session, id);
    bool wanted = s && s->open && s->malformed == STATUS_OK && (s->head.body != BODY_NONE || s->is_tunnel);
    if (!wanted) {
        if (s && s->open && s->is_tunnel_asked) /* RFC 8441: nothing may be said before the 200 */
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_PROTOCOL_ERROR);
        return 0;
    }
    m->glitches -= m->glitches > 0;
    h2_window_received(s, len);
    s->window_bytes += len;
    s->awaits_continue = false;
    s->window_paused |= s->uncredited >= H2_STREAM_WINDOW_BYTES / 2;
    bool last = h2_receive_is_last(s, flags, len);
    s->endpoint.events->body(s->endpoint.owner, (const char *)data, len, last);
    return 0;
}

/* Of the client: it made us reset the stream (CVE-2025-8671). */
static bool is_fault(uint32_t error_code)
{
    return error_code == NGHTTP2_PROTOCOL_ERROR || error_code == NGHTTP2_FLOW_CONTROL_ERROR ||
           error_code == NGHTTP2_STREAM_CLOSED || error_code == NGHTTP2_FRAME_SIZE_ERROR;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_mux *m = user_data;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        h2_guard_goaway_sent(m, frame->goaway.error_code);
    if (m->server && frame->hd.type == NGHTTP2_RST_STREAM && is_fault(frame->rst_stream.error_code))
        (void)h2_guard_glitch(m, H2_GLITCH_MALFORMED, H2_RESET_GLITCHES);
    bool can_end = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (frame->hd.type == NGHTTP2_DATA) {
        m->glitches -= m->glitches > 2 ? 2 : m->glitches;
        h2_guard_sent(m, frame->hd.length);
    }
    if (!can_end || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct h2_stream *s = stream_by_id(session, frame->hd.stream_id);
    if (!s)
        return 0;
    s->out_ended = true;
    if (m->server && !s->open && !s->in_ended)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user_data)
{
    (void)user_data;
    struct h2_stream *s = stream_by_id(session, id);
    if (!s)
        return 0;
    s->in_session = false;
    s->end_status = !s->reset_by_peer && is_fault(error_code) ? STATUS_CLIENT_PROTOCOL : STATUS_CLIENT_CANCELLED;
    h2_send_drop_queue(s);
    if (s->open && s->mux->receiving && !(s->in_ended && s->out_ended))
        h2_stream_tell_reset(s, s->end_status);
    else
        h2_stream_left(s); /* told and freed at the end of the turn */
    return 0;
}

/* Those of both roles. */
void h2_receive_set_shared_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_send_data);
}

void h2_receive_set_server_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}
