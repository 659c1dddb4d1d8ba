#include "route_table_internal.h"

#include "gateway/route/meter.h"
#include "route_alloc.h"

#include <assert.h>
#include <stdio.h>

void stage_init(struct stage *stage)
{
    *stage = (struct stage){0};
    list_init(&stage->changes);
    name_map_init(&stage->changes_by_id);
    name_map_init(&stage->owners[NAME_ID]);
    name_map_init(&stage->owners[NAME_DOMAIN]);
}

void stage_fini(struct stage *stage)
{
    name_map_clear(&stage->changes_by_id);
    name_map_clear(&stage->owners[NAME_ID]);
    name_map_clear(&stage->owners[NAME_DOMAIN]);
}

static void free_discarded(struct table_app **discarded)
{
    while (*discarded) {
        struct table_app *app = *discarded;
        *discarded = app->left;
        table_app_free(&app);
    }
}

static void discard(struct table_app **discarded, struct table_app *app)
{
    if (!app)
        return;
    app->left = *discarded;
    *discarded = app;
}

/* ---- the table as it would be ---- */

/* The published block of this app id, or NULL. Only the writer changes it, so it stays after the read section. */
static struct table_app *published_app(const struct route_table *table, struct slice app_id)
{
    rcu_read_lock();
    const struct index_entry *entry = index_find(table, NAME_ID, app_id);
    struct table_app *app = entry ? entry_app(entry) : NULL;
    rcu_read_unlock();
    return app && name_is(app->record->id, app_id) ? app : NULL;
}

const struct route_app *route_table_staged_app(const struct route_table *table, struct slice app_id)
{
    const struct change *change = name_map_get(&table->stage.changes_by_id, app_id);
    const struct table_app *app = change ? change->after : published_app(table, app_id);
    return app ? app->record : NULL;
}

static bool record_has(const struct route_app *record, enum name_space space, struct slice name)
{
    if (space == NAME_ID)
        return name_is(record->id, name) || route_app_instance(record, name);
    for (size_t i = 0; i < record->domain_count; i++)
        if (name_is(record->domains[i].name, name))
            return true;
    return false;
}

/* The app that has this name if what is staged is published, or NULL. */
static struct route_app *staged_owner(const struct route_table *table, enum name_space space, struct slice name)
{
    const struct change *change = name_map_get(&table->stage.owners[space], name);
    /* What the change had when the name was put down it may have given up since. */
    if (change && change->after && record_has(change->after->record, space, name))
        return change->after->record;
    rcu_read_lock();
    const struct index_entry *entry = index_find(table, space, name);
    struct route_app *owner = entry ? entry_app(entry)->record : NULL;
    rcu_read_unlock();
    /* If a staged state of that app had the name, it would have been put down. */
    if (owner && name_map_get(&table->stage.changes_by_id, slice_str(owner->id)))
        return NULL;
    return owner;
}

/* ---- checks: they change nothing ---- */

enum { FIELD_SIZE = sizeof((struct route_problem *)0)->field };

static enum status check_name(const struct route_table *table, const struct route_app *app, enum name_space space,
                              const char *name, const char *field, struct route_problem *ret_problem)
{
    const struct route_app *owner = staged_owner(table, space, slice_str(name));
    if (!owner || strcmp(owner->id, app->id) == 0)
        return STATUS_OK;
    return route_problem_set(ret_problem, STATUS_INVALID_RECORD, field, "%s belongs to app %s", name, owner->id);
}

static enum status check_names(const struct route_table *table, const struct route_app *app,
                               struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    enum status status = check_name(table, app, NAME_ID, app->id, "app_id", ret_problem);
    for (size_t i = 0; i < app->instance_count && status == STATUS_OK; i++) {
        snprintf(field, sizeof field, "instances[%zu].instance_id", i);
        status = check_name(table, app, NAME_ID, app->instances[i].id, field, ret_problem);
    }
    for (size_t i = 0; i < app->domain_count && status == STATUS_OK; i++) {
        snprintf(field, sizeof field, "domains[%zu].name", i);
        status = check_name(table, app, NAME_DOMAIN, app->domains[i].name, field, ret_problem);
    }
    return status;
}

