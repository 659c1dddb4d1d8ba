#include "route_fixture.h"

#include "gateway/route/route_table.h"

#include <pthread.h>
#include <sched.h>

static int begin(void **state)
{
    struct route_table *table = route_table_new();
    *state = table;
    return 0;
}

static int end(void **state)
{
    struct route_table *table = *state;
    route_table_free(&table);
    route_table_free(&table);
    return 0;
}

static void put(struct route_table *table, struct route_app *app)
{
    struct route_problem problem = {0};
    if (route_table_stage_put(table, app, &problem) != STATUS_OK)
        fail_msg("%s: %s: %s", app->id, problem.field, problem.detail);
}

static void refuse(struct route_table *table, struct route_app *app, enum status status, const char *field)
{
    struct route_problem problem = {0};
    assert_int_equal(route_table_stage_put(table, app, &problem), status);
    assert_int_equal(problem.status, status);
    assert_string_equal(problem.field, field);
    route_app_free(&app);
}

static void drop(struct route_table *table, const char *id)
{
    struct route_problem problem = {0};
    assert_int_equal(route_table_stage_delete(table, slice_str(id), &problem), STATUS_OK);
}

static void count_revoked(void *arg, struct claim *claim)
{
    assert_true(claim_is_revoked(claim));
    ++*(size_t *)arg;
}

static size_t publish(struct route_table *table)
{
    size_t revoked = 0;
    route_table_publish(table, count_revoked, &revoked);
    return revoked;
}

static const struct route_app *find(struct route_table *table, const char *id)
{
    route_table_read_begin();
    const struct route_app *app = route_table_app(table, slice_str(id));
    route_table_read_end();
    return app;
}

static struct claim *claim_of(struct route_table *table, const char *id)
{
    const struct route_app *app = find(table, id);
    assert_non_null(app);
    return app->instances[0].claim;
}

static void test_put_publish_delete(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    assert_null(find(table, "a"));
    assert_non_null(route_table_staged_app(table, SLICE("a")));
    assert_int_equal(route_table_staged_app_count(table), 1);
    assert_int_equal(route_table_revision(table), 0);
    assert_int_equal(publish(table), 0);
    assert_int_equal(find(table, "a")->revision, 1);
    assert_non_null(claim_of(table, "a"));
    assert_null(find(table, "i"));
    assert_int_equal(route_table_revision(table), 1);
    assert_int_equal(route_table_app_count(table), 1);
    assert_int_equal(route_table_instance_count(table), 1);
    put(table, fixture_app("a", "i", "10.0.0.1", 2));
    assert_int_equal(route_table_staged_app_count(table), 1);
    route_table_abort(table);
    assert_int_equal(route_table_staged_app_count(table), 1);
    drop(table, "a");
    assert_int_equal(route_table_staged_app_count(table), 0);
    assert_null(route_table_staged_app(table, SLICE("a")));
    assert_non_null(find(table, "a"));
    assert_int_equal(publish(table), 1);
    assert_null(find(table, "a"));
    assert_int_equal(route_table_revision(table), 2);
    assert_int_equal(route_table_app_count(table), 0);
    assert_int_equal(route_table_instance_count(table), 0);
}

static void test_names_with_odd_bytes(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    publish(table);
    route_table_read_begin();
    assert_null(route_table_app(table, slice_make("a\0", 2)));
    assert_null(route_table_app(table, SLICE("")));
    assert_null(route_table_app(table, SLICE_NONE));
    route_table_read_end();
}

static void test_delete_unknown(void **state)
{
    struct route_problem problem = {0};
    assert_int_equal(route_table_stage_delete(*state, SLICE("nope"), &problem), STATUS_APP_UNKNOWN);
    assert_int_equal(publish(*state), 0);
    assert_int_equal(route_table_revision(*state), 0);
}

static void test_same_instance_keeps_its_claim(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    publish(table);
    struct claim *claim = claim_of(table, "a");
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    assert_int_equal(publish(table), 0);
    assert_ptr_equal(claim_of(table, "a"), claim);
    struct route_app *app = route_app_new("a");
    fixture_add_instance(app, "i", "10.0.0.1", 1, ROUTE_STATE_DRAINING);
    put(table, app);
    assert_int_equal(publish(table), 0);
    assert_ptr_equal(claim_of(table, "a"), claim);
    /* Also when the app was taken away in the same batch. */
    drop(table, "a");
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    assert_int_equal(publish(table), 0);
    assert_ptr_equal(claim_of(table, "a"), claim);
    assert_false(claim_is_revoked(claim));
}

