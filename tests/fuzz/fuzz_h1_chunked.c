/* Chunked bodies behind a request head that is always the same. The first byte is the seed of the pieces. */
#include "h1_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct h1_run run = {.direction = H1_REQUESTS, .limits = H1_FUZZ_LIMITS};
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const size_t head_len = sizeof head - 1;
    if (size == 0)
        return 0;
    char *bytes = malloc(head_len + size);
    h1_trace_check(bytes, "no memory");
    memcpy(bytes, head, head_len);
    memcpy(bytes + head_len, data + 1, size - 1);
    h1_fuzz_run(&run, bytes, head_len + size - 1, data[0]);
    free(bytes);
    return 0;
}