/* No instance goes back to an earlier generation. */
static enum status check_generations(const struct route_app *before, const struct route_app *app,
                                     struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    struct name_map known;
    enum status status = STATUS_OK;
    name_map_init(&known);
    for (size_t i = 0; before && i < before->instance_count; i++)
        name_map_set(&known, before->instances[i].id, &before->instances[i]);
    for (size_t i = 0; i < app->instance_count && status == STATUS_OK; i++) {
        const struct route_instance *old = name_map_get(&known, slice_str(app->instances[i].id));
        if (!old || old->generation <= app->instances[i].generation)
            continue;
        snprintf(field, sizeof field, "instances[%zu].generation", i);
        status = route_problem_set(ret_problem, STATUS_INVALID_RECORD, field,
                                   "%ju is older than the instance's generation; use %ju or newer",
                                   (uintmax_t)app->instances[i].generation, (uintmax_t)old->generation);
    }
    name_map_clear(&known);
    return status;
}

/* The owner that an instance of `app` would drive out of its address, or NULL. What the app itself owns it may move. */
static const struct claim *foreign_owner(const struct route_table *table, const struct route_app *app,
                                         const struct route_instance *instance)
{
    if (!route_instance_is_live(instance))
        return NULL;
    const struct claim *owner = claims_staged_owner(table->claims, &instance->address);
    if (!owner || strcmp(owner->instance_id, instance->id) == 0)
        return NULL;
    const struct route_app *owning_app = staged_owner(table, NAME_ID, slice_str(owner->instance_id));
    assert(owning_app);
    return strcmp(owning_app->id, app->id) == 0 ? NULL : owner;
}

static enum status check_claims(const struct route_table *table, const struct route_app *app,
                                struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    char address[IP_TEXT_MAX];
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct route_instance *instance = &app->instances[i];
        const struct claim *owner = foreign_owner(table, app, instance);
        if (!owner || owner->generation < instance->generation)
            continue;
        snprintf(field, sizeof field, "instances[%zu].address", i);
        ip_format(&instance->address, address);
        return route_problem_set(ret_problem, STATUS_CLAIM_CONFLICT, field,
                                 "%s belongs to instance %s in generation %ju; stop it, or send a newer generation "
                                 "than that",
                                 address, owner->instance_id, (uintmax_t)owner->generation);
    }
    return STATUS_OK;
}

/* ---- staging ---- */

/* The app's change, made if there is none yet, and moved to the end. */
static struct change *touch_change(struct route_table *table, const char *app_id)
{
    struct stage *stage = &table->stage;
    struct change *change = name_map_get(&stage->changes_by_id, slice_str(app_id));
    if (change) {
        list_remove(&change->link);
        list_push(&stage->changes, &change->link);
        return change;
    }
    change = route_alloc(1, sizeof *change);
    change->before = change->after = published_app(table, slice_str(app_id));
    /* The id of what is published, or the caller's, which is about to become part of `after`. */
    change->app_id = change->before ? change->before->record->id : app_id;
    name_map_set(&stage->changes_by_id, change->app_id, change);
    list_push(&stage->changes, &change->link);
    return change;
}

/* What the app's earlier states counted goes on. */
static void give_meter(struct route_app *record, const struct table_app *earlier)
{
    if (record->max_connections == 0 && record->requests_per_second == 0)
        return;
    record->meter = earlier && earlier->record->meter ? meter_ref(earlier->record->meter) : meter_new();
}

