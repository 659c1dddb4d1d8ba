#include "gateway/net/cert_store.h"
#include "gateway/net/tls.h"
#include "net/certificates.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define H2_AND_H1 "\x02h2\x08http/1.1"

static struct {
    char folder[64];
    struct cert_snapshot *two; /* a.test with ECDSA, b.test with RSA */
    struct cert_snapshot *any; /* one identity without a name */
    struct tls_ticket_keys keys;
    X509 *ca;
    EVP_PKEY *ca_key;
    char ca_pem[4096];
} fixture = {.folder = "/tmp/gateway-tls-XXXXXX"};

static const char *const http1[] = {"http/1.1", NULL};
static const char *const h2_http1[] = {"h2", "http/1.1", NULL};

struct client {
    int version;          /* 0: the best */
    const char *sni;      /* NULL: none */
    const char *alpn;     /* as on the wire; NULL: none */
    const char *ciphers;  /* of TLS 1.2 */
    const char *groups;   /* NULL: OpenSSL's */
    SSL_SESSION *session; /* NULL: full handshake */
    X509 *cert;           /* NULL: none */
    EVP_PKEY *key;
    bool is_strict; /* checks the server's certificate, which nobody it trusts has signed */
};

struct outcome {
    enum status status; /* STATUS_OK or tls_failure */
    unsigned identity;
    bool is_resumed;
    char sni[256], alpn[32], version[16], cipher[64];
    int group;
    int leaf_kind;        /* the key kind that the client saw in a full handshake */
    SSL_SESSION *session; /* the client's, with the newest ticket */
    int client_alert;     /* that the client received, or 0 */
    char error[TLS_ERROR_TEXT_MAX];
};

/* ---- fixture ---- */

static struct cert_snapshot *load(const struct cert_source *sources, size_t count)
{
    struct cert_snapshot *snapshot = NULL;
    char error[CERT_ERROR_TEXT_MAX];
    if (cert_snapshot_load(sources, count, &snapshot, error) != STATUS_OK)
        fail_msg("%s", error);
    return snapshot;
}

static void make_ca(void)
{
    struct cert_recipe recipe = {.common_name = "client ca", .is_ca = true};
    recipe.key = fixture.ca_key = make_key("P-256");
    fixture.ca = make_certificate(&recipe);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, fixture.ca);
    int len = BIO_read(bio, fixture.ca_pem, sizeof fixture.ca_pem - 1);
    assert_true(len > 0);
    fixture.ca_pem[len] = '\0';
    BIO_free(bio);
}

static int set_up(void **state)
{
    (void)state;
    char base[2][96], files[4][256];
    assert_non_null(mkdtemp(fixture.folder));
    for (int i = 0; i < 2; i++) {
        snprintf(base[i], sizeof base[i], "%s/%d", fixture.folder, i);
        snprintf(files[2 * i], sizeof files[0], "%s.pem", base[i]);
        snprintf(files[2 * i + 1], sizeof files[0], "%s.key", base[i]);
    }
    write_pair(base[0], "P-256", "DNS:*.a.test,DNS:a.test");
    write_pair(base[1], "RSA2048", "DNS:*.b.test,DNS:b.test");
    fixture.two = load((struct cert_source[]){{.name = "a.test", .certificate = files[0], .private_key = files[1]},
                                              {.name = "b.test", .certificate = files[2], .private_key = files[3]}},
                       2);
    fixture.any = load(&(struct cert_source){.name = "", .certificate = files[0], .private_key = files[1]}, 1);
    for (int i = 0; i < 4; i++)
        unlink(files[i]);
    rmdir(fixture.folder);
    make_ca();
    return tls_ticket_keys_rotate(&fixture.keys) == STATUS_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    cert_snapshot_unref(&fixture.two);
    cert_snapshot_unref(&fixture.any);
    X509_free(fixture.ca);
    EVP_PKEY_free(fixture.ca_key);
    return 0;
}

static struct tls_server *make_server(const struct cert_snapshot *snapshot, const struct tls_options *options)
{
    struct tls_server *server = NULL;
    char error[TLS_ERROR_TEXT_MAX];
    if (tls_server_new(snapshot, options, &fixture.keys, &server, error) != STATUS_OK)
        fail_msg("%s", error);
    return server;
}

static struct tls_server *make_plain_server(void)
{
    return make_server(fixture.two, &(struct tls_options){.alpn = http1});
}

/* ---- handshakes in memory ---- */

