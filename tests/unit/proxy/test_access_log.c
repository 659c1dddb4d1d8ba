#include "gateway/proxy/access_format.h"
#include "proxy/json_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ip_addr ip(const char *text)
{
    struct ip_addr addr;
    assert_true(ip_parse(slice_str(text), &addr));
    return addr;
}

static struct access_record full_record(void)
{
    return (struct access_record){
        .wall_us = 1769903999123456, /* 2026-01-31T23:59:59.123Z */
        .request_id = SLICE("0123456789abcdef0123456789abcdef"),
        .client = ip("203.0.113.7"),
        .client_port = 51234,
        .host = SLICE("3327603e03f5bd1f830812ca4a789277fc31f577-8000.prod5.phala.network"),
        .app_id = SLICE("3327603e03f5bd1f830812ca4a789277fc31f577"),
        .instance_id = SLICE("aa27603e03f5bd1f830812ca4a789277fc31f577"),
        .port = 8000,
        .method = SLICE("GET"),
        .path = SLICE("/get?token=secret&b=2"),
        .protocol = "http/1.1",
        .status = 200,
        .bytes_in = 0,
        .bytes_out = 12345678901,
        .total_us = 1234567,
        .connect_us = 45,
        .first_byte_us = 3001,
        .tls_version = "TLSv1.3",
        .tls_cipher = "TLS_AES_128_GCM_SHA256",
        .alpn = "http/1.1",
        .tls_resumed = true,
        .back_address = ip("10.8.0.12"),
        .back_port = 8000,
        .back_protocol = "http/1.1",
        .back_reused = false,
        .retries = 1,
        .error = STATUS_OK,
        .user_agent = SLICE("curl/8.5.0"),
        .referer = SLICE("https://example.com/a?q=1"),
    };
}

/* The line without its newline; it must have exactly one, at its end. */
static struct slice format_with(const struct access_log_options *options, const struct access_record *record,
                                char *buffer)
{
    struct access_format format;
    struct access_time time = {.second = UINT64_MAX};
    char error[ACCESS_LOG_ERROR_TEXT_MAX];
    assert_true(access_format_init(&format, options, error));
    size_t len = access_format_line(&format, &time, record, buffer);
    assert_in_range(len, 1, ACCESS_LOG_MAX_LINE);
    assert_ptr_equal(memchr(buffer, '\n', len), buffer + len - 1);
    access_format_fini(&format);
    return slice_make(buffer, len - 1);
}

static void assert_line(const struct access_log_options *options, const struct access_record *record,
                        const char *expected)
{
    char buffer[ACCESS_LOG_MAX_LINE + 1];
    struct slice line = format_with(options, record, buffer);
    buffer[line.len] = 0;
    assert_string_equal(buffer, expected);
}

static void assert_member(const struct access_log_options *options, const struct access_record *record,
                          const char *name, const char *expected)
{
    char buffer[ACCESS_LOG_MAX_LINE];
    struct slice line = format_with(options, record, buffer), value = SLICE("(none)");
    assert_true(json_check_object(line, name, &value));
    if (!slice_eq(value, slice_str(expected)))
        fail_msg("%s is %.*s, not %s", name, SLICE_ARG(value), expected);
}

static const struct access_log_options json = {.format = "json"};

static void test_json_full(void **state)
{
    (void)state;
    struct access_record record = full_record();
    assert_line(&json, &record,
                "{\"time\":\"2026-01-31T23:59:59.123Z\",\"request_id\":\"0123456789abcdef0123456789abcdef\","
                "\"client\":\"203.0.113.7\",\"client_port\":51234,"
                "\"host\":\"3327603e03f5bd1f830812ca4a789277fc31f577-8000.prod5.phala.network\","
                "\"app_id\":\"3327603e03f5bd1f830812ca4a789277fc31f577\","
                "\"instance_id\":\"aa27603e03f5bd1f830812ca4a789277fc31f577\",\"port\":8000,\"method\":\"GET\","
                "\"path\":\"/get?token=secret&b=2\",\"protocol\":\"http/1.1\",\"status\":200,\"bytes_in\":0,"
                "\"bytes_out\":12345678901,\"total_ms\":1234.567,\"connect_ms\":0.045,\"first_byte_ms\":3.001,"
                "\"tls_version\":\"TLSv1.3\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\",\"tls_resumed\":true,"
                "\"alpn\":\"http/1.1\",\"back_address\":\"10.8.0.12:8000\",\"back_protocol\":\"http/1.1\","
                "\"back_reused\":false,\"retries\":1,\"user_agent\":\"curl/8.5.0\","
                "\"referer\":\"https://example.com/a?q=1\"}");
}

