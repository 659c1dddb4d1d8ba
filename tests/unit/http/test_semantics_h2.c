/* What requests of HTTP/2 mean (RFC 9113 section 8). */
#include "http/heads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct request {
    const char *method;
    const char *scheme;
    const char *authority;
    const char *path;
    const char *protocol; /* :protocol, "" for none */
    const char *fields;
    bool end;
    enum status status;
};

static enum status check(struct arena *arena, const struct request *c, struct message_head *ret_head)
{
    *ret_head = (struct message_head){.method_text = slice_str(c->method),
                                      .scheme = slice_str(c->scheme),
                                      .authority = slice_str(c->authority),
                                      .target = slice_str(c->path),
                                      .upgrade = slice_str(c->protocol),
                                      .fields = heads_fields(arena, c->fields)};
    return semantics_check_h2_request(ret_head, c->end, arena);
}

static void test_statuses(void **state)
{
    static const struct request cases[] = {
        {"GET", "https", "a", "/", "", "", true, STATUS_OK},
        {"GET", "http", "a:80", "/x?y", "", "", true, STATUS_OK},
        {"PROPFIND", "https", "a", "/", "", "", true, STATUS_OK},
        {"OPTIONS", "https", "a", "*", "", "", true, STATUS_OK},
        {"GET", "https", "", "/", "", "host: a", true, STATUS_OK},
        {"GET", "https", "a", "/", "", "host: a", true, STATUS_OK},
        {"GET", "https", "a", "/", "", "te: trailers", true, STATUS_OK},
        {"POST", "https", "a", "/", "", "content-length: 3", false, STATUS_OK},
        {"POST", "https", "a", "/", "", "content-length: 0", true, STATUS_OK},
        {"POST", "https", "a", "/", "", "expect: 100-continue", false, STATUS_OK},
        {"CONNECT", "https", "a", "/", "websocket", "", false, STATUS_OK},
        {"G ET", "https", "a", "/", "", "", true, STATUS_BAD_METHOD},
        {"", "https", "a", "/", "", "", true, STATUS_BAD_METHOD},
        {"CONNECT", "https", "a", "/", "", "", true, STATUS_METHOD_NOT_ALLOWED},
        {"GET", "https", "a", "/", "websocket", "", false, STATUS_PSEUDO_HEADER_INVALID},
        {"CONNECT", "https", "a", "/", "web socket", "", false, STATUS_PSEUDO_HEADER_INVALID},
        {"CONNECT", "https", "a", "/", "websocket", "", true, STATUS_PSEUDO_HEADER_INVALID},
        {"GET", "ftp", "a", "/", "", "", true, STATUS_PSEUDO_HEADER_INVALID},
        {"GET", "", "a", "/", "", "", true, STATUS_PSEUDO_HEADER_INVALID},
        {"GET", "https", "a", "", "", "", true, STATUS_BAD_TARGET},
        {"GET", "https", "a", "*", "", "", true, STATUS_BAD_TARGET},
        {"GET", "https", "a", "x", "", "", true, STATUS_BAD_TARGET},
        {"GET", "https", "a", "/a b", "", "", true, STATUS_BAD_TARGET},
        {"GET", "https", "a", "/#f", "", "", true, STATUS_BAD_TARGET},
        {"GET", "https", "a", "https://a/", "", "", true, STATUS_BAD_TARGET},
        {"GET", "https", "u@a", "/", "", "", true, STATUS_HOST_INVALID},
        {"GET", "https", "a:b", "/", "", "", true, STATUS_HOST_INVALID},
        {"GET", "https", "", "/", "", "", true, STATUS_HOST_MISSING},
        {"GET", "https", "a", "/", "", "host: b", true, STATUS_HOST_MISMATCH},
        {"GET", "https", "a", "/", "", "host: a\nhost: a", true, STATUS_HOST_DUPLICATE},
        {"GET", "https", "a", "/", "", "connection: close", true, STATUS_CONNECTION_FIELD},
        {"GET", "https", "a", "/", "", "keep-alive: 1", true, STATUS_CONNECTION_FIELD},
        {"GET", "https", "a", "/", "", "proxy-connection: x", true, STATUS_CONNECTION_FIELD},
        {"GET", "https", "a", "/", "", "transfer-encoding: chunked", false, STATUS_CONNECTION_FIELD},
        {"GET", "https", "a", "/", "", "upgrade: websocket", true, STATUS_CONNECTION_FIELD},
        {"GET", "https", "a", "/", "", "te: gzip", true, STATUS_CONNECTION_FIELD},
        {"GET", "https", "a", "/", "", "te: trailers\nte: trailers", true, STATUS_CONNECTION_FIELD},
        {"POST", "https", "a", "/", "", "content-length: 3", true, STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "https", "a", "/", "", "content-length: x", false, STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "https", "a", "/", "", "content-length: 3\ncontent-length: 3", false, STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "https", "a", "/", "", "expect: 200-ok", false, STATUS_EXPECTATION_FAILED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct request *c = &cases[i];
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        enum status status = check(&arena, c, &head);
        arena_reset(&arena);
        if (status != c->status)
            fail_msg("%s %s %s [%s]: %s instead of %s", c->method, c->authority, c->path, c->fields,
                     status_code(status), status_code(c->status));
    }
}

static void test_bodies(void **state)
{
    static const struct {
        const char *fields;
        bool end;
        enum body_kind body;
        uint64_t length;
    } cases[] = {
        {"", true, BODY_NONE, 0},
        {"", false, BODY_CHUNKED, 0},
        {"content-length: 7", false, BODY_LENGTH, 7},
        {"content-length: 0", false, BODY_NONE, 0},
        {"content-length: 0", true, BODY_NONE, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct request request = {"POST", "https", "a", "/", "", cases[i].fields, cases[i].end, STATUS_OK};
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        assert_int_equal(check(&arena, &request, &head), STATUS_OK);
        assert_int_equal(head.body, cases[i].body);
        assert_int_equal(head.content_length, cases[i].length);
        assert_int_equal(head.version, HTTP_2);
        arena_reset(&arena);
    }
}

static void test_cookies(void **state)
{
    static const char *const cases[][2] = {
        {"cookie: a=b", "cookie: a=b\n"},
        {"cookie: a=b\ncookie: c=d", "cookie: a=b; c=d\n"},
        {"x: 1\ncookie: a\ny: 2\ncookie: b\nz: 3\ncookie: c", "x: 1\ncookie: a; b; c\ny: 2\nz: 3\n"},
        {"cookie:\ncookie: b", "cookie: ; b\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct request request = {"GET", "https", "a", "/", "", cases[i][0], true, STATUS_OK};
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        assert_int_equal(check(&arena, &request, &head), STATUS_OK);
        assert_slice(heads_text(&arena, &head.fields), cases[i][1]);
        arena_reset(&arena);
    }
}

static void test_extended_connect(void **state)
{
    struct request request = {"CONNECT", "https", "a", "/chat", "websocket", "content-length: 9", false, STATUS_OK};
    struct message_head head;
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    assert_int_equal(check(&arena, &request, &head), STATUS_OK);
    assert_int_equal(head.method, METHOD_GET);
    assert_slice(head.method_text, "GET");
    assert_slice(head.upgrade, "websocket");
    assert_int_equal(head.body, BODY_NONE);
    assert_false(head.has_content_length);
    assert_int_equal(fields_value(&head.fields, FIELD_SEC_WEBSOCKET_KEY).len, 24);
    request.protocol = "connect-udp";
    assert_int_equal(check(&arena, &request, &head), STATUS_OK);
    assert_false(fields_has(&head.fields, FIELD_SEC_WEBSOCKET_KEY));
    arena_reset(&arena);
}

struct response {
    int status;
    enum method method;
    const char *protocol; /* of extended CONNECT, "" for none */
    const char *fields;
    bool end;
    enum status result;
    enum body_kind body;
    bool has_length;
};

static void test_responses(void **state)
{
    static const struct response cases[] = {
        {200, METHOD_GET, "", "", false, STATUS_OK, BODY_CHUNKED, false},
        {200, METHOD_GET, "", "content-length: 3", false, STATUS_OK, BODY_LENGTH, true},
        {200, METHOD_GET, "", "content-length: 0", false, STATUS_OK, BODY_LENGTH, true},
        {200, METHOD_GET, "", "", true, STATUS_OK, BODY_NONE, false},
        {200, METHOD_GET, "", "content-length: 0", true, STATUS_OK, BODY_NONE, true},
        {200, METHOD_GET, "", "content-length: 3", true, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {200, METHOD_GET, "", "content-length: 3\ncontent-length: 3", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE,
         false},
        {200, METHOD_GET, "", "content-length: -1", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {200, METHOD_HEAD, "", "content-length: 3", true, STATUS_OK, BODY_NONE, true},
        {200, METHOD_HEAD, "", "content-length: 3", false, STATUS_OK, BODY_NONE, true},
        {304, METHOD_GET, "", "content-length: 3", true, STATUS_OK, BODY_NONE, true},
        {204, METHOD_GET, "", "", false, STATUS_OK, BODY_NONE, false},
        {204, METHOD_GET, "", "content-length: 0", true, STATUS_OK, BODY_NONE, false},
        {204, METHOD_GET, "", "content-length: 1", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {103, METHOD_GET, "", "link: x", false, STATUS_OK, BODY_NONE, false},
        {103, METHOD_GET, "", "", true, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {100, METHOD_GET, "", "content-length: 0", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {101, METHOD_GET, "", "", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {101, METHOD_GET, "websocket", "", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {0, METHOD_GET, "", "", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {99, METHOD_GET, "", "", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {1000, METHOD_GET, "", "", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {200, METHOD_GET, "", "connection: close", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {200, METHOD_GET, "", "transfer-encoding: chunked", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {200, METHOD_GET, "", "upgrade: x", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {200, METHOD_GET, "", "te: trailers", false, STATUS_UPSTREAM_BAD_RESPONSE, BODY_NONE, false},
        {403, METHOD_GET, "websocket", "", false, STATUS_OK, BODY_CHUNKED, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct response *c = &cases[i];
        struct semantics_asked asked = {.method = c->method, .protocol = slice_str(c->protocol)};
        struct arena arena;
        arena_init(&arena, NULL);
        struct message_head head = heads_response(&arena, c->status, HTTP_1_1, c->fields);
        enum status status = semantics_check_h2_response(&head, c->end, &asked, &arena);
        if (status != c->result || (status == STATUS_OK && head.body != c->body))
            fail_msg("%d %s: %s, body %d", c->status, c->fields, status_code(status), (int)head.body);
        if (status == STATUS_OK) {
            assert_int_equal(head.has_content_length, c->has_length);
            assert_int_equal(head.version, HTTP_2);
        }
        arena_reset(&arena);
    }
}

/* RFC 8441 section 5; the key and its answer are those of RFC 6455 section 1.3. */
static void test_a_tunnel_is_a_switch_of_protocols(void **state)
{
    struct semantics_asked asked = {
        .method = METHOD_GET, .protocol = SLICE("websocket"), .websocket_key = SLICE("dGhlIHNhbXBsZSBub25jZQ==")};
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    struct message_head head = heads_response(&arena, 200, HTTP_2, "x: y");
    assert_int_equal(semantics_check_h2_response(&head, false, &asked, &arena), STATUS_OK);
    assert_int_equal(head.status, 101);
    assert_int_equal(head.body, BODY_RAW);
    assert_slice(head.upgrade, "websocket");
    assert_slice(fields_value(&head.fields, FIELD_SEC_WEBSOCKET_ACCEPT), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),  cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_cookies),   cmocka_unit_test(test_extended_connect),
        cmocka_unit_test(test_responses), cmocka_unit_test(test_a_tunnel_is_a_switch_of_protocols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
