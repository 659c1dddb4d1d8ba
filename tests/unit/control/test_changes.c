/* changes: order, group commit, who is refused and who is not, what is visible when, and what a restart finds. */
#include "changes_place.h"

#include <signal.h>
#include <sys/resource.h>

enum { MANY = 300 };

/* ---- single changes ---- */

static void put_get_delete(void **state)
{
    struct place *place = *state;
    struct change_result result = put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_true(result.created);
    assert_int_equal(result.revision, 1);
    assert_int_equal(app_of(place, "a")->revision, 1);
    result = put(place, "a", "10.0.0.2", 2, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_false(result.created);
    assert_int_equal(result.revision, 2);
    assert_int_equal(place->revoked, 1);
    result = remove_app(place, "a", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_null(app_of(place, "a"));
    assert_int_equal(place->revoked, 2);
    result = remove_app(place, "a", CHANGES_ANY_REVISION);
    check(&result, STATUS_APP_UNKNOWN, "a");
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), 0);
    assert_int_equal(route_table_revision(place->table), 3);
}

static void patch_changes_one_instance(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    struct change_result result = patch(place, "a", "a-i", "{\"state\":\"stopped\"}", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.revision, 2);
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_STOPPED);
    result = patch(place, "a", "other", "{\"weight\":2}", CHANGES_ANY_REVISION);
    check(&result, STATUS_NOT_FOUND, "");
    result = patch(place, "b", "b-i", "{\"weight\":2}", CHANGES_ANY_REVISION);
    check(&result, STATUS_APP_UNKNOWN, "");
    result = patch(place, "a", "a-i", "{\"weight\":-2}", CHANGES_ANY_REVISION);
    check(&result, STATUS_INVALID_RECORD, "");
    result = patch(place, "a", "a-i", "{\"weight\":7}", 1);
    check(&result, STATUS_REVISION_CONFLICT, "2");
    assert_int_equal(app_of(place, "a")->instances[0].weight, 1);
    restart(place, &rules);
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_STOPPED);
}

static void expected_revisions_are_kept(void **state)
{
    struct place *place = *state;
    struct change_result result = put(place, "a", NULL, 0, 1);
    check(&result, STATUS_REVISION_CONFLICT, "not exist");
    result = put(place, "a", NULL, 0, CHANGES_ANY_REVISION);
    result = put(place, "b", NULL, 0, CHANGES_ANY_REVISION);
    result = put(place, "a", NULL, 0, 1);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.revision, 3);
    result = put(place, "a", NULL, 0, 1);
    check(&result, STATUS_REVISION_CONFLICT, "3");
    result = remove_app(place, "a", 1);
    check(&result, STATUS_REVISION_CONFLICT, "3");
    result = put(place, "a", NULL, 0, CHANGES_NO_APP);
    check(&result, STATUS_REVISION_CONFLICT, "3");
    assert_string_equal(result.problem.field, "If-None-Match");
    result = remove_app(place, "a", 3);
    check(&result, STATUS_OK, "");
    result = put(place, "a", NULL, 0, CHANGES_NO_APP);
    check(&result, STATUS_OK, "");
    assert_true(result.created);
}

static void bad_records_and_conflicts_are_refused(void **state)
{
    struct place *place = *state;
    struct change_result result = put(place, "a", "127.0.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_INVALID_RECORD, "127.0.0.1");
    put(place, "a", "10.0.0.1", 5, CHANGES_ANY_REVISION);
    result = put(place, "b", "10.0.0.1", 5, CHANGES_ANY_REVISION);
    check(&result, STATUS_CLAIM_CONFLICT, "10.0.0.1");
    assert_null(app_of(place, "b"));
    /* A newer generation takes the address, and the store learns of both apps. */
    result = put(place, "b", "10.0.0.1", 6, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_STOPPED);
    assert_int_equal(place->revoked, 1);
    restart(place, &rules);
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_STOPPED);
    assert_int_equal(app_of(place, "b")->instances[0].state, ROUTE_STATE_RUNNING);
}

/* ---- batches ---- */

