/* GET /v1/resolve: what a host name routes to, step by step, and why not. */
#include "api_internal.h"

#include "gateway/http/semantics.h"
#include "gateway/proxy/domain_question.h"
#include "gateway/proxy/health_survey.h"
#include "gateway/proxy/upstream.h"

enum {
    SURVEY_MS = 2000, /* a worker that does not answer is left out then */
    DNS_MS = 10000,   /* the DNS is not waited for any longer */
    DNS_LOOK_MS = 50,
};

/* One call: what is known at once, what a worker knows of the DNS, then what all say of the instances. */
struct resolution {
    struct api_call *call;
    json_t *answer;
    json_t *steps;
    json_t *instances; /* borrowed from the answer; NULL: none */
    uint64_t *serials; /* of their claims, 0: none */
    size_t count;
    uint16_t port;
    bool has_forbidden; /* an instance that would take requests, but for the rules of addresses */
    enum status status;
    struct health_survey *survey;
    struct timer timer;
    struct slice host;
    struct domain_question *question; /* of a name that no record has; NULL: it is not asked, or not any more */
    uint64_t dns_until_ms;
    struct timer dns_timer;
};

/* How the app was found. */
enum source { SOURCE_NAME, SOURCE_RECORD, SOURCE_DNS };

static void add_step(json_t *steps, const char *step, const char *result)
{
    json_array_append_new(steps, json_pack("{ss ss}", "step", step, "result", result));
}

static const char *kind_text(enum hostname_kind kind)
{
    switch (kind) {
    case HOSTNAME_APP:
        return "a name under a base domain";
    case HOSTNAME_HEALTH:
        return "the health name: the gateway answers its own readiness";
    case HOSTNAME_BASE:
        return "a base domain itself: no app has it";
    case HOSTNAME_CUSTOM:
        return "under no base domain: looked up among the custom domains";
    case HOSTNAME_INVALID:
        break;
    }
    return "not a host name, or more than one label under a base domain";
}

static const char *mode_text(enum hostname_mode mode)
{
    switch (mode) {
    case HOSTNAME_MODE_DEFAULT:
        return "none: the port's protocol decides";
    case HOSTNAME_MODE_PASSTHROUGH:
        return "s: TLS ends in the CVM";
    case HOSTNAME_MODE_GRPC:
        break;
    }
    return "g: the CVM speaks HTTP/2 cleartext";
}

static const char *protocol_text(enum route_protocol protocol)
{
    switch (protocol) {
    case ROUTE_PROTOCOL_AUTO:
        return "auto: TLS ends at the gateway; HTTP, or raw TCP for clients that speak something else";
    case ROUTE_PROTOCOL_HTTP:
        return "http: TLS ends at the gateway; the CVM speaks HTTP/1.1";
    case ROUTE_PROTOCOL_H2C:
        return "h2c: TLS ends at the gateway; the CVM speaks HTTP/2 cleartext";
    case ROUTE_PROTOCOL_TCP:
        return "tcp: TLS ends at the gateway; raw bytes";
    case ROUTE_PROTOCOL_PASSTHROUGH:
        break;
    }
    return "passthrough: TLS ends in the CVM";
}

static void add_name_steps(const struct api_call *call, const struct hostname *name, json_t *steps)
{
    add_step(steps, "name", kind_text(name->kind));
    if (name->kind != HOSTNAME_APP)
        return;
    struct slice base = call->api->params.base_domains[name->base_index];
    struct slice text = arena_printf(call->arena, "%.*s", SLICE_ARG(base));
    add_step(steps, "base domain", text.ptr);
    text = arena_printf(call->arena, "%.*s, else %.*s", SLICE_ARG(hostname_label(name)), SLICE_ARG(hostname_id(name)));
    bool is_whole = name->id_len == name->whole_len;
    add_step(steps, "id", is_whole ? text.ptr + text.len - name->id_len : text.ptr);
    text = arena_printf(call->arena, "%u (%s)", name->port, name->has_port ? "given by the name" : "by default");
    add_step(steps, "port", text.ptr);
    add_step(steps, "mode", mode_text(name->mode));
}

