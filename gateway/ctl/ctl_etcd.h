/*
 * ctl_etcd: a fleet's etcd as gatewayctl talks to it, without a gateway (--etcd). Private to the etcd commands.
 */
#ifndef GATEWAY_CTL_CTL_ETCD_H
#define GATEWAY_CTL_CTL_ETCD_H

#include "ctl.h"
#include "gateway/control/etcd_wire.h"

enum { CTL_ETCD_MAX_ENDPOINTS = 16, CTL_ETCD_MAX_OPS = 100 };

struct ctl_etcd {
    const struct ctl_options *options;
    char *list; /* of endpoints, cut into pieces */
    const char *endpoints[CTL_ETCD_MAX_ENDPOINTS];
    size_t count;
    size_t current;
    char *prefix; /* begins and ends with a slash */
    char *token;  /* NULL: none */
};

/* Reads the options. Everything here says on stderr what is wrong. */
enum ctl_exit ctl_etcd_open(const struct ctl_options *options, struct ctl_etcd *ret_etcd);
void ctl_etcd_close(struct ctl_etcd *etcd);
/* The options are sound; else says why not. */
bool ctl_etcd_check(const struct ctl_options *options);

/* The key of an app, malloc'ed. */
char *ctl_etcd_key(const struct ctl_etcd *etcd, const char *app_id);
/* That part of an app's key. */
struct slice ctl_etcd_app_id(const struct ctl_etcd *etcd, struct slice key);

/* One key; `each` is not called if there is none. */
enum ctl_exit ctl_etcd_get(struct ctl_etcd *etcd, const char *key, etcd_wire_kv_cb each, void *arg);
/* All apps in the order of their ids, page by page, at one revision. False: no more, which is CTL_OK too. */
typedef bool (*ctl_etcd_each_cb)(void *arg, const struct etcd_wire_kv *kv);
enum ctl_exit ctl_etcd_each(struct ctl_etcd *etcd, ctl_etcd_each_cb each, void *arg);

/*
 * One txn of at most CTL_ETCD_MAX_OPS, if need be with the mark that the prefix is a fleet's, so that gateways take
 * what is there. CTL_OK with the answer also when an expectation did not hold. One with an expectation is sent once:
 * if it may have happened, that is said instead of asking another member.
 */
enum ctl_exit ctl_etcd_txn(struct ctl_etcd *etcd, const struct etcd_wire_op *ops, size_t count, bool with_mark,
                           struct etcd_wire_txn_answer *ret_answer);

/* ---- the commands with --etcd ---- */

/* Whether a snapshot that is read has come to its end (ctl_snapshot.c): told all of it, then asked. */
struct ctl_end;
void ctl_end_feed(struct ctl_end *end, const char *data, size_t len);
/* False after saying that it is not there. */
bool ctl_end_check(const struct ctl_end *end);

enum ctl_exit ctl_etcd_app_put(const struct ctl_options *options);
enum ctl_exit ctl_etcd_app_show(const struct ctl_options *options);
enum ctl_exit ctl_etcd_app_rm(const struct ctl_options *options);
enum ctl_exit ctl_etcd_app_ls(const struct ctl_options *options);
/* *ret_left_out: how many apps could not be saved, each of which has been named. */
enum ctl_exit ctl_etcd_snapshot_save(const struct ctl_options *options, FILE *out, size_t *ret_left_out);
enum ctl_exit ctl_etcd_snapshot_load(const struct ctl_options *options, FILE *in, struct ctl_end *end);

#endif
