/*
 * gatewayctl top: what the apps do, refreshed until it is told to stop; or once, for scripts.
 *
 * The gateway measures for an interval while the call waits, so the program asks again as soon as it has an answer.
 * Keys and signals are looked at while it waits.
 */
#include "ctl.h"
#include "ctl_screen.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_MS = 200,
    INTERVAL_MS = 1000,
    MAX_MS = 60000,
    RETRY_MS = 500,
    SCREEN_ROWS = 200,
    FIXED_LINES = 7, /* what surrounds the rows of apps */
};

struct order {
    char key;
    const char *name;   /* of the API */
    const char *member; /* of a row; NULL: its id */
};

static const struct order orders[] = {
    {'r', "requests", "requests_per_second"},
    {'a', "active", "in_progress"},
    {'5', "p50", "p50_ms"},
    {'9', "p99", "p99_ms"},
    {'e', "errors", "responses_5xx_per_second"},
    {'i', "in", "bytes_in_per_second"},
    {'o', "out", "bytes_out_per_second"},
    {'n', "app", NULL},
};
enum { ORDER_COUNT = sizeof orders / sizeof orders[0] };

struct top {
    const struct ctl_options *options;
    struct ctl_screen *screen;
    const struct order *order;
    uint64_t interval_ms;
    json_t *answer; /* the newest */
    bool unreachable;
    bool paused;
    bool quits;
};

/* ---- figures ---- */

static double number(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

static void put_rate(struct ctl_table *table, const json_t *row, const char *key)
{
    double value = number(row, key);
    ctl_table_cell(table, value > 0 && value < 99.95 ? "%.1f" : "%.0f", value);
}

static void put_ms(struct ctl_table *table, const json_t *row, const char *key)
{
    if (json_is_number(json_object_get(row, key)))
        ctl_table_cell(table, number(row, key) < 10 ? "%.2f" : "%.1f", number(row, key));
    else
        ctl_table_cell(table, "-");
}

static void put_amount(struct ctl_table *table, const json_t *row, const char *key)
{
    char amount[CTL_AMOUNT_MAX];
    ctl_format_bytes((uint64_t)number(row, key), amount);
    ctl_table_cell(table, "%s", amount);
}

static void put_row(struct ctl_table *table, const char *name, const json_t *row)
{
    ctl_table_cell(table, "%s", name);
    put_rate(table, row, "requests_per_second");
    put_ms(table, row, "p50_ms");
    put_ms(table, row, "p99_ms");
    put_rate(table, row, "responses_4xx_per_second");
    put_rate(table, row, "responses_5xx_per_second");
    put_rate(table, row, "gateway_errors_per_second");
    ctl_table_cell(table, "%.0f", number(row, "in_progress"));
    ctl_table_cell(table, "%.0f", number(row, "tunnels"));
    put_amount(table, row, "bytes_in_per_second");
    put_amount(table, row, "bytes_out_per_second");
}

static bool is_any(const json_t *row)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value) if (json_number_value(value) > 0) return true;
    return false;
}

/* Up to `rows` apps, then what has no row of its own. */
static struct ctl_table *make_table(const json_t *answer, size_t rows)
{
    static const char *const titles[] = {"APP",   "REQ/S",  "P50 MS",  "P99 MS", "4XX/S", "5XX/S",
                                         "ERR/S", "ACTIVE", "TUNNELS", "IN/S",   "OUT/S"};
    struct ctl_table *table = ctl_table_new(sizeof titles / sizeof titles[0]);
    const json_t *apps = json_object_get(answer, "apps");
    const json_t *others = json_object_get(answer, "others");
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++)
        ctl_table_cell(table, "%s", titles[i]);
    for (size_t i = 0; i < json_array_size(apps) && i < rows; i++)
        put_row(table, ctl_string(json_array_get(apps, i), "app_id"), json_array_get(apps, i));
    if (is_any(others))
        put_row(table, "(others)", others);
    return table;
}

