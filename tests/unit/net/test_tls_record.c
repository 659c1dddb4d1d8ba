/* TLS 1.3 record protection, against itself with the roles swapped, and against RFC 8448. */
#include "gateway/net/tls_record.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BUFFER = TLS_RECORD_MAX_SEALED_BYTES + TLS_RECORD_HEADER_BYTES };

struct pair {
    struct tls_records records;
    struct tls_record *ours;
    struct tls_record *theirs; /* the client's end: what it calls sent we call received */
    uint8_t wire[BUFFER];
    uint8_t plain[BUFFER];
    size_t len;
    uint8_t content;
};

static struct tls_secrets some_secrets(unsigned suite)
{
    struct tls_secrets secrets = {.len = suite == 0x1302 ? 48 : 32};
    memset(secrets.client, 0xc1, secrets.len);
    memset(secrets.server, 0x5e, secrets.len);
    return secrets;
}

static void open_pair(struct pair *p, unsigned suite)
{
    struct tls_secrets secrets = some_secrets(suite), swapped = secrets;
    memcpy(swapped.client, secrets.server, sizeof swapped.client);
    memcpy(swapped.server, secrets.client, sizeof swapped.server);
    p->ours = tls_record_new(&p->records, suite, &secrets);
    p->theirs = tls_record_new(&p->records, suite, &swapped);
    assert_non_null(p->ours);
    assert_non_null(p->theirs);
}

static void close_pair(struct pair *p)
{
    tls_record_free(&p->ours);
    tls_record_free(&p->theirs);
}

static int set_up(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    assert_int_equal(tls_records_init(&p->records, NULL), STATUS_OK);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *p = *state;
    close_pair(p);
    tls_records_fini(&p->records);
    free(p);
    return 0;
}

static int reopen(struct pair *p, struct tls_record *reader, size_t plain_len)
{
    return tls_record_open(reader, p->wire, plain_len + 1 + 16, p->plain, &p->len, &p->content);
}

static void all_suites_and_lengths_come_back(void **state)
{
    struct pair *p = *state;
    static const size_t lengths[] = {
        0, 1, 15, 16, 17, 4096, TLS_RECORD_MAX_PLAIN_BYTES - 1, TLS_RECORD_MAX_PLAIN_BYTES};
    static uint8_t text[TLS_RECORD_MAX_PLAIN_BYTES];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 31 + i / 251);
    for (unsigned suite = 0x1301; suite <= 0x1303; suite++) {
        open_pair(p, suite);
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, text, lengths[i], p->wire));
            assert_int_equal(p->wire[3] << 8 | p->wire[4], lengths[i] + 17);
            assert_int_equal(reopen(p, p->theirs, lengths[i]), 0);
            assert_int_equal(p->content, TLS_CONTENT_DATA);
            assert_int_equal(p->len, lengths[i]);
            assert_memory_equal(p->plain, text, lengths[i]);
        }
        close_pair(p);
    }
}

/* RFC 8448 section 3: the client's application data, and its traffic secret. */
static void the_example_of_rfc_8448_opens(void **state)
{
    struct pair *p = *state;
    static const uint8_t secret[32] = {0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0, 0x5a, 0xf8,
                                       0x88, 0x9b, 0xce, 0x65, 0x52, 0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf,
                                       0x00, 0x87, 0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5};
    static const uint8_t record[] = {
        0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94, 0xd0, 0xaf, 0xfa, 0xfe, 0x82, 0x28,
        0xba, 0x55, 0xcb, 0xef, 0xac, 0xea, 0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc, 0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8,
        0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20, 0x44, 0x1e, 0x2b, 0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62,
        0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd, 0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4};
    struct tls_secrets secrets = {.len = 32};
    memcpy(secrets.client, secret, sizeof secret);
    p->ours = tls_record_new(&p->records, 0x1301, &secrets);
    assert_non_null(p->ours);
    assert_int_equal(
        tls_record_open(p->ours, record, sizeof record - TLS_RECORD_HEADER_BYTES, p->plain, &p->len, &p->content), 0);
    assert_int_equal(p->content, TLS_CONTENT_DATA);
    assert_int_equal(p->len, 50);
    for (uint8_t i = 0; i < 50; i++)
        assert_int_equal(p->plain[i], i);
}

