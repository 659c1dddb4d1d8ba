#include "gateway/control/config.h"

#include "config_sections.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEFAULT_DRAIN_MS = 30000, DEFAULT_MAX_APPS = 2000000, DEFAULT_DNS_MS = 5000, LOCAL_ADDRESSES_MAX = 256 };

static const char default_state_dir[] = "/var/lib/phala-gateway";
static const struct config_control default_control = {.unix_socket = "/run/phala-gateway/control.sock"};

/* ---- the other keys ---- */

static bool read_format(struct config_reader *reader, const struct config_key *key, void *target)
{
    char error[ACCESS_LOG_ERROR_TEXT_MAX] = "";
    const char *format = NULL;
    if (!config_read_string(reader, key, &format))
        return false;
    if (!access_log_check_format(format, error))
        return config_refuse(reader, "%s", error);
    *(const char **)target = format;
    return true;
}

static bool read_access_log_path(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    return slice_eq(text, SLICE("-")) || config_read_path(reader, key, target);
}

static bool read_client(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const char *const names[] = {"full", "masked", "off", NULL};
    unsigned choice = 0;
    if (!config_read_choice(reader, &(struct config_key){.name = key->name, .names = names}, &choice))
        return false;
    *(enum access_client *)target = (enum access_client)choice;
    return true;
}

static bool read_query(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const char *const names[] = {"full", "dropped", "hashed", NULL};
    unsigned choice = 0;
    if (!config_read_choice(reader, &(struct config_key){.name = key->name, .names = names}, &choice))
        return false;
    *(enum access_query *)target = (enum access_query)choice;
    return true;
}

static bool read_log_level(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const char *const names[] = {"error", "warn", "info", "debug", NULL};
    unsigned choice = 0;
    if (!config_read_choice(reader, &(struct config_key){.name = key->name, .names = names}, &choice))
        return false;
    *(enum log_level *)target = (enum log_level)choice;
    return true;
}

static bool read_access_log(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        {.name = "path", .read = read_access_log_path, .offset = offsetof(struct access_log_options, path)},
        {.name = "format", .read = read_format, .offset = offsetof(struct access_log_options, format)},
        {.name = "client", .read = read_client, .offset = offsetof(struct access_log_options, client)},
        {.name = "query", .read = read_query, .offset = offsetof(struct access_log_options, query)},
    };
    (void)key;
    return config_read_mapping(reader, keys, CONFIG_COUNT(keys), target);
}

static bool read_root(struct config_reader *reader)
{
    static const struct config_key keys[] = {
        {.name = "workers",
         .read = config_read_count,
         .offset = offsetof(struct config, workers),
         .max = CONFIG_MAX_WORKERS},
        {.name = "state_dir", .read = config_read_path, .offset = offsetof(struct config, state_dir)},
        {.name = "base_domains", .read = config_sections_base_domains, .required = true},
        {.name = "listeners", .read = config_listeners_data, .required = true},
        {.name = "control", .read = config_listeners_control},
        {.name = "upstream", .read = config_sections_upstream, .required = true},
        {.name = "access_log", .read = read_access_log, .offset = offsetof(struct config, access_log)},
        {.name = "dns", .read = config_sections_dns, .offset = offsetof(struct config, dns)},
        {.name = "sync", .read = config_sync_read},
        {.name = "trusted_proxies", .read = config_sections_trusted_proxies},
        {.name = "limits", .read = config_sections_limits},
        {.name = "timeouts", .read = config_sections_timeouts},
        {.name = "log_level", .read = read_log_level, .offset = offsetof(struct config, log_level)},
    };
    return config_read_mapping(reader, keys, CONFIG_COUNT(keys), reader->config) && config_listeners_check(reader);
}

/* ---- what follows from the keys ---- */

static unsigned cpu_count(void)
{
    cpu_set_t cpus;
    int count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    return count < 1 ? 1 : count > CONFIG_MAX_WORKERS ? CONFIG_MAX_WORKERS : (unsigned)count;
}

static void share_base_domains(const struct config *config)
{
    struct settings *settings = config->settings;
    settings->base_domains = calloc(config->base_domain_count, sizeof *settings->base_domains);
    if (!settings->base_domains)
        abort();
    for (size_t i = 0; i < config->base_domain_count; i++) {
        const char *name = strdup(config->base_domains[i].name);
        if (!name)
            abort();
        settings->base_domains[i] = slice_str(name);
        settings->base_domain_count++;
    }
}

