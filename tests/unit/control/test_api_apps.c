#include "api_calls.h"

#define APP(id, ip)                                                                                                    \
    "{\"app_id\":\"" id "\",\"ports\":[{\"port\":80}],\"instances\":[{\"instance_id\":\"" id                           \
    "-cvm\",\"address\":\"" ip "\",\"generation\":1}]}"

static void put_get_delete(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/apps/shop", APP("shop", "10.0.0.1")), 201);
    assert_field(f, "Location: /v1/apps/shop\n");
    assert_field(f, "ETag: \"1\"\n");
    assert_field(f, "content-type: application/json\n");
    assert_member(f, "app_id", "\"shop\"");
    assert_member(f, "revision", "1");
    assert_int_equal(call(f, "PUT", "/v1/apps/shop", APP("shop", "10.0.0.2")), 200);
    assert_field(f, "ETag: \"2\"\n");
    assert_null(strstr(f->fields, "Location"));
    assert_int_equal(call(f, "GET", "/v1/apps/shop", NULL), 200);
    assert_in_body(f, "10.0.0.2");
    assert_field(f, "ETag: \"2\"\n");
    assert_int_equal(call(f, "GET", "/v1/apps/SHOP", NULL), 200);
    assert_int_equal(call(f, "HEAD", "/v1/apps/shop", NULL), 200);
    assert_int_equal(f->body_len, 0);
    assert_int_equal(call(f, "DELETE", "/v1/apps/shop", NULL), 204);
    assert_int_equal(f->body_len, 0);
    assert_int_equal(call(f, "DELETE", "/v1/apps/shop", NULL), 404);
    assert_member(f, "code", "\"app_unknown\"");
    assert_int_equal(call(f, "GET", "/v1/apps/shop", NULL), 404);
    assert_field(f, "content-type: application/problem+json\n");
}

static void the_id_may_be_left_to_the_path(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/apps/a1", " {\"ports\":[{\"port\":80}]}"), 201);
    assert_member(f, "app_id", "\"a1\"");
    assert_int_equal(call(f, "PUT", "/v1/apps/a2", "{}"), 201);
    assert_int_equal(call(f, "PUT", "/v1/apps/a3", APP("a4", "10.0.0.1")), 422);
    assert_member(f, "field", "\"app_id\"");
    assert_int_equal(call(f, "PUT", "/v1/apps/-a", "{}"), 422);
    assert_int_equal(call(f, "PUT", "/v1/apps/a%22b", "{}"), 422);
    assert_int_equal(call(f, "PUT", "/v1/apps/", "{}"), 422);
}

static void what_is_wrong_is_said(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/apps/a", "{"), 400);
    assert_member(f, "code", "\"invalid_json\"");
    assert_member(f, "type", "\"about:blank\"");
    assert_member(f, "title", "\"Bad Request\"");
    assert_member(f, "status", "400");
    assert_int_equal(call(f, "PUT", "/v1/apps/a", ""), 400);
    assert_int_equal(call(f, "PUT", "/v1/apps/a", "[]"), 400);
    assert_int_equal(call(f, "PUT", "/v1/apps/a", "{\"ports\":[{\"port\":0}]}"), 422);
    assert_member(f, "field", "\"ports[0].port\"");
    assert_int_equal(call(f, "PUT", "/v1/apps/a?x=1", "{}"), 400);
    assert_member(f, "field", "\"x\"");
    assert_int_equal(call(f, "PUT", "/v1/apps/%zz", "{}"), 400);
    assert_member(f, "code", "\"bad_target\"");
    assert_int_equal(call(f, "GET", "/v1/app", NULL), 404);
    assert_member(f, "code", "\"not_found\"");
    assert_int_equal(call(f, "POST", "/v1/apps/a", NULL), 405);
    assert_field(f, "Allow: GET, HEAD, PUT, DELETE\n");
    assert_int_equal(call(f, "OPTIONS", "/v1/drain", NULL), 405);
    assert_field(f, "Allow: POST\n");
}

static void bodies_have_a_type_and_a_limit(void **state)
{
    struct fixture *f = *state;
    static const char document[] = "{\"app_id\":\"a\"}";
    const size_t max = 1 << 20;
    char *big = malloc(max + 2);
    assert_non_null(big);
    memset(big, ' ', max + 1);
    big[max + 1] = '\0';
    assert_int_equal(call(f, "PUT", "/v1/apps/a", big), 413);
    strcpy(big + max - strlen(document), document);
    assert_int_equal(call(f, "PUT", "/v1/apps/a", big), 201);
    free(big);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/b", "", "{}"), 201);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/c", "Content-Type: application/vnd.x+JSON; charset=utf-8\n", "{}"),
                     201);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/d", "Content-Type: text/html\n", "{}"), 415);
    assert_member(f, "code", "\"unsupported_media_type\"");
}