static void test_new_generation_address_or_stop_revokes(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    publish(table);
    struct claim *first = claim_ref(claim_of(table, "a"));
    put(table, fixture_app("a", "i", "10.0.0.1", 2));
    assert_int_equal(publish(table), 1);
    assert_true(claim_is_revoked(first));
    assert_true(claim_of(table, "a")->serial > first->serial);
    put(table, fixture_app("a", "i", "10.0.0.2", 2));
    assert_int_equal(publish(table), 1);
    struct route_app *app = route_app_new("a");
    fixture_add_instance(app, "i", "10.0.0.2", 2, ROUTE_STATE_STOPPED);
    put(table, app);
    assert_int_equal(publish(table), 1);
    assert_null(claim_of(table, "a"));
    claim_unref(&first);
}

static void test_older_generation_is_refused(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 5));
    publish(table);
    refuse(table, fixture_app("a", "i", "10.0.0.1", 4), STATUS_INVALID_RECORD, "instances[0].generation");
    assert_int_equal(publish(table), 0);
    assert_int_equal(find(table, "a")->instances[0].generation, 5);
}

static void test_addresses_swap_in_one_record(void **state)
{
    struct route_table *table = *state;
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 1);
    fixture_add_instance(app, "j", "10.0.0.2", 1, ROUTE_STATE_RUNNING);
    put(table, app);
    publish(table);
    app = fixture_app("a", "i", "10.0.0.2", 1);
    fixture_add_instance(app, "j", "10.0.0.1", 1, ROUTE_STATE_RUNNING);
    put(table, app);
    assert_int_equal(publish(table), 2);
}

static void test_claim_conflict(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 5));
    publish(table);
    refuse(table, fixture_app("b", "j", "10.0.0.1", 5), STATUS_CLAIM_CONFLICT, "instances[0].address");
    refuse(table, fixture_app("b", "j", "10.0.0.1", 4), STATUS_CLAIM_CONFLICT, "instances[0].address");
    assert_null(route_table_staged_app(table, SLICE("b")));
    /* Against what is only staged, too. */
    put(table, fixture_app("c", "k", "10.0.0.9", 5));
    refuse(table, fixture_app("b", "j", "10.0.0.9", 5), STATUS_CLAIM_CONFLICT, "instances[0].address");
    /* An address that the same batch gives up is free. */
    drop(table, "a");
    put(table, fixture_app("b", "j", "10.0.0.1", 1));
    assert_int_equal(publish(table), 1);
    assert_non_null(claim_of(table, "b"));
}

struct seen {
    char text[256];
};

static void note_staged(void *arg, struct slice app_id, const struct route_app *app)
{
    struct seen *seen = arg;
    size_t len = strlen(seen->text);
    snprintf(seen->text + len, sizeof seen->text - len, "%.*s:%d ", SLICE_ARG(app_id), app ? (int)app->revision : -1);
}

static void test_newer_generation_supersedes(void **state)
{
    struct route_table *table = *state;
    struct seen seen = {""};
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 5);
    fixture_add_instance(app, "i2", "10.0.0.2", 5, ROUTE_STATE_RUNNING);
    fixture_add_instance(app, "i3", "10.0.0.3", 5, ROUTE_STATE_RUNNING);
    put(table, app);
    publish(table);
    struct claim *kept = find(table, "a")->instances[2].claim;
    app = fixture_app("b", "j", "10.0.0.1", 6);
    fixture_add_instance(app, "j2", "10.0.0.2", 7, ROUTE_STATE_RUNNING);
    put(table, app);
    route_table_staged_each(table, note_staged, &seen);
    assert_string_equal(seen.text, "a:2 b:2 ");
    assert_int_equal(publish(table), 2);
    const struct route_app *loser = find(table, "a");
    assert_int_equal(loser->instances[0].state, ROUTE_STATE_STOPPED);
    assert_int_equal(loser->instances[1].state, ROUTE_STATE_STOPPED);
    assert_null(loser->instances[0].claim);
    assert_ptr_equal(loser->instances[2].claim, kept);
    assert_false(claim_is_revoked(kept));
    assert_int_equal(claim_of(table, "b")->generation, 6);
}

