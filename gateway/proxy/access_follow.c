#include "gateway/proxy/access_follow.h"

#include "gateway/base/list.h"
#include "gateway/proxy/access_ring.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DROPPED_LINE_MAX = 40 };

struct access_followers {
    void (*wake)(void *arg);
    void *arg;
    _Atomic unsigned count;
    _Atomic bool ending;

    pthread_mutex_t lock;
    struct list added; /* that the log thread has not seen yet */

    /* the log thread's */
    struct list active;
    struct access_ring *tail; /* the last lines; both ends are this thread's */
};

struct access_follower {
    struct list link;
    struct access_followers *all;
    struct access_follow_options options;
    struct access_ring *ring;
    int fd;                   /* eventfd */
    _Atomic bool notified;    /* the reader was told and has not looked yet */
    _Atomic bool done;        /* nothing more will be put into the ring */
    _Atomic bool closed;      /* the reader is gone: the log thread frees it */
    _Atomic uint64_t dropped; /* since it was last told; the log thread's, but that readers look at it */
};

/* ---- the reader's side ---- */

bool access_followers_any(const struct access_followers *all)
{
    return atomic_load_explicit(&all->count, memory_order_relaxed) > 0;
}

static void follower_free(struct access_follower *follower)
{
    access_ring_free(&follower->ring);
    if (follower->fd >= 0)
        close(follower->fd);
    free(follower);
}

struct access_follower *access_followers_add(struct access_followers *all, const struct access_follow_options *options)
{
    if (atomic_fetch_add(&all->count, 1) >= ACCESS_FOLLOW_MAX) {
        atomic_fetch_sub(&all->count, 1);
        return NULL;
    }
    struct access_follower *follower = calloc(1, sizeof *follower);
    if (!follower)
        abort();
    follower->all = all;
    follower->options = *options;
    follower->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    follower->ring = access_ring_new(ACCESS_FOLLOW_RING_BYTES);
    if (follower->fd < 0 || !follower->ring) {
        follower_free(follower);
        atomic_fetch_sub(&all->count, 1);
        return NULL;
    }
    pthread_mutex_lock(&all->lock);
    list_push(&all->added, &follower->link);
    pthread_mutex_unlock(&all->lock);
    all->wake(all->arg);
    return follower;
}

int access_follower_fd(const struct access_follower *follower)
{
    return follower->fd;
}

/* The flag is cleared before the ring is looked at: what comes later notifies again. `done` is read first likewise. */
struct slice access_follower_pending(struct access_follower *follower, bool *ret_done)
{
    uint64_t count;
    ssize_t got = read(follower->fd, &count, sizeof count);
    (void)got; /* there may be none */
    atomic_store(&follower->notified, false);
    *ret_done = atomic_load(&follower->done);
    return access_ring_pending(follower->ring);
}

void access_follower_consume(struct access_follower *follower, size_t len)
{
    access_ring_consume(follower->ring, len);
    if (atomic_load(&follower->dropped) > 0)
        follower->all->wake(follower->all->arg);
}

void access_follower_close(struct access_follower **follower)
{
    struct access_follower *closed = *follower;
    *follower = NULL;
    if (!closed)
        return;
    struct access_followers *all = closed->all;
    atomic_fetch_sub(&all->count, 1);
    atomic_store(&closed->closed, true); /* from here on the log thread may free it */
    all->wake(all->arg);
}

/* ---- the log thread ---- */

static void notify(struct access_follower *follower)
{
    uint64_t one = 1;
    if (atomic_exchange(&follower->notified, true))
        return;
    ssize_t written = write(follower->fd, &one, sizeof one);
    (void)written; /* fails only when there is plenty to read */
}

static bool put(struct access_follower *follower, struct slice line)
{
    char *place = access_ring_reserve(follower->ring, line.len);
    if (!place)
        return false;
    memcpy(place, line.ptr, line.len);
    access_ring_commit(follower->ring, line.len);
    notify(follower);
    return true;
}

/* Says how many lines are missing here, as soon as that fits. */
static bool tell_dropped(struct access_follower *follower)
{
    char text[DROPPED_LINE_MAX];
    uint64_t dropped = atomic_load(&follower->dropped);
    if (dropped == 0)
        return true;
    int len = snprintf(text, sizeof text, "{\"dropped\":%" PRIu64 "}\n", dropped);
    if (!put(follower, slice_make(text, (size_t)len)))
        return false;
    atomic_store(&follower->dropped, 0);
    return true;
}

static void show(struct access_follower *follower, struct slice line)
{
    if (!tell_dropped(follower) || !put(follower, line))
        atomic_fetch_add(&follower->dropped, 1);
}

/* Cuts the first line off, with its newline. */
static struct slice take_line(struct slice *lines)
{
    const char *end = memchr(lines->ptr, '\n', lines->len);
    size_t len = end ? (size_t)(end - lines->ptr) + 1 : lines->len;
    struct slice line = slice_make(lines->ptr, len);
    *lines = slice_from(*lines, len);
    return line;
}

