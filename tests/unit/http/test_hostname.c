#include "gateway/http/hostname.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define ID40 "3327603e03f5bd1f830812ca4a789277fc31f577"
#define L63  "a23456789012345678901234567890123456789012345678901234567890123"

static const struct slice bases[] = {SLICE_INIT("phala.network"), SLICE_INIT("prod5.phala.network"),
                                     SLICE_INIT("local.localhost")};

struct app_case {
    const char *host;
    const char *id;
    const char *label;
    unsigned port;
    enum hostname_mode mode;
    bool has_port;
    unsigned base;
};

#define DEFAULT HOSTNAME_MODE_DEFAULT
#define TLS     HOSTNAME_MODE_PASSTHROUGH
#define GRPC    HOSTNAME_MODE_GRPC

static const struct app_case app_cases[] = {
    {ID40 ".prod5.phala.network", ID40, ID40, 80, DEFAULT, false, 1},
    {ID40 "-8080.prod5.phala.network", ID40, ID40 "-8080", 8080, DEFAULT, true, 1},
    {ID40 "-8443s.prod5.phala.network", ID40, ID40 "-8443s", 8443, TLS, true, 1},
    {ID40 "-50051g.prod5.phala.network", ID40, ID40 "-50051g", 50051, GRPC, true, 1},
    {ID40 "-s.prod5.phala.network", ID40, ID40 "-s", 443, TLS, false, 1},
    {ID40 "-g.prod5.phala.network", ID40, ID40 "-g", 80, GRPC, false, 1},
    {"ABC-8000S.Local.LocalHost", "abc", "abc-8000s", 8000, TLS, true, 2},
    {"ABC-G.PROD5.PHALA.NETWORK.", "abc", "abc-g", 80, GRPC, false, 1},
    {"abc.phala.network", "abc", "abc", 80, DEFAULT, false, 0},
    {"abc-1.phala.network", "abc", "abc-1", 1, DEFAULT, true, 0},
    {"abc-65535.phala.network", "abc", "abc-65535", 65535, DEFAULT, true, 0},
    {"abc-65535g.phala.network", "abc", "abc-65535g", 65535, GRPC, true, 0},
    /* no valid suffix: the id is the whole label */
    {"abc-65536.phala.network", "abc-65536", "abc-65536", 80, DEFAULT, false, 0},
    {"abc-99999.phala.network", "abc-99999", "abc-99999", 80, DEFAULT, false, 0},
    {"abc-99999s.phala.network", "abc-99999s", "abc-99999s", 80, DEFAULT, false, 0},
    {"abc-100000.phala.network", "abc-100000", "abc-100000", 80, DEFAULT, false, 0},
    {"abc-0.phala.network", "abc-0", "abc-0", 80, DEFAULT, false, 0},
    {"abc-0s.phala.network", "abc-0s", "abc-0s", 80, DEFAULT, false, 0},
    {"abc-080.phala.network", "abc-080", "abc-080", 80, DEFAULT, false, 0},
    {"abc-00080.phala.network", "abc-00080", "abc-00080", 80, DEFAULT, false, 0},
    {"abc-80sg.phala.network", "abc-80sg", "abc-80sg", 80, DEFAULT, false, 0},
    {"abc-80ss.phala.network", "abc-80ss", "abc-80ss", 80, DEFAULT, false, 0},
    {"abc-s80.phala.network", "abc-s80", "abc-s80", 80, DEFAULT, false, 0},
    {"abc-80x.phala.network", "abc-80x", "abc-80x", 80, DEFAULT, false, 0},
    {"abc-8x0.phala.network", "abc-8x0", "abc-8x0", 80, DEFAULT, false, 0},
    {"abc-x.phala.network", "abc-x", "abc-x", 80, DEFAULT, false, 0},
    {"abc-sg.phala.network", "abc-sg", "abc-sg", 80, DEFAULT, false, 0},
    {"abc-h.phala.network", "abc-h", "abc-h", 80, DEFAULT, false, 0},
    /* only the last hyphen splits */
    {"my-app.phala.network", "my-app", "my-app", 80, DEFAULT, false, 0},
    {"my-app-3000.phala.network", "my-app", "my-app-3000", 3000, DEFAULT, true, 0},
    {"my-80-81.phala.network", "my-80", "my-80-81", 81, DEFAULT, true, 0},
    {"my-s-s.phala.network", "my-s", "my-s-s", 443, TLS, false, 0},
    {"a--b-80.phala.network", "a--b", "a--b-80", 80, DEFAULT, true, 0},
    /* the part before the hyphen would not be an id */
    {"abc--80.phala.network", "abc--80", "abc--80", 80, DEFAULT, false, 0},
    {"abc--s.phala.network", "abc--s", "abc--s", 80, DEFAULT, false, 0},
    /* short and odd ids */
    {"a.phala.network", "a", "a", 80, DEFAULT, false, 0},
    {"s.phala.network", "s", "s", 80, DEFAULT, false, 0},
    {"0.phala.network", "0", "0", 80, DEFAULT, false, 0},
    {"80.phala.network", "80", "80", 80, DEFAULT, false, 0},
    {"8080s.phala.network", "8080s", "8080s", 80, DEFAULT, false, 0},
    {"1-2.phala.network", "1", "1-2", 2, DEFAULT, true, 0},
    {"xn--bcher-kva.phala.network", "xn--bcher-kva", "xn--bcher-kva", 80, DEFAULT, false, 0},
    {"prod6.phala.network", "prod6", "prod6", 80, DEFAULT, false, 0},
    {"health-80.phala.network", "health", "health-80", 80, DEFAULT, true, 0},
    {"healthy.phala.network", "healthy", "healthy", 80, DEFAULT, false, 0},
    {L63 ".phala.network", L63, L63, 80, DEFAULT, false, 0},
};

