/* Two TCP streams joined by stream_splice, with a peer at each end. */
#include "net/crowd.h"
#include "net/stream_owner.h"

static struct counters counters;

enum { LEN = 3000000 };

struct side {
    struct stream *stream;
    struct side *other;
    int peer;
    size_t copied;
    size_t moved;
    int eofs;
    int failures;
};

struct fixture {
    struct loop *loop;
    struct side a, b;
    struct inbox inbox;
    char *pattern;
};

static void on_nothing(void *owner)
{
    (void)owner;
}

static void on_data(void *owner, const char *data, size_t len)
{
    struct side *side = owner;
    side->copied += len;
    stream_write(side->other->stream, data, len);
    if (stream_room(side->other->stream) == 0)
        stream_pause(side->stream, STREAM_PAUSE_CREDIT);
}

static void on_moved(void *owner, size_t bytes)
{
    struct side *side = owner;
    side->moved += bytes;
}

static void on_room(void *owner)
{
    struct side *side = owner;
    stream_resume(side->other->stream, STREAM_PAUSE_CREDIT);
}

static void on_eof(void *owner)
{
    struct side *side = owner;
    side->eofs++;
    stream_shutdown(side->other->stream);
}

static void on_failed(void *owner, enum status status)
{
    struct side *side = owner;
    (void)status;
    side->failures++;
    stream_reset(&side->stream);
    if (side->other->stream)
        stream_reset(&side->other->stream);
}

static const struct stream_events events = {
    .ready = on_nothing, .data = on_data, .moved = on_moved, .eof = on_eof, .room = on_room, .failed = on_failed};

static void open_side(struct fixture *f, struct side *side, struct side *other)
{
    int pair[2];
    struct ip_addr addr = loopback_ip();
    tcp_pair(pair);
    side->peer = pair[0];
    side->other = other;
    side->stream = stream_accept(f->loop, pair[1], &addr, 1, NULL, 0, &events, side);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->loop = loop_new(&counters);
    f->pattern = pattern_new(LEN);
    open_side(f, &f->a, &f->b);
    open_side(f, &f->b, &f->a);
    stream_splice(f->a.stream, f->b.stream);
    stream_splice(f->b.stream, f->a.stream);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->a.stream)
        stream_reset(&f->a.stream);
    if (f->b.stream)
        stream_reset(&f->b.stream);
    TURN_UNTIL(f->loop, list_is_empty(&f->loop->streams));
    if (f->a.peer >= 0)
        close(f->a.peer);
    if (f->b.peer >= 0)
        close(f->b.peer);
    inbox_clear(&f->inbox);
    free(f->pattern);
    loop_free(&f->loop);
    free(f);
    return 0;
}

/* As much as the socket takes now; returns how much of the pattern has gone. */
static size_t push(struct fixture *f, size_t sent)
{
    while (sent < LEN) {
        ssize_t n = send(f->a.peer, f->pattern + sent, LEN - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    return sent;
}

static void bulk_goes_through_the_kernel(void **state)
{
    struct fixture *f = *state;
    size_t sent = 0;
    TURN_UNTIL(f->loop, (sent = push(f, sent)) == LEN && inbox_read(&f->inbox, f->b.peer) == LEN);
    assert_true(is_pattern(&f->inbox, f->pattern, LEN));
    assert_int_equal(f->a.copied + f->a.moved, LEN);
    assert_true(f->a.moved > LEN / 4);
    assert_int_equal(stream_bytes_in(f->a.stream), LEN);
    assert_int_equal(stream_bytes_out(f->b.stream), LEN);
    assert_in_range(f->loop->free_pipe_count, 1, 2); /* nobody holds one while nothing is on its way */
}

static void small_pieces_are_copied(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 1; i <= 50; i++) {
        send_text(f->a.peer, "ping");
        TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->b.peer) == 4 * i);
    }
    assert_int_equal(f->a.moved, 0);
    assert_int_equal(f->loop->free_pipe_count, 0);
}

static void a_slow_reader_gets_all_in_order(void **state)
{
    struct fixture *f = *state;
    size_t sent = 0;
    for (int i = 0; i < 200; i++) { /* until nothing moves any more */
        sent = push(f, sent);
        turn_some(f->loop);
    }
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->b.peer), sent = push(f, sent)) == LEN);
    shutdown(f->a.peer, SHUT_WR);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->b.peer));
    assert_true(is_pattern(&f->inbox, f->pattern, LEN));
    assert_int_equal(f->a.eofs, 1);
    send_text(f->b.peer, "the other way is open");
    inbox_clear(&f->inbox);
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->a.peer) == 21);
}

static void a_receiver_that_resets_ends_the_sender(void **state)
{
    struct fixture *f = *state;
    size_t sent = 0;
    for (int i = 0; i < 100; i++) {
        sent = push(f, sent);
        turn_some(f->loop);
    }
    close_hard(f->b.peer);
    f->b.peer = -1;
    TURN_UNTIL(f->loop, (sent = push(f, sent), f->b.failures + f->a.failures > 0));
    assert_true(list_is_empty(&f->loop->streams) || !f->a.stream);
}

