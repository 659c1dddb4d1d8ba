#include "http/heads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct forward_params params(bool trusted)
{
    return (struct forward_params){.client_address = SLICE("192.0.2.7"),
                                   .proto = SLICE("https"),
                                   .port = SLICE("443"),
                                   .request_id = SLICE("r-1"),
                                   .via = SLICE("phala-gateway"),
                                   .peer_is_trusted = trusted};
}

#define OURS_WITH(request_id)                                                                                          \
    "x-forwarded-for: 192.0.2.7\nx-forwarded-proto: https\nx-forwarded-host: a:8443\nx-forwarded-port: 443\n"          \
    "x-real-ip: 192.0.2.7\nx-request-id: " request_id "\nvia: 1.1 phala-gateway\n"
#define OURS OURS_WITH("r-1")

struct forward_case {
    bool trusted;
    const char *received; /* after "Host: a:8443" */
    const char *sent;     /* after "host: a:8443" */
};

static const struct forward_case request_cases[] = {
    {false, "", OURS},
    {true, "", OURS},
    {false, "User-Agent: u\nB: 1\nA: 2\nB: 3", "User-Agent: u\nB: 1\nA: 2\nB: 3\n" OURS},
    {false, "traceparent: t\nTrailer: x", "traceparent: t\nTrailer: x\n" OURS},
    /* hop by hop */
    {false, "Connection: keep-alive\nKeep-Alive: timeout=5\nProxy-Connection: keep-alive\nAccept: x",
     "Accept: x\n" OURS},
    {false, "TE: trailers, gzip\nConnection: TE", OURS},
    {false, "Upgrade: websocket\nConnection: upgrade\nSec-WebSocket-Key: k", "Sec-WebSocket-Key: k\n" OURS},
    {false, "HTTP2-Settings: x\nUpgrade: h2c\nConnection: Upgrade, HTTP2-Settings", OURS},
    {false, "Proxy-Authorization: x\nproxy-authenticate: y\nProxy-Foo: z\nPROXY: http://evil\nProxyish: kept",
     "Proxyish: kept\n" OURS},
    {false, "Content-Length: 5\nExpect: 100-continue\nContent-Type: t", "Content-Type: t\n" OURS},
    {false, "Transfer-Encoding: chunked", OURS},
    /* named by Connection */
    {false, "Connection: x-a, close\nConnection: X-B\nX-A: 1\nx-b: 2\nX-C: 3\nClose: 4", "X-C: 3\nClose: 4\n" OURS},
    {false, "Connection: Cookie\nCookie: c", OURS},
    {false, "Connection: host, content-length, x-forwarded-for, x-real-ip, via, x-request-id\nContent-Length: 5", OURS},
    {false, "Connection: x_y\nX-Y: kept", "X-Y: kept\n" OURS},
    /* identity claimed by an untrusted peer */
    {false,
     "X-Forwarded-For: 10.0.0.1\nx-forwarded-for: 10.0.0.2\nX-Forwarded-Proto: http\nX-Forwarded-Host: evil\n"
     "X-Forwarded-Port: 1\nX-Real-IP: 10.0.0.1\nX-Request-Id: forged\nForwarded: for=10.0.0.1",
     OURS},
    /* spellings that a CGI-like server takes for ours */
    {false,
     "X_Forwarded_For: 1\nX-Forwarded_For: 2\nx_real_ip: 3\nX.Forwarded.For: 4\nX_FORWARDED_PROTO: 5\n"
     "Content_Length: 6\nTransfer_Encoding: chunked\nX_Request_Id: 7\nProxy_Authorization: 8\nHTTP2_Settings: 9",
     OURS},
    {true, "X_Forwarded_For: 1\nContent_Length: 6", OURS},
    {false, "user_agent: kept\nmy_field: kept\na_very_long_name_with_underscores: kept",
     "user_agent: kept\nmy_field: kept\na_very_long_name_with_underscores: kept\n" OURS},
    /* a received Via stays in front of ours */
    {false, "Via: 1.0 fred", "Via: 1.0 fred\n" OURS},
    /* identity told by a trusted peer */
    {true,
     "X-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: http\nX-Forwarded-For: 10.0.0.2, 10.0.0.3\nX-Request-Id: r-0\n"
     "Forwarded: for=10.0.0.1\nX-Real-IP: 10.0.0.1\nX-Forwarded-For:",
     "X-Forwarded-Proto: http\nForwarded: for=10.0.0.1\nX-Real-IP: 10.0.0.1\n"
     "x-forwarded-for: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7\nx-forwarded-host: a:8443\nx-forwarded-port: 443\n"
     "x-request-id: r-0\nvia: 1.1 phala-gateway\n"},
    /* its X-Request-Id is the one of the access log, and there once */
    {true, "X-Request-Id:", OURS},
    {true, "X-Request-Id: r-0\nX-Request-Id: r-2", OURS_WITH("r-0")},
    {true, "X-Request-Id:\nX-Request-Id: r-2", OURS},
    {true, "Connection: x-request-id\nX-Request-Id: r-0", OURS_WITH("r-0")},
    {true, "Connection: x-forwarded-for, x-forwarded-proto\nX-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: http",
     "X-Forwarded-Proto: http\nx-forwarded-for: 10.0.0.1, 192.0.2.7\nx-forwarded-host: a:8443\n"
     "x-forwarded-port: 443\nx-real-ip: 192.0.2.7\nx-request-id: r-1\nvia: 1.1 phala-gateway\n"},
};

