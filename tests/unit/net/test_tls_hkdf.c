/* The functions of TLS 1.3's key schedule, against RFC 8448 section 3 and OpenSSL's own. */
#include "gateway/net/tls_hkdf.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX = 255 * 48 };

static int set_up(void **state)
{
    struct tls_hkdf *hkdf = calloc(1, sizeof *hkdf);
    assert_int_equal(tls_hkdf_init(hkdf, NULL), STATUS_OK);
    *state = hkdf;
    return 0;
}

static int tear_down(void **state)
{
    tls_hkdf_fini(*state);
    free(*state);
    return 0;
}

struct bytes {
    uint8_t data[64];
    size_t len;
};

static struct bytes hex(const char *text)
{
    struct bytes bytes = {.len = 0};
    assert_int_equal(OPENSSL_hexstr2buf_ex(bytes.data, sizeof bytes.data, &bytes.len, text, '\0'), 1);
    return bytes;
}

static struct slice slice_of(const struct bytes *bytes)
{
    return slice_make((const char *)bytes->data, bytes->len);
}

static void assert_expands(struct tls_hkdf *hkdf, const struct bytes *secret, struct slice label,
                           const struct bytes *context, const char *expected_hex)
{
    struct bytes expected = hex(expected_hex);
    uint8_t out[64];
    assert_true(tls_hkdf_expand(hkdf, TLS_SHA256, slice_of(secret), label, context ? slice_of(context) : SLICE_NONE,
                                out, expected.len));
    assert_memory_equal(out, expected.data, expected.len);
}

static void a_simple_handshake_has_the_secrets_of_rfc_8448(void **state)
{
    struct tls_hkdf *hkdf = *state;
    struct bytes early = hex("33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a");
    struct bytes derived = hex("6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba");
    struct bytes shared = hex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d");
    struct bytes secret = hex("1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac");
    struct bytes hello = hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8");
    struct bytes server = hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
    struct bytes nothing = {.len = 32}, zeros = {.len = 32};
    uint8_t out[TLS_HKDF_MAX_BYTES];

    assert_true(tls_hkdf_extract(hkdf, TLS_SHA256, SLICE_NONE, slice_of(&zeros), out));
    assert_memory_equal(out, early.data, early.len);
    assert_true(tls_hkdf_empty(hkdf, TLS_SHA256, nothing.data));
    assert_expands(hkdf, &early, SLICE("tls13 derived"), &nothing,
                   "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba");
    assert_true(tls_hkdf_extract(hkdf, TLS_SHA256, slice_of(&derived), slice_of(&shared), out));
    assert_memory_equal(out, secret.data, secret.len);
    assert_expands(hkdf, &secret, SLICE("tls13 c hs traffic"), &hello,
                   "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21");
    assert_expands(hkdf, &secret, SLICE("tls13 s hs traffic"), &hello,
                   "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
    assert_expands(hkdf, &server, SLICE("tls13 key"), NULL, "3fce516009c21727d0f2e4e86ee403bc");
    assert_expands(hkdf, &server, SLICE("tls13 iv"), NULL, "5d313eb2671276ee13000b30");
}

/* What OpenSSL's HKDF makes of the same, whose info is what HKDF-Expand-Label puts together. */
static void expand_with_openssl(const char *digest, const uint8_t *secret, size_t secret_len, const uint8_t *info,
                                size_t info_len, uint8_t *ret_out, size_t len)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    char name[8], *key = malloc(secret_len), *text = malloc(info_len);
    strcpy(name, digest);
    memcpy(key, secret, secret_len);
    memcpy(text, info, info_len);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
                           OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, name, 0),
                           OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, secret_len),
                           OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, text, info_len),
                           OSSL_PARAM_construct_end()};
    assert_int_equal(EVP_KDF_derive(ctx, ret_out, len, params), 1);
    free(key);
    free(text);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
}

static void every_length_is_what_openssl_makes_of_it(void **state)
{
    static const size_t lengths[] = {1, 12, 31, 32, 33, 48, 49, 96, 97, 255, 256, 255 * 32};
    static uint8_t ours[MAX], theirs[MAX];
    for (unsigned digest = 0; digest < TLS_DIGEST_COUNT; digest++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            for (size_t context_len = 0; context_len <= 255; context_len += 51) {
                size_t secret_len = tls_digest_len(digest), len = lengths[i], label_len = 6 + context_len % 250;
                uint8_t secret[48], info[2 + 1 + 255 + 1 + 255], *next = info;
                for (size_t j = 0; j < secret_len; j++)
                    secret[j] = (uint8_t)(j * 7 + i + context_len);
                *next++ = (uint8_t)(len >> 8);
                *next++ = (uint8_t)len;
                *next++ = (uint8_t)label_len;
                memset(next, 'l', label_len);
                struct slice label = slice_make((char *)next, label_len);
                next += label_len;
                *next++ = (uint8_t)context_len;
                memset(next, 'c', context_len);
                struct slice context = slice_make((char *)next, context_len);
                next += context_len;
                assert_true(
                    tls_hkdf_expand(*state, digest, slice_make((char *)secret, secret_len), label, context, ours, len));
                expand_with_openssl(digest == TLS_SHA256 ? "SHA256" : "SHA384", secret, secret_len, info,
                                    (size_t)(next - info), theirs, len);
                assert_memory_equal(ours, theirs, len);
            }
}

static void a_zeroed_one_is_freed(void **state)
{
    (void)state;
    struct tls_hkdf none = {.hash = NULL};
    tls_hkdf_fini(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_simple_handshake_has_the_secrets_of_rfc_8448, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_length_is_what_openssl_makes_of_it, set_up, tear_down),
        cmocka_unit_test(a_zeroed_one_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
