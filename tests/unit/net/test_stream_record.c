/* Streams over TLS 1.3 after the handshake: what peers may and may not send, record by record. */
#include "gateway/net/tls_record.h"

#include "../../../gateway/net/stream_internal.h"

#include "net/stream_owner.h"
#include "net/tls_client.h"

#include <netinet/tcp.h>

static struct counters counters;

struct fixture {
    struct loop *loop;
    struct tls_server *server;
    struct stream_owner owner;
    int peer;
    struct tls_client client;
    struct inbox inbox;
    struct tls_records records;
    struct tls_record *crafted; /* seals as the client would */
};

static struct tls_secrets client_secrets;

static void on_secret(const SSL *ssl, const char *line)
{
    (void)ssl;
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0", 23) != 0)
        return;
    const char *hex = strrchr(line, ' ') + 1;
    client_secrets.len = (uint8_t)(strlen(hex) / 2);
    for (size_t i = 0; i < client_secrets.len; i++) {
        unsigned byte = 0;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        client_secrets.server[i] = (uint8_t)byte; /* what it seals with */
    }
}

static struct fixture *new_fixture(const char *suite)
{
    struct fixture *f = calloc(1, sizeof *f);
    int pair[2];
    struct ip_addr addr = loopback_ip();
    f->loop = loop_new(&counters);
    f->server = tls_test_server();
    tcp_pair(pair);
    f->peer = pair[0];
    tls_client_init(&f->client, f->peer, suite ? 0 : TLS1_2_VERSION);
    SSL_CTX_set_keylog_callback(f->client.ctx, on_secret);
    if (suite)
        assert_int_equal(SSL_set_ciphersuites(f->client.ssl, suite), 1);
    f->owner.stream = stream_accept(f->loop, pair[1], &addr, 4711, f->server, 10000, &owner_events, &f->owner);
    TURN_UNTIL(f->loop, tls_client_handshake(&f->client) && f->owner.readies == 1);
    if (suite) {
        assert_int_equal(tls_records_init(&f->records, NULL), STATUS_OK);
        unsigned number = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(f->client.ssl));
        f->crafted = tls_record_new(&f->records, number, &client_secrets);
        assert_non_null(f->crafted);
    }
    return f;
}

static int set_up(void **state)
{
    *state = new_fixture("TLS_AES_128_GCM_SHA256");
    return 0;
}

static int set_up_aes256(void **state)
{
    *state = new_fixture("TLS_AES_256_GCM_SHA384");
    return 0;
}

static int set_up_chacha(void **state)
{
    *state = new_fixture("TLS_CHACHA20_POLY1305_SHA256");
    return 0;
}

static int set_up_12(void **state)
{
    *state = new_fixture(NULL);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    owner_end(f->loop, &f->owner);
    tls_client_fini(&f->client);
    close(f->peer);
    inbox_clear(&f->inbox);
    tls_record_free(&f->crafted);
    tls_records_fini(&f->records);
    tls_server_free(&f->server);
    loop_free(&f->loop);
    free(f);
    return 0;
}

static void send_bytes(struct fixture *f, const void *bytes, size_t len)
{
    assert_int_equal(send(f->peer, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static size_t craft(struct fixture *f, enum tls_content content, const void *data, size_t len, uint8_t *wire)
{
    assert_true(tls_record_seal(f->crafted, content, data, len, wire));
    return len + TLS_RECORD_OVERHEAD_BYTES;
}

static void send_crafted(struct fixture *f, enum tls_content content, const void *data, size_t len)
{
    static uint8_t wire[TLS_RECORD_MAX_PLAIN_BYTES + TLS_RECORD_OVERHEAD_BYTES];
    send_bytes(f, wire, craft(f, content, data, len, wire));
}

/* The owner hears of a failure, and the client of the alert, which OpenSSL calls an error. */
static void expect_failure(struct fixture *f)
{
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_FAILED);
    assert_int_equal(f->owner.eofs, 0);
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), f->client.failed));
}

/* ---- ordinary traffic ---- */

