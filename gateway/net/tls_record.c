#include "gateway/net/tls_record.h"

#include "gateway/base/prefetch.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum { IV_BYTES = 12, TAG_BYTES = 16, MAX_KEY_BYTES = 32, FIRST_SUITE = 0x1301 };

/* RFC 8446 section B.4. */
static const struct suite {
    const char *cipher;
    uint8_t key_len;
    uint8_t digest; /* enum tls_digest */
} suites[TLS_RECORD_SUITES] = {
    {"AES-128-GCM", 16, TLS_SHA256},
    {"AES-256-GCM", 32, TLS_SHA384},
    {"ChaCha20-Poly1305", 32, TLS_SHA256},
};

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

enum status tls_records_init(struct tls_records *records, OSSL_LIB_CTX *library)
{
    list_init(&records->warm);
    for (unsigned i = 0; i < TLS_RECORD_SUITES; i++)
        if (!(records->ciphers[i] = EVP_CIPHER_fetch(library, suites[i].cipher, NULL)))
            return STATUS_TLS_FAILED;
    return tls_hkdf_init(&records->hkdf, library);
}

void tls_records_fini(struct tls_records *records)
{
    assert(records->warm_count == 0);
    for (unsigned i = 0; i < TLS_RECORD_SUITES; i++)
        EVP_CIPHER_free(records->ciphers[i]);
    tls_hkdf_fini(&records->hkdf);
}

/* ---- keys ---- */

static bool expand(struct tls_record *r, const struct direction *d, struct slice label, uint8_t *ret_out, size_t len)
{
    enum tls_digest digest = (enum tls_digest)r->suite->digest;
    struct slice secret = slice_make((const char *)d->secret, tls_digest_len(digest));
    return tls_hkdf_expand(&r->records->hkdf, digest, secret, label, SLICE_NONE, ret_out, len);
}

/* RFC 8446 section 7.3. */
static bool derive(struct tls_record *r, struct direction *d)
{
    return expand(r, d, SLICE("tls13 key"), d->key, r->suite->key_len) &&
           expand(r, d, SLICE("tls13 iv"), d->iv, sizeof d->iv);
}

static bool update(struct tls_record *r, struct direction *d)
{
    uint8_t next[TLS_RECORD_MAX_SECRET_BYTES];
    size_t len = tls_digest_len((enum tls_digest)r->suite->digest);
    if (!expand(r, d, SLICE("tls13 traffic upd"), next, len))
        return false;
    memcpy(d->secret, next, len);
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
    struct tls_record *r = secrets->len == tls_digest_len((enum tls_digest)found->digest) ? calloc(1, sizeof *r) : NULL;
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

void tls_record_prefetch(const struct tls_record *r)
{
    prefetch(r, sizeof *r);
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
