/* What an h1 endpoint sends, and how it is released. */
#include "h1_mux_internal.h"

#include "gateway/wire/h1_writer.h"

#include <assert.h>

enum { HEAD_ON_STACK = 4096 };

static struct h1_mux *mux_of(struct endpoint *endpoint)
{
    return CONTAINER_OF(endpoint, struct h1_mux, endpoint);
}

static void write_head(struct h1_mux *m, const struct message_head *head, bool keep_alive)
{
    char stack[HEAD_ON_STACK];
    size_t bound = h1_head_bound(head);
    char *buffer = bound <= sizeof stack ? stack : arena_alloc(m->endpoint.arena, bound);
    stream_write(m->base.stream, buffer, h1_write_head(head, keep_alive, buffer, bound));
}

/* How the body of a final response is delimited on this connection (RFC 9112 section 6.3). */
static void send_response_head(struct h1_mux *m, const struct message_head *head, bool end)
{
    struct message_head out = *head;
    bool unknown_length = !end && (head->body == BODY_CHUNKED || head->body == BODY_UNTIL_CLOSE);
    m->chunked = unknown_length && !m->peer_is_1_0;
    if (unknown_length) {
        out.body = m->chunked ? BODY_CHUNKED : BODY_UNTIL_CLOSE;
        out.has_content_length = false;
        m->close |= !m->chunked;
    }
    bool is_empty = end && head->body == BODY_NONE && m->method != METHOD_HEAD && head->status != 304;
    if (is_empty && !head->has_content_length) { /* HTTP/2 needs no length to end a message */
        out.has_content_length = true;
        out.content_length = 0;
    }
    m->close |= head->close || m->in == H1_IN_BROKEN;
    out.close = m->close && head->body != BODY_RAW;
    write_head(m, &out, m->peer_is_1_0 && !m->close);
    if (head->body == BODY_RAW) {
        h1_mux_become_raw(m);
        return;
    }
    m->out = end ? H1_OUT_DONE : H1_OUT_BODY;
    if (!end)
        h1_mux_arm_check(m);
}

static void send_request_head(struct h1_mux *m, const struct message_head *head, bool end)
{
    struct message_head out = *head;
    m->method = head->method;
    m->upgrade_asked = head->upgrade.len > 0;
    m->chunked = !end && head->body == BODY_CHUNKED;
    out.close = false;
    write_head(m, &out, false);
    m->out = end ? H1_OUT_DONE : H1_OUT_BODY;
    h1_parser_begin(&m->parser, m->endpoint.arena, m->method, m->upgrade_asked);
    m->in = H1_IN_HEAD;
}

static void send_head(struct endpoint *endpoint, const struct message_head *head, bool end)
{
    struct h1_mux *m = mux_of(endpoint);
    if (m->gone)
        return;
    assert(m->out == H1_OUT_HEAD);
    if (m->awaits_continue && (head->status == 100 || !head_is_interim(head))) {
        m->awaits_continue = false;
        h1_mux_begin_window(m);
    }
    if (!m->server)
        send_request_head(m, head, end);
    else if (!head_is_interim(head))
        send_response_head(m, head, end);
    else if (!m->peer_is_1_0) /* RFC 9110 section 15.2: no 1xx to HTTP/1.0 */
        write_head(m, head, false);
}

static void send_end(struct h1_mux *m, const struct fields *trailers)
{
    if (m->out == H1_OUT_RAW) {
        m->out = H1_OUT_RAW_END;
        stream_shutdown(m->base.stream);
        return;
    }
    if (m->chunked) {
        char stack[HEAD_ON_STACK];
        size_t bound = h1_last_chunk_bound(trailers);
        char *buffer = bound <= sizeof stack ? stack : arena_alloc(m->endpoint.arena, bound);
        stream_write(m->base.stream, buffer, h1_write_last_chunk(trailers, buffer, bound));
    }
    m->out = H1_OUT_DONE;
}

