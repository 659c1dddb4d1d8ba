/*
 * GET /v1/top: what apps do. The counters of all workers are read when the call comes and again interval_ms later; the
 * answer is what happened in between, the busiest apps first. Nothing is kept between calls.
 */
#include "api_internal.h"

#include "gateway/proxy/traffic_report.h"

#include <stdlib.h>

enum {
    MIN_INTERVAL_MS = 100,
    MAX_INTERVAL_MS = 60000,
    INTERVAL_MS = 1000,
    ROWS = 20,
    MAX_ROWS = 10000,
    MAX_CALLS = 8, /* at a time: each holds a copy of the counters */
};

struct top {
    struct api_call *call;
    struct timer timer;
    struct traffic_sample *before;
    struct counters totals; /* then */
    uint64_t began_us;
    uint64_t rows;
    struct slice order;
};

/* ---- the answer ---- */

static json_t *rate(uint64_t count, uint64_t elapsed_us)
{
    return json_real(elapsed_us > 0 ? (double)count * 1e6 / (double)elapsed_us : 0);
}

static json_t *latency(const struct app_traffic_copy *row, unsigned permille)
{
    uint64_t us = app_traffic_latency_us(row->latency, permille);
    return us > 0 ? json_real((double)us / 1000) : json_null();
}

static json_t *row_json(const struct app_traffic_copy *row, uint64_t elapsed_us)
{
    return json_pack("{so so so so so so sI sI so so}", "requests_per_second", rate(row->requests, elapsed_us),
                     "p50_ms", latency(row, 500), "p99_ms", latency(row, 990), "responses_4xx_per_second",
                     rate(row->responses_4xx, elapsed_us), "responses_5xx_per_second",
                     rate(row->responses_5xx, elapsed_us), "gateway_errors_per_second",
                     rate(row->gateway_errors, elapsed_us), "in_progress", (json_int_t)row->in_progress, "tunnels",
                     (json_int_t)row->tunnels, "bytes_in_per_second", rate(row->bytes_in, elapsed_us),
                     "bytes_out_per_second", rate(row->bytes_out, elapsed_us));
}

#define SINCE(name) (atomic_load(&now->name) - atomic_load(&before->name))
#define NOW(name)   (json_int_t) atomic_load(&now->name)

/* Of the whole gateway, also what belongs to no app. Latencies are those of apps. */
static json_t *totals_json(const struct counters *before, const struct counters *now,
                           const struct app_traffic_copy *all, uint64_t elapsed_us)
{
    return json_pack("{so so so so so so sI sI sI so so so}", "requests_per_second",
                     rate(SINCE(requests_total), elapsed_us), "p50_ms", latency(all, 500), "p99_ms", latency(all, 990),
                     "responses_4xx_per_second", rate(SINCE(responses_4xx_total), elapsed_us),
                     "responses_5xx_per_second", rate(SINCE(responses_5xx_total), elapsed_us),
                     "gateway_errors_per_second", rate(SINCE(gateway_errors_total), elapsed_us), "connections",
                     NOW(connections), "requests_active", NOW(requests_active), "tunnels_active", NOW(tunnels_active),
                     "connections_per_second", rate(SINCE(connections_total), elapsed_us), "bytes_in_per_second",
                     rate(all->bytes_in, elapsed_us), "bytes_out_per_second", rate(all->bytes_out, elapsed_us));
}

static json_t *apps_json(const struct traffic_report *report, uint64_t rows, uint64_t elapsed_us)
{
    json_t *apps = json_array();
    for (size_t i = 0; i < report->count && i < rows; i++) {
        json_t *app = json_pack("{ss}", "app_id", report->rows[i].id);
        json_t *figures = row_json(&report->rows[i], elapsed_us);
        json_object_update(app, figures);
        json_decref(figures);
        json_array_append_new(apps, app);
    }
    return apps;
}

