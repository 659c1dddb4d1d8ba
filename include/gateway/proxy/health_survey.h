/*
 * health_survey: asks all workers what they know against one port of some instances: each worker ejects and checks for
 * itself. Made and read on the control thread; the questions travel by loop_post.
 */
#ifndef GATEWAY_PROXY_HEALTH_SURVEY_H
#define GATEWAY_PROXY_HEALTH_SURVEY_H

#include "gateway/proxy/proxy.h"

#include <stdatomic.h>

struct health_survey_item {
    uint64_t serial;           /* of the instance's claim */
    _Atomic uint32_t ejected;  /* workers that send it nothing for now, because requests failed */
    _Atomic uint32_t down;     /* workers whose active check finds it down */
    _Atomic uint32_t failures; /* in a row, summed over workers */
};

struct health_survey {
    uint16_t port;
    size_t count;
    struct health_survey_item *items;
    unsigned asked; /* workers */
    unsigned answered;
    bool is_closed; /* its owner has left */
    void (*done)(void *arg);
    void *arg;
};

/* done(arg) is called on the control thread when all that were asked have answered, unless it was closed before. */
struct health_survey *health_survey_new(uint16_t port, size_t count, void (*done)(void *arg), void *arg);
/* Its owner's last word; the memory goes when the last worker has answered. Accepts NULL. */
void health_survey_close(struct health_survey **survey);

/* On a worker. */
void health_survey_look(struct health_survey *survey, const struct proxy *proxy);
/* On the control thread, once for each worker that was asked; takes the survey as void * for loop_post. */
void health_survey_answered(void *survey);

#endif
