/* Any bytes as a host name: the result keeps its promises and does not depend on letter case or a final dot. */
#include "gateway/http/hostname.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) ((condition) ? (void)0 : abort())

static const struct slice bases[] = {SLICE_INIT("phala.network"), SLICE_INIT("prod5.phala.network"),
                                     SLICE_INIT("local.localhost")};
enum { BASE_COUNT = sizeof bases / sizeof bases[0], MAX_INPUT = 300 };

static void check_app(const struct hostname *h)
{
    struct slice id = hostname_id(h), label = hostname_label(h);
    CHECK(hostname_is_id(id) && hostname_is_id(label) && slice_has_prefix(label, id));
    CHECK(h->port > 0 && h->base_index < BASE_COUNT);
    CHECK(h->id_len < h->whole_len || (h->mode == HOSTNAME_MODE_DEFAULT && !h->has_port));
    CHECK(h->has_port || h->port == (h->mode == HOSTNAME_MODE_PASSTHROUGH ? 443 : 80));
}

static void check_same(const struct hostname *a, const struct hostname *b)
{
    CHECK(a->kind == b->kind && a->mode == b->mode && a->port == b->port && a->has_port == b->has_port);
    CHECK(a->base_index == b->base_index && slice_eq(hostname_id(a), hostname_id(b)));
    CHECK(slice_eq(hostname_label(a), hostname_label(b)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hostname h, again;
    struct slice host = slice_make(data, size);
    char upper[MAX_INPUT + 1];
    hostname_parse(host, bases, BASE_COUNT, &h);
    if (h.kind == HOSTNAME_APP)
        check_app(&h);
    if (size == 0 || size > MAX_INPUT || host.ptr[size - 1] == '.')
        return 0;
    for (size_t i = 0; i < size; i++)
        upper[i] = (char)(host.ptr[i] >= 'a' && host.ptr[i] <= 'z' ? host.ptr[i] - 0x20 : host.ptr[i]);
    upper[size] = '.';
    hostname_parse(slice_make(upper, size + 1), bases, BASE_COUNT, &again);
    check_same(&h, &again);
    return 0;
}
