/*
 * traffic_report: what the apps did between two moments, from the app_traffic of all workers: rates, latencies, what is
 * in progress; the busiest first.
 */
#ifndef GATEWAY_PROXY_TRAFFIC_REPORT_H
#define GATEWAY_PROXY_TRAFFIC_REPORT_H

#include "gateway/proxy/app_traffic.h"

/* Gauges are as they are now, counters the increase. */
struct traffic_report {
    struct app_traffic_copy *rows; /* apps with something in progress or some increase, each once */
    size_t count;
    struct app_traffic_copy others; /* of apps that found no entry */
    struct app_traffic_copy total;  /* of all, with the others */
};

/* The first moment. */
struct traffic_sample;
struct traffic_sample *traffic_sample_take(const struct app_traffic *const *workers, size_t count);
void traffic_sample_free(struct traffic_sample **sample); /* accepts NULL */

/* From the sample, which must be of the same workers, until now. */
struct traffic_report *traffic_report_new(const struct traffic_sample *before, const struct app_traffic *const *workers,
                                          size_t count);
void traffic_report_free(struct traffic_report **report); /* accepts NULL */

/* requests, active, p50, p99, errors, in, out, app: the greatest first, but for app. False: there is no such order. */
bool traffic_report_sort(struct traffic_report *report, struct slice order);

#endif
