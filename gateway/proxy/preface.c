#include "gateway/proxy/preface.h"

#include "gateway/base/log.h"
#include "gateway/http/hostname.h"
#include "gateway/proxy/domains.h"
#include "gateway/proxy/tunnel.h"
#include "gateway/wire/client_hello.h"
#include "gateway/wire/proxy_protocol.h"
#include "gateway/wire/sniff.h"

#include <stdlib.h>

enum { MAX_HELD_BYTES = 16384 }; /* during a look-up; then reading is paused */

enum preface_state {
    PREFACE_PROXY_HEADER,
    PREFACE_HELLO,
    PREFACE_LOOKUP,      /* of the custom domain that the hello names */
    PREFACE_FIRST_BYTES, /* inside TLS */
    PREFACE_OVER,
};

struct preface {
    struct connection *connection;
    struct timer timer;
    struct domains_wait wait;
    struct deferred deferred;
    struct block *kept; /* what has come and was not enough */
    char *held;         /* what has come until a look-up is over, which is then handed out again */
    size_t held_len;
    uint64_t began_ms;
    bool is_tls;     /* else cleartext */
    bool has_waited; /* for a look-up */
    uint8_t state;
    uint8_t name_len;
    char name[HOSTNAME_MAX + 1]; /* of PREFACE_FIRST_BYTES */
};

/* ---- life ---- */

static struct loop *loop_of(const struct preface *p)
{
    return p->connection->proxy->loop;
}

static void free_preface(struct deferred *deferred)
{
    struct preface *p = CONTAINER_OF(deferred, struct preface, deferred);
    if (p->kept)
        loop_block_give(loop_of(p), p->kept);
    free(p->held);
    timer_forget(&p->timer);
    free(p);
}

void preface_end(struct connection *c)
{
    struct preface *p = c->preface;
    if (!p)
        return;
    c->preface = NULL;
    domains_cancel(&p->wait);
    p->state = PREFACE_OVER;
    timer_disarm(&p->timer);
    loop_defer(c->proxy->loop, &p->deferred, free_preface); /* what is kept may still be handed out in this turn */
}

/* The connection has failed before it became anything. */
static void give_up(struct preface *p)
{
    struct connection *c = p->connection;
    if (p->is_tls && p->state != PREFACE_PROXY_HEADER && p->state != PREFACE_FIRST_BYTES)
        COUNTER_INC(c->proxy->loop->counters, handshakes_failed_total);
    preface_end(c);
    stream_close(&c->stream, false);
    connection_drop(c);
}

static void refuse_header(struct preface *p, const char *why)
{
    static _Thread_local struct log_limit limit;
    if (log_limit_pass(&limit, 10))
        log_warn("proxy_protocol: connection from %s closed: %s", p->connection->client_text, why);
    COUNTER_INC(loop_of(p)->counters, proxy_headers_refused_total);
    give_up(p);
}

static void refuse_length(struct preface *p)
{
    if (p->state == PREFACE_PROXY_HEADER)
        refuse_header(p, "its PROXY header is too long");
    else
        give_up(p);
}

static void on_timer(struct timer *timer)
{
    struct preface *p = CONTAINER_OF(timer, struct preface, timer);
    struct connection *c = p->connection;
    const struct settings *settings = c->settings;
    switch ((enum preface_state)p->state) {
    case PREFACE_PROXY_HEADER:
        refuse_header(p, "no PROXY header came in time");
        break;
    case PREFACE_HELLO:
    case PREFACE_LOOKUP:
        give_up(p);
        break;
    case PREFACE_FIRST_BYTES:
        if (p->kept && loop_now_ms(loop_of(p)) - p->began_ms < settings->mux.head_ms) {
            loop_timer_arm(loop_of(p), timer, settings->mux.head_ms); /* half a word is no silence */
        } else if (p->kept) {
            give_up(p);
        } else {
            preface_end(c);
            tunnel_begin(c, TUNNEL_TCP_SILENT, slice_make(p->name, p->name_len));
        }
        break;
    case PREFACE_OVER:
        break;
    }
}

/* ---- bytes ---- */

