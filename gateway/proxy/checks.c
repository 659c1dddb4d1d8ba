#include "gateway/proxy/checks.h"

#include "check_run.h"

#include "gateway/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SLOTS = 4096,
    LINES_PER_SECOND = 5,
    FIRST_WITHIN_MS = 1000, /* the first check of a port comes after a random part of this */
    JITTER_SHARE = 10,      /* checks come up to a tenth of the interval early */
    TURN_WAIT_MS = 100,     /* when too many are running */
};

/* A port of an instance that is checked. */
struct probe {
    struct probe *next; /* in its slot */
    struct list link;   /* of all */
    struct checks *checks;
    struct claim *claim; /* a reference */
    struct check_run *run;
    struct timer timer; /* to the next check */
    uint64_t used_ms;   /* when a request wanted the port */
    uint16_t port;
    uint8_t successes; /* in a row */
    uint8_t failures;
    bool is_down;
    char *instance_id; /* behind the app id */
    char app_id[];
};

struct checks {
    struct proxy *proxy;
    struct list all;
    size_t count;
    unsigned running;
    bool stopped;
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
    return checks;
}

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
    loop_timer_forget(&probe->timer);
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
    assert((*checks)->running == 0);
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
    log_warn("check: app %s, instance %s, %s port %u is %s%s", probe->app_id, probe->instance_id, address,
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
    const struct route_app *app = route_table_app(probe->checks->proxy->table, slice_str(probe->app_id));
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

static void start(struct probe *probe, const struct route_app *app, const struct route_check *check)
{
    struct proxy *proxy = probe->checks->proxy;
    const struct route_port *port = route_app_port(app, probe->port);
    struct check_order order = {
        .check = check,
        .claim = probe->claim,
        .is_h2c = port && port->protocol == ROUTE_PROTOCOL_H2C,
        .proxy_protocol = port ? port->proxy_protocol : 0,
    };
    COUNTER_INC(proxy->loop->counters, upstream_checks_total);
    probe->run = check_run_start(proxy->loop, proxy->settings, &order, &probe->checks->running, on_done, probe);
    if (probe->run)
        return;
    judge(probe, check, STATUS_ADDRESS_FORBIDDEN, 0);
    wait_for_next(probe, check->interval_ms);
}

static void on_timer(struct timer *timer)
{
    struct probe *probe = CONTAINER_OF(timer, struct probe, timer);
    struct checks *checks = probe->checks;
    const struct route_app *app;
    if (loop_now_ms(checks->proxy->loop) - probe->used_ms > CHECKS_UNUSED_MS) {
        drop(probe);
        return;
    }
    if (checks->running >= CHECKS_MAX_RUNNING) {
        loop_timer_arm(checks->proxy->loop, timer, TURN_WAIT_MS);
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

/* ---- what is wanted ---- */

static struct probe *make(struct checks *checks, const struct route_app *app, const struct route_instance *instance,
                          uint16_t port)
{
    struct proxy *proxy = checks->proxy;
    size_t app_id_size = strlen(app->id) + 1;
    size_t instance_id_size = strlen(instance->id) + 1;
    struct probe *probe = calloc(1, sizeof *probe + app_id_size + instance_id_size);
    if (!probe)
        abort();
    probe->instance_id = probe->app_id + app_id_size;
    memcpy(probe->app_id, app->id, app_id_size);
    memcpy(probe->instance_id, instance->id, instance_id_size);
    probe->checks = checks;
    probe->claim = claim_ref(instance->claim);
    probe->port = port;
    struct probe **slot = slot_of(checks, probe->claim->serial);
    probe->next = *slot;
    *slot = probe;
    list_push(&checks->all, &probe->link);
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
