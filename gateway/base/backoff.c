#include "gateway/base/backoff.h"

#include <stdlib.h>

uint64_t backoff_jittered(uint64_t ms)
{
    uint64_t half = ms / 2;
    uint32_t range = half < UINT32_MAX ? (uint32_t)half + 1 : UINT32_MAX;
    return ms - arc4random_uniform(range);
}

uint64_t backoff_ms(uint64_t first_ms, uint64_t max_ms, unsigned failures)
{
    uint64_t ms = first_ms;
    while (failures-- > 0 && ms < max_ms)
        ms *= 2;
    return backoff_jittered(ms < max_ms ? ms : max_ms);
}
