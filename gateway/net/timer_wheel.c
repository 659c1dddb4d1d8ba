#include "gateway/net/timer_wheel.h"

#include <assert.h>

enum { WORDS = TIMER_WHEEL_SLOTS / 64 };

void timer_init(struct timer *timer, timer_cb fire)
{
    *timer = (struct timer){.fire = fire};
    list_init(&timer->link);
}

void timer_wheel_init(struct timer_wheel *wheel)
{
    *wheel = (struct timer_wheel){.count = 0};
    for (size_t i = 0; i < TIMER_WHEEL_SLOTS; i++)
        list_init(&wheel->slots[i]);
    list_init(&wheel->opened);
}

/* ---- slots ---- */

static void put(struct timer_wheel *wheel, struct timer *timer)
{
    uint64_t tick = timer->due_ms / TIMER_TICK_MS + 1;
    assert(tick > wheel->tick);
    size_t slot = tick % TIMER_WHEEL_SLOTS;
    timer->linked_ms = timer->due_ms;
    list_push(&wheel->slots[slot], &timer->link);
    wheel->occupied[slot / 64] |= UINT64_C(1) << slot % 64;
    uint64_t opened_at = wheel->tick + 1 + (tick - wheel->tick - 1) % TIMER_WHEEL_SLOTS;
    if (opened_at < wheel->next_tick)
        wheel->next_tick = opened_at;
}

/* The next tick after wheel->tick whose slot is occupied. */
static uint64_t find_next_tick(const struct timer_wheel *wheel)
{
    uint64_t tick = wheel->tick + 1;
    size_t first = tick % TIMER_WHEEL_SLOTS / 64, bit = tick % 64;
    uint64_t word = wheel->occupied[first] >> bit << bit;
    tick -= bit;
    for (size_t i = 1; !word && i <= WORDS; i++) {
        word = wheel->occupied[(first + i) % WORDS];
        tick += 64;
    }
    return word ? tick + (unsigned)__builtin_ctzll(word) : UINT64_MAX;
}

static void open_next_slot(struct timer_wheel *wheel)
{
    wheel->tick = wheel->next_tick;
    size_t slot = wheel->tick % TIMER_WHEEL_SLOTS;
    for (struct list *link; (link = list_pop(&wheel->slots[slot]));)
        list_push(&wheel->opened, link);
    wheel->occupied[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    wheel->next_tick = find_next_tick(wheel);
}

/* ---- timers ---- */

/*
 * An armed timer carries its wheel's count through the slot that it is in. A disarmed one keeps its place there, so
 * that arming and disarming once per request moves no list.
 */
void timer_wheel_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t now_ms, uint64_t ms)
{
    timer->due_ms = now_ms + (ms ? ms : 1);
    bool linked = !list_is_empty(&timer->link);
    if (linked && timer->linked_ms <= timer->due_ms)
        return;
    if (linked) {
        list_remove(&timer->link);
    } else if (wheel->count++ == 0) {
        wheel->tick = now_ms / TIMER_TICK_MS;
        wheel->next_tick = UINT64_MAX;
    }
    timer->wheel = wheel;
    put(wheel, timer);
}

void timer_forget(struct timer *timer)
{
    timer->due_ms = 0;
    if (list_is_empty(&timer->link))
        return;
    list_remove(&timer->link);
    timer->wheel->count--;
}

/* The next of those in opened slots that is due; the others are dropped, or put where they belong. */
static struct timer *take_opened(struct timer_wheel *wheel, uint64_t now_ms)
{
    for (struct list *link; (link = list_pop(&wheel->opened));) {
        struct timer *timer = CONTAINER_OF(link, struct timer, link);
        if (timer->due_ms > now_ms) {
            put(wheel, timer);
            continue;
        }
        wheel->count--;
        if (timer->due_ms == 0)
            continue;
        timer->due_ms = 0;
        return timer;
    }
    return NULL;
}

struct timer *timer_wheel_take_due(struct timer_wheel *wheel, uint64_t now_ms)
{
    uint64_t now = now_ms / TIMER_TICK_MS;
    struct timer *timer;
    while (!(timer = take_opened(wheel, now_ms)) && wheel->count > 0 && wheel->next_tick <= now)
        open_next_slot(wheel);
    if (!timer && wheel->tick < now)
        wheel->tick = now;
    return timer;
}

int timer_wheel_wait_ms(const struct timer_wheel *wheel, uint64_t now_ms)
{
    if (wheel->count == 0)
        return -1;
    uint64_t next_ms = wheel->next_tick * TIMER_TICK_MS;
    return next_ms > now_ms ? (int)(next_ms - now_ms) : 0;
}
