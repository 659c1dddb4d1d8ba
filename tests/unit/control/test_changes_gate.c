/* changes: calls that a gate writes elsewhere: what it is given, when they are done, and what a conflict there does. */
#include "changes_place.h"

#include "gateway/control/history.h"

enum { TEXT_MAX = 1024 };

/* Writes "elsewhere" when the test says so; the table follows by a difference. */
struct gate {
    struct changes_gate gate;
    struct place *place;
    struct changes_write *writes;
    size_t count;
    changes_written_cb done;
    void *done_arg;
    unsigned calls;
    const char *left_out[3]; /* what is there, but not so in the table */
};

static void on_write(void *arg, struct changes_write *writes, size_t count, changes_written_cb done, void *done_arg)
{
    struct gate *gate = arg;
    assert_null(gate->done);
    gate->writes = writes;
    gate->count = count;
    gate->done = done;
    gate->done_arg = done_arg;
    gate->calls++;
}

static bool is_left_out(void *arg, const char *app_id)
{
    const struct gate *gate = arg;
    for (size_t i = 0; i < 3; i++)
        if (gate->left_out[i] && strcmp(gate->left_out[i], app_id) == 0)
            return true;
    return false;
}

static void left_out_each(void *arg, void (*each)(void *each_arg, const char *app_id), void *each_arg)
{
    const struct gate *gate = arg;
    for (size_t i = 0; i < 3; i++)
        if (gate->left_out[i])
            each(each_arg, gate->left_out[i]);
}

static void set_gate(struct place *place, struct gate *gate)
{
    *gate = (struct gate){
        .gate = {.write = on_write, .is_left_out = is_left_out, .left_out_each = left_out_each, .arg = gate},
        .place = place};
    changes_set_gate(place->changes, &gate->gate);
}

static void wait_for_write(struct gate *gate)
{
    for (int i = 0; i < 1000 && !gate->done; i++)
        loop_turn(gate->place->loop, 10);
    assert_non_null(gate->done);
}

/* "a=1 b? -c ": put if the app is at 1, put anyway, delete anyway. */
static void assert_writes(const struct gate *gate, const char *wanted)
{
    char text[TEXT_MAX] = "";
    for (size_t i = 0; i < gate->count; i++) {
        const struct changes_write *write = &gate->writes[i];
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%s", write->document ? "" : "-", write->app_id);
        len = strlen(text);
        if (write->has_expected)
            snprintf(text + len, sizeof text - len, "=%d ", (int)write->expected_revision);
        else
            snprintf(text + len, sizeof text - len, "? ");
        assert_true(!write->document || !strstr(write->document, "\"revision\""));
    }
    assert_string_equal(text, wanted);
}

static void answer(struct gate *gate, enum status status, const char *text, uint64_t revision)
{
    changes_written_cb done = gate->done;
    gate->done = NULL;
    done(gate->done_arg, &(struct changes_written){.status = status, .text = text, .revision = revision});
}

/* The table takes over what is being written, as if it had come from elsewhere. */
static void follow(struct gate *gate, uint64_t revision)
{
    struct outcome outcome = {0};
    struct changes_snapshot *delta = changes_snapshot_begin(gate->place->changes, CHANGES_DELTA);
    for (size_t i = 0; i < gate->count; i++) {
        struct route_app *app = NULL;
        struct route_problem problem;
        if (!gate->writes[i].document) {
            changes_snapshot_delete(delta, slice_str(gate->writes[i].app_id), revision);
            continue;
        }
        assert_int_equal(app_document_parse(slice_str(gate->writes[i].document), &app, &problem), STATUS_OK);
        app->revision = revision;
        assert_int_equal(changes_snapshot_add(delta, app, &problem), STATUS_OK);
    }
    const struct changes_snapshot_options options = {.revision = revision};
    changes_snapshot_commit(&delta, &options, on_done, &outcome);
    wait_for(gate->place, &outcome);
    check(&outcome.result, STATUS_OK, "");
}

static void written(struct gate *gate, const char *wanted, uint64_t revision)
{
    wait_for_write(gate);
    assert_writes(gate, wanted);
    follow(gate, revision);
    answer(gate, STATUS_OK, "", revision);
}

