/*
 * cert_parse: PEM text to OpenSSL's certificates and keys, with words for people who sent the wrong thing. What
 * cert_store (files) and cert_custom (uploads) share. Nothing is left in OpenSSL's error queue.
 */
#ifndef GATEWAY_NET_CERT_PARSE_H
#define GATEWAY_NET_CERT_PARSE_H

#include "gateway/net/cert_store.h"

#include <openssl/x509.h>

/* All certificates of the text, in its order, at least one. TLS_FAILED with the reason and what would be right. */
MUST_CHECK enum status cert_parse_chain(struct slice pem, STACK_OF(X509) * *ret_chain,
                                        char ret_why[CERT_ERROR_TEXT_MAX]);
MUST_CHECK enum status cert_parse_key(struct slice pem, EVP_PKEY **ret_key, char ret_why[CERT_ERROR_TEXT_MAX]);

/* ECDSA P-256 or P-384, or RSA with 2048 bits or more; else TLS_FAILED. */
MUST_CHECK enum status cert_check_key_kind(const EVP_PKEY *key, char ret_why[CERT_ERROR_TEXT_MAX]);

/* Seconds since 1970; false if they can't be read. */
bool cert_dates(const X509 *cert, int64_t *ret_not_before, int64_t *ret_not_after);

/* The DNS names of a certificate (subjectAltName) as "a, b", or "none", cut to fit. */
void cert_list_names(const X509 *cert, char *text, size_t size);

#endif