/* Why an instance gets no new requests at any port; NULL if it gets them. */
static const char *why_never(const struct route_instance *instance)
{
    switch ((enum route_state)instance->state) {
    case ROUTE_STATE_STARTING:
        return "it is starting";
    case ROUTE_STATE_DRAINING:
        return "it is draining";
    case ROUTE_STATE_STOPPED:
        return "it is stopped";
    case ROUTE_STATE_RUNNING:
        break;
    }
    if (!instance->claim || claim_is_revoked(instance->claim))
        return "it owns no address";
    return instance->weight == 0 ? "its weight is 0" : NULL;
}

/* The same at the port asked for. The rules are asked as at connect time: a reload may have changed them since. */
static const char *why_not(struct resolution *resolution, const struct route_instance *instance)
{
    struct route_problem problem;
    const struct api_call *call = resolution->call;
    const char *reason = why_never(instance);
    if (reason || route_rules_check(changes_rules(call->api->params.changes), &instance->claim->address,
                                    resolution->port, &problem) == STATUS_OK)
        return reason;
    resolution->has_forbidden = true;
    return arena_printf(call->arena, "%s", problem.detail).ptr;
}

static json_t *instance_json(const struct route_instance *instance, const char *reason)
{
    char address[IP_TEXT_MAX] = "";
    if (instance->address.family != 0)
        ip_format(&instance->address, address);
    return json_pack("{ss ss ss sI si sb ss*}", "instance_id", instance->id, "address", address, "state",
                     route_state_name((enum route_state)instance->state), "generation",
                     (json_int_t)instance->generation, "weight", (int)instance->weight, "takes_requests",
                     reason == NULL, "why_not", reason);
}

/* Those that requests for the name may go to. */
static bool add_instances(struct resolution *resolution, const struct route_target *target)
{
    bool any = false;
    struct arena *arena = resolution->call->arena;
    resolution->instances = json_array();
    resolution->serials = arena_alloc_zeroed(arena, (target->app->instance_count + 1) * sizeof *resolution->serials);
    for (size_t i = 0; i < target->app->instance_count; i++) {
        const struct route_instance *instance = &target->app->instances[i];
        if (target->instance && instance != target->instance)
            continue;
        const char *reason = why_not(resolution, instance);
        any = any || !reason;
        resolution->serials[resolution->count++] = instance->claim ? instance->claim->serial : 0;
        json_array_append_new(resolution->instances, instance_json(instance, reason));
    }
    json_object_set_new(resolution->answer, "instances", resolution->instances);
    return any;
}

static bool is_listed(const struct route_app *app, uint16_t port)
{
    for (size_t i = 0; i < app->port_count; i++)
        if (app->ports[i].port == port)
            return true;
    return false;
}

static void add_limits(const struct api_call *call, const struct route_app *app, json_t *steps)
{
    if (app->max_connections == 0 && app->requests_per_second == 0)
        return;
    struct slice most = app->max_connections > 0
                            ? arena_printf(call->arena, "at most %u in progress", app->max_connections)
                            : SLICE("any number in progress");
    struct slice rate =
        app->requests_per_second > 0 ? arena_printf(call->arena, ", %u a second", app->requests_per_second) : SLICE("");
    add_step(steps, "limits", arena_printf(call->arena, "%.*s%.*s", SLICE_ARG(most), SLICE_ARG(rate)).ptr);
}

static const char *found_text(const struct route_target *target, enum source source)
{
    if (source == SOURCE_RECORD)
        return "the app whose record has this domain";
    return target->instance ? "an instance of the app" : "the app";
}

/* As a request that finds no instance would be told. */
static enum status why_none(const struct resolution *resolution, const struct route_target *target)
{
    if (resolution->has_forbidden)
        return STATUS_ADDRESS_FORBIDDEN;
    return target->instance ? upstream_why_none(target->instance, 1)
                            : upstream_why_none(target->app->instances, target->app->instance_count);
}

