/*
 * loop: one thread's event loop: epoll for readiness, timers, messages from other threads, objects freed at the end of
 * a turn, and the memory that all connections of the thread share (scratch buffers, send blocks, arenas).
 *
 * A turn: wait for events; call a batch of them; flush what they wrote; run deferred work; free. The clock is read once
 * a turn. Turns whose batch was full are a round, up to some: streams with more to read than one read takes have their
 * turn at its end, and those that many callbacks write to are flushed then.
 * Nothing here is thread-safe but loop_post and loop_stop.
 */
#ifndef GATEWAY_NET_LOOP_H
#define GATEWAY_NET_LOOP_H

#include "gateway/base/arena.h"
#include "gateway/base/counters.h"
#include "gateway/base/list.h"
#include "gateway/net/timer_wheel.h"

#include <openssl/types.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct poller;
struct stream;

enum {
    LOOP_READ_BYTES = 65536,     /* one read */
    LOOP_SCRATCH_BYTES = 524288, /* one large read: see loop_may_read_large */
    /* What one read can decrypt to, with the rest of a TLS record from before. */
    LOOP_DECRYPTED_BYTES = LOOP_SCRATCH_BYTES + 32768,
    LOOP_BLOCK_BYTES = 32896, /* one send block, with its header: two full TLS records */
};

/* ---- memory that a stream's unsent bytes live in ---- */

struct block {
    struct block *next;
    uint32_t start; /* of the unsent bytes in data */
    uint32_t end;
    char data[LOOP_BLOCK_BYTES - 16];
};

/* ---- work for the end of the turn ---- */

/* Embedded in objects; each at most once in the queue. */
struct deferred {
    struct deferred *next;
    void (*run)(struct deferred *deferred);
    bool queued;
};

struct loop {
    struct poller *poller;
    struct counters *counters;
    struct arena_pool arenas;
    struct block *free_blocks;
    size_t free_block_count;
    size_t taken_blocks;
    unsigned large_reads;           /* of this round */
    struct stream_pipe *free_pipes; /* of stream_splice */
    size_t free_pipe_count;
    char *scratch;             /* LOOP_SCRATCH_BYTES: what was read; valid until the callback that got it returns */
    char *decrypted;           /* the same for plaintext of TLS */
    struct list dirty;         /* streams that wrote in this callback: flushed when it ends */
    struct list dirty_late;    /* streams that are flushed once, at the end of the round */
    struct list ready;         /* streams with more to read than one round takes */
    struct list streams;       /* all of them, also those that only finish sending */
    struct list closing;       /* those of them that have something to send, the longest closed first */
    size_t closing_bytes;      /* that they had when they were closed */
    bool is_crowded;           /* there are more events than those of this turn */
    uint64_t now_us;           /* monotonic, of this turn */
    uint64_t wall_us;          /* wall clock, of this turn */
    BIO *bio;                  /* of all TLS streams of this loop, see net/stream */
    struct stream *bio_stream; /* whose bytes the BIO reads and writes now */
    const char *bio_in;
    size_t bio_in_len;
    struct loop_private *private;
};

struct loop *loop_new(struct counters *counters);
void loop_free(struct loop **loop); /* everything on it must be closed; runs what is deferred */

/* Runs until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* thread-safe */

/* One turn, for tests: waits at most `max_ms`. */
void loop_turn(struct loop *loop, int max_ms);

static inline uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_us / 1000U;
}

/* Fires once, `ms` from now, as exactly as net/timer_wheel says and epoll_wait(2) sleeps (a thousandth longer). */
void loop_timer_arm(struct loop *loop, struct timer *timer, uint64_t ms);

/* Runs at the end of this turn, after all callbacks. Objects free themselves through this, never inside a callback. */
void loop_defer(struct loop *loop, struct deferred *deferred, void (*run)(struct deferred *deferred));

/* Calls fn(arg) on the loop's thread, in the order of posting. Thread-safe; wakes the loop. Never fails. */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* An empty block; a used one goes back. */
struct block *loop_block_take(struct loop *loop);
void loop_block_give(struct loop *loop, struct block *block);

/*
 * A large transfer costs a fifth less in large reads, as both peers are woken less often. There are some in a round, so
 * that it stays short for others, and none while peers that don't take what is sent to them keep many blocks: a read
 * can become a queue of its size.
 */
bool loop_may_read_large(struct loop *loop);

/* Calls readable(arg) while the descriptor has something to read; the caller keeps it. For signals and the like. */
struct loop_watch;
struct loop_watch *loop_watch_new(struct loop *loop, int fd, void (*readable)(void *arg), void *arg);
void loop_watch_free(struct loop_watch **watch); /* accepts NULL */

/* Turns so far; another thread may read it to see that the loop is alive. */
uint64_t loop_turns(const struct loop *loop);

#endif
