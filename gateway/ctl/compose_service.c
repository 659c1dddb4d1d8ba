#include "compose_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ENTRIES = 4096, MAX_EXTENDS = 16 };

/* The text of a scalar with its variables filled in, malloc'ed; NULL after an error. `what` names it. */
static char *text_of(struct compose_reading *r, const yaml_node_t *node, const char *what)
{
    char error[COMPOSE_ERROR_MAX];
    if (!node || node->type != YAML_SCALAR_NODE) {
        compose_fail(r, "%s: it must be a single value", what);
        return NULL;
    }
    char *text = compose_interpolate(compose_yaml_scalar(node), r->settings->env, r->settings->env_arg, error);
    if (!text)
        compose_fail(r, "%s: %.300s", what, error);
    return text;
}

/* ---- what a service holds ---- */

static void free_texts(char ***texts, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        free((*texts)[i]);
    free(*texts);
    *texts = NULL;
    *count = 0;
}

/* All of a project's services count together: a file of aliases to aliases must end too. */
static bool count_entry(struct compose_reading *r)
{
    if (++*r->entry_count > MAX_ENTRIES)
        return compose_fail(r, "there are more than %d entries of ports, expose and profiles", MAX_ENTRIES);
    return true;
}

/* Takes the text, unless the list has it already. */
static bool add_text(struct compose_reading *r, char ***texts, size_t *count, char *text)
{
    bool is_new = true;
    for (size_t i = 0; i < *count && is_new; i++)
        is_new = strcmp((*texts)[i], text) != 0;
    if (!is_new || !count_entry(r)) {
        free(text);
        return !is_new;
    }
    *texts = realloc(*texts, (*count + 1) * sizeof **texts);
    if (!*texts)
        abort();
    (*texts)[(*count)++] = text;
    return true;
}

static unsigned range_size(const struct compose_range *range)
{
    return range->last - range->first + 1;
}

/* A range for a single container port is Docker's choice; others must fit. */
static bool check_ranges(struct compose_reading *r, const struct compose_entry *entry)
{
    unsigned published = range_size(&entry->published);
    unsigned target = range_size(&entry->target);
    if (entry->published.first == 0 || published == target || target == 1)
        return true;
    return compose_fail(r, "ports: %s: the ranges differ in size (%u published, %u in the container); make them equal",
                        entry->text, published, target);
}

static bool add_entry(struct compose_reading *r, struct compose_service *service, const struct compose_entry *entry)
{
    if (!check_ranges(r, entry))
        return false;
    for (size_t i = 0; i < service->port_count; i++)
        if (compose_entry_same(&service->ports[i], entry)) {
            const char *known = service->ports[i].app_protocol;
            service->ports[i] = *entry;
            if (!entry->app_protocol)
                service->ports[i].app_protocol = known;
            return true;
        }
    if (!count_entry(r))
        return false;
    service->ports = realloc(service->ports, (service->port_count + 1) * sizeof *service->ports);
    if (!service->ports)
        abort();
    service->ports[service->port_count++] = *entry;
    return true;
}

static void clear_ports(struct compose_service *service)
{
    free(service->ports);
    service->ports = NULL;
    service->port_count = 0;
}

void compose_service_clear(struct compose_service *service)
{
    clear_ports(service);
    free_texts(&service->exposed, &service->expose_count);
    free_texts(&service->profiles, &service->profile_count);
    free(service->network_mode);
    service->network_mode = NULL;
}

void compose_service_fini(struct compose_service *service)
{
    compose_service_clear(service);
    free(service->name);
    service->name = NULL;
}

/* ---- ports, short form ---- */

static bool read_short(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    struct compose_entry entry;
    char *text = text_of(r, node, "ports");
    if (!text)
        return false;
    const char *wrong = compose_entry_parse(slice_trim(slice_str(text)), &entry);
    bool ok = wrong ? compose_fail(r, "ports: \"%.100s\": %s", text, wrong) : add_entry(r, service, &entry);
    free(text);
    return ok;
}

/* ---- ports, long form ---- */

/* The strings of one long entry, in the order of long_keys; NULL: not given. */
enum long_key { LONG_TARGET, LONG_PUBLISHED, LONG_PROTOCOL, LONG_HOST_IP, LONG_MODE, LONG_APP_PROTOCOL, LONG_NAME };
enum { LONG_KEYS = LONG_NAME + 1 };
static const char *const long_keys[LONG_KEYS] = {"target", "published",    "protocol", "host_ip",
                                                 "mode",   "app_protocol", "name"};

