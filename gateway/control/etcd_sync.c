#include "gateway/control/etcd_sync.h"

#include "etcd_retry.h"
#include "etcd_routes.h"
#include "etcd_secrets.h"
#include "etcd_write.h"
#include "gateway/base/backoff.h"
#include "gateway/base/log.h"
#include "gateway/control/etcd_client.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECT_MS = 3000,
    ANSWER_MS = 8000,      /* etcd itself gives up after 7 s */
    PROBE_MS = 5000,       /* between two proofs of a leader */
    QUIET_MS = 660 * 1000, /* etcd tells its revision every 600 s on a quiet watch */
    FIRST_PAUSE_MS = 200,
    MAX_PAUSE_MS = 10000,
    BRIEF_MS = 20000, /* away for less is worth waiting for */
    FIRST_PAGE = 64,  /* keys */
    MAX_PAGE = 4096,
    SMALL_PAGE = 16,      /* that is sure to fit, with values of etcd's largest size */
    PAGE_BYTES = 1 << 20, /* that is aimed at */
    MAX_PAGE_BYTES = 64 << 20,
    MAX_SMALL_ANSWER = 64 << 10,
};

_Static_assert(ETCD_WIRE_MAX_REVISION <= CHANGES_MAX_REVISION, "the table can take each revision of etcd");

enum state {
    STATE_PAUSING,  /* until the timer */
    STATE_LOADING,  /* page by page */
    STATE_APPLYING, /* what was loaded */
    STATE_WATCHING,
};

struct etcd_sync {
    struct etcd_sync_params params;
    struct etcd_client *client;
    struct etcd_routes *routes;
    struct etcd_retry *retry;
    struct etcd_write *write;
    struct etcd_secrets *secrets; /* NULL: without a fleet key */
    char *format_key;
    struct slice prefix;
    enum state state;
    struct timer timer;     /* the pause, or the next probe */
    unsigned pauses;        /* since it followed */
    struct etcd_call *call; /* a page */
    struct etcd_call *watch;
    struct etcd_call *probe;
    struct etcd_call *mark;
    uint64_t applied;       /* the revision that the table had when conflicts were last looked for; 0: look again */
    const char *watched;    /* endpoint of the watch */
    uint64_t cluster_id;    /* of what was loaded; 0: nothing was, or it is to be loaded again */
    uint64_t next_revision; /* the watch goes on from here */
    uint64_t load_cluster_id;
    uint64_t load_revision; /* of the pages; 0: the first one decides */
    char *page_key;
    size_t page_key_len;
    size_t page_limit;
    bool page_advanced; /* it had keys that come after those of the page before */
    bool has_format;    /* the prefix is marked as a fleet's */
    bool created;
    bool proven; /* a read that needs the majority was answered since the watch began */
    bool watch_paused;
    bool gathering_apps; /* of a revision that comes in parts */
    bool unseeded;       /* the prefix is empty and no fleet's: nothing is taken from it */
    uint64_t current_us; /* monotonic: nothing was missing then */
    bool has_been;
    bool all_away; /* no member could be reached */
    uint64_t failures, loads;
    char problem[ETCD_CLIENT_TEXT_MAX];
};

/* ---- helpers ---- */

static char *join(struct slice prefix, const char *name)
{
    char *text;
    if (asprintf(&text, "%.*s%s", SLICE_ARG(prefix), name) < 0)
        abort();
    return text;
}

static void note_current(struct etcd_sync *s)
{
    s->current_us = s->params.loop->now_us;
}

static void cancel_calls(struct etcd_sync *s)
{
    etcd_call_cancel(&s->call);
    etcd_call_cancel(&s->watch);
    etcd_call_cancel(&s->probe);
    etcd_retry_stop(s->retry);
    s->watch_paused = s->created = s->proven = false;
}

/* ---- pausing ---- */

