/* sync: what comes while a commit is on its way: another source, none, other rules, a heartbeat of the past. */
#include "changes_place.h"

#include "../../../gateway/control/sync_internal.h"
#include "control/http_server.h"

enum { MAX_WATCHES = 4 };

/* A control API whose answers are written down. */
struct source {
    const char *snapshot; /* its lines */
    uint64_t revision;
    const char *watches[MAX_WATCHES]; /* the lines of each watch, which then stays open */
    _Atomic bool holds;               /* the end of the snapshot is kept back */
    _Atomic size_t snapshots;         /* asked for */
    _Atomic size_t watched;
    struct http_server *server;
};

struct sync_place {
    struct place *place;
    struct fetcher *fetcher;
    struct sync *sync;
};

static bool send_chunk(struct http_connection *c, const char *text)
{
    char head[32];
    snprintf(head, sizeof head, "%zx\r\n", strlen(text));
    return *text == '\0' || (http_send_text(c, head) && http_send_text(c, text) && http_send_text(c, "\r\n"));
}

static bool answer_snapshot(struct http_connection *c, struct source *source)
{
    char head[128];
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nETag: \"%ju\"\r\nTransfer-Encoding: chunked\r\n\r\n",
             (uintmax_t)source->revision);
    atomic_fetch_add(&source->snapshots, 1);
    if (!http_send_text(c, head) || !send_chunk(c, source->snapshot))
        return false;
    if (atomic_load(&source->holds)) {
        http_wait_for_end(c);
        return false;
    }
    return http_send_text(c, "0\r\n\r\n");
}

