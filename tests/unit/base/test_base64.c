#include "gateway/base/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct {
    const char *bytes;
    const char *text;
} vectors[] = {
    /* RFC 4648 section 10, and the two characters that are neither letters nor digits */
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xfb\xff\xfe", "+//+"},
};

static void both_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        char out[32];
        size_t len = 99;
        struct slice bytes = slice_str(vectors[i].bytes), text = slice_str(vectors[i].text);
        assert_int_equal(base64_encoded_bytes(bytes.len), text.len);
        base64_encode(bytes, out);
        assert_true(slice_eq(slice_make(out, text.len), text));
        assert_true(base64_decode(text, out, &len));
        assert_true(slice_eq(slice_make(out, len), bytes));
        assert_true(len <= base64_decoded_bytes(text.len));
    }
}

static void decodes_in_place(void **state)
{
    (void)state;
    char text[] = "Zm9vYmFy";
    size_t len;
    assert_true(base64_decode(slice_make(text, 8), text, &len));
    assert_true(slice_eq(slice_make(text, len), SLICE("foobar")));
}

static void refuses_what_is_not_base64(void **state)
{
    static const char *const bad[] = {"Z",    "Zg",   "Zg=",      "=",    "====", "Z===", "Zh==",  "Zm9=",
                                      "Zg=A", "Z=g=", "Zg==Zg==", "Zm-v", "Zm_v", "Zm v", "Zm9v\n"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char out[32];
        size_t len;
        assert_false(base64_decode(slice_str(bad[i]), out, &len));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),
        cmocka_unit_test(decodes_in_place),
        cmocka_unit_test(refuses_what_is_not_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
