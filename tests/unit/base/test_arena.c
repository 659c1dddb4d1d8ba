#include "gateway/base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void test_allocations_are_aligned_and_apart(void **state)
{
    enum { COUNT = 400 };
    struct arena arena;
    unsigned char *parts[COUNT];
    (void)state;
    arena_init(&arena, NULL);
    for (size_t i = 0; i < COUNT; i++) {
        parts[i] = arena_alloc(&arena, i);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % _Alignof(max_align_t), 0);
        memset(parts[i], (int)(i & 0xff), i);
    }
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < i; j++)
            assert_int_equal(parts[i][j], i & 0xff);
    arena_reset(&arena);
}

static void test_large_allocations(void **state)
{
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    memset(arena_alloc(&arena, 100000), 1, 100000); /* before any small one */
    char *small = arena_alloc(&arena, sizeof(max_align_t));
    memset(arena_alloc(&arena, 5000), 2, 5000);
    char *next = arena_alloc(&arena, 1);
    assert_ptr_equal(next, small + sizeof(max_align_t)); /* the current block is still filled */
    arena_reset(&arena);
}

static void test_reset_gives_blocks_to_the_pool(void **state)
{
    struct arena_pool pool;
    struct arena arena;
    (void)state;
    arena_pool_init(&pool, 2);
    arena_init(&arena, &pool);
    for (int i = 0; i < 5 * 4; i++)
        arena_alloc(&arena, 1000);
    arena_alloc(&arena, 10000);
    arena_reset(&arena);
    assert_int_equal(pool.free_count, 2);
    arena_alloc(&arena, 1);
    assert_int_equal(pool.free_count, 1);
    arena_reset(&arena);
    assert_int_equal(pool.free_count, 2);
    arena_pool_fini(&pool);
    assert_int_equal(pool.free_count, 0);
}

static void test_zeroed_copy_printf(void **state)
{
    struct arena_pool pool;
    struct arena arena;
    (void)state;
    arena_pool_init(&pool, 4);
    arena_init(&arena, &pool);
    memset(arena_alloc(&arena, 512), 0xff, 512);
    arena_reset(&arena);
    const unsigned char *zeroed = arena_alloc_zeroed(&arena, 512);
    for (size_t i = 0; i < 512; i++)
        assert_int_equal(zeroed[i], 0);
    char text[] = "abc";
    struct slice copy = arena_copy(&arena, slice_str(text));
    text[0] = 'x';
    assert_true(slice_eq(copy, SLICE("abc")));
    assert_int_equal(arena_copy(&arena, SLICE_NONE).len, 0);
    struct slice printed = arena_printf(&arena, "%d-%s", 42, "z");
    assert_true(slice_eq(printed, SLICE("42-z")));
    assert_int_equal(printed.ptr[printed.len], '\0');
    arena_reset(&arena);
    arena_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations_are_aligned_and_apart),
        cmocka_unit_test(test_large_allocations),
        cmocka_unit_test(test_reset_gives_blocks_to_the_pool),
        cmocka_unit_test(test_zeroed_copy_printf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
