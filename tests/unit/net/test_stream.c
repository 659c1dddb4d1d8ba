/* Streams over TCP; test_stream_tls.c has those over TLS. */
#include "../../../gateway/net/stream_internal.h"

#include "net/crowd.h"
#include "net/stream_owner.h"

#include <netinet/tcp.h>

static struct counters counters;

struct fixture {
    struct loop *loop;
    struct stream_owner owner;
    int peer;
    struct inbox inbox; /* of the peer */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    int pair[2];
    struct ip_addr addr = loopback_ip();
    f->loop = loop_new(&counters);
    tcp_pair(pair);
    f->peer = pair[0];
    f->owner.stream = stream_accept(f->loop, pair[1], &addr, 4711, NULL, 0, &owner_events, &f->owner);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    owner_end(f->loop, &f->owner);
    if (f->peer >= 0)
        close(f->peer);
    inbox_clear(&f->inbox);
    loop_free(&f->loop);
    free(f);
    return 0;
}

static void shrink_buffers(struct fixture *f)
{
    int bytes = 131072; /* less than a few segments of loopback would be slow, not small */
    setsockopt(f->peer, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

static void data_goes_both_ways(void **state)
{
    struct fixture *f = *state;
    send_text(f->peer, "hello");
    stream_write(f->owner.stream, "welcome", 7);
    TURN_UNTIL(f->loop, f->owner.in.len == 5 && inbox_read(&f->inbox, f->peer) == 7);
    assert_string_equal(f->owner.in.bytes, "hello");
    assert_string_equal(f->inbox.bytes, "welcome");
    assert_int_equal(stream_bytes_in(f->owner.stream), 5);
    assert_int_equal(stream_bytes_out(f->owner.stream), 7);
    char line[256];
    assert_in_range(stream_dump(f->owner.stream, line, sizeof line), 10, sizeof line);
    assert_non_null(strstr(line, "state=open"));
    assert_false(stream_is_tls(f->owner.stream));
}

static void the_peer_may_end_first(void **state)
{
    struct fixture *f = *state;
    send_text(f->peer, "last words");
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    assert_string_equal(f->owner.in.bytes, "last words");
    assert_true(stream_has_eof(f->owner.stream));
    stream_write(f->owner.stream, "still here", 10);
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->peer) == 10);
    assert_false(f->inbox.ended);
    stream_close(&f->owner.stream, false);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_int_equal(f->inbox.error, 0);
    assert_int_equal(f->owner.eofs, 1);
}

static void we_may_end_first(void **state)
{
    struct fixture *f = *state;
    stream_write(f->owner.stream, "bye", 3);
    stream_shutdown(f->owner.stream);
    stream_shutdown(f->owner.stream);
    stream_write(f->owner.stream, "too late", 8);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_string_equal(f->inbox.bytes, "bye");
    assert_true(f->inbox.ended);
    send_text(f->peer, "one more thing");
    TURN_UNTIL(f->loop, f->owner.in.len == 14);
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
}

static void a_pause_holds_data_and_loses_nothing(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 4 * LOOP_SCRATCH_BYTES };
    char *pattern = pattern_new(LEN);
    size_t sent = 0;
    f->owner.pauses_on_data = true;
    int pieces = 0;
    for (uint64_t begun = sockets_now_ms(); f->owner.in.len < LEN; pieces++) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        ssize_t n = send(f->peer, pattern + sent, LEN - sent, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        if (sent == LEN)
            shutdown(f->peer, SHUT_WR);
        size_t before = f->owner.in.len;
        turn_some(f->loop);
        assert_true(f->owner.in.len - before <= LOOP_SCRATCH_BYTES);
        stream_resume(f->owner.stream, STREAM_PAUSE_CREDIT);
    }
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    assert_true(is_pattern(&f->owner.in, pattern, LEN));
    assert_true(pieces >= LEN / LOOP_SCRATCH_BYTES);
    free(pattern);
}

