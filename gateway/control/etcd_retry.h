/*
 * etcd_retry: apps that were left out because another one has their address or name are asked for again, one after the
 * other, when something has changed: it may have been freed. Private to the etcd files.
 *
 * While the watch goes on. What it brings counts: an answer that comes after it changes nothing.
 */
#ifndef GATEWAY_CONTROL_ETCD_RETRY_H
#define GATEWAY_CONTROL_ETCD_RETRY_H

#include "etcd_routes.h"
#include "gateway/control/etcd_client.h"

struct etcd_retry;

struct etcd_retry_params {
    struct loop *loop;
    struct etcd_client *client;
    struct etcd_routes *routes;
    struct slice prefix;
};

struct etcd_retry *etcd_retry_new(const struct etcd_retry_params *params);
/* Accepts NULL. */
void etcd_retry_free(struct etcd_retry **retry);

/* The watch begins, or the table has taken something over: soon, if there are such apps. */
void etcd_retry_arm(struct etcd_retry *retry);
/* The watch is over. */
void etcd_retry_stop(struct etcd_retry *retry);

#endif
