/* Requests. The first byte is the seed of the pieces. */
#include "h1_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct h1_run run = {.direction = H1_REQUESTS, .limits = H1_FUZZ_LIMITS};
    if (size > 0)
        h1_fuzz_run(&run, (const char *)data + 1, size - 1, data[0]);
    return 0;
}
