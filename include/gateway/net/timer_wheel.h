/*
 * timer_wheel: the timers of one thread, in slots of TIMER_TICK_MS by when they are due. It has no clock: the caller
 * says what time it is, which never goes back. Deadlines, not exact: up to a tick late, never early.
 *
 * A wheel of a fixed size as in Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6: arming,
 * moving and disarming take the same time however many timers there are.
 */
#ifndef GATEWAY_NET_TIMER_WHEEL_H
#define GATEWAY_NET_TIMER_WHEEL_H

#include "gateway/base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TIMER_TICK_MS = 64, TIMER_WHEEL_SLOTS = 1024 };

struct timer;
typedef void (*timer_cb)(struct timer *timer);

/* Embedded in its owner. */
struct timer {
    struct list link;
    uint64_t due_ms;    /* wanted; 0: disarmed */
    uint64_t linked_ms; /* the slot it sits in is for this time; earlier than due_ms after a cheap re-arm */
    timer_cb fire;
    struct timer_wheel *wheel;
};

struct timer_wheel {
    /* What lies farther ahead than the wheel is long waits in its slot for another round. */
    struct list slots[TIMER_WHEEL_SLOTS];
    uint64_t occupied[TIMER_WHEEL_SLOTS / 64]; /* a bit for each slot: 0 is empty; 1 may be */
    struct list opened;                        /* what was in the slots whose time has come */
    size_t count;                              /* in all of them */
    uint64_t tick;                             /* the last one whose slot was opened, or that had nothing to open */
    uint64_t next_tick;                        /* no slot before its is occupied; of no meaning without timers */
};

void timer_init(struct timer *timer, timer_cb fire);
static inline bool timer_is_armed(const struct timer *timer)
{
    return timer->due_ms != 0;
}

void timer_wheel_init(struct timer_wheel *wheel);

/* Due `ms` from now, once; at least 1 ms. Moving a timer to a later time costs two stores. */
void timer_wheel_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t now_ms, uint64_t ms);
/* One store: it stays in the wheel and is dropped when its slot is opened. */
static inline void timer_disarm(struct timer *timer)
{
    timer->due_ms = 0;
}
/* Before the memory of a timer is freed: takes it out of the wheel, armed or not. */
void timer_forget(struct timer *timer);

/* The next one that is due, disarmed and out of the wheel, for the caller to fire; NULL: no other. */
struct timer *timer_wheel_take_due(struct timer_wheel *wheel, uint64_t now_ms);

/* Until something may be due, after timer_wheel_take_due returned NULL; -1: there is no timer. */
int timer_wheel_wait_ms(const struct timer_wheel *wheel, uint64_t now_ms);

#endif
