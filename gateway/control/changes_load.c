/*
 * Two threads: one reads the store and makes records of its documents, the other, which is the caller's, builds the
 * table. Between them goes a bounded row of pages.
 */
#include "changes_internal.h"

#include "gateway/base/log.h"
#include "gateway/control/app_document.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* A page is staged and published at once: no more memory is needed than for that, and it stays in the caches. */
enum { PAGE_APPS = 512, MAX_PAGES = 8 };

/* What the store has of one app: its record, and why it is left out, if it is. */
struct loaded {
    struct route_app *app; /* NULL: it could not be read */
    char *left_out;        /* the id; NULL: it is not left out */
    struct route_problem *problem;
};

struct page {
    struct page *next;
    size_t count;
    struct loaded items[PAGE_APPS];
};

struct load {
    struct changes *changes;
    pthread_mutex_t lock;
    pthread_cond_t moved; /* a page came or went, or all were given */
    struct page *first;
    struct page **last;
    size_t waiting;
    bool is_read;
    struct page *filling; /* the reading thread's */
    enum status status;   /* of reading, when is_read; then the next two as well */
    uint64_t last_revision;
    char *error;
    struct route_app **contested; /* others that were read before have something of them: decided when all are read */
    size_t contested_count;
    size_t contested_capacity;
    size_t loaded;
};

/* ---- the reading thread ---- */

static void *take_memory(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        abort();
    return memory;
}

static void give_page(struct load *load)
{
    struct page *page = load->filling;
    load->filling = NULL;
    if (!page)
        return;
    pthread_mutex_lock(&load->lock);
    while (load->waiting == MAX_PAGES)
        pthread_cond_wait(&load->moved, &load->lock);
    *load->last = page;
    load->last = &page->next;
    load->waiting++;
    pthread_cond_broadcast(&load->moved);
    pthread_mutex_unlock(&load->lock);
}

static void read_one(void *arg, struct slice app_id, uint64_t revision, struct slice document)
{
    struct load *load = arg;
    struct route_app *app = NULL;
    struct route_problem problem = {.status = STATUS_OK};
    enum status status = app_document_parse(document, &app, &problem);
    if (status == STATUS_OK && !slice_eq(app_id, slice_str(app->id))) {
        status = route_problem_set(&problem, STATUS_INVALID_RECORD, "app_id", "the document is of app %s", app->id);
        route_app_free(&app);
    }
    if (status == STATUS_OK)
        status = route_app_check(app, load->changes->rules, &problem);
    if (!load->filling)
        load->filling = take_memory(sizeof *load->filling);
    struct loaded *item = &load->filling->items[load->filling->count++];
    if (app)
        app->revision = revision;
    item->app = app;
    if (status != STATUS_OK) {
        item->left_out = changes_copy(app_id);
        item->problem = take_memory(sizeof problem);
        *item->problem = problem;
    }
    if (load->filling->count == PAGE_APPS)
        give_page(load);
}

static void *read_all(void *arg)
{
    struct load *load = arg;
    pthread_setname_np(pthread_self(), "load");
    load->status = store_load(load->changes->store, read_one, load, &load->last_revision, load->error);
    give_page(load);
    pthread_mutex_lock(&load->lock);
    load->is_read = true;
    pthread_cond_broadcast(&load->moved);
    pthread_mutex_unlock(&load->lock);
    return NULL;
}

/* Signals are the caller's. */
static pthread_t start_reading(struct load *load)
{
    sigset_t all, old;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, NULL, read_all, load))
        abort();
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return thread;
}

/* ---- the building thread ---- */

/* The next page, or NULL when all were taken. */
static struct page *take_page(struct load *load)
{
    pthread_mutex_lock(&load->lock);
    while (!load->first && !load->is_read)
        pthread_cond_wait(&load->moved, &load->lock);
    struct page *page = load->first;
    if (page) {
        load->first = page->next;
        load->last = load->first ? load->last : &load->first;
        load->waiting--;
        pthread_cond_broadcast(&load->moved);
    }
    pthread_mutex_unlock(&load->lock);
    return page;
}

