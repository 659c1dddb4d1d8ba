#include "gateway/net/poller.h"

#include "net/sockets.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

/* One end of a pair of sockets, and what it was told. */
struct end {
    struct poller_fd fd;
    int peer;
    unsigned calls;
    uint32_t events; /* of the last call */
    void (*then)(struct end *self);
    struct end *other; /* for `then` */
    char heard[8];     /* the digits of `soon`, "!" for `ready` */
};

static struct poller *poller;

static void hear(struct end *end, char c)
{
    size_t len = strlen(end->heard);
    if (len + 1 < sizeof end->heard)
        end->heard[len] = c;
}

static void on_soon(struct poller_fd *fd, unsigned ahead)
{
    hear(CONTAINER_OF(fd, struct end, fd), (char)('0' + ahead));
}

static void on_ready(struct poller_fd *fd, uint32_t events)
{
    struct end *end = CONTAINER_OF(fd, struct end, fd);
    end->calls++;
    end->events = events;
    hear(end, '!');
    if (end->then)
        end->then(end);
}

static void on_question(struct poller_fd *fd, uint32_t events)
{
    char data[64];
    while (recv(fd->fd, data, sizeof data, 0) > 0) {
    }
    on_ready(fd, events);
}

static const struct poller_events end_events = {.ready = on_ready, .soon = on_soon},
                                  asker_events = {.ready = on_question, .asks_for_work = true};

static struct end *new_end(uint32_t wanted, const struct poller_events *events)
{
    struct end *end = calloc(1, sizeof *end);
    int fds[2];
    assert_non_null(end);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    end->fd = (struct poller_fd){.events = events, .fd = fds[0]};
    end->peer = fds[1];
    assert_true(poller_want(poller, &end->fd, wanted));
    return end;
}

static struct end *end_new(uint32_t wanted)
{
    return new_end(wanted, &end_events);
}

static void end_free(struct end *end)
{
    if (end->fd.fd >= 0)
        poller_close(poller, &end->fd);
    close(end->peer);
    free(end);
}

static void say(struct end *end)
{
    assert_int_equal(send(end->peer, "x", 1, MSG_NOSIGNAL), 1);
}

static void turn(void)
{
    bool more;
    do {
        more = poller_wait(poller, 0);
        poller_call(poller);
    } while (more);
}

static int set_up(void **state)
{
    (void)state;
    poller = poller_new();
    return poller ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    poller_free(&poller);
    assert_null(poller);
    poller_free(&poller);
    return 0;
}

static void an_edge_comes_once_and_a_level_until_it_is_over(void **state)
{
    (void)state;
    struct end *edge = end_new(EPOLLIN | EPOLLET), *level = end_new(EPOLLIN);
    turn();
    assert_int_equal(edge->calls + level->calls, 0);
    say(edge);
    say(level);
    turn();
    turn();
    assert_int_equal(edge->calls, 1);
    assert_int_equal(level->calls, 2);
    assert_int_equal(edge->events, EPOLLIN);
    say(edge);
    turn();
    assert_int_equal(edge->calls, 2);
    end_free(edge);
    end_free(level);
}

static void what_is_wanted_can_change(void **state)
{
    (void)state;
    struct end *end = end_new(EPOLLIN | EPOLLET);
    assert_true(poller_want(poller, &end->fd, EPOLLIN | EPOLLOUT | EPOLLET));
    turn();
    assert_int_equal(end->calls, 1);
    assert_int_equal(end->events, EPOLLOUT);
    assert_true(poller_want(poller, &end->fd, EPOLLIN | EPOLLET));
    say(end);
    turn();
    assert_int_equal(end->calls, 2);
    assert_int_equal(end->events, EPOLLIN);
    end_free(end);
}

