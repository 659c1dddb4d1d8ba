#include "gateway/control/app_document.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char full[] =
    "{\"app_id\":\"3327603E03F5BD1F830812CA4A789277FC31F577\",\"revision\":12,"
    "\"ports\":[{\"port\":50051,\"protocol\":\"h2c\"},{\"port\":80},"
    "{\"port\":8001,\"protocol\":\"tcp\",\"proxy_protocol\":\"v2\",\"check\":{\"type\":\"tcp\",\"interval_ms\":1500}},"
    "{\"port\":81,\"check\":{\"type\":\"http\",\"path\":\"/up\",\"timeout_ms\":300,\"rise\":1,\"fall\":9}}],"
    "\"restrict_ports\":false,\"domains\":[{\"name\":\"Shop.Example.com\",\"port\":80}],"
    "\"limits\":{\"max_connections\":2000,\"requests_per_second\":500},"
    "\"instances\":[{\"instance_id\":\"AB\",\"address\":\"::ffff:10.8.0.12\",\"generation\":7,\"state\":\"draining\","
    "\"weight\":0},{\"instance_id\":\"cd\",\"state\":\"starting\"}]}";

static struct route_app *parse(const char *json)
{
    struct route_app *app = NULL;
    struct route_problem problem = {0};
    if (app_document_parse(slice_str(json), &app, &problem) != STATUS_OK)
        fail_msg("%s: %s: %s", json, problem.field, problem.detail);
    return app;
}

static void test_full(void **state)
{
    struct route_app *app = parse(full);
    (void)state;
    assert_string_equal(app->id, "3327603e03f5bd1f830812ca4a789277fc31f577");
    assert_int_equal(app->revision, 12);
    assert_int_equal(app->port_count, 4);
    assert_int_equal(app->ports[0].port, 80);
    assert_int_equal(app->ports[0].protocol, ROUTE_PROTOCOL_AUTO);
    assert_int_equal(app->ports[2].proxy_protocol, 2);
    assert_int_equal(app->ports[3].protocol, ROUTE_PROTOCOL_H2C);
    assert_false(app->restrict_ports);
    assert_string_equal(app->domains[0].name, "shop.example.com");
    assert_int_equal(app->max_connections, 2000);
    assert_int_equal(app->requests_per_second, 500);
    assert_string_equal(app->instances[0].id, "ab");
    assert_int_equal(app->instances[0].address.family, AF_INET);
    assert_int_equal(app->instances[0].generation, 7);
    assert_int_equal(app->instances[0].state, ROUTE_STATE_DRAINING);
    assert_int_equal(app->instances[0].weight, 0);
    assert_int_equal(app->instances[1].state, ROUTE_STATE_STARTING);
    assert_int_equal(app->instances[1].weight, 1);
    assert_int_equal(app->instances[1].generation, 0);
    assert_int_equal(app->instances[1].address.family, 0);
    route_app_free(&app);
}

static void test_checks(void **state)
{
    struct route_app *app = parse(full);
    (void)state;
    assert_int_equal(app->check_count, 2);
    const struct route_check *http = route_app_port_check(app, 81), *tcp = route_app_port_check(app, 8001);
    assert_null(route_app_port_check(app, 80));
    assert_int_equal(http->type, ROUTE_CHECK_HTTP);
    assert_string_equal(http->path, "/up");
    assert_int_equal(http->interval_ms, 10000);
    assert_int_equal(http->timeout_ms, 300);
    assert_int_equal(http->rise, 1);
    assert_int_equal(http->fall, 9);
    assert_int_equal(tcp->type, ROUTE_CHECK_TCP);
    assert_null(tcp->path);
    assert_int_equal(tcp->interval_ms, 1500);
    assert_int_equal(tcp->timeout_ms, 1500); /* the default would be longer than the interval */
    assert_int_equal(tcp->rise, 2);
    assert_int_equal(tcp->fall, 3);
    struct route_app *copy = route_app_copy(app);
    assert_true(route_app_equal(app, copy));
    copy->checks[0].path = "/down";
    assert_false(route_app_equal(app, copy));
    copy->checks[0] = app->checks[0];
    assert_true(route_app_equal(app, copy));
    copy->checks[1].fall++;
    assert_false(route_app_equal(app, copy));
    route_app_free(&copy);
    route_app_free(&app);
}

