#include "gateway/proxy/access_log.h"

#include "gateway/base/list.h"
#include "gateway/base/log.h"
#include "gateway/proxy/access_follow.h"
#include "gateway/proxy/access_format.h"
#include "gateway/proxy/access_ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_RINGS = 64, NAP_MS = 50, RETRY_MS = 1000, STUCK_S = 5, WAKE_BYTES = ACCESS_LOG_RING_BYTES / 2 };

/*
 * What the log thread does between rounds, and so when a worker wakes it. Under traffic it naps, and lines collect for
 * one large write; it is woken early only when a ring is half full.
 *
 * No line is forgotten: the thread sets BLOCKED and then looks at the rings once more; a worker publishes a line and
 * then looks at the state. Both are sequentially consistent, so at least one of them sees the other.
 */
enum state { AWAKE, NAPPING, BLOCKED };

struct access_log {
    struct access_format format;        /* of the file; "off" has none */
    struct access_format follow_format; /* JSON for followers, where the file is not JSON */
    bool is_off;                        /* nothing is written */
    bool is_json;                       /* followers see the lines of the file */
    struct access_followers *followers;
    char *path; /* NULL: standard output */
    pthread_t thread;
    int wake_fd; /* eventfd */
    _Atomic int state;
    _Atomic bool reopen;
    _Atomic bool stopping;
    _Atomic uint64_t writes; /* that took something */
    _Atomic bool left;       /* by the thread or by who stops it: the second one frees the log */

    pthread_mutex_t attach_lock;
    struct list attached; /* rings that the thread has not seen yet */

    /* the thread's own */
    int fd;
    struct list rings;
    struct access_log_ring *torn; /* whose first line is written in part */
    bool failing;
};

struct access_log_ring {
    struct list link;
    struct access_log *log;
    struct counters *counters;
    struct access_ring *bytes;  /* for the file; NULL: the log is off */
    struct access_ring *follow; /* for followers only; NULL: they see what the file gets */
    struct access_time time;
    size_t part; /* bytes of the first line that are written; the log thread's */
    size_t seen; /* bytes from its beginning that followers were shown; the log thread's */
    _Atomic bool detached;
};

enum round { ROUND_EMPTY, ROUND_WROTE, ROUND_SHORT, ROUND_WOULD_BLOCK, ROUND_FAILED };

/* ---- the worker's side ---- */

static void wake(struct access_log *log)
{
    uint64_t one = 1;
    ssize_t written = write(log->wake_fd, &one, sizeof one);
    (void)written; /* fails only when the thread has plenty of wake-ups to read */
}

static void wake_if_asleep(struct access_log *log, size_t used)
{
    int state = atomic_load(&log->state);
    if (state == AWAKE || (state == NAPPING && used < WAKE_BYTES))
        return;
    if (atomic_exchange(&log->state, AWAKE) != AWAKE)
        wake(log);
}

bool access_log_is_wanted(const struct access_log_ring *ring)
{
    return ring && (ring->bytes || access_followers_any(ring->log->followers));
}

static bool put_line(struct access_log_ring *ring, struct access_ring *bytes, const struct access_format *format,
                     const struct access_record *record)
{
    char *line = access_ring_reserve(bytes, ACCESS_LOG_MAX_LINE);
    if (!line) {
        COUNTER_INC(ring->counters, access_log_dropped_total);
        return false;
    }
    size_t len = access_format_line(format, &ring->time, record, line);
    wake_if_asleep(ring->log, access_ring_commit(bytes, len));
    return true;
}

void access_log_write(struct access_log_ring *ring, const struct access_record *record)
{
    if (!ring)
        return;
    if (ring->bytes && put_line(ring, ring->bytes, &ring->log->format, record))
        COUNTER_INC(ring->counters, access_log_lines_total);
    if (ring->follow && access_followers_any(ring->log->followers))
        (void)put_line(ring, ring->follow, &ring->log->follow_format, record);
}

static void free_ring(struct access_log_ring *ring)
{
    access_ring_free(&ring->bytes);
    access_ring_free(&ring->follow);
    free(ring);
}

