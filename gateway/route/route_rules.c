/* The rules of route_record.h: what one record, and one address, must keep. */
#include "gateway/http/hostname.h"
#include "gateway/route/route_record.h"
#include "route_alloc.h"

#include <stdarg.h>
#include <stdio.h>

enum { FIELD_SIZE = sizeof((struct route_problem *)0)->field };

static const char id_rule[] = "use 1 to 63 of a-z, 0-9 and hyphens, no hyphen at either end";

/* *ret_port: of the listener; 0: every port. */
static bool listens_at(const union ip_sockaddr *listener, const struct ip_addr *addr, uint16_t *ret_port)
{
    struct ip_addr own;
    ip_from_sockaddr(&listener->sa, &own, ret_port);
    return ip_equal(&own, addr) || (ip_kind(&own) == IP_UNSPECIFIED && ip_kind(addr) == IP_LOOPBACK);
}

/* Port 0: not known yet, which only a listener on every port can refuse. */
static bool is_own_listener(const struct route_rules *rules, const struct ip_addr *addr, uint16_t port)
{
    uint16_t own_port;
    for (size_t i = 0; i < rules->own_listener_count; i++)
        if (listens_at(&rules->own_listeners[i], addr, &own_port) && (own_port == 0 || own_port == port))
            return true;
    return false;
}

/* The first port that the app lists and the gateway itself listens on at this address; 0: there is none. */
static uint16_t listed_own_port(const struct route_rules *rules, const struct route_app *app,
                                const struct ip_addr *addr)
{
    uint16_t own_port;
    if (app->port_count == 0)
        return 0;
    for (size_t i = 0; i < rules->own_listener_count; i++)
        if (listens_at(&rules->own_listeners[i], addr, &own_port) && route_app_port(app, own_port))
            return own_port;
    return 0;
}

/* A special address needs an allowed network of its own kind; an ordinary one needs any that has it. */
static bool is_allowed(const struct route_rules *rules, const struct ip_addr *addr)
{
    struct ip_network special;
    bool is_special = ip_kind_network(addr, &special);
    for (size_t i = 0; i < rules->allow_count; i++)
        if (ip_network_has(&rules->allow[i], addr) && (!is_special || ip_network_covers(&special, &rules->allow[i])))
            return true;
    return false;
}

enum status route_rules_check(const struct route_rules *rules, const struct ip_addr *addr, uint16_t port,
                              struct route_problem *ret_problem)
{
    char text[IP_TEXT_MAX] = "";
    enum ip_kind kind = ip_kind(addr);
    bool never = addr->family == 0 || kind == IP_UNSPECIFIED || kind == IP_BROADCAST;
    if (!never && is_allowed(rules, addr) && !is_own_listener(rules, addr, port))
        return STATUS_OK;
    if (addr->family == 0)
        return route_problem_set(ret_problem, STATUS_ADDRESS_FORBIDDEN, "address", "there is no address");
    ip_format(addr, text);
    if (never)
        return route_problem_set(ret_problem, STATUS_ADDRESS_FORBIDDEN, "address",
                                 "%s is the %s address; use the address of the instance", text, ip_kind_name(kind));
    if (is_allowed(rules, addr)) {
        char place[IP_PORT_TEXT_MAX];
        ip_port_format(addr, port, place);
        return route_problem_set(
            ret_problem, STATUS_ADDRESS_FORBIDDEN, "address",
            "%s is a listener of the gateway itself; use the instance's own address, or another port",
            port != 0 ? place : text);
    }
    if (kind != IP_ORDINARY)
        return route_problem_set(ret_problem, STATUS_ADDRESS_FORBIDDEN, "address",
                                 "%s is a %s address and no network of upstream.allow is of that kind; use an address "
                                 "in an allowed network",
                                 text, ip_kind_name(kind));
    return route_problem_set(ret_problem, STATUS_ADDRESS_FORBIDDEN, "address",
                             "%s is in no network of upstream.allow; use an address that is, or ask the operator",
                             text);
}

#define REFUSE(problem, ...) route_problem_set(problem, STATUS_INVALID_RECORD, __VA_ARGS__)

/* Of a member of an element: "instances[0].address". Formatted only now: most records have nothing to refuse. */
static enum status refuse_at(struct route_problem *ret_problem, const char *list, size_t index, const char *member,
                             const char *format, ...) __attribute__((format(printf, 5, 6)));

static enum status refuse_at(struct route_problem *ret_problem, const char *list, size_t index, const char *member,
                             const char *format, ...)
{
    char field[FIELD_SIZE];
    char detail[sizeof ret_problem->detail];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    snprintf(field, sizeof field, "%s[%zu].%s", list, index, member);
    return REFUSE(ret_problem, field, "%s", detail);
}

static enum status check_count(const char *field, size_t count, size_t max, struct route_problem *ret_problem)
{
    if (count > max)
        return REFUSE(ret_problem, field, "%zu entries; at most %zu are allowed", count, max);
    return STATUS_OK;
}

