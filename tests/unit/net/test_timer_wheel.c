#include "gateway/net/timer_wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TICK = TIMER_TICK_MS, ROUND = TIMER_TICK_MS * TIMER_WHEEL_SLOTS, BEGIN = 1000 * TIMER_TICK_MS };

static struct timer_wheel wheel;

static int set_up(void **state)
{
    (void)state;
    timer_wheel_init(&wheel);
    return 0;
}

static void no_fire(struct timer *timer)
{
    (void)timer;
}

static struct timer unarmed(void)
{
    return (struct timer){.fire = no_fire};
}

static void arm(struct timer *timer, uint64_t now_ms, uint64_t ms)
{
    if (!timer->link.next)
        timer_init(timer, no_fire);
    timer_wheel_arm(&wheel, timer, now_ms, ms);
}

static void nothing_is_due(uint64_t now_ms)
{
    assert_null(timer_wheel_take_due(&wheel, now_ms));
}

static void without_timers_there_is_nothing_to_wait_for(void **state)
{
    (void)state;
    nothing_is_due(BEGIN);
    assert_int_equal(timer_wheel_wait_ms(&wheel, BEGIN), -1);
    struct timer timer = unarmed();
    arm(&timer, BEGIN, 5);
    timer_forget(&timer);
    assert_int_equal(timer_wheel_wait_ms(&wheel, BEGIN), -1);
    nothing_is_due(BEGIN + ROUND);
}

/* To the end of the tick that it is due in, however far ahead within the wheel. */
static void waits_for_the_first_timer_and_for_no_tick_before(void **state)
{
    (void)state;
    struct timer far = unarmed(), near = unarmed();
    arm(&far, BEGIN + 10, 60000);
    nothing_is_due(BEGIN + 10);
    uint64_t far_at = (BEGIN + 10 + 60000) / TICK * TICK + TICK;
    assert_int_equal(timer_wheel_wait_ms(&wheel, BEGIN + 10), far_at - BEGIN - 10);
    arm(&near, BEGIN + 20, 500);
    uint64_t near_at = (BEGIN + 20 + 500) / TICK * TICK + TICK;
    assert_int_equal(timer_wheel_wait_ms(&wheel, BEGIN + 20), near_at - BEGIN - 20);
    nothing_is_due(near_at - 1);
    assert_int_equal(timer_wheel_wait_ms(&wheel, near_at - 1), 1);
    assert_int_equal(timer_wheel_wait_ms(&wheel, near_at), 0);
    assert_ptr_equal(timer_wheel_take_due(&wheel, near_at), &near);
    assert_false(timer_is_armed(&near));
    nothing_is_due(near_at);
    assert_int_equal(timer_wheel_wait_ms(&wheel, near_at), far_at - near_at);
    assert_ptr_equal(timer_wheel_take_due(&wheel, far_at), &far);
    nothing_is_due(far_at);
    assert_int_equal(timer_wheel_wait_ms(&wheel, far_at), -1);
}

/* The slot before that of the one just opened, in the same word of the map, is the last that is looked at. */
static void waits_for_a_timer_almost_a_round_ahead(void **state)
{
    (void)state;
    struct timer first = unarmed(), last = unarmed();
    arm(&first, BEGIN, 8 * TICK);                                /* slot 1009 of the wheel */
    arm(&last, BEGIN, (uint64_t)(TIMER_WHEEL_SLOTS + 4) * TICK); /* slot 1005 */
    uint64_t now_ms = BEGIN + 9 * TICK;
    assert_ptr_equal(timer_wheel_take_due(&wheel, now_ms), &first);
    nothing_is_due(now_ms);
    now_ms += (uint64_t)timer_wheel_wait_ms(&wheel, now_ms);
    assert_int_equal(now_ms, BEGIN + (uint64_t)(TIMER_WHEEL_SLOTS + 5) * TICK);
    assert_ptr_equal(timer_wheel_take_due(&wheel, now_ms), &last);
}