static void pause_then_go_on(struct etcd_sync *s)
{
    cancel_calls(s);
    s->state = STATE_PAUSING;
    loop_timer_arm(s->params.loop, &s->timer, backoff_ms(FIRST_PAUSE_MS, MAX_PAUSE_MS, s->pauses++));
}

static void fail(struct etcd_sync *s, const char *text)
{
    bool is_news = strcmp(s->problem, text) != 0;
    s->failures++;
    snprintf(s->problem, sizeof s->problem, "%s", text);
    if (is_news)
        log_warn("etcd: %s; routes stay as they are", s->problem);
    pause_then_go_on(s);
}

/* What was loaded is of no use as a base any more: once that is done which is being done, all is loaded again. */
static void forget_load(struct etcd_sync *s, const char *why)
{
    log_info("etcd: everything is loaded again: %s", why);
    s->cluster_id = 0;
}

static void load_again(struct etcd_sync *s, const char *why)
{
    forget_load(s, why);
    pause_then_go_on(s);
}

static void fail_call(struct etcd_sync *s, const struct etcd_result *result)
{
    if (result->end == ETCD_REFUSED)
        etcd_client_leave(s->client);
    s->all_away = result->end == ETCD_UNSENT;
    fail(s, result->text);
}

/* ---- keys ---- */

/* The part behind the prefix and this folder. */
static bool is_in(const struct etcd_sync *s, struct slice key, struct slice folder, struct slice *ret_name)
{
    if (!slice_has_prefix(key, s->prefix))
        return false;
    struct slice rest = slice_from(key, s->prefix.len);
    *ret_name = slice_from(rest, folder.len);
    return slice_has_prefix(rest, folder) && ret_name->len > 0;
}

/* In the order of etcd's keys. */
static bool is_before(struct slice a, struct slice b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order < 0 || (order == 0 && a.len < b.len);
}

/* True if it is an app's. */
static bool take_kv(struct etcd_sync *s, const struct etcd_wire_kv *kv)
{
    struct slice name;
    if (slice_eq(kv->key, slice_str(s->format_key)))
        s->has_format = !kv->is_delete;
    if (s->secrets && slice_has_prefix(kv->key, s->prefix) &&
        etcd_secrets_take(s->secrets, slice_from(kv->key, s->prefix.len), kv))
        return false;
    if (!is_in(s, kv->key, SLICE("apps/"), &name))
        return false;
    if (kv->is_delete)
        etcd_routes_delete(s->routes, name, kv->mod_revision);
    else
        etcd_routes_put(s->routes, name, kv->value, kv->mod_revision);
    return true;
}

/* ---- loading ---- */

static void start_watch(struct etcd_sync *s);
static void next_page(struct etcd_sync *s);

static void set_page_key(struct etcd_sync *s, struct slice key, bool after)
{
    size_t len = key.len + after;
    char *copy = calloc(1, len + 1);
    if (!copy)
        abort();
    memcpy(copy, key.ptr, key.len);
    free(s->page_key);
    s->page_key = copy;
    s->page_key_len = len;
}

static void start_load(struct etcd_sync *s)
{
    s->state = STATE_LOADING;
    s->loads++;
    s->applied = 0;
    s->load_revision = 0;
    s->has_format = false;
    set_page_key(s, s->prefix, false);
    etcd_routes_begin_load(s->routes);
    if (s->secrets)
        etcd_secrets_begin_load(s->secrets);
    next_page(s);
}

static void on_page_kv(void *arg, const struct etcd_wire_kv *kv)
{
    struct etcd_sync *s = arg;
    take_kv(s, kv);
    if (is_before(kv->key, slice_make(s->page_key, s->page_key_len)))
        return;
    set_page_key(s, kv->key, true);
    s->page_advanced = true;
}

/*
 * A prefix that is empty and was never a fleet's is more likely a mistake, or a cluster that was made anew, than the
 * wish to delete every route.
 */
