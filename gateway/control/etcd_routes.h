/*
 * etcd_routes: the fleet's app documents on their way from etcd into the table. Private to the etcd files.
 *
 * A load is everything at one revision and becomes a MIRROR of the table; afterwards each batch of a watch becomes a
 * DELTA. While one is being committed, what comes gathers in the next. A document that is no good is left out alone:
 * the app stays as it was.
 */
#ifndef GATEWAY_CONTROL_ETCD_ROUTES_H
#define GATEWAY_CONTROL_ETCD_ROUTES_H

#include "gateway/control/changes.h"

struct etcd_routes;

struct etcd_routes_params {
    struct changes *changes;
    struct route_table *table;
    /* The table has everything up to the revision, or the store has failed and nothing more was applied. */
    void (*applied)(void *arg, enum status status, const char *text);
    void *arg;
};

struct etcd_routes *etcd_routes_new(const struct etcd_routes_params *params);
/* What is being committed goes on, without a word. Accepts NULL. */
void etcd_routes_free(struct etcd_routes **routes);

/* Forgets what was gathered and is not being committed; what follows is a load. */
void etcd_routes_begin_load(struct etcd_routes *routes);
void etcd_routes_put(struct etcd_routes *routes, struct slice app_id, struct slice document, uint64_t mod_revision);
void etcd_routes_delete(struct etcd_routes *routes, struct slice app_id, uint64_t mod_revision);
/* How many apps the load has. */
size_t etcd_routes_loaded(const struct etcd_routes *routes);
/* Nothing of the load is to be taken. */
void etcd_routes_abandon(struct etcd_routes *routes);
/* A load, or a batch of a watch, is complete: the table takes this revision with it. */
void etcd_routes_commit(struct etcd_routes *routes, uint64_t revision);

/* Up to which revision of etcd the table has everything; 0: unknown. */
uint64_t etcd_routes_revision(const struct etcd_routes *routes);
/* `applied` is to come. */
bool etcd_routes_is_committing(const struct etcd_routes *routes);
/* What waits for a commit to end is enough: read no more until `applied`. */
bool etcd_routes_is_full(const struct etcd_routes *routes);

/* Those that etcd has, but the table not, or not so. */
size_t etcd_routes_left_out(const struct etcd_routes *routes);
bool etcd_routes_is_left_out(const struct etcd_routes *routes, struct slice app_id);
void etcd_routes_left_out_each(const struct etcd_routes *routes, void (*each)(void *arg, const char *app_id),
                               void *arg);
/* The app's problem if its document of this revision was left out, else NULL. */
const struct route_problem *etcd_routes_problem(const struct etcd_routes *routes, struct slice app_id,
                                                uint64_t mod_revision);
/*
 * Apps that were left out for a conflict with another may be right later: the next one after `after` (NULL: the first)
 * and the revision of its document; NULL at the end.
 */
const char *etcd_routes_next_conflict(const struct etcd_routes *routes, const char *after, uint64_t *ret_revision);
/*
 * The document of such an app, as it was read again, is committed once more; nothing if something newer has been heard
 * of the app. False: not now, as only a part of a revision is there, and revisions are committed whole.
 */
MUST_CHECK bool etcd_routes_put_again(struct etcd_routes *routes, struct slice app_id, struct slice document,
                                      uint64_t mod_revision);
/* It is not in etcd any more, unless something newer has been heard of it. */
void etcd_routes_forget_conflict(struct etcd_routes *routes, struct slice app_id, uint64_t revision);

#endif
