#include "gateway/control/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define PREFIX "phala_gateway_"

enum kind { COUNTER, GAUGE };

static uint64_t read_rss_bytes(void)
{
    uint64_t total;
    uint64_t resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%" SCNu64 " %" SCNu64, &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t count_fds(void)
{
    uint64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            count++;
    closedir(dir);
    return count > 0 ? count - 1 : 0; /* one is the folder itself */
}

static uint64_t timeval_us(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_usec;
}

void metrics_process_read(struct metrics_process *ret_process)
{
    struct rusage usage;
    struct rlimit limit;
    *ret_process = (struct metrics_process){.rss_bytes = read_rss_bytes(), .open_fds = count_fds()};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        ret_process->cpu_us = timeval_us(usage.ru_utime) + timeval_us(usage.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        ret_process->max_fds = limit.rlim_cur;
}

static void write_head(FILE *out, const char *name, enum kind kind, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind == COUNTER ? "counter" : "gauge");
}

static void write_number(FILE *out, const char *name, enum kind kind, const char *help, uint64_t value)
{
    write_head(out, name, kind, help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void write_seconds(FILE *out, const char *name, enum kind kind, const char *help, uint64_t us)
{
    write_head(out, name, kind, help);
    fprintf(out, "%s %" PRIu64 ".%06" PRIu64 "\n", name, us / 1000000U, us % 1000000U);
}

static void write_totals(FILE *out, const struct counters *totals)
{
#define X(name, kind, help)                                                                                            \
    write_number(out, PREFIX #name, kind, help ".", atomic_load_explicit(&totals->name, memory_order_relaxed));
    COUNTERS_TABLE(X)
#undef X
}

static void write_process(FILE *out, const struct metrics_facts *facts)
{
    const struct metrics_process *process = &facts->process;
    write_number(out, "process_resident_memory_bytes", GAUGE, "Resident memory.", process->rss_bytes);
    write_seconds(out, "process_cpu_seconds_total", COUNTER, "User and system CPU time.", process->cpu_us);
    write_number(out, "process_open_fds", GAUGE, "Open file descriptors.", process->open_fds);
    write_number(out, "process_max_fds", GAUGE, "Limit of open file descriptors.", process->max_fds);
    write_seconds(out, "process_start_time_seconds", GAUGE, "Start, since 1970-01-01 UTC.", facts->started_wall_us);
}

static void write_etcd(FILE *out, const struct etcd_sync_status *etcd)
{
    write_number(out, PREFIX "etcd_following", GAUGE, "1 while changes of the fleet arrive.", etcd->following);
    write_seconds(out, PREFIX "etcd_age_seconds", GAUGE, "Since it was last known that no change is missing.",
                  etcd->age_ms * 1000U);
    write_number(out, PREFIX "etcd_revision", GAUGE, "Revision of etcd that the routes have.", etcd->revision);
    write_number(out, PREFIX "etcd_left_out", GAUGE,
                 "Keys that are not in force: no good, in conflict, or not to be stored.", etcd->left_out);
    write_number(out, PREFIX "etcd_failures_total", COUNTER, "Failures of etcd and of its members.", etcd->failures);
    write_number(out, PREFIX "etcd_loads_total", COUNTER, "Times that all keys were loaded.", etcd->loads);
}

static void write_sync(FILE *out, const struct sync_status *sync)
{
    if (sync->state == SYNC_OFF)
        return;
    write_number(out, PREFIX "sync_connected", GAUGE, "1 while an answer of sync.source is coming in.",
                 sync->connected);
    write_seconds(out, PREFIX "sync_word_age_seconds", GAUGE,
                  "Since the last line from sync.source; since the start if there was none.", sync->word_age_ms * 1000);
    write_number(out, PREFIX "sync_revision", GAUGE, "Revision of sync.source that is applied.", sync->revision);
    write_number(out, PREFIX "sync_resyncs_total", COUNTER, "Snapshots of sync.source applied.", sync->resyncs_total);
    write_number(out, PREFIX "sync_failures_total", COUNTER, "Connections to sync.source that failed or broke.",
                 sync->failures_total);
    write_number(out, PREFIX "sync_refused_records", GAUGE, "Records of sync.source that are left out here.",
                 sync->refused);
    write_number(out, PREFIX "sync_digest_differs", GAUGE,
                 "1 if the routes were not those of sync.source right after its snapshot was applied.",
                 sync->digest_differs);
}

char *metrics_format(const struct metrics_facts *facts)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    write_head(out, PREFIX "build_info", GAUGE, "The version that runs; always 1.");
    fprintf(out, PREFIX "build_info{version=\"%s\"} 1\n", GW_VERSION);
    write_number(out, PREFIX "ready", GAUGE, "1 while requests are taken.", facts->ready);
    write_number(out, PREFIX "draining", GAUGE, "1 while the gateway shuts down.", facts->draining);
    write_number(out, PREFIX "reload_failed", GAUGE, "1 if the last reload was refused.", facts->reload_failed);
    write_number(out, PREFIX "workers", GAUGE, "Worker threads.", facts->workers);
    write_number(out, PREFIX "apps", GAUGE, "Apps in the route table.", facts->apps);
    write_number(out, PREFIX "instances", GAUGE, "Instances in the route table.", facts->instances);
    write_number(out, PREFIX "revision", GAUGE, "Revision of the route table.", facts->revision);
    write_number(out, PREFIX "routes_left_out", GAUGE,
                 "Apps in the store that are not in force: no good any more, or in conflict.", facts->routes_left_out);
    write_number(out, PREFIX "certificates", GAUGE, "Uploaded certificates in force.", facts->certificates);
    if (facts->certificate_not_after > 0)
        write_number(out, PREFIX "certificate_first_not_after_seconds", GAUGE,
                     "When the first of all certificates in force ends, since 1970-01-01 UTC.",
                     (uint64_t)facts->certificate_not_after);
    if (facts->has_etcd)
        write_etcd(out, &facts->etcd);
    write_sync(out, &facts->sync);
    write_totals(out, facts->totals);
    write_process(out, facts);
    if (fclose(out) != 0)
        abort();
    assert(text);
    return text;
}
