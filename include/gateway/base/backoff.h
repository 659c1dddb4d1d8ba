/*
 * backoff: how long to wait before the next attempt. With jitter, half to all of the time: those that have failed at
 * the same moment must not come back at the same moment.
 */
#ifndef GATEWAY_BASE_BACKOFF_H
#define GATEWAY_BASE_BACKOFF_H

#include <stdint.h>

uint64_t backoff_jittered(uint64_t ms);

/* Twice as long after each failure: first_ms after none so far, at most max_ms; jittered. */
uint64_t backoff_ms(uint64_t first_ms, uint64_t max_ms, unsigned failures);

#endif
