#include "route_table_internal.h"

#include "gateway/route/meter.h"
#include "route_alloc.h"

#include <assert.h>
#include <malloc.h>
#include <stdio.h>

enum { FIRST_DISCARDED = 8, FEW_INSTANCES = 8, LARGE_BATCH = 20000 };

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

static void free_discarded(struct discarded *discarded)
{
    for (size_t i = 0; i < discarded->count; i++)
        route_app_free(&discarded->apps[i]);
    free(discarded->apps);
    *discarded = (struct discarded){0};
}

static void discard(struct discarded *discarded, struct route_app *app)
{
    if (discarded->count == discarded->capacity) {
        discarded->capacity = discarded->capacity > 0 ? discarded->capacity * 2 : FIRST_DISCARDED;
        discarded->apps = reallocarray(discarded->apps, discarded->capacity, sizeof(struct route_app *));
        if (!discarded->apps)
            abort();
    }
    discarded->apps[discarded->count++] = app;
}

/* ---- the table as it would be ---- */

/* The published record of this app id, or NULL. */
static struct route_app *published_app(const struct route_table *table, struct slice app_id)
{
    struct name_place place;
    if (!name_index_find(&table->names, NAME_ID, app_id, &place) || !name_is(place.app->id, app_id))
        return NULL;
    return place.app;
}

const struct route_app *route_table_staged_app(const struct route_table *table, struct slice app_id)
{
    const struct change *change = name_map_get(&table->stage.changes_by_id, app_id);
    return change ? change->after : published_app(table, app_id);
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
    if (change && change->after && record_has(change->after, space, name))
        return change->after;
    struct name_place place;
    if (!name_index_find(&table->names, space, name, &place))
        return NULL;
    /* If a staged state of that app had the name, it would have been put down. */
    return name_map_get(&table->stage.changes_by_id, slice_str(place.app->id)) ? NULL : place.app;
}

/* ---- checks: they change nothing ---- */

enum { FIELD_SIZE = sizeof((struct route_problem *)0)->field };

/* On which terms a record comes in. */
struct terms {
    bool may_supersede;
    const struct route_successors *successors; /* NULL: none are known */
};

static const struct route_app *successor_of(const struct terms *terms, const struct route_app *now)
{
    return terms->successors ? terms->successors->of(terms->successors->arg, now) : NULL;
}

static bool gives_name_up(const struct terms *terms, const struct route_app *owner, enum name_space space,
                          const char *name)
{
    const struct route_app *successor = successor_of(terms, owner);
    return successor && !record_has(successor, space, slice_str(name));
}

static bool gives_address_up(const struct terms *terms, const struct route_app *owner, const struct ip_addr *address)
{
    const struct route_app *successor = successor_of(terms, owner);
    for (size_t i = 0; successor && i < successor->instance_count; i++)
        if (route_instance_is_live(&successor->instances[i]) && ip_equal(&successor->instances[i].address, address))
            return false;
    return successor;
}

/*
 * The other app that has the name, or NULL. Who put a name down last in this batch could do so because no other app had
 * it, and each that came to have it since would have put it down: to the app itself the map alone is the answer, and
 * one that is staged again and again costs no search for each of its names.
 */
static const struct route_app *other_owner(const struct route_table *table, const struct route_app *app,
                                           enum name_space space, const char *name)
{
    const struct change *change = name_map_get(&table->stage.owners[space], slice_str(name));
    if (change && strcmp(change->app_id, app->id) == 0)
        return NULL;
    const struct route_app *owner = staged_owner(table, space, slice_str(name));
    return owner && strcmp(owner->id, app->id) != 0 ? owner : NULL;
}

static enum status refuse_name(struct route_problem *ret_problem, const char *field, const char *name,
                               const struct route_app *owner)
{
    return route_problem_set(ret_problem, STATUS_INVALID_RECORD, field, "%s belongs to app %s", name, owner->id);
}

