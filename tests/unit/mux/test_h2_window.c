/* How wide the windows of an h2 server are; the client is as far away as the test says. */
#include "mux/h2_server_fixture.h"

#include <time.h>

enum { MIB = 1 << 20, WIDEST = 16 * MIB, WORKER_EXTRA = 64 * MIB };

static size_t stream_window(struct h2_fixture *h, int32_t id)
{
    int32_t window = nghttp2_session_get_stream_remote_window_size(h->client, id);
    return window > 0 ? (size_t)window : 0;
}

static uint64_t extra(struct h2_fixture *h)
{
    return atomic_load(&h->f->counters.h2_windows_extra_bytes);
}

static void set_extra_of_others(struct h2_fixture *h, uint64_t bytes)
{
    atomic_store(&h->f->counters.h2_windows_extra_bytes, bytes);
}

static bool all_has_come(const struct h2_fixture *h)
{
    return stream_bytes_in(h->f->mux->stream) == h->sent;
}

/* The client sends all that it may; the server takes it, and waits for more. Only then does its answer arrive. */
static void trip(struct h2_fixture *h)
{
    const uint8_t *data;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(h->client, &data)) > 0) {
        for (ssize_t at = 0; at < n;) {
            ssize_t sent = send(h->f->peer, data + at, (size_t)(n - at), MSG_NOSIGNAL | MSG_DONTWAIT);
            at += sent > 0 ? sent : 0;
            loop_turn(h->f->loop, 0);
        }
        h->sent += (uint64_t)n;
    }
    TURN_UNTIL(h->f->loop, all_has_come(h));
    loop_turn(h->f->loop, 0); /* for what was credited meanwhile */
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    client_turn(h);
}

static void begin_upload(struct h2_fixture *h, bool with_length, size_t size, bool ends)
{
    char length[24];
    snprintf(length, sizeof length, "%zu", size);
    const nghttp2_nv head[] = {pair_of(":method", "PUT"), pair_of(":scheme", "https"), pair_of(":authority", "a"),
                               pair_of(":path", "/"), pair_of("content-length", length)};
    nghttp2_data_provider body = {.read_callback = upload};
    both_open(h);
    AWAIT_TOLD(h, "settings 0;");
    h->to_upload = size;
    h->upload_ends = ends;
    assert_int_equal(nghttp2_submit_request(h->client, NULL, head, with_length ? 5 : 4, &body, NULL), 1);
}

/* Returns how wide the stream's window has become. */
static size_t go_on(struct h2_fixture *h)
{
    size_t widest = 0;
    nghttp2_session_resume_data(h->client, 1);
    while (h->to_upload > 0) {
        trip(h);
        widest = widest > stream_window(h, 1) ? widest : stream_window(h, 1);
    }
    return widest;
}

static void a_long_way_widens_the_window(void **state)
{
    struct h2_fixture *h = *state;
    begin_upload(h, false, 96 * MIB, false);
    assert_in_range(go_on(h), 15 * MIB, WIDEST);
    assert_in_range(extra(h), 12 * MIB, WIDEST);
    h->f->mux->ops->close(h->f->mux, STATUS_SHUTDOWN);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(extra(h), 0);
}

/* The end is known, so nothing is promised beyond it. */
static void what_was_promised_comes_back_with_the_end(void **state)
{
    struct h2_fixture *h = *state;
    begin_upload(h, true, 96 * MIB, true);
    assert_in_range(go_on(h), 15 * MIB, WIDEST);
    AWAIT_TOLD(h, "end 1;");
    TURN_UNTIL(h->f->loop, h->f->idles == 1);
    assert_int_equal(extra(h), 0);
    assert_in_range(nghttp2_session_get_remote_window_size(h->client), MIB / 2, 4 * MIB);
}

static void an_owner_that_stops_holds_one_window_at_most(void **state)
{
    struct h2_fixture *h = *state;
    begin_upload(h, false, 64 * MIB, false);
    go_on(h);
    h->f->credits = false;
    h->to_upload = 64 * MIB;
    nghttp2_session_resume_data(h->client, 1);
    for (int i = 0; i < 20; i++)
        trip(h);
    assert_in_range(h->f->uncredited, 8 * MIB, WIDEST);
    assert_int_equal(stream_window(h, 1), 0);
    assert_in_range(nghttp2_session_get_remote_window_size(h->client), MIB / 2, 4 * MIB); /* for others */
    assert_in_range(extra(h), 8 * MIB, WIDEST);
}

/* It credits, but what waits never gets less than half of the window. */
static void an_owner_that_is_slow_gets_a_narrower_window(void **state)
{
    struct h2_fixture *h = *state;
    begin_upload(h, false, 64 * MIB, false);
    go_on(h);
    h->f->credits = false;
    h->to_upload = 200 * MIB;
    nghttp2_session_resume_data(h->client, 1);
    for (int i = 0; i < 20; i++)
        trip(h);
    while (h->f->uncredited > MIB && h->to_upload > 0) {
        h->f->endpoint->ops->credit(h->f->endpoint, MIB / 4);
        h->f->uncredited -= MIB / 4;
        loop_turn(h->f->loop, 0);
        client_turn(h);
        TURN_UNTIL(h->f->loop, (client_turn(h), all_has_come(h) && stream_window(h, 1) == 0));
    }
    assert_in_range(h->f->uncredited, 0, MIB);
    TURN_UNTIL(h->f->loop, extra(h) == 0);
}

