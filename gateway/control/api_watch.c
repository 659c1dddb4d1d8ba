/*
 * GET /v1/watch: what changes, as NDJSON without an end.
 *
 * A reader is never buffered for: it is sent the present state of each app that changed since its place in the history,
 * when it has room. A place that has left the ring is found again by looking through all apps. Lines between two
 * heartbeats belong together: only with all of them is the state one that there was.
 */
#include "api_internal.h"

#include "gateway/base/clock.h"
#include "gateway/control/change_line.h"
#include "gateway/control/history.h"

#include <stdlib.h>

enum {
    HEARTBEAT_MS = 10000,
    RESUME_MS = 1,
    STALL_MS = 30000,  /* without room for so long the reader is given up */
    TURN_LINES = 256,  /* of one reader, before others have their turn */
    TURN_APPS = 20000, /* looked at in one turn */
    PAGE_APPS = 64,
};

struct watch {
    struct api_call *call;
    struct list link; /* in the api's list */
    struct changes_watcher watcher;
    struct timer resume;
    struct timer heartbeat;
    struct timer stall;
    bool ended;
    uint64_t epoch;
    uint64_t since;  /* all changes up to here were sent */
    uint64_t place;  /* in the ring; valid unless scanning */
    bool scanning;   /* looking through all apps for what is later than `since` */
    uint64_t anchor; /* the revision when the scan began */
    size_t after_len;
    char after[HOSTNAME_MAX_LABEL + 1]; /* the last app looked at */
    struct api_text page;
};

static const struct history *history_of(const struct watch *w)
{
    return changes_history(w->call->api->params.changes);
}

static struct route_table *table_of(const struct watch *w)
{
    return w->call->api->params.table;
}

/* ---- sending ---- */

static void add(struct watch *w, char *line)
{
    api_text_append(&w->page, slice_str(line));
    free(line);
}

static void flush(struct watch *w)
{
    if (w->page.len > 0)
        local_send(w->call->local, slice_make(w->page.ptr, w->page.len));
    w->page.len = 0;
}

static void end(struct watch *w, enum status status, const char *detail)
{
    if (w->ended)
        return;
    w->ended = true;
    add(w, change_line_end(status, detail));
    flush(w);
    local_finish(w->call->local);
}

static void beat(struct watch *w)
{
    const struct api_params *params = &w->call->api->params;
    w->since = route_table_revision(params->table);
    add(w, change_line_heartbeat(w->since, route_table_app_count(params->table), changes_digest(params->changes)));
    loop_timer_arm(params->loop, &w->heartbeat, HEARTBEAT_MS);
}

/* ---- the scan: from far behind ---- */

static void add_tombstone(void *arg, struct slice app_id, uint64_t revision)
{
    add(arg, change_line_delete(app_id, revision));
}

static void begin_scan(struct watch *w)
{
    if (w->since < history_floor(history_of(w))) {
        end(w, STATUS_REVISION_GONE, "the reader fell too far behind; load the snapshot");
        return;
    }
    w->scanning = true;
    w->after_len = 0;
    w->anchor = route_table_revision(table_of(w));
    history_tombstones_each(history_of(w), w->since, add_tombstone, w);
}

static void scan_app(void *arg, const struct route_app *app)
{
    struct watch *w = arg;
    w->after_len = strlen(app->id);
    memcpy(w->after, app->id, w->after_len);
    if (app->revision > w->since)
        add(w, change_line_put(app));
}

/* The changes during the scan are in the ring, or a second scan finds them. */
static void end_scan(struct watch *w)
{
    w->scanning = false;
    w->since = w->anchor;
    if (!history_seek(history_of(w), w->since, &w->place))
        begin_scan(w);
}

/* ---- the ring ---- */

static void send_entry(struct watch *w, const struct history_entry *entry)
{
    struct slice id = slice_str(entry->app_id);
    route_table_read_begin();
    const struct route_app *app = route_table_app(table_of(w), id);
    char *line = app && app->revision == entry->revision ? change_line_put(app) : NULL;
    route_table_read_end();
    if (!app && history_tombstone(history_of(w), id) <= entry->revision) /* or forgotten already */
        line = change_line_delete(id, entry->revision);
    if (line) /* else a later entry has the app's state */
        add(w, line);
}

/* ---- advancing ---- */

static bool is_at_end(const struct watch *w)
{
    return !w->scanning && w->place == history_end(history_of(w));
}

/* One step; returns how much work it was. */
static size_t step(struct watch *w)
{
    if (w->scanning) {
        size_t seen = route_table_each(table_of(w), slice_make(w->after, w->after_len), PAGE_APPS, scan_app, w);
        if (seen < PAGE_APPS)
            end_scan(w);
        return seen + 1;
    }
    const struct history_entry *entry = history_at(history_of(w), w->place);
    if (!entry) {
        begin_scan(w);
        return 1;
    }
    send_entry(w, entry);
    w->place++;
    return TURN_APPS / TURN_LINES;
}

