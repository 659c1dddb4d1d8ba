#include "gateway/http/fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_every_known_name_is_found(void **state)
{
    (void)state;
    for (unsigned id = FIELD_OTHER + 1; id < FIELD_COUNT; id++) {
        struct slice lower = field_name((enum field_id)id);
        char upper[32];
        assert_true(lower.len > 0 && lower.len < sizeof upper);
        for (size_t i = 0; i < lower.len; i++)
            upper[i] = (char)(lower.ptr[i] >= 'a' && lower.ptr[i] <= 'z' ? lower.ptr[i] - 0x20 : lower.ptr[i]);
        assert_int_equal(field_id_of(lower), id);
        assert_int_equal(field_id_of(slice_make(upper, lower.len)), id);
        assert_int_equal(field_id_of(slice_make(lower.ptr, lower.len - 1)), FIELD_OTHER);
    }
}

/* One byte of a known name at a time becomes every other byte: only its other case is the same name. */
static void test_neighbours_of_known_names(void **state)
{
    (void)state;
    for (unsigned id = FIELD_OTHER + 1; id < FIELD_COUNT; id++) {
        struct slice known = field_name((enum field_id)id);
        char *name = malloc(known.len); /* nothing is read beyond it */
        assert_non_null(name);
        memcpy(name, known.ptr, known.len);
        for (size_t i = 0; i < known.len; i++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                name[i] = (char)byte;
                bool same = ascii_lower((char)byte) == known.ptr[i];
                enum field_id found = field_id_of(slice_make(name, known.len));
                assert_int_equal(found == id, same);
            }
            name[i] = known.ptr[i];
        }
        free(name);
    }
}

static void test_other_names(void **state)
{
    static const char *const others[] = {"",
                                         "x",
                                         "hos",
                                         "hostt",
                                         "h\x0fst",
                                         "x_real",
                                         "hoss",
                                         "content_length",
                                         "Transfer\rEncoding",
                                         "a-name-longer-than-any-known-field-name"};
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(field_id_of(slice_str(others[i])), FIELD_OTHER);
    assert_int_equal(field_id_of(SLICE_NONE), FIELD_OTHER);
    assert_int_equal(field_name(FIELD_OTHER).len, 0);
}

static void test_order_and_spelling_are_kept(void **state)
{
    struct arena arena;
    struct fields fields = FIELDS_NONE;
    (void)state;
    arena_init(&arena, NULL);
    fields_add(&fields, &arena, SLICE("COOKIE"), SLICE("a"));
    fields_add(&fields, &arena, SLICE("x-y"), SLICE("b"));
    fields_add(&fields, &arena, SLICE("Cookie"), SLICE("c"));
    fields_add_known(&fields, &arena, FIELD_VIA, SLICE("d"));
    assert_int_equal(fields.count, 4);
    assert_true(slice_eq(fields.items[0].name, SLICE("COOKIE")));
    assert_true(slice_eq(fields.items[2].name, SLICE("Cookie")));
    assert_true(slice_eq(fields.items[3].name, SLICE("via")));
    assert_int_equal(fields.items[1].id, FIELD_OTHER);
    assert_true(slice_eq(fields_value(&fields, FIELD_COOKIE), SLICE("a")));
    assert_int_equal(fields_count_of(&fields, FIELD_COOKIE), 2);
    assert_ptr_equal(fields_find(&fields, FIELD_VIA), &fields.items[3]);
    arena_reset(&arena);
}

static void test_absent(void **state)
{
    struct fields fields = FIELDS_NONE;
    (void)state;
    assert_false(fields_has(&fields, FIELD_HOST));
    assert_null(fields_find(&fields, FIELD_HOST));
    assert_int_equal(fields_value(&fields, FIELD_HOST).len, 0);
    assert_int_equal(fields_count_of(&fields, FIELD_HOST), 0);
    assert_false(fields_list_has(&fields, FIELD_CONNECTION, SLICE("close")));
}

static void test_growth(void **state)
{
    enum { MANY = 100 };
    struct arena arena;
    struct fields fields = FIELDS_NONE;
    char names[MANY][16];
    (void)state;
    arena_init(&arena, NULL);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "n%d", i);
        fields_add(&fields, &arena, slice_str(names[i]), SLICE("v"));
        assert_true(fields.capacity >= 16);
    }
    assert_int_equal(fields.count, MANY);
    for (int i = 0; i < MANY; i++)
        assert_true(slice_eq(fields.items[i].name, slice_str(names[i])));
    arena_reset(&arena);
}

static void test_reserve(void **state)
{
    struct arena arena;
    struct fields fields = FIELDS_NONE;
    (void)state;
    arena_init(&arena, NULL);
    fields_reserve(&fields, &arena, 3);
    const struct field *items = fields.items;
    for (int i = 0; i < 3; i++)
        fields_append(&fields, &arena, (struct field){.name = SLICE("host"), .id = FIELD_HOST});
    assert_ptr_equal(fields.items, items);
    fields_reserve(&fields, &arena, 2);
    assert_int_equal(fields.capacity, 3);
    assert_int_equal(fields_count_of(&fields, FIELD_HOST), 3);
    arena_reset(&arena);
}

static void test_list_has_looks_at_all_lines(void **state)
{
    struct arena arena;
    struct fields fields = FIELDS_NONE;
    (void)state;
    arena_init(&arena, NULL);
    fields_add(&fields, &arena, SLICE("Connection"), SLICE("keep-alive"));
    fields_add(&fields, &arena, SLICE("Upgrade"), SLICE("close"));
    fields_add(&fields, &arena, SLICE("connection"), SLICE(" , Upgrade,\tTE"));
    assert_true(fields_list_has(&fields, FIELD_CONNECTION, SLICE("upgrade")));
    assert_true(fields_list_has(&fields, FIELD_CONNECTION, SLICE("te")));
    assert_false(fields_list_has(&fields, FIELD_CONNECTION, SLICE("close")));
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_known_name_is_found),
        cmocka_unit_test(test_neighbours_of_known_names),
        cmocka_unit_test(test_other_names),
        cmocka_unit_test(test_order_and_spelling_are_kept),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_list_has_looks_at_all_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
