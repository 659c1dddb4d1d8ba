/* What the program tells about itself, and the operations on it as a whole. */
#include "api_internal.h"

#include "gateway/base/clock.h"
#include "gateway/control/metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

static void read_status(const struct api_call *call, struct api_status *ret_status)
{
    const struct api_params *params = &call->api->params;
    static const char *const none[] = {NULL};
    *ret_status = (struct api_status){.config_path = "", .last_reload_error = "", .needs_restart = none};
    params->status(params->arg, ret_status);
}

static uint64_t uptime_seconds(const struct api_status *status)
{
    uint64_t now = clock_wall_us();
    return now > status->started_wall_us ? (now - status->started_wall_us) / 1000000U : 0;
}

/* ---- /v1/status ---- */

static json_t *counters_json(const struct counters *totals)
{
    json_t *json = json_object();
#define X(name, kind, help)                                                                                            \
    json_object_set_new(json, #name,                                                                                   \
                        json_integer((json_int_t)atomic_load_explicit(&totals->name, memory_order_relaxed)));
    COUNTERS_TABLE(X)
#undef X
    return json;
}

static json_t *process_json(void)
{
    struct metrics_process process;
    metrics_process_read(&process);
    return json_pack("{sI sf sI sI}", "rss_bytes", (json_int_t)process.rss_bytes, "cpu_seconds",
                     (double)process.cpu_us / 1e6, "open_fds", (json_int_t)process.open_fds, "max_fds",
                     (json_int_t)process.max_fds);
}

static json_t *base_domains_json(const struct api_params *params)
{
    json_t *array = json_array();
    for (size_t i = 0; i < params->base_domain_count; i++)
        json_array_append_new(array, api_json_text(params->base_domains[i]));
    return array;
}

static json_t *certificates_json(const struct certs *certs)
{
    int64_t first = certs_first_not_after(certs);
    json_t *json = json_pack("{sI}", "uploaded", (json_int_t)certs_count(certs));
    if (first != 0)
        json_object_set_new(json, "first_ends_in_days", json_integer((first - (json_int_t)time(NULL)) / 86400));
    return json;
}

static json_t *needs_restart_json(const struct api_status *status)
{
    json_t *array = json_array();
    for (const char *const *section = status->needs_restart; *section; section++)
        json_array_append_new(array, json_string(*section));
    return array;
}

static json_t *started_json(const struct api_status *status)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(status->started_wall_us / 1000000U);
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static json_t *etcd_json(const struct etcd_sync_status *etcd)
{
    return json_pack("{sb ss sI sf so sI}", "following", etcd->following, "endpoint", etcd->endpoint, "revision",
                     (json_int_t)etcd->revision, "age_seconds", (double)etcd->age_ms / 1e3, "problem",
                     api_json_text(slice_str(etcd->problem)), "left_out", (json_int_t)etcd->left_out);
}

void api_status_get(struct api_call *call)
{
    struct api_status status;
    const struct api_params *params = &call->api->params;
    read_status(call, &status);
    json_t *json = json_pack("{ss sb sb so sI si}", "version", GW_VERSION, "ready", status.ready, "draining",
                             status.draining, "started", started_json(&status), "uptime_seconds",
                             (json_int_t)uptime_seconds(&status), "workers", (int)status.workers);
    json_object_set_new(json, "apps", json_integer((json_int_t)route_table_app_count(params->table)));
    json_object_set_new(json, "instances", json_integer((json_int_t)route_table_instance_count(params->table)));
    json_object_set_new(json, "revision", json_integer((json_int_t)route_table_revision(params->table)));
    json_object_set_new(json, "routes_left_out", json_integer((json_int_t)changes_left_out(params->changes)));
    json_object_set_new(json, "certificates", certificates_json(params->certs));
    json_object_set_new(json, "base_domains", base_domains_json(params));
    if (status.has_etcd)
        json_object_set_new(json, "etcd", etcd_json(&status.etcd));
    json_object_set_new(json, "config", api_json_text(slice_str(status.config_path)));
    json_object_set_new(json, "last_reload_error", api_json_text(slice_str(status.last_reload_error)));
    json_object_set_new(json, "needs_restart", needs_restart_json(&status));
    json_t *sync = api_sync_json(&status.sync);
    if (sync)
        json_object_set_new(json, "sync", sync);
    json_object_set_new(json, "process", process_json());
    json_object_set_new(json, "counters", counters_json(&status.totals));
    api_answer_json(call, 200, json);
}

/* ---- operations ---- */

void api_status_drain(struct api_call *call)
{
    const struct api_params *params = &call->api->params;
    params->drain(params->arg);
    api_answer_json(call, 202, json_pack("{sb}", "draining", 1));
}

void api_status_reload(struct api_call *call)
{
    struct api_status status;
    const struct api_params *params = &call->api->params;
    params->reload(params->arg);
    read_status(call, &status);
    if (status.last_reload_error[0])
        api_answer_refuse(call, STATUS_RELOAD_FAILED, "", "%s", status.last_reload_error);
    else
        api_answer_json(call, 200, json_pack("{sb so}", "reloaded", 1, "needs_restart", needs_restart_json(&status)));
}

/* ---- probes ---- */

void api_status_healthz(struct api_call *call)
{
    api_answer_text(call, 200, SLICE("text/plain; charset=utf-8"), SLICE("ok\n"));
}

static const char *yes_no(bool yes)
{
    return yes ? "yes" : "no";
}

/* The routes may be old, but they are served: this does not make the gateway unready. */
static struct slice etcd_line(struct arena *arena, const struct etcd_sync_status *etcd)
{
    if (etcd->following)
        return arena_printf(arena, "etcd: following %s at revision %" PRIu64 ", %zu left out\n", etcd->endpoint,
                            etcd->revision, etcd->left_out);
    return arena_printf(arena, "etcd: away for %" PRIu64 " s, routes stay as they are: %s\n", etcd->age_ms / 1000U,
                        etcd->problem);
}

