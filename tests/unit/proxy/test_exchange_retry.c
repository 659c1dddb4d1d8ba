/* Exchanges that fail, and are tried again or not: h1 front, h1 back. */
#include "proxy/exchange_fixture.h"

static void a_stale_connection_is_replaced_for_an_idempotent_request(void **state)
{
    struct proxy_fixture *f = *state;
    warm_up(f);
    client_ask(f, "GET /again", "", "");
    AWAIT_TEXT(f, origin, "GET /again");
    party_close(&f->origin);
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "GET /again");
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
    assert_int_equal(f->counters.upstream_retries_total, 1);
    assert_null(strstr(f->client.in.bytes, "502"));
}

static void a_stale_connection_is_an_error_for_others(void **state)
{
    struct proxy_fixture *f = *state;
    warm_up(f);
    client_ask(f, "POST /again", "Content-Length: 4\r\n", "body");
    AWAIT_TEXT(f, origin, "body");
    party_close(&f->origin);
    AWAIT_TEXT(f, client, "upstream_closed");
    assert_non_null(strstr(f->client.in.bytes, "HTTP/1.1 502 "));
    assert_int_equal(f->counters.upstream_retries_total, 0);
}

/* The client would see a second interim answer, and the app would act twice. */
static void nothing_is_retried_after_a_byte_of_the_answer(void **state)
{
    static const char *const beginnings[] = {"HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 2"};
    struct proxy_fixture *f = *state;
    for (int hard = 0; hard < 2; hard++)
        for (size_t i = 0; i < 2; i++) {
            client_connect(f);
            warm_up(f);
            client_ask(f, "GET /again", "", "");
            AWAIT_TEXT(f, origin, "GET /again");
            send_text(f->origin.fd, beginnings[i]);
            turn_some(f->loop);
            if (hard)
                close_hard(f->origin.fd);
            else
                close(f->origin.fd);
            f->origin.fd = -1;
            AWAIT_TEXT(f, client, "upstream_truncated");
        }
    assert_int_equal(f->counters.upstream_retries_total, 0);
}

static void an_idle_connection_that_the_origin_closed_is_not_used(void **state)
{
    struct proxy_fixture *f = *state;
    warm_up(f);
    party_close(&f->origin);
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 0);
    client_ask(f, "POST /again", "Content-Length: 4\r\n", "body");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "body");
    send_text(f->origin.fd, OK_HELLO);
    AWAIT_TEXT(f, client, "hello");
}

static void a_refused_connection_leads_to_another_instance(void **state)
{
    static const char *const requests[] = {"POST /a", "GET /b", "GET /upgrade"};
    static const char *const fields[] = {"Content-Length: 4\r\n", "", "Connection: upgrade\r\nUpgrade: websocket\r\n"};
    static const char *const bodies[] = {"body", "", ""};
    struct proxy_fixture *f = *state;
    close(f->origins[0]);
    f->origins[0] = -1;
    for (int round = 0; round < 12; round++) { /* the refusing one is drawn first in some of them */
        int kind = round % 3;
        client_connect(f);
        client_ask(f, requests[kind], fields[kind], bodies[kind]);
        AWAIT_ORIGIN(f, 1);
        AWAIT_TEXT(f, origin, requests[kind]);
        AWAIT_TEXT(f, origin, bodies[kind]);
        send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
        AWAIT_TEXT(f, client, "hello");
        TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 0);
    }
}

static void a_forbidden_address_leads_to_another_instance(void **state)
{
    struct proxy_fixture *f = *state;
    struct ip_network *allow = (struct ip_network *)(uintptr_t)f->settings->rules.allow;
    assert_true(ip_network_parse(slice_str("127.0.0.12/32"), allow)); /* a reload has narrowed it */
    for (int round = 0; round < 10; round++) {
        client_connect(f);
        client_ask(f, "GET /", "", "");
        AWAIT_ORIGIN(f, 1);
        AWAIT_TEXT(f, origin, "\r\n\r\n");
        send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
        AWAIT_TEXT(f, client, "hello");
        TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 0);
    }
    assert_true(ip_network_parse(slice_str("127.0.0.99/32"), allow));
    client_connect(f);
    client_ask(f, "GET /", "", "");
    AWAIT_TEXT(f, client, "address_forbidden");
}