struct access_log_ring *access_log_attach(struct access_log *log, struct counters *counters)
{
    struct access_log_ring *ring = calloc(1, sizeof *ring);
    if (!ring)
        abort();
    ring->log = log;
    ring->counters = counters;
    ring->bytes = log->is_off ? NULL : access_ring_new(ACCESS_LOG_RING_BYTES);
    ring->follow = log->is_json ? NULL : access_ring_new(ACCESS_LOG_RING_BYTES);
    ring->time.second = UINT64_MAX;
    if ((!log->is_off && !ring->bytes) || (!log->is_json && !ring->follow)) {
        log_error("no access log for a worker: its ring cannot be mapped: %s", strerror(errno));
        free_ring(ring);
        return NULL;
    }
    pthread_mutex_lock(&log->attach_lock);
    list_push(&log->attached, &ring->link);
    pthread_mutex_unlock(&log->attach_lock);
    wake(log);
    return ring;
}

void access_log_detach(struct access_log_ring **ring)
{
    if (!*ring)
        return;
    struct access_log *log = (*ring)->log;
    atomic_store(&(*ring)->detached, true); /* from here on the thread may free it */
    *ring = NULL;
    wake(log);
}

/* ---- the log thread ---- */

static struct access_log_ring *ring_of(struct list *link)
{
    return CONTAINER_OF(link, struct access_log_ring, link);
}

static void take_attached(struct access_log *log)
{
    pthread_mutex_lock(&log->attach_lock);
    for (struct list *link; (link = list_pop(&log->attached));)
        list_push(&log->rings, link);
    pthread_mutex_unlock(&log->attach_lock);
}

static void ring_free(struct access_log_ring *ring)
{
    list_remove(&ring->link);
    free_ring(ring);
}

static size_t pending_bytes(const struct access_ring *ring)
{
    return ring ? access_ring_pending(ring).len : 0;
}

static bool is_empty(const struct access_log_ring *ring)
{
    return pending_bytes(ring->bytes) == 0 && pending_bytes(ring->follow) == 0;
}

/* `detached` is read first: what was written before it was set is then seen as pending. */
static void free_detached(struct access_log *log)
{
    LIST_EACH_SAFE (link, &log->rings) {
        struct access_log_ring *ring = ring_of(link);
        if (atomic_load(&ring->detached) && is_empty(ring))
            ring_free(ring);
    }
}

