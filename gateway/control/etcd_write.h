/*
 * etcd_write: what calls of the control API want goes to etcd, and is done when the own watch has brought it back.
 * Private to the etcd files.
 *
 * The writes of one group go in txns of bounded size, one after another; each is all or nothing, and happens only if
 * the apps are in etcd as the table has them, where that matters. A txn whose end is not known is sent again, to
 * another member: it changes nothing twice.
 */
#ifndef GATEWAY_CONTROL_ETCD_WRITE_H
#define GATEWAY_CONTROL_ETCD_WRITE_H

#include "etcd_routes.h"
#include "gateway/control/etcd_client.h"

struct etcd_write;

struct etcd_write_params {
    struct loop *loop;
    struct etcd_client *client;
    const struct etcd_routes *routes;
    struct slice prefix;
    /* NULL while the routes follow etcd, else why they don't. */
    const char *(*away)(void *arg);
    /* They did a moment ago, and may soon again. */
    bool (*is_brief)(void *arg);
    /* A member has failed, and another one is in use. */
    void (*moved)(void *arg);
    void *arg;
};

struct etcd_write *etcd_write_new(const struct etcd_write_params *params);
/* What is being written is answered with SHUTDOWN. Accepts NULL. */
void etcd_write_free(struct etcd_write **write);

/* For changes_set_gate; lives as long as the write. */
const struct changes_gate *etcd_write_gate(const struct etcd_write *write);

/* The table has taken something over. */
void etcd_write_applied(struct etcd_write *write);

#endif
