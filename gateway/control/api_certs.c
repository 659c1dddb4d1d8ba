/* /v1/certificates: uploaded certificates, and what is known of all that are in force. Keys come in, but never out. */
#include "api_internal.h"

#include <time.h>

static json_t *date_json(int64_t seconds)
{
    char text[32];
    struct tm tm;
    time_t when = (time_t)seconds;
    gmtime_r(&when, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static json_t *describe(struct slice name, const struct cert_facts *facts, const char *source)
{
    json_t *names = json_array();
    for (size_t i = 0; i < facts->name_count; i++)
        json_array_append_new(names, api_json_text(facts->names[i]));
    int64_t left = facts->not_after - (int64_t)time(NULL);
    return json_pack("{so ss so so so sI ss so ss}", "name", api_json_text(name), "source", source, "names", names,
                     "not_before", date_json(facts->not_before), "not_after", date_json(facts->not_after), "days_left",
                     (json_int_t)(left / 86400), "fingerprint", facts->fingerprint, "issuer",
                     api_json_text(slice_str(facts->issuer)), "key", facts->key);
}

static json_t *describe_custom(const struct cert_custom *cert)
{
    return describe(cert->name, &cert->facts, "uploaded");
}

/* ---- get ---- */

static void append_base(json_t *array, const struct cert_snapshot *base)
{
    for (size_t i = 0; base && i < cert_snapshot_count(base); i++) {
        const struct cert_identity *identity = cert_snapshot_identity(base, i);
        struct cert_facts facts;
        if (cert_facts_read(identity->chain_pem, &facts) != STATUS_OK)
            continue;
        json_array_append_new(array, describe(identity->name, &facts, "base_domains"));
        cert_facts_fini(&facts);
    }
}

void api_certs_list(struct api_call *call)
{
    const struct certs *certs = call->api->params.certs;
    json_t *array = json_array();
    append_base(array, certs_base(certs));
    for (size_t i = 0; i < certs_count(certs); i++)
        json_array_append_new(array, describe_custom(certs_at(certs, i)));
    api_answer_json(call, 200, json_pack("{so}", "certificates", array));
}

static void refuse_unknown(struct api_call *call)
{
    api_answer_refuse(call, STATUS_CERT_UNKNOWN, "name", "no certificate was uploaded under this name");
}

void api_certs_get(struct api_call *call)
{
    const struct cert_custom *cert = certs_find(call->api->params.certs, call->captures[0]);
    if (!cert) {
        refuse_unknown(call);
        return;
    }
    json_t *json = describe_custom(cert);
    json_object_set_new(json, "certificate", api_json_text(cert->chain_pem));
    api_answer_json(call, 200, json);
}

/* ---- put ---- */

static bool is_under(struct slice name, struct slice base)
{
    size_t above = name.len > base.len ? name.len - base.len : 0;
    return slice_eq(name, base) || (above > 0 && name.ptr[above - 1] == '.' && slice_eq(slice_from(name, above), base));
}

/* False if the call was refused. */
static bool check_name(struct api_call *call, struct slice name)
{
    const struct api_params *params = &call->api->params;
    bool is_wildcard = slice_has_prefix(name, SLICE("*."));
    struct slice host = slice_from(name, is_wildcard ? 2 : 0);
    bool has_dot = host.len > 0 && memchr(host.ptr, '.', host.len) != NULL;
    if (!hostname_is_dns_name(host) || (is_wildcard && !has_dot)) {
        api_answer_refuse(call, STATUS_INVALID_RECORD, "name",
                          "the name in the path is no host name; write shop.example.com or *.example.com");
        return false;
    }
    for (size_t i = 0; i < params->base_domain_count; i++) {
        if (!is_under(host, params->base_domains[i]))
            continue;
        api_answer_refuse(call, STATUS_CERT_NAME_RESERVED, "name",
                          "it is under the base domain %.*s, which has its certificate from the configuration",
                          SLICE_ARG(params->base_domains[i]));
        return false;
    }
    return true;
}

/* The two texts of the document; false if the call was refused. They live as long as `document`. */
static bool read_texts(struct api_call *call, const json_t *document, struct slice *ret_chain, struct slice *ret_key)
{
    const char *name;
    json_t *value;
    *ret_chain = *ret_key = SLICE_NONE;
    if (!json_is_object(document)) {
        api_answer_refuse(call, STATUS_INVALID_JSON, "",
                          "send {\"certificate\": \"…PEM…\", \"private_key\": \"…PEM…\"}");
        return false;
    }
    json_object_foreach((json_t *)(uintptr_t)document, name, value)
    {
        struct slice *text = strcmp(name, "certificate") == 0   ? ret_chain
                             : strcmp(name, "private_key") == 0 ? ret_key
                                                                : NULL;
        const char *wrong = !text                    ? "is not known here; send certificate and private_key"
                            : !json_is_string(value) ? "is no text; send PEM"
                                                     : NULL;
        if (wrong) {
            char field[64];
            snprintf(field, sizeof field, "%s", name);
            api_answer_refuse(call, STATUS_INVALID_RECORD, field, "the member %s", wrong);
            return false;
        }
        *text = slice_make(json_string_value(value), json_string_length(value));
    }
    const char *missing = ret_chain->len == 0 ? "certificate" : ret_key->len == 0 ? "private_key" : NULL;
    if (missing)
        api_answer_refuse(call, STATUS_INVALID_RECORD, missing, "it is missing; send it as PEM text");
    return !missing;
}

static void wipe(const char *bytes, size_t len)
{
    if (len > 0)
        explicit_bzero((void *)(uintptr_t)bytes, len);
}

static void on_put(void *arg, enum status status, bool created, const char *text)
{
    struct api_call *call = arg;
    const struct cert_custom *cert = certs_find(call->api->params.certs, call->captures[0]);
    call->certifying = false;
    if (status != STATUS_OK) {
        api_answer_refuse(call, status, "", "%s", text);
        return;
    }
    if (created)
        local_add_field(call->local, SLICE("Location"),
                        arena_printf(call->arena, "/v1/certificates/%.*s", SLICE_ARG(call->captures[0])));
    json_t *json = cert ? describe_custom(cert) : json_pack("{so}", "name", api_json_text(call->captures[0]));
    api_answer_json(call, created ? 201 : 200, json);
}

static void put(struct api_call *call, const json_t *document)
{
    struct slice chain, key;
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    if (!check_name(call, call->captures[0]) || !read_texts(call, document, &chain, &key))
        return;
    enum status status = cert_custom_new(call->captures[0], chain, key, time(NULL), &cert, &problem);
    wipe(key.ptr, key.len);
    if (status != STATUS_OK) {
        api_answer_refuse(call, status, problem.field, "%s", problem.detail);
        return;
    }
    call->certifying = true;
    certs_put(call->api->params.certs, cert, on_put, call);
}

void api_certs_put(struct api_call *call)
{
    json_error_t error;
    struct api_text *body = &call->body;
    json_t *document = json_loadb(body->len > 0 ? body->ptr : "", body->len, JSON_REJECT_DUPLICATES, &error);
    wipe(body->ptr, body->len);
    if (document)
        put(call, document);
    else
        api_answer_refuse(call, STATUS_INVALID_JSON, "", "line %d, column %d: %s", error.line, error.column,
                          error.text);
    json_decref(document);
}

/* ---- delete ---- */

static void on_deleted(void *arg, enum status status, bool created, const char *text)
{
    struct api_call *call = arg;
    (void)created;
    call->certifying = false;
    if (status == STATUS_OK)
        api_answer_text(call, 204, SLICE_NONE, SLICE_NONE);
    else
        api_answer_refuse(call, status, "", "%s", text);
}

void api_certs_delete(struct api_call *call)
{
    if (!certs_has(call->api->params.certs, call->captures[0])) {
        refuse_unknown(call);
        return;
    }
    api_call_await(call);
    call->changing = false;
    call->certifying = true;
    certs_delete(call->api->params.certs, call->captures[0], on_deleted, call);
}
