/* The provider of TLS13-KDF, beside OpenSSL's own. */
#include "gateway/net/tls_schedule.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    OSSL_LIB_CTX *library;
    OSSL_PROVIDER *provider;
    struct tls_schedule schedule;
    struct tls_secrets secrets;
    EVP_KDF *ours;
    EVP_KDF *theirs;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->library = OSSL_LIB_CTX_new();
    f->provider = OSSL_PROVIDER_load(f->library, "default");
    assert_non_null(f->provider);
    assert_int_equal(tls_schedule_init(&f->schedule, f->library), STATUS_OK);
    f->ours = EVP_KDF_fetch(f->library, "TLS13-KDF", TLS_SCHEDULE_PROPERTIES);
    f->theirs = EVP_KDF_fetch(f->library, "TLS13-KDF", "provider=default");
    assert_non_null(f->ours);
    assert_non_null(f->theirs);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    ERR_clear_error();
    EVP_KDF_free(f->ours);
    EVP_KDF_free(f->theirs);
    tls_schedule_fini(&f->schedule);
    OSSL_PROVIDER_unload(f->provider);
    OSSL_LIB_CTX_free(f->library);
    free(f);
    return 0;
}

/* NULL: the parameter is not there. */
struct request {
    int mode; /* -1: none */
    const char *digest;
    const char *key;
    const char *salt;
    const char *label;
    const char *data;
    size_t len;
};

static void put(OSSL_PARAM **next, const char *name, char *buffer, const char *value)
{
    if (value)
        *(*next)++ = OSSL_PARAM_construct_octet_string(name, strcpy(buffer, value), strlen(value));
}

static int derive(EVP_KDF *kdf, struct request r, uint8_t *ret_out)
{
    char digest[16], key[300], salt[300], prefix[] = "tls13 ", label[300], data[300];
    OSSL_PARAM params[8], *next = params;
    if (r.mode >= 0)
        *next++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &r.mode);
    if (r.digest)
        *next++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, strcpy(digest, r.digest), 0);
    put(&next, OSSL_KDF_PARAM_KEY, key, r.key);
    put(&next, OSSL_KDF_PARAM_SALT, salt, r.salt);
    put(&next, OSSL_KDF_PARAM_PREFIX, prefix, "tls13 ");
    put(&next, OSSL_KDF_PARAM_LABEL, label, r.label);
    put(&next, OSSL_KDF_PARAM_DATA, data, r.data);
    *next = OSSL_PARAM_construct_end();
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    assert_non_null(ctx);
    int ret = EVP_KDF_derive(ctx, ret_out, r.len, params);
    EVP_KDF_CTX_reset(ctx);
    EVP_KDF_CTX_free(ctx);
    return ret;
}

#define SECRET_32 "0123456789abcdef0123456789ABCDEF"
#define SECRET_48 SECRET_32 "fedcba9876543210"
#define EXTRACT   EVP_KDF_HKDF_MODE_EXTRACT_ONLY
#define EXPAND    EVP_KDF_HKDF_MODE_EXPAND_ONLY

static void it_is_preferred_and_makes_the_same(void **state)
{
    struct fixture *f = *state;
    static const struct request requests[] = {
        {EXPAND, "SHA2-256", SECRET_32, NULL, "key", NULL, 16},
        {EXPAND, "SHA2-256", SECRET_32, NULL, "iv", "", 12},
        {EXPAND, "SHA256", SECRET_32, NULL, "c hs traffic", SECRET_32, 32},
        {EXPAND, "SHA2-384", SECRET_48, NULL, "s ap traffic", SECRET_48, 48},
        {EXPAND, "SHA384", SECRET_48, NULL, "exporter", SECRET_48, 500},
        {EXTRACT, "SHA2-256", NULL, NULL, "derived", NULL, 32},
        {EXTRACT, "SHA2-256", SECRET_48, NULL, "derived", NULL, 32},
        {EXTRACT, "SHA2-256", "a shared secret", SECRET_32, "derived", NULL, 32},
        {EXTRACT, "SHA2-256", NULL, SECRET_32, "derived", NULL, 32},
        {EXTRACT, "SHA2-384", SECRET_32, SECRET_48, "derived", NULL, 48},
    };
    assert_string_equal(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(f->ours)), "gateway");
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        uint8_t ours[512], theirs[512];
        assert_int_equal(derive(f->ours, requests[i], ours), 1);
        assert_int_equal(derive(f->theirs, requests[i], theirs), 1);
        assert_memory_equal(ours, theirs, requests[i].len);
    }
}

