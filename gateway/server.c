#include "gateway/server.h"

#include "gateway/server_internal.h"

#include "gateway/base/clock.h"
#include "gateway/mux/negotiate.h"
#include "gateway/proxy/domain_question.h"
#include "gateway/proxy/health_survey.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    TICKET_ROTATION_MS = 3600 * 1000, /* with TLS_TICKET_KEYS keys a ticket serves three to four hours */
    WATCHDOG_MS = 5000,
    STOP_MARGIN_MS = 15000, /* from the drain's deadline to the end of the process, at most */
    LAST_CALLS_MS = 2000,   /* control calls have at least so long, even if traffic took all of the drain's time */
};

/* ---- telling systemd (sd_notify(3), the protocol is one datagram) ---- */

static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof to.sun_path)
        return;
    memcpy(to.sun_path, path, strlen(path));
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (to.sun_path[0] == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, len);
    close(fd);
}

/* Without the time, the service manager would kill what drains for longer than its own TimeoutStopSec. */
static void notify_stopping(uint32_t drain_ms)
{
    char state[64];
    uint64_t most_us = ((uint64_t)drain_ms + STOP_MARGIN_MS) * 1000U;
    snprintf(state, sizeof state, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%ju", (uintmax_t)most_us);
    notify(state);
}

/* ---- ending ---- */

static void close_workers(struct server *s)
{
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_close(s->workers[i]);
}

static void on_drain_deadline(struct timer *timer)
{
    struct server *s = CONTAINER_OF(timer, struct server, drain_timer);
    bool calls_left = s->workers_ended == s->worker_count;
    log_warn("drain: some %s did not end in time; they are cut off", calls_left ? "control calls" : "exchanges");
    s->must_end = calls_left;
    if (calls_left)
        proxy_close_all(s->control_proxy, STATUS_SHUTDOWN);
    else
        close_workers(s);
}

void server_drain(struct server *s)
{
    if (s->draining)
        return;
    s->draining = true;
    log_info("draining: no new connections; ends when the last exchange ends, or after %u ms", s->config->drain_ms);
    notify_stopping(s->config->drain_ms);
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_drain(s->workers[i]);
    s->drain_until_ms = loop_now_ms(s->loop) + s->config->drain_ms;
    loop_timer_arm(s->loop, &s->drain_timer, s->config->drain_ms);
}

static void end_fast(struct server *s)
{
    log_info("ending at once");
    s->draining = s->fast = s->must_end = true;
    if (s->workers_ended == s->worker_count)
        proxy_close_all(s->control_proxy, STATUS_SHUTDOWN);
    else
        close_workers(s);
}

void server_worker_ended(void *arg)
{
    struct server *s = arg;
    if (++s->workers_ended < s->worker_count)
        return;
    uint64_t now_ms = loop_now_ms(s->loop), until_ms = now_ms + LAST_CALLS_MS;
    if (until_ms < s->drain_until_ms)
        until_ms = s->drain_until_ms;
    loop_timer_arm(s->loop, &s->drain_timer, until_ms - now_ms);
    server_end_controls(s);
}

/* ---- tickets, watchdog ---- */

static void on_rotate_tickets(struct timer *timer)
{
    struct server *s = CONTAINER_OF(timer, struct server, ticket_timer);
    loop_timer_arm(s->loop, timer, TICKET_ROTATION_MS);
    if (s->etcd && etcd_sync_has_ticket_keys(s->etcd))
        return;
    if (tls_ticket_keys_rotate(&s->ticket_keys) == STATUS_OK)
        for (unsigned i = 0; i < s->worker_count; i++)
            worker_set_ticket_keys(s->workers[i], &s->ticket_keys);
    else
        log_warn("tls: no randomness for a new ticket key; the old one stays");
}

static void on_watchdog(struct timer *timer)
{
    struct server *s = CONTAINER_OF(timer, struct server, watchdog_timer);
    for (unsigned i = 0; i < s->worker_count && !s->draining; i++)
        if (!worker_is_alive(s->workers[i])) {
            log_error("watchdog: worker %u has not turned for %d ms; aborting", i, WATCHDOG_MS);
            abort();
        }
    notify("WATCHDOG=1");
    loop_timer_arm(s->loop, timer, WATCHDOG_MS);
}

/* ---- signals ---- */

/*
 * liburcu's worker thread unblocks SIGUSR1 (its SIGRCU) and so may get ours: the handler hands it on. All other signals
 * are blocked in every thread and read from the signalfd.
 */
static int usr1_fd = -1;

static void catch_usr1(int number)
{
    (void)number;
    int error = errno;
    uint64_t one = 1;
    ssize_t n = write(usr1_fd, &one, sizeof one);
    (void)n; /* a full counter wakes as well */
    errno = error;
}

static void reopen_logs(struct server *s)
{
    access_log_reopen(s->access_log);
    log_info("logs reopened");
}

static void on_usr1(void *arg)
{
    uint64_t count;
    if (read(usr1_fd, &count, sizeof count) == (ssize_t)sizeof count)
        reopen_logs(arg);
}

static void on_signal(void *arg)
{
    struct server *s = arg;
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM:
            server_drain(s);
            break;
        case SIGINT:
        case SIGQUIT:
            end_fast(s);
            break;
        case SIGHUP:
            server_reload(s);
            break;
        case SIGUSR1:
            reopen_logs(s);
            break;
        case SIGUSR2:
            log_warn("USR2: binary upgrade is not supported; nothing done");
            break;
        default:
            break;
        }
    }
}

