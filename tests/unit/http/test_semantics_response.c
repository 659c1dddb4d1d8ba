#include "http/heads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct response_case {
    int status;
    enum http_version version;
    enum method request_method;
    const char *fields;
    enum body_kind body;
    uint64_t length; /* told, if not UINT64_MAX */
    bool close;
};

#define NO_LENGTH UINT64_MAX

static void test_framing(void **state)
{
    static const struct response_case cases[] = {
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 5", BODY_LENGTH, 5, false},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 0", BODY_NONE, 0, false},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: chunked", BODY_CHUNKED, NO_LENGTH, false},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: CHUNKED", BODY_CHUNKED, NO_LENGTH, false},
        {200, HTTP_1_1, METHOD_GET, "", BODY_UNTIL_CLOSE, NO_LENGTH, true},
        {200, HTTP_1_1, METHOD_GET, "Connection: keep-alive", BODY_UNTIL_CLOSE, NO_LENGTH, true},
        {200, HTTP_1_0, METHOD_GET, "", BODY_UNTIL_CLOSE, NO_LENGTH, true},
        {200, HTTP_1_0, METHOD_GET, "Content-Length: 5", BODY_LENGTH, 5, true},
        {200, HTTP_1_0, METHOD_GET, "Content-Length: 5\nConnection: Keep-Alive", BODY_LENGTH, 5, false},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 5\nConnection: close", BODY_LENGTH, 5, true},
        {500, HTTP_1_1, METHOD_POST, "Content-Length: 5", BODY_LENGTH, 5, false},
        {205, HTTP_1_1, METHOD_POST, "Content-Length: 0", BODY_NONE, 0, false},
        {999, HTTP_1_1, METHOD_GET, "Content-Length: 1", BODY_LENGTH, 1, false},
        /* no body whatever the fields say */
        {200, HTTP_1_1, METHOD_HEAD, "Content-Length: 5", BODY_NONE, 5, false},
        {200, HTTP_1_1, METHOD_HEAD, "Transfer-Encoding: chunked", BODY_NONE, NO_LENGTH, false},
        {200, HTTP_1_1, METHOD_HEAD, "", BODY_NONE, NO_LENGTH, false},
        {304, HTTP_1_1, METHOD_GET, "Content-Length: 5", BODY_NONE, 5, false},
        {304, HTTP_1_1, METHOD_GET, "", BODY_NONE, NO_LENGTH, false},
        {204, HTTP_1_1, METHOD_GET, "", BODY_NONE, NO_LENGTH, false},
        {204, HTTP_1_1, METHOD_GET, "Content-Length: 0", BODY_NONE, NO_LENGTH, false},
        {204, HTTP_1_1, METHOD_GET, "Content-Length: 5", BODY_NONE, NO_LENGTH, true},
        {204, HTTP_1_1, METHOD_GET, "Transfer-Encoding: chunked", BODY_NONE, NO_LENGTH, true},
        {100, HTTP_1_1, METHOD_POST, "", BODY_NONE, NO_LENGTH, false},
        {100, HTTP_1_0, METHOD_POST, "", BODY_NONE, NO_LENGTH, false},
        {103, HTTP_1_1, METHOD_GET, "Link: x\nContent-Length: 0", BODY_NONE, NO_LENGTH, false},
        {200, HTTP_1_1, METHOD_CONNECT, "", BODY_RAW, NO_LENGTH, false},
        {407, HTTP_1_1, METHOD_CONNECT, "Content-Length: 5", BODY_LENGTH, 5, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct response_case *c = &cases[i];
        struct arena arena;
        arena_init(&arena, NULL);
        struct message_head head = heads_response(&arena, c->status, c->version, c->fields);
        assert_int_equal(semantics_check_response(&head, c->request_method, false), STATUS_OK);
        if (head.body != c->body || head.has_content_length != (c->length != NO_LENGTH) || head.close != c->close ||
            head.content_length != (c->length == NO_LENGTH ? 0 : c->length))
            fail_msg("%d [%s]: body %d, length %d %lu, close %d", c->status, c->fields, (int)head.body,
                     (int)head.has_content_length, (unsigned long)head.content_length, (int)head.close);
        assert_int_equal(head.upgrade.len, 0);
        arena_reset(&arena);
    }
}

