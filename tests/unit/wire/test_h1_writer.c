#include "gateway/wire/h1_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* `fields` is "name: value" lines. */
struct writer_case {
    struct message_head head;
    const char *fields;
    bool keep_alive;
    const char *expected;
};

#define GET .method = METHOD_GET, .method_text = SLICE_INIT("GET"), .path = SLICE_INIT("/a?b")

static const struct writer_case cases[] = {
    {{GET}, "", false, "GET /a?b HTTP/1.1\r\n\r\n"},
    {{GET}, "Host: x\nX-y: z\n", false, "GET /a?b HTTP/1.1\r\nHost: x\r\nX-y: z\r\n\r\n"},
    {{GET}, "Empty: \n", false, "GET /a?b HTTP/1.1\r\nEmpty: \r\n\r\n"},
    {{GET},
     "Connection: X\nContent-Length: 9\ntransfer-encoding: y\nUPGRADE: z\nA: b\n",
     false,
     "GET /a?b HTTP/1.1\r\nA: b\r\n\r\n"},
    {{GET, .close = true}, "", true, "GET /a?b HTTP/1.1\r\nConnection: close\r\n\r\n"},
    {{GET}, "", true, "GET /a?b HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"},
    {{GET, .te_trailers = true}, "", false, "GET /a?b HTTP/1.1\r\nConnection: TE\r\nTE: trailers\r\n\r\n"},
    {{GET, .te_trailers = true, .close = true},
     "",
     false,
     "GET /a?b HTTP/1.1\r\nConnection: close, TE\r\nTE: trailers\r\n\r\n"},
    {{GET, .upgrade = SLICE_INIT("websocket")},
     "",
     false,
     "GET /a?b HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
    {{GET, .body = BODY_CHUNKED, .expect_continue = true},
     "",
     false,
     "GET /a?b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"},
    {{GET, .body = BODY_LENGTH, .has_content_length = true, .content_length = UINT64_MAX},
     "",
     false,
     "GET /a?b HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"},
    {{GET, .has_content_length = true}, "", false, "GET /a?b HTTP/1.1\r\nContent-Length: 0\r\n\r\n"},
    {{.method_text = SLICE_INIT("OPTIONS"), .path = SLICE_INIT("*")}, "", false, "OPTIONS * HTTP/1.1\r\n\r\n"},
    {{.status = 200, .reason = SLICE_INIT("Fine"), .body = BODY_LENGTH, .content_length = 1234567890},
     "Server: x\n",
     false,
     "HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 1234567890\r\n\r\n"},
    {{.status = 404}, "", false, "HTTP/1.1 404 Not Found\r\n\r\n"},
    {{.status = 799}, "", false, "HTTP/1.1 799 \r\n\r\n"},
    {{.status = 200, .version = HTTP_2, .body = BODY_CHUNKED},
     "",
     false,
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {{.status = 200, .body = BODY_UNTIL_CLOSE, .close = true},
     "",
     false,
     "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
    {{.status = 200, .body = BODY_UNTIL_CLOSE, .te_trailers = true, .expect_continue = true},
     "",
     false,
     "HTTP/1.1 200 OK\r\n\r\n"},
    {{.status = 304, .has_content_length = true, .content_length = 7},
     "",
     false,
     "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"},
    {{.status = 204, .has_content_length = true}, "", false, "HTTP/1.1 204 No Content\r\n\r\n"},
    {{.status = 100, .has_content_length = true}, "", false, "HTTP/1.1 100 Continue\r\n\r\n"},
    {{.status = 101, .reason = SLICE_INIT("SP"), .upgrade = SLICE_INIT("websocket"), .body = BODY_RAW},
     "",
     false,
     "HTTP/1.1 101 SP\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
    {{.status = 426, .upgrade = SLICE_INIT("raw"), .has_content_length = true, .close = true},
     "",
     false,
     "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: upgrade, close\r\nUpgrade: raw\r\n\r\n"},
};

static void add_fields(struct fields *fields, struct arena *arena, const char *lines)
{
    while (*lines) {
        const char *colon = strchr(lines, ':');
        const char *end = strchr(lines, '\n');
        fields_add(fields, arena, slice_make(lines, (size_t)(colon - lines)),
                   slice_make(colon + 2, (size_t)(end - colon - 2)));
        lines = end + 1;
    }
}

/* The buffer is of just the promised size, so that the sanitizer sees a byte too many. */
static void test_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct message_head head = cases[i].head;
        arena_init(&arena, NULL);
        add_fields(&head.fields, &arena, cases[i].fields);
        size_t bound = h1_head_bound(&head);
        char *buffer = malloc(bound);
        assert_non_null(buffer);
        size_t len = h1_write_head(&head, cases[i].keep_alive, buffer, bound);
        assert_int_equal(len, strlen(cases[i].expected));
        assert_memory_equal(buffer, cases[i].expected, len);
        free(buffer);
        arena_reset(&arena);
    }
}

static void test_everything_at_once_fits(void **state)
{
    (void)state;
    struct message_head head = {GET,
                                .te_trailers = true,
                                .close = true,
                                .expect_continue = true,
                                .upgrade = SLICE_INIT("x"),
                                .body = BODY_LENGTH,
                                .content_length = UINT64_MAX};
    size_t bound = h1_head_bound(&head);
    char *buffer = malloc(bound);
    assert_non_null(buffer);
    assert_true(h1_write_head(&head, true, buffer, bound) <= bound);
    free(buffer);
}

static void test_chunk_prefix(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        const char *expected;
    } prefixes[] = {
        {1, "1\r\n"},     {15, "f\r\n"},        {16, "10\r\n"},
        {500, "1f4\r\n"}, {65536, "10000\r\n"}, {SIZE_MAX, "ffffffffffffffff\r\n"},
    };
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        char buffer[H1_CHUNK_PREFIX_MAX];
        size_t len = h1_write_chunk_prefix(prefixes[i].len, buffer);
        assert_int_equal(len, strlen(prefixes[i].expected));
        assert_memory_equal(buffer, prefixes[i].expected, len);
    }
}

static void expect_last_chunk(const char *lines, const char *expected)
{
    struct arena arena;
    struct fields trailers = FIELDS_NONE;
    arena_init(&arena, NULL);
    add_fields(&trailers, &arena, lines);
    size_t bound = h1_last_chunk_bound(&trailers);
    char *buffer = malloc(bound);
    assert_non_null(buffer);
    size_t len = h1_write_last_chunk(&trailers, buffer, bound);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(buffer, expected, len);
    free(buffer);
    arena_reset(&arena);
}

static void test_last_chunk(void **state)
{
    (void)state;
    expect_last_chunk("", "0\r\n\r\n");
    expect_last_chunk("grpc-status: 0\ngrpc-message: ok\n", "0\r\ngrpc-status: 0\r\ngrpc-message: ok\r\n\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_everything_at_once_fits),
        cmocka_unit_test(test_chunk_prefix),
        cmocka_unit_test(test_last_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
