#include "route_fixture.h"

#include "gateway/route/claims.h"

static const struct ip_network allow_ten = {{AF_INET, {10}}, 8};
static const struct route_rules ten = {.allow = &allow_ten, .allow_count = 1};

static void assert_refused(struct route_app *app, const char *field, const char *detail_part)
{
    struct route_problem problem = {0};
    assert_int_equal(route_app_check(app, &ten, &problem), STATUS_INVALID_RECORD);
    assert_int_equal(problem.status, STATUS_INVALID_RECORD);
    assert_string_equal(problem.field, field);
    if (!strstr(problem.detail, detail_part))
        fail_msg("\"%s\" is not in \"%s\"", detail_part, problem.detail);
    route_app_free(&app);
    assert_null(app);
}

static void assert_accepted(struct route_app *app)
{
    struct route_problem problem = {0};
    if (route_app_check(app, &ten, &problem) != STATUS_OK)
        fail_msg("%s: %s", problem.field, problem.detail);
    route_app_free(&app);
}

static void test_names(void **state)
{
    enum route_protocol protocol;
    enum route_state route_state;
    (void)state;
    assert_true(route_protocol_parse(SLICE("passthrough"), &protocol));
    assert_int_equal(protocol, ROUTE_PROTOCOL_PASSTHROUGH);
    assert_false(route_protocol_parse(SLICE("HTTP"), &protocol));
    assert_false(route_protocol_parse(SLICE("htt"), &protocol));
    assert_false(route_protocol_parse(SLICE(""), &protocol));
    assert_false(route_protocol_parse(slice_make("tcp\0", 4), &protocol));
    assert_true(route_state_parse(SLICE("draining"), &route_state));
    assert_int_equal(route_state, ROUTE_STATE_DRAINING);
    assert_string_equal(route_protocol_name(ROUTE_PROTOCOL_H2C), "h2c");
    assert_string_equal(route_state_name(ROUTE_STATE_STOPPED), "stopped");
}

static void test_problem_is_printable(void **state)
{
    struct route_problem problem;
    (void)state;
    assert_int_equal(route_problem_set(&problem, STATUS_INVALID_RECORD, "a\nb", "x\x1b\xff%s", "y"),
                     STATUS_INVALID_RECORD);
    assert_string_equal(problem.field, "a?b");
    assert_string_equal(problem.detail, "x??y");
    assert_int_equal(route_problem_set(NULL, STATUS_INTERNAL, "", "none"), STATUS_INTERNAL);
}

static void test_accepts(void **state)
{
    struct route_app *app = fixture_app("app-1", "i-1", "10.0.0.1", 1);
    (void)state;
    fixture_add_instance(app, "i-2", "10.0.0.2", 1, ROUTE_STATE_DRAINING);
    fixture_add_instance(app, "i-3", NULL, 1, ROUTE_STATE_STARTING);
    fixture_add_instance(app, "i-4", "10.0.0.1", 1, ROUTE_STATE_STOPPED);
    fixture_add_instance(app, "i-5", "10.0.0.1", 1, ROUTE_STATE_STOPPED);
    fixture_add_port(app, 80, ROUTE_PROTOCOL_AUTO);
    fixture_add_port(app, 65535, ROUTE_PROTOCOL_TCP)->proxy_protocol = 2;
    fixture_add_domain(app, "shop.example.com", 80);
    fixture_add_domain(app, "www.example.com", 8080);
    assert_accepted(app);
    assert_accepted(route_app_new("a"));
}

static void test_ids(void **state)
{
    static const char *const bad[] = {
        "", "-a", "a-", "A", "a.b", "a b", "a/b", "0123456789012345678901234567890123456789012345678901234567890123"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_refused(route_app_new(bad[i]), "app_id", "a-z");
        assert_refused(fixture_app("a", bad[i], "10.0.0.1", 1), "instances[0].instance_id", "a-z");
    }
}

