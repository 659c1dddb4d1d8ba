/* What an h2 endpoint sends, and how it is released. */
#include "h2_mux_internal.h"

#include <assert.h>
#include <stdio.h>

enum { MAX_PIECES = 4 }; /* of one write; a DATA frame seldom spans more than two blocks */

static struct h2_stream *stream_of(struct endpoint *endpoint)
{
    return CONTAINER_OF(endpoint, struct h2_stream, endpoint);
}

static bool can_send(const struct h2_stream *s)
{
    return s->in_session && !s->mux->gone;
}

/* ---- heads ---- */

nghttp2_nv h2_send_nv(struct slice name, struct slice value)
{
    union {
        const char *in;
        uint8_t *out;
    } n = {.in = name.ptr ? name.ptr : ""}, v = {.in = value.ptr ? value.ptr : ""};
    return (nghttp2_nv){.name = n.out, .value = v.out, .namelen = name.len, .valuelen = value.len};
}

nghttp2_nv h2_send_named(struct slice name, struct slice value)
{
    nghttp2_nv nv = h2_send_nv(name, value);
    nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    return nv;
}

/* RFC 9113 section 8.2.1: lower case on the wire. */
static struct slice lower_name(const struct field *field, struct arena *arena)
{
    size_t lower = 0;
    while (lower < field->name.len && ascii_lower(field->name.ptr[lower]) == field->name.ptr[lower])
        lower++;
    if (lower == field->name.len)
        return field->name;
    char *name = arena_alloc(arena, field->name.len + 1);
    ascii_lower_copy(name, field->name);
    return slice_make(name, field->name.len);
}

static bool is_for_wire(const struct h2_stream *s, const struct field *field)
{
    bool framing = field->id == FIELD_CONTENT_LENGTH || field->id == FIELD_TRANSFER_ENCODING ||
                   field->id == FIELD_CONNECTION || field->id == FIELD_UPGRADE || field->id == FIELD_KEEP_ALIVE ||
                   field->id == FIELD_HOST;
    bool key = field->id == FIELD_SEC_WEBSOCKET_ACCEPT || field->id == FIELD_SEC_WEBSOCKET_KEY; /* RFC 8441 section 5 */
    return !framing && !(key && s->is_tunnel_asked);
}

/* Other in each message: in the table of the encoder they would only drive out what comes again. */
static bool is_of_one_message(enum field_id id)
{
    return id == FIELD_X_REQUEST_ID || id == FIELD_TRACEPARENT;
}

size_t h2_send_put_fields(struct h2_stream *s, const struct fields *fields, nghttp2_nv *nv, size_t count)
{
    for (size_t i = 0; i < fields->count; i++) {
        const struct field *field = &fields->items[i];
        if (!is_for_wire(s, field))
            continue;
        nv[count] = field->id != FIELD_OTHER ? h2_send_named(field_name(field->id), field->value)
                                             : h2_send_nv(lower_name(field, &s->arena), field->value);
        if (is_of_one_message(field->id))
            nv[count].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        count++;
    }
    return count;
}

ssize_t h2_send_read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *flags,
                          nghttp2_data_source *source, void *user_data)
{
    (void)buffer, (void)user_data;
    struct h2_stream *s = source->ptr;
    size_t available = s->queue.bytes + s->direct_len;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (available == 0 && !s->out_ending)
        return NGHTTP2_ERR_DEFERRED;
    size_t n = available < size ? available : size;
    if (n < available || !s->out_ending)
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->trailers_out.count > 0) {
        nghttp2_nv *nv = arena_alloc(&s->arena, s->trailers_out.count * sizeof *nv);
        size_t count = h2_send_put_fields(s, &s->trailers_out, nv, 0);
        if (count > 0 && nghttp2_submit_trailer(session, id, nv, count) == 0)
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    return (ssize_t)n;
}

/* RFC 8441 section 5: 101 becomes 200. Where there is no tunnel a 2xx would say that it is open: the owner should have
 * answered with an error. */
static int wire_status(const struct h2_stream *s, const struct message_head *head)
{
    if (s->is_tunnel_asked && !s->is_tunnel && head->status >= 200 && head->status < 300)
        return 502;
    return head->status == 101 ? 200 : head->status;
}

