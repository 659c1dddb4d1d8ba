/*
 * settings: what the data path needs of the configuration, as an immutable snapshot that threads share.
 *
 * Made by control/config, reference-counted: a worker holds the newest, each connection holds the one it began with.
 */
#ifndef GATEWAY_PROXY_SETTINGS_H
#define GATEWAY_PROXY_SETTINGS_H

#include "gateway/base/ip.h"
#include "gateway/mux/endpoint.h"
#include "gateway/route/route_record.h"

#include <stdatomic.h>

/* Passive ejection of instances, see proxy/health. */
struct ejection_settings {
    uint32_t failures;      /* 5: in a row, that eject; 0: never */
    uint32_t base_ms;       /* 1 s: the first pause, doubled each time */
    uint32_t max_ms;        /* 60 s */
    uint32_t panic_percent; /* 50: with more of an app's instances ejected than that, all are used */
    bool server_errors;     /* off: the app's own answers 500 to 599 count as failures too */
};

struct settings {
    _Atomic uint32_t refs;

    struct slice *base_domains; /* lower case; index = identity in the certificate snapshot */
    size_t base_domain_count;
    struct ip_network *trusted_proxies;
    size_t trusted_proxy_count;
    struct route_rules rules; /* with upstream.allow and the gateway's own listeners */

    struct mux_settings mux;
    uint32_t proxy_header_ms;       /* 5 s: the PROXY header of a listener that requires it */
    uint32_t handshake_ms;          /* 10 s */
    uint32_t sniff_ms;              /* 1 s: for the first bytes of a client that negotiated no protocol */
    uint32_t connect_ms;            /* 5 s */
    uint32_t first_byte_ms;         /* 300 s: from the request to the response head */
    uint32_t response_idle_ms;      /* 600 s: between pieces of a response */
    uint32_t tunnel_idle_ms;        /* 600 s */
    uint32_t upstream_idle_ms;      /* 55 s: of a pooled connection */
    uint32_t max_retries;           /* 2 */
    uint32_t max_connections;       /* client connections of one worker */
    uint32_t max_idle_per_instance; /* pooled connections of one worker to one instance */
    struct ejection_settings ejection;
};

/*
 * Zeroed but for one reference and the default limits and deadlines of DESIGN. Arrays (also those of rules) and the
 * text of each base domain are malloc'ed and owned.
 */
struct settings *settings_new(void);
struct settings *settings_ref(const struct settings *settings);
void settings_unref(struct settings **settings); /* accepts NULL; frees at zero */

bool settings_is_trusted(const struct settings *settings, const struct ip_addr *peer);

#endif
