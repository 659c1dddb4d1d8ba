#include "gateway/proxy/tunnel.h"

#include "gateway/net/block_queue.h"
#include "gateway/proxy/app_traffic.h"
#include "gateway/proxy/back_header.h"
#include "gateway/proxy/domains.h"
#include "gateway/proxy/pool.h"
#include "gateway/proxy/upstream.h"
#include "gateway/route/meter.h"
#include "gateway/wire/sniff.h"

#include <assert.h>
#include <stdlib.h>

enum { MAX_KEPT_BYTES = 65536 /* of a client, before its instance is connected */, MAX_PIECES = 16 };

enum tunnel_state {
    TUNNEL_CONNECTING,
    TUNNEL_OPEN,
    TUNNEL_OVER,
};

struct tunnel {
    struct connection *connection; /* has the client's stream */
    struct proxy *proxy;
    struct stream *back;
    struct pool_guest guest;
    const struct claim *claim;         /* valid while the guest is in the pool */
    struct app_traffic_entry *traffic; /* of the app, since it is known; NULL: not counted */
    uint64_t counted_in;               /* bytes that it was told */
    uint64_t counted_out;
    struct meter *meter; /* of the app; NULL: it has no limits */
    struct timer timer;
    struct deferred deferred;
    struct block_queue kept; /* from the client, until it may go on */
    char *joined;            /* the same in one piece, handed back to the stream */
    struct upstream_tried tried;
    uint64_t started_us;
    uint64_t started_wall_us;
    uint64_t dialed_us;
    uint64_t connect_us;
    uint64_t first_byte_us; /* of the app */
    uint64_t back_serial;
    struct ip_addr back_address;
    uint16_t port;
    uint8_t state;
    uint8_t kind;
    uint8_t retries;
    bool is_guarded; /* the client's first bytes may still turn out to be HTTP */
    bool front_ended;
    bool back_ended;
    const char *close; /* who ended it first, for the log */
    uint8_t name_len;
    char name[HOSTNAME_MAX + 1];
    char app_id[HOSTNAME_MAX_LABEL + 1];
    char instance_id[HOSTNAME_MAX_LABEL + 1];
};

static const uint8_t legal_edges[] = {
    [TUNNEL_CONNECTING] = 1 << TUNNEL_OPEN | 1 << TUNNEL_OVER,
    [TUNNEL_OPEN] = 1 << TUNNEL_OVER,
    [TUNNEL_OVER] = 0,
};

static void set_state(struct tunnel *t, enum tunnel_state state)
{
    assert(legal_edges[t->state] & 1U << state);
    t->state = (uint8_t)state;
}

static struct stream *front_of(const struct tunnel *t)
{
    return t->connection->stream;
}

static struct slice name_of(const struct tunnel *t)
{
    return slice_make(t->name, t->name_len);
}

/* What has passed since the last time. */
static void count_bytes(struct tunnel *t)
{
    uint64_t in = stream_bytes_in(front_of(t)), out = stream_bytes_out(front_of(t));
    if (!t->traffic)
        return;
    COUNTER_ADD(t->traffic, bytes_in, in - t->counted_in);
    COUNTER_ADD(t->traffic, bytes_out, out - t->counted_out);
    t->counted_in = in;
    t->counted_out = out;
}

static void count_end(struct tunnel *t, enum status error)
{
    count_bytes(t);
    if (t->traffic)
        COUNTER_DEC(t->traffic, tunnels);
    bool had_answer = t->connect_us > 0 || error == STATUS_OK;
    app_traffic_leave(&t->traffic, had_answer ? 200 : status_http(error), error != STATUS_OK, t->proxy->loop->now_us);
}

static void touch(struct tunnel *t)
{
    count_bytes(t);
    loop_timer_arm(t->proxy->loop, &t->timer, t->connection->settings->tunnel_idle_ms);
}

/* ---- the end ---- */

