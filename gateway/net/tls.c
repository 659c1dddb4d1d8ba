#include "gateway/net/tls.h"

#include "tls_custom.h"

#include "gateway/net/cert_store.h"
#include "gateway/net/tls_record.h"
#include "gateway/net/tls_schedule.h"
#include "gateway/net/tls_ticket.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* TLS 1.2: forward secrecy and AEAD only; AES-128 first, since it is the fastest with hardware AES. */
#define CIPHERS_12                                                                                                     \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                         \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERS_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

/* One base domain: its SSL_CTX carries a pointer back here, so that any SSL knows its identity. */
struct identity {
    unsigned index;
    SSL_CTX *ssl_ctx;
    struct slice name; /* owned */
};

struct tls_server {
    OSSL_LIB_CTX *library;
    OSSL_PROVIDER *provider;
    struct tls_tickets tickets;
    struct tls_schedule schedule; /* of the handshakes */
    struct tls_records records;   /* of the connections that OpenSSL has handed over */
    struct tls_customs customs;
    SSL_CTX *blank;      /* for connections that present one of them */
    unsigned char *alpn; /* as on the wire: length, name, length, name */
    unsigned alpn_len;
    bool accept_unknown_names;
    bool is_closed;     /* by tls_server_free; the last connection destroys it */
    size_t connections; /* of one thread, so a plain number */
    size_t count;
    struct identity identities[];
};

/* What a connection has that its SSL does not keep. */
struct connection {
    struct tls_server *server;
    char *sni; /* a resumed TLS 1.2 session would show the name of its first handshake */
    size_t sni_len;
    struct tls_custom *custom; /* the uploaded certificate that it presents */
    bool has_unknown_name;
    bool any_alpn;
    struct tls_secrets secrets;
};

static int connection_slot = -1;

static void reserve_connection_slot(void)
{
    connection_slot = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

static struct connection *connection_of(const SSL *ssl)
{
    struct connection *connection = SSL_get_ex_data(ssl, connection_slot);
    assert(connection);
    return connection;
}

/* ---- ClientHello: SNI and ALPN ---- */

static int find_identity(const struct tls_server *server, struct slice sni)
{
    int found = -1;
    size_t longest = 0;
    if (sni.len == 0)
        return 0;
    for (size_t i = 0; i < server->count; i++) {
        struct slice name = server->identities[i].name;
        if (name.len > longest && cert_name_covers(name, sni)) {
            found = (int)i;
            longest = name.len;
        }
    }
    return found < 0 && server->accept_unknown_names ? 0 : found;
}

static struct tls_custom *find_custom(const struct tls_server *server, struct slice sni)
{
    char host[256];
    if (sni.len > 0 && sni.ptr[sni.len - 1] == '.')
        sni.len--;
    if (sni.len == 0 || sni.len > sizeof host)
        return NULL;
    ascii_lower_copy(host, sni);
    return tls_customs_find(&server->customs, slice_make(host, sni.len));
}

/* RFC 6066 section 3: a list of (type, name) with one entry of type host_name (0). Anything else is malformed. */
static bool parse_sni(const unsigned char *bytes, size_t len, struct slice *ret_sni)
{
    if (len < 6 || (size_t)(bytes[0] << 8 | bytes[1]) != len - 2 || bytes[2] != 0)
        return false;
    if ((size_t)(bytes[3] << 8 | bytes[4]) != len - 5 || len - 5 > 255 || memchr(bytes + 5, '\0', len - 5))
        return false;
    *ret_sni = slice_make(bytes + 5, len - 5);
    return true;
}

/* The second ClientHello after a HelloRetryRequest repeats the name (RFC 8446 section 4.1.2). */
static bool keep_sni(struct connection *connection, struct slice sni, int *ret_alert)
{
    if (connection->sni) {
        *ret_alert = SSL_AD_ILLEGAL_PARAMETER;
        return slice_eq(sni, slice_make(connection->sni, connection->sni_len));
    }
    *ret_alert = SSL_AD_INTERNAL_ERROR;
    if (sni.len == 0)
        return true;
    connection->sni = malloc(sni.len);
    if (!connection->sni)
        return false;
    memcpy(connection->sni, sni.ptr, sni.len);
    connection->sni_len = sni.len;
    return true;
}

/* False if no uploaded certificate covers the name; otherwise the connection presents it, or the alert is set. */
static bool use_custom(const struct tls_server *server, SSL *ssl, struct slice sni, int *ret_alert)
{
    struct connection *connection = connection_of(ssl);
    struct tls_custom *custom = connection->custom ? connection->custom : find_custom(server, sni);
    if (!custom)
        return false;
    *ret_alert = SSL_AD_INTERNAL_ERROR;
    if (!connection->custom && tls_custom_use(custom, server->library, ssl, server->blank))
        connection->custom = custom;
    return true;
}

/*
 * Chooses the identity before OpenSSL looks at tickets. In the later servername callback a ticket would already have
 * been judged by the default identity's session id context, and one base domain's session would pass for another's.
 */
static int on_client_hello(SSL *ssl, int *ret_alert, void *arg)
{
    const struct tls_server *server = arg;
    struct connection *connection = connection_of(ssl);
    const unsigned char *bytes;
    size_t len;
    struct slice sni = SLICE_NONE;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &len) && !parse_sni(bytes, len, &sni)) {
        *ret_alert = SSL_AD_DECODE_ERROR;
        ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "malformed server name");
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (!keep_sni(connection, sni, ret_alert))
        return SSL_CLIENT_HELLO_ERROR;
    int found = find_identity(server, sni);
    if (found < 0 && use_custom(server, ssl, sni, ret_alert))
        return connection->custom ? SSL_CLIENT_HELLO_SUCCESS : SSL_CLIENT_HELLO_ERROR;
    if (found < 0) {
        connection->has_unknown_name = true;
        *ret_alert = SSL_AD_UNRECOGNIZED_NAME;
        ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "unknown server name %.*s", SLICE_ARG(sni));
        return SSL_CLIENT_HELLO_ERROR;
    }
    *ret_alert = SSL_AD_INTERNAL_ERROR;
    return SSL_set_SSL_CTX(ssl, server->identities[found].ssl_ctx) ? SSL_CLIENT_HELLO_SUCCESS : SSL_CLIENT_HELLO_ERROR;
}

