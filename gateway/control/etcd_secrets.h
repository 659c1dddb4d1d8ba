/*
 * etcd_secrets: uploaded certificates and session ticket keys that the gateways of a fleet share through etcd, sealed
 * with the fleet's key (net/fleet_key). Private to the etcd files.
 *
 *   <prefix>certificates/<name>   {"certificate": PEM, "private_key": sealed PKCS #8 PEM in base64}, or {"deleted":
 * true} <prefix>tickets/<period>      a sealed struct tls_ticket_key (control/ticket_ring)
 *
 * A certificate that is deleted leaves its mark, so that a gateway that was away learns of it; one that is only here
 * stays. What can't be opened or is no good is said once, counted, and changes nothing; what can't be stored is counted
 * too, and tried until it can.
 */
#ifndef GATEWAY_CONTROL_ETCD_SECRETS_H
#define GATEWAY_CONTROL_ETCD_SECRETS_H

#include "gateway/control/certs.h"
#include "gateway/control/etcd_client.h"
#include "gateway/net/fleet_key.h"
#include "gateway/net/tls.h"

struct etcd_secrets;

struct etcd_secrets_params {
    struct loop *loop;
    struct etcd_client *client;
    const struct fleet_key *key;
    struct certs *certs;
    struct slice prefix;
    const char *(*away)(void *arg); /* as in etcd_write */
    void (*moved)(void *arg);
    void *arg;
    /* Use these from now on. */
    void (*set_ticket_keys)(void *arg, const struct tls_ticket_keys *keys);
    void *set_arg;
};

struct etcd_secrets *etcd_secrets_new(const struct etcd_secrets_params *params);
/* Calls that wait are answered with SHUTDOWN. Accepts NULL. */
void etcd_secrets_free(struct etcd_secrets **secrets);

/* All there is will be taken: what was no good may not be there any more. */
void etcd_secrets_begin_load(struct etcd_secrets *secrets);
/* A key under the prefix, which the name is without; true if it is one of these. */
bool etcd_secrets_take(struct etcd_secrets *secrets, struct slice name, const struct etcd_wire_kv *kv);
/* All there is has been taken, and changes arrive: missing ticket keys are made. */
void etcd_secrets_following(struct etcd_secrets *secrets);

size_t etcd_secrets_left_out(const struct etcd_secrets *secrets);
/* The fleet's ticket keys are in use: nobody else may make some. */
bool etcd_secrets_has_ticket_keys(const struct etcd_secrets *secrets);

#endif
