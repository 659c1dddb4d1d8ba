/*
 * etcd_sync: follows the fleet's keys in etcd. Loads all of them at one revision, then watches from there.
 *
 *   <prefix>apps/<app id>          one app document (control/app_document)
 *   <prefix>certificates/<name>    uploaded certificates, and
 *   <prefix>tickets/<period>       session ticket keys, both sealed with the fleet's key: etcd_secrets.h
 *   <prefix>format                 "1": this prefix belongs to a fleet, also when it has no apps (any more); before,
 *                                  an empty one changes nothing
 *
 * While a member can't be reached, or has lost its leader (a read that needs the majority fails), or the watch breaks,
 * the next member is asked, with jittered pauses, and the watch goes on where it was. What was asked for may be
 * compacted away, or the cluster be another one: then everything is loaded again. Meanwhile routes stay as they are.
 * Until etcd was heard, a table without routes is awaited (route_table_set_awaited). Lives on the control thread.
 */
#ifndef GATEWAY_CONTROL_ETCD_SYNC_H
#define GATEWAY_CONTROL_ETCD_SYNC_H

#include "gateway/control/certs.h"
#include "gateway/control/changes.h"
#include "gateway/control/config.h"
#include "gateway/control/fetch.h"
#include "gateway/net/fleet_key.h"
#include "gateway/net/tls.h"

struct etcd_sync;

/* All pointers are borrowed. */
struct etcd_sync_params {
    struct loop *loop;
    struct fetcher *fetcher;
    const struct config_etcd *config;
    struct changes *changes;
    struct route_table *table;
    struct certs *certs;
    const struct fleet_key *fleet_key; /* NULL: certificates and ticket keys stay with each gateway */
    void (*set_ticket_keys)(void *arg, const struct tls_ticket_keys *keys);
    void *arg;
};

/* Begins at once. */
struct etcd_sync *etcd_sync_new(const struct etcd_sync_params *params);
/* Before changes_free and certs_free. Accepts NULL. */
void etcd_sync_free(struct etcd_sync **sync);

/* The rules that documents are checked against are others: what was left out is looked at again. */
void etcd_sync_rules_changed(struct etcd_sync *sync);
/* The fleet's ticket keys are in use: there is nothing to rotate. */
bool etcd_sync_has_ticket_keys(const struct etcd_sync *sync);

struct etcd_sync_status {
    bool following;       /* loaded, and the member in use has lately shown that it has a leader */
    bool has_been;        /* ever since the start */
    uint64_t age_ms;      /* since it was last known that nothing is missing; of the start if it never was */
    uint64_t revision;    /* of etcd, that the table has */
    const char *endpoint; /* in use, or the next to be tried */
    const char *problem;  /* "" while following */
    size_t left_out;      /* keys that are not in force: no good, in conflict, or not to be stored */
    uint64_t failures;    /* of members */
    uint64_t loads;
};
void etcd_sync_status(const struct etcd_sync *sync, struct etcd_sync_status *ret_status);

#endif