/* It is what is slow, not the way. */
static void a_slow_owner_widens_nothing(void **state)
{
    struct h2_fixture *h = *state;
    h->f->credits = false;
    begin_upload(h, false, 8 * MIB, false);
    while (h->to_upload > 0) {
        trip(h);
        assert_in_range(stream_window(h, 1), 0, MIB / 4);
        size_t piece = h->f->uncredited > 100000 ? h->f->uncredited - 100000 : h->f->uncredited;
        h->f->endpoint->ops->credit(h->f->endpoint, piece);
        h->f->uncredited -= piece;
    }
}

static void what_a_worker_promises_is_bounded(void **state)
{
    struct h2_fixture *h = *state;
    set_extra_of_others(h, WORKER_EXTRA);
    begin_upload(h, false, 48 * MIB, false);
    assert_in_range(go_on(h), MIB, 4 * MIB);
    assert_int_equal(extra(h), WORKER_EXTRA);
    set_extra_of_others(h, 0);
}

/* Of an upload without a length, the connection has much left that it may send: not while others need it. */
static void a_connection_with_a_wide_window_goes_when_others_need_it(void **state)
{
    struct h2_fixture *h = *state;
    begin_upload(h, false, 64 * MIB, true);
    set_extra_of_others(h, WORKER_EXTRA / 2);
    assert_in_range(go_on(h), 15 * MIB, WIDEST);
    AWAIT_TOLD(h, "end 1;");
    AWAIT_TOLD(h, "goaway 0;");
    TURN_UNTIL(h->f->loop, (client_turn(h), h->f->closed));
    assert_int_equal(extra(h), WORKER_EXTRA / 2);
    set_extra_of_others(h, 0);
}

/* ---- several uploads at once ---- */

struct upload {
    struct endpoint *endpoint;
    size_t received;
};

static void upload_head(void *owner, const struct message_head *head, bool end)
{
    (void)owner, (void)head, (void)end;
}

static void upload_body(void *owner, const char *data, size_t len, bool end)
{
    (void)data, (void)end;
    struct upload *u = owner;
    u->received += len;
    if (len > 0)
        u->endpoint->ops->credit(u->endpoint, len);
}

static void upload_reset(void *owner, enum status status)
{
    struct upload *u = owner;
    u->endpoint->ops->release(&u->endpoint, status);
}

static const struct endpoint_events upload_events = {.head = upload_head, .body = upload_body, .reset = upload_reset};

enum { UPLOADS = 8 };

struct uploads {
    struct mux_fixture *f;
    struct upload items[UPLOADS];
    unsigned count;
};

static void on_upload(void *owner, struct endpoint *endpoint)
{
    struct uploads *all = owner;
    struct upload *u = &all->items[all->count++];
    u->endpoint = endpoint;
    endpoint_bind(endpoint, &upload_events, u, &all->f->arena);
}

static void uploads_closed(void *owner, enum status status)
{
    struct uploads *all = owner;
    on_closed(all->f, status);
}

/* They share the connection's window, which opens to what they need together. */
static void many_uploads_widen_the_connection(void **state)
{
    struct h2_fixture *h = *state;
    static struct uploads all;
    static const struct mux_events events = {.request = on_upload, .closed = uploads_closed};
    all = (struct uploads){.f = h->f};
    both_open(h);
    h->f->mux->events = &events;
    h->f->mux->owner = &all;
    AWAIT_TOLD(h, "settings 0;");
    h->to_upload = 96 * MIB;
    for (int i = 0; i < UPLOADS; i++)
        ask(h, true);
    size_t widest = 0;
    while (h->to_upload > 0) {
        for (int i = 0; i < UPLOADS; i++)
            nghttp2_session_resume_data(h->client, 2 * i + 1);
        trip(h);
        size_t window = (size_t)nghttp2_session_get_remote_window_size(h->client);
        widest = widest > window ? widest : window;
    }
    assert_in_range(widest, 15 * MIB, 20 * MIB);
    for (int i = 0; i < UPLOADS; i++)
        assert_in_range(all.items[i].received, MIB, 96 * MIB);
    h->f->mux->ops->close(h->f->mux, STATUS_SHUTDOWN);
    TURN_UNTIL(h->f->loop, h->f->closed);
    assert_int_equal(extra(h), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_long_way_widens_the_window),
        TEST(what_was_promised_comes_back_with_the_end),
        TEST(an_owner_that_stops_holds_one_window_at_most),
        TEST(an_owner_that_is_slow_gets_a_narrower_window),
        TEST(a_slow_owner_widens_nothing),
        TEST(what_a_worker_promises_is_bounded),
        TEST(a_connection_with_a_wide_window_goes_when_others_need_it),
        TEST(many_uploads_widen_the_connection),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
