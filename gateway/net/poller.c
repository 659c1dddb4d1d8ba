#include "gateway/net/poller.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/*
 * A batch. To collect it the kernel looks at each socket, and once more when that is read: few others may come in
 * between if it shall still be in the first cache.
 */
enum { MAX_EVENTS = 32 };

struct poller {
    int epoll_fd;
    int count; /* collected */
    int next;  /* of these, to be called */
    struct epoll_event events[MAX_EVENTS];
};

struct poller *poller_new(void)
{
    struct poller *poller = calloc(1, sizeof *poller);
    if (!poller)
        return NULL;
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (poller->epoll_fd < 0) {
        free(poller);
        return NULL;
    }
    return poller;
}

void poller_free(struct poller **poller)
{
    if (!*poller)
        return;
    close((*poller)->epoll_fd);
    free(*poller);
    *poller = NULL;
}

bool poller_want(struct poller *poller, struct poller_fd *self, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = self};
    if (epoll_ctl(poller->epoll_fd, self->wanted ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, self->fd, &event))
        return false;
    self->wanted = events;
    return true;
}

static void drop_collected(struct poller *poller, struct poller_fd *self)
{
    for (int i = poller->next; i < poller->count; i++)
        if (poller->events[i].data.ptr == self)
            poller->events[i].data.ptr = NULL;
    self->wanted = 0;
}

void poller_remove(struct poller *poller, struct poller_fd *self)
{
    if (!self->wanted)
        return;
    epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, self->fd, NULL);
    drop_collected(poller, self);
}

void poller_close(struct poller *poller, struct poller_fd *self)
{
    close(self->fd);
    self->fd = -1;
    drop_collected(poller, self);
}

bool poller_wait(struct poller *poller, int max_ms)
{
    int count = epoll_wait(poller->epoll_fd, poller->events, MAX_EVENTS, max_ms);
    poller->count = count > 0 ? count : 0;
    poller->next = 0;
    return count == MAX_EVENTS;
}

/*
 * With many connections most of them are no longer in the cache when they are ready. The next ones are fetched while
 * those before them run.
 */
static void look_ahead(const struct poller *poller, int at, unsigned ahead)
{
    struct poller_fd *self = at < poller->count ? poller->events[at].data.ptr : NULL;
    if (self && self->events->soon)
        self->events->soon(self, ahead);
}

void poller_call(struct poller *poller)
{
    for (int at = 0; at < POLLER_MAX_AHEAD; at++)
        look_ahead(poller, at, POLLER_MAX_AHEAD);
    while (poller->next < poller->count) {
        for (int ahead = POLLER_MAX_AHEAD; ahead > 0; ahead--)
            look_ahead(poller, poller->next + ahead, (unsigned)ahead);
        const struct epoll_event *event = &poller->events[poller->next++];
        struct poller_fd *self = event->data.ptr;
        if (self)
            self->events->ready(self, event->events);
    }
}
