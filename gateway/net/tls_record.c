#include "gateway/net/tls_record.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

enum { IV_BYTES = 12, TAG_BYTES = 16, MAX_KEY_BYTES = 32, FIRST_SUITE = 0x1301 };

/* RFC 8446 section B.4. */
static const struct suite {
    const char *cipher;
    uint8_t key_len;
    uint8_t digest; /* index of tls_records.macs */
} suites[TLS_RECORD_SUITES] = {
    {"AES-128-GCM", 16, 0},
    {"AES-256-GCM", 32, 1},
    {"ChaCha20-Poly1305", 32, 0},
};

static const struct {
    const char *name;
    uint8_t len;
} digests[TLS_RECORD_DIGESTS] = {{"SHA256", 32}, {"SHA384", 48}};

/* What is received, or what is sent. */
struct direction {
    EVP_CIPHER_CTX *cipher; /* NULL: cold */
    uint64_t sequence;
    uint8_t secret[TLS_RECORD_MAX_SECRET_BYTES];
    uint8_t key[MAX_KEY_BYTES];
    uint8_t iv[IV_BYTES];
};

struct tls_record {
    struct tls_records *records;
    struct list warm_link;
    const struct suite *suite;
    struct direction in;
    struct direction out;
};

/* ---- what a thread's connections share ---- */

