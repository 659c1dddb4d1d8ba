/* status, drain, reload, resolve: what the gateway says about itself and its names. */
#include "ctl.h"

#include <stdlib.h>

/* The answer of a call as JSON; NULL with the exit status set when there is none. */
static json_t *fetch(const struct ctl_options *options, const char *method, const char *path, enum ctl_exit *ret_result)
{
    json_t *json;
    *ret_result = ctl_http_json(options, &(struct ctl_call){.method = method, .path = path}, &json);
    return json;
}

/* One line a member; objects are shown member by member, arrays joined. */
static void add_value(struct ctl_table *table, const char *prefix, const char *key, json_t *value)
{
    const char *name;
    json_t *inner;
    size_t i;
    if (json_is_object(value)) {
        json_object_foreach(value, name, inner) add_value(table, key, name, inner);
        return;
    }
    if (json_array_size(value) > 0) {
        json_array_foreach(value, i, inner) add_value(table, "", key, inner);
        return;
    }
    ctl_table_cell(table, "%s%s%s", prefix, *prefix ? "." : "", key);
    bool is_scalar = !json_is_string(value) && !json_is_array(value);
    char *text = is_scalar ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6)) : NULL;
    const char *shown = text ? text : json_string_value(value);
    ctl_table_cell(table, "%s", shown && *shown ? shown : "-");
    free(text);
}

static void print_members(json_t *json)
{
    struct ctl_table *table = ctl_table_new(2);
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) add_value(table, "", key, value);
    ctl_table_print(&table, stdout);
}

enum ctl_exit ctl_status(const struct ctl_options *options)
{
    enum ctl_exit result;
    json_t *json = fetch(options, "GET", "/v1/status", &result);
    if (json && options->json)
        ctl_print_json(json);
    else if (json)
        print_members(json);
    json_decref(json);
    return result;
}

static void print_needs_restart(const json_t *json)
{
    size_t i;
    const json_t *section;
    json_array_foreach(json_object_get(json, "needs_restart"), i, section)
    {
        ctl_error("note: %s changed, which needs a restart; the old value stays in force", json_string_value(section));
    }
}

static enum ctl_exit operate(const struct ctl_options *options, const char *path, const char *done)
{
    enum ctl_exit result;
    json_t *json = fetch(options, "POST", path, &result);
    if (json && options->json)
        ctl_print_json(json);
    else if (json)
        puts(done);
    if (json && !options->json)
        print_needs_restart(json);
    json_decref(json);
    return result;
}

enum ctl_exit ctl_drain(const struct ctl_options *options)
{
    return operate(options, "/v1/drain", "the gateway drains: it takes no new connections and ends after the last");
}

enum ctl_exit ctl_reload(const struct ctl_options *options)
{
    return operate(options, "/v1/reload", "reloaded");
}

/* ---- resolve ---- */

static void print_steps(const json_t *json)
{
    size_t i;
    const json_t *item;
    struct ctl_table *table = ctl_table_new(2);
    ctl_table_cell(table, "STEP");
    ctl_table_cell(table, "RESULT");
    json_array_foreach(json_object_get(json, "steps"), i, item)
    {
        ctl_table_cell(table, "%s", ctl_string(item, "step"));
        ctl_table_cell(table, "%s", ctl_string(item, "result"));
    }
    ctl_table_print(&table, stdout);
}

static long long count_of(const json_t *health, const char *key)
{
    return (long long)json_integer_value(json_object_get(health, key));
}

/* What workers hold against it. */
static void add_health(struct ctl_table *table, const json_t *health)
{
    long long workers = count_of(health, "workers");
    if (count_of(health, "down") > 0)
        ctl_table_cell(table, "check fails at %lld of %lld workers", count_of(health, "down"), workers);
    else if (count_of(health, "ejected") > 0)
        ctl_table_cell(table, "left out by %lld of %lld workers", count_of(health, "ejected"), workers);
    else if (count_of(health, "failures") > 0)
        ctl_table_cell(table, "%lld failures", count_of(health, "failures"));
    else
        ctl_table_cell(table, "well");
}

static void print_instances(const json_t *instances)
{
    size_t i;
    const json_t *item;
    if (json_array_size(instances) == 0)
        return;
    struct ctl_table *table = ctl_table_new(6);
    static const char *const titles[] = {"INSTANCE", "ADDRESS", "STATE", "TAKES REQUESTS", "SHARE", "HEALTH"};
    for (i = 0; i < sizeof titles / sizeof titles[0]; i++)
        ctl_table_cell(table, "%s", titles[i]);
    json_array_foreach(instances, i, item)
    {
        ctl_table_cell(table, "%s", ctl_string(item, "instance_id"));
        ctl_table_cell(table, "%s", *ctl_string(item, "address") ? ctl_string(item, "address") : "-");
        ctl_table_cell(table, "%s", ctl_string(item, "state"));
        bool takes = json_is_true(json_object_get(item, "takes_requests"));
        ctl_table_cell(table, "%s%s", takes ? "yes" : "no: ", ctl_string(item, "why_not"));
        ctl_table_cell(table, "%lld %%", (long long)json_integer_value(json_object_get(item, "share_percent")));
        add_health(table, json_object_get(item, "health"));
    }
    putchar('\n');
    ctl_table_print(&table, stdout);
}

static void print_resolved(const json_t *json)
{
    if (json_is_true(json_object_get(json, "routes")) && *ctl_string(json, "app_id"))
        printf("%s routes to app %s, port %lld, protocol %s\n\n", ctl_string(json, "host"), ctl_string(json, "app_id"),
               (long long)json_integer_value(json_object_get(json, "port")), ctl_string(json, "protocol"));
    else if (json_is_true(json_object_get(json, "routes")))
        printf("%s is answered by the gateway itself\n\n", ctl_string(json, "host"));
    else
        printf("%s does not route: %s (%s)\n%s\n\n", ctl_string(json, "host"), ctl_string(json, "detail"),
               ctl_string(json, "code"), ctl_string(json, "advice"));
    print_steps(json);
    print_instances(json_object_get(json, "instances"));
}

enum ctl_exit ctl_resolve(const struct ctl_options *options)
{
    char *path;
    enum ctl_exit result;
    char *host = ctl_http_encode(options->argv[0]);
    if (asprintf(&path, "/v1/resolve?host=%s", host) < 0)
        abort();
    json_t *json = fetch(options, "GET", path, &result);
    if (json && options->json)
        ctl_print_json(json);
    else if (json)
        print_resolved(json);
    if (json && !json_is_true(json_object_get(json, "routes")))
        result = CTL_REFUSED;
    json_decref(json);
    free(path);
    free(host);
    return result;
}
