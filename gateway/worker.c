#include "gateway/worker.h"

#include "gateway/base/heap.h"
#include "gateway/base/log.h"
#include "gateway/proxy/app_traffic.h"
#include "gateway/proxy/domain_question.h"
#include "gateway/proxy/domains.h"
#include "gateway/proxy/frontend.h"
#include "gateway/proxy/health_survey.h"
#include "gateway/proxy/proxy.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { REVOKE_TURN = 64, FIRST_REVOKED = 16 };

/* Claims that have ended, each with a reference, which the worker does not know yet. */
struct revoked {
    pthread_mutex_t lock;
    struct claim **claims;
    size_t count;
    size_t capacity;
    bool told; /* a message is on its way */
};

struct worker {
    struct counters counters;
    unsigned index;
    pthread_t thread;
    struct loop *loop; /* NULL: the control thread knows that it has ended, and answers in its place */
    struct proxy *proxy;
    struct revoked revoked;
    struct frontend **frontends;
    size_t frontend_count;
    struct loop *control;
    void (*ended)(void *arg);
    void *arg;
    uint64_t seen_turns;
    bool first_look;
    bool must_end;               /* the drain's deadline is over */
    struct app_traffic *traffic; /* read by the control thread until the worker is joined */
};

/* ---- on the worker's thread ---- */

/* Before the first connection takes memory from this thread's arena. */
static void prepare_heap(const struct worker *w)
{
    void *block = malloc(1);
    if (!heap_use_huge_pages(block))
        log_debug("worker %u: no huge pages for its connections", w->index);
    free(block);
}

/* On the control thread. The thread is as good as over; messages that it left are taken here. */
static void on_ended(void *arg)
{
    struct worker *w = arg;
    pthread_join(w->thread, NULL);
    loop_free(&w->loop);
    w->ended(w->arg);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];
    snprintf(name, sizeof name, "worker-%u", w->index);
    pthread_setname_np(pthread_self(), name);
    prepare_heap(w);
    route_table_thread_begin();
    loop_run(w->loop);
    proxy_send_last_bytes(w->proxy, &w->must_end);
    for (size_t i = 0; i < w->frontend_count; i++)
        frontend_free(&w->frontends[i]);
    proxy_free(&w->proxy);
    route_table_thread_end();
    loop_post(w->control, on_ended, w);
    return NULL;
}

static void on_drained(void *arg)
{
    struct worker *w = arg;
    loop_stop(w->loop);
}

/* ---- messages ---- */

struct message {
    struct worker *worker;
    struct settings *settings;
    struct tls_server *tls;
    struct tls_ticket_keys keys;
    struct cert_custom *cert;
    char *cert_name;
    void (*applied)(void *arg);
    void *arg;
    struct health_survey *survey;
    struct domain_question *question;
};

/* A worker that has ended takes it at once. */
static void tell(struct worker *w, void (*fn)(void *arg), void *arg)
{
    if (w->loop)
        loop_post(w->loop, fn, arg);
    else
        fn(arg);
}

static void post(struct worker *w, void (*fn)(void *arg), const struct message *content)
{
    struct message *message = malloc(sizeof *message);
    if (!message)
        abort();
    *message = *content;
    message->worker = w;
    tell(w, fn, message);
}

/* The last messages find that the worker has ended; they are taken on the control thread. */
static bool has_ended(const struct message *m)
{
    return m->worker->proxy == NULL;
}

static void do_reload(void *arg)
{
    struct message *m = arg;
    if (has_ended(m)) {
        settings_unref(&m->settings);
        tls_server_free(&m->tls);
    } else {
        proxy_reload(m->worker->proxy, m->settings, m->tls);
    }
    free(m);
}

static void do_set_ticket_keys(void *arg)
{
    struct message *m = arg;
    if (!has_ended(m))
        tls_server_set_ticket_keys(m->worker->proxy->tls, &m->keys);
    explicit_bzero(m, sizeof *m);
    free(m);
}

