/*
 * compose_plan: what registering a Compose project makes of an app's document, and how two documents differ.
 *
 * Pure: documents in, documents out. The files decide which ports there are, and what they say about them; what they
 * don't know stays: the protocol and PROXY header of a port that they are silent about, its check, domains, limits,
 * restrict_ports, and instances that others have registered.
 */
#ifndef GATEWAY_CTL_COMPOSE_PLAN_H
#define GATEWAY_CTL_COMPOSE_PLAN_H

#include "gateway/ctl/compose.h"

#include <jansson.h>

struct compose_wish {
    const char *app_id;
    const struct compose *compose;
    const char *address;  /* of the instance to register; NULL: instances stay as they are */
    const char *instance; /* its id; NULL: the one at this address, else APP-i1 */
    bool has_generation;  /* else the instance keeps its own; 1 for a new one */
    json_int_t generation;
};

/*
 * The new document, without revision. `stored` is what the gateway has of the app, `replaced` what it has of the app
 * whose place this one takes; each may be NULL. Of the latter come the domains and, unless the app has its own,
 * the instances, the limits and what is known of its ports.
 */
json_t *compose_plan(const json_t *stored, const json_t *replaced, const struct compose_wish *wish);

/*
 * The changes from one document (NULL: there is none) to another, as an array of {"change":"added"|"removed"|"changed",
 * "what":"app"|"port"|"domain"|"limit"|"instance"|"restrict_ports","key":…,"from":…,"to":…}.
 */
json_t *compose_diff(const json_t *from, const json_t *to);
/* Another app goes, with those of its instances that its successor does not have. */
void compose_diff_remove_app(json_t *changes, const json_t *app, const json_t *successor);
/* For people: one line each, "+ port 80: protocol auto", "~ port 81: protocol auto -> http", "- domain …". */
void compose_diff_print(const json_t *changes, FILE *out);

/* The document's member `list` whose `key` is equal to the value; NULL: none. */
const json_t *compose_document_item(const json_t *document, const char *list, const char *key, const json_t *value);

#endif
