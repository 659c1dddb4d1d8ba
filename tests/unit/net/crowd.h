/*
 * crowd: descriptors that are always ready, more than a batch of events takes.
 */
#ifndef TESTS_UNIT_NET_CROWD_H
#define TESTS_UNIT_NET_CROWD_H

#include "net/sockets.h"

#include <sys/eventfd.h>

enum { MAX_CROWD = 200 };

struct crowd {
    struct loop_watch *watches[MAX_CROWD];
    int ready[MAX_CROWD];
    size_t count;
    unsigned calls;
};

static inline void crowd_called(void *arg)
{
    struct crowd *crowd = arg;
    crowd->calls++;
}

static inline void crowd_begin(struct crowd *crowd, struct loop *loop, size_t count)
{
    crowd->calls = 0;
    crowd->count = count;
    assert_in_range(count, 33, MAX_CROWD);
    for (size_t i = 0; i < count; i++) {
        crowd->ready[i] = eventfd(1, EFD_CLOEXEC);
        assert_true(crowd->ready[i] >= 0);
        crowd->watches[i] = loop_watch_new(loop, crowd->ready[i], crowd_called, crowd);
    }
}

static inline void crowd_end(struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->count; i++) {
        loop_watch_free(&crowd->watches[i]);
        close(crowd->ready[i]);
    }
}

#endif
