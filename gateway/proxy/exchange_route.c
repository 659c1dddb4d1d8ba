/* Where a request goes: host name -> route -> instance -> connection; and again, when that fails. */
#include "exchange_internal.h"

#include "gateway/http/hostname.h"
#include "gateway/http/semantics.h"
#include "gateway/net/cert_custom.h"
#include "gateway/proxy/back_header.h"
#include "gateway/proxy/domains.h"
#include "gateway/route/meter.h"

#include <assert.h>

enum {
    MAX_KEPT_BYTES = 65536, /* of a request that was sent on */
    MAX_KEPT_PIECES = 4,
};

const struct slice exchange_via = SLICE_INIT("phala-gateway");

/* ---- the request as it is sent on ---- */

static struct slice make_request_id(struct exchange *x)
{
    static const char hex[] = "0123456789abcdef";
    char *text = arena_alloc(&x->arena, 32);
    uint64_t words[2] = {x->proxy->request_id_prefix, x->proxy->request_id_next++};
    for (unsigned i = 0; i < 32; i++)
        text[i] = hex[words[i / 16] >> (60 - i % 16 * 4) & 15];
    return slice_make(text, 32);
}

static struct slice client_text(const struct connection *c)
{
    return slice_str(c->client_text);
}

static void make_forward(struct exchange *x)
{
    const struct connection *c = x->connection;
    struct slice given = fields_value(&x->request->fields, FIELD_X_REQUEST_ID);
    x->request_id = c->is_trusted && given.len > 0 ? given : make_request_id(x);
    struct forward_params params = {
        .client_address = client_text(c),
        .proto = c->is_tls ? SLICE("https") : SLICE("http"),
        .port = frontend_port_text(c->frontend),
        .request_id = x->request_id,
        .via = exchange_via,
        .peer_is_trusted = c->is_trusted,
    };
    x->forward = arena_alloc(&x->arena, sizeof *x->forward);
    semantics_forward_request(x->request, &params, &x->arena, x->forward);
}

/* ---- the back side ---- */

static void send_request(struct exchange *x)
{
    endpoint_bind(x->back, &exchange_back_events, x, &x->arena);
    bool end = x->request->body == BODY_NONE;
    x->back->ops->send_head(x->back, x->forward, end);
}

static void open_local(struct exchange *x)
{
    const struct connection *c = x->connection;
    const struct frontend_params *params = frontend_params(c->frontend);
    x->is_local = true;
    timer_disarm(&x->timer); /* deadlines are for apps */
    x->back = local_open(x->proxy->loop, params->service, params->service_arg, c->is_verified);
    x->forward = arena_alloc(&x->arena, sizeof *x->forward);
    *x->forward = *x->request;
    send_request(x);
}

/* The host as names of records are written: without a final dot. */
static struct slice custom_name(const struct exchange *x)
{
    struct slice host = x->host;
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    return host;
}

/* version: of the PROXY protocol, 0: none. flags: of pool_open. */
static enum status open_instance(struct exchange *x, struct claim *claim, unsigned version, unsigned flags)
{
    struct pool_opened opened;
    uint8_t header[PROXY_WRITE_MAX_BYTES];
    x->claim = claim;
    x->back_serial = claim->serial;
    x->back_address = claim->address;
    struct pool_target target = {.claim = claim, .port = x->port, .protocol = x->is_h2c ? POOL_H2C : POOL_HTTP_1};
    if (version > 0) {
        target.header = slice_make(header, back_header_write(x->connection, custom_name(x), version, header));
        target.owner = &x->connection->backs;
    }
    x->back = pool_open(x->proxy->pool, x->proxy->settings, &target, flags, &opened);
    x->back_reused = opened.reused;
    x->back_lost = false;
    x->is_queued = opened.queued;
    if (!x->back)
        return opened.status;
    if (x->is_queued)
        loop_timer_arm(x->proxy->loop, &x->timer, x->connection->settings->connect_ms);
    /* `room` comes when it is connected, or the request may go */
    x->connecting = x->is_queued || (!x->back_reused && x->back->ops->room(x->back) == 0);
    x->dialed_us = x->proxy->loop->now_us;
    return STATUS_OK;
}