static void traffic_secrets_are_kept_while_somebody_wants_them(void **state)
{
    struct fixture *f = *state;
    struct request request = {EXPAND, "SHA2-384", SECRET_48, NULL, "c ap traffic", SECRET_48, 48};
    uint8_t client[48], server[48];
    assert_int_equal(derive(f->ours, request, client), 1);
    f->schedule.secrets = &f->secrets;
    f->secrets.sent = 7;
    assert_int_equal(derive(f->ours, request, client), 1);
    assert_int_equal(f->secrets.len, 0);
    request.label = "s ap traffic";
    assert_int_equal(derive(f->ours, request, server), 1);
    assert_int_equal(f->secrets.len, 48);
    assert_int_equal(f->secrets.sent, 0);
    request.label = "s hs traffic";
    assert_int_equal(derive(f->ours, request, (uint8_t[48]){0}), 1);
    assert_memory_equal(f->secrets.client, client, 48);
    assert_memory_equal(f->secrets.server, server, 48);
    f->schedule.secrets = NULL;
    f->secrets = (struct tls_secrets){.len = 0};
    request.label = "s ap traffic";
    assert_int_equal(derive(f->ours, request, server), 1);
    assert_int_equal(f->secrets.len, 0);
}

static void what_it_cannot_do_is_refused_with_a_reason(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct request request;
        const char *reason;
    } cases[] = {
        {{EXPAND, "SHA2-512", SECRET_48, NULL, "key", NULL, 16}, "the digest must be"},
        {{EXPAND, NULL, SECRET_32, NULL, "key", NULL, 16}, "the digest must be"},
        {{-1, "SHA2-256", SECRET_32, NULL, "key", NULL, 16}, "the mode must be"},
        {{EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND, "SHA2-256", SECRET_32, NULL, "key", NULL, 16}, "the mode must be"},
        {{EXPAND, "SHA2-256", SECRET_48, NULL, "key", NULL, 16}, "a length is out of range"},
        {{EXPAND, "SHA2-256", NULL, NULL, "key", NULL, 16}, "a length is out of range"},
        {{EXPAND, "SHA2-256", SECRET_32, NULL, "key", NULL, 255 * 32 + 1}, "a length is out of range"},
        {{EXTRACT, "SHA2-256", SECRET_32, SECRET_48, "derived", NULL, 32}, "a length is out of range"},
        {{EXTRACT, "SHA2-256", SECRET_32, SECRET_32, "derived", NULL, 31}, "the length of the digest"},
    };
    static uint8_t out[255 * 48 + 1];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ERR_clear_error();
        assert_int_equal(derive(f->ours, cases[i].request, out), 0);
        const char *data = NULL;
        ERR_peek_last_error_all(NULL, NULL, NULL, &data, NULL);
        assert_non_null(data);
        assert_non_null(strstr(data, cases[i].reason));
    }
}

static void parameters_without_a_derivation_are_refused(void **state)
{
    struct fixture *f = *state;
    int mode = EXPAND;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode), OSSL_PARAM_construct_end()};
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(f->ours);
    assert_int_equal(EVP_KDF_CTX_set_params(ctx, params), 0);
    EVP_KDF_CTX_free(ctx);
}

static void other_kdfs_are_the_default_providers(void **state)
{
    struct fixture *f = *state;
    EVP_KDF *kdf = EVP_KDF_fetch(f->library, "TLS1-PRF", TLS_SCHEDULE_PROPERTIES);
    assert_non_null(kdf);
    assert_string_equal(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(kdf)), "default");
    EVP_KDF_free(kdf);
}

static void two_libraries_have_one_each(void **state)
{
    struct fixture *f = *state, *other;
    set_up((void **)&other);
    uint8_t out[32];
    struct request request = {EXPAND, "SHA2-256", SECRET_32, NULL, "s ap traffic", SECRET_32, 32};
    f->schedule.secrets = &f->secrets;
    other->schedule.secrets = &other->secrets;
    assert_int_equal(derive(other->ours, request, out), 1);
    assert_int_equal(f->secrets.len, 0);
    assert_int_equal(other->secrets.len, 32);
    tear_down((void **)&other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_is_preferred_and_makes_the_same),         TEST(traffic_secrets_are_kept_while_somebody_wants_them),
        TEST(what_it_cannot_do_is_refused_with_a_reason), TEST(parameters_without_a_derivation_are_refused),
        TEST(other_kdfs_are_the_default_providers),       TEST(two_libraries_have_one_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