static void many_at_once_are_taken_in_order(void **state)
{
    struct place *place = *state;
    static struct outcome outcomes[MANY];
    memset(outcomes, 0, sizeof outcomes);
    char id[32];
    char address[32];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(id, sizeof id, "app%u", i / 2);
        snprintf(address, sizeof address, "10.1.%u.%u", i / 2 / 100, i / 2 % 100 + 1);
        bool bad = i % 50 == 49;
        changes_put(place->changes, make_app(id, bad ? "127.0.0.1" : address, i), CHANGES_ANY_REVISION, on_done,
                    &outcomes[i]);
        if (i % 100 == 0)
            loop_turn(place->loop, 0);
    }
    wait_for(place, &outcomes[MANY - 2]);
    uint64_t last = 0;
    int last_turn = 0;
    for (unsigned i = 0; i < MANY; i++) {
        check(&outcomes[i].result, i % 50 == 49 ? STATUS_INVALID_RECORD : STATUS_OK, "127.0.0.1");
        if (outcomes[i].result.status != STATUS_OK)
            continue;
        assert_int_equal(outcomes[i].result.revision, last + 1);
        assert_int_equal(outcomes[i].result.created, i % 2 == 0);
        assert_true(outcomes[i].turn > last_turn);
        last = outcomes[i].result.revision;
        last_turn = outcomes[i].turn;
    }
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), MANY / 2);
    assert_int_equal(route_table_revision(place->table), last);
}

static void later_requests_see_earlier_ones(void **state)
{
    struct place *place = *state;
    struct outcome first = {0}, second = {0}, third = {0}, fourth = {0};
    changes_put(place->changes, make_app("a", "10.0.0.1", 1), CHANGES_ANY_REVISION, on_done, &first);
    changes_put(place->changes, make_app("b", "10.0.0.1", 1), CHANGES_ANY_REVISION, on_done, &second);
    changes_delete(place->changes, SLICE("a"), 1, on_done, &third);
    changes_put(place->changes, make_app("b", "10.0.0.1", 1), CHANGES_ANY_REVISION, on_done, &fourth);
    assert_null(app_of(place, "a"));
    wait_for(place, &fourth);
    check(&first.result, STATUS_OK, "");
    check(&second.result, STATUS_CLAIM_CONFLICT, "10.0.0.1");
    check(&third.result, STATUS_OK, "");
    check(&fourth.result, STATUS_OK, "");
    restart(place, &rules);
    assert_null(app_of(place, "a"));
    assert_non_null(app_of(place, "b"));
}

static void nothing_is_visible_before_it_is_stored(void **state)
{
    struct place *place = *state;
    struct outcome outcome = {0};
    changes_put(place->changes, make_app("a", "10.0.0.1", 1), CHANGES_ANY_REVISION, on_done, &outcome);
    loop_turn(place->loop, 0);
    assert_int_equal(outcome.turn != 0, app_of(place, "a") != NULL);
    while (outcome.turn == 0) {
        assert_null(app_of(place, "a"));
        loop_turn(place->loop, 100);
    }
    assert_non_null(app_of(place, "a"));
}

/* A file size limit stands for a full disk. */
static void a_failing_store_changes_nothing(void **state)
{
    struct place *place = *state;
    struct outcome outcomes[2] = {{.turn = 0}};
    struct rlimit old;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    changes_put(place->changes, make_app("a", "10.0.0.2", 2), CHANGES_ANY_REVISION, on_done, &outcomes[0]);
    changes_put(place->changes, make_app("b", "10.0.0.1", 2), CHANGES_ANY_REVISION, on_done, &outcomes[1]);
    wait_for(place, &outcomes[1]);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    check(&outcomes[0].result, STATUS_STORE_FAILED, "disk");
    check(&outcomes[1].result, STATUS_STORE_FAILED, "disk");
    assert_null(app_of(place, "b"));
    assert_int_equal(app_of(place, "a")->revision, 1);
    assert_int_equal(place->revoked, 0);
    struct change_result result = put(place, "b", "10.0.0.2", 2, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.revision, 2);
}

static void forgotten_requests_go_on(void **state)
{
    struct place *place = *state;
    struct outcome forgotten = {0}, last = {0};
    changes_put(place->changes, make_app("a", NULL, 0), CHANGES_ANY_REVISION, on_done, &forgotten);
    loop_turn(place->loop, 0); /* perhaps being stored now */
    changes_put(place->changes, make_app("b", NULL, 0), CHANGES_ANY_REVISION, on_done, &forgotten);
    changes_put(place->changes, make_app("c", NULL, 0), CHANGES_ANY_REVISION, on_done, &last);
    if (forgotten.turn == 0)
        changes_forget(place->changes, &forgotten);
    wait_for(place, &last);
    assert_int_equal(forgotten.turn, 0);
    assert_non_null(app_of(place, "a"));
    assert_non_null(app_of(place, "b"));
}

static void the_end_answers_all(void **state)
{
    struct place *place = *state;
    struct outcome stored = {0}, waiting = {0};
    changes_put(place->changes, make_app("a", "10.0.0.1", 1), CHANGES_ANY_REVISION, on_done, &stored);
    loop_turn(place->loop, 0);
    changes_put(place->changes, make_app("b", NULL, 0), CHANGES_ANY_REVISION, on_done, &waiting);
    end(place);
    assert_int_not_equal(stored.turn, 0);
    assert_int_equal(waiting.result.status, STATUS_SHUTDOWN);
    begin(place, &rules);
    assert_non_null(app_of(place, "a")); /* it was handed to the store, so it is there */
    assert_null(app_of(place, "b"));
}

