/* What follows another table: mirrors, differences, the gate, watchers, digests; and batches of numbered changes. */
#include "changes_place.h"

#include "gateway/control/history.h"

static struct route_app *make_numbered(const char *id, const char *address, unsigned generation, uint64_t revision)
{
    struct route_app *app = make_app(id, address, generation);
    app->revision = revision;
    return app;
}

static void add(struct changes_snapshot *snapshot, struct route_app *app)
{
    struct route_problem problem;
    if (changes_snapshot_add(snapshot, app, &problem) != STATUS_OK)
        fail_msg("%s: %s", problem.field, problem.detail);
}

static char refused_text[256];

static void note_refused(void *arg, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    (void)arg;
    size_t len = strlen(refused_text);
    assert_int_not_equal(problem->status, STATUS_OK);
    snprintf(refused_text + len, sizeof refused_text - len, "%.*s:%d ", SLICE_ARG(app_id), (int)revision);
}

static struct change_result commit(struct place *place, struct changes_snapshot *snapshot, uint64_t revision)
{
    struct outcome outcome = {0};
    const struct changes_snapshot_options options = {.revision = revision, .refused = note_refused};
    refused_text[0] = '\0';
    changes_snapshot_commit(&snapshot, &options, on_done, &outcome);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_OK, "");
    return outcome.result;
}

static void expect_app(struct place *place, const char *id, uint64_t revision, const char *address)
{
    char text[IP_TEXT_MAX];
    const struct route_app *app = app_of(place, id);
    assert_non_null(app);
    assert_int_equal(app->revision, revision);
    ip_format(&app->instances[0].address, text);
    assert_string_equal(text, address);
    assert_int_equal(app->instances[0].state, ROUTE_STATE_RUNNING);
}

/* The digest that is kept must be the one of what is there. */
static void digest_one(void *arg, const struct route_app *app)
{
    *(uint64_t *)arg ^= changes_digest_of(slice_str(app->id), app->revision);
}

static uint64_t check_digest(struct place *place)
{
    uint64_t digest = 0;
    route_table_each(place->table, SLICE_NONE, 1000, digest_one, &digest);
    assert_int_equal(changes_digest(place->changes), digest);
    return digest;
}

/* ---- mirrors and differences ---- */

static void test_a_mirror_keeps_revisions(void **state)
{
    struct place *place = *state;
    put(place, "old", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    add(mirror, make_numbered("a", "10.0.0.1", 1, 41));
    add(mirror, make_numbered("b", "10.0.0.2", 1, 17));
    uint64_t epoch = history_epoch(changes_history(place->changes));
    assert_int_equal(commit(place, mirror, 50).revision, 50);
    assert_null(app_of(place, "old"));
    expect_app(place, "a", 41, "10.0.0.1");
    expect_app(place, "b", 17, "10.0.0.2");
    assert_int_equal(history_floor(changes_history(place->changes)), 50);
    assert_int_not_equal(history_epoch(changes_history(place->changes)), epoch);
    uint64_t digest = check_digest(place);
    restart(place, &rules);
    assert_int_equal(route_table_revision(place->table), 50);
    assert_int_equal(check_digest(place), digest);
    assert_int_equal(history_floor(changes_history(place->changes)), 50);
    /* The same content under another revision is another state. */
    mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    add(mirror, make_numbered("a", "10.0.0.1", 1, 42));
    assert_int_equal(commit(place, mirror, 43).revision, 43);
    expect_app(place, "a", 42, "10.0.0.1");
    assert_int_equal(route_table_app_count(place->table), 1);
    check_digest(place);
    restart(place, &rules);
    assert_int_equal(route_table_revision(place->table), 43);
}

static void test_a_difference_changes_only_what_it_names(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "b", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    put(place, "c", "10.0.0.3", 1, CHANGES_ANY_REVISION);
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("b", "10.0.0.9", 2, 12));
    changes_snapshot_delete(delta, SLICE("c"), 11);
    changes_snapshot_delete(delta, SLICE("nobody"), 13);
    assert_int_equal(commit(place, delta, 14).revision, 14);
    expect_app(place, "a", 1, "10.0.0.1");
    expect_app(place, "b", 12, "10.0.0.9");
    assert_null(app_of(place, "c"));
    assert_int_equal(history_tombstone(changes_history(place->changes), SLICE("c")), 11);
    check_digest(place);
    restart(place, &rules);
    assert_int_equal(route_table_revision(place->table), 14);
    assert_int_equal(history_tombstone(changes_history(place->changes), SLICE("c")), 11);
    check_digest(place);
}

