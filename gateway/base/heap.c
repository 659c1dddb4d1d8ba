#include "gateway/base/heap.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { MAPS_LINE_MAX = 512 };

/* Its beginning is accessible, and the rest of it follows without access. */
static bool is_arena(uintptr_t begin)
{
    char line[MAPS_LINE_MAX];
    uintptr_t used_end = 0;
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return false;
    while (!found && fgets(line, sizeof line, maps)) {
        uintptr_t from, to;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, access) != 3)
            continue;
        if (from <= begin && begin < to && strcmp(access, "rw-p") == 0)
            used_end = to;
        else if (from == used_end)
            found = to >= begin + HEAP_ARENA_BYTES && strcmp(access, "---p") == 0;
    }
    fclose(maps);
    return found;
}

bool heap_use_huge_pages(const void *block)
{
    uintptr_t begin = (uintptr_t)block & ~(uintptr_t)(HEAP_ARENA_BYTES - 1);
    void *arena = (void *)begin;
    if (!is_arena(begin) || madvise(arena, HEAP_ARENA_BYTES, MADV_HUGEPAGE) != 0)
        return false;
    return mprotect(arena, HEAP_ARENA_BYTES, PROT_READ | PROT_WRITE) == 0;
}
