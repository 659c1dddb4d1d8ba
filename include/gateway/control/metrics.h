/*
 * metrics: what the program counts, as Prometheus text (exposition format 0.0.4).
 *
 * Pure but for metrics_process_read, which asks the kernel about this process.
 */
#ifndef GATEWAY_CONTROL_METRICS_H
#define GATEWAY_CONTROL_METRICS_H

#include "gateway/base/counters.h"
#include "gateway/control/etcd_sync.h"
#include "gateway/control/sync.h"

#include <stdbool.h>

struct metrics_process {
    uint64_t rss_bytes;
    uint64_t cpu_us; /* user and system, all threads */
    uint64_t open_fds;
    uint64_t max_fds;
};

struct metrics_facts {
    const struct counters *totals; /* of all workers */
    uint64_t apps;
    uint64_t instances;
    uint64_t revision;
    uint64_t routes_left_out;
    uint64_t certificates;         /* uploaded */
    int64_t certificate_not_after; /* of the first to end, seconds since 1970; 0: none is known */
    unsigned workers;
    bool ready;
    bool draining;
    bool reload_failed;
    uint64_t started_wall_us;
    bool has_etcd;
    struct etcd_sync_status etcd;
    struct metrics_process process;
    struct sync_status sync;
};

/* What cannot be read stays 0. */
void metrics_process_read(struct metrics_process *ret_process);

/* The text, malloc'ed and NUL-terminated. */
char *metrics_format(const struct metrics_facts *facts);

#endif