static enum status check_ports(const struct route_app *app, struct route_problem *ret_problem)
{
    for (size_t i = 0; i < app->port_count; i++) {
        const struct route_port *port = &app->ports[i];
        if (port->port == 0)
            return refuse_at(ret_problem, "ports", i, "port", "0 is not a port; use 1 to 65535");
        if (i > 0 && port->port == port[-1].port)
            return refuse_at(ret_problem, "ports", i, "port", "port %u is listed twice", (unsigned)port->port);
        if (i > 0 && port->port < port[-1].port)
            return refuse_at(ret_problem, "ports", i, "port", "port %u is out of order", (unsigned)port->port);
        if (port->protocol > ROUTE_PROTOCOL_PASSTHROUGH)
            return refuse_at(ret_problem, "ports", i, "protocol", "%u is no protocol", (unsigned)port->protocol);
        if (port->proxy_protocol > 2)
            return refuse_at(ret_problem, "ports", i, "proxy_protocol", "%u is no version; use off, v1 or v2",
                             (unsigned)port->proxy_protocol);
    }
    return STATUS_OK;
}

static bool is_path(const char *path)
{
    size_t len = 0;
    for (; path[len]; len++)
        if (path[len] <= ' ' || path[len] > '~' || path[len] == '#')
            return false;
    return path[0] == '/' && len <= ROUTE_CHECK_MAX_PATH;
}

/* What is wrong with a check, and with which of its members; NULL: nothing. */
static const char *check_fault(const struct route_app *app, const struct route_check *check, const char **ret_member)
{
    const struct route_port *port = route_app_port(app, check->port);
    *ret_member = "port";
    if (!port)
        return "is of a port that is not listed";
    *ret_member = "interval_ms";
    if (check->interval_ms < ROUTE_CHECK_MIN_INTERVAL_MS || check->interval_ms > ROUTE_CHECK_MAX_INTERVAL_MS)
        return "is out of range; use 1000 to 300000";
    *ret_member = "timeout_ms";
    if (check->timeout_ms < ROUTE_CHECK_MIN_TIMEOUT_MS || check->timeout_ms > ROUTE_CHECK_MAX_TIMEOUT_MS)
        return "is out of range; use 100 to 60000";
    if (check->timeout_ms > check->interval_ms)
        return "is longer than interval_ms; use at most that";
    *ret_member = check->rise == 0 || check->rise > ROUTE_CHECK_MAX_COUNT ? "rise" : "fall";
    if (check->rise == 0 || check->rise > ROUTE_CHECK_MAX_COUNT || check->fall == 0 ||
        check->fall > ROUTE_CHECK_MAX_COUNT)
        return "is out of range; use 1 to 10";
    *ret_member = "type";
    if (check->type > ROUTE_CHECK_HTTP)
        return "is no type; use tcp or http";
    if (check->type == ROUTE_CHECK_HTTP && port->protocol == ROUTE_PROTOCOL_PASSTHROUGH)
        return "http does not fit a passthrough port, where TLS is spoken; use tcp";
    *ret_member = "path";
    if (check->type == ROUTE_CHECK_TCP && check->path)
        return "is of no use to a tcp check; leave it out, or use type http";
    if (check->type == ROUTE_CHECK_HTTP && (!check->path || !is_path(check->path)))
        return "is no path; use one such as /healthz, at most 255 visible ASCII characters without #";
    return NULL;
}

static enum status check_checks(const struct route_app *app, struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    const char *member = NULL;
    for (size_t i = 0; i < app->check_count; i++) {
        const struct route_check *check = &app->checks[i];
        const char *fault = check_fault(app, check, &member);
        size_t index = 0;
        while (index < app->port_count && app->ports[index].port != check->port)
            index++;
        snprintf(field, sizeof field, "ports[%zu].check.%s", index, member);
        if (fault)
            return REFUSE(ret_problem, field, "%s", fault);
        if (i > 0 && check->port <= check[-1].port)
            return REFUSE(ret_problem, field, "checks are out of order");
    }
    return STATUS_OK;
}

typedef int (*compare_cb)(const void *a, const void *b);