static void test_defaults(void **state)
{
    struct route_app *app = parse("{\"app_id\":\"a\"}");
    (void)state;
    assert_int_equal(app->port_count + app->domain_count + app->instance_count, 0);
    assert_false(app->restrict_ports);
    assert_int_equal(app->max_connections, 0);
    route_app_free(&app);
    app = parse(" {\"app_id\":\"a\",\"ports\":[{\"port\":1}],\"instances\":[{\"instance_id\":\"i\"}],\"limits\":{}}\n");
    assert_true(app->restrict_ports);
    assert_int_equal(app->instances[0].state, ROUTE_STATE_RUNNING);
    route_app_free(&app);
    app = parse("{\"app_id\":\"a\",\"ports\":[]}");
    assert_false(app->restrict_ports);
    route_app_free(&app);
}

#define APP(rest) "{\"app_id\":\"a\"," rest "}"

static const struct {
    const char *json;
    enum status status;
    const char *field;
    const char *detail_part;
} refused_documents[] = {
    {"", STATUS_INVALID_JSON, "", ""},
    {"{", STATUS_INVALID_JSON, "", "line 1"},
    {"[]", STATUS_INVALID_JSON, "", "object"},
    {"\"a\"", STATUS_INVALID_JSON, "", ""},
    {"{\"app_id\":\"a\"} x", STATUS_INVALID_JSON, "", ""},
    {"{\"app_id\":\"a\\u0000\"}", STATUS_INVALID_JSON, "", ""},
    {"{\"app_id\":\"a\xff\"}", STATUS_INVALID_JSON, "", ""},
    {"{\"app_id\":\"a\xc0\x80\"}", STATUS_INVALID_JSON, "", ""},
    {"{\"app_id\":\"\\ud800\"}", STATUS_INVALID_JSON, "", ""},
    {"{'app_id':'a'}", STATUS_INVALID_JSON, "", ""},
    {"{\"app_id\":\"a\",\"app_id\":\"b\"}", STATUS_INVALID_RECORD, "app_id", "twice"},
    {"{}", STATUS_INVALID_RECORD, "app_id", "required"},
    {"{\"app_id\":\"\"}", STATUS_INVALID_RECORD, "app_id", "required"},
    {"{\"app_id\":7}", STATUS_INVALID_RECORD, "app_id", "must be a string"},
    {"{\"app_id\":\"0123456789012345678901234567890123456789012345678901234567890123\"}", STATUS_INVALID_RECORD,
     "app_id", "at most 63"},
    {APP("\"Ports\":[]"), STATUS_INVALID_RECORD, "Ports", "known ones are app_id, revision, ports"},
    {APP("\"revision\":-1"), STATUS_INVALID_RECORD, "revision", "out of range"},
    {APP("\"revision\":\"1\""), STATUS_INVALID_RECORD, "revision", "integer"},
    {APP("\"ports\":{}"), STATUS_INVALID_RECORD, "ports", "must be a list"},
    {APP("\"ports\":null"), STATUS_INVALID_RECORD, "ports", "null; must be a list"},
    {APP("\"ports\":[80]"), STATUS_INVALID_RECORD, "ports[0]", "must be an object"},
    {APP("\"ports\":[{}]"), STATUS_INVALID_RECORD, "ports[0].port", "required"},
    {APP("\"ports\":[{\"port\":0}]"), STATUS_INVALID_RECORD, "ports[0].port", "1 to 65535"},
    {APP("\"ports\":[{\"port\":65536}]"), STATUS_INVALID_RECORD, "ports[0].port", "1 to 65535"},
    {APP("\"ports\":[{\"port\":80.0}]"), STATUS_INVALID_RECORD, "ports[0].port", "not an integer"},
    {APP("\"ports\":[{\"port\":\"80\"}]"), STATUS_INVALID_RECORD, "ports[0].port", "a string"},
    {APP("\"ports\":[{\"port\":99999999999999999999}]"), STATUS_INVALID_JSON, "", ""},
    {APP("\"ports\":[{\"port\":80},{\"port\":81},{\"port\":80}]"), STATUS_INVALID_RECORD, "ports[2].port", "twice"},
    {APP("\"ports\":[{\"port\":80,\"protocol\":\"HTTP\"}]"), STATUS_INVALID_RECORD, "ports[0].protocol",
     "use auto, http, h2c, tcp or passthrough"},
    {APP("\"ports\":[{\"port\":80,\"proxy_protocol\":\"v3\"}]"), STATUS_INVALID_RECORD, "ports[0].proxy_protocol",
     "off, v1 or v2"},
    {APP("\"ports\":[{\"port\":80,\"proxy_protocol\":false}]"), STATUS_INVALID_RECORD, "ports[0].proxy_protocol",
     "boolean"},
    {APP("\"ports\":[{\"port\":80,\"x\":1}]"), STATUS_INVALID_RECORD, "ports[0].x", "unknown"},
    {APP("\"ports\":[{\"port\":80,\"check\":true}]"), STATUS_INVALID_RECORD, "ports[0].check", "must be an object"},
    {APP("\"ports\":[{\"port\":80,\"check\":{\"type\":\"udp\"}}]"), STATUS_INVALID_RECORD, "ports[0].check.type",
     "tcp or http"},
    {APP("\"ports\":[{\"port\":80,\"check\":{\"type\":\"tcp\",\"fall\":0}}]"), STATUS_INVALID_RECORD,
     "ports[0].check.fall", "1 to 10"},
    {APP("\"restrict_ports\":1"), STATUS_INVALID_RECORD, "restrict_ports", "true or false"},
    {APP("\"domains\":[{\"port\":80}]"), STATUS_INVALID_RECORD, "domains[0].name", "required"},
    {APP("\"domains\":[{\"name\":\"x.y\"}]"), STATUS_INVALID_RECORD, "domains[0].port", "required"},
    {APP("\"limits\":[]"), STATUS_INVALID_RECORD, "limits", "an object"},
    {APP("\"limits\":{\"max_connections\":4294967296}"), STATUS_INVALID_RECORD, "limits.max_connections", "range"},
    {APP("\"limits\":{\"x\":1}"), STATUS_INVALID_RECORD, "limits.x", "max_connections, requests_per_second"},
    {APP("\"instances\":[{}]"), STATUS_INVALID_RECORD, "instances[0].instance_id", "required"},
    {APP("\"instances\":[{\"instance_id\":\"i\",\"address\":\"10.0.0\"}]"), STATUS_INVALID_RECORD,
     "instances[0].address", "not an IP address"},
    {APP("\"instances\":[{\"instance_id\":\"i\",\"address\":10}]"), STATUS_INVALID_RECORD, "instances[0].address",
     "string"},
    {APP("\"instances\":[{\"instance_id\":\"i\",\"state\":\"up\"}]"), STATUS_INVALID_RECORD, "instances[0].state",
     "starting, running, draining or stopped"},
    {APP("\"instances\":[{\"instance_id\":\"i\",\"weight\":257}]"), STATUS_INVALID_RECORD, "instances[0].weight",
     "0 to 256"},
    {APP("\"instances\":[{\"instance_id\":\"i\",\"generation\":-1}]"), STATUS_INVALID_RECORD, "instances[0].generation",
     "range"},
    {APP("\"instances\":[{\"instance_id\":\"i\"},{\"instance_id\":\"j\",\"b\\u0007ad\":1}]"), STATUS_INVALID_RECORD,
     "instances[1].b?ad", "unknown"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused_documents / sizeof refused_documents[0]; i++) {
        struct route_app *app = NULL;
        struct route_problem problem = {0};
        if (app_document_parse(slice_str(refused_documents[i].json), &app, &problem) != refused_documents[i].status)
            fail_msg("%s: %s", refused_documents[i].json, problem.detail);
        assert_null(app);
        assert_int_equal(problem.status, refused_documents[i].status);
        assert_string_equal(problem.field, refused_documents[i].field);
        if (!strstr(problem.detail, refused_documents[i].detail_part))
            fail_msg("%s: \"%s\" is not in \"%s\"", refused_documents[i].json, refused_documents[i].detail_part,
                     problem.detail);
    }
}

