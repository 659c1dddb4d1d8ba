#include "route_table_internal.h"

#include "route_alloc.h"

#include <assert.h>

enum { INDEX_FIRST_BUCKETS = 1024, INDEX_MAX_BUCKETS = 1 << 24 };

char route_order_added;
char route_order_read;

/* ---- entries ---- */

const char *entry_name(const struct index_entry *entry)
{
    const struct route_app *record = entry_app(entry)->record;
    switch ((enum entry_kind)entry->kind) {
    case ENTRY_APP:
        return record->id;
    case ENTRY_INSTANCE:
        return record->instances[entry->position].id;
    case ENTRY_DOMAIN:
        return record->domains[entry->position].name;
    }
    return "";
}

enum name_space entry_space(const struct index_entry *entry)
{
    return entry->kind == ENTRY_DOMAIN ? NAME_DOMAIN : NAME_ID;
}

static void add_entry(struct table_app *app, enum entry_kind kind, size_t position)
{
    struct index_entry *entry = &app->entries[app->entry_count];
    entry->index = app->entry_count++;
    entry->position = (uint16_t)position;
    entry->kind = (uint8_t)kind;
}

struct table_app *table_app_new(const struct route_table *table, struct route_app *record)
{
    size_t count = 1U + record->instance_count + record->domain_count;
    struct table_app *app = route_alloc(1, sizeof *app + count * sizeof app->entries[0]);
    app->record = record;
    app->priority = (uint32_t)(name_hash(&table->seed, NAME_ID, slice_str(record->id)) >> 32);
    /* An instance with the app's own id hides the app: one entry per name. */
    if (!route_app_instance(record, slice_str(record->id)))
        add_entry(app, ENTRY_APP, 0);
    for (size_t i = 0; i < record->instance_count; i++)
        add_entry(app, ENTRY_INSTANCE, i);
    for (size_t i = 0; i < record->domain_count; i++)
        add_entry(app, ENTRY_DOMAIN, i);
    return app;
}

void table_app_free(struct table_app **app)
{
    if (!*app)
        return;
    route_app_free(&(*app)->record);
    free(*app);
    *app = NULL;
}

/* ---- look-ups ---- */

int index_match(struct cds_lfht_node *node, const void *key)
{
    const struct index_key *wanted = key;
    ROUTE_ORDER_AFTER(&route_order_added);
    const struct index_entry *entry = CONTAINER_OF(node, struct index_entry, node);
    return entry_space(entry) == wanted->space && name_is(entry_name(entry), wanted->name);
}

struct index_entry *index_find(const struct route_table *table, enum name_space space, struct slice name)
{
    struct index_key key = {space, name};
    struct cds_lfht_iter iter;
    cds_lfht_lookup(table->index, name_hash(&table->seed, space, name), index_match, &key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? CONTAINER_OF(node, struct index_entry, node) : NULL;
}

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
    const struct index_entry *entry = index_find(table, NAME_ID, app_id);
    if (!entry)
        return NULL;
    const struct route_app *record = entry_app(entry)->record;
    return name_is(record->id, app_id) ? record : NULL;
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
    const struct index_entry *entry = index_find(table, NAME_ID, id);
    if (!entry)
        return false;
    target->app = entry_app(entry)->record;
    if (entry->kind == ENTRY_INSTANCE)
        target->instance = &target->app->instances[entry->position];
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
    const struct index_entry *entry = index_find(table, NAME_DOMAIN, name);
    if (!entry)
        return;
    target->app = entry_app(entry)->record;
    resolve_port(target, target->app->domains[entry->position].port, HOSTNAME_MODE_DEFAULT);
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

size_t route_table_each(struct route_table *table, struct slice after, size_t limit, route_table_each_cb each,
                        void *arg)
{
    return app_order_each(table->apps, after, limit, each, arg);
}

/* ---- life ---- */

struct route_table *route_table_new(void)
{
    struct route_table *table = route_alloc(1, sizeof *table);
    /* The bound on buckets makes them one array of reserved address space; fuller than that, chains get longer. */
    table->index = cds_lfht_new(INDEX_FIRST_BUCKETS, INDEX_FIRST_BUCKETS, INDEX_MAX_BUCKETS,
                                CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING, NULL);
    if (!table->index)
        abort();
    table->seed = name_hash_seed_new();
    table->claims = claims_new();
    stage_init(&table->stage);
    return table;
}

static void unindex(struct route_table *table, struct table_app *app)
{
    for (size_t i = 0; i < app->entry_count; i++) {
        int gone = cds_lfht_del(table->index, &app->entries[i].node);
        assert(gone == 0);
        (void)gone;
    }
}

/* Takes the treap apart; rotates left children up, so that it needs no stack. */
static struct table_app *take_first(struct table_app **root)
{
    struct table_app *app = *root;
    while (app->left) {
        struct table_app *left = app->left;
        app->left = left->right;
        left->right = app;
        app = left;
    }
    *root = app->right;
    return app;
}

void route_table_free(struct route_table **table)
{
    struct route_table *dropped = *table;
    if (!dropped)
        return;
    *table = NULL;
    assert(list_is_empty(&dropped->stage.changes));
    stage_fini(&dropped->stage);
    struct table_app *freed = NULL;
    rcu_read_lock();
    while (dropped->apps) {
        struct table_app *app = take_first(&dropped->apps);
        unindex(dropped, app);
        app->left = freed;
        freed = app;
    }
    rcu_read_unlock();
    int failed = cds_lfht_destroy(dropped->index, NULL);
    assert(failed == 0);
    (void)failed;
    /* Buckets of the index may be split by its resize thread until a grace period after the last removal. */
    synchronize_rcu();
    while (freed) {
        struct table_app *next = freed->left;
        table_app_free(&freed);
        freed = next;
    }
    claims_free(&dropped->claims);
    free(dropped);
}
