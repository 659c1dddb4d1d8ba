/* etcd_client: which member is asked, with which token, and what is certain when one fails. */
#include "gateway/control/etcd_client.h"

#include "control/http_server.h"

#include <sys/stat.h>

enum { CONNECT_MS = 5000, ANSWER_MS = 5000, QUIET_MS = 5000, MAX_BYTES = 1 << 20, LONG_TOKEN = 6000 };

#define ANSWER(text) "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" text

static struct counters counters;

struct place {
    struct loop *loop;
    struct fetcher *fetcher;
    struct http_server *servers[2];
    size_t server_count;
    const char *endpoints[3];
    char urls[2][64];
    char password_file[64];
    struct config_etcd config;
    struct etcd_client *client;
    struct etcd_call *call;
    bool done;
    struct etcd_result result;
    char body[256];
    char lines[256];
    bool cancel_in_line;
};

static int set_up(void **state)
{
    struct place *p = test_calloc(1, sizeof *p);
    signal(SIGPIPE, SIG_IGN);
    p->loop = loop_new(&counters);
    p->fetcher = fetcher_new(p->loop);
    p->config.endpoints = p->endpoints;
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    etcd_call_cancel(&p->call);
    etcd_client_free(&p->client);
    fetcher_free(&p->fetcher);
    for (size_t i = 0; i < p->server_count; i++)
        http_server_stop(&p->servers[i]);
    loop_free(&p->loop);
    if (p->password_file[0])
        unlink(p->password_file);
    test_free(p);
    return 0;
}

static void add_url(struct place *p, const char *url)
{
    p->endpoints[p->config.endpoint_count++] = url;
}

static void add_member(struct place *p, http_answer_cb answer)
{
    struct http_server *server = http_server_start(answer, p, NULL, NULL);
    char *url = p->urls[p->server_count];
    p->servers[p->server_count++] = server;
    snprintf(url, sizeof p->urls[0], "http://127.0.0.1:%u", server->port);
    add_url(p, url);
}

static void set_user(struct place *p, const char *password)
{
    snprintf(p->password_file, sizeof p->password_file, "/tmp/etcd-client-test-XXXXXX");
    int fd = mkstemp(p->password_file);
    assert_return_code(fd, errno);
    assert_int_equal(write(fd, password, strlen(password)), strlen(password));
    close(fd);
    p->config.user = "gw";
    p->config.password_file = p->password_file;
}

static void on_done(void *arg, const struct etcd_result *result)
{
    struct place *p = arg;
    assert_false(p->done);
    p->done = true;
    p->call = NULL;
    p->result = *result;
    snprintf(p->body, sizeof p->body, "%.*s", SLICE_ARG(result->body));
}

static void on_line(void *arg, struct slice line)
{
    struct place *p = arg;
    size_t len = strlen(p->lines);
    snprintf(p->lines + len, sizeof p->lines - len, "%.*s|", SLICE_ARG(line));
    if (p->cancel_in_line)
        etcd_call_cancel(&p->call);
}

static void begin(struct place *p)
{
    p->done = false;
    if (!p->client)
        p->client = etcd_client_new(&(struct etcd_client_params){.loop = p->loop,
                                                                 .fetcher = p->fetcher,
                                                                 .config = &p->config,
                                                                 .connect_ms = CONNECT_MS,
                                                                 .answer_ms = ANSWER_MS});
}

static void call(struct place *p, size_t max_bytes)
{
    begin(p);
    p->call = etcd_client_call(p->client, "/v3/kv/range", strdup("{\"key\":\"YQ==\"}"), max_bytes, on_done, p);
    assert_false(p->done);
    TURN_UNTIL(p->loop, p->done);
}

static void watch(struct place *p)
{
    begin(p);
    p->call = etcd_client_watch(p->client, strdup("{}"), QUIET_MS, on_line, on_done, p);
}

static void check(const struct place *p, enum etcd_end end, const char *fragment)
{
    if (p->result.end != end || !strstr(p->result.text, fragment))
        fail_msg("end %d, not %d: %s", (int)p->result.end, (int)end, p->result.text);
}

/* ---- members ---- */

