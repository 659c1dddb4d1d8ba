#include "etcd_retry.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_MS = 2000, MAX_ANSWER = 64 << 20 };

struct etcd_retry {
    struct etcd_retry_params params;
    struct timer timer;
    struct etcd_call *call;
    char *app_id; /* that is asked for */
    uint64_t revision;
    bool is_late; /* the routes can't take it now */
};

static void ask_next(struct etcd_retry *r, const char *after);

static void on_kv(void *arg, const struct etcd_wire_kv *kv)
{
    struct etcd_retry *r = arg;
    r->is_late = !etcd_routes_put_again(r->params.routes, slice_str(r->app_id), kv->value, kv->mod_revision);
}

static void on_answer(void *arg, const struct etcd_result *result)
{
    struct etcd_retry *r = arg;
    struct etcd_wire_range_answer answer;
    r->call = NULL;
    r->is_late = false;
    if (result->end != ETCD_ANSWERED || !etcd_wire_range_read(result->body, on_kv, r, &answer) || r->is_late) {
        etcd_retry_arm(r);
        return;
    }
    if (answer.count == 0)
        etcd_routes_forget_conflict(r->params.routes, slice_str(r->app_id), r->revision);
    ask_next(r, r->app_id);
}

static void ask_next(struct etcd_retry *r, const char *after)
{
    const char *id = etcd_routes_next_conflict(r->params.routes, after, &r->revision);
    char *copy = id ? strdup(id) : NULL;
    free(r->app_id);
    r->app_id = copy;
    if (!copy)
        return;
    char *key;
    if (asprintf(&key, "%.*sapps/%s", SLICE_ARG(r->params.prefix), copy) < 0)
        abort();
    struct etcd_wire_range range = {.key = slice_str(key)};
    r->call =
        etcd_client_call(r->params.client, "/v3/kv/range", etcd_wire_range_request(&range), MAX_ANSWER, on_answer, r);
    free(key);
}

static void on_timer(struct timer *timer)
{
    struct etcd_retry *r = CONTAINER_OF(timer, struct etcd_retry, timer);
    if (r->call)
        etcd_retry_arm(r); /* those that were asked for already may be right by now */
    else
        ask_next(r, NULL);
}

void etcd_retry_arm(struct etcd_retry *r)
{
    uint64_t revision;
    if (etcd_routes_next_conflict(r->params.routes, NULL, &revision) && !timer_is_armed(&r->timer))
        loop_timer_arm(r->params.loop, &r->timer, RETRY_MS);
}

void etcd_retry_stop(struct etcd_retry *r)
{
    timer_disarm(&r->timer);
    etcd_call_cancel(&r->call);
}

struct etcd_retry *etcd_retry_new(const struct etcd_retry_params *params)
{
    struct etcd_retry *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->params = *params;
    timer_init(&r->timer, on_timer);
    return r;
}

void etcd_retry_free(struct etcd_retry **retry)
{
    struct etcd_retry *r = *retry;
    if (!r)
        return;
    *retry = NULL;
    etcd_call_cancel(&r->call);
    timer_forget(&r->timer);
    free(r->app_id);
    free(r);
}