static void write_log(struct tunnel *t, enum status error)
{
    const struct connection *c = t->connection;
    bool was_open = t->connect_us > 0;
    struct access_record record = {
        .wall_us = t->started_wall_us,
        .client = c->client,
        .client_port = c->client_port,
        .host = name_of(t),
        .app_id = slice_str(t->app_id),
        .instance_id = slice_str(t->instance_id),
        .port = t->port,
        .protocol = t->kind == TUNNEL_PASSTHROUGH ? "passthrough" : "tcp",
        .status = was_open || error == STATUS_OK ? 200 : status_http(error),
        .bytes_in = stream_bytes_in(front_of(t)),
        .bytes_out = stream_bytes_out(front_of(t)),
        .total_us = t->proxy->loop->now_us - t->started_us,
        .connect_us = t->connect_us,
        .first_byte_us = t->first_byte_us,
        .tls_version = c->tls_version,
        .tls_cipher = c->tls_cipher,
        .alpn = c->alpn,
        .tls_resumed = c->tls_resumed,
        .back_address = t->back_address,
        .back_port = t->port,
        .back_protocol = t->back_address.family ? "tcp" : "",
        .retries = t->retries,
        .error = error,
        .close = t->close,
    };
    access_log_write(t->proxy->log, &record);
    count_end(t, error);
}

static void free_tunnel(struct deferred *deferred)
{
    struct tunnel *t = CONTAINER_OF(deferred, struct tunnel, deferred);
    block_queue_drop(t->proxy->loop, &t->kept);
    timer_forget(&t->timer);
    free(t->joined);
    free(t);
}

/* The connection may live on without it. */
static void leave(struct tunnel *t)
{
    set_state(t, TUNNEL_OVER);
    if (t->traffic)
        count_end(t, STATUS_OK);
    t->connection->tunnel = NULL;
    timer_disarm(&t->timer);
    pool_leave(t->proxy->pool, &t->guest);
    meter_leave(&t->meter);
    COUNTER_DEC(t->proxy->loop->counters, tunnels_active);
    loop_defer(t->proxy->loop, &t->deferred, free_tunnel);
}

/* in_order: the client hears what is queued for it, and an end rather than a reset. */
static void end(struct tunnel *t, enum status error, bool in_order)
{
    struct connection *c = t->connection;
    struct counters *counters = t->proxy->loop->counters;
    write_log(t, error);
    COUNTER_ADD(counters, bytes_received_total, stream_bytes_in(c->stream));
    COUNTER_ADD(counters, bytes_sent_total, stream_bytes_out(c->stream));
    leave(t);
    if (t->back && error == STATUS_OK)
        stream_close(&t->back, false);
    else if (t->back)
        stream_reset(&t->back);
    if (in_order)
        stream_close(&c->stream, !t->front_ended);
    else
        stream_reset(&c->stream);
    connection_drop(c);
}

static void finish(struct tunnel *t, enum status error)
{
    end(t, error, error == STATUS_OK);
}

/*
 * There is no instance to talk to. A client of passthrough gets an alert, which may come before the ServerHello in the
 * clear (RFC 8446 section 6): its user reads "internal error" rather than of a bare end.
 */
static void refuse(struct tunnel *t, enum status error)
{
    static const uint8_t alert[] = {21, 3, 1, 0, 2, 2, 80};
    struct connection *c = t->connection;
    t->close = "gateway";
    if (t->kind != TUNNEL_PASSTHROUGH) {
        finish(t, error);
        return;
    }
    stream_write(c->stream, alert, sizeof alert);
    write_log(t, error);
    COUNTER_ADD(t->proxy->loop->counters, bytes_received_total, stream_bytes_in(c->stream));
    COUNTER_ADD(t->proxy->loop->counters, bytes_sent_total, stream_bytes_out(c->stream));
    leave(t);
    stream_close(&c->stream, true);
    connection_drop(c);
}

static void on_timer(struct timer *timer)
{
    struct tunnel *t = CONTAINER_OF(timer, struct tunnel, timer);
    t->close = "idle";
    finish(t, STATUS_TUNNEL_IDLE);
}

static void finish_if_complete(struct tunnel *t)
{
    if (t->front_ended && t->back_ended)
        finish(t, STATUS_OK);
}

static void on_revoked(struct pool_guest *guest)
{
    struct tunnel *t = CONTAINER_OF(guest, struct tunnel, guest);
    t->close = "gateway";
    finish(t, STATUS_ADDRESS_REVOKED);
}

