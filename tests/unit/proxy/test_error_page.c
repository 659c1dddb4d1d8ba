#include "gateway/proxy/error_page.h"
#include "proxy/json_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define HTML "text/html; charset=utf-8"
#define JSON "application/problem+json"
#define TEXT "text/plain; charset=utf-8"

static struct error_page make(enum status status, const char *accept, struct slice host, struct slice id,
                              struct arena *arena)
{
    struct error_page page;
    error_page_make(status, slice_str(accept), host, id, arena, &page);
    return page;
}

static bool has(struct slice body, const char *text)
{
    return memmem(body.ptr, body.len, text, strlen(text)) != NULL;
}

static void test_negotiation(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        const char *type;
    } cases[] = {
        {"", TEXT},
        {"*/*", TEXT},
        {"text/*", TEXT},
        {"text/html", HTML},
        {"TEXT/HTML", HTML},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", HTML},
        {"application/json", JSON},
        {"application/problem+json", JSON},
        {"application/vnd.api+json", JSON},
        {"application/*", JSON},
        {"application/json, text/plain, */*", JSON},
        {"text/plain, application/json", TEXT},
        {"text/html;q=0.5, application/json", JSON},
        {"text/html;q=0.5, application/json;q=0.501", JSON},
        {"application/json;q=0.2, text/html ; charset=utf-8 ; q=0.3", HTML},
        {"text/html;Q=0.1, */*;q=0.9", TEXT},
        {"text/html, application/json", HTML},
        {"application/json, text/html", JSON},
        {"*/*, text/html", HTML},
        {"text/html;q=0", TEXT},
        {"text/html;q=0, */*", TEXT},
        {"text/plain;q=0, */*", JSON},
        {"text/plain;q=0, application/json;q=0, */*", HTML},
        {"image/png", TEXT},
        {"application/json;q=0, application/problem+json", JSON},
        {"text/html;q=9", TEXT},
        {"text/html;q=1.001", TEXT},
        {"text/html;q=0.1234, application/json;q=0.1", JSON},
        {"text/html;q=x, application/json;q=0.001", JSON},
        {"text/html;q=, application/json;q=0.001", JSON},
        {",,;q=1, /, text, text/, /html", TEXT},
        {"text/html;q=1.", HTML},
        {"text/html;q", HTML},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct error_page page = make(STATUS_HOST_UNKNOWN, cases[i].accept, SLICE_NONE, SLICE_NONE, &arena);
        if (!slice_eq(page.content_type, slice_str(cases[i].type)))
            fail_msg("Accept: %s gives %.*s", cases[i].accept, SLICE_ARG(page.content_type));
        arena_reset(&arena);
    }
}

static void test_text(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct error_page page = make(STATUS_APP_STARTING, "", SLICE("a\n.example"), SLICE("r1"), &arena);
    assert_true(slice_eq(page.body, SLICE("503 Service Unavailable: the app is starting (app_starting)\n"
                                          "Retry in a few seconds.\n"
                                          "Host: a\\x0a.example\n"
                                          "Request id: r1\n")));
    page = make(STATUS_CLIENT_STALLED, "", SLICE_NONE, SLICE_NONE, &arena);
    assert_true(slice_eq(page.body, SLICE("499 Client Closed Request: the client stopped reading (client_stalled)\n")));
    arena_reset(&arena);
}

static void test_json(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct error_page page = make(STATUS_APP_STOPPED, "application/json", SLICE("a\"b\xff"), SLICE("r1"), &arena);
    assert_true(slice_eq(page.body, SLICE("{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
                                          "\"code\":\"app_stopped\",\"detail\":\"the app is stopped\","
                                          "\"advice\":\"Start it from the dashboard.\",\"host\":\"a\\\"b\\ufffd\","
                                          "\"request_id\":\"r1\"}\n")));
    arena_reset(&arena);
}

static void test_html(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    struct slice host = SLICE("<script>alert('1')</script>&\"");
    struct error_page page = make(STATUS_HOST_UNKNOWN, "text/html", host, SLICE("r<1"), &arena);
    assert_true(has(page.body, "<h1>No app is published under this host name</h1>"));
    assert_true(has(page.body, "<title>404 no app"));
    assert_true(has(page.body, "&lt;app id or instance id&gt;-&lt;port&gt;"));
    assert_true(has(page.body, "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;\\&quot;"));
    assert_true(has(page.body, "<dd>r&lt;1</dd>"));
    assert_true(has(page.body, "<dd>host_unknown</dd>"));
    assert_false(has(page.body, "<script"));
    assert_false(has(page.body, "http-equiv"));
    page = make(STATUS_APP_STARTING, "text/html", SLICE_NONE, SLICE_NONE, &arena);
    assert_true(has(page.body, "<meta http-equiv=\"refresh\" content=\"5\">"));
    assert_false(has(page.body, "Host"));
    arena_reset(&arena);
}

/* Each status makes a whole body of each kind, also with a host of any length. */
static void test_every_status(void **state)
{
    (void)state;
    static char long_host[20000];
    memset(long_host, '&', sizeof long_host);
    struct slice host = slice_make(long_host, sizeof long_host);
    for (int status = STATUS_OK + 1; status < STATUS_COUNT; status++) {
        struct arena arena;
        arena_init(&arena, NULL);
        struct error_page page = make((enum status)status, "application/json", host, host, &arena);
        assert_int_equal(page.body.ptr[page.body.len - 1], '\n');
        struct slice code = SLICE_NONE, object = slice_make(page.body.ptr, page.body.len - 1);
        assert_true(json_check_object(object, "code", &code));
        assert_true(slice_eq(code, slice_str(status_code((enum status)status))));
        page = make((enum status)status, "text/html", host, host, &arena);
        assert_true(slice_has_prefix(page.body, SLICE("<!doctype html>\n")));
        assert_true(has(page.body, "</html>\n"));
        assert_in_range(page.body.len, 500, 10000);
        page = make((enum status)status, "", host, host, &arena);
        assert_in_range(page.body.len, 10, 2000);
        arena_reset(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_negotiation), cmocka_unit_test(test_text),         cmocka_unit_test(test_json),
        cmocka_unit_test(test_html),        cmocka_unit_test(test_every_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
