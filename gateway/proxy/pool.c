#include "gateway/proxy/pool.h"

#include "gateway/mux/h1_mux.h"
#include "gateway/mux/h2_mux.h"

#include <assert.h>
#include <stdlib.h>

enum { FIRST_SLOTS = 64 };

/* All connections to one claim. */
struct bucket {
    struct bucket *next;
    struct claim *claim; /* a reference */
    struct list idle;    /* the longest idle first */
    struct list busy;
    struct list shared; /* those of HTTP/2, idle or not: few, since each serves many */
    struct list guests;
    unsigned busy_count;
    unsigned idle_count;
    unsigned guest_count;
    unsigned load; /* endpoints in use, and guests */
};

struct pooled {
    struct list link; /* in one of its bucket's lists */
    struct bucket *bucket;
    struct pool *pool;
    struct mux *mux;
    struct settings *settings; /* a reference */
    struct timer timer;        /* of idleness */
    struct pool_target target; /* its claim is the bucket's */
    struct list owner_link;    /* in target.owner */
    char *header;              /* target.header's bytes */
    bool is_idle;
};

struct pool {
    struct loop *loop;
    struct bucket **slots; /* a power of two */
    size_t slot_count;
    size_t bucket_count;
    size_t count;
};

static struct bucket **slot_of(const struct pool *pool, uint64_t serial)
{
    return &pool->slots[serial * 0x9E3779B97F4A7C15U >> 20 & (pool->slot_count - 1)];
}

static void resize(struct pool *pool, size_t count)
{
    struct bucket **old = pool->slots;
    size_t old_count = pool->slot_count;
    pool->slots = calloc(count, sizeof(struct bucket *));
    if (!pool->slots)
        abort();
    pool->slot_count = count;
    for (size_t i = 0; i < old_count; i++)
        for (struct bucket *bucket = old[i], *next; bucket; bucket = next) {
            next = bucket->next;
            struct bucket **slot = slot_of(pool, bucket->claim->serial);
            bucket->next = *slot;
            *slot = bucket;
        }
    free(old);
}

struct pool *pool_new(struct loop *loop)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        abort();
    pool->loop = loop;
    resize(pool, FIRST_SLOTS);
    return pool;
}

void pool_free(struct pool **pool)
{
    if (!*pool)
        return;
    assert((*pool)->count == 0 && (*pool)->bucket_count == 0);
    free((*pool)->slots);
    free(*pool);
    *pool = NULL;
}

static struct bucket *find(const struct pool *pool, uint64_t serial)
{
    struct bucket *bucket = *slot_of(pool, serial);
    while (bucket && bucket->claim->serial != serial)
        bucket = bucket->next;
    return bucket;
}

static struct bucket *find_or_make(struct pool *pool, struct claim *claim)
{
    struct bucket *bucket = find(pool, claim->serial);
    if (bucket)
        return bucket;
    if (pool->bucket_count >= pool->slot_count)
        resize(pool, pool->slot_count * 2);
    bucket = calloc(1, sizeof *bucket);
    if (!bucket)
        abort();
    bucket->claim = claim_ref(claim);
    list_init(&bucket->idle);
    list_init(&bucket->busy);
    list_init(&bucket->shared);
    list_init(&bucket->guests);
    struct bucket **slot = slot_of(pool, claim->serial);
    bucket->next = *slot;
    *slot = bucket;
    pool->bucket_count++;
    return bucket;
}

static void drop_if_empty(struct pool *pool, struct bucket *bucket)
{
    if (bucket->busy_count + bucket->idle_count + bucket->guest_count > 0)
        return;
    struct bucket **slot = slot_of(pool, bucket->claim->serial);
    while (*slot != bucket)
        slot = &(*slot)->next;
    *slot = bucket->next;
    pool->bucket_count--;
    claim_unref(&bucket->claim);
    free(bucket);
}

static bool is_shared(const struct pooled *c)
{
    return c->target.protocol == POOL_H2C;
}

/* The one mover between a bucket's lists. */
static void move(struct pooled *c, bool idle)
{
    struct bucket *bucket = c->bucket;
    struct counters *counters = c->pool->loop->counters;
    if (c->is_idle == idle)
        return;
    c->is_idle = idle;
    list_remove(&c->link);
    list_push(is_shared(c) ? &bucket->shared : idle ? &bucket->idle : &bucket->busy, &c->link);
    bucket->idle_count += idle ? 1U : -1U;
    bucket->busy_count += idle ? -1U : 1U;
    COUNTER_ADD(counters, upstream_connections_idle, idle ? 1 : -1);
}