/* From here on the app is known. What of the body came with the head is counted too. */
static void count_begin(struct exchange *x)
{
    if (!x->proxy->traffic)
        return;
    x->traffic = app_traffic_enter(x->proxy->traffic, x->app_id, x->proxy->loop->now_us);
    COUNTER_ADD(x->traffic, bytes_in, x->bytes_in);
}

/* Names are what the log shows; ids of the record are gone when the read section ends. */
static void remember(struct exchange *x, const struct route_target *target, const struct route_instance *instance)
{
    if (target->app && x->app_id.len == 0) {
        x->app_id = arena_copy(&x->arena, slice_str(target->app->id));
        count_begin(x);
    }
    if (instance)
        x->instance_id = arena_copy(&x->arena, slice_str(instance->id));
    x->port = target->port;
}

/* What is spoken to that port, if this connection may go there (RFC 9110 section 7.4). */
static enum status choose_protocol(struct exchange *x, const struct route_target *target)
{
    switch (target->protocol) {
    case ROUTE_PROTOCOL_AUTO:
        x->is_h2c = head_is_grpc(x->request);
        return STATUS_OK;
    case ROUTE_PROTOCOL_HTTP:
        x->is_h2c = false;
        return STATUS_OK;
    case ROUTE_PROTOCOL_H2C:
        x->is_h2c = true;
        return STATUS_OK;
    case ROUTE_PROTOCOL_TCP:
    case ROUTE_PROTOCOL_PASSTHROUGH:
        return STATUS_MISDIRECTED;
    }
    return STATUS_INTERNAL;
}

/* A request that is tried again stays in. */
static enum status enter_app(struct exchange *x, const struct route_app *app)
{
    if (!app->meter || x->meter)
        return STATUS_OK;
    enum status status =
        meter_enter(app->meter, app->max_connections, app->requests_per_second, x->proxy->loop->now_us);
    if (status == STATUS_OK)
        x->meter = app->meter;
    else
        COUNTER_INC(x->proxy->loop->counters, app_limits_total);
    return status;
}

/* Instances that may not be reached, or allow no requests at present, are left out; of the latter the first one is
 * waited for if there is no other. */
static enum status open_or_queue(struct exchange *x, const struct route_target *target, unsigned flags)
{
    struct upstream_tried tried = x->tried;
    const struct route_instance *first = NULL, *instance;
    enum status status, why = STATUS_OK;
    while ((instance = upstream_pick(x->proxy, target, &tried, &status))) {
        remember(x, target, instance);
        why = open_instance(x, instance->claim, target->proxy_protocol, flags);
        if (why != STATUS_UPSTREAM_NO_STREAMS && why != STATUS_ADDRESS_FORBIDDEN)
            return why;
        if (!first && why == STATUS_UPSTREAM_NO_STREAMS)
            first = instance;
        if (tried.count == UPSTREAM_MAX_TRIED)
            break;
        tried.serials[tried.count++] = x->back_serial;
    }
    if (!first)
        return why ? why : status;
    remember(x, target, first);
    return open_instance(x, first->claim, target->proxy_protocol, flags | POOL_QUEUE);
}

static enum status pick_and_open(struct exchange *x, const struct hostname *hostname, unsigned flags)
{
    struct route_target target;
    bool pending;
    domains_resolve(x->proxy->domains, x->proxy->table, hostname, custom_name(x), &target, &pending);
    remember(x, &target, NULL);
    if (pending)
        return STATUS_MISDIRECTED; /* a new connection waits for the look-up */
    if (target.status != STATUS_OK)
        return target.status;
    enum status status = choose_protocol(x, &target);
    if (status == STATUS_OK)
        status = enter_app(x, target.app);
    if (status != STATUS_OK)
        return status;
    return open_or_queue(x, &target, flags);
}

/* ---- the name ---- */

static struct slice lower_copy(struct arena *arena, struct slice text)
{
    char *copy = arena_alloc(arena, text.len + 1);
    for (size_t i = 0; i < text.len; i++)
        copy[i] = ascii_lower(text.ptr[i]);
    return slice_make(copy, text.len);
}

