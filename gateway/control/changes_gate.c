#include "changes_internal.h"

#include "gateway/control/app_document.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/*
 * A conflict is tried again, by fewer requests each time, so that nobody is refused for that of another one: the last
 * tries are of a request alone.
 */
static const size_t max_group[] = {64, 16, 4, 1, 1, 1};
enum { MAX_TRIES = sizeof max_group / sizeof max_group[0] };

/* What a group of requests wants, while the gate writes it. */
struct writing {
    struct changes *changes;
    struct changes_write *items;
    size_t count;
    size_t capacity;
    struct id_set any_revision; /* whose revision elsewhere does not matter */
    bool any_of_all;
    struct id_set deleted;
};

/* ---- the set of writes ---- */

static void add(struct writing *w, struct slice app_id, char *document)
{
    if (w->count == w->capacity) {
        w->capacity = w->capacity > 0 ? 2 * w->capacity : 16;
        w->items = realloc(w->items, w->capacity * sizeof *w->items);
        if (!w->items)
            abort();
    }
    char *id = changes_copy(app_id);
    route_table_read_begin();
    const struct route_app *now = route_table_app(w->changes->table, app_id);
    w->items[w->count++] = (struct changes_write){
        .app_id = id,
        .document = document,
        .has_expected = !w->any_of_all && !id_set_has(&w->any_revision, id),
        .expected_revision = now ? now->revision : 0,
    };
    route_table_read_end();
}

static void add_put(void *arg, struct slice app_id, const struct route_app *app)
{
    if (app)
        add(arg, app_id, app_document_format_bare(app));
}

/* Also of what is only in the store, or left out: it may be there elsewhere. */
static void collect(struct writing *w)
{
    struct changes *c = w->changes;
    route_table_staged_each(c->table, add_put, w);
    for (size_t i = 0; i < c->deletions.count; i++) {
        const char *id = c->deletions.items[i].app_id;
        if (route_table_staged_app(c->table, slice_str(id)) || id_set_has(&w->deleted, id))
            continue;
        id_set_add(&w->deleted, id);
        add(w, slice_str(id), NULL);
    }
}

static void writing_free(struct writing *w)
{
    for (size_t i = 0; i < w->count; i++) {
        free((void *)(uintptr_t)w->items[i].app_id);
        free((void *)(uintptr_t)w->items[i].document);
    }
    free(w->items);
    id_set_clear(&w->any_revision);
    id_set_clear(&w->deleted);
    free(w);
}

/* ---- groups ---- */

void changes_gate_take(struct changes *c, struct change_request *r)
{
    if (!c->gate->write) {
        change_request_refuse(r, c->gate->status, "", c->gate->detail);
        change_request_finish(r);
        return;
    }
    list_remove(&r->link);
    list_push(&c->gated, &r->link);
}

bool changes_gate_leaves_out(const struct changes *c, const char *app_id)
{
    return c->gate && c->gate->is_left_out && c->gate->is_left_out(c->gate->arg, app_id);
}

bool changes_leaves_out(const struct changes *c, struct slice app_id)
{
    char *id = changes_copy(app_id);
    bool is = changes_gate_leaves_out(c, id);
    free(id);
    return is;
}

void changes_gate_left_out_each(const struct changes *c, void (*each)(void *arg, const char *app_id), void *arg)
{
    if (c->gate && c->gate->left_out_each)
        c->gate->left_out_each(c->gate->arg, each, arg);
}

bool changes_gate_is_ready(const struct changes *c)
{
    return !list_is_empty(&c->gated) && list_is_empty(&c->at_gate);
}

/* They can be staged only once, and so can't be tried again. */
static bool is_large(const struct change_request *r)
{
    return r->kind == CHANGE_REQUEST_BATCH || r->kind == CHANGE_REQUEST_SNAPSHOT;
}

/* The revisions are given where the routes come from. */
static void refuse_numbers(struct change_request *r)
{
    for (size_t i = 0; i < r->lines->count; i++) {
        struct changes_line *line = &r->lines->lines[i];
        if (line->revision != 0 && line->problem.status == STATUS_OK)
            line->problem.status =
                route_problem_set(&line->problem, STATUS_INVALID_RECORD, "revision",
                                  "changes are numbered where the routes come from; send it without a revision");
        line->revision = 0;
    }
}

static void note_expectations(struct writing *w, const struct change_request *r)
{
    bool is_free = r->expected_revision == CHANGES_ANY_REVISION;
    if ((r->kind == CHANGE_REQUEST_PUT || r->kind == CHANGE_REQUEST_DELETE) && is_free)
        id_set_add(&w->any_revision, r->app_id);
    for (size_t i = 0; r->kind == CHANGE_REQUEST_BATCH && i < r->lines->count; i++)
        id_set_add(&w->any_revision, r->lines->lines[i].app_id);
    w->any_of_all = r->kind == CHANGE_REQUEST_SNAPSHOT;
}

static void stage(struct changes *c, struct change_request *r)
{
    if (r->kind == CHANGE_REQUEST_BATCH)
        refuse_numbers(r);
    if (r->kind == CHANGE_REQUEST_SNAPSHOT && changes_snapshot_has_revision(r->snapshot))
        change_request_refuse(r, STATUS_INVALID_PARAMETER, "revision",
                              "changes are numbered where the routes come from; send it without a revision");
    else
        change_request_stage(r, c, true);
}

static void unstage(struct changes *c)
{
    route_table_abort(c->table);
    changes_record_drop(c);
}

