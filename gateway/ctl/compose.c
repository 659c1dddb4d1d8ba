#include "compose_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

enum { MAX_MERGE_DEPTH = 16, MAX_VISITS = 100000 };

struct reading {
    yaml_document_t document;
    compose_env_cb env;
    void *env_arg;
    struct compose *compose;
    char *error;
    unsigned visits; /* nodes looked at for merge keys: a file of aliases to aliases must end too */
    struct slice service;
    bool host_network;
};

/* ---- errors and notes ---- */

__attribute__((format(printf, 2, 3))) static bool fail(struct reading *r, const char *format, ...)
{
    char text[COMPOSE_ERROR_MAX - COMPOSE_NAME_MAX - 16];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int name_len = (int)(r->service.len < COMPOSE_NAME_MAX ? r->service.len : COMPOSE_NAME_MAX);
    if (name_len > 0)
        snprintf(r->error, COMPOSE_ERROR_MAX, "service %.*s: %s", name_len, r->service.ptr, text);
    else
        snprintf(r->error, COMPOSE_ERROR_MAX, "%s", text);
    return false;
}

__attribute__((format(printf, 2, 3))) static void note(struct reading *r, const char *format, ...)
{
    struct compose *compose = r->compose;
    char text[COMPOSE_ERROR_MAX];
    char *line;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    compose->notes = realloc(compose->notes, (compose->note_count + 1) * sizeof *compose->notes);
    if (!compose->notes || asprintf(&line, "service %.*s: %s", SLICE_ARG(r->service), text) < 0)
        abort();
    compose->notes[compose->note_count++] = line;
}

/* ---- nodes ---- */

static yaml_node_t *node_at(struct reading *r, int index)
{
    return yaml_document_get_node(&r->document, index);
}

static struct slice scalar(const yaml_node_t *node)
{
    if (!node || node->type != YAML_SCALAR_NODE)
        return SLICE_NONE;
    return slice_make(node->data.scalar.value, node->data.scalar.length);
}

static bool is_null(const yaml_node_t *node)
{
    struct slice text = scalar(node);
    if (!node)
        return true;
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text.len == 0 || slice_eq(text, SLICE("~")) || slice_eq_nocase(text, SLICE("null")));
}

static yaml_node_t *direct_member(struct reading *r, const yaml_node_t *mapping, struct slice key)
{
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top; pair++)
        if (slice_eq(scalar(node_at(r, pair->key)), key))
            return node_at(r, pair->value);
    return NULL;
}

/* A member of a mapping, its own or by merge keys (<<): own ones win, then the first mapping merged. */
static yaml_node_t *member_at(struct reading *r, const yaml_node_t *mapping, struct slice key, unsigned depth)
{
    if (!mapping || mapping->type != YAML_MAPPING_NODE || depth > MAX_MERGE_DEPTH || ++r->visits > MAX_VISITS)
        return NULL;
    yaml_node_t *found = direct_member(r, mapping, key);
    yaml_node_t *merged = found ? NULL : direct_member(r, mapping, SLICE("<<"));
    if (!merged || merged->type != YAML_SEQUENCE_NODE)
        return found ? found : member_at(r, merged, key, depth + 1);
    for (yaml_node_item_t *item = merged->data.sequence.items.start; item < merged->data.sequence.items.top; item++)
        if ((found = member_at(r, node_at(r, *item), key, depth + 1)) != NULL)
            return found;
    return NULL;
}

static yaml_node_t *member(struct reading *r, const yaml_node_t *mapping, const char *key)
{
    return member_at(r, mapping, slice_str(key), 0);
}

/* The text of a scalar with its variables filled in, malloc'ed; NULL after an error. `what` names it. */
static char *text_of(struct reading *r, const yaml_node_t *node, const char *what)
{
    char error[COMPOSE_ERROR_MAX];
    if (!node || node->type != YAML_SCALAR_NODE) {
        fail(r, "%s: it must be a single value", what);
        return NULL;
    }
    char *text = compose_interpolate(scalar(node), r->env, r->env_arg, error);
    if (!text)
        fail(r, "%s: %.300s", what, error);
    return text;
}

