#include "api_internal.h"

#include <assert.h>
#include <stdlib.h>

static const struct api_route routes[] = {
    {METHOD_GET, "v1/apps", "after limit q", false, api_export_apps},
    {METHOD_GET, "v1/apps/*", "", false, api_apps_get},
    {METHOD_PUT, "v1/apps/*", "", true, api_apps_put},
    {METHOD_DELETE, "v1/apps/*", "", false, api_apps_delete},
    {METHOD_PATCH, "v1/apps/*/instances/*", "", true, api_apps_patch_instance},
    {METHOD_GET, "v1/snapshot", "", false, api_export_snapshot},
    {METHOD_PUT, "v1/snapshot", "empty revision strict", false, api_import_snapshot},
    {METHOD_POST, "v1/changes", "", false, api_changes_post},
    {METHOD_GET, "v1/watch", "since", false, api_watch_changes},
    {METHOD_GET, "v1/certificates", "", false, api_certs_list},
    {METHOD_GET, "v1/certificates/*", "", false, api_certs_get},
    {METHOD_PUT, "v1/certificates/*", "", true, api_certs_put},
    {METHOD_DELETE, "v1/certificates/*", "", false, api_certs_delete},
    {METHOD_GET, "v1/resolve", "host", false, api_resolve_host},
    {METHOD_GET, "v1/logs", "follow lines app host path method status slower_than error", false, api_logs_get},
    {METHOD_GET, "v1/top", "interval_ms n sort", false, api_top_get},
    {METHOD_GET, "v1/status", "", false, api_status_get},
    {METHOD_POST, "v1/drain", "", false, api_status_drain},
    {METHOD_POST, "v1/reload", "", false, api_status_reload},
    {METHOD_GET, "healthz", "verbose", false, api_status_healthz},
    {METHOD_GET, "readyz", "verbose", false, api_status_readyz},
    {METHOD_GET, "metrics", "", false, api_status_metrics},
    {METHOD_GET, "", "", false, api_status_page},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

/* ---- who may call ---- */

/* Takes a time that depends on the length of what was given, not on how much of it is right. */
static bool is_same_secret(struct slice given, struct slice token)
{
    volatile unsigned difference = given.len != token.len;
    for (size_t i = 0; i < given.len; i++)
        difference = difference | ((unsigned char)given.ptr[i] ^ (unsigned char)token.ptr[i % token.len]);
    return difference == 0;
}

/* RFC 6750 section 2.1. */
static bool is_authorized(const struct message_head *head, struct slice token)
{
    const struct slice scheme = SLICE("Bearer ");
    if (token.len == 0)
        return true;
    if (fields_count_of(&head->fields, FIELD_AUTHORIZATION) != 1)
        return false;
    struct slice value = slice_trim(fields_value(&head->fields, FIELD_AUTHORIZATION));
    if (value.len <= scheme.len || !slice_eq_nocase(slice_make(value.ptr, scheme.len), scheme))
        return false;
    return is_same_secret(slice_trim(slice_from(value, scheme.len)), token);
}

/* Connections from before a reload may have begun without one; a new one has to show it. */
static void refuse_without_certificate(struct api_call *call)
{
    api_answer_refuse(
        call, STATUS_MISDIRECTED, "", "%s",
        "this connection began without a client certificate, which the listener asks for now; connect again");
}

static void refuse_unauthorized(struct api_call *call)
{
    bool given = fields_has(&call->head->fields, FIELD_AUTHORIZATION);
    local_add_field(call->local, SLICE("WWW-Authenticate"),
                    given ? SLICE("Bearer realm=\"phala-gateway\", error=\"invalid_token\"")
                          : SLICE("Bearer realm=\"phala-gateway\""));
    api_answer_refuse(call, STATUS_UNAUTHORIZED, "Authorization", "%s",
                      given ? "the token is not the one of this listener" : status_what(STATUS_UNAUTHORIZED));
}

/* ---- which route ---- */

static bool matches(const char *pattern, const struct api_target *target, struct slice *captures)
{
    size_t captured = 0;
    for (size_t i = 0; i < target->segment_count; i++) {
        size_t len = strcspn(pattern, "/");
        struct slice wanted = {pattern, len};
        bool is_last = pattern[len] == '\0';
        if (slice_eq(wanted, SLICE("*"))) {
            assert(captured < API_MAX_CAPTURES);
            captures[captured++] = target->segments[i];
        } else if (!slice_eq(wanted, target->segments[i])) {
            return false;
        }
        if (is_last)
            return i + 1 == target->segment_count;
        pattern += len + 1;
    }
    return false;
}

static void refuse_method(struct api_call *call, const struct api_route *const *found, size_t count)
{
    struct api_text allow = {.ptr = NULL};
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            api_text_append(&allow, SLICE(", "));
        api_text_append(&allow, method_name(found[i]->method));
        if (found[i]->method == METHOD_GET)
            api_text_append(&allow, SLICE(", HEAD"));
    }
    local_add_field(call->local, SLICE("Allow"), slice_make(allow.ptr, allow.len));
    api_answer_refuse(call, STATUS_METHOD_NOT_ALLOWED, "", "this path takes %.*s", (int)allow.len, allow.ptr);
    api_text_free(&allow);
}

