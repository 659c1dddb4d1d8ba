/* fetch: against a real server: what arrives, how it ends, who may be trusted, and what happens when it is stopped. */
#include "gateway/control/fetch.h"

#include "control/http_server.h"

#include <sys/stat.h>

enum { CONNECT_MS = 5000, IDLE_MS = 10000, MANY_BYTES = 4 << 20 };

static struct counters counters;

struct place {
    char dir[64];
    struct loop *loop;
    struct fetcher *fetcher;
    struct http_server *server;
};

static int set_up(void **state)
{
    struct place *place = test_calloc(1, sizeof *place);
    signal(SIGPIPE, SIG_IGN);
    snprintf(place->dir, sizeof place->dir, "/tmp/fetch-test-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    place->loop = loop_new(&counters);
    place->fetcher = fetcher_new(place->loop);
    *state = place;
    return 0;
}

static const char *path_in(const struct place *place, const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", place->dir, name);
    return path;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"ca.pem",     "ca.key",    "server.pem", "server.key", "client.pem",
                                        "client.key", "other.pem", "other.key",  "token",      "socket"};
    struct place *place = *state;
    fetcher_free(&place->fetcher);
    fetcher_free(&place->fetcher);
    if (place->server)
        http_server_stop(&place->server);
    loop_free(&place->loop);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path_in(place, names[i]));
    assert_return_code(rmdir(place->dir), errno);
    test_free(place);
    return 0;
}

/* ---- what a fetch tells ---- */

struct told {
    struct place *place;
    struct fetch *fetch;
    size_t heads, pieces;
    int status;
    bool is_delimited;
    char etag[32];
    char content_type[64];
    struct inbox body;
    bool done;
    enum fetch_end end;
    int end_status;
    char text[FETCH_ERROR_TEXT_MAX];
    size_t pause_after; /* pieces; 0: never */
    size_t cancel_after;
};

static void on_head(void *arg, const struct fetch_head *head)
{
    struct told *told = arg;
    assert_false(told->done);
    told->heads++;
    told->status = head->status;
    told->is_delimited = head->is_delimited;
    snprintf(told->etag, sizeof told->etag, "%.*s", SLICE_ARG(head->etag));
    snprintf(told->content_type, sizeof told->content_type, "%.*s", SLICE_ARG(head->content_type));
}

static void on_data(void *arg, struct slice piece)
{
    struct told *told = arg;
    assert_false(told->done);
    assert_int_equal(told->heads, 1);
    inbox_add(&told->body, piece.ptr, piece.len);
    told->pieces++;
    if (told->pieces == told->pause_after)
        fetch_pause(told->fetch);
    if (told->pieces == told->cancel_after)
        fetch_cancel(&told->fetch);
}

static void on_done(void *arg, const struct fetch_result *result)
{
    struct told *told = arg;
    assert_false(told->done);
    told->done = true;
    told->fetch = NULL;
    told->end = result->end;
    told->end_status = result->status;
    snprintf(told->text, sizeof told->text, "%s", result->text);
}

static const struct fetch_events events = {.head = on_head, .data = on_data, .done = on_done};

static struct fetch_request get(const char *url)
{
    return (struct fetch_request){.method = "GET", .url = url, .connect_ms = CONNECT_MS, .idle_ms = IDLE_MS};
}

static void start(struct place *place, const struct fetch_request *request, struct told *told)
{
    told->place = place;
    told->fetch = fetch_start(place->fetcher, request, &events, told);
    assert_false(told->done); /* never inside the call */
}

static void finish(struct place *place, const struct fetch_request *request, struct told *told)
{
    start(place, request, told);
    TURN_UNTIL(place->loop, told->done);
}

static void check_end(const struct told *told, enum fetch_end end, const char *fragment)
{
    if (told->end != end || !strstr(told->text, fragment))
        fail_msg("end %d, not %d: %s", (int)told->end, (int)end, told->text);
}

static void assert_request_has(struct http_server *server, const char *text)
{
    pthread_mutex_lock(&server->lock);
    bool has = strstr(server->last_request, text) != NULL;
    if (!has)
        print_error("%s\n", server->last_request);
    pthread_mutex_unlock(&server->lock);
    assert_true(has);
}

/* Sends the text that is the server's argument; one without a length or chunks ends with the connection. */
static bool answer_text(struct http_connection *c, const char *request)
{
    const char *text = c->server->arg;
    (void)request;
    return http_send_text(c, text) && (strstr(text, "Content-Length") || strstr(text, "chunked"));
}

