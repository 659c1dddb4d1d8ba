/*
 * health: what one loop knows against ports of instances: failures in a row, and the pause in which a port is not
 * chosen (passive ejection). Nothing is kept of what works: an entry is made by a failure and ends with a success.
 *
 * A verdict belongs to a claim, so to one boot at one address, and to one port: it never hits the next boot, and a
 * port that nobody listens on says nothing about the others. Memory is bounded; the oldest verdicts go first.
 */
#ifndef GATEWAY_PROXY_HEALTH_H
#define GATEWAY_PROXY_HEALTH_H

#include "gateway/net/loop.h"
#include "gateway/proxy/settings.h"
#include "gateway/route/claims.h"

struct health;

enum {
    HEALTH_MAX_ENTRIES = 16384,
    HEALTH_MAX_PORTS = 64, /* of one claim */
};

struct health *health_new(struct loop *loop);
void health_free(struct health **health);

/*
 * A connection or request failed on the side of the instance that has the claim. True if that ejected the port. `id`
 * is the instance's, for the log. `random` spreads the ends of pauses.
 */
bool health_failed(struct health *health, const struct ejection_settings *settings, const struct claim *claim,
                   struct slice id, uint16_t port, enum status why, uint64_t random);

/* One that began at asked_us was answered: ends what is held against the port, unless it failed again since. */
void health_succeeded(struct health *health, uint64_t serial, uint16_t port, uint64_t asked_us);

/* The claim is gone. */
void health_forget(struct health *health, uint64_t serial);

struct health_verdict {
    uint32_t failures; /* in a row, not long ago */
    bool is_ejected;
};
struct health_verdict health_look(const struct health *health, uint64_t serial, uint16_t port);

/* How many entries there are: while it is 0 nothing needs to be looked at. */
size_t health_count(const struct health *health);

#endif