static EVP_MAC_CTX *new_mac(OSSL_LIB_CTX *library, const char *digest)
{
    char name[8];
    EVP_MAC *mac = EVP_MAC_fetch(library, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    strncpy(name, digest, sizeof name - 1)[sizeof name - 1] = '\0'; /* OSSL_PARAM has no const form */
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC_free(mac); /* the context holds it */
    if (ctx && EVP_MAC_CTX_set_params(ctx, params) == 1)
        return ctx;
    EVP_MAC_CTX_free(ctx);
    return NULL;
}

enum status tls_records_init(struct tls_records *records, OSSL_LIB_CTX *library)
{
    list_init(&records->warm);
    for (unsigned i = 0; i < TLS_RECORD_SUITES; i++)
        if (!(records->ciphers[i] = EVP_CIPHER_fetch(library, suites[i].cipher, NULL)))
            return STATUS_TLS_FAILED;
    for (unsigned i = 0; i < TLS_RECORD_DIGESTS; i++)
        if (!(records->macs[i] = new_mac(library, digests[i].name)))
            return STATUS_TLS_FAILED;
    return STATUS_OK;
}

void tls_records_fini(struct tls_records *records)
{
    assert(records->warm_count == 0);
    for (unsigned i = 0; i < TLS_RECORD_SUITES; i++)
        EVP_CIPHER_free(records->ciphers[i]);
    for (unsigned i = 0; i < TLS_RECORD_DIGESTS; i++)
        EVP_MAC_CTX_free(records->macs[i]);
}

/* ---- keys ---- */

/*
 * HKDF-Expand-Label of RFC 8446 section 7.1 with an empty hash value, for at most one digest's length: the one block of
 * HKDF-Expand (RFC 5869 section 2.3) is HMAC(secret, info | 0x01). secret: NULL for that of the call before.
 */
static bool expand_label(struct tls_record *r, const uint8_t *secret, const char *label, uint8_t *ret_out, size_t len)
{
    EVP_MAC_CTX *mac = r->records->macs[r->suite->digest];
    size_t secret_len = digests[r->suite->digest].len, label_len = strlen(label), n = 0;
    uint8_t info[32] = {0, (uint8_t)len, (uint8_t)(6 + label_len), 't', 'l', 's', '1', '3', ' '};
    uint8_t block[EVP_MAX_MD_SIZE];
    assert(len <= secret_len && 9 + label_len + 2 <= sizeof info);
    memcpy(info + 9, label, label_len);
    info[9 + label_len + 1] = 1; /* after the empty hash value's length */
    bool done = EVP_MAC_init(mac, secret, secret ? secret_len : 0, NULL) == 1 &&
                EVP_MAC_update(mac, info, 9 + label_len + 2) == 1 && EVP_MAC_final(mac, block, &n, sizeof block) == 1 &&
                n >= len;
    if (done)
        memcpy(ret_out, block, len);
    OPENSSL_cleanse(block, sizeof block);
    return done;
}

static bool derive(struct tls_record *r, struct direction *d)
{
    return expand_label(r, d->secret, "key", d->key, r->suite->key_len) &&
           expand_label(r, NULL, "iv", d->iv, sizeof d->iv);
}

static bool update(struct tls_record *r, struct direction *d)
{
    uint8_t next[TLS_RECORD_MAX_SECRET_BYTES];
    if (!expand_label(r, d->secret, "traffic upd", next, digests[r->suite->digest].len))
        return false;
    memcpy(d->secret, next, sizeof next);
    OPENSSL_cleanse(next, sizeof next);
    EVP_CIPHER_CTX_free(d->cipher);
    d->cipher = NULL;
    d->sequence = 0;
    return derive(r, d);
}

bool tls_record_update_received(struct tls_record *r)
{
    return update(r, &r->in);
}

bool tls_record_update_sent(struct tls_record *r)
{
    return update(r, &r->out);
}

bool tls_record_must_update(const struct tls_record *r)
{
    return r->out.sequence >= TLS_RECORD_MAX_OF_KEY;
}

/* ---- life ---- */

static void chill(struct tls_record *r)
{
    if (list_is_empty(&r->warm_link))
        return;
    list_remove(&r->warm_link);
    r->records->warm_count--;
    EVP_CIPHER_CTX_free(r->in.cipher);
    EVP_CIPHER_CTX_free(r->out.cipher);
    r->in.cipher = r->out.cipher = NULL;
}

struct tls_record *tls_record_new(struct tls_records *records, unsigned suite, const struct tls_secrets *secrets)
{
    if (suite < FIRST_SUITE || suite >= FIRST_SUITE + TLS_RECORD_SUITES)
        return NULL;
    const struct suite *found = &suites[suite - FIRST_SUITE];
    struct tls_record *r = secrets->len == digests[found->digest].len ? calloc(1, sizeof *r) : NULL;
    if (!r)
        return NULL;
    r->records = records;
    r->suite = found;
    list_init(&r->warm_link);
    memcpy(r->in.secret, secrets->client, sizeof r->in.secret);
    memcpy(r->out.secret, secrets->server, sizeof r->out.secret);
    r->out.sequence = secrets->sent;
    if (!derive(r, &r->in) || !derive(r, &r->out))
        tls_record_free(&r);
    return r;
}

void tls_record_free(struct tls_record **record)
{
    struct tls_record *r = *record;
    *record = NULL;
    if (!r)
        return;
    chill(r);
    OPENSSL_cleanse(r, sizeof *r);
    free(r);
}

/* ---- records ---- */

/* The connection used last goes to the end; the one at the front gives way when there are too many. */
static void warm(struct tls_record *r)
{
    struct tls_records *records = r->records;
    if (list_is_empty(&r->warm_link)) {
        if (records->warm_count >= TLS_RECORD_MAX_WARM)
            chill(CONTAINER_OF(records->warm.next, struct tls_record, warm_link));
        records->warm_count++;
    } else if (records->warm.prev == &r->warm_link) {
        return;
    } else {
        list_remove(&r->warm_link);
    }
    list_push(&records->warm, &r->warm_link);
}

/* The cipher with the nonce of this record (RFC 8446 section 5.3). */
static bool prepare(struct tls_record *r, struct direction *d, bool seals)
{
    uint8_t nonce[IV_BYTES];
    warm(r);
    memcpy(nonce, d->iv, sizeof nonce);
    for (unsigned i = 0; i < 8; i++)
        nonce[IV_BYTES - 1 - i] ^= (uint8_t)(d->sequence >> 8 * i);
    if (d->cipher)
        return EVP_CipherInit_ex2(d->cipher, NULL, NULL, nonce, -1, NULL) == 1;
    d->cipher = EVP_CIPHER_CTX_new();
    return d->cipher &&
           EVP_CipherInit_ex2(d->cipher, r->records->ciphers[r->suite - suites], d->key, nonce, seals, NULL) == 1;
}

bool tls_record_seal(struct tls_record *r, enum tls_content content, const void *data, size_t len, uint8_t *ret_out)
{
    struct direction *d = &r->out;
    uint8_t type = (uint8_t)content, *body = ret_out + TLS_RECORD_HEADER_BYTES;
    size_t sealed = len + 1 + TAG_BYTES;
    int n, last;
    assert(len <= TLS_RECORD_MAX_PLAIN_BYTES);
    const uint8_t header[] = {TLS_CONTENT_DATA, 3, 3, (uint8_t)(sealed >> 8), (uint8_t)sealed};
    memcpy(ret_out, header, sizeof header);
    if (!prepare(r, d, true) || EVP_CipherUpdate(d->cipher, NULL, &n, header, sizeof header) != 1 ||
        (len > 0 && EVP_CipherUpdate(d->cipher, body, &n, data, (int)len) != 1) ||
        EVP_CipherUpdate(d->cipher, body + len, &n, &type, 1) != 1 ||
        EVP_CipherFinal_ex(d->cipher, body + len + 1, &last) != 1 ||
        EVP_CIPHER_CTX_ctrl(d->cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, body + len + 1) != 1)
        return false;
    d->sequence++;
    return true;
}

int tls_record_open(struct tls_record *r, const uint8_t *header, size_t len, uint8_t *ret_out, size_t *ret_len,
                    uint8_t *ret_content)
{
    struct direction *d = &r->in;
    const uint8_t *body = header + TLS_RECORD_HEADER_BYTES;
    uint8_t tag[TAG_BYTES];
    size_t plain = len - TAG_BYTES;
    int n, last;
    assert(len >= TLS_RECORD_MIN_SEALED_BYTES && len <= TLS_RECORD_MAX_SEALED_BYTES);
    memcpy(tag, body + plain, sizeof tag);
    if (!prepare(r, d, false))
        return TLS_ALERT_INTERNAL_ERROR;
    if (EVP_CipherUpdate(d->cipher, NULL, &n, header, TLS_RECORD_HEADER_BYTES) != 1 ||
        EVP_CIPHER_CTX_ctrl(d->cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) != 1 ||
        EVP_CipherUpdate(d->cipher, ret_out, &n, body, (int)plain) != 1 ||
        EVP_CipherFinal_ex(d->cipher, ret_out + plain, &last) != 1)
        return TLS_ALERT_BAD_RECORD_MAC;
    d->sequence++;
    while (plain > 0 && ret_out[plain - 1] == 0) /* section 5.4: padding */
        plain--;
    if (plain == 0)
        return TLS_ALERT_UNEXPECTED_MESSAGE;
    if (plain - 1 > TLS_RECORD_MAX_PLAIN_BYTES)
        return TLS_ALERT_RECORD_OVERFLOW;
    *ret_content = ret_out[plain - 1];
    *ret_len = plain - 1;
    return 0;
}