/* The name was used, so ServerHello says so (RFC 6066 section 3). */
static int on_server_name(SSL *ssl, int *ret_alert, void *arg)
{
    (void)ret_alert, (void)arg;
    return connection_of(ssl)->sni ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int on_alpn(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_len, const unsigned char *offered,
                   unsigned offered_len, void *arg)
{
    const struct tls_server *server = arg;
    unsigned char *name;
    if (connection_of(ssl)->any_alpn && offered_len > 1) { /* OpenSSL has checked the list */
        *ret_name = offered + 1;
        *ret_len = offered[0];
        return SSL_TLSEXT_ERR_OK;
    }
    if (SSL_select_next_proto(&name, ret_len, server->alpn, server->alpn_len, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret_name = name;
    return SSL_TLSEXT_ERR_OK;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int encrypt)
{
    const struct tls_tickets *tickets = &connection_of(ssl)->server->tickets;
    if (encrypt)
        return tls_tickets_seal(tickets, name, iv, cipher, mac);
    int result = tls_tickets_unseal(tickets, name, iv, cipher, mac);
    /* TLS 1.3 clients use a ticket once (RFC 8446 appendix C.4), so each resumption hands out the next. */
    return result == 1 && SSL_version(ssl) == TLS1_3_VERSION ? 2 : result;
}

/* ---- what a handshake leaves for net/tls_record ---- */

/* Counts what is sent under the server's traffic secret: the sequence number to go on with. */
static void on_message(int is_written, int version, int content, const void *bytes, size_t len, SSL *ssl, void *arg)
{
    (void)version, (void)arg;
    if (is_written && content == SSL3_RT_HEADER && len > 0 && *(const uint8_t *)bytes == TLS_CONTENT_DATA)
        connection_of(ssl)->secrets.sent++;
}

int tls_handshake(SSL *ssl)
{
    struct connection *connection = connection_of(ssl);
    struct tls_schedule *schedule = &connection->server->schedule;
    schedule->secrets = &connection->secrets;
    int ret = SSL_do_handshake(ssl);
    schedule->secrets = NULL;
    return ret;
}

/* Only adds the reason, which OpenSSL keeps out of its error queue. */
static int on_client_certificate(int is_ok, X509_STORE_CTX *store)
{
    if (!is_ok)
        ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "client certificate: %s",
                       X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
    return is_ok;
}

/* ---- building ---- */

static X509 *read_certificate(OSSL_LIB_CTX *library, BIO *bio)
{
    X509 *cert = X509_new_ex(library, NULL);
    if (cert && !PEM_read_bio_X509(bio, &cert, NULL, NULL)) {
        X509_free(cert);
        cert = NULL;
    }
    return cert;
}

static bool use_chain(OSSL_LIB_CTX *library, SSL_CTX *ssl_ctx, struct slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509 *cert = bio ? read_certificate(library, bio) : NULL;
    bool done = cert && SSL_CTX_use_certificate(ssl_ctx, cert) == 1;
    X509_free(cert);
    while (done && (cert = read_certificate(library, bio)) != NULL)
        if (SSL_CTX_add0_chain_cert(ssl_ctx, cert) != 1) {
            X509_free(cert);
            done = false;
        }
    if (done)
        ERR_clear_error(); /* "no start line": the end of the file */
    BIO_free(bio);
    return done;
}

static bool use_key(OSSL_LIB_CTX *library, SSL_CTX *ssl_ctx, struct slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, library, NULL) : NULL;
    bool done = key && SSL_CTX_use_PrivateKey(ssl_ctx, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return done;
}

static bool require_client_certificate(OSSL_LIB_CTX *library, SSL_CTX *ssl_ctx, struct slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    bool done = bio != NULL;
    int count = 0;
    X509 *cert;
    while (done && (cert = read_certificate(library, bio)) != NULL) {
        done = X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl_ctx), cert) == 1 &&
               SSL_CTX_add_client_CA(ssl_ctx, cert) == 1;
        X509_free(cert);
        count++;
    }
    BIO_free(bio);
    if (!done)
        return false;
    ERR_clear_error();
    if (count == 0)
        ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "client CA: no certificate found; put it in PEM");
    SSL_CTX_set_verify(ssl_ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_client_certificate);
    return count > 0;
}

