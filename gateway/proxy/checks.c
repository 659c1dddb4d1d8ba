#include "gateway/proxy/checks.h"

#include "check_run.h"

#include "gateway/base/log.h"
#include "gateway/base/name_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SLOTS = 4096,
    LINES_PER_SECOND = 5,
    FIRST_WITHIN_MS = 1000, /* the first check of a port comes after a random part of this */
    JITTER_SHARE = 10,      /* checks come up to a tenth of the interval early */
};

/* An app some of whose ports are checked. */
struct checked_app {
    struct name_entry entry;
    struct list turn;    /* in `turns`, while it may begin a check and one waits */
    struct list waiting; /* its probes whose time has come, in this order */
    struct checks *checks;
    unsigned users; /* probes and runs */
    unsigned running;
    char id[];
};

/* A port of an instance that is checked. */
struct probe {
    struct probe *next; /* in its slot */
    struct list link;   /* of all */
    struct list wait;   /* in its app's `waiting` */
    struct checks *checks;
    struct checked_app *app;
    struct claim *claim; /* a reference */
    struct check_run *run;
    struct timer timer; /* to the next check */
    uint64_t used_ms;   /* when a request wanted the port */
    uint16_t port;
    uint8_t successes; /* in a row */
    uint8_t failures;
    bool is_down;
    char instance_id[];
};

struct checks {
    struct proxy *proxy;
    struct list all;
    size_t count;
    unsigned running;
    bool stopped;
    struct name_table apps;
    struct list turns; /* apps that may begin a check, one after the other */
    struct log_limit limit;
    struct probe *slots[SLOTS];
};

struct checks *checks_new(struct proxy *proxy)
{
    struct checks *checks = calloc(1, sizeof *checks);
    if (!checks)
        abort();
    checks->proxy = proxy;
    list_init(&checks->all);
    list_init(&checks->turns);
    name_table_init(&checks->apps);
    return checks;
}

/* ---- apps ---- */

static struct checked_app *use_app(struct checks *checks, const char *id)
{
    struct name_entry *entry = name_table_find(&checks->apps, slice_str(id));
    struct checked_app *app = entry ? CONTAINER_OF(entry, struct checked_app, entry) : NULL;
    if (!app) {
        size_t size = strlen(id) + 1;
        app = calloc(1, sizeof *app + size);
        if (!app)
            abort();
        memcpy(app->id, id, size);
        app->checks = checks;
        app->entry.name = slice_str(app->id);
        list_init(&app->turn);
        list_init(&app->waiting);
        name_table_add(&checks->apps, &app->entry);
    }
    app->users++;
    return app;
}

static void leave_app(struct checked_app *app)
{
    if (--app->users > 0)
        return;
    assert(list_is_empty(&app->waiting) && app->running == 0);
    list_remove(&app->turn);
    name_table_remove(&app->checks->apps, &app->entry);
    free(app);
}

/* In or out of `turns`, as it is now. */
static void place_app(struct checked_app *app)
{
    bool may_begin = app->running < CHECKS_MAX_OF_APP && !list_is_empty(&app->waiting);
    if (!may_begin)
        list_remove(&app->turn);
    else if (list_is_empty(&app->turn))
        list_push(&app->checks->turns, &app->turn);
}

/* ---- probes ---- */

/* All ports of a claim are in one slot. */
static struct probe **slot_of(struct checks *checks, uint64_t serial)
{
    return &checks->slots[(serial * 0x9E3779B97F4A7C15U >> 32) % SLOTS];
}

static struct probe *find(const struct checks *checks, uint64_t serial, uint16_t port)
{
    struct probe *probe = *slot_of((struct checks *)(uintptr_t)checks, serial);
    while (probe && (probe->claim->serial != serial || probe->port != port))
        probe = probe->next;
    return probe;
}

static void set_down(struct probe *probe, bool down)
{
    if (probe->is_down == down)
        return;
    probe->is_down = down;
    COUNTER_ADD(probe->checks->proxy->loop->counters, upstream_down, down ? 1 : -1);
}

