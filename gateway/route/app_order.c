/* A treap: a search tree by app id that is also a heap by random priorities, which keeps it about log2(n) deep. */
#include "route_table_internal.h"

#include <assert.h>

/* The order of strcmp, for a key that may hold any bytes. */
static int compare(const struct table_app *app, struct slice id)
{
    size_t len = strnlen(app->record->id, id.len + 1);
    size_t common = len < id.len ? len : id.len;
    int order = common > 0 ? memcmp(app->record->id, id.ptr, common) : 0;
    if (order != 0)
        return order;
    return len == id.len ? 0 : (len < id.len ? -1 : 1);
}

/* Parts a tree into what is before the id and what is after it. */
static void split(struct table_app *tree, struct slice id, struct table_app **less, struct table_app **greater)
{
    while (tree) {
        if (compare(tree, id) < 0) {
            *less = tree;
            less = &tree->right;
            tree = tree->right;
        } else {
            *greater = tree;
            greater = &tree->left;
            tree = tree->left;
        }
    }
    *less = *greater = NULL;
}

/* Joins two trees, all of `less` before all of `greater`, at *link. */
static void join(struct table_app **link, struct table_app *less, struct table_app *greater)
{
    while (less && greater) {
        if (less->priority >= greater->priority) {
            *link = less;
            link = &less->right;
            less = less->right;
        } else {
            *link = greater;
            link = &greater->left;
            greater = greater->left;
        }
    }
    *link = less ? less : greater;
}

static struct table_app **find_link(struct table_app **root, const struct table_app *app)
{
    struct table_app **link = root;
    while (*link != app) {
        assert(*link);
        link = compare(*link, slice_str(app->record->id)) > 0 ? &(*link)->left : &(*link)->right;
    }
    return link;
}

void app_order_insert(struct table_app **root, struct table_app *app)
{
    struct slice id = slice_str(app->record->id);
    struct table_app **link = root;
    while (*link && (*link)->priority >= app->priority)
        link = compare(*link, id) > 0 ? &(*link)->left : &(*link)->right;
    split(*link, id, &app->left, &app->right);
    *link = app;
}

void app_order_replace(struct table_app **root, const struct table_app *before, struct table_app *after)
{
    struct table_app **link = find_link(root, before);
    after->priority = before->priority;
    after->left = before->left;
    after->right = before->right;
    *link = after;
}

void app_order_remove(struct table_app **root, const struct table_app *app)
{
    struct table_app **link = find_link(root, app);
    join(link, app->left, app->right);
}

/* In order, those after `after`, until *left have been called. The recursion is as deep as the treap. */
static void walk(const struct table_app *tree, struct slice after, size_t *left, route_table_each_cb each, void *arg)
{
    if (!tree || *left == 0)
        return;
    if (compare(tree, after) > 0) {
        walk(tree->left, after, left, each, arg);
        if (*left == 0)
            return;
        --*left;
        each(arg, tree->record);
    }
    walk(tree->right, after, left, each, arg);
}

size_t app_order_each(const struct table_app *root, struct slice after, size_t limit, route_table_each_cb each,
                      void *arg)
{
    size_t left = limit;
    walk(root, after, &left, each, arg);
    return limit - left;
}