static bool is_unseeded(const struct etcd_sync *s)
{
    return etcd_routes_loaded(s->routes) == 0 && !s->has_format && route_table_app_count(s->params.table) > 0;
}

static void finish_load(struct etcd_sync *s)
{
    s->next_revision = s->load_revision + 1;
    s->cluster_id = s->load_cluster_id;
    s->unseeded = is_unseeded(s);
    if (s->unseeded) {
        log_warn("etcd: there is nothing under %.*s; the %zu apps of this gateway stay until "
                 "something is written there",
                 SLICE_ARG(s->prefix), route_table_app_count(s->params.table));
        snprintf(s->problem, sizeof s->problem,
                 "there is nothing under %.*s yet; load a snapshot with gatewayctl --etcd", SLICE_ARG(s->prefix));
        etcd_routes_abandon(s->routes);
        start_watch(s);
        return;
    }
    log_info("etcd: %zu apps loaded at revision %ju", etcd_routes_loaded(s->routes), (uintmax_t)s->load_revision);
    s->state = STATE_APPLYING;
    etcd_routes_commit(s->routes, s->load_revision);
}

static void adapt_page_limit(struct etcd_sync *s, size_t bytes)
{
    if (bytes < PAGE_BYTES / 2 && s->page_limit * 2 <= MAX_PAGE)
        s->page_limit *= 2;
    else if (bytes > 2 * PAGE_BYTES && s->page_limit > 1)
        s->page_limit /= 2;
}

static void on_page(void *arg, const struct etcd_result *result)
{
    struct etcd_sync *s = arg;
    struct etcd_wire_range_answer answer;
    s->call = NULL;
    if (result->end == ETCD_TOO_LARGE) {
        s->page_limit = SMALL_PAGE;
        load_again(s, "a page was too large");
    } else if (result->end == ETCD_REFUSED && result->error.code == ETCD_WIRE_OUT_OF_RANGE) {
        load_again(s, result->error.text);
    } else if (result->end != ETCD_ANSWERED) {
        fail_call(s, result);
    } else if (!etcd_wire_range_read(result->body, on_page_kv, s, &answer)) {
        etcd_client_leave(s->client);
        fail(s, "an answer of etcd makes no sense");
    } else {
        if (s->load_revision == 0) {
            s->load_revision = answer.header.revision;
            s->load_cluster_id = answer.header.cluster_id;
        }
        adapt_page_limit(s, result->body.len);
        if (!answer.more) {
            finish_load(s);
        } else if (s->page_advanced) {
            next_page(s);
        } else {
            etcd_client_leave(s->client);
            fail(s, "etcd says that there are more keys, but sends none");
        }
    }
}

static void next_page(struct etcd_sync *s)
{
    char *end = etcd_wire_prefix_end(s->prefix);
    s->page_advanced = false;
    struct etcd_wire_range range = {
        .key = slice_make(s->page_key, s->page_key_len),
        .range_end = slice_str(end),
        .revision = s->load_revision,
        .limit = s->page_limit,
    };
    s->call = etcd_client_call(s->client, "/v3/kv/range", etcd_wire_range_request(&range), MAX_PAGE_BYTES, on_page, s);
    free(end);
}

/* ---- watching ---- */

static void mark_format(struct etcd_sync *s);

static void note_following(struct etcd_sync *s)
{
    if (s->proven)
        return;
    s->proven = s->has_been = true;
    s->all_away = false;
    s->pauses = 0;
    route_table_set_awaited(s->params.table, false);
    if (!s->unseeded)
        s->problem[0] = '\0';
    log_info("etcd: following %s from revision %ju", s->watched, (uintmax_t)s->next_revision);
    if (etcd_routes_loaded(s->routes) > 0)
        mark_format(s);
    if (s->secrets)
        etcd_secrets_following(s->secrets);
}

/* The member that answers is not the one that is watched any more: it has failed a call. */
static bool has_moved(const struct etcd_sync *s)
{
    return s->state == STATE_WATCHING && s->watched != etcd_client_endpoint(s->client);
}