/* ---- snapshots ---- */

static struct changes_snapshot *snapshot_of(struct place *place, struct route_app **apps, size_t count)
{
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    struct route_problem problem;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(changes_snapshot_add(snapshot, apps[i], &problem), STATUS_OK);
    return snapshot;
}

static struct change_result commit(struct place *place, struct changes_snapshot *snapshot, bool strict)
{
    struct outcome outcome = {0};
    changes_snapshot_commit(&snapshot, &(struct changes_snapshot_options){.strict = strict}, on_done, &outcome);
    assert_null(snapshot);
    wait_for(place, &outcome);
    return outcome.result;
}

static void a_snapshot_replaces_everything(void **state)
{
    struct place *place = *state;
    put(place, "same", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "changed", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    put(place, "gone", "10.0.0.3", 1, CHANGES_ANY_REVISION);
    struct claim *claim = app_of(place, "same")->instances[0].claim;
    struct route_app *apps[] = {make_app("new", "10.0.0.3", 1), make_app("changed", "10.0.0.4", 2),
                                make_app("same", "10.0.0.1", 1)};
    struct change_result result = commit(place, snapshot_of(place, apps, 3), true);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 0);
    assert_null(app_of(place, "gone"));
    assert_int_equal(app_of(place, "same")->revision, 1);
    assert_ptr_equal(app_of(place, "same")->instances[0].claim, claim);
    assert_int_equal(app_of(place, "changed")->instances[0].generation, 2);
    assert_int_equal(place->revoked, 2);
    uint64_t revision = route_table_revision(place->table);
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), 3);
    assert_int_equal(app_of(place, "same")->revision, 1);
    assert_int_equal(route_table_revision(place->table), revision);
    struct route_app *empty[1] = {NULL};
    result = commit(place, snapshot_of(place, empty, 0), false);
    check(&result, STATUS_OK, "");
    assert_int_equal(route_table_app_count(place->table), 0);
}

static void a_snapshot_may_come_in_any_order(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "b", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    /* c takes b's address, b takes a's, a gets a new one: only the last can be staged first. */
    struct route_app *apps[] = {make_app("c", "10.0.0.2", 1), make_app("b", "10.0.0.1", 1),
                                make_app("a", "10.0.0.9", 1)};
    struct change_result result = commit(place, snapshot_of(place, apps, 3), true);
    check(&result, STATUS_OK, "");
    assert_int_equal(app_of(place, "c")->instances[0].state, ROUTE_STATE_RUNNING);
    assert_int_equal(app_of(place, "b")->instances[0].state, ROUTE_STATE_RUNNING);
}

static struct route_app *parse_app(const char *json)
{
    struct route_app *app = NULL;
    struct route_problem problem;
    if (app_document_parse(slice_str(json), &app, &problem) != STATUS_OK)
        fail_msg("%s: %s", problem.field, problem.detail);
    return app;
}

static struct change_result load_snapshot(struct place *place, const char *const *apps, size_t count, bool strict)
{
    struct changes_snapshot *snapshot = snapshot_of(place, NULL, 0);
    struct route_problem problem;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(changes_snapshot_add(snapshot, parse_app(apps[i]), &problem), STATUS_OK);
    return commit(place, snapshot, strict);
}

/* The last byte of the address of a running instance; 0: it does not run. */
static int place_of(const struct place *place, const char *id, size_t instance)
{
    const struct route_app *app = app_of(place, id);
    assert_true(app && app->instance_count > instance);
    const struct route_instance *it = &app->instances[instance];
    return it->state == ROUTE_STATE_RUNNING ? it->address.bytes[3] : 0;
}

/* The generations are those of other instances: who stays must not have to be older than who comes. */
static void apps_of_a_snapshot_may_have_changed_places(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 3, CHANGES_ANY_REVISION);
    put(place, "b", "10.0.0.2", 2, CHANGES_ANY_REVISION);
    const char *const apps[] = {
        "{\"app_id\":\"a\",\"instances\":[{\"instance_id\":\"a2\",\"address\":\"10.0.0.2\",\"generation\":1}]}",
        "{\"app_id\":\"b\",\"instances\":[{\"instance_id\":\"b2\",\"address\":\"10.0.0.1\",\"generation\":1}]}"};
    struct change_result result = load_snapshot(place, apps, 2, true);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 0);
    assert_int_equal(place->revoked, 2);
    restart(place, &rules);
    assert_int_equal(place_of(place, "a", 0), 2);
    assert_string_equal(app_of(place, "a")->instances[0].id, "a2");
    assert_int_equal(place_of(place, "b", 0), 1);
}

