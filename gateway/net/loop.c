#include "gateway/net/loop.h"

#include "gateway/base/clock.h"
#include "gateway/net/poller.h"
#include "gateway/net/stream_flush.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_FREE_BLOCKS = 128, MAX_FREE_ARENA_BLOCKS = 1024 };
enum { FEW_BLOCKS = 64, MAX_LARGE_READS = 4 };
enum { MAX_TURNS_OF_ROUND = 8 };

struct message {
    struct message *next;
    void (*fn)(void *arg);
    void *arg;
};

struct loop_private {
    struct loop *loop;
    struct timer_wheel timers;
    /* end of the turn */
    struct deferred *deferred_first;
    struct deferred **deferred_last;
    _Atomic uint64_t turns;
    unsigned turns_of_round; /* so far */
    _Atomic bool stopped;
    /* messages from other threads */
    pthread_mutex_t lock;
    struct message *first;
    struct message **last;
    struct poller_fd wake;
};

static void read_clocks(struct loop *loop)
{
    loop->now_us = clock_now_us();
    loop->wall_us = clock_wall_us();
}

/* ---- timers ---- */

void loop_timer_arm(struct loop *loop, struct timer *timer, uint64_t ms)
{
    timer_wheel_arm(&loop->private->timers, timer, loop_now_ms(loop), ms);
}

static void run_timers(struct loop *loop)
{
    for (struct timer *timer; (timer = timer_wheel_take_due(&loop->private->timers, loop_now_ms(loop)));) {
        timer->fire(timer);
        stream_flush_dirty(loop);
    }
}

/* ---- messages ---- */

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_private *p = loop->private;
    struct message *message = malloc(sizeof *message);
    if (!message)
        abort();
    *message = (struct message){.fn = fn, .arg = arg};
    pthread_mutex_lock(&p->lock);
    bool was_empty = p->first == NULL;
    *p->last = message;
    p->last = &message->next;
    pthread_mutex_unlock(&p->lock);
    if (was_empty) {
        uint64_t one = 1;
        ssize_t n = write(p->wake.fd, &one, sizeof one);
        (void)n; /* a full counter wakes as well */
    }
}

static void run_messages(struct loop *loop)
{
    struct loop_private *p = loop->private;
    pthread_mutex_lock(&p->lock);
    struct message *message = p->first;
    p->first = NULL;
    p->last = &p->first;
    pthread_mutex_unlock(&p->lock);
    while (message) {
        struct message *next = message->next;
        message->fn(message->arg);
        free(message);
        stream_flush_dirty(loop);
        message = next;
    }
}

static void on_wake(struct poller_fd *wake, uint32_t events)
{
    (void)events;
    uint64_t count;
    ssize_t n = read(wake->fd, &count, sizeof count);
    (void)n;
    run_messages(CONTAINER_OF(wake, struct loop_private, wake)->loop);
}

static const struct poller_events wake_events = {.ready = on_wake};

static void stop(void *arg)
{
    struct loop *loop = arg;
    atomic_store(&loop->private->stopped, true);
}

void loop_stop(struct loop *loop)
{
    loop_post(loop, stop, loop);
}

/* ---- other descriptors ---- */

struct loop_watch {
    struct loop *loop;
    struct poller_fd fd;
    void (*readable)(void *arg);
    void *arg;
};

static void on_readable(struct poller_fd *fd, uint32_t events)
{
    (void)events;
    struct loop_watch *watch = CONTAINER_OF(fd, struct loop_watch, fd);
    watch->readable(watch->arg);
}

static const struct poller_events watch_events = {.ready = on_readable};

struct loop_watch *loop_watch_new(struct loop *loop, int fd, void (*readable)(void *arg), void *arg)
{
    struct loop_watch *watch = malloc(sizeof *watch);
    if (!watch)
        abort();
    *watch =
        (struct loop_watch){.loop = loop, .fd = {.events = &watch_events, .fd = fd}, .readable = readable, .arg = arg};
    if (!poller_want(loop->poller, &watch->fd, EPOLLIN))
        abort();
    return watch;
}

void loop_watch_free(struct loop_watch **watch)
{
    if (!*watch)
        return;
    poller_remove((*watch)->loop->poller, &(*watch)->fd);
    free(*watch);
    *watch = NULL;
}

/* ---- blocks ---- */

struct block *loop_block_take(struct loop *loop)
{
    struct block *block = loop->free_blocks;
    if (block) {
        loop->free_blocks = block->next;
        loop->free_block_count--;
    } else if (!(block = malloc(sizeof *block))) {
        abort();
    }
    loop->taken_blocks++;
    block->next = NULL;
    block->start = block->end = 0;
    return block;
}

bool loop_may_read_large(struct loop *loop)
{
    return loop->taken_blocks < FEW_BLOCKS && loop->large_reads < MAX_LARGE_READS && ++loop->large_reads;
}

