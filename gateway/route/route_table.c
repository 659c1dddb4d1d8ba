#include "route_table_internal.h"

#include "route_alloc.h"

#include <assert.h>

char route_order_read;

void route_table_thread_begin(void)
{
    rcu_register_thread();
}

void route_table_thread_end(void)
{
    rcu_unregister_thread();
}

void route_table_read_begin(void)
{
    rcu_read_lock();
}

void route_table_read_end(void)
{
    ROUTE_ORDER_BEFORE(&route_order_read);
    rcu_read_unlock();
}

const struct route_app *route_table_app(const struct route_table *table, struct slice app_id)
{
    struct name_place place;
    if (!name_index_find(&table->names, NAME_ID, app_id, &place))
        return NULL;
    /* Ids of an app and its instances may be equal; those of others are not. */
    return place.number == NAME_OF_APP || name_is(place.app->id, app_id) ? place.app : NULL;
}

/* Fills what the app's record says about the port. */
static void resolve_port(struct route_target *target, uint16_t port, enum hostname_mode mode)
{
    const struct route_port *listed = route_app_port(target->app, port);
    target->port = port;
    target->protocol = listed ? (enum route_protocol)listed->protocol : ROUTE_PROTOCOL_AUTO;
    target->proxy_protocol = listed ? listed->proxy_protocol : 0;
    switch (mode) {
    case HOSTNAME_MODE_DEFAULT:
        break;
    case HOSTNAME_MODE_PASSTHROUGH:
        target->protocol = ROUTE_PROTOCOL_PASSTHROUGH;
        break;
    case HOSTNAME_MODE_GRPC:
        /* The gateway must not end TLS where the app asked to do it itself, whatever the name says. */
        if (target->protocol != ROUTE_PROTOCOL_PASSTHROUGH)
            target->protocol = ROUTE_PROTOCOL_H2C;
        break;
    }
    if (!listed && target->app->restrict_ports)
        target->status = STATUS_PORT_NOT_PUBLISHED;
    else
        target->status = target->protocol == ROUTE_PROTOCOL_PASSTHROUGH ? STATUS_MISDIRECTED : STATUS_OK;
}

static bool resolve_id(const struct route_table *table, struct slice id, struct route_target *target)
{
    struct name_place place;
    if (!name_index_find(&table->names, NAME_ID, id, &place))
        return false;
    target->app = place.app;
    if (place.number != NAME_OF_APP)
        target->instance = &place.app->instances[place.number - NAME_OF_INSTANCES];
    return true;
}

static void resolve_label(const struct route_table *table, const struct hostname *hostname, struct route_target *target)
{
    struct slice label = hostname_label(hostname);
    struct slice id = hostname_id(hostname);
    target->status = STATUS_APP_UNKNOWN;
    /* Hardly ever is there an id that looks like an id with a port, so hardly ever a second look-up. */
    if (id.len != label.len && atomic_load_explicit(&table->suffixed_ids, memory_order_acquire) > 0 &&
        resolve_id(table, label, target))
        resolve_port(target, HOSTNAME_DEFAULT_PORT, HOSTNAME_MODE_DEFAULT);
    else if (resolve_id(table, id, target))
        resolve_port(target, hostname->port, hostname->mode);
}

static void resolve_custom(const struct route_table *table, struct slice name, struct route_target *target)
{
    struct name_place place;
    if (!name_index_find(&table->names, NAME_DOMAIN, name, &place))
        return;
    target->app = place.app;
    resolve_port(target, place.app->domains[place.number - NAME_OF_DOMAINS].port, HOSTNAME_MODE_DEFAULT);
}

void route_table_resolve(const struct route_table *table, const struct hostname *hostname, struct slice custom,
                         struct route_target *ret_target)
{
    *ret_target = (struct route_target){.status = STATUS_HOST_UNKNOWN};
    switch (hostname->kind) {
    case HOSTNAME_APP:
        resolve_label(table, hostname, ret_target);
        return;
    case HOSTNAME_CUSTOM:
        resolve_custom(table, custom, ret_target);
        return;
    case HOSTNAME_HEALTH:
    case HOSTNAME_BASE:
    case HOSTNAME_INVALID:
        return;
    }
}

size_t route_table_app_count(const struct route_table *table)
{
    return atomic_load_explicit(&table->app_count, memory_order_relaxed);
}

size_t route_table_instance_count(const struct route_table *table)
{
    return atomic_load_explicit(&table->instance_count, memory_order_relaxed);
}

uint64_t route_table_revision(const struct route_table *table)
{
    return atomic_load_explicit(&table->revision, memory_order_relaxed);
}

bool route_table_is_awaited(const struct route_table *table)
{
    return atomic_load_explicit(&table->awaited, memory_order_relaxed);
}

void route_table_set_awaited(struct route_table *table, bool awaited)
{
    atomic_store_explicit(&table->awaited, awaited, memory_order_relaxed);
}

size_t route_table_each(struct route_table *table, struct slice after, size_t limit, route_table_each_cb each,
                        void *arg)
{
    return app_order_each(&table->apps, after, limit, each, arg);
}

/* ---- life ---- */

struct route_table *route_table_new(void)
{
    struct route_table *table = route_alloc(1, sizeof *table);
    name_index_init(&table->names);
    table->claims = claims_new();
    stage_init(&table->stage);
    return table;
}

void route_table_free(struct route_table **table)
{
    struct route_table *dropped = *table;
    if (!dropped)
        return;
    *table = NULL;
    assert(list_is_empty(&dropped->stage.changes));
    stage_fini(&dropped->stage);
    synchronize_rcu();
    ROUTE_ORDER_AFTER(&route_order_read);
    claims_free(&dropped->claims);
    name_index_fini(&dropped->names);
    app_order_free(&dropped->apps);
    free(dropped);
}