static int open_path(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

static void reopen_path(struct access_log *log)
{
    if (!log->path)
        return;
    int fd = open_path(log->path);
    if (fd < 0) {
        log_warn("access log: %s cannot be opened, the old file stays in use: %s", log->path, strerror(errno));
        return;
    }
    close(log->fd);
    log->fd = fd;
    if (log->torn) /* the whole line goes to the new file */
        log->torn->part = 0;
    log->torn = NULL;
}

/* Lines go to the file after followers have seen them: a file that cannot be written holds up nobody. */
static struct iovec unwritten(const struct access_log_ring *ring)
{
    struct slice pending = ring->bytes ? access_ring_pending(ring->bytes) : SLICE("");
    char *start = (char *)(uintptr_t)pending.ptr; /* iovec has no const */
    return (struct iovec){start + ring->part, ring->seen - ring->part};
}

/* True if there was anything that only followers get. */
static bool show_ring(struct access_log *log, struct access_log_ring *ring)
{
    if (ring->bytes) {
        struct slice pending = access_ring_pending(ring->bytes);
        if (log->is_json)
            access_followers_show(log->followers, slice_from(pending, ring->seen));
        ring->seen = pending.len;
    }
    struct slice only = ring->follow ? access_ring_pending(ring->follow) : SLICE_NONE;
    if (only.len == 0)
        return false;
    access_followers_show(log->followers, only);
    access_ring_consume(ring->follow, only.len);
    return true;
}

static bool show_rings(struct access_log *log)
{
    bool any = false;
    bool ending = access_followers_are_ending(log->followers); /* before the rings, which then have everything */
    access_followers_round(log->followers);
    LIST_EACH (link, &log->rings)
        any |= show_ring(log, ring_of(link));
    if (ending)
        access_followers_finish(log->followers);
    return any;
}

/* The bytes of the piece that are written leave the ring, but for those of a line that is not complete. */
static void advance(struct access_log *log, struct access_log_ring *ring, const struct iovec *piece, size_t written)
{
    size_t done = ring->part + written;
    const char *start = (const char *)piece->iov_base - ring->part;
    const char *newline = memrchr(start, '\n', done);
    size_t whole = newline ? (size_t)(newline - start) + 1 : 0;
    access_ring_consume(ring->bytes, whole);
    ring->part = done - whole;
    ring->seen -= whole;
    if (ring->part > 0)
        log->torn = ring;
    else if (log->torn == ring)
        log->torn = NULL;
}

static enum round failed(struct access_log *log, int error)
{
    if (error == EAGAIN)
        return ROUND_WOULD_BLOCK;
    if (!log->failing)
        log_warn("access log: %s cannot be written, lines are kept while there is room: %s",
                 log->path ? log->path : "standard output", strerror(error));
    log->failing = true;
    return ROUND_FAILED;
}

static enum round write_batch(struct access_log *log, struct access_log_ring *const *rings, const struct iovec *pieces,
                              int count)
{
    ssize_t result;
    do
        result = writev(log->fd, pieces, count);
    while (result < 0 && errno == EINTR);
    if (result <= 0)
        return failed(log, result < 0 ? errno : ENOSPC);
    if (log->failing)
        log_info("access log: %s can be written again", log->path ? log->path : "standard output");
    log->failing = false;
    atomic_fetch_add_explicit(&log->writes, 1, memory_order_relaxed);
    size_t left = (size_t)result;
    for (int i = 0; i < count; i++) {
        size_t part = left < pieces[i].iov_len ? left : pieces[i].iov_len;
        advance(log, rings[i], &pieces[i], part);
        left -= part;
        if (part < pieces[i].iov_len)
            return ROUND_SHORT;
    }
    return ROUND_WROTE;
}

/* One write for up to BATCH_RINGS rings; a torn line is completed before anything else. */
static enum round write_rings(struct access_log *log)
{
    struct access_log_ring *rings[BATCH_RINGS];
    struct iovec pieces[BATCH_RINGS];
    int count = 0;
    enum round round = ROUND_EMPTY;
    if (log->torn) {
        struct iovec piece = unwritten(log->torn);
        struct access_log_ring *torn = log->torn;
        round = write_batch(log, &torn, &piece, 1);
    }
    LIST_EACH (link, &log->rings) {
        if (round != ROUND_EMPTY && round != ROUND_WROTE)
            return round;
        rings[count] = ring_of(link);
        pieces[count] = unwritten(rings[count]);
        if (pieces[count].iov_len > 0)
            count++;
        if (count == BATCH_RINGS) {
            round = write_batch(log, rings, pieces, count);
            count = 0;
        }
    }
    return count > 0 ? write_batch(log, rings, pieces, count) : round;
}

static bool has_pending(const struct access_log *log)
{
    LIST_EACH (link, &log->rings) {
        if (!is_empty(ring_of(link)))
            return true;
    }
    return false;
}

static void wait_for_wake(struct access_log *log, enum state state, int timeout_ms, bool until_writable)
{
    struct pollfd fds[] = {{.fd = log->wake_fd, .events = POLLIN},
                           {.fd = until_writable ? log->fd : -1, .events = POLLOUT}};
    atomic_store(&log->state, (int)state);
    if (state != BLOCKED || !has_pending(log))
        poll(fds, 2, timeout_ms);
    atomic_store(&log->state, AWAKE);
    uint64_t wakes;
    ssize_t got = read(log->wake_fd, &wakes, sizeof wakes);
    (void)got; /* there may be none */
}

/* While the file cannot be written the state stays AWAKE, so that workers make no system calls for nothing. */
static void wait_after(struct access_log *log, enum round round)
{
    switch (round) {
    case ROUND_EMPTY:
        wait_for_wake(log, BLOCKED, -1, false);
        break;
    case ROUND_WROTE:
        wait_for_wake(log, NAPPING, NAP_MS, false);
        break;
    case ROUND_SHORT:
        break;
    case ROUND_WOULD_BLOCK:
        wait_for_wake(log, AWAKE, RETRY_MS, true);
        break;
    case ROUND_FAILED:
        wait_for_wake(log, AWAKE, RETRY_MS, false);
        break;
    }
}

static void work(struct access_log *log)
{
    for (;;) {
        bool stopping = atomic_load(&log->stopping); /* before the last round, which then finds everything */
        take_attached(log);
        if (atomic_exchange(&log->reopen, false))
            reopen_path(log);
        bool shown = show_rings(log);
        enum round round = write_rings(log);
        if (round == ROUND_EMPTY && shown)
            round = ROUND_WROTE;
        free_detached(log);
        if (!stopping)
            wait_after(log, round);
        else if (round != ROUND_WROTE && round != ROUND_SHORT)
            return;
    }
}

static void log_free(struct access_log *log)
{
    LIST_EACH_SAFE (link, &log->rings)
        ring_free(ring_of(link));
    if (log->path && log->fd >= 0)
        close(log->fd);
    if (log->wake_fd >= 0)
        close(log->wake_fd);
    access_followers_free(&log->followers);
    pthread_mutex_destroy(&log->attach_lock);
    access_format_fini(&log->format);
    access_format_fini(&log->follow_format);
    free(log->path);
    free(log);
}

static void *run(void *arg)
{
    struct access_log *log = arg;
    work(log);
    if (atomic_exchange(&log->left, true))
        log_free(log);
    return NULL;
}

/* ---- start and stop ---- */

bool access_log_check_format(const char *format, char ret_error[ACCESS_LOG_ERROR_TEXT_MAX])
{
    if (strcmp(format, "off") == 0)
        return true;
    struct access_format compiled;
    if (!access_format_init(&compiled, &(struct access_log_options){.format = format}, ret_error))
        return false;
    access_format_fini(&compiled);
    return true;
}

static void wake_thread(void *arg)
{
    wake(arg);
}

/* Signals are the control thread's. */
static int start_thread(struct access_log *log)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&log->thread, NULL, run, log);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error == 0)
        pthread_setname_np(log->thread, "access-log");
    return error;
}

