/*
 * clock: time. Monotonic milliseconds and microseconds for durations, wall-clock time for logs.
 *
 * A loop reads the clock once per turn and hands that value around; call clock_now_us() only where a turn is too
 * coarse.
 */
#ifndef GATEWAY_BASE_CLOCK_H
#define GATEWAY_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic, microseconds since an unspecified start. */
uint64_t clock_now_us(void);

/* Wall clock, microseconds since 1970-01-01 00:00 UTC. */
uint64_t clock_wall_us(void);

#endif
