#include "app_scan.h"

#include "gateway/control/app_document.h"

#include <assert.h>
#include <stdlib.h>

enum {
    MAX_PORTS = 32,
    MAX_DOMAINS = 8,
    MAX_INSTANCES = 16,
    TEXT_BYTES = 2048,
    ID_MAX = 63,
    DOMAIN_MAX = 253,
    MAX_DIGITS = 18, /* any such number fits into a signed 64-bit one */
};

/* The text that is left, and the record so far: its lists and texts lie here until it is packed. */
struct scan {
    const char *at;
    const char *end;
    struct route_app app;
    struct route_port ports[MAX_PORTS];
    struct route_domain domains[MAX_DOMAINS];
    struct route_instance instances[MAX_INSTANCES];
    size_t text_len;
    char texts[TEXT_BYTES];
};

/* ---- tokens ---- */

static void skip_space(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

/* With the space before it. */
static bool take(struct scan *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool take_word(struct scan *s, struct slice word)
{
    skip_space(s);
    if ((size_t)(s->end - s->at) < word.len || memcmp(s->at, word.ptr, word.len) != 0)
        return false;
    s->at += word.len;
    return true;
}

/* Printable ASCII without escapes. */
static bool take_string(struct scan *s, struct slice *ret)
{
    if (!take(s, '"'))
        return false;
    const char *start = s->at;
    while (s->at < s->end && *s->at >= ' ' && *s->at <= '~' && *s->at != '"' && *s->at != '\\')
        s->at++;
    *ret = slice_make(start, (size_t)(s->at - start));
    return s->at < s->end && *s->at++ == '"';
}

static bool is_digit(const struct scan *s)
{
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

/* Without sign, fraction and exponent: what follows a number must end it, which the callers see to. */
static bool take_number(struct scan *s, uint64_t max, uint64_t *ret)
{
    uint64_t number = 0;
    skip_space(s);
    const char *start = s->at;
    while (is_digit(s) && s->at - start < MAX_DIGITS)
        number = number * 10 + (uint64_t)(*s->at++ - '0');
    if (s->at == start || is_digit(s) || (*start == '0' && s->at - start > 1))
        return false;
    *ret = number;
    return number <= max;
}

static bool take_bool(struct scan *s, bool *ret)
{
    *ret = take_word(s, SLICE("true"));
    return *ret || take_word(s, SLICE("false"));
}

/* A required name in lower case, kept. */
static bool take_name(struct scan *s, size_t max, const char **ret)
{
    struct slice text;
    if (!take_string(s, &text) || text.len == 0 || text.len > max || text.len >= sizeof s->texts - s->text_len)
        return false;
    char *kept = &s->texts[s->text_len];
    for (size_t i = 0; i < text.len; i++)
        kept[i] = ascii_lower(text.ptr[i]);
    kept[text.len] = '\0';
    s->text_len += text.len + 1;
    *ret = kept;
    return true;
}

/* ---- objects and lists ---- */

/*
 * The next member of an object whose brace was taken, with its colon: its number in `names`, or `count` at the end of
 * the object. False for one that is unknown or was seen before.
 */
static bool next_member(struct scan *s, const struct slice *names, size_t count, uint32_t *seen, size_t *ret)
{
    struct slice name;
    if (take(s, '}')) {
        *ret = count;
        return true;
    }
    if ((*seen != 0 && !take(s, ',')) || !take_string(s, &name) || !take(s, ':'))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!slice_eq(name, names[i]))
            continue;
        bool is_new = !(*seen & 1U << i);
        *seen |= 1U << i;
        *ret = i;
        return is_new;
    }
    return false;
}

/* Whether there is one more element of a list whose bracket was taken; *ret_ok is false if the text is neither. */
static bool next_element(struct scan *s, size_t taken, size_t max, bool *ret_ok)
{
    *ret_ok = true;
    if (take(s, ']'))
        return false;
    *ret_ok = taken < max && (taken == 0 || take(s, ',')) && take(s, '{');
    return *ret_ok;
}

/* ---- ports ---- */

static bool take_protocol(struct scan *s, struct route_port *port)
{
    struct slice text;
    enum route_protocol protocol;
    if (!take_string(s, &text) || !route_protocol_parse(text, &protocol))
        return false;
    port->protocol = (uint8_t)protocol;
    return true;
}

static bool take_proxy_protocol(struct scan *s, struct route_port *port)
{
    struct slice text;
    if (!take_string(s, &text))
        return false;
    port->proxy_protocol = slice_eq(text, SLICE("v1")) ? 1 : slice_eq(text, SLICE("v2")) ? 2 : 0;
    return port->proxy_protocol != 0 || slice_eq(text, SLICE("off"));
}

static bool take_port_number(struct scan *s, uint16_t *ret)
{
    uint64_t number;
    if (!take_number(s, UINT16_MAX, &number))
        return false;
    *ret = (uint16_t)number;
    return number > 0;
}

static bool scan_port(struct scan *s, struct route_port *port)
{
    const struct slice names[] = {SLICE("port"), SLICE("protocol"), SLICE("proxy_protocol")};
    enum { PORT, PROTOCOL, PROXY_PROTOCOL, COUNT };
    uint32_t seen = 0;
    size_t member;
    *port = (struct route_port){.protocol = ROUTE_PROTOCOL_AUTO};
    while (next_member(s, names, COUNT, &seen, &member)) {
        if (member == COUNT)
            return port->port != 0;
        if ((member == PORT && !take_port_number(s, &port->port)) || (member == PROTOCOL && !take_protocol(s, port)) ||
            (member == PROXY_PROTOCOL && !take_proxy_protocol(s, port)))
            return false;
    }
    return false;
}

/* Puts the last port in its place; false if it is there twice. */
static bool sort_in(struct route_port *ports, size_t count)
{
    struct route_port last = ports[count - 1];
    size_t i = count - 1;
    for (; i > 0 && ports[i - 1].port >= last.port; i--) {
        if (ports[i - 1].port == last.port)
            return false;
        ports[i] = ports[i - 1];
    }
    ports[i] = last;
    return true;
}

static bool scan_ports(struct scan *s)
{
    bool ok = take(s, '[');
    while (ok && next_element(s, s->app.port_count, MAX_PORTS, &ok))
        ok = scan_port(s, &s->ports[s->app.port_count++]) && sort_in(s->ports, s->app.port_count);
    return ok;
}

/* ---- domains ---- */

static bool scan_domain(struct scan *s, struct route_domain *domain)
{
    const struct slice names[] = {SLICE("name"), SLICE("port")};
    enum { NAME, PORT, COUNT };
    uint32_t seen = 0;
    size_t member;
    *domain = (struct route_domain){.name = NULL};
    while (next_member(s, names, COUNT, &seen, &member)) {
        if (member == COUNT)
            return domain->name && domain->port != 0;
        if ((member == NAME && !take_name(s, DOMAIN_MAX, &domain->name)) ||
            (member == PORT && !take_port_number(s, &domain->port)))
            return false;
    }
    return false;
}

static bool scan_domains(struct scan *s)
{
    bool ok = take(s, '[');
    while (ok && next_element(s, s->app.domain_count, MAX_DOMAINS, &ok))
        ok = scan_domain(s, &s->domains[s->app.domain_count++]);
    return ok;
}

/* ---- instances ---- */

static bool take_address(struct scan *s, struct route_instance *instance)
{
    struct slice text;
    if (take_word(s, SLICE("null")))
        return true;
    return take_string(s, &text) && ip_parse(text, &instance->address);
}

static bool take_state(struct scan *s, struct route_instance *instance)
{
    struct slice text;
    enum route_state state;
    if (!take_string(s, &text) || !route_state_parse(text, &state))
        return false;
    instance->state = (uint8_t)state;
    return true;
}

static bool take_weight(struct scan *s, struct route_instance *instance)
{
    uint64_t weight;
    if (!take_number(s, ROUTE_MAX_WEIGHT, &weight))
        return false;
    instance->weight = (uint16_t)weight;
    return true;
}

static bool scan_instance(struct scan *s, struct route_instance *instance)
{
    const struct slice names[] = {SLICE("instance_id"), SLICE("address"), SLICE("generation"), SLICE("state"),
                                  SLICE("weight")};
    enum { ID, ADDRESS, GENERATION, STATE, WEIGHT, COUNT };
    uint32_t seen = 0;
    size_t member;
    *instance = (struct route_instance){.weight = 1, .state = ROUTE_STATE_RUNNING};
    while (next_member(s, names, COUNT, &seen, &member)) {
        if (member == COUNT)
            return instance->id != NULL;
        if ((member == ID && !take_name(s, ID_MAX, &instance->id)) ||
            (member == ADDRESS && !take_address(s, instance)) ||
            (member == GENERATION && !take_number(s, INT64_MAX, &instance->generation)) ||
            (member == STATE && !take_state(s, instance)) || (member == WEIGHT && !take_weight(s, instance)))
            return false;
    }
    return false;
}

static bool scan_instances(struct scan *s)
{
    bool ok = take(s, '[');
    while (ok && next_element(s, s->app.instance_count, MAX_INSTANCES, &ok))
        ok = scan_instance(s, &s->instances[s->app.instance_count++]);
    return ok;
}

/* ---- the document ---- */

static bool scan_limits(struct scan *s)
{
    const struct slice names[] = {SLICE("max_connections"), SLICE("requests_per_second")};
    enum { COUNT = 2 };
    uint64_t values[COUNT] = {0};
    uint32_t seen = 0;
    size_t member = 0;
    bool ok = take(s, '{');
    while (ok && (ok = next_member(s, names, COUNT, &seen, &member)) && member < COUNT)
        ok = take_number(s, UINT32_MAX, &values[member]);
    s->app.max_connections = (uint32_t)values[0];
    s->app.requests_per_second = (uint32_t)values[1];
    return ok;
}

enum member { APP_ID, REVISION, PORTS, RESTRICT_PORTS, DOMAINS, LIMITS, INSTANCES, MEMBERS };

static bool scan_member(struct scan *s, enum member member)
{
    bool restrict_ports = false;
    switch (member) {
    case APP_ID:
        return take_name(s, ID_MAX, &s->app.id);
    case REVISION:
        return take_number(s, INT64_MAX, &s->app.revision);
    case PORTS:
        return scan_ports(s);
    case RESTRICT_PORTS:
        if (!take_bool(s, &restrict_ports))
            return false;
        s->app.restrict_ports = restrict_ports;
        return true;
    case DOMAINS:
        return scan_domains(s);
    case LIMITS:
        return scan_limits(s);
    case INSTANCES:
        return scan_instances(s);
    case MEMBERS:
        break;
    }
    return false;
}

static bool scan_app(struct scan *s)
{
    const struct slice names[MEMBERS] = {SLICE("app_id"),         SLICE("revision"), SLICE("ports"),
                                         SLICE("restrict_ports"), SLICE("domains"),  SLICE("limits"),
                                         SLICE("instances")};
    uint32_t seen = 0;
    size_t member = 0;
    bool ok = take(s, '{');
    while (ok && (ok = next_member(s, names, MEMBERS, &seen, &member)) && member < MEMBERS)
        ok = scan_member(s, (enum member)member);
    skip_space(s);
    if (!ok || s->at != s->end || !s->app.id)
        return false;
    if (!(seen & 1U << RESTRICT_PORTS))
        s->app.restrict_ports = s->app.port_count > 0;
    return true;
}

bool app_scan(struct slice json, struct route_app **ret_app)
{
    struct scan scan;
    if (json.len == 0 || json.len > APP_DOCUMENT_MAX_BYTES)
        return false;
    scan.at = json.ptr;
    scan.end = json.ptr + json.len;
    scan.text_len = 0;
    scan.app = (struct route_app){.ports = scan.ports, .domains = scan.domains, .instances = scan.instances};
    if (!scan_app(&scan))
        return false;
    *ret_app = route_app_copy(&scan.app);
    return true;
}