static void read_workers(const struct api_call *call, struct api_status *ret_status)
{
    const struct api_params *params = &call->api->params;
    memset(ret_status, 0, sizeof *ret_status);
    params->status(params->arg, ret_status);
}

static void on_timer(struct timer *timer)
{
    struct top *top = CONTAINER_OF(timer, struct top, timer);
    struct api_status status;
    uint64_t elapsed_us = top->call->api->params.loop->now_us - top->began_us;
    read_workers(top->call, &status);
    struct traffic_report *report = traffic_report_new(top->before, status.traffic, status.workers);
    traffic_report_sort(report, top->order);
    size_t left_out = report->count > top->rows ? report->count - top->rows : 0;
    json_t *json = json_pack("{sI sI so sI sI so so}", "interval_ms", (json_int_t)(elapsed_us / 1000), "workers",
                             (json_int_t)status.workers, "totals",
                             totals_json(&top->totals, &status.totals, &report->total, elapsed_us), "apps_active",
                             (json_int_t)report->count, "apps_left_out", (json_int_t)left_out, "others",
                             row_json(&report->others, elapsed_us), "apps", apps_json(report, top->rows, elapsed_us));
    traffic_report_free(&report);
    api_answer_json(top->call, 200, json);
}

static void on_body(void *self, struct slice piece)
{
    const struct top *top = self;
    local_credit(top->call->local, piece.len);
}

static void on_gone(void *self)
{
    struct top *top = self;
    top->call->api->top_calls--;
    timer_forget(&top->timer);
    traffic_sample_free(&top->before);
    api_call_gone(top->call);
    free(top);
}

/* ---- what is asked for ---- */

static bool read_number(struct api_call *call, const char *name, uint64_t least, uint64_t most, uint64_t *value)
{
    struct slice text;
    if (!api_target_parameter(&call->target, name, &text))
        return true;
    if (slice_to_u64(text, value) && *value >= least && *value <= most)
        return true;
    api_answer_refuse(call, STATUS_INVALID_PARAMETER, name, "it is a number from %llu to %llu",
                      (unsigned long long)least, (unsigned long long)most);
    return false;
}

static bool read_order(struct api_call *call, struct slice *order)
{
    struct traffic_report none = {.count = 0};
    if (!api_target_parameter(&call->target, "sort", order))
        *order = SLICE("requests");
    if (traffic_report_sort(&none, *order))
        return true;
    api_answer_refuse(call, STATUS_INVALID_PARAMETER, "sort",
                      "it is one of requests, active, p50, p99, errors, in, out, app");
    return false;
}

void api_top_get(struct api_call *call)
{
    static const struct local_handler handler = {.body = on_body, .gone = on_gone};
    struct api_status status;
    uint64_t interval_ms = INTERVAL_MS, rows = ROWS;
    struct slice order;
    if (!read_number(call, "interval_ms", MIN_INTERVAL_MS, MAX_INTERVAL_MS, &interval_ms) ||
        !read_number(call, "n", 1, MAX_ROWS, &rows) || !read_order(call, &order))
        return;
    if (call->api->top_calls >= MAX_CALLS) {
        api_answer_refuse(call, STATUS_OVERLOADED, "", "%d others look at this already", MAX_CALLS);
        return;
    }
    call->api->top_calls++;
    struct top *top = aligned_alloc(_Alignof(struct top), sizeof *top); /* counters lie on cache lines */
    if (!top)
        abort();
    memset(top, 0, sizeof *top);
    top->call = call;
    top->rows = rows;
    top->order = order;
    timer_init(&top->timer, on_timer);
    local_handle(call->local, &handler, top);
    read_workers(call, &status);
    top->totals = status.totals;
    top->began_us = call->api->params.loop->now_us;
    top->before = traffic_sample_take(status.traffic, status.workers);
    loop_timer_arm(call->api->params.loop, &top->timer, (uint32_t)interval_ms);
}
