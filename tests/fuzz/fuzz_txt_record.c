/* Whatever a DNS answer says, what comes out is a valid id and a port, and the same as from its record alone. */
#include "gateway/wire/txt_record.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static void check_target(const struct txt_target *target)
{
    char text[80];
    struct txt_target again;
    check(memchr(target->id, '\0', sizeof target->id) != NULL);
    check(hostname_is_id(slice_str(target->id)) && target->port > 0);
    int len = snprintf(text, sizeof text, " %s:%u\t", target->id, target->port);
    check(txt_record_parse(slice_make(text, (size_t)len), &again));
    check(again.port == target->port && strcmp(again.id, target->id) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct txt_target target;
    uint32_t ttl = 0;
    if (txt_record_parse(slice_make(data, size), &target))
        check_target(&target);
    if (txt_answer_parse(data, size, &target, &ttl) == TXT_FOUND)
        check_target(&target);
    check(ttl <= INT32_MAX);
    return 0;
}