static void send_response_head(struct h2_stream *s, const struct message_head *head, bool end)
{
    struct h2_mux *m = s->mux;
    nghttp2_nv *nv = arena_alloc(&s->arena, (head->fields.count + 2) * sizeof *nv); /* :status, content-length */
    char status[SLICE_U64_BYTES], length[SLICE_U64_BYTES];
    bool interim = head_is_interim(head);
    if (!can_send(s) || s->out_head_sent)
        return;
    s->is_tunnel = s->is_tunnel_asked && head->body == BODY_RAW;
    nv[0] = h2_send_named(SLICE(":status"), slice_from_u64((uint64_t)wire_status(s, head), status + sizeof status));
    size_t count = h2_send_put_fields(s, &head->fields, nv, 1);
    if (head->has_content_length && !interim && head->status != 204) {
        struct slice text = slice_from_u64(head->content_length, length + sizeof length);
        nv[count++] = h2_send_named(SLICE("content-length"), text);
    }
    if (interim) {
        if (head->status == 100 && s->awaits_continue) {
            s->awaits_continue = false;
            h2_stream_begin_window(s);
        }
        nghttp2_submit_headers(m->session, NGHTTP2_FLAG_NONE, s->id, NULL, nv, count, NULL);
    } else {
        nghttp2_data_provider body = {.source = {.ptr = s}, .read_callback = h2_send_read_body};
        nghttp2_submit_response(m->session, s->id, nv, count, end ? NULL : &body);
        s->out_head_sent = true;
        s->out_ending = end;
    }
    h2_mux_pump(m);
}

static void send_head(struct endpoint *endpoint, const struct message_head *head, bool end)
{
    struct h2_stream *s = stream_of(endpoint);
    if (s->mux->server)
        send_response_head(s, head, end);
    else
        h2_client_send_head(s, head, end);
}

/* ---- bodies ---- */

void h2_send_drop_queue(struct h2_stream *s)
{
    s->mux->queued_bytes -= s->queue.bytes;
    block_queue_drop(s->mux->loop, &s->queue);
    h2_send_wake_starved(s->mux);
}

/*
 * A client that keeps its windows closed must not pin much memory by asking on many streams: when much is queued, only
 * those get more whose window is open, so that it leaves.
 */
static bool is_starved(const struct h2_stream *s)
{
    const struct h2_mux *m = s->mux;
    return m->server && m->queued_bytes >= H2_CONNECTION_QUEUE_BYTES && s->in_session &&
           (nghttp2_session_get_remote_window_size(m->session) <= 0 ||
            nghttp2_session_get_stream_remote_window_size(m->session, s->id) <= 0);
}

bool h2_send_may_go_on(const struct h2_stream *s)
{
    return s->queue.bytes < H2_QUEUE_BYTES / 2 && !is_starved(s);
}

bool h2_send_look_starved(struct h2_stream *s)
{
    bool starved = is_starved(s);
    if (starved && !s->starved && s->queue.bytes == 0)
        s->sent_ms = loop_now_ms(s->mux->loop);
    s->starved = starved;
    s->mux->has_starved |= starved;
    return starved;
}

void h2_send_wake_starved(struct h2_mux *m)
{
    if (!m->has_starved || m->gone)
        return;
    m->has_starved = false;
    LIST_EACH (link, &m->streams) {
        struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        if (s->starved && h2_send_may_go_on(s) && list_is_empty(&s->room_link))
            list_push(&m->room_due, &s->room_link);
        m->has_starved |= s->starved && list_is_empty(&s->room_link);
    }
    h2_mux_defer(m);
}

static void write_queued(struct h2_stream *s, size_t len)
{
    while (len > 0) {
        struct iovec pieces[MAX_PIECES];
        int count = block_queue_pieces(&s->queue, len, pieces, MAX_PIECES);
        size_t n = 0;
        for (int i = 0; i < count; i++)
            n += pieces[i].iov_len;
        stream_writev(s->mux->base.stream, pieces, count);
        block_queue_consume(s->mux->loop, &s->queue, n);
        s->mux->queued_bytes -= n;
        len -= n;
    }
}

/* One DATA frame: its header, then what is queued, then what send_body was just given. */
int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t len,
                 nghttp2_data_source *source, void *user_data)
{
    (void)session, (void)frame;
    struct h2_mux *m = user_data;
    struct h2_stream *s = source->ptr;
    s->sent_ms = loop_now_ms(m->loop);
    stream_write(m->base.stream, header, 9);
    size_t from_queue = len < s->queue.bytes ? len : s->queue.bytes;
    write_queued(s, from_queue);
    size_t direct = len - from_queue;
    if (direct > 0) {
        stream_write(m->base.stream, s->direct, direct);
        s->direct += direct;
        s->direct_len -= direct;
    }
    if (from_queue > 0 && m->queued_bytes < H2_CONNECTION_QUEUE_BYTES / 2)
        h2_send_wake_starved(m);
    if (s->want_room && h2_send_may_go_on(s) && list_is_empty(&s->room_link)) {
        list_push(&m->room_due, &s->room_link);
        h2_mux_defer(m);
    }
    return 0;
}