static void test_json_empty(void **state)
{
    (void)state;
    struct access_record record = {.error = STATUS_HOST_UNKNOWN};
    assert_line(&json, &record,
                "{\"time\":\"1970-01-01T00:00:00.000Z\",\"bytes_in\":0,\"bytes_out\":0,\"total_ms\":0.000,"
                "\"error\":\"host_unknown\"}");
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        uint64_t second;
        const char *text;
    } cases[] = {
        {951782399, "2000-02-28T23:59:59.000Z 28/Feb/2000:23:59:59 +0000"},
        {951782400, "2000-02-29T00:00:00.000Z 29/Feb/2000:00:00:00 +0000"},
        {1709251200, "2024-03-01T00:00:00.000Z 01/Mar/2024:00:00:00 +0000"},
        {1798761599, "2026-12-31T23:59:59.000Z 31/Dec/2026:23:59:59 +0000"},
        {4107542400, "2100-03-01T00:00:00.000Z 01/Mar/2100:00:00:00 +0000"},
        {253402300799, "9999-12-31T23:59:59.000Z 31/Dec/9999:23:59:59 +0000"},
        {253402300800, "9999-12-31T23:59:59.000Z 31/Dec/9999:23:59:59 +0000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_record record = {.wall_us = cases[i].second * 1000000};
        assert_line(&(struct access_log_options){.format = "$time $time_clf"}, &record, cases[i].text);
    }
}

static void test_formats(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        const char *line;
    } cases[] = {
        {"combined", "203.0.113.7 - - [31/Jan/2026:23:59:59 +0000] \"GET /get?token=secret&b=2 HTTP/1.1\" 200 "
                     "12345678901 \"https://example.com/a?q=1\" \"curl/8.5.0\""},
        {"$status", "200"},
        {"${status}x$method", "200xGET"},
        {"$$5 $status$$", "$5 200$"},
        {"$$$status$$$$", "$200$$"},
        {"$error|$back_address|$tls_resumed", "-|10.8.0.12:8000|true"},
        {"$client:$client_port ${total_ms}ms", "203.0.113.7:51234 1234.567ms"},
        {"\xc3\xa9\t$version", "\xc3\xa9\tHTTP/1.1"},
    };
    struct access_record record = full_record();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_line(&(struct access_log_options){.format = cases[i].format}, &record, cases[i].line);
}

static void test_check_format(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        const char *wrong; /* in the error; NULL: valid */
    } cases[] = {
        {"json", NULL},       {"combined", NULL},        {"off", NULL},       {"$time $status", NULL},
        {"jsn", "\"jsn\""},   {"", "names no member"},   {"$tim", "\"tim\""}, {"${status", "\"}\""},
        {"${}", "\"\""},      {"a $", "dollar sign"},    {"$1", "$$"},        {"$status\n$method", "one line"},
        {"$STATUS", "\"$\""}, {"$status_x", "status_x"}, {"${a b}", "\"}\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char error[ACCESS_LOG_ERROR_TEXT_MAX] = "";
        assert_int_equal(access_log_check_format(cases[i].format, error), cases[i].wrong == NULL);
        if (cases[i].wrong && !strstr(error, cases[i].wrong))
            fail_msg("%s: %s", cases[i].format, error);
    }
    char error[ACCESS_LOG_ERROR_TEXT_MAX];
    assert_false(access_log_check_format("$nope", error));
    assert_non_null(strstr(error, " first_byte_ms "));
    assert_non_null(strstr(error, " time_clf version"));
}

