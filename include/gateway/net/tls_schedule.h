/*
 * tls_schedule: net/tls_hkdf as OpenSSL's "TLS13-KDF", in one OSSL_LIB_CTX.
 *
 * A handshake derives some 25 secrets; with OpenSSL's own implementation that is a sixth of what it costs. And whoever
 * derives them need not ask for them: OpenSSL tells traffic secrets only as lines of its key log, printed byte by byte.
 * SSL_CTXs that are made with TLS_SCHEDULE_PROPERTIES use it.
 */
#ifndef GATEWAY_NET_TLS_SCHEDULE_H
#define GATEWAY_NET_TLS_SCHEDULE_H

#include "gateway/net/tls_hkdf.h"
#include "gateway/net/tls_record.h"

/* For SSL_CTX_new_ex: what this provider has is preferred, the rest is the default provider's. */
#define TLS_SCHEDULE_PROPERTIES "?provider=gateway"

struct tls_schedule {
    OSSL_PROVIDER *provider;
    struct tls_hkdf hkdf;
    struct tls_secrets *secrets; /* of the connection whose handshake goes on, while it does */
};

/* TLS_FAILED with a reason in OpenSSL's error queue. It stays where it is until fini, which accepts a zeroed struct. */
MUST_CHECK enum status tls_schedule_init(struct tls_schedule *schedule, OSSL_LIB_CTX *library);
void tls_schedule_fini(struct tls_schedule *schedule);

#endif