static void every_reason_must_end_before_reading_goes_on(void **state)
{
    struct fixture *f = *state;
    stream_pause(f->owner.stream, STREAM_PAUSE_OWNER);
    stream_pause(f->owner.stream, STREAM_PAUSE_CREDIT);
    send_text(f->peer, "held");
    shutdown(f->peer, SHUT_WR);
    turn_some(f->loop);
    stream_resume(f->owner.stream, STREAM_PAUSE_OWNER);
    turn_some(f->loop);
    assert_int_equal(f->owner.in.len + (size_t)f->owner.eofs, 0);
    stream_resume(f->owner.stream, STREAM_PAUSE_CREDIT);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    assert_string_equal(f->owner.in.bytes, "held");
}

static void a_peer_that_does_not_read_takes_away_room(void **state)
{
    struct fixture *f = *state;
    char *pattern = pattern_new(65536);
    size_t written = 0;
    shrink_buffers(f);
    for (size_t room; (room = stream_room(f->owner.stream)) > 0; written += 65536) {
        assert_true(room <= STREAM_HIGH_MARK);
        stream_write(f->owner.stream, pattern, 65536);
        loop_turn(f->loop, 0);
    }
    assert_true(stream_queued(f->owner.stream) >= STREAM_HIGH_MARK);
    assert_true(stream_queued(f->owner.stream) < STREAM_HIGH_MARK + 65536U);
    turn_some(f->loop);
    assert_int_equal(f->owner.rooms, 0);
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->peer) == written);
    assert_int_equal(f->owner.rooms, 1);
    assert_int_equal(stream_queued(f->owner.stream), 0);
    for (size_t i = 0; i < written; i += 65536)
        assert_memory_equal(f->inbox.bytes + i, pattern, 65536);
    free(pattern);
}

static void close_delivers_what_is_queued(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 12000000 };
    char *pattern = pattern_new(LEN);
    shrink_buffers(f);
    stream_write(f->owner.stream, pattern, LEN);
    stream_close(&f->owner.stream, false);
    assert_null(f->owner.stream);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_true(f->inbox.ended);
    assert_true(is_pattern(&f->inbox, pattern, LEN));
    free(pattern);
}

/* More blocks in the queue than one writev takes, and a large write that finds the way free: order must hold. */
static void a_large_write_does_not_overtake_a_long_queue(void **state)
{
    struct fixture *f = *state;
    enum { QUEUED = 3000000, MORE = 100000 };
    char *pattern = pattern_new(QUEUED + MORE);
    for (size_t i = 0; i < QUEUED; i += 4000) /* each too small to go at once: all wait for the end of the callback */
        stream_write(f->owner.stream, pattern + i, QUEUED - i < 4000 ? QUEUED - i : 4000);
    stream_write(f->owner.stream, pattern + QUEUED, MORE);
    stream_shutdown(f->owner.stream);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_true(is_pattern(&f->inbox, pattern, QUEUED + MORE));
    free(pattern);
}

static void close_with_linger_outlives_late_bytes_of_the_peer(void **state)
{
    struct fixture *f = *state;
    stream_write(f->owner.stream, "413", 3);
    stream_close(&f->owner.stream, true);
    send_text(f->peer, "a body that nobody wants");
    turn_some(f->loop);
    send_text(f->peer, "more of it");
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_string_equal(f->inbox.bytes, "413");
    assert_true(f->inbox.ended);
    assert_int_equal(f->owner.in.len, 0);
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, list_is_empty(&f->loop->streams));
}

/* How much more it takes now. */
static size_t fill(int fd)
{
    static const char bytes[65536];
    ssize_t n = send(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n > 0 ? (size_t)n : 0;
}

/* Else the peer, which reads once it has sent all, would be stuck with us, each in its send. */
static void close_with_linger_reads_what_a_paused_stream_has_left(void **state)
{
    struct fixture *f = *state;
    stream_pause(f->owner.stream, STREAM_PAUSE_CREDIT);
    for (int full = 0; full < 60; full = fill(f->peer) == 0 ? full + 1 : 0) /* over the peer's window probes */
        loop_turn(f->loop, 10);
    enum { LEN = 12000000 }; /* more than kernels buffer */
    char *answer = pattern_new(LEN);
    stream_write(f->owner.stream, answer, LEN);
    stream_close(&f->owner.stream, true);
    size_t rest = 0;
    TURN_UNTIL(f->loop, (rest += fill(f->peer)) >= LEN);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_true(is_pattern(&f->inbox, answer, LEN));
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, list_is_empty(&f->loop->streams));
    free(answer);
}

