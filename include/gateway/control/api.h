/*
 * api: the control API of DESIGN section 4 as a local service on the control thread: routes, probes, metrics, status.
 *
 * Errors are application/problem+json (RFC 9457) with `code`, `field` and `detail`.
 */
#ifndef GATEWAY_CONTROL_API_H
#define GATEWAY_CONTROL_API_H

#include "gateway/base/counters.h"
#include "gateway/control/certs.h"
#include "gateway/control/changes.h"
#include "gateway/control/etcd_sync.h"
#include "gateway/control/sync.h"
#include "gateway/proxy/local.h"

struct access_log;
struct api;
struct app_traffic;
struct domain_question;
struct health_survey;

/* What the program tells about itself; filled by main on the control thread each time it is asked. */
struct api_status {
    struct counters totals; /* of all workers */
    unsigned workers;
    const struct app_traffic *const *traffic; /* of each worker */
    uint64_t started_wall_us;
    bool ready; /* listeners open, routes loaded, not draining */
    bool draining;
    bool has_etcd;
    struct etcd_sync_status etcd; /* if it has one */
    const char *config_path;
    const char *last_reload_error;    /* "" if the last reload worked */
    const char *const *needs_restart; /* sections of the file that changed since the start, ends with NULL */
    struct sync_status sync;
};

struct api_params {
    struct loop *loop;
    struct route_table *table;
    struct changes *changes;
    struct certs *certs;
    struct access_log *access_log;
    const struct slice *base_domains; /* borrowed until api_set_base_domains */
    size_t base_domain_count;
    void (*status)(void *arg, struct api_status *ret_status);
    /* Asks all workers, and at least one; see health_survey. */
    void (*survey)(void *arg, struct health_survey *survey);
    /* Asks a worker; see domain_question. */
    void (*ask)(void *arg, struct domain_question *question);
    void (*drain)(void *arg);  /* as SIGTERM */
    void (*reload)(void *arg); /* as SIGHUP; status then tells how it went */
    void *arg;
};

struct api *api_new(const struct api_params *params);
void api_free(struct api **api);
/* The process ends: streams that have no end of their own get one, also those that begin later. Other calls go on. */
void api_end_streams(struct api *api);
void api_set_base_domains(struct api *api, const struct slice *base_domains, size_t count);

/* What calls on this listener need; nothing on a unix socket, whose file mode is the authentication. */
struct api_listener {
    struct api *api;
    struct slice token;     /* empty: none */
    bool needs_certificate; /* also of connections that are older than this */
};

/* For local_open(loop, &api_service, struct api_listener *). */
extern const struct local_service api_service;

#endif