/* Fills what was found; returns why requests would be refused, or OK. */
static enum status add_target(struct resolution *resolution, const struct route_target *target, enum source source)
{
    json_t *answer = resolution->answer, *steps = resolution->steps;
    const char *step = source == SOURCE_DNS ? "id" : "look-up";
    if (!target->app) {
        add_step(steps, step, status_what(target->status));
        return target->status;
    }
    add_step(steps, step, found_text(target, source));
    resolution->port = target->port;
    json_object_set_new(answer, "app_id", json_string(target->app->id));
    json_object_set_new(answer, "revision", json_integer((json_int_t)target->app->revision));
    if (target->instance)
        json_object_set_new(answer, "instance_id", json_string(target->instance->id));
    json_object_set_new(answer, "port", json_integer(target->port));
    json_object_set_new(answer, "protocol", json_string(route_protocol_name(target->protocol)));
    bool any = add_instances(resolution, target);
    if (target->status != STATUS_OK && target->status != STATUS_MISDIRECTED) {
        add_step(steps, "published port", status_what(target->status));
        return target->status;
    }
    add_step(steps, "published port",
             is_listed(target->app, target->port) ? "yes, it is listed" : "yes: the app does not restrict its ports");
    add_step(steps, "protocol", protocol_text(target->protocol));
    add_limits(resolution->call, target->app, steps);
    enum status status = any ? STATUS_OK : why_none(resolution, target);
    add_step(steps, "instances", any ? "at least one takes requests" : status_what(status));
    return status;
}

static struct slice lower_host(const struct api_call *call, struct slice host)
{
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    char *lower = arena_alloc(call->arena, host.len + 1);
    for (size_t i = 0; i < host.len; i++)
        lower[i] = ascii_lower(host.ptr[i]);
    return slice_make(lower, host.len);
}

/* Where TLS ends. */
static void add_tls_steps(const struct resolution *resolution, const struct route_target *target)
{
    json_t *steps = resolution->steps;
    bool has_certificate = certs_cover(resolution->call->api->params.certs, resolution->host);
    bool is_passed = target->protocol == ROUTE_PROTOCOL_PASSTHROUGH || !has_certificate;
    add_step(steps, "certificate", has_certificate ? "an uploaded one covers the name" : "none was uploaded");
    if (target->app)
        add_step(steps, "TLS", is_passed ? "passed through to the CVM" : "ends at the gateway");
}

static void on_dns_answered(void *arg);

/* A custom name: by the record that has it, else the DNS is to be asked. */
static enum status resolve_custom(struct resolution *resolution, const struct route_target *target)
{
    if (!target->app) {
        add_step(resolution->steps, "look-up", "no app's record has this domain");
        resolution->question = domain_question_new(resolution->host, on_dns_answered, resolution);
        return target->status;
    }
    enum status status = add_target(resolution, target, SOURCE_RECORD);
    add_tls_steps(resolution, target);
    return status;
}

static enum status resolve(struct resolution *resolution)
{
    struct slice host = resolution->host;
    const struct api_call *call = resolution->call;
    struct hostname name;
    struct route_target target;
    const struct api_params *params = &call->api->params;
    enum status status;
    hostname_parse(host, params->base_domains, params->base_domain_count, &name);
    add_name_steps(call, &name, resolution->steps);
    if (name.kind == HOSTNAME_HEALTH)
        return STATUS_OK;
    if (name.kind != HOSTNAME_APP && name.kind != HOSTNAME_CUSTOM)
        return STATUS_HOST_UNKNOWN;
    route_table_read_begin();
    route_table_resolve(params->table, &name, host, &target);
    status = name.kind == HOSTNAME_CUSTOM ? resolve_custom(resolution, &target)
                                          : add_target(resolution, &target, SOURCE_NAME);
    route_table_read_end();
    return status;
}

/* ---- what workers know ---- */

