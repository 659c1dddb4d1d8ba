/*
 * poller: which descriptors of one thread are ready: epoll(7), with nothing between it and who waits.
 *
 * A poller_fd is embedded in what owns the descriptor; epoll carries its address. It may be removed, and its memory
 * freed, at any time, also while events are called: those that were already collected for it are dropped.
 *
 * When there are more events than are called at once, those of descriptors that ask for work wait for those that bring
 * what was asked for, in small batches: what has been begun is finished, while its memory is in the caches, before more
 * is begun. Both kinds have their turn in each batch.
 */
#ifndef GATEWAY_NET_POLLER_H
#define GATEWAY_NET_POLLER_H

#include <stdbool.h>
#include <stdint.h>

enum { POLLER_MAX_AHEAD = 3 };

struct poller_fd;

struct poller_events {
    /* `events`: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR; the last two come unasked. */
    void (*ready)(struct poller_fd *self, uint32_t events);
    /*
     * `ready` comes soon, as the `ahead`-th from now or before, from POLLER_MAX_AHEAD down to 1: time to fetch from
     * memory what it will look at. It changes nothing; it may be left out, and `ready` may not come. May be NULL.
     */
    void (*soon)(struct poller_fd *self, unsigned ahead);
    /* Clients and listeners, not what brings answers. It may be told once more of what it was told already. */
    bool asks_for_work;
};

struct poller_fd {
    const struct poller_events *events;
    int fd;
    uint32_t wanted; /* what epoll was told; 0: it is not in the poller */
    uint32_t met_in; /* which batch */
    bool waits;      /* for others */
};

struct poller *poller_new(void); /* NULL with errno */
void poller_free(struct poller **poller);

/* Waits for `events`, with EPOLLET or without; again: for these instead. False with errno: nothing has changed. */
bool poller_want(struct poller *poller, struct poller_fd *self, uint32_t events);
/* The descriptor stays open. Harmless for one that is not in the poller. */
void poller_remove(struct poller *poller, struct poller_fd *self);
/* Closes the descriptor, whose only reference it must be: that takes it out of the poller without a call of its own. */
void poller_close(struct poller *poller, struct poller_fd *self);

/* Waits up to `max_ms` (-1: without an end; a signal ends it) and collects a batch of what is ready; poller_call calls
 * it. True: more may be ready. */
bool poller_wait(struct poller *poller, int max_ms);
void poller_call(struct poller *poller);

#endif