static void test_ports(void **state)
{
    struct route_app *app = route_app_new("a");
    (void)state;
    fixture_add_port(app, 0, ROUTE_PROTOCOL_AUTO);
    assert_refused(app, "ports[0].port", "1 to 65535");
    app = route_app_new("a");
    fixture_add_port(app, 80, ROUTE_PROTOCOL_AUTO);
    fixture_add_port(app, 80, ROUTE_PROTOCOL_TCP);
    assert_refused(app, "ports[1].port", "twice");
    app = route_app_new("a");
    fixture_add_port(app, 81, ROUTE_PROTOCOL_AUTO);
    fixture_add_port(app, 80, ROUTE_PROTOCOL_TCP);
    assert_refused(app, "ports[1].port", "order");
    app = route_app_new("a");
    fixture_add_port(app, 80, ROUTE_PROTOCOL_AUTO)->protocol = 9;
    assert_refused(app, "ports[0].protocol", "9");
    app = route_app_new("a");
    fixture_add_port(app, 80, ROUTE_PROTOCOL_AUTO)->proxy_protocol = 3;
    assert_refused(app, "ports[0].proxy_protocol", "v2");
    app = route_app_new("a");
    for (size_t i = 0; i <= ROUTE_MAX_PORTS; i++)
        fixture_add_port(app, (uint16_t)(i + 1), ROUTE_PROTOCOL_AUTO);
    assert_refused(app, "ports", "257 entries");
}

/* An app with ports 80 and 443 (passthrough), and this check. */
static struct route_app *checked_app(const struct route_check *check)
{
    struct route_app *app = route_app_new("a");
    fixture_add_port(app, 80, ROUTE_PROTOCOL_AUTO);
    fixture_add_port(app, 443, ROUTE_PROTOCOL_PASSTHROUGH);
    app->checks = calloc(1, sizeof *app->checks);
    app->checks[0] = *check;
    app->check_count = 1;
    return app;
}

static void test_checks(void **state)
{
    static const struct route_check good = {.port = 80,
                                            .type = ROUTE_CHECK_HTTP,
                                            .rise = 1,
                                            .fall = 1,
                                            .interval_ms = 1000,
                                            .timeout_ms = 1000,
                                            .path = "/"};
    struct route_check check = good;
    (void)state;
    assert_accepted(checked_app(&check));
    check.port = 81;
    assert_refused(checked_app(&check), "ports[2].check.port", "not listed");
    check = good;
    check.port = 443;
    assert_refused(checked_app(&check), "ports[1].check.type", "passthrough");
    check.type = ROUTE_CHECK_TCP;
    assert_refused(checked_app(&check), "ports[1].check.path", "leave it out");
    check.path = NULL;
    assert_accepted(checked_app(&check));
    check.timeout_ms = 1001;
    assert_refused(checked_app(&check), "ports[1].check.timeout_ms", "interval_ms");
    check = good;
    check.path = "/#";
    assert_refused(checked_app(&check), "ports[0].check.path", "/healthz");
    check.path = NULL;
    assert_refused(checked_app(&check), "ports[0].check.path", "/healthz");
    check = good;
    check.rise = 11;
    assert_refused(checked_app(&check), "ports[0].check.rise", "1 to 10");
    check = good;
    check.type = 7;
    assert_refused(checked_app(&check), "ports[0].check.type", "tcp or http");
}

static void test_domains(void **state)
{
    struct route_app *app = route_app_new("a");
    (void)state;
    fixture_add_domain(app, "Shop.example.com", 80);
    assert_refused(app, "domains[0].name", "DNS");
    app = route_app_new("a");
    fixture_add_domain(app, "shop.example.com", 0);
    assert_refused(app, "domains[0].port", "1 to 65535");
    app = route_app_new("a");
    fixture_add_domain(app, "shop.example.com", 80);
    fixture_add_domain(app, "b.example.com", 80);
    fixture_add_domain(app, "shop.example.com", 81);
    assert_refused(app, "domains[2].name", "twice");
}