static void on_closed(void *owner, enum status status)
{
    struct pooled *c = owner;
    struct pool *pool = c->pool;
    struct counters *counters = pool->loop->counters;
    if (status >= STATUS_CONNECT_REFUSED && status <= STATUS_CONNECT_TIMEOUT)
        COUNTER_INC(counters, upstream_connect_errors_total);
    if (c->is_idle)
        COUNTER_DEC(counters, upstream_connections_idle);
    COUNTER_DEC(counters, upstream_connections);
    list_remove(&c->link);
    if (c->is_idle)
        c->bucket->idle_count--;
    else
        c->bucket->busy_count--;
    drop_if_empty(pool, c->bucket);
    pool->count--;
    list_remove(&c->owner_link);
    timer_forget(&c->timer);
    settings_unref(&c->settings);
    free(c->header);
    free(c);
}

static void on_idle(void *owner)
{
    struct pooled *c = owner;
    struct bucket *bucket = c->bucket;
    move(c, true);
    if (claim_is_revoked(bucket->claim) || bucket->idle_count > c->settings->max_idle_per_instance)
        c->mux->ops->drain(c->mux);
    else
        loop_timer_arm(c->pool->loop, &c->timer, c->settings->upstream_idle_ms);
}

static void on_idle_too_long(struct timer *timer)
{
    struct pooled *c = CONTAINER_OF(timer, struct pooled, timer);
    c->mux->ops->close(c->mux, STATUS_IDLE_TIMEOUT);
}

/* Who answers there may be the address's next owner already. */
static enum status on_connected(void *owner)
{
    const struct pooled *c = owner;
    if (!claim_is_revoked(c->bucket->claim))
        return STATUS_OK;
    COUNTER_INC(c->pool->loop->counters, upstream_revoked_total);
    return STATUS_ADDRESS_REVOKED;
}

static const struct mux_events mux_events = {.connected = on_connected, .idle = on_idle, .closed = on_closed};

static const struct stream_events no_events; /* the mux binds its own before any event */

/* What the instance reads first, and whose connection it is. */
static void begin_with_header(struct pooled *c, struct stream *stream, const struct pool_target *target)
{
    c->header = malloc(target->header.len);
    if (!c->header)
        abort();
    memcpy(c->header, target->header.ptr, target->header.len);
    c->target.header.ptr = c->header;
    list_push(target->owner, &c->owner_link);
    stream_write(stream, c->header, target->header.len);
}

static struct pooled *dial(struct pool *pool, struct settings *settings, struct bucket *bucket,
                           const struct pool_target *target)
{
    struct pooled *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->pool = pool;
    c->bucket = bucket;
    c->target = *target;
    c->settings = settings_ref(settings);
    list_init(&c->owner_link);
    timer_init(&c->timer, on_idle_too_long);
    struct stream *stream =
        stream_connect(pool->loop, &bucket->claim->address, target->port, settings->connect_ms, &no_events, NULL);
    if (target->header.len > 0)
        begin_with_header(c, stream, target);
    c->mux = is_shared(c) ? h2_mux_client(stream, &settings->mux, &mux_events, c)
                          : h1_mux_client(stream, &settings->mux, &mux_events, c);
    c->mux->load = &bucket->load;
    list_push(is_shared(c) ? &bucket->shared : &bucket->busy, &c->link);
    bucket->busy_count++;
    pool->count++;
    COUNTER_INC(pool->loop->counters, upstream_connections);
    COUNTER_INC(pool->loop->counters, upstream_connects_total);
    return c;
}

/* Of one bucket, so the claim is the same. */
static bool is_same(const struct pool_target *a, const struct pool_target *b)
{
    return a->port == b->port && a->protocol == b->protocol && a->owner == b->owner && slice_eq(a->header, b->header);
}

static struct endpoint *use(struct pooled *c, bool queue)
{
    struct endpoint *endpoint = queue ? h2_mux_client_queue(c->mux) : c->mux->ops->open(c->mux);
    if (endpoint) {
        timer_disarm(&c->timer);
        move(c, false);
    }
    return endpoint;
}

/* The one that was used last: its peer is the least likely to have closed it. */
static struct endpoint *reuse(struct bucket *bucket, const struct pool_target *target)
{
    for (struct list *link = bucket->idle.prev; link != &bucket->idle; link = link->prev) {
        struct pooled *c = CONTAINER_OF(link, struct pooled, link);
        if (!is_same(&c->target, target))
            continue;
        struct endpoint *endpoint = use(c, false);
        if (endpoint)
            return endpoint;
    }
    return NULL;
}

