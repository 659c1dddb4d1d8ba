#include "sync_internal.h"

#include "gateway/base/backoff.h"
#include "gateway/base/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_DELAY_MS = 500,
    MAX_DELAY_MS = 30000,
    CALM_MS = 60000, /* without a snapshot: the next one is loaded at once again */
    COMMIT_WAIT_MS = 100,
};

static const char *state_name(enum sync_state state)
{
    static const char *const names[] = {
#define X(name, text) text,
        SYNC_STATES(X)
#undef X
    };
    return names[state];
}

static void set_state(struct sync *s, enum sync_state state)
{
    if (s->state != state)
        log_debug("sync: %s, was %s", state_name(state), state_name(s->state));
    s->state = state;
}

/* ---- waiting ---- */

static uint64_t delay_of(unsigned times)
{
    return backoff_ms(FIRST_DELAY_MS, MAX_DELAY_MS, times);
}

static void hang_up(struct sync *s)
{
    fetch_cancel(&s->fetch);
    s->connected = false;
    timer_disarm(&s->retry);
    sync_lines_drop(s);
}

static void wait_for(struct sync *s, uint64_t ms)
{
    set_state(s, SYNC_WAITING);
    s->retry_at_ms = loop_now_ms(s->loop) + ms;
    loop_timer_arm(s->loop, &s->retry, ms);
}

void sync_fail(struct sync *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->error, sizeof s->error, format, args);
    va_end(args);
    hang_up(s);
    uint64_t delay = delay_of(s->failures++);
    s->failures_total++;
    log_warn("sync: %s: %s; the routes stay, next try in %" PRIu64 " ms", s->options.source, s->error, delay);
    wait_for(s, delay);
}

/* ---- calling the source ---- */

static const struct fetch_events events;

static void call(struct sync *s, const char *path)
{
    static const char *const fields[] = {"Accept: application/x-ndjson", NULL};
    const struct sync_options *options = &s->options;
    bool is_unix = slice_has_prefix(slice_str(options->source), SLICE("unix:"));
    char *url;
    if (asprintf(&url, "%s%s", is_unix ? "http://localhost" : options->source, path) < 0)
        abort();
    struct fetch_request request = {
        .method = "GET",
        .url = url,
        .unix_socket = is_unix ? options->source + strlen("unix:") : NULL,
        .fields = fields,
        .token_file = options->token_file,
        .tls = {options->ca, options->certificate, options->private_key},
        .connect_ms = options->connect_ms,
        .idle_ms = options->idle_ms,
    };
    s->fetch = fetch_start(s->fetcher, &request, &events, s);
    free(url);
}

void sync_follow(struct sync *s)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/watch?since=%" PRIu64, s->revision);
    set_state(s, SYNC_CATCHING_UP);
    call(s, path);
}

static void start(struct sync *s)
{
    if (s->committing) {
        wait_for(s, COMMIT_WAIT_MS); /* else what is on its way would be read once more */
    } else if (s->needs_snapshot) {
        set_state(s, SYNC_LOADING);
        call(s, "/v1/snapshot");
    } else {
        sync_follow(s);
    }
}

static void on_retry(struct timer *timer)
{
    start(CONTAINER_OF(timer, struct sync, retry));
}

void sync_reload(struct sync *s)
{
    hang_up(s);
    s->needs_snapshot = true;
    if (loop_now_ms(s->loop) - s->snapshot_at_ms > CALM_MS)
        s->snapshots = 0;
    if (s->snapshots == 0)
        start(s);
    else
        wait_for(s, delay_of(s->snapshots - 1));
}

static void update_awaited(struct sync *s)
{
    bool awaited = s->options.source && !s->was_read && route_table_app_count(s->table) == 0;
    route_table_set_awaited(s->table, awaited);
}

void sync_was_read(struct sync *s)
{
    s->was_read = true;
    update_awaited(s);
}

