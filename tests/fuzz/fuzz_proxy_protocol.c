/* A header that was read must be written so that it reads back the same; shorter input must not say otherwise. */
#include "gateway/wire/proxy_protocol.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static void check_read_back(const struct proxy_header *header, int version)
{
    uint8_t buffer[PROXY_WRITE_MAX_BYTES];
    struct proxy_header back;
    size_t used;
    size_t len = proxy_protocol_write(header, version, buffer);
    check(proxy_protocol_read(buffer, len, &back, &used) == PROXY_DONE && used == len);
    check(back.is_local == header->is_local);
    if (back.source.sa.sa_family == AF_INET6 && header->source.sa.sa_family == AF_INET6)
        check(memcmp(&back.source.in6, &header->source.in6, sizeof back.source.in6) == 0);
    if (header->source.sa.sa_family == AF_INET)
        check(memcmp(&back.source.in, &header->source.in, sizeof back.source.in) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header header;
    size_t used = 0;
    enum proxy_result expected = proxy_protocol_read(data, size, &header, &used);
    if (expected == PROXY_DONE) {
        check(used <= size);
        check_read_back(&header, 1);
        check_read_back(&header, 2);
    }
    for (size_t len = 0; len < size && len < PROXY_V1_MAX_BYTES; len++) {
        size_t part_used = 0;
        enum proxy_result result = proxy_protocol_read(data, len, &header, &part_used);
        check(result == PROXY_NEED_MORE || (result == expected && part_used == used));
    }
    return 0;
}
