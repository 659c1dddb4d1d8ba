#include "gateway/route/route_record.h"

#include "gateway/route/claims.h"
#include "gateway/route/meter.h"
#include "name_map.h"
#include "route_alloc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

struct text {
    struct text *next;
    char bytes[];
};

/* What a struct route_app that is not packed is a part of. */
struct record {
    struct route_app app; /* first: the two are converted */
    struct text *texts;
    char id[];
};

static const char *const protocol_names[] = {
#define X(name, text) text,
    ROUTE_PROTOCOL_TABLE(X)
#undef X
};

static const char *const state_names[] = {
#define X(name, text) text,
    ROUTE_STATE_TABLE(X)
#undef X
};

static const char *const check_names[] = {
#define X(name, text) text,
    ROUTE_CHECK_TABLE(X)
#undef X
};

static void make_printable(char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            *text = '?';
}

enum status route_problem_set(struct route_problem *problem, enum status status, const char *field, const char *format,
                              ...)
{
    if (!problem)
        return status;
    problem->status = status;
    snprintf(problem->field, sizeof problem->field, "%s", field);
    va_list args;
    va_start(args, format);
    vsnprintf(problem->detail, sizeof problem->detail, format, args);
    va_end(args);
    make_printable(problem->field);
    make_printable(problem->detail);
    return status;
}

const char *route_protocol_name(enum route_protocol protocol)
{
    return protocol_names[protocol];
}

const char *route_state_name(enum route_state state)
{
    return state_names[state];
}

