/*
 * tls_record: the record protection of one TLS 1.3 connection after its handshake (RFC 8446 section 5), with OpenSSL's
 * AEADs. Sans I/O: whole records in, plaintext out, and the other way round.
 *
 * OpenSSL shakes hands and keeps about 14 KiB for each connection, most of which only a handshake needs. Once it is
 * complete, what is left to know are two secrets and two counters: tls_hand_over makes them the connection, and frees
 * the rest. Cipher contexts (about 1 KiB each) are made when they are needed and kept for the connections of a thread
 * that were used last, so an idle connection has a few hundred bytes.
 *
 * Meaning (alerts, KeyUpdate, what may come when) is the caller's, see net/stream_record.c.
 */
#ifndef GATEWAY_NET_TLS_RECORD_H
#define GATEWAY_NET_TLS_RECORD_H

#include "gateway/base/list.h"
#include "gateway/base/status.h"
#include "gateway/net/tls_hkdf.h"

#include <openssl/types.h>

enum {
    TLS_RECORD_HEADER_BYTES = 5,
    TLS_RECORD_MAX_PLAIN_BYTES = 16384,        /* section 5.1 */
    TLS_RECORD_MAX_SEALED_BYTES = 16384 + 256, /* section 5.2, without the header */
    TLS_RECORD_MIN_SEALED_BYTES = 1 + 16,      /* content type and tag */
    TLS_RECORD_OVERHEAD_BYTES = 5 + 1 + 16,    /* what sealing adds */
    TLS_RECORD_MAX_SECRET_BYTES = TLS_HKDF_MAX_BYTES,
    TLS_RECORD_MAX_OF_KEY = 1 << 24, /* records under one key before it is updated (section 5.5) */
    TLS_RECORD_MAX_WARM = 1024,      /* connections of a thread that keep their cipher contexts */
};

/* RFC 8446 section B.1 and B.2: content types, and the alerts that a record can be worth. */
enum tls_content { TLS_CONTENT_ALERT = 21, TLS_CONTENT_HANDSHAKE = 22, TLS_CONTENT_DATA = 23 };
enum tls_alert {
    TLS_ALERT_CLOSE_NOTIFY = 0,
    TLS_ALERT_UNEXPECTED_MESSAGE = 10,
    TLS_ALERT_BAD_RECORD_MAC = 20,
    TLS_ALERT_RECORD_OVERFLOW = 22,
    TLS_ALERT_DECODE_ERROR = 50,
    TLS_ALERT_INTERNAL_ERROR = 80,
    TLS_ALERT_USER_CANCELED = 90,
};

/* What a finished handshake leaves: RFC 8446 section 7.1, *_application_traffic_secret_0. */
struct tls_secrets {
    uint8_t client[TLS_RECORD_MAX_SECRET_BYTES];
    uint8_t server[TLS_RECORD_MAX_SECRET_BYTES];
    uint8_t len;   /* 0: not known */
    uint64_t sent; /* records that the server has sealed with its secret (tickets) */
};

/* ---- what the connections of one thread share: algorithms, and who has cipher contexts ---- */

enum { TLS_RECORD_SUITES = 3 };

struct tls_records {
    EVP_CIPHER *ciphers[TLS_RECORD_SUITES];
    struct tls_hkdf hkdf;
    struct list warm; /* connections with cipher contexts; the longest unused first */
    unsigned warm_count;
};

/* TLS_FAILED with a reason in OpenSSL's error queue. fini accepts a zeroed struct; no connection is left. */
MUST_CHECK enum status tls_records_init(struct tls_records *records, OSSL_LIB_CTX *library);
void tls_records_fini(struct tls_records *records);

/* ---- a connection ---- */

struct tls_record;

/*
 * suite: the TLS 1.3 code point (0x1301 to 0x1303). We are the server. NULL without memory, or when the suite is
 * another. free wipes the secrets; accepts NULL.
 */
struct tls_record *tls_record_new(struct tls_records *records, unsigned suite, const struct tls_secrets *secrets);
void tls_record_free(struct tls_record **record);

/*
 * One record of `len` (at most TLS_RECORD_MAX_PLAIN_BYTES) bytes into `ret_out`, which has len +
 * TLS_RECORD_OVERHEAD_BYTES; that is also what it takes. False: OpenSSL failed (its error queue says why).
 */
MUST_CHECK bool tls_record_seal(struct tls_record *record, enum tls_content content, const void *data, size_t len,
                                uint8_t *ret_out);

/*
 * Opens one whole record (header and `len` bytes, within the limits above; its outer type is not looked at). ret_out
 * has room for len bytes. Returns 0, or the alert that the record is worth.
 */
MUST_CHECK int tls_record_open(struct tls_record *record, const uint8_t *header, size_t len, uint8_t *ret_out,
                               size_t *ret_len, uint8_t *ret_content);

/* It is used soon. */
void tls_record_prefetch(const struct tls_record *record);

/* RFC 8446 section 7.2: the next key of what is received or sent. False: OpenSSL failed. */
MUST_CHECK bool tls_record_update_received(struct tls_record *record);
MUST_CHECK bool tls_record_update_sent(struct tls_record *record);

/* TLS_RECORD_MAX_OF_KEY records have been sealed with the present key: it must be updated. */
bool tls_record_must_update(const struct tls_record *record);

#endif