static void apps_of_a_snapshot_may_exchange_names(void **state)
{
    struct place *place = *state;
    const char *const before[] = {
        "{\"app_id\":\"a\",\"domains\":[{\"name\":\"one.example\",\"port\":80}],"
        "\"instances\":[{\"instance_id\":\"i1\",\"address\":\"10.0.0.1\",\"generation\":5},"
        "{\"instance_id\":\"i3\",\"address\":\"10.0.0.3\"}]}",
        "{\"app_id\":\"b\",\"domains\":[{\"name\":\"two.example\",\"port\":80}],"
        "\"instances\":[{\"instance_id\":\"i2\",\"address\":\"10.0.0.2\",\"generation\":5}]}"};
    const char *const after[] = {"{\"app_id\":\"a\",\"domains\":[{\"name\":\"two.example\",\"port\":80}],"
                                 "\"instances\":[{\"instance_id\":\"i2\",\"address\":\"10.0.0.2\",\"generation\":5},"
                                 "{\"instance_id\":\"i3\",\"address\":\"10.0.0.3\"}]}",
                                 "{\"app_id\":\"b\",\"domains\":[{\"name\":\"one.example\",\"port\":80}],"
                                 "\"instances\":[{\"instance_id\":\"i1\",\"address\":\"10.0.0.1\",\"generation\":5}]}"};
    struct change_result result = load_snapshot(place, before, 2, true);
    check(&result, STATUS_OK, "");
    struct claim *claim = claim_ref(app_of(place, "a")->instances[1].claim);
    result = load_snapshot(place, after, 2, true);
    check(&result, STATUS_OK, "");
    assert_string_equal(app_of(place, "a")->domains[0].name, "two.example");
    assert_string_equal(app_of(place, "b")->domains[0].name, "one.example");
    assert_string_equal(app_of(place, "a")->instances[0].id, "i2");
    assert_string_equal(app_of(place, "b")->instances[0].id, "i1");
    assert_int_equal(place->revoked, 2); /* of i1 and i2, which are other apps' now */
    assert_ptr_equal(app_of(place, "a")->instances[1].claim, claim);
    claim_unref(&claim);
    restart(place, &rules);
    assert_int_equal(place_of(place, "a", 0), 2);
    assert_int_equal(place_of(place, "b", 0), 1);
}

/* a is refused for c's address; what the snapshot does not give it any more, b gets all the same. */
static void a_refused_app_does_not_block_another(void **state)
{
    struct place *place = *state;
    const char *const before[] = {
        "{\"app_id\":\"a\",\"domains\":[{\"name\":\"one.example\",\"port\":80},"
        "{\"name\":\"kept.example\",\"port\":80}],"
        "\"instances\":[{\"instance_id\":\"a1\",\"address\":\"10.0.0.1\",\"generation\":5},"
        "{\"instance_id\":\"a2\",\"address\":\"10.0.0.2\",\"generation\":5}]}",
        "{\"app_id\":\"c\",\"instances\":[{\"instance_id\":\"c1\",\"address\":\"10.0.0.9\",\"generation\":5}]}"};
    const char *const after[] = {
        "{\"app_id\":\"b\",\"domains\":[{\"name\":\"one.example\",\"port\":80}],"
        "\"instances\":[{\"instance_id\":\"b1\",\"address\":\"10.0.0.1\",\"generation\":1}]}",
        "{\"app_id\":\"a\",\"instances\":[{\"instance_id\":\"a1\",\"address\":\"10.0.0.9\",\"generation\":5}]}",
        before[1]};
    struct change_result result = load_snapshot(place, before, 2, true);
    check(&result, STATUS_OK, "");
    result = load_snapshot(place, after, 3, false);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 1);
    assert_int_equal(place_of(place, "b", 0), 1);
    assert_int_equal(place_of(place, "c", 0), 9);
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_STOPPED);
    assert_int_equal(place_of(place, "a", 1), 2);
    assert_int_equal(app_of(place, "a")->domain_count, 1);
    assert_string_equal(app_of(place, "a")->domains[0].name, "kept.example");
    assert_int_equal(place->revoked, 1);
    uint64_t revision = route_table_revision(place->table);
    assert_int_equal(app_of(place, "a")->revision, revision);
    result = load_snapshot(place, after, 3, false);
    assert_int_equal(result.refused, 1);
    assert_int_equal(route_table_revision(place->table), revision); /* the same again changes nothing */
    restart(place, &rules);
    assert_int_equal(place_of(place, "a", 1), 2);
    assert_int_equal(place_of(place, "b", 0), 1);
}