void loop_block_give(struct loop *loop, struct block *block)
{
    loop->taken_blocks--;
    if (loop->free_block_count >= MAX_FREE_BLOCKS) {
        free(block);
        return;
    }
    block->next = loop->free_blocks;
    loop->free_blocks = block;
    loop->free_block_count++;
}

/* ---- turns ---- */

void loop_defer(struct loop *loop, struct deferred *deferred, void (*run)(struct deferred *deferred))
{
    struct loop_private *p = loop->private;
    if (deferred->queued) {
        assert(deferred->run == run);
        return;
    }
    *deferred = (struct deferred){.run = run, .queued = true};
    *p->deferred_last = deferred;
    p->deferred_last = &deferred->next;
}

/* What is deferred may defer more; that runs in the same turn. */
static void run_deferred(struct loop *loop)
{
    struct loop_private *p = loop->private;
    while (p->deferred_first) {
        struct deferred *deferred = p->deferred_first;
        p->deferred_first = deferred->next;
        if (!p->deferred_first)
            p->deferred_last = &p->deferred_first;
        deferred->queued = false;
        deferred->run(deferred);
    }
}

static void end_round(struct loop *loop)
{
    struct loop_private *p = loop->private;
    p->turns_of_round = 0;
    stream_read_ready(loop);
    do { /* flushing makes room, which makes work, which writes: nothing may be left to a turn that nobody wakes */
        run_deferred(loop);
        stream_flush_late(loop);
    } while (p->deferred_first);
    loop->large_reads = 0;
}

/* At most `max_ms` (-1: no end), and no longer than until the next timer. The turn before may have taken long. */
static int may_sleep_ms(const struct loop *loop, int max_ms)
{
    int timer_ms = timer_wheel_wait_ms(&loop->private->timers, clock_now_us() / 1000U);
    return timer_ms >= 0 && (max_ms < 0 || timer_ms < max_ms) ? timer_ms : max_ms;
}

static void turn(struct loop *loop, int max_ms)
{
    struct loop_private *p = loop->private;
    bool has_work = p->turns_of_round > 0 || p->deferred_first || !list_is_empty(&loop->ready);
    loop->is_crowded = poller_wait(loop->poller, has_work ? 0 : may_sleep_ms(loop, max_ms));
    read_clocks(loop);
    poller_call(loop->poller);
    run_timers(loop);
    if (loop->is_crowded && ++p->turns_of_round < MAX_TURNS_OF_ROUND)
        run_deferred(loop);
    else
        end_round(loop);
    atomic_store_explicit(&p->turns, atomic_load_explicit(&p->turns, memory_order_relaxed) + 1, memory_order_relaxed);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load_explicit(&loop->private->stopped, memory_order_relaxed))
        turn(loop, -1);
}

void loop_turn(struct loop *loop, int max_ms)
{
    turn(loop, max_ms);
}

uint64_t loop_turns(const struct loop *loop)
{
    return atomic_load_explicit(&loop->private->turns, memory_order_relaxed);
}

/* ---- life ---- */

static struct loop_private *new_private(struct loop *loop)
{
    struct loop_private *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    timer_wheel_init(&p->timers);
    p->deferred_last = &p->deferred_first;
    p->last = &p->first;
    pthread_mutex_init(&p->lock, NULL);
    p->loop = loop;
    p->wake = (struct poller_fd){.events = &wake_events, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    if (p->wake.fd < 0 || !poller_want(loop->poller, &p->wake, EPOLLIN))
        abort();
    return p;
}

struct loop *loop_new(struct counters *counters)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop || !(loop->poller = poller_new()))
        abort();
    loop->counters = counters;
    arena_pool_init(&loop->arenas, MAX_FREE_ARENA_BLOCKS);
    loop->scratch = malloc(LOOP_SCRATCH_BYTES);
    loop->decrypted = malloc(LOOP_DECRYPTED_BYTES);
    if (!loop->scratch || !loop->decrypted)
        abort();
    list_init(&loop->dirty);
    list_init(&loop->dirty_late);
    list_init(&loop->ready);
    list_init(&loop->streams);
    list_init(&loop->closing);
    loop->private = new_private(loop);
    stream_loop_begin(loop);
    read_clocks(loop);
    return loop;
}

void loop_free(struct loop **loop_ptr)
{
    struct loop *loop = *loop_ptr;
    if (!loop)
        return;
    *loop_ptr = NULL;
    struct loop_private *p = loop->private;
    run_messages(loop);
    stream_flush_late(loop);
    run_deferred(loop);
    stream_destroy_all(loop);
    run_deferred(loop);
    stream_loop_end(loop);
    poller_close(loop->poller, &p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
    poller_free(&loop->poller);
    while (loop->free_blocks) {
        struct block *block = loop->free_blocks;
        loop->free_blocks = block->next;
        free(block);
    }
    arena_pool_fini(&loop->arenas);
    free(loop->scratch);
    free(loop->decrypted);
    free(loop);
}
