/*
 * domains: which app and port a custom domain means, by DNS (DESIGN section 2): TXT records _dstack-app-address.<name>,
 * legacy _tapp-address.<name>, and _dstack-app-address-wildcard.<parent>, asked in this order until one says it.
 *
 * One per worker, with a cache: found for the record's TTL (1 s to 1 h), not found for 10 s. Look-ups of one name are
 * made once, however many wait; each takes at most `deadline_ms`. When a look-up fails, what was found before serves on
 * for up to an hour. What a route record says about a name comes first, always (see domains_resolve).
 */
#ifndef GATEWAY_PROXY_DOMAINS_H
#define GATEWAY_PROXY_DOMAINS_H

#include "gateway/net/resolver.h"
#include "gateway/route/route_table.h"
#include "gateway/wire/txt_record.h"

enum {
    DOMAINS_MAX_NAMES = 4096,  /* in the cache; names that nobody has go first, then the one used longest ago */
    DOMAINS_MAX_LOOKUPS = 256, /* at the same time; more are refused */
    DOMAINS_MIN_TTL = 1,       /* seconds */
    DOMAINS_MAX_TTL = 3600,
    DOMAINS_NEGATIVE_TTL = 10, /* also between two tries when the DNS fails */
    DOMAINS_STALE_TTL = 3600,  /* after its TTL, for when the DNS fails */
};

struct domains;

/* Takes the resolver; NULL: the DNS is not asked, every name is unknown to it. */
struct domains *domains_new(struct loop *loop, struct resolver *resolver, uint32_t deadline_ms);
void domains_free(struct domains **domains); /* nobody waits any more; accepts NULL */

enum domains_state {
    DOMAINS_KNOWN,   /* domains_resolve knows it, for now */
    DOMAINS_UNKNOWN, /* there is no such record, or too much is being looked up */
    DOMAINS_PENDING, /* being looked up */
};

/* Embedded by who waits for a name; zeroed at first. */
struct domains_wait {
    struct list link;
    void (*done)(struct domains_wait *wait, enum domains_state state);
};

/*
 * What is known of a custom name (lower case, no final dot); domains may be NULL. With PENDING, wait->done (set by the
 * caller) is called once from the loop with KNOWN or UNKNOWN, unless cancelled.
 */
enum domains_state domains_look_up(struct domains *domains, struct slice name, struct domains_wait *wait);
/* The look-up goes on for others and for the cache. Harmless if nothing is awaited. */
void domains_cancel(struct domains_wait *wait);

/* False: the DNS is not asked. Accepts NULL. */
bool domains_is_on(const struct domains *domains);
/* The same as domains_look_up for who does not wait; with KNOWN, what was found. */
enum domains_state domains_peek(struct domains *domains, struct slice name, struct txt_target *ret_target);

/*
 * Like route_table_resolve; a custom name that no route record has is resolved as the id and port that the DNS named,
 * by the app's own rules for the port. Never waits: a name that is not in the cache is looked up for later, and until
 * then HOST_UNKNOWN with *ret_pending set. One whose TTL has passed is used once more and refreshed. In a read section.
 */
void domains_resolve(struct domains *domains, const struct route_table *table, const struct hostname *hostname,
                     struct slice custom, struct route_target *ret_target, bool *ret_pending);
/* What a TXT record says, by the app's own rules for the port. In a read section. */
void domains_resolve_txt(const struct route_table *table, const struct txt_target *txt,
                         struct route_target *ret_target);

#endif