static bool set_protocol(SSL_CTX *ssl_ctx)
{
    char groups[] = "X25519:P-256";
    SSL_CTX_set_security_level(ssl_ctx, 2);
    SSL_CTX_set_options(ssl_ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ssl_ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_session_cache_mode(ssl_ctx, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_min_proto_version(ssl_ctx, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(ssl_ctx, CIPHERS_12) == 1 && SSL_CTX_set_ciphersuites(ssl_ctx, CIPHERS_13) == 1 &&
           SSL_CTX_set1_groups_list(ssl_ctx, groups) == 1 && SSL_CTX_set_num_tickets(ssl_ctx, 1) == 1 &&
           SSL_CTX_set_max_early_data(ssl_ctx, 0) == 1;
}

/*
 * A session can be resumed only where this agrees: under the same name, and behind the same client CAs, so that a
 * ticket of the public side never stands for a client certificate. Half of the digest of each.
 */
static bool set_session_scope(OSSL_LIB_CTX *library, SSL_CTX *ssl_ctx, struct slice name, struct slice client_ca_pem)
{
    unsigned char names[EVP_MAX_MD_SIZE], cas[EVP_MAX_MD_SIZE], scope[32];
    if (!EVP_Q_digest(library, "SHA256", NULL, name.ptr ? name.ptr : "", name.len, names, NULL) ||
        !EVP_Q_digest(library, "SHA256", NULL, client_ca_pem.ptr ? client_ca_pem.ptr : "", client_ca_pem.len, cas,
                      NULL))
        return false;
    memcpy(scope, names, 16);
    memcpy(scope + 16, cas, 16);
    return SSL_CTX_set_session_id_context(ssl_ctx, scope, sizeof scope) == 1;
}

static bool set_callbacks(struct tls_server *server, SSL_CTX *ssl_ctx)
{
    SSL_CTX_set_client_hello_cb(ssl_ctx, on_client_hello, server);
    SSL_CTX_set_msg_callback(ssl_ctx, on_message);
    SSL_CTX_set_tlsext_servername_callback(ssl_ctx, on_server_name);
    if (server->alpn_len > 0)
        SSL_CTX_set_alpn_select_cb(ssl_ctx, on_alpn, server);
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl_ctx, on_ticket) == 1;
}

/* Connections that use it get a certificate and a session scope of their own. */
static bool init_blank(struct tls_server *server, const struct tls_options *options)
{
    server->blank = SSL_CTX_new_ex(server->library, TLS_SCHEDULE_PROPERTIES, TLS_server_method());
    return server->blank && set_protocol(server->blank) &&
           set_session_scope(server->library, server->blank, SLICE_NONE, options->client_ca_pem) &&
           set_callbacks(server, server->blank);
}

static bool init_identity(struct tls_server *server, struct identity *identity, const struct cert_identity *source,
                          const struct tls_options *options)
{
    OSSL_LIB_CTX *library = server->library;
    char *name = malloc(source->name.len + 1);
    if (!name)
        return false;
    if (source->name.len > 0)
        memcpy(name, source->name.ptr, source->name.len);
    identity->name = slice_make(name, source->name.len);
    identity->ssl_ctx = SSL_CTX_new_ex(library, TLS_SCHEDULE_PROPERTIES, TLS_server_method());
    SSL_CTX *ssl_ctx = identity->ssl_ctx;
    return ssl_ctx && SSL_CTX_set_app_data(ssl_ctx, identity) == 1 && set_protocol(ssl_ctx) &&
           use_chain(library, ssl_ctx, source->chain_pem) && use_key(library, ssl_ctx, source->key_pem) &&
           (options->client_ca_pem.len == 0 || require_client_certificate(library, ssl_ctx, options->client_ca_pem)) &&
           set_session_scope(library, ssl_ctx, source->name, options->client_ca_pem) && set_callbacks(server, ssl_ctx);
}

/* RFC 7301 section 3.1: each name with its length in front. */
static bool init_alpn(struct tls_server *server, const char *const *names)
{
    size_t size = 0;
    for (const char *const *name = names; name && *name; name++) {
        assert(**name != '\0' && strlen(*name) < 256);
        size += 1 + strlen(*name);
    }
    if (size == 0)
        return true;
    unsigned char *next = server->alpn = malloc(size);
    if (!server->alpn)
        return false;
    server->alpn_len = (unsigned)size;
    for (const char *const *name = names; *name; name++) {
        size_t len = strlen(*name);
        *next = (unsigned char)len;
        memcpy(next + 1, *name, len);
        next += 1 + len;
    }
    return true;
}

static bool init_server(struct tls_server *server, const struct tls_options *options,
                        const struct tls_ticket_keys *keys)
{
    server->library = OSSL_LIB_CTX_new();
    if (!server->library)
        return false;
    tls_customs_init(&server->customs, server->library);
    server->provider = OSSL_PROVIDER_load(server->library, "default");
    server->accept_unknown_names = options->accept_unknown_names;
    return server->provider && init_alpn(server, options->alpn) &&
           tls_tickets_init(&server->tickets, server->library, keys) == STATUS_OK &&
           tls_schedule_init(&server->schedule, server->library) == STATUS_OK &&
           tls_records_init(&server->records, server->library) == STATUS_OK && init_blank(server, options);
}

static void destroy(struct tls_server *server)
{
    assert(server->connections == 0);
    for (size_t i = 0; i < server->count; i++) {
        SSL_CTX_free(server->identities[i].ssl_ctx);
        free((void *)(uintptr_t)server->identities[i].name.ptr);
    }
    if (server->library)
        tls_customs_fini(&server->customs);
    SSL_CTX_free(server->blank);
    tls_tickets_fini(&server->tickets);
    tls_records_fini(&server->records);
    tls_schedule_fini(&server->schedule);
    if (server->provider)
        OSSL_PROVIDER_unload(server->provider);
    OSSL_LIB_CTX_free(server->library);
    free(server->alpn);
    free(server);
}

enum status tls_server_new(const struct cert_snapshot *snapshot, const struct tls_options *options,
                           const struct tls_ticket_keys *keys, struct tls_server **ret_server,
                           char ret_error[TLS_ERROR_TEXT_MAX])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, reserve_connection_slot);
    size_t count = cert_snapshot_count(snapshot);
    struct tls_server *server = calloc(1, sizeof *server + count * sizeof server->identities[0]);
    if (!server || connection_slot < 0) {
        free(server);
        snprintf(ret_error, TLS_ERROR_TEXT_MAX, "out of memory");
        return STATUS_INTERNAL;
    }
    server->count = count;
    ERR_clear_error();
    struct slice name = SLICE("TLS");
    bool done = init_server(server, options, keys);
    for (size_t i = 0; done && i < count; i++) {
        const struct cert_identity *source = cert_snapshot_identity(snapshot, i);
        name = source->name.len > 0 ? source->name : SLICE("the listener's certificate");
        server->identities[i].index = (unsigned)i;
        done = init_identity(server, &server->identities[i], source, options);
    }
    if (!done) {
        char why[TLS_ERROR_TEXT_MAX];
        tls_error_text(why);
        snprintf(ret_error, TLS_ERROR_TEXT_MAX, "%.*s: %.*s", SLICE_ARG(name), TLS_ERROR_TEXT_MAX / 2, why);
        destroy(server);
        return STATUS_TLS_FAILED;
    }
    /* What OpenSSL keeps for this thread would outlive the library context, which another thread may free. */
    OPENSSL_thread_stop_ex(server->library);
    *ret_server = server;
    return STATUS_OK;
}

