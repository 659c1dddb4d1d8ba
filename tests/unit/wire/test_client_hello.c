#include "gateway/wire/client_hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* What `openssl s_client -servername App-8080.Prod5.phala.network -alpn h2,http/1.1` (3.0) sends. */
static const uint8_t openssl_hello[] = {
    0x16, 0x03, 0x01, 0x01, 0x5b, 0x01, 0x00, 0x01, 0x57, 0x03, 0x03, 0x4f, 0x2a, 0x5e, 0x30, 0xef, 0xfc, 0x76, 0x4e,
    0x7e, 0x3a, 0x2c, 0xb6, 0x56, 0xd1, 0x8a, 0xe4, 0xed, 0x52, 0xb9, 0x98, 0x49, 0x52, 0x15, 0xca, 0x95, 0xf1, 0x41,
    0x90, 0x1f, 0x3f, 0x56, 0xa9, 0x20, 0x6b, 0xae, 0x90, 0x60, 0x75, 0xe1, 0x36, 0xb6, 0x09, 0x03, 0x27, 0x21, 0x47,
    0xe5, 0xcc, 0x20, 0xc5, 0x85, 0xef, 0xde, 0xff, 0x8e, 0xef, 0x29, 0xa8, 0x80, 0x72, 0x1b, 0x07, 0x74, 0xb9, 0xf3,
    0x00, 0x3e, 0x13, 0x02, 0x13, 0x03, 0x13, 0x01, 0xc0, 0x2c, 0xc0, 0x30, 0x00, 0x9f, 0xcc, 0xa9, 0xcc, 0xa8, 0xcc,
    0xaa, 0xc0, 0x2b, 0xc0, 0x2f, 0x00, 0x9e, 0xc0, 0x24, 0xc0, 0x28, 0x00, 0x6b, 0xc0, 0x23, 0xc0, 0x27, 0x00, 0x67,
    0xc0, 0x0a, 0xc0, 0x14, 0x00, 0x39, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x33, 0x00, 0x9d, 0x00, 0x9c, 0x00, 0x3d, 0x00,
    0x3c, 0x00, 0x35, 0x00, 0x2f, 0x00, 0xff, 0x01, 0x00, 0x00, 0xd0, 0x00, 0x00, 0x00, 0x21, 0x00, 0x1f, 0x00, 0x00,
    0x1c, 0x41, 0x70, 0x70, 0x2d, 0x38, 0x30, 0x38, 0x30, 0x2e, 0x50, 0x72, 0x6f, 0x64, 0x35, 0x2e, 0x70, 0x68, 0x61,
    0x6c, 0x61, 0x2e, 0x6e, 0x65, 0x74, 0x77, 0x6f, 0x72, 0x6b, 0x00, 0x0b, 0x00, 0x04, 0x03, 0x00, 0x01, 0x02, 0x00,
    0x0a, 0x00, 0x16, 0x00, 0x14, 0x00, 0x1d, 0x00, 0x17, 0x00, 0x1e, 0x00, 0x19, 0x00, 0x18, 0x01, 0x00, 0x01, 0x01,
    0x01, 0x02, 0x01, 0x03, 0x01, 0x04, 0x00, 0x23, 0x00, 0x00, 0x00, 0x10, 0x00, 0x0e, 0x00, 0x0c, 0x02, 0x68, 0x32,
    0x08, 0x68, 0x74, 0x74, 0x70, 0x2f, 0x31, 0x2e, 0x31, 0x00, 0x16, 0x00, 0x00, 0x00, 0x17, 0x00, 0x00, 0x00, 0x0d,
    0x00, 0x2a, 0x00, 0x28, 0x04, 0x03, 0x05, 0x03, 0x06, 0x03, 0x08, 0x07, 0x08, 0x08, 0x08, 0x09, 0x08, 0x0a, 0x08,
    0x0b, 0x08, 0x04, 0x08, 0x05, 0x08, 0x06, 0x04, 0x01, 0x05, 0x01, 0x06, 0x01, 0x03, 0x03, 0x03, 0x01, 0x03, 0x02,
    0x04, 0x02, 0x05, 0x02, 0x06, 0x02, 0x00, 0x2b, 0x00, 0x09, 0x08, 0x03, 0x04, 0x03, 0x03, 0x03, 0x02, 0x03, 0x01,
    0x00, 0x2d, 0x00, 0x02, 0x01, 0x01, 0x00, 0x33, 0x00, 0x26, 0x00, 0x24, 0x00, 0x1d, 0x00, 0x20, 0xb8, 0x64, 0x14,
    0x13, 0xe2, 0x11, 0x57, 0xff, 0xb8, 0x1e, 0xae, 0x3f, 0xdc, 0xef, 0x03, 0x25, 0x88, 0x8a, 0x3b, 0x16, 0xf9, 0x42,
    0x85, 0x01, 0xa0, 0x33, 0x6e, 0xf4, 0xc5, 0xf9, 0x0b, 0x78,
};