static void what_was_sealed_before_counts(void **state)
{
    struct pair *p = *state;
    struct tls_secrets secrets = some_secrets(0x1301), later = secrets;
    memcpy(later.server, secrets.client, sizeof later.server);
    later.sent = 2;
    p->ours = tls_record_new(&p->records, 0x1301, &secrets);
    p->theirs = tls_record_new(&p->records, 0x1301, &later);
    assert_true(tls_record_seal(p->theirs, TLS_CONTENT_DATA, "x", 1, p->wire));
    assert_int_equal(reopen(p, p->ours, 1), TLS_ALERT_BAD_RECORD_MAC);
}

static void a_changed_byte_is_noticed(void **state)
{
    struct pair *p = *state;
    for (size_t at = 0; at < TLS_RECORD_OVERHEAD_BYTES + 4; at++) {
        open_pair(p, 0x1301);
        assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, "four", 4, p->wire));
        p->wire[at] ^= 0x40;
        assert_int_equal(reopen(p, p->theirs, 4), TLS_ALERT_BAD_RECORD_MAC);
        close_pair(p);
    }
}

static void a_record_opens_once_and_in_order(void **state)
{
    struct pair *p = *state;
    open_pair(p, 0x1303);
    assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, "a", 1, p->wire));
    assert_int_equal(reopen(p, p->theirs, 1), 0);
    assert_int_equal(reopen(p, p->theirs, 1), TLS_ALERT_BAD_RECORD_MAC);
}

/* Seals bytes as they are, so that the last one is the content type: padding and overlong content. */
static int open_crafted(struct pair *p, size_t len, size_t zeros)
{
    static uint8_t text[TLS_RECORD_MAX_SEALED_BYTES];
    uint8_t iv[12], key[16];
    const uint8_t header[] = {23, 3, 3, (uint8_t)((len + 16) >> 8), (uint8_t)(len + 16)};
    int n;
    /* HKDF-Expand-Label of the client's secret with "key" and "iv", by OpenSSL's own implementation. */
    struct tls_secrets secrets = some_secrets(0x1301);
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS13-KDF", NULL);
    for (int i = 0; i < 2; i++) {
        EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
        char digest[] = "SHA256", prefix[] = "tls13 ", *label = i ? (char[]){"iv"} : (char[]){"key"};
        int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
        OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0),
                               OSSL_PARAM_construct_int("mode", &mode),
                               OSSL_PARAM_construct_octet_string("key", secrets.client, 32),
                               OSSL_PARAM_construct_octet_string("prefix", prefix, 6),
                               OSSL_PARAM_construct_octet_string("label", label, strlen(label)),
                               OSSL_PARAM_construct_end()};
        assert_int_equal(EVP_KDF_derive(ctx, i ? iv : key, i ? sizeof iv : sizeof key, params), 1);
        EVP_KDF_CTX_free(ctx);
    }
    EVP_KDF_free(kdf);
    memset(text, 'x', len);
    text[len - zeros - 1] = TLS_CONTENT_DATA;
    memset(text + len - zeros, 0, zeros);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    memcpy(p->wire, header, sizeof header);
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, key, iv), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, header, sizeof header), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, p->wire + 5, &n, text, (int)len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, p->wire + 5 + len, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, p->wire + 5 + len), 1);
    EVP_CIPHER_CTX_free(ctx);
    return tls_record_open(p->ours, p->wire, len + 16, p->plain, &p->len, &p->content);
}

static void padding_is_taken_off(void **state)
{
    struct pair *p = *state;
    open_pair(p, 0x1301);
    assert_int_equal(open_crafted(p, 100, 40), 0);
    assert_int_equal(p->len, 59);
    assert_int_equal(p->content, TLS_CONTENT_DATA);
}

