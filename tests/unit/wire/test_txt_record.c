/* txt_record: what a record may say, and answers whole, cut, lying and hostile. */
#include "gateway/wire/txt_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define ID40 "3327603e03f5bd1f830812ca4a789277fc31f577"
#define ID63 "a23456789012345678901234567890123456789012345678901234567890123"

static void records(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *id; /* NULL: refused */
        unsigned port;
    } rows[] = {
        {"app:80", "app", 80},
        {ID40 ":8080", ID40, 8080},
        {ID63 ":1", ID63, 1},
        {"APP-One:65535", "app-one", 65535},
        {" \tapp:443\t ", "app", 443},
        {ID63 "4:1", NULL, 0},
        {"app:0", NULL, 0},
        {"app:65536", NULL, 0},
        {"app:080", NULL, 0},
        {"app:99999999999999999999", NULL, 0},
        {"app:+80", NULL, 0},
        {"app:8 0", NULL, 0},
        {"app :80", NULL, 0},
        {"app: 80", NULL, 0},
        {"app:80s", NULL, 0},
        {"app:", NULL, 0},
        {":80", NULL, 0},
        {"app", NULL, 0},
        {"", NULL, 0},
        {"  ", NULL, 0},
        {"app:80:90", NULL, 0},
        {"-app:80", NULL, 0},
        {"app-:80", NULL, 0},
        {"10.0.0.1:80", NULL, 0},
        {"[fd00::1]:80", NULL, 0},
        {"a.b:80", NULL, 0},
        {"a_b:80", NULL, 0},
        {"../x:80", NULL, 0},
        {"app:80 app:81", NULL, 0},
        {"v=spf1 include:x.test -all", NULL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct txt_target target = {.port = 0};
        bool taken = txt_record_parse(slice_str(rows[i].text), &target);
        if (taken != (rows[i].id != NULL))
            fail_msg("\"%s\" was %s", rows[i].text, taken ? "taken" : "refused");
        if (taken) {
            assert_string_equal(target.id, rows[i].id);
            assert_int_equal(target.port, rows[i].port);
        }
    }
    struct txt_target target;
    assert_false(txt_record_parse(slice_make("app\0:80", 7), &target));
    assert_false(txt_record_parse(SLICE_NONE, &target));
}

/* ---- messages ---- */

struct message {
    uint8_t bytes[4096];
    size_t len;
};

static void put(struct message *message, const void *bytes, size_t len)
{
    memcpy(message->bytes + message->len, bytes, len);
    message->len += len;
}