/* ---- a hello from its parts ---- */

struct bytes {
    uint8_t data[40000];
    size_t len;
};

static void add(struct bytes *b, const void *data, size_t len)
{
    assert_true(b->len + len <= sizeof b->data);
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void add_number(struct bytes *b, size_t width, size_t value)
{
    while (width-- > 0) {
        uint8_t byte = (uint8_t)(value >> (8 * width));
        add(b, &byte, 1);
    }
}

static void add_zeros(struct bytes *b, size_t len)
{
    assert_true(b->len + len <= sizeof b->data);
    memset(b->data + b->len, 0, len);
    b->len += len;
}

static void add_extension(struct bytes *b, unsigned type, const void *body, size_t len)
{
    add_number(b, 2, type);
    add_number(b, 2, len);
    add(b, body, len);
}

#define EXTENSION(b, type, literal) add_extension(b, type, literal, sizeof(literal) - 1)

static void add_server_name(struct bytes *b, const char *name, size_t len)
{
    add_number(b, 2, 0);
    add_number(b, 2, len + 5);
    add_number(b, 2, len + 3);
    add_number(b, 1, 0);
    add_number(b, 2, len);
    add(b, name, len);
}

/* The handshake message with these extensions, or with no extension block at all (NULL). */
static void make_message(struct bytes *ret, const struct bytes *extensions)
{
    size_t body = 2 + 32 + 1 + 32 + 2 + 4 + 2 + (extensions ? 2 + extensions->len : 0);
    ret->len = 0;
    add_number(ret, 1, 1);
    add_number(ret, 3, body);
    add_number(ret, 2, 0x0303);
    add_zeros(ret, 32);
    add_number(ret, 1, 32);
    add_zeros(ret, 32);
    add_number(ret, 2, 4);
    add_number(ret, 4, 0x13011302);
    add_number(ret, 2, 0x0100);
    if (extensions) {
        add_number(ret, 2, extensions->len);
        add(ret, extensions->data, extensions->len);
    }
}

static void make_records(struct bytes *ret, const struct bytes *message, size_t max_record)
{
    ret->len = 0;
    for (size_t at = 0; at < message->len;) {
        size_t len = message->len - at < max_record ? message->len - at : max_record;
        add_number(ret, 3, 0x160301);
        add_number(ret, 2, len);
        add(ret, message->data + at, len);
        at += len;
    }
}

/* Parses the first `len` bytes, in memory of just that size. */
static enum client_hello_result parse(const uint8_t *data, size_t len, struct client_hello *hello)
{
    static uint8_t scratch[CLIENT_HELLO_MAX_BYTES];
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    enum client_hello_result result = client_hello_parse(copy, len, scratch, hello);
    free(copy);
    return result;
}

static enum client_hello_result parse_extensions(const struct bytes *extensions, struct client_hello *hello)
{
    struct bytes message, records;
    make_message(&message, extensions);
    make_records(&records, &message, 16384);
    return parse(records.data, records.len, hello);
}

/* ---- tests ---- */

static void expect_openssl_hello(const uint8_t *data, size_t len)
{
    static uint8_t scratch[CLIENT_HELLO_MAX_BYTES];
    struct client_hello hello;
    for (size_t part = 0; part < len; part++)
        assert_int_equal(parse(data, part, &hello), CLIENT_HELLO_NEED_MORE);
    assert_int_equal(client_hello_parse(data, len, scratch, &hello), CLIENT_HELLO_DONE);
    assert_string_equal(hello.server_name, "app-8080.prod5.phala.network");
    assert_int_equal(hello.server_name_len, strlen(hello.server_name));
    assert_true(slice_eq(hello.alpn, SLICE("\x02h2\x08http/1.1")));
    assert_int_equal(hello.legacy_version, 0x0303);
    assert_true(hello.supports_tls13);
}

static void test_real_hello(void **state)
{
    (void)state;
    expect_openssl_hello(openssl_hello, sizeof openssl_hello);
}

static void test_real_hello_in_small_records(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 4, 5, 64, 100, sizeof openssl_hello - 6};
    struct bytes message = {.len = 0}, records;
    add(&message, openssl_hello + 5, sizeof openssl_hello - 5);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        make_records(&records, &message, sizes[i]);
        expect_openssl_hello(records.data, records.len);
    }
}

