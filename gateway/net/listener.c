#include "gateway/net/listener.h"

#include "gateway/base/log.h"
#include "gateway/net/poller.h"
#include "gateway/net/stream_flush.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096, MAX_AT_ONCE = 16, FULL_TURNS = 4, PAUSE_MS = 200 };

struct listener {
    struct loop *loop;
    struct poller_fd fd;
    listener_accept_cb accepted;
    void *owner;
    struct timer pause;
    unsigned at_once; /* how many are accepted in one call */
    unsigned full;    /* turns in a row that found as many */
    uint64_t turn;    /* the last one */
};

__attribute__((format(printf, 3, 4))) static int fail(int fd, char *ret_error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(ret_error, LISTENER_ERROR_TEXT_MAX, format, args);
    va_end(args);
    if (fd >= 0)
        close(fd);
    return -1;
}

static const char *bind_advice(int error)
{
    switch (error) {
    case EACCES:
        return "; ports below 1024 need CAP_NET_BIND_SERVICE";
    case EADDRINUSE:
        return "; another program listens there, stop it or choose another port";
    case EADDRNOTAVAIL:
        return "; this machine has no such address";
    default:
        return "";
    }
}

int listener_open_tcp(const struct ip_addr *addr, uint16_t port, bool shared, char ret_error[LISTENER_ERROR_TEXT_MAX])
{
    char text[IP_PORT_TEXT_MAX];
    ip_port_format(addr, port, text);
    union ip_sockaddr at;
    socklen_t len = ip_to_sockaddr(addr, port, &at);
    int fd = socket(addr->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0)
        return fail(fd, ret_error, "%s: no socket: %s", text, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (shared)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* accepted sockets inherit it */
    if (addr->family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, &at.sa, len) || listen(fd, BACKLOG))
        return fail(fd, ret_error, "%s: cannot listen: %s%s", text, strerror(errno), bind_advice(errno));
    return fd;
}

/* A socket file that nobody listens on is what a killed process left. Other files refuse connections too. */
static bool is_stale(const struct sockaddr_un *at)
{
    struct stat what;
    if (lstat(at->sun_path, &what) != 0 || !S_ISSOCK(what.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool stale = connect(fd, (const struct sockaddr *)at, sizeof *at) != 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

int listener_open_unix(const char *path, unsigned mode, char ret_error[LISTENER_ERROR_TEXT_MAX])
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof at.sun_path)
        return fail(-1, ret_error, "%s: too long for a socket path: at most %zu bytes", path, sizeof at.sun_path - 1);
    memcpy(at.sun_path, path, strlen(path) + 1);
    if (is_stale(&at))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(fd, ret_error, "%s: no socket: %s", path, strerror(errno));
    mode_t old = umask(0777 & ~(mode_t)mode);
    int bound = bind(fd, (const struct sockaddr *)&at, sizeof at);
    int error = errno;
    umask(old);
    if (bound)
        return fail(fd, ret_error, "%s: cannot listen: %s%s", path, strerror(error),
                    error == EADDRINUSE ? "; another gateway uses it, or it is not a socket" : "");
    if (listen(fd, BACKLOG))
        return fail(fd, ret_error, "%s: cannot listen: %s", path, strerror(errno));
    return fd;
}

static void on_pause_over(struct timer *timer)
{
    struct listener *l = CONTAINER_OF(timer, struct listener, pause);
    if (!poller_want(l->loop->poller, &l->fd, EPOLLIN))
        loop_timer_arm(l->loop, &l->pause, PAUSE_MS);
}

static void out_of_descriptors(struct listener *l)
{
    static _Thread_local struct log_limit limit;
    if (log_limit_pass(&limit, 1))
        log_warn("accept: %s; accepting again in %d ms (raise LimitNOFILE or lower limits.max_connections)",
                 strerror(errno), PAUSE_MS);
    poller_remove(l->loop->poller, &l->fd);
    loop_timer_arm(l->loop, &l->pause, PAUSE_MS);
}

/* True if a connection was taken, or one that is gone already. */
static bool accept_one(struct listener *l)
{
    union {
        struct sockaddr_storage storage;
        struct sockaddr sa;
    } from = {.sa = {.sa_family = AF_UNSPEC}};
    socklen_t len = sizeof from;
    int fd = accept4(l->fd.fd, &from.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            out_of_descriptors(l);
        return errno == ECONNABORTED || errno == EINTR;
    }
    struct ip_addr peer = {.family = 0};
    uint16_t port = 0;
    if (from.sa.sa_family == AF_INET || from.sa.sa_family == AF_INET6)
        ip_from_sockaddr(&from.sa, &peer, &port);
    l->accepted(l->owner, fd, &peer, port);
    stream_flush_dirty(l->loop);
    return true;
}

/*
 * One at a time as long as they come singly: a second call would only hear that there is no other. When they wait in
 * turn after turn, or others are to come before the next call, more at once.
 */
static void on_acceptable(struct poller_fd *fd, uint32_t events)
{
    (void)events;
    struct listener *l = CONTAINER_OF(fd, struct listener, fd);
    uint64_t turn = loop_turns(l->loop);
    if (turn != l->turn + 1) {
        l->at_once = 1;
        l->full = 0;
    }
    l->turn = turn;
    unsigned at_once = l->loop->is_crowded ? MAX_AT_ONCE : l->at_once;
    for (unsigned i = 0; i < at_once; i++)
        if (!accept_one(l)) {
            l->at_once = 1;
            l->full = 0;
            return;
        }
    if (++l->full >= FULL_TURNS && l->at_once < MAX_AT_ONCE)
        l->at_once *= 2;
}

static const struct poller_events poller_events = {.ready = on_acceptable, .asks_for_work = true};

struct listener *listener_new(struct loop *loop, int fd, listener_accept_cb accepted, void *owner)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->loop = loop;
    l->fd = (struct poller_fd){.events = &poller_events, .fd = fd};
    l->accepted = accepted;
    l->owner = owner;
    l->at_once = 1;
    timer_init(&l->pause, on_pause_over);
    if (!poller_want(loop->poller, &l->fd, EPOLLIN))
        abort();
    return l;
}

void listener_close(struct listener **listener)
{
    struct listener *l = *listener;
    for (int i = 0; l && i <= BACKLOG && accept_one(l); i++) {
    }
    listener_free(listener);
}

void listener_free(struct listener **listener)
{
    struct listener *l = *listener;
    if (!l)
        return;
    *listener = NULL;
    poller_remove(l->loop->poller, &l->fd);
    timer_forget(&l->pause);
    close(l->fd.fd);
    free(l);
}
