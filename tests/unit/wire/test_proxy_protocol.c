#include "gateway/wire/proxy_protocol.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4_ENDS   "\x01\x02\x03\x04\x05\x06\x07\x08\x01\x00\x02\x00"
#define V6_ENDS                                                                                                        \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                                                                       \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"                                                                       \
    "\x01\x00\x02\x00"

/* `says` is "source destination", "local", or NULL if the header is invalid. */
struct read_case {
    struct slice input;
    const char *says;
};

static const struct read_case v1[] = {
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 256 443\r\n"), "1.2.3.4:256 5.6.7.8:443"},
    {SLICE_INIT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
     "255.255.255.255:65535 255.255.255.255:65535"},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n"), "1.2.3.4:0 5.6.7.8:0"},
    {SLICE_INIT("PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 256 443\r\n"), "[2001:db8::1]:256 [::ffff:1.2.3.4]:443"},
    {SLICE_INIT("PROXY UNKNOWN\r\n"), "local"},
    {SLICE_INIT("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), "local"},
    {SLICE_INIT("PROXY \r\n"), NULL},
    {SLICE_INIT("PROXY\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4\r\n"), NULL},
    {SLICE_INIT("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY UNKNOWNX\r\n"), NULL},
    {SLICE_INIT("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 ::1 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP6 1.2.3.4 ::1 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), NULL},
    {SLICE_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r3\r\n"), NULL},
    {SLICE_INIT("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {SLICE_INIT("GET / HTTP/1.1\r\n"), NULL},
    {SLICE_INIT("POST / HTTP/1.1\r\n"), NULL},
    {SLICE_INIT("\x16\x03\x01\x00\x05"), NULL},
};

static const struct read_case v2[] = {
    {SLICE_INIT(SIGNATURE "\x21\x11\0\x0c" V4_ENDS), "1.2.3.4:256 5.6.7.8:512"},
    {SLICE_INIT(SIGNATURE "\x21\x21\0\x24" V6_ENDS), "[2001:db8::1]:256 [2001:db8::2]:512"},
    {SLICE_INIT(SIGNATURE "\x21\x11\0\x11" V4_ENDS "\x01\0\x02h2"), "1.2.3.4:256 5.6.7.8:512 alpn=h2"},
    {SLICE_INIT(SIGNATURE "\x21\x11\0\x17" V4_ENDS "\x04\0\0\xee\0\x01x\x02\0\x01"
                          "a"),
     "1.2.3.4:256 5.6.7.8:512 authority=a"},
    {SLICE_INIT(SIGNATURE "\x20\0\0\0"), "local"},
    {SLICE_INIT(SIGNATURE "\x20\x11\0\x0c" V4_ENDS), "local"},
    {SLICE_INIT(SIGNATURE "\x20\xff\0\x01x"), "local"},
    {SLICE_INIT(SIGNATURE "\x21\0\0\0"), "local"},
    {SLICE_INIT(SIGNATURE "\x21\x12\0\x0c" V4_ENDS), "local"},
    {SLICE_INIT(SIGNATURE "\x21\x31\0\0"), "local"},
    {SLICE_INIT(SIGNATURE "\x11\x11\0\x0c" V4_ENDS), NULL},
    {SLICE_INIT(SIGNATURE "\x22\x11\0\x0c" V4_ENDS), NULL},
    {SLICE_INIT(SIGNATURE "\x21\x41\0\x0c" V4_ENDS), NULL},
    {SLICE_INIT(SIGNATURE "\x21\x13\0\x0c" V4_ENDS), NULL},
    {SLICE_INIT(SIGNATURE "\x21\x11\0\x0b" V4_ENDS), NULL},
    {SLICE_INIT(SIGNATURE "\x21\x21\0\x0c" V4_ENDS), NULL},
    {SLICE_INIT(SIGNATURE "\x21\x11\0\x0e" V4_ENDS "\x01\0"), NULL},
    {SLICE_INIT(SIGNATURE "\x21\x11\0\x10" V4_ENDS "\x01\0\x02h"), NULL},
    {SLICE_INIT("\r\n\r\n\r\n"), NULL},
};

static void describe_end(const struct sockaddr *sa, char *text, size_t size)
{
    char address[INET6_ADDRSTRLEN];
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        inet_ntop(AF_INET6, &in6->sin6_addr, address, sizeof address);
        snprintf(text, size, "[%s]:%u", address, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        assert_int_equal(sa->sa_family, AF_INET);
        inet_ntop(AF_INET, &in->sin_addr, address, sizeof address);
        snprintf(text, size, "%s:%u", address, ntohs(in->sin_port));
    }
}

static void describe(const struct proxy_header *header, char *text, size_t size)
{
    char source[64];
    char destination[64];
    if (header->is_local) {
        assert_int_equal(header->source.sa.sa_family, AF_UNSPEC);
        snprintf(text, size, "local");
        return;
    }
    describe_end(&header->source.sa, source, sizeof source);
    describe_end(&header->destination.sa, destination, sizeof destination);
    snprintf(text, size, "%s %s%s%.*s%s%.*s", source, destination, header->alpn.len ? " alpn=" : "",
             SLICE_ARG(header->alpn), header->authority.len ? " authority=" : "", SLICE_ARG(header->authority));
}

/* Reads from memory of just this size. */
static enum proxy_result read_part(const char *data, size_t len, char *text, size_t size, size_t *ret_used)
{
    struct proxy_header header;
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    enum proxy_result result = proxy_protocol_read(copy, len, &header, ret_used);
    if (result == PROXY_DONE)
        describe(&header, text, size);
    free(copy);
    return result;
}

/* A good header needs each of its bytes; a bad one is never done, and is refused when it is whole. */
static void run_case(const struct read_case *c)
{
    char text[256] = "";
    size_t used = 0;
    for (size_t len = 0; len < c->input.len; len++) {
        enum proxy_result result = read_part(c->input.ptr, len, text, sizeof text, &used);
        assert_int_not_equal(result, PROXY_DONE);
        assert_false(c->says && result != PROXY_NEED_MORE);
    }
    enum proxy_result result = read_part(c->input.ptr, c->input.len, text, sizeof text, &used);
    assert_int_equal(result, c->says ? PROXY_DONE : PROXY_INVALID);
    if (c->says) {
        assert_int_equal(used, c->input.len);
        assert_string_equal(text, c->says);
    }
}

static void test_read_v1(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof v1 / sizeof *v1; i++)
        run_case(&v1[i]);
}

static void test_read_v2(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof v2 / sizeof *v2; i++)
        run_case(&v2[i]);
}

static void test_bytes_behind_are_left(void **state)
{
    (void)state;
    static const char first[] = "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n";
    static const char second[] = SIGNATURE "\x20\0\0\0\x16\x03\x01";
    char text[64];
    size_t used;
    assert_int_equal(read_part(first, sizeof first - 1, text, sizeof text, &used), PROXY_DONE);
    assert_int_equal(used, 15);
    assert_int_equal(read_part(second, sizeof second - 1, text, sizeof text, &used), PROXY_DONE);
    assert_int_equal(used, 16);
}

/* 107 bytes with its CRLF is the longest line. */
static void test_v1_length(void **state)
{
    (void)state;
    char line[200];
    char text[64];
    size_t used;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_int_equal(read_part(line, 106, text, sizeof text, &used), PROXY_NEED_MORE);
    assert_int_equal(read_part(line, 107, text, sizeof text, &used), PROXY_INVALID);
    memcpy(line + 106, "\r\n", 2);
    assert_int_equal(read_part(line, 108, text, sizeof text, &used), PROXY_INVALID);
    memcpy(line + 105, "\r\n", 2);
    assert_int_equal(read_part(line, 107, text, sizeof text, &used), PROXY_DONE);
    assert_int_equal(used, 107);
}

/* ---- writing ---- */

static void set_v4(struct sockaddr_in *in, const char *address, uint16_t port)
{
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    assert_int_equal(inet_pton(AF_INET, address, &in->sin_addr), 1);
}

static void set_v6(struct sockaddr_in6 *in6, const char *address, uint16_t port)
{
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    assert_int_equal(inet_pton(AF_INET6, address, &in6->sin6_addr), 1);
}

static void expect_written(const struct proxy_header *header, int version, struct slice expected)
{
    uint8_t buffer[PROXY_WRITE_MAX_BYTES];
    size_t len = proxy_protocol_write(header, version, buffer);
    assert_int_equal(len, expected.len);
    assert_memory_equal(buffer, expected.ptr, len);
}

static void test_write_v4(void **state)
{
    (void)state;
    struct proxy_header header = {.is_local = false};
    set_v4(&header.source.in, "1.2.3.4", 256);
    set_v4(&header.destination.in, "5.6.7.8", 512);
    expect_written(&header, 1, SLICE("PROXY TCP4 1.2.3.4 5.6.7.8 256 512\r\n"));
    expect_written(&header, 2, SLICE(SIGNATURE "\x21\x11\0\x0c" V4_ENDS));
}

static void test_write_v6(void **state)
{
    (void)state;
    struct proxy_header header = {.is_local = false};
    set_v6(&header.source.in6, "2001:db8::1", 256);
    set_v6(&header.destination.in6, "2001:db8::2", 512);
    expect_written(&header, 1, SLICE("PROXY TCP6 2001:db8::1 2001:db8::2 256 512\r\n"));
    expect_written(&header, 2, SLICE(SIGNATURE "\x21\x21\0\x24" V6_ENDS));
}

/* What a dual-stack listener reports for IPv4. */
static void test_write_mapped(void **state)
{
    (void)state;
    struct proxy_header header = {.is_local = false};
    set_v6(&header.source.in6, "::ffff:1.2.3.4", 256);
    set_v6(&header.destination.in6, "::ffff:5.6.7.8", 512);
    expect_written(&header, 1, SLICE("PROXY TCP4 1.2.3.4 5.6.7.8 256 512\r\n"));
    expect_written(&header, 2, SLICE(SIGNATURE "\x21\x11\0\x0c" V4_ENDS));
}

static void test_write_mixed(void **state)
{
    (void)state;
    struct proxy_header header = {.is_local = false};
    set_v4(&header.source.in, "1.2.3.4", 256);
    set_v6(&header.destination.in6, "2001:db8::2", 512);
    expect_written(&header, 1, SLICE("PROXY TCP6 ::ffff:1.2.3.4 2001:db8::2 256 512\r\n"));
}

static void test_write_longest_v1(void **state)
{
    (void)state;
    struct proxy_header header = {.is_local = false};
    uint8_t buffer[PROXY_WRITE_MAX_BYTES];
    set_v6(&header.source.in6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
    set_v6(&header.destination.in6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
    assert_int_equal(proxy_protocol_write(&header, 1, buffer), 104);
}

static void test_write_local(void **state)
{
    (void)state;
    struct proxy_header header = {.is_local = true};
    expect_written(&header, 1, SLICE("PROXY UNKNOWN\r\n"));
    expect_written(&header, 2, SLICE(SIGNATURE "\x20\0\0\0"));
    header.is_local = false; /* but the addresses are unknown */
    expect_written(&header, 1, SLICE("PROXY UNKNOWN\r\n"));
    expect_written(&header, 2, SLICE(SIGNATURE "\x20\0\0\0"));
}

static void test_write_tlvs(void **state)
{
    (void)state;
    char longest[256];
    struct proxy_header header = {
        .alpn = SLICE_INIT("h2"),
        .authority = SLICE_INIT("x.y"),
        .tls_version = SLICE_INIT("TLSv1.3"),
        .tls_cipher = SLICE_INIT("C"),
    };
    set_v4(&header.source.in, "1.2.3.4", 256);
    set_v4(&header.destination.in, "5.6.7.8", 512);
    expect_written(&header, 2,
                   SLICE(SIGNATURE "\x21\x11\0\x2d" V4_ENDS "\x01\0\x02h2\x02\0\x03x.y"
                                   "\x20\0\x13\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x01"
                                   "C"));
    memset(longest, 'x', sizeof longest);
    header.authority = slice_make(longest, sizeof longest); /* too long: left out */
    header.tls_version = SLICE_NONE;
    expect_written(&header, 2, SLICE(SIGNATURE "\x21\x11\0\x11" V4_ENDS "\x01\0\x02h2"));
}

/* The buffer of the promised size takes the longest of everything, and what was written reads back. */
static void test_write_most(void **state)
{
    (void)state;
    char longest[255];
    struct slice all = slice_make(longest, sizeof longest);
    struct proxy_header back;
    struct proxy_header header = {.alpn = all, .authority = all, .tls_version = all, .tls_cipher = all};
    uint8_t buffer[PROXY_WRITE_MAX_BYTES];
    size_t used;
    memset(longest, 'x', sizeof longest);
    set_v6(&header.source.in6, "2001:db8::1", 256);
    set_v6(&header.destination.in6, "2001:db8::2", 512);
    size_t len = proxy_protocol_write(&header, 2, buffer);
    assert_int_equal(proxy_protocol_read(buffer, len, &back, &used), PROXY_DONE);
    assert_int_equal(used, len);
    assert_true(slice_eq(back.alpn, all) && slice_eq(back.authority, all));
    assert_memory_equal(&back.source.in6.sin6_addr, &header.source.in6.sin6_addr, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_v1),
        cmocka_unit_test(test_read_v2),
        cmocka_unit_test(test_bytes_behind_are_left),
        cmocka_unit_test(test_v1_length),
        cmocka_unit_test(test_write_v4),
        cmocka_unit_test(test_write_v6),
        cmocka_unit_test(test_write_mapped),
        cmocka_unit_test(test_write_mixed),
        cmocka_unit_test(test_write_longest_v1),
        cmocka_unit_test(test_write_local),
        cmocka_unit_test(test_write_tlvs),
        cmocka_unit_test(test_write_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