static void an_end_and_a_reset_are_told_apart_from_data(void **state)
{
    (void)state;
    struct end *ended = end_new(EPOLLIN | EPOLLRDHUP | EPOLLET), *left = end_new(EPOLLIN | EPOLLRDHUP | EPOLLET);
    say(ended);
    shutdown(ended->peer, SHUT_WR);
    say(left);
    assert_int_equal(send(left->fd.fd, "unread", 6, 0), 6); /* so that the peer's close is a reset */
    close(left->peer);
    left->peer = -1;
    turn();
    assert_int_equal(ended->events, EPOLLIN | EPOLLRDHUP);
    assert_int_equal(left->events, EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    end_free(ended);
    end_free(left);
}

static void a_removed_one_is_silent_and_may_come_back(void **state)
{
    (void)state;
    struct end *end = end_new(EPOLLIN);
    say(end);
    poller_remove(poller, &end->fd);
    poller_remove(poller, &end->fd);
    turn();
    assert_int_equal(end->calls, 0);
    assert_true(fcntl(end->fd.fd, F_GETFD) >= 0);
    assert_true(poller_want(poller, &end->fd, EPOLLIN));
    turn();
    assert_int_equal(end->calls, 1);
    end_free(end);
}

static void close_other(struct end *self)
{
    if (self->other->fd.fd >= 0)
        poller_close(poller, &self->other->fd);
}

static void remove_other(struct end *self)
{
    poller_remove(poller, &self->other->fd);
}

/* Both are ready; whichever is called first takes the other one away. */
static void one_of_two(void (*then)(struct end *self))
{
    struct end *ends[2] = {end_new(EPOLLIN), end_new(EPOLLIN)};
    for (size_t i = 0; i < 2; i++) {
        ends[i]->then = then;
        ends[i]->other = ends[1 - i];
        say(ends[i]);
    }
    turn();
    assert_int_equal(ends[0]->calls + ends[1]->calls, 1);
    end_free(ends[0]);
    end_free(ends[1]);
}

static void what_was_collected_for_a_closed_one_is_dropped(void **state)
{
    (void)state;
    one_of_two(close_other);
}

static void what_was_collected_for_a_removed_one_is_dropped(void **state)
{
    (void)state;
    one_of_two(remove_other);
}

static void free_self_and_other(struct end *self)
{
    end_free(self->other);
    end_free(self);
}

static void memory_may_go_while_events_are_called(void **state)
{
    (void)state;
    struct end *ends[2] = {end_new(EPOLLIN), end_new(EPOLLIN)};
    for (size_t i = 0; i < 2; i++) {
        ends[i]->then = free_self_and_other;
        ends[i]->other = ends[1 - i];
        say(ends[i]);
    }
    turn(); /* under AddressSanitizer */
    turn();
}

static struct end *successor;

static void replace_other(struct end *self)
{
    if (successor)
        return;
    int number = self->other->fd.fd;
    poller_close(poller, &self->other->fd);
    successor = end_new(EPOLLIN);
    assert_int_equal(successor->fd.fd, number);
}

static void a_descriptor_that_is_used_again_inherits_no_events(void **state)
{
    (void)state;
    successor = NULL;
    struct end *ends[2] = {end_new(EPOLLIN), end_new(EPOLLIN)};
    for (size_t i = 0; i < 2; i++) {
        ends[i]->then = replace_other;
        ends[i]->other = ends[1 - i];
        say(ends[i]);
    }
    turn();
    assert_non_null(successor);
    turn();
    assert_int_equal(successor->calls, 0);
    say(successor);
    turn();
    assert_int_equal(successor->calls, 1);
    end_free(successor);
    end_free(ends[0]);
    end_free(ends[1]);
}

static void what_epoll_refuses_is_not_in_the_poller(void **state)
{
    (void)state;
    struct poller_fd none = {.events = &end_events, .fd = -1};
    assert_false(poller_want(poller, &none, EPOLLIN));
    assert_int_equal(errno, EBADF);
    struct poller_fd file = {.events = &end_events, .fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
    assert_false(poller_want(poller, &file, EPOLLIN));
    assert_int_equal(errno, EPERM);
    assert_int_equal(file.wanted, 0);
    poller_close(poller, &file);
    assert_int_equal(file.fd, -1);
}

static void many_come_in_batches(void **state)
{
    (void)state;
    enum { COUNT = 1200 };
    static struct end ends[COUNT];
    unsigned batches = 1;
    memset(ends, 0, sizeof ends);
    for (size_t i = 0; i < COUNT; i++) {
        ends[i].fd = (struct poller_fd){.events = &end_events, .fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)};
        assert_true(poller_want(poller, &ends[i].fd, EPOLLIN | EPOLLET));
    }
    for (; poller_wait(poller, 0); batches++)
        poller_call(poller);
    poller_call(poller);
    assert_in_range(batches, 2, COUNT / 2);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(ends[i].calls, 1);
        poller_close(poller, &ends[i].fd);
    }
}