static void serve(struct place *place, http_answer_cb answer, const char *text)
{
    union {
        const char *in;
        void *out;
    } arg = {.in = text};
    place->server = http_server_start(answer, arg.out, NULL, NULL);
}

/* ---- responses ---- */

static void response_arrives_whole(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_text,
          "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\neTag: \"41\"\r\nContent-Length: 5\r\n"
          "Content-Type: application/x-ndjson\r\n\r\nhello");
    struct fetch_request request = get(place->server->url);
    request.fields = (const char *const[]){"Accept: application/x-ndjson", NULL};
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    finish(place, &request, &told);
    unsetenv("http_proxy");
    check_end(&told, FETCH_COMPLETE, "");
    assert_int_equal(told.heads, 1);
    assert_int_equal(told.status, 200);
    assert_int_equal(told.end_status, 200);
    assert_true(told.is_delimited);
    assert_string_equal(told.etag, "\"41\"");
    assert_string_equal(told.content_type, "application/x-ndjson");
    assert_string_equal(told.body.bytes, "hello");
    assert_request_has(place->server, "GET / HTTP/1.1\r\n");
    assert_request_has(place->server, "\r\nAccept: application/x-ndjson\r\n");
    assert_request_has(place->server, "\r\nUser-Agent: phala-gateway/");
    inbox_clear(&told.body);
}

static void head_comes_before_the_first_byte(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    struct fetch_request request = get(place->server->url);
    start(place, &request, &told);
    TURN_UNTIL(place->loop, told.heads == 1);
    assert_true(told.is_delimited);
    assert_int_equal(told.pieces, 0);
    assert_false(told.done);
}

static void error_status_is_complete_too(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_text, "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n");
    struct fetch_request request = get(place->server->url);
    finish(place, &request, &told);
    check_end(&told, FETCH_COMPLETE, "");
    assert_int_equal(told.status, 410);
    assert_int_equal(told.pieces, 0);
}

static void redirect_is_not_followed(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_text, "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    struct fetch_request request = get(place->server->url);
    finish(place, &request, &told);
    check_end(&told, FETCH_COMPLETE, "");
    assert_int_equal(told.status, 302);
    turn_some(place->loop);
    assert_int_equal(atomic_load(&place->server->requests), 1);
}

static void body_is_sent(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false}, again = {.done = false};
    serve(place, answer_text, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    struct fetch_request request = get(place->server->url);
    request.method = "POST";
    request.has_body = true;
    request.body = SLICE("{\"key\":1}");
    finish(place, &request, &told);
    assert_request_has(place->server, "POST / HTTP/1.1\r\n");
    assert_request_has(place->server, "\r\nContent-Type: application/json\r\n");
    assert_request_has(place->server, "\r\nContent-Length: 9\r\n");
    assert_request_has(place->server, "\r\n\r\n{\"key\":1}");
    request.fields = (const char *const[]){"content-type: text/plain", "Authorization: abc", NULL};
    finish(place, &request, &again);
    assert_request_has(place->server, "\r\ncontent-type: text/plain\r\n");
    assert_request_has(place->server, "\r\nAuthorization: abc\r\n");
    assert_int_equal(http_server_connections(place->server), 1); /* kept alive */
    inbox_clear(&told.body);
    inbox_clear(&again.body);
}

/* ---- ends that are no ends ---- */

static void undelimited_body_is_said(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_text, "HTTP/1.1 200 OK\r\n\r\nhello");
    struct fetch_request request = get(place->server->url);
    finish(place, &request, &told);
    check_end(&told, FETCH_COMPLETE, "");
    assert_false(told.is_delimited);
    inbox_clear(&told.body);
}

static bool answer_and_close(struct http_connection *c, const char *request)
{
    answer_text(c, request);
    return false;
}

static void broken_responses(void **state)
{
    static const char *const texts[] = {
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    };
    struct place *place = *state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct told told = {.done = false};
        serve(place, answer_and_close, texts[i]);
        struct fetch_request request = get(place->server->url);
        finish(place, &request, &told);
        check_end(&told, FETCH_BROKEN, "");
        assert_true(told.text[0]);
        http_server_stop(&place->server);
        inbox_clear(&told.body);
    }
}

static void nobody_listens(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false}, named = {.done = false}, local = {.done = false};
    uint16_t port;
    char url[64];
    int fd = listen_any(&port);
    close(fd);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
    struct fetch_request request = get(url);
    finish(place, &request, &told);
    check_end(&told, FETCH_UNREACHABLE, "connect");
    assert_int_equal(told.end_status, 0);
    request = get("http://no-such-host.invalid/");
    finish(place, &request, &named);
    check_end(&named, FETCH_UNREACHABLE, "no-such-host.invalid");
    request = get("http://localhost/");
    request.unix_socket = path_in(place, "socket");
    finish(place, &request, &local);
    check_end(&local, FETCH_UNREACHABLE, "No such file");
}

