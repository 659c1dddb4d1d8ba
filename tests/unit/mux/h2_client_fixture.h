/* h2_client_fixture: an h2 mux as a client, with owners of its endpoints, and an nghttp2 server. */
#ifndef TESTS_UNIT_MUX_H2_CLIENT_FIXTURE_H
#define TESTS_UNIT_MUX_H2_CLIENT_FIXTURE_H

#include "mux/call.h"
#include "mux/mux_fixture.h"

#include "gateway/mux/h2_mux.h"

#include <nghttp2/nghttp2.h>

enum { MAX_CALLS = 8 };

struct h2_fixture {
    struct mux_fixture *f;
    nghttp2_session *server;
    struct inbox told; /* "head 1 :method=GET …;end 1;" … of the server */
    struct call calls[MAX_CALLS];
    unsigned load;
    bool by_bytes;   /* what the server says comes byte by byte */
    size_t to_send;  /* of a response body */
    size_t received; /* bytes of request bodies */
    bool body_ends;  /* with END_STREAM, else trailers follow */
};

/* ---- requests ---- */

static inline void call_send(struct h2_fixture *h, unsigned i, const char *method, bool end)
{
    struct message_head head = request_of(method, FIELDS_NONE);
    assert_true(call_open(&h->calls[i], h->f->mux));
    head.body = end ? BODY_NONE : BODY_CHUNKED;
    h->calls[i].endpoint->ops->send_head(h->calls[i].endpoint, &head, end);
}

/* ---- the server ---- */

static inline void tell(struct h2_fixture *h, const char *what, unsigned number)
{
    char text[64];
    snprintf(text, sizeof text, "%s %u;", what, number);
    inbox_add(&h->told, text, strlen(text));
}

static inline int server_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                                size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    (void)session, (void)frame, (void)flags;
    struct h2_fixture *h = user_data;
    inbox_add(&h->told, (const char *)name, name_len);
    inbox_add(&h->told, "=", 1);
    inbox_add(&h->told, (const char *)value, value_len);
    inbox_add(&h->told, ",", 1);
    return 0;
}

static inline int server_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)session;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        tell(user_data, "rst", frame->rst_stream.error_code);
    else if (frame->hd.type == NGHTTP2_GOAWAY)
        tell(user_data, "goaway", frame->goaway.error_code);
    else if (frame->hd.type == NGHTTP2_HEADERS)
        tell(user_data, "head", (unsigned)frame->hd.stream_id);
    if (frame->hd.type <= NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        tell(user_data, "end", (unsigned)frame->hd.stream_id);
    return 0;
}

static inline int server_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                              void *user_data)
{
    (void)session, (void)flags, (void)id, (void)data;
    struct h2_fixture *h = user_data;
    h->received += len;
    return 0;
}

static inline void server_say(struct h2_fixture *h)
{
    const uint8_t *data;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(h->server, &data)) > 0) {
        size_t step = h->by_bytes ? 1 : (size_t)n;
        for (ssize_t at = 0; at < n; at += (ssize_t)step) {
            (void)!send(h->f->peer, data + at, step, MSG_NOSIGNAL);
            if (h->by_bytes)
                loop_turn(h->f->loop, 0);
        }
    }
}

static inline void server_turn(struct h2_fixture *h)
{
    server_say(h);
    inbox_read(&h->f->inbox, h->f->peer);
    if (h->f->inbox.len > 0)
        nghttp2_session_mem_recv(h->server, (const uint8_t *)h->f->inbox.bytes, h->f->inbox.len);
    h->f->inbox.len = 0;
    server_say(h);
}

static inline bool is_told(struct h2_fixture *h, const char *text)
{
    server_turn(h);
    return h->told.bytes && strstr(h->told.bytes, text);
}

static inline bool has_event(struct h2_fixture *h, unsigned i, const char *text)
{
    server_turn(h);
    return strstr(h->calls[i].events.bytes, text) != NULL;
}

#define AWAIT_TOLD(h, text)    TURN_UNTIL((h)->f->loop, is_told(h, text))
#define AWAIT_CALL(h, i, text) TURN_UNTIL((h)->f->loop, has_event(h, i, text))

static inline nghttp2_nv pair_of(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

static inline ssize_t read_response(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *flags,
                                    nghttp2_data_source *source, void *user_data)
{
    (void)source;
    struct h2_fixture *h = user_data;
    size_t n = h->to_send < size ? h->to_send : size;
    memset(buffer, 'd', n);
    h->to_send -= n;
    if (h->to_send > 0)
        return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!h->body_ends) {
        const nghttp2_nv trailer = pair_of("x-sum", "abc");
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, &trailer, 1);
    }
    return (ssize_t)n;
}

static inline void respond(struct h2_fixture *h, int32_t id, const char *status, size_t bytes)
{
    const nghttp2_nv head[] = {pair_of(":status", status), pair_of("x-own", "yes")};
    nghttp2_data_provider body = {.read_callback = read_response};
    h->to_send = bytes;
    assert_int_equal(nghttp2_submit_response(h->server, id, head, 2, bytes > 0 ? &body : NULL), 0);
    server_say(h);
}

/* ---- set up ---- */

static inline int set_up(void **state)
{
    struct h2_fixture *h = calloc(1, sizeof *h);
    h->f = fixture_new();
    h->body_ends = true;
    *state = h;
    return 0;
}

static inline void client_open(struct h2_fixture *h)
{
    int pair[2];
    struct ip_addr addr = loopback_ip();
    tcp_pair(pair);
    h->f->peer = pair[0];
    struct stream *stream = stream_accept(h->f->loop, pair[1], &addr, 1, NULL, 0, &no_stream_events, NULL);
    h->f->mux = h2_mux_client(stream, &h->f->settings, &test_mux_events, h->f);
    h->f->mux->load = &h->load;
}

static inline void server_open(struct h2_fixture *h, const nghttp2_settings_entry *settings, size_t count)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_http_messaging(option, 1);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, server_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, server_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, server_data);
    nghttp2_session_server_new2(&h->server, callbacks, h, option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    nghttp2_submit_settings(h->server, NGHTTP2_FLAG_NONE, settings, count);
}

static inline void both_open(struct h2_fixture *h)
{
    client_open(h);
    server_open(h, NULL, 0);
}

static inline bool is_settled(struct h2_fixture *h)
{
    server_turn(h);
    unsigned limit;
    return h2_mux_client_limit(h->f->mux, &limit);
}

/* The server's SETTINGS have come. */
static inline void both_settle(struct h2_fixture *h, uint32_t max_streams)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams}};
    client_open(h);
    server_open(h, settings, 1);
    TURN_UNTIL(h->f->loop, is_settled(h));
}

static inline int tear_down(void **state)
{
    struct h2_fixture *h = *state;
    void *f = h->f;
    if (h->f->mux)
        h->f->mux->ops->close(h->f->mux, STATUS_SHUTDOWN);
    TURN_UNTIL(h->f->loop, !h->f->mux);
    assert_int_equal(h->load, 0);
    for (unsigned i = 0; i < MAX_CALLS; i++) {
        assert_null(h->calls[i].endpoint);
        inbox_clear(&h->calls[i].events);
    }
    fixture_tear_down(&f);
    nghttp2_session_del(h->server);
    inbox_clear(&h->told);
    free(h);
    return 0;
}

#endif