static void test_violations(void **state)
{
    static const struct {
        int status;
        enum http_version version;
        enum method request_method;
        const char *fields;
    } cases[] = {
        {99, HTTP_1_1, METHOD_GET, ""},
        {1000, HTTP_1_1, METHOD_GET, ""},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 5\nTransfer-Encoding: chunked"},
        {200, HTTP_1_1, METHOD_HEAD, "Content-Length: 5\nTransfer-Encoding: chunked"},
        {200, HTTP_1_0, METHOD_GET, "Transfer-Encoding: chunked"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: gzip, chunked"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: gzip"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: identity"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding:"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: chunked, chunked"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: chunked\nTransfer-Encoding: chunked"},
        {200, HTTP_1_1, METHOD_GET, "Transfer-Encoding: chunked\x0b"},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 5\nContent-Length: 5"},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 5, 5"},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: -1"},
        {200, HTTP_1_1, METHOD_GET, "Content-Length:"},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 99999999999999999999"},
        {204, HTTP_1_1, METHOD_GET, "Content-Length: x"},
        {304, HTTP_1_1, METHOD_GET, "Content-Length: 1\nContent-Length: 2"},
        {100, HTTP_1_1, METHOD_GET, "Content-Length: 5"},
        {103, HTTP_1_1, METHOD_GET, "Transfer-Encoding: chunked"},
        {200, HTTP_1_1, METHOD_GET, "Content-Length: 5\nConnection: a b"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct message_head head = heads_response(&arena, cases[i].status, cases[i].version, cases[i].fields);
        if (semantics_check_response(&head, cases[i].request_method, false) != STATUS_UPSTREAM_BAD_RESPONSE)
            fail_msg("%d [%s] is accepted", cases[i].status, cases[i].fields);
        arena_reset(&arena);
    }
}

static void test_switching_protocols(void **state)
{
    static const struct {
        enum http_version version;
        bool asked;
        const char *fields;
        enum status status;
    } cases[] = {
        {HTTP_1_1, true, "Connection: Upgrade\nUpgrade: websocket", STATUS_OK},
        {HTTP_1_1, true, "Connection: Upgrade\nUpgrade: websocket\nContent-Length: 0", STATUS_OK},
        {HTTP_1_1, false, "Connection: Upgrade\nUpgrade: websocket", STATUS_UPSTREAM_BAD_RESPONSE},
        {HTTP_1_0, true, "Connection: Upgrade\nUpgrade: websocket", STATUS_UPSTREAM_BAD_RESPONSE},
        {HTTP_1_1, true, "Upgrade: websocket", STATUS_UPSTREAM_BAD_RESPONSE},
        {HTTP_1_1, true, "Connection: Upgrade", STATUS_UPSTREAM_BAD_RESPONSE},
        {HTTP_1_1, true, "Connection: Upgrade\nUpgrade: h2c", STATUS_UPSTREAM_BAD_RESPONSE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct message_head head = heads_response(&arena, 101, cases[i].version, cases[i].fields);
        assert_int_equal(semantics_check_response(&head, METHOD_GET, cases[i].asked), cases[i].status);
        if (cases[i].status == STATUS_OK) {
            assert_int_equal(head.body, BODY_RAW);
            assert_false(head.has_content_length);
            assert_false(head.close);
            assert_slice(head.upgrade, "websocket");
        }
        arena_reset(&arena);
    }
}

/* RFC 9110 section 15.5.22: a 426 must tell what to upgrade to. */
static void test_a_refused_upgrade_is_a_plain_response(void **state)
{
    static const struct {
        int status;
        enum method request_method;
        bool asked;
        const char *fields;
        const char *upgrade;
    } cases[] = {
        {426, METHOD_GET, true, "Connection: upgrade\nUpgrade: websocket\nContent-Length: 2", "websocket"},
        {426, METHOD_GET, false, "Connection: close, Upgrade\nUpgrade: TLS/1.0, raw\nContent-Length: 2", "TLS/1.0"},
        {426, METHOD_GET, true, "Connection: upgrade\nUpgrade: h2c, websocket\nContent-Length: 2", "websocket"},
        {426, METHOD_GET, true, "Connection: upgrade\nUpgrade: h2c\nContent-Length: 2", ""},
        {426, METHOD_GET, true, "Upgrade: websocket\nContent-Length: 2", ""},
        {426, METHOD_GET, true, "Connection: upgrade\nContent-Length: 2", ""},
        {426, METHOD_HEAD, false, "Connection: upgrade\nUpgrade: websocket\nContent-Length: 2", "websocket"},
        {400, METHOD_GET, true, "Connection: upgrade\nUpgrade: websocket\nContent-Length: 2", ""},
        {200, METHOD_GET, true, "Connection: upgrade\nUpgrade: websocket\nContent-Length: 2", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct message_head head = heads_response(&arena, cases[i].status, HTTP_1_1, cases[i].fields);
        assert_int_equal(semantics_check_response(&head, cases[i].request_method, cases[i].asked), STATUS_OK);
        assert_int_equal(head.body, cases[i].request_method == METHOD_HEAD ? BODY_NONE : BODY_LENGTH);
        assert_slice(head.upgrade, cases[i].upgrade);
        arena_reset(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_violations),
        cmocka_unit_test(test_switching_protocols),
        cmocka_unit_test(test_a_refused_upgrade_is_a_plain_response),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
