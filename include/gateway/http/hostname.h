/*
 * hostname: the grammar of the gateway's host names (DESIGN section 2): <id>[-[<port>][s|g]].<base domain>.
 *
 * Pure. Input is a host without port, any letter case, with or without a final dot.
 */
#ifndef GATEWAY_HTTP_HOSTNAME_H
#define GATEWAY_HTTP_HOSTNAME_H

#include "gateway/base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum { HOSTNAME_MAX_LABEL = 63, HOSTNAME_MAX = 253, HOSTNAME_DEFAULT_PORT = 80, HOSTNAME_DEFAULT_TLS_PORT = 443 };

enum hostname_kind {
    HOSTNAME_APP,     /* <id>[-…].<base domain> */
    HOSTNAME_HEALTH,  /* health.<base domain> */
    HOSTNAME_BASE,    /* the base domain itself */
    HOSTNAME_CUSTOM,  /* a valid host name under no base domain */
    HOSTNAME_INVALID, /* not a host name, or not of the form above under a base domain */
};

enum hostname_mode { HOSTNAME_MODE_DEFAULT, HOSTNAME_MODE_PASSTHROUGH, HOSTNAME_MODE_GRPC };

struct hostname {
    enum hostname_kind kind;
    enum hostname_mode mode;
    uint16_t port;
    bool has_port;                      /* the name gives the port itself */
    uint8_t base_index;                 /* into the base domains that were given; for APP, HEALTH, BASE */
    uint8_t id_len;                     /* lower-cased id: for APP */
    uint8_t whole_len;                  /* lower-cased first label: for APP */
    char label[HOSTNAME_MAX_LABEL + 1]; /* the first label in lower case; the id is its first id_len bytes */
};

/*
 * Splits `host`. base_domains are in lower case without dots at the ends; the longest that matches wins. Every input
 * gives a result. A label such as "abc-99999" has no valid port suffix: its id is then the whole label.
 */
void hostname_parse(struct slice host, const struct slice *base_domains, size_t base_count, struct hostname *ret);

static inline struct slice hostname_id(const struct hostname *h)
{
    return slice_make(h->label, h->id_len);
}

/* The first label whole; an exact instance or app id equal to it wins over the split form. */
static inline struct slice hostname_label(const struct hostname *h)
{
    return slice_make(h->label, h->whole_len);
}

/* [a-z0-9]([a-z0-9-]*[a-z0-9])?, at most 63 bytes: a valid app or instance id. */
bool hostname_is_id(struct slice id);

/*
 * The host as names of records are written, in lower case and without a final dot. Returns its length; 0 if it is
 * longer than a name can be.
 */
size_t hostname_plain(struct slice host, char ret_name[HOSTNAME_MAX + 1]);

/* A DNS host name in lower case of at least one label: letters, digits, hyphens, dots. */
bool hostname_is_dns_name(struct slice name);

#endif
