/*
 * The table out: GET /v1/snapshot as NDJSON, GET /v1/apps as pages of JSON. Memory stays flat at any size.
 *
 * A snapshot is the table as it was when the export began: of apps that change before their turn has come, the line is
 * made and kept at once.
 */
#include "api_internal.h"

#include "gateway/control/app_document.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>

enum {
    PAGE_APPS = 16,    /* looked at before the room is asked again */
    TURN_APPS = 20000, /* looked at in one turn: a search that finds little must not hold up the loop */
    RESUME_MS = 1,
    DEFAULT_LIMIT = 100,
    MAX_LIMIT = 1000,
    MAX_KEPT_BYTES = 64 << 20, /* an export that is so slow while so much changes is given up */
};

/* An app that has changed since the export began. */
struct kept {
    char *line; /* NULL: it was not there */
    char app_id[HOSTNAME_MAX_LABEL + 1];
};

struct export
{
    struct api_call *call;
    struct timer resume;
    bool is_list; /* JSON with a cursor, else NDJSON */
    bool finished;
    bool walked; /* through all apps; what is kept remains */
    bool is_first;
    struct slice query; /* in lower case; empty: all */
    uint64_t remaining; /* apps still to send */
    size_t after_len;
    char after[HOSTNAME_MAX_LABEL + 1]; /* the last app looked at */
    struct api_text page;
    struct changes_watcher watcher; /* a snapshot's */
    void *kept;                     /* a tree of struct kept by id */
    size_t kept_bytes;
};

static bool contains(const char *text, struct slice part)
{
    return memmem(text, strlen(text), part.ptr, part.len) != NULL;
}

/* Part of the app's id or domains, or of an instance's id or address. */
static bool is_wanted(const struct route_app *app, struct slice query)
{
    char address[IP_TEXT_MAX];
    if (query.len == 0 || contains(app->id, query))
        return true;
    for (size_t i = 0; i < app->domain_count; i++)
        if (contains(app->domains[i].name, query))
            return true;
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct route_instance *instance = &app->instances[i];
        if (contains(instance->id, query))
            return true;
        if (instance->address.family != 0 && ip_format(&instance->address, address) > 0 && contains(address, query))
            return true;
    }
    return false;
}

static void add_app(struct export *export, const struct route_app *app)
{
    char *text = app_document_format(app);
    if (export->is_list && !export->is_first)
        api_text_append(&export->page, SLICE(","));
    api_text_append(&export->page, slice_str(text));
    if (!export->is_list)
        api_text_append(&export->page, SLICE("\n"));
    export->is_first = false;
    free(text);
}

/* ---- what changes meanwhile ---- */

static int compare_kept(const void *a, const void *b)
{
    const struct kept *x = a;
    const struct kept *y = b;
    return strcmp(x->app_id, y->app_id);
}

static bool is_kept(const struct export *export, const char *app_id)
{
    struct kept key = {.line = NULL};
    if (!export->kept)
        return false;
    snprintf(key.app_id, sizeof key.app_id, "%s", app_id);
    return tfind(&key, &export->kept, compare_kept) != NULL;
}

static void free_kept(void *node)
{
    struct kept *kept = node;
    free(kept->line);
    free(kept);
}

static void give_up(struct export *export)
{
    changes_unwatch(&export->watcher);
    export->finished = true;
    local_abort(export->call->local, STATUS_CLIENT_STALLED);
}

static void on_changing(struct changes_watcher *watcher, struct slice app_id, const struct route_app *before)
{
    struct export *export = CONTAINER_OF(watcher, struct export, watcher);
    if (export->walked || export->kept_bytes > MAX_KEPT_BYTES)
        return;
    struct kept *kept = calloc(1, sizeof *kept);
    if (!kept)
        abort();
    memcpy(kept->app_id, app_id.ptr, app_id.len);
    if (strcmp(kept->app_id, export->after) <= 0 || is_kept(export, kept->app_id)) {
        free(kept);
        return;
    }
    if (before)
        kept->line = app_document_format(before);
    export->kept_bytes += sizeof *kept + (kept->line ? strlen(kept->line) : 0);
    if (!tsearch(kept, &export->kept, compare_kept))
        abort();
}

static void on_changed(struct changes_watcher *watcher)
{
    struct export *export = CONTAINER_OF(watcher, struct export, watcher);
    if (export->kept_bytes > MAX_KEPT_BYTES)
        give_up(export);
}

/* Takes one out of the tree and sends it. */
static void add_kept(struct export *export)
{
    struct kept *kept = *(struct kept **)export->kept;
    if (kept->line) {
        api_text_append(&export->page, slice_str(kept->line));
        api_text_append(&export->page, SLICE("\n"));
    }
    tdelete(kept, &export->kept, compare_kept);
    free_kept(kept);
}

/* ---- what is there ---- */

static void on_app(void *arg, const struct route_app *app)
{
    struct export *export = arg;
    if (export->remaining == 0)
        return;
    export->after_len = strlen(app->id);
    assert(export->after_len < sizeof export->after);
    memcpy(export->after, app->id, export->after_len + 1);
    if (is_kept(export, app->id))
        return;
    if (is_wanted(app, export->query)) {
        add_app(export, app);
        export->remaining--;
    }
}