/* Beyond the wheel's length: it is looked at once a round, and fires in the last. */
static void what_is_rounds_ahead_is_looked_at_once_a_round(void **state)
{
    (void)state;
    struct timer timer = unarmed();
    arm(&timer, BEGIN, 3ULL * ROUND + 5 * TICK);
    uint64_t now_ms = BEGIN;
    unsigned waits = 0;
    struct timer *due;
    while (!(due = timer_wheel_take_due(&wheel, now_ms))) {
        int wait_ms = timer_wheel_wait_ms(&wheel, now_ms);
        assert_in_range(wait_ms, 1, ROUND);
        now_ms += (uint64_t)wait_ms;
        assert_true(++waits <= 4);
    }
    assert_ptr_equal(due, &timer);
    assert_int_equal(waits, 4);
    assert_int_equal(now_ms, BEGIN + 3ULL * ROUND + 6 * TICK);
}

static void all_that_is_due_comes_in_order_after_a_long_sleep(void **state)
{
    (void)state;
    struct timer timers[4] = {unarmed(), unarmed(), unarmed(), unarmed()}, late = unarmed();
    static const uint64_t after_ms[] = {7000, 100, 64000, 30000};
    static const unsigned order[] = {1, 0, 3, 2};
    for (size_t i = 0; i < 4; i++)
        arm(&timers[i], BEGIN, after_ms[i]);
    arm(&late, BEGIN, 100ULL * ROUND);
    for (size_t i = 0; i < 4; i++)
        assert_ptr_equal(timer_wheel_take_due(&wheel, BEGIN + 50ULL * ROUND), &timers[order[i]]);
    nothing_is_due(BEGIN + 50ULL * ROUND);
    assert_true(timer_is_armed(&late));
    timer_forget(&late);
}

/* Arming to a later time is found out when the slot is opened; to an earlier one moves it at once. */
static void moved_timers_fire_at_their_last_time(void **state)
{
    (void)state;
    struct timer later = unarmed(), earlier = unarmed(), silent = unarmed();
    arm(&later, BEGIN, 100);
    arm(&later, BEGIN, 1000);
    arm(&earlier, BEGIN, 10ULL * ROUND);
    arm(&earlier, BEGIN, 300);
    arm(&silent, BEGIN, 200);
    timer_disarm(&silent);
    uint64_t now_ms = BEGIN;
    struct timer *due;
    while (!(due = timer_wheel_take_due(&wheel, now_ms)))
        now_ms += (uint64_t)timer_wheel_wait_ms(&wheel, now_ms);
    assert_ptr_equal(due, &earlier);
    assert_in_range(now_ms, BEGIN + 300, BEGIN + 300 + TICK);
    while (!(due = timer_wheel_take_due(&wheel, now_ms)))
        now_ms += (uint64_t)timer_wheel_wait_ms(&wheel, now_ms);
    assert_ptr_equal(due, &later);
    assert_in_range(now_ms, BEGIN + 1000, BEGIN + 1000 + TICK);
    nothing_is_due(now_ms);
    assert_int_equal(timer_wheel_wait_ms(&wheel, now_ms), -1);
}

/* One that is due is taken; its fellow of the same slot may be armed again, or forgotten, before it is. */
static void fellows_of_an_opened_slot_can_be_moved(void **state)
{
    (void)state;
    struct timer first = unarmed(), moved = unarmed(), gone = unarmed(), far = unarmed();
    arm(&first, BEGIN, 1);
    arm(&moved, BEGIN, 2);
    arm(&gone, BEGIN, 3);
    arm(&far, BEGIN, ROUND + 4); /* shares the slot */
    uint64_t now_ms = BEGIN + TICK;
    assert_ptr_equal(timer_wheel_take_due(&wheel, now_ms), &first);
    arm(&moved, now_ms, 5);
    timer_forget(&gone);
    arm(&far, now_ms, 6);
    nothing_is_due(now_ms);
    assert_int_equal(timer_wheel_wait_ms(&wheel, now_ms), TICK);
    assert_non_null(timer_wheel_take_due(&wheel, now_ms + TICK));
    assert_non_null(timer_wheel_take_due(&wheel, now_ms + TICK));
    assert_false(timer_is_armed(&moved) || timer_is_armed(&far));
    nothing_is_due(now_ms + TICK);
    assert_int_equal(wheel.count, 0);
}