static void test_the_last_word_of_a_difference_counts(void **state)
{
    struct place *place = *state;
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("a", "10.0.0.1", 1, 1));
    add(delta, make_numbered("a", "10.0.0.2", 1, 2));
    add(delta, make_numbered("b", "10.0.0.3", 1, 3));
    changes_snapshot_delete(delta, SLICE("b"), 4);
    changes_snapshot_delete(delta, SLICE("c"), 5);
    add(delta, make_numbered("c", "10.0.0.3", 1, 6));
    commit(place, delta, 6);
    expect_app(place, "a", 2, "10.0.0.2");
    assert_null(app_of(place, "b"));
    expect_app(place, "c", 6, "10.0.0.3");
}

/* At the source these went through states that are not in the difference any more. */
static void test_what_the_source_has_stands_whatever_was_here(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 5, CHANGES_ANY_REVISION);
    put(place, "b", "10.0.0.2", 5, CHANGES_ANY_REVISION);
    put(place, "c", "10.0.0.3", 5, CHANGES_ANY_REVISION);
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("a", "10.0.0.2", 5, 10)); /* a and b have changed places */
    add(delta, make_numbered("b", "10.0.0.1", 5, 11));
    add(delta, make_numbered("c", "10.0.0.3", 1, 12)); /* deleted and made again */
    assert_int_equal(commit(place, delta, 12).refused, 0);
    expect_app(place, "a", 10, "10.0.0.2");
    expect_app(place, "b", 11, "10.0.0.1");
    expect_app(place, "c", 12, "10.0.0.3");
    assert_int_equal(app_of(place, "c")->instances[0].generation, 1);
    check_digest(place);
    restart(place, &rules);
    expect_app(place, "a", 10, "10.0.0.2");
    expect_app(place, "b", 11, "10.0.0.1");
    check_digest(place);
}

/* What leaves the table only to come back keeps its place in it. */
static void test_a_full_table_keeps_what_changes_in_it(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 5, CHANGES_ANY_REVISION);
    put(place, "b", "10.0.0.2", 5, CHANGES_ANY_REVISION);
    put(place, "c", "10.0.0.3", 5, CHANGES_ANY_REVISION);
    for (unsigned limit = 3; limit >= 2; limit--) {
        changes_set_max_apps(place->changes, limit);
        struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
        uint64_t revision = 10 * limit;
        add(mirror, make_numbered("new", "10.0.0.9", 5, 9));
        add(mirror, make_numbered("a", "10.0.0.2", limit, revision)); /* a and b change places, older than they were */
        add(mirror, make_numbered("b", "10.0.0.1", limit, revision + 1));
        add(mirror, make_numbered("c", "10.0.0.3", limit, revision + 2));
        assert_int_equal(commit(place, mirror, revision + 2).refused, 1);
        assert_string_equal(refused_text, "new:9 ");
        expect_app(place, "a", revision, "10.0.0.2");
        expect_app(place, "b", revision + 1, "10.0.0.1");
        expect_app(place, "c", revision + 2, "10.0.0.3");
        check_digest(place);
    }
    struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    add(mirror, make_numbered("new", "10.0.0.9", 5, 9));
    add(mirror, make_numbered("c", "10.0.0.3", 1, 70));
    assert_int_equal(commit(place, mirror, 70).refused, 0); /* now there is room */
    expect_app(place, "new", 9, "10.0.0.9");
    expect_app(place, "c", 70, "10.0.0.3");
}

