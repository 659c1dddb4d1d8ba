/* GET /v1/resolve: what a host name routes to, step by step, and why not. */
#include "api_internal.h"

#include "gateway/http/semantics.h"
#include "gateway/proxy/upstream.h"

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

/* Why an instance gets no new requests; NULL if it gets them. */
static const char *why_not(const struct route_instance *instance)
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

static json_t *instance_json(const struct route_instance *instance)
{
    char address[IP_TEXT_MAX] = "";
    const char *reason = why_not(instance);
    if (instance->address.family != 0)
        ip_format(&instance->address, address);
    return json_pack("{ss ss ss sI si sb ss*}", "instance_id", instance->id, "address", address, "state",
                     route_state_name((enum route_state)instance->state), "generation",
                     (json_int_t)instance->generation, "weight", (int)instance->weight, "takes_requests",
                     reason == NULL, "why_not", reason);
}

static json_t *instances_json(const struct route_target *target, bool *ret_any)
{
    json_t *array = json_array();
    for (size_t i = 0; i < target->app->instance_count; i++) {
        const struct route_instance *instance = &target->app->instances[i];
        if (target->instance && instance != target->instance)
            continue;
        *ret_any = *ret_any || why_not(instance) == NULL;
        json_array_append_new(array, instance_json(instance));
    }
    return array;
}

/* Fills what was found; returns why requests would be refused, or OK. */
static enum status add_target(const struct route_target *target, json_t *answer, json_t *steps)
{
    bool any = false;
    if (!target->app) {
        add_step(steps, "look-up", status_what(target->status));
        return target->status;
    }
    add_step(steps, "look-up", target->instance ? "an instance of the app" : "the app");
    json_object_set_new(answer, "app_id", json_string(target->app->id));
    json_object_set_new(answer, "revision", json_integer((json_int_t)target->app->revision));
    if (target->instance)
        json_object_set_new(answer, "instance_id", json_string(target->instance->id));
    json_object_set_new(answer, "port", json_integer(target->port));
    json_object_set_new(answer, "protocol", json_string(route_protocol_name(target->protocol)));
    json_object_set_new(answer, "instances", instances_json(target, &any));
    if (target->status != STATUS_OK && target->status != STATUS_MISDIRECTED) {
        add_step(steps, "published port", status_what(target->status));
        return target->status;
    }
    add_step(steps, "published port", "yes");
    add_step(steps, "protocol", protocol_text(target->protocol));
    const struct route_instance *instances = target->instance ? target->instance : target->app->instances;
    enum status status =
        any ? STATUS_OK : upstream_why_none(instances, target->instance ? 1 : target->app->instance_count);
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

/* Where TLS ends, and who else may know a name that no record has. */
static void add_custom_steps(const struct api_call *call, struct slice host, const struct route_target *target,
                             json_t *steps)
{
    bool has_certificate = certs_cover(call->api->params.certs, host);
    bool is_passed = target->protocol == ROUTE_PROTOCOL_PASSTHROUGH || !has_certificate;
    add_step(steps, "certificate", has_certificate ? "an uploaded one covers the name" : "none was uploaded");
    if (target->app)
        add_step(steps, "TLS", is_passed ? "passed through to the CVM" : "ends at the gateway");
    else
        add_step(steps, "DNS",
                 arena_printf(call->arena,
                              "not asked here; workers ask for the TXT record _dstack-app-address.%.*s, unless "
                              "dns.enabled is false",
                              SLICE_ARG(host))
                     .ptr);
}

static enum status resolve(const struct api_call *call, struct slice host, json_t *answer, json_t *steps)
{
    struct hostname name;
    struct route_target target;
    const struct api_params *params = &call->api->params;
    enum status status;
    hostname_parse(host, params->base_domains, params->base_domain_count, &name);
    add_name_steps(call, &name, steps);
    if (name.kind == HOSTNAME_HEALTH)
        return STATUS_OK;
    if (name.kind != HOSTNAME_APP && name.kind != HOSTNAME_CUSTOM)
        return STATUS_HOST_UNKNOWN;
    route_table_read_begin();
    route_table_resolve(params->table, &name, host, &target);
    status = add_target(&target, answer, steps);
    if (name.kind == HOSTNAME_CUSTOM)
        add_custom_steps(call, host, &target, steps);
    route_table_read_end();
    return status;
}

void api_resolve_host(struct api_call *call)
{
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
    json_t *steps = json_array();
    json_t *answer = json_object();
    json_object_set_new(answer, "host", api_json_text(host));
    enum status status = resolve(call, host, answer, steps);
    json_object_set_new(answer, "routes", json_boolean(status == STATUS_OK));
    json_object_set_new(answer, "code", json_string(status_code(status)));
    if (status != STATUS_OK) {
        json_object_set_new(answer, "detail", json_string(status_what(status)));
        json_object_set_new(answer, "advice", json_string(status_advice(status)));
    }
    json_object_set_new(answer, "steps", steps);
    api_answer_json(call, 200, answer);
}
