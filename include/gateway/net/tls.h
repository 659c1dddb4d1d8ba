/*
 * tls: OpenSSL server contexts of one thread, made from a certificate snapshot (net/cert_store).
 *
 * Each thread has a `struct tls_server` of its own with its own OSSL_LIB_CTX, since OpenSSL 3.0 scales badly when these
 * are shared. It holds one SSL_CTX per identity; the SNI chooses (RFC 6066 section 3): a name of a base domain gets
 * that identity, no SNI gets the first one, a name that an uploaded certificate covers (net/cert_custom) gets that one,
 * any other name the alert unrecognized_name.
 *
 * TLS 1.2 and 1.3, ECDHE with AEAD only, X25519 and P-256, server preference, no renegotiation, no compression. ALPN
 * picks the server's first protocol that the client offers; no common one is the alert no_application_protocol (RFC
 * 7301), no ALPN at all is allowed. Session tickets (RFC 5077, RFC 8446 section 4.6.1) are encrypted with keys that all
 * threads share by value, one ticket a handshake; no session cache.
 */
#ifndef GATEWAY_NET_TLS_H
#define GATEWAY_NET_TLS_H

#include "gateway/base/slice.h"
#include "gateway/base/status.h"

#include <openssl/types.h>
#include <stdint.h>

struct cert_custom;
struct cert_snapshot;
struct tls_record;
struct tls_server;

enum { TLS_TICKET_KEYS = 4, TLS_ERROR_TEXT_MAX = 256, TLS_IDENTITY_CUSTOM = 255 };

/*
 * keys[0] encrypts; all of the first `count` (1 to TLS_TICKET_KEYS) decrypt. A ticket decrypted with another than
 * keys[0] is renewed. Start from a zeroed struct and rotate once.
 */
struct tls_ticket_key {
    uint8_t name[16];
    uint8_t aes[32];
    uint8_t hmac[32];
};
struct tls_ticket_keys {
    unsigned count;
    struct tls_ticket_key keys[TLS_TICKET_KEYS];
};

/* A new random key in front; the oldest falls out. STATUS_TLS_FAILED if there is no randomness. */
MUST_CHECK enum status tls_ticket_keys_rotate(struct tls_ticket_keys *keys);

struct tls_options {
    const char *const *alpn;    /* in order of preference, NULL-terminated: {"http/1.1", NULL} */
    bool accept_unknown_names;  /* no SNI check: control listeners, which have one identity */
    struct slice client_ca_pem; /* not empty: client certificates are required and checked against these CAs (mTLS) */
};

/*
 * Builds everything from memory; no file is read. The snapshot is not kept. On failure the text says which identity and
 * why. Ticket keys are copied; tls_server_set_ticket_keys replaces them later, for handshakes from then on.
 */
MUST_CHECK enum status tls_server_new(const struct cert_snapshot *snapshot, const struct tls_options *options,
                                      const struct tls_ticket_keys *keys, struct tls_server **ret_server,
                                      char ret_error[TLS_ERROR_TEXT_MAX]);
void tls_server_set_ticket_keys(struct tls_server *server, const struct tls_ticket_keys *keys);

/*
 * Uploaded certificates, for handshakes from then on: put replaces what was uploaded under the same name. Takes a
 * reference. Cheap: nothing is parsed before a client asks for it.
 */
void tls_server_put_custom(struct tls_server *server, struct cert_custom *cert);
void tls_server_remove_custom(struct tls_server *server, struct slice name);
/* True if one of them covers the host (any letter case). */
bool tls_server_has_custom(const struct tls_server *server, struct slice host);

/* Connections made from it stay valid (they hold it); accepts no new ones. Accepts NULL. */
void tls_server_free(struct tls_server **server);

/*
 * A new connection in the accept state without a BIO, or NULL without memory. Freed with tls_connection_free. any_alpn:
 * the first protocol that the client offers is taken, whatever it is.
 */
SSL *tls_server_accept(struct tls_server *server, bool any_alpn);
void tls_connection_free(SSL **ssl);
int tls_handshake(SSL *ssl); /* as SSL_do_handshake, which must not be called for it */

/*
 * Right after the handshake, before anything was read: the connection without its SSL, which is freed, for
 * net/tls_record. NULL, and the SSL stays, if it is not TLS 1.3 or the client wants small records. ret_server is what
 * keeps the server alive; both go back with tls_handed_over_free, which accepts NULLs.
 */
struct tls_record *tls_hand_over(SSL **ssl, struct tls_server **ret_server);
void tls_handed_over_free(struct tls_record **record, struct tls_server **server);

/* ---- of a connection; after the handshake unless said otherwise ---- */

/* Which base domain's certificate it presented: index in the snapshot; TLS_IDENTITY_CUSTOM: an uploaded one. */
unsigned tls_identity(const SSL *ssl);
/* The uploaded certificate that it presented, or NULL; valid while the SSL lives. */
struct cert_custom *tls_custom_certificate(const SSL *ssl);
struct slice
tls_sni(const SSL *ssl); /* as sent; empty if none; valid while the connection lives; also before the end */
struct slice tls_alpn(const SSL *ssl); /* "h2"; empty if none */
const char *tls_version_name(const SSL *ssl);
const char *tls_cipher_name(const SSL *ssl);
bool tls_is_resumed(const SSL *ssl);
bool tls_is_client_verified(const SSL *ssl); /* the client has shown a certificate of the client CAs */
/* Why the handshake failed with an unknown SNI: TLS_UNKNOWN_NAME; else TLS_FAILED. */
enum status tls_failure(const SSL *ssl);

/* "bad certificate": an alert's name (RFC 8446 section 6), static. */
const char *tls_alert_name(int alert);

/* One readable line from OpenSSL's error queue of this thread ("no shared cipher", "alert: bad certificate"), which is
 * emptied. Never raw error codes only. */
void tls_error_text(char ret_text[TLS_ERROR_TEXT_MAX]);

#endif