static void test_escapes(void **state)
{
    (void)state;
    static const struct {
        struct slice bytes;
        const char *json;
        const char *plain;
    } cases[] = {
        {SLICE_INIT("plain ASCII of some length ~"), "plain ASCII of some length ~", "plain ASCII of some length ~"},
        {SLICE_INIT("12345678\"12345678\\"), "12345678\\\"12345678\\\\", "12345678\\\"12345678\\\\"},
        {SLICE_INIT("a\r\nb"), "a\\u000d\\u000ab", "a\\x0d\\x0ab"},
        {SLICE_INIT("\0\x1b\x7f"), "\\u0000\\u001b\\u007f", "\\x00\\x1b\\x7f"},
        {SLICE_INIT("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"),
         "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
         "gr\\xc3\\xbc\\xc3\\x9f \\xe2\\x82\\xac \\xf0\\x9f\\x98\\x80"},
        {SLICE_INIT("\xff\xc3("), "\\ufffd\\ufffd(", "\\xff\\xc3("},
        {SLICE_INIT("\xc0\xaf"), "\\ufffd\\ufffd", "\\xc0\\xaf"},
        {SLICE_INIT("\xed\xa0\x80"), "\\ufffd\\ufffd\\ufffd", "\\xed\\xa0\\x80"},
        {SLICE_INIT("\xf4\x90\x80\x80"), "\\ufffd\\ufffd\\ufffd\\ufffd", "\\xf4\\x90\\x80\\x80"},
        {SLICE_INIT("\xe2\x82"), "\\ufffd\\ufffd", "\\xe2\\x82"},
        {SLICE_INIT("\xc2\x9b\xc2\xa0"), "\\u009b\xc2\xa0", "\\xc2\\x9b\\xc2\\xa0"},
        {SLICE_INIT("\xe2\x80\xa8\xe2\x80\xae\xe2\x81\xa6"), "\\u2028\\u202e\\u2066",
         "\\xe2\\x80\\xa8\\xe2\\x80\\xae\\xe2\\x81\\xa6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_record record = {.user_agent = cases[i].bytes, .path = cases[i].bytes};
        assert_member(&json, &record, "user_agent", cases[i].json);
        assert_member(&json, &record, "path", cases[i].json);
        assert_line(&(struct access_log_options){.format = "$user_agent"}, &record, cases[i].plain);
    }
}

/* Each byte, at each offset of a word, alone and repeated, gives one line of valid JSON. */
static void test_every_byte(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t offset = 0; offset < 9; offset++) {
            char text[24], buffer[ACCESS_LOG_MAX_LINE];
            memset(text, 'a', sizeof text);
            text[offset] = (char)byte;
            struct access_record record = {.path = slice_make(text, sizeof text)};
            assert_true(json_check_object(format_with(&json, &record, buffer), NULL, NULL));
            memset(text, (int)byte, sizeof text);
            assert_true(json_check_object(format_with(&json, &record, buffer), NULL, NULL));
        }
    }
}

static size_t escape_one(unsigned char byte, enum access_escape escape, char *to)
{
    if (byte == '"' || byte == '\\')
        return (size_t)sprintf(to, "\\%c", byte);
    if (byte >= 0x20 && byte < 0x7f)
        return (size_t)sprintf(to, "%c", byte);
    if (escape == ACCESS_ESCAPE_PLAIN)
        return (size_t)sprintf(to, "\\x%02x", byte);
    return (size_t)sprintf(to, "\\u%04x", byte < 0x80 ? byte : 0xfffd);
}

/* One byte among letters, in memory that ends where the text does. */
static void check_byte(unsigned char byte, size_t offset, size_t len, enum access_escape escape)
{
    enum { ROOM = 64 };
    char expected[ROOM], *from = malloc(len), *to = malloc(ROOM);
    assert_true(from && to);
    memset(from, 'a', len);
    from[offset] = (char)byte;
    memset(expected, 'a', sizeof expected);
    size_t escaped = escape_one(byte, escape, expected + offset);
    memset(expected + offset + escaped, 'a', sizeof expected - offset - escaped);
    struct access_text text = {to, to + ROOM};
    access_text_put_escaped(&text, slice_make(from, len), ROOM, escape);
    assert_int_equal(text.next - to, len - 1 + escaped);
    assert_memory_equal(to, expected, len - 1 + escaped);
    for (size_t max = 0; max < len; max++) { /* cut, but never within what one byte became */
        struct access_text cut = {to, to + ROOM};
        access_text_put_escaped(&cut, slice_make(from, len), max, escape);
        size_t kept = max > offset && max < offset + escaped ? offset : max;
        assert_int_equal(cut.next - to, kept);
        assert_memory_equal(to, expected, kept);
    }
    free(from);
    free(to);
}