/* a is refused for c's address: what it has and the snapshot leaves it, b does not get. */
static void a_refused_app_keeps_what_its_record_keeps(void **state)
{
    struct place *place = *state;
    const char *const before[] = {
        "{\"app_id\":\"a\",\"instances\":[{\"instance_id\":\"a1\",\"address\":\"10.0.0.1\"},"
        "{\"instance_id\":\"a2\",\"address\":\"10.0.0.2\"}]}",
        "{\"app_id\":\"c\",\"instances\":[{\"instance_id\":\"c1\",\"address\":\"10.0.0.9\"}]}"};
    const char *const after[] = {"{\"app_id\":\"b\",\"instances\":[{\"instance_id\":\"b1\",\"address\":\"10.0.0.1\"}]}",
                                 "{\"app_id\":\"a\",\"instances\":[{\"instance_id\":\"a1\",\"address\":\"10.0.0.1\"},"
                                 "{\"instance_id\":\"a2\",\"address\":\"10.0.0.9\"}]}",
                                 before[1]};
    struct change_result result = load_snapshot(place, before, 2, true);
    uint64_t revision = app_of(place, "a")->revision;
    result = load_snapshot(place, after, 3, false);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 2);
    assert_null(app_of(place, "b"));
    assert_int_equal(place_of(place, "a", 0), 1);
    assert_int_equal(place_of(place, "a", 1), 2);
    assert_int_equal(app_of(place, "a")->revision, revision);
    assert_int_equal(place->revoked, 0);
}

/* A record with a generation that goes back is older than what is known of the app: it gives nothing away. */
static void a_snapshot_does_not_bring_generations_back(void **state)
{
    struct place *place = *state;
    put(place, "a", "10.0.0.1", 3, CHANGES_ANY_REVISION);
    put(place, "b", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    struct route_app *apps[] = {make_app("a", "10.0.0.2", 2), make_app("b", "10.0.0.1", 2)};
    struct change_result result = commit(place, snapshot_of(place, apps, 2), false);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 2);
    assert_int_equal(place_of(place, "a", 0), 1);
    assert_int_equal(place_of(place, "b", 0), 2);
    assert_int_equal(place->revoked, 0);
}

static void bad_records_of_a_snapshot_are_refused_alone(void **state)
{
    struct place *place = *state;
    struct route_problem problem;
    struct route_app *good = make_app("good", "10.0.0.1", 1);
    struct changes_snapshot *snapshot = snapshot_of(place, &good, 1);
    struct route_app *bad = make_app("bad", "127.0.0.1", 1);
    assert_int_equal(changes_snapshot_add(snapshot, bad, &problem), STATUS_INVALID_RECORD);
    assert_non_null(strstr(problem.detail, "127.0.0.1"));
    route_app_free(&bad);
    struct route_app *twice = make_app("good", NULL, 0);
    assert_int_equal(changes_snapshot_add(snapshot, twice, &problem), STATUS_INVALID_RECORD);
    assert_non_null(strstr(problem.detail, "twice"));
    route_app_free(&twice);
    struct change_result result = commit(place, snapshot, false);
    check(&result, STATUS_OK, "");
    assert_int_equal(route_table_app_count(place->table), 1);
}

static void a_bad_record_of_a_snapshot_leaves_its_app_alone(void **state)
{
    struct place *place = *state;
    put(place, "bad", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "worse", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    put(place, "gone", "10.0.0.3", 1, CHANGES_ANY_REVISION);
    changes_set_max_apps(place->changes, 3);
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    const char *const alone[] = {"nobody", "bad", "worse", "bad"};
    for (size_t i = 0; i < 4; i++)
        changes_snapshot_leave_alone(snapshot, slice_str(alone[i]));
    struct route_problem problem;
    struct route_app *worse = make_app("worse", "10.0.0.4", 2);
    assert_int_equal(changes_snapshot_add(snapshot, worse, &problem), STATUS_OK); /* a good one may follow */
    struct route_app *good = make_app("good", "10.0.0.3", 1);
    assert_int_equal(changes_snapshot_add(snapshot, good, &problem), STATUS_OK);
    changes_snapshot_leave_alone(snapshot, SLICE("good"));
    struct change_result result = commit(place, snapshot, false);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 0);
    assert_int_equal(app_of(place, "bad")->revision, 1);
    assert_int_equal(place_of(place, "worse", 0), 4);
    assert_int_equal(place_of(place, "good", 0), 3);
    assert_int_equal(route_table_app_count(place->table), 3);
}