static void test_request_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof request_cases / sizeof request_cases[0]; i++) {
        const struct forward_case *c = &request_cases[i];
        struct forward_params p = params(c->trusted);
        char received[1024], sent[1024];
        struct arena arena;
        arena_init(&arena, NULL);
        snprintf(received, sizeof received, "Host: a:8443\n%s", c->received);
        snprintf(sent, sizeof sent, "host: a:8443\n%s", c->sent);
        struct message_head head = heads_request(&arena, "GET", "/", HTTP_1_1, received), out;
        enum status status = semantics_check_request(&head);
        assert_true(status == STATUS_OK || status == STATUS_UPGRADE_WITH_BODY);
        struct slice given = fields_value(&head.fields, FIELD_X_REQUEST_ID);
        if (c->trusted && given.len > 0) /* as the caller does */
            p.request_id = given;
        semantics_forward_request(&head, &p, &arena, &out);
        assert_slice(heads_text(&arena, &out.fields), sent);
        for (unsigned id = 1; id < FIELD_COUNT; id++)
            assert_int_equal(fields_has(&out.fields, (enum field_id)id),
                             fields_count_of(&out.fields, (enum field_id)id) > 0);
        arena_reset(&arena);
    }
}

static void test_request_members(void **state)
{
    struct forward_params p = params(false);
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    struct message_head head = heads_request(&arena, "POST", "http://b?q", HTTP_1_1,
                                             "Host: b\nContent-Length: 5\nConnection: close, te\nTE: trailers\n"
                                             "Expect: 100-continue");
    assert_int_equal(semantics_check_request(&head), STATUS_OK);
    assert_true(head.close);
    semantics_forward_request(&head, &p, &arena, &head);
    assert_slice(head.path, "/?q");
    assert_slice(head.method_text, "POST");
    assert_int_equal(head.body, BODY_LENGTH);
    assert_true(head.has_content_length && head.content_length == 5);
    assert_true(head.expect_continue);
    assert_true(head.te_trailers);
    assert_false(head.close);
    assert_slice(fields_value(&head.fields, FIELD_X_FORWARDED_HOST), "b");
    arena_reset(&arena);
}

static void test_plain_values_are_not_copied(void **state)
{
    struct forward_params p = params(false);
    struct arena arena;
    struct message_head out;
    (void)state;
    arena_init(&arena, NULL);
    struct message_head head = heads_request(&arena, "GET", "/", HTTP_1_1, "Host: a\nAccept: b");
    assert_int_equal(semantics_check_request(&head), STATUS_OK);
    semantics_forward_request(&head, &p, &arena, &out);
    assert_ptr_equal(fields_value(&out.fields, FIELD_X_FORWARDED_FOR).ptr, p.client_address.ptr);
    assert_ptr_equal(fields_value(&out.fields, FIELD_HOST).ptr, head.authority.ptr);
    assert_ptr_equal(fields_value(&out.fields, FIELD_ACCEPT).ptr, fields_value(&head.fields, FIELD_ACCEPT).ptr);
    assert_slice(out.path, "/");
    assert_ptr_equal(out.path.ptr, head.path.ptr);
    arena_reset(&arena);
}

