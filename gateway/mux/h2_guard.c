/* What a client may not do: floods, and the rules of stream identifiers that nghttp2 leaves to the application. */
#include "h2_mux_internal.h"

#include <string.h>

static const char *const glitch_names[] = {
#define X(name, text) text,
    H2_GLITCH_TABLE(X)
#undef X
};

/* ---- floods ---- */

static void flooded(struct h2_mux *m, enum h2_glitch kind)
{
    if (m->want_close)
        return;
    COUNTER_INC(m->loop->counters, h2_floods_total);
    m->base.flood = glitch_names[kind];
    nghttp2_session_terminate_session(m->session, NGHTTP2_ENHANCE_YOUR_CALM);
    m->base.ops->close(&m->base, m->server ? STATUS_CLIENT_FLOOD : STATUS_UPSTREAM_BAD_RESPONSE);
}

/* A peer that makes us work for nothing: more such frames than others is a flood. */
int h2_guard_glitch(struct h2_mux *m, enum h2_glitch kind, unsigned cost)
{
    COUNTER_INC(m->loop->counters, h2_glitches_total);
    m->glitches += cost;
    if (m->glitches >= H2_GLITCHES)
        flooded(m, kind);
    return m->want_close ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

void h2_guard_sent(struct h2_mux *m, size_t len)
{
    size_t updates = m->updates + 2 + len / H2_UPDATE_BYTES;
    m->updates = updates < H2_MAX_UPDATES ? (unsigned)updates : H2_MAX_UPDATES;
}

int h2_guard_update(struct h2_mux *m, enum h2_glitch kind)
{
    if (m->updates == 0)
        return h2_guard_glitch(m, kind, 1);
    m->updates--;
    return 0;
}

bool h2_guard_take_error(struct h2_mux *m, ssize_t error)
{
    if (error == NGHTTP2_ERR_FLOODED)
        flooded(m, H2_GLITCH_QUEUE);
    else if (error == NGHTTP2_ERR_TOO_MANY_SETTINGS)
        flooded(m, H2_GLITCH_SETTINGS);
    else if (error == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS)
        flooded(m, H2_GLITCH_CONTINUATION);
    return m->base.flood != NULL;
}

/* nghttp2 itself sends it for a SETTINGS frame with too many entries. */
void h2_guard_goaway_sent(struct h2_mux *m, uint32_t error_code)
{
    if (error_code == NGHTTP2_ENHANCE_YOUR_CALM && !m->base.flood)
        flooded(m, H2_GLITCH_SETTINGS);
    if (error_code != NGHTTP2_NO_ERROR)
        m->peer_broke_rules = true;
}

/* ---- stream identifiers ---- */

static bool is_among(const int32_t *ids, int32_t id)
{
    for (size_t i = 0; i < H2_REMEMBERED; i++)
        if (ids[i] == id)
            return true;
    return false;
}

void h2_guard_client_ended(struct h2_mux *m, int32_t id)
{
    if (!is_among(m->guard.ended, id))
        m->guard.ended[m->guard.ended_count++ % H2_REMEMBERED] = id;
}

/* RFC 9113 section 5.1.1: a first use closes the idle streams below it. */
static void note_first_use(struct h2_guard *guard, int32_t id)
{
    if (id > guard->next_id)
        guard->skipped[guard->skipped_count++ % H2_REMEMBERED] =
            (struct h2_skipped){.first = (int32_t)guard->next_id, .last = id - 2};
    guard->next_id = (int64_t)id + 2;
}

static bool is_skipped(const struct h2_guard *guard, int32_t id)
{
    for (size_t i = 0; i < H2_REMEMBERED; i++)
        if (id >= guard->skipped[i].first && id <= guard->skipped[i].last)
            return true;
    return false;
}

static int break_off(struct h2_mux *m, uint32_t code)
{
    nghttp2_session_terminate_session(m->session, code);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/*
 * HEADERS or DATA on a stream that is over. nghttp2 ignores all of them, which is right only for those that may have
 * been on their way when we reset the stream. A client that has ended a stream itself has no such excuse (section 5.1),
 * and neither has one that goes back to an identifier it has left out (section 5.1.1).
 */
static ssize_t check_stream(struct h2_mux *m, uint8_t type, int32_t id)
{
    struct h2_guard *guard = &m->guard;
    if (id <= 0 || id % 2 == 0)
        return 0; /* nghttp2 refuses it */
    if (id >= guard->next_id) {
        if (type != NGHTTP2_HEADERS)
            return 0;
        note_first_use(guard, id);
        if (m->drain_phase == H2_DRAIN_FINAL)
            COUNTER_INC(m->loop->counters, h2_streams_refused_total);
        return 0;
    }
    if (nghttp2_session_find_stream(m->session, id))
        return 0;
    if (is_skipped(guard, id))
        return break_off(m, type == NGHTTP2_HEADERS ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_STREAM_CLOSED);
    return is_among(guard->ended, id) ? break_off(m, NGHTTP2_STREAM_CLOSED) : 0;
}

/* ---- windows ---- */

/* Before SETTINGS change them. */
static void note_windows(struct h2_mux *m)
{
    struct h2_guard *guard = &m->guard;
    guard->widest_window = 0;
    guard->initial_window = nghttp2_session_get_remote_settings(m->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
    LIST_EACH (link, &m->streams) {
        const struct h2_stream *s = CONTAINER_OF(link, struct h2_stream, link);
        int32_t window = s->in_session ? nghttp2_session_get_stream_remote_window_size(m->session, s->id) : 0;
        if (window > guard->widest_window)
            guard->widest_window = window;
    }
}

/* RFC 9113 section 6.9.2: a connection error; nghttp2 only resets the streams. */
int h2_guard_check_windows(struct h2_mux *m)
{
    const struct h2_guard *guard = &m->guard;
    int64_t initial = nghttp2_session_get_remote_settings(m->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
    if (guard->widest_window + initial - guard->initial_window <= INT32_MAX)
        return 0;
    return break_off(m, NGHTTP2_FLOW_CONTROL_ERROR);
}

/* ---- each frame ---- */

static size_t length_of(const uint8_t *head)
{
    return (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
}

static int32_t id_of(const uint8_t *head)
{
    return (int32_t)((head[5] & 0x7fU) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]);
}

static int check_frame(struct h2_mux *m, const uint8_t *head)
{
    switch (head[3]) {
    case NGHTTP2_HEADERS:
        return 0;
    case NGHTTP2_DATA:
        return length_of(head) > 0 || head[4] & NGHTTP2_FLAG_END_STREAM ? 0
                                                                        : h2_guard_glitch(m, H2_GLITCH_EMPTY_DATA, 1);
    case NGHTTP2_PRIORITY:
        if (id_of(head) == 0)
            return break_off(m, NGHTTP2_PROTOCOL_ERROR); /* RFC 9113 section 6.3 */
        return h2_guard_glitch(m, H2_GLITCH_PRIORITY, 1);
    case NGHTTP2_PRIORITY_UPDATE:
        return h2_guard_glitch(m, H2_GLITCH_PRIORITY, 1);
    case NGHTTP2_RST_STREAM:
        return h2_guard_glitch(m, H2_GLITCH_CANCEL, 1);
    case NGHTTP2_SETTINGS:
        return h2_guard_glitch(m, H2_GLITCH_SETTINGS, 1);
    case NGHTTP2_PING:
        return h2_guard_glitch(m, H2_GLITCH_PING, 1);
    case NGHTTP2_WINDOW_UPDATE:
        return h2_guard_update(m, H2_GLITCH_WINDOW_UPDATE);
    case NGHTTP2_CONTINUATION:
        return h2_guard_glitch(m, H2_GLITCH_CONTINUATION, 1);
    default:
        return h2_guard_glitch(m, H2_GLITCH_UNKNOWN, 1);
    }
}

/*
 * To nghttp2, with a look at each frame's head: it tells nothing of frames that it ignores. What precedes a frame that
 * depends on the state of its stream is processed before the frame is looked at.
 */
ssize_t h2_guard_receive(struct h2_mux *m, const uint8_t *data, size_t len)
{
    struct h2_guard *guard = &m->guard;
    size_t at = 0, fed = 0;
    while (at < len) {
        size_t want = guard->skip > 0 ? guard->skip : sizeof guard->head - guard->head_len;
        size_t n = want < len - at ? want : len - at;
        size_t begin = at;
        at += n;
        if (guard->skip > 0) {
            guard->skip -= n;
            continue;
        }
        memcpy(guard->head + guard->head_len, data + begin, n);
        guard->head_len += n;
        if (guard->head_len < sizeof guard->head)
            break;
        guard->head_len = 0;
        guard->skip = length_of(guard->head);
        ssize_t status = check_frame(m, guard->head);
        bool settings = guard->head[3] == NGHTTP2_SETTINGS;
        if (status == 0 && (settings || guard->head[3] <= NGHTTP2_HEADERS)) {
            status = nghttp2_session_mem_recv(m->session, data + fed, begin - fed);
            fed = begin;
            if (settings)
                note_windows(m);
            else if (status >= 0)
                status = check_stream(m, guard->head[3], id_of(guard->head));
        }
        if (status < 0)
            return status;
    }
    return nghttp2_session_mem_recv(m->session, data + fed, len - fed);
}

/* A stream that nghttp2 refuses before our callbacks know of it; without this nothing would tell of it. */
static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data)
{
    struct h2_mux *m = user_data;
    bool unknown = !nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_HEADERS && unknown)
        COUNTER_INC(m->loop->counters, h2_streams_refused_total);
    return error == NGHTTP2_ERR_REFUSED_STREAM ? h2_guard_glitch(m, H2_GLITCH_REFUSED, 1) : 0;
}

void h2_guard_init(struct h2_mux *m)
{
    m->guard.next_id = 1;
    m->guard.skip = NGHTTP2_CLIENT_MAGIC_LEN;
}

void h2_guard_set_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
}