static void test_abort_restores_all(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 5));
    publish(table);
    struct claim *claim = claim_of(table, "a");
    put(table, fixture_app("b", "j", "10.0.0.1", 6));
    put(table, fixture_app("c", "k", "10.0.0.3", 6));
    put(table, fixture_app("c", "k", "10.0.0.4", 6));
    drop(table, "c");
    route_table_abort(table);
    assert_int_equal(route_table_revision(table), 1);
    assert_ptr_equal(claim_of(table, "a"), claim);
    assert_false(claim_is_revoked(claim));
    assert_null(find(table, "b"));
    assert_null(route_table_staged_app(table, SLICE("b")));
    refuse(table, fixture_app("b", "j", "10.0.0.1", 5), STATUS_CLAIM_CONFLICT, "instances[0].address");
    put(table, fixture_app("d", "j", "10.0.0.9", 1));
    publish(table);
    assert_int_equal(find(table, "d")->revision, 2);
}

static void test_names_of_other_apps(void **state)
{
    struct route_table *table = *state;
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 1);
    fixture_add_domain(app, "x.example.com", 80);
    put(table, app);
    refuse(table, fixture_app("b", "i", "10.0.0.2", 1), STATUS_INVALID_RECORD, "instances[0].instance_id");
    publish(table);
    refuse(table, fixture_app("b", "i", "10.0.0.2", 1), STATUS_INVALID_RECORD, "instances[0].instance_id");
    refuse(table, fixture_app("b", "a", "10.0.0.2", 1), STATUS_INVALID_RECORD, "instances[0].instance_id");
    refuse(table, fixture_app("i", "j", "10.0.0.2", 1), STATUS_INVALID_RECORD, "app_id");
    app = fixture_app("b", "j", "10.0.0.2", 1);
    fixture_add_domain(app, "x.example.com", 80);
    refuse(table, app, STATUS_INVALID_RECORD, "domains[0].name");
}

static void test_names_move_in_one_batch(void **state)
{
    struct route_table *table = *state;
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 1);
    fixture_add_domain(app, "x.example.com", 80);
    put(table, app);
    publish(table);
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    app = fixture_app("b", "j", "10.0.0.2", 1);
    fixture_add_domain(app, "x.example.com", 81);
    put(table, app);
    refuse(table, fixture_app("c", "j", "10.0.0.3", 1), STATUS_INVALID_RECORD, "instances[0].instance_id");
    publish(table);
    struct hostname custom = {.kind = HOSTNAME_CUSTOM};
    struct route_target target;
    route_table_read_begin();
    route_table_resolve(table, &custom, SLICE("x.example.com"), &target);
    assert_int_equal(target.status, STATUS_OK);
    assert_string_equal(target.app->id, "b");
    assert_int_equal(target.port, 81);
    route_table_read_end();
    /* An app id that became an instance id, and back. */
    drop(table, "b");
    put(table, fixture_app("c", "b", "10.0.0.2", 1));
    publish(table);
    assert_null(find(table, "b"));
    drop(table, "c");
    put(table, fixture_app("b", "j", "10.0.0.2", 1));
    publish(table);
    assert_non_null(find(table, "b"));
}

/* Who has a name that went from one app to another and back, at each point of one batch. */
static void test_a_name_comes_back_in_one_batch(void **state)
{
    struct route_table *table = *state;
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    publish(table);
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    refuse(table, fixture_app("b", "i", "10.0.0.2", 1), STATUS_INVALID_RECORD, "instances[0].instance_id");
    put(table, fixture_app("a", "k", "10.0.0.1", 2));
    put(table, fixture_app("a", "i", "10.0.0.1", 2));
    put(table, fixture_app("a", "k", "10.0.0.1", 2));
    put(table, fixture_app("b", "i", "10.0.0.2", 1));
    refuse(table, fixture_app("a", "i", "10.0.0.1", 2), STATUS_INVALID_RECORD, "instances[0].instance_id");
    drop(table, "b");
    put(table, fixture_app("a", "i", "10.0.0.1", 2));
    drop(table, "a");
    put(table, fixture_app("b", "i", "10.0.0.2", 1));
    refuse(table, fixture_app("a", "i", "10.0.0.1", 2), STATUS_INVALID_RECORD, "instances[0].instance_id");
    put(table, fixture_app("b", "j", "10.0.0.2", 1));
    put(table, fixture_app("a", "i", "10.0.0.1", 2));
    refuse(table, fixture_app("b", "i", "10.0.0.2", 1), STATUS_INVALID_RECORD, "instances[0].instance_id");
    publish(table);
    assert_non_null(route_app_instance(find(table, "a"), SLICE("i")));
    assert_non_null(route_app_instance(find(table, "b"), SLICE("j")));
}

