/* A place with a store, a table and `changes` of its own, and calls that wait until they are done. */
#ifndef TESTS_CONTROL_CHANGES_PLACE_H
#define TESTS_CONTROL_CHANGES_PLACE_H

#include "gateway/control/app_document.h"
#include "gateway/control/changes.h"
#include "gateway/control/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct counters counters;
static struct ip_network everything = {.addr = {.family = AF_INET}, .prefix = 0};
static struct ip_network nothing_else = {.addr = {.family = AF_INET, .bytes = {10, 9}}, .prefix = 16};
static const struct route_rules rules = {.allow = &everything, .allow_count = 1};
static const struct route_rules narrow_rules = {.allow = &nothing_else, .allow_count = 1};

struct place {
    char dir[64];
    struct loop *loop;
    struct route_table *table;
    struct store *store;
    struct changes *changes;
    size_t revoked;
};

static inline void on_revoked(void *arg, struct claim *claim)
{
    struct place *place = arg;
    assert_true(claim_is_revoked(claim));
    place->revoked++;
}

static inline void begin(struct place *place, const struct route_rules *its_rules)
{
    char error[STORE_ERROR_TEXT_MAX] = "";
    if (store_open(place->dir, place->loop, &place->store, error) != STATUS_OK)
        fail_msg("%s", error);
    place->table = route_table_new();
    place->changes = changes_new(place->loop, place->table, place->store, on_revoked, place);
    changes_set_rules(place->changes, its_rules);
    assert_int_equal(changes_load(place->changes, error), STATUS_OK);
}

static inline void end(struct place *place)
{
    changes_free(&place->changes);
    store_close(&place->store);
    loop_turn(place->loop, 0);
    route_table_free(&place->table);
}

static inline void restart(struct place *place, const struct route_rules *its_rules)
{
    end(place);
    begin(place, its_rules);
}

static inline int set_up(void **state)
{
    struct place *place = test_calloc(1, sizeof *place);
    snprintf(place->dir, sizeof place->dir, "/tmp/changes-test-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    route_table_thread_begin();
    place->loop = loop_new(&counters);
    begin(place, &rules);
    *state = place;
    return 0;
}

static inline int tear_down(void **state)
{
    struct place *place = *state;
    char path[512];
    if (place->changes)
        end(place);
    loop_free(&place->loop);
    route_table_thread_end();
    DIR *dir = opendir(place->dir);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", place->dir, entry->d_name);
        unlink(path);
    }
    closedir(dir);
    rmdir(place->dir);
    test_free(place);
    return 0;
}

/* ---- requests ---- */

struct outcome {
    struct change_result result;
    int turn; /* when it came, among all outcomes; 0: not yet */
};

static int turns;

static inline void on_done(void *arg, const struct change_result *result)
{
    struct outcome *outcome = arg;
    assert_int_equal(outcome->turn, 0);
    outcome->result = *result;
    outcome->turn = ++turns;
}

static inline void wait_for(struct place *place, const struct outcome *outcome)
{
    assert_int_equal(outcome->turn, 0); /* never before the call returned */
    for (int i = 0; i < 1000 && outcome->turn == 0; i++)
        loop_turn(place->loop, 10);
    assert_int_not_equal(outcome->turn, 0);
}

/* An app with one instance "<id>-i", or with none if there is no address. */
static inline struct route_app *make_app(const char *id, const char *address, unsigned generation)
{
    char json[512];
    struct route_app *app = NULL;
    struct route_problem problem;
    if (address)
        snprintf(json, sizeof json,
                 "{\"app_id\":\"%s\",\"instances\":[{\"instance_id\":\"%s-i\",\"address\":\"%s\",\"generation\":%u}]}",
                 id, id, address, generation);
    else
        snprintf(json, sizeof json, "{\"app_id\":\"%s\"}", id);
    if (app_document_parse(slice_str(json), &app, &problem) != STATUS_OK)
        fail_msg("%s: %s", problem.field, problem.detail);
    return app;
}

static inline struct change_result put(struct place *place, const char *id, const char *address, unsigned generation,
                                       uint64_t expected_revision)
{
    struct outcome outcome = {0};
    changes_put(place->changes, make_app(id, address, generation), expected_revision, on_done, &outcome);
    wait_for(place, &outcome);
    return outcome.result;
}

static inline struct change_result remove_app(struct place *place, const char *id, uint64_t expected_revision)
{
    struct outcome outcome = {0};
    changes_delete(place->changes, slice_str(id), expected_revision, on_done, &outcome);
    wait_for(place, &outcome);
    return outcome.result;
}

static inline struct change_result patch(struct place *place, const char *id, const char *instance_id, const char *json,
                                         uint64_t expected_revision)
{
    struct outcome outcome = {0};
    changes_patch_instance(place->changes, slice_str(id), slice_str(instance_id), slice_str(json), expected_revision,
                           on_done, &outcome);
    wait_for(place, &outcome);
    return outcome.result;
}

static inline const struct route_app *app_of(const struct place *place, const char *id)
{
    return route_table_app(place->table, slice_str(id));
}

/* "ok", or the status and where and why. */
static inline void check(const struct change_result *result, enum status status, const char *fragment)
{
    if (result->status != status || (status != STATUS_OK && !strstr(result->problem.detail, fragment)))
        fail_msg("%s: %s: %s", status_code(result->status), result->problem.field, result->problem.detail);
}

#endif
