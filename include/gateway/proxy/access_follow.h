/*
 * access_follow: live readers of the access log: the control API's GET /v1/logs.
 *
 * The log thread shows each line, as JSON, to the followers whose filter wants it; each has a ring of its own (single
 * producer, single consumer), which its reader empties. What does not fit is dropped and counted: a slow reader costs
 * itself lines, and nobody else anything. The log thread also keeps the last lines, as many as fit, for those who ask
 * what has been.
 *
 * Whatever access_log.format is, followers get JSON. With "json" nothing is done twice, and the last lines are always
 * there; with other formats (and "off") workers make JSON lines too, but only while somebody follows, so that the last
 * lines begin with the first follower.
 */
#ifndef GATEWAY_PROXY_ACCESS_FOLLOW_H
#define GATEWAY_PROXY_ACCESS_FOLLOW_H

#include "gateway/proxy/access_filter.h"
#include "gateway/proxy/access_log.h"

enum { ACCESS_FOLLOW_MAX = 16, ACCESS_FOLLOW_TAIL_BYTES = 1 << 20, ACCESS_FOLLOW_RING_BYTES = 1 << 21 };

/* ---- for readers: any one thread per follower ---- */

struct access_follower;

struct access_follow_options {
    struct access_filter filter;
    uint64_t history; /* how many of the last lines that the filter wants come first */
    bool goes_on;     /* else the follower is done after them */
};

/* NULL when there are ACCESS_FOLLOW_MAX already, or when the system refuses memory. */
struct access_follower *access_log_follow(struct access_log *log, const struct access_follow_options *options);
/* Readable when something happened since access_follower_pending was last called. */
int access_follower_fd(const struct access_follower *follower);
/*
 * Whole lines, and where lines were dropped {"dropped":N}. Valid until they are consumed. `ret_done`: no more will
 * come.
 */
struct slice access_follower_pending(struct access_follower *follower, bool *ret_done);
void access_follower_consume(struct access_follower *follower, size_t len);
/* All followers, and those to come, are done once they have been shown what was logged before this. */
void access_log_end_following(struct access_log *log);
/* Before the log is stopped. Accepts NULL. */
void access_follower_close(struct access_follower **follower);

/* ---- for access_log ---- */

struct access_followers;

/* `wake` makes the log thread call access_followers_round; it is called by readers. */
struct access_followers *access_followers_new(void (*wake)(void *arg), void *arg);
/* No follower is left. Accepts NULL. */
void access_followers_free(struct access_followers **followers);
struct access_follower *access_followers_add(struct access_followers *followers,
                                             const struct access_follow_options *options);
/* Any thread: true if somebody follows. */
bool access_followers_any(const struct access_followers *followers);

/* Any thread: access_log_end_following; the log thread then calls the other one when all has been shown. */
void access_followers_end(struct access_followers *followers);
bool access_followers_are_ending(const struct access_followers *followers);
void access_followers_finish(struct access_followers *followers);

/* The log thread's: takes new ones, frees closed ones, tells how much was dropped. */
void access_followers_round(struct access_followers *followers);
/* The log thread's: some whole lines. */
void access_followers_show(struct access_followers *followers, struct slice lines);

#endif