static void test_last_state_wins_in_a_batch(void **state)
{
    struct route_table *table = *state;
    struct seen seen = {""};
    put(table, fixture_app("a", "i", "10.0.0.1", 1));
    put(table, fixture_app("b", "j", "10.0.0.2", 1));
    put(table, fixture_app("a", "i", "10.0.0.3", 2));
    put(table, fixture_app("c", "k", "10.0.0.1", 1));
    drop(table, "b");
    route_table_staged_each(table, note_staged, &seen);
    assert_string_equal(seen.text, "a:3 c:4 ");
    assert_int_equal(publish(table), 0);
    assert_int_equal(route_table_app_count(table), 2);
    assert_int_equal(route_table_revision(table), 5);
    memset(&seen, 0, sizeof seen);
    drop(table, "a");
    route_table_staged_each(table, note_staged, &seen);
    assert_string_equal(seen.text, "a:-1 ");
    publish(table);
}

static void test_restore(void **state)
{
    struct route_table *table = *state;
    struct route_problem problem;
    struct route_app *app = fixture_app("a", "i", "10.0.0.1", 1);
    app->revision = 41;
    assert_int_equal(route_table_stage_put(table, app, &problem), STATUS_OK);
    app = fixture_app("b", "j", "10.0.0.2", 1);
    app->revision = 17;
    assert_int_equal(route_table_stage_put(table, app, &problem), STATUS_OK);
    route_table_stage_revision(table, 99);
    publish(table);
    assert_int_equal(find(table, "a")->revision, 41);
    assert_int_equal(find(table, "b")->revision, 17);
    assert_int_equal(route_table_revision(table), 99);
    put(table, fixture_app("b", "j", "10.0.0.2", 1));
    publish(table);
    assert_int_equal(find(table, "b")->revision, 100);
}

struct page {
    char last[64];
    size_t count;
};

static void note_app(void *arg, const struct route_app *app)
{
    struct page *page = arg;
    assert_true(strcmp(app->id, page->last) > 0);
    snprintf(page->last, sizeof page->last, "%s", app->id);
    page->count++;
}

static void put_numbered(struct route_table *table, unsigned n)
{
    char id[16];
    char instance[16];
    char address[IP_TEXT_MAX];
    snprintf(id, sizeof id, "app-%05u", n);
    snprintf(instance, sizeof instance, "i-%05u", n);
    snprintf(address, sizeof address, "10.1.%u.%u", n / 250, n % 250);
    put(table, fixture_app(id, instance, address, 1));
}

static void test_paging_in_order(void **state)
{
    enum { APPS = 3000, STEP = 1237 }; /* coprime: every app once, out of order */
    struct route_table *table = *state;
    struct page page = {"", 0};
    for (unsigned i = 0; i < APPS; i++) {
        put_numbered(table, i * STEP % APPS);
        if (i % 100 == 0)
            publish(table);
    }
    publish(table);
    assert_int_equal(route_table_app_count(table), APPS);
    while (route_table_each(table, slice_str(page.last), 7, note_app, &page) == 7) {
    }
    assert_int_equal(page.count, APPS);
    for (unsigned i = 0; i < APPS; i += 2) {
        char id[16];
        snprintf(id, sizeof id, "app-%05u", i);
        drop(table, id);
        if (i % 300 == 0)
            publish(table);
    }
    publish(table);
    page = (struct page){"app-00010", 0};
    assert_int_equal(route_table_each(table, slice_str(page.last), 10000, note_app, &page), APPS / 2 - 5);
    assert_string_equal(page.last, "app-02999");
    assert_int_equal(route_table_each(table, SLICE("zzz"), 10, note_app, &page), 0);
    assert_int_equal(route_table_each(table, SLICE_NONE, 0, note_app, &page), 0);
}

