/* gatewayctl compose: registers what a Compose file publishes, and says under which URLs. */
#include "ctl.h"

#include "gateway/ctl/compose.h"

#include <stdlib.h>

enum { MAX_ID_BYTES = 63 };

static const char *from_environment(void *arg, const char *name)
{
    (void)arg;
    return getenv(name);
}

/* ---- the document ---- */

static char *instance_id(const struct ctl_options *options)
{
    char *id;
    if (asprintf(&id, options->instance ? "%s" : "%s-i1", options->instance ? options->instance : options->app) < 0)
        abort();
    return id;
}

/*
 * The generation that the gateway knows of this instance, so that repeating the command is no step back; 1 if it knows
 * none.
 */
static enum ctl_exit known_generation(const struct ctl_options *options, const char *id, json_int_t *ret_generation)
{
    size_t i;
    char *path;
    const json_t *instance;
    struct ctl_reply reply;
    char *app = ctl_http_encode(options->app);
    if (asprintf(&path, "/v1/apps/%s", app) < 0)
        abort();
    enum ctl_exit result = ctl_http_try(options, &(struct ctl_call){.method = "GET", .path = path}, &reply);
    json_t *json = result == CTL_OK ? json_loadb(reply.body, reply.len, 0, NULL) : NULL;
    *ret_generation = 1;
    json_array_foreach(json_object_get(json, "instances"), i,
                       instance) if (strcmp(ctl_string(instance, "instance_id"), id) == 0) *ret_generation =
        json_integer_value(json_object_get(instance, "generation"));
    json_decref(json);
    ctl_reply_free(&reply);
    free(path);
    free(app);
    return result == CTL_REFUSED ? CTL_OK : result;
}

static enum ctl_exit choose_generation(const struct ctl_options *options, const char *id, json_int_t *ret_generation)
{
    uint64_t value;
    *ret_generation = 1;
    if (!options->generation)
        return options->dry_run ? CTL_OK : known_generation(options, id, ret_generation);
    if (!slice_to_u64(slice_str(options->generation), &value) || value > INT64_MAX) {
        ctl_error("--generation %s: give a number", options->generation);
        return CTL_USAGE;
    }
    *ret_generation = (json_int_t)value;
    return CTL_OK;
}

static json_t *ports_json(const struct compose *compose)
{
    json_t *ports = json_array();
    for (size_t i = 0; i < compose->port_count; i++)
        json_array_append_new(
            ports, json_pack("{si ss*}", "port", (int)compose->ports[i].port, "protocol", compose->ports[i].protocol));
    return ports;
}

static json_t *document_json(const struct ctl_options *options, const struct compose *compose, const char *instance,
                             json_int_t generation)
{
    return json_pack("{ss so s[{ss ss sI ss}]}", "app_id", options->app, "ports", ports_json(compose), "instances",
                     "instance_id", instance, "address", options->address, "generation", generation, "state",
                     "running");
}

/* ---- the URLs ---- */

/* The base domains to print, from --domain or the gateway; an array of strings. */
static enum ctl_exit find_domains(const struct ctl_options *options, json_t **ret_domains)
{
    struct ctl_reply reply;
    if (options->domain || options->dry_run) {
        *ret_domains = options->domain ? json_pack("[s]", options->domain) : json_pack("[s]", "<base domain>");
        return CTL_OK;
    }
    enum ctl_exit result = ctl_http_call(options, &(struct ctl_call){.method = "GET", .path = "/v1/status"}, &reply);
    json_t *json = result == CTL_OK ? ctl_reply_json(&reply) : NULL;
    *ret_domains = json_incref(json_object_get(json, "base_domains"));
    if (result == CTL_OK && !json_is_array(*ret_domains))
        result = CTL_UNREACHABLE;
    json_decref(json);
    ctl_reply_free(&reply);
    return result;
}

/* tcp ports are no URL for a browser: their client speaks TLS, then whatever the app speaks. */
static json_t *url_json(const struct ctl_options *options, const struct compose_port *port, const char *domain)
{
    char *url;
    const char *protocol = port->protocol ? port->protocol : "auto";
    const char *scheme = strcmp(protocol, "tcp") == 0 ? "tls" : "https";
    if (asprintf(&url, "%s://%s-%u.%s", scheme, options->app, port->port, domain) < 0)
        abort();
    json_t *json = json_pack("{ss si si ss ss}", "service", port->service, "port", (int)port->port, "target",
                             (int)port->target, "protocol", protocol, "url", url);
    free(url);
    return json;
}

static json_t *urls_json(const struct ctl_options *options, const struct compose *compose, const json_t *domains)
{
    json_t *urls = json_array();
    for (size_t d = 0; d < json_array_size(domains); d++)
        for (size_t i = 0; i < compose->port_count; i++)
            json_array_append_new(urls,
                                  url_json(options, &compose->ports[i], json_string_value(json_array_get(domains, d))));
    return urls;
}

static void print_urls(const json_t *urls)
{
    size_t i;
    const json_t *item;
    struct ctl_table *table = ctl_table_new(4);
    static const char *const titles[] = {"SERVICE", "PORT", "PROTOCOL", "URL"};
    for (i = 0; i < sizeof titles / sizeof titles[0]; i++)
        ctl_table_cell(table, "%s", titles[i]);
    json_array_foreach(urls, i, item)
    {
        ctl_table_cell(table, "%s", ctl_string(item, "service"));
        ctl_table_cell(table, "%lld", (long long)json_integer_value(json_object_get(item, "port")));
        ctl_table_cell(table, "%s", ctl_string(item, "protocol"));
        ctl_table_cell(table, "%s", ctl_string(item, "url"));
    }
    ctl_table_print(&table, stdout);
}