static void test_via_tells_the_version(void **state)
{
    static const struct {
        enum http_version version;
        const char *via;
        const char *value;
    } cases[] = {
        {HTTP_1_0, "phala-gateway", "1.0 phala-gateway"},
        {HTTP_1_1, "phala-gateway", "1.1 phala-gateway"},
        {HTTP_2, "phala-gateway", "2 phala-gateway"},
        {HTTP_1_1, "gw7", "1.1 gw7"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct message_head head = {.status = 200, .version = cases[i].version}, out;
        semantics_forward_response(&head, slice_str(cases[i].via), &arena, &out);
        assert_slice(fields_value(&out.fields, FIELD_VIA), cases[i].value);
        arena_reset(&arena);
    }
}

static void test_without_authority_or_address(void **state)
{
    struct forward_params p = {.via = SLICE("phala-gateway")};
    struct arena arena;
    struct message_head out;
    (void)state;
    arena_init(&arena, NULL);
    struct message_head head = heads_request(&arena, "GET", "/", HTTP_1_0, "");
    assert_int_equal(semantics_check_request(&head), STATUS_OK);
    semantics_forward_request(&head, &p, &arena, &out);
    assert_slice(heads_text(&arena, &out.fields), "host: \nvia: 1.0 phala-gateway\n");
    arena_reset(&arena);
}

static void test_response_fields(void **state)
{
    static const struct {
        int status;
        const char *received;
        const char *sent;
    } cases[] = {
        {200, "Date: d\nServer: s\nSet-Cookie: 1\nSet-Cookie: 2\nContent-Length: 5",
         "Date: d\nServer: s\nSet-Cookie: 1\nSet-Cookie: 2\nvia: 1.1 phala-gateway\n"},
        {200, "Connection: close, X-Hop\nx-hop: 1\nKeep-Alive: 5\nTransfer-Encoding: chunked\nX-End: 2",
         "X-End: 2\nvia: 1.1 phala-gateway\n"},
        {200, "X-Gateway-Error: forged\nContent-Length: 0\nProxy-Authenticate: x\nProxy-Status: kept",
         "Proxy-Status: kept\nvia: 1.1 phala-gateway\n"},
        {101, "Connection: upgrade\nUpgrade: websocket\nSec-WebSocket-Accept: k",
         "Sec-WebSocket-Accept: k\nvia: 1.1 phala-gateway\n"},
        {103, "Link: </x>\nVia: 1.1 inner", "Link: </x>\nVia: 1.1 inner\nvia: 1.1 phala-gateway\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        struct message_head out;
        arena_init(&arena, NULL);
        struct message_head head = heads_response(&arena, cases[i].status, HTTP_1_1, cases[i].received);
        assert_int_equal(semantics_check_response(&head, METHOD_GET, true), STATUS_OK);
        semantics_forward_response(&head, SLICE("phala-gateway"), &arena, &out);
        assert_slice(heads_text(&arena, &out.fields), cases[i].sent);
        assert_int_equal(out.status, cases[i].status);
        assert_int_equal(out.body, head.body);
        assert_slice(out.upgrade, cases[i].status == 101 ? "websocket" : "");
        assert_false(out.close);
        arena_reset(&arena);
    }
}

static void test_trailers(void **state)
{
    static const char received[] =
        "Grpc-Status: 0\nContent-Length: 5\nTransfer-Encoding: chunked\nHost: x\nAuthorization: x\nCookie: x\n"
        "Set-Cookie: x\nContent-Type: x\nCONTENT-ENCODING: x\nContent-Range: x\nTrailer: x\nConnection: x\nTE: x\n"
        "Cache-Control: x\nMax-Forwards: 1\nExpect: x\nRange: x\nIf-None-Match: x\nIf-Match: x\nWWW-Authenticate: x\n"
        "Proxy-Authenticate: x\nProxy-Foo: x\nAge: x\nDate: x\nExpires: x\nLocation: x\nRetry-After: x\nVary: x\n"
        "X-Forwarded-For: x\nX_Forwarded_For: x\nContent_Length: 1\nForwarded: x\nX-Request-Id: x\n"
        "X-Gateway-Error: x\nUpgrade: x\nDigest: d\ngrpc-message: ok\nServer-Timing: t";
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    struct fields trailers = heads_fields(&arena, received);
    semantics_filter_trailers(&trailers);
    assert_slice(heads_text(&arena, &trailers), "Grpc-Status: 0\nDigest: d\ngrpc-message: ok\nServer-Timing: t\n");
    assert_false(fields_has(&trailers, FIELD_HOST));
    trailers = FIELDS_NONE;
    semantics_filter_trailers(&trailers);
    assert_int_equal(trailers.count, 0);
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_request_members),
        cmocka_unit_test(test_plain_values_are_not_copied),
        cmocka_unit_test(test_via_tells_the_version),
        cmocka_unit_test(test_without_authority_or_address),
        cmocka_unit_test(test_response_fields),
        cmocka_unit_test(test_trailers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