static void put_u16(struct message *message, unsigned value)
{
    put(message, (uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

static struct message begin(void)
{
    struct message message = {.len = 0};
    static const uint8_t header[12] = {0x12, 0x34, 0x81, 0x80, 0, 1};
    put(&message, header, sizeof header);
    put(&message,
        "\x01"
        "a\x04test",
        8); /* with the empty label */
    put_u16(&message, 16);
    put_u16(&message, 1);
    return message;
}

static void put_record(struct message *message, unsigned type, unsigned class, uint32_t ttl, const void *data,
                       size_t len)
{
    put_u16(message, 0xc00c);
    put_u16(message, type);
    put_u16(message, class);
    put_u16(message, ttl >> 16);
    put_u16(message, ttl & 0xffff);
    put_u16(message, (unsigned)len);
    put(message, data, len);
    message->bytes[7]++;
}

/* A TXT record of strings that "|" separates. */
static void put_txt(struct message *message, uint32_t ttl, const char *strings)
{
    struct message data = {.len = 0};
    while (true) {
        size_t len = strcspn(strings, "|");
        put(&data, (uint8_t[]){(uint8_t)len}, 1);
        put(&data, strings, len);
        if (strings[len] == '\0')
            break;
        strings += len + 1;
    }
    put_record(message, 16, 1, ttl, data.bytes, data.len);
}

static void check(const struct message *message, enum txt_result wanted, const char *id, unsigned port, uint32_t ttl)
{
    struct txt_target target = {.port = 0};
    uint32_t got_ttl = 0;
    /* On the heap in its very size, so that a read past its end is seen. */
    uint8_t *copy = malloc(message->len + 1);
    memcpy(copy, message->bytes, message->len);
    copy = realloc(copy, message->len > 0 ? message->len : 1);
    assert_int_equal(txt_answer_parse(copy, message->len, &target, &got_ttl), wanted);
    free(copy);
    assert_int_equal(got_ttl, ttl);
    if (wanted == TXT_FOUND) {
        assert_string_equal(target.id, id);
        assert_int_equal(target.port, port);
    }
}

static void answers(void **state)
{
    (void)state;
    struct message message = begin();
    check(&message, TXT_NONE, NULL, 0, 0);
    put_txt(&message, 300, "app:80");
    check(&message, TXT_FOUND, "app", 80, 300);
    put_txt(&message, 60, "v=spf1 -all");
    check(&message, TXT_FOUND, "app", 80, 60);
    put_txt(&message, 600, "APP:80");
    check(&message, TXT_FOUND, "app", 80, 60);
    put_txt(&message, 600, "app:81");
    check(&message, TXT_AMBIGUOUS, NULL, 0, 60);
}

static void strings_are_joined(void **state)
{
    (void)state;
    struct message message = begin();
    put_txt(&message, 5, "ap|p:|80|");
    check(&message, TXT_FOUND, "app", 80, 5);
    message = begin();
    put_txt(&message, 5, "|");
    check(&message, TXT_NONE, NULL, 0, 5);
}

static void a_cname_shortens_the_life(void **state)
{
    (void)state;
    struct message message = begin();
    put_record(&message, 5, 1, 7,
               "\x01"
               "b\x04test",
               8);
    check(&message, TXT_NONE, NULL, 0, 7);
    put_txt(&message, 300, "app:80");
    check(&message, TXT_FOUND, "app", 80, 7);
}

static void other_records_do_not_count(void **state)
{
    (void)state;
    struct message message = begin();
    put_record(&message, 16, 3, 1,
               "\x06"
               "app:81",
               7); /* class CH */
    put_record(&message, 1, 1, 1, "\x7f\0\0\x01", 4);
    put_txt(&message, 0x80000001U, "app:80");
    check(&message, TXT_FOUND, "app", 80, 0);
}

static void too_long_records_are_none(void **state)
{
    (void)state;
    char text[600];
    struct message message = begin();
    memset(text, ' ', sizeof text);
    text[200] = text[400] = '|';
    memcpy(text + 401, "app:80", 7);
    put_txt(&message, 9, text);
    check(&message, TXT_NONE, NULL, 0, 9);
}

static void every_cut_is_malformed(void **state)
{
    (void)state;
    struct message whole = begin();
    put_record(&whole, 5, 1, 7,
               "\x01"
               "b\x04test",
               8);
    put_txt(&whole, 300, "ap|p:80");
    for (size_t len = 0; len < whole.len; len++) {
        struct message cut = whole;
        cut.len = len;
        check(&cut, TXT_MALFORMED, NULL, 0, 0);
    }
    check(&whole, TXT_FOUND, "app", 80, 7);
}

static void lies_are_malformed(void **state)
{
    (void)state;
    struct message message = begin();
    message.bytes[7] = 1; /* a record that is not there */
    check(&message, TXT_MALFORMED, NULL, 0, 0);
    message = begin();
    message.bytes[2] &= 0x7f; /* a question */
    check(&message, TXT_MALFORMED, NULL, 0, 0);
    message = begin();
    put_record(&message, 16, 1, 1,
               "\x07"
               "app:80",
               7); /* a string longer than its record */
    check(&message, TXT_MALFORMED, NULL, 0, 0);
    message = begin();
    message.bytes[12] = 0x80; /* a label of a kind that does not exist */
    check(&message, TXT_MALFORMED, NULL, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records),
        cmocka_unit_test(answers),
        cmocka_unit_test(strings_are_joined),
        cmocka_unit_test(a_cname_shortens_the_life),
        cmocka_unit_test(other_records_do_not_count),
        cmocka_unit_test(too_long_records_are_none),
        cmocka_unit_test(every_cut_is_malformed),
        cmocka_unit_test(lies_are_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