/* Stages requests until they are enough; those that fail are told so. */
static void stage_group(struct writing *w)
{
    struct changes *c = w->changes;
    size_t count = 0;
    while (!list_is_empty(&c->gated) && count < max_group[c->gate_tries]) {
        struct change_request *r = CONTAINER_OF(c->gated.next, struct change_request, link);
        if (is_large(r) && count > 0)
            return;
        r->result = (struct change_result){.status = STATUS_OK};
        stage(c, r);
        if (r->result.status != STATUS_OK) {
            if (is_large(r))
                unstage(c);
            change_request_finish(r);
            continue;
        }
        note_expectations(w, r);
        list_remove(&r->link);
        list_push(&c->at_gate, &r->link);
        count++;
        if (is_large(r))
            return;
    }
}

/* ---- what the gate says ---- */

static void take_back(struct changes *c)
{
    while (!list_is_empty(&c->at_gate)) {
        struct list *last = c->at_gate.prev;
        list_remove(last);
        list_push_front(&c->gated, last);
    }
}

static int by_id(const void *a, const void *b)
{
    const struct changes_write *x = a, *y = b;
    return strcmp(x->app_id, y->app_id);
}

/* NULL: nothing of this app was to be written. */
static const struct changes_write *find_write(const struct writing *w, const char *app_id)
{
    const struct changes_write key = {.app_id = app_id};
    return w->count > 0 ? bsearch(&key, w->items, w->count, sizeof key, by_id) : NULL;
}

static uint64_t revision_of(const struct changes_write *write, const struct changes_written *written)
{
    return write && write->revision != 0 ? write->revision : written->revision;
}

/* What the table leaves out, though it was checked before: something else came first. OK if it does not. */
static enum status judge(const struct changes_write *write, struct route_problem *ret_problem)
{
    if (!write || !write->problem)
        return STATUS_OK;
    const struct route_problem *why = write->problem;
    return route_problem_set(ret_problem, why->status != STATUS_OK ? why->status : STATUS_CLAIM_CONFLICT, why->field,
                             "it was written, but app %s is left out: %s", write->app_id, why->detail);
}

static void settle_lines(const struct writing *w, struct change_request *r, const struct changes_written *written)
{
    for (size_t i = 0; i < r->lines->count; i++) {
        struct changes_line *line = &r->lines->lines[i];
        if (line->outcome != CHANGES_APPLIED)
            continue;
        const struct changes_write *write = find_write(w, line->app_id);
        line->revision = revision_of(write, written);
        if (judge(write, &line->problem) != STATUS_OK)
            line->outcome = CHANGES_REFUSED;
    }
}

static void settle_snapshot(const struct writing *w, struct change_request *r)
{
    for (size_t i = 0; i < w->count && r->result.status == STATUS_OK; i++)
        r->result.status = judge(&w->items[i], &r->result.problem);
}

/* Into the result, of a request that was written. */
static void settle(const struct writing *w, struct change_request *r, const struct changes_written *written)
{
    r->result.revision = written->revision;
    switch (r->kind) {
    case CHANGE_REQUEST_PUT:
    case CHANGE_REQUEST_DELETE:
    case CHANGE_REQUEST_PATCH: {
        const struct changes_write *write = find_write(w, r->app_id);
        r->result.revision = revision_of(write, written);
        r->result.status = judge(write, &r->result.problem);
        break;
    }
    case CHANGE_REQUEST_BATCH:
        settle_lines(w, r, written);
        break;
    case CHANGE_REQUEST_SNAPSHOT:
        settle_snapshot(w, r);
        break;
    }
}

static void finish_group(const struct writing *w, const struct changes_written *written)
{
    struct changes *c = w->changes;
    while (!list_is_empty(&c->at_gate)) {
        struct change_request *r = CONTAINER_OF(c->at_gate.next, struct change_request, link);
        if (written->status == STATUS_OK)
            settle(w, r, written);
        else
            change_request_refuse(r, written->status, "", written->text);
        change_request_finish(r);
    }
}

/* Those of a group that was written only in part: they must not be tried again with the others. */
static void finish_those_written(const struct writing *w, const struct changes_written *written)
{
    LIST_EACH_SAFE (link, &w->changes->at_gate) {
        struct change_request *r = CONTAINER_OF(link, struct change_request, link);
        const struct changes_write *write = find_write(w, r->app_id);
        if (!write || !write->is_written)
            continue;
        settle(w, r, written);
        change_request_finish(r);
    }
}

/* True if what is left at the gate is to be tried again. */
static bool is_worth_a_try(const struct writing *w, const struct changes_written *written)
{
    struct changes *c = w->changes;
    const struct change_request *first = CONTAINER_OF(c->at_gate.next, struct change_request, link);
    if (written->status != STATUS_REVISION_CONFLICT || is_large(first))
        return false;
    finish_those_written(w, written);
    return !list_is_empty(&c->at_gate) && ++c->gate_tries < MAX_TRIES;
}

static void on_written(void *arg, const struct changes_written *written)
{
    struct writing *w = arg;
    struct changes *c = w->changes;
    qsort(w->items, w->count, sizeof *w->items, by_id);
    if (is_worth_a_try(w, written)) {
        take_back(c);
    } else {
        c->gate_tries = 0;
        finish_group(w, written);
    }
    writing_free(w);
    changes_start(c);
}

void changes_gate_run(struct changes *c)
{
    if (!changes_gate_is_ready(c))
        return;
    struct writing *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->changes = c;
    c->for_gate = true;
    stage_group(w);
    c->for_gate = false;
    collect(w);
    unstage(c);
    if (w->count > 0) {
        assert(!list_is_empty(&c->at_gate));
        c->gate->write(c->gate->arg, w->items, w->count, on_written, w);
        return;
    }
    finish_group(w, &(struct changes_written){.status = STATUS_OK, .revision = route_table_revision(c->table)});
    writing_free(w);
    changes_start(c);
}
