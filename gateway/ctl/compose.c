#include "compose_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SERVICES = 1000, MAX_NOTES = 1000 };

struct compose_reader {
    struct compose_settings settings;
    struct compose *compose;
    struct compose_service *services;
    size_t service_count;
    size_t entry_count;
};

/* ---- errors and notes ---- */

bool compose_fail(struct compose_reading *r, const char *format, ...)
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

void compose_copy_text(char *ret_text, size_t size, struct slice text)
{
    size_t len = text.len < size ? text.len : size - 1;
    while (len > 0 && len < text.len && ((unsigned char)text.ptr[len] & 0xc0) == 0x80)
        len--;
    memcpy(ret_text, text.ptr ? text.ptr : "", len);
    ret_text[len] = '\0';
}

void compose_note(struct compose *compose, struct slice service, const char *entry, bool left_out, const char *format,
                  ...)
{
    va_list args;
    if (compose->note_count == MAX_NOTES)
        return;
    compose->notes = realloc(compose->notes, (compose->note_count + 1) * sizeof *compose->notes);
    if (!compose->notes)
        abort();
    struct compose_note *note = &compose->notes[compose->note_count];
    *note = (struct compose_note){.left_out = left_out};
    compose_copy_text(note->service, sizeof note->service, service);
    compose_copy_text(note->entry, sizeof note->entry, slice_str(entry));
    va_start(args, format);
    if (vasprintf(&note->text, format, args) < 0)
        abort();
    va_end(args);
    compose->note_count++;
}

char *compose_note_line(const struct compose_note *note)
{
    char *line;
    bool has_service = note->service[0] != '\0';
    bool has_entry = note->entry[0] != '\0';
    if (asprintf(&line, "%s%s%s%s%s%s%s", has_service ? "service " : "", note->service, has_service ? ": " : "",
                 note->entry, has_entry ? ": " : "", note->left_out ? "left out: " : "", note->text) < 0)
        abort();
    return line;
}

/* ---- from entries to ports ---- */

/* What a service publishes, being gathered. */
struct gathering {
    struct compose *compose;
    struct slice service;
    const char *network_mode; /* NULL: the default */
};

static bool is_host_network(const struct gathering *g)
{
    return g->network_mode && strcmp(g->network_mode, "host") == 0;
}

static void add_binding(struct compose *compose, const struct compose_binding *binding)
{
    for (size_t i = 0; i < compose->binding_count; i++)
        if (compose->bindings[i].port == binding->port && ip_equal(&compose->bindings[i].ip, &binding->ip))
            return;
    compose->bindings = realloc(compose->bindings, (compose->binding_count + 1) * sizeof *compose->bindings);
    if (!compose->bindings)
        abort();
    compose->bindings[compose->binding_count++] = *binding;
}

/* Docker would not start two services that bind one port at one address; it may be bound at several. */
static void join_port(struct gathering *g, struct compose_port *known, const struct compose_port *port)
{
    char entry[COMPOSE_ENTRY_MAX];
    known->is_bound &= port->is_bound;
    if (strcmp(known->service, port->service) != 0 || known->target != port->target) {
        snprintf(entry, sizeof entry, "%u:%u", port->port, port->target);
        compose_note(g->compose, g->service, entry, false,
                     "host port %u is published twice (also by service %s); it is registered once", port->port,
                     known->service);
        return;
    }
    if (port->protocol)
        known->protocol = port->protocol;
}

static size_t place_of(const struct compose *compose, unsigned port)
{
    size_t at = 0;
    while (at < compose->port_count && compose->ports[at].port < port)
        at++;
    return at;
}

bool compose_add_port(struct compose *compose, const struct compose_port *port)
{
    size_t at = place_of(compose, port->port);
    struct compose_port *place = &compose->ports[at];
    if (at < compose->port_count && place->port == port->port)
        return true;
    if (compose->port_count == COMPOSE_MAX_PORTS)
        return false;
    memmove(place + 1, place, (compose->port_count - at) * sizeof *place);
    compose->port_count++;
    *place = *port;
    return true;
}

static void gather_port(struct gathering *g, const struct compose_port *port)
{
    struct compose *compose = g->compose;
    size_t at = place_of(compose, port->port);
    if (at < compose->port_count && compose->ports[at].port == port->port)
        join_port(g, &compose->ports[at], port);
    else if (!compose_add_port(compose, port))
        abort(); /* add_ports has seen that there is room */
}

static unsigned range_size(const struct compose_range *range)
{
    return range->last - range->first + 1;
}

static size_t count_known(const struct compose *compose, const struct compose_range *range)
{
    size_t count = 0;
    for (size_t i = 0; i < compose->port_count; i++)
        count += compose->ports[i].port >= range->first && compose->ports[i].port <= range->last;
    return count;
}