void sync_in_step(struct sync *s)
{
    if (s->state != SYNC_CATCHING_UP)
        return;
    set_state(s, SYNC_FOLLOWING);
    s->failures = 0;
    sync_was_read(s);
    s->error[0] = '\0';
    log_info("sync: follows %s from revision %" PRIu64, s->options.source, s->revision);
}

/* ---- its answers ---- */

static void refuse_status(struct sync *s, int status)
{
    const struct sync_options *options = &s->options;
    if (status == 401)
        sync_fail(s, "%s (401); see sync.token_file",
                  options->token_file ? "it does not take our token" : "it wants a token");
    else if (status / 100 == 3)
        sync_fail(s, "it redirects (%d), which is not followed; sync.source must name the place itself", status);
    else if (status == 404)
        sync_fail(s, "it has no /v1/snapshot and /v1/watch (404); is sync.source a control API?");
    else
        sync_fail(s, "it answered with status %d%s%s", status, *status_reason(status) ? " " : "",
                  status_reason(status));
}

/* "17", the revision in a snapshot's ETag. */
static bool read_etag(struct slice etag, uint64_t *ret_revision)
{
    return etag.len > 2 && etag.ptr[0] == '"' && etag.ptr[etag.len - 1] == '"' &&
           slice_to_u64(slice_make(etag.ptr + 1, etag.len - 2), ret_revision) && *ret_revision <= CHANGES_MAX_REVISION;
}

static void on_head(void *arg, const struct fetch_head *head)
{
    struct sync *s = arg;
    bool is_snapshot = s->state == SYNC_LOADING;
    if (head->status == 410 && !is_snapshot) {
        log_info("sync: %s does not know the changes since revision %" PRIu64 " any more; loading its snapshot",
                 s->options.source, s->revision);
        sync_reload(s);
        return;
    }
    if (head->status != 200) {
        refuse_status(s, head->status);
        return;
    }
    if (is_snapshot && !read_etag(head->etag, &s->snapshot_revision)) {
        sync_fail(s, "its snapshot has no ETag with a revision; is sync.source a control API?");
        return;
    }
    if (is_snapshot && !head->is_delimited) {
        sync_fail(s, "its snapshot has neither Content-Length nor chunks: it may break off unseen");
        return;
    }
    s->connected = true;
    s->is_delimited = head->is_delimited;
    s->word_us = clock_now_us();
    if (is_snapshot) {
        s->snapshots++;
        s->snapshot_at_ms = loop_now_ms(s->loop);
    }
    sync_lines_begin(s);
}

static void on_data(void *arg, struct slice piece)
{
    sync_lines_feed(arg, piece);
}

static void on_done(void *arg, const struct fetch_result *result)
{
    struct sync *s = arg;
    s->fetch = NULL;
    s->connected = false;
    if (result->end != FETCH_COMPLETE) {
        sync_fail(s, "%s", result->text);
        return;
    }
    if (s->is_delimited && !sync_lines_end(s))
        return;
    if (s->state == SYNC_LOADING) {
        set_state(s, SYNC_APPLYING);
        sync_lines_apply_snapshot(s);
    } else {
        sync_fail(s, "it ended the stream of changes");
    }
}

static const struct fetch_events events = {.head = on_head, .data = on_data, .done = on_done};