static void write_all(struct fixture *f, const char *pattern, size_t len)
{
    size_t sent = 0;
    SSL_set_mode(f->client.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    for (uint64_t begun = sockets_now_ms(); f->owner.in.len < len;) {
        assert_true(sockets_now_ms() - begun < SOCKETS_DEADLINE_MS);
        int n = sent < len ? SSL_write(f->client.ssl, pattern + sent, (int)(len - sent)) : 0;
        sent += n > 0 ? (size_t)n : 0;
        turn_some(f->loop);
        tls_client_read(&f->client, &f->inbox);
    }
}

static void megabytes_go_both_ways(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 1500000 };
    char *pattern = pattern_new(LEN);
    stream_write(f->owner.stream, pattern, LEN);
    write_all(f, pattern, LEN);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == LEN);
    assert_true(is_pattern(&f->inbox, pattern, LEN));
    assert_true(is_pattern(&f->owner.in, pattern, LEN));
    free(pattern);
}

/* ---- handshakes ---- */

/* One more connection to the fixture's server. */
struct guest {
    struct stream_owner owner;
    int peer;
    struct tls_client client;
    struct inbox inbox;
};

static void guest_begin(struct fixture *f, struct guest *guest, char *groups)
{
    int pair[2];
    struct ip_addr addr = loopback_ip();
    tcp_pair(pair);
    *guest = (struct guest){.peer = pair[0]};
    tls_client_init(&guest->client, guest->peer, 0);
    assert_int_equal(SSL_set1_groups_list(guest->client.ssl, groups), 1);
    guest->owner.stream = stream_accept(f->loop, pair[1], &addr, 4712, f->server, 10000, &owner_events, &guest->owner);
}

/* Sends what the client begins with, and waits for the answer, which the client does not read yet. */
static void guest_hello(struct fixture *f, struct guest *guest, uint8_t *ret_answer, size_t len)
{
    assert_false(tls_client_handshake(&guest->client));
    TURN_UNTIL(f->loop, recv(guest->peer, ret_answer, len, MSG_PEEK | MSG_DONTWAIT) == (ssize_t)len);
}

static void guest_talk(struct fixture *f, struct guest *guest)
{
    TURN_UNTIL(f->loop, tls_client_handshake(&guest->client) && guest->owner.readies == 1);
    tls_client_write(&guest->client, "question");
    TURN_UNTIL(f->loop, guest->owner.in.len == 8);
    stream_write(guest->owner.stream, "answer", 6);
    TURN_UNTIL(f->loop, tls_client_read(&guest->client, &guest->inbox) == 6);
    assert_string_equal(guest->inbox.bytes, "answer");
}

static void guest_end(struct guest *guest)
{
    stream_close(&guest->owner.stream, false);
    tls_client_fini(&guest->client);
    close(guest->peer);
    inbox_clear(&guest->inbox);
    inbox_clear(&guest->owner.in);
}

/* One waits for its client when another one is asked for a second hello (RFC 8446 section 4.1.4). */
static void handshakes_of_one_server_overlap(void **state)
{
    static const uint8_t retry_random[] = {0xcf, 0x21, 0xad, 0x74}; /* how it begins, section 4.1.3 */
    enum { RANDOM_AT = 11, ANSWER = RANDOM_AT + sizeof retry_random };
    struct fixture *f = *state;
    struct guest plain, retried;
    uint8_t answer[ANSWER];
    char common[] = "X25519", unknown_first[] = "P-521:X25519"; /* OpenSSL's macro wants them writable */
    guest_begin(f, &plain, common);
    guest_begin(f, &retried, unknown_first);
    guest_hello(f, &plain, answer, sizeof answer);
    assert_memory_not_equal(answer + RANDOM_AT, retry_random, sizeof retry_random);
    guest_hello(f, &retried, answer, sizeof answer);
    assert_memory_equal(answer + RANDOM_AT, retry_random, sizeof retry_random);
    guest_talk(f, &plain);
    guest_talk(f, &retried);
    guest_end(&plain);
    guest_end(&retried);
}