/* A level is told again and again; still the others come. */
static void a_batch_leaves_nobody_out(void **state)
{
    (void)state;
    enum { LEVELS = 100 };
    struct end *levels[LEVELS], *last;
    for (size_t i = 0; i < LEVELS; i++)
        say(levels[i] = end_new(EPOLLIN));
    say(last = end_new(EPOLLIN | EPOLLET));
    for (unsigned batches = 0; batches < LEVELS && last->calls == 0; batches++) {
        assert_true(poller_wait(poller, 0));
        poller_call(poller);
    }
    assert_int_equal(last->calls, 1);
    for (size_t i = 0; i < LEVELS; i++) {
        assert_true(levels[i]->calls > 0);
        end_free(levels[i]);
    }
    end_free(last);
}

static void who_is_next_hears_so_before(void **state)
{
    (void)state;
    struct end *ends[6];
    static const char *const expected[] = {"3!", "31!", "321!", "321!", "321!", "321!"};
    for (size_t i = 0; i < 6; i++)
        say(ends[i] = end_new(EPOLLIN | EPOLLET));
    turn();
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(ends[i]->heard, expected[i]);
        end_free(ends[i]);
    }
}

static void who_has_gone_hears_nothing(void **state)
{
    (void)state;
    struct end *ends[2] = {end_new(EPOLLIN | EPOLLET), end_new(EPOLLIN | EPOLLET)};
    ends[0]->then = remove_other;
    ends[0]->other = ends[1];
    say(ends[0]);
    say(ends[1]);
    turn();
    assert_string_equal(ends[0]->heard, "3!");
    assert_string_equal(ends[1]->heard, "31"); /* before the other one ran */
    end_free(ends[0]);
    end_free(ends[1]);
}

/* ---- a crowd ---- */

enum { ASKERS = 300 };

static struct end *askers[ASKERS];

static unsigned asked(void)
{
    unsigned calls = 0;
    for (size_t i = 0; i < ASKERS; i++)
        calls += askers[i]->calls;
    return calls;
}

static void all_ask(void)
{
    for (size_t i = 0; i < ASKERS; i++) {
        askers[i]->calls = 0;
        say(askers[i]);
    }
}

/* Each asks again as soon as it is called, and so there are more in batch after batch. These are edges: who missed one
 * while it began to wait would not be called again. */
static void make_crowd(void)
{
    unsigned before = 0;
    for (size_t i = 0; i < ASKERS; i++) {
        askers[i] = new_end(EPOLLIN | EPOLLET, &asker_events);
        askers[i]->then = say;
    }
    all_ask();
    for (unsigned batches = 0; batches < ASKERS / 4; batches++) {
        assert_true(poller_wait(poller, 0));
        poller_call(poller);
        assert_true(asked() > before);
        before = asked();
    }
    for (size_t i = 0; i < ASKERS; i++) {
        assert_true(askers[i]->calls >= 2);
        askers[i]->then = NULL;
    }
    turn();
}

static void end_crowd(void)
{
    for (size_t i = 0; i < ASKERS; i++)
        end_free(askers[i]);
}

static void what_was_asked_for_comes_before_what_is_asked(void **state)
{
    (void)state;
    enum { ANSWERS = 20 };
    struct end *answers[ANSWERS];
    unsigned answered = 0;
    make_crowd();
    all_ask();
    for (size_t i = 0; i < ANSWERS; i++)
        say(answers[i] = end_new(EPOLLIN | EPOLLET));
    assert_true(poller_wait(poller, 0));
    poller_call(poller);
    for (size_t i = 0; i < ANSWERS; i++)
        answered += answers[i]->calls;
    assert_int_equal(answered, ANSWERS);
    assert_in_range(asked(), 1, ASKERS / 4);
    turn();
    assert_int_equal(asked(), ASKERS);
    for (size_t i = 0; i < ANSWERS; i++)
        end_free(answers[i]);
    end_crowd();
}

