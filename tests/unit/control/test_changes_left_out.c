/* changes: what the start has left out comes back when the rules allow it, as the next start would have it. */
#include "changes_place.h"

#include "gateway/control/history.h"

static void follow(struct place *place, const struct route_rules *its_rules)
{
    changes_set_rules(place->changes, its_rules);
    loop_turn(place->loop, 0);
}

/* "far" is not in the table, for its address in another network. */
static void leave_far_out(struct place *place)
{
    const char *far = "{\"app_id\":\"far\",\"domains\":[{\"name\":\"far.example\",\"port\":80}],"
                      "\"instances\":[{\"instance_id\":\"f1\",\"address\":\"10.0.0.1\"},"
                      "{\"instance_id\":\"f2\",\"address\":\"10.9.0.1\",\"generation\":5}]}";
    struct outcome outcome = {0};
    struct route_app *app = NULL;
    struct route_problem problem;
    assert_int_equal(app_document_parse(slice_str(far), &app, &problem), STATUS_OK);
    changes_put(place->changes, app, CHANGES_ANY_REVISION, on_done, &outcome);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_OK, "");
    restart(place, &narrow_rules);
    assert_null(app_of(place, "far"));
    assert_int_equal(changes_left_out(place->changes), 1);
}

static void it_comes_back_as_it_was(void **state)
{
    struct place *place = *state;
    put(place, "near", "10.9.0.9", 1, CHANGES_ANY_REVISION);
    put(place, "far", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    put(place, "last", "10.9.0.8", 1, CHANGES_ANY_REVISION);
    uint64_t digest = changes_digest(place->changes);
    restart(place, &narrow_rules);
    uint64_t epoch = history_epoch(changes_history(place->changes));
    follow(place, &narrow_rules);
    assert_null(app_of(place, "far"));
    assert_int_equal(history_epoch(changes_history(place->changes)), epoch);
    follow(place, &rules);
    assert_int_equal(app_of(place, "far")->revision, 2);
    assert_int_equal(route_table_revision(place->table), 3);
    assert_int_equal(changes_digest(place->changes), digest);
    assert_int_equal(changes_left_out(place->changes), 0);
    assert_int_not_equal(history_epoch(changes_history(place->changes)), epoch);
    struct change_result result = put(place, "far", "10.0.0.2", 1, 2);
    check(&result, STATUS_OK, "");
    assert_int_equal(result.revision, 4);
    restart(place, &rules);
    assert_int_equal(app_of(place, "far")->instances[0].address.bytes[3], 2);
    assert_int_equal(route_table_app_count(place->table), 3);
}

static void what_others_have_by_now_is_theirs(void **state)
{
    struct place *place = *state;
    leave_far_out(place);
    struct change_result result = put(place, "heir", "10.9.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    follow(place, &rules);
    assert_null(app_of(place, "far"));
    assert_int_equal(app_of(place, "heir")->instances[0].state, ROUTE_STATE_RUNNING);
    assert_int_equal(changes_left_out(place->changes), 1);
    result = remove_app(place, "heir", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    follow(place, &rules);
    assert_non_null(app_of(place, "far"));
    assert_int_equal(changes_left_out(place->changes), 0);
}

static void who_lost_to_a_newer_record_comes_back_too(void **state)
{
    struct place *place = *state;
    leave_far_out(place);
    struct change_result result = put(place, "heir", "10.9.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    restart(place, &rules); /* now for the address that "heir" has */
    assert_null(app_of(place, "far"));
    result = remove_app(place, "heir", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    follow(place, &rules);
    assert_int_equal(app_of(place, "far")->revision, 1);
}

static void what_was_deleted_or_replaced_does_not(void **state)
{
    struct place *place = *state;
    leave_far_out(place);
    struct change_result result = remove_app(place, "far", CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    assert_int_equal(changes_left_out(place->changes), 0);
    follow(place, &rules);
    assert_null(app_of(place, "far"));
    leave_far_out(place);
    result = put(place, "far", "10.9.0.7", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_OK, "");
    follow(place, &rules);
    assert_int_equal(app_of(place, "far")->instances[0].address.bytes[3], 7);
    leave_far_out(place);
    struct outcome outcome = {0};
    struct changes_snapshot *nothing = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    changes_snapshot_commit(&nothing, &(struct changes_snapshot_options){.strict = true}, on_done, &outcome);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_OK, "");
    follow(place, &rules);
    assert_null(app_of(place, "far"));
    restart(place, &rules);
    assert_int_equal(route_table_app_count(place->table), 0);
}

static void a_change_that_is_being_stored_is_waited_for(void **state)
{
    struct place *place = *state;
    struct outcome outcome = {0};
    leave_far_out(place);
    changes_put(place->changes, make_app("near", "10.9.0.9", 1), CHANGES_ANY_REVISION, on_done, &outcome);
    loop_turn(place->loop, 0);
    changes_set_rules(place->changes, &rules);
    assert_int_equal(changes_left_out(place->changes), 1);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_OK, "");
    loop_turn(place->loop, 0);
    assert_non_null(app_of(place, "near"));
    assert_int_equal(app_of(place, "far")->revision, 1);
}

static void the_end_may_come_before(void **state)
{
    struct place *place = *state;
    leave_far_out(place);
    changes_set_rules(place->changes, &rules);
    restart(place, &rules);
    assert_non_null(app_of(place, "far"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_comes_back_as_it_was),
        TEST(what_others_have_by_now_is_theirs),
        TEST(who_lost_to_a_newer_record_comes_back_too),
        TEST(what_was_deleted_or_replaced_does_not),
        TEST(a_change_that_is_being_stored_is_waited_for),
        TEST(the_end_may_come_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