/*
 * The next shared connection to the target behind the place, NULL for the first. A client's own are looked for in its
 * list: all clients have one in the bucket.
 */
static struct pooled *next_shared(struct bucket *bucket, const struct pool_target *target, struct list **place)
{
    struct list *all = target->owner ? target->owner : &bucket->shared;
    for (struct list *link = *place ? (*place)->next : all->next; link != all; link = link->next) {
        struct pooled *c =
            target->owner ? CONTAINER_OF(link, struct pooled, owner_link) : CONTAINER_OF(link, struct pooled, link);
        *place = link;
        if (c->bucket == bucket && is_shared(c) && is_same(&c->target, target))
            return c;
    }
    return NULL;
}

/* The one with the most room. */
static struct pooled *find_shared(struct bucket *bucket, const struct pool_target *target, bool fresh)
{
    struct pooled *best = NULL, *c;
    unsigned best_room = 0;
    for (struct list *place = NULL; (c = next_shared(bucket, target, &place));) {
        unsigned room = c->mux->ops->room(c->mux);
        if (room <= best_room || (fresh && stream_is_ready(c->mux->stream)))
            continue;
        best = c;
        best_room = room;
    }
    return best;
}

/* What the app has said on the connections that it has accepted before. */
struct learned {
    unsigned limit;        /* of streams at once; what a new connection will most likely be allowed; 0: not known */
    struct pooled *closed; /* one that may have no stream at present, if none may */
};

static struct learned learn(struct bucket *bucket, const struct pool_target *target)
{
    struct learned learned = {.limit = 0};
    struct pooled *c;
    for (struct list *place = NULL; (c = next_shared(bucket, target, &place));) {
        unsigned limit;
        if (!h2_mux_client_limit(c->mux, &limit))
            continue;
        if (limit > 0)
            learned.limit = limit;
        else if (h2_mux_client_takes_requests(c->mux))
            learned.closed = c;
    }
    if (learned.limit > 0)
        learned.closed = NULL;
    return learned;
}

static struct endpoint *open_known(struct bucket *bucket, const struct pool_target *target, bool fresh,
                                   bool *ret_reused)
{
    if (target->protocol == POOL_H2C) {
        struct pooled *c = find_shared(bucket, target, fresh);
        *ret_reused = c && stream_is_ready(c->mux->stream);
        return c ? use(c, false) : NULL;
    }
    struct endpoint *endpoint = fresh ? NULL : reuse(bucket, target);
    *ret_reused = endpoint != NULL;
    return endpoint;
}

static struct endpoint *dial_and_open(struct pool *pool, struct settings *settings, struct bucket *bucket,
                                      const struct pool_target *target, unsigned limit, enum status *ret_status)
{
    struct route_problem problem;
    enum status status = route_rules_check(&settings->rules, &target->claim->address, target->port, &problem);
    if (status != STATUS_OK) {
        *ret_status = STATUS_ADDRESS_FORBIDDEN;
        drop_if_empty(pool, bucket);
        return NULL;
    }
    struct pooled *c = dial(pool, settings, bucket, target);
    if (limit > 0)
        h2_mux_client_expect(c->mux, limit);
    return c->mux->ops->open(c->mux);
}

struct endpoint *pool_open(struct pool *pool, struct settings *settings, const struct pool_target *target,
                           unsigned flags, struct pool_opened *ret)
{
    bool fresh = flags & POOL_FRESH;
    struct bucket *bucket = find_or_make(pool, target->claim);
    *ret = (struct pool_opened){.status = STATUS_OK};
    struct endpoint *endpoint = open_known(bucket, target, fresh, &ret->reused);
    if (endpoint) {
        COUNTER_INC(pool->loop->counters, upstream_reused_total);
        return endpoint;
    }
    struct learned learned = learn(bucket, target);
    if (!learned.closed || fresh)
        return dial_and_open(pool, settings, bucket, target, learned.limit, &ret->status);
    if (!(flags & POOL_QUEUE)) {
        ret->status = STATUS_UPSTREAM_NO_STREAMS;
        return NULL;
    }
    ret->reused = ret->queued = true;
    COUNTER_INC(pool->loop->counters, upstream_reused_total);
    return use(learned.closed, true);
}