static SSL *make_client(const struct client *client, SSL_CTX **ret_ctx)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(ctx, 0);
    if (client->ciphers)
        assert_int_equal(SSL_CTX_set_cipher_list(ctx, client->ciphers), 1);
    if (client->version)
        assert_true(SSL_CTX_set_min_proto_version(ctx, client->version) &&
                    SSL_CTX_set_max_proto_version(ctx, client->version));
    if (client->cert)
        assert_true(SSL_CTX_use_certificate(ctx, client->cert) && SSL_CTX_use_PrivateKey(ctx, client->key));
    if (client->is_strict)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL *ssl = SSL_new(ctx);
    if (client->groups) {
        char groups[64];
        snprintf(groups, sizeof groups, "%s", client->groups);
        assert_int_equal(SSL_set1_groups_list(ssl, groups), 1);
    }
    if (client->sni) {
        char sni[256];
        snprintf(sni, sizeof sni, "%s", client->sni);
        assert_int_equal(SSL_set_tlsext_host_name(ssl, sni), 1);
    }
    if (client->alpn)
        SSL_set_alpn_protos(ssl, (const unsigned char *)client->alpn, (unsigned)strlen(client->alpn));
    if (client->session)
        assert_int_equal(SSL_set_session(ssl, client->session), 1);
    SSL_set_connect_state(ssl);
    *ret_ctx = ctx;
    return ssl;
}

static void note_alert(struct outcome *outcome)
{
    unsigned long error;
    while ((error = ERR_get_error()) != 0)
        if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) >= SSL_AD_REASON_OFFSET)
            outcome->client_alert = ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
}

static bool has_failed(const SSL *ssl, int result)
{
    int error = SSL_get_error(ssl, result);
    return result <= 0 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
}

/* True if the server's handshake completes. The client goes on a little to read tickets and alerts. */
static bool run_handshake(SSL *server, SSL *client, struct outcome *outcome)
{
    bool server_failed = false, client_failed = false;
    for (int turn = 0; turn < 12; turn++) {
        char byte;
        if (!client_failed) {
            int result = SSL_is_init_finished(client) ? SSL_read(client, &byte, 1) : SSL_do_handshake(client);
            client_failed = has_failed(client, result);
            note_alert(outcome);
        }
        if (!server_failed && !SSL_is_init_finished(server)) {
            server_failed = has_failed(server, SSL_do_handshake(server));
            if (server_failed)
                tls_error_text(outcome->error);
        }
    }
    return !server_failed && SSL_is_init_finished(server);
}

static void note_connection(SSL *server, SSL *client, struct outcome *outcome)
{
    struct slice sni = tls_sni(server), alpn = tls_alpn(server);
    outcome->identity = tls_identity(server);
    outcome->is_resumed = tls_is_resumed(server);
    snprintf(outcome->sni, sizeof outcome->sni, "%.*s", SLICE_ARG(sni));
    snprintf(outcome->alpn, sizeof outcome->alpn, "%.*s", SLICE_ARG(alpn));
    snprintf(outcome->version, sizeof outcome->version, "%s", tls_version_name(server));
    snprintf(outcome->cipher, sizeof outcome->cipher, "%s", tls_cipher_name(server));
    outcome->group = (int)SSL_get_negotiated_group(server);
    outcome->session = SSL_get1_session(client);
    X509 *leaf = SSL_get0_peer_certificate(client);
    outcome->leaf_kind = leaf ? EVP_PKEY_get_base_id(X509_get0_pubkey(leaf)) : 0;
}

static struct outcome connect_to(struct tls_server *server, const struct client *options)
{
    struct outcome outcome = {.status = STATUS_OK};
    SSL_CTX *ctx;
    BIO *server_bio, *client_bio;
    SSL *client = make_client(options, &ctx), *accepted = tls_server_accept(server, false);
    assert_non_null(accepted);
    assert_int_equal(BIO_new_bio_pair(&server_bio, 1 << 16, &client_bio, 1 << 16), 1);
    SSL_set_bio(accepted, server_bio, server_bio);
    SSL_set_bio(client, client_bio, client_bio);
    if (run_handshake(accepted, client, &outcome))
        note_connection(accepted, client, &outcome);
    else
        outcome.status = tls_failure(accepted);
    /* Else OpenSSL takes the session of a connection that ends this way for broken. */
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client);
    SSL_CTX_free(ctx);
    tls_connection_free(&accepted);
    assert_null(accepted);
    return outcome;
}