/* The moment for late bytes begins when the last answer is out, not before. */
static void a_slow_reader_gets_all_of_a_lingering_answer(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 12000000 }; /* more than kernels buffer */
    char *pattern = pattern_new(LEN);
    shrink_buffers(f);
    stream_write(f->owner.stream, pattern, LEN);
    stream_close(&f->owner.stream, true);
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() - begun < 2500;)
        loop_turn(f->loop, 50);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_true(is_pattern(&f->inbox, pattern, LEN));
    free(pattern);
}

static void reset_ends_at_once(void **state)
{
    struct fixture *f = *state;
    stream_write(f->owner.stream, "lost", 4);
    stream_reset(&f->owner.stream);
    assert_null(f->owner.stream);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_int_equal(f->inbox.error, ECONNRESET);
    assert_true(list_is_empty(&f->loop->streams));
}

static void a_reset_is_told(void **state)
{
    struct fixture *f = *state;
    close_hard(f->peer);
    f->peer = -1;
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_PEER_RESET);
}

/* Both come as one event; data alone would leave the stream open for ever. No timer has to look for it. */
static void a_reset_right_behind_data_is_told(void **state)
{
    struct fixture *f = *state;
    send_text(f->peer, "half ");
    TURN_UNTIL(f->loop, f->owner.in.len == 5);
    assert_false(timer_is_armed(&f->owner.stream->timer));
    send_text(f->peer, "an answer");
    close_hard(f->peer);
    f->peer = -1;
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_string_equal(f->owner.in.bytes, "half an answer");
    assert_int_equal(f->owner.status, STATUS_PEER_RESET);
}

static void a_peer_that_left_is_found_by_writing_even_when_reading_is_paused(void **state)
{
    struct fixture *f = *state;
    stream_pause(f->owner.stream, STREAM_PAUSE_OWNER);
    close_hard(f->peer);
    f->peer = -1;
    turn_some(f->loop);
    assert_int_equal(f->owner.failures, 0);
    stream_write(f->owner.stream, "anyone?", 7);
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_PEER_RESET);
}

/* As if its time had come. */
static void fire_timer(struct stream *stream)
{
    assert_true(timer_is_armed(&stream->timer));
    stream->timer.fire(&stream->timer);
}

static void a_peer_that_left_may_keep_a_stream_paused_for_a_while_only(void **state)
{
    struct fixture *f = *state;
    stream_pause(f->owner.stream, STREAM_PAUSE_CREDIT);
    close_hard(f->peer);
    f->peer = -1;
    turn_some(f->loop);
    stream_write(f->owner.stream, "anyone?", 7);
    turn_some(f->loop);
    assert_int_equal(f->owner.failures, 0);
    fire_timer(f->owner.stream);
    assert_int_equal(f->owner.failures, 1);
    assert_int_equal(f->owner.status, STATUS_PEER_RESET);
}

static void what_the_peer_said_before_it_left_is_heard_though_writing_fails(void **state)
{
    struct fixture *f = *state;
    stream_pause(f->owner.stream, STREAM_PAUSE_CREDIT);
    send_text(f->peer, "early answer");
    stream_write(f->owner.stream, "x", 1); /* unread at the peer: its close is a reset */
    turn_some(f->loop);
    close(f->peer);
    f->peer = -1;
    turn_some(f->loop);
    stream_write(f->owner.stream, "y", 1);
    turn_some(f->loop);
    stream_resume(f->owner.stream, STREAM_PAUSE_CREDIT);
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_string_equal(f->owner.in.bytes, "early answer");
}

/* Reading, when it goes on, finds nothing: the error was told to the write. It must not pass for an end in order. */
static void a_peer_that_vanished_is_no_end(void **state)
{
    struct fixture *f = *state;
    unsigned most_ms = 1;
    setsockopt(f->owner.stream->fd.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &most_ms, sizeof most_ms);
    stream_pause(f->owner.stream, STREAM_PAUSE_CREDIT);
    enum { LEN = 12000000 }; /* more than kernels buffer */
    char *bytes = pattern_new(LEN);
    stream_write(f->owner.stream, bytes, LEN);
    free(bytes);
    TURN_UNTIL(f->loop, f->owner.stream->write_broken);
    assert_int_equal(f->owner.failures, 0);
    stream_resume(f->owner.stream, STREAM_PAUSE_CREDIT);
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.eofs, 0);
    assert_int_equal(f->owner.status, STATUS_PEER_RESET);
}

