#include "gateway/proxy/preface.h"

#include "gateway/base/log.h"
#include "gateway/http/hostname.h"
#include "gateway/proxy/tunnel.h"
#include "gateway/wire/client_hello.h"
#include "gateway/wire/proxy_protocol.h"
#include "gateway/wire/sniff.h"

#include <stdlib.h>

enum preface_state {
    PREFACE_PROXY_HEADER,
    PREFACE_HELLO,
    PREFACE_FIRST_BYTES, /* inside TLS */
    PREFACE_OVER,
};

struct preface {
    struct connection *connection;
    struct tls_server *tls; /* borrowed; NULL: cleartext */
    struct timer timer;
    struct deferred deferred;
    struct block *kept; /* what has come and was not enough */
    uint64_t began_ms;
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
    loop_timer_forget(&p->timer);
    free(p);
}

void preface_end(struct connection *c)
{
    struct preface *p = c->preface;
    if (!p)
        return;
    c->preface = NULL;
    p->state = PREFACE_OVER;
    loop_timer_disarm(&p->timer);
    loop_defer(c->proxy->loop, &p->deferred, free_preface); /* what is kept may still be handed out in this turn */
}

/* The connection has failed before it became anything. */
static void give_up(struct preface *p)
{
    struct connection *c = p->connection;
    if (p->tls && p->state != PREFACE_FIRST_BYTES)
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

static void keep(struct preface *p, struct slice bytes)
{
    if (p->kept || bytes.len == 0)
        return; /* it is there already */
    p->kept = loop_block_take(loop_of(p));
    memcpy(p->kept->data, bytes.ptr, bytes.len);
    p->kept->end = (uint32_t)bytes.len;
}

/* ---- the PROXY header ---- */

static void take_client(struct connection *c, const struct proxy_header *header)
{
    const struct sockaddr *source = &header->source.sa;
    if (header->is_local || (source->sa_family != AF_INET && source->sa_family != AF_INET6))
        return;
    ip_from_sockaddr(source, &c->client, &c->client_port);
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

/* What the name that a client asks for means for its connection. Names that nobody has are OpenSSL's to refuse. */
static enum preface_plan plan_for(const struct preface *p, struct slice sni)
{
    const struct connection *c = p->connection;
    struct hostname hostname;
    struct route_target target;
    if (sni.len > 0 && sni.ptr[sni.len - 1] == '.')
        sni.len--;
    hostname_parse(sni, c->settings->base_domains, c->settings->base_domain_count, &hostname);
    if (hostname.kind != HOSTNAME_APP && hostname.kind != HOSTNAME_CUSTOM)
        return PREFACE_HTTP;
    route_table_read_begin();
    route_table_resolve(c->proxy->table, &hostname, sni, &target);
    enum preface_plan plan = plan_of(&target);
    bool is_known = target.app != NULL;
    route_table_read_end();
    if (hostname.kind == HOSTNAME_CUSTOM && is_known && !tls_server_has_custom(p->tls, sni))
        return PREFACE_PASSTHROUGH;
    return plan;
}

static void start_tls(struct preface *p, enum preface_plan plan, struct slice bytes)
{
    struct connection *c = p->connection;
    uint64_t spent = loop_now_ms(loop_of(p)) - p->began_ms, all = c->settings->handshake_ms;
    struct stream *stream = c->stream;
    c->plan = (uint8_t)plan;
    preface_end(c);
    connection_await_tls(c);
    stream_start_tls(stream, p->tls, plan == PREFACE_TCP, spent < all ? all - spent : 1);
    stream_hand_back(stream, bytes.ptr, bytes.len);
}

static void read_hello(struct preface *p, struct slice bytes)
{
    struct connection *c = p->connection;
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
        plan = plan_for(p, slice_make(hello.server_name, hello.server_name_len));
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
    if (!gather(p, &bytes)) {
        if (p->state == PREFACE_PROXY_HEADER)
            refuse_header(p, "its PROXY header is too long");
        else
            give_up(p);
        return;
    }
    if (p->state == PREFACE_PROXY_HEADER) {
        if (!read_header(p, &bytes))
            return;
        loop_timer_arm(loop_of(p), &p->timer, c->settings->handshake_ms);
        if (p->tls && bytes.len == 0)
            return;
    }
    if (p->state == PREFACE_FIRST_BYTES) {
        read_first_bytes(p, bytes);
    } else if (p->tls) {
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

void preface_begin(struct connection *c, struct tls_server *tls)
{
    bool has_header = frontend_params(c->frontend)->proxy_header;
    struct preface *p = new_preface(c, has_header ? PREFACE_PROXY_HEADER : PREFACE_HELLO);
    p->tls = tls;
    if (has_header && !c->is_trusted) {
        refuse_header(p, "it is not in trusted_proxies, the only ones that may send a PROXY header");
        return;
    }
    loop_timer_arm(loop_of(p), &p->timer, has_header ? c->settings->proxy_header_ms : c->settings->handshake_ms);
}

void preface_sniff(struct connection *c, struct slice sni)
{
    struct preface *p = new_preface(c, PREFACE_FIRST_BYTES);
    size_t len = sni.len < sizeof p->name ? sni.len : 0; /* longer ones are no name of ours */
    if (len > 0)
        memcpy(p->name, sni.ptr, len);
    p->name_len = (uint8_t)len;
    loop_timer_arm(loop_of(p), &p->timer, c->settings->sniff_ms);
}
