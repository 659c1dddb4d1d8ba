#include "gateway/base/log.h"

#include "gateway/base/clock.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static _Atomic int max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

bool log_is_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

static size_t put_prefix(char *line, size_t size, enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    uint64_t now = clock_wall_us();
    time_t seconds = (time_t)(now / 1000000U);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
    len += (size_t)snprintf(line + len, size - len, ".%03uZ %s ", (unsigned)(now / 1000U % 1000U), names[level]);
    return len;
}

/* Copies text, printable ASCII as it is, the rest as \xNN; returns the new length of the line. */
static size_t put_escaped(char *line, size_t len, size_t size, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    for (; *text && len + 5 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c < 0x7f) {
            line[len++] = (char)c;
            continue;
        }
        line[len++] = '\\';
        line[len++] = 'x';
        line[len++] = hex[c >> 4];
        line[len++] = hex[c & 15];
    }
    return len;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_is_on(level))
        return;
    char text[LOG_MAX_LINE], line[LOG_MAX_LINE + 64];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t len = put_prefix(line, sizeof line, level);
    len = put_escaped(line, len, sizeof line, text);
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* there is nowhere to say it */
}

bool log_limit_pass(struct log_limit *limit, uint32_t per_second)
{
    uint64_t second = clock_now_us() / 1000000U;
    if (limit->second != second) {
        limit->second = second;
        limit->count = 0;
    }
    return limit->count++ < per_second;
}