void api_status_readyz(struct api_call *call)
{
    struct api_status status;
    bool verbose;
    const struct api_params *params = &call->api->params;
    const struct route_table *table = params->table;
    if (!api_check_flag(call, "verbose", &verbose))
        return;
    read_status(call, &status);
    bool ready = status.ready && !status.draining;
    struct slice body = ready ? SLICE("ready\n") : status.draining ? SLICE("draining\n") : SLICE("not ready\n");
    struct slice sync = api_sync_text(&status.sync, call->arena);
    if (verbose)
        body = arena_printf(call->arena,
                            "ready: %s\ndraining: %s\nworkers: %u\napps: %zu\ninstances: %zu\nrevision: %" PRIu64
                            "\nroutes left out: %zu\nlast reload: %s\n%s%.*s%s",
                            yes_no(ready), yes_no(status.draining), status.workers, route_table_app_count(table),
                            route_table_instance_count(table), route_table_revision(table),
                            changes_left_out(params->changes),
                            status.last_reload_error[0] ? status.last_reload_error : "ok", sync.len ? "sync: " : "",
                            SLICE_ARG(sync), sync.len ? "\n" : "");
    if (verbose && status.has_etcd) {
        struct slice etcd = etcd_line(call->arena, &status.etcd);
        body = arena_printf(call->arena, "%.*s%.*s", SLICE_ARG(body), SLICE_ARG(etcd));
    }
    api_answer_text(call, ready ? 200 : 503, SLICE("text/plain; charset=utf-8"), body);
}

/* ---- metrics and the page ---- */

void api_status_metrics(struct api_call *call)
{
    struct api_status status;
    const struct route_table *table = call->api->params.table;
    read_status(call, &status);
    struct metrics_facts facts = {
        .totals = &status.totals,
        .apps = route_table_app_count(table),
        .instances = route_table_instance_count(table),
        .revision = route_table_revision(table),
        .routes_left_out = changes_left_out(call->api->params.changes),
        .certificates = certs_count(call->api->params.certs),
        .certificate_not_after = certs_first_not_after(call->api->params.certs),
        .workers = status.workers,
        .ready = status.ready && !status.draining,
        .draining = status.draining,
        .reload_failed = status.last_reload_error[0] != '\0',
        .started_wall_us = status.started_wall_us,
        .has_etcd = status.has_etcd,
        .etcd = status.etcd,
        .sync = status.sync,
    };
    metrics_process_read(&facts.process);
    char *text = metrics_format(&facts);
    api_answer_text(call, 200, SLICE("text/plain; version=0.0.4; charset=utf-8"), slice_str(text));
    free(text);
}

static void write_escaped(FILE *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c < 0x20 || c >= 0x7f || strchr("<>&\"'", c))
            fprintf(out, "&#%u;", c < 0x20 || c >= 0x7f ? '?' : c);
        else
            fputc(c, out);
    }
}

static void write_row(FILE *out, const char *name, struct slice value)
{
    fprintf(out, "<tr><th>%s<td>", name);
    write_escaped(out, value);
    fputc('\n', out);
}

static void write_number(FILE *out, const char *name, uint64_t value)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRIu64, value);
    write_row(out, name, slice_make(text, (size_t)len));
}

static void write_rows(FILE *out, const struct api_call *call, const struct api_status *status)
{
    const struct api_params *params = &call->api->params;
    struct slice sync = api_sync_text(&status->sync, call->arena);
    write_row(out, "Version", SLICE(GW_VERSION));
    write_row(out, "State", status->draining ? SLICE("draining") : status->ready ? SLICE("ready") : SLICE("not ready"));
    for (size_t i = 0; i < params->base_domain_count; i++)
        write_row(out, "Base domain", params->base_domains[i]);
    write_number(out, "Uptime, seconds", uptime_seconds(status));
    write_number(out, "Workers", status->workers);
    write_number(out, "Apps", route_table_app_count(params->table));
    write_number(out, "Instances", route_table_instance_count(params->table));
    write_number(out, "Revision", route_table_revision(params->table));
    write_number(out, "Routes left out", changes_left_out(params->changes));
    if (sync.len > 0)
        write_row(out, "Sync", sync);
    write_row(out, "Last reload", status->last_reload_error[0] ? slice_str(status->last_reload_error) : SLICE("ok"));
#define X(name, kind, help) write_number(out, help, atomic_load_explicit(&status->totals.name, memory_order_relaxed));
    COUNTERS_TABLE(X)
#undef X
}

void api_status_page(struct api_call *call)
{
    struct api_status status;
    char *text = NULL;
    size_t len = 0;
    read_status(call, &status);
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    fputs("<!doctype html><html lang=en><meta charset=utf-8><title>Phala Gateway</title>\n"
          "<style>body{font:16px sans-serif;margin:2em}th{text-align:left;font-weight:normal;padding-right:2em}"
          "td{font-family:monospace}</style>\n<h1>Phala Gateway</h1>\n<table>\n",
          out);
    write_rows(out, call, &status);
    fputs("</table>\n<p><a href=/v1/status>status</a> <a href=/v1/apps>apps</a> <a href=/metrics>metrics</a>\n", out);
    if (fclose(out) != 0)
        abort();
    local_add_field(call->local, SLICE("Content-Security-Policy"),
                    SLICE("default-src 'none'; style-src 'unsafe-inline'"));
    api_answer_text(call, 200, SLICE("text/html; charset=utf-8"), slice_make(text, len));
    free(text);
}