static void test_instances(void **state)
{
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 1);
    (void)state;
    app->instances[0].weight = 257;
    assert_refused(app, "instances[0].weight", "0 to 256");
    app = fixture_app("a", "i", "10.0.0.1", 1);
    app->instances[0].state = 4;
    assert_refused(app, "instances[0].state", "4");
    app = fixture_app("a", "i", "10.0.0.1", 1);
    fixture_add_instance(app, "j", "10.0.0.2", 1, ROUTE_STATE_RUNNING);
    fixture_add_instance(app, "i", "10.0.0.3", 1, ROUTE_STATE_STOPPED);
    assert_refused(app, "instances[2].instance_id", "twice");
    assert_refused(fixture_app("a", "i", NULL, 1), "instances[0].address", "running instance needs");
    app = route_app_new("a");
    fixture_add_instance(app, "i", NULL, 1, ROUTE_STATE_DRAINING);
    assert_refused(app, "instances[0].address", "draining instance needs");
    app = fixture_app("a", "i", "10.0.0.1", 1);
    fixture_add_instance(app, "j", "10.0.0.1", 2, ROUTE_STATE_DRAINING);
    assert_refused(app, "instances[1].address", "same address");
    assert_refused(fixture_app("a", "i", "11.0.0.1", 1), "instances[0].address", "upstream.allow");
    assert_refused(fixture_app("a", "i", "127.0.0.1", 1), "instances[0].address", "loopback");
}