/* ---- one entry ---- */

static bool add_port(struct reading *r, unsigned port, unsigned target, const char *protocol)
{
    struct compose *compose = r->compose;
    size_t at = 0;
    while (at < compose->port_count && compose->ports[at].port < port)
        at++;
    if (at < compose->port_count && compose->ports[at].port == port) {
        note(r, "host port %u is published twice (also by service %s); it is registered once", port,
             compose->ports[at].service);
        return true;
    }
    if (compose->port_count == COMPOSE_MAX_PORTS)
        return fail(r, "there are more than %d ports; an app has at most that many", COMPOSE_MAX_PORTS);
    struct compose_port *place = &compose->ports[at];
    memmove(place + 1, place, (compose->port_count - at) * sizeof *place);
    compose->port_count++;
    *place = (struct compose_port){.port = (uint16_t)port, .target = (uint16_t)target, .protocol = protocol};
    snprintf(place->service, sizeof place->service, "%.*s", SLICE_ARG(r->service));
    return true;
}

static bool is_loopback(struct slice ip)
{
    return slice_has_prefix(ip, SLICE("127.")) || slice_eq(ip, SLICE("::1")) || slice_eq_nocase(ip, SLICE("localhost"));
}

/* True if the gateway can serve the entry; else a note says why not. */
static bool is_servable(struct reading *r, const struct compose_entry *entry, const char *text)
{
    if (!slice_eq_nocase(entry->protocol, SLICE("tcp"))) {
        note(r, "%s: refused: the gateway carries TCP only, not %.*s", text, SLICE_ARG(entry->protocol));
        return false;
    }
    if (r->host_network) {
        note(r, "%s: refused: with network_mode: host Docker ignores ports; name the port under expose", text);
        return false;
    }
    if (entry->published.first == 0) {
        note(r, "%s: refused: without a published port Docker picks one at random; write \"%u:%u\"", text,
             entry->target.first, entry->target.first);
        return false;
    }
    return true;
}

static bool add_entry(struct reading *r, const struct compose_entry *entry, const char *text)
{
    const struct compose_range *published = &entry->published;
    if (!is_servable(r, entry, text))
        return true;
    if (published->last - published->first != entry->target.last - entry->target.first)
        return fail(r, "ports: %s: the ranges differ in size (%u published, %u in the container); make them equal",
                    text, published->last - published->first + 1, entry->target.last - entry->target.first + 1);
    if (is_loopback(entry->host_ip))
        note(r, "%s: bound to %.*s: the gateway reaches it only when it runs on the same host", text,
             SLICE_ARG(entry->host_ip));
    for (unsigned i = 0; i <= published->last - published->first; i++)
        if (!add_port(r, published->first + i, entry->target.first + i, entry->app_protocol))
            return false;
    return true;
}

static bool read_short(struct reading *r, const yaml_node_t *node)
{
    struct compose_entry entry;
    char *text = text_of(r, node, "ports");
    if (!text)
        return false;
    const char *wrong = compose_entry_parse(slice_trim(slice_str(text)), &entry);
    bool ok = wrong ? fail(r, "ports: \"%.100s\": %s", text, wrong) : add_entry(r, &entry, text);
    free(text);
    return ok;
}

/* ---- the long form ---- */

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

static bool check_long_keys(struct reading *r, const yaml_node_t *node)
{
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        struct slice key = scalar(node_at(r, pair->key));
        if (!is_long_key(key))
            return fail(r,
                        "ports: unknown key \"%.*s\"; known are target, published, protocol, host_ip, mode, name, "
                        "app_protocol",
                        (int)(key.len < 60 ? key.len : 60), key.ptr ? key.ptr : "");
    }
    return true;
}

static struct slice given(const char *text, struct slice otherwise)
{
    return text && *text ? slice_str(text) : otherwise;
}