static void test_raw_nul_and_sizes(void **state)
{
    struct route_app *app = NULL;
    struct route_problem problem = {0};
    char *big = malloc(APP_DOCUMENT_MAX_BYTES + 1);
    (void)state;
    assert_non_null(big);
    assert_int_equal(app_document_parse(slice_make("{\"app_id\":\"a\0\"}", 15), &app, &problem), STATUS_INVALID_JSON);
    assert_int_equal(app_document_parse(SLICE_NONE, &app, &problem), STATUS_INVALID_JSON);
    memset(big, ' ', APP_DOCUMENT_MAX_BYTES + 1);
    memcpy(big, "{\"app_id\":\"a\"}", 14);
    assert_int_equal(app_document_parse(slice_make(big, APP_DOCUMENT_MAX_BYTES + 1), &app, &problem),
                     STATUS_PAYLOAD_TOO_LARGE);
    assert_int_equal(app_document_parse(slice_make(big, APP_DOCUMENT_MAX_BYTES), &app, &problem), STATUS_OK);
    route_app_free(&app);
    memset(big, '[', 2000);
    assert_int_equal(app_document_parse(slice_make(big, 2000), &app, &problem), STATUS_INVALID_JSON);
    assert_non_null(strstr(problem.detail, "16 levels"));
    memset(big, '{', 1000);
    memcpy(big, "{\"app_id\":\"", 11);
    memcpy(big + 1000, "\\\"{\"}", 5);
    assert_int_equal(app_document_parse(slice_make(big, 1005), &app, &problem), STATUS_INVALID_RECORD);
    assert_string_equal(problem.field, "app_id");
    free(big);
}

