#include "gateway/ctl/compose_app.h"

#include "compose_internal.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

enum { ID_BYTES = (COMPOSE_APP_ID_SIZE - 1) / 2 };

bool compose_app_is(struct slice text)
{
    json_t *root = json_loadb(text.ptr ? text.ptr : "", text.len, 0, NULL);
    bool is = json_is_object(root) && !json_object_get(root, "services") &&
              (json_object_get(root, "docker_compose_file") || json_object_get(root, "runner") ||
               json_object_get(root, "manifest_version"));
    json_decref(root);
    return is;
}

void compose_app_id(struct slice text, char ret_id[COMPOSE_APP_ID_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (EVP_Digest(text.ptr ? text.ptr : "", text.len, digest, NULL, EVP_sha256(), NULL) != 1)
        abort();
    for (size_t i = 0; i < ID_BYTES; i++)
        snprintf(ret_id + 2 * i, 3, "%02x", digest[i]);
}

__attribute__((format(printf, 2, 3))) static bool fail(char *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, COMPOSE_ERROR_MAX, format, args);
    va_end(args);
    return false;
}

/* ---- does it want a gateway? ---- */

/* NULL or of the type, else an error. */
static bool check_type(const json_t *value, bool is_right, const char *name, const char *type, char *error)
{
    return !value || json_is_null(value) || is_right || fail(error, "%s: it must be %s", name, type);
}

static bool check_gateway(struct compose *compose, const json_t *root, char *error)
{
    size_t i;
    const json_t *feature;
    const json_t *enabled = json_object_get(root, "gateway_enabled");
    const json_t *formerly = json_object_get(root, "tproxy_enabled");
    bool is_on = json_is_true(enabled) || json_is_true(formerly);
    if (!check_type(enabled, json_is_boolean(enabled), "gateway_enabled", "true or false", error) ||
        !check_type(formerly, json_is_boolean(formerly), "tproxy_enabled", "true or false", error))
        return false;
    json_array_foreach(json_object_get(root, "features"), i, feature)
    {
        const char *name = json_string_value(feature);
        is_on |= name && strcmp(name, "tproxy-net") == 0;
    }
    if (!is_on && (json_is_false(enabled) || json_is_false(formerly)))
        return fail(error, "gateway_enabled is false: the app asks for no public names. If it is to have some all the "
                           "same, give the Compose file in docker_compose_file with --app ID");
    if (!is_on)
        compose_note(compose, SLICE_NONE, "", false,
                     "gateway_enabled is not set: dstack itself connects such an app to no gateway");
    return true;
}

/* ---- the Compose file inside ---- */

/* NULL, with ok, when the runner runs no Compose file. */
static const json_t *find_compose(const json_t *root, bool *ret_ok, char *error)
{
    const json_t *runner = json_object_get(root, "runner");
    const json_t *text = json_object_get(root, "docker_compose_file");
    const char *name = json_string_value(runner);
    *ret_ok = check_type(runner, json_is_string(runner), "runner", "a string", error) &&
              check_type(text, json_is_string(text), "docker_compose_file", "the text of a Compose file", error);
    return *ret_ok && json_is_string(text) && !(name && strcmp(name, "bash") == 0) ? text : NULL;
}

static bool read_compose(const json_t *text, const struct compose_settings *settings, struct compose **ret_compose,
                         char *error)
{
    char inner[COMPOSE_ERROR_MAX];
    struct slice compose = slice_make(json_string_value(text), json_string_length(text));
    return compose_parse(compose, settings, ret_compose, inner) || fail(error, "docker_compose_file: %.480s", inner);
}

/* ---- port_policy ---- */

struct policy {
    const json_t *ports;
    bool restricts;
};