static void put_aside(struct load *load, struct route_app *app)
{
    if (load->contested_count == load->contested_capacity) {
        load->contested_capacity = load->contested_capacity > 0 ? 2 * load->contested_capacity : 16;
        load->contested = realloc(load->contested, load->contested_capacity * sizeof(struct route_app *));
        if (!load->contested)
            abort();
    }
    load->contested[load->contested_count++] = app;
}

static void stage_one(struct load *load, struct loaded *item)
{
    struct route_problem problem;
    if (item->left_out)
        changes_leave_out(load->changes, item->left_out, item->app, item->problem);
    else if (route_table_stage_put_beside(load->changes->table, item->app, &problem) == STATUS_OK)
        load->loaded++;
    else
        put_aside(load, item->app);
    free(item->left_out);
    free(item->problem);
}

/* ---- records that can't both be there ---- */

/* Takes the app. */
static void leave_out_for(struct load *load, struct route_app *app, const struct route_app *rival)
{
    struct route_problem problem;
    route_problem_set(&problem, STATUS_CLAIM_CONFLICT, "revision",
                      "an address or name of it was given to app %s in revision %ju, after this one's %ju", rival->id,
                      (uintmax_t)rival->revision, (uintmax_t)app->revision);
    changes_leave_out(load->changes, app->id, app, &problem);
}

/* The app comes in if it is newer than all who have something of it, which then go. */
static void settle_one(struct load *load, struct route_app *app)
{
    struct route_table *table = load->changes->table;
    struct route_problem problem;
    const struct route_app *rival;
    while ((rival = route_table_newest_rival(table, app)) != NULL && rival->revision < app->revision) {
        struct route_app *copy = route_app_copy(rival);
        load->loaded--;
        if (route_table_stage_delete(table, slice_str(rival->id), &problem) != STATUS_OK)
            abort();
        leave_out_for(load, copy, app);
    }
    if (!rival && route_table_stage_put_beside(table, app, &problem) == STATUS_OK) {
        load->loaded++;
        return;
    }
    if (rival)
        leave_out_for(load, app, rival);
    else
        changes_leave_out(load->changes, app->id, app, &problem);
}

/* The newest first: who has to go for it does not stand in the way of others. */
static void settle_contested(struct load *load)
{
    if (load->contested_count > 1)
        qsort(load->contested, load->contested_count, sizeof(struct route_app *), changes_newest_first);
    for (size_t i = 0; i < load->contested_count; i++)
        settle_one(load, load->contested[i]);
    free(load->contested);
    changes_publish_stored(load->changes);
}

static enum status load_apps(struct load *load)
{
    struct page *page;
    pthread_mutex_init(&load->lock, NULL);
    pthread_cond_init(&load->moved, NULL);
    load->last = &load->first;
    pthread_t thread = start_reading(load);
    while ((page = take_page(load)) != NULL) {
        for (size_t i = 0; i < page->count; i++)
            stage_one(load, &page->items[i]);
        changes_publish_stored(load->changes);
        free(page);
    }
    pthread_join(thread, NULL);
    pthread_cond_destroy(&load->moved);
    pthread_mutex_destroy(&load->lock);
    settle_contested(load);
    return load->status;
}

/* ---- all ---- */

static void load_tombstone(void *arg, struct slice app_id, uint64_t revision)
{
    struct changes *c = arg;
    if (app_id.len <= HOSTNAME_MAX_LABEL && revision > 0)
        history_restore(c->history, app_id, revision);
}

enum status changes_load(struct changes *c, char ret_error[CHANGES_ERROR_TEXT_MAX])
{
    struct load load = {.changes = c, .error = ret_error};
    uint64_t floor = 0;
    enum status status = load_apps(&load);
    if (status == STATUS_OK)
        status = store_load_tombstones(c->store, load_tombstone, c, &floor, ret_error);
    if (status != STATUS_OK)
        return status;
    route_table_stage_revision(c->table, load.last_revision);
    changes_publish_stored(c);
    history_begin(c->history, floor, load.last_revision);
    if (load.loaded + c->left_out.count > 0)
        log_info("routes: %zu apps from the store, %zu left out", load.loaded, c->left_out.count);
    return STATUS_OK;
}