static void test_conflicts_are_told_one_by_one(void **state)
{
    struct place *place = *state;
    put(place, "own", "10.0.0.1", 5, CHANGES_ANY_REVISION);
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("x", "10.0.0.1", 5, 10));
    add(delta, make_numbered("y", "10.0.0.7", 5, 11));
    assert_int_equal(commit(place, delta, 11).refused, 1);
    assert_string_equal(refused_text, "x:10 ");
    expect_app(place, "own", 1, "10.0.0.1");
    expect_app(place, "y", 11, "10.0.0.7");
    assert_null(app_of(place, "x"));
    check_digest(place);
}

/* Who asked is gone, and what the callback got with it. */
static void test_conflicts_are_not_told_to_who_is_gone(void **state)
{
    struct place *place = *state;
    struct outcome forgotten = {0};
    const struct changes_snapshot_options options = {.revision = 10, .refused = note_refused};
    put(place, "own", "10.0.0.1", 5, CHANGES_ANY_REVISION);
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("x", "10.0.0.1", 5, 10));
    refused_text[0] = '\0';
    changes_snapshot_commit(&delta, &options, on_done, &forgotten);
    changes_forget(place->changes, &forgotten);
    put(place, "last", NULL, 0, CHANGES_ANY_REVISION);
    assert_int_equal(route_table_revision(place->table), 11);
    assert_int_equal(forgotten.turn, 0);
    assert_string_equal(refused_text, "");
}

static void test_the_first_to_claim_an_address_keeps_it(void **state)
{
    struct place *place = *state;
    struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    add(mirror, make_numbered("late", "10.0.0.1", 1, 9));
    add(mirror, make_numbered("early", "10.0.0.1", 1, 4));
    add(mirror, make_numbered("first", "10.0.0.1", 1, 2));
    commit(place, mirror, 10);
    assert_string_equal(refused_text, "early:4 late:9 ");
    expect_app(place, "first", 2, "10.0.0.1");
}

static void test_a_mirror_of_what_is_there_changes_nothing(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    add(mirror, make_numbered("a", "10.0.0.1", 1, 1));
    commit(place, mirror, 1);
    assert_int_equal(place->revoked, 0);
    assert_int_equal(history_epoch(changes_history(place->changes)), 0);
    put(place, "b", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    assert_int_equal(app_of(place, "b")->revision, 2);
}

/* What was in conflict, and is put later than others with greater revisions, is in no order that could be told. */
static void test_what_comes_behind_its_revision_begins_the_history_anew(void **state)
{
    struct place *place = *state;
    const struct history *history = changes_history(place->changes);
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("first", "10.0.0.1", 1, 10));
    add(delta, make_numbered("second", "10.0.0.1", 1, 11));
    commit(place, delta, 11);
    assert_string_equal(refused_text, "second:11 ");
    delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("idle", "10.0.0.2", 1, 12));
    changes_snapshot_delete(delta, SLICE("first"), 13);
    commit(place, delta, 13);
    delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("third", "10.0.0.2", 1, 9)); /* is refused once more, which changes nothing */
    commit(place, delta, 13);
    assert_string_equal(refused_text, "third:9 ");
    assert_int_equal(history_floor(history), 0);
    assert_int_equal(history_epoch(history), 0);
    delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    add(delta, make_numbered("second", "10.0.0.1", 1, 11));
    commit(place, delta, 13);
    expect_app(place, "second", 11, "10.0.0.1");
    assert_int_equal(history_floor(history), 13);
    assert_int_equal(history_epoch(history), 1);
    restart(place, &rules);
    assert_int_equal(history_floor(changes_history(place->changes)), 13);
}

/* ---- the gate ---- */

/* What was staged by then is not ours any more: the mirror would be none. */
static void check_overtaken(struct place *place, bool is_deletion)
{
    struct outcome own = {0}, outcome = {0};
    struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    const struct changes_snapshot_options options = {.revision = 9};
    uint64_t at = app_of(place, "a")->revision;
    add(mirror, make_numbered("a", "10.0.0.1", 1, at));
    add(mirror, make_numbered("b", "10.0.0.2", 1, 9));
    if (is_deletion)
        changes_delete(place->changes, SLICE("a"), CHANGES_ANY_REVISION, on_done, &own);
    else
        changes_put(place->changes, make_app("a", "10.0.0.7", 2), CHANGES_ANY_REVISION, on_done, &own);
    changes_snapshot_commit(&mirror, &options, on_done, &outcome);
    wait_for(place, &outcome);
    check(&own.result, STATUS_OK, "");
    check(&outcome.result, STATUS_REVISION_CONFLICT, "app a has changed");
    assert_null(app_of(place, "b"));
    check_digest(place);
}

