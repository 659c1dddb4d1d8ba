#include "gateway/control/ticket_ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct tls_ticket_key make_key(uint64_t period)
{
    struct tls_ticket_key key;
    memset(&key, (int)period, sizeof key);
    return key;
}

static void add_at(struct ticket_ring *ring, uint64_t now, uint64_t period)
{
    struct tls_ticket_key key = make_key(period);
    ticket_ring_add(ring, now, period, &key);
}

/* In its own time. */
static void add(struct ticket_ring *ring, uint64_t period)
{
    add_at(ring, period, period);
}

/* "100 99 101": the one that seals first. */
static void assert_keys(const struct ticket_ring *ring, uint64_t now, const char *wanted)
{
    char text[64] = "";
    struct tls_ticket_keys keys = {.count = 0};
    bool has_any = ticket_ring_keys(ring, now, &keys);
    for (unsigned i = 0; i < keys.count; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%u", i > 0 ? " " : "", keys.keys[i].name[0]);
    }
    assert_string_equal(text, wanted);
    assert_int_equal(has_any, *wanted != '\0');
}

static void keys_by_period(void **state)
{
    (void)state;
    struct ticket_ring ring = {.slots = {{0}}};
    assert_keys(&ring, 100, "");
    assert_int_equal(ticket_ring_missing(&ring, 100), 100);
    add(&ring, 100);
    assert_keys(&ring, 100, "100");
    assert_int_equal(ticket_ring_missing(&ring, 100), 101);
    add(&ring, 101);
    assert_int_equal(ticket_ring_missing(&ring, 100), 0);
    assert_keys(&ring, 100, "100 101");
    assert_keys(&ring, 101, "101 100");
    assert_int_equal(ticket_ring_missing(&ring, 101), 102);
    for (uint64_t period = 102; period <= 105; period++)
        add(&ring, period);
    assert_keys(&ring, 104, "104 103 102 105");
}

/* Nobody can make a key: the last ones go on, for a while. */
static void without_new_keys_the_old_ones_go_on(void **state)
{
    (void)state;
    struct ticket_ring ring = {.slots = {{0}}};
    add(&ring, 100);
    add(&ring, 101);
    assert_keys(&ring, 102, "101 100");
    assert_keys(&ring, 103, "101");
    assert_keys(&ring, 104, "");
    /* A clock far ahead of all others has only the key that is next for it. */
    assert_keys(&ring, 99, "");
}

static void what_cannot_be_read_is_not_made_again(void **state)
{
    (void)state;
    struct ticket_ring ring = {.slots = {{0}}};
    ticket_ring_add(&ring, 100, 100, NULL);
    ticket_ring_add(&ring, 100, 101, NULL);
    assert_int_equal(ticket_ring_missing(&ring, 100), 0);
    assert_keys(&ring, 100, "");
    add(&ring, 100); /* under the right key after all */
    assert_keys(&ring, 100, "100");
    ticket_ring_add(&ring, 100, 100, NULL);
    assert_keys(&ring, 100, "100");
}

static void old_periods_do_not_come_back(void **state)
{
    (void)state;
    struct ticket_ring ring = {.slots = {{0}}};
    add(&ring, 100 + TICKET_RING_SLOTS);
    add_at(&ring, 100 + TICKET_RING_SLOTS, 100);
    add_at(&ring, 100 + TICKET_RING_SLOTS, 0);
    assert_keys(&ring, 100 + TICKET_RING_SLOTS, "108");
    assert_int_equal(ticket_ring_missing(&ring, 100), 100);
}

static void far_periods_take_no_place(void **state)
{
    (void)state;
    struct ticket_ring ring = {.slots = {{0}}};
    for (uint64_t period = 98; period <= 101; period++)
        add(&ring, period);
    for (uint64_t period = 102; period <= 100 + 3 * TICKET_RING_SLOTS; period++)
        add_at(&ring, 100, period);
    add_at(&ring, 100, 9999999999);
    assert_keys(&ring, 100, "100 99 98 101");
    assert_int_equal(ticket_ring_missing(&ring, 100), 0);
    /* A clock that is somewhat ahead is believed: its keys are there when their time comes. */
    assert_keys(&ring, 104, "104 103 102 105");
    assert_int_equal(ticket_ring_missing(&ring, 105), 106);
}

static void a_clock_that_is_set_back_begins_anew(void **state)
{
    (void)state;
    struct ticket_ring ring = {.slots = {{0}}};
    for (uint64_t period = 198; period <= 205; period++)
        add(&ring, period);
    assert_keys(&ring, 100, "");
    assert_int_equal(ticket_ring_missing(&ring, 100), 100);
    add(&ring, 100);
    add_at(&ring, 100, 101);
    assert_keys(&ring, 100, "100 101");
    assert_int_equal(ticket_ring_missing(&ring, 100), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_by_period),
        cmocka_unit_test(without_new_keys_the_old_ones_go_on),
        cmocka_unit_test(what_cannot_be_read_is_not_made_again),
        cmocka_unit_test(old_periods_do_not_come_back),
        cmocka_unit_test(far_periods_take_no_place),
        cmocka_unit_test(a_clock_that_is_set_back_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