/* ---- sizes of records ---- */

enum { MAX_SIZES = 64 };

static struct {
    size_t count;
    size_t plain[MAX_SIZES];
} sizes;

static void on_message(int write_p, int version, int content, const void *bytes, size_t len, SSL *ssl, void *arg)
{
    (void)version;
    (void)ssl;
    (void)arg;
    const uint8_t *header = bytes;
    if (write_p || content != SSL3_RT_HEADER || len != TLS_RECORD_HEADER_BYTES)
        return;
    assert_true(sizes.count < MAX_SIZES);
    size_t sealed = (size_t)header[3] << 8 | header[4];
    sizes.plain[sizes.count++] = sealed - (TLS_RECORD_OVERHEAD_BYTES - TLS_RECORD_HEADER_BYTES);
}

static void send_to_client(struct fixture *f, const char *pattern, size_t len)
{
    tls_client_read(&f->client, &f->inbox); /* tickets */
    inbox_clear(&f->inbox);
    sizes.count = 0;
    SSL_set_msg_callback(f->client.ssl, on_message);
    stream_write(f->owner.stream, pattern, len);
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), f->inbox.len == len));
    assert_memory_equal(f->inbox.bytes, pattern, len);
    SSL_set_msg_callback(f->client.ssl, NULL);
}

static void expect_sizes(const size_t *expected, size_t count)
{
    assert_int_equal(sizes.count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(sizes.plain[i], expected[i]);
}

/* A first flight of TCP in records of one segment, then full ones; after a time without traffic from the beginning. */
static void records_start_small_and_grow(void **state)
{
    struct fixture *f = *state;
    static const size_t begun[] = {1400, 1400, 1400, 1400, 1400, 1400, 1400, 1400, 1400, 1400, 2384, 16384, 1232};
    static const size_t gone_on[] = {16384, 3616};
    static const size_t begun_again[] = {1400, 1400, 200};
    static char pattern[34000];
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i * 7 + i / 251);
    send_to_client(f, pattern, sizeof pattern);
    expect_sizes(begun, sizeof begun / sizeof begun[0]);
    f->owner.stream->sent_at = (uint32_t)(f->loop->now_us / 1000000U);
    send_to_client(f, pattern, 20000);
    expect_sizes(gone_on, sizeof gone_on / sizeof gone_on[0]);
    f->owner.stream->sent_at -= 2; /* seconds without traffic */
    send_to_client(f, pattern, 3000);
    expect_sizes(begun_again, sizeof begun_again / sizeof begun_again[0]);
}

static void key_updates_of_the_client_are_followed(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 1; i <= 5; i++) {
        int kind = i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
        assert_int_equal(SSL_key_update(f->client.ssl, kind), 1);
        tls_client_write(&f->client, "up");
        TURN_UNTIL(f->loop, f->owner.in.len == 2 * i);
        stream_write(f->owner.stream, "down", 4);
        TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == 4 * i);
    }
    assert_false(f->client.failed);
}

static void a_record_may_come_byte_by_byte(void **state)
{
    struct fixture *f = *state;
    uint8_t wire[2 * (10 + TLS_RECORD_OVERHEAD_BYTES)];
    size_t len = craft(f, TLS_CONTENT_DATA, "0123456789", 10, wire);
    len += craft(f, TLS_CONTENT_DATA, "abcdefghij", 10, wire + len);
    for (size_t i = 0; i < len; i++) {
        send_bytes(f, wire + i, 1);
        TURN_UNTIL(f->loop, true);
    }
    TURN_UNTIL(f->loop, f->owner.in.len == 20);
    assert_string_equal(f->owner.in.bytes, "0123456789abcdefghij");
    assert_int_equal(f->loop->free_block_count, 1); /* the record's block is back */
}