void tls_server_set_ticket_keys(struct tls_server *server, const struct tls_ticket_keys *keys)
{
    tls_tickets_set_keys(&server->tickets, keys);
}

void tls_server_free(struct tls_server **server)
{
    struct tls_server *old = *server;
    *server = NULL;
    if (!old)
        return;
    old->is_closed = true;
    if (old->connections == 0)
        destroy(old);
}

/* ---- uploaded certificates ---- */

void tls_server_put_custom(struct tls_server *server, struct cert_custom *cert)
{
    tls_customs_put(&server->customs, cert);
}

void tls_server_remove_custom(struct tls_server *server, struct slice name)
{
    tls_customs_remove(&server->customs, name);
}

bool tls_server_has_custom(const struct tls_server *server, struct slice host)
{
    return find_custom(server, host) != NULL;
}

/* ---- connections ---- */

SSL *tls_server_accept(struct tls_server *server, bool any_alpn)
{
    assert(!server->is_closed);
    struct connection *connection = calloc(1, sizeof *connection);
    SSL *ssl = connection ? SSL_new(server->identities[0].ssl_ctx) : NULL;
    if (!ssl || SSL_set_ex_data(ssl, connection_slot, connection) != 1) {
        SSL_free(ssl);
        free(connection);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    connection->server = server;
    connection->any_alpn = any_alpn;
    server->connections++;
    return ssl;
}

static struct tls_server *free_ssl(SSL **ssl)
{
    struct connection *connection = connection_of(*ssl);
    struct tls_server *server = connection->server;
    SSL_free(*ssl);
    *ssl = NULL;
    tls_custom_release(&connection->custom);
    free(connection->sni);
    OPENSSL_cleanse(&connection->secrets, sizeof connection->secrets);
    free(connection);
    return server;
}

static void leave(struct tls_server *server)
{
    assert(server->connections > 0);
    server->connections--;
    if (server->connections == 0 && server->is_closed)
        destroy(server);
}

void tls_connection_free(SSL **ssl)
{
    if (*ssl)
        leave(free_ssl(ssl));
}

/* RFC 6066 section 4: the client has small buffers, and OpenSSL keeps what it sends within them. */
static bool has_small_records(const SSL *ssl)
{
    uint8_t mode = SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl));
    return mode >= TLSEXT_max_fragment_length_512 && mode <= TLSEXT_max_fragment_length_4096;
}