static bool name_index(const char *const *names, size_t count, struct slice text, size_t *ret_index)
{
    for (size_t i = 0; i < count; i++) {
        if (name_is(names[i], text)) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

bool route_protocol_parse(struct slice text, enum route_protocol *ret)
{
    size_t index;
    if (!name_index(protocol_names, sizeof protocol_names / sizeof protocol_names[0], text, &index))
        return false;
    *ret = (enum route_protocol)index;
    return true;
}

bool route_state_parse(struct slice text, enum route_state *ret)
{
    size_t index;
    if (!name_index(state_names, sizeof state_names / sizeof state_names[0], text, &index))
        return false;
    *ret = (enum route_state)index;
    return true;
}

const char *route_check_name(enum route_check_type type)
{
    return check_names[type];
}

bool route_check_parse(struct slice text, enum route_check_type *ret)
{
    size_t index;
    if (!name_index(check_names, sizeof check_names / sizeof check_names[0], text, &index))
        return false;
    *ret = (enum route_check_type)index;
    return true;
}

struct route_app *route_app_new(const char *id)
{
    size_t id_size = strlen(id) + 1;
    struct record *record = route_alloc(1, sizeof *record + id_size);
    memcpy(record->id, id, id_size);
    record->app.id = record->id;
    return &record->app;
}

const char *route_app_strdup(struct route_app *app, struct slice text)
{
    struct record *record = (struct record *)(void *)app;
    assert(!app->is_packed);
    struct text *copy = route_alloc(1, sizeof *copy + text.len + 1);
    if (text.len > 0)
        memcpy(copy->bytes, text.ptr, text.len);
    copy->next = record->texts;
    record->texts = copy;
    return copy->bytes;
}

/* ---- one block: the record, what a look-up by the app's id needs behind it, lists and texts that it does not ---- */

/* Between the id and the ports, and between the ports and the lists. */
enum { PADDING_MAX = _Alignof(struct route_port) + _Alignof(struct route_instance) };

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* At least what is needed. */
static size_t packed_size(const struct route_app *app)
{
    size_t size = sizeof *app + app->instance_count * sizeof *app->instances + app->check_count * sizeof *app->checks +
                  app->domain_count * sizeof *app->domains + app->port_count * sizeof *app->ports + PADDING_MAX +
                  text_size(app->id);
    for (size_t i = 0; i < app->instance_count; i++)
        size += text_size(app->instances[i].id);
    for (size_t i = 0; i < app->domain_count; i++)
        size += text_size(app->domains[i].name);
    for (size_t i = 0; i < app->check_count; i++)
        size += text_size(app->checks[i].path);
    return size;
}

/* Copies to *next, or to the first place behind that is so aligned, and moves *next on; NULL if there is nothing. */
static void *place(char **next, const void *items, size_t size, size_t alignment)
{
    if (size == 0)
        return NULL;
    char *begin = *next + (alignment - (uintptr_t)*next % alignment) % alignment;
    *next = begin + size;
    return memcpy(begin, items, size);
}

static const char *place_text(char **next, const char *text)
{
    return place(next, text, text_size(text), 1);
}

#define PLACE_LIST(next, type, list, count) place(next, list, (count) * sizeof(type), _Alignof(type))

struct route_app *route_app_copy(const struct route_app *app)
{
    char *next = block_alloc(packed_size(app));
    struct route_app *copy = PLACE_LIST(&next, struct route_app, app, 1);
    copy->is_packed = true;
    copy->meter = NULL;
    copy->id = place_text(&next, app->id);
    copy->ports = PLACE_LIST(&next, struct route_port, app->ports, app->port_count);
    copy->instances = PLACE_LIST(&next, struct route_instance, app->instances, app->instance_count);
    copy->checks = PLACE_LIST(&next, struct route_check, app->checks, app->check_count);
    copy->domains = PLACE_LIST(&next, struct route_domain, app->domains, app->domain_count);
    for (size_t i = 0; i < copy->instance_count; i++) {
        copy->instances[i].id = place_text(&next, app->instances[i].id);
        copy->instances[i].claim = NULL;
    }
    for (size_t i = 0; i < copy->domain_count; i++)
        copy->domains[i].name = place_text(&next, app->domains[i].name);
    for (size_t i = 0; i < copy->check_count; i++)
        copy->checks[i].path = place_text(&next, app->checks[i].path);
    return copy;
}

void route_app_pack(struct route_app **app)
{
    if ((*app)->is_packed)
        return;
    struct route_app *packed = route_app_copy(*app);
    route_app_free(app);
    *app = packed;
}

static void free_tree(struct record *record)
{
    while (record->texts) {
        struct text *text = record->texts;
        record->texts = text->next;
        free(text);
    }
    free(record->app.ports);
    free(record->app.checks);
    free(record->app.domains);
    free(record->app.instances);
    free(record);
}

void route_app_free(struct route_app **app)
{
    struct route_app *dropped = *app;
    if (!dropped)
        return;
    *app = NULL;
    for (size_t i = 0; i < dropped->instance_count; i++)
        claim_unref(&dropped->instances[i].claim);
    meter_unref(&dropped->meter);
    if (dropped->is_packed)
        block_free(dropped);
    else
        free_tree((struct record *)(void *)dropped);
}

static bool ports_equal(const struct route_app *a, const struct route_app *b)
{
    for (size_t i = 0; i < a->port_count; i++) {
        const struct route_port *x = &a->ports[i];
        const struct route_port *y = &b->ports[i];
        if (x->port != y->port || x->protocol != y->protocol || x->proxy_protocol != y->proxy_protocol)
            return false;
    }
    return true;
}

static bool checks_equal(const struct route_app *a, const struct route_app *b)
{
    for (size_t i = 0; i < a->check_count; i++) {
        const struct route_check *x = &a->checks[i];
        const struct route_check *y = &b->checks[i];
        if (x->port != y->port || x->type != y->type || x->rise != y->rise || x->fall != y->fall ||
            x->interval_ms != y->interval_ms || x->timeout_ms != y->timeout_ms ||
            strcmp(x->path ? x->path : "", y->path ? y->path : "") != 0)
            return false;
    }
    return true;
}

static bool domains_equal(const struct route_app *a, const struct route_app *b)
{
    for (size_t i = 0; i < a->domain_count; i++)
        if (a->domains[i].port != b->domains[i].port || strcmp(a->domains[i].name, b->domains[i].name) != 0)
            return false;
    return true;
}

static bool instances_equal(const struct route_app *a, const struct route_app *b)
{
    for (size_t i = 0; i < a->instance_count; i++) {
        const struct route_instance *x = &a->instances[i];
        const struct route_instance *y = &b->instances[i];
        if (x->generation != y->generation || x->weight != y->weight || x->state != y->state ||
            !ip_equal(&x->address, &y->address) || strcmp(x->id, y->id) != 0)
            return false;
    }
    return true;
}

bool route_app_equal(const struct route_app *a, const struct route_app *b)
{
    return strcmp(a->id, b->id) == 0 && a->restrict_ports == b->restrict_ports &&
           a->max_connections == b->max_connections && a->requests_per_second == b->requests_per_second &&
           a->port_count == b->port_count && a->check_count == b->check_count && a->domain_count == b->domain_count &&
           a->instance_count == b->instance_count && ports_equal(a, b) && checks_equal(a, b) && domains_equal(a, b) &&
           instances_equal(a, b);
}

bool route_instance_is_live(const struct route_instance *instance)
{
    switch ((enum route_state)instance->state) {
    case ROUTE_STATE_RUNNING:
    case ROUTE_STATE_DRAINING:
        return instance->address.family != 0;
    case ROUTE_STATE_STARTING:
    case ROUTE_STATE_STOPPED:
        return false;
    }
    return false;
}

struct route_instance *route_app_instance(const struct route_app *app, struct slice id)
{
    for (size_t i = 0; i < app->instance_count; i++)
        if (name_is(app->instances[i].id, id))
            return &app->instances[i];
    return NULL;
}

const struct route_check *route_app_port_check(const struct route_app *app, uint16_t port)
{
    for (size_t i = 0; i < app->check_count; i++)
        if (app->checks[i].port == port)
            return &app->checks[i];
    return NULL;
}

const struct route_port *route_app_port(const struct route_app *app, uint16_t port)
{
    size_t low = 0;
    size_t high = app->port_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (app->ports[middle].port == port)
            return &app->ports[middle];
        if (app->ports[middle].port < port)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