struct stream *pool_dial(struct pool *pool, struct settings *settings, struct claim *claim, uint16_t port,
                         struct pool_guest *guest, const struct stream_events *events, void *owner)
{
    struct route_problem problem;
    if (route_rules_check(&settings->rules, &claim->address, port, &problem) != STATUS_OK)
        return NULL;
    struct bucket *bucket = find_or_make(pool, claim);
    guest->bucket = bucket;
    list_push(&bucket->guests, &guest->link);
    bucket->guest_count++;
    bucket->load++;
    COUNTER_INC(pool->loop->counters, upstream_connections);
    COUNTER_INC(pool->loop->counters, upstream_connects_total);
    return stream_connect(pool->loop, &claim->address, port, settings->connect_ms, events, owner);
}

void pool_leave(struct pool *pool, struct pool_guest *guest)
{
    struct bucket *bucket = guest->bucket;
    if (!bucket)
        return;
    guest->bucket = NULL;
    list_remove(&guest->link);
    bucket->guest_count--;
    bucket->load--;
    COUNTER_DEC(pool->loop->counters, upstream_connections);
    drop_if_empty(pool, bucket);
}

unsigned pool_active(const struct pool *pool, const struct claim *claim)
{
    const struct bucket *bucket = find(pool, claim->serial);
    return bucket ? bucket->load : 0;
}

static void close_one(struct pooled *c, enum status status)
{
    if (status == STATUS_ADDRESS_REVOKED)
        COUNTER_INC(c->pool->loop->counters, upstream_revoked_total);
    c->mux->ops->close(c->mux, status);
}

static void close_list(struct list *list, enum status status)
{
    LIST_EACH_SAFE (link, list)
        close_one(CONTAINER_OF(link, struct pooled, link), status);
}

void pool_revoke(struct pool *pool, const struct claim *claim)
{
    struct bucket *bucket = find(pool, claim->serial);
    if (!bucket)
        return;
    close_list(&bucket->idle, STATUS_ADDRESS_REVOKED);
    close_list(&bucket->busy, STATUS_ADDRESS_REVOKED);
    close_list(&bucket->shared, STATUS_ADDRESS_REVOKED);
    struct list guests; /* the bucket may go with the last of them */
    list_init(&guests);
    for (struct list *link; (link = list_pop(&bucket->guests));)
        list_push(&guests, link);
    while (!list_is_empty(&guests)) {
        struct pool_guest *guest = CONTAINER_OF(guests.next, struct pool_guest, link);
        COUNTER_INC(pool->loop->counters, upstream_revoked_total);
        guest->revoked(guest);
        assert(guest->bucket == NULL);
    }
}

static void drain_forbidden(struct list *list, const struct route_rules *rules)
{
    LIST_EACH_SAFE (link, list) {
        struct pooled *c = CONTAINER_OF(link, struct pooled, link);
        if (route_rules_check(rules, &c->bucket->claim->address, c->target.port, NULL) != STATUS_OK)
            c->mux->ops->drain(c->mux);
    }
}

void pool_apply_rules(struct pool *pool, const struct route_rules *rules)
{
    for (size_t i = 0; i < pool->slot_count; i++)
        for (struct bucket *bucket = pool->slots[i]; bucket; bucket = bucket->next) {
            drain_forbidden(&bucket->idle, rules);
            drain_forbidden(&bucket->busy, rules);
            drain_forbidden(&bucket->shared, rules);
        }
}

static void close_idle_shared(struct bucket *bucket)
{
    LIST_EACH_SAFE (link, &bucket->shared) {
        struct pooled *c = CONTAINER_OF(link, struct pooled, link);
        if (c->is_idle)
            close_one(c, STATUS_SHUTDOWN);
    }
}

void pool_leave_owner(struct list *owner)
{
    for (struct list *link; (link = list_pop(owner));) {
        struct pooled *c = CONTAINER_OF(link, struct pooled, owner_link);
        c->target.owner = NULL;
        c->mux->ops->drain(c->mux);
    }
}

void pool_close_idle(struct pool *pool)
{
    for (size_t i = 0; i < pool->slot_count; i++)
        for (struct bucket *bucket = pool->slots[i]; bucket; bucket = bucket->next) {
            close_list(&bucket->idle, STATUS_SHUTDOWN);
            close_idle_shared(bucket);
        }
}

void pool_close_all(struct pool *pool)
{
    for (size_t i = 0; i < pool->slot_count; i++)
        for (struct bucket *bucket = pool->slots[i]; bucket; bucket = bucket->next) {
            close_list(&bucket->idle, STATUS_SHUTDOWN);
            close_list(&bucket->busy, STATUS_SHUTDOWN);
            close_list(&bucket->shared, STATUS_SHUTDOWN);
        }
}

size_t pool_count(const struct pool *pool)
{
    return pool->count;
}