static void test_too_many_entries(void **state)
{
    struct route_app *app = NULL;
    struct route_problem problem = {0};
    char *json = malloc(65536);
    size_t len = (size_t)snprintf(json, 65536, "{\"app_id\":\"a\",\"ports\":[{\"port\":1}");
    (void)state;
    for (unsigned i = 2; i <= ROUTE_MAX_PORTS + 1; i++)
        len += (size_t)snprintf(json + len, 65536 - len, ",{\"port\":%u}", i);
    len += (size_t)snprintf(json + len, 65536 - len, "]}");
    assert_int_equal(app_document_parse(slice_make(json, len), &app, &problem), STATUS_INVALID_RECORD);
    assert_string_equal(problem.field, "ports");
    assert_non_null(strstr(problem.detail, "257 entries; at most 256"));
    free(json);
}

static void test_format(void **state)
{
    static const char expected[] =
        "{\"app_id\":\"3327603e03f5bd1f830812ca4a789277fc31f577\",\"revision\":99,\"ports\":["
        "{\"port\":80,\"protocol\":\"auto\",\"proxy_protocol\":\"off\"},"
        "{\"port\":81,\"protocol\":\"auto\",\"proxy_protocol\":\"off\",\"check\":{\"type\":\"http\",\"path\":\"/up\","
        "\"interval_ms\":10000,\"timeout_ms\":300,\"rise\":1,\"fall\":9}},"
        "{\"port\":8001,\"protocol\":\"tcp\",\"proxy_protocol\":\"v2\",\"check\":{\"type\":\"tcp\",\"interval_ms\":"
        "1500,"
        "\"timeout_ms\":1500,\"rise\":2,\"fall\":3}},"
        "{\"port\":50051,\"protocol\":\"h2c\",\"proxy_protocol\":\"off\"}],\"restrict_ports\":false,"
        "\"domains\":[{\"name\":\"shop.example.com\",\"port\":80}],"
        "\"limits\":{\"max_connections\":2000,\"requests_per_second\":500},"
        "\"instances\":[{\"instance_id\":\"ab\",\"address\":\"10.8.0.12\",\"generation\":7,\"state\":\"draining\","
        "\"weight\":0},{\"instance_id\":\"cd\",\"generation\":0,\"state\":\"starting\",\"weight\":1}]}";
    struct route_app *app = parse(full);
    (void)state;
    app->revision = 99;
    char *text = app_document_format(app);
    assert_string_equal(text, expected);
    struct route_app *again = parse(text);
    assert_true(route_app_equal(app, again));
    route_app_free(&again);
    route_app_free(&app);
    free(text);
}