static void watch_signals(struct server *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL); /* workers inherit it */
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    usr1_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->signal_fd < 0 || usr1_fd < 0)
        abort();
    s->signal_watch = loop_watch_new(s->loop, s->signal_fd, on_signal, s);
    s->usr1_watch = loop_watch_new(s->loop, usr1_fd, on_usr1, s);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = catch_usr1, .sa_flags = SA_RESTART}, NULL);
}

/* ---- what the control API asks ---- */

static void api_status(void *arg, struct api_status *ret)
{
    struct server *s = arg;
    *ret = (struct api_status){
        .workers = s->worker_count,
        .traffic = s->traffic,
        .started_wall_us = s->started_wall_us,
        .ready = s->ready && !s->draining && !route_table_is_awaited(s->table),
        .draining = s->draining,
        .config_path = s->config->path,
        .last_reload_error = s->reload_error,
        .needs_restart = s->needs_restart,
    };
    ret->has_etcd = s->etcd != NULL;
    if (s->etcd)
        etcd_sync_status(s->etcd, &ret->etcd);
    sync_get_status(s->sync, &ret->sync);
    for (unsigned i = 0; i < s->worker_count; i++)
        counters_add(&ret->totals, worker_counters(s->workers[i]));
}

static void api_drain(void *arg)
{
    server_drain(arg);
}

static void api_reload(void *arg)
{
    server_reload(arg);
}

static void api_survey(void *arg, struct health_survey *survey)
{
    struct server *s = arg;
    survey->asked = s->worker_count > 0 ? s->worker_count : 1;
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_survey(s->workers[i], survey);
    if (s->worker_count == 0) /* at the start */
        loop_post(s->loop, health_survey_answered, survey);
}

/* One will do: all of them ask the same servers. */
static void api_ask(void *arg, struct domain_question *question)
{
    struct server *s = arg;
    question->is_away = true;
    if (s->worker_count > 0)
        worker_ask(s->workers[0], question);
    else /* at the start */
        loop_post(s->loop, domain_question_answered, question);
}

static void on_revoked(void *arg, struct claim *claim)
{
    struct server *s = arg;
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_revoke(s->workers[i], claim);
}

static void make_api(struct server *s)
{
    struct api_params params = {
        .loop = s->loop,
        .table = s->table,
        .changes = s->changes,
        .certs = s->certs,
        .access_log = s->access_log,
        .base_domains = s->config->settings->base_domains,
        .base_domain_count = s->config->settings->base_domain_count,
        .status = api_status,
        .survey = api_survey,
        .ask = api_ask,
        .drain = api_drain,
        .reload = api_reload,
        .arg = s,
    };
    s->api = api_new(&params);
}

/* ---- starting ---- */

static enum status start_routes(struct server *s, char *error)
{
    enum status status = store_open(s->config->state_dir, s->loop, &s->store, error);
    if (status != STATUS_OK)
        return status;
    s->table = route_table_new();
    route_table_thread_begin();
    s->changes = changes_new(s->loop, s->table, s->store, on_revoked, s);
    changes_set_rules(s->changes, &s->config->settings->rules);
    changes_set_max_apps(s->changes, s->config->max_apps);
    status = changes_load(s->changes, error);
    if (status != STATUS_OK)
        return status;
    s->fetcher = fetcher_new(s->loop);
    s->sync = sync_new(s->loop, s->fetcher, s->changes, s->table);
    s->certs = certs_new(s->loop, s->store, server_publish_certificate, s);
    certs_set_base(s->certs, s->certificates);
    return certs_load(s->certs, error);
}

static enum status start_access_log(struct server *s, char *error)
{
    char text[ACCESS_LOG_ERROR_TEXT_MAX];
    enum status status = access_log_start(&s->config->access_log, &s->access_log, text);
    if (status != STATUS_OK)
        snprintf(error, SERVER_ERROR_TEXT_MAX, "access_log: %s", text);
    return status;
}

static enum status open_listeners(struct server *s, int *fds, char *error)
{
    char text[LISTENER_ERROR_TEXT_MAX];
    const struct config *config = s->config;
    for (size_t i = 0; i < config->listener_count; i++) {
        fds[i] = listener_open_tcp(&config->listeners[i].addr, config->listeners[i].port, true, text);
        if (fds[i] >= 0)
            continue;
        snprintf(error, SERVER_ERROR_TEXT_MAX, "listeners[%zu].address: %s", i, text);
        while (i > 0)
            close(fds[--i]);
        return STATUS_INTERNAL;
    }
    return STATUS_OK;
}

