/*
 * cert_custom: one uploaded certificate with its key, for names outside the base domains. Checked strictly when it is
 * made, immutable afterwards, shared by threads by reference; the key is wiped when the last reference goes.
 *
 * It serves every name that it covers, whatever name it was uploaded under; the same rule decides which requests a
 * connection that presents it may carry.
 */
#ifndef GATEWAY_NET_CERT_CUSTOM_H
#define GATEWAY_NET_CERT_CUSTOM_H

#include "gateway/net/cert_store.h"

#include <stdatomic.h>

enum { CERT_FINGERPRINT_TEXT = 65, CERT_ISSUER_TEXT = 256, CERT_MAX_CHAIN = 10, CERT_MAX_NAMES = 250 };

/* What a leaf says about itself. */
struct cert_facts {
    struct slice *names; /* its DNS names in lower case, "*.x" for wildcards; owned */
    size_t name_count;
    int64_t not_before, not_after;           /* seconds since 1970 */
    char fingerprint[CERT_FINGERPRINT_TEXT]; /* SHA-256 of the leaf in hex */
    char issuer[CERT_ISSUER_TEXT];           /* RFC 2253 */
    char key[48];                            /* "ECDSA P-256", "RSA 2048" */
};

struct cert_custom {
    _Atomic unsigned refs;
    struct slice name;               /* that it was uploaded under: lower case, may begin with "*." */
    struct slice chain_pem, key_pem; /* as re-encoded: nothing but the certificates and the key */
    struct cert_facts facts;
};

/* Why a certificate was refused. */
struct cert_problem {
    enum status status;
    const char *field; /* "certificate", "private_key" or "name" */
    char detail[CERT_ERROR_TEXT_MAX];
};

/*
 * Refuses, in this order: text that is no PEM; a key of an unsuitable kind or size; a key that is not the leaf's; a
 * chain that is out of order, broken or incomplete (only the root may be missing); certificates that are expired or
 * not yet valid at `now`; a leaf that is not for TLS servers or does not cover `name` (RFC 6125: subjectAltName only).
 */
MUST_CHECK enum status cert_custom_new(struct slice name, struct slice chain_pem, struct slice key_pem, int64_t now,
                                       struct cert_custom **ret_cert, struct cert_problem *ret_problem);
/* The same for one that was accepted when it was uploaded: one with the wrong dates is said in the log and goes on, as
 * base domains' certificates do. */
MUST_CHECK enum status cert_custom_new_accepted(struct slice name, struct slice chain_pem, struct slice key_pem,
                                                int64_t now, struct cert_custom **ret_cert,
                                                struct cert_problem *ret_problem);
struct cert_custom *cert_custom_ref(struct cert_custom *cert);
void cert_custom_unref(struct cert_custom **cert); /* accepts NULL */

/* True if the host (lower case, no final dot) is one of its names or one label below a wildcard. */
bool cert_custom_covers(const struct cert_custom *cert, struct slice host);

/* What the first certificate of a chain says; TLS_FAILED if it can't be read. */
MUST_CHECK enum status cert_facts_read(struct slice chain_pem, struct cert_facts *ret_facts);
void cert_facts_fini(struct cert_facts *facts);

#endif