/* ---- configuration ---- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_options(const struct sync_options *a, const struct sync_options *b)
{
    return same_text(a->source, b->source) && same_text(a->token_file, b->token_file) && same_text(a->ca, b->ca) &&
           same_text(a->certificate, b->certificate) && same_text(a->private_key, b->private_key) &&
           a->connect_ms == b->connect_ms && a->idle_ms == b->idle_ms;
}

static const char *keep(struct arena *arena, const char *text)
{
    return text ? arena_printf(arena, "%s", text).ptr : NULL;
}

static void keep_options(struct sync *s, const struct sync_options *options)
{
    struct arena old = s->arena;
    arena_init(&s->arena, NULL);
    s->options = (struct sync_options){
        .source = keep(&s->arena, options->source),
        .token_file = keep(&s->arena, options->token_file),
        .ca = keep(&s->arena, options->ca),
        .certificate = keep(&s->arena, options->certificate),
        .private_key = keep(&s->arena, options->private_key),
        .connect_ms = options->connect_ms,
        .idle_ms = options->idle_ms,
    };
    arena_reset(&old);
    s->gate.status = STATUS_ROUTES_FOLLOW;
    snprintf(s->gate.detail, sizeof s->gate.detail, "this gateway follows %s (sync.source); change the routes there",
             options->source ? options->source : "");
    changes_set_gate(s->changes, options->source ? &s->gate : NULL);
}

static void begin(struct sync *s)
{
    s->reconfigured = false;
    hang_up(s);
    s->failures = s->snapshots = 0;
    s->error[0] = '\0';
    set_state(s, SYNC_OFF);
    update_awaited(s);
    if (!s->options.source)
        return;
    s->revision = route_table_revision(s->table);
    s->needs_snapshot |= s->revision == 0;
    s->word_us = clock_now_us();
    start(s);
}

/* What is being committed is what the old source has, and is not to be interrupted; no more is taken from there. */
static void begin_when_committed(struct sync *s)
{
    s->reconfigured = s->committing;
    if (!s->committing) {
        begin(s);
        return;
    }
    hang_up(s);
    if (s->options.source)
        wait_for(s, COMMIT_WAIT_MS);
    else
        set_state(s, SYNC_OFF);
}

bool sync_goes_on(struct sync *s)
{
    if (s->reconfigured)
        begin(s);
    else if (s->state != SYNC_WAITING && s->state != SYNC_OFF)
        return true;
    return false;
}

void sync_configure(struct sync *s, const struct sync_options *options)
{
    if (same_options(&s->options, options))
        return;
    bool is_other = !same_text(s->options.source, options->source);
    if (is_other && s->options.source)
        log_info("sync: does not follow %s any more", s->options.source);
    s->needs_snapshot |= is_other && s->options.source;
    s->was_read &= !is_other;
    keep_options(s, options);
    begin_when_committed(s);
}

/* Also what is not committed yet. */
static bool leaves_out(const struct sync *s)
{
    return s->refused.count + s->unnamed + s->verdicts.count + s->committing_verdicts.count > 0;
}

void sync_rules_changed(struct sync *s)
{
    if (!s->options.source || !leaves_out(s))
        return;
    s->needs_snapshot = true;
    begin_when_committed(s);
}

/* ---- status ---- */

void sync_get_status(const struct sync *s, struct sync_status *ret)
{
    uint64_t now_ms = loop_now_ms(s->loop), now_us = clock_now_us();
    *ret = (struct sync_status){
        .state = s->state,
        .state_name = state_name(s->state),
        .source = s->options.source ? s->options.source : "",
        .connected = s->connected,
        .revision = s->revision,
        .word_age_ms = now_us > s->word_us ? (now_us - s->word_us) / 1000 : 0,
        .retry_ms = s->state == SYNC_WAITING && s->retry_at_ms > now_ms ? s->retry_at_ms - now_ms : 0,
        .resyncs_total = s->resyncs_total,
        .failures_total = s->failures_total,
        .refused = s->refused.count + s->unnamed,
        .digest_differs = s->digest_differs,
        .error = s->error,
    };
}

/* ---- life ---- */

struct sync *sync_new(struct loop *loop, struct fetcher *fetcher, struct changes *changes, struct route_table *table)
{
    struct sync *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    *s = (struct sync){.loop = loop, .fetcher = fetcher, .changes = changes, .table = table};
    arena_init(&s->arena, NULL);
    timer_init(&s->retry, on_retry);
    return s;
}

void sync_free(struct sync **sync)
{
    struct sync *s = *sync;
    if (!s)
        return;
    *sync = NULL;
    hang_up(s);
    changes_forget(s->changes, s);
    timer_forget(&s->retry);
    sync_lines_free(s);
    arena_reset(&s->arena);
    free(s);
}
