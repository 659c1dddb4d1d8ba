/* bench_parser: HTTP/1.1 heads and bodies from bytes and to bytes, with all checks of what they mean. */
#include "bench.h"

#include "gateway/wire/h1_parser.h"
#include "gateway/wire/h1_writer.h"

static const struct h1_limits limits = {.max_head_bytes = 65536, .max_target_bytes = 8192, .max_fields = 100};

static const char browser_request[] =
    "GET /dashboard/stats?range=7d&user=4711 HTTP/1.1\r\n"
    "Host: 3327603e03f5bd1f830812ca4a789277fc31f577-8080.prod5.phala.network\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: application/json, text/plain, */*\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Referer: https://3327603e03f5bd1f830812ca4a789277fc31f577-8080.prod5.phala.network/dashboard\r\n"
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    "Sec-Fetch-Dest: empty\r\n"
    "Sec-Fetch-Mode: cors\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Connection: keep-alive\r\n\r\n";

static const char small_request[] = "GET / HTTP/1.1\r\nHost: app1-8080.cluster.example\r\n\r\n";

static const char response[] = "HTTP/1.1 200 OK\r\n"
                               "Date: Thu, 26 Nov 2026 04:00:00 GMT\r\n"
                               "Content-Type: application/json\r\n"
                               "Cache-Control: no-store\r\n"
                               "Server: gunicorn\r\n"
                               "Content-Length: 0\r\n\r\n";

static const char chunked_response[] = "HTTP/1.1 200 OK\r\n"
                                       "Content-Type: text/event-stream\r\n"
                                       "Transfer-Encoding: chunked\r\n\r\n";

static const char chunk[] = "2d\r\ndata: {\"token\":\"a word of a language model\"}\n\r\n";

struct input {
    struct arena_pool pool;
    enum h1_direction direction;
    const char *bytes;
    size_t len;
};

static struct input input_of(enum h1_direction direction, const char *bytes, size_t len)
{
    struct input input = {.direction = direction, .bytes = bytes, .len = len};
    arena_pool_init(&input.pool, 4);
    return input;
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* The whole message in one piece. */
static void parse(void *arg, uint64_t count)
{
    struct input *input = arg;
    struct h1_parser parser;
    struct arena arena;
    h1_parser_init(&parser, input->direction, &limits);
    arena_init(&arena, &input->pool);
    for (uint64_t i = 0; i < count; i++) {
        size_t used;
        h1_parser_begin(&parser, &arena, METHOD_GET, false);
        must(h1_parser_feed(&parser, input->bytes, input->len, &used) == H1_HEAD);
        must(h1_parser_feed(&parser, input->bytes + used, input->len - used, &used) == H1_END);
        bench_use(&parser);
        arena_reset(&arena);
    }
}

static void parse_chunks(void *arg, uint64_t count)
{
    struct input *input = arg;
    struct h1_parser parser;
    struct arena arena;
    size_t used;
    h1_parser_init(&parser, H1_RESPONSES, &limits);
    arena_init(&arena, &input->pool);
    h1_parser_begin(&parser, &arena, METHOD_GET, false);
    must(h1_parser_feed(&parser, chunked_response, sizeof chunked_response - 1, &used) == H1_HEAD);
    for (uint64_t i = 0; i < count; i++) {
        const char *at = chunk;
        size_t left = sizeof chunk - 1;
        must(h1_parser_feed(&parser, at, left, &used) == H1_BODY);
        must(h1_parser_feed(&parser, at + used, left - used, &used) == H1_NEED_MORE);
        bench_use(&parser);
    }
    arena_reset(&arena);
}

static void write_head(void *arg, uint64_t count)
{
    struct input *input = arg;
    struct h1_parser parser;
    struct arena arena;
    char buffer[4096];
    size_t used;
    h1_parser_init(&parser, H1_REQUESTS, &limits);
    arena_init(&arena, &input->pool);
    h1_parser_begin(&parser, &arena, METHOD_GET, false);
    must(h1_parser_feed(&parser, input->bytes, input->len, &used) == H1_HEAD);
    must(h1_head_bound(parser.head) <= sizeof buffer);
    for (uint64_t i = 0; i < count; i++) {
        h1_write_head(parser.head, false, buffer, sizeof buffer);
        bench_use(buffer);
    }
    arena_reset(&arena);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_begin(argc, argv);
    struct input browser = input_of(H1_REQUESTS, browser_request, sizeof browser_request - 1);
    struct input small = input_of(H1_REQUESTS, small_request, sizeof small_request - 1);
    struct input answer = input_of(H1_RESPONSES, response, sizeof response - 1);
    bench_run(&bench, "h1 request of a browser, 12 fields", parse, &browser);
    bench_run(&bench, "h1 request, Host alone", parse, &small);
    bench_run(&bench, "h1 response, 5 fields", parse, &answer);
    bench_run(&bench, "h1 chunk of 45 bytes", parse_chunks, &answer);
    bench_run(&bench, "h1 request of a browser, written", write_head, &browser);
    arena_pool_fini(&browser.pool);
    arena_pool_fini(&small.pool);
    arena_pool_fini(&answer.pool);
    return 0;
}
