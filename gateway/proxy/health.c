#include "gateway/proxy/health.h"

#include "gateway/base/log.h"

#include <assert.h>
#include <stdlib.h>

enum {
    SLOTS = 4096,
    SWEEP_MS = 1000,
    LINES_PER_SECOND = 5,
    MAX_DOUBLINGS = 20,
    JITTER_SHARE = 4, /* a pause ends up to a quarter early */
};

struct entry {
    struct entry *next;  /* in its slot */
    struct list by_time; /* the one that failed longest ago first */
    uint64_t serial;     /* of the claim */
    uint64_t failed_us;  /* the last time */
    uint64_t until_us;   /* end of the pause; 0: there was none */
    uint64_t memory_us;  /* how long a failure, or a pause that has ended, is remembered */
    uint32_t failures;   /* in a row */
    uint16_t port;
    uint16_t pauses; /* in a row */
    bool is_ejected;
};

struct health {
    struct loop *loop;
    struct timer timer; /* runs while there are entries */
    struct list by_time;
    size_t count;
    struct log_limit limit;
    struct entry *slots[SLOTS];
};

static void on_timer(struct timer *timer);

struct health *health_new(struct loop *loop)
{
    struct health *health = calloc(1, sizeof *health);
    if (!health)
        abort();
    health->loop = loop;
    list_init(&health->by_time);
    timer_init(&health->timer, on_timer);
    return health;
}

/* All ports of a claim are in one slot. */
static struct entry **slot_of(struct health *health, uint64_t serial)
{
    return &health->slots[(serial * 0x9E3779B97F4A7C15U >> 32) % SLOTS];
}

static void set_ejected(struct health *health, struct entry *entry, bool ejected)
{
    if (entry->is_ejected == ejected)
        return;
    entry->is_ejected = ejected;
    COUNTER_ADD(health->loop->counters, upstream_ejected, ejected ? 1 : -1);
}

static void drop(struct health *health, struct entry *entry)
{
    struct entry **at = slot_of(health, entry->serial);
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    set_ejected(health, entry, false);
    list_remove(&entry->by_time);
    health->count--;
    free(entry);
}

void health_free(struct health **health_ptr)
{
    struct health *health = *health_ptr;
    if (!health)
        return;
    *health_ptr = NULL;
    while (!list_is_empty(&health->by_time))
        drop(health, CONTAINER_OF(health->by_time.next, struct entry, by_time));
    timer_forget(&health->timer);
    free(health);
}

/* What was long ago, and did not come again, is forgiven. */
static bool is_outdated(const struct entry *entry, uint64_t now_us)
{
    uint64_t since_us = entry->until_us > entry->failed_us ? entry->until_us : entry->failed_us;
    return now_us >= since_us + entry->memory_us;
}

static void on_timer(struct timer *timer)
{
    struct health *health = CONTAINER_OF(timer, struct health, timer);
    uint64_t now_us = health->loop->now_us;
    LIST_EACH_SAFE (link, &health->by_time) {
        struct entry *entry = CONTAINER_OF(link, struct entry, by_time);
        if (is_outdated(entry, now_us))
            drop(health, entry);
        else if (now_us >= entry->until_us)
            set_ejected(health, entry, false);
    }
    if (health->count > 0)
        loop_timer_arm(health->loop, timer, SWEEP_MS);
}

static struct entry *find(struct health *health, uint64_t serial, uint16_t port)
{
    struct entry *entry = *slot_of(health, serial);
    while (entry && (entry->serial != serial || entry->port != port))
        entry = entry->next;
    return entry;
}

/* Slots begin with what was made last. */
static void make_room(struct health *health, uint64_t serial)
{
    unsigned ports = 0;
    struct entry *oldest = NULL;
    for (struct entry *entry = *slot_of(health, serial); entry; entry = entry->next)
        if (entry->serial == serial) {
            oldest = entry;
            ports++;
        }
    if (ports >= HEALTH_MAX_PORTS)
        drop(health, oldest);
    else if (health->count >= HEALTH_MAX_ENTRIES)
        drop(health, CONTAINER_OF(health->by_time.next, struct entry, by_time));
}