static void keep_rest(struct h2_stream *s)
{
    if (s->queue.bytes == 0)
        s->sent_ms = loop_now_ms(s->mux->loop);
    s->mux->queued_bytes += s->direct_len;
    block_queue_append(s->mux->loop, &s->queue, s->direct, s->direct_len);
}

static void send_body(struct endpoint *endpoint, const char *data, size_t len, bool end)
{
    struct h2_stream *s = stream_of(endpoint);
    if ((!can_send(s) && !s->waiting) || s->out_ending)
        return;
    s->direct = data;
    s->direct_len = len;
    s->out_ending = end;
    if (!s->waiting) {
        nghttp2_session_resume_data(s->mux->session, s->id);
        h2_mux_pump(s->mux);
    }
    if (s->direct_len > 0)
        keep_rest(s);
    s->direct_len = 0;
}

static void send_trailers(struct endpoint *endpoint, const struct fields *trailers)
{
    struct h2_stream *s = stream_of(endpoint);
    for (size_t i = 0; i < trailers->count; i++) /* the caller's may be gone when the window opens */
        fields_add(&s->trailers_out, &s->arena, arena_copy(&s->arena, trailers->items[i].name),
                   arena_copy(&s->arena, trailers->items[i].value));
    send_body(endpoint, NULL, 0, true);
}

static size_t room(struct endpoint *endpoint)
{
    struct h2_stream *s = stream_of(endpoint);
    if (s->begun && !can_send(s))
        return H2_QUEUE_BYTES;
    if (s->waiting) {
        s->want_room = true;
        return 0;
    }
    if (!h2_send_look_starved(s) && stream_room(s->mux->base.stream) > 0 && s->queue.bytes < H2_QUEUE_BYTES)
        return H2_QUEUE_BYTES - s->queue.bytes;
    s->want_room = true;
    return 0;
}

static void credit(struct endpoint *endpoint, size_t bytes)
{
    struct h2_stream *s = stream_of(endpoint);
    assert(bytes <= s->uncredited);
    h2_window_credited(s, bytes);
    if (!s->mux->gone)
        h2_mux_defer(s->mux);
}

/* ---- release ---- */

/* It ends by itself, or when the last frame is sent. A client's request is not worth sending once it is answered. */
static bool ends_in_order(const struct h2_stream *s, enum status status)
{
    if (s->in_ended && s->out_ended)
        return true;
    if (status != STATUS_OK || !s->out_ending)
        return false;
    return s->mux->server ? s->in_ended || !s->out_ended : s->in_ended && s->is_tunnel;
}

/* RFC 9113 section 8.1: after a whole response, NO_ERROR tells the client to stop sending the rest of its request. */
static void end_stream(struct h2_stream *s, enum status status)
{
    struct h2_mux *m = s->mux;
    if (!s->in_session || ends_in_order(s, status))
        return;
    bool answered = m->server && status == STATUS_OK && s->out_ending;
    uint32_t code = answered ? NGHTTP2_NO_ERROR : status_h2(status) ? status_h2(status) : NGHTTP2_CANCEL;
    nghttp2_submit_rst_stream(m->session, NGHTTP2_FLAG_NONE, s->id, code);
}

static void release(struct endpoint **endpoint_ptr, enum status status)
{
    struct h2_stream *s = stream_of(*endpoint_ptr);
    struct h2_mux *m = s->mux;
    *endpoint_ptr = NULL;
    assert(s->open);
    s->open = false;
    h2_client_stop_waiting(s);
    s->endpoint.events = NULL;
    s->endpoint.arena = NULL;
    list_remove(&s->room_link);
    m->open_count--;
    if (m->base.load)
        --*m->base.load;
    if (!m->gone) {
        end_stream(s, status);
        m->idle_due |= m->open_count == 0;
        h2_mux_defer(m);
    }
    h2_window_leave(s);
    h2_stream_left(s);
}

const struct endpoint_ops h2_endpoint_ops = {
    .send_head = send_head,
    .send_body = send_body,
    .send_trailers = send_trailers,
    .room = room,
    .credit = credit,
    .release = release,
};
