/*
 * checks: active checks of the ports that ask for one in their record. Each loop checks what it sends requests to: a
 * check begins with the first request for the port and ends some minutes after the last one, so a table of a million
 * apps costs nothing, and a worker's verdict is about what that worker can reach.
 *
 * A port is up until `fall` checks in a row have failed, then down until `rise` have succeeded. TCP: it accepts. HTTP:
 * a GET is answered with 200 to 399; redirects are not followed. Verdicts belong to a claim, as those of proxy/health.
 *
 * Checks whose time has come and that find no room wait: first in, first out within an app, and apps take turns.
 */
#ifndef GATEWAY_PROXY_CHECKS_H
#define GATEWAY_PROXY_CHECKS_H

#include "gateway/proxy/proxy.h"

struct checks;

enum {
    CHECKS_MAX = 16384,
    CHECKS_MAX_RUNNING = 64, /* at once; others wait for their turn */
    CHECKS_MAX_OF_APP = 8,   /* of these, so that slow checks of one app do not keep others waiting */
    CHECKS_UNUSED_MS = 600000,
};

struct checks *checks_new(struct proxy *proxy);
void checks_free(struct checks **checks); /* after checks_stop, when nothing is running */

/*
 * A request for this port of the app is about to choose an instance: those that can be chosen are checked from now on.
 * Inside a read section. False: the port has no check.
 */
bool checks_watch(struct checks *checks, const struct route_app *app, uint16_t port);

bool checks_is_down(const struct checks *checks, uint64_t serial, uint16_t port);

/* The claim is gone. */
void checks_forget(struct checks *checks, uint64_t serial);

/* Ends all; those that are running end with the turn. */
void checks_stop(struct checks *checks);

size_t checks_count(const struct checks *checks);
unsigned checks_running(const struct checks *checks);

#endif