static enum status check_names(const struct route_table *table, const struct route_app *app, const struct terms *terms,
                               struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    const struct route_app *owner = other_owner(table, app, NAME_ID, app->id);
    if (owner && !gives_name_up(terms, owner, NAME_ID, app->id))
        return refuse_name(ret_problem, "app_id", app->id, owner);
    for (size_t i = 0; i < app->instance_count; i++) {
        owner = other_owner(table, app, NAME_ID, app->instances[i].id);
        if (!owner || gives_name_up(terms, owner, NAME_ID, app->instances[i].id))
            continue;
        snprintf(field, sizeof field, "instances[%zu].instance_id", i);
        return refuse_name(ret_problem, field, app->instances[i].id, owner);
    }
    for (size_t i = 0; i < app->domain_count; i++) {
        owner = other_owner(table, app, NAME_DOMAIN, app->domains[i].name);
        if (!owner || gives_name_up(terms, owner, NAME_DOMAIN, app->domains[i].name))
            continue;
        snprintf(field, sizeof field, "domains[%zu].name", i);
        return refuse_name(ret_problem, field, app->domains[i].name, owner);
    }
    return STATUS_OK;
}

/* No instance goes back to an earlier generation. */
static enum status check_generations(const struct route_app *before, const struct route_app *app,
                                     struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    struct name_map known;
    enum status status = STATUS_OK;
    if (!before || before->instance_count == 0)
        return STATUS_OK;
    bool is_mapped = before->instance_count > FEW_INSTANCES;
    if (is_mapped)
        name_map_init(&known);
    for (size_t i = 0; is_mapped && i < before->instance_count; i++)
        name_map_set(&known, before->instances[i].id, &before->instances[i]);
    for (size_t i = 0; i < app->instance_count && status == STATUS_OK; i++) {
        struct slice id = slice_str(app->instances[i].id);
        const struct route_instance *old = is_mapped ? name_map_get(&known, id) : route_app_instance(before, id);
        if (!old || old->generation <= app->instances[i].generation)
            continue;
        snprintf(field, sizeof field, "instances[%zu].generation", i);
        status = route_problem_set(ret_problem, STATUS_INVALID_RECORD, field,
                                   "%ju is older than the instance's generation; use %ju or newer",
                                   (uintmax_t)app->instances[i].generation, (uintmax_t)old->generation);
    }
    if (is_mapped)
        name_map_clear(&known);
    return status;
}

static const struct route_app *app_of_owner(const struct route_table *table, const struct route_instance *owner)
{
    const struct route_app *app = staged_owner(table, NAME_ID, slice_str(owner->id));
    assert(app);
    return app;
}

/* The owner that an instance of `app` would drive out of its address, or NULL. What the app itself owns it may move. */
static const struct route_instance *foreign_owner(const struct route_table *table, const struct route_app *app,
                                                  const struct route_instance *instance)
{
    if (!route_instance_is_live(instance))
        return NULL;
    const struct route_instance *owner = claims_staged_owner(table->claims, &instance->address);
    if (!owner || strcmp(owner->id, instance->id) == 0)
        return NULL;
    return strcmp(app_of_owner(table, owner)->id, app->id) == 0 ? NULL : owner;
}

static enum status check_claims(const struct route_table *table, const struct route_app *app, const struct terms *terms,
                                struct route_problem *ret_problem)
{
    char field[FIELD_SIZE];
    char address[IP_TEXT_MAX];
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct route_instance *instance = &app->instances[i];
        const struct route_instance *owner = foreign_owner(table, app, instance);
        if (!owner || (terms->may_supersede && owner->generation < instance->generation) ||
            gives_address_up(terms, app_of_owner(table, owner), &instance->address))
            continue;
        snprintf(field, sizeof field, "instances[%zu].address", i);
        ip_format(&instance->address, address);
        return route_problem_set(ret_problem, STATUS_CLAIM_CONFLICT, field,
                                 "%s belongs to instance %s in generation %ju; stop it, or send a newer generation "
                                 "than that",
                                 address, owner->id, (uintmax_t)owner->generation);
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
    change->app_id = change->before ? change->before->id : app_id;
    name_map_set(&stage->changes_by_id, change->app_id, change);
    list_push(&stage->changes, &change->link);
    return change;
}

/* What the app's earlier states counted goes on. */
static void give_meter(struct route_app *record, const struct route_app *earlier)
{
    if (record->max_connections == 0 && record->requests_per_second == 0)
        return;
    record->meter = earlier && earlier->meter ? meter_ref(earlier->meter) : meter_new();
}

/* Ids and domains of a record; the number of the nth. */
static size_t name_count(const struct route_app *record)
{
    return 1U + record->instance_count + record->domain_count;
}

static unsigned name_number(const struct route_app *record, size_t n)
{
    if (n == 0)
        return NAME_OF_APP;
    return (unsigned)(n <= record->instance_count ? NAME_OF_INSTANCES + n - 1
                                                  : NAME_OF_DOMAINS + n - 1 - record->instance_count);
}

