/*
 * meter: how much of its limits an app uses, over all workers. Only apps with a limit have one. The route table makes
 * it with the first record that has limits and hands it on to the app's later records, so that a change does not
 * forget what is in progress.
 *
 * Thread-safe: a worker that takes a request of such an app pays with two writes to a shared cache line.
 */
#ifndef GATEWAY_ROUTE_METER_H
#define GATEWAY_ROUTE_METER_H

#include "gateway/base/status.h"

#include <stdatomic.h>
#include <stdint.h>

struct meter {
    _Atomic uint32_t refs;
    _Atomic uint32_t in_progress;
    _Atomic uint64_t
        paid_until_ns; /* requests so far, one after the other at the allowed rate, would last until then */
};

struct meter *meter_new(void);
struct meter *meter_ref(struct meter *meter);
void meter_unref(struct meter **meter); /* accepts NULL */

/*
 * A request or tunnel begins. OK: it counts until meter_leave, which gets the reference that is taken here. APP_BUSY:
 * max_in_progress others are there. RATE_LIMITED: more than per_second came within a second, where a second's worth
 * may come at once. 0: unlimited.
 */
MUST_CHECK enum status meter_enter(struct meter *meter, uint32_t max_in_progress, uint32_t per_second, uint64_t now_us);
/* Accepts NULL. Clears the pointer. */
void meter_leave(struct meter **meter);

#endif
