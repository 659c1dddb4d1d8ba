/* gatewayctl logs: the access log as it is written; for people on a terminal, else the gateway's NDJSON. */
#include "ctl.h"

#include <stdlib.h>
#include <unistd.h>

struct logs {
    bool for_people;
    bool with_colors;
    char *line; /* that has not ended yet */
    size_t len;
    size_t capacity;
};

/* ---- for people ---- */

static const char *color_of(json_int_t status)
{
    return status >= 500 ? "\033[31m" : status >= 400 ? "\033[33m" : status >= 300 ? "\033[36m" : "\033[32m";
}

static void put_colored(const struct logs *logs, const char *color, const char *text)
{
    fputs(logs->with_colors ? color : "", stdout);
    ctl_put_text(stdout, text, SIZE_MAX);
    fputs(logs->with_colors ? "\033[0m" : "", stdout);
}

/* "23:59:59.123" of "2026-01-31T23:59:59.123Z". */
static void put_time(const struct logs *logs, const char *time)
{
    char clock[13] = "";
    const char *start = strchr(time, 'T');
    snprintf(clock, sizeof clock, "%s", start ? start + 1 : time);
    put_colored(logs, "\033[2m", clock);
}

static void put_bytes(const json_t *line, const char *key, const char *mark)
{
    char amount[CTL_AMOUNT_MAX];
    json_int_t bytes = json_integer_value(json_object_get(line, key));
    if (bytes <= 0)
        return;
    ctl_format_bytes((uint64_t)bytes, amount);
    printf("  %s%s", mark, amount);
}

static void put_members(const struct logs *logs, const json_t *line)
{
    char status[24];
    json_int_t code = json_integer_value(json_object_get(line, "status"));
    snprintf(status, sizeof status, "%3lld", (long long)code);
    put_time(logs, ctl_string(line, "time"));
    putchar(' ');
    put_colored(logs, color_of(code), status);
    putchar(' ');
    const char *method = ctl_string(line, "method");
    ctl_put_text(stdout, *method ? method : ctl_string(line, "protocol"), SIZE_MAX);
    putchar(' ');
    ctl_put_text(stdout, ctl_string(line, "host"), SIZE_MAX);
    ctl_put_text(stdout, ctl_string(line, "path"), SIZE_MAX);
    printf("  %.1f ms", json_number_value(json_object_get(line, "total_ms")));
    put_bytes(line, "bytes_in", "in ");
    put_bytes(line, "bytes_out", "out ");
    if (*ctl_string(line, "client")) {
        fputs("  ", stdout);
        put_colored(logs, "\033[2m", ctl_string(line, "client"));
    }
    if (*ctl_string(line, "back_address")) {
        fputs(" > ", stdout);
        ctl_put_text(stdout, ctl_string(line, "back_address"), SIZE_MAX);
    }
    if (*ctl_string(line, "error")) {
        fputs("  ", stdout);
        put_colored(logs, "\033[31m", ctl_string(line, "error"));
    }
    putchar('\n');
}

static void show_line(const struct logs *logs, const char *text, size_t len)
{
    char note[80];
    json_t *line = json_loadb(text, len, 0, NULL);
    json_int_t dropped = json_integer_value(json_object_get(line, "dropped"));
    if (dropped > 0) {
        snprintf(note, sizeof note, "(%lld lines dropped here: they came faster than they were read)",
                 (long long)dropped);
        put_colored(logs, "\033[35m", note);
        putchar('\n');
    } else if (line) {
        put_members(logs, line);
    }
    json_decref(line);
}

/* ---- the stream ---- */

/* Empty lines are signs of life. */
static void take_line(const struct logs *logs)
{
    if (logs->len == 0)
        return;
    if (logs->for_people) {
        show_line(logs, logs->line, logs->len);
        return;
    }
    fwrite(logs->line, 1, logs->len, stdout);
    putchar('\n');
}

static void keep(struct logs *logs, const char *data, size_t len)
{
    if (len == 0)
        return;
    if (logs->capacity - logs->len < len) {
        logs->capacity = 2 * (logs->len + len);
        logs->line = realloc(logs->line, logs->capacity);
        if (!logs->line)
            abort();
    }
    memcpy(logs->line + logs->len, data, len);
    logs->len += len;
}

static bool on_data(void *arg, const char *data, size_t len)
{
    struct logs *logs = arg;
    for (const char *end; (end = memchr(data, '\n', len)) != NULL;) {
        keep(logs, data, (size_t)(end - data));
        take_line(logs);
        logs->len = 0;
        len -= (size_t)(end - data) + 1;
        data = end + 1;
    }
    if (len > 0)
        keep(logs, data, len);
    return fflush(stdout) == 0;
}

static void add_parameter(FILE *path, char *separator, const char *name, const char *value)
{
    if (!value)
        return;
    char *encoded = ctl_http_encode(value);
    fprintf(path, "%c%s=%s", *separator, name, encoded);
    *separator = '&';
    free(encoded);
}

static char *make_path(const struct ctl_options *options)
{
    char *text = NULL;
    size_t len = 0;
    char separator = '?';
    FILE *path = open_memstream(&text, &len);
    if (!path)
        abort();
    fputs("/v1/logs", path);
    add_parameter(path, &separator, "follow", options->follow ? "1" : NULL);
    add_parameter(path, &separator, "lines", options->count);
    add_parameter(path, &separator, "app", options->app);
    add_parameter(path, &separator, "host", options->host);
    add_parameter(path, &separator, "path", options->path);
    add_parameter(path, &separator, "method", options->method);
    add_parameter(path, &separator, "status", options->status);
    add_parameter(path, &separator, "slower_than", options->slower_than);
    add_parameter(path, &separator, "error", options->error ? "1" : NULL);
    if (fclose(path) != 0)
        abort();
    return text;
}

enum ctl_exit ctl_logs(const struct ctl_options *options)
{
    struct ctl_reply reply;
    bool is_terminal = isatty(STDOUT_FILENO);
    const char *no_color = getenv("NO_COLOR");
    struct logs logs = {.for_people = is_terminal && !options->json,
                        .with_colors = is_terminal && !(no_color && *no_color)};
    char *path = make_path(options);
    struct ctl_call call = {.method = "GET", .path = path, .data = on_data, .data_arg = &logs};
    enum ctl_exit result = ctl_http_call(options, &call, &reply);
    if (result == CTL_OK && options->follow) {
        ctl_error("the gateway has ended the stream");
        result = CTL_UNREACHABLE;
    }
    ctl_reply_free(&reply);
    free(logs.line);
    free(path);
    return result;
}