static void advance(struct watch *w)
{
    const struct api_params *params = &w->call->api->params;
    size_t work = 0;
    bool moved = false;
    if (!w->ended && history_epoch(history_of(w)) != w->epoch)
        end(w, STATUS_REVISION_GONE, "the changes can't be told in order any more; load the snapshot");
    while (!w->ended && !is_at_end(w) && work < TURN_APPS && local_room(w->call->local) > 0) {
        work += step(w);
        moved = true;
        if (!w->ended && is_at_end(w))
            beat(w);
        flush(w);
    }
    if (w->ended) {
        timer_disarm(&w->stall);
        return;
    }
    if (local_room(w->call->local) > 0)
        timer_disarm(&w->stall);
    else if (moved || !timer_is_armed(&w->stall))
        loop_timer_arm(params->loop, &w->stall, STALL_MS);
    if (work >= TURN_APPS)
        loop_timer_arm(params->loop, &w->resume, RESUME_MS);
}

static void on_resume(struct timer *timer)
{
    advance(CONTAINER_OF(timer, struct watch, resume));
}

static void on_heartbeat(struct timer *timer)
{
    struct watch *w = CONTAINER_OF(timer, struct watch, heartbeat);
    if (!w->ended && is_at_end(w) && local_room(w->call->local) > 0) {
        beat(w);
        flush(w);
    } else if (!w->ended) {
        loop_timer_arm(w->call->api->params.loop, timer, HEARTBEAT_MS);
    }
    advance(w);
}

static void on_stall(struct timer *timer)
{
    end(CONTAINER_OF(timer, struct watch, stall), STATUS_CLIENT_STALLED, "the reader takes nothing; it was given up");
}

static void on_changed(struct changes_watcher *watcher)
{
    advance(CONTAINER_OF(watcher, struct watch, watcher));
}

static void on_room(void *self)
{
    advance(self);
}

static void on_body(void *self, struct slice piece)
{
    const struct watch *w = self;
    local_credit(w->call->local, piece.len);
}

static void on_gone(void *self)
{
    struct watch *w = self;
    w->ended = true;
    list_remove(&w->link);
    changes_unwatch(&w->watcher);
    timer_forget(&w->resume);
    timer_forget(&w->heartbeat);
    timer_forget(&w->stall);
    api_text_free(&w->page);
    api_call_gone(w->call);
}

/* ---- the end of the process ---- */

static void end_for_shutdown(struct watch *w)
{
    end(w, STATUS_SHUTDOWN, status_what(STATUS_SHUTDOWN));
}

void api_watch_end_all(struct api *api)
{
    LIST_EACH (link, &api->watches)
        end_for_shutdown(CONTAINER_OF(link, struct watch, link));
}

/* ---- the call ---- */

/* False if the call was refused. */
static bool read_since(struct api_call *call, uint64_t *ret_since)
{
    const struct api_params *params = &call->api->params;
    uint64_t now = route_table_revision(params->table);
    uint64_t floor = history_floor(changes_history(params->changes));
    struct slice value;
    *ret_since = now;
    if (!api_target_parameter(&call->target, "since", &value))
        return true;
    if (!slice_to_u64(value, ret_since)) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "since", "it is a revision, as the ETag of /v1/snapshot");
        return false;
    }
    if (*ret_since >= floor && *ret_since <= now)
        return true;
    struct route_problem problem;
    api_problem_fill(&problem, STATUS_REVISION_GONE, "since", "changes are known from revision %ju to %ju",
                     (uintmax_t)floor, (uintmax_t)now);
    api_answer_problem_with(call, &problem, json_pack("{sI}", "revision", (json_int_t)now));
    return false;
}

void api_watch_changes(struct api_call *call)
{
    static const struct local_handler handler = {.body = on_body, .room = on_room, .gone = on_gone};
    uint64_t since;
    if (!read_since(call, &since))
        return;
    struct watch *w = arena_alloc_zeroed(call->arena, sizeof *w);
    w->call = call;
    w->since = since;
    w->epoch = history_epoch(history_of(w));
    w->watcher.changed = on_changed;
    list_init(&w->link);
    timer_init(&w->resume, on_resume);
    timer_init(&w->heartbeat, on_heartbeat);
    timer_init(&w->stall, on_stall);
    call->answered = true;
    local_handle(call->local, &handler, w);
    api_answer_add_common(call);
    local_begin(call->local, 200, SLICE("application/x-ndjson"));
    if (call->head->method == METHOD_HEAD) {
        w->ended = true;
        local_finish(call->local);
        return;
    }
    changes_watch(call->api->params.changes, &w->watcher);
    list_push(&call->api->watches, &w->link);
    if (!history_seek(history_of(w), since, &w->place))
        begin_scan(w);
    if (is_at_end(w)) {
        beat(w);
        flush(w);
    }
    advance(w);
    if (call->api->ending)
        end_for_shutdown(w);
}
