#include "gateway/net/resolver.h"

#include "gateway/net/poller.h"

#include <ares.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>

enum { TRIES = 2, CLASS_IN = 1, TYPE_TXT = 16 };

/* A socket of c-ares that the loop watches. */
struct watch {
    struct list link;
    struct resolver *resolver;
    struct poller_fd fd;
};

struct resolver {
    struct loop *loop;
    ares_channel channel;
    struct list watches;
    struct timer timer;
    bool ended;
};

struct resolver_query {
    struct resolver *resolver;
    resolver_cb done; /* NULL: cancelled */
    void *arg;
    struct deferred deferred; /* c-ares may answer inside the call that asks, also an older question */
    enum resolver_result result;
    uint8_t *message; /* a copy */
    size_t message_len;
};

/* ---- the loop's side ---- */

static void arm_timer(struct resolver *resolver)
{
    struct timeval wait;
    if (ares_timeout(resolver->channel, NULL, &wait))
        loop_timer_arm(resolver->loop, &resolver->timer, (uint64_t)wait.tv_sec * 1000 + (uint64_t)wait.tv_usec / 1000);
    else
        timer_disarm(&resolver->timer);
}

static void on_timer(struct timer *timer)
{
    struct resolver *resolver = CONTAINER_OF(timer, struct resolver, timer);
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(resolver);
}

static void on_event(struct poller_fd *self, uint32_t events)
{
    struct resolver *resolver =
        CONTAINER_OF(self, struct watch, fd)->resolver; /* the watch may go while c-ares works */
    int fd = self->fd;
    bool readable = events & (EPOLLIN | EPOLLHUP | EPOLLERR), writable = events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
    ares_process_fd(resolver->channel, readable ? fd : ARES_SOCKET_BAD, writable ? fd : ARES_SOCKET_BAD);
    arm_timer(resolver);
}

static const struct poller_events poller_events = {.ready = on_event};

static struct watch *find_watch(struct resolver *resolver, int fd)
{
    LIST_EACH (link, &resolver->watches)
        if (CONTAINER_OF(link, struct watch, link)->fd.fd == fd)
            return CONTAINER_OF(link, struct watch, link);
    return NULL;
}

static void free_watch(struct watch *watch)
{
    list_remove(&watch->link);
    poller_remove(watch->resolver->loop->poller, &watch->fd);
    free(watch);
}

/* c-ares tells what it waits for on a socket; neither: it is about to close it. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct resolver *resolver = arg;
    struct watch *watch = find_watch(resolver, fd);
    uint32_t wanted = (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U);
    if (watch)
        free_watch(watch);
    if (!wanted)
        return;
    watch = malloc(sizeof *watch);
    if (!watch)
        abort();
    *watch = (struct watch){.resolver = resolver, .fd = {.events = &poller_events, .fd = fd}};
    if (!poller_want(resolver->loop->poller, &watch->fd, wanted))
        abort();
    list_push(&resolver->watches, &watch->link);
}

/* ---- questions ---- */

static enum resolver_result result_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return RESOLVER_ANSWER;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
        return RESOLVER_NOTHING;
    default:
        return RESOLVER_FAILED;
    }
}

static void tell(struct deferred *deferred)
{
    struct resolver_query *query = CONTAINER_OF(deferred, struct resolver_query, deferred);
    if (query->done)
        query->done(query->arg, query->result, query->message, query->message_len);
    free(query->message);
    free(query);
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *message, int len)
{
    struct resolver_query *query = arg;
    (void)timeouts;
    if (query->resolver->ended) {
        free(query);
        return;
    }
    query->result = result_of(status);
    if (message && len > 0) {
        query->message = malloc((size_t)len);
        if (!query->message)
            abort();
        memcpy(query->message, message, (size_t)len);
        query->message_len = (size_t)len;
    }
    loop_defer(query->resolver->loop, &query->deferred, tell);
}

struct resolver_query *resolver_query_txt(struct resolver *resolver, const char *name, resolver_cb done, void *arg)
{
    struct resolver_query *query = calloc(1, sizeof *query);
    if (!query)
        abort();
    *query = (struct resolver_query){.resolver = resolver, .done = done, .arg = arg};
    ares_query(resolver->channel, name, CLASS_IN, TYPE_TXT, on_answer, query);
    arm_timer(resolver);
    return query;
}

void resolver_cancel(struct resolver_query **query)
{
    if (*query)
        (*query)->done = NULL;
    *query = NULL;
}

/* ---- life ---- */

static void init_library(void)
{
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        abort();
}

enum status resolver_new(struct loop *loop, const struct resolver_options *options, struct resolver **ret_resolver,
                         char ret_error[RESOLVER_ERROR_TEXT_MAX])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_library);
    struct resolver *resolver = calloc(1, sizeof *resolver);
    if (!resolver)
        abort();
    resolver->loop = loop;
    list_init(&resolver->watches);
    timer_init(&resolver->timer, on_timer);
    char lookups[] = "b"; /* the DNS only, no hosts file */
    struct ares_options wanted = {.timeout = (int)options->try_ms,
                                  .tries = TRIES,
                                  .lookups = lookups,
                                  .sock_state_cb = on_socket_state,
                                  .sock_state_cb_data = resolver};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    int status = ares_init_options(&resolver->channel, &wanted, mask);
    if (status != ARES_SUCCESS) {
        snprintf(ret_error, RESOLVER_ERROR_TEXT_MAX, "%s", ares_strerror(status));
        free(resolver);
        return STATUS_INTERNAL;
    }
    if (options->servers &&
        (status = ares_set_servers_ports_csv(resolver->channel, options->servers)) != ARES_SUCCESS) {
        snprintf(ret_error, RESOLVER_ERROR_TEXT_MAX, "%s: %s", options->servers, ares_strerror(status));
        resolver_free(&resolver);
        return STATUS_INTERNAL;
    }
    *ret_resolver = resolver;
    return STATUS_OK;
}

void resolver_free(struct resolver **resolver_ptr)
{
    struct resolver *resolver = *resolver_ptr;
    if (!resolver)
        return;
    *resolver_ptr = NULL;
    resolver->ended = true;
    ares_destroy(resolver->channel);
    while (!list_is_empty(&resolver->watches))
        free_watch(CONTAINER_OF(resolver->watches.next, struct watch, link));
    timer_forget(&resolver->timer);
    free(resolver);
}