static bool fill_long(struct reading *r, char *const *texts, struct compose_entry *entry)
{
    struct slice published = given(texts[LONG_PUBLISHED], SLICE_NONE);
    struct slice app_protocol = given(texts[LONG_APP_PROTOCOL], SLICE_NONE);
    struct slice mode = given(texts[LONG_MODE], SLICE("ingress"));
    *entry = (struct compose_entry){.protocol = given(texts[LONG_PROTOCOL], SLICE("tcp")),
                                    .host_ip = given(texts[LONG_HOST_IP], SLICE_NONE)};
    if (!texts[LONG_TARGET])
        return fail(r, "ports: the entry has no target; say target: and the container's port");
    if (!compose_range_parse(slice_str(texts[LONG_TARGET]), &entry->target))
        return fail(r, "ports: target \"%.60s\" is not 1..65535", texts[LONG_TARGET]);
    if (published.len > 0 && !compose_range_parse(published, &entry->published))
        return fail(r, "ports: published \"%.60s\" is not 1..65535 or a range", texts[LONG_PUBLISHED]);
    if (!slice_eq(mode, SLICE("ingress")) && !slice_eq(mode, SLICE("host")))
        return fail(r, "ports: mode \"%.60s\" is not ingress or host", texts[LONG_MODE]);
    entry->app_protocol = compose_app_protocol(app_protocol);
    if (app_protocol.len > 0 && !entry->app_protocol)
        return fail(r, "ports: app_protocol \"%.60s\" is unknown; use http, h2c, grpc, tcp, tls or auto",
                    texts[LONG_APP_PROTOCOL]);
    return true;
}

static bool read_long(struct reading *r, const yaml_node_t *node)
{
    char *texts[LONG_KEYS] = {NULL};
    char label[160];
    struct compose_entry entry;
    bool ok = check_long_keys(r, node);
    for (size_t i = 0; ok && i < LONG_KEYS; i++) {
        const yaml_node_t *value = member(r, node, long_keys[i]);
        if (!is_null(value))
            ok = (texts[i] = text_of(r, value, long_keys[i])) != NULL;
    }
    ok = ok && fill_long(r, texts, &entry);
    if (ok) {
        snprintf(label, sizeof label, "%.60s:%.20s", texts[LONG_PUBLISHED] ? texts[LONG_PUBLISHED] : "",
                 texts[LONG_TARGET]);
        ok = add_entry(r, &entry, label);
    }
    for (size_t i = 0; i < LONG_KEYS; i++)
        free(texts[i]);
    return ok;
}

/* ---- services ---- */

static bool read_ports(struct reading *r, const yaml_node_t *ports)
{
    if (is_null(ports))
        return true;
    if (ports->type != YAML_SEQUENCE_NODE)
        return fail(r, "ports must be a list, as in [\"8000:8000\"]");
    for (yaml_node_item_t *item = ports->data.sequence.items.start; item < ports->data.sequence.items.top; item++) {
        const yaml_node_t *node = node_at(r, *item);
        bool is_mapping = node->type == YAML_MAPPING_NODE;
        if (node->type == YAML_SEQUENCE_NODE)
            return fail(r, "ports: an entry is a string, a number or a mapping, not a list");
        if (!(is_mapping ? read_long(r, node) : read_short(r, node)))
            return false;
    }
    return true;
}

static bool read_exposed(struct reading *r, const yaml_node_t *node)
{
    struct compose_entry entry;
    char *text = text_of(r, node, "expose");
    if (!text)
        return false;
    const char *wrong = compose_entry_parse(slice_trim(slice_str(text)), &entry);
    bool ok = !wrong && entry.published.first == 0;
    if (!ok)
        fail(r, "expose: \"%.100s\" is not a port or a range of ports", text);
    if (ok && !slice_eq_nocase(entry.protocol, SLICE("tcp")))
        note(r, "%s: refused: the gateway carries TCP only", text);
    else if (ok)
        for (unsigned port = entry.target.first; ok && port <= entry.target.last; port++)
            ok = add_port(r, port, port, NULL);
    free(text);
    return ok;
}