static void a_sender_that_resets_in_bulk_is_no_orderly_end(void **state)
{
    struct fixture *f = *state;
    size_t sent = 0;
    TURN_UNTIL(f->loop, (sent = push(f, sent), inbox_read(&f->inbox, f->b.peer), f->a.moved > 0));
    close_hard(f->a.peer);
    f->a.peer = -1;
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->b.peer), f->a.failures == 1));
    assert_int_equal(f->a.eofs, 0);
}

static void last_words_before_a_reset(struct fixture *f)
{
    send_text(f->a.peer, "last words");
    close_hard(f->a.peer);
    f->a.peer = -1;
    TURN_UNTIL(f->loop, f->a.failures == 1);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->b.peer));
    assert_int_equal(f->inbox.error, ECONNRESET);
    assert_int_equal(f->inbox.len, 10);
    assert_string_equal(f->inbox.bytes, "last words");
}

static void what_was_said_before_a_reset_is_passed_on(void **state)
{
    last_words_before_a_reset(*state);
}

static void the_same_to_a_stream_that_is_flushed_late(void **state)
{
    struct fixture *f = *state;
    stream_set_late_flush(f->b.stream, true);
    last_words_before_a_reset(f);
}

/* There the end is an event of its own, before that of the round: a stream that begins to wait hears of it again. */
static void the_same_in_a_crowd(void **state)
{
    enum { CROWD = 40, TURNS = 40 };
    struct fixture *f = *state;
    struct crowd crowd;
    crowd_begin(&crowd, f->loop, CROWD);
    send_text(f->a.peer, "x");
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->b.peer) == 1);
    inbox_clear(&f->inbox);
    for (unsigned i = 0; i < TURNS; i++)
        loop_turn(f->loop, 0);
    assert_true(f->loop->is_crowded);
    stream_set_late_flush(f->b.stream, true);
    last_words_before_a_reset(f);
    crowd_end(&crowd);
}

static void what_was_said_before_the_peer_left_is_passed_on_though_writing_fails(void **state)
{
    struct fixture *f = *state;
    stream_pause(f->a.stream, STREAM_PAUSE_CREDIT);
    send_text(f->a.peer, "last words");
    close_hard(f->a.peer);
    f->a.peer = -1;
    turn_some(f->loop);
    send_text(f->b.peer, "to nobody");
    TURN_UNTIL(f->loop, f->b.copied == 9);
    stream_resume(f->a.stream, STREAM_PAUSE_CREDIT);
    TURN_UNTIL(f->loop, f->a.failures == 1);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->b.peer));
    assert_int_equal(f->inbox.len, 10);
}

/* A read ends at the urgent mark, with more behind it. */
static void what_follows_urgent_data_comes_too(void **state)
{
    struct fixture *f = *state;
    send_text(f->a.peer, "abc");
    assert_int_equal(send(f->a.peer, "!", 1, MSG_OOB), 1);
    send_text(f->a.peer, "def");
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->b.peer) == 6);
    send_text(f->a.peer, "ghi");
    assert_int_equal(send(f->a.peer, "!", 1, MSG_OOB), 1);
    send_text(f->a.peer, "jkl");
    shutdown(f->a.peer, SHUT_WR);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->b.peer));
    assert_string_equal(f->inbox.bytes, "abcdefghijkl");
    assert_int_equal(f->a.eofs, 1);
}

static void urgent_data_in_bulk_stops_nothing(void **state)
{
    struct fixture *f = *state;
    size_t sent = 0;
    TURN_UNTIL(f->loop, (sent = push(f, sent), inbox_read(&f->inbox, f->b.peer), f->a.moved > 0));
    while (send(f->a.peer, "!", 1, MSG_OOB | MSG_DONTWAIT) != 1) {
        inbox_read(&f->inbox, f->b.peer);
        loop_turn(f->loop, 2);
    }
    TURN_UNTIL(f->loop, (sent = push(f, sent)) == LEN && inbox_read(&f->inbox, f->b.peer) == LEN);
    assert_true(is_pattern(&f->inbox, f->pattern, LEN));
}

static void closing_one_side_frees_the_pair(void **state)
{
    struct fixture *f = *state;
    size_t sent = 0;
    for (int i = 0; i < 100; i++) { /* bytes are in the pipe */
        sent = push(f, sent);
        turn_some(f->loop);
    }
    stream_reset(&f->a.stream);
    TURN_UNTIL(f->loop, true);
    stream_close(&f->b.stream, false);
    TURN_UNTIL(f->loop, (inbox_read(&f->inbox, f->b.peer), list_is_empty(&f->loop->streams)));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(bulk_goes_through_the_kernel),
        TEST(small_pieces_are_copied),
        TEST(a_slow_reader_gets_all_in_order),
        TEST(a_receiver_that_resets_ends_the_sender),
        TEST(a_sender_that_resets_in_bulk_is_no_orderly_end),
        TEST(what_was_said_before_a_reset_is_passed_on),
        TEST(the_same_to_a_stream_that_is_flushed_late),
        TEST(the_same_in_a_crowd),
        TEST(what_was_said_before_the_peer_left_is_passed_on_though_writing_fails),
        TEST(what_follows_urgent_data_comes_too),
        TEST(urgent_data_in_bulk_stops_nothing),
        TEST(closing_one_side_frees_the_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