static void send_chunk(struct h1_mux *m, struct iovec data)
{
    char prefix[H1_CHUNK_PREFIX_MAX], suffix[] = "\r\n";
    struct iovec pieces[3] = {
        {prefix, h1_write_chunk_prefix(data.iov_len, prefix)}, data, {suffix, H1_CHUNK_SUFFIX_LEN}};
    stream_writev(m->base.stream, pieces, 3);
}

static void send_body(struct endpoint *endpoint, const char *data, size_t len, bool end)
{
    struct h1_mux *m = mux_of(endpoint);
    if (m->gone)
        return;
    assert(m->out == H1_OUT_BODY || m->out == H1_OUT_RAW);
    if (len > 0 && m->chunked) {
        union {
            const char *in;
            void *out;
        } unconst = {.in = data};
        send_chunk(m, (struct iovec){unconst.out, len});
    } else if (len > 0) {
        stream_write(m->base.stream, data, len);
    }
    static const struct fields none;
    if (end)
        send_end(m, &none);
}

static void send_trailers(struct endpoint *endpoint, const struct fields *trailers)
{
    struct h1_mux *m = mux_of(endpoint);
    if (m->gone)
        return;
    assert(m->out == H1_OUT_BODY);
    send_end(m, trailers);
}

static size_t room(struct endpoint *endpoint)
{
    struct h1_mux *m = mux_of(endpoint);
    return m->gone ? STREAM_HIGH_MARK : stream_room(m->base.stream);
}

static void credit(struct endpoint *endpoint, size_t bytes)
{
    struct h1_mux *m = mux_of(endpoint);
    assert(bytes <= m->uncredited);
    m->uncredited -= bytes;
    if (!m->gone && m->uncredited < H1_WINDOW_BYTES / 2)
        stream_resume(m->base.stream, STREAM_PAUSE_CREDIT);
}

/* ---- release ---- */

static void become_idle(struct h1_mux *m)
{
    m->in = H1_IN_IDLE;
    m->out = H1_OUT_IDLE;
    m->uncredited = 0;
    m->idle_due = true;
    stream_resume(m->base.stream, STREAM_PAUSE_CREDIT);
    if (m->server)
        loop_timer_arm(m->loop, &m->timer, m->base.settings->keepalive_ms);
    h1_mux_defer(m);
}

/*
 * An app may answer from the head and leave the body unread: what is asked next would wait behind it. Of an ordinary
 * request nothing is queued any more when the response to it is there.
 */
static bool may_be_followed(const struct h1_mux *m)
{
    return m->server || stream_queued(m->base.stream) == 0;
}

static void end_in_order(struct h1_mux *m, bool linger)
{
    stream_close(&m->base.stream, linger);
    h1_mux_gone(m, STATUS_OK);
}

static void abort_stream(struct h1_mux *m, enum status status)
{
    stream_reset(&m->base.stream);
    h1_mux_gone(m, status);
}

static void release(struct endpoint **endpoint_ptr, enum status status)
{
    struct h1_mux *m = mux_of(*endpoint_ptr);
    *endpoint_ptr = NULL;
    assert(m->open);
    m->open = false;
    if (m->base.load)
        --*m->base.load;
    m->endpoint.events = NULL;
    m->endpoint.arena = NULL;
    if (m->gone)
        return;
    bool complete = m->in == H1_IN_DONE && m->out == H1_OUT_DONE;
    if (complete && status == STATUS_OK && !m->close && may_be_followed(m))
        become_idle(m);
    else if (m->server && m->out == H1_OUT_DONE)
        end_in_order(m, m->in != H1_IN_DONE || m->held);
    else if (status == STATUS_OK && (m->out == H1_OUT_RAW_END || complete))
        end_in_order(m, m->in == H1_IN_RAW);
    else
        abort_stream(m, status);
}

const struct endpoint_ops h1_endpoint_ops = {
    .send_head = send_head,
    .send_body = send_body,
    .send_trailers = send_trailers,
    .room = room,
    .credit = credit,
    .release = release,
};