/* Networks of upstream.allow, an address, and whether it is allowed. */
static void test_rules(void **state)
{
    static const struct {
        const char *allow;
        const char *address;
        bool ok;
    } cases[] = {
        {"10.0.0.0/8", "10.1.2.3", true},
        {"10.0.0.0/8", "11.1.2.3", false},
        {"0.0.0.0/0", "8.8.8.8", true},
        {"0.0.0.0/0", "127.0.0.1", false},
        {"0.0.0.0/0", "169.254.1.1", false},
        {"0.0.0.0/0", "169.254.169.254", false},
        {"0.0.0.0/0", "224.0.0.1", false},
        {"0.0.0.0/0", "0.0.0.0", false},
        {"0.0.0.0/8", "0.0.0.0", false},
        {"255.255.255.255/32", "255.255.255.255", false},
        {"127.0.0.0/8", "127.0.0.1", true},
        {"127.0.0.0/8", "::ffff:127.0.0.1", true},
        {"127.0.0.1/32", "127.0.0.2", false},
        {"126.0.0.0/7", "127.0.0.1", false},
        {"169.254.0.0/16", "169.254.1.1", true},
        {"169.254.0.0/16", "169.254.169.254", false},
        {"169.254.169.254/32", "169.254.169.254", true},
        {"::/0", "fd00::1", true},
        {"::/0", "::1", false},
        {"::/0", "fe80::1", false},
        {"::/0", "fd00:ec2::254", false},
        {"fd20::/16", "fd20:ce::254", false},
        {"fd20:ce::254/128", "fd20:ce::254", true},
        {"fd00::/8", "fd00:42::42", false},
        {"fd00:42::42/128", "fd00:42::42", true},
        {"::1/128", "::1", true},
        {"fe80::/10", "fe80::1", true},
        {"fd00::/8", "10.0.0.1", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_network network;
        struct route_problem problem;
        struct ip_addr addr = fixture_ip(cases[i].address);
        assert_true(ip_network_parse(slice_str(cases[i].allow), &network));
        struct route_rules rules = {.allow = &network, .allow_count = 1};
        enum status expected = cases[i].ok ? STATUS_OK : STATUS_ADDRESS_FORBIDDEN;
        if (route_rules_check(&rules, &addr, 80, &problem) != expected)
            fail_msg("%s in %s", cases[i].address, cases[i].allow);
        assert_int_equal(route_rules_check(&rules, &addr, 80, NULL), expected);
    }
}

static void test_own_listeners(void **state)
{
    static const struct {
        const char *listener;
        const char *address;
        uint16_t port;
        bool ok;
    } cases[] = {
        {"127.0.0.1:8443", "127.0.0.1", 8443, false}, {"127.0.0.1:8443", "127.0.0.1", 8000, true},
        {"127.0.0.1:8443", "127.0.0.1", 0, true},     {"127.0.0.1:8443", "127.0.0.2", 8443, true},
        {"127.0.0.1:0", "127.0.0.1", 80, false},      {"127.0.0.1:0", "127.0.0.1", 0, false},
        {"0.0.0.0:443", "127.0.0.1", 443, false},     {"0.0.0.0:443", "10.8.0.12", 443, true},
        {"[::]:443", "127.0.0.1", 443, false},        {"10.0.0.1:443", "10.0.0.1", 443, false},
    };
    static const struct ip_network allow[] = {{{AF_INET, {10}}, 8}, {{AF_INET, {127}}, 8}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_addr own;
        uint16_t own_port;
        union ip_sockaddr listener;
        struct ip_addr addr = fixture_ip(cases[i].address);
        assert_true(ip_port_parse(slice_str(cases[i].listener), &own, &own_port));
        ip_to_sockaddr(&own, own_port, &listener);
        struct route_rules rules = {allow, 2, &listener, 1};
        enum status expected = cases[i].ok ? STATUS_OK : STATUS_ADDRESS_FORBIDDEN;
        if (route_rules_check(&rules, &addr, cases[i].port, NULL) != expected)
            fail_msg("%s port %u beside %s", cases[i].address, (unsigned)cases[i].port, cases[i].listener);
    }
}

static void test_own_listeners_at_listed_ports(void **state)
{
    static const struct {
        const char *listener;
        uint16_t ports[2];
        enum route_state state;
        const char *place; /* that is refused, NULL: none */
    } cases[] = {
        {"10.0.0.1:443", {80, 443}, ROUTE_STATE_RUNNING, "10.0.0.1:443 is a listener of the gateway"},
        {"10.0.0.1:443", {443, 8000}, ROUTE_STATE_DRAINING, "10.0.0.1:443 is a listener of the gateway"},
        {"10.0.0.1:443", {443, 8000}, ROUTE_STATE_STOPPED, NULL},
        {"10.0.0.1:443", {80, 8000}, ROUTE_STATE_RUNNING, NULL},
        {"10.0.0.1:443", {0}, ROUTE_STATE_RUNNING, NULL},
        {"10.0.0.2:443", {80, 443}, ROUTE_STATE_RUNNING, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_addr own;
        uint16_t own_port;
        union ip_sockaddr listeners[2] = {{.sa = {.sa_family = AF_UNSPEC}}};
        struct route_problem problem = {0};
        struct route_app *app = fixture_app("a", "first", "10.9.9.9", 1);
        assert_true(ip_port_parse(slice_str(cases[i].listener), &own, &own_port));
        ip_to_sockaddr(&own, own_port, &listeners[1]);
        struct route_rules rules = {&allow_ten, 1, listeners, 2};
        fixture_add_instance(app, "second", "10.0.0.1", 1, cases[i].state);
        for (size_t k = 0; k < 2 && cases[i].ports[k] != 0; k++)
            fixture_add_port(app, cases[i].ports[k], ROUTE_PROTOCOL_AUTO);
        enum status expected = cases[i].place ? STATUS_INVALID_RECORD : STATUS_OK;
        assert_int_equal(route_app_check(app, &rules, &problem), expected);
        assert_string_equal(problem.field, cases[i].place ? "instances[1].address" : "");
        assert_non_null(strstr(problem.detail, cases[i].place ? cases[i].place : ""));
        route_app_free(&app);
    }
}

static void test_no_address_is_forbidden(void **state)
{
    struct ip_addr none = {0};
    struct route_problem problem;
    (void)state;
    assert_int_equal(route_rules_check(&ten, &none, 80, &problem), STATUS_ADDRESS_FORBIDDEN);
}

static void test_copy_and_equal(void **state)
{
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 7);
    (void)state;
    fixture_add_port(app, 80, ROUTE_PROTOCOL_TCP);
    fixture_add_domain(app, "x.example.com", 80);
    app->revision = 5;
    app->max_connections = 3;
    struct route_app *copy = route_app_copy(app);
    assert_true(route_app_equal(app, copy));
    assert_int_equal(copy->revision, 5);
    assert_ptr_not_equal(copy->id, app->id);
    assert_ptr_not_equal(copy->instances[0].id, app->instances[0].id);
    copy->revision = 6;
    assert_true(route_app_equal(app, copy));
    copy->instances[0].generation = 8;
    assert_false(route_app_equal(app, copy));
    copy->instances[0].generation = 7;
    copy->ports[0].protocol = ROUTE_PROTOCOL_HTTP;
    assert_false(route_app_equal(app, copy));
    copy->ports[0].protocol = ROUTE_PROTOCOL_TCP;
    copy->domains[0].port = 81;
    assert_false(route_app_equal(app, copy));
    route_app_free(&app);
    assert_string_equal(copy->domains[0].name, "x.example.com");
    route_app_free(&copy);
    route_app_free(&copy);
}

static void test_pack(void **state)
{
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 7);
    (void)state;
    fixture_add_instance(app, "j", NULL, 1, ROUTE_STATE_STARTING);
    fixture_add_port(app, 80, ROUTE_PROTOCOL_TCP);
    fixture_add_port(app, 81, ROUTE_PROTOCOL_HTTP);
    fixture_add_domain(app, "x.example.com", 80);
    app->checks = calloc(2, sizeof *app->checks);
    assert_non_null(app->checks);
    app->checks[app->check_count++] = (struct route_check){.port = 80, .rise = 1, .fall = 1};
    app->checks[app->check_count++] =
        (struct route_check){.port = 81, .type = ROUTE_CHECK_HTTP, .path = route_app_strdup(app, SLICE("/up"))};
    app->restrict_ports = true;
    struct route_app *copy = route_app_copy(app);
    route_app_pack(&app);
    assert_true(route_app_equal(app, copy));
    assert_true(app->restrict_ports);
    assert_string_equal(app->checks[1].path, "/up");
    assert_string_equal(app->instances[1].id, "j");
    const struct route_app *packed = app;
    route_app_pack(&app);
    assert_ptr_equal(app, packed);
    route_app_free(&copy);
    route_app_free(&app);
    app = route_app_new("bare");
    route_app_pack(&app);
    assert_string_equal(app->id, "bare");
    assert_null(app->instances);
    route_app_free(&app);
}

