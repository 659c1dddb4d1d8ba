#include "http/heads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static enum status check(struct arena *arena, const char *method, const char *target, enum http_version version,
                         const char *fields, struct message_head *ret_head)
{
    *ret_head = heads_request(arena, method, target, version, fields);
    return semantics_check_request(ret_head);
}

struct refusal {
    const char *method;
    const char *target;
    enum http_version version;
    const char *fields;
    enum status status;
};

static void check_all(const struct refusal *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct refusal *c = &cases[i];
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        enum status status = check(&arena, c->method, c->target, c->version, c->fields, &head);
        arena_reset(&arena);
        if (status != c->status)
            fail_msg("%s %s [%s]: %s instead of %s", c->method, c->target, c->fields, status_code(status),
                     status_code(c->status));
    }
}
#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof(cases)[0])

static void test_methods(void **state)
{
    static const struct refusal cases[] = {
        {"GET", "/", HTTP_1_1, "Host: a", STATUS_OK},
        {"PROPFIND", "/", HTTP_1_1, "Host: a", STATUS_OK},
        {"get", "/", HTTP_1_1, "Host: a", STATUS_OK},
        {"", "/", HTTP_1_1, "Host: a", STATUS_BAD_METHOD},
        {"G ET", "/", HTTP_1_1, "Host: a", STATUS_BAD_METHOD},
        {"GET\x0b", "/", HTTP_1_1, "Host: a", STATUS_BAD_METHOD},
        {"GET:", "/", HTTP_1_1, "Host: a", STATUS_BAD_METHOD},
        {"G\xc3\xa9T", "/", HTTP_1_1, "Host: a", STATUS_BAD_METHOD},
        {"CONNECT", "a:443", HTTP_1_1, "Host: a:443", STATUS_METHOD_NOT_ALLOWED},
        {"CONNECT", "/", HTTP_1_1, "Host: a", STATUS_METHOD_NOT_ALLOWED},
    };
    (void)state;
    CHECK_ALL(cases);
}

