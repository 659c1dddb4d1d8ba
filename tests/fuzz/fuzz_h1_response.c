/* Responses. The first byte says what was asked for (bit 0: HEAD, bit 1: upgrade) and is the seed of the pieces. */
#include "h1_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const struct h1_run run = {
        .direction = H1_RESPONSES,
        .limits = H1_FUZZ_LIMITS,
        .request_method = data[0] & 1 ? METHOD_HEAD : METHOD_GET,
        .upgrade_asked = (data[0] & 2) != 0,
    };
    h1_fuzz_run(&run, (const char *)data + 1, size - 1, data[0]);
    return 0;
}
