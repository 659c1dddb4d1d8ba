#include "etcd_routes.h"

#include "gateway/base/log.h"
#include "gateway/control/app_document.h"

#include <search.h>
#include <stdlib.h>

enum { FULL_BYTES = 4 << 20, FULL_RECORDS = 20000 };

struct left_out {
    char *id;
    uint64_t revision;
    bool is_conflict; /* with another app, or with the number of all: some may go */
    struct route_problem problem;
};

struct etcd_routes {
    struct etcd_routes_params params;
    struct changes_snapshot *gathered; /* NULL: nothing */
    bool is_load;
    size_t loaded;
    size_t bytes, records; /* gathered */
    uint64_t wanted;       /* the revision that goes with what is gathered; 0: it is not complete yet */
    uint64_t committing;   /* the revision that is being committed; 0: none */
    uint64_t revision;
    uint64_t latest; /* that was completed */
    void *left_out;  /* a tree by id */
    size_t left_out_count;
    bool ended;
};

/* ---- what is left out ---- */

static int compare(const void *a, const void *b)
{
    const struct left_out *x = a, *y = b;
    return strcmp(x->id, y->id);
}

static char *copy(struct slice text)
{
    char *out = strndup(text.len > 0 ? text.ptr : "", text.len);
    if (!out)
        abort();
    return out;
}

static struct left_out *find(const struct etcd_routes *r, struct slice app_id)
{
    char *id = copy(app_id);
    struct left_out key = {.id = id};
    struct left_out **found = tfind(&key, &r->left_out, compare);
    free(id);
    return found ? *found : NULL;
}

static void free_left_out(void *item)
{
    struct left_out *left_out = item;
    free(left_out->id);
    free(left_out);
}

static void forget(struct etcd_routes *r, struct slice app_id)
{
    struct left_out *item = find(r, app_id);
    if (!item)
        return;
    tdelete(item, &r->left_out, compare);
    free_left_out(item);
    r->left_out_count--;
}

/* Said once for each document. */
static void leave_out(struct etcd_routes *r, struct slice app_id, uint64_t revision, bool is_conflict,
                      const struct route_problem *problem)
{
    struct left_out *item = find(r, app_id);
    bool is_news = !item || item->revision != revision;
    if (!item) {
        item = calloc(1, sizeof *item);
        if (!item)
            abort();
        item->id = copy(app_id);
        if (!tsearch(item, &r->left_out, compare))
            abort();
        r->left_out_count++;
    }
    item->revision = revision;
    item->is_conflict = is_conflict;
    item->problem = *problem;
    if (is_news)
        log_error("etcd: app %.*s at revision %ju is left out: %s%s%s", SLICE_ARG(app_id), (uintmax_t)revision,
                  problem->field, problem->field[0] ? ": " : "", problem->detail);
}

/* What was gathered since then counts, if the app is in it, or was left out of it. */
static void on_refused(void *arg, struct slice app_id, uint64_t revision, const struct route_problem *problem)
{
    struct etcd_routes *r = arg;
    if (r->ended || (r->gathered && changes_snapshot_has(r->gathered, app_id)))
        return;
    const struct left_out *item = find(r, app_id);
    if (!item || item->revision <= revision)
        leave_out(r, app_id, revision, true, problem);
}

size_t etcd_routes_left_out(const struct etcd_routes *r)
{
    return r->left_out_count;
}

bool etcd_routes_is_left_out(const struct etcd_routes *r, struct slice app_id)
{
    return find(r, app_id) != NULL;
}

struct walk {
    void (*each)(void *arg, const char *app_id);
    void *arg;
};

static void visit_each(const void *node, VISIT order, void *closure)
{
    const struct walk *walk = closure;
    const struct left_out *item = *(const struct left_out *const *)node;
    if (order == postorder || order == leaf)
        walk->each(walk->arg, item->id);
}

void etcd_routes_left_out_each(const struct etcd_routes *r, void (*each)(void *arg, const char *app_id), void *arg)
{
    struct walk walk = {each, arg};
    twalk_r(r->left_out, visit_each, &walk);
}

const struct route_problem *etcd_routes_problem(const struct etcd_routes *r, struct slice app_id, uint64_t mod_revision)
{
    const struct left_out *item = find(r, app_id);
    return item && item->revision == mod_revision ? &item->problem : NULL;
}

struct search {
    const char *after;
    const struct left_out *found;
};

static void visit(const void *node, VISIT order, void *closure)
{
    struct search *search = closure;
    const struct left_out *item = *(const struct left_out *const *)node;
    if ((order == postorder || order == leaf) && !search->found && item->is_conflict &&
        (!search->after || strcmp(item->id, search->after) > 0))
        search->found = item;
}

const char *etcd_routes_next_conflict(const struct etcd_routes *r, const char *after, uint64_t *ret_revision)
{
    struct search search = {.after = after};
    twalk_r(r->left_out, visit, &search);
    if (!search.found)
        return NULL;
    *ret_revision = search.found->revision;
    return search.found->id;
}

static bool is_conflict(const struct etcd_routes *r, struct slice app_id, uint64_t revision)
{
    const struct left_out *item = find(r, app_id);
    return item && item->is_conflict && item->revision == revision;
}

void etcd_routes_forget_conflict(struct etcd_routes *r, struct slice app_id, uint64_t revision)
{
    if (is_conflict(r, app_id, revision))
        forget(r, app_id);
}

/* ---- gathering ---- */

void etcd_routes_abandon(struct etcd_routes *r)
{
    changes_snapshot_abort(&r->gathered);
    r->is_load = false;
    r->bytes = r->records = 0;
    r->wanted = 0;
}