static bool wants(const struct access_follower *follower, struct slice line)
{
    struct access_line members;
    return access_line_parse(line, &members) && access_filter_wants(&follower->options.filter, &members);
}

/* The last lines that it wants: counts them, then leaves the first ones out. */
static void show_history(struct access_follower *follower, struct slice tail)
{
    uint64_t count = 0;
    if (follower->options.history == 0)
        return;
    for (struct slice rest = tail; rest.len > 0;)
        count += wants(follower, take_line(&rest));
    for (struct slice rest = tail; rest.len > 0;) {
        struct slice line = take_line(&rest);
        if (wants(follower, line) && count-- <= follower->options.history)
            show(follower, line);
    }
}

static void take_added(struct access_followers *all)
{
    struct list added;
    list_init(&added);
    pthread_mutex_lock(&all->lock);
    for (struct list *link; (link = list_pop(&all->added));)
        list_push(&added, link);
    pthread_mutex_unlock(&all->lock);
    for (struct list *link; (link = list_pop(&added));) {
        struct access_follower *follower = CONTAINER_OF(link, struct access_follower, link);
        list_push(&all->active, link);
        show_history(follower, access_ring_pending(all->tail));
        if (!follower->options.goes_on)
            atomic_store(&follower->done, true);
        notify(follower);
    }
}

void access_followers_round(struct access_followers *all)
{
    take_added(all);
    LIST_EACH_SAFE (link, &all->active) {
        struct access_follower *follower = CONTAINER_OF(link, struct access_follower, link);
        if (atomic_load(&follower->closed)) {
            list_remove(link);
            follower_free(follower);
        } else {
            (void)tell_dropped(follower);
        }
    }
}

void access_followers_end(struct access_followers *all)
{
    atomic_store(&all->ending, true);
    all->wake(all->arg);
}

bool access_followers_are_ending(const struct access_followers *all)
{
    return atomic_load(&all->ending);
}

void access_followers_finish(struct access_followers *all)
{
    LIST_EACH (link, &all->active) {
        struct access_follower *follower = CONTAINER_OF(link, struct access_follower, link);
        if (!atomic_exchange(&follower->done, true))
            notify(follower);
    }
}

/* The line that the byte at `at` belongs to, and those before it, leave. */
static void drop_lines(struct slice *lines, size_t at)
{
    *lines = slice_from(*lines, at);
    take_line(lines);
}

/* The last lines that fit. */
static void keep(struct access_ring *tail, struct slice lines)
{
    struct slice old = access_ring_pending(tail);
    size_t before = old.len;
    if (lines.len > ACCESS_FOLLOW_TAIL_BYTES)
        drop_lines(&lines, lines.len - ACCESS_FOLLOW_TAIL_BYTES - 1);
    if (old.len + lines.len > ACCESS_FOLLOW_TAIL_BYTES)
        drop_lines(&old, old.len + lines.len - ACCESS_FOLLOW_TAIL_BYTES - 1);
    access_ring_consume(tail, before - old.len);
    memcpy(access_ring_reserve(tail, lines.len), lines.ptr, lines.len);
    access_ring_commit(tail, lines.len);
}

void access_followers_show(struct access_followers *all, struct slice lines)
{
    struct access_line members;
    if (lines.len == 0)
        return;
    keep(all->tail, lines);
    while (lines.len > 0 && !list_is_empty(&all->active)) {
        struct slice line = take_line(&lines);
        if (!access_line_parse(line, &members))
            continue;
        LIST_EACH (link, &all->active) {
            struct access_follower *follower = CONTAINER_OF(link, struct access_follower, link);
            if (follower->options.goes_on && access_filter_wants(&follower->options.filter, &members))
                show(follower, line);
        }
    }
}

/* ---- all of them ---- */

struct access_followers *access_followers_new(void (*wake)(void *arg), void *arg)
{
    struct access_followers *all = calloc(1, sizeof *all);
    if (!all)
        abort();
    all->wake = wake;
    all->arg = arg;
    all->tail = access_ring_new(ACCESS_FOLLOW_TAIL_BYTES);
    if (!all->tail) {
        free(all);
        return NULL;
    }
    pthread_mutex_init(&all->lock, NULL);
    list_init(&all->added);
    list_init(&all->active);
    return all;
}

static void free_list(struct list *list)
{
    for (struct list *link; (link = list_pop(list));)
        follower_free(CONTAINER_OF(link, struct access_follower, link));
}

void access_followers_free(struct access_followers **followers)
{
    struct access_followers *all = *followers;
    *followers = NULL;
    if (!all)
        return;
    free_list(&all->added);
    free_list(&all->active);
    access_ring_free(&all->tail);
    pthread_mutex_destroy(&all->lock);
    free(all);
}