static bool answer_ok(struct http_connection *c, const char *request)
{
    assert_non_null(strstr(request, "POST /v3/kv/range HTTP/1.1\r\n"));
    assert_non_null(strstr(request, "{\"key\":\"YQ==\"}"));
    return http_send_text(c, ANSWER("2\r\n{}\r\n0\r\n\r\n"));
}

static bool answer_break(struct http_connection *c, const char *request)
{
    (void)c;
    (void)request;
    return false;
}

static bool answer_no_leader(struct http_connection *c, const char *request)
{
    (void)request;
    return http_send_text(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 43\r\n\r\n"
                             "{\"error\":\"etcdserver: no leader\",\"code\":14}");
}

static bool answer_compacted(struct http_connection *c, const char *request)
{
    (void)request;
    return http_send_text(
        c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 32\r\n\r\n{\"error\":\"compacted\",\"code\":11}\r\n");
}

static bool answer_other(struct http_connection *c, const char *request)
{
    (void)request;
    return http_send_text(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n");
}

/* Gives tokens t1, t2, …; knows only the second one. */
static bool answer_with_token(struct http_connection *c, const char *request)
{
    static const char unknown[] = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 52\r\n\r\n"
                                  "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}";
    struct place *p = c->server->arg;
    if (strstr(request, "POST /v3/auth/authenticate ")) {
        assert_non_null(strstr(request, "{\"name\":\"gw\",\"password\":\"secret word\"}"));
        assert_null(strstr(request, "Authorization"));
        bool is_first = p->lines[0] == '\0';
        snprintf(p->lines, sizeof p->lines, "given");
        return http_send_text(c, is_first ? ANSWER("1a\r\n{\"header\":{},\"token\":\"t1\"}\r\n0\r\n\r\n")
                                          : ANSWER("1a\r\n{\"header\":{},\"token\":\"t2\"}\r\n0\r\n\r\n"));
    }
    if (strstr(request, "\r\nAuthorization: t2\r\n"))
        return http_send_text(c, ANSWER("2\r\n{}\r\n0\r\n\r\n"));
    return http_send_text(c, unknown);
}

/* Tokens may be signed documents of some kilobytes. */
static bool answer_with_long_token(struct http_connection *c, const char *request)
{
    char token[LONG_TOKEN + 1], text[2 * LONG_TOKEN];
    memset(token, 't', LONG_TOKEN);
    token[LONG_TOKEN] = '\0';
    if (strstr(request, "POST /v3/auth/authenticate ")) {
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{\"token\":\"%s\"}", LONG_TOKEN + 12,
                 token);
        return http_send_text(c, text);
    }
    snprintf(text, sizeof text, "\r\nAuthorization: %s\r\n", token);
    assert_non_null(strstr(request, text));
    return http_send_text(c, ANSWER("2\r\n{}\r\n0\r\n\r\n"));
}

static bool answer_two_lines(struct http_connection *c, const char *request)
{
    (void)request;
    http_send_text(c, ANSWER("8\r\n{a}\n{b}\n\r\n"));
    http_wait_for_end(c);
    return false;
}

/* ---- tests ---- */

static void an_answer(void **state)
{
    struct place *p = *state;
    add_member(p, answer_ok);
    call(p, MAX_BYTES);
    check(p, ETCD_ANSWERED, "");
    assert_string_equal(p->body, "{}");
    call(p, 1);
    check(p, ETCD_TOO_LARGE, "too large");
}

static void an_unreachable_member_is_passed_over(void **state)
{
    struct place *p = *state;
    add_url(p, "http://127.0.0.1:1");
    add_member(p, answer_ok);
    call(p, MAX_BYTES);
    check(p, ETCD_ANSWERED, "");
    assert_string_equal(etcd_client_endpoint(p->client), p->urls[0]);
    etcd_client_leave(p->client);
    assert_string_equal(etcd_client_endpoint(p->client), "http://127.0.0.1:1");
}

static void nobody_is_there(void **state)
{
    struct place *p = *state;
    add_url(p, "http://127.0.0.1:1");
    call(p, MAX_BYTES);
    check(p, ETCD_UNSENT, "http://127.0.0.1:1: ");
}

static void what_a_member_may_have_done_is_not_sent_to_another(void **state)
{
    static const http_answer_cb answers[] = {answer_break, answer_no_leader};
    struct place *p = *state;
    add_member(p, answers[0]);
    add_member(p, answers[1]);
    call(p, MAX_BYTES);
    check(p, ETCD_UNCERTAIN, p->urls[0]);
    assert_string_equal(etcd_client_endpoint(p->client), p->urls[1]);
    call(p, MAX_BYTES);
    check(p, ETCD_UNCERTAIN, "no leader");
    assert_string_equal(etcd_client_endpoint(p->client), p->urls[0]);
}

static void refusals_are_certain(void **state)
{
    struct place *p = *state;
    add_member(p, answer_compacted);
    add_member(p, answer_other);
    call(p, MAX_BYTES);
    check(p, ETCD_REFUSED, "compacted");
    assert_int_equal(p->result.error.code, ETCD_WIRE_OUT_OF_RANGE);
    etcd_client_leave(p->client);
    call(p, MAX_BYTES);
    check(p, ETCD_REFUSED, "status 404");
}

static void a_token_is_renewed(void **state)
{
    struct place *p = *state;
    set_user(p, "secret word\nnot this\n");
    add_member(p, answer_with_token);
    call(p, MAX_BYTES);
    check(p, ETCD_ANSWERED, "");
    assert_int_equal(atomic_load(&p->servers[0]->requests), 4);
    call(p, MAX_BYTES);
    check(p, ETCD_ANSWERED, "");
    assert_int_equal(atomic_load(&p->servers[0]->requests), 5);
}

static void long_tokens_and_urls_are_sent_whole(void **state)
{
    struct place *p = *state;
    char name[600], url[700];
    set_user(p, "secret word");
    add_member(p, answer_with_long_token);
    memset(name, 'n', sizeof name);
    snprintf(url, sizeof url, "http://%.*s@127.0.0.1:%u", (int)sizeof name, name, p->servers[0]->port);
    p->endpoints[0] = url;
    call(p, MAX_BYTES);
    check(p, ETCD_ANSWERED, "");
    assert_string_equal(p->body, "{}");
}

static void a_missing_password_file_is_told(void **state)
{
    struct place *p = *state;
    add_member(p, answer_ok);
    p->config.user = "gw";
    p->config.password_file = "/nowhere/password";
    call(p, MAX_BYTES);
    check(p, ETCD_UNSENT, "/nowhere/password: No such file");
    assert_int_equal(atomic_load(&p->servers[0]->requests), 0);
}

static void a_watch_tells_lines(void **state)
{
    struct place *p = *state;
    add_member(p, answer_two_lines);
    watch(p);
    TURN_UNTIL(p->loop, strcmp(p->lines, "{a}|{b}|") == 0);
    assert_false(p->done);
    etcd_call_cancel(&p->call);
    assert_null(p->call);
}

static void a_watch_is_cancelled_by_what_it_told(void **state)
{
    struct place *p = *state;
    add_member(p, answer_two_lines);
    p->cancel_in_line = true;
    watch(p);
    TURN_UNTIL(p->loop, !p->call);
    assert_string_equal(p->lines, "{a}|");
    loop_turn(p->loop, 1);
    assert_false(p->done);
}

static void a_watch_that_breaks_is_uncertain(void **state)
{
    struct place *p = *state;
    add_member(p, answer_break);
    add_member(p, answer_compacted);
    watch(p);
    TURN_UNTIL(p->loop, p->done);
    check(p, ETCD_UNCERTAIN, p->urls[0]);
    watch(p);
    TURN_UNTIL(p->loop, p->done);
    check(p, ETCD_REFUSED, "compacted");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_answer),
        TEST(an_unreachable_member_is_passed_over),
        TEST(nobody_is_there),
        TEST(what_a_member_may_have_done_is_not_sent_to_another),
        TEST(refusals_are_certain),
        TEST(a_token_is_renewed),
        TEST(long_tokens_and_urls_are_sent_whole),
        TEST(a_missing_password_file_is_told),
        TEST(a_watch_tells_lines),
        TEST(a_watch_is_cancelled_by_what_it_told),
        TEST(a_watch_that_breaks_is_uncertain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