/* All that has come so far. False: more than fits. */
static bool gather(struct preface *p, struct slice *bytes)
{
    struct block *block = p->kept;
    if (!block)
        return true;
    if (bytes->len > sizeof block->data - block->end)
        return false;
    memcpy(block->data + block->end, bytes->ptr, bytes->len);
    block->end += (uint32_t)bytes->len;
    *bytes = slice_make(block->data + block->start, block->end - block->start);
    return true;
}

/* One read can bring more than a block holds; the connection is over then. */
static void keep(struct preface *p, struct slice bytes)
{
    if (p->kept || bytes.len == 0)
        return; /* it is there already */
    p->kept = loop_block_take(loop_of(p));
    if (!gather(p, &bytes))
        refuse_length(p);
}

/* The same for a look-up, however much one read brings: it is no fault of the client's that it must wait. */
static void hold(struct preface *p, struct slice bytes)
{
    p->held = realloc(p->held, p->held_len + bytes.len);
    if (!p->held)
        abort();
    memcpy(p->held + p->held_len, bytes.ptr, bytes.len);
    p->held_len += bytes.len;
    if (p->kept)
        loop_block_give(loop_of(p), p->kept);
    p->kept = NULL;
    if (p->held_len >= MAX_HELD_BYTES)
        stream_pause(p->connection->stream, STREAM_PAUSE_OWNER);
}

/* What was kept, and more than fits behind it, in one piece. Once: so much is enough to tell what it is. */
_Static_assert((size_t)SNIFF_MAX_LINE < sizeof((struct block *)NULL)->data, "a full block can still need more");
static void join(struct preface *p, struct slice *bytes)
{
    struct block *block = p->kept;
    size_t kept = block->end - block->start;
    p->held = malloc(kept + bytes->len);
    if (!p->held)
        abort();
    memcpy(p->held, block->data + block->start, kept);
    memcpy(p->held + kept, bytes->ptr, bytes->len);
    *bytes = slice_make(p->held, kept + bytes->len);
}

/* ---- the PROXY header ---- */

static void take_client(struct connection *c, const struct proxy_header *header)
{
    const struct sockaddr *source = &header->source.sa;
    if (header->is_local || (source->sa_family != AF_INET && source->sa_family != AF_INET6))
        return;
    ip_from_sockaddr(source, &c->client, &c->client_port);
    ip_from_sockaddr(&header->destination.sa, &c->destination, &c->destination_port);
    ip_format(&c->client, c->client_text);
    c->is_trusted = settings_is_trusted(c->settings, &c->client);
}

/* True if the header is over; the bytes behind it are what is left. */
static bool read_header(struct preface *p, struct slice *bytes)
{
    struct proxy_header header;
    size_t used = 0;
    switch (proxy_protocol_read((const uint8_t *)bytes->ptr, bytes->len, &header, &used)) {
    case PROXY_NEED_MORE:
        keep(p, *bytes);
        return false;
    case PROXY_INVALID:
        refuse_header(p, "its PROXY header is malformed");
        return false;
    case PROXY_DONE:
        break;
    }
    take_client(p->connection, &header);
    *bytes = slice_from(*bytes, used);
    if (p->kept)
        p->kept->start += (uint32_t)used;
    p->state = PREFACE_HELLO;
    return true;
}

/* ---- the ClientHello ---- */

static enum preface_plan plan_of(const struct route_target *target)
{
    if (target->status == STATUS_MISDIRECTED && target->protocol == ROUTE_PROTOCOL_PASSTHROUGH)
        return PREFACE_PASSTHROUGH;
    if (target->status != STATUS_OK)
        return PREFACE_HTTP; /* which says why */
    switch (target->protocol) {
    case ROUTE_PROTOCOL_AUTO:
        return PREFACE_SNIFF;
    case ROUTE_PROTOCOL_TCP:
        return PREFACE_TCP;
    case ROUTE_PROTOCOL_PASSTHROUGH:
        return PREFACE_PASSTHROUGH;
    case ROUTE_PROTOCOL_HTTP:
    case ROUTE_PROTOCOL_H2C:
        break;
    }
    return PREFACE_HTTP;
}