static struct outcome connect_ok(struct tls_server *server, const struct client *options)
{
    struct outcome outcome = connect_to(server, options);
    if (outcome.status != STATUS_OK)
        fail_msg("handshake failed: %s", outcome.error);
    return outcome;
}

/* ---- full handshakes ---- */

static void negotiates_version_cipher_group(void **state)
{
    (void)state;
    static const struct {
        struct client client;
        const char *version, *cipher;
        int group;
    } cases[] = {
        {{.sni = "x.a.test"}, "TLSv1.3", "TLS_AES_128_GCM_SHA256", NID_X25519},
        {{.sni = "x.a.test", .groups = "P-256:X25519"}, "TLSv1.3", "TLS_AES_128_GCM_SHA256", NID_X9_62_prime256v1},
        {{.sni = "x.a.test", .groups = "P-384:P-256"}, "TLSv1.3", "TLS_AES_128_GCM_SHA256", NID_X9_62_prime256v1},
        {{.sni = "x.a.test", .version = TLS1_2_VERSION}, "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", NID_X25519},
        {{.sni = "x.b.test", .version = TLS1_2_VERSION}, "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", NID_X25519},
        {{.sni = "x.a.test",
          .version = TLS1_2_VERSION,
          .ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"},
         "TLSv1.2",
         "ECDHE-ECDSA-AES128-GCM-SHA256",
         NID_X25519},
        {{.sni = "x.a.test",
          .version = TLS1_2_VERSION,
          .ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"},
         "TLSv1.2",
         "ECDHE-ECDSA-CHACHA20-POLY1305",
         NID_X25519},
    };
    struct tls_server *server = make_plain_server();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome outcome = connect_ok(server, &cases[i].client);
        assert_string_equal(outcome.version, cases[i].version);
        assert_string_equal(outcome.cipher, cases[i].cipher);
        assert_int_equal(outcome.group, cases[i].group);
        assert_false(outcome.is_resumed);
        SSL_SESSION_free(outcome.session);
    }
    tls_server_free(&server);
    tls_server_free(&server);
}

static void refuses_old_protocols(void **state)
{
    (void)state;
    static const struct {
        struct client client;
        int alert;
        const char *error;
    } cases[] = {
        {{.sni = "x.a.test", .version = TLS1_1_VERSION}, SSL_AD_PROTOCOL_VERSION, "unsupported protocol"},
        {{.sni = "x.a.test", .version = TLS1_2_VERSION, .ciphers = "ECDHE-ECDSA-AES128-SHA"},
         SSL_AD_HANDSHAKE_FAILURE,
         "no shared cipher"},
        {{.sni = "x.b.test", .version = TLS1_2_VERSION, .ciphers = "AES128-GCM-SHA256"},
         SSL_AD_HANDSHAKE_FAILURE,
         "no shared cipher"},
        {{.sni = "x.a.test", .groups = "P-384"}, SSL_AD_HANDSHAKE_FAILURE, "no suitable key share"},
    };
    struct tls_server *server = make_plain_server();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome outcome = connect_to(server, &cases[i].client);
        assert_int_equal(outcome.status, STATUS_TLS_FAILED);
        assert_int_equal(outcome.client_alert, cases[i].alert);
        assert_string_equal(outcome.error, cases[i].error);
    }
    tls_server_free(&server);
}

static void sni_chooses_identity(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const struct {
        const char *sni;
        unsigned identity;
        int kind;
    } cases[] = {
        {"x.a.test", 0, EVP_PKEY_EC},  {"a.test", 0, EVP_PKEY_EC},   {"X.A.Test", 0, EVP_PKEY_EC},
        {"x.b.test", 1, EVP_PKEY_RSA}, {"B.TEST.", 1, EVP_PKEY_RSA}, {"app-8000.b.test.", 1, EVP_PKEY_RSA},
        {NULL, 0, EVP_PKEY_EC},
    };
    struct tls_server *server = make_plain_server();
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        const char *sni = cases[i / 2].sni;
        struct outcome outcome = connect_ok(
            server,
            &(struct client){.sni = sni, .version = versions[i % 2], .alpn = "\x08http/1.1", .groups = "P-256"});
        assert_int_equal(outcome.identity, cases[i / 2].identity);
        assert_int_equal(outcome.leaf_kind, cases[i / 2].kind);
        assert_string_equal(outcome.sni, sni ? sni : "");
        assert_string_equal(outcome.alpn, "http/1.1");
        SSL_SESSION_free(outcome.session);
    }
    tls_server_free(&server);
}