/* ---- tests ---- */

static void calls_are_done_when_the_table_has_followed(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    set_gate(place, &gate);
    changes_put(place->changes, make_app("a", "10.0.0.1", 1), CHANGES_ANY_REVISION, on_done, &outcome);
    wait_for_write(&gate);
    assert_writes(&gate, "a? ");
    assert_null(app_of(place, "a"));
    follow(&gate, 70);
    assert_int_equal(app_of(place, "a")->revision, 70);
    assert_int_equal(outcome.turn, 0);
    answer(&gate, STATUS_OK, "", 70);
    check(&outcome.result, STATUS_OK, "");
    assert_true(outcome.result.created && outcome.result.revision == 70);
    outcome.turn = 0;
    changes_patch_instance(place->changes, SLICE("a"), SLICE("a-i"), SLICE("{\"weight\":9}"), CHANGES_ANY_REVISION,
                           on_done, &outcome);
    written(&gate, "a=70 ", 71);
    assert_int_equal(outcome.result.revision, 71);
    assert_int_equal(app_of(place, "a")->instances[0].weight, 9);
    outcome.turn = 0;
    changes_delete(place->changes, SLICE("a"), 71, on_done, &outcome);
    written(&gate, "-a=71 ", 72);
    check(&outcome.result, STATUS_OK, "");
    assert_null(app_of(place, "a"));
}

static void what_is_wrong_is_not_written(void **state)
{
    struct place *place = *state;
    struct gate gate;
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    struct change_result result = put(place, "b", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    check(&result, STATUS_CLAIM_CONFLICT, "10.0.0.1");
    result = put(place, "a", NULL, 0, 9);
    check(&result, STATUS_REVISION_CONFLICT, "1");
    result = remove_app(place, "c", CHANGES_ANY_REVISION);
    check(&result, STATUS_APP_UNKNOWN, "");
    assert_int_equal(gate.calls, 0);
    assert_int_equal(route_table_revision(place->table), 1);
}

static void what_loses_its_address_is_written_too(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    changes_put(place->changes, make_app("b", "10.0.0.1", 2), CHANGES_ANY_REVISION, on_done, &outcome);
    wait_for_write(&gate);
    assert_int_equal(gate.count, 2);
    for (size_t i = 0; i < 2; i++) {
        bool is_taker = strcmp(gate.writes[i].app_id, "b") == 0;
        assert_int_equal(gate.writes[i].has_expected, !is_taker);
        assert_true(is_taker || gate.writes[i].expected_revision == 1);
        assert_true(is_taker || strstr(gate.writes[i].document, "\"stopped\""));
    }
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_RUNNING);
    follow(&gate, 8);
    answer(&gate, STATUS_OK, "", 8);
    check(&outcome.result, STATUS_OK, "");
    assert_int_equal(app_of(place, "a")->instances[0].state, ROUTE_STATE_STOPPED);
    assert_int_equal(app_of(place, "a")->revision, 8);
}

static void calls_that_wait_are_written_together(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome first = {0}, others[3] = {{{0}, 0}};
    set_gate(place, &gate);
    changes_put(place->changes, make_app("a", NULL, 0), CHANGES_ANY_REVISION, on_done, &first);
    wait_for_write(&gate);
    changes_put(place->changes, make_app("b", NULL, 0), CHANGES_ANY_REVISION, on_done, &others[0]);
    changes_delete(place->changes, SLICE("none"), CHANGES_ANY_REVISION, on_done, &others[1]);
    changes_put(place->changes, make_app("c", NULL, 0), CHANGES_ANY_REVISION, on_done, &others[2]);
    follow(&gate, 5);
    assert_int_equal(gate.calls, 1);
    answer(&gate, STATUS_OK, "", 5);
    written(&gate, "b? c? ", 6);
    check(&first.result, STATUS_OK, "");
    check(&others[0].result, STATUS_OK, "");
    check(&others[1].result, STATUS_APP_UNKNOWN, "");
    check(&others[2].result, STATUS_OK, "");
    assert_int_equal(gate.calls, 2);
}