static void drop(struct probe *probe)
{
    struct checks *checks = probe->checks;
    struct probe **at = slot_of(checks, probe->claim->serial);
    while (*at != probe)
        at = &(*at)->next;
    *at = probe->next;
    set_down(probe, false);
    check_run_cancel(&probe->run);
    list_remove(&probe->link);
    list_remove(&probe->wait);
    place_app(probe->app);
    leave_app(probe->app);
    timer_forget(&probe->timer);
    checks->count--;
    claim_unref(&probe->claim);
    free(probe);
}

void checks_stop(struct checks *checks)
{
    checks->stopped = true;
    while (!list_is_empty(&checks->all))
        drop(CONTAINER_OF(checks->all.next, struct probe, link));
}

void checks_free(struct checks **checks)
{
    if (!*checks)
        return;
    checks_stop(*checks);
    assert((*checks)->running == 0 && (*checks)->apps.count == 0);
    name_table_fini(&(*checks)->apps);
    free(*checks);
    *checks = NULL;
}

void checks_forget(struct checks *checks, uint64_t serial)
{
    for (struct probe *probe = *slot_of(checks, serial), *next; probe; probe = next) {
        next = probe->next;
        if (probe->claim->serial == serial)
            drop(probe);
    }
}

/* ---- verdicts ---- */

static void tell_change(struct probe *probe, enum status status, int http_status)
{
    char address[IP_TEXT_MAX], why[32] = "";
    if (!log_limit_pass(&probe->checks->limit, LINES_PER_SECOND))
        return;
    ip_format(&probe->claim->address, address);
    if (probe->is_down && http_status > 0)
        snprintf(why, sizeof why, " (status %d)", http_status);
    else if (probe->is_down)
        snprintf(why, sizeof why, " (%s)", status_code(status));
    log_warn("check: app %s, instance %s, %s port %u is %s%s", probe->app->id, probe->instance_id, address,
             (unsigned)probe->port, probe->is_down ? "down" : "up", why);
}

static void judge(struct probe *probe, const struct route_check *check, enum status status, int http_status)
{
    bool good = status == STATUS_OK && (http_status == 0 || (http_status >= 200 && http_status < 400));
    if (!good)
        COUNTER_INC(probe->checks->proxy->loop->counters, upstream_checks_failed_total);
    if (good && probe->successes < UINT8_MAX)
        probe->successes++;
    else if (!good && probe->failures < UINT8_MAX)
        probe->failures++;
    if (good)
        probe->failures = 0;
    else
        probe->successes = 0;
    bool was_down = probe->is_down;
    if (was_down ? probe->successes >= check->rise : probe->failures >= check->fall)
        set_down(probe, !was_down);
    if (probe->is_down != was_down)
        tell_change(probe, status, http_status);
}

/* ---- one after the other ---- */

static void wait_for_next(struct probe *probe, uint32_t interval_ms)
{
    struct proxy *proxy = probe->checks->proxy;
    loop_timer_arm(proxy->loop, &probe->timer, interval_ms - proxy_random(proxy) % (interval_ms / JITTER_SHARE + 1));
}

/* What the record says now; NULL: that the port of this claim is to be checked no more. In a read section. */
static const struct route_check *present_check(const struct probe *probe, const struct route_app **ret_app)
{
    const struct route_app *app = route_table_app(probe->checks->proxy->table, slice_str(probe->app->id));
    const struct route_instance *instance = app ? route_app_instance(app, slice_str(probe->instance_id)) : NULL;
    if (!instance || instance->claim != probe->claim || instance->state != ROUTE_STATE_RUNNING)
        return NULL;
    *ret_app = app;
    return route_app_port_check(app, probe->port);
}

static void on_done(void *owner, enum status status, int http_status)
{
    struct probe *probe = owner;
    const struct route_app *app;
    probe->run = NULL;
    route_table_read_begin();
    const struct route_check *check = present_check(probe, &app);
    if (check) {
        judge(probe, check, status, http_status);
        wait_for_next(probe, check->interval_ms);
    }
    route_table_read_end();
    if (!check)
        drop(probe);
}

static void advance(struct checks *checks);

static void on_gone(void *arg)
{
    struct checked_app *app = arg;
    struct checks *checks = app->checks;
    app->running--;
    checks->running--;
    place_app(app);
    leave_app(app);
    advance(checks);
}

