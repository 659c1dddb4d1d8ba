/*
 * log: the daemon's diagnostics on stderr, one line each: "<time> <level> <text>".
 *
 * Thread-safe: a line is one write(2). It never waits for who reads stderr: what a pipe, a socket or a terminal can't
 * take at once is lost, and the next line that is written has their number before it. Not for requests (see
 * proxy/access_log). Control bytes and non-ASCII bytes in the formatted text are escaped as \xNN, so bytes from the
 * network cannot forge a line. Lines longer than LOG_MAX_LINE are cut. A repeated message should be rate-limited by its
 * caller (log_limit).
 */
#ifndef GATEWAY_BASE_LOG_H
#define GATEWAY_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum { LOG_MAX_LINE = 2048 };

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The least important level that is written (default LOG_LEVEL_INFO). */
void log_set_level(enum log_level level);
bool log_is_on(enum log_level level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                                                 \
    do {                                                                                                               \
        if (log_is_on(LOG_LEVEL_DEBUG))                                                                                \
            log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                                                   \
    } while (0)

/*
 * Lets a message through at most `per_second` times a second. Owned by one thread.
 *   static _Thread_local struct log_limit limit; if (log_limit_pass(&limit, 10)) log_warn(…);
 */
struct log_limit {
    uint64_t second;
    uint32_t count;
};
bool log_limit_pass(struct log_limit *limit, uint32_t per_second);

#endif
