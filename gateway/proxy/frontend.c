#include "gateway/proxy/frontend.h"

#include "gateway/base/log.h"
#include "gateway/mux/negotiate.h"
#include "gateway/net/cert_custom.h"
#include "gateway/proxy/exchange.h"
#include "gateway/proxy/pool.h"
#include "gateway/proxy/preface.h"
#include "gateway/proxy/tunnel.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct frontend {
    struct proxy *proxy;
    struct listener *listener;
    struct frontend_params params;
    uint32_t connection_count;
    size_t port_text_len;
    char port_text[8];
};

enum frontend_kind frontend_kind(const struct frontend *frontend)
{
    return frontend->params.kind;
}

const struct frontend_params *frontend_params(const struct frontend *frontend)
{
    return &frontend->params;
}

struct slice frontend_port_text(const struct frontend *frontend)
{
    return slice_make(frontend->port_text, frontend->port_text_len);
}

/* ---- connections ---- */

/* The one mover between the proxy's lists. */
static void move(struct connection *c, bool idle)
{
    struct proxy *proxy = c->proxy;
    if (c->is_idle == idle)
        return;
    c->is_idle = idle;
    list_remove(&c->link);
    list_push(idle ? &proxy->connections_idle : &proxy->connections_active, &c->link);
    COUNTER_ADD(proxy->loop->counters, connections_idle, idle ? 1 : -1);
}

static void tell_if_drained(struct proxy *proxy)
{
    if (!proxy->draining || proxy->connection_count > 0 || !proxy->drained)
        return;
    void (*drained)(void *arg) = proxy->drained;
    proxy->drained = NULL;
    drained(proxy->drained_arg);
}

static void free_connection(struct deferred *deferred)
{
    struct connection *c = CONTAINER_OF(deferred, struct connection, deferred);
    struct proxy *proxy = c->proxy;
    move(c, false);
    list_remove(&c->link);
    pool_leave_owner(&c->backs);
    COUNTER_DEC(proxy->loop->counters, connections);
    c->frontend->connection_count--;
    proxy->connection_count--;
    settings_unref(&c->settings);
    cert_custom_unref(&c->custom);
    free(c->other_alpn);
    free(c);
    tell_if_drained(proxy);
}

void connection_drop(struct connection *c)
{
    loop_defer(c->proxy->loop, &c->deferred, free_connection);
}

static void on_request(void *owner, struct endpoint *endpoint)
{
    struct connection *c = owner;
    move(c, false);
    if (c->proxy->draining)
        c->mux->ops->drain(c->mux);
    exchange_begin(c, endpoint);
}

static void on_idle(void *owner)
{
    struct connection *c = owner;
    move(c, true);
    if (c->proxy->draining)
        c->mux->ops->drain(c->mux);
}

static void on_closed(void *owner, enum status status)
{
    static _Thread_local struct log_limit limit;
    struct connection *c = owner;
    if (status == STATUS_CLIENT_FLOOD && log_limit_pass(&limit, 10))
        log_warn("h2: client %s floods us with %s; its connection is closed", c->client_text,
                 c->mux->flood ? c->mux->flood : "frames");
    c->mux = NULL;
    connection_drop(c);
}

static const struct mux_events mux_events = {.request = on_request, .idle = on_idle, .closed = on_closed};

static void learn_tls(struct connection *c)
{
    const SSL *ssl = stream_ssl(c->stream);
    c->is_tls = ssl != NULL;
    if (!ssl)
        return;
    c->identity = (uint8_t)tls_identity(ssl);
    struct cert_custom *custom = tls_custom_certificate(ssl);
    c->custom = custom ? cert_custom_ref(custom) : NULL;
    c->tls_version = tls_version_name(ssl);
    c->tls_cipher = tls_cipher_name(ssl);
    c->tls_resumed = tls_is_resumed(ssl);
    c->is_verified = tls_is_client_verified(ssl);
    struct slice alpn = tls_alpn(ssl);
    c->alpn = negotiate_alpn_name(alpn);
    if (alpn.len > 0 && !*c->alpn && (c->other_alpn = strndup(alpn.ptr, alpn.len)))
        c->alpn = c->other_alpn;
}

/* Its mux waits by itself for requests that cross the drain. */
static bool speaks_h2(const struct connection *c)
{
    return strcmp(c->alpn, "h2") == 0;
}

void connection_serve_http(struct connection *c)
{
    c->mux = negotiate_server(c->stream, &c->settings->mux, &mux_events, c);
    c->stream = NULL; /* the mux has it */
    move(c, true);
    c->is_late = c->proxy->draining;
    if (c->is_late && speaks_h2(c))
        c->mux->ops->drain(c->mux);
}

void connection_ready(struct connection *c)
{
    const SSL *ssl = stream_ssl(c->stream);
    learn_tls(c);
    switch ((enum preface_plan)c->plan) {
    case PREFACE_TCP:
        tunnel_begin(c, TUNNEL_TCP, tls_sni(ssl));
        return;
    case PREFACE_SNIFF:
        if (tls_alpn(ssl).len > 0)
            break;
        preface_sniff(c, tls_sni(ssl));
        return;
    case PREFACE_HTTP:
    case PREFACE_PASSTHROUGH:
        break;
    }
    connection_serve_http(c);
}

static void on_ready(void *owner)
{
    connection_ready(owner);
}

static void on_failed(void *owner, enum status status)
{
    struct connection *c = owner;
    if (status == STATUS_TLS_TIMEOUT)
        log_debug("tls: client %s: %s", c->client_text, status_what(status));
    stream_close(&c->stream, false);
    connection_drop(c);
}