static void only_padding_and_overlong_content_are_refused(void **state)
{
    struct pair *p = *state;
    open_pair(p, 0x1301);
    static const struct {
        size_t len, zeros;
        int alert;
    } cases[] = {
        {TLS_RECORD_MAX_PLAIN_BYTES + 1, 0, 0},
        {TLS_RECORD_MAX_PLAIN_BYTES + 2, 0, TLS_ALERT_RECORD_OVERFLOW},
        {TLS_RECORD_MAX_PLAIN_BYTES + 100, 99, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        close_pair(p);
        open_pair(p, 0x1301);
        assert_int_equal(open_crafted(p, cases[i].len, cases[i].zeros), cases[i].alert);
    }
    close_pair(p);
    open_pair(p, 0x1301);
    assert_true(tls_record_seal(p->theirs, (enum tls_content)0, "\0\0", 2, p->wire));
    assert_int_equal(reopen(p, p->ours, 2), TLS_ALERT_UNEXPECTED_MESSAGE);
}

static void keys_are_updated_in_step(void **state)
{
    struct pair *p = *state;
    for (unsigned suite = 0x1301; suite <= 0x1303; suite++) {
        open_pair(p, suite);
        for (int i = 0; i < 3; i++) {
            assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, "before", 6, p->wire));
            assert_int_equal(reopen(p, p->theirs, 6), 0);
            assert_true(tls_record_update_sent(p->ours));
            assert_true(tls_record_update_received(p->theirs));
        }
        assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, "old", 3, p->wire));
        assert_true(tls_record_update_received(p->theirs));
        assert_int_equal(reopen(p, p->theirs, 3), TLS_ALERT_BAD_RECORD_MAC);
        close_pair(p);
    }
}

static void a_key_has_an_end(void **state)
{
    struct pair *p = *state;
    struct tls_secrets secrets = some_secrets(0x1301);
    secrets.sent = TLS_RECORD_MAX_OF_KEY - 1;
    p->ours = tls_record_new(&p->records, 0x1301, &secrets);
    assert_false(tls_record_must_update(p->ours));
    assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, "x", 1, p->wire));
    assert_true(tls_record_must_update(p->ours));
    assert_true(tls_record_update_sent(p->ours));
    assert_false(tls_record_must_update(p->ours));
}

/* More connections than keep their contexts: those that lost them go on where they were. */
static void cold_connections_go_on(void **state)
{
    struct pair *p = *state;
    enum { COUNT = TLS_RECORD_MAX_WARM + 50 };
    static struct tls_record *others[COUNT];
    struct tls_secrets secrets = some_secrets(0x1301);
    open_pair(p, 0x1301);
    for (int round = 0; round < 3; round++) {
        assert_true(tls_record_seal(p->ours, TLS_CONTENT_DATA, "round", 5, p->wire));
        assert_int_equal(reopen(p, p->theirs, 5), 0);
        for (size_t i = 0; i < COUNT; i++) {
            if (!others[i])
                others[i] = tls_record_new(&p->records, 0x1301, &secrets);
            assert_true(tls_record_seal(others[i], TLS_CONTENT_DATA, "x", 1, p->wire));
        }
        assert_int_equal(p->records.warm_count, TLS_RECORD_MAX_WARM);
    }
    for (size_t i = 0; i < COUNT; i++)
        tls_record_free(&others[i]);
    close_pair(p);
    assert_int_equal(p->records.warm_count, 0);
}

static void unknown_suites_and_odd_secrets_are_refused(void **state)
{
    struct pair *p = *state;
    struct tls_secrets secrets = some_secrets(0x1301);
    assert_null(tls_record_new(&p->records, 0x1300, &secrets));
    assert_null(tls_record_new(&p->records, 0x1304, &secrets));
    assert_null(tls_record_new(&p->records, 0xc02b, &secrets));
    assert_null(tls_record_new(&p->records, 0x1302, &secrets)); /* wants 48 bytes */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(all_suites_and_lengths_come_back),
        TEST(the_example_of_rfc_8448_opens),
        TEST(what_was_sealed_before_counts),
        TEST(a_changed_byte_is_noticed),
        TEST(a_record_opens_once_and_in_order),
        TEST(padding_is_taken_off),
        TEST(only_padding_and_overlong_content_are_refused),
        TEST(keys_are_updated_in_step),
        TEST(a_key_has_an_end),
        TEST(cold_connections_go_on),
        TEST(unknown_suites_and_odd_secrets_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
