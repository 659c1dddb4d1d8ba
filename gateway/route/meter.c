#include "gateway/route/meter.h"

#include "route_alloc.h"

#include <stdbool.h>

static const uint64_t second_ns = 1000000000U;

struct meter *meter_new(void)
{
    struct meter *meter = route_alloc(1, sizeof *meter);
    atomic_init(&meter->refs, 1);
    return meter;
}

struct meter *meter_ref(struct meter *meter)
{
    atomic_fetch_add_explicit(&meter->refs, 1, memory_order_relaxed);
    return meter;
}

void meter_unref(struct meter **meter)
{
    struct meter *dropped = *meter;
    *meter = NULL;
    if (dropped && atomic_fetch_sub_explicit(&dropped->refs, 1, memory_order_acq_rel) == 1)
        free(dropped);
}

/* Exact: a failed try is never seen by others. */
static bool take_place(struct meter *meter, uint32_t max)
{
    uint32_t now = atomic_load_explicit(&meter->in_progress, memory_order_relaxed);
    do {
        if (max > 0 && now >= max)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&meter->in_progress, &now, now + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

/* The generic cell rate algorithm. */
static bool pay(struct meter *meter, uint32_t per_second, uint64_t now_ns)
{
    uint64_t paid = atomic_load_explicit(&meter->paid_until_ns, memory_order_relaxed);
    uint64_t next;
    do {
        next = (paid > now_ns ? paid : now_ns) + second_ns / per_second;
        if (next > now_ns + second_ns)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&meter->paid_until_ns, &paid, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

enum status meter_enter(struct meter *meter, uint32_t max_in_progress, uint32_t per_second, uint64_t now_us)
{
    if (!take_place(meter, max_in_progress))
        return STATUS_APP_BUSY;
    if (per_second > 0 && !pay(meter, per_second, now_us * 1000U)) {
        atomic_fetch_sub_explicit(&meter->in_progress, 1, memory_order_relaxed);
        return STATUS_RATE_LIMITED;
    }
    meter_ref(meter);
    return STATUS_OK;
}

void meter_leave(struct meter **meter)
{
    if (!*meter)
        return;
    atomic_fetch_sub_explicit(&(*meter)->in_progress, 1, memory_order_relaxed);
    meter_unref(meter);
}
