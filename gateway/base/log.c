#include "gateway/base/log.h"

#include "gateway/base/clock.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PREFIX_BYTES = 64, NOTE_BYTES = 128 };

/* A pipe takes so much in one piece or not at all. */
static_assert(NOTE_BYTES + LOG_MAX_LINE + PREFIX_BYTES <= PIPE_BUF, "a line and the note before it are one write");

static _Atomic int max_level = LOG_LEVEL_INFO;
static _Atomic unsigned lost; /* lines since the last one that was written */

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

static size_t put_note(char *line, unsigned lines)
{
    if (lines == 0)
        return 0;
    size_t len = put_prefix(line, NOTE_BYTES, LOG_LEVEL_WARN);
    return len +
           (size_t)snprintf(line + len, NOTE_BYTES - len, "log: %u lines are lost here: stderr was full\n", lines);
}

/* ---- writing ---- */

/* The lock keeps another thread from taking the room that was seen. Nobody sleeps who has it. */
static ssize_t write_if_ready(const char *line, size_t len)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    pthread_mutex_lock(&lock);
    ssize_t written = poll(&fd, 1, 0) > 0 ? write(STDERR_FILENO, line, len) : -1;
    pthread_mutex_unlock(&lock);
    return written;
}

/*
 * Whoever logs has other work, such as all connections of a worker: a reader of stderr that has fallen asleep costs
 * lines, never time. O_NONBLOCK is not for us to set, it would be set for every process that shares the open file.
 */
static ssize_t write_now(char *line, size_t len)
{
    struct stat what;
    struct iovec piece = {.iov_base = line, .iov_len = len};
    if (fstat(STDERR_FILENO, &what) != 0 || S_ISREG(what.st_mode))
        return write(STDERR_FILENO, line, len);
    if (S_ISSOCK(what.st_mode))
        return send(STDERR_FILENO, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    ssize_t written = pwritev2(STDERR_FILENO, &piece, 1, -1, RWF_NOWAIT);
    if (written < 0 && errno != EAGAIN) /* what can't do that: terminals, FIFOs, pipes before Linux 6.5 */
        written = write_if_ready(line, len);
    return written;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_is_on(level))
        return;
    char text[LOG_MAX_LINE], out[NOTE_BYTES + LOG_MAX_LINE + PREFIX_BYTES];
    int error = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    unsigned lost_before = atomic_exchange_explicit(&lost, 0, memory_order_relaxed);
    size_t note_len = put_note(out, lost_before);
    char *line = out + note_len;
    size_t size = LOG_MAX_LINE + PREFIX_BYTES;
    size_t len = put_prefix(line, size, level);
    len = put_escaped(line, len, size, text);
    line[len++] = '\n';
    if (write_now(out, note_len + len) < 0)
        atomic_fetch_add_explicit(&lost, lost_before + 1, memory_order_relaxed);
    errno = error; /* the caller may not be done with it */
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