static void some_empty_records_are_fine(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 32; i++)
        send_crafted(f, TLS_CONTENT_DATA, "", 0);
    send_crafted(f, TLS_CONTENT_DATA, "data", 4);
    for (int i = 0; i < 32; i++)
        send_crafted(f, TLS_CONTENT_DATA, "", 0);
    send_crafted(f, TLS_CONTENT_DATA, "more", 4);
    TURN_UNTIL(f->loop, f->owner.in.len == 8);
}

static void key_updates_that_nobody_reads_are_answered_once(void **state)
{
    struct fixture *f = *state;
    TURN_UNTIL(f->loop, (tls_client_read(&f->client, &f->inbox), true)); /* tickets */
    for (size_t i = 1; i <= 200; i++) {
        send_crafted(f, TLS_CONTENT_HANDSHAKE, "\x18\0\0\1\1", 5);
        assert_true(tls_record_update_sent(f->crafted));
        send_crafted(f, TLS_CONTENT_DATA, "x", 1);
        TURN_UNTIL(f->loop, f->owner.in.len == i);
    }
    char raw[1];
    assert_int_equal(recv(f->peer, raw, sizeof raw, MSG_DONTWAIT | MSG_PEEK), -1);
    stream_write(f->owner.stream, "down", 4);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == 4);
    assert_false(f->client.failed);
}

/* ---- the end ---- */

static void what_follows_close_notify_is_ignored(void **state)
{
    struct fixture *f = *state;
    uint8_t wire[128];
    size_t len = craft(f, TLS_CONTENT_DATA, "last", 4, wire);
    len += craft(f, TLS_CONTENT_ALERT, "\1\0", 2, wire + len);
    memset(wire + len, 'x', 20);
    send_bytes(f, wire, len + 20);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    send_bytes(f, wire, 20);
    stream_write(f->owner.stream, "answer", 6);
    TURN_UNTIL(f->loop, tls_client_read(&f->client, &f->inbox) == 6);
    assert_string_equal(f->owner.in.bytes, "last");
    assert_int_equal(f->owner.failures, 0);
}

/* Closing a socket with bytes unread is a reset: the answer must be out by then. */
static void an_answer_arrives_though_something_follows_close_notify(void **state)
{
    struct fixture *f = *state;
    setsockopt(f->peer, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    send_crafted(f, TLS_CONTENT_ALERT, "\1\0", 2);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    stream_pause(f->owner.stream, STREAM_PAUSE_OWNER);
    send_bytes(f, "more", 4);
    turn_some(f->loop);
    stream_write(f->owner.stream, "answer", 6);
    stream_close(&f->owner.stream, true);
    TURN_UNTIL(f->loop, list_is_empty(&f->loop->streams));
    tls_client_read(&f->client, &f->inbox);
    assert_int_equal(f->inbox.len, 6);
}

static void user_canceled_is_followed_by_close_notify(void **state)
{
    struct fixture *f = *state;
    send_crafted(f, TLS_CONTENT_ALERT, "\1\132", 2);
    send_crafted(f, TLS_CONTENT_ALERT, "\1\0", 2);
    TURN_UNTIL(f->loop, f->owner.eofs == 1);
    assert_int_equal(f->owner.failures, 0);
}

static void an_alert_of_the_client_ends_the_stream(void **state)
{
    struct fixture *f = *state;
    send_crafted(f, TLS_CONTENT_DATA, "then", 4);
    send_crafted(f, TLS_CONTENT_ALERT, "\2\50", 2);
    TURN_UNTIL(f->loop, f->owner.failures == 1);
    assert_int_equal(f->owner.status, STATUS_TLS_FAILED);
    assert_string_equal(f->owner.in.bytes, "then");
}

/* ---- what must not be ---- */

static void too_many_empty_records_are_refused(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 33; i++)
        send_crafted(f, TLS_CONTENT_DATA, "", 0);
    expect_failure(f);
}

static void too_many_key_updates_are_refused(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 33; i++) {
        send_crafted(f, TLS_CONTENT_HANDSHAKE, "\x18\0\0\1\0", 5);
        assert_true(tls_record_update_sent(f->crafted));
    }
    expect_failure(f);
}