/* Replaces the staged state of an app; `record` (taken) may be NULL. */
static void stage_record(struct route_table *table, const char *app_id, struct route_app *record)
{
    struct change *change = touch_change(table, app_id);
    struct table_app *old = change->after;
    for (size_t i = 0; old && i < old->record->instance_count; i++)
        if (old->record->instances[i].claim)
            claims_stage_release(table->claims, old->record->instances[i].claim);
    if (old != change->before)
        discard(&table->stage.discarded, old);
    change->after = record ? table_app_new(table, record) : NULL;
    if (!record)
        return;
    give_meter(record, old ? old : change->before);
    for (size_t i = 0; i < record->instance_count; i++) {
        struct route_instance *it = &record->instances[i];
        if (route_instance_is_live(it))
            it->claim = claims_stage_take(table->claims, it->id, it->generation, &it->address);
    }
    for (size_t i = 0; i < change->after->entry_count; i++) {
        const struct index_entry *entry = &change->after->entries[i];
        name_map_set(&table->stage.owners[entry_space(entry)], entry_name(entry), change);
    }
}

/* Stops an instance in a change of its own app, which is part of the change that drove it out. */
static void supersede(struct route_table *table, const char *instance_id, uint64_t revision)
{
    const struct route_app *app = staged_owner(table, NAME_ID, slice_str(instance_id));
    assert(app);
    struct change *change = touch_change(table, app->id);
    if (change->after == change->before)
        stage_record(table, app->id, route_app_copy(app));
    struct route_app *staged = change->after->record;
    struct route_instance *instance = route_app_instance(staged, slice_str(instance_id));
    assert(instance && instance->claim);
    claims_stage_release(table->claims, instance->claim);
    claim_unref(&instance->claim);
    instance->state = ROUTE_STATE_STOPPED;
    staged->revision = revision;
}

static enum status check_put(const struct route_table *table, const struct route_app *app,
                             struct route_problem *ret_problem)
{
    enum status status = check_names(table, app, ret_problem);
    if (status == STATUS_OK)
        status = check_generations(route_table_staged_app(table, slice_str(app->id)), app, ret_problem);
    return status == STATUS_OK ? check_claims(table, app, ret_problem) : status;
}

static void stage_put(struct route_table *table, struct route_app *app)
{
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct claim *owner = foreign_owner(table, app, &app->instances[i]);
        if (owner)
            supersede(table, owner->instance_id, app->revision);
    }
    stage_record(table, app->id, app);
}

enum status route_table_stage_put(struct route_table *table, struct route_app *app, struct route_problem *ret_problem)
{
    enum status status = check_put(table, app, ret_problem);
    if (status != STATUS_OK)
        return status;
    if (app->revision == 0)
        app->revision = table->stage.revision + 1;
    if (table->stage.revision < app->revision)
        table->stage.revision = app->revision;
    stage_put(table, app);
    return STATUS_OK;
}

bool route_table_has_staged(const struct route_table *table)
{
    return !list_is_empty(&table->stage.changes);
}

void route_table_stage_revision(struct route_table *table, uint64_t revision)
{
    table->stage.revision = revision;
}

enum status route_table_stage_delete(struct route_table *table, struct slice app_id, struct route_problem *ret_problem)
{
    const struct route_app *app = route_table_staged_app(table, app_id);
    if (!app)
        return route_problem_set(ret_problem, STATUS_APP_UNKNOWN, "app_id", "there is no app %.*s", SLICE_ARG(app_id));
    stage_record(table, app->id, NULL);
    table->stage.revision++;
    return STATUS_OK;
}

void route_table_staged_each(struct route_table *table, route_table_staged_cb each, void *arg)
{
    LIST_EACH (it, &table->stage.changes) {
        const struct change *change = CONTAINER_OF(it, struct change, link);
        if (change->after || change->before)
            each(arg, slice_str(change->app_id), change->after ? change->after->record : NULL);
    }
}

uint64_t route_table_staged_revision(const struct route_table *table)
{
    return table->stage.revision;
}

/* ---- publishing ---- */

/* An id such as "abc-80": a label that ends in it could also mean port 80 of "abc". */
static bool is_suffixed(const struct index_entry *entry)
{
    const char *hyphen = entry->kind == ENTRY_DOMAIN ? NULL : strrchr(entry_name(entry), '-');
    if (!hyphen)
        return false;
    const char *end = hyphen + 1 + strspn(hyphen + 1, "0123456789");
    return *end == '\0' || ((*end == 's' || *end == 'g') && end[1] == '\0');
}

