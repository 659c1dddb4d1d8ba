#include "../../../gateway/route/app_order.h"

#include "route_fixture.h"

enum { APPS = 5000 };

struct walk {
    const char *last;
    size_t count;
    const struct route_app *const *present; /* by the number in the id; NULL: not looked at */
};

static struct route_app *numbered(unsigned n)
{
    char id[16];
    snprintf(id, sizeof id, "app-%05u", n);
    return route_app_new(id);
}

static void note(void *arg, const struct route_app *app)
{
    struct walk *walk = arg;
    assert_true(strcmp(walk->last, app->id) < 0);
    if (walk->present)
        assert_ptr_equal(app, walk->present[atoi(app->id + 4)]);
    walk->last = app->id;
    walk->count++;
}

static size_t count_by_pages(const struct app_order *order, size_t page, const struct route_app *const *present)
{
    struct walk walk = {.last = "", .present = present};
    while (app_order_each(order, slice_str(walk.last), page, note, &walk) == page) {
    }
    return walk.count;
}

static void test_ascending_and_descending(void **state)
{
    struct app_order order = {0};
    (void)state;
    for (unsigned i = APPS / 2; i < APPS; i++)
        app_order_insert(&order, numbered(i));
    for (unsigned i = APPS / 2; i-- > 0;)
        app_order_insert(&order, numbered(i));
    assert_int_equal(count_by_pages(&order, 1, NULL), APPS);
    assert_int_equal(count_by_pages(&order, 7, NULL), APPS);
    assert_int_equal(count_by_pages(&order, APPS + 1, NULL), APPS);
    app_order_free(&order);
    assert_int_equal(count_by_pages(&order, 10, NULL), 0);
}

static void test_after(void **state)
{
    struct app_order order = {0};
    struct walk walk = {.last = ""};
    (void)state;
    for (unsigned i = 0; i < APPS; i += 2)
        app_order_insert(&order, numbered(i));
    assert_int_equal(app_order_each(&order, SLICE("app-00010"), 1, note, &walk), 1);
    assert_string_equal(walk.last, "app-00012");
    walk.last = "";
    assert_int_equal(app_order_each(&order, SLICE("app-00011"), 1, note, &walk), 1);
    assert_string_equal(walk.last, "app-00012");
    walk.last = "";
    assert_int_equal(app_order_each(&order, SLICE("app-"), 1, note, &walk), 1);
    assert_string_equal(walk.last, "app-00000");
    walk.last = "";
    assert_int_equal(app_order_each(&order, SLICE("app-0001"), 1, note, &walk), 1);
    assert_string_equal(walk.last, "app-00010");
    assert_int_equal(app_order_each(&order, SLICE("app-04998"), 10, note, &walk), 0);
    assert_int_equal(app_order_each(&order, SLICE("\xff"), 10, note, &walk), 0);
    assert_int_equal(app_order_each(&order, SLICE_NONE, 0, note, &walk), 0);
    app_order_free(&order);
}

/* Against a plain array: apps come, are replaced and go in random order, then all go. */
static void test_many(void **state)
{
    enum { STEPS = 100000 };
    struct app_order order = {0};
    struct route_app **present = calloc(APPS, sizeof *present);
    size_t count = 0;
    uint32_t random = 99;
    (void)state;
    assert_non_null(present);
    for (unsigned step = 0; step < STEPS; step++) {
        random = random * 1664525 + 1013904223;
        unsigned n = (random >> 8) % APPS;
        struct route_app *before = present[n];
        if (!before) {
            present[n] = numbered(n);
            app_order_insert(&order, present[n]);
            count++;
        } else if (random >> 30 == 0) {
            present[n] = numbered(n);
            app_order_replace(&order, before, present[n]);
            route_app_free(&before);
        } else {
            app_order_remove(&order, before);
            route_app_free(&present[n]);
            count--;
        }
        if (step % 10000 == 0)
            assert_int_equal(count_by_pages(&order, 100, (const struct route_app *const *)present), count);
    }
    for (unsigned i = 0; i < APPS; i++) {
        unsigned n = i * 7 % APPS;
        if (present[n])
            app_order_remove(&order, present[n]);
        count -= present[n] != NULL;
        route_app_free(&present[n]);
        if (i % 500 == 0)
            assert_int_equal(count_by_pages(&order, 100, (const struct route_app *const *)present), count);
    }
    assert_int_equal(order.page_count, 0);
    app_order_free(&order);
    free(present);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascending_and_descending),
        cmocka_unit_test(test_after),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
