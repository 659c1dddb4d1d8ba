/*
 * preface: what comes on a client connection before its protocol: the PROXY header of listeners that require one, the
 * TLS ClientHello, and, where no protocol was negotiated, the first bytes inside TLS.
 *
 * The hello is read by us, so that the name in it can decide what happens to the connection: its bytes go to the
 * instance as they are (passthrough), or to OpenSSL. A connection that waits for more keeps what has come in one block.
 */
#ifndef GATEWAY_PROXY_PREFACE_H
#define GATEWAY_PROXY_PREFACE_H

#include "gateway/proxy/frontend.h"

/* What a connection's protocol is going to be, by the name that it asked for. */
enum preface_plan {
    PREFACE_HTTP,        /* by ALPN */
    PREFACE_SNIFF,       /* by ALPN; without it by the first bytes */
    PREFACE_TCP,         /* raw bytes inside TLS, whatever the ALPN */
    PREFACE_PASSTHROUGH, /* raw bytes, TLS and all */
};

/*
 * Takes over the events of a plain stream that was just accepted. is_tls: TLS follows, with the proxy's server at that
 * time; else cleartext HTTP. A custom domain that no record has waits here for its look-up.
 */
void preface_begin(struct connection *connection, bool is_tls);

/* After the handshake of a connection with PREFACE_SNIFF and no ALPN. sni: of the client, copied. */
void preface_sniff(struct connection *connection, struct slice sni);

/* Forgets the connection's preface, if it has one; its stream is the caller's. */
void preface_end(struct connection *connection);

#endif