static void who_asks_has_a_turn_however_many_others_there_are(void **state)
{
    (void)state;
    struct end *levels[ASKERS];
    make_crowd();
    for (size_t i = 0; i < ASKERS; i++)
        say(levels[i] = end_new(EPOLLIN));
    all_ask();
    for (unsigned batches = 0; batches < ASKERS / 8 && asked() < ASKERS; batches++) {
        assert_true(poller_wait(poller, 0));
        poller_call(poller);
    }
    assert_int_equal(asked(), ASKERS);
    for (size_t i = 0; i < ASKERS; i++)
        end_free(levels[i]);
    end_crowd();
}

static void who_waits_can_change_leave_and_come_back(void **state)
{
    (void)state;
    make_crowd();
    struct end *changed = askers[0], *removed = askers[1], *closed = askers[2];
    assert_true(changed->fd.waits && removed->fd.waits && closed->fd.waits);
    all_ask();
    assert_true(poller_want(poller, &changed->fd, EPOLLIN | EPOLLOUT | EPOLLET));
    poller_remove(poller, &removed->fd);
    poller_close(poller, &closed->fd);
    turn();
    assert_int_equal(changed->events, EPOLLIN | EPOLLOUT);
    assert_int_equal(removed->calls, 0);
    assert_int_equal(closed->calls, 0);
    assert_int_equal(asked(), ASKERS - 2);
    assert_true(poller_want(poller, &removed->fd, EPOLLIN | EPOLLET));
    turn();
    assert_int_equal(removed->calls, 1);
    end_crowd();
}

static void what_was_collected_for_who_waits_is_dropped_too(void **state)
{
    (void)state;
    make_crowd();
    askers[0]->then = close_other;
    askers[0]->other = askers[1];
    askers[1]->then = close_other;
    askers[1]->other = askers[0];
    all_ask();
    turn();
    assert_int_equal(askers[0]->calls + askers[1]->calls, 1);
    assert_int_equal(asked(), ASKERS - 1);
    end_crowd();
}

static void after_a_long_calm_nobody_waits(void **state)
{
    (void)state;
    enum { LONG = 70000 };
    make_crowd();
    struct end *one = askers[0];
    one->calls = 0;
    say(one);
    turn();
    assert_true(one->fd.waits);
    for (unsigned i = 0; i < LONG; i++)
        assert_false(poller_wait(poller, 0));
    for (unsigned times = 2; times < 5; times++) {
        say(one);
        turn();
        assert_int_equal(one->calls, times);
        assert_false(one->fd.waits);
    }
    end_crowd();
}

static void who_asks_alone_does_not_wait(void **state)
{
    (void)state;
    struct end *one = new_end(EPOLLIN | EPOLLET, &asker_events);
    for (unsigned times = 1; times < 5; times++) {
        say(one);
        turn();
        assert_int_equal(one->calls, times);
        assert_false(one->fd.waits);
    }
    end_free(one);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_edge_comes_once_and_a_level_until_it_is_over),
        TEST(what_is_wanted_can_change),
        TEST(an_end_and_a_reset_are_told_apart_from_data),
        TEST(a_removed_one_is_silent_and_may_come_back),
        TEST(what_was_collected_for_a_closed_one_is_dropped),
        TEST(what_was_collected_for_a_removed_one_is_dropped),
        TEST(memory_may_go_while_events_are_called),
        TEST(a_descriptor_that_is_used_again_inherits_no_events),
        TEST(what_epoll_refuses_is_not_in_the_poller),
        TEST(many_come_in_batches),
        TEST(a_batch_leaves_nobody_out),
        TEST(who_is_next_hears_so_before),
        TEST(who_has_gone_hears_nothing),
        TEST(what_was_asked_for_comes_before_what_is_asked),
        TEST(who_asks_has_a_turn_however_many_others_there_are),
        TEST(who_waits_can_change_leave_and_come_back),
        TEST(what_was_collected_for_who_waits_is_dropped_too),
        TEST(after_a_long_calm_nobody_waits),
        TEST(who_asks_alone_does_not_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
