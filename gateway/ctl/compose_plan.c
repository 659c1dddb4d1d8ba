#include "gateway/ctl/compose_plan.h"

#include "gateway/ctl/text.h"

#include <stdio.h>
#include <stdlib.h>

/* The lists of a document, what their items are called, and what tells them apart. */
static const struct list {
    const char *member;
    const char *what;
    const char *key;
} lists[] = {
    {"ports", "port", "port"},
    {"domains", "domain", "name"},
    {"instances", "instance", "instance_id"},
};
enum { LIST_COUNT = sizeof lists / sizeof lists[0] };

static void set(json_t *object, const char *name, json_t *value)
{
    if (json_object_set_new(object, name, value) != 0)
        abort();
}

static void append(json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        abort();
}

/* A copy that can be changed; an empty one for NULL. */
static json_t *copy_or(const json_t *value, json_t *otherwise)
{
    if (!value)
        return otherwise;
    json_decref(otherwise);
    json_t *copy = json_deep_copy(value);
    if (!copy)
        abort();
    return copy;
}

const json_t *compose_document_item(const json_t *document, const char *list, const char *key, const json_t *value)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(document, list), i, item)
    {
        if (value && json_equal(json_object_get(item, key), value))
            return item;
    }
    return NULL;
}

/* ---- ports ---- */

static const json_t *known_port(const json_t *document, unsigned port)
{
    json_t *number = json_integer(port);
    const json_t *item = compose_document_item(document, "ports", "port", number);
    json_decref(number);
    return item;
}

static json_t *plan_port(const struct compose_port *port, const json_t *stored, const json_t *replaced)
{
    const json_t *known = known_port(stored, port->port);
    if (!known)
        known = known_port(replaced, port->port);
    json_t *planned =
        copy_or(known, json_pack("{si ss ss}", "port", (int)port->port, "protocol", "auto", "proxy_protocol", "off"));
    if (port->protocol)
        set(planned, "protocol", json_string(port->protocol));
    if (port->proxy_protocol)
        set(planned, "proxy_protocol", json_string(port->proxy_protocol));
    return planned;
}

static json_t *plan_ports(const struct compose *compose, const json_t *stored, const json_t *replaced)
{
    json_t *ports = json_array();
    for (size_t i = 0; i < compose->port_count; i++)
        append(ports, plan_port(&compose->ports[i], stored, replaced));
    return ports;
}

/* ---- domains, limits ---- */

static json_t *plan_domains(const json_t *stored, const json_t *replaced)
{
    size_t i;
    const json_t *domain;
    json_t *planned = json_object();
    set(planned, "domains", copy_or(json_object_get(stored, "domains"), json_array()));
    json_array_foreach(json_object_get(replaced, "domains"), i, domain)
    {
        if (!compose_document_item(planned, "domains", "name", json_object_get(domain, "name")))
            append(json_object_get(planned, "domains"), copy_or(domain, json_object()));
    }
    json_t *domains = json_incref(json_object_get(planned, "domains"));
    json_decref(planned);
    return domains;
}

static json_t *plan_limits(const json_t *stored, const json_t *replaced)
{
    const char *name;
    json_t *value;
    json_t *limits = copy_or(json_object_get(stored, "limits"),
                             json_pack("{si si}", "max_connections", 0, "requests_per_second", 0));
    json_object_foreach((json_t *)(uintptr_t)json_object_get(replaced, "limits"), name, value)
    {
        if (json_integer_value(json_object_get(limits, name)) == 0)
            set(limits, name, json_incref(value));
    }
    return limits;
}

/* ---- instances ---- */

static json_t *find_instance(json_t *planned, const struct compose_wish *wish)
{
    const char *id = wish->instance;
    json_t *address = json_string(wish->address);
    json_t *wanted = json_string(id ? id : "");
    const json_t *item = id ? compose_document_item(planned, "instances", "instance_id", wanted)
                            : compose_document_item(planned, "instances", "address", address);
    json_decref(address);
    json_decref(wanted);
    return (json_t *)(uintptr_t)item;
}

static json_t *add_instance(json_t *planned, const struct compose_wish *wish)
{
    char *id;
    if (asprintf(&id, wish->instance ? "%s" : "%s-i1", wish->instance ? wish->instance : wish->app_id) < 0)
        abort();
    json_t *text = json_string(id);
    json_t *known = (json_t *)(uintptr_t)compose_document_item(planned, "instances", "instance_id", text);
    if (!known) {
        known = json_pack("{ss ss si ss si}", "instance_id", id, "address", wish->address, "generation", 1, "state",
                          "running", "weight", 1);
        append(json_object_get(planned, "instances"), known);
    }
    json_decref(text);
    free(id);
    return known;
}

static void plan_instances(json_t *planned, const json_t *stored, const json_t *replaced,
                           const struct compose_wish *wish)
{
    const json_t *own = json_object_get(stored, "instances");
    const json_t *others = json_object_get(replaced, "instances");
    set(planned, "instances", copy_or(json_array_size(own) > 0 ? own : others, json_array()));
    if (!wish->address)
        return;
    json_t *instance = find_instance(planned, wish);
    if (!instance)
        instance = add_instance(planned, wish);
    set(instance, "address", json_string(wish->address));
    set(instance, "state", json_string("running"));
    if (wish->has_generation)
        set(instance, "generation", json_integer(wish->generation));
}