/* Out: some worker sends it nothing for now. */
static bool add_health(json_t *instance, const struct health_survey_item *item, unsigned workers)
{
    unsigned ejected = atomic_load(&item->ejected), down = atomic_load(&item->down);
    json_object_set_new(instance, "health",
                        json_pack("{sI sI sI sI}", "workers", (json_int_t)workers, "ejected", (json_int_t)ejected,
                                  "down", (json_int_t)down, "failures", (json_int_t)atomic_load(&item->failures)));
    return ejected > 0 || down > 0;
}

/* The part of requests that each gets, while all are equally busy. */
static void add_shares(const struct resolution *resolution)
{
    size_t i;
    json_t *instance;
    json_int_t sum = 0;
    json_array_foreach(resolution->instances, i, instance)
    {
        if (json_is_true(json_object_get(instance, "takes_requests")))
            sum += json_integer_value(json_object_get(instance, "weight"));
    }
    json_array_foreach(resolution->instances, i, instance)
    {
        bool takes = json_is_true(json_object_get(instance, "takes_requests"));
        json_int_t weight = json_integer_value(json_object_get(instance, "weight"));
        json_object_set_new(instance, "share_percent", json_integer(takes && sum > 0 ? weight * 100 / sum : 0));
    }
}

static void add_survey(const struct resolution *resolution)
{
    const struct health_survey *survey = resolution->survey;
    unsigned out = 0;
    for (size_t i = 0; i < resolution->count; i++)
        out += add_health(json_array_get(resolution->instances, i), &survey->items[i], survey->answered);
    add_shares(resolution);
    add_step(resolution->steps, "health",
             out == 0 ? "no worker leaves out any of them"
                      : arena_printf(resolution->call->arena,
                                     "%u of %zu left out by some worker, unless too many are (upstream.ejection)", out,
                                     resolution->count)
                            .ptr);
    if (resolution->status == STATUS_OK)
        add_step(resolution->steps, "choice", "by weight, then by load, for each request");
}

static void finish(struct resolution *resolution)
{
    json_t *answer = resolution->answer;
    enum status status = resolution->status;
    json_object_set_new(answer, "routes", json_boolean(status == STATUS_OK));
    json_object_set_new(answer, "code", json_string(status_code(status)));
    if (status != STATUS_OK) {
        json_object_set_new(answer, "detail", json_string(status_what(status)));
        json_object_set_new(answer, "advice", json_string(status_advice(status)));
    }
    json_object_set(answer, "steps", resolution->steps);
    resolution->answer = NULL;
    api_answer_json(resolution->call, 200, answer);
}

static void on_surveyed(void *arg)
{
    struct resolution *resolution = arg;
    timer_disarm(&resolution->timer);
    if (!resolution->answer)
        return;
    add_survey(resolution);
    finish(resolution);
}

static void on_timer(struct timer *timer)
{
    on_surveyed(CONTAINER_OF(timer, struct resolution, timer));
}

static void ask_workers(struct resolution *resolution)
{
    const struct api_params *params = &resolution->call->api->params;
    resolution->survey = health_survey_new(resolution->port, resolution->count, on_surveyed, resolution);
    for (size_t i = 0; i < resolution->count; i++)
        resolution->survey->items[i].serial = resolution->serials[i];
    loop_timer_arm(params->loop, &resolution->timer, SURVEY_MS);
    params->survey(params->arg, resolution->survey);
}

static void go_on(struct resolution *resolution)
{
    if (resolution->count > 0)
        ask_workers(resolution);
    else
        finish(resolution);
}

/* ---- what the DNS says ---- */

