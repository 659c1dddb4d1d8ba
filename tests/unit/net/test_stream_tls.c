/* Streams over TLS, against a client of OpenSSL's own. */
#include "net/stream_owner.h"
#include "net/tls_client.h"

#include <netinet/tcp.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/ioctl.h>

static struct counters counters;

struct fixture {
    struct loop *loop;
    struct tls_server *server;
    struct stream_owner owner;
    int peer;
    struct tls_client client;
    struct inbox inbox; /* what the client decrypted */
};

static struct fixture *new_fixture(int version, uint64_t handshake_ms)
{
    struct fixture *f = calloc(1, sizeof *f);
    int pair[2];
    struct ip_addr addr = loopback_ip();
    f->loop = loop_new(&counters);
    f->server = tls_test_server();
    tcp_pair(pair);
    f->peer = pair[0];
    tls_client_init(&f->client, f->peer, version);
    f->owner.stream = stream_accept(f->loop, pair[1], &addr, 4711, f->server, handshake_ms, &owner_events, &f->owner);
    return f;
}

static int set_up(void **state)
{
    struct fixture *f = new_fixture(0, 10000);
    TURN_UNTIL(f->loop, tls_client_handshake(&f->client) && f->owner.readies == 1);
    *state = f;
    return 0;
}

static int set_up_silent(void **state)
{
    *state = new_fixture(TLS1_2_VERSION, 150);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    owner_end(f->loop, &f->owner);
    tls_client_fini(&f->client);
    if (f->peer >= 0)
        close(f->peer);
    inbox_clear(&f->inbox);
    tls_server_free(&f->server);
    loop_free(&f->loop);
    free(f);
    return 0;
}

static void data_goes_both_ways(void **state)
{
    struct fixture *f = *state;
    assert_true(stream_is_ready(f->owner.stream));
    assert_true(stream_is_tls(f->owner.stream));
    assert_null(stream_ssl(f->owner.stream)); /* TLS 1.3: handed over */
    tls_client_write(&f->client, "hello");
    stream_write(f->owner.stream, "welcome", 7);
    TURN_UNTIL(f->loop, f->owner.in.len == 5 && tls_client_read(&f->client, &f->inbox) == 7);
    assert_string_equal(f->owner.in.bytes, "hello");
    assert_string_equal(f->inbox.bytes, "welcome");
    assert_int_equal(stream_bytes_in(f->owner.stream), 5);
    assert_int_equal(stream_bytes_out(f->owner.stream), 7);
}

static void the_client_may_end_first(void **state)
{
    struct fixture *f = *state;
    tls_client_write(&f->client, "last words");
    assert_return_code(SSL_shutdown(f->client.ssl), errno);
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    assert_string_equal(f->owner.in.bytes, "last words");
    stream_write(f->owner.stream, "still here", 10);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == 10);
    stream_close(&f->owner.stream, false);
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), f->client.got_close_notify));
    assert_int_equal(f->owner.eofs, 1);
    assert_int_equal(f->owner.failures, 0);
}

static void we_may_end_first(void **state)
{
    struct fixture *f = *state;
    stream_write(f->owner.stream, "bye", 3);
    stream_shutdown(f->owner.stream);
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), f->client.got_close_notify));
    assert_string_equal(f->inbox.bytes, "bye");
    tls_client_write(&f->client, "one more thing");
    TURN_UNTIL(f->loop, f->owner.in.len == 14);
    assert_return_code(SSL_shutdown(f->client.ssl), errno);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    assert_int_equal(f->owner.failures, 0);
}

static void an_end_without_close_notify_is_a_failure(void **state)
{
    struct fixture *f = *state;
    tls_client_write(&f->client, "half a");
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_TRUNCATED);
    assert_string_equal(f->owner.in.bytes, "half a");
    assert_int_equal(f->owner.eofs, 0);
}

