/*
 * fleet_key: seals what the gateways of a fleet share through a place that others can read and write: AES-256-GCM
 * under one key that they all have in a file.
 *
 * Sealed bytes: a version (1), a random nonce of 12 bytes, the ciphertext, a tag of 16 bytes. The name under which they
 * are kept is bound to them as associated data: moved under another name they do not open. One key seals up to 2^32
 * times (NIST SP 800-38D section 8.3), which is far away.
 */
#ifndef GATEWAY_NET_FLEET_KEY_H
#define GATEWAY_NET_FLEET_KEY_H

#include "gateway/base/slice.h"
#include "gateway/base/status.h"

enum { FLEET_KEY_BYTES = 32, FLEET_KEY_SEAL_BYTES = 1 + 12 + 16 };

struct fleet_key;

/* The first line of the text: 32 bytes, as 64 hex digits or in base64. NULL if it is something else. */
struct fleet_key *fleet_key_new(struct slice text);
void fleet_key_free(struct fleet_key **key);                                /* wipes it; accepts NULL */
bool fleet_key_equal(const struct fleet_key *a, const struct fleet_key *b); /* NULL: none */

/* Writes plain.len + FLEET_KEY_SEAL_BYTES; TLS_FAILED without randomness. */
MUST_CHECK enum status fleet_key_seal(const struct fleet_key *key, struct slice name, struct slice plain,
                                      char *ret_sealed);
/* Writes sealed.len - FLEET_KEY_SEAL_BYTES; false: not sealed by this key under this name, or changed since. */
bool fleet_key_open(const struct fleet_key *key, struct slice name, struct slice sealed, char *ret_plain);

#endif
