/*
 * http_server: a blocking HTTP server on threads of its own, plain or TLS, that answers as its test says.
 */
#ifndef TESTS_UNIT_CONTROL_HTTP_SERVER_H
#define TESTS_UNIT_CONTROL_HTTP_SERVER_H

#include "net/certificates.h"
#include "net/sockets.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/un.h>

enum { HTTP_SERVER_CONNECTIONS = 32, HTTP_SERVER_REQUEST_MAX = 65536 };

struct http_server;

struct http_connection {
    struct http_server *server;
    int fd;
    SSL *ssl; /* NULL: plain */
    pthread_t thread;
};

/* On the connection's thread, for each request; false closes the connection. */
typedef bool (*http_answer_cb)(struct http_connection *connection, const char *request);

struct http_server {
    int listening;
    uint16_t port;
    char url[64];
    SSL_CTX *tls;
    http_answer_cb answer;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    struct http_connection connections[HTTP_SERVER_CONNECTIONS];
    size_t count;
    _Atomic size_t requests;
    char last_request[HTTP_SERVER_REQUEST_MAX]; /* under the lock */
};

static inline bool http_send(struct http_connection *c, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = c->ssl ? SSL_write(c->ssl, bytes, (int)len) : send(c->fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool http_send_text(struct http_connection *c, const char *text)
{
    return http_send(c, text, strlen(text));
}

/* Until the client goes. */
static inline void http_wait_for_end(struct http_connection *c)
{
    char byte;
    while (recv(c->fd, &byte, 1, 0) > 0)
        ;
}

static inline ssize_t http_receive(struct http_connection *c, char *buffer, size_t size)
{
    return c->ssl ? SSL_read(c->ssl, buffer, (int)size) : recv(c->fd, buffer, size, 0);
}

/* One request with its body; false when the client has gone. */
static inline bool http_read_request(struct http_connection *c, char *request)
{
    size_t len = 0, wanted = SIZE_MAX;
    while (len < wanted) {
        ssize_t n = http_receive(c, request + len, HTTP_SERVER_REQUEST_MAX - 1 - len);
        if (n <= 0)
            return false;
        len += (size_t)n;
        request[len] = '\0';
        const char *end = strstr(request, "\r\n\r\n");
        const char *length = strcasestr(request, "\r\nContent-Length:");
        if (end)
            wanted = (size_t)(end - request) + 4 + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
    }
    return true;
}

static inline void *http_serve(void *arg)
{
    struct http_connection *c = arg;
    struct http_server *server = c->server;
    char *request = malloc(HTTP_SERVER_REQUEST_MAX);
    bool ok = request && (!c->ssl || SSL_accept(c->ssl) == 1);
    while (ok && http_read_request(c, request)) {
        pthread_mutex_lock(&server->lock);
        memcpy(server->last_request, request, strlen(request) + 1);
        pthread_mutex_unlock(&server->lock);
        atomic_fetch_add(&server->requests, 1);
        ok = server->answer(c, request);
    }
    if (ok && c->ssl)
        SSL_shutdown(c->ssl);
    shutdown(c->fd, SHUT_RDWR);
    free(request);
    return NULL;
}

static inline void *http_accept(void *arg)
{
    struct http_server *server = arg;
    int fd;
    while ((fd = accept4(server->listening, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_mutex_lock(&server->lock);
        assert_true(server->count < HTTP_SERVER_CONNECTIONS);
        struct http_connection *c = &server->connections[server->count++];
        *c = (struct http_connection){.server = server, .fd = fd, .ssl = server->tls ? SSL_new(server->tls) : NULL};
        if (c->ssl)
            SSL_set_fd(c->ssl, fd);
        pthread_create(&c->thread, NULL, http_serve, c);
        pthread_mutex_unlock(&server->lock);
    }
    return NULL;
}

/* `tls` is taken; listens on a TCP port that the kernel picks, or on `unix_path`. */
static inline struct http_server *http_server_start(http_answer_cb answer, void *arg, SSL_CTX *tls,
                                                    const char *unix_path)
{
    struct http_server *server = calloc(1, sizeof *server);
    assert_non_null(server);
    server->answer = answer;
    server->arg = arg;
    server->tls = tls;
    pthread_mutex_init(&server->lock, NULL);
    if (unix_path) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        snprintf(at.sun_path, sizeof at.sun_path, "%s", unix_path);
        server->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_return_code(bind(server->listening, (struct sockaddr *)(void *)&at, sizeof at), errno);
        assert_return_code(listen(server->listening, 16), errno);
    } else {
        server->listening = listen_any(&server->port);
        fcntl(server->listening, F_SETFL, 0);
    }
    snprintf(server->url, sizeof server->url, "%s://127.0.0.1:%u/", tls ? "https" : "http", server->port);
    pthread_create(&server->thread, NULL, http_accept, server);
    return server;
}

static inline size_t http_server_connections(struct http_server *server)
{
    pthread_mutex_lock(&server->lock);
    size_t count = server->count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

static inline void http_server_stop(struct http_server **server_ptr)
{
    struct http_server *server = *server_ptr;
    *server_ptr = NULL;
    shutdown(server->listening, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listening);
    for (size_t i = 0; i < server->count; i++) {
        struct http_connection *c = &server->connections[i];
        shutdown(c->fd, SHUT_RDWR);
        pthread_join(c->thread, NULL);
        SSL_free(c->ssl);
        close(c->fd);
    }
    SSL_CTX_free(server->tls);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

#endif