static bool say_nothing(struct http_connection *c, const char *request)
{
    (void)request;
    http_wait_for_end(c);
    return false;
}

static void silence_ends(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, say_nothing, "");
    struct fetch_request request = get(place->server->url);
    request.connect_ms = request.idle_ms = 100;
    finish(place, &request, &told);
    check_end(&told, FETCH_SILENT, "100 ms");
}

static void silence_in_the_body_ends(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_text, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc");
    struct fetch_request request = get(place->server->url);
    request.idle_ms = 300;
    finish(place, &request, &told);
    check_end(&told, FETCH_SILENT, "");
    assert_int_equal(told.end_status, 200);
    assert_string_equal(told.body.bytes, "abc");
    inbox_clear(&told.body);
}

static void tls_that_never_answers_ends(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    uint16_t port;
    char url[64];
    int fd = listen_any(&port); /* the kernel accepts */
    snprintf(url, sizeof url, "https://127.0.0.1:%u/", port);
    struct fetch_request request = get(url);
    request.connect_ms = 300;
    finish(place, &request, &told);
    check_end(&told, FETCH_UNREACHABLE, "time");
    close(fd);
}

/* ---- back pressure ---- */

static bool answer_many(struct http_connection *c, const char *request)
{
    char block[4096];
    (void)request;
    if (!http_send_text(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
        return false;
    for (size_t sent = 0; sent < MANY_BYTES; sent += sizeof block) {
        memset(block, (int)('a' + sent / sizeof block % 26), sizeof block);
        if (!http_send_text(c, "1000\r\n") || !http_send(c, block, sizeof block) || !http_send_text(c, "\r\n"))
            return false;
    }
    return http_send_text(c, "0\r\n\r\n");
}

static void assert_many(const struct told *told)
{
    assert_int_equal(told->body.len, MANY_BYTES);
    for (size_t i = 0; i < MANY_BYTES; i += 1024)
        assert_int_equal(told->body.bytes[i], 'a' + i / 4096 % 26);
}

static void pause_holds_data_back(void **state)
{
    struct place *place = *state;
    struct told told = {.pause_after = 3};
    serve(place, answer_many, "");
    struct fetch_request request = get(place->server->url);
    request.idle_ms = 200;
    start(place, &request, &told);
    TURN_UNTIL(place->loop, told.pieces == 3);
    for (uint64_t begun = sockets_now_ms(); sockets_now_ms() < begun + 600;) /* longer than idle_ms */
        loop_turn(place->loop, 10);
    assert_int_equal(told.pieces, 3);
    assert_false(told.done);
    told.pause_after = 700;
    fetch_resume(told.fetch);
    fetch_resume(told.fetch);
    TURN_UNTIL(place->loop, told.pieces == 700);
    fetch_resume(told.fetch);
    TURN_UNTIL(place->loop, told.done);
    check_end(&told, FETCH_COMPLETE, "");
    assert_many(&told);
    inbox_clear(&told.body);
}

static void pause_from_outside(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_many, "");
    struct fetch_request request = get(place->server->url);
    start(place, &request, &told);
    fetch_pause(told.fetch);
    TURN_UNTIL(place->loop, told.heads == 1);
    turn_some(place->loop);
    assert_int_equal(told.pieces, 0);
    fetch_resume(told.fetch);
    TURN_UNTIL(place->loop, told.done);
    assert_many(&told);
    inbox_clear(&told.body);
}

/* Other work of the loop must get its turn. */
static void one_turn_takes_little(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve(place, answer_many, "");
    struct fetch_request request = get(place->server->url);
    start(place, &request, &told);
    while (!told.done) {
        size_t before = told.body.len;
        loop_turn(place->loop, 10);
        assert_true(told.body.len - before <= MANY_BYTES / 8);
    }
    assert_many(&told);
    inbox_clear(&told.body);
}

/* ---- stopping and chaining ---- */

static void cancelled_ones_are_silent(void **state)
{
    struct place *place = *state;
    struct told inside = {.cancel_after = 2}, at_once = {.done = false}, later = {.pause_after = 1};
    serve(place, answer_many, "");
    struct fetch_request request = get(place->server->url);
    start(place, &request, &inside);
    start(place, &request, &at_once);
    start(place, &request, &later);
    fetch_cancel(&at_once.fetch);
    assert_null(at_once.fetch);
    fetch_cancel(&at_once.fetch);
    TURN_UNTIL(place->loop, !inside.fetch && later.pieces > 0);
    fetch_cancel(&later.fetch);
    turn_some(place->loop);
    assert_int_equal(inside.pieces, 2);
    assert_int_equal(at_once.heads, 0);
    assert_false(inside.done);
    assert_false(at_once.done);
    assert_false(later.done);
    inbox_clear(&inside.body);
    inbox_clear(&later.body);
}

static void on_done_start_next(void *arg, const struct fetch_result *result)
{
    struct told *told = arg;
    struct fetch_request request = get(told->place->server->url);
    assert_int_equal(result->end, FETCH_COMPLETE);
    told[1].place = told->place;
    told[1].fetch = fetch_start(told->place->fetcher, &request, &events, &told[1]);
    fetch_cancel(&told[2].fetch);
}

static void done_may_start_and_cancel(void **state)
{
    static const struct fetch_events chain = {.head = on_head, .data = on_data, .done = on_done_start_next};
    struct place *place = *state;
    struct told told[3] = {{.place = place}};
    serve(place, answer_text, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    struct http_server *silent = http_server_start(say_nothing, NULL, NULL, NULL);
    struct fetch_request request = get(silent->url);
    start(place, &request, &told[2]);
    request.url = place->server->url;
    told[0].fetch = fetch_start(place->fetcher, &request, &chain, &told[0]);
    TURN_UNTIL(place->loop, told[1].done);
    turn_some(place->loop);
    assert_false(told[2].done);
    http_server_stop(&silent);
    inbox_clear(&told[0].body);
    inbox_clear(&told[1].body);
}

static void fetcher_ends_in_the_middle(void **state)
{
    struct place *place = *state;
    struct told told[3] = {{.pause_after = 1}};
    serve(place, answer_many, "");
    struct fetch_request request = get(place->server->url);
    start(place, &request, &told[0]);
    TURN_UNTIL(place->loop, told[0].pieces == 1);
    start(place, &request, &told[1]);
    start(place, &request, &told[2]);
    fetch_cancel(&told[2].fetch);
    fetcher_free(&place->fetcher);
    turn_some(place->loop);
    assert_false(told[0].done || told[1].done);
    inbox_clear(&told[0].body);
}

/* ---- who is who ---- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

static struct identity issue(const struct place *place, const char *name, const char *alt, const struct identity *ca)
{
    char file[64];
    struct identity made = {.key = make_key("P-256")};
    made.cert = make_certificate(&(struct cert_recipe){.common_name = name,
                                                       .names = alt,
                                                       .key = made.key,
                                                       .issuer = ca ? ca->cert : NULL,
                                                       .issuer_key = ca ? ca->key : NULL,
                                                       .is_ca = !ca});
    snprintf(file, sizeof file, "%s.pem", name);
    write_chain(path_in(place, file), (X509 *[]){made.cert, NULL});
    snprintf(file, sizeof file, "%s.key", name);
    write_key(path_in(place, file), made.key, NULL);
    return made;
}

static void drop(struct identity *identity)
{
    X509_free(identity->cert);
    EVP_PKEY_free(identity->key);
}

/* An HTTPS server of a CA of its own, for this name; with client certificates of the CA if wanted. */
static void serve_tls(struct place *place, const char *alt, bool wants_client)
{
    static char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    struct identity ca = issue(place, "ca", NULL, NULL), server = issue(place, "server", alt, &ca);
    struct identity client = issue(place, "client", NULL, &ca), other = issue(place, "other", "IP:127.0.0.1", NULL);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(tls, server.cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls, server.key), 1);
    if (wants_client) {
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        assert_int_equal(SSL_CTX_load_verify_file(tls, path_in(place, "ca.pem")), 1);
    }
    drop(&ca);
    drop(&server);
    drop(&client);
    drop(&other);
    place->server = http_server_start(answer_text, answer, tls, NULL);
}

static void tls_by_a_given_ca(void **state)
{
    struct place *place = *state;
    struct told good = {.done = false}, bad = {.done = false}, system = {.done = false}, missing = {.done = false};
    serve_tls(place, "IP:127.0.0.1", false);
    struct fetch_request request = get(place->server->url);
    request.tls.ca = path_in(place, "ca.pem");
    finish(place, &request, &good);
    check_end(&good, FETCH_COMPLETE, "");
    assert_string_equal(good.body.bytes, "ok");
    request.tls.ca = path_in(place, "other.pem");
    finish(place, &request, &bad);
    check_end(&bad, FETCH_UNREACHABLE, "certificate");
    request.tls.ca = NULL;
    finish(place, &request, &system);
    check_end(&system, FETCH_UNREACHABLE, "certificate");
    request.tls.ca = path_in(place, "nothing.pem");
    finish(place, &request, &missing);
    check_end(&missing, FETCH_UNREACHABLE, "nothing.pem");
    inbox_clear(&good.body);
}

static void tls_of_another_name(void **state)
{
    struct place *place = *state;
    struct told told = {.done = false};
    serve_tls(place, "DNS:other.example", false);
    struct fetch_request request = get(place->server->url);
    request.tls.ca = path_in(place, "ca.pem");
    finish(place, &request, &told);
    check_end(&told, FETCH_UNREACHABLE, "127.0.0.1");
    assert_int_equal(atomic_load(&place->server->requests), 0);
}

static void client_certificate_is_shown(void **state)
{
    struct place *place = *state;
    struct told none = {.done = false}, good = {.done = false}, locked = {.done = false};
    serve_tls(place, "IP:127.0.0.1", true);
    struct fetch_request request = get(place->server->url);
    request.tls.ca = path_in(place, "ca.pem");
    finish(place, &request, &none);
    assert_int_not_equal(none.end, FETCH_COMPLETE);
    assert_non_null(strstr(none.text, "alert"));
    request.tls.certificate = path_in(place, "client.pem");
    request.tls.private_key = path_in(place, "client.key");
    finish(place, &request, &good);
    check_end(&good, FETCH_COMPLETE, "");
    EVP_PKEY *key = make_key("P-256");
    write_key(path_in(place, "client.key"), key, "secret"); /* must not ask anybody for it */
    EVP_PKEY_free(key);
    fetcher_free(&place->fetcher);
    place->fetcher = fetcher_new(place->loop);
    finish(place, &request, &locked);
    check_end(&locked, FETCH_UNREACHABLE, "client.key");
    inbox_clear(&good.body);
}

static void token_is_sent(void **state)
{
    struct place *place = *state;
    struct told good = {.done = false}, again = {.done = false}, none = {.done = false}, empty = {.done = false};
    serve(place, answer_text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    struct fetch_request request = get(place->server->url);
    request.token_file = path_in(place, "token");
    finish(place, &request, &none);
    check_end(&none, FETCH_UNREACHABLE, "token");
    assert_int_equal(none.heads, 0);
    write_bytes(request.token_file, "0123456789abcdef\n", 17);
    finish(place, &request, &good);
    assert_request_has(place->server, "\r\nAuthorization: Bearer 0123456789abcdef\r\n");
    write_bytes(request.token_file, "fedcba9876543210", 16);
    finish(place, &request, &again);
    assert_request_has(place->server, "\r\nAuthorization: Bearer fedcba9876543210\r\n");
    write_bytes(request.token_file, "short\n", 6);
    finish(place, &request, &empty);
    check_end(&empty, FETCH_UNREACHABLE, "token");
    assert_int_equal(atomic_load(&place->server->requests), 2);
}

static void unix_socket_is_spoken_to(void **state)
{
    static char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    struct place *place = *state;
    struct told told = {.done = false};
    place->server = http_server_start(answer_text, answer, NULL, path_in(place, "socket"));
    struct fetch_request request = get("http://localhost/v1/snapshot");
    request.unix_socket = path_in(place, "socket");
    finish(place, &request, &told);
    check_end(&told, FETCH_COMPLETE, "");
    assert_request_has(place->server, "GET /v1/snapshot HTTP/1.1\r\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(response_arrives_whole),
        TEST(head_comes_before_the_first_byte),
        TEST(error_status_is_complete_too),
        TEST(redirect_is_not_followed),
        TEST(body_is_sent),
        TEST(undelimited_body_is_said),
        TEST(broken_responses),
        TEST(nobody_listens),
        TEST(silence_ends),
        TEST(silence_in_the_body_ends),
        TEST(tls_that_never_answers_ends),
        TEST(pause_holds_data_back),
        TEST(pause_from_outside),
        TEST(one_turn_takes_little),
        TEST(cancelled_ones_are_silent),
        TEST(done_may_start_and_cancel),
        TEST(fetcher_ends_in_the_middle),
        TEST(tls_by_a_given_ca),
        TEST(tls_of_another_name),
        TEST(client_certificate_is_shown),
        TEST(token_is_sent),
        TEST(unix_socket_is_spoken_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