/*
 * The address belongs to somebody else, though the pool has not been told yet: not a byte may go there or come from
 * there any more. True if the tunnel is over.
 */
static bool end_if_stale(struct tunnel *t)
{
    if (!t->guest.bucket || !claim_is_revoked(t->claim))
        return false;
    COUNTER_INC(t->proxy->loop->counters, upstream_revoked_total);
    on_revoked(&t->guest);
    return true;
}

void tunnel_close(struct connection *c, enum status status)
{
    c->tunnel->close = "gateway";
    finish(c->tunnel, status);
}

/* ---- from the client ---- */

static void send_kept(struct tunnel *t)
{
    while (t->kept.bytes > 0) {
        struct iovec pieces[MAX_PIECES];
        int count = block_queue_pieces(&t->kept, SIZE_MAX, pieces, MAX_PIECES);
        size_t len = 0;
        for (int i = 0; i < count; i++)
            len += pieces[i].iov_len;
        stream_writev(t->back, pieces, count);
        block_queue_consume(t->proxy->loop, &t->kept, len);
    }
    if (t->front_ended)
        stream_shutdown(t->back);
    if (stream_room(t->back) == 0)
        stream_pause(front_of(t), STREAM_PAUSE_CREDIT);
    else
        stream_resume(front_of(t), STREAM_PAUSE_CREDIT);
}

/* The silent client speaks HTTP: what a strict parser must see, the app must not get raw. */
static void become_http(struct tunnel *t)
{
    struct connection *c = t->connection;
    struct stream *stream = c->stream;
    size_t len = 0;
    t->joined = malloc(t->kept.bytes);
    if (!t->joined)
        abort();
    for (struct block *block = t->kept.first; block; block = block->next) {
        memcpy(t->joined + len, block->data + block->start, block->end - block->start);
        len += block->end - block->start;
    }
    leave(t);
    if (t->back)
        stream_reset(&t->back);
    connection_serve_http(c);
    stream_hand_back(stream, t->joined, len);
}

/* What a silent client says first. True if it goes on to the app. */
static bool pass_guard(struct tunnel *t)
{
    const struct block *block = t->kept.first; /* holds more than sniffing ever needs */
    switch (sniff_first_bytes(slice_make(block->data + block->start, block->end - block->start))) {
    case SNIFF_NEED_MORE:
        return false;
    case SNIFF_HTTP:
        become_http(t);
        return false;
    case SNIFF_RAW:
        break;
    }
    t->is_guarded = false;
    return true;
}

static void front_data(void *owner, const char *data, size_t len)
{
    struct tunnel *t = owner;
    if (end_if_stale(t))
        return;
    touch(t);
    if (t->state == TUNNEL_OPEN && !t->is_guarded) {
        stream_write(t->back, data, len);
        if (stream_room(t->back) == 0)
            stream_pause(front_of(t), STREAM_PAUSE_CREDIT);
        return;
    }
    block_queue_append(t->proxy->loop, &t->kept, data, len);
    if (t->kept.bytes >= MAX_KEPT_BYTES)
        stream_pause(front_of(t), STREAM_PAUSE_CREDIT);
    if (t->is_guarded && !pass_guard(t))
        return;
    if (t->state == TUNNEL_OPEN)
        send_kept(t);
}

static void front_eof(void *owner)
{
    struct tunnel *t = owner;
    if (end_if_stale(t))
        return;
    t->front_ended = true;
    t->close = t->close ? t->close : "client";
    t->is_guarded = false; /* half a line is no request */
    if (t->state == TUNNEL_OPEN && !t->back_ended)
        send_kept(t);
    finish_if_complete(t);
}

static void front_room(void *owner)
{
    struct tunnel *t = owner;
    if (t->state == TUNNEL_OPEN)
        stream_resume(t->back, STREAM_PAUSE_CREDIT);
}

static void front_failed(void *owner, enum status status)
{
    struct tunnel *t = owner;
    t->close = "client";
    if (t->front_ended && t->state == TUNNEL_OPEN) /* it had said all: the app's input ends in order */
        stream_close(&t->back, true);
    finish(t, status);
}

