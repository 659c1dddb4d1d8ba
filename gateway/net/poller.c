#include "gateway/net/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/*
 * A batch. To collect it the kernel looks at each socket, and once more when that is read: few others may come in
 * between if it shall still be in the first cache. With fewer askers, what a batch begins is still in the second one
 * when the answers come.
 */
enum { MAX_EVENTS = 32, MAX_ASKERS = 16 };

/*
 * Crowded is an asker between two of whose events there were so many batches, all of them full. It begins to wait, and
 * with it all others that are met while more wait than a batch takes. They stop when they are met after so many
 * batches that were not full. Each costs two calls.
 */
enum { CROWD_BATCHES = 8, CALM_BATCHES = 65536 };

/*
 * epoll has no order but that of the events. So there is a second one for those that wait, which the first one has as
 * a descriptor among others. It costs a call more for each batch, and so it has nobody until there is a crowd.
 */
struct poller {
    int epoll_fd;
    int waiting_fd;
    struct poller_fd waiting; /* stands for waiting_fd */
    bool have_more_waiting;   /* than were collected */
    uint32_t batch;           /* its number */
    unsigned full_batches;    /* in a row */
    unsigned other_batches;
    int count; /* collected */
    int next;  /* of these, to be called */
    struct epoll_event events[MAX_EVENTS + MAX_ASKERS];
};

static int control(const struct poller *poller, bool waits, int operation, struct poller_fd *self, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = self};
    return epoll_ctl(waits ? poller->waiting_fd : poller->epoll_fd, operation, self->fd, &event);
}

struct poller *poller_new(void)
{
    struct poller *poller = calloc(1, sizeof *poller);
    if (!poller)
        return NULL;
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->waiting_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->waiting.fd = poller->waiting_fd;
    if (poller->epoll_fd < 0 || poller->waiting_fd < 0 ||
        control(poller, false, EPOLL_CTL_ADD, &poller->waiting, EPOLLIN))
        poller_free(&poller);
    return poller;
}

void poller_free(struct poller **poller)
{
    if (!*poller)
        return;
    int error = errno;
    close((*poller)->waiting_fd);
    close((*poller)->epoll_fd);
    free(*poller);
    *poller = NULL;
    errno = error;
}

bool poller_want(struct poller *poller, struct poller_fd *self, uint32_t events)
{
    if (!self->wanted) {
        self->waits = self->events->asks_for_work && poller->have_more_waiting;
        self->met_in = poller->batch;
    }
    if (control(poller, self->waits, self->wanted ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, self, events))
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
    control(poller, self->waits, EPOLL_CTL_DEL, self, 0);
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
    struct epoll_event *events = poller->events;
    int count = epoll_wait(poller->epoll_fd, events, MAX_EVENTS, max_ms), askers = 0;
    bool is_full = count == MAX_EVENTS;
    poller->batch++;
    bool have_waiting = poller->have_more_waiting;
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr == &poller->waiting) {
            events[i] = events[--count];
            have_waiting = true;
        }
    if (count < 0)
        count = 0;
    if (have_waiting)
        askers = epoll_wait(poller->waiting_fd, events + count, MAX_ASKERS, 0);
    poller->have_more_waiting = askers == MAX_ASKERS;
    is_full = is_full || poller->have_more_waiting;
    poller->full_batches = is_full ? poller->full_batches + 1 : 0;
    poller->other_batches = is_full ? 0 : poller->other_batches + 1;
    poller->count = count + (askers > 0 ? askers : 0);
    poller->next = 0;
    return is_full;
}

static bool is_crowded(const struct poller *poller, const struct poller_fd *self)
{
    uint32_t since = poller->batch - self->met_in;
    return poller->have_more_waiting || (since >= CROWD_BATCHES && poller->full_batches >= since);
}

/* Nothing is missed: who is added hears of what is there already. */
static void choose_place(const struct poller *poller, struct poller_fd *self)
{
    bool waits = is_crowded(poller, self) || (self->waits && poller->other_batches < CALM_BATCHES);
    self->met_in = poller->batch;
    if (waits == self->waits || control(poller, waits, EPOLL_CTL_ADD, self, self->wanted))
        return;
    control(poller, self->waits, EPOLL_CTL_DEL, self, 0);
    self->waits = waits;
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
        if (!self)
            continue;
        if (self->events->asks_for_work)
            choose_place(poller, self);
        self->events->ready(self, event->events);
    }
}
