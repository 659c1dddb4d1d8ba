/*
 * What a TLS 1.3 client may send after its handshake, into a stream. The input is a list of (kind, length, bytes): kind
 * 0 goes to the wire as it is; else it is the content type of a record that is sealed with the client's key.
 */
#include "gateway/net/cert_store.h"
#include "gateway/net/stream.h"
#include "gateway/net/tls_record.h"

#include "../unit/net/certificates.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>

enum { MAX_TURNS = 64, LAST_TURNS = 4 };

static struct counters counters;
static struct loop *loop;
static struct tls_server *server;
static struct tls_records records;
static struct tls_secrets secrets; /* as the client seals */
static SSL_CTX *client_ctx;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_secret(const SSL *ssl, const char *line)
{
    (void)ssl;
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0", 23) != 0)
        return;
    const char *hex = strrchr(line, ' ') + 1;
    secrets.len = (uint8_t)(strlen(hex) / 2);
    for (size_t i = 0; i < secrets.len; i++)
        secrets.server[i] = (uint8_t)(OPENSSL_hexchar2int((unsigned char)hex[2 * i]) << 4 |
                                      OPENSSL_hexchar2int((unsigned char)hex[2 * i + 1]));
}

static void begin(void)
{
    char folder[] = "/tmp/gateway-fuzz-XXXXXX", base[64], pem[80], key[80], error[CERT_ERROR_TEXT_MAX];
    struct cert_snapshot *snapshot = NULL;
    struct tls_ticket_keys keys = {.count = 0};
    assert(mkdtemp(folder));
    snprintf(base, sizeof base, "%s/a", folder);
    snprintf(pem, sizeof pem, "%s.pem", base);
    snprintf(key, sizeof key, "%s.key", base);
    write_pair(base, "P-256", "DNS:*.a.test");
    struct cert_source source = {.name = "a.test", .certificate = pem, .private_key = key};
    struct tls_options options = {.accept_unknown_names = true};
    if (cert_snapshot_load(&source, 1, &snapshot, error) != STATUS_OK || tls_ticket_keys_rotate(&keys) != STATUS_OK ||
        tls_server_new(snapshot, &options, &keys, &server, error) != STATUS_OK)
        abort();
    cert_snapshot_unref(&snapshot);
    unlink(pem);
    unlink(key);
    rmdir(folder);
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new(&counters);
    client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_keylog_callback(client_ctx, on_secret);
    if (tls_records_init(&records, NULL) != STATUS_OK)
        abort();
}

/* ---- the stream's owner answers everything, and closes when it hears of an end ---- */

static void on_ready(void *owner)
{
    (void)owner;
}

static void on_data(void *owner, const char *data, size_t len)
{
    struct stream **stream = owner;
    stream_write(*stream, data, len);
}

static void on_eof(void *owner)
{
    stream_close(owner, false);
}

static void on_failed(void *owner, enum status status)
{
    (void)status;
    stream_close(owner, false);
}

static const struct stream_events stream_events = {
    .ready = on_ready, .data = on_data, .eof = on_eof, .room = on_ready, .failed = on_failed};

static void feed(int fd, struct tls_record *client, uint8_t kind, const uint8_t *data, size_t len)
{
    static uint8_t wire[TLS_RECORD_MAX_PLAIN_BYTES + TLS_RECORD_OVERHEAD_BYTES];
    char answers[4096];
    ssize_t n;
    if (kind == 0) {
        n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        if (!tls_record_seal(client, (enum tls_content)kind, data, len, wire))
            abort();
        n = send(fd, wire, len + TLS_RECORD_OVERHEAD_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (kind == TLS_CONTENT_HANDSHAKE && !tls_record_update_sent(client))
            abort();
    }
    loop_turn(loop, 0);
    do
        n = recv(fd, answers, sizeof answers, MSG_DONTWAIT);
    while (n > 0);
}

static void run(int fd, const uint8_t *data, size_t size)
{
    unsigned suite = 0x1301 + (size > 0 ? data[0] % 3U : 0);
    static const char *const names[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                        "TLS_CHACHA20_POLY1305_SHA256"};
    SSL *ssl = SSL_new(client_ctx);
    SSL_set_fd(ssl, fd);
    SSL_set_ciphersuites(ssl, names[suite - 0x1301]);
    for (int i = 0; i < MAX_TURNS && SSL_connect(ssl) != 1; i++)
        loop_turn(loop, 1);
    loop_turn(loop, 0);
    struct tls_record *client = SSL_is_init_finished(ssl) ? tls_record_new(&records, suite, &secrets) : NULL;
    for (size_t at = 1; client && at + 2 <= size;) {
        size_t len = data[at + 1];
        len = len < size - at - 2 ? len : size - at - 2;
        feed(fd, client, data[at], data + at + 2, len);
        at += 2 + len;
    }
    tls_record_free(&client);
    SSL_free(ssl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    struct ip_addr addr = {.family = AF_INET};
    if (!loop)
        begin();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        abort();
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    struct stream *stream = NULL;
    stream = stream_accept(loop, pair[1], &addr, 0, server, 10000, &stream_events, &stream);
    run(pair[0], data, size);
    close(pair[0]);
    for (int i = 0; i < LAST_TURNS; i++)
        loop_turn(loop, 0);
    if (stream)
        stream_reset(&stream);
    for (int i = 0; i < LAST_TURNS; i++)
        loop_turn(loop, 0);
    return 0;
}