/* ---- against a plain table of due times ---- */

enum { TIMERS = 300, STEPS = 60000 };

static uint64_t random_state = 1;

static uint64_t pick(uint64_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 33) % below;
}

static void change_one(struct timer *timer, uint64_t now_ms)
{
    static const uint64_t spans_ms[] = {10, 1000, ROUND, 4ULL * ROUND};
    switch (pick(8)) {
    case 0:
        timer_forget(timer);
        break;
    case 1:
        timer_disarm(timer);
        break;
    default:
        timer_wheel_arm(&wheel, timer, now_ms, pick(spans_ms[pick(4)]));
        break;
    }
}

static void copy_due(const struct timer *timers, uint64_t *due_ms)
{
    for (size_t i = 0; i < TIMERS; i++)
        due_ms[i] = timers[i].due_ms;
}

static void change_some(struct timer *timers, uint64_t now_ms)
{
    for (uint64_t changes = pick(4); changes > 0; changes--)
        change_one(&timers[pick(TIMERS)], now_ms);
}

/*
 * None is taken early, or after the end of the tick that it is due in, by a caller who sleeps as long as wait_ms says
 * or comes earlier. Callbacks change others, too. From time to time nothing is left.
 */
static void fires_as_a_table_of_due_times_says(void **state)
{
    (void)state;
    static struct timer timers[TIMERS];
    for (size_t i = 0; i < TIMERS; i++)
        timer_init(&timers[i], no_fire);
    uint64_t now_ms = BEGIN;
    unsigned taken = 0;
    for (int step = 0; step < STEPS; step++) {
        change_some(timers, now_ms);
        for (size_t i = 0; step % 1000 == 0 && i < TIMERS; i++)
            timer_forget(&timers[i]);
        uint64_t due_ms[TIMERS];
        copy_due(timers, due_ms);
        for (struct timer *timer; (timer = timer_wheel_take_due(&wheel, now_ms)); taken++) {
            uint64_t was_due_ms = due_ms[timer - timers];
            assert_true(was_due_ms && was_due_ms <= now_ms && was_due_ms / TICK + 1 >= now_ms / TICK);
            change_some(timers, now_ms);
            copy_due(timers, due_ms);
        }
        int wait_ms = timer_wheel_wait_ms(&wheel, now_ms);
        for (size_t i = 0; i < TIMERS; i++)
            assert_true(!due_ms[i] || (wait_ms > 0 && due_ms[i] / TICK >= now_ms / TICK));
        uint64_t longest_ms = wait_ms < 0 ? 5000 : (uint64_t)wait_ms;
        now_ms += pick(2) ? longest_ms : pick(longest_ms + 1);
    }
    assert_true(taken > 1000);
    for (size_t i = 0; i < TIMERS; i++)
        timer_forget(&timers[i]);
    assert_int_equal(wheel.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_timers_there_is_nothing_to_wait_for, set_up),
        cmocka_unit_test_setup(waits_for_the_first_timer_and_for_no_tick_before, set_up),
        cmocka_unit_test_setup(waits_for_a_timer_almost_a_round_ahead, set_up),
        cmocka_unit_test_setup(what_is_rounds_ahead_is_looked_at_once_a_round, set_up),
        cmocka_unit_test_setup(all_that_is_due_comes_in_order_after_a_long_sleep, set_up),
        cmocka_unit_test_setup(moved_timers_fire_at_their_last_time, set_up),
        cmocka_unit_test_setup(fellows_of_an_opened_slot_can_be_moved, set_up),
        cmocka_unit_test_setup(fires_as_a_table_of_due_times_says, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