static void front_ready(void *owner)
{
    (void)owner;
}

static void on_moved(void *owner, size_t bytes)
{
    (void)bytes;
    if (!end_if_stale(owner))
        touch(owner);
}

static const struct stream_events front_events = {.ready = front_ready,
                                                  .data = front_data,
                                                  .eof = front_eof,
                                                  .moved = on_moved,
                                                  .room = front_room,
                                                  .failed = front_failed};

/* ---- the instance ---- */

static enum status dial(struct tunnel *t);

static void back_ready(void *owner)
{
    struct tunnel *t = owner;
    if (end_if_stale(t))
        return;
    set_state(t, TUNNEL_OPEN);
    t->connect_us = t->proxy->loop->now_us - t->dialed_us;
    t->connect_us += t->connect_us == 0; /* 0 says that there was none */
    touch(t);
    if (t->kind == TUNNEL_PASSTHROUGH) {
        stream_splice(front_of(t), t->back);
        stream_splice(t->back, front_of(t));
    }
    if (!t->is_guarded)
        send_kept(t);
}

static void back_data(void *owner, const char *data, size_t len)
{
    struct tunnel *t = owner;
    if (end_if_stale(t))
        return;
    touch(t);
    if (t->first_byte_us == 0) {
        t->first_byte_us = t->proxy->loop->now_us - t->started_us;
        upstream_answered(t->proxy, t->claim, slice_str(t->instance_id), t->port, 0, t->dialed_us);
    }
    if (t->is_guarded) { /* an HTTP server does not speak first */
        t->is_guarded = false;
        send_kept(t);
    }
    stream_write(front_of(t), data, len);
    if (stream_room(front_of(t)) == 0)
        stream_pause(t->back, STREAM_PAUSE_CREDIT);
}

static void back_eof(void *owner)
{
    struct tunnel *t = owner;
    t->back_ended = true;
    t->close = t->close ? t->close : "app";
    if (!t->front_ended)
        stream_shutdown(front_of(t));
    finish_if_complete(t);
}

static void back_room(void *owner)
{
    struct tunnel *t = owner;
    stream_resume(front_of(t), STREAM_PAUSE_CREDIT);
}

static void connect_failed(struct tunnel *t, enum status status)
{
    struct counters *counters = t->proxy->loop->counters;
    COUNTER_INC(counters, upstream_connect_errors_total);
    upstream_failed(t->proxy, t->claim, slice_str(t->instance_id), t->port, status);
    stream_close(&t->back, false);
    pool_leave(t->proxy->pool, &t->guest);
    if (t->tried.count < UPSTREAM_MAX_TRIED)
        t->tried.serials[t->tried.count++] = t->back_serial;
    if (t->retries < t->connection->settings->max_retries && dial(t) == STATUS_OK) {
        t->retries++;
        COUNTER_INC(counters, upstream_retries_total);
        return;
    }
    refuse(t, status);
}

static void back_failed(void *owner, enum status status)
{
    struct tunnel *t = owner;
    if (t->state == TUNNEL_CONNECTING) {
        connect_failed(t, status);
        return;
    }
    t->close = "app";
    enum status error = status == STATUS_PEER_RESET ? STATUS_UPSTREAM_RESET : status;
    if (t->first_byte_us == 0)
        upstream_failed(t->proxy, t->claim, slice_str(t->instance_id), t->port, error);
    end(t, error, t->back_ended); /* it had said all: the client hears it to its end */
}

static const struct stream_events back_events = {.ready = back_ready,
                                                 .data = back_data,
                                                 .eof = back_eof,
                                                 .moved = on_moved,
                                                 .room = back_room,
                                                 .failed = back_failed};

/* ---- where to ---- */

static void copy_id(char *to, const char *id)
{
    size_t len = strnlen(id, HOSTNAME_MAX_LABEL);
    memcpy(to, id, len);
    to[len] = '\0';
}

/* What the instance reads first. */
static void send_header(struct tunnel *t, unsigned version)
{
    uint8_t header[PROXY_WRITE_MAX_BYTES];
    stream_write(t->back, header, back_header_write(t->connection, name_of(t), version, header));
}