/* All ports of the entry, or none. */
static void add_ports(struct gathering *g, const struct compose_entry *entry, const struct compose_range *published)
{
    struct compose *compose = g->compose;
    size_t new_count = range_size(published) - count_known(compose, published);
    if (new_count > COMPOSE_MAX_PORTS - compose->port_count) {
        compose_note(compose, g->service, entry->text, true,
                     "with its %u ports the app has more than %d, the most there can be", range_size(published),
                     COMPOSE_MAX_PORTS);
        return;
    }
    struct compose_port port = {.protocol = entry->app_protocol, .is_bound = entry->host_ip.family != 0};
    compose_copy_text(port.service, sizeof port.service, g->service);
    for (unsigned i = 0; i < range_size(published); i++) {
        port.port = (uint16_t)(published->first + i);
        port.target = (uint16_t)(entry->target.first + i);
        gather_port(g, &port);
        if (port.is_bound)
            add_binding(compose, &(struct compose_binding){.port = port.port, .ip = entry->host_ip});
    }
}

/* Why the gateway cannot serve an entry of `ports`, malloc'ed; NULL: it can. */
static char *reason_against(const struct gathering *g, const struct compose_entry *entry)
{
    char *text = NULL;
    int len = 0;
    const struct compose_range *published = &entry->published;
    if (!slice_eq_nocase(slice_str(entry->protocol), SLICE("tcp")))
        len = asprintf(&text, "the gateway carries TCP only, not %s", entry->protocol);
    else if (is_host_network(g))
        len = asprintf(&text, "with network_mode: host Docker ignores ports; name the port under expose");
    else if (g->network_mode && strcmp(g->network_mode, "bridge") != 0 && strcmp(g->network_mode, "default") != 0)
        len = asprintf(&text, "with network_mode: %.60s Docker publishes no ports of this service", g->network_mode);
    else if (published->first == 0)
        len = asprintf(&text, "without a published port Docker picks one at random; write \"%u:%u\"",
                       entry->target.first, entry->target.first);
    else if (range_size(published) > range_size(&entry->target))
        len = asprintf(&text, "Docker picks one of the %u published ports at random; write \"%u:%u\"",
                       range_size(published), published->first, entry->target.first);
    if (len < 0)
        abort();
    return text;
}

static void gather_entry(struct gathering *g, const struct compose_entry *entry)
{
    char *reason = reason_against(g, entry);
    if (reason)
        compose_note(g->compose, g->service, entry->text, true, "%s", reason);
    else
        add_ports(g, entry, &entry->published);
    free(reason);
}

/* ---- expose ---- */

/* Under network_mode: host there is no mapping: what listens in the container listens on the host. */
static bool gather_exposed(struct gathering *g, const struct compose_settings *settings, const char *exposed,
                           struct compose_reading *r)
{
    char error[COMPOSE_ERROR_MAX];
    struct compose_entry entry;
    char *text = compose_interpolate(slice_str(exposed), settings->env, settings->env_arg, error);
    if (!text)
        return compose_fail(r, "expose: %.300s", error);
    const char *wrong = compose_entry_parse(slice_trim(slice_str(text)), &entry);
    bool ok = !wrong && entry.published.first == 0 && !strchr(entry.text, ':');
    if (!ok)
        compose_fail(r, "expose: \"%.100s\" is not a port or a range of ports", text);
    else if (!slice_eq_nocase(slice_str(entry.protocol), SLICE("tcp")))
        compose_note(g->compose, g->service, entry.text, true, "the gateway carries TCP only, not %s", entry.protocol);
    else
        add_ports(g, &entry, &entry.target);
    free(text);
    return ok;
}

static bool gather_host_network(struct gathering *g, const struct compose_settings *settings,
                                const struct compose_service *service, struct compose_reading *r)
{
    compose_note(g->compose, g->service, "", false,
                 service->expose_count > 0
                     ? "network_mode: host: the ports under expose are taken as ports of the host"
                     : "network_mode: host: its ports cannot be known from the file; name them under expose");
    for (size_t i = 0; i < service->expose_count; i++)
        if (!gather_exposed(g, settings, service->exposed[i], r))
            return false;
    return true;
}

/* ---- services ---- */

static bool is_active(const struct compose_settings *settings, const struct compose_service *service)
{
    struct slice name;
    struct slice active = slice_str(settings->profiles ? settings->profiles : "");
    if (service->profile_count == 0)
        return true;
    while (slice_next_element(&active, &name))
        for (size_t i = 0; i < service->profile_count; i++)
            if (slice_eq(name, SLICE("*")) || slice_eq(name, slice_str(service->profiles[i])))
                return true;
    return false;
}

