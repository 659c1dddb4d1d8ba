#include "gateway/net/tls_hkdf.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

enum { MAX_BLOCK_BYTES = 128, MAX_PIECES = 3 };

static const struct {
    const char *name;
    uint8_t len;
    uint8_t block; /* what HMAC fills up its key to (RFC 2104) */
} digests[TLS_DIGEST_COUNT] = {
    [TLS_SHA256] = {"SHA256", 32, 64},
    [TLS_SHA384] = {"SHA384", 48, 128},
};

enum status tls_hkdf_init(struct tls_hkdf *hkdf, OSSL_LIB_CTX *library)
{
    *hkdf = (struct tls_hkdf){.hash = EVP_MD_CTX_new()};
    for (unsigned i = 0; i < TLS_DIGEST_COUNT; i++)
        if (!(hkdf->digests[i] = EVP_MD_fetch(library, digests[i].name, NULL)))
            return STATUS_TLS_FAILED;
    return hkdf->hash ? STATUS_OK : STATUS_TLS_FAILED;
}

void tls_hkdf_fini(struct tls_hkdf *hkdf)
{
    for (unsigned i = 0; i < TLS_DIGEST_COUNT; i++)
        EVP_MD_free(hkdf->digests[i]);
    EVP_MD_CTX_free(hkdf->hash);
    *hkdf = (struct tls_hkdf){.hash = NULL};
}

size_t tls_digest_len(enum tls_digest digest)
{
    return digests[digest].len;
}

/* ---- HMAC (RFC 2104) ---- */

static bool hash(struct tls_hkdf *hkdf, enum tls_digest digest, const struct slice *pieces, int count, uint8_t *ret_out)
{
    bool done = EVP_DigestInit_ex2(hkdf->hash, hkdf->digests[digest], NULL) == 1;
    for (int i = 0; done && i < count; i++)
        done = EVP_DigestUpdate(hkdf->hash, pieces[i].ptr, pieces[i].len) == 1;
    return done && EVP_DigestFinal_ex(hkdf->hash, ret_out, NULL) == 1;
}

static void pad_key(enum tls_digest digest, struct slice key, uint8_t pad, uint8_t *ret_block)
{
    memset(ret_block, pad, digests[digest].block);
    for (size_t i = 0; i < key.len; i++)
        ret_block[i] ^= (uint8_t)key.ptr[i];
}

static struct slice bytes_of(const uint8_t *bytes, size_t len)
{
    return slice_make((const char *)bytes, len);
}

static bool hmac(struct tls_hkdf *hkdf, enum tls_digest digest, struct slice key, const struct slice *pieces, int count,
                 uint8_t *ret_out)
{
    uint8_t block[MAX_BLOCK_BYTES], inner[TLS_HKDF_MAX_BYTES];
    struct slice all[1 + MAX_PIECES] = {bytes_of(block, digests[digest].block)};
    assert(key.len <= digests[digest].len && count <= MAX_PIECES);
    for (int i = 0; i < count; i++)
        all[1 + i] = pieces[i];
    pad_key(digest, key, 0x36, block);
    bool done = hash(hkdf, digest, all, 1 + count, inner);
    pad_key(digest, key, 0x5c, block);
    all[1] = bytes_of(inner, digests[digest].len);
    done = done && hash(hkdf, digest, all, 2, ret_out);
    OPENSSL_cleanse(block, digests[digest].block);
    OPENSSL_cleanse(inner, sizeof inner);
    return done;
}

/* ---- HKDF ---- */

bool tls_hkdf_extract(struct tls_hkdf *hkdf, enum tls_digest digest, struct slice salt, struct slice input,
                      uint8_t *ret_out)
{
    return hmac(hkdf, digest, salt, &input, 1, ret_out); /* HMAC fills up with zeros by itself */
}

bool tls_hkdf_expand(struct tls_hkdf *hkdf, enum tls_digest digest, struct slice secret, struct slice label,
                     struct slice context, uint8_t *ret_out, size_t len)
{
    uint8_t info[2 + 1 + 255 + 1 + 255], block[TLS_HKDF_MAX_BYTES], number = 1;
    size_t digest_len = digests[digest].len, info_len = 0;
    assert(label.len <= 255 && context.len <= 255 && len > 0 && len <= 255 * digest_len);
    info[info_len++] = (uint8_t)(len >> 8);
    info[info_len++] = (uint8_t)len;
    info[info_len++] = (uint8_t)label.len;
    memcpy(info + info_len, label.ptr, label.len);
    info_len += label.len;
    info[info_len++] = (uint8_t)context.len;
    if (context.len > 0)
        memcpy(info + info_len, context.ptr, context.len);
    info_len += context.len;
    bool done = true;
    for (size_t before = 0; done && len > 0; number++) {
        struct slice pieces[] = {bytes_of(block, before), bytes_of(info, info_len), bytes_of(&number, 1)};
        done = hmac(hkdf, digest, secret, pieces, MAX_PIECES, block);
        size_t n = len < digest_len ? len : digest_len;
        if (done)
            memcpy(ret_out, block, n);
        ret_out += n;
        len -= n;
        before = digest_len;
    }
    OPENSSL_cleanse(block, sizeof block);
    return done;
}

bool tls_hkdf_empty(struct tls_hkdf *hkdf, enum tls_digest digest, uint8_t *ret_out)
{
    return hash(hkdf, digest, NULL, 0, ret_out);
}
