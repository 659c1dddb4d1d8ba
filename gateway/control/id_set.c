#include "gateway/control/id_set.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

bool id_set_has(const struct id_set *set, const char *id)
{
    return tfind(id, &set->root, compare) != NULL;
}

void id_set_add(struct id_set *set, const char *id)
{
    if (id_set_has(set, id))
        return;
    char *copy = strdup(id);
    if (!copy || !tsearch(copy, &set->root, compare))
        abort();
    set->count++;
}

void id_set_remove(struct id_set *set, const char *id)
{
    char **found = tfind(id, &set->root, compare);
    if (!found)
        return;
    char *copy = *found;
    tdelete(id, &set->root, compare);
    free(copy);
    set->count--;
}

void id_set_clear(struct id_set *set)
{
    tdestroy(set->root, free);
    *set = (struct id_set){.root = NULL};
}

struct walk {
    void (*each)(void *arg, const char *id);
    void *arg;
};

static void visit(const void *node, VISIT order, void *closure)
{
    const struct walk *walk = closure;
    if (order == postorder || order == leaf)
        walk->each(walk->arg, *(const char *const *)node);
}

void id_set_each(const struct id_set *set, void (*each)(void *arg, const char *id), void *arg)
{
    struct walk walk = {each, arg};
    twalk_r(set->root, visit, &walk);
}