/* What stands for itself in JSON, and what does not; the largest numbers; the longest address. */
static void test_format_of_extremes(void **state)
{
    struct route_app *app =
        parse("{\"app_id\":\"a\",\"revision\":9223372036854775807,"
              "\"ports\":[{\"port\":65535,\"protocol\":\"passthrough\",\"proxy_protocol\":\"off\","
              "\"check\":{\"type\":\"tcp\",\"interval_ms\":300000,\"timeout_ms\":60000,\"rise\":10,\"fall\":10}},"
              "{\"port\":1,\"check\":{\"type\":\"http\",\"path\":\"/\\\"\\\\\\u0001\"}}],"
              "\"limits\":{\"max_connections\":4294967295,\"requests_per_second\":4294967295},"
              "\"instances\":[{\"instance_id\":\"i\",\"generation\":9223372036854775807,\"weight\":256,"
              "\"address\":\"1111:2222:3333:4444:5555:6666:7777:8888\"}]}");
    (void)state;
    char *text = app_document_format(app);
    assert_non_null(strstr(text, "\"/\\\"\\\\\\u0001\""));
    struct route_app *again = parse(text);
    assert_true(route_app_equal(app, again));
    assert_int_equal(again->revision, INT64_MAX);
    route_app_free(&again);
    route_app_free(&app);
    free(text);
    app = parse("{\"app_id\":\"a\"}");
    text = app_document_format(app);
    assert_string_equal(text, "{\"app_id\":\"a\",\"revision\":0,\"ports\":[],\"restrict_ports\":false,\"domains\":[],"
                              "\"limits\":{\"max_connections\":0,\"requests_per_second\":0},\"instances\":[]}");
    route_app_free(&app);
    free(text);
}

static void test_patch(void **state)
{
    struct route_app *app = parse(full);
    struct route_problem problem;
    (void)state;
    assert_int_equal(
        app_document_patch_instance(SLICE("{\"state\":\"stopped\",\"weight\":256}"), app, SLICE("ab"), &problem),
        STATUS_OK);
    assert_int_equal(app->instances[0].state, ROUTE_STATE_STOPPED);
    assert_int_equal(app->instances[0].weight, 256);
    assert_int_equal(app->instances[0].generation, 7);
    assert_int_equal(app->instances[0].address.family, AF_INET);
    assert_int_equal(
        app_document_patch_instance(SLICE("{\"address\":\"fd00::1\",\"generation\":8}"), app, SLICE("ab"), &problem),
        STATUS_OK);
    assert_int_equal(app->instances[0].address.family, AF_INET6);
    assert_int_equal(app->instances[0].generation, 8);
    assert_int_equal(app_document_patch_instance(SLICE("{\"address\":null}"), app, SLICE("ab"), &problem), STATUS_OK);
    assert_int_equal(app->instances[0].address.family, 0);
    assert_int_equal(app_document_patch_instance(SLICE("{}"), app, SLICE("ab"), &problem), STATUS_OK);
    route_app_free(&app);
}

static void test_patch_refused(void **state)
{
    struct route_app *app = parse(full);
    struct route_app *before = route_app_copy(app);
    struct route_problem problem;
    (void)state;
    assert_int_equal(app_document_patch_instance(SLICE("{}"), app, SLICE("zz"), &problem), STATUS_NOT_FOUND);
    assert_string_equal(problem.field, "instance_id");
    assert_int_equal(
        app_document_patch_instance(SLICE("{\"weight\":1,\"instance_id\":\"x\"}"), app, SLICE("ab"), &problem),
        STATUS_INVALID_RECORD);
    assert_string_equal(problem.field, "instance_id");
    assert_int_equal(app_document_patch_instance(SLICE("{\"weight\":1,\"state\":\"stopped\",\"address\":\"x\"}"), app,
                                                 SLICE("ab"), &problem),
                     STATUS_INVALID_RECORD);
    assert_string_equal(problem.field, "address");
    assert_int_equal(app_document_patch_instance(SLICE("nope"), app, SLICE("ab"), &problem), STATUS_INVALID_JSON);
    assert_true(route_app_equal(app, before));
    route_app_free(&app);
    route_app_free(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_raw_nul_and_sizes),
        cmocka_unit_test(test_too_many_entries),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_format_of_extremes),
        cmocka_unit_test(test_patch),
        cmocka_unit_test(test_patch_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