static void parse_host(struct exchange *x, struct hostname *ret_hostname)
{
    const struct settings *settings = x->connection->settings;
    struct slice host, port;
    authority_split(x->request->authority, &host, &port);
    x->host = lower_copy(&x->arena, host);
    hostname_parse(x->host, settings->base_domains, settings->base_domain_count, ret_hostname);
}

/* A name that the presented certificate does not cover must not be served (RFC 9110 section 15.5.20). */
static bool is_misdirected(const struct exchange *x, const struct hostname *hostname)
{
    const struct connection *c = x->connection;
    if (!c->is_tls)
        return false;
    switch (hostname->kind) {
    case HOSTNAME_APP:
    case HOSTNAME_HEALTH:
        return hostname->base_index != c->identity;
    case HOSTNAME_CUSTOM:
        return !c->custom || !cert_custom_covers(c->custom, custom_name(x));
    case HOSTNAME_BASE:
    case HOSTNAME_INVALID:
        return false;
    }
    return true;
}

/* RFC 9110 section 7.6.2: how many more proxies an OPTIONS or TRACE may pass. */
static enum { HOPS_FORWARD, HOPS_ANSWER, HOPS_INVALID } spend_hop(struct exchange *x)
{
    uint64_t left;
    if (x->request->method != METHOD_OPTIONS && x->request->method != METHOD_TRACE)
        return HOPS_FORWARD;
    for (size_t i = 0; i < x->forward->fields.count; i++) {
        struct field *field = &x->forward->fields.items[i];
        if (field->id != FIELD_MAX_FORWARDS)
            continue;
        if (!slice_to_u64(field->value, &left))
            return HOPS_INVALID;
        if (left == 0)
            return HOPS_ANSWER;
        field->value = arena_printf(&x->arena, "%llu", (unsigned long long)(left - 1));
    }
    return HOPS_FORWARD;
}

static void route_by_name(struct exchange *x)
{
    struct hostname hostname;
    parse_host(x, &hostname);
    enum status status = STATUS_HOST_UNKNOWN;
    make_forward(x);
    if (is_misdirected(x, &hostname)) {
        status = STATUS_MISDIRECTED;
    } else if (hostname.kind == HOSTNAME_HEALTH) {
        exchange_answer_health(x);
        return;
    } else if (hostname.kind == HOSTNAME_APP || hostname.kind == HOSTNAME_CUSTOM) {
        switch (spend_hop(x)) {
        case HOPS_INVALID:
            exchange_answer_error(x, STATUS_BAD_FIELD_VALUE);
            return;
        case HOPS_ANSWER:
            exchange_answer_last_hop(x);
            return;
        case HOPS_FORWARD:
            break;
        }
        route_table_read_begin();
        status = pick_and_open(x, &hostname, 0);
        route_table_read_end();
    }
    if (status == STATUS_OK)
        send_request(x);
    else
        exchange_answer_error(x, status);
}

void exchange_route(struct exchange *x)
{
    switch (frontend_kind(x->connection->frontend)) {
    case FRONTEND_LOCAL:
        open_local(x);
        break;
    case FRONTEND_REDIRECT:
        exchange_answer_redirect(x);
        break;
    case FRONTEND_PROXY:
        route_by_name(x);
        break;
    }
}

/* ---- the body that waits ---- */

/* RFC 9113 section 8.7: until its response begins, an HTTP/2 instance may say that it has not processed the request. */
static bool may_be_refused(const struct exchange *x)
{
    return x->is_h2c && !x->request_lost && x->state == EXCHANGE_WAITING;
}

static void lose_kept(struct exchange *x)
{
    x->request_lost = true;
    block_queue_drop(x->proxy->loop, &x->kept);
}

void exchange_keep_sent(struct exchange *x, const char *data, size_t len)
{
    if (may_be_refused(x) && x->kept.bytes + len <= MAX_KEPT_BYTES)
        block_queue_append(x->proxy->loop, &x->kept, data, len);
    else if (!x->request_lost)
        lose_kept(x);
}

static void send_kept(struct exchange *x, bool ended)
{
    struct iovec pieces[MAX_KEPT_PIECES];
    size_t left = x->kept.bytes;
    int count = block_queue_pieces(&x->kept, SIZE_MAX, pieces, MAX_KEPT_PIECES);
    for (int i = 0; i < count; i++) {
        left -= pieces[i].iov_len;
        x->back->ops->send_body(x->back, pieces[i].iov_base, pieces[i].iov_len, ended && left == 0);
    }
    assert(left == 0);
}

