/* The pump: what comes from one side goes to the other. */
#include "exchange_internal.h"

#include "gateway/base/prefetch.h"
#include "gateway/http/semantics.h"
#include "gateway/route/meter.h"

#include <assert.h>
#include <stdlib.h>

enum { MAX_FREE_EXCHANGES = 1024 };

static const uint8_t legal_edges[] = {
    [EXCHANGE_HEAD] = 1 << EXCHANGE_WAITING | 1 << EXCHANGE_OVER,
    [EXCHANGE_WAITING] = 1 << EXCHANGE_STREAMING | 1 << EXCHANGE_TUNNEL | 1 << EXCHANGE_OVER,
    [EXCHANGE_STREAMING] = 1 << EXCHANGE_OVER,
    [EXCHANGE_TUNNEL] = 1 << EXCHANGE_OVER,
    [EXCHANGE_OVER] = 0,
};

void exchange_set_state(struct exchange *x, enum exchange_state state)
{
    assert(legal_edges[x->state] & 1U << state);
    x->state = (uint8_t)state;
}

/* ---- deadlines ---- */

/* Those of an app: a service of this process may take its time, and what a client owes is its mux's to watch. */
static void touch(struct exchange *x)
{
    if (x->is_queued || x->is_local)
        return; /* with a deadline of its own, or with none */
    const struct settings *settings = x->connection->settings;
    uint32_t ms = x->state == EXCHANGE_TUNNEL      ? settings->tunnel_idle_ms
                  : x->state == EXCHANGE_STREAMING ? settings->response_idle_ms
                                                   : settings->first_byte_ms;
    loop_timer_arm(x->proxy->loop, &x->timer, ms);
}

static void back_failed(struct exchange *x, enum status status);

static void on_timer(struct timer *timer)
{
    struct exchange *x = CONTAINER_OF(timer, struct exchange, timer);
    switch ((enum exchange_state)x->state) {
    case EXCHANGE_WAITING:
        back_failed(x, x->is_queued ? STATUS_UPSTREAM_NO_STREAMS : STATUS_UPSTREAM_TIMEOUT);
        break;
    case EXCHANGE_STREAMING:
        if (x->back_owed > 0)
            touch(x); /* the client is slow, not the app; the front has a deadline for that */
        else
            back_failed(x, STATUS_UPSTREAM_STALLED);
        break;
    case EXCHANGE_TUNNEL:
        x->error = STATUS_TUNNEL_IDLE;
        exchange_finish(x, STATUS_TUNNEL_IDLE, STATUS_TUNNEL_IDLE);
        break;
    case EXCHANGE_HEAD:
    case EXCHANGE_OVER:
        break;
    }
}

/* ---- the end ---- */

static void free_exchange(struct deferred *deferred)
{
    struct exchange *x = CONTAINER_OF(deferred, struct exchange, deferred);
    struct proxy *proxy = x->proxy;
    arena_reset(&x->arena);
    if (proxy->free_exchange_count >= MAX_FREE_EXCHANGES) {
        timer_forget(&x->timer);
        free(x);
        return;
    }
    x->next_free = proxy->free_exchanges;
    proxy->free_exchanges = x;
    proxy->free_exchange_count++;
}

void exchange_free_stock(struct proxy *proxy)
{
    while (proxy->free_exchanges) {
        struct exchange *x = proxy->free_exchanges;
        proxy->free_exchanges = x->next_free;
        timer_forget(&x->timer);
        free(x);
    }
    proxy->free_exchange_count = 0;
}

static void count_end(struct exchange *x)
{
    struct counters *counters = x->proxy->loop->counters;
    COUNTER_DEC(counters, requests_active);
    COUNTER_ADD(counters, bytes_received_total, x->bytes_in);
    COUNTER_ADD(counters, bytes_sent_total, x->bytes_out);
    if (x->is_tunnel)
        COUNTER_DEC(counters, tunnels_active);
    if (x->is_tunnel && x->traffic)
        COUNTER_DEC(x->traffic, tunnels);
    app_traffic_leave(&x->traffic, x->front_answered ? x->response_status : 0, x->error != STATUS_OK,
                      x->proxy->loop->now_us);
    if (!x->response_ended)
        COUNTER_INC(counters, requests_aborted_total);
    if (!x->front_answered)
        return;
    int class = x->response_status / 100;
    if (class == 2)
        COUNTER_INC(counters, responses_2xx_total);
    else if (class == 3)
        COUNTER_INC(counters, responses_3xx_total);
    else if (class == 4)
        COUNTER_INC(counters, responses_4xx_total);
    else if (class == 5)
        COUNTER_INC(counters, responses_5xx_total);
}

