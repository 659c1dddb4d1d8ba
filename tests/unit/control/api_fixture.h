/*
 * The control API without a network: requests go into a local endpoint, answers are recorded. See api_calls.h for how
 * tests call it.
 */
#ifndef TESTS_CONTROL_API_FIXTURE_H
#define TESTS_CONTROL_API_FIXTURE_H

#include "changes_fake.h"
#include "gateway/proxy/domain_question.h"
#include "gateway/proxy/health_survey.h"

struct fixture {
    struct counters counters;
    struct loop *loop;
    struct changes changes;
    struct certs *certs;
    struct access_log *access_log;
    struct api *api;
    struct api_listener listener;
    bool is_verified;
    bool ready;
    bool draining;
    unsigned reloads;
    const char *reload_error;
    const char *etcd_problem; /* NULL: there is no etcd */
    const char *needs_restart[2];
    unsigned dns_asked;
    enum domain_said dns_said;
    struct txt_target dns_target;

    /* the last answer */
    struct arena arena;
    struct endpoint *endpoint;
    bool stalled; /* the client does not read: nothing is credited */
    int status;
    bool ended;
    bool was_reset;
    size_t body_len;
    char fields[2048]; /* "name: value\n" */
    char *body;        /* NUL-terminated */
    size_t max_uncredited;
    size_t uncredited;
};

static void on_head(void *owner, const struct message_head *head, bool end)
{
    struct fixture *f = owner;
    size_t len = 0;
    assert_int_equal(f->status, 0);
    f->status = head->status;
    for (size_t i = 0; i < head->fields.count; i++)
        len += (size_t)snprintf(f->fields + len, sizeof f->fields - len, "%.*s: %.*s\n",
                                SLICE_ARG(head->fields.items[i].name), SLICE_ARG(head->fields.items[i].value));
    f->ended = end;
}

static void on_body(void *owner, const char *data, size_t len, bool end)
{
    struct fixture *f = owner;
    f->body = realloc(f->body, f->body_len + len + 1);
    assert_non_null(f->body);
    if (len > 0)
        memcpy(f->body + f->body_len, data, len);
    f->body_len += len;
    f->body[f->body_len] = '\0';
    f->ended = end;
    f->uncredited += len;
    if (f->uncredited > f->max_uncredited)
        f->max_uncredited = f->uncredited;
}

static void on_room(void *owner)
{
    (void)owner;
}

static void on_reset(void *owner, enum status status)
{
    struct fixture *f = owner;
    (void)status;
    f->was_reset = true;
}

static const struct endpoint_events recorder = {.head = on_head, .body = on_body, .room = on_room, .reset = on_reset};

static void turn(struct fixture *f)
{
    loop_turn(f->loop, 0);
    if (f->endpoint && !f->stalled && f->uncredited > 0) {
        size_t bytes = f->uncredited;
        f->uncredited = 0;
        f->endpoint->ops->credit(f->endpoint, bytes);
    }
}

static void fill_status(void *arg, struct api_status *ret_status)
{
    const struct fixture *f = arg;
    ret_status->workers = 2;
    ret_status->started_wall_us = 1700000000000000U;
    ret_status->ready = f->ready;
    ret_status->draining = f->draining;
    ret_status->config_path = "/etc/gateway.yaml";
    ret_status->last_reload_error = f->reload_error;
    ret_status->needs_restart = f->needs_restart;
    ret_status->has_etcd = f->etcd_problem != NULL;
    ret_status->etcd = (struct etcd_sync_status){.endpoint = "http://etcd", .problem = f->etcd_problem, .left_out = 3};
}

/* Two workers: both have had a failure, one leaves the instance out. */
static void do_survey(void *arg, struct health_survey *survey)
{
    struct fixture *f = arg;
    survey->asked = 2;
    for (size_t i = 0; i < survey->count; i++) {
        atomic_store(&survey->items[i].failures, 4);
        atomic_store(&survey->items[i].ejected, 1);
    }
    loop_post(f->loop, health_survey_answered, survey);
    loop_post(f->loop, health_survey_answered, survey);
}

/* A worker for which the DNS has said this, once it has been asked twice. */
static void do_ask(void *arg, struct domain_question *question)
{
    struct fixture *f = arg;
    question->said = f->dns_asked++ % 2 == 0 ? DOMAIN_SAID_PENDING : f->dns_said;
    question->target = f->dns_target;
    question->is_away = true;
    loop_post(f->loop, domain_question_answered, question);
}

static void do_drain(void *arg)
{
    ((struct fixture *)arg)->draining = true;
}

static void do_reload(void *arg)
{
    ((struct fixture *)arg)->reloads++;
}

static const struct slice fixture_domains[] = {SLICE_INIT("prod5.phala.network"), SLICE_INIT("other.example")};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    route_table_thread_begin();
    f->loop = loop_new(&f->counters);
    f->changes.loop = f->loop;
    f->changes.table = route_table_new();
    f->ready = true;
    f->reload_error = "";
    f->certs = certs_new(f->loop, NULL, NULL, NULL);
    char error[ACCESS_LOG_ERROR_TEXT_MAX];
    struct access_log_options log = {.path = "/dev/null", .format = "json"};
    assert_int_equal(access_log_start(&log, &f->access_log, error), STATUS_OK);
    struct api_params params = {.loop = f->loop,
                                .table = f->changes.table,
                                .changes = &f->changes,
                                .certs = f->certs,
                                .access_log = f->access_log,
                                .base_domains = fixture_domains,
                                .base_domain_count = 2,
                                .status = fill_status,
                                .survey = do_survey,
                                .ask = do_ask,
                                .drain = do_drain,
                                .reload = do_reload,
                                .arg = f};
    f->api = api_new(&params);
    f->listener.api = f->api;
    *state = f;
    return 0;
}

/* The client leaves, or has read all. */
static void hang_up(struct fixture *f)
{
    if (f->endpoint)
        f->endpoint->ops->release(&f->endpoint, STATUS_OK);
    loop_turn(f->loop, 0);
    loop_turn(f->loop, 0);
    arena_reset(&f->arena);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    hang_up(f);
    api_free(&f->api);
    loop_turn(f->loop, 0);
    access_log_stop(&f->access_log);
    certs_free(&f->certs);
    delete_all(&f->changes);
    route_table_free(&f->changes.table);
    loop_free(&f->loop);
    route_table_thread_end();
    free(f->body);
    free(f);
    return 0;
}

#endif