static bool start(struct access_log *log, char *ret_error)
{
    if (!log->is_off)
        log->fd = log->path ? open_path(log->path) : STDOUT_FILENO;
    if (log->fd < 0 && !log->is_off) {
        snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX, "%.300s cannot be opened: %s", log->path, strerror(errno));
        return false;
    }
    log->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    log->followers = log->wake_fd < 0 ? NULL : access_followers_new(wake_thread, log);
    int error = !log->followers ? errno : start_thread(log);
    if (error != 0)
        snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX, "the log thread cannot be started: %s", strerror(error));
    return error == 0;
}

/* Followers get what privacy leaves of client and query too. */
static bool make_formats(struct access_log *log, const struct access_log_options *options, char *ret_error)
{
    struct access_log_options json = *options;
    json.format = "json";
    return (log->is_off || access_format_init(&log->format, options, ret_error)) &&
           (log->is_json || access_format_init(&log->follow_format, &json, ret_error));
}

enum status access_log_start(const struct access_log_options *options, struct access_log **ret_log,
                             char ret_error[ACCESS_LOG_ERROR_TEXT_MAX])
{
    struct access_log *log = calloc(1, sizeof *log);
    if (!log)
        abort();
    log->fd = log->wake_fd = -1;
    pthread_mutex_init(&log->attach_lock, NULL);
    list_init(&log->attached);
    list_init(&log->rings);
    log->path = options->path ? strdup(options->path) : NULL;
    log->is_off = strcmp(options->format, "off") == 0;
    log->is_json = strcmp(options->format, "json") == 0;
    if (!make_formats(log, options, ret_error) || !start(log, ret_error)) {
        log_free(log);
        return STATUS_INTERNAL;
    }
    *ret_log = log;
    return STATUS_OK;
}

void access_log_reopen(struct access_log *log)
{
    if (log->is_off)
        return;
    atomic_store(&log->reopen, true);
    wake(log);
}

static void report_lost(const struct access_log *log)
{
    size_t lost = 0;
    LIST_EACH (link, &log->rings)
        lost += pending_bytes(ring_of(link)->bytes);
    if (lost > 0)
        log_warn("access log: %zu bytes are lost, the file cannot be written", lost);
}

/* False: it waits in a write that takes nothing. */
static bool has_ended(const struct access_log *log)
{
    uint64_t writes;
    do {
        struct timespec until;
        writes = atomic_load(&log->writes);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += STUCK_S;
        if (pthread_timedjoin_np(log->thread, NULL, &until) == 0)
            return true;
    } while (atomic_load(&log->writes) != writes);
    return false;
}

void access_log_stop(struct access_log **log_ptr)
{
    struct access_log *log = *log_ptr;
    *log_ptr = NULL;
    if (!log)
        return;
    atomic_store(&log->stopping, true);
    wake(log);
    if (!has_ended(log)) {
        log_warn("access log: %s takes nothing; the end does not wait for it, and lines are lost",
                 log->path ? log->path : "standard output");
        pthread_detach(log->thread);
        if (!atomic_exchange(&log->left, true))
            return;
    } else {
        report_lost(log);
    }
    log_free(log);
}

void access_log_end_following(struct access_log *log)
{
    access_followers_end(log->followers);
}

struct access_follower *access_log_follow(struct access_log *log, const struct access_follow_options *options)
{
    return access_followers_add(log->followers, options);
}