void exchange_finish(struct exchange *x, enum status front, enum status back)
{
    exchange_set_state(x, EXCHANGE_OVER);
    timer_disarm(&x->timer);
    count_end(x);
    exchange_log(x);
    meter_leave(&x->meter);
    /* The back first: its connection is in the pool again before the front begins its next, pipelined request. */
    if (x->back)
        x->back->ops->release(&x->back, back);
    if (x->front)
        x->front->ops->release(&x->front, front);
    block_queue_drop(x->proxy->loop, &x->kept);
    loop_defer(x->proxy->loop, &x->deferred, free_exchange);
}

/* Both directions of a tunnel, or the response of an ordinary exchange, are complete. */
static void finish_if_complete(struct exchange *x)
{
    if (!x->response_ended || (x->state == EXCHANGE_TUNNEL && !x->request_ended))
        return;
    exchange_finish(x, STATUS_OK, x->request_ended ? STATUS_OK : STATUS_CLIENT_CANCELLED);
}

/* The address belongs to somebody else: not a byte may go there or come from there any more. */
static bool is_stale(const struct exchange *x)
{
    return x->back && x->claim && claim_is_revoked(x->claim);
}

/* ---- what comes next ---- */

static void on_soon(void *owner)
{
    prefetch(owner, sizeof(struct exchange));
}

/* ---- from the front ---- */

static void front_head(void *owner, const struct message_head *head, bool end)
{
    struct exchange *x = owner;
    x->request = head;
    x->request_ended = end;
    x->is_grpc = head->version == HTTP_2 && head_is_grpc(head);
    exchange_set_state(x, EXCHANGE_WAITING);
    touch(x);
    exchange_route(x);
}

static void front_body(void *owner, const char *data, size_t len, bool end)
{
    struct exchange *x = owner;
    x->bytes_in += len;
    if (x->traffic)
        COUNTER_ADD(x->traffic, bytes_in, len);
    x->request_ended |= end;
    if (!x->back) {
        x->front->ops->credit(x->front, len); /* answered already: thrown away */
        return;
    }
    if (is_stale(x)) {
        back_failed(x, STATUS_ADDRESS_REVOKED);
        return;
    }
    touch(x);
    if (x->connecting) {
        block_queue_append(x->proxy->loop, &x->kept, data, len);
        x->front_owed += len;
        return;
    }
    x->body_sent = true;
    exchange_keep_sent(x, data, len);
    x->back->ops->send_body(x->back, data, len, end);
    if (x->back->ops->room(x->back) > 0)
        x->front->ops->credit(x->front, len);
    else
        x->front_owed += len;
    finish_if_complete(x);
}

static void front_trailers(void *owner, const struct fields *trailers)
{
    struct exchange *x = owner;
    if (!x->back)
        return;
    if (is_stale(x)) {
        back_failed(x, STATUS_ADDRESS_REVOKED);
        return;
    }
    if (x->connecting) {
        x->connecting = false; /* trailers can't be kept: the request stays with this connection */
        exchange_flush_kept(x);
    }
    x->request_ended = true; /* only now: the kept body does not end the message, the trailers do */
    x->body_sent = x->request_lost = true;
    x->back->ops->send_trailers(x->back, trailers);
}

static void credit_back(struct exchange *x)
{
    size_t owed = x->back_owed;
    x->back_owed = 0;
    if (x->back && owed > 0)
        x->back->ops->credit(x->back, owed);
}

static void front_room(void *owner)
{
    credit_back(owner);
}

static void front_malformed(void *owner, enum status status, const struct message_head *head)
{
    struct exchange *x = owner;
    if (!x->request) {
        x->request = head;
        x->is_grpc = head->version == HTTP_2 && head_is_grpc(head);
    }
    x->error = status;
    if (x->back)
        x->back->ops->release(&x->back, status);
    if (x->front_answered)
        exchange_finish(x, status, status);
    else
        exchange_answer_error(x, status);
}

