/* HTTP/2 and gRPC over it, a fixed number of streams at a time on a connection, by nghttp2 (RFC 9113). */
#include "load.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The windows of a browser. ROOM: of `out`, for one more frame. */
enum { STREAM_WINDOW = 6 << 20, CONNECTION_WINDOW = 15 << 20, ROOM = 32 * 1024 };

struct h2_stream {
    bool is_ok;       /* the status is 200, and that of gRPC, in trailers, 0 */
    size_t prefix_at; /* of the message in the answer; gRPC only */
    uint64_t body_at, upload_at;
};

static struct load_conn *conn_of(void *user_data)
{
    return user_data;
}

static bool is_grpc(void)
{
    return load_options.protocol == &load_grpc;
}

static ssize_t read_call(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *ret_flags,
                         nghttp2_data_source *source, void *user_data)
{
    struct h2_stream *stream = source->ptr;
    (void)session;
    (void)id;
    if (size < TRAFFIC_PREFIX_BYTES + TRAFFIC_CALL_BYTES)
        load_fail(conn_of(user_data), "no room for a message");
    traffic_prefix(TRAFFIC_CALL_BYTES, buffer);
    memcpy(buffer + TRAFFIC_PREFIX_BYTES, traffic_pattern(0), TRAFFIC_CALL_BYTES);
    stream->upload_at = TRAFFIC_CALL_BYTES;
    *ret_flags |= NGHTTP2_DATA_FLAG_EOF;
    return TRAFFIC_PREFIX_BYTES + TRAFFIC_CALL_BYTES;
}

static ssize_t read_upload(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *ret_flags,
                           nghttp2_data_source *source, void *user_data)
{
    struct h2_stream *stream = source->ptr;
    uint64_t left = load_options.upload_bytes - stream->upload_at;
    size_t piece = left < size ? (size_t)left : size;
    (void)session;
    (void)id;
    (void)user_data;
    memcpy(buffer, traffic_pattern(stream->upload_at), piece);
    stream->upload_at += piece;
    load_count_bytes(piece);
    if (stream->upload_at == load_options.upload_bytes)
        *ret_flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)piece;
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NONE};
}

static void submit(struct load_conn *conn, struct h2_stream *stream, const nghttp2_nv *fields, size_t count)
{
    nghttp2_data_provider body = {{.ptr = stream}, is_grpc() ? read_call : read_upload};
    bool uploads = load_options.upload_bytes > 0;
    *stream = (struct h2_stream){0};
    int32_t id = nghttp2_submit_request(conn->h2, NULL, fields, count, uploads ? &body : NULL, stream);
    if (id < 0)
        load_fail(conn, "nghttp2_submit_request: %s", nghttp2_strerror(id));
    conn->requests++;
}

static void begin_request(struct load_conn *conn, struct h2_stream *stream)
{
    char path[40], length[24];
    bool uploads = load_options.upload_bytes > 0;
    snprintf(path, sizeof path, "/bytes/%llu", (unsigned long long)load_options.answer_bytes);
    snprintf(length, sizeof length, "%llu", (unsigned long long)load_options.upload_bytes);
    nghttp2_nv fields[] = {
        field(":method", uploads ? "POST" : "GET"),
        field(":scheme", "https"),
        field(":authority", conn->host_name),
        field(":path", uploads ? "/upload" : path),
        field("user-agent", LOAD_USER_AGENT),
        field("accept", LOAD_ACCEPT),
        field("accept-language", "en-US,en;q=0.5"),
        field("cookie", LOAD_COOKIE),
        field("content-length", length),
    };
    submit(conn, stream, fields, sizeof fields / sizeof fields[0] - !uploads);
}

static void begin_call(struct load_conn *conn, struct h2_stream *stream)
{
    const nghttp2_nv fields[] = {
        field(":method", "POST"),
        field(":scheme", "https"),
        field(":path", "/bench.Bench/Call"),
        field(":authority", conn->host_name),
        field("content-type", "application/grpc"),
        field("user-agent", "grpc-c/31.0.0 (linux; chttp2)"),
        field("te", "trailers"),
        field("grpc-accept-encoding", "identity, deflate, gzip"),
        field("authorization", "Bearer 5f2b8c0e9d7a4c61b3e0f4a8d2c79b16"),
    };
    submit(conn, stream, fields, sizeof fields / sizeof fields[0]);
}