/* Five in a row would eject it. */
static void who_waits_for_the_rest_of_a_request_is_not_to_blame(void **state)
{
    struct proxy_fixture *f = *state;
    f->settings->first_byte_ms = 100;
    f->settings->ejection.failures = 1;
    client_ask(f, "POST /", "Content-Length: 10\r\n", "01234");
    AWAIT_TEXT(f, client, "upstream_timeout");
    assert_int_equal(f->counters.upstream_ejections_total, 0);
    client_connect(f);
    client_ask(f, "POST /", "Content-Length: 5\r\n", "01234");
    AWAIT_TEXT(f, client, "upstream_timeout");
    assert_int_equal(f->counters.upstream_ejections_total, 1);
}

static void when_all_refuse_the_client_is_told(void **state)
{
    struct proxy_fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        close(f->origins[i]);
        f->origins[i] = -1;
    }
    client_ask(f, "GET /", "", "");
    AWAIT_TEXT(f, client, "connect_refused");
    assert_non_null(strstr(f->client.in.bytes, "HTTP/1.1 502 "));
    inbox_clear(&f->client.in);
    client_ask(f, "GET /", "", ""); /* the connection lives on */
    AWAIT_TEXT(f, client, "connect_refused");
}

static void an_answer_that_ends_early_is_cut_off(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    AWAIT_TEXT(f, client, "half");
    party_close(&f->origin);
    AWAIT_END(f, client);
    assert_int_equal(f->client.in.error, ECONNRESET);
}

static void an_answer_that_is_reset_right_behind_its_bytes_is_cut_off(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "HTTP/1.1 200 OK\r\n\r\nhalf");
    close_hard(f->origin.fd);
    f->origin.fd = -1;
    AWAIT_END(f, client);
    assert_int_equal(f->client.in.error, ECONNRESET);
    ASSERT_LACKS(f, client, "0\r\n\r\n");
}

static void an_answer_that_is_no_http_is_an_error(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, "SSH-2.0-OpenSSH\r\n\r\n");
    AWAIT_TEXT(f, client, "upstream_bad_response");
}

static void bytes_behind_an_answer_do_not_reach_the_next_client(void **state)
{
    struct proxy_fixture *f = *state;
    client_ask(f, "GET /", "", "");
    AWAIT_ORIGIN(f, 0);
    AWAIT_TEXT(f, origin, "\r\n\r\n");
    send_text(f->origin.fd, OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    AWAIT_TEXT(f, client, "hello");
    TURN_UNTIL(f->loop, pool_count(f->proxy->pool) == 0);
    client_ask(f, "GET /next", "", "");
    AWAIT_ORIGIN(f, 0);
    ASSERT_LACKS(f, client, "poison");
}

int main(void)
{
    route_table_thread_begin();
#define ONE(name) cmocka_unit_test_setup_teardown(name, start_one, stop)
#define TWO(name) cmocka_unit_test_setup_teardown(name, start_two, stop)
    const struct CMUnitTest tests[] = {
        ONE(a_stale_connection_is_replaced_for_an_idempotent_request),
        ONE(a_stale_connection_is_an_error_for_others),
        ONE(nothing_is_retried_after_a_byte_of_the_answer),
        ONE(who_waits_for_the_rest_of_a_request_is_not_to_blame),
        ONE(an_idle_connection_that_the_origin_closed_is_not_used),
        TWO(a_refused_connection_leads_to_another_instance),
        TWO(a_forbidden_address_leads_to_another_instance),
        TWO(when_all_refuse_the_client_is_told),
        ONE(an_answer_that_ends_early_is_cut_off),
        ONE(an_answer_that_is_reset_right_behind_its_bytes_is_cut_off),
        ONE(an_answer_that_is_no_http_is_an_error),
        ONE(bytes_behind_an_answer_do_not_reach_the_next_client),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