/* FIN, then a reset as the answer to our bytes: after the end of its input the owner hears that writing is over too. */
static void a_peer_that_ended_and_left_is_found_by_writing(void **state)
{
    struct fixture *f = *state;
    close(f->peer);
    f->peer = -1;
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    for (uint64_t begun = sockets_now_ms(); f->owner.failures == 0;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        stream_write(f->owner.stream, "x", 1);
        turn_some(f->loop);
    }
    assert_int_equal(f->owner.status, STATUS_PEER_RESET);
    assert_int_equal(f->owner.eofs, 1);
}

/* A closed stream with more to send than the kernel takes; `total` bytes. */
static struct stream *closed_and_full(struct fixture *f, size_t total)
{
    struct stream *stream = f->owner.stream;
    char *bytes = pattern_new(total);
    shrink_buffers(f);
    stream_write(stream, bytes, total);
    free(bytes);
    stream_close(&f->owner.stream, false);
    turn_some(f->loop);
    assert_false(list_is_empty(&f->loop->streams));
    assert_in_range(stream_count_unsent(f->loop), 1, total);
    return stream;
}

static void take_some(struct fixture *f)
{
    static char bytes[16384];
    ssize_t n = recv(f->peer, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0)
        inbox_add(&f->inbox, bytes, (size_t)n);
}

enum { MUCH = 16 << 20 };

static void a_closed_stream_goes_on_while_its_peer_takes_bytes(void **state)
{
    struct fixture *f = *state;
    struct stream *stream = closed_and_full(f, MUCH);
    for (int look = 0; look < 5; look++) {
        fire_timer(stream);
        assert_false(list_is_empty(&f->loop->streams));
        size_t before = stream_count_unsent(f->loop);
        TURN_UNTIL(f->loop, (take_some(f), stream_count_unsent(f->loop) + 65536 < before));
    }
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_int_equal(f->inbox.len, MUCH);
    assert_int_equal(f->inbox.error, 0);
}

static void a_closed_stream_ends_when_its_peer_takes_nothing(void **state)
{
    struct fixture *f = *state;
    struct stream *stream = closed_and_full(f, MUCH);
    fire_timer(stream);
    turn_some(f->loop);
    assert_false(list_is_empty(&f->loop->streams));
    fire_timer(stream);
    TURN_UNTIL(f->loop, list_is_empty(&f->loop->streams));
    assert_int_equal(stream_count_unsent(f->loop), 0);
}

static void closing_inside_an_event_is_fine(void **state)
{
    struct fixture *f = *state;
    f->owner.closes_on_eof = true;
    stream_write(f->owner.stream, "bye", 3);
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, inbox_is_over(&f->inbox, f->peer));
    assert_string_equal(f->inbox.bytes, "bye");
    assert_null(f->owner.stream);
}

static void an_idle_stream_owns_no_buffer(void **state)
{
    struct fixture *f = *state;
    stream_write(f->owner.stream, "small", 5);
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->peer) == 5);
    assert_int_equal(f->loop->free_block_count, 1);
}

static void a_late_stream_is_flushed_at_the_end_of_the_turn(void **state)
{
    struct fixture *f = *state;
    stream_set_late_flush(f->owner.stream, true);
    f->owner.answers_data = "answer";
    send_text(f->peer, "question");
    TURN_UNTIL(f->loop, f->owner.in.len > 0);
    assert_int_equal(stream_queued(f->owner.stream), 0);
    TURN_UNTIL(f->loop, inbox_has(&f->inbox, f->peer, "answer"));
}

/* ---- connecting ---- */

static struct stream_owner *connect_owner(struct loop *loop, uint16_t port, uint64_t ms)
{
    static struct stream_owner owner;
    struct ip_addr addr = loopback_ip();
    owner = (struct stream_owner){.stream = NULL};
    owner.stream = stream_connect(loop, &addr, port, ms, &owner_events, &owner);
    return &owner;
}

