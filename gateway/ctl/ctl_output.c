#include "ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

void ctl_error(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("gatewayctl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void ctl_print_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_COMPACT);
    putchar('\n');
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

static int column_width(const struct ctl_table *table, size_t column)
{
    size_t width = 0;
    for (size_t i = column; i < table->count; i += table->columns)
        if (strlen(table->cells[i]) > width)
            width = strlen(table->cells[i]);
    return (int)width;
}

void ctl_table_print(struct ctl_table **table, FILE *out)
{
    const struct ctl_table *t = *table;
    int *widths = calloc(t->columns, sizeof *widths);
    if (!widths)
        abort();
    for (size_t i = 0; i + 1 < t->columns; i++)
        widths[i] = column_width(t, i);
    for (size_t i = 0; i < t->count; i++) {
        bool is_last = (i + 1) % t->columns == 0;
        fprintf(out, "%-*s%s", widths[i % t->columns], t->cells[i], is_last ? "\n" : "  ");
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
