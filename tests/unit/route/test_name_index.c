#include "../../../gateway/route/name_index.h"

#include "route_fixture.h"

static int begin(void **state)
{
    struct name_index *index = malloc(sizeof *index);
    assert_non_null(index);
    name_index_init(index);
    *state = index;
    return 0;
}

static int end(void **state)
{
    struct name_index *index = *state;
    name_index_fini(index);
    free(index);
    return 0;
}

static bool leads_to(const struct name_index *index, enum name_space space, const char *name,
                     const struct route_app *app, unsigned number)
{
    struct name_place place;
    return name_index_find(index, space, slice_str(name), &place) && place.app == app && place.number == number;
}

static bool is_there(const struct name_index *index, enum name_space space, const char *name)
{
    struct name_place place;
    return name_index_find(index, space, slice_str(name), &place);
}

static void test_kinds_of_names(void **state)
{
    struct name_index *index = *state;
    struct route_app *app = fixture_app("a", "i0", "10.0.0.1", 1);
    fixture_add_instance(app, "i1", "fd00::1", 1, ROUTE_STATE_RUNNING);
    fixture_add_domain(app, "a", 80);
    fixture_add_domain(app, "shop.example.com", 80);
    assert_false(is_there(index, NAME_ID, "a"));
    unsigned numbers[] = {NAME_OF_APP,     NAME_OF_INSTANCES,   NAME_OF_INSTANCES + 1,
                          NAME_OF_DOMAINS, NAME_OF_DOMAINS + 1, NAME_OF_ADDRESSES + 1};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        name_index_put(index, app, numbers[i]);
    assert_true(leads_to(index, NAME_ID, "a", app, NAME_OF_APP));
    assert_true(leads_to(index, NAME_ID, "i0", app, NAME_OF_INSTANCES));
    assert_true(leads_to(index, NAME_ID, "i1", app, NAME_OF_INSTANCES + 1));
    assert_true(leads_to(index, NAME_DOMAIN, "a", app, NAME_OF_DOMAINS));
    assert_true(leads_to(index, NAME_DOMAIN, "shop.example.com", app, NAME_OF_DOMAINS + 1));
    assert_false(is_there(index, NAME_ID, "shop.example.com"));
    assert_false(is_there(index, NAME_DOMAIN, "i0"));
    assert_false(is_there(index, NAME_ID, ""));
    struct ip_addr address = fixture_ip("fd00::1");
    struct name_place place;
    assert_true(name_index_find(index, NAME_ADDRESS, name_of_address(&address), &place));
    assert_ptr_equal(place.app, app);
    assert_int_equal(place.number, NAME_OF_ADDRESSES + 1);
    route_app_free(&app);
}

/* The last number of each kind survives being a part of a word. */
static void test_largest_numbers(void **state)
{
    struct name_index *index = *state;
    struct route_app *app = route_app_new("app");
    char text[32];
    for (unsigned i = 0; i < ROUTE_MAX_INSTANCES; i++) {
        snprintf(text, sizeof text, "i%u", i);
        fixture_add_instance(app, text, NULL, 1, ROUTE_STATE_STARTING);
        name_index_put(index, app, NAME_OF_INSTANCES + i);
    }
    for (unsigned i = 0; i < ROUTE_MAX_DOMAINS; i++) {
        snprintf(text, sizeof text, "d%u.example", i);
        fixture_add_domain(app, text, 80);
        name_index_put(index, app, NAME_OF_DOMAINS + i);
    }
    for (unsigned i = 0; i < ROUTE_MAX_INSTANCES; i++) {
        snprintf(text, sizeof text, "i%u", i);
        assert_true(leads_to(index, NAME_ID, text, app, NAME_OF_INSTANCES + i));
    }
    for (unsigned i = 0; i < ROUTE_MAX_DOMAINS; i++) {
        snprintf(text, sizeof text, "d%u.example", i);
        assert_true(leads_to(index, NAME_DOMAIN, text, app, NAME_OF_DOMAINS + i));
    }
    app->instances[ROUTE_MAX_INSTANCES - 1].address = fixture_ip("10.9.9.9");
    name_index_put(index, app, NAME_NUMBERS - 1);
    struct name_place place;
    assert_true(name_index_find(index, NAME_ADDRESS, name_of_address(&app->instances[ROUTE_MAX_INSTANCES - 1].address),
                                &place));
    assert_int_equal(place.number, NAME_NUMBERS - 1);
    route_app_free(&app);
}

static void test_replace_and_remove(void **state)
{
    struct name_index *index = *state;
    struct route_app *first = route_app_new("a");
    struct route_app *second = route_app_new("a");
    name_index_put(index, first, NAME_OF_APP);
    name_index_put(index, second, NAME_OF_APP);
    assert_true(leads_to(index, NAME_ID, "a", second, NAME_OF_APP));
    name_index_remove(index, first, NAME_OF_APP); /* is not the one that has it */
    assert_true(leads_to(index, NAME_ID, "a", second, NAME_OF_APP));
    name_index_remove(index, second, NAME_OF_APP);
    assert_false(is_there(index, NAME_ID, "a"));
    name_index_remove(index, second, NAME_OF_APP);
    name_index_put(index, first, NAME_OF_APP);
    assert_true(leads_to(index, NAME_ID, "a", first, NAME_OF_APP));
    route_app_free(&first);
    route_app_free(&second);
}

/* Against a plain array: names come, change hands and go, far more often than an array has room. */
static void test_many(void **state)
{
    enum { NAMES = 20000, STEPS = 200000 };
    struct name_index *index = *state;
    struct route_app **apps = calloc(NAMES, sizeof *apps), **others = calloc(NAMES, sizeof *others);
    const struct route_app **present = calloc(NAMES, sizeof *present);
    uint32_t random = 4711;
    char text[16];
    assert_true(apps && others && present);
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(text, sizeof text, "app%u", i);
        apps[i] = route_app_new(text);
        others[i] = route_app_new(text);
    }
    for (unsigned step = 0; step < STEPS; step++) {
        random = random * 1664525 + 1013904223;
        unsigned n = (random >> 8) % NAMES;
        struct route_app *app = random >> 31 ? apps[n] : others[n];
        if (present[n] == app) {
            name_index_remove(index, app, NAME_OF_APP);
            present[n] = NULL;
        } else {
            name_index_put(index, app, NAME_OF_APP);
            present[n] = app;
        }
        if (step % 1000 == 0)
            name_index_collect(index);
    }
    for (unsigned i = 0; i < NAMES; i++) {
        assert_int_equal(is_there(index, NAME_ID, apps[i]->id), present[i] != NULL);
        assert_true(!present[i] || leads_to(index, NAME_ID, apps[i]->id, present[i], NAME_OF_APP));
    }
    for (unsigned i = 0; i < NAMES; i++) {
        route_app_free(&apps[i]);
        route_app_free(&others[i]);
    }
    free(apps);
    free(others);
    free(present);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_kinds_of_names),
        TEST(test_largest_numbers),
        TEST(test_replace_and_remove),
        TEST(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