static void start(struct probe *probe, const struct route_app *app, const struct route_check *check)
{
    struct proxy *proxy = probe->checks->proxy;
    const struct route_port *port = route_app_port(app, probe->port);
    struct check_order order = {
        .check = check,
        .claim = probe->claim,
        .is_h2c = port && port->protocol == ROUTE_PROTOCOL_H2C,
        .proxy_protocol = port ? port->proxy_protocol : 0,
        .gone = on_gone,
        .gone_arg = probe->app,
    };
    COUNTER_INC(proxy->loop->counters, upstream_checks_total);
    probe->run = check_run_start(proxy->loop, proxy->settings, &order, on_done, probe);
    if (probe->run) {
        probe->app->users++;
        probe->app->running++;
        probe->checks->running++;
        return;
    }
    judge(probe, check, STATUS_ADDRESS_FORBIDDEN, 0);
    wait_for_next(probe, check->interval_ms);
}

/* Its time has come, and its turn. */
static void begin(struct probe *probe)
{
    const struct route_app *app;
    if (loop_now_ms(probe->checks->proxy->loop) - probe->used_ms > CHECKS_UNUSED_MS) {
        drop(probe);
        return;
    }
    route_table_read_begin();
    const struct route_check *check = present_check(probe, &app);
    if (check)
        start(probe, app, check);
    route_table_read_end();
    if (!check)
        drop(probe);
}

/* One check of each app that waits, round after round, while there is room. None of them ends before the next turn. */
static void advance(struct checks *checks)
{
    while (checks->running < CHECKS_MAX_RUNNING && !list_is_empty(&checks->turns)) {
        struct checked_app *app = CONTAINER_OF(list_pop(&checks->turns), struct checked_app, turn);
        struct probe *probe = CONTAINER_OF(list_pop(&app->waiting), struct probe, wait);
        app->users++; /* its last probe may go */
        begin(probe);
        place_app(app);
        leave_app(app);
    }
}

static void on_timer(struct timer *timer)
{
    struct probe *probe = CONTAINER_OF(timer, struct probe, timer);
    struct checks *checks = probe->checks;
    list_push(&probe->app->waiting, &probe->wait);
    place_app(probe->app);
    advance(checks);
}

/* ---- what is wanted ---- */

static struct probe *make(struct checks *checks, const struct route_app *app, const struct route_instance *instance,
                          uint16_t port)
{
    struct proxy *proxy = checks->proxy;
    size_t instance_id_size = strlen(instance->id) + 1;
    struct probe *probe = calloc(1, sizeof *probe + instance_id_size);
    if (!probe)
        abort();
    memcpy(probe->instance_id, instance->id, instance_id_size);
    probe->checks = checks;
    probe->app = use_app(checks, app->id);
    probe->claim = claim_ref(instance->claim);
    probe->port = port;
    struct probe **slot = slot_of(checks, probe->claim->serial);
    probe->next = *slot;
    *slot = probe;
    list_push(&checks->all, &probe->link);
    list_init(&probe->wait);
    checks->count++;
    timer_init(&probe->timer, on_timer);
    loop_timer_arm(proxy->loop, &probe->timer, proxy_random(proxy) % FIRST_WITHIN_MS + 1);
    return probe;
}

static void watch(struct checks *checks, const struct route_app *app, const struct route_instance *instance,
                  uint16_t port)
{
    struct probe *probe = find(checks, instance->claim->serial, port);
    if (!probe && checks->count < CHECKS_MAX && !checks->stopped && !claim_is_revoked(instance->claim))
        probe = make(checks, app, instance, port);
    if (probe)
        probe->used_ms = loop_now_ms(checks->proxy->loop);
}

bool checks_watch(struct checks *checks, const struct route_app *app, uint16_t port)
{
    if (!route_app_port_check(app, port))
        return false;
    for (unsigned i = 0; i < app->instance_count; i++)
        if (app->instances[i].state == ROUTE_STATE_RUNNING && app->instances[i].claim)
            watch(checks, app, &app->instances[i], port);
    return true;
}

bool checks_is_down(const struct checks *checks, uint64_t serial, uint16_t port)
{
    const struct probe *probe = find(checks, serial, port);
    return probe && probe->is_down;
}

size_t checks_count(const struct checks *checks)
{
    return checks->count;
}

unsigned checks_running(const struct checks *checks)
{
    return checks->running;
}
