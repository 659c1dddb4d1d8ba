/*
 * tls_custom: the uploaded certificates of one thread, by every name that they cover, for net/tls.
 *
 * Changing one certificate touches only its own entries. A certificate is parsed when the first connection asks for
 * it; connections share one SSL_CTX without a certificate and get theirs one by one, so that thousands of
 * certificates cost little more than their bytes, which all threads share.
 */
#ifndef GATEWAY_NET_TLS_CUSTOM_H
#define GATEWAY_NET_TLS_CUSTOM_H

#include "gateway/base/name_table.h"

#include "gateway/net/cert_custom.h"

#include <openssl/ssl.h>

/* One certificate on this thread. */
struct tls_custom {
    struct cert_custom *cert;       /* a reference */
    struct name_entry uploaded;     /* by the name it was uploaded under */
    struct tls_custom_name *served; /* by each name it covers */
    unsigned users;                 /* the table, and connections that present it */
    X509 *leaf;                     /* NULL until it is asked for */
    STACK_OF(X509) * issuers;
    EVP_PKEY *key;
};

struct tls_customs {
    OSSL_LIB_CTX *library; /* borrowed */
    struct name_table uploaded;
    struct name_table served;
};

void tls_customs_init(struct tls_customs *customs, OSSL_LIB_CTX *library);
/* No connection presents one any more. */
void tls_customs_fini(struct tls_customs *customs);

/* Replaces what was uploaded under the same name. */
void tls_customs_put(struct tls_customs *customs, struct cert_custom *cert);
void tls_customs_remove(struct tls_customs *customs, struct slice name);

/*
 * The certificate for a host in lower case without a final dot, or NULL. What was uploaded under the name wins over
 * what only covers it, an exact name over a wildcard, the later upload over the earlier.
 */
struct tls_custom *tls_customs_find(const struct tls_customs *customs, struct slice host);

/* Makes the connection present it, and a user of it. `blank` is an SSL_CTX without a certificate. */
bool tls_custom_use(struct tls_custom *custom, OSSL_LIB_CTX *library, SSL *ssl, SSL_CTX *blank);
void tls_custom_release(struct tls_custom **custom); /* accepts NULL */

#endif