static void count_app(void *arg, const struct route_app *app)
{
    (void)arg;
    (void)app;
}

static struct slice after_of(const struct export *export)
{
    return slice_make(export->after, export->after_len);
}

/* `more`: apps remain after the last one sent. */
static void finish(struct export *export, bool more)
{
    struct local *local = export->call->local;
    if (export->is_list) {
        api_text_append(&export->page, SLICE("],\"next\":"));
        api_text_append(&export->page, more ? arena_printf(export->call->arena, "\"%.*s\"", SLICE_ARG(after_of(export)))
                                            : SLICE("null"));
        api_text_append(&export->page, SLICE("}\n"));
    }
    if (export->page.len > 0)
        local_send(local, slice_make(export->page.ptr, export->page.len));
    export->page.len = 0;
    export->finished = true;
    changes_unwatch(&export->watcher);
    local_finish(local);
}

static size_t send_page(struct export *export)
{
    struct route_table *table = export->call->api->params.table;
    size_t seen = 0;
    if (!export->walked)
        seen = route_table_each(table, after_of(export), PAGE_APPS, on_app, export);
    export->walked = seen < PAGE_APPS;
    for (; export->walked && export->kept && seen < PAGE_APPS; seen++)
        add_kept(export);
    if (export->remaining == 0) {
        finish(export, route_table_each(table, after_of(export), 1, count_app, NULL) > 0);
    } else if (export->walked && !export->kept) {
        finish(export, false);
    } else if (export->page.len > 0) {
        local_send(export->call->local, slice_make(export->page.ptr, export->page.len));
        export->page.len = 0;
    }
    return seen;
}

static void advance(struct export *export)
{
    size_t seen = 0;
    while (!export->finished && seen < TURN_APPS && local_room(export->call->local) > 0)
        seen += send_page(export);
    if (!export->finished && seen >= TURN_APPS)
        loop_timer_arm(export->call->api->params.loop, &export->resume, RESUME_MS);
}

static void on_resume(struct timer *timer)
{
    advance(CONTAINER_OF(timer, struct export, resume));
}

static void on_room(void *self)
{
    advance(self);
}

static void on_body(void *self, struct slice piece)
{
    const struct export *export = self;
    local_credit(export->call->local, piece.len);
}

static void on_gone(void *self)
{
    struct export *export = self;
    timer_forget(&export->resume);
    changes_unwatch(&export->watcher);
    tdestroy(export->kept, free_kept);
    api_text_free(&export->page);
    api_call_gone(export->call);
}

static void begin(struct api_call *call, struct export *export, struct slice content_type)
{
    static const struct local_handler handler = {.body = on_body, .room = on_room, .gone = on_gone};
    export->call = call;
    export->is_first = true;
    timer_init(&export->resume, on_resume);
    call->answered = true;
    local_handle(call->local, &handler, export);
    api_answer_add_common(call);
    if (!export->is_list)
        api_answer_add_etag(call, route_table_revision(call->api->params.table));
    local_begin(call->local, 200, content_type);
    if (call->head->method == METHOD_HEAD) {
        export->finished = true;
        local_finish(call->local);
        return;
    }
    if (export->is_list)
        api_text_append(&export->page, SLICE("{\"apps\":["));
    else
        changes_watch(call->api->params.changes, &export->watcher);
    advance(export);
}

void api_export_snapshot(struct api_call *call)
{
    struct export *export = arena_alloc_zeroed(call->arena, sizeof *export);
    export->remaining = UINT64_MAX;
    export->watcher = (struct changes_watcher){.changing = on_changing, .changed = on_changed};
    begin(call, export, SLICE("application/x-ndjson"));
}

static struct slice lower_copy(struct arena *arena, struct slice text)
{
    char *lower = arena_alloc(arena, text.len + 1);
    for (size_t i = 0; i < text.len; i++)
        lower[i] = ascii_lower(text.ptr[i]);
    return slice_make(lower, text.len);
}

void api_export_apps(struct api_call *call)
{
    struct slice value;
    struct export *export = arena_alloc_zeroed(call->arena, sizeof *export);
    export->is_list = true;
    export->remaining = DEFAULT_LIMIT;
    if (api_target_parameter(&call->target, "limit", &value) &&
        (!slice_to_u64(value, &export->remaining) || export->remaining < 1 || export->remaining > MAX_LIMIT)) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "limit", "it is a number from 1 to %d", MAX_LIMIT);
        return;
    }
    if (api_target_parameter(&call->target, "after", &value) && value.len > HOSTNAME_MAX_LABEL) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "after", "it is the id of an app, at most %d bytes",
                          HOSTNAME_MAX_LABEL);
        return;
    }
    value = lower_copy(call->arena, value);
    memcpy(export->after, value.ptr, value.len);
    export->after_len = value.len;
    api_target_parameter(&call->target, "q", &value);
    export->query = lower_copy(call->arena, value);
    begin(call, export, SLICE("application/json"));
}