/* What is added to must be completed (again) before it may be committed: a revision comes whole. */
static struct changes_snapshot *gathered(struct etcd_routes *r)
{
    r->wanted = 0;
    if (!r->gathered)
        r->gathered = changes_snapshot_begin(r->params.changes, CHANGES_DELTA);
    return r->gathered;
}

void etcd_routes_begin_load(struct etcd_routes *r)
{
    etcd_routes_abandon(r);
    tdestroy(r->left_out, free_left_out);
    r->left_out = NULL;
    r->left_out_count = 0;
    r->is_load = true;
    r->loaded = 0;
    r->gathered = changes_snapshot_begin(r->params.changes, CHANGES_MIRROR);
}

/* A load deletes what it does not have: an app whose document is no good has to be in it as it is. */
static void keep_as_it_is(struct etcd_routes *r, struct slice app_id)
{
    struct route_problem problem;
    route_table_read_begin();
    const struct route_app *now = route_table_app(r->params.table, app_id);
    struct route_app *app = now ? route_app_copy(now) : NULL;
    if (app)
        app->revision = now->revision;
    route_table_read_end();
    if (app && changes_snapshot_add(gathered(r), app, &problem) != STATUS_OK)
        route_app_free(&app);
}

static enum status add(struct etcd_routes *r, struct slice app_id, struct slice document, uint64_t mod_revision,
                       struct route_problem *problem)
{
    struct route_app *app = NULL;
    enum status status = app_document_parse(document, &app, problem);
    if (status == STATUS_OK && !slice_eq(app_id, slice_str(app->id)))
        status = route_problem_set(problem, STATUS_INVALID_RECORD, "app_id", "the document is of app %s", app->id);
    if (status == STATUS_OK) {
        app->revision = mod_revision;
        status = changes_snapshot_add(gathered(r), app, problem);
    }
    if (status != STATUS_OK)
        route_app_free(&app);
    return status;
}

void etcd_routes_put(struct etcd_routes *r, struct slice app_id, struct slice document, uint64_t mod_revision)
{
    struct route_problem problem = {.status = STATUS_OK};
    r->loaded++;
    r->records++;
    r->bytes += document.len;
    if (add(r, app_id, document, mod_revision, &problem) == STATUS_OK) {
        forget(r, app_id);
        return;
    }
    leave_out(r, app_id, mod_revision, problem.status == STATUS_TABLE_FULL, &problem);
    if (r->is_load)
        keep_as_it_is(r, app_id);
}

void etcd_routes_delete(struct etcd_routes *r, struct slice app_id, uint64_t mod_revision)
{
    r->records++;
    forget(r, app_id);
    changes_snapshot_delete(gathered(r), app_id, mod_revision);
}

size_t etcd_routes_loaded(const struct etcd_routes *r)
{
    return r->loaded;
}

bool etcd_routes_is_full(const struct etcd_routes *r)
{
    return r->committing != 0 && !r->is_load && (r->bytes > FULL_BYTES || r->records > FULL_RECORDS);
}

uint64_t etcd_routes_revision(const struct etcd_routes *r)
{
    return r->revision;
}

/* ---- committing ---- */

bool etcd_routes_is_committing(const struct etcd_routes *r)
{
    return r->committing != 0;
}

static void release(struct etcd_routes *r)
{
    if (r->committing == 0)
        free(r);
}

static void commit_gathered(struct etcd_routes *r);

static void on_done(void *arg, const struct change_result *result)
{
    struct etcd_routes *r = arg;
    uint64_t revision = r->committing;
    r->committing = 0;
    if (r->ended) {
        release(r);
        return;
    }
    if (result->status == STATUS_OK)
        r->revision = revision;
    else
        etcd_routes_abandon(r);
    if (result->status == STATUS_OK)
        commit_gathered(r);
    r->params.applied(r->params.arg, result->status, result->problem.detail);
}

static void commit_gathered(struct etcd_routes *r)
{
    if (r->wanted == 0 || r->committing != 0)
        return;
    uint64_t revision = r->wanted;
    struct changes_snapshot *snapshot = gathered(r);
    struct changes_snapshot_options options = {.revision = revision, .refused = on_refused, .refused_arg = r};
    r->gathered = NULL;
    r->committing = revision;
    etcd_routes_abandon(r);
    changes_snapshot_commit(&snapshot, &options, on_done, r);
}

void etcd_routes_commit(struct etcd_routes *r, uint64_t revision)
{
    r->latest = revision;
    r->wanted = revision;
    commit_gathered(r);
}

/* An app that has lost an address to another one has got the revision of that. */
static bool is_in_table(const struct etcd_routes *r, struct slice app_id, uint64_t revision)
{
    route_table_read_begin();
    const struct route_app *now = route_table_app(r->params.table, app_id);
    bool is_known = now && now->revision >= revision;
    route_table_read_end();
    return is_known;
}

bool etcd_routes_put_again(struct etcd_routes *r, struct slice app_id, struct slice document, uint64_t mod_revision)
{
    bool is_half = r->gathered && r->wanted == 0;
    if (is_half)
        return false;
    if (is_conflict(r, app_id, mod_revision) && !is_in_table(r, app_id, mod_revision)) {
        etcd_routes_put(r, app_id, document, mod_revision);
        etcd_routes_commit(r, r->latest);
    }
    return true;
}

/* ---- life ---- */

struct etcd_routes *etcd_routes_new(const struct etcd_routes_params *params)
{
    struct etcd_routes *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->params = *params;
    return r;
}

void etcd_routes_free(struct etcd_routes **routes)
{
    struct etcd_routes *r = *routes;
    if (!r)
        return;
    *routes = NULL;
    etcd_routes_abandon(r);
    tdestroy(r->left_out, free_left_out);
    r->left_out = NULL;
    r->ended = true;
    release(r);
}