static void on_looked_up(struct domains_wait *wait, enum domains_state state);

static bool is_in_records(const struct connection *c, const struct hostname *hostname, struct slice name)
{
    struct route_target target;
    route_table_read_begin();
    route_table_resolve(c->proxy->table, hostname, name, &target);
    bool found = target.app != NULL;
    route_table_read_end();
    return found;
}

/* True if the DNS is being asked what the custom domain means. */
static bool must_wait(struct preface *p, const struct hostname *hostname, struct slice name)
{
    struct connection *c = p->connection;
    if (hostname->kind != HOSTNAME_CUSTOM || p->has_waited || is_in_records(c, hostname, name))
        return false;
    p->wait.done = on_looked_up;
    p->has_waited = domains_look_up(c->proxy->domains, name, &p->wait) == DOMAINS_PENDING;
    return p->has_waited;
}

/*
 * What the name that a client asks for means for its connection. Names that nobody has are OpenSSL's to refuse; a
 * custom domain without a certificate here has one in its CVM. False: that is not known yet.
 */
static bool plan_for(struct preface *p, struct slice name, enum preface_plan *ret_plan)
{
    const struct connection *c = p->connection;
    struct hostname hostname;
    struct route_target target;
    bool pending;
    *ret_plan = PREFACE_HTTP;
    if (name.len > 0 && name.ptr[name.len - 1] == '.')
        name.len--;
    hostname_parse(name, c->settings->base_domains, c->settings->base_domain_count, &hostname);
    if (hostname.kind != HOSTNAME_APP && hostname.kind != HOSTNAME_CUSTOM)
        return true;
    if (must_wait(p, &hostname, name))
        return false;
    route_table_read_begin();
    domains_resolve(c->proxy->domains, c->proxy->table, &hostname, name, &target, &pending);
    *ret_plan = plan_of(&target);
    bool is_known = target.app != NULL;
    route_table_read_end();
    if (hostname.kind == HOSTNAME_CUSTOM && is_known && !tls_server_has_custom(c->proxy->tls, name))
        *ret_plan = PREFACE_PASSTHROUGH;
    return true;
}

static void start_tls(struct preface *p, enum preface_plan plan, struct slice bytes)
{
    struct connection *c = p->connection;
    uint64_t spent = loop_now_ms(loop_of(p)) - p->began_ms, all = c->settings->handshake_ms;
    struct stream *stream = c->stream;
    c->plan = (uint8_t)plan;
    preface_end(c);
    connection_await_tls(c);
    stream_start_tls(stream, c->proxy->tls, plan == PREFACE_TCP, spent < all ? all - spent : 1);
    stream_hand_back(stream, bytes.ptr, bytes.len);
}

/* A reload may have come while the hello did; the index of a base domain must be that of the certificates' order. */
static void take_newest_settings(struct connection *c)
{
    if (c->settings == c->proxy->settings)
        return;
    settings_unref(&c->settings);
    c->settings = settings_ref(c->proxy->settings);
}

static void read_hello(struct preface *p, struct slice bytes)
{
    struct connection *c = p->connection;
    take_newest_settings(c);
    struct client_hello hello;
    enum preface_plan plan = PREFACE_HTTP;
    uint8_t *scratch = (uint8_t *)loop_of(p)->decrypted; /* nothing is decrypted yet */
    switch (client_hello_parse((const uint8_t *)bytes.ptr, bytes.len, scratch, &hello)) {
    case CLIENT_HELLO_NEED_MORE:
        keep(p, bytes);
        return;
    case CLIENT_HELLO_NOT_TLS:
    case CLIENT_HELLO_INVALID: /* OpenSSL knows the alert */
        break;
    case CLIENT_HELLO_DONE:
        if (!plan_for(p, slice_make(hello.server_name, hello.server_name_len), &plan)) {
            p->state = PREFACE_LOOKUP;
            hold(p, bytes);
            return;
        }
        break;
    }
    if (plan != PREFACE_PASSTHROUGH) {
        start_tls(p, plan, bytes);
        return;
    }
    preface_end(c);
    tunnel_begin(c, TUNNEL_PASSTHROUGH, slice_make(hello.server_name, hello.server_name_len));
    if (c->stream)
        stream_hand_back(c->stream, bytes.ptr, bytes.len);
}