static void print_summary(const struct top *top, FILE *out)
{
    char in[CTL_AMOUNT_MAX], sent[CTL_AMOUNT_MAX];
    const json_t *answer = top->answer;
    const json_t *totals = json_object_get(answer, "totals");
    ctl_format_bytes((uint64_t)number(totals, "bytes_in_per_second"), in);
    ctl_format_bytes((uint64_t)number(totals, "bytes_out_per_second"), sent);
    fprintf(out, "%.0f connections (%.1f new/s)  %.0f requests and %.0f tunnels in progress  %.0f apps active\n",
            number(totals, "connections"), number(totals, "connections_per_second"), number(totals, "requests_active"),
            number(totals, "tunnels_active"), number(answer, "apps_active"));
    fprintf(out,
            "%.1f requests/s  p50 %.2f ms  p99 %.2f ms  4xx %.1f/s  5xx %.1f/s  errors %.1f/s  in %s/s  out %s/s\n",
            number(totals, "requests_per_second"), number(totals, "p50_ms"), number(totals, "p99_ms"),
            number(totals, "responses_4xx_per_second"), number(totals, "responses_5xx_per_second"),
            number(totals, "gateway_errors_per_second"), in, sent);
}

/* ---- the screen ---- */

/* What was asked for and shown may be less than what there is. */
static size_t count_hidden(const struct top *top, size_t rows)
{
    size_t got = json_array_size(json_object_get(top->answer, "apps"));
    return (size_t)number(top->answer, "apps_left_out") + (got > rows ? got - rows : 0);
}

static void draw(const struct top *top)
{
    size_t columns, lines;
    char clock[16];
    time_t now = time(NULL);
    struct tm local;
    FILE *out = ctl_screen_begin(top->screen, &columns, &lines);
    size_t rows = lines > FIXED_LINES ? lines - FIXED_LINES : 1;
    strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&now, &local));
    fprintf(out, "gatewayctl top  %s  %s%s\n", clock,
            top->unreachable ? "GATEWAY UNREACHABLE  "
            : top->paused    ? "paused  "
                             : "",
            top->options->control);
    print_summary(top, out);
    struct ctl_table *table = make_table(top->answer, rows);
    ctl_table_write(&table, out, columns);
    size_t hidden = count_hidden(top, rows);
    if (hidden > 0)
        fprintf(out, "%zu more apps\n", hidden);
    fprintf(out, "q quit  p pause  sort by %s: r a 5 9 e i o n", top->order->name);
    ctl_screen_end(top->screen);
}

static int compare_rows(const void *a, const void *b, void *arg)
{
    const struct order *order = arg;
    const json_t *left = *(const json_t *const *)a, *right = *(const json_t *const *)b;
    double difference = order->member ? number(right, order->member) - number(left, order->member) : 0;
    if (difference != 0)
        return difference < 0 ? -1 : 1;
    return strcmp(ctl_string(left, "app_id"), ctl_string(right, "app_id"));
}

/* Another order of what is shown; the next answer comes in it. */
static void sort_answer(const struct top *top)
{
    json_t *apps = json_object_get(top->answer, "apps");
    size_t count = json_array_size(apps);
    json_t **rows = calloc(count + 1, sizeof(json_t *));
    if (!rows)
        abort();
    for (size_t i = 0; i < count; i++)
        rows[i] = json_incref(json_array_get(apps, i));
    qsort_r(rows, count, sizeof(json_t *), compare_rows, (void *)(uintptr_t)top->order);
    for (size_t i = 0; i < count; i++)
        json_array_set_new(apps, i, rows[i]);
    free(rows);
}

static void take_key(struct top *top, char key)
{
    if (key == 'q' || key == 'Q')
        top->quits = true;
    if (key == 'p' || key == ' ')
        top->paused = !top->paused;
    for (size_t i = 0; i < ORDER_COUNT; i++)
        if (key == orders[i].key)
            top->order = &orders[i];
    sort_answer(top);
    draw(top);
}

/* Called while a call waits. False: end it. */
static bool on_watch(void *arg)
{
    struct top *top = arg;
    char key;
    switch (ctl_screen_event(top->screen, &key)) {
    case CTL_SCREEN_KEY:
        take_key(top, key);
        break;
    case CTL_SCREEN_RESIZED:
        draw(top);
        break;
    case CTL_SCREEN_ENDED:
        top->quits = true;
        break;
    case CTL_SCREEN_NOTHING:
        break;
    }
    return !top->quits;
}

