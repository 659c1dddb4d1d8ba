/* Records that the start has left out of the table: they wait here for rules, and owners of their names, that let them
 * in. */
#include "changes_internal.h"

#include "gateway/base/log.h"

#include <stdlib.h>
#include <string.h>

size_t changes_left_out(const struct changes *c)
{
    return c->left_out.count;
}

static void keep(struct changes *c, struct route_app *app)
{
    if (c->kept_count == c->kept_capacity) {
        c->kept_capacity = c->kept_capacity > 0 ? 2 * c->kept_capacity : 16;
        c->kept = realloc(c->kept, c->kept_capacity * sizeof *c->kept);
        if (!c->kept)
            abort();
    }
    c->kept[c->kept_count++] = app;
}

void changes_leave_out(struct changes *c, const char *app_id, struct route_app *app,
                       const struct route_problem *problem)
{
    id_set_add(&c->left_out, app_id);
    log_error("routes: app %s in the store is left out: %s: %s", app_id, problem->field, problem->detail);
    if (app)
        keep(c, app);
}

void changes_drop_kept(struct changes *c)
{
    for (size_t i = 0; i < c->kept_count; i++)
        route_app_free(&c->kept[i]);
    free(c->kept);
    c->kept = NULL;
    c->kept_count = c->kept_capacity = 0;
}

int changes_newest_first(const void *a, const void *b)
{
    const struct route_app *x = *(struct route_app *const *)a;
    const struct route_app *y = *(struct route_app *const *)b;
    return x->revision > y->revision ? -1 : x->revision < y->revision;
}

/* True if the table has the app now. */
static bool stage_one(struct changes *c, struct route_app *app)
{
    struct route_problem problem;
    if (route_app_check(app, c->rules, &problem) == STATUS_OK &&
        route_table_stage_put_beside(c->table, app, &problem) == STATUS_OK)
        return true;
    log_warn("routes: app %s in the store is still left out: %s: %s", app->id, problem.field, problem.detail);
    return false;
}

/* The newest first, as at the start. Those that were replaced or deleted meanwhile are dropped. */
static size_t stage_all(struct changes *c)
{
    size_t left = 0, staged = 0;
    if (c->kept_count > 1)
        qsort(c->kept, c->kept_count, sizeof *c->kept, changes_newest_first);
    for (size_t i = 0; i < c->kept_count; i++) {
        if (!id_set_has(&c->left_out, c->kept[i]->id))
            route_app_free(&c->kept[i]);
        else if (stage_one(c, c->kept[i]))
            staged++;
        else
            c->kept[left++] = c->kept[i];
    }
    c->kept_count = left;
    return staged;
}

bool changes_return_left_out(struct changes *c)
{
    c->return_due = false;
    size_t staged = stage_all(c);
    if (staged == 0)
        return false;
    /* Their revisions are older than what readers of the history know: it can't tell them. */
    history_interrupt(c->history);
    changes_publish_stored(c);
    log_info("routes: %zu apps that were left out are back, %zu still are", staged, c->left_out.count);
    return true;
}