static void do_set_certificate(void *arg)
{
    struct message *m = arg;
    if (!has_ended(m) && m->cert)
        tls_server_put_custom(m->worker->proxy->tls, m->cert);
    else if (!has_ended(m))
        tls_server_remove_custom(m->worker->proxy->tls, slice_str(m->cert_name));
    loop_post(m->worker->control, m->applied, m->arg);
    cert_custom_unref(&m->cert);
    free(m->cert_name);
    free(m);
}

/* Takes some of what is there; with the last of them the next revocation needs a new message. */
static size_t take_revoked(struct revoked *revoked, struct claim *ret_claims[REVOKE_TURN], bool *ret_more)
{
    pthread_mutex_lock(&revoked->lock);
    size_t count = revoked->count < REVOKE_TURN ? revoked->count : REVOKE_TURN;
    revoked->count -= count;
    for (size_t i = 0; i < count; i++)
        ret_claims[i] = revoked->claims[revoked->count + i];
    *ret_more = revoked->told = revoked->count > 0;
    if (!*ret_more) {
        free(revoked->claims);
        revoked->claims = NULL;
        revoked->capacity = 0;
    }
    pthread_mutex_unlock(&revoked->lock);
    return count;
}

static bool revoke_some(struct worker *w)
{
    struct claim *claims[REVOKE_TURN];
    bool more;
    size_t count = take_revoked(&w->revoked, claims, &more);
    for (size_t i = 0; i < count; i++) {
        if (w->proxy)
            proxy_revoke(w->proxy, claims[i]);
        claim_unref(&claims[i]);
    }
    return more;
}

/* A snapshot may revoke a million claims: traffic has its turn in between. */
static void do_revoke(void *arg)
{
    struct worker *w = arg;
    bool more = revoke_some(w);
    if (more && w->proxy)
        loop_post(w->loop, do_revoke, w);
    while (more && !w->proxy)
        more = revoke_some(w);
}

static void do_drain(void *arg)
{
    struct message *m = arg;
    struct worker *w = m->worker;
    bool ended = has_ended(m);
    free(m);
    if (ended)
        return;
    for (size_t i = 0; i < w->frontend_count; i++)
        frontend_stop(w->frontends[i]);
    if (!w->proxy->draining)
        proxy_drain(w->proxy, on_drained, w);
}

static void do_close(void *arg)
{
    struct worker *w = ((struct message *)arg)->worker;
    w->must_end = true;
    do_drain(arg);
    if (w->proxy)
        proxy_close_all(w->proxy, STATUS_SHUTDOWN);
}

static void do_survey(void *arg)
{
    struct message *m = arg;
    if (!has_ended(m))
        health_survey_look(m->survey, m->worker->proxy);
    loop_post(m->worker->control, health_survey_answered, m->survey);
    free(m);
}

static void do_ask(void *arg)
{
    struct message *m = arg;
    domain_question_look(m->question, has_ended(m) ? NULL : m->worker->proxy->domains);
    loop_post(m->worker->control, domain_question_answered, m->question);
    free(m);
}

static void do_nothing(void *arg)
{
    (void)arg;
}

/* ---- on the control thread ---- */

static uint16_t https_port(const struct config *config)
{
    for (size_t i = 0; i < config->listener_count; i++)
        if (!config->listeners[i].redirect_to_https)
            return config->listeners[i].port;
    return 443;
}

/* Without a usable resolver, custom domains are those of route records. */
static struct domains *new_domains(struct worker *w, const struct config_dns *dns)
{
    struct resolver *resolver = NULL;
    char error[RESOLVER_ERROR_TEXT_MAX];
    struct resolver_options options = {.servers = dns->servers, .try_ms = dns->timeout_ms / 3};
    if (dns->enabled && resolver_new(w->loop, &options, &resolver, error) != STATUS_OK)
        log_warn("dns: %s; custom domains by TXT records are off", error);
    return domains_new(w->loop, resolver, dns->timeout_ms);
}