static void test_every_byte_at_every_place(void **state)
{
    (void)state;
    enum { MAX_LEN = 35 }; /* two steps of sixteen and some */
    for (unsigned byte = 0; byte < 256; byte += byte >= 0x80 ? 0x1f : 1)
        for (size_t len = 1; len <= MAX_LEN; len += len < 20 ? 1 : 5)
            for (size_t offset = 0; offset < len; offset++) {
                check_byte((unsigned char)byte, offset, len, ACCESS_ESCAPE_JSON);
                check_byte((unsigned char)byte, offset, len, ACCESS_ESCAPE_PLAIN);
            }
}

/* All or nothing, whatever the room. */
static void check_put(void (*put)(struct access_text *text, uint64_t value), uint64_t value, const char *expected)
{
    size_t len = strlen(expected);
    char *buffer = malloc(len);
    assert_non_null(buffer);
    struct access_text text = {buffer, buffer + len};
    put(&text, value);
    assert_ptr_equal(text.next, buffer + len);
    assert_memory_equal(buffer, expected, len);
    text = (struct access_text){buffer, buffer + len - 1};
    put(&text, value);
    assert_ptr_equal(text.next, buffer);
    free(buffer);
}

static void check_number(uint64_t value)
{
    char expected[64];
    snprintf(expected, sizeof expected, "%llu", (unsigned long long)value);
    check_put(access_text_put_u64, value, expected);
    snprintf(expected, sizeof expected, "%llu.%03u", (unsigned long long)(value / 1000), (unsigned)(value % 1000));
    check_put(access_text_put_ms, value, expected);
}

static void test_numbers(void **state)
{
    (void)state;
    for (uint64_t power = 1;; power *= 10) {
        check_number(power - 1);
        check_number(power);
        check_number(power + 1);
        if (power > UINT64_MAX / 10)
            break;
    }
    check_number(UINT64_MAX);
}

/* An address that fits is written, another is not, however the buffer ends. */
static void test_addresses_fit_or_are_left_out(void **state)
{
    (void)state;
    static const char *const addresses[] = {"0.0.0.0",         "9.10.99.100", "255.255.255.255", "::1",
                                            "2001:db8:1:2::3", "192.168.1.1", "10.20.30.40"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        size_t len = strlen(addresses[i]);
        struct ip_addr addr = ip(addresses[i]);
        for (size_t size = 1; size < 80; size++) {
            char *buffer = malloc(size);
            assert_non_null(buffer);
            struct access_text text = {buffer, buffer + size};
            access_text_put_ip(&text, &addr);
            assert_int_equal(text.next - buffer, size >= len ? len : 0);
            assert_memory_equal(buffer, addresses[i], (size_t)(text.next - buffer));
            free(buffer);
        }
    }
}