/* ---- the command ---- */

static enum ctl_exit register_app(const struct ctl_options *options, const json_t *document, json_t **ret_stored)
{
    char *path;
    struct ctl_reply reply;
    char *text = json_dumps(document, JSON_COMPACT);
    char *app = ctl_http_encode(options->app);
    if (!text || asprintf(&path, "/v1/apps/%s", app) < 0)
        abort();
    struct ctl_call call = {.method = "PUT", .path = path, .body = slice_str(text), .content_type = "application/json"};
    enum ctl_exit result = ctl_http_call(options, &call, &reply);
    *ret_stored = result == CTL_OK ? ctl_reply_json(&reply) : NULL;
    if (result == CTL_OK && !*ret_stored)
        result = CTL_UNREACHABLE;
    ctl_reply_free(&reply);
    free(path);
    free(app);
    free(text);
    return result;
}

static void print_result(const struct ctl_options *options, const struct compose *compose, json_t *app, json_t *urls)
{
    json_t *notes = json_array();
    for (size_t i = 0; i < compose->note_count; i++) {
        char *line = compose_note_line(&compose->notes[i]);
        json_array_append_new(notes, json_string(line));
        free(line);
    }
    if (options->json) {
        json_t *all = json_pack("{sO sO sO}", "app", app, "urls", urls, "notes", notes);
        ctl_print_json(all);
        json_decref(all);
    } else {
        if (options->dry_run) {
            json_dumpf(app, stdout, JSON_INDENT(2));
            putchar('\n');
        }
        print_urls(urls);
    }
    json_decref(notes);
}

static enum ctl_exit run(const struct ctl_options *options, const struct compose *compose, const char *instance)
{
    json_int_t generation;
    json_t *domains = NULL;
    json_t *app = NULL;
    enum ctl_exit result = choose_generation(options, instance, &generation);
    json_t *document = result == CTL_OK ? document_json(options, compose, instance, generation) : NULL;
    if (result == CTL_OK && !document) {
        ctl_error("--app, --instance or --address is not text");
        result = CTL_USAGE;
    }
    if (result == CTL_OK)
        result = find_domains(options, &domains);
    if (result == CTL_OK && options->dry_run)
        app = json_incref(document);
    else if (result == CTL_OK)
        result = register_app(options, document, &app);
    if (result == CTL_OK) {
        json_t *urls = urls_json(options, compose, domains);
        print_result(options, compose, app, urls);
        json_decref(urls);
    }
    json_decref(document);
    json_decref(domains);
    json_decref(app);
    return result;
}

/* ---- the files ---- */

static bool add_file(struct compose_reader *reader, const char *file)
{
    size_t len;
    char error[COMPOSE_ERROR_MAX];
    char *text = ctl_read_file(file, &len);
    bool ok = text && compose_reader_add(reader, slice_make(text, len), error);
    if (text && !ok)
        ctl_error("%s: %s", file, error);
    free(text);
    return ok;
}

/* What the files publish; NULL after saying what is wrong. */
static struct compose *read_project(const struct ctl_options *options)
{
    char error[COMPOSE_ERROR_MAX];
    struct compose *compose = NULL;
    struct compose_settings settings = {.env = from_environment,
                                        .profiles = options->profile ? options->profile : getenv("COMPOSE_PROFILES")};
    struct compose_reader *reader = compose_reader_new(&settings);
    bool ok = true;
    for (int i = 0; ok && i < options->argc; i++)
        ok = add_file(reader, options->argv[i]);
    if (ok && !compose_reader_finish(reader, &compose, error))
        ctl_error("%s: %s", options->argv[0], error);
    compose_reader_free(&reader);
    return compose;
}

static void print_notes(const char *file, const struct compose *compose)
{
    for (size_t i = 0; i < compose->note_count; i++) {
        char *line = compose_note_line(&compose->notes[i]);
        ctl_error("%s: note: %s", file, line);
        free(line);
    }
}

enum ctl_exit ctl_compose(const struct ctl_options *options)
{
    const char *file = options->argv[0];
    struct ip_addr address;
    if (!options->app || !options->address) {
        ctl_error("compose needs --app ID and --address IP; see gatewayctl --help");
        return CTL_USAGE;
    }
    struct compose *compose = read_project(options);
    if (!compose)
        return CTL_USAGE;
    if (ip_parse(slice_str(options->address), &address))
        compose_check_addresses(compose, &address, 1);
    if (!options->json)
        print_notes(file, compose);
    char *instance = instance_id(options);
    enum ctl_exit result = CTL_USAGE;
    if (compose->port_count == 0)
        ctl_error("%s: no port can be registered%s", file,
                  compose->note_count > 0 && options->json ? "; run it without --json to see why" : "");
    else if (strlen(instance) > MAX_ID_BYTES)
        ctl_error("the instance id %s has more than %d bytes; give a shorter one with --instance", instance,
                  MAX_ID_BYTES);
    else
        result = run(options, compose, instance);
    free(instance);
    compose_free(&compose);
    return result;
}