static void unknown_names_get_alert(void **state)
{
    (void)state;
    static const char *const names[] = {"c.test", "y.x.a.test", "xa.test", "test", "a.test.evil"};
    struct tls_server *server = make_plain_server();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct outcome outcome = connect_to(server, &(struct client){.sni = names[i]});
        char error[TLS_ERROR_TEXT_MAX];
        snprintf(error, sizeof error, "unknown server name %s", names[i]);
        assert_int_equal(outcome.status, STATUS_TLS_UNKNOWN_NAME);
        assert_int_equal(outcome.client_alert, SSL_AD_UNRECOGNIZED_NAME);
        assert_string_equal(outcome.error, error);
    }
    tls_server_free(&server);
}

static void control_listeners_accept_any_name(void **state)
{
    (void)state;
    struct tls_server *server = make_server(fixture.any, &(struct tls_options){.accept_unknown_names = true});
    struct outcome outcome = connect_ok(server, &(struct client){.sni = "whatever.example"});
    assert_int_equal(outcome.identity, 0);
    assert_string_equal(outcome.sni, "whatever.example");
    SSL_SESSION_free(outcome.session);
    tls_server_free(&server);
}

static void alpn_is_the_servers_choice(void **state)
{
    (void)state;
    static const struct {
        const char *const *server;
        const char *client, *chosen; /* NULL: refused */
    } cases[] = {
        {http1, "\x08http/1.1", "http/1.1"},
        {http1, H2_AND_H1, "http/1.1"},
        {h2_http1, "\x08http/1.1\x02h2", "h2"},
        {http1, NULL, ""},
        {NULL, H2_AND_H1, ""},
        {http1, "\x02h2", NULL},
        {h2_http1, "\x05imap2", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_server *server = make_server(fixture.two, &(struct tls_options){.alpn = cases[i].server});
        struct outcome outcome = connect_to(server, &(struct client){.sni = "x.b.test", .alpn = cases[i].client});
        if (cases[i].chosen) {
            assert_int_equal(outcome.status, STATUS_OK);
            assert_string_equal(outcome.alpn, cases[i].chosen);
        } else {
            assert_int_equal(outcome.status, STATUS_TLS_FAILED);
            assert_int_equal(outcome.client_alert, SSL_AD_NO_APPLICATION_PROTOCOL);
            assert_string_equal(outcome.error, "no application protocol");
        }
        SSL_SESSION_free(outcome.session);
        tls_server_free(&server);
    }
}

/* ---- resumption ---- */

static bool has_same_ticket(const SSL_SESSION *a, const SSL_SESSION *b)
{
    const unsigned char *bytes[2];
    size_t len[2];
    SSL_SESSION_get0_ticket(a, &bytes[0], &len[0]);
    SSL_SESSION_get0_ticket(b, &bytes[1], &len[1]);
    assert_true(len[0] > 0 && len[1] > 0);
    return len[0] == len[1] && memcmp(bytes[0], bytes[1], len[0]) == 0;
}

/* Resumes `session` and returns the outcome. */
static struct outcome resume(struct tls_server *server, const char *sni, int version, SSL_SESSION *session)
{
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    struct outcome outcome = connect_ok(server, &(struct client){.sni = sni, .version = version, .session = copy});
    SSL_SESSION_free(copy);
    return outcome;
}

static void expect_resumption(struct tls_server *server, const char *sni, int version, SSL_SESSION *session,
                              bool is_resumed, bool is_renewed)
{
    struct outcome outcome = resume(server, sni, version, session);
    assert_int_equal(outcome.is_resumed, is_resumed);
    assert_int_equal(!has_same_ticket(outcome.session, session), is_renewed);
    assert_string_equal(outcome.sni, sni);
    SSL_SESSION_free(outcome.session);
}

static void sessions_resume(void **state)
{
    (void)state;
    static const char *const names[] = {"x.a.test", "x.b.test"};
    for (int i = 0; i < 4; i++) {
        int version = i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION;
        const char *sni = names[i / 2];
        /* Two workers with the same keys. */
        struct tls_server *servers[] = {make_plain_server(), make_plain_server()};
        struct outcome first = connect_ok(servers[0], &(struct client){.sni = sni, .version = version});
        for (int k = 0; k < 2; k++) {
            struct outcome again = resume(servers[k], sni, version, first.session);
            assert_true(again.is_resumed);
            assert_int_equal(again.identity, i / 2);
            assert_string_equal(again.sni, sni);
            assert_string_equal(again.version, first.version);
            /* TLS 1.3 always has a new ticket, since one should be used once (RFC 8446 appendix C.4). */
            assert_int_equal(has_same_ticket(again.session, first.session), version == TLS1_2_VERSION);
            SSL_SESSION_free(again.session);
        }
        SSL_SESSION_free(first.session);
        tls_server_free(&servers[0]);
        tls_server_free(&servers[1]);
    }
}

static void sni_is_of_this_handshake(void **state)
{
    (void)state;
    struct tls_server *server = make_plain_server();
    struct outcome first = connect_ok(server, &(struct client){.sni = "one.b.test", .version = TLS1_2_VERSION});
    expect_resumption(server, "two.b.test", TLS1_2_VERSION, first.session, true, false);
    SSL_SESSION_free(first.session);
    tls_server_free(&server);
}

static void keys_rotate(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        struct tls_ticket_keys keys = fixture.keys;
        struct tls_server *server = make_plain_server();
        struct outcome first = connect_ok(server, &(struct client){.sni = "x.b.test", .version = versions[i]});
        for (int rotation = 1; rotation <= 3; rotation++) {
            assert_int_equal(tls_ticket_keys_rotate(&keys), STATUS_OK);
            tls_server_set_ticket_keys(server, &keys);
            expect_resumption(server, "x.b.test", versions[i], first.session, rotation < TLS_TICKET_KEYS, true);
        }
        assert_int_equal(keys.count, TLS_TICKET_KEYS);
        SSL_SESSION_free(first.session);
        tls_server_free(&server);
    }
}