/* ---- readers beside the writer ---- */

enum { READERS = 3, READS = 20000, WRITES = 400 };

struct shared {
    struct route_table *table;
    _Atomic bool stop;
    _Atomic unsigned long found;
};

/* App "moving" is always there; its one instance says its generation three times over. */
static void check_moving(struct shared *shared)
{
    struct hostname hostname = {.kind = HOSTNAME_APP, .port = 80, .id_len = 6, .whole_len = 6, .label = "moving"};
    struct route_target target;
    route_table_read_begin();
    route_table_resolve(shared->table, &hostname, SLICE_NONE, &target);
    assert_int_equal(target.status, STATUS_OK);
    const struct route_instance *instance = &target.app->instances[0];
    assert_int_equal(target.app->max_connections, instance->generation);
    assert_int_equal(instance->claim->generation, instance->generation);
    assert_true(ip_equal(&instance->claim->address, &instance->address));
    struct claim *claim = claim_ref(instance->claim);
    route_table_read_end();
    atomic_fetch_add(&shared->found, claim->serial > 0);
    claim_unref(&claim);
}

static void *read_loop(void *arg)
{
    struct shared *shared = arg;
    route_table_thread_begin();
    for (int i = 0; i < READS && !atomic_load(&shared->stop); i++) {
        check_moving(shared);
        route_table_read_begin();
        const struct route_app *app = route_table_app(shared->table, SLICE("coming"));
        if (app)
            assert_string_equal(app->instances[0].id, "going");
        route_table_read_end();
    }
    route_table_thread_end();
    return NULL;
}

static void put_moving(struct route_table *table, uint64_t generation)
{
    struct route_app *app = fixture_app("moving", "i", generation % 2 ? "10.0.0.1" : "10.0.0.2", generation);
    app->max_connections = (uint32_t)generation;
    put(table, app);
}

static void test_read_while_written(void **state)
{
    struct shared shared = {.table = *state};
    pthread_t threads[READERS];
    put_moving(shared.table, 1);
    publish(shared.table);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_loop, &shared), 0);
    while (atomic_load(&shared.found) == 0) /* on a busy machine the threads may begin late */
        sched_yield();
    for (uint64_t n = 2; n < WRITES; n++) {
        put_moving(shared.table, n);
        if (n % 2 == 0)
            put(shared.table, fixture_app("coming", "going", "10.0.0.9", 1));
        else
            drop(shared.table, "coming");
        if (n % 7 == 0)
            put_numbered(shared.table, (unsigned)n);
        publish(shared.table);
    }
    atomic_store(&shared.stop, true);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(atomic_load(&shared.found) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_put_publish_delete, begin, end),
        cmocka_unit_test_setup_teardown(test_names_with_odd_bytes, begin, end),
        cmocka_unit_test_setup_teardown(test_delete_unknown, begin, end),
        cmocka_unit_test_setup_teardown(test_same_instance_keeps_its_claim, begin, end),
        cmocka_unit_test_setup_teardown(test_new_generation_address_or_stop_revokes, begin, end),
        cmocka_unit_test_setup_teardown(test_older_generation_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(test_addresses_swap_in_one_record, begin, end),
        cmocka_unit_test_setup_teardown(test_claim_conflict, begin, end),
        cmocka_unit_test_setup_teardown(test_newer_generation_supersedes, begin, end),
        cmocka_unit_test_setup_teardown(test_abort_restores_all, begin, end),
        cmocka_unit_test_setup_teardown(test_names_of_other_apps, begin, end),
        cmocka_unit_test_setup_teardown(test_names_move_in_one_batch, begin, end),
        cmocka_unit_test_setup_teardown(test_a_name_comes_back_in_one_batch, begin, end),
        cmocka_unit_test_setup_teardown(test_last_state_wins_in_a_batch, begin, end),
        cmocka_unit_test_setup_teardown(test_restore, begin, end),
        cmocka_unit_test_setup_teardown(test_paging_in_order, begin, end),
        cmocka_unit_test_setup_teardown(test_read_while_written, begin, end),
    };
    route_table_thread_begin();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
