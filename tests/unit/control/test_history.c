#include "gateway/control/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RING = 8, TOMBSTONES = 16 };

static struct history *make(void)
{
    return history_new(&(struct history_limits){.ring_entries = RING, .tombstones = TOMBSTONES});
}

static struct slice name_of(unsigned number)
{
    static char text[32];
    return slice_make(text, (size_t)snprintf(text, sizeof text, "app-%u", number));
}

/* "revision:id " of the ring's entries later than `since`, or NULL when it does not have them all. */
static const char *ring_since(const struct history *h, uint64_t since)
{
    static char text[512];
    uint64_t place;
    text[0] = '\0';
    if (!history_seek(h, since, &place))
        return NULL;
    for (; place < history_end(h); place++) {
        const struct history_entry *entry = history_at(h, place);
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%d:%s ", (int)entry->revision, entry->app_id);
    }
    return text;
}

static void test_ring(void **state)
{
    struct history *h = make();
    (void)state;
    history_begin(h, 0, 10);
    assert_null(ring_since(h, 9));
    assert_string_equal(ring_since(h, 10), "");
    history_put(h, SLICE("a"), 11);
    history_put(h, SLICE("b"), 12);
    history_put(h, SLICE("c"), 12);
    history_delete(h, SLICE("a"), 13);
    assert_string_equal(ring_since(h, 10), "11:a 12:b 12:c 13:a ");
    assert_string_equal(ring_since(h, 11), "12:b 12:c 13:a ");
    assert_string_equal(ring_since(h, 12), "13:a ");
    assert_string_equal(ring_since(h, 13), "");
    history_free(&h);
}

static void test_old_entries_leave_the_ring(void **state)
{
    struct history *h = make();
    (void)state;
    history_begin(h, 0, 0);
    for (unsigned i = 1; i <= 3 * RING; i++)
        history_put(h, name_of(i), i);
    assert_null(ring_since(h, 2 * RING - 1));
    assert_string_equal(ring_since(h, 3 * RING - 2), "23:app-23 24:app-24 ");
    assert_non_null(ring_since(h, 2 * RING));
    assert_null(history_at(h, history_end(h) - RING - 1));
    assert_non_null(history_at(h, history_end(h) - RING));
    assert_null(history_at(h, history_end(h)));
    history_free(&h);
}

static void count_one(void *arg, struct slice app_id, uint64_t revision)
{
    (void)app_id;
    (void)revision;
    ++*(unsigned *)arg;
}

static unsigned tombstones_since(const struct history *h, uint64_t since)
{
    unsigned count = 0;
    history_tombstones_each(h, since, count_one, &count);
    return count;
}

static void test_tombstones(void **state)
{
    struct history *h = make();
    (void)state;
    assert_int_equal(history_tombstone(h, SLICE("a")), 0);
    history_restore(h, SLICE("a"), 5);
    history_begin(h, 3, 7);
    history_delete(h, SLICE("b"), 8);
    assert_int_equal(history_tombstone(h, SLICE("a")), 5);
    assert_int_equal(history_tombstone(h, SLICE("b")), 8);
    assert_int_equal(tombstones_since(h, 0), 2);
    assert_int_equal(tombstones_since(h, 5), 1);
    history_put(h, SLICE("a"), 9);
    assert_int_equal(history_tombstone(h, SLICE("a")), 0);
    history_delete(h, SLICE("a"), 10);
    assert_int_equal(history_tombstone(h, SLICE("a")), 10);
    assert_int_equal(history_floor(h), 3);
    history_free(&h);
}

/* Against a plain array, with removals that leave holes among colliding slots. */
static void test_many_tombstones(void **state)
{
    enum { IDS = 200, STEPS = 20000 };
    struct history *h = history_new(&(struct history_limits){.ring_entries = RING, .tombstones = IDS});
    uint64_t expected[IDS] = {0};
    uint32_t random = 1;
    (void)state;
    for (unsigned step = 1; step <= STEPS; step++) {
        random = random * 1664525U + 1013904223U;
        unsigned id = (random >> 8) % IDS;
        if (random >> 31) {
            history_delete(h, name_of(id), step);
            expected[id] = step;
        } else {
            history_put(h, name_of(id), step);
            expected[id] = 0;
        }
        if (step % 64 == 0)
            for (unsigned i = 0; i < IDS; i++)
                assert_int_equal(history_tombstone(h, name_of(i)), expected[i]);
    }
    history_free(&h);
}

static void test_old_tombstones_go(void **state)
{
    struct history *h = make();
    (void)state;
    for (unsigned i = 1; i <= TOMBSTONES; i++)
        history_delete(h, name_of(i), i);
    assert_int_equal(history_excess(h), 0);
    history_delete(h, name_of(100), 100);
    uint64_t floor = history_excess(h);
    assert_int_equal(floor, 3);
    history_forget(h, floor);
    assert_int_equal(history_floor(h), 3);
    assert_int_equal(tombstones_since(h, 0), TOMBSTONES - TOMBSTONES / 8);
    assert_int_equal(history_tombstone(h, name_of(3)), 0);
    assert_int_equal(history_tombstone(h, name_of(4)), 4);
    history_forget(h, 2);
    assert_int_equal(history_floor(h), 3);
    /* What the floor has passed is not noted at all. */
    history_forget(h, 200);
    history_delete(h, name_of(200), 200);
    assert_int_equal(tombstones_since(h, 0), 0);
    history_free(&h);
}

static void test_restart(void **state)
{
    struct history *h = make();
    (void)state;
    history_begin(h, 0, 0);
    history_delete(h, SLICE("a"), 50);
    uint64_t epoch = history_epoch(h);
    history_restart(h, 20);
    assert_int_not_equal(history_epoch(h), epoch);
    assert_int_equal(history_tombstone(h, SLICE("a")), 0);
    assert_int_equal(history_floor(h), 20);
    assert_null(ring_since(h, 19));
    assert_string_equal(ring_since(h, 20), "");
    history_put(h, SLICE("b"), 21);
    assert_string_equal(ring_since(h, 20), "21:b ");
    history_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_old_entries_leave_the_ring),
        cmocka_unit_test(test_tombstones),
        cmocka_unit_test(test_many_tombstones),
        cmocka_unit_test(test_old_tombstones_go),
        cmocka_unit_test(test_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