static void test_bad_targets(void **state)
{
    static const struct refusal cases[] = {
        {"GET", "", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "*", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"OPTIONS", "**", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"OPTIONS", "*?x", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "path", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "?q", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "a:80", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/#f", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/a#", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/a b", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/a\tb", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/a\rb", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/\x01", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/\x0b", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/\x7f", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/\x80", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "/\xc3\xa9", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "ftp://a/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "file:///etc/passwd", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "httpx://a/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http:/a/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http:a", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http:///x", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://?x", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://:80/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://u@a/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://u:p@a/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://a:99999/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://a:x/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://a\\b/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://[::1/", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
        {"GET", "http://a/#f", HTTP_1_1, "Host: a", STATUS_BAD_TARGET},
    };
    (void)state;
    CHECK_ALL(cases);
}

static const struct refusal bad_hosts[] = {
    {"GET", "/", HTTP_1_1, "", STATUS_HOST_MISSING},
    {"GET", "/", HTTP_1_1, "X_Host: a\nHos: a", STATUS_HOST_MISSING},
    {"GET", "http://a/", HTTP_1_1, "", STATUS_HOST_MISSING},
    {"GET", "/", HTTP_1_1, "Host: a\nHost: a", STATUS_HOST_DUPLICATE},
    {"GET", "/", HTTP_1_1, "Host: a\nX: y\nhOST: b", STATUS_HOST_DUPLICATE},
    {"GET", "/", HTTP_1_0, "Host: a\nHost: a", STATUS_HOST_DUPLICATE},
    {"GET", "http://a/", HTTP_1_1, "Host: a\nHost: a", STATUS_HOST_DUPLICATE},
    {"GET", "/", HTTP_1_1, "Host:", STATUS_HOST_INVALID},
    {"GET", "http://a/", HTTP_1_1, "Host:", STATUS_HOST_INVALID},
    {"OPTIONS", "*", HTTP_1_1, "Host:", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a\tb", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a,b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a, a", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: u@a", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a/b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: http://a", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a?b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a#b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a\\b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a%2eb", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a;b", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: \"a\"", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1,
     "Host: \x0b"
     "a",
     STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a\xff", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: :80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:0", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:65536", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:18446744073709551617", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:8x", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:-1", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:+80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a: 80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a:80:80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: a::80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: ::1", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: []", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [::1", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: ::1]", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [::1]80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [::1]x:80", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [::g]", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [1::2::3]", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [1.2.3.4]", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [fe80::1%25eth0]", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [v1.a]", STATUS_HOST_INVALID},
    {"GET", "/", HTTP_1_1, "Host: [1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:1:2:3:4:5:6:7:8]", STATUS_HOST_INVALID},
    {"GET", "http://a/", HTTP_1_1, "Host: b", STATUS_HOST_MISMATCH},
    {"GET", "http://a/", HTTP_1_0, "Host: b", STATUS_HOST_MISMATCH},
    {"GET", "http://a/", HTTP_1_1, "Host: a.", STATUS_HOST_MISMATCH},
    {"GET", "http://a/", HTTP_1_1, "Host: a:8080", STATUS_HOST_MISMATCH},
    {"GET", "http://a/", HTTP_1_1, "Host: a:443", STATUS_HOST_MISMATCH},
    {"GET", "https://a/", HTTP_1_1, "Host: a:80", STATUS_HOST_MISMATCH},
};

static void test_bad_hosts(void **state)
{
    (void)state;
    CHECK_ALL(bad_hosts);
}

static void test_bad_framing(void **state)
{
    static const struct refusal cases[] = {
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5\nTransfer-Encoding: chunked", STATUS_FRAMING_CONFLICT},
        {"POST", "/", HTTP_1_1, "Host: a\ntransfer-encoding: x\ncontent-length: 0", STATUS_FRAMING_CONFLICT},
        {"POST", "/", HTTP_1_0, "Content-Length: 5\nTransfer-Encoding: chunked", STATUS_FRAMING_CONFLICT},
        {"POST", "/", HTTP_1_0, "Transfer-Encoding: chunked", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding:", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: identity", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: gzip", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: gzip, chunked", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked, gzip", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked, chunked", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked, identity", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
         STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked\ntransfer-encoding: x",
         STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: , chunked", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked,", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked;q=1", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: \"chunked\"", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: xchunked", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunkedx", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1,
         "Host: a\nTransfer-Encoding: \x0b"
         "chunked",
         STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chunked\x0c", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nTransfer-Encoding: chun\tked", STATUS_TRANSFER_CODING_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length:", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5\nContent-Length: 5", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5\ncontent-length: 6", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5, 5", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5,", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: +5", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: -5", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 0x5", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5.0", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 1 2", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 5\x0b", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: five", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 9223372036854775808", STATUS_CONTENT_LENGTH_INVALID},
        {"POST", "/", HTTP_1_1, "Host: a\nContent-Length: 18446744073709551617", STATUS_CONTENT_LENGTH_INVALID},
        {"GET", "/", HTTP_1_0, "Content-Length: 5\nContent-Length: 5", STATUS_CONTENT_LENGTH_INVALID},
    };
    (void)state;
    CHECK_ALL(cases);
}

static void test_bad_connection_upgrade_expect(void **state)
{
    static const struct refusal cases[] = {
        {"GET", "/", HTTP_1_1, "Host: a\nConnection: a b", STATUS_BAD_FIELD_VALUE},
        {"GET", "/", HTTP_1_1, "Host: a\nConnection: \"x, close\"", STATUS_BAD_FIELD_VALUE},
        {"GET", "/", HTTP_1_1, "Host: a\nConnection: close\nConnection: a;b", STATUS_BAD_FIELD_VALUE},
        {"GET", "/", HTTP_1_1, "Host: a\nConnection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6",
         STATUS_OK},
        {"GET", "/", HTTP_1_1,
         "Host: a\nConnection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6\nConnection: 7",
         STATUS_BAD_FIELD_VALUE},
        {"POST", "/", HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 1",
         STATUS_UPGRADE_WITH_BODY},
        {"POST", "/", HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: websocket\nTransfer-Encoding: chunked",
         STATUS_UPGRADE_WITH_BODY},
        {"POST", "/", HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: h2c\nContent-Length: 1", STATUS_OK},
        {"GET", "/", HTTP_1_1, "Host: a\nExpect: 200-ok", STATUS_EXPECTATION_FAILED},
        {"GET", "/", HTTP_1_1, "Host: a\nExpect: 100-continue, x", STATUS_EXPECTATION_FAILED},
        {"GET", "/", HTTP_1_1, "Host: a\nExpect: 100-continue\nExpect: y", STATUS_EXPECTATION_FAILED},
        {"GET", "/", HTTP_1_0, "Host: a\nExpect: y", STATUS_OK},
    };
    (void)state;
    CHECK_ALL(cases);
}

static void test_target_forms(void **state)
{
    static const struct {
        const char *method, *target, *host, *scheme, *authority, *path;
    } cases[] = {
        {"GET", "/", "a", "", "a", "/"},
        {"GET", "//b/c", "a", "", "a", "//b/c"},
        {"GET", "/http://b/", "a", "", "a", "/http://b/"},
        {"GET", "/x?y=http://b", "A.example:8443", "", "A.example:8443", "/x?y=http://b"},
        {"GET", "/%00?{}|^`\"<>\\[]", "a:", "", "a:", "/%00?{}|^`\"<>\\[]"},
        {"GET", "/", "[2001:db8::1]:443", "", "[2001:db8::1]:443", "/"},
        {"GET", "/", "[::ffff:1.2.3.4]", "", "[::ffff:1.2.3.4]", "/"},
        {"GET", "/", "1.2.3.4:65535", "", "1.2.3.4:65535", "/"},
        {"GET", "/", "my_app", "", "my_app", "/"},
        {"OPTIONS", "*", "a", "", "a", "*"},
        {"OPTIONS", "/", "a", "", "a", "/"},
        {"OPTIONS", "http://a", "a", "http", "a", "*"},
        {"OPTIONS", "http://a/", "a", "http", "a", "/"},
        {"OPTIONS", "http://a?q", "a", "http", "a", "?q"},
        {"GET", "http://a", "a", "http", "a", "/"},
        {"GET", "HTTP://A/x", "a", "http", "A", "/x"},
        {"GET", "https://a:443/x?y", "a", "https", "a:443", "/x?y"},
        {"GET", "https://a/", "a:0443", "https", "a", "/"},
        {"GET", "http://a:/", "a:80", "http", "a:", "/"},
        {"GET", "http://a?q", "a", "http", "a", "?q"},
        {"GET", "http://a/u@b", "a", "http", "a", "/u@b"},
        {"GET", "http://[::1]:8080/", "[::1]:8080", "http", "[::1]:8080", "/"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char fields[128];
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        snprintf(fields, sizeof fields, "Host: %s", cases[i].host);
        assert_int_equal(check(&arena, cases[i].method, cases[i].target, HTTP_1_1, fields, &head), STATUS_OK);
        assert_slice(head.scheme, cases[i].scheme);
        assert_slice(head.authority, cases[i].authority);
        assert_slice(head.path, cases[i].path);
        arena_reset(&arena);
    }
}

static void test_http_1_0_without_host(void **state)
{
    struct message_head head;
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    assert_int_equal(check(&arena, "GET", "/x", HTTP_1_0, "", &head), STATUS_OK);
    assert_int_equal(head.authority.len, 0);
    assert_true(head.close);
    assert_int_equal(check(&arena, "GET", "http://b:81/x", HTTP_1_0, "", &head), STATUS_OK);
    assert_slice(head.authority, "b:81");
    assert_slice(head.path, "/x");
    arena_reset(&arena);
}

static void test_framing(void **state)
{
    static const struct {
        const char *fields;
        enum body_kind body;
        bool has_length;
        uint64_t length;
    } cases[] = {
        {"Host: a", BODY_NONE, false, 0},
        {"Host: a\nContent-Length: 0", BODY_NONE, true, 0},
        {"Host: a\nContent-Length: 000", BODY_NONE, true, 0},
        {"Host: a\nContent-Length: 5", BODY_LENGTH, true, 5},
        {"Host: a\ncontent-length:  10737418240 ", BODY_LENGTH, true, 10737418240U},
        {"Host: a\nContent-Length: 9223372036854775807", BODY_LENGTH, true, INT64_MAX},
        {"Host: a\nTransfer-Encoding: chunked", BODY_CHUNKED, false, 0},
        {"Host: a\nTransfer-Encoding: Chunked ", BODY_CHUNKED, false, 0},
        {"Host: a\nTRANSFER-ENCODING: CHUNKED", BODY_CHUNKED, false, 0},
        {"Host: a\nTransfer_Encoding: chunked\nContent-Length: 1", BODY_LENGTH, true, 1},
        {"Host: a\nContent_Length: 9", BODY_NONE, false, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        assert_int_equal(check(&arena, "POST", "/", HTTP_1_1, cases[i].fields, &head), STATUS_OK);
        assert_int_equal(head.body, cases[i].body);
        assert_int_equal(head.has_content_length, cases[i].has_length);
        assert_true(head.content_length == cases[i].length);
        arena_reset(&arena);
    }
}

static void test_connection(void **state)
{
    static const struct {
        enum http_version version;
        const char *fields;
        bool close;
        const char *upgrade;
    } cases[] = {
        {HTTP_1_1, "Host: a", false, ""},
        {HTTP_1_1, "Host: a\nConnection: keep-alive", false, ""},
        {HTTP_1_1, "Host: a\nConnection: close", true, ""},
        {HTTP_1_1, "Host: a\nConnection: keep-alive\nConnection: x ,\tCLOSE", true, ""},
        {HTTP_1_1, "Host: a\nConnection: closed", false, ""},
        {HTTP_1_1, "Host: a\nProxy-Connection: close", false, ""},
        {HTTP_1_0, "Host: a", true, ""},
        {HTTP_1_0, "Host: a\nConnection: Keep-Alive", false, ""},
        {HTTP_1_0, "Host: a\nConnection: Keep-Alive, close", true, ""},
        {HTTP_1_0, "Host: a\nProxy-Connection: keep-alive", true, ""},
        {HTTP_1_1, "Host: a\nConnection: keep-alive, Upgrade\nUpgrade: websocket", false, "websocket"},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 0", false, "websocket"},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: foo/2, websocket", false, "foo/2"},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: h2c, websocket", false, "websocket"},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: h2c\nUpgrade: tcp", false, "tcp"},
        {HTTP_1_1, "Host: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: x", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: H2C", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: h2", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: HTTP/2.0", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: a b", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: a/", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade: /a", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade\nUpgrade:", false, ""},
        {HTTP_1_1, "Host: a\nConnection: upgrade", false, ""},
        {HTTP_1_1, "Host: a\nUpgrade: websocket", false, ""},
        {HTTP_1_0, "Host: a\nConnection: upgrade\nUpgrade: websocket", true, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        assert_int_equal(check(&arena, "GET", "/", cases[i].version, cases[i].fields, &head), STATUS_OK);
        if (head.close != cases[i].close)
            fail_msg("%s: close %d", cases[i].fields, (int)head.close);
        assert_slice(head.upgrade, cases[i].upgrade);
        arena_reset(&arena);
    }
}

static void test_expect_and_te(void **state)
{
    static const struct {
        enum http_version version;
        const char *fields;
        bool expect, te;
    } cases[] = {
        {HTTP_1_1, "Host: a\nContent-Length: 5\nExpect: 100-Continue", true, false},
        {HTTP_1_1, "Host: a\nTransfer-Encoding: chunked\nExpect: 100-continue\nExpect: 100-continue", true, false},
        {HTTP_1_1, "Host: a\nExpect: 100-continue", false, false},
        {HTTP_1_1, "Host: a\nContent-Length: 0\nExpect: 100-continue", false, false},
        {HTTP_1_0, "Host: a\nContent-Length: 5\nExpect: 100-continue", false, false},
        {HTTP_1_1, "Host: a\nTE: trailers\nConnection: TE", false, true},
        {HTTP_1_1, "Host: a\nTE: gzip;q=0.5, Trailers", false, true},
        {HTTP_1_1, "Host: a\nTE: gzip", false, false},
        {HTTP_1_0, "Host: a\nTE: trailers", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct message_head head;
        struct arena arena;
        arena_init(&arena, NULL);
        assert_int_equal(check(&arena, "POST", "/", cases[i].version, cases[i].fields, &head), STATUS_OK);
        assert_int_equal(head.expect_continue, cases[i].expect);
        assert_int_equal(head.te_trailers, cases[i].te);
        arena_reset(&arena);
    }
}

static void test_bytes(void **state)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    (void)state;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        struct slice s = slice_make(&byte, 1);
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        assert_int_equal(is_token(s), alnum || (c != 0 && strchr(marks, c)));
        assert_int_equal(is_field_value(s), c == '\t' || (c >= 0x20 && c != 0x7f));
        assert_int_equal(is_target(s), c > 0x20 && c < 0x7f && c != '#');
        assert_int_equal(is_authority(s), alnum || c == '-' || c == '.' || c == '_');
    }
    assert_false(is_token(SLICE_NONE));
    assert_true(is_field_value(SLICE_NONE));
    assert_false(is_target(SLICE_NONE));
    assert_false(is_authority(SLICE_NONE));
    assert_false(is_authority(slice_make("[::1\0]", 6)));
    assert_false(is_token(SLICE("good bad")));
}

static void test_authority_split(void **state)
{
    static const struct {
        const char *authority, *host, *port;
    } cases[] = {
        {"a", "a", ""},          {"a:", "a", ""},           {"a:80", "a", "80"}, {"[::1]", "[::1]", ""},
        {"[::1]:", "[::1]", ""}, {"[::1]:8", "[::1]", "8"}, {"", "", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct slice host, port;
        authority_split(slice_str(cases[i].authority), &host, &port);
        assert_slice(host, cases[i].host);
        assert_slice(port, cases[i].port);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_bad_targets),
        cmocka_unit_test(test_bad_hosts),
        cmocka_unit_test(test_bad_framing),
        cmocka_unit_test(test_bad_connection_upgrade_expect),
        cmocka_unit_test(test_target_forms),
        cmocka_unit_test(test_http_1_0_without_host),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_connection),
        cmocka_unit_test(test_expect_and_te),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_authority_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