static bool is_long_key(struct slice key)
{
    for (size_t i = 0; i < LONG_KEYS; i++)
        if (slice_eq(key, slice_str(long_keys[i])))
            return true;
    return slice_eq(key, SLICE("<<")) || slice_has_prefix(key, SLICE("x-"));
}

static bool check_long_keys(struct compose_reading *r, const yaml_node_t *node)
{
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        struct slice key = compose_yaml_scalar(compose_yaml_node(&r->yaml, pair->key));
        if (!is_long_key(key))
            return compose_fail(r,
                                "ports: unknown key \"%.*s\"; known are target, published, protocol, host_ip, mode, "
                                "name, app_protocol",
                                (int)(key.len < 60 ? key.len : 60), key.ptr ? key.ptr : "");
    }
    return true;
}

static const char *given(const char *text, const char *otherwise)
{
    return text && *text ? text : otherwise;
}

static void fill_long_text(struct compose_entry *entry, char *const *texts)
{
    const char *published = given(texts[LONG_PUBLISHED], "");
    compose_copy_text(entry->protocol, sizeof entry->protocol, slice_str(given(texts[LONG_PROTOCOL], "tcp")));
    snprintf(entry->text, sizeof entry->text, "%.40s%s%.20s%s%s", published, *published ? ":" : "", texts[LONG_TARGET],
             texts[LONG_PROTOCOL] ? "/" : "", texts[LONG_PROTOCOL] ? entry->protocol : "");
}

static bool fill_long(struct compose_reading *r, char *const *texts, struct compose_entry *entry)
{
    const char *published = given(texts[LONG_PUBLISHED], NULL);
    const char *host_ip = given(texts[LONG_HOST_IP], NULL);
    const char *mode = given(texts[LONG_MODE], "ingress");
    const char *app_protocol = given(texts[LONG_APP_PROTOCOL], NULL);
    *entry = (struct compose_entry){.app_protocol = NULL};
    if (!texts[LONG_TARGET])
        return compose_fail(r, "ports: the entry has no target; say target: and the container's port");
    fill_long_text(entry, texts);
    if (!compose_range_parse(slice_str(texts[LONG_TARGET]), &entry->target))
        return compose_fail(r, "ports: target \"%.60s\" is not 1..65535", texts[LONG_TARGET]);
    if (published && !compose_published_parse(slice_str(published), &entry->published))
        return compose_fail(r, "ports: published \"%.60s\" is not 1..65535 or a range", published);
    if (host_ip && !compose_host_ip_parse(slice_str(host_ip), &entry->host_ip))
        return compose_fail(r, "ports: host_ip \"%.60s\" is not an IP address", host_ip);
    if (strcmp(mode, "ingress") != 0 && strcmp(mode, "host") != 0)
        return compose_fail(r, "ports: mode \"%.60s\" is not ingress or host", mode);
    entry->app_protocol = app_protocol ? compose_app_protocol(slice_str(app_protocol)) : NULL;
    if (app_protocol && !entry->app_protocol)
        compose_note(r->compose, r->service, entry->text, false,
                     "app_protocol %.60s is not known here and not looked at; http, h2c, grpc, tcp, tls and auto are",
                     app_protocol);
    return true;
}

static bool read_long(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    char *texts[LONG_KEYS] = {NULL};
    struct compose_entry entry;
    bool ok = check_long_keys(r, node);
    for (size_t i = 0; ok && i < LONG_KEYS; i++) {
        const yaml_node_t *value = compose_yaml_member(&r->yaml, node, long_keys[i]);
        if (!compose_yaml_is_null(value))
            ok = (texts[i] = text_of(r, value, long_keys[i])) != NULL;
    }
    ok = ok && fill_long(r, texts, &entry) && add_entry(r, service, &entry);
    for (size_t i = 0; i < LONG_KEYS; i++)
        free(texts[i]);
    return ok;
}

/* ---- lists ---- */

typedef bool (*item_cb)(struct compose_reading *r, struct compose_service *service, const yaml_node_t *item);

static bool read_list(struct compose_reading *r, struct compose_service *service, const yaml_node_t *list, item_cb read,
                      const char *what)
{
    if (compose_yaml_is_null(list) || compose_yaml_has_tag(list, "!reset"))
        return true;
    if (list->type != YAML_SEQUENCE_NODE)
        return compose_fail(r, "%s must be a list, as in [%s]", what,
                            strcmp(what, "ports") == 0 ? "\"8000:8000\"" : "\"a\", \"b\"");
    for (yaml_node_item_t *item = list->data.sequence.items.start; item < list->data.sequence.items.top; item++)
        if (!compose_yaml_visit(&r->yaml) || !read(r, service, compose_yaml_node(&r->yaml, *item)))
            return false;
    return true;
}

