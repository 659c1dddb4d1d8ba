/*
 * app_document_format and its like, without a tree of values: a snapshot of a million apps writes a million documents.
 * The buffer has room for the longest text that the record can have, so nothing is checked on the way.
 */
#include "gateway/control/app_document.h"

#include <assert.h>
#include <stdlib.h>

enum {
    HEAD_BYTES = 256,     /* all but the elements of lists */
    PORT_BYTES = 96,      /* the longest protocol and version */
    CHECK_BYTES = 128,    /* without its path */
    DOMAIN_BYTES = 32,    /* without its name, as the next */
    INSTANCE_BYTES = 192, /* with an address and the longest generation */
    ESCAPED_BYTES = 6,    /* \u0000 */
    NUMBER_BYTES = 20,
};

static size_t longest(const struct route_app *app)
{
    size_t bytes = HEAD_BYTES + strlen(app->id) + app->port_count * (size_t)PORT_BYTES;
    for (size_t i = 0; i < app->check_count; i++)
        bytes += CHECK_BYTES + (app->checks[i].path ? strlen(app->checks[i].path) * ESCAPED_BYTES : 0);
    for (size_t i = 0; i < app->domain_count; i++)
        bytes += DOMAIN_BYTES + strlen(app->domains[i].name);
    for (size_t i = 0; i < app->instance_count; i++)
        bytes += INSTANCE_BYTES + strlen(app->instances[i].id);
    return bytes;
}

/* These return the end of what they wrote. */

static char *put(char *at, struct slice text)
{
    memcpy(at, text.ptr, text.len);
    return at + text.len;
}

static char *put_name(char *at, const char *name)
{
    return put(at, slice_str(name));
}

static char *put_number(char *at, uint64_t number)
{
    char digits[NUMBER_BYTES];
    size_t i = sizeof digits;
    do {
        digits[--i] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return put(at, slice_make(digits + i, sizeof digits - i));
}

static char *put_escaped(char *at, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < ' ') {
            at = put(at, SLICE("\\u00"));
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
            continue;
        }
        if (c == '"' || c == '\\')
            *at++ = '\\';
        *at++ = *text;
    }
    return at;
}

static char *put_check(char *at, const struct route_check *check)
{
    at = put(at, SLICE(",\"check\":{\"type\":\""));
    at = put_name(at, route_check_name((enum route_check_type)check->type));
    if (check->path) {
        at = put(at, SLICE("\",\"path\":\""));
        at = put_escaped(at, check->path);
    }
    at = put(at, SLICE("\",\"interval_ms\":"));
    at = put_number(at, check->interval_ms);
    at = put(at, SLICE(",\"timeout_ms\":"));
    at = put_number(at, check->timeout_ms);
    at = put(at, SLICE(",\"rise\":"));
    at = put_number(at, check->rise);
    at = put(at, SLICE(",\"fall\":"));
    at = put_number(at, check->fall);
    return put(at, SLICE("}"));
}

static char *put_port(char *at, const struct route_app *app, const struct route_port *port)
{
    static const char *const versions[] = {"off", "v1", "v2"};
    assert(port->proxy_protocol < sizeof versions / sizeof versions[0]);
    at = put(at, SLICE("{\"port\":"));
    at = put_number(at, port->port);
    at = put(at, SLICE(",\"protocol\":\""));
    at = put_name(at, route_protocol_name((enum route_protocol)port->protocol));
    at = put(at, SLICE("\",\"proxy_protocol\":\""));
    at = put_name(at, versions[port->proxy_protocol]);
    at = put(at, SLICE("\""));
    const struct route_check *check = route_app_port_check(app, port->port);
    if (check)
        at = put_check(at, check);
    return put(at, SLICE("}"));
}

static char *put_domain(char *at, const struct route_domain *domain)
{
    at = put(at, SLICE("{\"name\":\""));
    at = put_name(at, domain->name);
    at = put(at, SLICE("\",\"port\":"));
    at = put_number(at, domain->port);
    return put(at, SLICE("}"));
}

static char *put_instance(char *at, const struct route_instance *instance)
{
    at = put(at, SLICE("{\"instance_id\":\""));
    at = put_name(at, instance->id);
    if (instance->address.family != 0) {
        at = put(at, SLICE("\",\"address\":\""));
        at += ip_format(&instance->address, at);
    }
    at = put(at, SLICE("\",\"generation\":"));
    at = put_number(at, instance->generation);
    at = put(at, SLICE(",\"state\":\""));
    at = put_name(at, route_state_name((enum route_state)instance->state));
    at = put(at, SLICE("\",\"weight\":"));
    at = put_number(at, instance->weight);
    return put(at, SLICE("}"));
}

static char *put_comma(char *at, size_t index)
{
    return index > 0 ? put(at, SLICE(",")) : at;
}

static char *put_app(char *at, const struct route_app *app, bool with_revision)
{
    at = put(at, SLICE("{\"app_id\":\""));
    at = put_name(at, app->id);
    at = put(at, SLICE("\""));
    if (with_revision) {
        at = put(at, SLICE(",\"revision\":"));
        at = put_number(at, app->revision);
    }
    at = put(at, SLICE(",\"ports\":["));
    for (size_t i = 0; i < app->port_count; i++)
        at = put_port(put_comma(at, i), app, &app->ports[i]);
    at = put(at, SLICE("],\"restrict_ports\":"));
    at = put(at, app->restrict_ports ? SLICE("true") : SLICE("false"));
    at = put(at, SLICE(",\"domains\":["));
    for (size_t i = 0; i < app->domain_count; i++)
        at = put_domain(put_comma(at, i), &app->domains[i]);
    at = put(at, SLICE("],\"limits\":{\"max_connections\":"));
    at = put_number(at, app->max_connections);
    at = put(at, SLICE(",\"requests_per_second\":"));
    at = put_number(at, app->requests_per_second);
    at = put(at, SLICE("},\"instances\":["));
    for (size_t i = 0; i < app->instance_count; i++)
        at = put_instance(put_comma(at, i), &app->instances[i]);
    return put(at, SLICE("]}"));
}

static char *format(const struct route_app *app, bool with_revision)
{
    size_t size = longest(app);
    char *text = malloc(size);
    if (!text)
        abort();
    char *end = put_app(text, app, with_revision);
    assert((size_t)(end - text) < size);
    *end = '\0';
    char *fitting = realloc(text, (size_t)(end - text) + 1);
    return fitting ? fitting : text;
}

char *app_document_format(const struct route_app *app)
{
    return format(app, true);
}

char *app_document_format_bare(const struct route_app *app)
{
    return format(app, false);
}