/* Nobody waits for ever for a crowd to disperse: it has some turns, then others have theirs. */
static void a_crowd_holds_up_no_late_stream(void **state)
{
    enum { CROWD = 200 };
    struct fixture *f = *state;
    struct crowd crowd;
    crowd_begin(&crowd, f->loop, CROWD);
    stream_set_late_flush(f->owner.stream, true);
    for (unsigned i = 0; i < 5; i++) {
        stream_write(f->owner.stream, "a", 1);
        while (stream_queued(f->owner.stream) > 0)
            loop_turn(f->loop, -1);
        crowd.calls = 0;
        stream_write(f->owner.stream, "b", 1); /* a round begins here, and one batch is not all of it */
        loop_turn(f->loop, -1);
        assert_true(f->loop->is_crowded);
        assert_int_equal(stream_queued(f->owner.stream), 1);
        while (stream_queued(f->owner.stream) > 0)
            loop_turn(f->loop, -1);
        assert_in_range(crowd.calls, CROWD / 4, 3 * CROWD);
    }
    crowd_end(&crowd);
}

static void connecting_sends_what_was_written_before(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    int listening = listen_any(&port);
    struct stream_owner *owner = connect_owner(f->loop, port, 5000);
    assert_false(stream_is_ready(owner->stream));
    assert_int_equal(stream_room(owner->stream), 0);
    stream_write(owner->stream, "GET", 3);
    assert_int_equal(owner->readies, 0);
    TURN_UNTIL(f->loop, owner->rooms == 1);
    assert_int_equal(owner->readies, 1);
    int peer = accept(listening, NULL, NULL);
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, peer) == 3);
    close(peer);
    close(listening);
    TURN_UNTIL(f->loop, owner->eofs == 1);
    stream_reset(&owner->stream);
}

static void a_refused_connection_fails(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    close(listen_any(&port));
    struct stream_owner *owner = connect_owner(f->loop, port, 5000);
    stream_write(owner->stream, "GET", 3);
    assert_int_equal(owner->failures, 0);
    TURN_UNTIL(f->loop, owner->failures == 1);
    assert_int_equal(owner->status, STATUS_CONNECT_REFUSED);
    assert_int_equal(owner->readies, 0);
}