static enum status start_worker(struct server *s, char *error)
{
    int fds[CONFIG_MAX_LISTENERS];
    struct tls_server *tls = NULL;
    enum status status = server_make_tls(s, &tls, error);
    if (status == STATUS_OK)
        status = open_listeners(s, fds, error);
    if (status != STATUS_OK) {
        tls_server_free(&tls);
        return status;
    }
    struct worker_params params = {
        .index = s->worker_count,
        .config = s->config,
        .table = s->table,
        .log = s->access_log,
        .tls = tls,
        .listening = fds,
        .control = s->loop,
        .ended = server_worker_ended,
        .arg = s,
    };
    s->workers[s->worker_count] = worker_start(&params);
    s->traffic[s->worker_count] = worker_traffic(s->workers[s->worker_count]);
    s->worker_count++;
    return STATUS_OK;
}

static enum status start_workers(struct server *s, char *error)
{
    s->workers = calloc(s->config->workers, sizeof(struct worker *));
    s->traffic = calloc(s->config->workers, sizeof *s->traffic);
    if (!s->workers || !s->traffic)
        abort();
    for (unsigned i = 0; i < s->config->workers; i++) {
        enum status status = start_worker(s, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status start_all(struct server *s, char *error)
{
    enum status status = server_load_certificates(s->config, &s->certificates, error);
    if (status == STATUS_OK)
        status = server_check_sync(s->config, error);
    if (status == STATUS_OK)
        status = tls_ticket_keys_rotate(&s->ticket_keys);
    if (status == STATUS_OK)
        status = start_access_log(s, error);
    if (status == STATUS_OK)
        status = start_routes(s, error);
    if (status == STATUS_OK) {
        make_api(s);
        s->control_proxy = proxy_new(s->loop, settings_ref(s->config->settings), s->table, NULL, NULL);
        status = server_start_controls(s, error);
    }
    if (status == STATUS_OK)
        status = start_workers(s, error);
    return status;
}

enum status server_start(struct config *config, struct server **ret_server, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "not enough memory or randomness");
    s->config = config;
    s->started = config;
    s->started_wall_us = clock_wall_us();
    s->counters = aligned_alloc(64, sizeof *s->counters);
    if (!s->counters)
        abort();
    memset(s->counters, 0, sizeof *s->counters);
    s->loop = loop_new(s->counters);
    timer_init(&s->drain_timer, on_drain_deadline);
    server_init_controls(s);
    timer_init(&s->ticket_timer, on_rotate_tickets);
    timer_init(&s->watchdog_timer, on_watchdog);
    watch_signals(s);
    enum status status = start_all(s, ret_error);
    if (status != STATUS_OK) {
        server_free(&s);
        return status;
    }
    server_start_sync(s);
    loop_timer_arm(s->loop, &s->ticket_timer, TICKET_ROTATION_MS);
    loop_timer_arm(s->loop, &s->watchdog_timer, WATCHDOG_MS);
    s->ready = true;
    log_info("phala-gateway " GW_VERSION ": ready, %u workers, %zu apps", s->worker_count,
             route_table_app_count(s->table));
    notify("READY=1");
    *ret_server = s;
    return STATUS_OK;
}

void server_run(struct server *s)
{
    loop_run(s->loop);
    if (!s->fast)
        proxy_send_last_bytes(s->control_proxy, &s->must_end);
    log_info("ended");
}

/* A start that failed half-way may have workers that run. */
static void stop_workers(struct server *s)
{
    if (s->worker_count == 0 || s->workers_ended == s->worker_count)
        return;
    end_fast(s);
    loop_run(s->loop);
}

void server_free(struct server **server)
{
    struct server *s = *server;
    if (!s)
        return;
    *server = NULL;
    stop_workers(s);
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_join(&s->workers[i]);
    free(s->workers);
    free((void *)s->traffic);
    server_stop_sync(s);
    if (s->changes)
        changes_free(&s->changes);
    certs_free(&s->certs);
    store_close(&s->store); /* what it still posts is taken by loop_free */
    server_free_controls(s);
    if (s->control_proxy)
        proxy_free(&s->control_proxy);
    if (s->api)
        api_free(&s->api);
    loop_watch_free(&s->signal_watch);
    close(s->signal_fd);
    signal(SIGUSR1, SIG_IGN);
    loop_watch_free(&s->usr1_watch);
    close(usr1_fd);
    timer_forget(&s->drain_timer);
    timer_forget(&s->arrived_timer);
    timer_forget(&s->ticket_timer);
    timer_forget(&s->watchdog_timer);
    loop_free(&s->loop);
    if (s->table) {
        route_table_thread_end();
        route_table_free(&s->table);
    }
    access_log_stop(&s->access_log);
    cert_snapshot_unref(&s->certificates);
    explicit_bzero(&s->ticket_keys, sizeof s->ticket_keys);
    free(s->counters);
    if (s->started != s->config)
        config_free(&s->started);
    config_free(&s->config);
    free(s);
}
