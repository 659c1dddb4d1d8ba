/*
 * bench_hpack: heads through nghttp2's HPACK, as mux/h2_mux has it done, and the checks of what comes out of it. The
 * tables are warm: the same client asks again.
 */
#include "bench.h"

#include "gateway/http/semantics.h"

#include <nghttp2/nghttp2.h>

#define NV(name, value)                                                                                                \
    {                                                                                                                  \
        (uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, sizeof name - 1, sizeof value - 1,                    \
            NGHTTP2_NV_FLAG_NONE                                                                                       \
    }

static const nghttp2_nv request[] = {
    NV(":method", "GET"),
    NV(":scheme", "https"),
    NV(":authority", "3327603e03f5bd1f830812ca4a789277fc31f577-8080.prod5.phala.network"),
    NV(":path", "/dashboard/stats?range=7d&user=4711"),
    NV("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    NV("accept", "application/json, text/plain, */*"),
    NV("accept-language", "en-US,en;q=0.5"),
    NV("accept-encoding", "gzip, deflate, br, zstd"),
    NV("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    NV("sec-fetch-mode", "cors"),
};

static const nghttp2_nv response[] = {
    NV(":status", "200"),
    NV("date", "Thu, 26 Nov 2026 04:00:00 GMT"),
    NV("content-type", "application/json"),
    NV("cache-control", "no-store"),
    NV("via", "2 phala-gateway"),
};

enum { REQUEST_FIELDS = sizeof request / sizeof request[0], RESPONSE_FIELDS = sizeof response / sizeof response[0] };

static void must(bool holds)
{
    if (!holds)
        abort();
}

static size_t deflate(nghttp2_hd_deflater *deflater, uint8_t *buffer, size_t size, const nghttp2_nv *fields,
                      size_t count)
{
    ssize_t len = nghttp2_hd_deflate_hd(deflater, buffer, size, fields, count);
    must(len > 0);
    return (size_t)len;
}

/* Fills the head as mux/h2_receive does, without copies. */
static void take_field(struct message_head *head, struct arena *arena, const nghttp2_nv *nv)
{
    struct slice name = slice_make(nv->name, nv->namelen), value = slice_make(nv->value, nv->valuelen);
    if (slice_eq(name, SLICE(":method")))
        head->method_text = value;
    else if (slice_eq(name, SLICE(":scheme")))
        head->scheme = value;
    else if (slice_eq(name, SLICE(":authority")))
        head->authority = value;
    else if (slice_eq(name, SLICE(":path")))
        head->target = value;
    else
        fields_add(&head->fields, arena, name, value);
}

static void inflate(nghttp2_hd_inflater *inflater, const uint8_t *block, size_t len, struct message_head *head,
                    struct arena *arena)
{
    int flags = 0;
    while (!(flags & NGHTTP2_HD_INFLATE_FINAL)) {
        nghttp2_nv nv;
        ssize_t used = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, block, len, 1);
        must(used >= 0);
        block += used;
        len -= (size_t)used;
        if (head && flags & NGHTTP2_HD_INFLATE_EMIT)
            take_field(head, arena, &nv);
    }
    nghttp2_hd_inflate_end_headers(inflater);
}

struct tables {
    nghttp2_hd_deflater *deflater;
    nghttp2_hd_inflater *inflater;
    struct arena_pool pool;
    uint8_t block[1024];
    size_t len;
};

static void read_requests(void *arg, uint64_t count)
{
    struct tables *tables = arg;
    struct arena arena;
    arena_init(&arena, &tables->pool);
    for (uint64_t i = 0; i < count; i++) {
        struct message_head head = {.version = HTTP_2};
        inflate(tables->inflater, tables->block, tables->len, &head, &arena);
        must(semantics_check_h2_request(&head, true, &arena) == STATUS_OK);
        bench_use(&head);
        arena_reset(&arena);
    }
}

static void inflate_requests(void *arg, uint64_t count)
{
    struct tables *tables = arg;
    for (uint64_t i = 0; i < count; i++)
        inflate(tables->inflater, tables->block, tables->len, NULL, NULL);
}

static void deflate_responses(void *arg, uint64_t count)
{
    struct tables *tables = arg;
    uint8_t buffer[1024];
    for (uint64_t i = 0; i < count; i++) {
        deflate(tables->deflater, buffer, sizeof buffer, response, RESPONSE_FIELDS);
        bench_use(buffer);
    }
}

/* The second time, the block refers to the table. */
static void warm_up(struct tables *tables)
{
    for (int i = 0; i < 2; i++) {
        tables->len = deflate(tables->deflater, tables->block, sizeof tables->block, request, REQUEST_FIELDS);
        inflate(tables->inflater, tables->block, tables->len, NULL, NULL);
    }
    tables->len = deflate(tables->deflater, tables->block, sizeof tables->block, request, REQUEST_FIELDS);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_begin(argc, argv);
    struct tables tables = {0};
    arena_pool_init(&tables.pool, 4);
    must(nghttp2_hd_deflate_new(&tables.deflater, 4096) == 0 && nghttp2_hd_inflate_new(&tables.inflater) == 0);
    warm_up(&tables);
    bench_run(&bench, "h2 request of a browser, read and checked", read_requests, &tables);
    bench_run(&bench, "h2 request of a browser, HPACK alone", inflate_requests, &tables);
    bench_run(&bench, "h2 response, HPACK written", deflate_responses, &tables);
    nghttp2_hd_deflate_del(tables.deflater);
    nghttp2_hd_inflate_del(tables.inflater);
    arena_pool_fini(&tables.pool);
    return 0;
}