struct tls_record *tls_hand_over(SSL **ssl, struct tls_server **ret_server)
{
    struct connection *connection = connection_of(*ssl);
    const struct tls_secrets *secrets = &connection->secrets;
    if (SSL_version(*ssl) != TLS1_3_VERSION || !SSL_is_init_finished(*ssl) || SSL_has_pending(*ssl) ||
        has_small_records(*ssl) || secrets->len == 0)
        return NULL;
    unsigned suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(*ssl));
    struct tls_record *record = tls_record_new(&connection->server->records, suite, secrets);
    if (record)
        *ret_server = free_ssl(ssl);
    else
        ERR_clear_error();
    return record;
}

void tls_handed_over_free(struct tls_record **record, struct tls_server **server)
{
    tls_record_free(record);
    if (*server)
        leave(*server);
    *server = NULL;
}

unsigned tls_identity(const SSL *ssl)
{
    if (connection_of(ssl)->custom)
        return TLS_IDENTITY_CUSTOM;
    const struct identity *identity = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    return identity->index;
}

struct cert_custom *tls_custom_certificate(const SSL *ssl)
{
    const struct tls_custom *custom = connection_of(ssl)->custom;
    return custom ? custom->cert : NULL;
}

struct slice tls_sni(const SSL *ssl)
{
    const struct connection *connection = connection_of(ssl);
    return slice_make(connection->sni, connection->sni_len);
}

