#include "api_calls.h"

#define TOKEN "Authorization: Bearer s3cret\n"

static void tokens_are_needed(void **state)
{
    struct fixture *f = *state;
    f->listener.token = SLICE("s3cret");
    assert_int_equal(call(f, "GET", "/healthz", NULL), 200);
    assert_string_equal(f->body, "ok\n");
    assert_int_equal(call(f, "GET", "/v1/status", NULL), 401);
    assert_field(f, "WWW-Authenticate: Bearer realm=\"phala-gateway\"\n");
    assert_member(f, "code", "\"unauthorized\"");
    assert_int_equal(call(f, "GET", "/nothing", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", TOKEN, NULL), 200);
    assert_int_equal(call_with(f, "GET", "/v1/status", "authorization: bearer   s3cret\n", NULL), 200);
    assert_int_equal(call_with(f, "GET", "/v1/status", "Authorization: Bearer s3cres\n", NULL), 401);
    assert_field(f, "error=\"invalid_token\"");
    assert_int_equal(call_with(f, "GET", "/v1/status", "Authorization: Bearer s3cret1\n", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", "Authorization: Bearer s3cre\n", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", "Authorization: Bearer s3crets3cret\n", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", "Authorization: Basic s3cret\n", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", "Authorization: Bearer \n", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", TOKEN TOKEN, NULL), 401);
}

static void certificates_are_needed(void **state)
{
    struct fixture *f = *state;
    f->listener.needs_certificate = true;
    assert_int_equal(call(f, "GET", "/healthz", NULL), 200);
    assert_int_equal(call(f, "GET", "/v1/status", NULL), 421);
    assert_member(f, "code", "\"misdirected\"");
    f->listener.token = SLICE("s3cret");
    assert_int_equal(call_with(f, "GET", "/v1/status", TOKEN, NULL), 421);
    f->is_verified = true;
    assert_int_equal(call(f, "GET", "/v1/status", NULL), 401);
    assert_int_equal(call_with(f, "GET", "/v1/status", TOKEN, NULL), 200);
    f->listener.token = SLICE_NONE;
    assert_int_equal(call(f, "GET", "/v1/status", NULL), 200);
}

static void readiness(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "GET", "/readyz", NULL), 200);
    assert_string_equal(f->body, "ready\n");
    f->ready = false;
    assert_int_equal(call(f, "GET", "/readyz", NULL), 503);
    f->reload_error = "bad key";
    assert_int_equal(call(f, "GET", "/readyz?verbose", NULL), 503);
    assert_in_body(f, "ready: no\n");
    assert_in_body(f, "last reload: bad key\n");
    assert_int_equal(call(f, "GET", "/readyz?verbos", NULL), 400);
    assert_int_equal(call(f, "POST", "/readyz", NULL), 405);
}

static void status_metrics_and_page(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "GET", "/v1/status", NULL), 200);
    assert_member(f, "base_domains", "[\"prod5.phala.network\",\"other.example\"]");
    assert_member(f, "started", "\"2023-11-14T22:13:20Z\"");
    assert_member(f, "workers", "2");
    assert_int_equal(call(f, "GET", "/metrics", NULL), 200);
    assert_in_body(f, "phala_gateway_ready 1\n");
    f->reload_error = "<script>";
    assert_int_equal(call(f, "GET", "/", NULL), 200);
    assert_in_body(f, "&#60;script");
    assert_null(strstr(f->body, "<script"));
    assert_int_equal(call(f, "HEAD", "/metrics", NULL), 200);
    assert_int_equal(f->body_len, 0);
}

/* What etcd says is cut where it gets too long, be it within a character. */
static void the_problem_of_etcd_may_be_no_text(void **state)
{
    struct fixture *f = *state;
    f->etcd_problem = "http://etcd: getrennt f\303\274r \303";
    assert_int_equal(call(f, "GET", "/v1/status", NULL), 200);
    assert_in_body(f, "\"endpoint\":\"http://etcd\"");
    assert_in_body(f, "\"problem\":\"http://etcd: getrennt f??r ?\",\"left_out\":3");
    assert_int_equal(call(f, "GET", "/readyz?verbose", NULL), 200);
    assert_in_body(f, "getrennt");
}

static void drain_and_reload(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "POST", "/v1/reload", NULL), 200);
    assert_int_equal(f->reloads, 1);
    assert_member(f, "needs_restart", "[]");
    f->needs_restart[0] = "listeners";
    assert_int_equal(call(f, "POST", "/v1/reload", NULL), 200);
    assert_member(f, "needs_restart", "[\"listeners\"]");
    f->reload_error = "gateway.yaml:3: base_domains: is empty";
    assert_int_equal(call(f, "POST", "/v1/reload", ""), 422);
    assert_member(f, "code", "\"reload_failed\"");
    assert_member(f, "detail", "\"gateway.yaml:3: base_domains: is empty\"");
    assert_int_equal(call(f, "POST", "/v1/drain", NULL), 202);
    assert_true(f->draining);
    assert_int_equal(call(f, "GET", "/v1/drain", NULL), 405);
    assert_int_equal(call(f, "GET", "/readyz", NULL), 503);
    assert_string_equal(f->body, "draining\n");
}

