#include "gateway/base/counters.h"

void counters_add(struct counters *sum, const struct counters *from)
{
#define X(name, kind, help) COUNTER_ADD(sum, name, atomic_load_explicit(&from->name, memory_order_relaxed));
    COUNTERS_TABLE(X)
#undef X
}