static void test_bytes_behind_the_hello(void **state)
{
    (void)state;
    struct bytes data = {.len = 0};
    struct client_hello hello;
    add(&data, openssl_hello, sizeof openssl_hello);
    add(&data, "whatever follows", 16);
    assert_int_equal(parse(data.data, data.len, &hello), CLIENT_HELLO_DONE);
}

static void test_no_extensions(void **state)
{
    (void)state;
    struct client_hello hello;
    struct bytes none = {.len = 0};
    assert_int_equal(parse_extensions(NULL, &hello), CLIENT_HELLO_DONE);
    assert_string_equal(hello.server_name, "");
    assert_int_equal(hello.alpn.len, 0);
    assert_false(hello.supports_tls13);
    assert_int_equal(parse_extensions(&none, &hello), CLIENT_HELLO_DONE);
}

/* GREASE (RFC 8701), a large post-quantum key share, an unknown extension, TLS 1.2 and 1.3 offered. */
static void test_unknown_extensions(void **state)
{
    (void)state;
    struct client_hello hello;
    struct bytes b = {.len = 0};
    EXTENSION(&b, 0x0a0a, "");
    add_number(&b, 2, 51);
    add_number(&b, 2, 1800);
    add_zeros(&b, 1800);
    add_server_name(&b, "A.example", 9);
    EXTENSION(&b, 0xffce, "\0\1\2\3");
    EXTENSION(&b, 43, "\x06\x1a\x1a\x03\x04\x03\x03");
    EXTENSION(&b, 0xfafa, "\0");
    assert_int_equal(parse_extensions(&b, &hello), CLIENT_HELLO_DONE);
    assert_string_equal(hello.server_name, "a.example");
    assert_true(hello.supports_tls13);
}

static void test_tls12_only(void **state)
{
    (void)state;
    struct client_hello hello;
    struct bytes b = {.len = 0};
    EXTENSION(&b, 43, "\x04\x03\x03\x03\x02");
    assert_int_equal(parse_extensions(&b, &hello), CLIENT_HELLO_DONE);
    assert_false(hello.supports_tls13);
}

static void expect_name(const char *name, size_t len, enum client_hello_result expected, const char *read_as)
{
    struct client_hello hello;
    struct bytes b = {.len = 0};
    add_server_name(&b, name, len);
    assert_int_equal(parse_extensions(&b, &hello), expected);
    if (expected == CLIENT_HELLO_DONE)
        assert_string_equal(hello.server_name, read_as);
}