/* A listener with a full backlog drops SYNs. */
static void a_connection_that_is_not_accepted_times_out(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    int listening = listen_any(&port), waiting[8];
    listen(listening, 0);
    for (int i = 0; i < 8; i++) {
        struct sockaddr_in to = {
            .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int done = connect(waiting[i], (struct sockaddr *)(void *)&to, sizeof to);
        assert_true(done == 0 || errno == EINPROGRESS);
    }
    struct stream_owner *owner = connect_owner(f->loop, port, 100);
    TURN_UNTIL(f->loop, owner->failures == 1);
    assert_int_equal(owner->status, STATUS_CONNECT_TIMEOUT);
    for (int i = 0; i < 8; i++)
        close(waiting[i]);
    close(listening);
}

static void an_address_that_cannot_be_is_told_from_the_loop(void **state)
{
    struct fixture *f = *state;
    struct ip_addr addr;
    assert_true(ip_parse(slice_str("255.255.255.255"), &addr));
    struct stream_owner owner = {.stream = NULL};
    owner.stream = stream_connect(f->loop, &addr, 80, 5000, &owner_events, &owner);
    assert_int_equal(owner.failures, 0);
    TURN_UNTIL(f->loop, owner.failures == 1);
    assert_int_equal(owner.status, STATUS_CONNECT_UNREACHABLE);
}

static void giving_up_while_connecting_is_silent(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    int listening = listen_any(&port);
    struct stream_owner *owner = connect_owner(f->loop, port, 5000);
    stream_close(&owner->stream, false);
    turn_some(f->loop);
    assert_int_equal(owner->readies + owner->failures, 0);
    close(listening);
}

static void kept_bytes_are_handed_out_and_answered(void **state)
{
    struct fixture *f = *state;
    f->owner.answers_data = "answer";
    send_text(f->peer, "one ");
    TURN_UNTIL(f->loop, f->owner.in.len == 4);
    stream_hand_out(f->owner.stream, "two", 3);
    assert_string_equal(f->owner.in.bytes, "one two");
    assert_int_equal(stream_bytes_in(f->owner.stream), 4); /* they had come before */
    TURN_UNTIL(f->loop, inbox_read(&f->inbox, f->peer) == 12);
    assert_string_equal(f->inbox.bytes, "answeranswer");
}

static size_t count_streams(const struct loop *loop)
{
    size_t count = 0;
    LIST_EACH (link, &loop->streams)
        count++;
    return count;
}

/* Their owners have forgotten them, and no limit of connections counts them. */
static void what_is_closed_and_not_taken_is_bounded(void **state)
{
    struct fixture *f = *state;
    enum { STREAMS = 22, EACH = 1 << 24, MOST = STREAM_MAX_CLOSING_BYTES / EACH + 2 };
    int peers[STREAMS];
    struct ip_addr addr = loopback_ip();
    char *bytes = calloc(1, EACH);
    size_t before = count_streams(f->loop);
    for (int i = 0; i < STREAMS; i++) {
        int pair[2];
        tcp_pair(pair);
        peers[i] = pair[0];
        setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &(int){131072}, sizeof(int));
        struct stream *s = stream_accept(f->loop, pair[1], &addr, 1, NULL, 0, &owner_events, &f->owner);
        stream_write(s, bytes, EACH);
        stream_close(&s, false);
        turn_some(f->loop);
    }
    assert_in_range(count_streams(f->loop) - before, STREAMS / 2, MOST);
    assert_int_equal(counters.closings_cut_total, STREAMS - (count_streams(f->loop) - before));
    for (size_t got = 0; got < EACH;) { /* the last one is complete */
        ssize_t n = recv(peers[STREAMS - 1], bytes, EACH, MSG_DONTWAIT);
        assert_int_not_equal(n, 0);
        got += n > 0 ? (size_t)n : 0;
        turn_some(f->loop);
    }
    for (int i = 0; i < STREAMS; i++)
        close(peers[i]);
    TURN_UNTIL(f->loop, count_streams(f->loop) == before);
    assert_int_equal(f->loop->closing_bytes, 0);
    free(bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(data_goes_both_ways),
        TEST(kept_bytes_are_handed_out_and_answered),
        TEST(the_peer_may_end_first),
        TEST(we_may_end_first),
        TEST(a_pause_holds_data_and_loses_nothing),
        TEST(every_reason_must_end_before_reading_goes_on),
        TEST(a_peer_that_does_not_read_takes_away_room),
        TEST(close_delivers_what_is_queued),
        TEST(what_is_closed_and_not_taken_is_bounded),
        TEST(a_large_write_does_not_overtake_a_long_queue),
        TEST(close_with_linger_outlives_late_bytes_of_the_peer),
        TEST(close_with_linger_reads_what_a_paused_stream_has_left),
        TEST(a_slow_reader_gets_all_of_a_lingering_answer),
        TEST(reset_ends_at_once),
        TEST(a_reset_is_told),
        TEST(a_reset_right_behind_data_is_told),
        TEST(a_peer_that_left_is_found_by_writing_even_when_reading_is_paused),
        TEST(a_peer_that_left_may_keep_a_stream_paused_for_a_while_only),
        TEST(what_the_peer_said_before_it_left_is_heard_though_writing_fails),
        TEST(a_peer_that_vanished_is_no_end),
        TEST(a_peer_that_ended_and_left_is_found_by_writing),
        TEST(a_closed_stream_goes_on_while_its_peer_takes_bytes),
        TEST(a_closed_stream_ends_when_its_peer_takes_nothing),
        TEST(closing_inside_an_event_is_fine),
        TEST(an_idle_stream_owns_no_buffer),
        TEST(a_late_stream_is_flushed_at_the_end_of_the_turn),
        TEST(a_crowd_holds_up_no_late_stream),
        TEST(connecting_sends_what_was_written_before),
        TEST(a_refused_connection_fails),
        TEST(a_connection_that_is_not_accepted_times_out),
        TEST(an_address_that_cannot_be_is_told_from_the_loop),
        TEST(giving_up_while_connecting_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
