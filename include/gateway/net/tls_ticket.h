/*
 * tls_ticket: encrypts and decrypts session tickets for net/tls (RFC 5077 section 4: AES-256-CBC and HMAC-SHA-256).
 *
 * OpenSSL builds the ticket; this only hands it the key that its name asks for. One per tls_server, one thread. Keys
 * are wiped by fini.
 */
#ifndef GATEWAY_NET_TLS_TICKET_H
#define GATEWAY_NET_TLS_TICKET_H

#include "gateway/net/tls.h"

struct tls_tickets {
    OSSL_LIB_CTX *library; /* borrowed */
    EVP_CIPHER *cipher;    /* fetched once: a fetch by name for each ticket costs more than its encryption */
    struct tls_ticket_keys keys;
};

/* TLS_FAILED with a reason in OpenSSL's error queue. `keys` has at least one key. fini accepts a zeroed struct. */
MUST_CHECK enum status tls_tickets_init(struct tls_tickets *tickets, OSSL_LIB_CTX *library,
                                        const struct tls_ticket_keys *keys);
void tls_tickets_fini(struct tls_tickets *tickets);
void tls_tickets_set_keys(struct tls_tickets *tickets, const struct tls_ticket_keys *keys);

/* The work of SSL_CTX_set_tlsext_ticket_key_evp_cb, with its results: -1 error, 0 no such key, 1 done, 2 done and the
 * client should get a new ticket. */
int tls_tickets_seal(const struct tls_tickets *tickets, unsigned char *ret_name, unsigned char *ret_iv,
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac);
int tls_tickets_unseal(const struct tls_tickets *tickets, const unsigned char *name, const unsigned char *iv,
                       EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac);

#endif
