#include "route_fixture.h"

#include "gateway/route/route_table.h"

static const struct slice bases[] = {SLICE_INIT("base.example")};

static void add_publishing_app(struct route_table *table)
{
    struct route_problem problem;
    struct route_app *app = fixture_app("abc", "in-1", "10.0.0.1", 1);
    fixture_add_instance(app, "abc-80", "10.0.0.2", 1, ROUTE_STATE_RUNNING);
    fixture_add_instance(app, "in-2s", "10.0.0.3", 1, ROUTE_STATE_STARTING);
    assert_int_equal(route_table_stage_put(table, app, &problem), STATUS_OK);
}

static void add_restricted_app(struct route_table *table)
{
    struct route_problem problem;
    struct route_app *app = fixture_app("shop", "shop", "10.0.1.1", 1);
    app->restrict_ports = true;
    fixture_add_port(app, 80, ROUTE_PROTOCOL_HTTP);
    fixture_add_port(app, 443, ROUTE_PROTOCOL_PASSTHROUGH);
    fixture_add_port(app, 5432, ROUTE_PROTOCOL_TCP)->proxy_protocol = 2;
    fixture_add_domain(app, "shop.example.com", 80);
    fixture_add_domain(app, "raw.example.com", 443);
    fixture_add_domain(app, "gone.example.com", 81);
    fixture_add_domain(app, "abc", 80);
    assert_int_equal(route_table_stage_put(table, app, &problem), STATUS_OK);
}

static void add_hyphen_apps(struct route_table *table)
{
    struct route_problem problem;
    assert_int_equal(route_table_stage_put(table, fixture_app("my-app", "my-app-in", "10.0.2.1", 1), &problem),
                     STATUS_OK);
    assert_int_equal(route_table_stage_put(table, fixture_app("my-app-8080", "x", "10.0.2.2", 1), &problem), STATUS_OK);
    assert_int_equal(route_table_stage_put(table, fixture_app("abc-99999", "y", "10.0.2.3", 1), &problem), STATUS_OK);
    assert_int_equal(route_table_stage_put(table, fixture_app("abc-0", "z", "10.0.2.4", 1), &problem), STATUS_OK);
}

