/*
 * resolver: asks the DNS for TXT records from one loop, without ever blocking it (c-ares: UDP, TCP when an answer is
 * truncated, the next server when one does not answer).
 *
 * Hands out the whole answer as it came; what it means is the asker's business. No cache.
 */
#ifndef GATEWAY_NET_RESOLVER_H
#define GATEWAY_NET_RESOLVER_H

#include "gateway/base/status.h"
#include "gateway/net/loop.h"

enum { RESOLVER_ERROR_TEXT_MAX = 256 };

struct resolver;
struct resolver_query;

struct resolver_options {
    const char *servers; /* "192.0.2.1:53,[2001:db8::1]:53"; NULL: those of /etc/resolv.conf */
    uint32_t try_ms;     /* until a question is repeated; the second time waits twice as long */
};

enum resolver_result {
    RESOLVER_ANSWER,  /* the message may still lack what was asked for */
    RESOLVER_NOTHING, /* there is no such name, or it has no TXT record */
    RESOLVER_FAILED,  /* no server answered, or it could not (SERVFAIL, REFUSED) */
};

typedef void (*resolver_cb)(void *arg, enum resolver_result result, const uint8_t *message, size_t len);

/* Reads /etc/resolv.conf: before the loop runs. On failure the text says why. */
MUST_CHECK enum status resolver_new(struct loop *loop, const struct resolver_options *options,
                                    struct resolver **ret_resolver, char ret_error[RESOLVER_ERROR_TEXT_MAX]);
/* What was asked and has no answer yet is forgotten; the askers cancel before. Accepts NULL. */
void resolver_free(struct resolver **resolver);

/* `done` is called once, from the loop, unless the query is cancelled before; its memory is the resolver's. */
struct resolver_query *resolver_query_txt(struct resolver *resolver, const char *name, resolver_cb done, void *arg);
void resolver_cancel(struct resolver_query **query); /* accepts NULL */

#endif