/* New apps beyond the limit are refused, one by one and in a snapshot; what is there may change and go. */
static void a_table_has_a_limit(void **state)
{
    struct place *place = *state;
    put(place, "a", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "b", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "c", NULL, 0, CHANGES_ANY_REVISION);
    changes_set_max_apps(place->changes, 2);
    struct change_result result = put(place, "d", NULL, 0, CHANGES_ANY_REVISION);
    check(&result, STATUS_TABLE_FULL, "limits.apps is 2");
    result = put(place, "c", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    remove_app(place, "a", CHANGES_ANY_REVISION);
    result = put(place, "d", NULL, 0, CHANGES_ANY_REVISION);
    check(&result, STATUS_TABLE_FULL, "");
    remove_app(place, "b", CHANGES_ANY_REVISION);
    result = put(place, "d", NULL, 0, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    struct route_app *replacing[] = {make_app("x", "10.0.0.1", 2), make_app("y", "10.0.0.2", 1)};
    struct changes_snapshot *snapshot = snapshot_of(place, replacing, 2);
    struct route_app *third = make_app("z", "10.0.0.3", 1);
    struct route_problem problem;
    assert_int_equal(changes_snapshot_add(snapshot, third, &problem), STATUS_TABLE_FULL);
    route_app_free(&third);
    result = commit(place, snapshot, false);
    check(&result, STATUS_OK, "");
    assert_true(app_of(place, "x") && app_of(place, "y") && !app_of(place, "c") && !app_of(place, "d"));
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), 2);
}

/* A limit that has been lowered takes nothing away; who is new in a snapshot still has no place. */
static void a_lower_limit_takes_no_app_away(void **state)
{
    struct place *place = *state;
    static const char *const ids[] = {"a", "b", "c"};
    struct route_problem problem;
    for (size_t i = 0; i < 3; i++)
        put(place, ids[i], NULL, 0, CHANGES_ANY_REVISION);
    changes_set_max_apps(place->changes, 2);
    struct route_app *first = make_app("0", NULL, 0), *last = make_app("z", NULL, 0);
    struct changes_snapshot *snapshot = snapshot_of(place, &first, 1);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(changes_snapshot_add(snapshot, make_app(ids[i], NULL, 0), &problem), STATUS_OK);
    assert_int_equal(changes_snapshot_add(snapshot, last, &problem), STATUS_TABLE_FULL);
    route_app_free(&last);
    struct change_result result = commit(place, snapshot, false);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 1);
    assert_int_equal(result.problem.status, STATUS_TABLE_FULL);
    assert_true(app_of(place, "a") && app_of(place, "b") && app_of(place, "c") && !app_of(place, "0"));
}

static void conflicts_within_a_snapshot(void **state)
{
    struct place *place = *state;
    put(place, "old", "10.0.0.7", 1, CHANGES_ANY_REVISION);
    struct route_app *strict[] = {make_app("a", "10.0.0.1", 3), make_app("b", "10.0.0.1", 3)};
    struct change_result result = commit(place, snapshot_of(place, strict, 2), true);
    check(&result, STATUS_CLAIM_CONFLICT, "10.0.0.1");
    assert_int_equal(route_table_app_count(place->table), 1);
    assert_int_equal(route_table_revision(place->table), 1);
    struct route_app *lenient[] = {make_app("a", "10.0.0.1", 3), make_app("b", "10.0.0.1", 3)};
    result = commit(place, snapshot_of(place, lenient, 2), false);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.refused, 1);
    assert_non_null(strstr(result.problem.detail, "10.0.0.1"));
    assert_non_null(app_of(place, "a"));
    assert_null(app_of(place, "b"));
    assert_null(app_of(place, "old"));
}

static void snapshots_and_changes_keep_their_order(void **state)
{
    struct place *place = *state;
    struct outcome before = {0}, during = {0}, after = {0};
    struct route_app *app = make_app("snap", NULL, 0);
    struct changes_snapshot *snapshot = snapshot_of(place, &app, 1);
    struct changes_snapshot *aborted = snapshot_of(place, (struct route_app *[]){make_app("never", NULL, 0)}, 1);
    changes_put(place->changes, make_app("before", NULL, 0), CHANGES_ANY_REVISION, on_done, &before);
    changes_snapshot_commit(&snapshot, &(struct changes_snapshot_options){.strict = false}, on_done, &during);
    changes_put(place->changes, make_app("after", NULL, 0), CHANGES_ANY_REVISION, on_done, &after);
    changes_snapshot_abort(&aborted);
    assert_null(aborted);
    wait_for(place, &after);
    assert_true(before.turn < during.turn && during.turn < after.turn);
    assert_null(app_of(place, "before"));
    assert_non_null(app_of(place, "snap"));
    assert_non_null(app_of(place, "after"));
    assert_null(app_of(place, "never"));
}

/* ---- a start with many apps ---- */

