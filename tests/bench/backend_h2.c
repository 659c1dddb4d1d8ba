#include "backend_h2.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STREAMS = 1000, WINDOW = 1 << 24 };

struct backend_h2 {
    nghttp2_session *session;
    unsigned host;
    char host_name[TRAFFIC_HOST_MAX];
    uint8_t reply[TRAFFIC_PREFIX_BYTES + TRAFFIC_REPLY_BYTES];
};

struct call {
    bool has_host, has_client, has_scheme; /* the fields that a proxy must have sent */
    size_t taken;                          /* of the message, prefix included */
};

static bool is_field(const char *expected_name, const char *expected, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length)
{
    return name_length == strlen(expected_name) && memcmp(name, expected_name, name_length) == 0 &&
           value_length == strlen(expected) && memcmp(value, expected, value_length) == 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct call *call = calloc(1, sizeof *call);
    (void)user_data;
    if (!call)
        traffic_die("backend: no memory");
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user_data)
{
    const struct backend_h2 *h2 = user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags;
    call->has_host |= is_field(":authority", h2->host_name, name, name_length, value, value_length) ||
                      is_field("host", h2->host_name, name, name_length, value, value_length);
    call->has_client |= is_field("x-forwarded-for", "127.0.0.1", name, name_length, value, value_length);
    call->has_scheme |= is_field("x-forwarded-proto", "https", name, name_length, value, value_length);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t length,
                   void *user_data)
{
    const struct backend_h2 *h2 = user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, id);
    uint8_t message[TRAFFIC_PREFIX_BYTES + TRAFFIC_CALL_BYTES];
    (void)flags;
    traffic_prefix(TRAFFIC_CALL_BYTES, message);
    memcpy(message + TRAFFIC_PREFIX_BYTES, traffic_pattern(0), TRAFFIC_CALL_BYTES);
    if (length > sizeof message - call->taken || memcmp(message + call->taken, data, length) != 0)
        traffic_die("backend: host %u got a wrong message", h2->host);
    call->taken += length;
    return 0;
}

static ssize_t read_reply(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *ret_flags,
                          nghttp2_data_source *source, void *user_data)
{
    static const char name[] = "grpc-status", value[] = "0";
    const struct backend_h2 *h2 = source->ptr;
    nghttp2_nv trailer = {(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, sizeof name - 1, sizeof value - 1,
                          NGHTTP2_NV_FLAG_NONE};
    (void)user_data;
    if (size < sizeof h2->reply || nghttp2_submit_trailer(session, id, &trailer, 1) != 0)
        traffic_die("backend: no room for a reply");
    memcpy(buffer, h2->reply, sizeof h2->reply);
    *ret_flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return sizeof h2->reply;
}

static void reply(struct backend_h2 *h2, int32_t id, const struct call *call)
{
    static char names[3][16] = {":status", "content-type", "server"};
    static char values[3][20] = {"200", "application/grpc", "backend"};
    nghttp2_data_provider body = {{.ptr = h2}, read_reply};
    nghttp2_nv fields[3];
    if (!call->has_host || !call->has_client || !call->has_scheme ||
        call->taken != TRAFFIC_PREFIX_BYTES + TRAFFIC_CALL_BYTES)
        traffic_die("backend: host %u got a call with %s host, %s X-Forwarded-For, %s X-Forwarded-Proto, %zu bytes",
                    h2->host, call->has_host ? "its" : "another", call->has_client ? "right" : "wrong",
                    call->has_scheme ? "right" : "wrong", call->taken);
    for (size_t i = 0; i < 3; i++)
        fields[i] = (nghttp2_nv){(uint8_t *)names[i], (uint8_t *)values[i], strlen(names[i]), strlen(values[i]),
                                 NGHTTP2_NV_FLAG_NONE};
    if (nghttp2_submit_response(h2->session, id, fields, 3, &body) != 0)
        traffic_die("backend: no memory");
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    bool ends = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (ends && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        reply(user_data, frame->hd.stream_id, nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user_data)
{
    (void)error;
    (void)user_data;
    free(nghttp2_session_get_stream_user_data(session, id));
    return 0;
}

struct backend_h2 *backend_h2_new(unsigned host, unsigned port)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS},
    };
    static nghttp2_session_callbacks *callbacks;
    struct backend_h2 *h2 = calloc(1, sizeof *h2);
    if (!callbacks && nghttp2_session_callbacks_new(&callbacks) == 0) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    }
    if (!h2 || !callbacks || nghttp2_session_server_new(&h2->session, callbacks, h2) != 0 ||
        nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, 1) != 0 ||
        nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, WINDOW) != 0)
        traffic_die("backend: no memory");
    h2->host = host;
    traffic_host_name(host, port, h2->host_name);
    char tag[TRAFFIC_TAG_BYTES + 1];
    traffic_tag(host, tag);
    traffic_prefix(TRAFFIC_REPLY_BYTES, h2->reply);
    memcpy(h2->reply + TRAFFIC_PREFIX_BYTES, traffic_pattern(0), TRAFFIC_REPLY_BYTES);
    memcpy(h2->reply + TRAFFIC_PREFIX_BYTES, tag, TRAFFIC_TAG_BYTES);
    return h2;
}

void backend_h2_free(struct backend_h2 **h2)
{
    if (!*h2)
        return;
    nghttp2_session_del((*h2)->session);
    free(*h2);
    *h2 = NULL;
}

void backend_h2_feed(struct backend_h2 *h2, const uint8_t *data, size_t length)
{
    ssize_t taken = nghttp2_session_mem_recv(h2->session, data, length);
    if (taken != (ssize_t)length)
        traffic_die("backend: host %u: %s", h2->host, nghttp2_strerror((int)taken));
}

size_t backend_h2_next(struct backend_h2 *h2, const uint8_t **ret_data)
{
    ssize_t length = nghttp2_session_mem_send(h2->session, ret_data);
    if (length < 0)
        traffic_die("backend: host %u: %s", h2->host, nghttp2_strerror((int)length));
    return (size_t)length;
}
