/*
 * tls_client: a TLS client over a socket, in the same thread as the loop that serves it; and a server to talk to.
 */
#ifndef TESTS_UNIT_NET_TLS_CLIENT_H
#define TESTS_UNIT_NET_TLS_CLIENT_H

#include "gateway/net/cert_store.h"
#include "gateway/net/tls.h"

#include "net/certificates.h"
#include "net/sockets.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

/* A server for *.a.test with a certificate made for it. */
static inline struct tls_server *tls_test_server(void)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    char folder[] = "/tmp/gateway-stream-XXXXXX", base[64], pem[80], key[80], error[CERT_ERROR_TEXT_MAX];
    assert_non_null(mkdtemp(folder));
    snprintf(base, sizeof base, "%s/a", folder);
    snprintf(pem, sizeof pem, "%s.pem", base);
    snprintf(key, sizeof key, "%s.key", base);
    write_pair(base, "P-256", "DNS:*.a.test,DNS:a.test");
    struct cert_source source = {.name = "a.test", .certificate = pem, .private_key = key};
    struct cert_snapshot *snapshot = NULL;
    struct tls_ticket_keys keys = {.count = 0};
    struct tls_server *server = NULL;
    if (cert_snapshot_load(&source, 1, &snapshot, error) != STATUS_OK)
        fail_msg("%s", error);
    assert_int_equal(tls_ticket_keys_rotate(&keys), STATUS_OK);
    struct tls_options options = {.alpn = alpn};
    if (tls_server_new(snapshot, &options, &keys, &server, error) != STATUS_OK)
        fail_msg("%s", error);
    cert_snapshot_unref(&snapshot);
    unlink(pem);
    unlink(key);
    rmdir(folder);
    return server;
}

struct tls_client {
    SSL_CTX *ctx;
    SSL *ssl;
    bool handshaked;
    bool failed;
    bool got_close_notify;
};

/* The SNI that it sends. */
static inline void tls_client_name(struct tls_client *client, const char *name)
{
    char copy[256]; /* OpenSSL's macro wants it writable */
    snprintf(copy, sizeof copy, "%s", name);
    SSL_set_tlsext_host_name(client->ssl, copy);
}

static inline void tls_client_init(struct tls_client *client, int fd, int version)
{
    *client = (struct tls_client){.ctx = SSL_CTX_new(TLS_client_method())};
    SSL_CTX_set_verify(client->ctx, SSL_VERIFY_NONE, NULL);
    if (version)
        SSL_CTX_set_max_proto_version(client->ctx, version);
    client->ssl = SSL_new(client->ctx);
    SSL_set_fd(client->ssl, fd);
    tls_client_name(client, "x.a.test");
}

static inline void tls_client_fini(struct tls_client *client)
{
    SSL_free(client->ssl);
    SSL_CTX_free(client->ctx);
    *client = (struct tls_client){.ctx = NULL};
}

static inline void tls_client_check(struct tls_client *client, int ret)
{
    int error = SSL_get_error(client->ssl, ret);
    client->got_close_notify |= error == SSL_ERROR_ZERO_RETURN;
    client->failed |= error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
    ERR_clear_error();
}

/* Handshakes as far as it goes now. */
static inline bool tls_client_handshake(struct tls_client *client)
{
    if (client->handshaked || client->failed)
        return client->handshaked;
    int ret = SSL_connect(client->ssl);
    client->handshaked = ret == 1;
    if (ret != 1)
        tls_client_check(client, ret);
    return client->handshaked;
}

/* Reads what is there; returns the inbox's length. */
static inline size_t tls_client_read(struct tls_client *client, struct inbox *inbox)
{
    static char buffer[65536];
    while (!client->got_close_notify && !client->failed) {
        int n = SSL_read(client->ssl, buffer, sizeof buffer);
        if (n <= 0) {
            tls_client_check(client, n);
            break;
        }
        inbox_add(inbox, buffer, (size_t)n);
    }
    return inbox->len;
}

static inline void tls_client_write(struct tls_client *client, const char *text)
{
    assert_int_equal(SSL_write(client->ssl, text, (int)strlen(text)), (int)strlen(text));
}

#endif