static void test_app_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof app_cases / sizeof app_cases[0]; i++) {
        const struct app_case *c = &app_cases[i];
        struct hostname h;
        hostname_parse(slice_str(c->host), bases, 3, &h);
        if (h.kind != HOSTNAME_APP || h.port != c->port || h.mode != c->mode || h.has_port != c->has_port ||
            h.base_index != c->base || !slice_eq(hostname_id(&h), slice_str(c->id)) ||
            !slice_eq(hostname_label(&h), slice_str(c->label)))
            fail_msg("%s: kind %d id %.*s port %u mode %d has_port %d base %u", c->host, (int)h.kind,
                     SLICE_ARG(hostname_id(&h)), h.port, (int)h.mode, (int)h.has_port, h.base_index);
    }
}

struct kind_case {
    const char *host;
    enum hostname_kind kind;
};

static const struct kind_case kind_cases[] = {
    {"health.phala.network", HOSTNAME_HEALTH},
    {"HEALTH.prod5.phala.network.", HOSTNAME_HEALTH},
    {"phala.network", HOSTNAME_BASE},
    {"prod5.phala.network", HOSTNAME_BASE},
    {"Local.Localhost.", HOSTNAME_BASE},
    {"shop.example.com", HOSTNAME_CUSTOM},
    {"SHOP.Example.COM.", HOSTNAME_CUSTOM},
    {"health.example.com", HOSTNAME_CUSTOM},
    {"localhost", HOSTNAME_CUSTOM},
    {"network", HOSTNAME_CUSTOM},
    {"xphala.network", HOSTNAME_CUSTOM},
    {"phala.network.example.com", HOSTNAME_CUSTOM},
    {"abc-80.phala.networks", HOSTNAME_CUSTOM},
    {"1.2.3.4.nip.io", HOSTNAME_CUSTOM},
    {"xn--bcher-kva.example", HOSTNAME_CUSTOM},
    {L63 ".com", HOSTNAME_CUSTOM},
    {L63 "." L63 "." L63 ".a2345678901234567890123456789012345678901234567890123456789.y", HOSTNAME_CUSTOM},
    {L63 "." L63 "." L63 "." L63, HOSTNAME_INVALID}, /* 255 bytes */
    {L63 "x.com", HOSTNAME_INVALID},
    {L63 "x.phala.network", HOSTNAME_INVALID},
    {"a.b.phala.network", HOSTNAME_INVALID},
    {"abc-80.x.prod5.phala.network", HOSTNAME_INVALID},
    {"-abc.phala.network", HOSTNAME_INVALID},
    {"abc-.phala.network", HOSTNAME_INVALID},
    {"-80.phala.network", HOSTNAME_INVALID},
    {"-.phala.network", HOSTNAME_INVALID},
    {"-s.phala.network", HOSTNAME_INVALID},
    {".phala.network", HOSTNAME_INVALID},
    {"..phala.network", HOSTNAME_INVALID},
    {"abc..phala.network", HOSTNAME_INVALID},
    {"abc.phala.network..", HOSTNAME_INVALID},
    {"abc_80.phala.network", HOSTNAME_INVALID},
    {"abc 80.phala.network", HOSTNAME_INVALID},
    {"*.phala.network", HOSTNAME_INVALID},
    {"abc%2d80.phala.network", HOSTNAME_INVALID},
    {"abc\t.phala.network", HOSTNAME_INVALID},
    {"abc\n.phala.network", HOSTNAME_INVALID},
    {"b\xc3\xbc"
     "cher.phala.network",
     HOSTNAME_INVALID},
    {"abc/.phala.network", HOSTNAME_INVALID},
    {"user@abc.phala.network", HOSTNAME_INVALID},
    {"abc.phala.network:443", HOSTNAME_INVALID},
    {"", HOSTNAME_INVALID},
    {".", HOSTNAME_INVALID},
    {"..", HOSTNAME_INVALID},
    {"-", HOSTNAME_INVALID},
    {"a..b", HOSTNAME_INVALID},
    {".example.com", HOSTNAME_INVALID},
    {"-a.example.com", HOSTNAME_INVALID},
    {"a-.example.com", HOSTNAME_INVALID},
    {"a_b.example.com", HOSTNAME_INVALID},
    {"example.com ", HOSTNAME_INVALID},
    {"exa mple.com", HOSTNAME_INVALID},
    {"127.0.0.1", HOSTNAME_INVALID},
    {"127.1", HOSTNAME_INVALID},
    {"0x7f.0x1", HOSTNAME_INVALID},
    {"2130706433", HOSTNAME_INVALID},
    {"99999999999999999999999999", HOSTNAME_INVALID},
    {"[::1]", HOSTNAME_INVALID},
    {"::1", HOSTNAME_INVALID},
};