static void index_put(struct route_table *table, struct index_entry *entry)
{
    struct index_key key = {entry_space(entry), slice_str(entry_name(entry))};
    unsigned long hash = name_hash(&table->seed, key.space, key.name);
    cds_lfht_add_replace(table->index, hash, index_match, &key, &entry->node);
}

/* Adds the entries of the new state, each in the place of the one that has its name now: readers see no gap. */
static void index_after(struct route_table *table, struct table_app *app)
{
    for (size_t i = 0; i < app->entry_count; i++)
        if (is_suffixed(&app->entries[i]))
            atomic_fetch_add_explicit(&table->suffixed_ids, 1, memory_order_release);
    ROUTE_ORDER_BEFORE(&route_order_added);
    rcu_read_lock();
    for (size_t i = 0; i < app->entry_count; i++)
        index_put(table, &app->entries[i]);
    rcu_read_unlock();
}

/* Removes the entries of the old state that no new one has replaced. */
static void unindex_before(struct route_table *table, struct table_app *app)
{
    rcu_read_lock();
    for (size_t i = 0; i < app->entry_count; i++)
        if (!cds_lfht_is_node_deleted(&app->entries[i].node))
            cds_lfht_del(table->index, &app->entries[i].node);
    rcu_read_unlock();
    for (size_t i = 0; i < app->entry_count; i++)
        if (is_suffixed(&app->entries[i]))
            atomic_fetch_sub_explicit(&table->suffixed_ids, 1, memory_order_release);
}

static size_t instance_count(const struct table_app *app)
{
    return app ? app->record->instance_count : 0;
}

static void update_counts(struct route_table *table, const struct change *change)
{
    /* Unsigned: a decrease wraps around, and so does the addition. */
    size_t apps = (size_t)(change->after != NULL) - (size_t)(change->before != NULL);
    size_t instances = instance_count(change->after) - instance_count(change->before);
    atomic_fetch_add_explicit(&table->app_count, apps, memory_order_relaxed);
    atomic_fetch_add_explicit(&table->instance_count, instances, memory_order_relaxed);
}

static void update_order(struct route_table *table, const struct change *change)
{
    if (change->before && change->after)
        app_order_replace(&table->apps, change->before, change->after);
    else if (change->after)
        app_order_insert(&table->apps, change->after);
    else if (change->before)
        app_order_remove(&table->apps, change->before);
}

static void show_changes(struct route_table *table)
{
    LIST_EACH (it, &table->stage.changes) {
        const struct change *change = CONTAINER_OF(it, struct change, link);
        if (change->after)
            index_after(table, change->after);
    }
    /* Old entries go last, so that a name that moves from one app to another leads somewhere all the time. */
    LIST_EACH (it, &table->stage.changes) {
        const struct change *change = CONTAINER_OF(it, struct change, link);
        if (change->before)
            unindex_before(table, change->before);
        update_order(table, change);
        update_counts(table, change);
    }
}

/* Ends the batch and frees the losing side of each change. */
static void end_batch(struct route_table *table, bool published)
{
    struct stage *stage = &table->stage;
    stage_fini(stage);
    struct list *it;
    while ((it = list_pop(&stage->changes))) {
        struct change *change = CONTAINER_OF(it, struct change, link);
        table_app_free(published ? &change->before : &change->after);
        free(change);
    }
    free_discarded(&stage->discarded);
    stage->revision = route_table_revision(table);
}

void route_table_publish(struct route_table *table, route_table_revoked_cb revoked, void *arg)
{
    atomic_store_explicit(&table->revision, table->stage.revision, memory_order_relaxed);
    if (list_is_empty(&table->stage.changes))
        return;
    /* First of all: who can see the new owner of an address must find the old claim revoked. */
    claims_publish(table->claims);
    show_changes(table);
    synchronize_rcu();
    ROUTE_ORDER_AFTER(&route_order_read);
    claims_report_revoked(table->claims, revoked, arg);
    end_batch(table, true);
}

void route_table_abort(struct route_table *table)
{
    claims_abort(table->claims);
    end_batch(table, false);
}