static const struct stream_events stream_events = {.ready = on_ready, .failed = on_failed};

void connection_await_tls(struct connection *c)
{
    stream_bind(c->stream, &stream_events, c);
}

/* ---- accepting ---- */

/* When full, the connection that has been idle longest makes room. */
static bool make_room(struct proxy *proxy)
{
    struct counters *counters = proxy->loop->counters;
    if (proxy->connection_count < proxy->settings->max_connections)
        return true;
    if (list_is_empty(&proxy->connections_idle)) {
        COUNTER_INC(counters, connections_refused_total);
        return false;
    }
    struct connection *oldest = CONTAINER_OF(proxy->connections_idle.next, struct connection, link);
    COUNTER_INC(counters, connections_evicted_total);
    move(oldest, false); /* so that the next one is chosen next time */
    oldest->mux->ops->close(oldest->mux, STATUS_EVICTED);
    return true;
}

/* A TLS listener's connections are read by us up to the ClientHello; so is a PROXY header. */
static void begin(struct connection *c, int fd, const struct ip_addr *peer, uint16_t peer_port)
{
    const struct frontend_params *params = &c->frontend->params;
    bool has_preface = params->kind == FRONTEND_PROXY || params->proxy_header;
    c->tls_version = c->tls_cipher = c->alpn = "";
    c->stream = stream_accept(c->proxy->loop, fd, peer, peer_port, has_preface ? NULL : params->tls,
                              c->settings->handshake_ms, &stream_events, c);
    if (has_preface)
        preface_begin(c, params->kind == FRONTEND_PROXY && c->proxy->tls);
    else if (!params->tls)
        connection_ready(c);
}

static void on_accepted(void *owner, int fd, const struct ip_addr *peer, uint16_t peer_port)
{
    struct frontend *frontend = owner;
    struct proxy *proxy = frontend->proxy;
    if (!make_room(proxy)) {
        close(fd);
        return;
    }
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->frontend = frontend;
    c->proxy = proxy;
    c->settings = settings_ref(proxy->settings);
    list_init(&c->backs);
    c->client = *peer;
    c->client_port = peer_port;
    c->is_trusted = peer->family == 0 || settings_is_trusted(c->settings, peer);
    if (peer->family != 0)
        ip_format(peer, c->client_text);
    list_push(&proxy->connections_active, &c->link);
    frontend->connection_count++;
    proxy->connection_count++;
    COUNTER_INC(proxy->loop->counters, connections);
    COUNTER_INC(proxy->loop->counters, connections_total);
    begin(c, fd, peer, peer_port);
}

struct frontend *frontend_new(struct proxy *proxy, int fd, const struct frontend_params *params)
{
    struct frontend *frontend = calloc(1, sizeof *frontend);
    if (!frontend)
        abort();
    frontend->proxy = proxy;
    frontend->params = *params;
    frontend->port_text_len = (size_t)snprintf(frontend->port_text, sizeof frontend->port_text, "%u", params->port);
    frontend->listener = listener_new(proxy->loop, fd, on_accepted, frontend);
    return frontend;
}

void frontend_set_tls(struct frontend *frontend, struct tls_server *tls)
{
    assert(frontend->params.kind == FRONTEND_LOCAL);
    tls_server_free(&frontend->params.tls);
    frontend->params.tls = tls;
}

void frontend_stop(struct frontend *frontend)
{
    listener_close(&frontend->listener);
}

void frontend_free(struct frontend **frontend_ptr)
{
    struct frontend *frontend = *frontend_ptr;
    if (!frontend)
        return;
    *frontend_ptr = NULL;
    assert(frontend->connection_count == 0);
    listener_free(&frontend->listener);
    tls_server_free(&frontend->params.tls);
    free(frontend);
}

/* ---- all connections of a proxy ---- */

static void close_connection(struct connection *c, enum status status)
{
    if (c->mux) {
        c->mux->ops->close(c->mux, status);
    } else if (c->tunnel) {
        tunnel_close(c, status);
    } else if (c->stream) {
        preface_end(c);
        stream_close(&c->stream, false);
        connection_drop(c);
    }
}

void connections_close_all(struct proxy *proxy, enum status status)
{
    LIST_EACH_SAFE (link, &proxy->connections_idle)
        close_connection(CONTAINER_OF(link, struct connection, link), status);
    LIST_EACH_SAFE (link, &proxy->connections_active)
        close_connection(CONTAINER_OF(link, struct connection, link), status);
}

void connections_close_unused(struct proxy *proxy, enum status status)
{
    LIST_EACH_SAFE (link, &proxy->connections_idle)
        close_connection(CONTAINER_OF(link, struct connection, link), status);
    LIST_EACH_SAFE (link, &proxy->connections_active) {
        struct connection *c = CONTAINER_OF(link, struct connection, link);
        if (!c->mux)
            close_connection(c, status);
    }
}

void connections_drain(struct proxy *proxy)
{
    LIST_EACH_SAFE (link, &proxy->connections_idle) {
        struct connection *c = CONTAINER_OF(link, struct connection, link);
        if (speaks_h2(c))
            c->mux->ops->drain(c->mux);
    }
    LIST_EACH_SAFE (link, &proxy->connections_active) {
        struct connection *c = CONTAINER_OF(link, struct connection, link);
        if (c->mux)
            c->mux->ops->drain(c->mux);
    }
    tell_if_drained(proxy);
}

void connections_drain_idle(struct proxy *proxy)
{
    LIST_EACH_SAFE (link, &proxy->connections_idle) {
        struct connection *c = CONTAINER_OF(link, struct connection, link);
        if (!c->is_late)
            c->mux->ops->drain(c->mux);
    }
}
