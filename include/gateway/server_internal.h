/*
 * server_internal: the inside of the server: server.c (start, signals, end), server_reload.c (certificates and reload),
 * server_control.c (the control API's listeners), server_sync.c (where the routes come from).
 */
#ifndef GATEWAY_SERVER_INTERNAL_H
#define GATEWAY_SERVER_INTERNAL_H

#include "gateway/base/log.h"
#include "gateway/control/api.h"
#include "gateway/control/certs.h"
#include "gateway/control/changes.h"
#include "gateway/control/etcd_sync.h"
#include "gateway/control/fetch.h"
#include "gateway/control/store.h"
#include "gateway/control/sync.h"
#include "gateway/net/cert_store.h"
#include "gateway/proxy/frontend.h"
#include "gateway/proxy/proxy.h"
#include "gateway/server.h"
#include "gateway/worker.h"

#include <sys/types.h>

/* One listener of the control API. */
struct server_control {
    struct api_listener listener; /* with the token, owned */
    struct frontend *frontend;
    char *unix_path; /* NULL: TCP */
    dev_t unix_dev;  /* of the socket file, which is removed at the end if it is still this one */
    ino_t unix_ino;
};

/* What a reload cannot change. */
enum { SERVER_FIXED_SECTIONS = 8 };

struct server {
    struct config *config;  /* in force */
    struct config *started; /* what the process began with: its listeners, workers and files; may be the same object */
    struct loop *loop;      /* the control thread's */
    struct counters *counters;
    struct store *store;
    struct route_table *table;
    struct changes *changes;
    struct certs *certs;
    struct fetcher *fetcher;
    struct etcd_sync *etcd;      /* NULL: no etcd */
    struct fleet_key *fleet_key; /* NULL: none */
    struct sync *sync;
    struct api *api;
    struct access_log *access_log;
    struct cert_snapshot *certificates;
    struct tls_ticket_keys ticket_keys;
    struct proxy *control_proxy;
    struct server_control *controls;
    size_t control_count;
    struct worker **workers;
    const struct app_traffic **traffic; /* of each worker, its own */
    unsigned worker_count;
    unsigned workers_ended;
    struct loop_watch *signal_watch;
    struct loop_watch *usr1_watch;
    int signal_fd;
    struct timer drain_timer;
    uint64_t drain_until_ms;
    struct timer arrived_timer; /* when it ends, what control connections had brought has been read */
    struct timer ticket_timer;
    struct timer watchdog_timer;
    uint64_t started_wall_us;
    bool ready;
    bool draining;
    bool fast;     /* INT or QUIT: nothing is waited for */
    bool must_end; /* that, or the drain's deadline: no client gets more time for last bytes */
    char reload_error[SERVER_ERROR_TEXT_MAX];
    const char *needs_restart[SERVER_FIXED_SECTIONS + 1]; /* sections whose new value waits for that; ends with NULL */
};

void server_drain(struct server *server);
void server_worker_ended(void *arg);

/* When the routes of the store are loaded; and before the changes are freed. */
void server_start_sync(struct server *server);
void server_stop_sync(struct server *server);

/* Reads configuration and certificates again; what is bad leaves everything as it was. */
void server_reload(struct server *server);

MUST_CHECK enum status server_load_certificates(const struct config *config, struct cert_snapshot **ret_snapshot,
                                                char ret_error[SERVER_ERROR_TEXT_MAX]);
/* Hands an uploaded certificate to all workers; a certs_publish_cb. */
void server_publish_certificate(void *arg, struct slice name, struct cert_custom *cert, void (*done)(void *done_arg),
                                void *done_arg);
/* A TLS server for one worker. */
MUST_CHECK enum status server_make_tls(struct server *server, struct tls_server **ret_tls,
                                       char ret_error[SERVER_ERROR_TEXT_MAX]);

/* What callers of the control listeners show, and what they are shown; in the order of config->controls. Owned by who
 * holds them. */
struct server_control_keys {
    struct slice token;     /* empty: none */
    struct tls_server *tls; /* NULL: a unix socket */
};
MUST_CHECK enum status server_load_control_keys(const struct config *config,
                                                struct server_control_keys ret_keys[CONFIG_MAX_LISTENERS],
                                                char ret_error[SERVER_ERROR_TEXT_MAX]);
void server_free_control_keys(struct server_control_keys *keys, size_t count);
/* The listener of this configuration that is at the same place, or NULL. */
const struct config_control *server_find_control(const struct config *config, const struct config_control *control);
/*
 * Takes the keys of this configuration, for the listeners that the process has: for new connections their certificates
 * and client CAs, for every request from now on the tokens and whether a client certificate must have been shown.
 */
void server_set_control_keys(struct server *server, const struct config *config, struct server_control_keys *keys);
void server_init_controls(struct server *server);
MUST_CHECK enum status server_start_controls(struct server *server, char ret_error[SERVER_ERROR_TEXT_MAX]);
/* Ends the loop when the calls in progress are over. */
void server_end_controls(struct server *server);
void server_free_controls(struct server *server);

MUST_CHECK enum status server_check_sync(const struct config *config, char ret_error[SERVER_ERROR_TEXT_MAX]);
/* The key in use is the one that its file has now. */
bool server_has_fleet_key_of(const struct server *server, const struct config *config);
/* What a reload changes. */
void server_apply_sync(struct server *server);

#endif
