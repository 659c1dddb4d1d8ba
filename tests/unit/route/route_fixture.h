/* Records for the tests of the route layer. */
#ifndef TESTS_UNIT_ROUTE_ROUTE_FIXTURE_H
#define TESTS_UNIT_ROUTE_ROUTE_FIXTURE_H

#include "gateway/route/route_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static inline struct ip_addr fixture_ip(const char *text)
{
    struct ip_addr addr;
    if (!ip_parse(slice_str(text), &addr))
        fail_msg("%s is no address", text);
    return addr;
}

/* `address` may be NULL. */
static inline struct route_instance *fixture_add_instance(struct route_app *app, const char *id, const char *address,
                                                          uint64_t generation, enum route_state state)
{
    app->instances = reallocarray(app->instances, app->instance_count + 1U, sizeof *app->instances);
    assert_non_null(app->instances);
    struct route_instance *instance = &app->instances[app->instance_count++];
    *instance = (struct route_instance){.generation = generation, .weight = 1, .state = (uint8_t)state};
    instance->id = route_app_strdup(app, slice_str(id));
    if (address)
        instance->address = fixture_ip(address);
    return instance;
}

/* In ascending order. */
static inline struct route_port *fixture_add_port(struct route_app *app, uint16_t port, enum route_protocol protocol)
{
    app->ports = reallocarray(app->ports, app->port_count + 1U, sizeof *app->ports);
    assert_non_null(app->ports);
    struct route_port *entry = &app->ports[app->port_count++];
    *entry = (struct route_port){.port = port, .protocol = (uint8_t)protocol};
    return entry;
}

static inline void fixture_add_domain(struct route_app *app, const char *name, uint16_t port)
{
    app->domains = reallocarray(app->domains, app->domain_count + 1U, sizeof *app->domains);
    assert_non_null(app->domains);
    struct route_domain *domain = &app->domains[app->domain_count++];
    domain->name = route_app_strdup(app, slice_str(name));
    domain->port = port;
}

/* An app with one running instance. */
static inline struct route_app *fixture_app(const char *id, const char *instance_id, const char *address,
                                            uint64_t generation)
{
    struct route_app *app = route_app_new(id);
    fixture_add_instance(app, instance_id, address, generation, ROUTE_STATE_RUNNING);
    return app;
}

#endif