static void test_a_mirror_that_was_overtaken_is_refused(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    check_overtaken(place, true);
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    check_overtaken(place, false);
    struct changes_snapshot *mirror = changes_snapshot_begin(place->changes, CHANGES_MIRROR);
    add(mirror, make_numbered("a", "10.0.0.7", 2, app_of(place, "a")->revision));
    put(place, "other", "10.0.0.8", 1, CHANGES_ANY_REVISION); /* which it replaces */
    commit(place, mirror, 9);
    assert_null(app_of(place, "other"));
    assert_non_null(app_of(place, "a"));
}

static void test_the_gate(void **state)
{
    struct place *place = *state;
    static const struct changes_gate gate = {.status = STATUS_ROUTES_FOLLOW, .detail = "follows https://source"};
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    changes_set_gate(place->changes, &gate);
    struct change_result result = put(place, "b", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_ROUTES_FOLLOW, "https://source");
    result = remove_app(place, "a", CHANGES_ANY_REVISION);
    check(&result, STATUS_ROUTES_FOLLOW, "https://source");
    result = patch(place, "a", "a-i", "{\"weight\":2}", CHANGES_ANY_REVISION);
    check(&result, STATUS_ROUTES_FOLLOW, "https://source");
    struct outcome outcome = {0};
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    changes_snapshot_commit(&snapshot, &(struct changes_snapshot_options){.strict = true}, on_done, &outcome);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_ROUTES_FOLLOW, "https://source");
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    changes_snapshot_delete(delta, SLICE("a"), 2);
    commit(place, delta, 2);
    assert_int_equal(route_table_app_count(place->table), 0);
    changes_set_gate(place->changes, NULL);
    result = put(place, "b", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
}

/* ---- watchers ---- */

struct counting {
    struct changes_watcher watcher;
    struct counting *ends; /* stops watching when told */
    unsigned told;
};

static void count_told(struct changes_watcher *watcher)
{
    struct counting *counting = CONTAINER_OF(watcher, struct counting, watcher);
    counting->told++;
    if (counting->ends)
        changes_unwatch(&counting->ends->watcher);
}

static void test_watchers(void **state)
{
    struct place *place = *state;
    struct counting watching[3] = {{.told = 0}};
    changes_unwatch(&watching[0].watcher);
    for (size_t i = 0; i < 3; i++) {
        watching[i].watcher.changed = count_told;
        changes_watch(place->changes, &watching[i].watcher);
    }
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    loop_turn(place->loop, 0);
    watching[1].ends = &watching[2];
    put(place, "a", "10.0.0.2", 2, CHANGES_ANY_REVISION);
    loop_turn(place->loop, 0);
    watching[1].ends = &watching[1];
    put(place, "a", "10.0.0.3", 3, CHANGES_ANY_REVISION);
    loop_turn(place->loop, 0);
    put(place, "a", "10.0.0.3", 2, CHANGES_ANY_REVISION); /* refused: nothing changes */
    loop_turn(place->loop, 0);
    assert_int_equal(watching[0].told, 3);
    assert_int_equal(watching[1].told, 3);
    assert_int_equal(watching[2].told, 1);
    changes_unwatch(&watching[0].watcher);
}

/* ---- batches ---- */

static struct changes_line *add_line(struct changes_batch *batch, uint64_t revision, const char *id,
                                     struct route_app *app)
{
    struct changes_line *line = changes_batch_add(batch);
    line->revision = revision;
    line->app = app;
    snprintf(line->app_id, sizeof line->app_id, "%s", id);
    return line;
}

static char outcome_text[64];