static const struct {
    const char *host;
    enum status status;
    const char *app;      /* NULL: none */
    const char *instance; /* NULL: any */
    uint16_t port;
    enum route_protocol protocol;
    uint8_t proxy_protocol;
} cases[] = {
    {"abc.base.example", STATUS_OK, "abc", NULL, 80, ROUTE_PROTOCOL_AUTO, 0},
    {"ABC.Base.Example", STATUS_OK, "abc", NULL, 80, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-8000.base.example", STATUS_OK, "abc", NULL, 8000, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-8000s.base.example", STATUS_MISDIRECTED, "abc", NULL, 8000, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"abc-8000g.base.example", STATUS_OK, "abc", NULL, 8000, ROUTE_PROTOCOL_H2C, 0},
    {"abc-s.base.example", STATUS_MISDIRECTED, "abc", NULL, 443, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"abc-g.base.example", STATUS_OK, "abc", NULL, 80, ROUTE_PROTOCOL_H2C, 0},
    /* an exact instance id wins over an app id with a port */
    {"abc-80.base.example", STATUS_OK, "abc", "abc-80", 80, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-80-81.base.example", STATUS_OK, "abc", "abc-80", 81, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-80s.base.example", STATUS_MISDIRECTED, "abc", NULL, 80, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"abc-81.base.example", STATUS_OK, "abc", NULL, 81, ROUTE_PROTOCOL_AUTO, 0},
    {"in-1.base.example", STATUS_OK, "abc", "in-1", 80, ROUTE_PROTOCOL_AUTO, 0},
    {"in-1-9000.base.example", STATUS_OK, "abc", "in-1", 9000, ROUTE_PROTOCOL_AUTO, 0},
    {"in-2s.base.example", STATUS_OK, "abc", "in-2s", 80, ROUTE_PROTOCOL_AUTO, 0},
    {"in-2s-s.base.example", STATUS_MISDIRECTED, "abc", "in-2s", 443, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"in-2.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    /* an app id that looks like another with a port */
    {"my-app.base.example", STATUS_OK, "my-app", NULL, 80, ROUTE_PROTOCOL_AUTO, 0},
    {"my-app-in.base.example", STATUS_OK, "my-app", "my-app-in", 80, ROUTE_PROTOCOL_AUTO, 0},
    {"my-app-8080.base.example", STATUS_OK, "my-app-8080", NULL, 80, ROUTE_PROTOCOL_AUTO, 0},
    {"my-app-8081.base.example", STATUS_OK, "my-app", NULL, 8081, ROUTE_PROTOCOL_AUTO, 0},
    {"my-app-8080-1.base.example", STATUS_OK, "my-app-8080", NULL, 1, ROUTE_PROTOCOL_AUTO, 0},
    {"my.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    /* what is no port belongs to the id */
    {"abc-99999.base.example", STATUS_OK, "abc-99999", NULL, 80, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-0.base.example", STATUS_OK, "abc-0", NULL, 80, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-65536.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-080.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"abc-8000x.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"nope.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"nope-80.base.example", STATUS_APP_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    /* published ports; the instance has its app's id */
    {"shop.base.example", STATUS_OK, "shop", "shop", 80, ROUTE_PROTOCOL_HTTP, 0},
    {"shop-80g.base.example", STATUS_OK, "shop", "shop", 80, ROUTE_PROTOCOL_H2C, 0},
    {"shop-5432.base.example", STATUS_OK, "shop", "shop", 5432, ROUTE_PROTOCOL_TCP, 2},
    {"shop-443.base.example", STATUS_MISDIRECTED, "shop", "shop", 443, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"shop-443g.base.example", STATUS_MISDIRECTED, "shop", "shop", 443, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"shop-s.base.example", STATUS_MISDIRECTED, "shop", "shop", 443, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"shop-22.base.example", STATUS_PORT_NOT_PUBLISHED, "shop", "shop", 22, ROUTE_PROTOCOL_AUTO, 0},
    {"shop-22s.base.example", STATUS_PORT_NOT_PUBLISHED, "shop", "shop", 22, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    /* custom names */
    {"shop.example.com", STATUS_OK, "shop", NULL, 80, ROUTE_PROTOCOL_HTTP, 0},
    {"raw.example.com", STATUS_MISDIRECTED, "shop", NULL, 443, ROUTE_PROTOCOL_PASSTHROUGH, 0},
    {"gone.example.com", STATUS_PORT_NOT_PUBLISHED, "shop", NULL, 81, ROUTE_PROTOCOL_AUTO, 0},
    {"abc", STATUS_OK, "shop", NULL, 80, ROUTE_PROTOCOL_HTTP, 0},
    {"other.example.com", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"shop", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    /* the gateway's own, and nonsense */
    {"health.base.example", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"base.example", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"a.b.base.example", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"10.0.0.1", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
    {"", STATUS_HOST_UNKNOWN, NULL, NULL, 0, ROUTE_PROTOCOL_AUTO, 0},
};

static void check_case(const struct route_table *table, size_t i)
{
    struct hostname hostname;
    struct route_target target;
    hostname_parse(slice_str(cases[i].host), bases, 1, &hostname);
    route_table_resolve(table, &hostname, slice_str(cases[i].host), &target);
    if (target.status != cases[i].status)
        fail_msg("%s: %s", cases[i].host, status_code(target.status));
    assert_int_equal(target.app != NULL, cases[i].app != NULL);
    assert_int_equal(target.instance != NULL, cases[i].instance != NULL);
    if (target.app)
        assert_string_equal(target.app->id, cases[i].app);
    if (target.instance)
        assert_string_equal(target.instance->id, cases[i].instance);
    assert_int_equal(target.port, cases[i].port);
    assert_int_equal(target.protocol, cases[i].protocol);
    assert_int_equal(target.proxy_protocol, cases[i].proxy_protocol);
}

static void test_resolve(void **state)
{
    struct route_table *table = route_table_new();
    (void)state;
    add_publishing_app(table);
    add_restricted_app(table);
    add_hyphen_apps(table);
    route_table_publish(table, NULL, NULL);
    route_table_read_begin();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_case(table, i);
    route_table_read_end();
    route_table_free(&table);
}

static void test_split_form_returns_when_the_exact_id_goes(void **state)
{
    struct route_table *table = route_table_new();
    struct route_problem problem;
    struct hostname hostname;
    struct route_target target;
    (void)state;
    add_publishing_app(table);
    route_table_publish(table, NULL, NULL);
    assert_int_equal(route_table_stage_put(table, fixture_app("abc", "in-1", "10.0.0.1", 1), &problem), STATUS_OK);
    route_table_publish(table, NULL, NULL);
    hostname_parse(SLICE("abc-80.base.example"), bases, 1, &hostname);
    route_table_read_begin();
    route_table_resolve(table, &hostname, SLICE_NONE, &target);
    route_table_read_end();
    assert_int_equal(target.status, STATUS_OK);
    assert_null(target.instance);
    assert_int_equal(target.port, 80);
    route_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_split_form_returns_when_the_exact_id_goes),
    };
    route_table_thread_begin();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