/* Replaces the staged state of an app; `record` (taken) may be NULL. */
static void stage_record(struct route_table *table, const char *app_id, struct route_app *record)
{
    struct change *change = touch_change(table, app_id);
    struct route_app *old = change->after;
    table->stage.app_count += (size_t)(record != NULL) - (size_t)(old != NULL);
    for (size_t i = 0; old && i < old->instance_count; i++)
        if (old->instances[i].claim)
            claims_stage_release(table->claims, &old->instances[i]);
    if (old && old != change->before)
        discard(&table->stage.discarded, old);
    change->after = record;
    if (!record)
        return;
    give_meter(record, old ? old : change->before);
    for (size_t i = 0; i < record->instance_count; i++)
        if (route_instance_is_live(&record->instances[i]))
            claims_stage_take(table->claims, record, i);
    for (size_t i = 0; i < name_count(record); i++) {
        unsigned number = name_number(record, i);
        /* Keys of the map end in NUL, as these texts do. */
        name_map_set(&table->stage.owners[name_space(number)], name_text(record, number).ptr, change);
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
    struct route_app *staged = change->after;
    struct route_instance *instance = route_app_instance(staged, slice_str(instance_id));
    assert(instance && instance->claim);
    claims_stage_release(table->claims, instance);
    claim_unref(&instance->claim);
    instance->state = ROUTE_STATE_STOPPED;
    staged->revision = revision;
}

static void remove_instance(struct route_app *record, const char *id)
{
    size_t i = (size_t)(route_app_instance(record, slice_str(id)) - record->instances);
    record->instance_count--;
    memmove(&record->instances[i], &record->instances[i + 1], (record->instance_count - i) * sizeof *record->instances);
}

static void remove_domain(struct route_app *record, const char *name)
{
    size_t i = 0;
    while (strcmp(record->domains[i].name, name) != 0)
        i++;
    record->domain_count--;
    memmove(&record->domains[i], &record->domains[i + 1], (record->domain_count - i) * sizeof *record->domains);
}

/* Takes a name out of the app that has it, if that is another one, for `app`. */
static void take_name(struct route_table *table, const struct route_app *app, enum name_space space, const char *name)
{
    const struct route_app *owner = other_owner(table, app, space, name);
    if (!owner)
        return;
    struct route_app *rest = route_app_copy(owner);
    if (space == NAME_ID)
        remove_instance(rest, name);
    else
        remove_domain(rest, name);
    rest->revision = app->revision;
    stage_record(table, owner->id, rest);
}

static void take_names(struct route_table *table, const struct route_app *app)
{
    for (size_t i = 0; i < name_count(app); i++) {
        unsigned number = name_number(app, i);
        take_name(table, app, name_space(number), name_text(app, number).ptr);
    }
}

static enum status check_put(const struct route_table *table, const struct route_app *app, const struct terms *terms,
                             struct route_problem *ret_problem)
{
    enum status status = check_names(table, app, terms, ret_problem);
    if (status == STATUS_OK)
        status = check_generations(route_table_staged_app(table, slice_str(app->id)), app, ret_problem);
    return status == STATUS_OK ? check_claims(table, app, terms, ret_problem) : status;
}

static void stage_put(struct route_table *table, struct route_app *app)
{
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct route_instance *owner = foreign_owner(table, app, &app->instances[i]);
        if (owner)
            supersede(table, owner->id, app->revision);
    }
    stage_record(table, app->id, app);
}

static enum status put_on_terms(struct route_table *table, struct route_app *app, const struct terms *terms,
                                struct route_problem *ret_problem)
{
    enum status status = check_put(table, app, terms, ret_problem);
    if (status != STATUS_OK)
        return status;
    if (app->revision == 0)
        app->revision = table->stage.revision + 1;
    if (table->stage.revision < app->revision)
        table->stage.revision = app->revision;
    if (terms->successors)
        take_names(table, app);
    stage_put(table, app);
    return STATUS_OK;
}

enum status route_table_stage_put(struct route_table *table, struct route_app *app, struct route_problem *ret_problem)
{
    return put_on_terms(table, app, &(struct terms){.may_supersede = true}, ret_problem);
}

enum status route_table_stage_put_among(struct route_table *table, struct route_app *app,
                                        const struct route_successors *successors, struct route_problem *ret_problem)
{
    return put_on_terms(table, app, &(struct terms){.may_supersede = true, .successors = successors}, ret_problem);
}