static int compare_domains(const void *a, const void *b)
{
    const struct route_domain *const *x = a;
    const struct route_domain *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_ids(const void *a, const void *b)
{
    const struct route_instance *const *x = a;
    const struct route_instance *const *y = b;
    return strcmp((*x)->id, (*y)->id);
}

/* Instances that own no address come first and are never equal to another. */
static int compare_addresses(const void *a, const void *b)
{
    const struct route_instance *const *x = a;
    const struct route_instance *const *y = b;
    bool x_live = route_instance_is_live(*x);
    bool y_live = route_instance_is_live(*y);
    if (x_live != y_live)
        return x_live ? 1 : -1;
    if (!x_live)
        return *x < *y ? -1 : 1;
    int order = (int)(*x)->address.family - (int)(*y)->address.family;
    return order != 0 ? order : memcmp((*x)->address.bytes, (*y)->address.bytes, sizeof(*x)->address.bytes);
}

/* The index of an item that is equal to another one, or `count`. Items are `size` bytes each. */
static size_t find_twin(const void *items, size_t count, size_t size, compare_cb compare)
{
    if (count < 2)
        return count;
    const char **sorted = route_alloc(count, sizeof *sorted);
    size_t found = count;
    for (size_t i = 0; i < count; i++)
        sorted[i] = (const char *)items + i * size;
    qsort(sorted, count, sizeof *sorted, compare);
    for (size_t i = 1; i < count && found == count; i++)
        if (compare(&sorted[i - 1], &sorted[i]) == 0)
            found = (size_t)(sorted[i] - (const char *)items) / size;
    free(sorted);
    return found;
}

static enum status check_domains(const struct route_app *app, struct route_problem *ret_problem)
{
    for (size_t i = 0; i < app->domain_count; i++) {
        if (!hostname_is_dns_name(slice_str(app->domains[i].name)))
            return refuse_at(ret_problem, "domains", i, "name", "not a DNS name; use one such as shop.example.com");
        if (app->domains[i].port == 0)
            return refuse_at(ret_problem, "domains", i, "port", "0 is not a port; use 1 to 65535");
    }
    size_t twin = find_twin(app->domains, app->domain_count, sizeof *app->domains, compare_domains);
    if (twin < app->domain_count)
        return refuse_at(ret_problem, "domains", twin, "name", "%s is listed twice", app->domains[twin].name);
    return STATUS_OK;
}

static enum status check_address(const struct route_app *app, size_t index, const struct route_rules *rules,
                                 struct route_problem *ret_problem)
{
    const struct route_instance *instance = &app->instances[index];
    struct route_problem inner;
    uint16_t own_port = 0;
    if (instance->address.family == 0) {
        if (instance->state == ROUTE_STATE_RUNNING || instance->state == ROUTE_STATE_DRAINING)
            return refuse_at(ret_problem, "instances", index, "address",
                             "a %s instance needs an address; only starting and stopped ones do not",
                             route_state_name((enum route_state)instance->state));
        return STATUS_OK;
    }
    if (rules && route_instance_is_live(instance))
        own_port = listed_own_port(rules, app, &instance->address);
    if (rules && route_rules_check(rules, &instance->address, own_port, &inner) != STATUS_OK)
        return refuse_at(ret_problem, "instances", index, "address", "%s", inner.detail);
    return STATUS_OK;
}

static enum status check_instance(const struct route_app *app, size_t index, const struct route_rules *rules,
                                  struct route_problem *ret_problem)
{
    const struct route_instance *instance = &app->instances[index];
    if (!hostname_is_id(slice_str(instance->id)))
        return refuse_at(ret_problem, "instances", index, "instance_id", "not an instance id; %s", id_rule);
    if (instance->weight > ROUTE_MAX_WEIGHT)
        return refuse_at(ret_problem, "instances", index, "weight", "%u is too much; use 0 to %d",
                         (unsigned)instance->weight, ROUTE_MAX_WEIGHT);
    if (instance->state > ROUTE_STATE_STOPPED)
        return refuse_at(ret_problem, "instances", index, "state", "%u is no state", (unsigned)instance->state);
    return check_address(app, index, rules, ret_problem);
}

static enum status check_instances(const struct route_app *app, const struct route_rules *rules,
                                   struct route_problem *ret_problem)
{
    size_t count = app->instance_count;
    for (size_t i = 0; i < count; i++) {
        enum status status = check_instance(app, i, rules, ret_problem);
        if (status != STATUS_OK)
            return status;
    }
    size_t twin = find_twin(app->instances, count, sizeof *app->instances, compare_ids);
    if (twin < count)
        return refuse_at(ret_problem, "instances", twin, "instance_id", "%s is listed twice", app->instances[twin].id);
    twin = find_twin(app->instances, count, sizeof *app->instances, compare_addresses);
    if (twin < count)
        return refuse_at(ret_problem, "instances", twin, "address",
                         "another running or draining instance of this app has the same address");
    return STATUS_OK;
}

enum status route_app_check(const struct route_app *app, const struct route_rules *rules,
                            struct route_problem *ret_problem)
{
    enum status status = STATUS_OK;
    if (!hostname_is_id(slice_str(app->id)))
        return REFUSE(ret_problem, "app_id", "not an app id; %s", id_rule);
    if ((status = check_count("ports", app->port_count, ROUTE_MAX_PORTS, ret_problem)) != STATUS_OK ||
        (status = check_count("domains", app->domain_count, ROUTE_MAX_DOMAINS, ret_problem)) != STATUS_OK ||
        (status = check_count("instances", app->instance_count, ROUTE_MAX_INSTANCES, ret_problem)) != STATUS_OK)
        return status;
    if ((status = check_ports(app, ret_problem)) != STATUS_OK ||
        (status = check_checks(app, ret_problem)) != STATUS_OK ||
        (status = check_domains(app, ret_problem)) != STATUS_OK)
        return status;
    return check_instances(app, rules, ret_problem);
}
