#include "app_document_internal.h"
#include "app_scan.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIELD_SIZE = sizeof((struct route_problem *)0)->field, TEXT_SIZE = sizeof((struct route_problem *)0)->detail };
enum { ID_MAX = 63, DOMAIN_MAX = 253 };

/* One object of the document: where it is, and where to say what is wrong with it. */
struct place {
    struct route_problem *problem;
    char path[FIELD_SIZE]; /* "", or "instances[0]." */
};

static enum status refuse(const struct place *place, const char *member, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum status refuse(const struct place *place, const char *member, const char *format, ...)
{
    char field[FIELD_SIZE];
    char detail[TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    /* A cut-off name of a member is good enough to find it. */
    size_t len = strnlen(place->path, sizeof field - 1);
    memcpy(field, place->path, len);
    snprintf(field + len, sizeof field - len, "%s", member);
    return route_problem_set(place->problem, STATUS_INVALID_RECORD, field, "%s", detail);
}

/* ---- from text to values ---- */

/* Nesting is bounded before the JSON library, which recurses, sees the text. */
static bool is_too_deep(struct slice json)
{
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < json.len; i++) {
        char c = json.ptr[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > APP_DOCUMENT_MAX_DEPTH)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

/* The library's text for a repeated member ends in: near '"name"'. */
static enum status refuse_duplicate(const json_error_t *error, struct route_problem *ret_problem)
{
    const char *start = strchr(error->text, '"');
    const char *end = start ? strchr(start + 1, '"') : NULL;
    char field[FIELD_SIZE];
    snprintf(field, sizeof field, "%.*s", end ? (int)(end - start - 1) : 0, end ? start + 1 : "");
    return route_problem_set(ret_problem, STATUS_INVALID_RECORD, field,
                             "the member stands twice in one object (line %d, column %d); send it once", error->line,
                             error->column);
}

enum status app_document_load(struct slice json, size_t max_bytes, json_t **ret_root, struct route_problem *ret_problem)
{
    json_error_t error;
    if (json.len > max_bytes)
        return route_problem_set(ret_problem, STATUS_PAYLOAD_TOO_LARGE, "", "%zu bytes; at most %zu are read", json.len,
                                 max_bytes);
    if (is_too_deep(json))
        return route_problem_set(ret_problem, STATUS_INVALID_JSON, "", "nested deeper than %d levels",
                                 (int)APP_DOCUMENT_MAX_DEPTH);
    json_t *root = json_loadb(json.ptr ? json.ptr : "", json.len, JSON_REJECT_DUPLICATES, &error);
    if (!root && json_error_code(&error) == json_error_duplicate_key)
        return refuse_duplicate(&error, ret_problem);
    if (!root)
        return route_problem_set(ret_problem, STATUS_INVALID_JSON, "", "line %d, column %d: %s", error.line,
                                 error.column, error.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return route_problem_set(ret_problem, STATUS_INVALID_JSON, "", "not a JSON object; send {...}");
    }
    *ret_root = root;
    return STATUS_OK;
}

/* `known` is a NULL-terminated list. */
static enum status check_members(const struct place *place, const json_t *object, const char *const *known)
{
    char list[TEXT_SIZE] = "";
    size_t len = 0;
    for (size_t i = 0; known[i] && len < sizeof list; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i > 0 ? ", " : "", known[i]);
    for (void *it = json_object_iter((json_t *)(uintptr_t)object); it;
         it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
        const char *name = json_object_iter_key(it);
        size_t i = 0;
        while (known[i] && strcmp(known[i], name) != 0)
            i++;
        if (!known[i])
            return refuse(place, name, "unknown member; known ones are %.160s", list);
    }
    return STATUS_OK;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number that is not an integer";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

/* Each of these leaves *ret as it is if the member is absent. */

static enum status read_integer(const struct place *place, const json_t *object, const char *member, uint64_t min,
                                uint64_t max, uint64_t *ret)
{
    const json_t *value = json_object_get(object, member);
    if (!value)
        return STATUS_OK;
    if (!json_is_integer(value))
        return refuse(place, member, "%s; must be an integer from %ju to %ju", type_name(value), (uintmax_t)min,
                      (uintmax_t)max);
    json_int_t number = json_integer_value(value);
    if (number < 0 || (uint64_t)number < min || (uint64_t)number > max)
        return refuse(place, member, "%jd is out of range; use %ju to %ju", (intmax_t)number, (uintmax_t)min,
                      (uintmax_t)max);
    *ret = (uint64_t)number;
    return STATUS_OK;
}

static enum status read_bool(const struct place *place, const json_t *object, const char *member, bool *ret)
{
    const json_t *value = json_object_get(object, member);
    if (!value)
        return STATUS_OK;
    if (!json_is_boolean(value))
        return refuse(place, member, "%s; must be true or false", type_name(value));
    *ret = json_is_true(value);
    return STATUS_OK;
}

/* Borrowed from the document, which the library keeps NUL-terminated and free of NULs. */
static enum status read_string(const struct place *place, const json_t *object, const char *member, struct slice *ret)
{
    const json_t *value = json_object_get(object, member);
    if (!value)
        return STATUS_OK;
    if (!json_is_string(value))
        return refuse(place, member, "%s; must be a string", type_name(value));
    *ret = slice_make(json_string_value(value), json_string_length(value));
    return STATUS_OK;
}

/* A required name in lower case, in a buffer of max + 1. Its syntax is checked with the record. */
static enum status read_name(const struct place *place, const json_t *object, const char *member, size_t max,
                             char *buffer)
{
    struct slice text = SLICE_NONE;
    enum status status = read_string(place, object, member, &text);
    if (status != STATUS_OK)
        return status;
    if (text.len == 0)
        return refuse(place, member, "missing or empty; it is required");
    if (text.len > max)
        return refuse(place, member, "%zu characters; at most %zu are allowed", text.len, max);
    for (size_t i = 0; i < text.len; i++)
        buffer[i] = ascii_lower(text.ptr[i]);
    buffer[text.len] = '\0';
    return STATUS_OK;
}

static enum status read_list(const struct place *place, const json_t *object, const char *member, size_t max,
                             const json_t **ret)
{
    const json_t *value = json_object_get(object, member);
    if (!value)
        return STATUS_OK;
    if (!json_is_array(value))
        return refuse(place, member, "%s; must be a list", type_name(value));
    if (json_array_size(value) > max)
        return refuse(place, member, "%zu entries; at most %zu are allowed", json_array_size(value), max);
    *ret = value;
    return STATUS_OK;
}

/* The object at list[index], with its place and only known members. */
static enum status read_element(const struct place *parent, const char *member, const json_t *list, size_t index,
                                const char *const *known, struct place *ret_place, const json_t **ret_object)
{
    char name[32];
    const json_t *object = json_array_get(list, index);
    snprintf(name, sizeof name, "%s[%zu]", member, index);
    if (!json_is_object(object))
        return refuse(parent, name, "%s; must be an object", type_name(object));
    ret_place->problem = parent->problem;
    snprintf(ret_place->path, sizeof ret_place->path, "%s.", name);
    *ret_object = object;
    return check_members(ret_place, object, known);
}

static void *new_list(size_t count, size_t size)
{
    void *list = calloc(count > 0 ? count : 1, size);
    if (!list)
        abort();
    return list;
}

/* ---- ports ---- */

static enum status read_protocol(const struct place *place, const json_t *object, struct route_port *port)
{
    struct slice text = SLICE("auto");
    enum route_protocol protocol;
    enum status status = read_string(place, object, "protocol", &text);
    if (status != STATUS_OK)
        return status;
    if (!route_protocol_parse(text, &protocol))
        return refuse(place, "protocol", "\"%.*s\" is unknown; use auto, http, h2c, tcp or passthrough",
                      SLICE_ARG(text));
    port->protocol = (uint8_t)protocol;
    return STATUS_OK;
}

static enum status read_proxy_protocol(const struct place *place, const json_t *object, struct route_port *port)
{
    struct slice text = SLICE("off");
    enum status status = read_string(place, object, "proxy_protocol", &text);
    if (status != STATUS_OK)
        return status;
    if (slice_eq(text, SLICE("off")))
        port->proxy_protocol = 0;
    else if (slice_eq(text, SLICE("v1")))
        port->proxy_protocol = 1;
    else if (slice_eq(text, SLICE("v2")))
        port->proxy_protocol = 2;
    else
        return refuse(place, "proxy_protocol", "\"%.*s\" is unknown; use off, v1 or v2", SLICE_ARG(text));
    return STATUS_OK;
}

static enum status read_required_port(const struct place *place, const json_t *object, uint16_t *ret)
{
    uint64_t number = 0;
    enum status status = read_integer(place, object, "port", 1, UINT16_MAX, &number);
    if (status != STATUS_OK)
        return status;
    if (number == 0)
        return refuse(place, "port", "missing; it is required, 1 to 65535");
    *ret = (uint16_t)number;
    return STATUS_OK;
}

/* ---- checks of ports ---- */

static const struct route_check default_check = {.interval_ms = 10000, .timeout_ms = 2000, .rise = 2, .fall = 3};

static enum status read_check_type(const struct place *place, const json_t *object, struct route_check *check)
{
    struct slice text = SLICE_NONE;
    enum route_check_type type;
    enum status status = read_string(place, object, "type", &text);
    if (status != STATUS_OK)
        return status;
    if (!route_check_parse(text, &type))
        return refuse(place, "type", "\"%.*s\" is unknown; use tcp or http", SLICE_ARG(text));
    check->type = (uint8_t)type;
    return STATUS_OK;
}

static enum status read_check_path(const struct place *place, const json_t *object, struct route_app *app,
                                   struct route_check *check)
{
    struct slice text = SLICE_NONE;
    enum status status = read_string(place, object, "path", &text);
    if (status == STATUS_OK && text.ptr)
        check->path = route_app_strdup(app, text);
    return status;
}

/* How the values go together is checked with the record. */
static enum status read_check(const struct place *port_place, const json_t *port_object, uint16_t port,
                              struct route_app *app)
{
    static const char *const known[] = {"type", "path", "interval_ms", "timeout_ms", "rise", "fall", NULL};
    const json_t *object = json_object_get(port_object, "check");
    struct place place = {.problem = port_place->problem};
    struct route_check check = default_check;
    uint64_t interval = check.interval_ms, timeout = check.timeout_ms, rise = check.rise, fall = check.fall;
    if (!object)
        return STATUS_OK;
    if (!json_is_object(object))
        return refuse(port_place, "check", "%s; must be an object", type_name(object));
    snprintf(place.path, sizeof place.path, "%.64scheck.", port_place->path);
    enum status status = check_members(&place, object, known);
    if (status == STATUS_OK)
        status = read_integer(&place, object, "interval_ms", ROUTE_CHECK_MIN_INTERVAL_MS, ROUTE_CHECK_MAX_INTERVAL_MS,
                              &interval);
    timeout = timeout < interval ? timeout : interval;
    if (status == STATUS_OK)
        status = read_integer(&place, object, "timeout_ms", ROUTE_CHECK_MIN_TIMEOUT_MS, ROUTE_CHECK_MAX_TIMEOUT_MS,
                              &timeout);
    if (status == STATUS_OK)
        status = read_integer(&place, object, "rise", 1, ROUTE_CHECK_MAX_COUNT, &rise);
    if (status == STATUS_OK)
        status = read_integer(&place, object, "fall", 1, ROUTE_CHECK_MAX_COUNT, &fall);
    if (status == STATUS_OK)
        status = read_check_type(&place, object, &check);
    if (status == STATUS_OK)
        status = read_check_path(&place, object, app, &check);
    check.port = port;
    check.interval_ms = (uint32_t)interval;
    check.timeout_ms = (uint32_t)timeout;
    check.rise = (uint8_t)rise;
    check.fall = (uint8_t)fall;
    app->checks[app->check_count++] = check;
    return status;
}

static int compare_checks(const void *a, const void *b)
{
    const struct route_check *x = a;
    const struct route_check *y = b;
    return (int)x->port - (int)y->port;
}

static void sort_checks(struct route_app *app)
{
    if (app->check_count > 0) {
        qsort(app->checks, app->check_count, sizeof *app->checks, compare_checks);
        return;
    }
    free(app->checks); /* apps without one pay nothing */
    app->checks = NULL;
}

static int compare_ports(const void *a, const void *b)
{
    const struct route_port *x = a;
    const struct route_port *y = b;
    return (int)x->port - (int)y->port;
}

static enum status read_ports(const struct place *root_place, const json_t *root, struct route_app *app)
{
    static const char *const known[] = {"port", "protocol", "proxy_protocol", "check", NULL};
    uint8_t seen[(UINT16_MAX + 1) / 8] = {0};
    const json_t *list = NULL;
    enum status status = read_list(root_place, root, "ports", ROUTE_MAX_PORTS, &list);
    if (status != STATUS_OK)
        return status;
    app->ports = new_list(json_array_size(list), sizeof *app->ports);
    app->checks = new_list(json_array_size(list), sizeof *app->checks);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place place;
        const json_t *object;
        struct route_port *port = &app->ports[i];
        if ((status = read_element(root_place, "ports", list, i, known, &place, &object)) != STATUS_OK ||
            (status = read_required_port(&place, object, &port->port)) != STATUS_OK ||
            (status = read_protocol(&place, object, port)) != STATUS_OK ||
            (status = read_proxy_protocol(&place, object, port)) != STATUS_OK ||
            (status = read_check(&place, object, port->port, app)) != STATUS_OK)
            return status;
        uint8_t bit = (uint8_t)(1U << (port->port % 8));
        if (seen[port->port / 8] & bit)
            return refuse(&place, "port", "port %u is listed twice", (unsigned)port->port);
        seen[port->port / 8] |= bit;
        app->port_count++;
    }
    qsort(app->ports, app->port_count, sizeof *app->ports, compare_ports);
    sort_checks(app);
    return STATUS_OK;
}

/* ---- domains ---- */

static enum status read_domains(const struct place *root_place, const json_t *root, struct route_app *app)
{
    static const char *const known[] = {"name", "port", NULL};
    const json_t *list = NULL;
    enum status status = read_list(root_place, root, "domains", ROUTE_MAX_DOMAINS, &list);
    if (status != STATUS_OK)
        return status;
    app->domains = new_list(json_array_size(list), sizeof *app->domains);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place place;
        const json_t *object;
        char name[DOMAIN_MAX + 1];
        if ((status = read_element(root_place, "domains", list, i, known, &place, &object)) != STATUS_OK ||
            (status = read_name(&place, object, "name", DOMAIN_MAX, name)) != STATUS_OK ||
            (status = read_required_port(&place, object, &app->domains[i].port)) != STATUS_OK)
            return status;
        app->domains[i].name = route_app_strdup(app, slice_str(name));
        app->domain_count++;
    }
    return STATUS_OK;
}

/* ---- instances ---- */

static enum status read_address(const struct place *place, const json_t *object, struct ip_addr *ret)
{
    struct slice text = SLICE_NONE;
    const json_t *value = json_object_get(object, "address");
    if (json_is_null(value)) {
        *ret = (struct ip_addr){0};
        return STATUS_OK;
    }
    enum status status = read_string(place, object, "address", &text);
    if (status != STATUS_OK || !value)
        return status;
    if (!ip_parse(text, ret))
        return refuse(place, "address", "\"%.64s\" is not an IP address; use one such as 10.8.0.12 or fd00::12",
                      text.ptr);
    return STATUS_OK;
}

static enum status read_state(const struct place *place, const json_t *object, struct route_instance *instance)
{
    struct slice text = SLICE_NONE;
    enum route_state state;
    enum status status = read_string(place, object, "state", &text);
    if (status != STATUS_OK || !text.ptr)
        return status;
    if (!route_state_parse(text, &state))
        return refuse(place, "state", "\"%.*s\" is unknown; use starting, running, draining or stopped",
                      SLICE_ARG(text));
    instance->state = (uint8_t)state;
    return STATUS_OK;
}

/* All that a PATCH may change as well; what is absent stays as it is. */
static enum status read_instance_values(const struct place *place, const json_t *object,
                                        struct route_instance *instance)
{
    uint64_t weight = instance->weight;
    enum status status = read_state(place, object, instance);
    if (status == STATUS_OK)
        status = read_integer(place, object, "weight", 0, ROUTE_MAX_WEIGHT, &weight);
    if (status == STATUS_OK)
        status = read_integer(place, object, "generation", 0, INT64_MAX, &instance->generation);
    if (status == STATUS_OK)
        status = read_address(place, object, &instance->address);
    instance->weight = (uint16_t)weight;
    return status;
}

static enum status read_instances(const struct place *root_place, const json_t *root, struct route_app *app)
{
    static const char *const known[] = {"instance_id", "address", "generation", "state", "weight", NULL};
    const json_t *list = NULL;
    enum status status = read_list(root_place, root, "instances", ROUTE_MAX_INSTANCES, &list);
    if (status != STATUS_OK)
        return status;
    app->instances = new_list(json_array_size(list), sizeof *app->instances);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place place;
        const json_t *object;
        char id[ID_MAX + 1];
        struct route_instance *instance = &app->instances[i];
        *instance = (struct route_instance){.weight = 1, .state = ROUTE_STATE_RUNNING};
        if ((status = read_element(root_place, "instances", list, i, known, &place, &object)) != STATUS_OK ||
            (status = read_name(&place, object, "instance_id", ID_MAX, id)) != STATUS_OK ||
            (status = read_instance_values(&place, object, instance)) != STATUS_OK)
            return status;
        instance->id = route_app_strdup(app, slice_str(id));
        app->instance_count++;
    }
    return STATUS_OK;
}

/* ---- the document ---- */

static enum status read_limits(const struct place *root_place, const json_t *root, struct route_app *app)
{
    static const char *const known[] = {"max_connections", "requests_per_second", NULL};
    struct place place = {.problem = root_place->problem, .path = "limits."};
    uint64_t max_connections = 0;
    uint64_t requests_per_second = 0;
    const json_t *object = json_object_get(root, "limits");
    if (!object)
        return STATUS_OK;
    if (!json_is_object(object))
        return refuse(root_place, "limits", "%s; must be an object", type_name(object));
    enum status status = check_members(&place, object, known);
    if (status == STATUS_OK)
        status = read_integer(&place, object, "max_connections", 0, UINT32_MAX, &max_connections);
    if (status == STATUS_OK)
        status = read_integer(&place, object, "requests_per_second", 0, UINT32_MAX, &requests_per_second);
    app->max_connections = (uint32_t)max_connections;
    app->requests_per_second = (uint32_t)requests_per_second;
    return status;
}

static enum status read_app(const struct place *place, const json_t *root, struct route_app *app)
{
    enum status status = read_ports(place, root, app);
    bool restrict_ports = app->port_count > 0;
    if (status == STATUS_OK)
        status = read_bool(place, root, "restrict_ports", &restrict_ports);
    app->restrict_ports = restrict_ports;
    if (status == STATUS_OK)
        status = read_domains(place, root, app);
    if (status == STATUS_OK)
        status = read_limits(place, root, app);
    if (status == STATUS_OK)
        status = read_instances(place, root, app);
    return status;
}

enum status app_document_read(const json_t *root, const char *path, struct route_app **ret_app,
                              struct route_problem *ret_problem)
{
    static const char *const known[] = {"app_id",  "revision", "ports",     "restrict_ports",
                                        "domains", "limits",   "instances", NULL};
    struct place place = {.problem = ret_problem};
    char id[ID_MAX + 1];
    uint64_t revision = 0;
    snprintf(place.path, sizeof place.path, "%s", path);
    enum status status = check_members(&place, root, known);
    if (status == STATUS_OK)
        status = read_name(&place, root, "app_id", ID_MAX, id);
    if (status == STATUS_OK)
        status = read_integer(&place, root, "revision", 0, INT64_MAX, &revision);
    if (status != STATUS_OK)
        return status;
    struct route_app *app = route_app_new(id);
    app->revision = revision;
    status = read_app(&place, root, app);
    if (status != STATUS_OK) {
        route_app_free(&app);
        return status;
    }
    route_app_pack(&app);
    *ret_app = app;
    return STATUS_OK;
}

enum status app_document_parse(struct slice json, struct route_app **ret_app, struct route_problem *ret_problem)
{
    json_t *root;
    if (app_scan(json, ret_app))
        return STATUS_OK;
    enum status status = app_document_load(json, APP_DOCUMENT_MAX_BYTES, &root, ret_problem);
    if (status != STATUS_OK)
        return status;
    status = app_document_read(root, "", ret_app, ret_problem);
    json_decref(root);
    return status;
}

enum status app_document_check_members(const json_t *object, const char *const known[],
                                       struct route_problem *ret_problem)
{
    return check_members(&(struct place){.problem = ret_problem, .path = ""}, object, known);
}

enum status app_document_integer(const json_t *object, const char *member, uint64_t max, uint64_t *ret,
                                 struct route_problem *ret_problem)
{
    return read_integer(&(struct place){.problem = ret_problem, .path = ""}, object, member, 0, max, ret);
}

enum status app_document_id(const json_t *object, const char *member, char ret[HOSTNAME_MAX_LABEL + 1],
                            struct route_problem *ret_problem)
{
    return read_name(&(struct place){.problem = ret_problem, .path = ""}, object, member, ID_MAX, ret);
}

static bool take_char(struct slice *text, char c)
{
    while (text->len > 0 && strchr(" \t\r\n", text->ptr[0]))
        *text = slice_from(*text, 1);
    bool is_there = text->len > 0 && text->ptr[0] == c;
    *text = slice_from(*text, is_there ? 1 : 0);
    return is_there;
}

bool app_document_next_id(struct slice *text, struct slice *ret_id)
{
    static const struct slice name = SLICE_INIT("\"app_id\"");
    const char *found;
    while (text->len > 0 && (found = memmem(text->ptr, text->len, name.ptr, name.len)) != NULL) {
        *text = slice_from(*text, (size_t)(found - text->ptr) + name.len);
        if (!take_char(text, ':') || !take_char(text, '"') || text->len == 0)
            continue;
        const char *end = memchr(text->ptr, '"', text->len);
        if (!end)
            return false;
        *ret_id = slice_make(text->ptr, (size_t)(end - text->ptr));
        *text = slice_from(*text, ret_id->len + 1);
        return true;
    }
    return false;
}

enum status app_document_patch_instance(struct slice json, struct route_app *app, struct slice instance_id,
                                        struct route_problem *ret_problem)
{
    static const char *const known[] = {"state", "weight", "address", "generation", NULL};
    struct place place = {.problem = ret_problem, .path = ""};
    struct route_instance *instance = route_app_instance(app, instance_id);
    json_t *root;
    if (!instance)
        return route_problem_set(ret_problem, STATUS_NOT_FOUND, "instance_id", "app %s has no instance %.*s", app->id,
                                 SLICE_ARG(instance_id));
    enum status status = app_document_load(json, APP_DOCUMENT_MAX_BYTES, &root, ret_problem);
    if (status != STATUS_OK)
        return status;
    struct route_instance changed = *instance;
    if ((status = check_members(&place, root, known)) == STATUS_OK &&
        (status = read_instance_values(&place, root, &changed)) == STATUS_OK)
        *instance = changed;
    json_decref(root);
    return status;
}