struct own_listeners {
    union ip_sockaddr *list;
    size_t count;
    struct ip_addr local[LOCAL_ADDRESSES_MAX];
    size_t local_count;
};

/* A listener on the any address listens on each address of this machine. */
static void add_own(struct own_listeners *own, const struct ip_addr *addr, uint16_t port)
{
    ip_to_sockaddr(addr, port, &own->list[own->count++]);
    if (ip_kind(addr) != IP_UNSPECIFIED)
        return;
    for (size_t i = 0; i < own->local_count; i++)
        if (own->local[i].family == addr->family)
            ip_to_sockaddr(&own->local[i], port, &own->list[own->count++]);
}

/* No route may lead back to the gateway: what `config` listens on becomes a rule of `settings`. */
static void share_own_listeners(const struct config *config, struct settings *settings)
{
    struct own_listeners own = {0};
    own.local_count = ip_local_addresses(own.local, LOCAL_ADDRESSES_MAX);
    size_t most = (config->listener_count + config->control_count) * (own.local_count + 1);
    own.list = calloc(most, sizeof *own.list);
    if (!own.list)
        abort();
    for (size_t i = 0; i < config->listener_count; i++)
        add_own(&own, &config->listeners[i].addr, config->listeners[i].port);
    for (size_t i = 0; i < config->control_count; i++)
        if (!config->controls[i].unix_socket)
            add_own(&own, &config->controls[i].addr, config->controls[i].port);
    union {
        const union ip_sockaddr *in;
        union ip_sockaddr *out;
    } old = {.in = settings->rules.own_listeners};
    free(old.out);
    settings->rules.own_listeners = own.list;
    settings->rules.own_listener_count = own.count;
}

void config_keep_own_listeners(struct config *config, const struct config *running)
{
    share_own_listeners(running, config->settings);
}

static bool requires_header(const struct config *config, const struct config_listener *listener)
{
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *own = &config->listeners[i];
        if (ip_equal(&own->addr, &listener->addr) && own->port == listener->port)
            return own->proxy_protocol_required;
    }
    return false;
}

static bool trust_alike(const struct settings *a, const struct settings *b)
{
    if (a->trusted_proxy_count != b->trusted_proxy_count)
        return false;
    for (size_t i = 0; i < a->trusted_proxy_count; i++) {
        const struct ip_network *x = &a->trusted_proxies[i], *y = &b->trusted_proxies[i];
        if (!ip_equal(&x->addr, &y->addr) || x->prefix != y->prefix)
            return false;
    }
    return true;
}

static void copy_trust(struct settings *to, const struct settings *from)
{
    struct ip_network *copy = calloc(from->trusted_proxy_count + 1, sizeof *copy);
    if (!copy)
        abort();
    for (size_t i = 0; i < from->trusted_proxy_count; i++)
        copy[i] = from->trusted_proxies[i];
    free(to->trusted_proxies);
    to->trusted_proxies = copy;
    to->trusted_proxy_count = from->trusted_proxy_count;
}

bool config_keep_trusted_proxies(struct config *config, const struct config *running, const struct config *in_force)
{
    if (trust_alike(config->settings, in_force->settings))
        return false;
    for (size_t i = 0; i < running->listener_count; i++) {
        const struct config_listener *listener = &running->listeners[i];
        if (!listener->proxy_protocol_required || requires_header(config, listener))
            continue;
        copy_trust(config->settings, in_force->settings);
        return true;
    }
    return false;
}

static void finish(struct config *config)
{
    if (config->workers == 0)
        config->workers = cpu_count();
    if (!config->controls) {
        config->controls = &default_control;
        config->control_count = 1;
    }
    share_base_domains(config);
    share_own_listeners(config, config->settings);
}

/* ---- from text to config ---- */

static struct config *new_config(const char *path)
{
    struct config *config = calloc(1, sizeof *config);
    if (!config)
        abort();
    arena_init(&config->arena, NULL);
    config->path = arena_printf(&config->arena, "%s", path).ptr;
    config->state_dir = default_state_dir;
    config->access_log.format = "json";
    config->drain_ms = DEFAULT_DRAIN_MS;
    config->max_apps = DEFAULT_MAX_APPS;
    config->dns = (struct config_dns){.enabled = true, .timeout_ms = DEFAULT_DNS_MS};
    config->log_level = LOG_LEVEL_INFO;
    config->settings = settings_new();
    return config;
}