struct slice tls_alpn(const SSL *ssl)
{
    const unsigned char *name;
    unsigned len;
    SSL_get0_alpn_selected(ssl, &name, &len);
    return slice_make(name, len);
}

const char *tls_version_name(const SSL *ssl)
{
    return SSL_get_version(ssl);
}

const char *tls_cipher_name(const SSL *ssl)
{
    return SSL_get_cipher_name(ssl);
}

bool tls_is_resumed(const SSL *ssl)
{
    return SSL_session_reused(ssl) == 1;
}

bool tls_is_client_verified(const SSL *ssl)
{
    return SSL_get0_peer_certificate(ssl) && SSL_get_verify_result(ssl) == X509_V_OK;
}

enum status tls_failure(const SSL *ssl)
{
    return connection_of(ssl)->has_unknown_name ? STATUS_TLS_UNKNOWN_NAME : STATUS_TLS_FAILED;
}

/* ---- errors ---- */

/* OpenSSL's names of alerts end with TLS 1.2 (RFC 8446 section 6, RFC 7301 section 3.2 for the others). */
const char *tls_alert_name(int alert)
{
    switch (alert) {
    case 109:
        return "missing extension";
    case 116:
        return "certificate required";
    case 120:
        return "no application protocol";
    default:
        return SSL_alert_desc_string_long(alert);
    }
}

static size_t describe(unsigned long error, const char *data, int flags, char *text, size_t size)
{
    int reason = ERR_GET_REASON(error);
    bool has_data = (flags & ERR_TXT_STRING) != 0 && data && *data;
    const char *name = ERR_reason_error_string(error);
    int len;
    if (ERR_GET_LIB(error) == ERR_LIB_USER && has_data)
        len = snprintf(text, size, "%s", data); /* a sentence of this file */
    else if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
        len = snprintf(text, size, "alert from client: %s", tls_alert_name(reason - SSL_AD_REASON_OFFSET));
    else if (name)
        len = snprintf(text, size, has_data ? "%s (%s)" : "%s", name, data);
    else
        len = snprintf(text, size, "error %d of OpenSSL library %d", reason, ERR_GET_LIB(error));
    return len < 0 ? 0 : (size_t)len < size ? (size_t)len : size - 1;
}

void tls_error_text(char ret_text[TLS_ERROR_TEXT_MAX])
{
    size_t len = 0;
    unsigned long error;
    const char *data;
    int flags;
    ret_text[0] = '\0';
    while ((error = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0) {
        /* What a callback of this file says comes first; that it failed is no news then. */
        bool is_echo = len > 0 && ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_CALLBACK_FAILED;
        if (is_echo || len + 3 >= TLS_ERROR_TEXT_MAX)
            continue;
        if (len > 0) {
            memcpy(ret_text + len, "; ", 3);
            len += 2;
        }
        len += describe(error, data, flags, ret_text + len, TLS_ERROR_TEXT_MAX - len);
    }
    if (len == 0)
        len = (size_t)snprintf(ret_text, TLS_ERROR_TEXT_MAX, "no reason given");
    for (size_t i = 0; i < len; i++)
        if (ret_text[i] < 0x20 || ret_text[i] > 0x7e)
            ret_text[i] = '?';
}