static void test_server_names(void **state)
{
    (void)state;
    char name[256];
    memset(name, 'n', sizeof name);
    name[253] = '\0';
    expect_name(name, 253, CLIENT_HELLO_DONE, name);
    name[253] = 'n';
    expect_name(name, 254, CLIENT_HELLO_INVALID, NULL);
    expect_name("a.b.", 4, CLIENT_HELLO_DONE, "a.b");
    expect_name("UNDER_score.X", 13, CLIENT_HELLO_DONE, "under_score.x");
    expect_name("", 0, CLIENT_HELLO_INVALID, NULL);
    expect_name(".", 1, CLIENT_HELLO_INVALID, NULL);
    expect_name("a\0b", 3, CLIENT_HELLO_INVALID, NULL);
    expect_name("a b", 3, CLIENT_HELLO_INVALID, NULL);
    expect_name("a\r\nb", 4, CLIENT_HELLO_INVALID, NULL);
    expect_name("\xc3\xa9.de", 5, CLIENT_HELLO_INVALID, NULL);
}

static const struct {
    const char *name;
    unsigned type;
    struct slice body;
} bad_extensions[] = {
    {"empty server_name", 0, SLICE_INIT("")},
    {"empty name list", 0, SLICE_INIT("\0\0")},
    {"name list too long", 0, SLICE_INIT("\0\x05\0\0\1a")},
    {"name list too short", 0, SLICE_INIT("\0\x04\0\0\1ab")},
    {"name too long", 0, SLICE_INIT("\0\x04\0\0\2a")},
    {"two names", 0, SLICE_INIT("\0\x08\0\0\1a\0\0\1b")},
    {"empty ALPN", 16, SLICE_INIT("")},
    {"empty protocol list", 16, SLICE_INIT("\0\0")},
    {"empty protocol", 16, SLICE_INIT("\0\1\0")},
    {"protocol too long", 16, SLICE_INIT("\0\3\3h2")},
    {"bytes behind the list", 16, SLICE_INIT("\0\3\2h2x")},
    {"no versions", 43, SLICE_INIT("\0")},
    {"half a version", 43, SLICE_INIT("\3\3\4\3")},
};

static void test_bad_extensions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_extensions / sizeof *bad_extensions; i++) {
        struct client_hello hello;
        struct bytes b = {.len = 0};
        add_extension(&b, bad_extensions[i].type, bad_extensions[i].body.ptr, bad_extensions[i].body.len);
        if (parse_extensions(&b, &hello) != CLIENT_HELLO_INVALID)
            fail_msg("%s was accepted", bad_extensions[i].name);
    }
}

static void test_repeated_extension(void **state)
{
    (void)state;
    struct client_hello hello;
    struct bytes b = {.len = 0};
    add_server_name(&b, "a", 1);
    add_server_name(&b, "a", 1);
    assert_int_equal(parse_extensions(&b, &hello), CLIENT_HELLO_INVALID);
}

static void test_cut_off_extensions(void **state)
{
    (void)state;
    struct client_hello hello;
    struct bytes whole = {.len = 0}, cut = {.len = 0};
    add_server_name(&whole, "abc", 3);
    for (size_t len = 1; len < whole.len; len++) {
        cut.len = 0;
        add(&cut, whole.data, len);
        assert_int_equal(parse_extensions(&cut, &hello), CLIENT_HELLO_INVALID);
    }
}