static bool starts_anew(const yaml_node_t *node)
{
    return compose_yaml_has_tag(node, "!reset") || compose_yaml_has_tag(node, "!override");
}

static bool read_port(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_MAPPING_NODE:
        return read_long(r, service, node);
    case YAML_SCALAR_NODE:
        return read_short(r, service, node);
    case YAML_SEQUENCE_NODE:
    case YAML_NO_NODE:
        break;
    }
    return compose_fail(r, "ports: an entry is a string, a number or a mapping, not a list");
}

/* Looked at only under network_mode: host, so that a variable that is not set does no harm before. */
static bool read_exposed(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    struct slice text = compose_yaml_scalar(node);
    char *copy = strndup(text.ptr ? text.ptr : "", text.len);
    if (!copy)
        abort();
    return add_text(r, &service->exposed, &service->expose_count, copy);
}

static bool read_profile(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    char *text = text_of(r, node, "profiles");
    return text && add_text(r, &service->profiles, &service->profile_count, text);
}

static bool merge_lists(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    const yaml_node_t *ports = compose_yaml_member(&r->yaml, node, "ports");
    const yaml_node_t *expose = compose_yaml_member(&r->yaml, node, "expose");
    const yaml_node_t *profiles = compose_yaml_member(&r->yaml, node, "profiles");
    if (starts_anew(ports))
        clear_ports(service);
    if (starts_anew(expose))
        free_texts(&service->exposed, &service->expose_count);
    if (starts_anew(profiles))
        free_texts(&service->profiles, &service->profile_count);
    return read_list(r, service, ports, read_port, "ports") && read_list(r, service, expose, read_exposed, "expose") &&
           read_list(r, service, profiles, read_profile, "profiles");
}

/* ---- the service ---- */

static bool merge_network_mode(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node)
{
    const yaml_node_t *mode = compose_yaml_member(&r->yaml, node, "network_mode");
    bool resets = compose_yaml_has_tag(mode, "!reset");
    char *text = NULL;
    if (!resets && compose_yaml_is_null(mode))
        return true;
    if (!resets && !(text = text_of(r, mode, "network_mode")))
        return false;
    free(service->network_mode);
    service->network_mode = text;
    return true;
}

static bool merge_at(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node,
                     unsigned depth);

/* `extends: NAME`, or a mapping with service and perhaps file. Another file cannot be read from here. */
static bool merge_extended(struct compose_reading *r, struct compose_service *service, const yaml_node_t *extends,
                           unsigned depth)
{
    bool is_mapping = extends && extends->type == YAML_MAPPING_NODE;
    if (compose_yaml_is_null(extends) || compose_yaml_has_tag(extends, "!reset"))
        return true;
    const yaml_node_t *file = is_mapping ? compose_yaml_member(&r->yaml, extends, "file") : NULL;
    const yaml_node_t *name = is_mapping ? compose_yaml_member(&r->yaml, extends, "service") : extends;
    char *text = text_of(r, name, "extends");
    if (!text)
        return false;
    const yaml_node_t *base = compose_yaml_is_null(file) ? compose_yaml_member(&r->yaml, r->services, text) : NULL;
    bool ok = true;
    if (base && depth >= MAX_EXTENDS)
        ok = compose_fail(r, "extends: %.60s: it extends itself", text);
    else if (base)
        ok = merge_at(r, service, base, depth + 1);
    else
        compose_note(r->compose, r->service, "", false,
                     "extends %.60s, which is not in this file and not followed: its ports are missing; give the "
                     "output of `docker compose config` instead",
                     text);
    free(text);
    return ok;
}

static bool merge_at(struct compose_reading *r, struct compose_service *service, const yaml_node_t *node,
                     unsigned depth)
{
    if (starts_anew(node))
        compose_service_clear(service);
    if (compose_yaml_is_null(node) || compose_yaml_has_tag(node, "!reset"))
        return true;
    if (node->type != YAML_MAPPING_NODE)
        return compose_fail(r, "it must be a mapping");
    return merge_extended(r, service, compose_yaml_member(&r->yaml, node, "extends"), depth) &&
           merge_network_mode(r, service, node) && merge_lists(r, service, node);
}

bool compose_service_merge(struct compose_reading *reading, struct compose_service *service, const yaml_node_t *node)
{
    return merge_at(reading, service, node, 0);
}