static void odd_handshake_messages_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *bytes;
        size_t len;
    } messages[] = {
        {"\x18\0\0\1\2", 5},              /* an unknown request_update */
        {"\x18\0\0\1", 4},                /* cut */
        {"\x18\0\0\1\0\x18\0\0\1\0", 10}, /* two in a record */
        {"\x01\0\0\0", 4},                /* a ClientHello: renegotiation */
        {"", 0},
    };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        if (i > 0) {
            void *again = f;
            tear_down(&again);
            f = new_fixture("TLS_AES_128_GCM_SHA256");
            *state = f;
        }
        send_crafted(f, TLS_CONTENT_HANDSHAKE, messages[i].bytes, messages[i].len);
        expect_failure(f);
    }
}

static void odd_alerts_and_contents_are_refused(void **state)
{
    struct fixture *f = *state;
    send_crafted(f, TLS_CONTENT_ALERT, "\1", 1);
    expect_failure(f);
    void *again = f;
    tear_down(&again);
    *state = f = new_fixture("TLS_AES_128_GCM_SHA256");
    send_crafted(f, (enum tls_content)24, "heartbeat", 9);
    expect_failure(f);
}

static void odd_headers_are_refused(void **state)
{
    static const uint8_t headers[][5] = {
        {21, 3, 3, 0, 2},    /* an unprotected alert */
        {20, 3, 3, 0, 1},    /* change_cipher_spec after the handshake */
        {23, 3, 3, 0x41, 1}, /* longer than a record may be */
        {23, 3, 3, 0, 16},   /* too short for a content type and a tag */
        {'G', 'E', 'T', ' ', '/'},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        if (i > 0) {
            void *again = f;
            tear_down(&again);
            *state = f = new_fixture("TLS_AES_128_GCM_SHA256");
        }
        send_bytes(f, headers[i], i % 2 ? 5 : 3); /* whole, and in two pieces */
        if (i % 2 == 0) {
            TURN_UNTIL(f->loop, true);
            send_bytes(f, headers[i] + 3, 2);
        }
        expect_failure(f);
    }
}

static void a_broken_record_is_refused_after_the_data_before_it(void **state)
{
    struct fixture *f = *state;
    uint8_t wire[128];
    size_t len = craft(f, TLS_CONTENT_DATA, "good", 4, wire);
    len += craft(f, TLS_CONTENT_DATA, "bad", 3, wire + len);
    wire[len - 1] ^= 1;
    send_bytes(f, wire, len);
    expect_failure(f);
    assert_string_equal(f->owner.in.bytes, "good");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_WITH(name, with)                                                                                          \
    {                                                                                                                  \
#name " " #with, name, with, tear_down, NULL                                                                   \
    }
    const struct CMUnitTest tests[] = {
        TEST_WITH(megabytes_go_both_ways, set_up),
        TEST_WITH(megabytes_go_both_ways, set_up_aes256),
        TEST_WITH(megabytes_go_both_ways, set_up_chacha),
        TEST_WITH(megabytes_go_both_ways, set_up_12),
        TEST_WITH(key_updates_of_the_client_are_followed, set_up),
        TEST_WITH(key_updates_of_the_client_are_followed, set_up_aes256),
        TEST(handshakes_of_one_server_overlap),
        TEST(records_start_small_and_grow),
        TEST(a_record_may_come_byte_by_byte),
        TEST(some_empty_records_are_fine),
        TEST(key_updates_that_nobody_reads_are_answered_once),
        TEST(what_follows_close_notify_is_ignored),
        TEST(an_answer_arrives_though_something_follows_close_notify),
        TEST(user_canceled_is_followed_by_close_notify),
        TEST(an_alert_of_the_client_ends_the_stream),
        TEST(too_many_empty_records_are_refused),
        TEST(too_many_key_updates_are_refused),
        TEST(odd_handshake_messages_are_refused),
        TEST(odd_alerts_and_contents_are_refused),
        TEST(odd_headers_are_refused),
        TEST(a_broken_record_is_refused_after_the_data_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
