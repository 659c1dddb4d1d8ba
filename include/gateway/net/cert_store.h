/*
 * cert_store: certificates and private keys as an immutable snapshot that threads share.
 *
 * The control thread loads and checks files; workers build their SSL_CTXs from the snapshot's bytes (net/tls). A reload
 * makes a new snapshot and leaves the old one to those that still hold it. Private keys are wiped when the last
 * reference goes.
 */
#ifndef GATEWAY_NET_CERT_STORE_H
#define GATEWAY_NET_CERT_STORE_H

#include "gateway/base/slice.h"
#include "gateway/base/status.h"

#include <stdint.h>

enum { CERT_ERROR_TEXT_MAX = 512, CERT_MAX_FILE_BYTES = 1 << 20 };

/* What to load: one per base domain (or one for a control listener: name empty, any certificate will do). */
struct cert_source {
    const char *name;        /* base domain, lower case; the certificate must cover *.name; "" for any */
    const char *certificate; /* path of the chain in PEM, leaf first */
    const char *private_key; /* path of the key in PEM */
    bool is_client;          /* shown to a server, which judges its key: it may be of any kind */
};

struct cert_identity {
    struct slice name;
    struct slice chain_pem;
    struct slice key_pem;
    int64_t not_after; /* seconds since 1970, of the leaf */
};

struct cert_snapshot; /* reference-counted, thread-safe */

/*
 * Reads and checks all sources: files readable and not too large, PEM parses, key matches leaf, leaf covers *.name
 * (subjectAltName), ECDSA P-256/P-384 or RSA >= 2048. An expired or not yet valid certificate is loaded with a warning
 * in the log (serving it beats serving nothing). On failure the text names the file and what would be right.
 */
MUST_CHECK enum status cert_snapshot_load(const struct cert_source *sources, size_t count,
                                          struct cert_snapshot **ret_snapshot, char ret_error[CERT_ERROR_TEXT_MAX]);

/* A file of CA certificates in PEM, at least one. On failure the text names it and what would be right. */
MUST_CHECK enum status cert_authorities_check(const char *path, char ret_error[CERT_ERROR_TEXT_MAX]);

struct cert_snapshot *cert_snapshot_ref(struct cert_snapshot *snapshot);
void cert_snapshot_unref(struct cert_snapshot **snapshot); /* accepts NULL */

size_t cert_snapshot_count(const struct cert_snapshot *snapshot);
const struct cert_identity *cert_snapshot_identity(const struct cert_snapshot *snapshot, size_t index);

/* True if the server name is `name` itself or exactly one label below it: any letter case, a final dot is ignored. */
bool cert_name_covers(struct slice name, struct slice server_name);

/* The identity that a server name of a client gets: <label>.<name> or <name> itself, the longest base domain; -1 if
 * none. */
int cert_snapshot_find(const struct cert_snapshot *snapshot, struct slice server_name);

#endif