static void test_other_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof kind_cases / sizeof kind_cases[0]; i++) {
        struct hostname h;
        hostname_parse(slice_str(kind_cases[i].host), bases, 3, &h);
        if (h.kind != kind_cases[i].kind)
            fail_msg("%s: kind %d instead of %d", kind_cases[i].host, (int)h.kind, (int)kind_cases[i].kind);
    }
}

static void test_nul_in_a_name(void **state)
{
    struct hostname h;
    (void)state;
    hostname_parse(slice_make("abc\0.phala.network", 18), bases, 3, &h);
    assert_int_equal(h.kind, HOSTNAME_INVALID);
    hostname_parse(slice_make("abc.example\0", 12), bases, 3, &h);
    assert_int_equal(h.kind, HOSTNAME_INVALID);
}

static void test_the_longest_base_wins_in_any_order(void **state)
{
    static const struct slice turned[] = {SLICE_INIT("prod5.phala.network"), SLICE_INIT("phala.network")};
    struct hostname h;
    (void)state;
    hostname_parse(SLICE("abc.prod5.phala.network"), turned, 2, &h);
    assert_int_equal(h.kind, HOSTNAME_APP);
    assert_int_equal(h.base_index, 0);
    hostname_parse(SLICE("abc.phala.network"), turned, 2, &h);
    assert_int_equal(h.base_index, 1);
}

static void test_no_base_domains(void **state)
{
    struct hostname h;
    (void)state;
    hostname_parse(SLICE("abc.phala.network"), NULL, 0, &h);
    assert_int_equal(h.kind, HOSTNAME_CUSTOM);
    hostname_parse(SLICE_NONE, NULL, 0, &h);
    assert_int_equal(h.kind, HOSTNAME_INVALID);
}

static void test_ids(void **state)
{
    (void)state;
    assert_true(hostname_is_id(SLICE("a")));
    assert_true(hostname_is_id(SLICE("0")));
    assert_true(hostname_is_id(SLICE(ID40)));
    assert_true(hostname_is_id(SLICE("a--b")));
    assert_true(hostname_is_id(SLICE(L63)));
    assert_false(hostname_is_id(SLICE(L63 "x")));
    assert_false(hostname_is_id(SLICE("")));
    assert_false(hostname_is_id(SLICE_NONE));
    assert_false(hostname_is_id(SLICE("A")));
    assert_false(hostname_is_id(SLICE("-a")));
    assert_false(hostname_is_id(SLICE("a-")));
    assert_false(hostname_is_id(SLICE("a.b")));
    assert_false(hostname_is_id(SLICE("a_b")));
    assert_false(hostname_is_id(slice_make("a\0b", 3)));
}

static void test_dns_names(void **state)
{
    (void)state;
    assert_true(hostname_is_dns_name(SLICE("a")));
    assert_true(hostname_is_dns_name(SLICE("a.b-c.d9")));
    assert_false(hostname_is_dns_name(SLICE("A.b")));
    assert_false(hostname_is_dns_name(SLICE("a.b.")));
    assert_false(hostname_is_dns_name(SLICE(".a")));
    assert_false(hostname_is_dns_name(SLICE("a.9")));
    assert_false(hostname_is_dns_name(SLICE_NONE));
}

static void plain_names_are_lower_case_without_a_final_dot(void **state)
{
    (void)state;
    char name[HOSTNAME_MAX + 1], longest[HOSTNAME_MAX + 3];
    assert_int_equal(hostname_plain(SLICE("A.Example."), name), 9);
    assert_string_equal(name, "a.example");
    assert_int_equal(hostname_plain(SLICE(""), name), 0);
    assert_int_equal(hostname_plain(SLICE("."), name), 0);
    memset(longest, 'x', sizeof longest);
    longest[HOSTNAME_MAX] = '.';
    assert_int_equal(hostname_plain(slice_make(longest, HOSTNAME_MAX + 1), name), HOSTNAME_MAX);
    assert_int_equal(hostname_plain(slice_make(longest, HOSTNAME_MAX + 2), name), 0);
    assert_string_equal(name, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_app_names),
        cmocka_unit_test(test_other_names),
        cmocka_unit_test(plain_names_are_lower_case_without_a_final_dot),
        cmocka_unit_test(test_nul_in_a_name),
        cmocka_unit_test(test_the_longest_base_wins_in_any_order),
        cmocka_unit_test(test_no_base_domains),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_dns_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