static bool answer(struct http_connection *c, const char *request)
{
    struct source *source = c->server->arg;
    if (strncmp(request, "GET /v1/snapshot ", strlen("GET /v1/snapshot ")) == 0)
        return answer_snapshot(c, source);
    size_t number = atomic_fetch_add(&source->watched, 1);
    const char *lines = number < MAX_WATCHES ? source->watches[number] : NULL;
    if (http_send_text(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") && send_chunk(c, lines ? lines : ""))
        http_wait_for_end(c);
    return false;
}

static void serve(struct source *source)
{
    source->server = http_server_start(answer, source, NULL, NULL);
    source->server->url[strlen(source->server->url) - 1] = '\0'; /* without the slash at its end */
}

static int sync_set_up(void **state)
{
    struct sync_place *p = test_calloc(1, sizeof *p);
    void *place;
    signal(SIGPIPE, SIG_IGN);
    set_up(&place);
    p->place = place;
    p->fetcher = fetcher_new(p->place->loop);
    p->sync = sync_new(p->place->loop, p->fetcher, p->place->changes, p->place->table);
    *state = p;
    return 0;
}

static int sync_tear_down(void **state)
{
    struct sync_place *p = *state;
    void *place = p->place;
    sync_free(&p->sync);
    fetcher_free(&p->fetcher);
    tear_down(&place);
    test_free(p);
    return 0;
}

static void follow(struct sync_place *p, const struct source *source)
{
    const struct sync_options options = {
        .source = source ? source->server->url : NULL, .connect_ms = 5000, .idle_ms = SOCKETS_DEADLINE_MS};
    sync_configure(p->sync, &options);
}

static void wait_for_state(struct sync_place *p, enum sync_state state)
{
    TURN_UNTIL(p->place->loop, p->sync->state == state);
}

#define APP(id, address, revision)                                                                                     \
    "{\"app_id\":\"" id "\",\"revision\":" revision ",\"instances\":[{\"instance_id\":\"" id                           \
    "-i\",\"address\":\"" address "\",\"generation\":1}]}"
#define BEAT(revision, apps)                                                                                           \
    "{\"revision\":" revision ",\"op\":\"heartbeat\",\"apps\":" apps ",\"digest\":\"0000000000000000\"}\n"

static void source_changes_during_the_commit(void **state)
{
    struct sync_place *p = *state;
    struct source one = {.snapshot = APP("a", "10.0.0.1", "9") "\n" APP("b", "10.0.0.2", "8") "\n", .revision = 9};
    struct source other = {.snapshot = APP("c", "10.0.0.3", "5") "\n", .revision = 5, .watches = {BEAT("5", "1")}};
    serve(&one);
    serve(&other);
    follow(p, &one);
    wait_for_state(p, SYNC_APPLYING);
    follow(p, &other);
    wait_for_state(p, SYNC_FOLLOWING);
    assert_int_equal(route_table_app_count(p->place->table), 1);
    assert_non_null(app_of(p->place, "c"));
    assert_int_equal(route_table_revision(p->place->table), 5);
    assert_int_equal(atomic_load(&one.watched), 0);
    assert_int_equal(atomic_load(&other.snapshots), 1);
    http_server_stop(&one.server);
    http_server_stop(&other.server);
}

static void source_goes_during_the_commit(void **state)
{
    struct sync_place *p = *state;
    struct source source = {.snapshot = APP("a", "10.0.0.1", "9") "\n", .revision = 9, .watches = {BEAT("9", "1")}};
    serve(&source);
    follow(p, &source);
    wait_for_state(p, SYNC_APPLYING);
    follow(p, NULL);
    assert_int_equal(p->sync->state, SYNC_OFF);
    TURN_UNTIL(p->place->loop, !p->sync->committing);
    assert_int_equal(p->sync->state, SYNC_OFF);
    assert_non_null(app_of(p->place, "a")); /* what was being committed is there */
    assert_false(p->sync->was_read);
    assert_int_equal(put(p->place, "own", "10.0.0.2", 1, CHANGES_ANY_REVISION).status, STATUS_OK);
    follow(p, &source);
    wait_for_state(p, SYNC_FOLLOWING);
    assert_null(app_of(p->place, "own"));
    assert_int_equal(atomic_load(&source.snapshots), 2);
    http_server_stop(&source.server);
}

/* Lines that come after the source was given up belong to nothing any more. */
static void source_goes_during_the_commit_of_a_difference(void **state)
{
    struct sync_place *p = *state;
    struct source source = {
        .snapshot = APP("a", "10.0.0.1", "9") "\n",
        .revision = 9,
        .watches = {"{\"revision\":10,\"op\":\"put\",\"app\":" APP("b", "10.0.0.2", "10") "}\n" BEAT("10", "2")},
    };
    serve(&source);
    follow(p, &source);
    wait_for_state(p, SYNC_CATCHING_UP);
    TURN_UNTIL(p->place->loop, p->sync->committing);
    follow(p, NULL);
    assert_null(p->sync->fetch);
    assert_int_equal(p->sync->state, SYNC_OFF);
    TURN_UNTIL(p->place->loop, !p->sync->committing);
    assert_non_null(app_of(p->place, "b"));
    http_server_stop(&source.server);
}

static void check_rules_are_applied(struct sync_place *p, struct source *source, bool during_load)
{
    changes_set_rules(p->place->changes, &narrow_rules);
    atomic_store(&source->holds, during_load);
    serve(source);
    follow(p, source);
    if (during_load)
        TURN_UNTIL(p->place->loop, p->sync->verdicts.count > 0);
    else
        wait_for_state(p, SYNC_APPLYING);
    atomic_store(&source->holds, false);
    changes_set_rules(p->place->changes, &rules);
    sync_rules_changed(p->sync);
    wait_for_state(p, SYNC_FOLLOWING);
    assert_non_null(app_of(p->place, "a"));
    assert_non_null(app_of(p->place, "b"));
    assert_int_equal(p->sync->refused.count + p->sync->unnamed, 0);
    http_server_stop(&source->server);
}

static const char two_apps[] = APP("a", "10.9.0.1", "8") "\n" APP("b", "10.0.0.2", "9") "\n";

static void rules_change_during_the_load(void **state)
{
    struct source source = {.snapshot = two_apps, .revision = 9, .watches = {BEAT("9", "2")}};
    check_rules_are_applied(*state, &source, true);
}

static void rules_change_during_the_commit(void **state)
{
    struct source source = {.snapshot = two_apps, .revision = 9, .watches = {BEAT("9", "2")}};
    check_rules_are_applied(*state, &source, false);
}

/* It comes in one piece with the one before, which is still being committed. */
static void heartbeat_goes_back_during_the_commit(void **state)
{
    struct sync_place *p = *state;
    struct source source = {
        .snapshot = APP("a", "10.0.0.1", "5") "\n",
        .revision = 5,
        .watches = {"{\"revision\":10,\"op\":\"put\",\"app\":" APP("b", "10.0.0.2", "10") "}\n" BEAT("10", "2")
                        BEAT("7", "2"),
                    BEAT("5", "1")},
    };
    serve(&source);
    follow(p, &source);
    wait_for_state(p, SYNC_FOLLOWING);
    assert_int_equal(atomic_load(&source.snapshots), 2);
    assert_int_equal(route_table_revision(p->place->table), 5);
    assert_null(app_of(p->place, "b"));
    http_server_stop(&source.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(source_changes_during_the_commit, sync_set_up, sync_tear_down),
        cmocka_unit_test_setup_teardown(source_goes_during_the_commit, sync_set_up, sync_tear_down),
        cmocka_unit_test_setup_teardown(source_goes_during_the_commit_of_a_difference, sync_set_up, sync_tear_down),
        cmocka_unit_test_setup_teardown(rules_change_during_the_load, sync_set_up, sync_tear_down),
        cmocka_unit_test_setup_teardown(rules_change_during_the_commit, sync_set_up, sync_tear_down),
        cmocka_unit_test_setup_teardown(heartbeat_goes_back_during_the_commit, sync_set_up, sync_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
