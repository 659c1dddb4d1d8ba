/* resolver: asks a DNS server that the test plays on a UDP socket of its own. */
#include "gateway/net/resolver.h"
#include "net/sockets.h"

enum { NOERROR = 0, SERVFAIL = 2, NXDOMAIN = 3 };

struct told {
    unsigned count;
    enum resolver_result result;
    size_t len;
    uint8_t message[512];
};

static struct {
    struct counters counters;
    struct loop *loop;
    struct resolver *resolver;
    int server;
    struct sockaddr_in from;
    uint8_t question[512];
    ssize_t question_len;
} f;

static void on_answer(void *arg, enum resolver_result result, const uint8_t *message, size_t len)
{
    struct told *told = arg;
    told->count++;
    told->result = result;
    told->len = len;
    if (len > 0)
        memcpy(told->message, message, len);
}

static int set_up_with(uint32_t try_ms)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    char servers[32], error[RESOLVER_ERROR_TEXT_MAX];
    f.loop = loop_new(&f.counters);
    f.server = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_return_code(bind(f.server, (struct sockaddr *)&at, sizeof at), errno);
    assert_return_code(getsockname(f.server, (struct sockaddr *)&at, &len), errno);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(at.sin_port));
    struct resolver_options options = {.servers = servers, .try_ms = try_ms};
    return resolver_new(f.loop, &options, &f.resolver, error) == STATUS_OK ? 0 : -1;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with(10000);
}

static int tear_down(void **state)
{
    (void)state;
    resolver_free(&f.resolver);
    loop_free(&f.loop);
    close(f.server);
    return 0;
}

static bool was_asked(void)
{
    socklen_t len = sizeof f.from;
    f.question_len = recvfrom(f.server, f.question, sizeof f.question, 0, (struct sockaddr *)&f.from, &len);
    return f.question_len > 12;
}

/* The question back as an answer with this code, and one record if it is NOERROR. */
static void reply(unsigned code)
{
    static const uint8_t record[] = {0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 3, 2, 'o', 'k'};
    uint8_t message[512];
    size_t len = (size_t)f.question_len;
    memcpy(message, f.question, len);
    message[2] |= 0x80;
    message[3] = (uint8_t)(0x80 | code);
    message[10] = message[11] = 0;
    if (code == NOERROR) {
        message[7] = 1;
        memcpy(message + len, record, sizeof record);
        len += sizeof record;
    }
    sendto(f.server, message, len, 0, (struct sockaddr *)&f.from, sizeof f.from);
}

static void an_answer_comes_whole(void **state)
{
    (void)state;
    struct told told = {.count = 0};
    resolver_query_txt(f.resolver, "_x.shop.test", on_answer, &told);
    assert_int_equal(told.count, 0);
    TURN_UNTIL(f.loop, was_asked());
    assert_non_null(memmem(f.question, (size_t)f.question_len, "\2_x\4shop\4test\0\0\20\0\1", 18));
    reply(NOERROR);
    TURN_UNTIL(f.loop, told.count > 0);
    assert_int_equal(told.result, RESOLVER_ANSWER);
    assert_memory_equal(told.message + told.len - 2, "ok", 2);
    turn_some(f.loop);
    assert_int_equal(told.count, 1);
}

static void what_servers_refuse(void **state)
{
    (void)state;
    static const struct {
        unsigned code;
        enum resolver_result result;
    } rows[] = {{NXDOMAIN, RESOLVER_NOTHING}, {SERVFAIL, RESOLVER_FAILED}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct told told = {.count = 0};
        resolver_query_txt(f.resolver, "shop.test", on_answer, &told);
        TURN_UNTIL(f.loop, (was_asked() ? reply(rows[i].code) : (void)0, told.count > 0));
        assert_int_equal(told.result, rows[i].result);
    }
}

static void bad_names_are_told_from_the_loop(void **state)
{
    (void)state;
    struct told told = {.count = 0};
    resolver_query_txt(f.resolver, "a..b", on_answer, &told);
    assert_int_equal(told.count, 0);
    TURN_UNTIL(f.loop, told.count > 0);
    assert_int_equal(told.result, RESOLVER_NOTHING);
}

static void silence_is_a_failure(void **state)
{
    (void)state;
    struct told told = {.count = 0};
    tear_down(state);
    assert_int_equal(set_up_with(100), 0);
    resolver_query_txt(f.resolver, "shop.test", on_answer, &told);
    TURN_UNTIL(f.loop, told.count > 0);
    assert_int_equal(told.result, RESOLVER_FAILED);
    assert_true(was_asked() && was_asked()); /* it tried twice */
}

static void cancelled_and_freed_in_flight(void **state)
{
    (void)state;
    struct told told = {.count = 0};
    struct resolver_query *query = resolver_query_txt(f.resolver, "a.test", on_answer, &told);
    TURN_UNTIL(f.loop, was_asked());
    resolver_cancel(&query);
    assert_null(query);
    resolver_cancel(&query);
    reply(NOERROR);
    turn_some(f.loop);
    assert_int_equal(told.count, 0);
    query = resolver_query_txt(f.resolver, "b.test", on_answer, &told);
    TURN_UNTIL(f.loop, was_asked());
    resolver_cancel(&query);
}

static void servers_that_are_none(void **state)
{
    (void)state;
    struct resolver *resolver = NULL;
    char error[RESOLVER_ERROR_TEXT_MAX] = "";
    struct resolver_options options = {.servers = "somewhere", .try_ms = 1000};
    assert_int_not_equal(resolver_new(f.loop, &options, &resolver, error), STATUS_OK);
    assert_null(resolver);
    assert_non_null(strstr(error, "somewhere"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_answer_comes_whole), TEST(what_servers_refuse),           TEST(bad_names_are_told_from_the_loop),
        TEST(silence_is_a_failure),  TEST(cancelled_and_freed_in_flight), TEST(servers_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