static void add_dns_step(const struct resolution *resolution, const struct domain_question *question)
{
    struct slice text = SLICE_NONE;
    struct arena *arena = resolution->call->arena;
    switch (question->said) {
    case DOMAIN_SAID_OFF:
        text = SLICE("it is not asked: dns.enabled is false, or there is no server to ask");
        break;
    case DOMAIN_SAID_PENDING:
        text = arena_printf(arena, "it was asked for _dstack-app-address.%.*s, and has not answered yet",
                            SLICE_ARG(resolution->host));
        break;
    case DOMAIN_SAID_NOTHING:
        text = arena_printf(arena,
                            "there is no TXT record _dstack-app-address.%.*s that says <id>:<port>, there are several "
                            "different ones, or the DNS failed",
                            SLICE_ARG(resolution->host));
        break;
    case DOMAIN_SAID_TARGET:
        text = arena_printf(arena, "a TXT record says %s:%u", question->target.id, question->target.port);
        break;
    }
    add_step(resolution->steps, "DNS", text.ptr);
}

static void resolve_txt(struct resolution *resolution, const struct txt_target *txt)
{
    struct route_target target;
    route_table_read_begin();
    domains_resolve_txt(resolution->call->api->params.table, txt, &target);
    resolution->status = add_target(resolution, &target, SOURCE_DNS);
    add_tls_steps(resolution, &target);
    route_table_read_end();
}

static void end_dns(struct resolution *resolution, const struct domain_question *question)
{
    timer_disarm(&resolution->dns_timer);
    add_dns_step(resolution, question);
    if (question->said == DOMAIN_SAID_TARGET)
        resolve_txt(resolution, &question->target);
    else
        add_tls_steps(resolution, &(struct route_target){.app = NULL});
    domain_question_close(&resolution->question);
    go_on(resolution);
}

static void on_dns_answered(void *arg)
{
    struct resolution *resolution = arg;
    if (resolution->question->said != DOMAIN_SAID_PENDING)
        end_dns(resolution, resolution->question);
}

static void ask_dns(struct resolution *resolution)
{
    const struct api_params *params = &resolution->call->api->params;
    loop_timer_arm(params->loop, &resolution->dns_timer, DNS_LOOK_MS);
    if (!resolution->question->is_away)
        params->ask(params->arg, resolution->question);
}

static void on_dns_timer(struct timer *timer)
{
    struct resolution *resolution = CONTAINER_OF(timer, struct resolution, dns_timer);
    if (loop_now_ms(resolution->call->api->params.loop) < resolution->dns_until_ms)
        ask_dns(resolution);
    else
        end_dns(resolution, &(struct domain_question){.said = DOMAIN_SAID_PENDING});
}

/* ---- the call ---- */

static void on_body(void *self, struct slice piece)
{
    const struct resolution *resolution = self;
    local_credit(resolution->call->local, piece.len);
}

static void on_gone(void *self)
{
    struct resolution *resolution = self;
    timer_forget(&resolution->timer);
    timer_forget(&resolution->dns_timer);
    domain_question_close(&resolution->question);
    health_survey_close(&resolution->survey);
    json_decref(resolution->answer);
    json_decref(resolution->steps);
    api_call_gone(resolution->call);
}

void api_resolve_host(struct api_call *call)
{
    static const struct local_handler handler = {.body = on_body, .gone = on_gone};
    struct slice host;
    struct slice port;
    bool given = api_target_parameter(&call->target, "host", &host);
    if (!given || !is_authority(host)) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "host", "%s",
                          given ? "it is not a host name" : "say which, as in /v1/resolve?host=<id>-<port>.<domain>");
        return;
    }
    authority_split(host, &host, &port);
    host = lower_host(call, host);
    struct resolution *resolution = arena_alloc_zeroed(call->arena, sizeof *resolution);
    resolution->call = call;
    resolution->answer = json_object();
    resolution->steps = json_array();
    resolution->host = host;
    resolution->dns_until_ms = loop_now_ms(call->api->params.loop) + DNS_MS;
    timer_init(&resolution->timer, on_timer);
    timer_init(&resolution->dns_timer, on_dns_timer);
    local_handle(call->local, &handler, resolution);
    json_object_set_new(resolution->answer, "host", api_json_text(host));
    resolution->status = resolve(resolution);
    if (resolution->question)
        ask_dns(resolution);
    else
        go_on(resolution);
}