static struct entry *make(struct health *health, uint64_t serial, uint16_t port)
{
    make_room(health, serial);
    struct entry **slot = slot_of(health, serial);
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        abort();
    entry->serial = serial;
    entry->port = port;
    entry->next = *slot;
    *slot = entry;
    list_push(&health->by_time, &entry->by_time);
    if (health->count++ == 0)
        loop_timer_arm(health->loop, &health->timer, SWEEP_MS);
    return entry;
}

/* The nth pause in a row, less a random part of it, so that not all workers come back at once. */
static uint64_t pause_us(const struct ejection_settings *settings, unsigned nth, uint64_t random)
{
    uint64_t ms = (uint64_t)settings->base_ms << (nth < MAX_DOUBLINGS ? nth : MAX_DOUBLINGS);
    uint64_t us = (ms < settings->max_ms ? ms : settings->max_ms) * 1000U;
    return us - random % (us / JITTER_SHARE + 1);
}

static void tell(struct health *health, const struct claim *claim, struct slice id, const struct entry *entry,
                 enum status why, uint64_t us)
{
    char address[IP_TEXT_MAX];
    if (!log_limit_pass(&health->limit, LINES_PER_SECOND))
        return;
    ip_format(&claim->address, address);
    log_warn("upstream: instance %.*s, %s port %u: %u failures in a row (%s); it gets no requests for %llu ms",
             SLICE_ARG(id), address, (unsigned)entry->port, (unsigned)entry->failures, status_code(why),
             (unsigned long long)us / 1000U);
}

bool health_failed(struct health *health, const struct ejection_settings *settings, const struct claim *claim,
                   struct slice id, uint16_t port, enum status why, uint64_t random)
{
    uint64_t now_us = health->loop->now_us;
    if (claim_is_revoked(claim)) /* nobody would forget it */
        return false;
    struct entry *entry = find(health, claim->serial, port);
    if (entry && is_outdated(entry, now_us)) {
        drop(health, entry);
        entry = NULL;
    }
    if (!entry)
        entry = make(health, claim->serial, port);
    entry->failed_us = now_us;
    entry->memory_us = settings->max_ms * 1000ULL;
    if (entry->failures < UINT32_MAX)
        entry->failures++;
    list_remove(&entry->by_time);
    list_push(&health->by_time, &entry->by_time);
    if (settings->failures == 0 || entry->failures < settings->failures || now_us < entry->until_us)
        return false;
    uint64_t us = pause_us(settings, entry->pauses, random);
    entry->until_us = now_us + us;
    if (entry->pauses < MAX_DOUBLINGS)
        entry->pauses++;
    set_ejected(health, entry, true);
    COUNTER_INC(health->loop->counters, upstream_ejections_total);
    tell(health, claim, id, entry, why, us);
    return true;
}

void health_succeeded(struct health *health, uint64_t serial, uint16_t port, uint64_t asked_us)
{
    struct entry *entry = health->count > 0 ? find(health, serial, port) : NULL;
    if (entry && asked_us >= entry->failed_us)
        drop(health, entry);
}

void health_forget(struct health *health, uint64_t serial)
{
    for (struct entry *entry = *slot_of(health, serial), *next; entry; entry = next) {
        next = entry->next;
        if (entry->serial == serial)
            drop(health, entry);
    }
}

struct health_verdict health_look(const struct health *health, uint64_t serial, uint16_t port)
{
    uint64_t now_us = health->loop->now_us;
    const struct entry *entry = find((struct health *)(uintptr_t)health, serial, port);
    if (!entry || is_outdated(entry, now_us))
        return (struct health_verdict){0};
    return (struct health_verdict){.failures = entry->failures, .is_ejected = now_us < entry->until_us};
}

size_t health_count(const struct health *health)
{
    return health->count;
}