static void on_looked_up(struct domains_wait *wait, enum domains_state state)
{
    struct preface *p = CONTAINER_OF(wait, struct preface, wait);
    struct stream *stream = p->connection->stream;
    (void)state; /* the cache knows it now */
    p->state = PREFACE_HELLO;
    stream_resume(stream, STREAM_PAUSE_OWNER);
    stream_hand_out(stream, p->held, p->held_len);
}

/* ---- the first bytes inside TLS ---- */

static void read_first_bytes(struct preface *p, struct slice bytes)
{
    struct connection *c = p->connection;
    struct stream *stream = c->stream;
    switch (sniff_first_bytes(bytes)) {
    case SNIFF_NEED_MORE:
        keep(p, bytes);
        return;
    case SNIFF_HTTP:
        preface_end(c);
        connection_serve_http(c);
        break;
    case SNIFF_RAW:
        preface_end(c);
        tunnel_begin(c, TUNNEL_TCP, slice_make(p->name, p->name_len));
        if (!c->stream)
            return;
        break;
    }
    stream_hand_back(stream, bytes.ptr, bytes.len);
}

/* ---- the stream's events ---- */

static void on_data(void *owner, const char *data, size_t len)
{
    struct preface *p = owner;
    struct connection *c = p->connection;
    struct slice bytes = slice_make(data, len);
    if (p->state == PREFACE_LOOKUP) {
        hold(p, bytes);
        return;
    }
    bool fits = gather(p, &bytes);
    if (!fits && p->state != PREFACE_FIRST_BYTES) {
        refuse_length(p);
        return;
    }
    if (!fits)
        join(p, &bytes);
    if (p->state == PREFACE_PROXY_HEADER) {
        if (!read_header(p, &bytes))
            return;
        p->began_ms = loop_now_ms(loop_of(p)); /* the handshake does, not the connection */
        loop_timer_arm(loop_of(p), &p->timer, c->settings->handshake_ms);
        if (p->is_tls && bytes.len == 0)
            return;
    }
    if (p->state == PREFACE_FIRST_BYTES) {
        read_first_bytes(p, bytes);
    } else if (p->is_tls) {
        read_hello(p, bytes);
    } else {
        struct stream *stream = c->stream;
        preface_end(c);
        connection_ready(c);
        stream_hand_back(stream, bytes.ptr, bytes.len);
    }
}

static void on_end(void *owner)
{
    give_up(owner);
}

static void on_failed(void *owner, enum status status)
{
    (void)status;
    give_up(owner);
}

static void on_nothing(void *owner)
{
    (void)owner;
}

static const struct stream_events stream_events = {
    .ready = on_nothing, .data = on_data, .eof = on_end, .room = on_nothing, .failed = on_failed};

/* ---- the beginning ---- */

static struct preface *new_preface(struct connection *c, enum preface_state state)
{
    struct preface *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->connection = c;
    p->state = (uint8_t)state;
    p->began_ms = loop_now_ms(c->proxy->loop);
    timer_init(&p->timer, on_timer);
    c->preface = p;
    stream_bind(c->stream, &stream_events, p);
    return p;
}

void preface_begin(struct connection *c, bool is_tls)
{
    bool has_header = frontend_params(c->frontend)->proxy_header;
    struct preface *p = new_preface(c, has_header ? PREFACE_PROXY_HEADER : PREFACE_HELLO);
    p->is_tls = is_tls;
    if (has_header && !c->is_trusted) {
        refuse_header(p, "it is not in trusted_proxies, the only ones that may send a PROXY header");
        return;
    }
    loop_timer_arm(loop_of(p), &p->timer, has_header ? c->settings->proxy_header_ms : c->settings->handshake_ms);
}

void preface_sniff(struct connection *c, struct slice sni)
{
    struct preface *p = new_preface(c, PREFACE_FIRST_BYTES);
    p->name_len = (uint8_t)hostname_plain(sni, p->name);
    loop_timer_arm(loop_of(p), &p->timer, c->settings->sniff_ms);
}