/* A body that is not kept any more leaves block by block. */
static void send_and_lose_kept(struct exchange *x, bool ended)
{
    x->request_lost |= x->kept.bytes > 0;
    while (x->kept.bytes > 0) {
        struct iovec piece;
        block_queue_pieces(&x->kept, SIZE_MAX, &piece, 1);
        x->back->ops->send_body(x->back, piece.iov_base, piece.iov_len, ended && piece.iov_len == x->kept.bytes);
        block_queue_consume(x->proxy->loop, &x->kept, piece.iov_len);
    }
}

void exchange_flush_kept(struct exchange *x)
{
    bool ended = x->request_ended && x->request->body != BODY_NONE;
    if (x->kept.bytes == 0 && ended && !x->body_sent)
        x->back->ops->send_body(x->back, NULL, 0, true);
    x->body_sent |= x->kept.bytes > 0;
    if (may_be_refused(x) && x->kept.bytes <= MAX_KEPT_BYTES)
        send_kept(x, ended);
    else
        send_and_lose_kept(x, ended);
}

/* ---- again ---- */

static bool is_connect_failure(enum status status)
{
    return status == STATUS_CONNECT_REFUSED || status == STATUS_CONNECT_UNREACHABLE ||
           status == STATUS_CONNECT_TIMEOUT || status == STATUS_ADDRESS_FORBIDDEN || status == STATUS_OVERLOADED;
}

/* A pooled connection that the app closed just when we used it: it can't have seen more than the request. A reset of
 * one stream is an answer. */
static bool is_stale_reuse(const struct exchange *x, enum status why)
{
    return x->back_reused &&
           (why == STATUS_UPSTREAM_CLOSED || (why == STATUS_UPSTREAM_RESET && (!x->is_h2c || x->back_lost)));
}

void exchange_tell_failure(const struct exchange *x, enum status why)
{
    bool may_be_answer = x->back_reused && (why == STATUS_UPSTREAM_CLOSED || why == STATUS_UPSTREAM_RESET);
    bool may_wait = why == STATUS_UPSTREAM_TIMEOUT && !x->request_ended; /* for the rest, which the client owes it */
    if (x->back && x->claim && !may_be_answer && !may_wait)
        upstream_failed(x->proxy, x->claim, x->instance_id, x->port, why);
}

static bool may_retry(const struct exchange *x, enum status why)
{
    if (x->is_local || x->request_lost || x->retries >= x->connection->settings->max_retries)
        return false;
    if (why == STATUS_UPSTREAM_REFUSED || why == STATUS_UPSTREAM_NO_STREAMS || /* not processed, whatever the method */
        (x->is_queued && x->back_lost && why != STATUS_ADDRESS_REVOKED))
        return true;
    return !x->body_sent && ((x->connecting && is_connect_failure(why)) ||
                             (is_stale_reuse(x, why) && method_is_idempotent(x->request->method)));
}

bool exchange_retry(struct exchange *x, enum status why)
{
    if (!may_retry(x, why))
        return false;
    bool refused = why == STATUS_UPSTREAM_REFUSED, full = why == STATUS_UPSTREAM_NO_STREAMS;
    bool tried = (refused || full || (x->connecting && is_connect_failure(why))) && x->tried.count < UPSTREAM_MAX_TRIED;
    if (tried)
        x->tried.serials[x->tried.count++] = x->back_serial;
    struct hostname hostname;
    parse_host(x, &hostname);
    route_table_read_begin();
    enum status status = pick_and_open(x, &hostname, refused || full ? 0 : POOL_FRESH);
    if (status == STATUS_NO_INSTANCE && refused && tried) { /* it may take the next one, and there is no other */
        x->tried.count--;
        status = pick_and_open(x, &hostname, 0);
    }
    route_table_read_end();
    if (status != STATUS_OK)
        return false;
    x->retries++;
    x->body_sent = false;
    COUNTER_INC(x->proxy->loop->counters, upstream_retries_total);
    send_request(x);
    if (!x->connecting)
        exchange_resume_front(x);
    return true;
}