static void begin(struct load_conn *conn, struct h2_stream *stream)
{
    if (is_grpc())
        begin_call(conn, stream);
    else
        begin_request(conn, stream);
}

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user_data)
{
    struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
    bool is_trailer = frame->headers.cat == NGHTTP2_HCAT_HEADERS;
    const char *expected_name = is_trailer ? "grpc-status" : ":status", *expected = is_trailer ? "0" : "200";
    (void)flags;
    if (name_length != strlen(expected_name) || memcmp(name, expected_name, name_length) != 0)
        return 0;
    if (value_length != strlen(expected) || memcmp(value, expected, value_length) != 0)
        load_fail(conn_of(user_data), "%s is %.*s", expected_name, (int)value_length, (const char *)value);
    if (stream)
        stream->is_ok = is_trailer == is_grpc();
    return 0;
}

/* Takes the part of a message's prefix that is in `data`; returns its length. */
static size_t check_prefix(const struct load_conn *conn, struct h2_stream *stream, const uint8_t *data, size_t length)
{
    uint8_t prefix[TRAFFIC_PREFIX_BYTES];
    size_t left = sizeof prefix - stream->prefix_at, taken = length < left ? length : left;
    traffic_prefix(TRAFFIC_REPLY_BYTES, prefix);
    if (memcmp(prefix + stream->prefix_at, data, taken) != 0)
        load_fail(conn, "the message is not one of %d bytes", TRAFFIC_REPLY_BYTES);
    stream->prefix_at += taken;
    return taken;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t length,
                   void *user_data)
{
    struct load_conn *conn = conn_of(user_data);
    struct h2_stream *stream = stream_of(session, id);
    (void)flags;
    if (!stream)
        return 0;
    size_t prefix = is_grpc() ? check_prefix(conn, stream, data, length) : 0;
    load_check_body(conn, stream->body_at, data + prefix, length - prefix);
    stream->body_at += length - prefix;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user_data)
{
    struct load_conn *conn = conn_of(user_data);
    struct h2_stream *stream = stream_of(session, id);
    if (!stream || error != NGHTTP2_NO_ERROR || !stream->is_ok)
        load_fail(conn, "stream %d ended with %s", id, nghttp2_http2_strerror(error));
    if (stream->body_at != load_options.answer_bytes || stream->upload_at != load_options.upload_bytes)
        load_fail(conn, "stream %d ended after %llu bytes of the answer and %llu of the upload", id,
                  (unsigned long long)stream->body_at, (unsigned long long)stream->upload_at);
    conn->requests--;
    load_answered(conn);
    if (load_wants_request(conn))
        begin(conn, stream);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)session;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        load_fail(conn_of(user_data), "GOAWAY: %s", nghttp2_http2_strerror(frame->goaway.error_code));
    return 0;
}

static nghttp2_session *new_session(struct load_conn *conn)
{
    static nghttp2_session_callbacks *callbacks;
    nghttp2_session *session = NULL;
    if (!callbacks && nghttp2_session_callbacks_new(&callbacks) == 0) {
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    }
    if (!callbacks || nghttp2_session_client_new(&session, callbacks, conn) != 0)
        load_fail(conn, "no memory");
    return session;
}

static void h2_open(struct load_conn *conn)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
    };
    conn->h2 = new_session(conn);
    conn->streams = calloc(load_options.streams, sizeof *conn->streams);
    if (!conn->streams || nghttp2_submit_settings(conn->h2, NGHTTP2_FLAG_NONE, settings, 2) != 0 ||
        nghttp2_session_set_local_window_size(conn->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) != 0)
        load_fail(conn, "no memory");
    for (unsigned i = 0; i < load_options.streams; i++)
        begin(conn, &conn->streams[i]);
}

static void h2_input(struct load_conn *conn, const uint8_t *data, size_t length)
{
    ssize_t taken = nghttp2_session_mem_recv(conn->h2, data, length);
    if (taken != (ssize_t)length)
        load_fail(conn, "HTTP/2: %s", nghttp2_strerror((int)taken));
}

static void h2_fill(struct load_conn *conn)
{
    const uint8_t *data;
    ssize_t length = 1;
    while (length > 0 && load_out_room(conn) >= ROOM) {
        length = nghttp2_session_mem_send(conn->h2, &data);
        if (length < 0)
            load_fail(conn, "nghttp2_session_mem_send: %s", nghttp2_strerror((int)length));
        if (length > 0)
            load_put(conn, data, (size_t)length);
    }
}

static void h2_close(struct load_conn *conn)
{
    nghttp2_session_del(conn->h2);
    free(conn->streams);
    conn->h2 = NULL;
    conn->streams = NULL;
}

const struct load_protocol load_h2 = {"h2", "h2", h2_open, h2_input, h2_fill, h2_close};
const struct load_protocol load_grpc = {"grpc", "h2", h2_open, h2_input, h2_fill, h2_close};
