#include "gateway/base/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define HUGE_BYTES ((size_t)2 << 20)

/* What glibc's arena looks like to the kernel, also where a sanitizer's allocator stands in for glibc's. */
static char *map_arena(size_t used, char **ret_all)
{
    char *all = mmap(NULL, 2 * HEAP_ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(all, MAP_FAILED);
    uintptr_t begin = ((uintptr_t)all + HEAP_ARENA_BYTES - 1) & ~(uintptr_t)(HEAP_ARENA_BYTES - 1);
    char *arena = all + (begin - (uintptr_t)all);
    if (used > 0)
        assert_int_equal(mprotect(arena, used, PROT_READ | PROT_WRITE), 0);
    *ret_all = all;
    return arena;
}

/* The kernel's flags of the mapping that the address lies in: "rd wr … hg …". */
static void read_flags(const char *at, char ret_flags[256])
{
    char line[512];
    bool inside = false;
    FILE *smaps = fopen("/proc/self/smaps", "re");
    assert_non_null(smaps);
    *ret_flags = 0;
    while (fgets(line, sizeof line, smaps)) {
        uintptr_t from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from <= (uintptr_t)at && (uintptr_t)at < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(ret_flags, 256, "%.255s", line + 8);
    }
    fclose(smaps);
}

static bool system_has_huge_pages(void)
{
    return access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0;
}

static void a_whole_arena_is_advised(void **state)
{
    (void)state;
    char *all, flags[256];
    char *arena = map_arena(132 << 10, &all);
    memset(arena, 'a', 1000);
    assert_int_equal(heap_use_huge_pages(arena + 5000), system_has_huge_pages());
    if (system_has_huge_pages()) {
        for (size_t at = 0; at < HEAP_ARENA_BYTES; at += HEAP_ARENA_BYTES / 8) {
            read_flags(arena + at, flags);
            assert_non_null(strstr(flags, " hg"));
            assert_non_null(strstr(flags, " wr"));
        }
        arena[HEAP_ARENA_BYTES - 1] = 'z';
        assert_int_equal(arena[999], 'a');
        read_flags(arena + HEAP_ARENA_BYTES, flags);
        assert_null(strstr(flags, " hg"));
        assert_null(strstr(flags, " wr"));
    }
    munmap(all, 2 * HEAP_ARENA_BYTES);
}

static void what_is_no_arena_stays_as_it_is(void **state)
{
    (void)state;
    char *all, flags[256], on_stack = 0;
    char *arena = map_arena(0, &all); /* no part of it is accessible */
    assert_false(heap_use_huge_pages(arena + 5000));
    assert_int_equal(mprotect(arena + HUGE_BYTES, HUGE_BYTES, PROT_READ | PROT_WRITE), 0); /* or not its beginning */
    assert_false(heap_use_huge_pages(arena + HUGE_BYTES));
    assert_int_equal(mprotect(arena, HEAP_ARENA_BYTES, PROT_READ), 0);
    assert_false(heap_use_huge_pages(arena));
    read_flags(arena, flags);
    assert_null(strstr(flags, " hg"));
    assert_null(strstr(flags, " wr"));
    munmap(all, 2 * HEAP_ARENA_BYTES);
    assert_false(heap_use_huge_pages(&on_stack));
    assert_false(heap_use_huge_pages(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_arena_is_advised),
        cmocka_unit_test(what_is_no_arena_stays_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