static void if_match_guards(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call_with(f, "PUT", "/v1/apps/a", "If-Match: *\n", "{}"), 412);
    assert_int_equal(call(f, "PUT", "/v1/apps/a", "{}"), 201);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/a", "If-Match: \"1\"\n", "{}"), 200);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/a", "If-Match: \"1\"\n", "{}"), 412);
    assert_member(f, "code", "\"revision_conflict\"");
    assert_int_equal(call_with(f, "PUT", "/v1/apps/a", "If-Match: \"0\"\n", "{}"), 412);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/a", "If-Match: W/\"2\"\n", "{}"), 412);
    assert_int_equal(call_with(f, "PUT", "/v1/apps/a", "If-Match: \"1\", \"2\"\n", "{}"), 400);
    assert_int_equal(call_with(f, "DELETE", "/v1/apps/a", "If-Match: \"9\"\n", NULL), 412);
    assert_int_equal(call_with(f, "DELETE", "/v1/apps/a", "If-Match: *\n", NULL), 204);
}

static void instances_are_patched(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/apps/a", APP("a", "10.0.0.1")), 201);
    assert_int_equal(call(f, "PATCH", "/v1/apps/a/instances/a-cvm", "{\"state\":\"draining\"}"), 200);
    assert_in_body(f, "draining");
    assert_field(f, "ETag: \"2\"\n");
    assert_int_equal(call(f, "PATCH", "/v1/apps/a/instances/none", "{\"state\":\"draining\"}"), 404);
    assert_int_equal(call(f, "PATCH", "/v1/apps/b/instances/a-cvm", "{}"), 404);
    assert_int_equal(call(f, "PATCH", "/v1/apps/a/instances/a-cvm", "{\"state\":\"gone\"}"), 422);
}

static void a_client_that_leaves_is_forgotten(void **state)
{
    struct fixture *f = *state;
    begin_call(f, "PUT", "/v1/apps/a", "", true);
    f->endpoint->ops->send_body(f->endpoint, "{}", 2, true);
    f->endpoint->ops->release(&f->endpoint, STATUS_CLIENT_CANCELLED);
    loop_turn(f->loop, 0);
    begin_call(f, "DELETE", "/v1/apps/a", "", false);
    hang_up(f);
    begin_call(f, "PUT", "/v1/apps/b", "", true);
    send_piece(f, "{", 1, false);
    hang_up(f);
    assert_int_equal(call(f, "GET", "/v1/apps/b", NULL), 404);
}

static void a_failed_store_is_told(void **state)
{
    struct fixture *f = *state;
    f->changes.next_failure = STATUS_STORE_FAILED;
    assert_int_equal(call(f, "PUT", "/v1/apps/a", "{}"), 507);
    assert_member(f, "code", "\"store_failed\"");
    assert_int_equal(call(f, "GET", "/v1/apps/a", NULL), 404);
}

static void apps_are_paged_and_searched(void **state)
{
    struct fixture *f = *state;
    char path[64];
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof path, "/v1/apps/app%02d", i);
        assert_int_equal(call(f, "PUT", path, "{}"), 201);
    }
    assert_int_equal(call(f, "PUT", "/v1/apps/shop", APP("shop", "10.0.9.1")), 201);
    assert_int_equal(call(f, "GET", "/v1/apps?limit=2", NULL), 200);
    assert_member(f, "next", "\"app01\"");
    assert_int_equal(call(f, "GET", "/v1/apps?limit=2&after=app38", NULL), 200);
    assert_in_body(f, "app39");
    assert_in_body(f, "shop");
    assert_member(f, "next", "null");
    assert_int_equal(call(f, "GET", "/v1/apps?q=10.0.9", NULL), 200);
    assert_in_body(f, "shop");
    assert_null(strstr(f->body, "app39"));
    assert_int_equal(call(f, "GET", "/v1/apps?q=APP3&limit=30", NULL), 200);
    assert_null(strstr(f->body, "app29"));
    assert_in_body(f, "app39");
    assert_int_equal(call(f, "GET", "/v1/apps?q=nothing", NULL), 200);
    assert_member(f, "apps", "[]");
    assert_int_equal(call(f, "GET", "/v1/apps?limit=0", NULL), 400);
    assert_member(f, "field", "\"limit\"");
    assert_int_equal(call(f, "GET", "/v1/apps?limit=1001", NULL), 400);
    assert_int_equal(call(f, "HEAD", "/v1/apps", NULL), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(put_get_delete, setup, teardown),
        cmocka_unit_test_setup_teardown(the_id_may_be_left_to_the_path, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(bodies_have_a_type_and_a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(if_match_guards, setup, teardown),
        cmocka_unit_test_setup_teardown(instances_are_patched, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_leaves_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_store_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(apps_are_paged_and_searched, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