/* Sets the route and captures of the call, or refuses it. */
static bool find_route(struct api_call *call)
{
    const struct api_route *found[ROUTE_COUNT];
    size_t count = 0;
    enum method method = call->head->method == METHOD_HEAD ? METHOD_GET : call->head->method;
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        if (!matches(routes[i].pattern, &call->target, call->captures))
            continue;
        if (routes[i].method == method) {
            call->route = &routes[i];
            return true;
        }
        found[count++] = &routes[i];
    }
    if (count == 0)
        api_answer_refuse(call, STATUS_NOT_FOUND, "", "%s", status_what(STATUS_NOT_FOUND));
    else
        refuse_method(call, found, count);
    return false;
}

/* Ids are in lower case; so are those in paths, whatever the caller wrote. */
static void lower_captures(struct api_call *call)
{
    for (size_t i = 0; i < API_MAX_CAPTURES; i++) {
        struct slice id = call->captures[i];
        char *lower = arena_alloc(call->arena, id.len + 1);
        for (size_t k = 0; k < id.len; k++)
            lower[k] = ascii_lower(id.ptr[k]);
        call->captures[i] = slice_make(lower, id.len);
    }
}

/* ---- a call's life ---- */

void api_call_skip_body(void *self, struct slice piece)
{
    struct api_call *call = self;
    local_credit(call->local, piece.len);
}

void api_call_gone(void *self)
{
    struct api_call *call = self;
    if (call->changing)
        changes_forget(call->api->params.changes, call);
    if (call->certifying)
        certs_forget(call->api->params.certs, call);
    api_text_free(&call->body);
}

void api_call_await(struct api_call *call)
{
    static const struct local_handler handler = {.body = api_call_skip_body, .gone = api_call_gone};
    call->changing = true;
    local_handle(call->local, &handler, call);
}

static void refuse_too_large(struct api_call *call)
{
    api_answer_refuse(call, STATUS_PAYLOAD_TOO_LARGE, "", "a document has at most %d bytes", API_MAX_DOCUMENT_BYTES);
}

static void on_document_body(void *self, struct slice piece)
{
    struct api_call *call = self;
    local_credit(call->local, piece.len);
    if (call->answered)
        return;
    if (piece.len > API_MAX_DOCUMENT_BYTES - call->body.len)
        refuse_too_large(call);
    else
        api_text_append(&call->body, piece);
}

static void on_document_end(void *self)
{
    struct api_call *call = self;
    if (!call->answered)
        call->route->run(call);
}

static void read_document(struct api_call *call)
{
    static const struct local_handler handler = {
        .body = on_document_body, .end = on_document_end, .gone = api_call_gone};
    if (!api_check_content_type(call))
        return;
    if (call->head->has_content_length && call->head->content_length > API_MAX_DOCUMENT_BYTES)
        refuse_too_large(call);
    else
        local_handle(call->local, &handler, call);
}

static bool is_healthz(const struct api_target *target)
{
    return target->segment_count == 1 && slice_eq(target->segments[0], SLICE("healthz"));
}

/* Or refused. */
static bool is_admitted(struct api_call *call, const struct api_listener *listener)
{
    if (is_healthz(&call->target))
        return true;
    if (listener->needs_certificate && !local_is_verified(call->local)) {
        refuse_without_certificate(call);
        return false;
    }
    if (is_authorized(call->head, listener->token))
        return true;
    refuse_unauthorized(call);
    return false;
}

static void on_request(void *service, struct local *local, const struct message_head *head)
{
    const struct api_listener *listener = service;
    struct arena *arena = local_arena(local);
    struct api_call *call = arena_alloc_zeroed(arena, sizeof *call);
    struct route_problem problem;
    call->api = listener->api;
    call->local = local;
    call->arena = arena;
    call->head = head;
    enum status status = api_target_parse(head->path, arena, &call->target, &problem);
    if (!is_admitted(call, listener))
        return;
    if (status != STATUS_OK) {
        api_answer_problem(call, &problem);
    } else if (find_route(call)) {
        lower_captures(call);
        if (!api_target_check(&call->target, call->route->parameters, &problem))
            api_answer_problem(call, &problem);
        else if (call->route->takes_document)
            read_document(call);
        else
            call->route->run(call);
    }
}

const struct local_service api_service = {.request = on_request};

/* ---- the service ---- */

struct api *api_new(const struct api_params *params)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api)
        abort();
    api->params = *params;
    list_init(&api->watches);
    list_init(&api->logs);
    return api;
}

void api_free(struct api **api)
{
    free(*api);
    *api = NULL;
}

void api_end_streams(struct api *api)
{
    api->ending = true;
    api_watch_end_all(api);
    api_logs_end_all(api);
}

void api_set_base_domains(struct api *api, const struct slice *base_domains, size_t count)
{
    api->params.base_domains = base_domains;
    api->params.base_domain_count = count;
}