void config_free(struct config **config)
{
    struct config *old = *config;
    *config = NULL;
    if (!old)
        return;
    settings_unref(&old->settings);
    arena_reset(&old->arena);
    free(old);
}

static size_t line_of(struct slice text, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < text.len; i++)
        line += text.ptr[i] == '\n';
    return line;
}

static void report_yaml(const yaml_parser_t *parser, struct slice text, const char *path, char *ret_error)
{
    const char *problem = parser->problem ? parser->problem : "it cannot be read";
    size_t line =
        parser->error == YAML_READER_ERROR ? line_of(text, parser->problem_offset) : parser->problem_mark.line + 1;
    snprintf(ret_error, CONFIG_ERROR_TEXT_MAX,
             "%s:%zu: this is not valid YAML: %s%s%s; mend the line, or the one before", path, line,
             parser->context ? parser->context : "", parser->context ? ", " : "", problem);
}

/* The file is one document: what comes after it would be silently ignored. */
static bool is_last_document(yaml_parser_t *parser, struct slice text, const char *path, char *ret_error)
{
    yaml_document_t next;
    if (!yaml_parser_load(parser, &next)) {
        report_yaml(parser, text, path, ret_error);
        return false;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&next);
    if (root)
        snprintf(ret_error, CONFIG_ERROR_TEXT_MAX, "%s:%zu: a second YAML document begins here; use one only", path,
                 root->start_mark.line + 1);
    bool is_last = !root;
    yaml_document_delete(&next);
    return is_last;
}

static bool read_document(yaml_document_t *document, struct config *config, char *ret_error)
{
    const char *slash = strrchr(config->path, '/');
    struct config_reader reader = {
        .document = document,
        .config = config,
        .file = config->path,
        .folder = slice_make(config->path, slash ? (size_t)(slash - config->path) + 1 : 0),
        .error = ret_error,
        .node = yaml_document_get_root_node(document),
    };
    if (reader.node)
        return read_root(&reader);
    snprintf(ret_error, CONFIG_ERROR_TEXT_MAX, "%s:1: the file is empty; it needs base_domains, listeners and upstream",
             config->path);
    return false;
}

static bool parse(yaml_parser_t *parser, struct slice text, struct config *config, char *ret_error)
{
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) {
        report_yaml(parser, text, config->path, ret_error);
        return false;
    }
    bool ok = read_document(&document, config, ret_error);
    ok = ok && is_last_document(parser, text, config->path, ret_error);
    yaml_document_delete(&document);
    return ok;
}

enum status config_parse(struct slice text, const char *path, struct config **ret_config,
                         char ret_error[CONFIG_ERROR_TEXT_MAX])
{
    yaml_parser_t parser;
    if (text.len > CONFIG_MAX_FILE_BYTES) {
        snprintf(ret_error, CONFIG_ERROR_TEXT_MAX, "%s: the file is larger than %d bytes; use a smaller one", path,
                 CONFIG_MAX_FILE_BYTES);
        return STATUS_INVALID_RECORD;
    }
    if (!yaml_parser_initialize(&parser))
        abort();
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.ptr, text.len);
    struct config *config = new_config(path);
    bool ok = parse(&parser, text, config, ret_error);
    yaml_parser_delete(&parser);
    if (!ok) {
        config_free(&config);
        return STATUS_INVALID_RECORD;
    }
    finish(config);
    *ret_config = config;
    return STATUS_OK;
}

/* ---- from file to text ---- */

/* Reads one byte more than is allowed, so that config_parse sees that it is too large. -1: errno says why. */
static ssize_t read_file(const char *path, char *buffer, size_t size)
{
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = 0;
    while (len < size && ((n = read(fd, buffer + len, size - len)) > 0 || (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    int error = errno;
    close(fd);
    errno = error;
    return n < 0 ? -1 : (ssize_t)len;
}

enum status config_load(const char *path, struct config **ret_config, char ret_error[CONFIG_ERROR_TEXT_MAX])
{
    enum status status = STATUS_INVALID_RECORD;
    char *buffer = malloc(CONFIG_MAX_FILE_BYTES + 1);
    if (!buffer)
        abort();
    ssize_t len = read_file(path, buffer, CONFIG_MAX_FILE_BYTES + 1);
    if (len < 0)
        snprintf(ret_error, CONFIG_ERROR_TEXT_MAX, "%s: %s; give the path of a readable YAML file", path,
                 strerror(errno));
    else
        status = config_parse(slice_make(buffer, (size_t)len), path, ret_config, ret_error);
    free(buffer);
    return status;
}