static void on_probe(void *arg, const struct etcd_result *result)
{
    struct etcd_sync *s = arg;
    struct etcd_wire_range_answer answer;
    s->probe = NULL;
    if (result->end != ETCD_ANSWERED) {
        fail_call(s, result);
    } else if (has_moved(s)) {
        start_watch(s);
    } else if (!etcd_wire_range_read(result->body, NULL, NULL, &answer) || answer.header.cluster_id != s->cluster_id) {
        load_again(s, "another cluster answers");
    } else {
        note_current(s);
        note_following(s);
        loop_timer_arm(s->params.loop, &s->timer, PROBE_MS);
    }
}

/* A member without a majority goes on serving its watches in silence, but can't answer this. */
static void start_probe(struct etcd_sync *s)
{
    struct etcd_wire_range range = {.key = slice_str(s->format_key), .count_only = true};
    if (!s->probe)
        s->probe =
            etcd_client_call(s->client, "/v3/kv/range", etcd_wire_range_request(&range), MAX_SMALL_ANSWER, on_probe, s);
}

struct batch {
    struct etcd_sync *sync;
    bool has_apps;
    uint64_t revision;
};

static void on_event(void *arg, const struct etcd_wire_kv *kv)
{
    struct batch *batch = arg;
    batch->has_apps |= take_kv(batch->sync, kv);
    batch->revision = kv->mod_revision;
}

static void take_events(struct etcd_sync *s, const struct etcd_wire_watch_answer *answer, const struct batch *batch)
{
    s->gathering_apps |= batch->has_apps;
    if (answer->is_fragment)
        return;
    s->next_revision = batch->revision + 1;
    if (s->gathering_apps) {
        etcd_routes_commit(s->routes, batch->revision);
        mark_format(s);
    }
    s->gathering_apps = false;
    if (etcd_routes_is_full(s->routes)) {
        s->watch_paused = true;
        etcd_call_pause(s->watch);
    }
}

/* Whoever seeds the prefix marks it when all is there. */
static void take_unseeded(struct etcd_sync *s, const struct etcd_wire_watch_answer *answer, const struct batch *batch)
{
    etcd_routes_abandon(s->routes);
    if (s->has_format)
        load_again(s, "the prefix is a fleet's now");
    else if (answer->event_count > 0)
        s->next_revision = batch->revision + 1;
}

static void on_created(struct etcd_sync *s, const struct etcd_wire_watch_answer *answer)
{
    if (answer->header.revision + 1 < s->next_revision) {
        load_again(s, "the cluster's revision is behind what was seen: it was restored from a backup");
        return;
    }
    s->created = true;
    start_probe(s);
}

static void on_line(void *arg, struct slice line)
{
    struct etcd_sync *s = arg;
    struct etcd_wire_watch_answer answer;
    struct batch batch = {.sync = s};
    if (!etcd_wire_watch_read(line, on_event, &batch, &answer)) {
        etcd_client_leave(s->client);
        fail(s, "an event of etcd makes no sense");
    } else if (answer.canceled && answer.compact_revision > 0) {
        load_again(s, "what was missed is compacted away");
    } else if (answer.canceled) {
        etcd_client_renew(s->client);
        etcd_client_leave(s->client);
        fail(s, answer.text[0] ? answer.text : "the watch was cancelled");
    } else if (answer.header.cluster_id != s->cluster_id) {
        load_again(s, "another cluster answers");
    } else if (answer.created) {
        on_created(s, &answer);
    } else if (s->unseeded) {
        take_unseeded(s, &answer, &batch);
    } else if (answer.event_count > 0) {
        take_events(s, &answer, &batch);
    } else if (answer.header.revision >= s->next_revision) {
        s->next_revision = answer.header.revision + 1;
    }
}

