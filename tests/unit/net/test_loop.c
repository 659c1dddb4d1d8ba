#include "gateway/net/loop.h"

#include "net/sockets.h"

#include <pthread.h>
#include <sys/eventfd.h>

static struct counters counters;

struct shot {
    struct timer timer;
    uint64_t fired_ms; /* on the test's clock; 0: not yet */
    unsigned order;
};

static unsigned fired_count;

static void on_fire(struct timer *timer)
{
    struct shot *shot = CONTAINER_OF(timer, struct shot, timer);
    assert_false(timer_is_armed(timer));
    shot->fired_ms = sockets_now_ms();
    shot->order = ++fired_count;
}

static int set_up(void **state)
{
    fired_count = 0;
    *state = loop_new(&counters);
    return 0;
}

static int tear_down(void **state)
{
    loop_free((struct loop **)state);
    assert_null(*state);
    return 0;
}

static void timers_fire_in_order_and_never_early(void **state)
{
    struct loop *loop = *state;
    static const uint64_t after_ms[] = {200, 0, 70, 135};
    struct shot shots[4];
    uint64_t begun = loop_now_ms(loop);
    for (size_t i = 0; i < 4; i++) {
        shots[i].fired_ms = 0;
        timer_init(&shots[i].timer, on_fire);
        loop_timer_arm(loop, &shots[i].timer, after_ms[i]);
        assert_true(timer_is_armed(&shots[i].timer));
    }
    TURN_UNTIL(loop, fired_count == 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(shots[i].fired_ms >= begun + after_ms[i]);
    assert_int_equal(shots[1].order, 1);
    assert_int_equal(shots[2].order, 2);
    assert_int_equal(shots[3].order, 3);
    assert_int_equal(shots[0].order, 4);
}

static void a_timer_can_be_moved_later_and_earlier(void **state)
{
    struct loop *loop = *state;
    struct shot later = {.fired_ms = 0}, earlier = {.fired_ms = 0};
    timer_init(&later.timer, on_fire);
    timer_init(&earlier.timer, on_fire);
    uint64_t begun = loop_now_ms(loop);
    loop_timer_arm(loop, &later.timer, 1);
    loop_timer_arm(loop, &later.timer, 300);
    loop_timer_arm(loop, &earlier.timer, 3600000);
    loop_timer_arm(loop, &earlier.timer, 1);
    TURN_UNTIL(loop, fired_count == 2);
    assert_int_equal(earlier.order, 1);
    assert_true(later.fired_ms >= begun + 300);
}

static void a_disarmed_timer_is_silent_and_can_be_armed_again(void **state)
{
    struct loop *loop = *state;
    struct shot shot = {.fired_ms = 0}, witness = {.fired_ms = 0};
    timer_init(&shot.timer, on_fire);
    timer_init(&witness.timer, on_fire);
    loop_timer_arm(loop, &shot.timer, 1);
    timer_disarm(&shot.timer);
    assert_false(timer_is_armed(&shot.timer));
    loop_timer_arm(loop, &witness.timer, 150);
    TURN_UNTIL(loop, witness.fired_ms);
    assert_int_equal(shot.fired_ms, 0);
    loop_timer_arm(loop, &shot.timer, 1);
    timer_disarm(&shot.timer);
    loop_timer_arm(loop, &shot.timer, 2);
    TURN_UNTIL(loop, shot.fired_ms);
    assert_int_equal(fired_count, 2);
}

static void a_forgotten_timer_leaves_nothing_in_the_wheel(void **state)
{
    struct loop *loop = *state;
    struct shot witness = {.fired_ms = 0};
    for (int armed = 0; armed < 2; armed++) {
        struct shot *shot = calloc(1, sizeof *shot);
        timer_init(&shot->timer, on_fire);
        timer_forget(&shot->timer); /* was never armed */
        loop_timer_arm(loop, &shot->timer, 1);
        if (!armed)
            timer_disarm(&shot->timer);
        timer_forget(&shot->timer);
        free(shot); /* the sanitizer sees a wheel that still has it */
    }
    timer_init(&witness.timer, on_fire);
    loop_timer_arm(loop, &witness.timer, 150);
    TURN_UNTIL(loop, witness.fired_ms);
    assert_int_equal(fired_count, 1);
}

/* Farther than the wheel is long (1024 ticks): it shares a slot with what is due now. */
static void what_is_far_ahead_waits_for_its_round(void **state)
{
    struct loop *loop = *state;
    struct shot far = {.fired_ms = 0}, near = {.fired_ms = 0};
    timer_init(&far.timer, on_fire);
    timer_init(&near.timer, on_fire);
    loop_timer_arm(loop, &near.timer, 100);
    loop_timer_arm(loop, &far.timer, 1024ULL * TIMER_TICK_MS + 100);
    TURN_UNTIL(loop, near.fired_ms);
    loop_timer_arm(loop, &near.timer, 150);
    near.fired_ms = 0;
    TURN_UNTIL(loop, near.fired_ms);
    assert_int_equal(far.fired_ms, 0);
    assert_true(timer_is_armed(&far.timer));
    timer_forget(&far.timer);
}

static struct shot *victim;

static void fire_and_forget_the_other(struct timer *timer)
{
    on_fire(timer);
    if (victim)
        timer_forget(&victim->timer);
}

static struct loop *armed_on;

static void fire_and_arm_again(struct timer *timer)
{
    on_fire(timer);
    if (fired_count < 3)
        loop_timer_arm(armed_on, timer, 1);
}

static void callbacks_may_forget_and_arm_timers(void **state)
{
    struct loop *loop = *state;
    struct shot first = {.fired_ms = 0}, second = {.fired_ms = 0}, again = {.fired_ms = 0};
    timer_init(&first.timer, fire_and_forget_the_other);
    timer_init(&second.timer, on_fire);
    timer_init(&again.timer, fire_and_arm_again);
    victim = &second;
    armed_on = loop;
    loop_timer_arm(loop, &first.timer, 1);
    loop_timer_arm(loop, &second.timer, 1);
    loop_timer_arm(loop, &again.timer, 1);
    TURN_UNTIL(loop, fired_count == 3);
    victim = NULL;
    turn_some(loop);
    assert_int_equal(second.fired_ms, 0);
}

/* By itself, and without turns in between (a signal may end one). */
static void sleeps_until_the_next_timer(void **state)
{
    struct loop *loop = *state;
    struct shot near = {.fired_ms = 0}, far = {.fired_ms = 0};
    timer_init(&near.timer, on_fire);
    timer_init(&far.timer, on_fire);
    loop_timer_arm(loop, &near.timer, 400);
    loop_timer_arm(loop, &far.timer, 3600000);
    uint64_t turns = loop_turns(loop);
    while (!near.fired_ms)
        loop_turn(loop, -1);
    assert_in_range(loop_turns(loop) - turns, 1, 2);
    timer_forget(&far.timer);
}

/* What is due has become so while the turn before was running: there is nothing to wait for. */
static void a_long_turn_delays_no_timer(void **state)
{
    struct loop *loop = *state;
    struct shot shot = {.fired_ms = 0}, far = {.fired_ms = 0};
    timer_init(&shot.timer, on_fire);
    timer_init(&far.timer, on_fire);
    loop_timer_arm(loop, &far.timer, 3600000);
    loop_turn(loop, 0);
    const uint64_t length_ms = SOCKETS_DEADLINE_MS;
    loop->now_us -= length_ms * 1000; /* as if it had begun then */
    loop_timer_arm(loop, &shot.timer, length_ms);
    uint64_t begun_ms = sockets_now_ms();
    while (!shot.fired_ms)
        loop_turn(loop, -1);
    assert_true(shot.fired_ms - begun_ms < length_ms);
    timer_forget(&far.timer);
}

/* ---- deferred ---- */

struct job {
    struct deferred deferred;
    struct loop *loop;
    struct job *next; /* deferred by this one */
    int runs;
    bool frees_itself;
};

static void run_job(struct deferred *deferred)
{
    struct job *job = CONTAINER_OF(deferred, struct job, deferred);
    job->runs++;
    if (job->next)
        loop_defer(job->loop, &job->next->deferred, run_job);
    if (job->frees_itself)
        free(job);
}

static void deferred_work_runs_once_at_the_end_of_the_turn(void **state)
{
    struct loop *loop = *state;
    struct job last = {.loop = loop}, first = {.loop = loop, .next = &last};
    struct job *own = calloc(1, sizeof *own);
    own->frees_itself = true;
    loop_defer(loop, &first.deferred, run_job);
    loop_defer(loop, &first.deferred, run_job);
    loop_defer(loop, &own->deferred, run_job);
    assert_int_equal(first.runs, 0);
    uint64_t turns = loop_turns(loop);
    loop_turn(loop, 1000); /* does not wait: there is work */
    assert_int_equal(loop_turns(loop), turns + 1);
    assert_int_equal(first.runs, 1);
    assert_int_equal(last.runs, 1);
    loop_turn(loop, 0);
    assert_int_equal(first.runs, 1);
}

/* ---- messages ---- */

enum { POSTERS = 4, POSTS = 2000 };

struct post {
    unsigned poster;
    unsigned number;
};

static struct loop *posted_to;
static unsigned next_number[POSTERS];
static unsigned received;

static void on_post(void *arg)
{
    struct post *post = arg;
    assert_int_equal(post->number, next_number[post->poster]);
    next_number[post->poster]++;
    received++;
    free(post);
}

static void *post_all(void *arg)
{
    unsigned *poster = arg;
    for (unsigned i = 0; i < POSTS; i++) {
        struct post *post = malloc(sizeof *post);
        *post = (struct post){*poster, i};
        loop_post(posted_to, on_post, post);
    }
    return NULL;
}

static void posts_of_other_threads_arrive_in_order(void **state)
{
    pthread_t threads[POSTERS];
    unsigned numbers[POSTERS];
    posted_to = *state;
    received = 0;
    memset(next_number, 0, sizeof next_number);
    for (unsigned i = 0; i < POSTERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &numbers[i]), 0);
    }
    TURN_UNTIL(posted_to, received == POSTERS * POSTS);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
}

