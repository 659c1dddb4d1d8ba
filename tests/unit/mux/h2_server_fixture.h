/* h2_server_fixture: an h2 mux as a server, and an nghttp2 client that does what the test tells it to. */
#ifndef TESTS_UNIT_MUX_H2_SERVER_FIXTURE_H
#define TESTS_UNIT_MUX_H2_SERVER_FIXTURE_H

#include "mux/mux_fixture.h"

#include "gateway/mux/h2_mux.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>

static inline nghttp2_nv pair_of(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

struct h2_fixture {
    struct mux_fixture *f;
    nghttp2_session *client;
    struct inbox told; /* "200;data 2;end;" … of the client */
    size_t received;   /* bytes of DATA */
    uint64_t sent;     /* bytes */
    size_t to_upload;
    bool upload_ends;
};

/* ---- the client ---- */

static inline void tell(struct h2_fixture *h, const char *what, unsigned number)
{
    char text[64];
    snprintf(text, sizeof text, "%s %u;", what, number);
    inbox_add(&h->told, text, strlen(text));
}

static inline int client_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                                size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    (void)session, (void)frame, (void)flags, (void)value_len;
    if (name_len == 7 && memcmp(name, ":status", 7) == 0)
        tell(user_data, "status", (unsigned)atoi((const char *)value));
    return 0;
}

static inline int client_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)session;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        tell(user_data, "rst", frame->rst_stream.error_code);
    else if (frame->hd.type == NGHTTP2_GOAWAY)
        tell(user_data, "goaway", frame->goaway.error_code);
    else if (frame->hd.type == NGHTTP2_SETTINGS)
        tell(user_data, "settings", frame->hd.flags);
    else if (frame->hd.type <= NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        tell(user_data, "end", (unsigned)frame->hd.stream_id);
    return 0;
}

static inline int client_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                              void *user_data)
{
    (void)session, (void)flags, (void)id, (void)data;
    struct h2_fixture *h = user_data;
    h->received += len;
    return 0;
}

static inline ssize_t upload(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *flags,
                             nghttp2_data_source *source, void *user_data)
{
    (void)session, (void)id, (void)source;
    struct h2_fixture *h = user_data;
    size_t n = h->to_upload < size ? h->to_upload : size;
    memset(buffer, 'u', n);
    h->to_upload -= n;
    if (h->to_upload == 0 && h->upload_ends)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (n == 0)
        return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)n;
}

static inline void client_turn(struct h2_fixture *h)
{
    const uint8_t *data;
    ssize_t n;
    for (; (n = nghttp2_session_mem_send(h->client, &data)) > 0; h->sent += (uint64_t)n)
        (void)!send(h->f->peer, data, (size_t)n, MSG_NOSIGNAL);
    inbox_read(&h->f->inbox, h->f->peer);
    if (h->f->inbox.len > 0)
        nghttp2_session_mem_recv(h->client, (const uint8_t *)h->f->inbox.bytes, h->f->inbox.len);
    h->f->inbox.len = 0;
}

static inline bool is_told(struct h2_fixture *h, const char *text)
{
    client_turn(h);
    return h->told.bytes && strstr(h->told.bytes, text);
}

#define AWAIT_TOLD(h, text) TURN_UNTIL((h)->f->loop, is_told(h, text))

static inline void ask(struct h2_fixture *h, bool post)
{
    const nghttp2_nv head[] = {pair_of(":method", post ? "POST" : "GET"), pair_of(":scheme", "https"),
                               pair_of(":authority", "a"), pair_of(":path", "/")};
    nghttp2_data_provider body = {.read_callback = upload};
    assert_true(nghttp2_submit_request(h->client, NULL, head, 4, post ? &body : NULL, NULL) > 0);
    client_turn(h);
}

static inline void client_open(struct h2_fixture *h, uint32_t window)
{
    nghttp2_session_callbacks *callbacks;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window}};
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, client_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, client_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, client_data);
    nghttp2_session_client_new(&h->client, callbacks, h);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(h->client, NGHTTP2_FLAG_NONE, settings, 1);
    client_turn(h);
}

/* ---- set up ---- */

static inline int set_up(void **state)
{
    struct h2_fixture *h = calloc(1, sizeof *h);
    h->f = fixture_new();
    h->f->on_complete = answer_ok;
    *state = h;
    return 0;
}

static inline void server_open(struct h2_fixture *h)
{
    int pair[2];
    struct ip_addr addr = loopback_ip();
    tcp_pair(pair);
    setsockopt(pair[1], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* as the listener does */
    h->f->peer = pair[0];
    struct stream *stream = stream_accept(h->f->loop, pair[1], &addr, 1, NULL, 0, &no_stream_events, NULL);
    h->f->mux = h2_mux_server(stream, &h->f->settings, &test_mux_events, h->f);
}

static inline void both_open(struct h2_fixture *h)
{
    server_open(h);
    client_open(h, 65535);
}

static inline int tear_down(void **state)
{
    struct h2_fixture *h = *state;
    void *f = h->f;
    fixture_tear_down(&f);
    nghttp2_session_del(h->client);
    inbox_clear(&h->told);
    free(h);
    return 0;
}

#endif