static void on_watch_end(void *arg, const struct etcd_result *result)
{
    struct etcd_sync *s = arg;
    s->watch = NULL;
    fail_call(s, result);
}

static void start_watch(struct etcd_sync *s)
{
    cancel_calls(s);
    etcd_retry_arm(s->retry);
    s->state = STATE_WATCHING;
    s->watched = etcd_client_endpoint(s->client);
    s->gathering_apps = false;
    loop_timer_arm(s->params.loop, &s->timer, PROBE_MS);
    s->watch = etcd_client_watch(s->client, etcd_wire_watch_request(s->prefix, s->next_revision), QUIET_MS, on_line,
                                 on_watch_end, s);
}

/* ---- the mark ---- */

static void on_marked(void *arg, const struct etcd_result *result)
{
    struct etcd_sync *s = arg;
    s->mark = NULL;
    if (result->end != ETCD_ANSWERED)
        log_warn("etcd: cannot write %s: %s", s->format_key, result->text);
}

/* Once for a prefix: whoever is first. */
static void mark_format(struct etcd_sync *s)
{
    struct etcd_wire_op op = {.key = slice_str(s->format_key), .value = SLICE("1"), .has_expected = true};
    if (!s->mark && !s->has_format && !s->unseeded)
        s->mark =
            etcd_client_call(s->client, "/v3/kv/txn", etcd_wire_txn_request(&op, 1), MAX_SMALL_ANSWER, on_marked, s);
}

/* ---- what was applied ---- */

/* A batch of the watch may have freed what others wait for. That such an app was tried again tells nothing new. */
static void look_for_conflicts(struct etcd_sync *s)
{
    uint64_t revision = etcd_routes_revision(s->routes);
    if (s->state == STATE_WATCHING && s->applied != revision)
        etcd_retry_arm(s->retry);
    s->applied = revision;
}

static void end_load(struct etcd_sync *s)
{
    if (s->cluster_id == 0)
        pause_then_go_on(s);
    else if (!etcd_routes_is_committing(s->routes)) /* else it was a batch of before the load */
        start_watch(s);
}

static void on_applied(void *arg, enum status status, const char *text)
{
    struct etcd_sync *s = arg;
    if (status != STATUS_OK) {
        char problem[ETCD_CLIENT_TEXT_MAX];
        snprintf(problem, sizeof problem, "the store has failed: %s", text);
        s->cluster_id = 0;
        fail(s, problem);
    } else if (s->state == STATE_APPLYING) {
        end_load(s);
    } else if (s->watch_paused && !etcd_routes_is_full(s->routes)) {
        s->watch_paused = false;
        etcd_call_resume(s->watch);
    }
    if (status == STATUS_OK) {
        look_for_conflicts(s);
        etcd_write_applied(s->write);
    }
}

static bool is_following(const struct etcd_sync *s)
{
    return s->state == STATE_WATCHING && s->proven && !s->unseeded;
}

static const char *why_away(void *arg)
{
    const struct etcd_sync *s = arg;
    if (is_following(s))
        return NULL;
    return s->problem[0] ? s->problem : "the routes do not follow etcd yet";
}

static bool is_brief(void *arg)
{
    const struct etcd_sync *s = arg;
    return s->has_been && !s->unseeded && !s->all_away && s->params.loop->now_us - s->current_us < BRIEF_MS * 1000U;
}

/* The own watch must not stay with a member that fails: the write waits for it. */
static void on_moved(void *arg)
{
    struct etcd_sync *s = arg;
    if (has_moved(s))
        start_watch(s);
}

static void on_timer(struct timer *timer)
{
    struct etcd_sync *s = CONTAINER_OF(timer, struct etcd_sync, timer);
    if (s->state == STATE_WATCHING && has_moved(s))
        start_watch(s);
    else if (s->state == STATE_WATCHING)
        start_probe(s);
    else if (s->cluster_id != 0)
        start_watch(s);
    else
        start_load(s);
}