static void *stop_soon(void *arg)
{
    loop_stop(arg);
    return NULL;
}

static void stop_ends_run_from_another_thread(void **state)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, *state), 0);
    loop_run(*state);
    pthread_join(thread, NULL);
}

static void posts_left_when_the_loop_ends_are_still_run(void **state)
{
    (void)state;
    struct loop *loop = loop_new(&counters);
    struct post *post = malloc(sizeof *post);
    memset(next_number, 0, sizeof next_number);
    received = 0;
    *post = (struct post){0, 0};
    loop_post(loop, on_post, post);
    loop_free(&loop);
    assert_int_equal(received, 1);
}

/* ---- the rest ---- */

static void blocks_are_recycled_empty(void **state)
{
    struct loop *loop = *state;
    struct block *block = loop_block_take(loop);
    block->end = 100;
    loop_block_give(loop, block);
    struct block *again = loop_block_take(loop);
    assert_ptr_equal(again, block);
    assert_int_equal(again->end, 0);
    assert_null(again->next);
    loop_block_give(loop, again);
}

/* Some in each turn; none while many blocks wait for peers. */
static void large_reads_are_bounded(void **state)
{
    enum { MANY = 1000 };
    struct loop *loop = *state;
    unsigned allowed = 0;
    while (allowed < MANY && loop_may_read_large(loop))
        allowed++;
    assert_in_range(allowed, 1, 16);
    assert_false(loop_may_read_large(loop));
    loop_turn(loop, 0);
    assert_true(loop_may_read_large(loop));
    loop_turn(loop, 0);
    struct block *taken = NULL;
    unsigned count = 0;
    for (; count < MANY && loop_may_read_large(loop); count++) {
        struct block *block = loop_block_take(loop);
        block->next = taken;
        taken = block;
        loop_turn(loop, 0);
    }
    assert_in_range(count, 1, MANY - 1);
    while (taken) {
        struct block *block = taken;
        taken = block->next;
        loop_block_give(loop, block);
    }
    assert_true(loop_may_read_large(loop));
}