static void bytes_that_are_no_tls_are_a_failure(void **state)
{
    struct fixture *f = *state;
    send_text(f->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_FAILED);
}

static void a_pause_loses_nothing(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 4 * LOOP_SCRATCH_BYTES };
    char *pattern = pattern_new(LEN);
    size_t sent = 0;
    f->owner.pauses_on_data = true;
    SSL_set_mode(f->client.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    for (uint64_t begun = sockets_now_ms(); f->owner.in.len < LEN;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        int n = sent < LEN ? SSL_write(f->client.ssl, pattern + sent, (int)(LEN - sent)) : 0;
        sent += n > 0 ? (size_t)n : 0;
        size_t before = f->owner.in.len;
        turn_some(f->loop);
        assert_true(f->owner.in.len - before <= LOOP_DECRYPTED_BYTES);
        stream_resume(f->owner.stream, STREAM_PAUSE_CREDIT);
    }
    assert_true(is_pattern(&f->owner.in, pattern, LEN));
    free(pattern);
}

static void large_writes_arrive_whole(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 2000000 };
    char *pattern = pattern_new(LEN);
    stream_write(f->owner.stream, pattern, 100); /* gathered, then overtaken by nothing */
    stream_write(f->owner.stream, pattern + 100, LEN - 100);
    assert_int_equal(stream_room(f->owner.stream), 0);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == LEN);
    assert_true(is_pattern(&f->inbox, pattern, LEN));
    TURN_UNTIL(f->loop, f->owner.rooms == 1);
    free(pattern);
}

static void close_delivers_what_is_queued_and_close_notify(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 2000000 };
    char *pattern = pattern_new(LEN);
    stream_write(f->owner.stream, pattern, LEN);
    stream_close(&f->owner.stream, false);
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), f->client.got_close_notify));
    assert_true(is_pattern(&f->inbox, pattern, LEN));
    free(pattern);
}

static void count_records(int is_write, int version, int content_type, const void *bytes, size_t len, SSL *ssl,
                          void *arg)
{
    (void)version, (void)ssl, (void)len;
    if (!is_write && content_type == SSL3_RT_INNER_CONTENT_TYPE && *(const char *)bytes == SSL3_RT_APPLICATION_DATA)
        ++*(int *)arg;
}

static void small_writes_of_one_callback_are_one_record(void **state)
{
    struct fixture *f = *state;
    int records = 0;
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), true)); /* tickets */
    SSL_set_msg_callback(f->client.ssl, count_records);
    SSL_set_msg_callback_arg(f->client.ssl, &records);
    for (int i = 0; i < 100; i++)
        stream_write(f->owner.stream, "0123456789", 10);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == 1000);
    assert_int_equal(records, 1);
}

static void an_idle_stream_owns_no_buffer(void **state)
{
    struct fixture *f = *state;
    stream_write(f->owner.stream, "small", 5);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == 5);
    assert_int_equal(stream_queued(f->owner.stream), 0);
    assert_in_range(f->loop->free_block_count, 1, 2); /* plaintext and wire */
}

/* ---- handshakes ---- */

static void a_silent_client_times_out(void **state)
{
    struct fixture *f = *state;
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_TIMEOUT);
    assert_int_equal(f->owner.readies, 0);
}

static void a_client_that_leaves_in_the_handshake_is_told(void **state)
{
    struct fixture *f = *state;
    SSL_connect(f->client.ssl);
    shutdown(f->peer, SHUT_WR);
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_PEER_CLOSED);
}

static void an_unknown_name_gets_its_alert(void **state)
{
    struct fixture *f = *state;
    tls_client_name(&f->client, "evil.test");
    TURN_UNTIL(f->loop, (tls_client_handshake(&f->client), f->client.failed) && f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_UNKNOWN_NAME);
}

static void plain_http_in_place_of_a_handshake_fails(void **state)
{
    struct fixture *f = *state;
    send_text(f->peer, "GET / HTTP/1.1\r\n\r\n");
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_FAILED);
}

