/*
 * worker: one thread that carries traffic: a loop, its listeners, its data path.
 *
 * Made, told and joined by the control thread; everything between happens through messages to its loop. What is told to
 * one that has ended is done at once: there is nothing left that it could change.
 */
#ifndef GATEWAY_WORKER_H
#define GATEWAY_WORKER_H

#include "gateway/control/config.h"
#include "gateway/net/cert_custom.h"
#include "gateway/net/tls.h"
#include "gateway/proxy/access_log.h"
#include "gateway/route/route_table.h"

struct domain_question;
struct health_survey;
struct worker;

struct worker_params {
    unsigned index;
    const struct config *config; /* borrowed during worker_start */
    struct route_table *table;
    struct access_log *log;
    struct tls_server *tls;   /* passes to the worker */
    const int *listening;     /* sockets in the order of config->listeners; pass to the worker */
    struct loop *control;     /* where `ended` is called */
    void (*ended)(void *arg); /* the thread is over */
    void *arg;
};

struct worker *worker_start(const struct worker_params *params);
/* Once it has `ended`. */
void worker_join(struct worker **worker);

/* For connections from now on; both may be NULL (unchanged); both pass to the worker. */
void worker_reload(struct worker *worker, struct settings *settings, struct tls_server *tls);
void worker_set_ticket_keys(struct worker *worker, const struct tls_ticket_keys *keys);
/* Serves this uploaded certificate, or none any more under this name when it is NULL; `applied` is then called on the
 * control thread's loop. */
void worker_set_certificate(struct worker *worker, struct slice name, struct cert_custom *cert,
                            void (*applied)(void *arg), void *arg);
void worker_revoke(struct worker *worker, struct claim *claim);

/* Answers by health_survey_answered on the control thread. */
void worker_survey(struct worker *worker, struct health_survey *survey);
/* Answers by domain_question_answered on the control thread. */
void worker_ask(struct worker *worker, struct domain_question *question);

/* Stops accepting, ends what is idle, ends itself when the last exchange is over. */
void worker_drain(struct worker *worker);
/* The same at once. */
void worker_close(struct worker *worker);

/* What apps do there; may be read while the worker is. */
const struct app_traffic *worker_traffic(const struct worker *worker);
const struct counters *worker_counters(const struct worker *worker);

/* For the watchdog: asks the loop for a turn; true if it has made one since the last call. */
bool worker_is_alive(struct worker *worker);

#endif