static void on_readable(void *arg)
{
    ++*(unsigned *)arg;
}

static void count_calls(struct deferred *deferred)
{
    (void)deferred;
    fired_count++;
}

/* What one batch of events has put off is done before the next one comes. */
static void with_many_events_there_are_many_turns(void **state)
{
    enum { MANY = 300 };
    struct loop *loop = *state;
    struct loop_watch *watches[MANY];
    int fds[MANY];
    unsigned calls = 0, before = 0;
    struct deferred deferred = {.queued = false};
    fired_count = 0;
    for (size_t i = 0; i < MANY; i++) {
        fds[i] = eventfd(1, EFD_CLOEXEC);
        watches[i] = loop_watch_new(loop, fds[i], on_readable, &calls);
    }
    for (unsigned turns = 1; turns <= 40; turns++) {
        loop_defer(loop, &deferred, count_calls);
        loop_turn(loop, -1);
        assert_int_equal(fired_count, turns);
        assert_in_range(calls - before, 1, MANY / 4);
        assert_true(loop->is_crowded);
        before = calls;
    }
    for (size_t i = 0; i < MANY; i++) {
        loop_watch_free(&watches[i]);
        close(fds[i]);
    }
    loop_turn(loop, 0);
    assert_false(loop->is_crowded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timers_fire_in_order_and_never_early, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_timer_can_be_moved_later_and_earlier, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disarmed_timer_is_silent_and_can_be_armed_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_forgotten_timer_leaves_nothing_in_the_wheel, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_far_ahead_waits_for_its_round, set_up, tear_down),
        cmocka_unit_test_setup_teardown(callbacks_may_forget_and_arm_timers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sleeps_until_the_next_timer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_long_turn_delays_no_timer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deferred_work_runs_once_at_the_end_of_the_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(posts_of_other_threads_arrive_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stop_ends_run_from_another_thread, set_up, tear_down),
        cmocka_unit_test(posts_left_when_the_loop_ends_are_still_run),
        cmocka_unit_test_setup_teardown(blocks_are_recycled_empty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_reads_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(with_many_events_there_are_many_turns, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