json_t *compose_plan(const json_t *stored, const json_t *replaced, const struct compose_wish *wish)
{
    const json_t *base = stored ? stored : replaced;
    json_t *planned = copy_or(base, json_pack("{sb}", "restrict_ports", 1));
    set(planned, "app_id", json_string(wish->app_id));
    json_object_del(planned, "revision");
    set(planned, "ports", plan_ports(wish->compose, stored, replaced));
    set(planned, "domains", plan_domains(stored, replaced));
    set(planned, "limits", plan_limits(stored, replaced));
    plan_instances(planned, stored, replaced, wish);
    return planned;
}

/* ---- what differs ---- */

static void add_change(json_t *changes, const char *what, const json_t *key, const json_t *from, const json_t *to)
{
    json_t *change = json_pack("{ss ss}", "change", !from ? "added" : !to ? "removed" : "changed", "what", what);
    if (key)
        set(change, "key", copy_or(key, NULL));
    if (from)
        set(change, "from", copy_or(from, NULL));
    if (to)
        set(change, "to", copy_or(to, NULL));
    append(changes, change);
}

static void compare(json_t *changes, const char *what, const json_t *key, const json_t *from, const json_t *to)
{
    bool is_same = from && to ? json_equal(from, to) : !from && !to;
    if (!is_same)
        add_change(changes, what, key, from, to);
}

static void compare_lists(json_t *changes, const struct list *list, const json_t *from, const json_t *to)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(to, list->member), i, item)
    {
        const json_t *key = json_object_get(item, list->key);
        compare(changes, list->what, key, compose_document_item(from, list->member, list->key, key), item);
    }
    json_array_foreach(json_object_get(from, list->member), i, item)
    {
        const json_t *key = json_object_get(item, list->key);
        if (!compose_document_item(to, list->member, list->key, key))
            add_change(changes, list->what, key, item, NULL);
    }
}

static void compare_limits(json_t *changes, const json_t *from, const json_t *to)
{
    const char *name;
    const json_t *value;
    json_t *limits = json_object_get(to, "limits");
    json_object_foreach(limits, name, value)
    {
        json_t *key = json_string(name);
        const json_t *old = json_object_get(json_object_get(from, "limits"), name);
        if (old || json_integer_value(value) != 0)
            compare(changes, "limit", key, old, value);
        json_decref(key);
    }
}

void compose_diff_remove_app(json_t *changes, const json_t *app, const json_t *successor)
{
    size_t i;
    const json_t *item;
    add_change(changes, "app", json_object_get(app, "app_id"), app, NULL);
    json_array_foreach(json_object_get(app, "instances"), i, item)
    {
        const json_t *id = json_object_get(item, "instance_id");
        if (!compose_document_item(successor, "instances", "instance_id", id))
            add_change(changes, "instance", id, item, NULL);
    }
}

json_t *compose_diff(const json_t *from, const json_t *to)
{
    json_t *changes = json_array();
    compare(changes, "app", NULL, json_object_get(from, "app_id"), json_object_get(to, "app_id"));
    for (size_t i = 0; i < LIST_COUNT; i++)
        compare_lists(changes, &lists[i], from, to);
    compare_limits(changes, from, to);
    if (from)
        compare(changes, "restrict_ports", NULL, json_object_get(from, "restrict_ports"),
                json_object_get(to, "restrict_ports"));
    return changes;
}

/* ---- for people ---- */

static void print_value(const json_t *value, FILE *out)
{
    char *text =
        json_is_string(value) ? strdup(json_string_value(value)) : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text)
        abort();
    fputs(text, out);
    free(text);
}

static bool is_key(const char *name)
{
    for (size_t i = 0; i < LIST_COUNT; i++)
        if (strcmp(name, lists[i].key) == 0)
            return true;
    return false;
}

static void print_member(const char *name, const json_t *from, const json_t *to, const char **separator, FILE *out)
{
    fprintf(out, "%s%s%s", *separator, name, *name ? " " : "");
    if (from && to) {
        print_value(from, out);
        fputs(" -> ", out);
    }
    print_value(to ? to : from, out);
    if (from && !to)
        fputs(" -> none", out);
    *separator = ", ";
}

/* Of an item that is in both documents only what differs; "port" is the key of ports, but not of domains. */
static void print_members(const char *what, const json_t *from, const json_t *to, FILE *out)
{
    const char *name;
    json_t *value;
    const char *separator = ": ";
    bool both = from && to;
    json_object_foreach((json_t *)(uintptr_t)(to ? to : from), name, value)
    {
        const json_t *old = both ? json_object_get(from, name) : NULL;
        bool named = is_key(name) && !(strcmp(what, "domain") == 0 && strcmp(name, "port") == 0);
        if (!named && !(old && json_equal(old, value)))
            print_member(name, old, value, &separator, out);
    }
    json_object_foreach((json_t *)(uintptr_t)(both ? from : NULL), name, value)
    {
        if (!json_object_get(to, name))
            print_member(name, value, NULL, &separator, out);
    }
}

static void print_change(const json_t *change, FILE *out)
{
    const char *what = json_string_value(json_object_get(change, "what"));
    const json_t *key = json_object_get(change, "key");
    const json_t *from = json_object_get(change, "from");
    const json_t *to = json_object_get(change, "to");
    const char *separator = ": ";
    fprintf(out, "  %c %s", !from ? '+' : !to ? '-' : '~', what);
    if (key) {
        fputc(' ', out);
        print_value(key, out);
    }
    if (key && strcmp(what, "app") == 0)
        fputs(": its domains and limits move", out);
    else if (json_is_object(to ? to : from))
        print_members(what, from, to, out);
    else
        print_member("", from, to, &separator, out);
    fputc('\n', out);
}

void compose_diff_print(const json_t *changes, FILE *out)
{
    size_t i;
    const json_t *change;
    json_array_foreach(changes, i, change)
    {
        print_change(change, out);
    }
}