static void a_conflict_elsewhere_is_tried_again_on_what_is_there_now(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome patched = {0}, expected = {0}, elsewhere = {0};
    put(place, "a", "10.0.0.1", 1, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    changes_patch_instance(place->changes, SLICE("a"), SLICE("a-i"), SLICE("{\"weight\":9}"), CHANGES_ANY_REVISION,
                           on_done, &patched);
    changes_put(place->changes, make_app("b", NULL, 0), CHANGES_ANY_REVISION, on_done, &expected);
    wait_for_write(&gate);
    assert_writes(&gate, "a=1 b? ");
    struct changes_snapshot *delta = changes_snapshot_begin(place->changes, CHANGES_DELTA);
    struct route_app *newer = make_app("a", "10.0.0.7", 1);
    struct route_problem problem;
    newer->revision = 4;
    assert_int_equal(changes_snapshot_add(delta, newer, &problem), STATUS_OK);
    const struct changes_snapshot_options options = {.revision = 4};
    changes_snapshot_commit(&delta, &options, on_done, &elsewhere);
    wait_for(place, &elsewhere);
    answer(&gate, STATUS_REVISION_CONFLICT, "a has changed", 0);
    written(&gate, "a=4 b? ", 5);
    check(&patched.result, STATUS_OK, "");
    check(&expected.result, STATUS_OK, "");
    assert_int_equal(app_of(place, "a")->instances[0].weight, 9);
    assert_int_equal(app_of(place, "a")->instances[0].address.bytes[3], 7);
}

static void conflicts_without_end_are_told(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    put(place, "a", NULL, 0, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    changes_delete(place->changes, SLICE("a"), 1, on_done, &outcome);
    while (outcome.turn == 0) {
        wait_for_write(&gate);
        answer(&gate, STATUS_REVISION_CONFLICT, "somebody else", 0);
    }
    check(&outcome.result, STATUS_REVISION_CONFLICT, "somebody else");
    assert_true(gate.calls > 1 && gate.calls < 10);
}

static bool has_write(const struct gate *gate, const char *app_id)
{
    for (size_t i = 0; i < gate->count; i++)
        if (strcmp(gate->writes[i].app_id, app_id) == 0)
            return true;
    return false;
}

/* Of many calls that wait, one can't be written: as when its app is left out here, and so never as expected. */
static void a_conflict_without_end_refuses_nobody_else(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome first = {0};
    static struct outcome others[90];
    char id[16];
    put(place, "bad", NULL, 0, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    for (size_t bad = 0; bad < 90; bad += 37) {
        uint64_t revision = route_table_revision(place->table);
        unsigned refused = 0;
        first = (struct outcome){0};
        memset(others, 0, sizeof others);
        changes_put(place->changes, make_app("first", NULL, 0), CHANGES_ANY_REVISION, on_done, &first);
        wait_for_write(&gate);
        for (size_t i = 0; i < 90; i++) {
            snprintf(id, sizeof id, "app%zu", i);
            changes_put(place->changes, make_app(i == bad ? "bad" : id, NULL, 0), i == bad ? 1 : CHANGES_ANY_REVISION,
                        on_done, &others[i]);
        }
        while (others[89].turn == 0) {
            wait_for_write(&gate);
            if (has_write(&gate, "bad")) {
                refused++;
                answer(&gate, STATUS_REVISION_CONFLICT, "somebody else", 0);
                continue;
            }
            follow(&gate, ++revision);
            answer(&gate, STATUS_OK, "", revision);
        }
        assert_int_not_equal(first.turn, 0);
        for (size_t i = 0; i < 90; i++)
            check(&others[i].result, i == bad ? STATUS_REVISION_CONFLICT : STATUS_OK, "somebody else");
        assert_true(refused > 1 && refused < 20);
    }
}

static void note_written(struct gate *gate, const char *app_id, uint64_t revision, const struct route_problem *problem)
{
    for (size_t i = 0; i < gate->count; i++) {
        struct changes_write *write = &gate->writes[i];
        if (strcmp(write->app_id, app_id) != 0)
            continue;
        write->is_written = true;
        write->revision = revision;
        write->problem = problem;
    }
}

/* Three calls of one group: what was written of it is done, and must not be expected a second time. */
static void a_group_that_is_written_in_parts(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome waiting = {0}, first = {0}, second = {0}, third = {0};
    const struct route_problem problem = {.status = STATUS_CLAIM_CONFLICT, .field = "instances", .detail = "taken"};
    put(place, "first", NULL, 0, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    changes_put(place->changes, make_app("waiting", NULL, 0), CHANGES_ANY_REVISION, on_done, &waiting);
    wait_for_write(&gate);
    changes_put(place->changes, make_app("first", "10.0.0.1", 1), 1, on_done, &first);
    changes_put(place->changes, make_app("second", NULL, 0), CHANGES_ANY_REVISION, on_done, &second);
    changes_put(place->changes, make_app("third", NULL, 0), CHANGES_NO_APP, on_done, &third);
    follow(&gate, 5);
    answer(&gate, STATUS_OK, "", 5);
    wait_for_write(&gate);
    assert_writes(&gate, "first=1 second? third=0 ");
    note_written(&gate, "first", 7, NULL);
    note_written(&gate, "second", 7, &problem);
    gate.count = 1; /* the table follows the first one */
    follow(&gate, 7);
    answer(&gate, STATUS_REVISION_CONFLICT, "somebody else", 7);
    check(&first.result, STATUS_OK, "");
    assert_int_equal(first.result.revision, 7);
    check(&second.result, STATUS_CLAIM_CONFLICT, "app second is left out: taken");
    written(&gate, "third=0 ", 9);
    check(&third.result, STATUS_OK, "");
    assert_int_equal(third.result.revision, 9);
}

static void failures_are_told(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    set_gate(place, &gate);
    changes_put(place->changes, make_app("a", NULL, 0), CHANGES_ANY_REVISION, on_done, &outcome);
    wait_for_write(&gate);
    answer(&gate, STATUS_ETCD_UNAVAILABLE, "nobody there", 0);
    check(&outcome.result, STATUS_ETCD_UNAVAILABLE, "nobody there");
    assert_null(app_of(place, "a"));
}

static void snapshots_write_what_differs(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    struct route_problem problem;
    put(place, "gone", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "same", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "other", NULL, 0, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    assert_int_equal(changes_snapshot_add(snapshot, make_app("same", NULL, 0), &problem), STATUS_OK);
    assert_int_equal(changes_snapshot_add(snapshot, make_app("other", "10.0.0.1", 1), &problem), STATUS_OK);
    const struct changes_snapshot_options options = {.strict = false};
    changes_snapshot_commit(&snapshot, &options, on_done, &outcome);
    written(&gate, "other? -gone? ", 9);
    check(&outcome.result, STATUS_OK, "");
    assert_null(app_of(place, "gone"));
    assert_int_equal(app_of(place, "same")->revision, 2);
    outcome.turn = 0;
    snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    const struct changes_snapshot_options numbered = {.revision = 50};
    changes_snapshot_commit(&snapshot, &numbered, on_done, &outcome);
    wait_for(place, &outcome);
    check(&outcome.result, STATUS_INVALID_PARAMETER, "numbered");
    assert_int_equal(route_table_app_count(place->table), 2);
}

static void what_is_left_out_here_can_be_deleted(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome deleted = {0}, unknown = {0};
    set_gate(place, &gate);
    gate.left_out[0] = "x";
    changes_delete(place->changes, SLICE("x"), CHANGES_ANY_REVISION, on_done, &deleted);
    changes_delete(place->changes, SLICE("y"), CHANGES_ANY_REVISION, on_done, &unknown);
    written(&gate, "-x? ", 5);
    check(&deleted.result, STATUS_OK, "");
    check(&unknown.result, STATUS_APP_UNKNOWN, "");
    assert_int_equal(history_tombstone(changes_history(place->changes), SLICE("x")), 0);
}

/* The table is as the snapshot wants it, but what is elsewhere is not. */
static void a_snapshot_replaces_what_is_left_out_here(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    struct route_problem problem;
    put(place, "otherwise", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "same", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "gone", NULL, 0, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    gate.left_out[0] = "otherwise";
    gate.left_out[1] = "nowhere";
    gate.left_out[2] = "gone";
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    assert_int_equal(changes_snapshot_add(snapshot, make_app("otherwise", NULL, 0), &problem), STATUS_OK);
    assert_int_equal(changes_snapshot_add(snapshot, make_app("same", NULL, 0), &problem), STATUS_OK);
    const struct changes_snapshot_options options = {.strict = false};
    changes_snapshot_commit(&snapshot, &options, on_done, &outcome);
    written(&gate, "otherwise? -gone? -nowhere? ", 9);
    check(&outcome.result, STATUS_OK, "");
}

static void a_snapshot_leaves_alone_what_it_has_a_bad_record_of(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    put(place, "bad", NULL, 0, CHANGES_ANY_REVISION);
    put(place, "gone", NULL, 0, CHANGES_ANY_REVISION);
    set_gate(place, &gate);
    gate.left_out[0] = "left-out";
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    changes_snapshot_leave_alone(snapshot, SLICE("bad"));
    changes_snapshot_leave_alone(snapshot, SLICE("left-out"));
    const struct changes_snapshot_options options = {.strict = false};
    changes_snapshot_commit(&snapshot, &options, on_done, &outcome);
    written(&gate, "-gone? ", 9);
    check(&outcome.result, STATUS_OK, "");
}

static void on_batch_done(void *arg, const struct change_result *result)
{
    assert_int_equal(result->status, STATUS_OK);
    assert_int_equal(result->batch->lines[0].outcome, CHANGES_APPLIED);
    assert_int_equal(result->batch->lines[0].revision, 30);
    assert_int_equal(result->batch->lines[1].outcome, CHANGES_REFUSED);
    assert_string_equal(result->batch->lines[1].problem.field, "revision");
    on_done(arg, result);
}

static void lines_may_not_bring_revisions(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome outcome = {0};
    set_gate(place, &gate);
    struct changes_batch *batch = changes_batch_new();
    for (unsigned i = 0; i < 2; i++) {
        struct changes_line *line = changes_batch_add(batch);
        line->app = make_app(i == 0 ? "a" : "b", NULL, 0);
        snprintf(line->app_id, sizeof line->app_id, "%s", line->app->id);
        line->revision = i;
    }
    changes_submit(place->changes, &batch, CHANGES_ANY_REVISION, on_batch_done, &outcome);
    written(&gate, "a? ", 30);
    assert_int_not_equal(outcome.turn, 0);
}

static void nothing_is_lost_at_the_end(void **state)
{
    struct place *place = *state;
    struct gate gate;
    struct outcome first = {0}, second = {0}, third = {0};
    set_gate(place, &gate);
    changes_put(place->changes, make_app("a", NULL, 0), CHANGES_ANY_REVISION, on_done, &first);
    wait_for_write(&gate);
    changes_put(place->changes, make_app("b", NULL, 0), CHANGES_ANY_REVISION, on_done, &second);
    changes_put(place->changes, make_app("c", NULL, 0), CHANGES_ANY_REVISION, on_done, &third);
    loop_turn(place->loop, 0);
    changes_forget(place->changes, &third);
    answer(&gate, STATUS_SHUTDOWN, "stopping", 0);
    check(&first.result, STATUS_SHUTDOWN, "stopping");
    end(place);
    check(&second.result, STATUS_SHUTDOWN, "");
    assert_int_equal(third.turn, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(calls_are_done_when_the_table_has_followed),
        TEST(what_is_wrong_is_not_written),
        TEST(what_loses_its_address_is_written_too),
        TEST(calls_that_wait_are_written_together),
        TEST(a_conflict_elsewhere_is_tried_again_on_what_is_there_now),
        TEST(conflicts_without_end_are_told),
        TEST(a_conflict_without_end_refuses_nobody_else),
        TEST(a_group_that_is_written_in_parts),
        TEST(failures_are_told),
        TEST(snapshots_write_what_differs),
        TEST(what_is_left_out_here_can_be_deleted),
        TEST(a_snapshot_replaces_what_is_left_out_here),
        TEST(a_snapshot_leaves_alone_what_it_has_a_bad_record_of),
        TEST(lines_may_not_bring_revisions),
        TEST(nothing_is_lost_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