/* Under network_mode: host there is no mapping: what listens in the container listens on the host. */
static bool read_host_network(struct reading *r, const yaml_node_t *expose)
{
    if (is_null(expose)) {
        note(r, "network_mode: host: its ports cannot be known from the file; name them under expose");
        return true;
    }
    if (expose->type != YAML_SEQUENCE_NODE)
        return fail(r, "expose must be a list, as in [\"8000\"]");
    note(r, "network_mode: host: the ports under expose are taken as ports of the host");
    for (yaml_node_item_t *item = expose->data.sequence.items.start; item < expose->data.sequence.items.top; item++)
        if (!read_exposed(r, node_at(r, *item)))
            return false;
    return true;
}

static bool read_network_mode(struct reading *r, const yaml_node_t *service)
{
    const yaml_node_t *node = member(r, service, "network_mode");
    r->host_network = false;
    if (is_null(node))
        return true;
    char *mode = text_of(r, node, "network_mode");
    if (!mode)
        return false;
    r->host_network = strcmp(mode, "host") == 0;
    free(mode);
    return true;
}

static bool read_service(struct reading *r, const yaml_node_t *service)
{
    if (is_null(service))
        return true;
    if (service->type != YAML_MAPPING_NODE)
        return fail(r, "it must be a mapping");
    if (!is_null(member(r, service, "extends")))
        note(r, "extends is not followed; give the output of `docker compose config` instead");
    if (!read_network_mode(r, service))
        return false;
    if (r->host_network && !read_host_network(r, member(r, service, "expose")))
        return false;
    return read_ports(r, member(r, service, "ports"));
}

static bool read_mapping_of_services(struct reading *r, const yaml_node_t *services, unsigned depth)
{
    if (services->type != YAML_MAPPING_NODE || depth > MAX_MERGE_DEPTH)
        return fail(r, "services must be a mapping of names");
    for (yaml_node_pair_t *pair = services->data.mapping.pairs.start; pair < services->data.mapping.pairs.top; pair++) {
        struct slice name = scalar(node_at(r, pair->key));
        if (slice_eq(name, SLICE("<<"))) {
            if (!read_mapping_of_services(r, node_at(r, pair->value), depth + 1))
                return false;
            continue;
        }
        r->service = name;
        if (!read_service(r, node_at(r, pair->value)))
            return false;
        r->service = SLICE_NONE;
    }
    return true;
}

static bool read_root(struct reading *r)
{
    yaml_node_t *root = yaml_document_get_root_node(&r->document);
    if (!root || root->type != YAML_MAPPING_NODE)
        return fail(r, "the file is not a Compose file: it must be a mapping with services:");
    const yaml_node_t *services = member(r, root, "services");
    if (is_null(services))
        return fail(r, "the file has no services:");
    if (!is_null(member(r, root, "include")))
        return fail(r, "include: is not followed; give the output of `docker compose config` instead");
    return read_mapping_of_services(r, services, 0);
}

/* ---- the file ---- */

static bool load(struct reading *r, struct slice text)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        abort();
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.ptr ? text.ptr : ""), text.len);
    bool ok = yaml_parser_load(&parser, &r->document) == 1;
    if (!ok)
        fail(r, "line %zu: not valid YAML: %.200s", parser.problem_mark.line + 1,
             parser.problem ? parser.problem : "unknown error");
    yaml_parser_delete(&parser);
    return ok;
}

bool compose_parse(struct slice text, compose_env_cb env, void *env_arg, struct compose **ret_compose,
                   char ret_error[COMPOSE_ERROR_MAX])
{
    struct reading r = {.env = env, .env_arg = env_arg, .error = ret_error};
    ret_error[0] = '\0';
    if (!load(&r, text))
        return false;
    r.compose = calloc(1, sizeof *r.compose);
    if (!r.compose)
        abort();
    bool ok = read_root(&r);
    yaml_document_delete(&r.document);
    if (ok)
        *ret_compose = r.compose;
    else
        compose_free(&r.compose);
    return ok;
}

void compose_free(struct compose **compose)
{
    if (!*compose)
        return;
    for (size_t i = 0; i < (*compose)->note_count; i++)
        free((*compose)->notes[i]);
    free((*compose)->notes);
    free(*compose);
    *compose = NULL;
}