enum status route_table_stage_put_beside(struct route_table *table, struct route_app *app,
                                         struct route_problem *ret_problem)
{
    return put_on_terms(table, app, &(struct terms){.may_supersede = false}, ret_problem);
}

static const struct route_app *newer_of(const struct route_app *a, const struct route_app *b)
{
    return !a || (b && b->revision > a->revision) ? b : a;
}

const struct route_app *route_table_newest_rival(const struct route_table *table, const struct route_app *app)
{
    const struct route_app *newest = NULL;
    for (size_t i = 0; i < name_count(app); i++) {
        unsigned number = name_number(app, i);
        newest = newer_of(newest, other_owner(table, app, name_space(number), name_text(app, number).ptr));
    }
    for (size_t i = 0; i < app->instance_count; i++) {
        const struct route_instance *owner = foreign_owner(table, app, &app->instances[i]);
        newest = newer_of(newest, owner ? app_of_owner(table, owner) : NULL);
    }
    return newest;
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
            each(arg, slice_str(change->app_id), change->after);
    }
}

size_t route_table_staged_app_count(const struct route_table *table)
{
    return table->stage.app_count;
}

uint64_t route_table_staged_revision(const struct route_table *table)
{
    return table->stage.revision;
}

/* ---- publishing ---- */

/* An id such as "abc-80": a label that ends in it could also mean port 80 of "abc". */
static bool is_suffixed(const char *id)
{
    const char *hyphen = strrchr(id, '-');
    if (!hyphen)
        return false;
    const char *end = hyphen + 1 + strspn(hyphen + 1, "0123456789");
    return *end == '\0' || ((*end == 's' || *end == 'g') && end[1] == '\0');
}

static size_t suffixed_count(const struct route_app *record)
{
    size_t count = is_suffixed(record->id);
    for (size_t i = 0; i < record->instance_count; i++)
        count += is_suffixed(record->instances[i].id);
    return count;
}

/* Each name takes the place of the one that is the same now: readers see no gap. */
static void index_after(struct route_table *table, struct route_app *record)
{
    size_t suffixed = suffixed_count(record);
    if (suffixed > 0)
        atomic_fetch_add_explicit(&table->suffixed_ids, suffixed, memory_order_release);
    /* An instance with the app's own id hides the app. */
    bool is_hidden = route_app_instance(record, slice_str(record->id));
    for (size_t i = is_hidden; i < name_count(record); i++)
        name_index_put(&table->names, record, name_number(record, i));
}

/* Removes the names of the old state that no new one has taken. */
static void unindex_before(struct route_table *table, const struct route_app *record)
{
    for (size_t i = 0; i < name_count(record); i++)
        name_index_remove(&table->names, record, name_number(record, i));
    size_t suffixed = suffixed_count(record);
    if (suffixed > 0)
        atomic_fetch_sub_explicit(&table->suffixed_ids, suffixed, memory_order_release);
}

static size_t instance_count(const struct route_app *app)
{
    return app ? app->instance_count : 0;
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
    /* Old names go last, so that a name that moves from one app to another leads somewhere all the time. */
    LIST_EACH (it, &table->stage.changes) {
        const struct change *change = CONTAINER_OF(it, struct change, link);
        if (change->before)
            unindex_before(table, change->before);
        update_order(table, change);
        update_counts(table, change);
    }
}

/*
 * Ends the batch and frees the losing side of each change. After a large one, such as a snapshot, what it took besides
 * the table goes back to the system.
 */
static void end_batch(struct route_table *table, bool published)
{
    struct stage *stage = &table->stage;
    size_t count = 0;
    stage_fini(stage);
    struct list *it;
    while ((it = list_pop(&stage->changes))) {
        count++;
        struct change *change = CONTAINER_OF(it, struct change, link);
        route_app_free(published ? &change->before : &change->after);
        free(change);
    }
    free_discarded(&stage->discarded);
    stage->revision = route_table_revision(table);
    stage->app_count = route_table_app_count(table);
    if (count >= LARGE_BATCH)
        malloc_trim(0);
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
    name_index_collect(&table->names);
    claims_report_revoked(table->claims, revoked, arg);
    end_batch(table, true);
}

void route_table_abort(struct route_table *table)
{
    claims_abort(table->claims);
    end_batch(table, false);
}