static void closing_in_the_handshake_is_silent(void **state)
{
    struct fixture *f = *state;
    SSL_connect(f->client.ssl);
    stream_close(&f->owner.stream, false);
    TURN_UNTIL(f->loop, list_is_empty(&f->loop->streams));
    assert_int_equal(f->owner.readies + f->owner.failures, 0);
}

static struct fixture *new_tls_1_2(void)
{
    struct fixture *f = new_fixture(TLS1_2_VERSION, 10000);
    TURN_UNTIL(f->loop, tls_client_handshake(&f->client) && f->owner.readies == 1);
    assert_non_null(stream_ssl(f->owner.stream)); /* OpenSSL's all the time */
    return f;
}

/* OpenSSL notes failures for the thread; an owner that leaves when it gets the data before one never hears of it. */
static void a_failure_that_nobody_hears_of_is_not_that_of_others(void **state)
{
    static const char bad_record[] = "\x17\3\3\0\x20 not encrypted with the right key";
    struct fixture *f = new_tls_1_2(), *other = new_tls_1_2();
    *state = other;
    tls_client_write(&other->client, "hello");
    setsockopt(f->peer, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* both at once */
    f->owner.resets_on_data = true;
    tls_client_write(&f->client, "data");
    assert_int_equal(send(f->peer, bad_record, 5 + 32, MSG_NOSIGNAL), 5 + 32);
    TURN_UNTIL(f->loop, !f->owner.stream);
    assert_string_equal(f->owner.in.bytes, "data");
    TURN_UNTIL(other->loop, other->owner.in.len == 5 || other->owner.failures > 0);
    assert_int_equal(other->owner.failures, 0);
    void *gone = f;
    tear_down(&gone);
}

/* ---- records of TLS 1.2 by hand: what no library would send ---- */

enum { KEY_BYTES = 16, SALT_BYTES = 4, TAG_BYTES = 16, RANDOM_BYTES = 32 };

struct by_hand {
    uint8_t key[KEY_BYTES];
    uint8_t salt[SALT_BYTES];
    uint8_t sequence;
};

/* RFC 5246 section 6.3, for AES-128-GCM with SHA-256. */
static void take_keys(SSL *ssl, struct by_hand *hand)
{
    uint8_t master[48], seed[13 + 2 * RANDOM_BYTES] = "key expansion", keys[2 * (KEY_BYTES + SALT_BYTES)];
    char digest[] = "SHA256";
    assert_string_equal(SSL_get_cipher_name(ssl), "ECDHE-ECDSA-AES128-GCM-SHA256");
    size_t master_len = SSL_SESSION_get_master_key(SSL_get_session(ssl), master, sizeof master);
    SSL_get_server_random(ssl, seed + 13, RANDOM_BYTES);
    SSL_get_client_random(ssl, seed + 13 + RANDOM_BYTES, RANDOM_BYTES);
    const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 6),
                                 OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SECRET, master, master_len),
                                 OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof seed), OSSL_PARAM_END};
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS1-PRF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    assert_int_equal(EVP_KDF_derive(ctx, keys, sizeof keys, params), 1);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    memcpy(hand->key, keys, KEY_BYTES);
    memcpy(hand->salt, keys + (size_t)2 * KEY_BYTES, SALT_BYTES);
    hand->sequence = 1; /* behind the Finished */
}

