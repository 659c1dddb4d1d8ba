#include "gateway/base/ip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void test_parse_and_format(void **state)
{
    static const struct {
        const char *text;
        const char *formatted; /* NULL: refused */
    } cases[] = {
        {"10.0.0.1", "10.0.0.1"},
        {"0.0.0.0", "0.0.0.0"},
        {"255.255.255.255", "255.255.255.255"},
        {"::1", "::1"},
        {"FD00::12", "fd00::12"},
        {"2001:db8:0:0:0:0:0:1", "2001:db8::1"},
        {"::ffff:10.0.0.1", "10.0.0.1"},
        {"::FFFF:7f00:1", "127.0.0.1"},
        {"0:0:0:0:0:ffff:a9fe:a9fe", "169.254.169.254"},
        {"", NULL},
        {"10.0.0", NULL},
        {"10.0.0.256", NULL},
        {"010.0.0.1", NULL},
        {"0x7f.0.0.1", NULL},
        {"2130706433", NULL},
        {" 10.0.0.1", NULL},
        {"10.0.0.1 ", NULL},
        {"fe80::1%eth0", NULL},
        {"::1::", NULL},
        {"[::1]", NULL},
        {"localhost", NULL},
        {"1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_addr addr;
        char text[IP_TEXT_MAX];
        bool ok = ip_parse(slice_str(cases[i].text), &addr);
        assert_int_equal(ok, cases[i].formatted != NULL);
        if (!ok)
            continue;
        assert_int_equal(ip_format(&addr, text), strlen(cases[i].formatted));
        assert_string_equal(text, cases[i].formatted);
    }
}

static void test_parse_refuses_nul(void **state)
{
    struct ip_addr addr;
    (void)state;
    assert_false(ip_parse(slice_make("10.0.0.1\0", 9), &addr));
    assert_false(ip_parse(SLICE_NONE, &addr));
}

static void test_networks(void **state)
{
    static const struct {
        const char *network;
        const char *address;
        bool valid;
        bool has;
    } cases[] = {
        {"10.0.0.0/8", "10.255.1.2", true, true},
        {"10.0.0.0/8", "11.0.0.0", true, false},
        {"10.8.0.0/13", "10.15.255.255", true, true},
        {"10.8.0.0/13", "10.16.0.0", true, false},
        {"0.0.0.0/0", "8.8.8.8", true, true},
        {"0.0.0.0/0", "::1", true, false},
        {"::/0", "fd00::1", true, true},
        {"::/0", "10.0.0.1", true, false},
        {"10.0.0.1", "10.0.0.1", true, true},
        {"10.0.0.1", "10.0.0.2", true, false},
        {"fd00:1::/33", "fd00:1:7fff::1", true, true},
        {"fd00:1::/33", "fd00:1:8000::1", true, false},
        {"::ffff:10.0.0.0/104", "10.1.2.3", true, true},
        {"::ffff:0:0/96", "10.1.2.3", true, true},
        {"10.0.0.1/8", "10.0.0.1", false, false},
        {"10.0.0.0/33", "10.0.0.1", false, false},
        {"::/129", "::1", false, false},
        {"::ffff:0.0.0.0/95", "::1", false, false},
        {"10.0.0.0/", "10.0.0.1", false, false},
        {"10.0.0.0/08", "10.0.0.1", false, false},
        {"10.0.0.0/-1", "10.0.0.1", false, false},
        {"10.0.0.0/8/8", "10.0.0.1", false, false},
        {"/8", "10.0.0.1", false, false},
        {"", "10.0.0.1", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_network network;
        struct ip_addr addr;
        assert_true(ip_parse(slice_str(cases[i].address), &addr));
        assert_int_equal(ip_network_parse(slice_str(cases[i].network), &network), cases[i].valid);
        if (cases[i].valid)
            assert_int_equal(ip_network_has(&network, &addr), cases[i].has);
    }
}

static bool covers(const char *outer_text, const char *inner_text)
{
    struct ip_network outer;
    struct ip_network inner;
    assert_true(ip_network_parse(slice_str(outer_text), &outer));
    assert_true(ip_network_parse(slice_str(inner_text), &inner));
    return ip_network_covers(&outer, &inner);
}

static void test_covers(void **state)
{
    (void)state;
    assert_true(covers("10.0.0.0/8", "10.1.0.0/16"));
    assert_true(covers("10.0.0.0/8", "10.0.0.0/8"));
    assert_false(covers("10.1.0.0/16", "10.0.0.0/8"));
    assert_false(covers("10.0.0.0/8", "11.0.0.0/16"));
    assert_false(covers("0.0.0.0/0", "::/0"));
}

static void test_ports(void **state)
{
    static const struct {
        const char *text;
        const char *formatted; /* NULL: refused */
    } cases[] = {
        {"1.2.3.4:443", "1.2.3.4:443"},
        {"0.0.0.0:0", "0.0.0.0:0"},
        {"[::1]:65535", "[::1]:65535"},
        {"[::]:80", "[::]:80"},
        {"[::ffff:1.2.3.4]:80", "1.2.3.4:80"},
        {"::1:443", NULL},
        {"[1.2.3.4]:80", NULL},
        {"1.2.3.4", NULL},
        {"1.2.3.4:", NULL},
        {"1.2.3.4:65536", NULL},
        {"1.2.3.4:080", NULL},
        {"1.2.3.4:+80", NULL},
        {":80", NULL},
        {"[]:80", NULL},
        {"[::1]80", NULL},
        {"[::1:80", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_addr addr;
        uint16_t port;
        char text[IP_PORT_TEXT_MAX];
        bool ok = ip_port_parse(slice_str(cases[i].text), &addr, &port);
        assert_int_equal(ok, cases[i].formatted != NULL);
        if (!ok)
            continue;
        assert_int_equal(ip_port_format(&addr, port, text), strlen(cases[i].formatted));
        assert_string_equal(text, cases[i].formatted);
    }
}

static void test_longest_text_fits(void **state)
{
    char text[IP_PORT_TEXT_MAX];
    struct ip_addr addr = {.family = AF_INET6};
    (void)state;
    memset(addr.bytes, 0xff, sizeof addr.bytes);
    assert_int_equal(ip_port_format(&addr, 65535, text), 47);
}

static void test_kinds(void **state)
{
    static const struct {
        const char *text;
        enum ip_kind kind;
        const char *network; /* NULL: none */
    } cases[] = {
        {"10.8.0.12", IP_ORDINARY, NULL},
        {"8.8.8.8", IP_ORDINARY, NULL},
        {"fd00::12", IP_ORDINARY, NULL},
        {"0.0.0.0", IP_UNSPECIFIED, "0.0.0.0/8"},
        {"0.1.2.3", IP_UNSPECIFIED, "0.0.0.0/8"},
        {"::", IP_UNSPECIFIED, "::/128"},
        {"127.0.0.1", IP_LOOPBACK, "127.0.0.0/8"},
        {"127.255.255.254", IP_LOOPBACK, "127.0.0.0/8"},
        {"::ffff:127.0.0.1", IP_LOOPBACK, "127.0.0.0/8"},
        {"::1", IP_LOOPBACK, "::1/128"},
        {"169.254.1.1", IP_LINK_LOCAL, "169.254.0.0/16"},
        {"fe80::1", IP_LINK_LOCAL, "fe80::/10"},
        {"febf::1", IP_LINK_LOCAL, "fe80::/10"},
        {"224.0.0.1", IP_MULTICAST, "224.0.0.0/4"},
        {"239.255.255.255", IP_MULTICAST, "224.0.0.0/4"},
        {"ff02::1", IP_MULTICAST, "ff00::/8"},
        {"255.255.255.255", IP_BROADCAST, "255.255.255.255/32"},
        {"169.254.169.254", IP_METADATA, "169.254.169.254/32"},
        {"100.100.100.200", IP_METADATA, "100.100.100.200/32"},
        {"fd00:ec2::254", IP_METADATA, "fd00:ec2::254/128"},
        {"fd20:ce::254", IP_METADATA, "fd20:ce::254/128"},
        {"fd20:ce::255", IP_ORDINARY, NULL},
        {"fd00:42::42", IP_METADATA, "fd00:42::42/128"},
        {"fd00:42::43", IP_ORDINARY, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_addr addr;
        struct ip_network network;
        struct ip_network expected;
        assert_true(ip_parse(slice_str(cases[i].text), &addr));
        assert_int_equal(ip_kind(&addr), cases[i].kind);
        assert_int_equal(ip_kind_network(&addr, &network), cases[i].network != NULL);
        if (!cases[i].network)
            continue;
        assert_true(ip_network_parse(slice_str(cases[i].network), &expected));
        assert_true(ip_network_covers(&network, &expected) && ip_network_covers(&expected, &network));
    }
    assert_string_equal(ip_kind_name(IP_LOOPBACK), "loopback");
    assert_string_equal(ip_kind_name(IP_METADATA), "metadata");
}

static void test_sockaddr_round_trip(void **state)
{
    static const char *const texts[] = {"10.0.0.1:443", "[fd00::1]:80"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct ip_addr addr;
        struct ip_addr back;
        uint16_t port;
        uint16_t back_port;
        union ip_sockaddr sa;
        assert_true(ip_port_parse(slice_str(texts[i]), &addr, &port));
        socklen_t len = ip_to_sockaddr(&addr, port, &sa);
        assert_int_equal(len, i == 0 ? sizeof sa.in : sizeof sa.in6);
        ip_from_sockaddr(&sa.sa, &back, &back_port);
        assert_true(ip_equal(&addr, &back));
        assert_int_equal(port, back_port);
    }
}

static void test_sockaddr_mapped_and_unix(void **state)
{
    union ip_sockaddr sa = {.in6 = {.sin6_family = AF_INET6, .sin6_port = 0x5000}};
    struct ip_addr addr;
    struct ip_addr expected;
    uint16_t port;
    (void)state;
    sa.in6.sin6_addr.s6_addr[10] = sa.in6.sin6_addr.s6_addr[11] = 0xff;
    sa.in6.sin6_addr.s6_addr[12] = 127;
    sa.in6.sin6_addr.s6_addr[15] = 1;
    ip_from_sockaddr(&sa.sa, &addr, &port);
    assert_true(ip_parse(SLICE("127.0.0.1"), &expected));
    assert_true(ip_equal(&addr, &expected));
    assert_int_equal(port, 80);
    sa.sa.sa_family = AF_UNIX;
    ip_from_sockaddr(&sa.sa, &addr, &port);
    assert_int_equal(addr.family, 0);
    assert_int_equal(port, 0);
}

static void test_local_addresses(void **state)
{
    struct ip_addr addrs[64];
    struct ip_addr one;
    (void)state;
    size_t count = ip_local_addresses(addrs, 64);
    for (size_t i = 0; i < count; i++)
        assert_true(addrs[i].family == AF_INET || addrs[i].family == AF_INET6);
    assert_true(ip_local_addresses(&one, 1) <= 1);
}

static void test_every_number_of_an_address(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        struct ip_addr addr = {AF_INET, {(uint8_t)byte, (uint8_t)(byte / 2), (uint8_t)(255 - byte), (uint8_t)byte}};
        char expected[IP_PORT_TEXT_MAX], text[IP_PORT_TEXT_MAX];
        int len = snprintf(expected, sizeof expected, "%u.%u.%u.%u:%u", byte, byte / 2, 255 - byte, byte, byte * 257);
        assert_int_equal(ip_port_format(&addr, (uint16_t)(byte * 257), text), len);
        assert_string_equal(text, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_and_format),
        cmocka_unit_test(test_every_number_of_an_address),
        cmocka_unit_test(test_parse_refuses_nul),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_covers),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_longest_text_fits),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_sockaddr_round_trip),
        cmocka_unit_test(test_sockaddr_mapped_and_unix),
        cmocka_unit_test(test_local_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