struct worker *worker_start(const struct worker_params *params)
{
    const struct config *config = params->config;
    struct worker *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);
    if (!w)
        abort();
    *w =
        (struct worker){.index = params->index, .control = params->control, .ended = params->ended, .arg = params->arg};
    w->first_look = true;
    pthread_mutex_init(&w->revoked.lock, NULL);
    w->loop = loop_new(&w->counters);
    w->proxy = proxy_new(w->loop, settings_ref(config->settings), params->table, params->tls,
                         access_log_attach(params->log, &w->counters));
    w->traffic = app_traffic_new();
    w->proxy->traffic = w->traffic;
    w->proxy->domains = new_domains(w, &config->dns);
    w->frontends = calloc(config->listener_count, sizeof(struct frontend *));
    if (!w->frontends)
        abort();
    w->frontend_count = config->listener_count;
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        struct frontend_params frontend = {
            .kind = listener->redirect_to_https ? FRONTEND_REDIRECT : FRONTEND_PROXY,
            .port = listener->port,
            .https_port = https_port(config),
            .proxy_header = listener->proxy_protocol_required,
        };
        w->frontends[i] = frontend_new(w->proxy, params->listening[i], &frontend);
    }
    if (pthread_create(&w->thread, NULL, run, w)) {
        log_error("worker %u: cannot start its thread", w->index);
        abort();
    }
    return w;
}

void worker_join(struct worker **worker)
{
    struct worker *w = *worker;
    if (!w)
        return;
    *worker = NULL;
    assert(!w->loop);
    pthread_mutex_destroy(&w->revoked.lock);
    free(w->frontends);
    app_traffic_free(&w->traffic);
    free(w);
}

void worker_reload(struct worker *w, struct settings *settings, struct tls_server *tls)
{
    post(w, do_reload, &(struct message){.settings = settings, .tls = tls});
}

void worker_set_ticket_keys(struct worker *w, const struct tls_ticket_keys *keys)
{
    struct message content = {.keys = *keys};
    post(w, do_set_ticket_keys, &content);
    explicit_bzero(&content, sizeof content);
}

void worker_set_certificate(struct worker *w, struct slice name, struct cert_custom *cert, void (*applied)(void *arg),
                            void *arg)
{
    char *copy = strndup(name.ptr, name.len);
    if (!copy)
        abort();
    post(w, do_set_certificate,
         &(struct message){
             .cert = cert ? cert_custom_ref(cert) : NULL, .cert_name = copy, .applied = applied, .arg = arg});
}

void worker_revoke(struct worker *w, struct claim *claim)
{
    struct revoked *revoked = &w->revoked;
    pthread_mutex_lock(&revoked->lock);
    if (revoked->count == revoked->capacity) {
        revoked->capacity = revoked->capacity > 0 ? 2 * revoked->capacity : FIRST_REVOKED;
        revoked->claims = reallocarray(revoked->claims, revoked->capacity, sizeof(struct claim *));
        if (!revoked->claims)
            abort();
    }
    revoked->claims[revoked->count++] = claim_ref(claim);
    bool is_news = !revoked->told;
    revoked->told = true;
    pthread_mutex_unlock(&revoked->lock);
    if (is_news)
        tell(w, do_revoke, w);
}

void worker_drain(struct worker *w)
{
    post(w, do_drain, &(struct message){.worker = w});
}

void worker_close(struct worker *w)
{
    post(w, do_close, &(struct message){.worker = w});
}

void worker_survey(struct worker *w, struct health_survey *survey)
{
    post(w, do_survey, &(struct message){.survey = survey});
}

void worker_ask(struct worker *w, struct domain_question *question)
{
    post(w, do_ask, &(struct message){.question = question});
}

const struct counters *worker_counters(const struct worker *w)
{
    return &w->counters;
}

const struct app_traffic *worker_traffic(const struct worker *w)
{
    return w->traffic;
}

bool worker_is_alive(struct worker *w)
{
    if (!w->loop)
        return true;
    uint64_t turns = loop_turns(w->loop);
    bool alive = w->first_look || turns != w->seen_turns;
    w->first_look = false;
    w->seen_turns = turns;
    loop_post(w->loop, do_nothing, NULL);
    return alive;
}