/* A client that had said all on its tunnel and has left: the app's input ends in order. But a stream that is reset
 * stands for a reset of TCP (RFC 9113 section 8.5). */
static void front_reset(void *owner, enum status status)
{
    struct exchange *x = owner;
    bool has_left = x->state == EXCHANGE_TUNNEL && (x->front->is_lost || x->request->version != HTTP_2);
    x->error = status;
    exchange_finish(x, status, has_left && x->request_ended ? STATUS_OK : status);
}

const struct endpoint_events exchange_front_events = {
    .soon = on_soon,
    .head = front_head,
    .body = front_body,
    .trailers = front_trailers,
    .room = front_room,
    .malformed = front_malformed,
    .reset = front_reset,
};

/* ---- from the back ---- */

static void back_failed(struct exchange *x, enum status status)
{
    x->error = status;
    if (x->state == EXCHANGE_WAITING) {
        exchange_tell_failure(x, status);
        if (x->back)
            x->back->ops->release(&x->back, status);
        bool was_queued = x->is_queued;
        if (!exchange_retry(x, status)) {
            x->is_queued = false;
            exchange_answer_error(x, status);
            return;
        }
        x->error = STATUS_OK;
        if (was_queued)
            touch(x); /* the deadline was that of the queue */
        return;
    }
    if (x->is_grpc && x->state == EXCHANGE_STREAMING)
        exchange_end_grpc(x, status);
    else if (x->state == EXCHANGE_TUNNEL && x->response_ended) /* it had said all: the client hears it to its end */
        exchange_finish(x, STATUS_OK, status);
    else
        exchange_finish(x, status, status);
}

static void become_tunnel(struct exchange *x)
{
    struct counters *counters = x->proxy->loop->counters;
    exchange_set_state(x, EXCHANGE_TUNNEL);
    x->is_tunnel = true;
    x->request_ended = false; /* the client's direction is open again */
    COUNTER_INC(counters, tunnels_active);
    COUNTER_INC(counters, tunnels_total);
    if (x->traffic)
        COUNTER_INC(x->traffic, tunnels);
}

/* RFC 8441 section 5: to a client of HTTP/2 a 2xx says that its tunnel is open, which an app that ignores the upgrade
 * does not mean. */
static bool would_feign_tunnel(const struct exchange *x, const struct message_head *head)
{
    bool asked = x->request->version == HTTP_2 && x->request->upgrade.len > 0;
    return asked && head->body != BODY_RAW && head->status >= 200 && head->status < 300;
}

/* RFC 9110 section 6.6.1: what comes without Date leaves with one. */
static void forward_head(struct exchange *x, const struct message_head *head, struct message_head *ret_out)
{
    semantics_forward_response(head, exchange_via, &x->arena, ret_out);
    if (!head_is_interim(head) && !fields_has(&ret_out->fields, FIELD_DATE))
        fields_add_known(&ret_out->fields, &x->arena, FIELD_DATE, exchange_date(x->proxy->loop));
}

/* False: the address is somebody else's by now. */
static bool connected(struct exchange *x)
{
    x->connecting = false;
    x->connect_us = x->proxy->loop->now_us - x->dialed_us;
    if (is_stale(x)) {
        back_failed(x, STATUS_ADDRESS_REVOKED);
        return false;
    }
    exchange_flush_kept(x);
    return true;
}