/* More than fit into what goes between the two threads at once; every 100th is left out. */
static void a_start_with_many_apps(void **state)
{
    enum { APPS = 6000 };
    struct place *place = *state;
    struct route_app **apps = calloc(APPS, sizeof *apps);
    char id[32], address[32];
    assert_non_null(apps);
    for (unsigned i = 0; i < APPS; i++) {
        snprintf(id, sizeof id, "app%u", i);
        snprintf(address, sizeof address, "10.%u.%u.%u", i % 100 == 99 ? 1 : 9, i / 250, i % 250);
        apps[i] = make_app(id, address, 1);
    }
    struct change_result result = commit(place, snapshot_of(place, apps, APPS), true);
    check(&result, STATUS_OK, "");
    uint64_t digest = changes_digest(place->changes);
    restart(place, &narrow_rules);
    assert_int_equal(route_table_app_count(place->table), APPS / 100 * 99);
    assert_non_null(app_of(place, "app98"));
    assert_null(app_of(place, "app99"));
    assert_int_not_equal(changes_digest(place->changes), digest);
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), APPS);
    assert_non_null(app_of(place, "app99"));
    assert_int_equal(changes_digest(place->changes), digest);
    free(apps);
}

/* ---- records that are not valid any more ---- */

static void left_out_records_stay_in_the_store(void **state)
{
    struct place *place = *state;
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "near", "10.9.0.1", 1, CHANGES_ANY_REVISION);
    restart(place, &narrow_rules);
    assert_null(app_of(place, "far"));
    assert_non_null(app_of(place, "near"));
    assert_int_equal(route_table_revision(place->table), 2);
    struct change_result result = put(place, "other", "10.9.0.2", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), 3);
    assert_int_equal(app_of(place, "far")->revision, 1);
}

static void left_out_records_can_be_deleted(void **state)
{
    struct place *place = *state;
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    restart(place, &narrow_rules);
    struct change_result result = remove_app(place, "far", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    result = remove_app(place, "far", CHANGES_ANY_REVISION);
    check(&result, STATUS_APP_UNKNOWN, "far");
    restart(place, &rules);
    assert_null(app_of(place, "far"));
    assert_int_equal(route_table_revision(place->table), 2);
}

static void left_out_records_can_be_replaced(void **state)
{
    struct place *place = *state;
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    restart(place, &narrow_rules);
    struct change_result result = put(place, "far", "10.9.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    result = remove_app(place, "far", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    restart(place, &rules);
    assert_null(app_of(place, "far"));
}

static void a_snapshot_ends_what_was_left_out(void **state)
{
    struct place *place = *state;
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "moved", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    restart(place, &narrow_rules);
    struct route_app *app = make_app("moved", "10.9.0.2", 1);
    struct change_result result = commit(place, snapshot_of(place, &app, 1), true);
    check(&result, STATUS_OK, "");
    restart(place, &rules);
    assert_null(app_of(place, "far"));
    assert_int_equal(app_of(place, "moved")->instances[0].address.bytes[1], 9);
}

static void a_bad_record_leaves_alone_what_was_left_out(void **state)
{
    struct place *place = *state;
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "gone", "10.0.0.2", 1, CHANGES_ANY_REVISION);
    restart(place, &narrow_rules);
    struct route_app *app = make_app("near", "10.9.0.2", 1);
    struct changes_snapshot *snapshot = snapshot_of(place, &app, 1);
    changes_snapshot_leave_alone(snapshot, SLICE("far"));
    struct change_result result = commit(place, snapshot, false);
    check(&result, STATUS_OK, "");
    result = remove_app(place, "gone", CHANGES_ANY_REVISION);
    check(&result, STATUS_APP_UNKNOWN, "gone");
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), 2);
    assert_int_equal(app_of(place, "far")->revision, 1);
}

/* ---- records of the store that can't both be there ---- */