static const struct {
    const char *host;
    const char *code;
    const char *part;
} names[] = {
    {"shop-80.prod5.phala.network", "\"ok\"", "\"address\":\"10.0.0.1\""},
    {"SHOP.prod5.phala.network:443", "\"ok\"", "80 (by default)"},
    {"shop-cvm-80.prod5.phala.network", "\"ok\"", "an instance of the app"},
    {"shop-81.prod5.phala.network", "\"port_not_published\"", "\"app_id\":\"shop\""},
    {"shop-80s.other.example", "\"ok\"", "\"protocol\":\"passthrough\""},
    {"idle-80.prod5.phala.network", "\"app_stopped\"", "it is stopped"},
    {"none-80.prod5.phala.network", "\"app_unknown\"", "\"routes\":false"},
    {"shop.example.com", "\"ok\"", "custom domains"},
    {"other.example.com", "\"host_unknown\"", "custom domains"},
    {"health.prod5.phala.network", "\"ok\"", "readiness"},
    {"prod5.phala.network", "\"host_unknown\"", "a base domain itself"},
    {"a.b.prod5.phala.network", "\"host_unknown\"", "more than one label"},
};

static void names_are_resolved(void **state)
{
    struct fixture *f = *state;
    char path[256];
    assert_int_equal(call(f, "PUT", "/v1/apps/shop",
                          "{\"ports\":[{\"port\":80}],\"domains\":[{\"name\":\"shop.example.com\",\"port\":80}],"
                          "\"instances\":[{\"instance_id\":\"shop-cvm\",\"address\":\"10.0.0.1\",\"generation\":1}]}"),
                     201);
    assert_int_equal(
        call(f, "PUT", "/v1/apps/idle", "{\"instances\":[{\"instance_id\":\"idle-cvm\",\"state\":\"stopped\"}]}"), 201);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "/v1/resolve?host=%s", names[i].host);
        assert_int_equal(call(f, "GET", path, NULL), 200);
        if (strcmp(answer_member(f, "code"), names[i].code) != 0 || !strstr(f->body, names[i].part))
            fail_msg("%s: %s", names[i].host, f->body);
    }
    assert_int_equal(call(f, "GET", "/v1/resolve", NULL), 400);
    assert_int_equal(call(f, "GET", "/v1/resolve?host=a/b", NULL), 400);
    assert_int_equal(call(f, "GET", "/v1/resolve?host=%ff", NULL), 400);
}

static void names_that_no_record_has_are_asked_for(void **state)
{
    struct fixture *f = *state;
    static const char path[] = "/v1/resolve?host=Asked.example.com.";
    assert_int_equal(call(f, "PUT", "/v1/apps/shop",
                          "{\"ports\":[{\"port\":80}],"
                          "\"instances\":[{\"instance_id\":\"shop-cvm\",\"address\":\"10.0.0.1\",\"generation\":1}]}"),
                     201);
    f->dns_said = DOMAIN_SAID_TARGET;
    f->dns_target = (struct txt_target){"shop", 80};
    assert_int_equal(call(f, "GET", path, NULL), 200);
    assert_int_equal(f->dns_asked, 2);
    assert_member(f, "routes", "true");
    assert_member(f, "app_id", "\"shop\"");
    assert_in_body(f, "a TXT record says shop:80");
    assert_in_body(f, "\"health\":{");
    f->dns_target.port = 81;
    assert_int_equal(call(f, "GET", path, NULL), 200);
    assert_member(f, "code", "\"port_not_published\"");
    f->dns_said = DOMAIN_SAID_NOTHING;
    assert_int_equal(call(f, "GET", path, NULL), 200);
    assert_member(f, "code", "\"host_unknown\"");
    assert_in_body(f, "_dstack-app-address.asked.example.com");
    f->dns_said = DOMAIN_SAID_OFF;
    assert_int_equal(call(f, "GET", path, NULL), 200);
    assert_member(f, "code", "\"host_unknown\"");
    assert_in_body(f, "it is not asked");
}

/* Before the answer, and while a worker has the question. */
static void a_client_leaves_while_the_dns_is_asked(void **state)
{
    struct fixture *f = *state;
    f->dns_said = DOMAIN_SAID_PENDING;
    begin_call(f, "GET", "/v1/resolve?host=asked.example.com", "", false);
    assert_false(f->ended);
    hang_up(f);
    for (int i = 0; i < 20; i++)
        loop_turn(f->loop, 5);
    unsigned asked = f->dns_asked;
    for (int i = 0; i < 20; i++)
        loop_turn(f->loop, 5);
    assert_int_equal(f->dns_asked, asked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tokens_are_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(certificates_are_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(readiness, setup, teardown),
        cmocka_unit_test_setup_teardown(status_metrics_and_page, setup, teardown),
        cmocka_unit_test_setup_teardown(the_problem_of_etcd_may_be_no_text, setup, teardown),
        cmocka_unit_test_setup_teardown(drain_and_reload, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_resolved, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_no_record_has_are_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_leaves_while_the_dns_is_asked, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