/* A tunnel that is tried again stays in. */
static enum status enter_app(struct tunnel *t, const struct route_app *app)
{
    if (!app->meter || t->meter)
        return STATUS_OK;
    enum status status =
        meter_enter(app->meter, app->max_connections, app->requests_per_second, t->proxy->loop->now_us);
    if (status == STATUS_OK)
        t->meter = app->meter;
    else
        COUNTER_INC(t->proxy->loop->counters, app_limits_total);
    return status;
}

/* A tunnel that is tried again was counted. */
static void count_begin(struct tunnel *t)
{
    if (!t->proxy->traffic || t->traffic)
        return;
    t->traffic = app_traffic_enter(t->proxy->traffic, slice_str(t->app_id), t->proxy->loop->now_us);
    COUNTER_INC(t->traffic, tunnels);
}

/* False: its address is forbidden. */
static bool dial_instance(struct tunnel *t, const struct route_instance *instance, const struct route_target *target)
{
    copy_id(t->instance_id, instance->id);
    t->claim = instance->claim;
    t->back_serial = instance->claim->serial;
    t->back_address = instance->claim->address;
    t->dialed_us = t->proxy->loop->now_us;
    t->back = pool_dial(t->proxy->pool, t->proxy->settings, instance->claim, target->port, &t->guest, &back_events, t);
    if (t->back && target->proxy_protocol > 0)
        send_header(t, target->proxy_protocol);
    return t->back != NULL;
}

static enum status pick_and_dial(struct tunnel *t, const struct route_target *target)
{
    enum status status = target->status;
    if (target->app) {
        copy_id(t->app_id, target->app->id);
        count_begin(t);
    }
    t->port = target->port;
    bool is_passthrough = status == STATUS_MISDIRECTED && target->protocol == ROUTE_PROTOCOL_PASSTHROUGH;
    if (status != STATUS_OK && !is_passthrough)
        return status;
    status = enter_app(t, target->app);
    if (status != STATUS_OK)
        return status;
    struct upstream_tried tried = t->tried;
    const struct route_instance *instance;
    while ((instance = upstream_pick(t->proxy, target, &tried, &status))) {
        if (dial_instance(t, instance, target))
            return STATUS_OK;
        status = STATUS_ADDRESS_FORBIDDEN;
        if (tried.count == UPSTREAM_MAX_TRIED)
            break;
        tried.serials[tried.count++] = t->back_serial;
    }
    return tried.count > t->tried.count ? STATUS_ADDRESS_FORBIDDEN : status;
}

static enum status dial(struct tunnel *t)
{
    const struct settings *settings = t->connection->settings;
    struct slice name = name_of(t);
    struct hostname hostname;
    struct route_target target;
    bool pending;
    hostname_parse(name, settings->base_domains, settings->base_domain_count, &hostname);
    route_table_read_begin();
    domains_resolve(t->proxy->domains, t->proxy->table, &hostname, name, &target, &pending);
    enum status status = pick_and_dial(t, &target);
    route_table_read_end();
    return status;
}

void tunnel_begin(struct connection *c, enum tunnel_kind kind, struct slice name)
{
    struct loop *loop = c->proxy->loop;
    struct tunnel *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->connection = c;
    t->proxy = c->proxy;
    t->kind = (uint8_t)kind;
    t->is_guarded = kind == TUNNEL_TCP_SILENT;
    t->started_us = loop->now_us;
    t->started_wall_us = loop->wall_us;
    t->guest.revoked = on_revoked;
    list_init(&t->guest.link);
    timer_init(&t->timer, on_timer);
    t->name_len = (uint8_t)hostname_plain(name, t->name);
    c->tunnel = t;
    COUNTER_INC(loop->counters, tunnels_active);
    COUNTER_INC(loop->counters, tunnels_total);
    if (kind == TUNNEL_PASSTHROUGH)
        COUNTER_INC(loop->counters, tunnels_passthrough_total);
    else
        COUNTER_INC(loop->counters, tunnels_tcp_total);
    stream_bind(c->stream, &front_events, t);
    touch(t);
    enum status status = dial(t);
    if (status != STATUS_OK)
        refuse(t, status);
}
