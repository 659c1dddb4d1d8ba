/*
 * frontend: client connections of one listener: accept, TLS, ALPN, mux; limits; idle connections closed first when
 * full.
 */
#ifndef GATEWAY_PROXY_FRONTEND_H
#define GATEWAY_PROXY_FRONTEND_H

#include "gateway/net/listener.h"
#include "gateway/proxy/local.h"
#include "gateway/proxy/proxy.h"

enum frontend_kind {
    FRONTEND_PROXY,    /* TLS; routes by host */
    FRONTEND_REDIRECT, /* cleartext; answers 308 to the https URL */
    FRONTEND_LOCAL,    /* answered by a local service; TLS if `tls` is set */
};

struct frontend;

struct frontend_params {
    enum frontend_kind kind;
    uint16_t port;          /* of the listener, for X-Forwarded-Port; 0 on a unix socket */
    uint16_t https_port;    /* FRONTEND_REDIRECT: where to */
    bool proxy_header;      /* a PROXY header comes first on every connection */
    struct tls_server *tls; /* FRONTEND_LOCAL: owned then; FRONTEND_PROXY uses the proxy's */
    const struct local_service *service;
    void *service_arg;
};

/* Takes the listening socket. */
struct frontend *frontend_new(struct proxy *proxy, int fd, const struct frontend_params *params);
/* FRONTEND_LOCAL: what new connections get; takes it, those that there are keep the old one. */
void frontend_set_tls(struct frontend *frontend, struct tls_server *tls);
/* Takes who waits in the kernel's queue, and then nobody any more; connections go on. */
void frontend_stop(struct frontend *frontend);
/* All its connections are gone. */
void frontend_free(struct frontend **frontend);

/* ---- a connection, as exchanges see it ---- */

struct connection {
    struct list link; /* in the proxy's idle or active list */
    struct frontend *frontend;
    struct proxy *proxy;
    struct settings *settings; /* a reference: what it began with */
    struct mux *mux;
    struct stream *stream;   /* until the mux has it */
    struct preface *preface; /* while that reads, see proxy/preface */
    struct tunnel *tunnel;   /* while there is one, which uses `stream` */
    struct deferred deferred;
    struct list backs; /* connections to instances that are told of this client and serve it alone (proxy/pool) */
    struct ip_addr client;
    uint16_t client_port;
    uint16_t destination_port;
    struct ip_addr destination; /* where the client connected to, if a PROXY header said so */
    uint8_t identity;           /* base domain whose certificate was presented; TLS_IDENTITY_CUSTOM: see custom */
    struct cert_custom *custom; /* a reference: the uploaded certificate that was presented; NULL: none */
    uint8_t plan;               /* enum preface_plan */
    bool is_tls;
    bool is_trusted; /* in trusted_proxies */
    bool is_idle;
    bool is_late; /* its handshake ended during the drain: one request is waited for, as long as for its head */
    bool tls_resumed;
    bool is_verified; /* a client certificate was shown and checked */
    const char *tls_version;
    const char *tls_cipher;
    const char *alpn;
    char *other_alpn; /* owned: what `alpn` points to if it is no protocol of ours (tcp ports) */
    char client_text[IP_TEXT_MAX];
};

/* The stream's events are the connection's again, which waits for the end of its handshake. */
void connection_await_tls(struct connection *connection);
/* The stream is ready: goes on as planned. */
void connection_ready(struct connection *connection);
/* The stream becomes a mux, by its ALPN. */
void connection_serve_http(struct connection *connection);
/* It has no stream any more: freed at the end of the turn. */
void connection_drop(struct connection *connection);

enum frontend_kind frontend_kind(const struct frontend *frontend);
const struct frontend_params *frontend_params(const struct frontend *frontend);
struct slice frontend_port_text(const struct frontend *frontend);

/* Closes every connection now. */
void connections_close_all(struct proxy *proxy, enum status status);
/* Those without a request in progress, also in their handshakes; and tunnels. */
void connections_close_unused(struct proxy *proxy, enum status status);
/* Closes them after what is in progress; idle ones after connections_drain_idle, for requests that are on their way. */
void connections_drain(struct proxy *proxy);
void connections_drain_idle(struct proxy *proxy);

#endif
