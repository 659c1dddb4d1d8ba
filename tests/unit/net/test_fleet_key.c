#include "gateway/net/fleet_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define HEX    "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"
#define BASE64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

enum { ROOM = 128 };

static void hex_and_base64_are_the_same_key(void **state)
{
    (void)state;
    char sealed[ROOM], plain[ROOM];
    struct fleet_key *hex = fleet_key_new(SLICE(HEX "\n"));
    struct fleet_key *base64 = fleet_key_new(SLICE(" " BASE64 " \r\nmore"));
    assert_non_null(hex);
    assert_non_null(base64);
    assert_int_equal(fleet_key_seal(hex, SLICE("a"), SLICE("secret"), sealed), STATUS_OK);
    assert_true(fleet_key_open(base64, SLICE("a"), slice_make(sealed, 6 + FLEET_KEY_SEAL_BYTES), plain));
    assert_memory_equal(plain, "secret", 6);
    assert_true(fleet_key_equal(hex, base64));
    assert_false(fleet_key_equal(hex, NULL));
    assert_true(fleet_key_equal(NULL, NULL));
    fleet_key_free(&base64);
    base64 = fleet_key_new(SLICE("f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));
    assert_false(fleet_key_equal(hex, base64));
    fleet_key_free(&hex);
    fleet_key_free(&base64);
    assert_null(hex);
    fleet_key_free(&hex);
}

static void other_texts_are_no_key(void **state)
{
    static const char *const bad[] = {"",      "\n" HEX,   "secret",
                                      HEX "0", HEX HEX,    "x" HEX,
                                      "AAEC",  BASE64 "=", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9="};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_null(fleet_key_new(slice_str(bad[i])));
    char text[] = HEX;
    text[20] = 'g';
    assert_null(fleet_key_new(slice_str(text)));
}

/* What was changed anywhere, cut, moved under another name or sealed by another key does not open. */
static void nothing_else_opens(void **state)
{
    (void)state;
    char sealed[ROOM], again[ROOM], plain[ROOM];
    size_t len = 5 + FLEET_KEY_SEAL_BYTES;
    struct fleet_key *key = fleet_key_new(SLICE(HEX));
    char other_text[] = HEX;
    other_text[0] = '1';
    struct fleet_key *other = fleet_key_new(slice_str(other_text));
    assert_int_equal(fleet_key_seal(key, SLICE("name"), SLICE("plain"), sealed), STATUS_OK);
    assert_int_equal(fleet_key_seal(key, SLICE("name"), SLICE("plain"), again), STATUS_OK);
    assert_memory_not_equal(sealed, again, len);
    assert_true(fleet_key_open(key, SLICE("name"), slice_make(sealed, len), plain));
    assert_false(fleet_key_open(other, SLICE("name"), slice_make(sealed, len), plain));
    assert_false(fleet_key_open(key, SLICE("Name"), slice_make(sealed, len), plain));
    for (size_t i = 0; i < len; i++) {
        sealed[i] = (char)(sealed[i] ^ 1);
        assert_false(fleet_key_open(key, SLICE("name"), slice_make(sealed, len), plain));
        sealed[i] = (char)(sealed[i] ^ 1);
        assert_false(fleet_key_open(key, SLICE("name"), slice_make(sealed, i), plain));
    }
    assert_true(fleet_key_open(key, SLICE("name"), slice_make(sealed, len), plain));
    assert_memory_equal(plain, "plain", 5);
    fleet_key_free(&other);
    fleet_key_free(&key);
}

static void nothing_can_be_sealed(void **state)
{
    (void)state;
    char sealed[ROOM], plain[ROOM];
    struct fleet_key *key = fleet_key_new(SLICE(BASE64));
    assert_int_equal(fleet_key_seal(key, SLICE_NONE, SLICE_NONE, sealed), STATUS_OK);
    assert_true(fleet_key_open(key, SLICE_NONE, slice_make(sealed, FLEET_KEY_SEAL_BYTES), plain));
    fleet_key_free(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hex_and_base64_are_the_same_key),
        cmocka_unit_test(other_texts_are_no_key),
        cmocka_unit_test(nothing_else_opens),
        cmocka_unit_test(nothing_can_be_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