/* ---- calls ---- */

static enum ctl_exit ask(struct top *top, uint64_t interval_ms, uint64_t rows, bool watches)
{
    char path[128];
    struct ctl_reply reply;
    snprintf(path, sizeof path, "/v1/top?interval_ms=%llu&n=%llu&sort=%s", (unsigned long long)interval_ms,
             (unsigned long long)rows, top->order->name);
    struct ctl_call call = {.method = "GET", .path = path, .quiet = watches};
    if (watches) {
        call.watch = on_watch;
        call.watch_arg = top;
        call.watch_fds = ctl_screen_fds(top->screen);
    }
    enum ctl_exit result =
        watches ? ctl_http_try(top->options, &call, &reply) : ctl_http_call(top->options, &call, &reply);
    json_t *json =
        result == CTL_OK ? watches ? json_loadb(reply.body, reply.len, 0, NULL) : ctl_reply_json(&reply) : NULL;
    if (json && !top->paused) {
        json_decref(top->answer);
        top->answer = json;
    } else {
        json_decref(json);
    }
    ctl_reply_free(&reply);
    return result == CTL_OK && !json ? CTL_UNREACHABLE : result;
}

static enum ctl_exit run_on_screen(struct top *top)
{
    enum ctl_exit result = ask(top, FIRST_MS, SCREEN_ROWS, false);
    if (result != CTL_OK)
        return result;
    top->screen = ctl_screen_open();
    if (!top->screen) {
        ctl_error("the terminal cannot be used: %s", strerror(errno));
        return CTL_USAGE;
    }
    while (!top->quits) {
        draw(top);
        top->unreachable = ask(top, top->interval_ms, SCREEN_ROWS, true) != CTL_OK;
        if (top->unreachable && !top->quits)
            ctl_screen_wait(top->screen, RETRY_MS);
    }
    ctl_screen_close(&top->screen); /* does not return after a signal */
    return CTL_OK;
}

static enum ctl_exit run_once(struct top *top, uint64_t rows)
{
    enum ctl_exit result = ask(top, top->interval_ms, rows, false);
    if (result != CTL_OK)
        return result;
    if (top->options->json) {
        ctl_print_json(top->answer);
        return result;
    }
    struct ctl_table *table = make_table(top->answer, SIZE_MAX);
    print_summary(top, stdout);
    putchar('\n');
    ctl_table_print(&table, stdout);
    if (count_hidden(top, SIZE_MAX) > 0)
        printf("%zu more apps\n", count_hidden(top, SIZE_MAX));
    return result;
}

/* ---- the command ---- */

static bool read_options(struct top *top, uint64_t *ret_rows)
{
    const struct ctl_options *options = top->options;
    uint64_t seconds = INTERVAL_MS / 1000;
    for (size_t i = 0; options->sort && i < ORDER_COUNT; i++)
        if (strcmp(options->sort, orders[i].name) == 0)
            top->order = &orders[i];
    if (options->sort && strcmp(options->sort, top->order->name) != 0)
        ctl_error("--sort %s: say requests, active, p50, p99, errors, in, out or app", options->sort);
    else if (options->interval &&
             (!slice_to_u64(slice_str(options->interval), &seconds) || seconds < 1 || seconds > MAX_MS / 1000))
        ctl_error("--interval %s: give a number of seconds, 1 to %d", options->interval, MAX_MS / 1000);
    else if (options->count && (!slice_to_u64(slice_str(options->count), ret_rows) || *ret_rows < 1))
        ctl_error("--count %s: give a number of apps", options->count);
    else {
        top->interval_ms = seconds * 1000;
        return true;
    }
    return false;
}

enum ctl_exit ctl_top(const struct ctl_options *options)
{
    struct top top = {.options = options, .order = &orders[0]};
    uint64_t rows = SCREEN_ROWS;
    if (!read_options(&top, &rows))
        return CTL_USAGE;
    bool on_screen =
        !options->once && !options->json && !options->count && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    enum ctl_exit result = on_screen ? run_on_screen(&top) : run_once(&top, rows);
    json_decref(top.answer);
    return result;
}