static void back_head(void *owner, const struct message_head *head, bool end)
{
    struct exchange *x = owner;
    if (x->connecting && !connected(x)) /* it answers before it is asked: the request goes first all the same */
        return;
    if (is_stale(x)) {
        back_failed(x, STATUS_ADDRESS_REVOKED);
        return;
    }
    if (would_feign_tunnel(x, head)) {
        back_failed(x, STATUS_UPSTREAM_NO_UPGRADE);
        return;
    }
    struct message_head out = *head;
    if (!x->is_local)
        forward_head(x, head, &out);
    if (head_is_interim(head)) {
        COUNTER_INC(x->proxy->loop->counters, responses_1xx_total);
        x->front->ops->send_head(x->front, &out, false);
        return;
    }
    /* An answer before the end of the request ends the connection, unless the rest comes while it is sent. */
    out.close = !x->request_ended && head->body != BODY_RAW && (end || x->is_local || head->status >= 300);
    if (x->claim)
        upstream_answered(x->proxy, x->claim, x->instance_id, x->port, head->status, x->dialed_us);
    x->front_answered = true;
    x->response_status = head->status;
    x->first_byte_us = x->proxy->loop->now_us;
    if (x->traffic)
        app_traffic_answered(x->traffic, x->first_byte_us - x->started_us);
    x->is_grpc = x->is_grpc && head_is_grpc(head) && !head->has_content_length; /* trailers of ours could end it */
    block_queue_drop(x->proxy->loop, &x->kept);
    if (head->body == BODY_RAW)
        become_tunnel(x);
    else
        exchange_set_state(x, EXCHANGE_STREAMING);
    x->front->ops->send_head(x->front, &out, end);
    x->response_ended = end;
    touch(x);
    finish_if_complete(x);
}

static void back_body(void *owner, const char *data, size_t len, bool end)
{
    struct exchange *x = owner;
    if (is_stale(x)) {
        back_failed(x, STATUS_ADDRESS_REVOKED);
        return;
    }
    x->bytes_out += len;
    if (x->traffic)
        COUNTER_ADD(x->traffic, bytes_out, len);
    x->response_ended = end;
    x->app_ended_first = end && !x->request_ended;
    x->front->ops->send_body(x->front, data, len, end);
    x->back_owed += len;
    if (x->front->ops->room(x->front) > 0)
        credit_back(x);
    touch(x);
    finish_if_complete(x);
}

static void back_trailers(void *owner, const struct fields *trailers)
{
    struct exchange *x = owner;
    if (is_stale(x)) {
        back_failed(x, STATUS_ADDRESS_REVOKED);
        return;
    }
    x->front->ops->send_trailers(x->front, trailers);
    x->response_ended = true;
    finish_if_complete(x);
}

static void credit_front(struct exchange *x)
{
    size_t owed = x->front_owed;
    x->front_owed = 0;
    if (owed > 0)
        x->front->ops->credit(x->front, owed);
}

void exchange_resume_front(struct exchange *x)
{
    exchange_flush_kept(x);
    if (x->back->ops->room(x->back) > 0)
        credit_front(x);
}

static void back_room(void *owner)
{
    struct exchange *x = owner;
    if (x->is_queued) { /* even if trailers have ended `connecting` before */
        x->is_queued = false;
        touch(x);
    }
    if (x->connecting && !connected(x))
        return;
    credit_front(x);
}

static void back_reset(void *owner, enum status status)
{
    struct exchange *x = owner;
    x->back_lost = x->back->is_lost;
    back_failed(x, status);
}

const struct endpoint_events exchange_back_events = {
    .soon = on_soon,
    .head = back_head,
    .body = back_body,
    .trailers = back_trailers,
    .room = back_room,
    .reset = back_reset,
};

/* ---- the beginning ---- */

static struct exchange *take(struct proxy *proxy)
{
    struct exchange *x = proxy->free_exchanges;
    if (!x) {
        x = calloc(1, sizeof *x);
        if (!x)
            abort();
        timer_init(&x->timer, on_timer);
        return x;
    }
    proxy->free_exchanges = x->next_free;
    proxy->free_exchange_count--;
    /* All but the timer, which may still hang in the wheel. */
    size_t head = offsetof(struct exchange, timer), tail = head + sizeof x->timer;
    memset(x, 0, head);
    memset((char *)x + tail, 0, sizeof *x - tail);
    return x;
}

void exchange_begin(struct connection *connection, struct endpoint *front)
{
    struct proxy *proxy = connection->proxy;
    struct exchange *x = take(proxy);
    x->connection = connection;
    x->proxy = proxy;
    x->front = front;
    x->started_us = proxy->loop->now_us;
    x->started_wall_us = proxy->loop->wall_us;
    arena_init(&x->arena, &proxy->loop->arenas);
    endpoint_bind(front, &exchange_front_events, x, &x->arena);
    COUNTER_INC(proxy->loop->counters, requests_total);
    COUNTER_INC(proxy->loop->counters, requests_active);
}