static void on_batch_done(void *arg, const struct change_result *result)
{
    for (size_t i = 0; result->batch && i < result->batch->count; i++)
        outcome_text[i] = "AIR"[result->batch->lines[i].outcome];
    on_done(arg, result);
}

/* One letter a line: applied, ignored, refused. */
static const char *submit(struct place *place, struct changes_batch *batch)
{
    struct outcome outcome = {0};
    memset(outcome_text, 0, sizeof outcome_text);
    changes_submit(place->changes, &batch, CHANGES_ANY_REVISION, on_batch_done, &outcome);
    assert_null(batch);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_OK, "");
    assert_int_equal(outcome.result.revision, route_table_revision(place->table));
    return outcome_text;
}

static void test_batch(void **state)
{
    struct place *place = *state;
    struct changes_batch *batch = changes_batch_new();
    add_line(batch, 1, "a", make_app("a", "10.0.0.1", 1));
    add_line(batch, 2, "b", make_app("b", "10.0.0.1", 1)); /* a has the address */
    add_line(batch, 3, "c", make_app("c", "10.0.0.3", 1));
    add_line(batch, 4, "nobody", NULL);
    add_line(batch, 5, "", NULL)->problem.status = STATUS_INVALID_JSON;
    add_line(batch, 6, "c", NULL);
    add_line(batch, 3, "c", make_app("c", "10.0.0.3", 1)); /* a late repeat, in the same batch */
    add_line(batch, 8, "d", make_app("d", "10.0.0.4", 1));
    add_line(batch, 0, "e", make_app("e", "10.0.0.5", 1));
    assert_string_equal(submit(place, batch), "ARAIRAIRA");
    assert_int_equal(route_table_revision(place->table), 7);
    expect_app(place, "e", 7, "10.0.0.5");
    assert_null(app_of(place, "c"));
    assert_int_equal(route_table_app_count(place->table), 2);
    check_digest(place);
    restart(place, &rules);
    assert_int_equal(route_table_revision(place->table), 7);
    batch = changes_batch_new();
    add_line(batch, 3, "c", make_app("c", "10.0.0.3", 1));
    add_line(batch, 7, "e", make_app("e", "10.0.0.5", 1));
    assert_string_equal(submit(place, batch), "II");
}

/* What only uses up its revision is stored too: else it would be given again after a restart. */
static void test_a_refused_line_moves_the_revision(void **state)
{
    struct place *place = *state;
    struct changes_batch *batch = changes_batch_new();
    add_line(batch, 1, "a", make_app("a", "127.0.0.1", 1));
    assert_string_equal(submit(place, batch), "R");
    restart(place, &rules);
    assert_int_equal(route_table_revision(place->table), 1);
}

static void test_a_deleted_app_of_the_store_only(void **state)
{
    struct place *place = *state;
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    restart(place, &narrow_rules);
    assert_null(app_of(place, "far"));
    struct changes_batch *batch = changes_batch_new();
    add_line(batch, 2, "far", NULL);
    assert_string_equal(submit(place, batch), "A");
    assert_int_equal(history_tombstone(changes_history(place->changes), SLICE("far")), 2);
    restart(place, &rules);
    assert_null(app_of(place, "far"));
    assert_int_equal(route_table_revision(place->table), 2);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_a_mirror_keeps_revisions),
        T(test_a_difference_changes_only_what_it_names),
        T(test_the_last_word_of_a_difference_counts),
        T(test_what_the_source_has_stands_whatever_was_here),
        T(test_a_full_table_keeps_what_changes_in_it),
        T(test_conflicts_are_told_one_by_one),
        T(test_conflicts_are_not_told_to_who_is_gone),
        T(test_the_first_to_claim_an_address_keeps_it),
        T(test_a_mirror_of_what_is_there_changes_nothing),
        T(test_what_comes_behind_its_revision_begins_the_history_anew),
        T(test_a_mirror_that_was_overtaken_is_refused),
        T(test_the_gate),
        T(test_watchers),
        T(test_batch),
        T(test_a_refused_line_moves_the_revision),
        T(test_a_deleted_app_of_the_store_only),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