static bool read_policy(const json_t *root, struct policy *ret_policy, char *error)
{
    size_t i;
    const json_t *port;
    const json_t *policy = json_object_get(root, "port_policy");
    const json_t *restricts = json_object_get(policy, "restrict_mode");
    const json_t *ports = json_object_get(policy, "ports");
    if (!check_type(policy, json_is_object(policy), "port_policy", "an object", error) ||
        !check_type(restricts, json_is_boolean(restricts), "port_policy.restrict_mode", "true or false", error) ||
        !check_type(ports, json_is_array(ports), "port_policy.ports", "an array", error))
        return false;
    json_array_foreach(ports, i, port)
    {
        json_int_t number = json_integer_value(json_object_get(port, "port"));
        const json_t *pp = json_object_get(port, "pp");
        if (number < 1 || number > UINT16_MAX)
            return fail(error, "port_policy.ports[%zu].port: it must be 1..65535", i);
        if (!check_type(pp, json_is_boolean(pp), "port_policy.ports: pp", "true or false", error))
            return false;
    }
    *ret_policy = (struct policy){ports, json_is_true(restricts)};
    return true;
}

/* What the policy says of the port; NULL: nothing. */
static const json_t *policy_of(const struct policy *policy, unsigned port)
{
    size_t i;
    const json_t *item;
    json_array_foreach(policy->ports, i, item)
    {
        if (json_integer_value(json_object_get(item, "port")) == (json_int_t)port)
            return item;
    }
    return NULL;
}

static void restrict_ports(struct compose *compose, const struct policy *policy)
{
    size_t kept = 0;
    for (size_t i = 0; i < compose->port_count; i++) {
        struct compose_port *port = &compose->ports[i];
        char entry[COMPOSE_ENTRY_MAX];
        snprintf(entry, sizeof entry, "%u:%u", port->port, port->target);
        if (policy_of(policy, port->port))
            compose->ports[kept++] = *port;
        else
            compose_note(compose, slice_str(port->service), entry, true,
                         "port_policy restricts the app to its own list, which does not have the port");
    }
    compose->port_count = kept;
}

static bool add_policy_ports(struct compose *compose, const struct policy *policy, char *error)
{
    size_t i;
    const json_t *item;
    json_array_foreach(policy->ports, i, item)
    {
        struct compose_port port = {.service = "port_policy"};
        port.port = port.target = (uint16_t)json_integer_value(json_object_get(item, "port"));
        if (!compose_add_port(compose, &port))
            return fail(error, "port_policy.ports: with them the app has more than %d ports", COMPOSE_MAX_PORTS);
    }
    return true;
}

static bool apply_policy(struct compose *compose, const struct policy *policy, char *error)
{
    if (policy->restricts)
        restrict_ports(compose, policy);
    if (!add_policy_ports(compose, policy, error))
        return false;
    for (size_t i = 0; i < compose->port_count; i++) {
        const json_t *item = policy_of(policy, compose->ports[i].port);
        if (item)
            compose->ports[i].proxy_protocol = json_is_true(json_object_get(item, "pp")) ? "v2" : "off";
    }
    return true;
}

/* ---- the file ---- */

static bool read_root(const json_t *root, const struct compose_settings *settings, struct compose **ret_compose,
                      char *error)
{
    bool ok;
    struct policy policy;
    const json_t *text = find_compose(root, &ok, error);
    if (!ok || !read_policy(root, &policy, error))
        return false;
    if (!text && json_array_size(policy.ports) == 0)
        return fail(error, "the app runs no Compose file and has no port_policy: its ports cannot be known; register "
                           "it with gatewayctl app put");
    if (text ? !read_compose(text, settings, ret_compose, error) : !(*ret_compose = calloc(1, sizeof **ret_compose)))
        return false;
    return check_gateway(*ret_compose, root, error) && apply_policy(*ret_compose, &policy, error);
}

bool compose_app_parse(struct slice text, const struct compose_settings *settings, struct compose **ret_compose,
                       char ret_error[COMPOSE_ERROR_MAX])
{
    json_error_t wrong;
    struct compose *compose = NULL;
    json_t *root = json_loadb(text.ptr ? text.ptr : "", text.len, JSON_REJECT_DUPLICATES, &wrong);
    if (!root)
        return fail(ret_error, "line %d, column %d: %s", wrong.line, wrong.column, wrong.text);
    bool ok = read_root(root, settings, &compose, ret_error);
    json_decref(root);
    if (ok)
        *ret_compose = compose;
    else
        compose_free(&compose);
    return ok;
}