static bool gather_service(struct compose_reader *reader, const struct compose_service *service,
                           struct compose_reading *r)
{
    struct gathering g = {reader->compose, slice_str(service->name), service->network_mode};
    r->service = g.service;
    if (!is_active(&reader->settings, service)) {
        for (size_t i = 0; i < service->port_count; i++)
            compose_note(g.compose, g.service, service->ports[i].text, true,
                         "the service is not started unless its profile is active; give --profile %.60s",
                         service->profiles[0]);
        return true;
    }
    if (is_host_network(&g) && !gather_host_network(&g, &reader->settings, service, r))
        return false;
    if (!is_host_network(&g) && service->port_count == 0)
        for (size_t i = 0; i < service->expose_count; i++)
            compose_note(g.compose, g.service, service->exposed[i], true,
                         "expose opens it to other services only; name it under ports to publish it");
    for (size_t i = 0; i < service->port_count; i++)
        gather_entry(&g, &service->ports[i]);
    return true;
}

static struct compose_service *service_of(struct compose_reader *reader, struct slice name)
{
    for (size_t i = 0; i < reader->service_count; i++)
        if (slice_eq(slice_str(reader->services[i].name), name))
            return &reader->services[i];
    if (reader->service_count == MAX_SERVICES)
        return NULL;
    reader->services = realloc(reader->services, (reader->service_count + 1) * sizeof *reader->services);
    char *copy = strndup(name.ptr ? name.ptr : "", name.len);
    if (!reader->services || !copy)
        abort();
    struct compose_service *service = &reader->services[reader->service_count++];
    *service = (struct compose_service){.name = copy};
    return service;
}

/* ---- one document ---- */

struct adding {
    struct compose_reader *reader;
    struct compose_reading *reading;
};

static bool merge_service(void *arg, struct slice name, const yaml_node_t *node)
{
    struct adding *a = arg;
    struct compose_service *service = service_of(a->reader, name);
    if (!service)
        return compose_fail(a->reading, "there are more than %d services", MAX_SERVICES);
    a->reading->service = name;
    bool ok = compose_service_merge(a->reading, service, node);
    a->reading->service = SLICE_NONE;
    return ok;
}

/* A file without services may add to others; a project needs some, see compose_reader_finish. */
static bool merge_root(struct compose_reader *reader, struct compose_reading *r)
{
    struct adding adding = {reader, r};
    yaml_node_t *root = yaml_document_get_root_node(&r->yaml.document);
    const yaml_node_t *doubled = compose_yaml_doubled_key(&r->yaml);
    r->error[0] = '\0';
    if (doubled)
        return compose_fail(r, "line %zu: the key \"%.*s\" is here twice; keep one", doubled->start_mark.line + 1,
                            (int)(doubled->data.scalar.length < 100 ? doubled->data.scalar.length : 100),
                            (const char *)doubled->data.scalar.value);
    if (root->type != YAML_MAPPING_NODE)
        return compose_fail(r, "the file is not a Compose file: it must be a mapping with services:");
    if (!compose_yaml_is_null(compose_yaml_member(&r->yaml, root, "include")))
        return compose_fail(r, "include: is not followed; give the output of `docker compose config` instead");
    r->services = compose_yaml_member(&r->yaml, root, "services");
    if (compose_yaml_is_null(r->services))
        return true;
    bool ok = compose_yaml_each(&r->yaml, r->services, merge_service, &adding);
    if (!compose_yaml_visit(&r->yaml))
        return compose_fail(r, "the aliases and merge keys of the file are too intricate to follow");
    return ok || r->error[0] ? ok : compose_fail(r, "services must be a mapping of names");
}

/* ---- the files ---- */

struct compose_reader *compose_reader_new(const struct compose_settings *settings)
{
    struct compose_reader *reader = calloc(1, sizeof *reader);
    if (!reader || !(reader->compose = calloc(1, sizeof *reader->compose)))
        abort();
    reader->settings = *settings;
    return reader;
}

/* Each document of the file in turn. */
bool compose_reader_add(struct compose_reader *reader, struct slice text, char ret_error[COMPOSE_ERROR_MAX])
{
    yaml_parser_t parser;
    bool ok = true;
    bool found = false;
    struct compose_reading r = {.settings = &reader->settings,
                                .compose = reader->compose,
                                .entry_count = &reader->entry_count,
                                .error = ret_error};
    if (!yaml_parser_initialize(&parser))
        abort();
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.ptr ? text.ptr : ""), text.len);
    for (bool more = true; ok && more;) {
        if (!yaml_parser_load(&parser, &r.yaml.document)) {
            ok = compose_fail(&r, "line %zu: not valid YAML: %.200s", parser.problem_mark.line + 1,
                              parser.problem ? parser.problem : "unknown error");
            break;
        }
        more = yaml_document_get_root_node(&r.yaml.document) != NULL;
        found |= more;
        ok = !more || merge_root(reader, &r);
        yaml_document_delete(&r.yaml.document);
    }
    yaml_parser_delete(&parser);
    if (ok && !found)
        ok = compose_fail(&r, "the file is not a Compose file: it is empty");
    return ok;
}