static void sessions_stay_with_their_identity(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const char *const names[] = {"x.a.test", "x.b.test"};
    for (int i = 0; i < 4; i++) {
        int version = versions[i / 2];
        struct tls_server *server = make_plain_server();
        struct outcome first = connect_ok(server, &(struct client){.sni = names[i % 2], .version = version});
        struct outcome other = resume(server, names[!(i % 2)], version, first.session);
        assert_false(other.is_resumed);
        assert_int_equal(other.identity, !(i % 2));
        SSL_SESSION_free(other.session);
        SSL_SESSION_free(first.session);
        tls_server_free(&server);
    }
}

/* ---- client certificates ---- */

static struct tls_options mtls_options(void)
{
    return (struct tls_options){.accept_unknown_names = true, .client_ca_pem = slice_str(fixture.ca_pem)};
}

static X509 *make_client_certificate(EVP_PKEY *key, bool is_from_ca, long from, long until)
{
    struct cert_recipe recipe = {.common_name = "client", .key = key, .from = from, .until = until};
    if (is_from_ca) {
        recipe.issuer = fixture.ca;
        recipe.issuer_key = fixture.ca_key;
    }
    return make_certificate(&recipe);
}

static void client_certificates_are_checked(void **state)
{
    (void)state;
    static const struct {
        bool has_cert, is_from_ca;
        long from, until;
        const char *error; /* NULL: accepted */
    } cases[] = {
        {true, true, -CERT_DAY, CERT_DAY, NULL},
        {false, false, 0, 0, "peer did not return a certificate"},
        {true, true, -CERT_DAY, -60, "client certificate: certificate has expired; certificate verify failed"},
        {true, false, 0, 0, "client certificate: self-signed certificate; certificate verify failed"},
    };
    struct tls_options options = mtls_options();
    struct tls_server *server = make_server(fixture.any, &options);
    EVP_PKEY *key = make_key("P-256");
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        size_t n = i / 2;
        struct client client = {.version = i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION, .key = key};
        if (cases[n].has_cert)
            client.cert = make_client_certificate(key, cases[n].is_from_ca, cases[n].from, cases[n].until);
        struct outcome outcome = connect_to(server, &client);
        assert_int_equal(outcome.status, cases[n].error ? STATUS_TLS_FAILED : STATUS_OK);
        assert_string_equal(outcome.error, cases[n].error ? cases[n].error : "");
        X509_free(client.cert);
        SSL_SESSION_free(outcome.session);
    }
    EVP_PKEY_free(key);
    tls_server_free(&server);
}