static void test_longest_values(void **state)
{
    (void)state;
    static const char fills[] = {'a', '"', '\n', '\x80'};
    static char text[10000], string[10000];
    for (size_t i = 0; i < sizeof fills; i++) {
        memset(text, fills[i], sizeof text);
        memset(string, fills[i], sizeof string - 1);
        struct slice s = slice_make(text, sizeof text);
        struct ip_addr longest = ip("2001:db8:1111:2222:3333:4444:5555:6666");
        struct access_record record = {
            .wall_us = UINT64_MAX,
            .request_id = s,
            .client = longest,
            .client_port = 65535,
            .host = s,
            .app_id = s,
            .instance_id = s,
            .port = 65535,
            .method = s,
            .path = s,
            .protocol = string,
            .status = INT32_MAX,
            .bytes_in = UINT64_MAX,
            .bytes_out = UINT64_MAX,
            .total_us = UINT64_MAX,
            .connect_us = UINT64_MAX,
            .first_byte_us = UINT64_MAX,
            .tls_version = string,
            .tls_cipher = string,
            .alpn = string,
            .back_address = longest,
            .back_port = 65535,
            .back_protocol = string,
            .retries = UINT32_MAX,
            .error = STATUS_UPSTREAM_HEAD_TOO_LARGE,
            .user_agent = s,
            .referer = s,
        };
        char buffer[ACCESS_LOG_MAX_LINE];
        struct slice value;
        assert_true(json_check_object(format_with(&json, &record, buffer), "error", &value));
        assert_true(slice_eq(value, SLICE("upstream_head_too_large")));
        format_with(&(struct access_log_options){.format = "$path$path$path$total_ms$time"}, &record, buffer);
    }
}

static void test_cut_leaves_characters_whole(void **state)
{
    (void)state;
    char text[4100];
    for (size_t shift = 0; shift < 4; shift++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "\xf0\x9f\x98\x80"[(i + 4 - shift) % 4];
        memset(text, 'a', shift);
        struct access_record record = {.path = slice_make(text, sizeof text)};
        char buffer[ACCESS_LOG_MAX_LINE];
        struct slice value = SLICE_NONE;
        assert_true(json_check_object(format_with(&json, &record, buffer), "path", &value));
        assert_int_equal(value.len, shift == 0 ? 4096 : 4092 + shift);
    }
}

static void test_client_privacy(void **state)
{
    (void)state;
    struct access_log_options options = {.format = "$client $client_port", .client = ACCESS_CLIENT_MASKED};
    struct access_record record = full_record();
    assert_line(&options, &record, "203.0.113.0 -");
    record.client = ip("2001:db8:aaaa:bbbb::1");
    assert_line(&options, &record, "2001:db8:aaaa:: -");
    options.client = ACCESS_CLIENT_OFF;
    assert_line(&options, &record, "- -");
    options.client = ACCESS_CLIENT_FULL;
    assert_line(&options, &record, "2001:db8:aaaa:bbbb::1 51234");
}

static void test_query_dropped(void **state)
{
    (void)state;
    struct access_log_options options = {.format = "$path $referer", .query = ACCESS_QUERY_DROPPED};
    struct access_record record = full_record();
    assert_line(&options, &record, "/get https://example.com/a");
    record.path = SLICE("?");
    record.referer = SLICE("plain");
    assert_line(&options, &record, "- plain");
}

/* The reference vector of SipHash-2-4: key 00..0f, input 00..0e. */
static void test_query_hashed(void **state)
{
    (void)state;
    struct access_log_options options = {.format = "$path", .query = ACCESS_QUERY_HASHED};
    struct access_format format;
    struct access_time time = {.second = UINT64_MAX};
    char error[ACCESS_LOG_ERROR_TEXT_MAX], buffer[ACCESS_LOG_MAX_LINE];
    assert_true(access_format_init(&format, &options, error));
    assert_true(format.key[0] != 0 || format.key[1] != 0);
    format.key[0] = 0x0706050403020100U;
    format.key[1] = 0x0f0e0d0c0b0a0908U;
    struct access_record record = {.path = SLICE("/a?\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e")};
    size_t len = access_format_line(&format, &time, &record, buffer);
    access_format_fini(&format);
    assert_true(slice_eq(slice_make(buffer, len), SLICE("/a?a129ca6149be45e5\n")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_full),      cmocka_unit_test(test_json_empty),
        cmocka_unit_test(test_times),          cmocka_unit_test(test_formats),
        cmocka_unit_test(test_check_format),   cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_every_byte),     cmocka_unit_test(test_every_byte_at_every_place),
        cmocka_unit_test(test_numbers),        cmocka_unit_test(test_addresses_fit_or_are_left_out),
        cmocka_unit_test(test_longest_values), cmocka_unit_test(test_cut_leaves_characters_whole),
        cmocka_unit_test(test_client_privacy), cmocka_unit_test(test_query_dropped),
        cmocka_unit_test(test_query_hashed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
