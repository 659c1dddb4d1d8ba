#include "gateway/proxy/traffic_report.h"

#include <stdlib.h>

/* Of one entry of one worker. */
struct item {
    size_t worker;
    size_t index;
    struct app_traffic_copy copy;
};

struct traffic_sample {
    struct item *items; /* in the order of workers and indexes */
    size_t count;
    size_t capacity;
};

static void add_item(struct traffic_sample *sample, size_t worker, size_t index, const struct app_traffic_copy *copy)
{
    if (sample->count == sample->capacity) {
        sample->capacity = sample->capacity > 0 ? 2 * sample->capacity : 16;
        sample->items = realloc(sample->items, sample->capacity * sizeof *sample->items);
        if (!sample->items)
            abort();
    }
    sample->items[sample->count++] = (struct item){worker, index, *copy};
}

struct traffic_sample *traffic_sample_take(const struct app_traffic *const *workers, size_t count)
{
    struct app_traffic_copy copy;
    struct traffic_sample *sample = calloc(1, sizeof *sample);
    if (!sample)
        abort();
    for (size_t worker = 0; worker < count; worker++)
        for (size_t index = 0; index < APP_TRAFFIC_ENTRIES; index++)
            if (app_traffic_read(workers[worker], index, &copy))
                add_item(sample, worker, index, &copy);
    return sample;
}

void traffic_sample_free(struct traffic_sample **sample)
{
    struct traffic_sample *old = *sample;
    *sample = NULL;
    if (!old)
        return;
    free(old->items);
    free(old);
}

/* ---- differences and sums ---- */

static uint64_t since_gauge(uint64_t now, uint64_t before)
{
    (void)before;
    return now;
}

static uint64_t since_counter(uint64_t now, uint64_t before)
{
    return now - before;
}

#define SINCE_GAUGE   since_gauge
#define SINCE_COUNTER since_counter

/* The increase since `before`, an earlier state of the same app's entry. */
static void subtract(struct app_traffic_copy *now, const struct app_traffic_copy *before)
{
#define X(name, kind) now->name = SINCE_##kind(now->name, before->name);
    APP_TRAFFIC_TABLE(X)
#undef X
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++)
        now->latency[i] -= before->latency[i];
}

static void add(struct app_traffic_copy *sum, const struct app_traffic_copy *part)
{
#define X(name, kind) sum->name += part->name;
    APP_TRAFFIC_TABLE(X)
#undef X
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++)
        sum->latency[i] += part->latency[i];
}

static bool is_silent(const struct app_traffic_copy *row)
{
    uint64_t any = 0;
#define X(name, kind) any |= row->name;
    APP_TRAFFIC_TABLE(X)
#undef X
    for (size_t i = 0; i < APP_TRAFFIC_BUCKETS; i++)
        any |= row->latency[i];
    return any == 0;
}

/* ---- the report ---- */

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct app_traffic_copy *)a)->id, ((const struct app_traffic_copy *)b)->id);
}

/* An app has an entry at each worker that it uses. */
static void merge_rows(struct traffic_report *report)
{
    size_t kept = 0;
    if (report->count > 0)
        qsort(report->rows, report->count, sizeof *report->rows, by_id);
    for (size_t i = 0; i < report->count; i++) {
        if (kept > 0 && by_id(&report->rows[kept - 1], &report->rows[i]) == 0)
            add(&report->rows[kept - 1], &report->rows[i]);
        else
            report->rows[kept++] = report->rows[i];
    }
    report->count = kept;
}

/* The entry's item in the sample; `at` only grows. */
static const struct app_traffic_copy *earlier(const struct traffic_sample *before, size_t *at, const struct item *now)
{
    while (*at < before->count && (before->items[*at].worker < now->worker ||
                                   (before->items[*at].worker == now->worker && before->items[*at].index < now->index)))
        ++*at;
    const struct item *item = *at < before->count ? &before->items[*at] : NULL;
    bool is_same = item && item->worker == now->worker && item->index == now->index;
    return is_same && item->copy.version == now->copy.version ? &item->copy : NULL;
}

struct traffic_report *traffic_report_new(const struct traffic_sample *before, const struct app_traffic *const *workers,
                                          size_t count)
{
    size_t at = 0;
    struct traffic_report *report = calloc(1, sizeof *report);
    struct traffic_sample *now = traffic_sample_take(workers, count);
    if (!report || !(report->rows = calloc(now->count + 1, sizeof *report->rows)))
        abort();
    for (size_t i = 0; i < now->count; i++) {
        struct app_traffic_copy *row = &now->items[i].copy;
        const struct app_traffic_copy *was = earlier(before, &at, &now->items[i]);
        if (was)
            subtract(row, was);
        if (is_silent(row))
            continue;
        add(&report->total, row);
        if (row->id[0] == '\0')
            add(&report->others, row);
        else
            report->rows[report->count++] = *row;
    }
    traffic_sample_free(&now);
    merge_rows(report);
    return report;
}

void traffic_report_free(struct traffic_report **report)
{
    struct traffic_report *old = *report;
    *report = NULL;
    if (!old)
        return;
    free(old->rows);
    free(old);
}

/* ---- orders ---- */

static int compare(uint64_t a, uint64_t b, const void *row_a, const void *row_b)
{
    return a != b ? (a < b ? 1 : -1) : by_id(row_a, row_b);
}

/* X(name, what is compared) */
#define ORDERS_TABLE(X)                                                                                                \
    X(requests, row->requests)                                                                                         \
    X(active, row->in_progress)                                                                                        \
    X(p50, app_traffic_latency_us(row->latency, 500))                                                                  \
    X(p99, app_traffic_latency_us(row->latency, 990))                                                                  \
    X(errors, row->responses_5xx + row->gateway_errors)                                                                \
    X(in, row->bytes_in)                                                                                               \
    X(out, row->bytes_out)

#define X(name, value)                                                                                                 \
    static uint64_t value_##name(const struct app_traffic_copy *row)                                                   \
    {                                                                                                                  \
        return value;                                                                                                  \
    }                                                                                                                  \
    static int by_##name(const void *a, const void *b)                                                                 \
    {                                                                                                                  \
        return compare(value_##name(a), value_##name(b), a, b);                                                        \
    }
ORDERS_TABLE(X)
#undef X

bool traffic_report_sort(struct traffic_report *report, struct slice order)
{
    static const struct {
        const char *name;
        int (*compare)(const void *a, const void *b);
    } orders[] = {
#define X(name, value) {#name, by_##name},
        ORDERS_TABLE(X)
#undef X
            {"app", by_id},
    };
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        if (!slice_eq(order, slice_str(orders[i].name)))
            continue;
        if (report->count > 0)
            qsort(report->rows, report->count, sizeof *report->rows, orders[i].compare);
        return true;
    }
    return false;
}