/* A ticket from a listener without client certificates must not open one that requires them. */
static void tickets_do_not_replace_client_certificates(void **state)
{
    (void)state;
    struct tls_options strict = mtls_options(), lax = {.accept_unknown_names = true};
    struct tls_server *servers[] = {make_server(fixture.any, &lax), make_server(fixture.any, &strict)};
    for (int i = 0; i < 2; i++) {
        int version = i ? TLS1_3_VERSION : TLS1_2_VERSION;
        struct outcome first = connect_ok(servers[0], &(struct client){.version = version});
        struct outcome other = connect_to(servers[1], &(struct client){.version = version, .session = first.session});
        assert_int_equal(other.status, STATUS_TLS_FAILED);
        assert_string_equal(other.error, "peer did not return a certificate");
        SSL_SESSION_free(first.session);
        SSL_SESSION_free(other.session);
    }
    tls_server_free(&servers[0]);
    tls_server_free(&servers[1]);
}

static void bad_client_cas_are_refused(void **state)
{
    (void)state;
    struct tls_server *server = NULL;
    char error[TLS_ERROR_TEXT_MAX];
    struct tls_options options = {.client_ca_pem = SLICE("not PEM\n")};
    assert_int_equal(tls_server_new(fixture.any, &options, &fixture.keys, &server, error), STATUS_TLS_FAILED);
    assert_null(server);
    assert_string_equal(error, "the listener's certificate: client CA: no certificate found; put it in PEM");
}

/* ---- life and errors ---- */

static void connections_outlive_their_server(void **state)
{
    (void)state;
    struct tls_server *server = make_plain_server();
    SSL *connections[] = {tls_server_accept(server, false), tls_server_accept(server, false)};
    tls_server_free(&server);
    assert_null(server);
    assert_int_equal(tls_sni(connections[0]).len, 0);
    assert_int_equal(tls_failure(connections[1]), STATUS_TLS_FAILED);
    tls_connection_free(&connections[0]);
    tls_connection_free(&connections[1]);
    tls_connection_free(&connections[1]);
}

static void feed(const char *bytes, size_t len, const char *expected)
{
    struct tls_server *server = make_plain_server();
    SSL *ssl = tls_server_accept(server, false);
    BIO *in = BIO_new_mem_buf(bytes, (int)len);
    SSL_set_bio(ssl, in, BIO_new(BIO_s_mem()));
    char error[TLS_ERROR_TEXT_MAX];
    assert_int_equal(SSL_do_handshake(ssl), -1);
    tls_error_text(error);
    assert_string_equal(error, expected);
    assert_int_equal(ERR_peek_error(), 0);
    tls_connection_free(&ssl);
    tls_server_free(&server);
}

static void errors_are_readable(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\n\r\n";
    feed(request, sizeof request - 1, "http request");
    struct tls_server *server = make_plain_server();
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct outcome outcome =
            connect_to(server, &(struct client){.sni = "x.a.test", .version = version, .is_strict = true});
        assert_int_equal(outcome.status, STATUS_TLS_FAILED);
        assert_string_equal(outcome.error, "alert from client: unknown CA");
    }
    tls_server_free(&server);
    char error[TLS_ERROR_TEXT_MAX];
    tls_error_text(error);
    assert_string_equal(error, "no reason given");
    ERR_raise(ERR_LIB_SSL, SSL_AD_REASON_OFFSET + 116);
    tls_error_text(error);
    assert_string_equal(error, "alert from client: certificate required");
    for (int i = 0; i < 12; i++)
        ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "line\n%064d", i);
    tls_error_text(error);
    assert_memory_equal(error, "line?0", 6);
    assert_true(strlen(error) < TLS_ERROR_TEXT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(negotiates_version_cipher_group),
        cmocka_unit_test(refuses_old_protocols),
        cmocka_unit_test(sni_chooses_identity),
        cmocka_unit_test(unknown_names_get_alert),
        cmocka_unit_test(control_listeners_accept_any_name),
        cmocka_unit_test(alpn_is_the_servers_choice),
        cmocka_unit_test(sessions_resume),
        cmocka_unit_test(sni_is_of_this_handshake),
        cmocka_unit_test(keys_rotate),
        cmocka_unit_test(sessions_stay_with_their_identity),
        cmocka_unit_test(client_certificates_are_checked),
        cmocka_unit_test(tickets_do_not_replace_client_certificates),
        cmocka_unit_test(bad_client_cas_are_refused),
        cmocka_unit_test(connections_outlive_their_server),
        cmocka_unit_test(errors_are_readable),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
