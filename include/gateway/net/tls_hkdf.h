/*
 * tls_hkdf: the two functions of TLS 1.3's key schedule (RFC 8446 section 7.1, RFC 5869), with OpenSSL's digests.
 *
 * OpenSSL's own fetches algorithms and makes contexts for every call; this one keeps them. One thread at a time.
 */
#ifndef GATEWAY_NET_TLS_HKDF_H
#define GATEWAY_NET_TLS_HKDF_H

#include "gateway/base/slice.h"
#include "gateway/base/status.h"

#include <openssl/types.h>

enum tls_digest { TLS_SHA256, TLS_SHA384, TLS_DIGEST_COUNT };

enum { TLS_HKDF_MAX_BYTES = 48 /* a digest */ };

struct tls_hkdf {
    EVP_MD *digests[TLS_DIGEST_COUNT];
    EVP_MD_CTX *hash;
};

/* TLS_FAILED with a reason in OpenSSL's error queue. fini accepts a zeroed struct. */
MUST_CHECK enum status tls_hkdf_init(struct tls_hkdf *hkdf, OSSL_LIB_CTX *library);
void tls_hkdf_fini(struct tls_hkdf *hkdf);

/* Bytes. */
size_t tls_digest_len(enum tls_digest digest);

/*
 * HKDF-Extract: a digest's length into ret_out. salt: at most the digest's length; none stands for zeros.
 * False: OpenSSL failed (its error queue says why).
 */
MUST_CHECK bool tls_hkdf_extract(struct tls_hkdf *hkdf, enum tls_digest digest, struct slice salt, struct slice input,
                                 uint8_t *ret_out);

/*
 * HKDF-Expand-Label: `len` bytes, at most 255 digests. secret: at most the digest's length. label: with its "tls13 ",
 * up to 255 bytes; context: up to 255. False as above.
 */
MUST_CHECK bool tls_hkdf_expand(struct tls_hkdf *hkdf, enum tls_digest digest, struct slice secret, struct slice label,
                                struct slice context, uint8_t *ret_out, size_t len);

/* The digest of nothing. */
MUST_CHECK bool tls_hkdf_empty(struct tls_hkdf *hkdf, enum tls_digest digest, uint8_t *ret_out);

#endif