static void test_port_lookup(void **state)
{
    struct route_app *app = route_app_new("a");
    (void)state;
    assert_null(route_app_port(app, 80));
    for (uint16_t port = 10; port <= 100; port = (uint16_t)(port + 10))
        fixture_add_port(app, port, ROUTE_PROTOCOL_AUTO);
    for (uint16_t port = 1; port < 120; port++)
        assert_int_equal(route_app_port(app, port) != NULL, port % 10 == 0 && port >= 10 && port <= 100);
    route_app_free(&app);
}

static void test_live(void **state)
{
    struct route_instance instance = {.state = ROUTE_STATE_RUNNING, .address = {.family = AF_INET}};
    (void)state;
    assert_true(route_instance_is_live(&instance));
    instance.state = ROUTE_STATE_DRAINING;
    assert_true(route_instance_is_live(&instance));
    instance.state = ROUTE_STATE_STARTING;
    assert_false(route_instance_is_live(&instance));
    instance.state = ROUTE_STATE_STOPPED;
    assert_false(route_instance_is_live(&instance));
    instance = (struct route_instance){.state = ROUTE_STATE_RUNNING};
    assert_false(route_instance_is_live(&instance));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_problem_is_printable),
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_domains),
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_own_listeners),
        cmocka_unit_test(test_own_listeners_at_listed_ports),
        cmocka_unit_test(test_no_address_is_forbidden),
        cmocka_unit_test(test_copy_and_equal),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_port_lookup),
        cmocka_unit_test(test_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
