/* A line on standard error that tells how far a transfer is; only where that is a terminal. */
#include "ctl.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { REDRAW_MS = 100, BAR_COLUMNS = 24, SETTLED_MS = 500 };

struct ctl_progress {
    const char *label;
    const char *phase; /* shown in place of the bar; NULL: the bar */
    uint64_t total_bytes;
    uint64_t total_lines;
    uint64_t bytes;
    uint64_t lines;
    uint64_t started_ms;
    uint64_t drawn_ms;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct ctl_progress *ctl_progress_new(const char *label, uint64_t total_bytes, uint64_t total_lines)
{
    if (!isatty(STDERR_FILENO))
        return NULL;
    struct ctl_progress *progress = calloc(1, sizeof *progress);
    if (!progress)
        abort();
    *progress = (struct ctl_progress){
        .label = label, .total_bytes = total_bytes, .total_lines = total_lines, .started_ms = now_ms()};
    return progress;
}

/* ---- the line ---- */

/* Of 1000; UINT64_MAX: not known. */
static uint64_t done_permille(const struct ctl_progress *progress)
{
    uint64_t done = progress->total_bytes > 0 ? progress->bytes : progress->lines;
    uint64_t total = progress->total_bytes > 0 ? progress->total_bytes : progress->total_lines;
    if (total == 0)
        return UINT64_MAX;
    return done >= total ? 1000 : done * 1000 / total;
}

static void print_bar(FILE *out, uint64_t permille)
{
    unsigned filled = (unsigned)(permille * BAR_COLUMNS / 1000);
    fputs(" [", out);
    for (unsigned i = 0; i < BAR_COLUMNS; i++)
        fputc(i < filled ? '#' : '.', out);
    fprintf(out, "] %3u%%", (unsigned)(permille / 10));
}

/* The time that remains at the rate so far. */
static void print_eta(FILE *out, uint64_t permille, uint64_t elapsed_ms)
{
    if (permille == 0 || permille >= 1000 || elapsed_ms < SETTLED_MS)
        return;
    uint64_t seconds = elapsed_ms * (1000 - permille) / permille / 1000;
    fprintf(out, "  ETA %llu:%02llu", (unsigned long long)(seconds / 60), (unsigned long long)(seconds % 60));
}

static void print_line(const struct ctl_progress *progress, FILE *out)
{
    char bytes[CTL_AMOUNT_MAX], rate[CTL_AMOUNT_MAX];
    uint64_t elapsed_ms = now_ms() - progress->started_ms;
    uint64_t permille = done_permille(progress);
    fputs(progress->label, out);
    if (progress->phase)
        fprintf(out, " %s", progress->phase);
    else if (permille != UINT64_MAX)
        print_bar(out, permille);
    ctl_format_bytes(progress->bytes, bytes);
    ctl_format_bytes(elapsed_ms > 0 ? progress->bytes * 1000 / elapsed_ms : 0, rate);
    fprintf(out, "  %s  %llu lines", bytes, (unsigned long long)progress->lines);
    if (!progress->phase) {
        fprintf(out, "  %s/s", rate);
        if (permille != UINT64_MAX)
            print_eta(out, permille, elapsed_ms);
    }
}

static void draw(struct ctl_progress *progress)
{
    char *line = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&line, &len);
    if (!out)
        abort();
    print_line(progress, out);
    if (fclose(out) != 0)
        abort();
    fputc('\r', stderr);
    ctl_put_text(stderr, line, ctl_terminal_columns(stderr) - 1);
    fputs("\033[K", stderr);
    fflush(stderr);
    free(line);
    progress->drawn_ms = now_ms();
}

void ctl_progress_tick(struct ctl_progress *progress)
{
    if (progress && now_ms() - progress->drawn_ms >= REDRAW_MS)
        draw(progress);
}

void ctl_progress_add(struct ctl_progress *progress, const char *data, size_t len)
{
    if (!progress)
        return;
    progress->bytes += len;
    for (const char *end = data + len; (data = memchr(data, '\n', (size_t)(end - data))) != NULL; data++)
        progress->lines++;
    ctl_progress_tick(progress);
}

void ctl_progress_phase(struct ctl_progress *progress, const char *phase)
{
    if (progress && progress->phase != phase) {
        progress->phase = phase;
        draw(progress);
    }
}

void ctl_progress_end(struct ctl_progress **progress)
{
    if (!*progress)
        return;
    draw(*progress);
    fputs("\r\033[K", stderr);
    fflush(stderr);
    free(*progress);
    *progress = NULL;
}