/* "far" lives in another network too, and so was left out when `other` was given its address. */
static void check_who_came_later(struct place *place, const char *other, unsigned generation)
{
    const char *far = "{\"app_id\":\"far\",\"domains\":[{\"name\":\"far.example\",\"port\":80}],"
                      "\"instances\":[{\"instance_id\":\"f1\",\"address\":\"10.0.0.1\"},"
                      "{\"instance_id\":\"f2\",\"address\":\"10.9.0.1\",\"generation\":5}]}";
    struct change_result result = load_snapshot(place, &far, 1, true);
    check(&result, STATUS_OK, "");
    restart(place, &narrow_rules);
    result = put(place, other, "10.9.0.1", generation, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    uint64_t revision = route_table_revision(place->table);
    restart(place, &rules);
    assert_int_equal(place_of(place, other, 0), 1);
    assert_null(app_of(place, "far"));
    assert_int_equal(route_table_revision(place->table), revision);
    assert_int_equal(changes_digest(place->changes), changes_digest_of(slice_str(other), result.revision));
    result = remove_app(place, "far", CHANGES_ANY_REVISION); /* it is in the store still */
    check(&result, STATUS_OK, "");
    result = remove_app(place, other, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
}

static void the_newer_record_has_the_address(void **state)
{
    check_who_came_later(*state, "a", 1); /* read before "far" */
    check_who_came_later(*state, "a", 5);
    check_who_came_later(*state, "z", 1); /* … and behind it */
    check_who_came_later(*state, "z", 5);
    check_who_came_later(*state, "z", 9);
}

static void on_stored(void *arg, enum status status, const char *text)
{
    (void)text;
    assert_int_equal(status, STATUS_OK);
    *(bool *)arg = true;
}

static void store_apps(struct place *place, const char *const *ids, const char *const *documents, size_t count)
{
    bool is_done = false;
    struct store_batch *batch = store_batch_new();
    for (size_t i = 0; i < count; i++)
        store_batch_add(batch, slice_str(ids[i]), i + 1, strdup(documents[i]));
    store_commit(place->store, batch, count, on_stored, &is_done);
    while (!is_done)
        loop_turn(place->loop, 10);
}

/* Revisions are in the order of the list, b has something of each other one: it goes, and what was behind it comes. */
static void the_newest_records_decide_first(void **state)
{
    struct place *place = *state;
    static const char *const ids[] = {"a", "d", "b", "c"};
    static const char *const documents[] = {
        "{\"app_id\":\"a\",\"instances\":[{\"instance_id\":\"a1\",\"address\":\"10.0.0.1\"}]}",
        "{\"app_id\":\"d\",\"instances\":[{\"instance_id\":\"shared\",\"address\":\"10.0.0.4\"}]}",
        "{\"app_id\":\"b\",\"domains\":[{\"name\":\"one.example\",\"port\":80}],\"instances\":["
        "{\"instance_id\":\"b1\",\"address\":\"10.0.0.1\"},{\"instance_id\":\"shared\",\"address\":\"10.0.0.9\"}]}",
        "{\"app_id\":\"c\",\"domains\":[{\"name\":\"one.example\",\"port\":80}],"
        "\"instances\":[{\"instance_id\":\"c1\",\"address\":\"10.0.0.3\"}]}"};
    store_apps(place, ids, documents, 4);
    restart(place, &rules);
    assert_int_equal(place_of(place, "a", 0), 1);
    assert_int_equal(place_of(place, "d", 0), 4);
    assert_int_equal(place_of(place, "c", 0), 3);
    assert_null(app_of(place, "b"));
    assert_int_equal(route_table_revision(place->table), 4);
    struct change_result result = remove_app(place, "c", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    restart(place, &rules); /* now b is the newest */
    assert_int_equal(place_of(place, "b", 0), 1);
    assert_int_equal(route_table_app_count(place->table), 1);
    assert_int_equal(changes_digest(place->changes), changes_digest_of(SLICE("b"), 3));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(put_get_delete),
        TEST(patch_changes_one_instance),
        TEST(expected_revisions_are_kept),
        TEST(bad_records_and_conflicts_are_refused),
        TEST(many_at_once_are_taken_in_order),
        TEST(later_requests_see_earlier_ones),
        TEST(nothing_is_visible_before_it_is_stored),
        TEST(a_failing_store_changes_nothing),
        TEST(forgotten_requests_go_on),
        TEST(the_end_answers_all),
        TEST(a_snapshot_replaces_everything),
        TEST(a_snapshot_may_come_in_any_order),
        TEST(apps_of_a_snapshot_may_have_changed_places),
        TEST(apps_of_a_snapshot_may_exchange_names),
        TEST(a_refused_app_does_not_block_another),
        TEST(a_refused_app_keeps_what_its_record_keeps),
        TEST(a_snapshot_does_not_bring_generations_back),
        TEST(bad_records_of_a_snapshot_are_refused_alone),
        TEST(a_bad_record_of_a_snapshot_leaves_its_app_alone),
        TEST(a_table_has_a_limit),
        TEST(a_lower_limit_takes_no_app_away),
        TEST(conflicts_within_a_snapshot),
        TEST(snapshots_and_changes_keep_their_order),
        TEST(a_start_with_many_apps),
        TEST(left_out_records_stay_in_the_store),
        TEST(left_out_records_can_be_deleted),
        TEST(left_out_records_can_be_replaced),
        TEST(a_snapshot_ends_what_was_left_out),
        TEST(a_bad_record_leaves_alone_what_was_left_out),
        TEST(the_newer_record_has_the_address),
        TEST(the_newest_records_decide_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
