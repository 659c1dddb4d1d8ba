#include "ctl.h"

#include "gateway/ctl/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DEFAULT_COLUMNS = 80, MIN_COLUMNS = 20, MAX_COLUMNS = 10000, LEAST_CELL = 6, GAP = 2 };

/* The text may quote what others wrote; its own line breaks stay. */
static void put_lines(FILE *out, const char *text)
{
    for (;;) {
        size_t len = strcspn(text, "\n");
        text_put(out, slice_make(text, len), SIZE_MAX);
        fputc('\n', out);
        if (text[len] == '\0')
            return;
        text += len + 1;
    }
}

void ctl_error(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    fflush(stdout);
    fputs("gatewayctl: ", stderr);
    put_lines(stderr, text);
    free(text);
}

/* A terminal gets no control characters of tenants' strings: jansson leaves those above ASCII as they are. */
size_t ctl_json_flags(FILE *out)
{
    return isatty(fileno(out)) ? JSON_ENSURE_ASCII : 0;
}

void ctl_print_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_COMPACT | ctl_json_flags(stdout));
    putchar('\n');
}

void ctl_print_done(const char *key, const char *value, const char *done)
{
    json_t *json = json_pack("{ss* sb}", key, value, done, 1);
    ctl_print_json(json);
    json_decref(json);
}

const char *ctl_string(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text ? text : "";
}

char *ctl_read_file(const char *path, size_t *ret_len)
{
    size_t len = 0;
    size_t capacity = 65536;
    char *text = malloc(capacity);
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    if (!text)
        abort();
    while (file && !feof(file) && !ferror(file)) {
        len += fread(text + len, 1, capacity - len - 1, file);
        if (capacity - len == 1 && !(text = realloc(text, capacity *= 2)))
            abort();
    }
    bool ok = file && !ferror(file);
    if (!ok)
        ctl_error("%s: %s", path, strerror(errno));
    if (file && !is_stdin)
        fclose(file);
    if (!ok) {
        free(text);
        return NULL;
    }
    text[len] = '\0';
    *ret_len = len;
    return text;
}

/* ---- for terminals ---- */

void ctl_format_bytes(uint64_t bytes, char ret_text[CTL_AMOUNT_MAX])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double amount = (double)bytes / 1024;
    size_t unit = 0;
    while (amount >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
        amount /= 1024;
        unit++;
    }
    if (bytes < 1000)
        snprintf(ret_text, CTL_AMOUNT_MAX, "%llu B", (unsigned long long)bytes);
    else
        snprintf(ret_text, CTL_AMOUNT_MAX, "%.1f %s", amount, units[unit]);
}

void ctl_put_text(FILE *out, const char *text, size_t max)
{
    text_put(out, slice_str(text), max);
}

size_t ctl_terminal_columns(FILE *out)
{
    struct winsize size;
    uint64_t columns;
    const char *told = getenv("COLUMNS");
    if (!isatty(fileno(out)))
        return 0;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        columns = size.ws_col;
    else if (!told || !slice_to_u64(slice_str(told), &columns) || columns > MAX_COLUMNS)
        columns = DEFAULT_COLUMNS;
    return columns < MIN_COLUMNS ? MIN_COLUMNS : columns;
}

/* ---- tables ---- */

struct ctl_table {
    size_t columns;
    size_t count;
    char **cells;
};

struct ctl_table *ctl_table_new(size_t columns)
{
    struct ctl_table *table = calloc(1, sizeof *table);
    if (!table)
        abort();
    table->columns = columns;
    return table;
}

void ctl_table_cell(struct ctl_table *table, const char *format, ...)
{
    va_list args;
    table->cells = realloc(table->cells, (table->count + 1) * sizeof *table->cells);
    va_start(args, format);
    if (!table->cells || vasprintf(&table->cells[table->count++], format, args) < 0)
        abort();
    va_end(args);
}

static size_t column_width(const struct ctl_table *table, size_t column)
{
    size_t width = 0;
    for (size_t i = column; i < table->count; i += table->columns) {
        size_t columns = text_columns(slice_str(table->cells[i]));
        width = columns > width ? columns : width;
    }
    return width;
}

void ctl_table_print(struct ctl_table **table, FILE *out)
{
    ctl_table_write(table, out, ctl_terminal_columns(out));
}

void ctl_table_write(struct ctl_table **table, FILE *out, size_t columns)
{
    const struct ctl_table *t = *table;
    size_t *widths = calloc(t->columns, sizeof *widths);
    size_t gaps = GAP * (t->columns - 1);
    if (!widths)
        abort();
    for (size_t i = 0; i < t->columns; i++)
        widths[i] = column_width(t, i);
    if (columns > 0)
        text_fit(widths, t->columns, columns > gaps ? columns - gaps : 0, LEAST_CELL);
    for (size_t i = 0; i < t->count; i++) {
        size_t width = widths[i % t->columns];
        bool is_last = (i + 1) % t->columns == 0;
        size_t used = text_put(out, slice_str(t->cells[i]), width);
        if (is_last)
            fputc('\n', out);
        else
            fprintf(out, "%*s", (int)(width - used + GAP), "");
    }
    free(widths);
    ctl_table_free(table);
}

void ctl_table_free(struct ctl_table **table)
{
    struct ctl_table *old = *table;
    *table = NULL;
    if (!old)
        return;
    for (size_t i = 0; i < old->count; i++)
        free(old->cells[i]);
    free(old->cells);
    free(old);
}