/* Returns its length. */
static size_t seal_by_hand(struct by_hand *hand, uint8_t type, const void *data, size_t len, uint8_t *record)
{
    uint8_t nonce[SALT_BYTES + 8] = {0}, *body = record + 5 + 8;
    const uint8_t aad[13] = {0, 0, 0, 0, 0, 0, 0, hand->sequence, type, 3, 3, 0, (uint8_t)len};
    size_t all = 8 + len + TAG_BYTES;
    int n;
    memcpy(nonce, hand->salt, SALT_BYTES);
    nonce[sizeof nonce - 1] = hand->sequence++;
    memcpy(record, (const uint8_t[]){type, 3, 3, (uint8_t)(all >> 8), (uint8_t)all}, 5);
    memcpy(record + 5, nonce + SALT_BYTES, 8);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, hand->key, nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, aad, sizeof aad), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, body, &n, data, (int)len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, body + len, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, body + len), 1);
    EVP_CIPHER_CTX_free(ctx);
    return 5 + all;
}

static size_t unread(int fd)
{
    int bytes = 0;
    assert_int_equal(ioctl(fd, FIONREAD, &bytes), 0);
    return (size_t)bytes;
}

/* Each makes OpenSSL answer with an alert: a client that does not read them must not make a queue of them. */
static void renegotiations_are_few(void **state)
{
    struct fixture *f = new_fixture(TLS1_2_VERSION, 10000);
    static const uint8_t client_hello[] = {1, 0, 0, 0};
    struct by_hand hand;
    uint8_t record[64];
    int sent = 0;
    *state = f;
    setsockopt(f->peer, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    SSL_set_cipher_list(f->client.ssl, "ECDHE-ECDSA-AES128-GCM-SHA256");
    TURN_UNTIL(f->loop, tls_client_handshake(&f->client) && f->owner.readies == 1);
    take_keys(f->client.ssl, &hand);
    size_t len = seal_by_hand(&hand, SSL3_RT_APPLICATION_DATA, "hello", 5, record);
    assert_int_equal(send(f->peer, record, len, MSG_NOSIGNAL), (ssize_t)len);
    TURN_UNTIL(f->loop, f->owner.in.len == 5);
    for (; sent < 100 && f->owner.failures == 0; sent++) {
        len = seal_by_hand(&hand, SSL3_RT_HANDSHAKE, client_hello, sizeof client_hello, record);
        assert_int_equal(send(f->peer, record, len, MSG_NOSIGNAL), (ssize_t)len);
        size_t before = unread(f->peer);
        TURN_UNTIL(f->loop, unread(f->peer) > before || f->owner.failures > 0);
    }
    assert_in_range(sent, 2, 50);
    assert_int_equal(f->owner.status, STATUS_TLS_FAILED);
}

static void data_behind_the_finished_comes_right_after_ready(void **state)
{
    struct fixture *f = *state;
    TURN_UNTIL(f->loop, tls_client_handshake(&f->client));
    tls_client_write(&f->client, "early");
    TURN_UNTIL(f->loop, f->owner.in.len == 5);
    assert_int_equal(f->owner.readies, 1);
}

int main(void)
{
#define TEST(name)   cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define SILENT(name) cmocka_unit_test_setup_teardown(name, set_up_silent, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(data_goes_both_ways),
        TEST(the_client_may_end_first),
        TEST(we_may_end_first),
        TEST(an_end_without_close_notify_is_a_failure),
        TEST(bytes_that_are_no_tls_are_a_failure),
        TEST(a_pause_loses_nothing),
        TEST(large_writes_arrive_whole),
        TEST(close_delivers_what_is_queued_and_close_notify),
        TEST(small_writes_of_one_callback_are_one_record),
        TEST(an_idle_stream_owns_no_buffer),
        SILENT(a_silent_client_times_out),
        SILENT(a_client_that_leaves_in_the_handshake_is_told),
        SILENT(an_unknown_name_gets_its_alert),
        SILENT(plain_http_in_place_of_a_handshake_fails),
        SILENT(closing_in_the_handshake_is_silent),
        cmocka_unit_test_teardown(a_failure_that_nobody_hears_of_is_not_that_of_others, tear_down),
        cmocka_unit_test_teardown(renegotiations_are_few, tear_down),
        SILENT(data_behind_the_finished_comes_right_after_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