static const struct {
    const char *name;
    struct slice bytes;
    enum client_hello_result expected;
} beginnings[] = {
    {"nothing", SLICE_INIT(""), CLIENT_HELLO_NEED_MORE},
    {"HTTP", SLICE_INIT("GET / HTTP/1.1\r\n"), CLIENT_HELLO_NOT_TLS},
    {"SSH", SLICE_INIT("S"), CLIENT_HELLO_NOT_TLS},
    {"SSLv2 hello", SLICE_INIT("\x80\x2e\x01\x03\x01"), CLIENT_HELLO_NOT_TLS},
    {"other major version", SLICE_INIT("\x16\x02"), CLIENT_HELLO_NOT_TLS},
    {"alert", SLICE_INIT("\x15\x03\x01\x00\x02\x01\x00"), CLIENT_HELLO_NOT_TLS},
    {"empty record", SLICE_INIT("\x16\x03\x01\x00\x00"), CLIENT_HELLO_INVALID},
    {"record too long", SLICE_INIT("\x16\x03\x01\x40\x01"), CLIENT_HELLO_INVALID},
    {"longest record", SLICE_INIT("\x16\x03\x01\x40\x00"), CLIENT_HELLO_NEED_MORE},
    {"server hello", SLICE_INIT("\x16\x03\x01\x00\x10\x02"), CLIENT_HELLO_INVALID},
    {"message too long", SLICE_INIT("\x16\x03\x01\x00\x10\x01\x00\x40\x00"), CLIENT_HELLO_INVALID},
    {"enormous message", SLICE_INIT("\x16\x03\x01\x00\x10\x01\xff\xff\xff"), CLIENT_HELLO_INVALID},
    {"empty message", SLICE_INIT("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), CLIENT_HELLO_INVALID},
    {"alert in between", SLICE_INIT("\x16\x03\x01\x00\x01\x01\x15"), CLIENT_HELLO_INVALID},
};

static void test_beginnings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        struct client_hello hello;
        if (parse((const uint8_t *)beginnings[i].bytes.ptr, beginnings[i].bytes.len, &hello) != beginnings[i].expected)
            fail_msg("%s", beginnings[i].name);
    }
}

/* A change of any one byte must be survived, whatever it means. */
static void test_damaged_hellos(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof openssl_hello; i++) {
        static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
        for (size_t v = 0; v < sizeof values; v++) {
            struct client_hello hello;
            uint8_t copy[sizeof openssl_hello];
            memcpy(copy, openssl_hello, sizeof copy);
            copy[i] = values[v];
            enum client_hello_result result = parse(copy, sizeof copy, &hello);
            assert_true(result != CLIENT_HELLO_DONE || hello.server_name_len < sizeof hello.server_name);
        }
    }
}

static enum client_hello_result parse_padded(size_t message_len, size_t record, struct client_hello *hello)
{
    struct bytes extensions = {.len = 0}, message, records;
    make_message(&message, &extensions);
    add_number(&extensions, 2, 21);
    add_number(&extensions, 2, message_len - message.len - 4);
    add_zeros(&extensions, message_len - message.len - 4);
    make_message(&message, &extensions);
    assert_int_equal(message.len, message_len);
    make_records(&records, &message, record);
    return parse(records.data, records.len, hello);
}

static void test_longest_hello(void **state)
{
    (void)state;
    struct client_hello hello;
    assert_int_equal(parse_padded(16384, 16384, &hello), CLIENT_HELLO_DONE);
    assert_int_equal(parse_padded(16384, 1000, &hello), CLIENT_HELLO_DONE);
    assert_int_equal(parse_padded(16385, 16384, &hello), CLIENT_HELLO_INVALID);
    assert_int_equal(parse_padded(16384, 4, &hello), CLIENT_HELLO_INVALID); /* over 20 KiB with the record headers */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_hello),
        cmocka_unit_test(test_real_hello_in_small_records),
        cmocka_unit_test(test_bytes_behind_the_hello),
        cmocka_unit_test(test_no_extensions),
        cmocka_unit_test(test_unknown_extensions),
        cmocka_unit_test(test_tls12_only),
        cmocka_unit_test(test_server_names),
        cmocka_unit_test(test_bad_extensions),
        cmocka_unit_test(test_repeated_extension),
        cmocka_unit_test(test_cut_off_extensions),
        cmocka_unit_test(test_beginnings),
        cmocka_unit_test(test_damaged_hellos),
        cmocka_unit_test(test_longest_hello),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