static struct etcd_secrets *new_secrets(struct etcd_sync *s)
{
    return etcd_secrets_new(&(struct etcd_secrets_params){
        .loop = s->params.loop,
        .client = s->client,
        .key = s->params.fleet_key,
        .certs = s->params.certs,
        .prefix = s->prefix,
        .away = why_away,
        .moved = on_moved,
        .arg = s,
        .set_ticket_keys = s->params.set_ticket_keys,
        .set_arg = s->params.arg,
    });
}

void etcd_sync_rules_changed(struct etcd_sync *s)
{
    static const char why[] = "the rules for documents have changed";
    if (etcd_routes_left_out(s->routes) == 0)
        return;
    switch (s->state) {
    case STATE_PAUSING:
    case STATE_APPLYING:
        forget_load(s, why);
        break;
    case STATE_LOADING:
    case STATE_WATCHING:
        load_again(s, why);
        break;
    }
}

bool etcd_sync_has_ticket_keys(const struct etcd_sync *s)
{
    return s->secrets && etcd_secrets_has_ticket_keys(s->secrets);
}

struct etcd_sync *etcd_sync_new(const struct etcd_sync_params *params)
{
    struct etcd_sync *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->params = *params;
    s->prefix = slice_str(params->config->prefix);
    s->format_key = join(s->prefix, "format");
    s->page_limit = FIRST_PAGE;
    s->current_us = params->loop->now_us;
    timer_init(&s->timer, on_timer);
    s->client = etcd_client_new(&(struct etcd_client_params){
        .loop = params->loop,
        .fetcher = params->fetcher,
        .config = params->config,
        .connect_ms = CONNECT_MS,
        .answer_ms = ANSWER_MS,
    });
    s->routes = etcd_routes_new(&(struct etcd_routes_params){
        .changes = params->changes, .table = params->table, .applied = on_applied, .arg = s});
    s->retry = etcd_retry_new(&(struct etcd_retry_params){
        .loop = params->loop, .client = s->client, .routes = s->routes, .prefix = s->prefix});
    s->write = etcd_write_new(&(struct etcd_write_params){
        .loop = params->loop,
        .client = s->client,
        .routes = s->routes,
        .prefix = s->prefix,
        .away = why_away,
        .is_brief = is_brief,
        .moved = on_moved,
        .arg = s,
    });
    if (params->fleet_key)
        s->secrets = new_secrets(s);
    changes_set_gate(params->changes, etcd_write_gate(s->write));
    route_table_set_awaited(params->table, route_table_app_count(params->table) == 0);
    snprintf(s->problem, sizeof s->problem, "it has not been reached yet");
    start_load(s);
    return s;
}

void etcd_sync_free(struct etcd_sync **sync)
{
    struct etcd_sync *s = *sync;
    if (!s)
        return;
    *sync = NULL;
    etcd_secrets_free(&s->secrets);
    etcd_write_free(&s->write);
    changes_set_gate(s->params.changes, NULL);
    cancel_calls(s);
    etcd_call_cancel(&s->mark);
    timer_forget(&s->timer);
    etcd_retry_free(&s->retry);
    etcd_routes_free(&s->routes);
    etcd_client_free(&s->client);
    free(s->page_key);
    free(s->format_key);
    free(s);
}

void etcd_sync_status(const struct etcd_sync *s, struct etcd_sync_status *ret_status)
{
    *ret_status = (struct etcd_sync_status){
        .following = is_following(s),
        .has_been = s->has_been,
        .age_ms = (s->params.loop->now_us - s->current_us) / 1000U,
        .revision = etcd_routes_revision(s->routes),
        .endpoint = etcd_client_endpoint(s->client),
        .problem = s->problem,
        .left_out = etcd_routes_left_out(s->routes) + (s->secrets ? etcd_secrets_left_out(s->secrets) : 0),
        .failures = s->failures,
        .loads = s->loads,
    };
}