bool compose_reader_finish(struct compose_reader *reader, struct compose **ret_compose,
                           char ret_error[COMPOSE_ERROR_MAX])
{
    struct compose_reading r = {.error = ret_error};
    if (reader->service_count == 0)
        return compose_fail(&r, "the file has no services:");
    for (size_t i = 0; i < reader->service_count; i++)
        if (!gather_service(reader, &reader->services[i], &r))
            return false;
    *ret_compose = reader->compose;
    reader->compose = NULL;
    return true;
}

void compose_reader_free(struct compose_reader **reader)
{
    struct compose_reader *old = *reader;
    *reader = NULL;
    if (!old)
        return;
    for (size_t i = 0; i < old->service_count; i++)
        compose_service_fini(&old->services[i]);
    free(old->services);
    compose_free(&old->compose);
    free(old);
}

bool compose_parse(struct slice text, const struct compose_settings *settings, struct compose **ret_compose,
                   char ret_error[COMPOSE_ERROR_MAX])
{
    struct compose_reader *reader = compose_reader_new(settings);
    bool ok = compose_reader_add(reader, text, ret_error) && compose_reader_finish(reader, ret_compose, ret_error);
    compose_reader_free(&reader);
    return ok;
}

void compose_free(struct compose **compose)
{
    if (!*compose)
        return;
    for (size_t i = 0; i < (*compose)->note_count; i++)
        free((*compose)->notes[i].text);
    free((*compose)->notes);
    free((*compose)->bindings);
    free(*compose);
    *compose = NULL;
}

/* ---- what is bound to some addresses ---- */

/* What the gateway, connecting to one of some addresses, finds of what is bound to one. */
enum reach { REACH_NONE, REACH_MAYBE, REACH_EXACT };

static enum reach reach_of(const struct ip_addr *bound, const struct ip_addr *addresses, size_t count)
{
    enum reach reach = count == 0 || ip_kind(bound) == IP_ORDINARY ? REACH_MAYBE : REACH_NONE;
    for (size_t i = 0; i < count; i++) {
        if (ip_equal(bound, &addresses[i]))
            return REACH_EXACT;
        if (ip_kind(bound) == IP_LOOPBACK && ip_kind(&addresses[i]) == IP_LOOPBACK)
            reach = REACH_MAYBE;
    }
    return reach;
}

static enum reach best_reach(const struct compose *compose, const struct compose_port *port,
                             const struct ip_addr *addresses, size_t count)
{
    enum reach best = REACH_NONE;
    for (size_t i = 0; i < compose->binding_count; i++) {
        enum reach reach = reach_of(&compose->bindings[i].ip, addresses, count);
        if (compose->bindings[i].port == port->port && reach > best)
            best = reach;
    }
    return best;
}

static void note_bound(struct compose *compose, const struct compose_port *port, const struct ip_addr *bound,
                       enum reach reach)
{
    char entry[COMPOSE_ENTRY_MAX];
    char ip[IP_TEXT_MAX];
    ip_format(bound, ip);
    snprintf(entry, sizeof entry, "%s:%u:%u", ip, port->port, port->target);
    if (reach == REACH_NONE)
        compose_note(compose, slice_str(port->service), entry, true,
                     "bound to %s, which the gateway cannot reach from outside the host; leave the address out", ip);
    else if (ip_kind(bound) == IP_LOOPBACK)
        compose_note(compose, slice_str(port->service), entry, false,
                     "bound to %s: the gateway reaches it only when it runs on the same host", ip);
    else
        compose_note(compose, slice_str(port->service), entry, false,
                     "bound to %s: the gateway reaches it only if connections to the instance arrive there", ip);
}

/* Of the addresses that are reached as well as the best one. */
static void note_bindings(struct compose *compose, const struct compose_port *port, enum reach best,
                          const struct ip_addr *addresses, size_t count)
{
    for (size_t i = 0; i < compose->binding_count; i++) {
        const struct compose_binding *binding = &compose->bindings[i];
        if (binding->port == port->port && reach_of(&binding->ip, addresses, count) == best)
            note_bound(compose, port, &binding->ip, best);
    }
}

void compose_check_addresses(struct compose *compose, const struct ip_addr *addresses, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < compose->port_count; i++) {
        const struct compose_port *port = &compose->ports[i];
        enum reach best = port->is_bound ? best_reach(compose, port, addresses, count) : REACH_EXACT;
        if (best != REACH_EXACT)
            note_bindings(compose, port, best, addresses, count);
        if (best != REACH_NONE)
            compose->ports[kept++] = *port;
    }
    compose->port_count = kept;
}
