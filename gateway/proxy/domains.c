#include "gateway/proxy/domains.h"

#include "gateway/base/name_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUESTIONS = 3 };

/* A name in the cache. */
struct name {
    struct name_entry entry;
    struct list link; /* in one of the lists of `domains` */
    struct list waiters;
    struct domains *domains;
    struct lookup *lookup; /* NULL: none in progress */
    bool is_found;
    struct txt_target target;
    uint64_t fresh_until_ms;
    uint64_t stale_until_ms;
    size_t len;
    char text[];
};

/* One look-up in progress: three questions at most, one after the other. */
struct lookup {
    struct name *name;
    struct resolver_query *query;
    struct timer deadline;
    unsigned question;
};

struct domains {
    struct loop *loop;
    struct resolver *resolver;
    uint32_t deadline_ms;
    unsigned lookup_count;
    struct name_table names;
    struct list found; /* used longest ago first */
    struct list not_found;
    struct list asked; /* being looked up */
};

/* ---- names ---- */

static struct name *find_name(struct domains *domains, struct slice text)
{
    struct name_entry *entry = name_table_find(&domains->names, text);
    return entry ? CONTAINER_OF(entry, struct name, entry) : NULL;
}

static void free_name(struct name *name)
{
    assert(!name->lookup);
    name_table_remove(&name->domains->names, &name->entry);
    list_remove(&name->link);
    free(name);
}

/* What nobody has goes first: anybody can ask for it. Those that are being looked up stay: they are few. */
static void make_room(struct domains *domains)
{
    while (domains->names.count >= DOMAINS_MAX_NAMES) {
        struct list *from = list_is_empty(&domains->not_found) ? &domains->found : &domains->not_found;
        assert(!list_is_empty(from));
        free_name(CONTAINER_OF(from->next, struct name, link));
    }
}

/* At the end of its list: it is used now. */
static void place(struct name *name)
{
    struct domains *domains = name->domains;
    list_remove(&name->link);
    list_push(name->lookup ? &domains->asked : name->is_found ? &domains->found : &domains->not_found, &name->link);
}

static struct name *add_name(struct domains *domains, struct slice text)
{
    make_room(domains);
    struct name *name = calloc(1, sizeof *name + text.len + 1);
    if (!name)
        abort();
    memcpy(name->text, text.ptr, text.len);
    name->len = text.len;
    name->domains = domains;
    name->entry.name = slice_make(name->text, text.len);
    list_init(&name->waiters);
    list_init(&name->link);
    place(name);
    name_table_add(&domains->names, &name->entry);
    return name;
}

static bool is_fresh(const struct name *name)
{
    return loop_now_ms(name->domains->loop) < name->fresh_until_ms;
}

/* Found, and not too long ago. */
static bool is_usable(const struct name *name)
{
    return name->is_found && loop_now_ms(name->domains->loop) < name->stale_until_ms;
}

static void remember(struct name *name, const struct txt_target *target, uint32_t ttl)
{
    uint64_t now = loop_now_ms(name->domains->loop);
    uint32_t seconds = ttl < DOMAINS_MIN_TTL ? DOMAINS_MIN_TTL : ttl > DOMAINS_MAX_TTL ? DOMAINS_MAX_TTL : ttl;
    name->is_found = target != NULL;
    if (target)
        name->target = *target;
    name->fresh_until_ms = now + (uint64_t)(target ? seconds : DOMAINS_NEGATIVE_TTL) * 1000;
    name->stale_until_ms = name->fresh_until_ms + (target ? DOMAINS_STALE_TTL * 1000ULL : 0);
}

/* What was found before goes on for a while; the next try is not at once. */
static void remember_failure(struct name *name)
{
    COUNTER_INC(name->domains->loop->counters, dns_failures_total);
    if (!is_usable(name))
        name->is_found = false;
    name->fresh_until_ms = loop_now_ms(name->domains->loop) + DOMAINS_NEGATIVE_TTL * 1000ULL;
}

/* ---- look-ups ---- */

static void tell_waiters(struct name *name)
{
    enum domains_state state = is_usable(name) ? DOMAINS_KNOWN : DOMAINS_UNKNOWN;
    struct list waiters; /* what they do may let the name go */
    list_init(&waiters);
    while (!list_is_empty(&name->waiters))
        list_push(&waiters, list_pop(&name->waiters));
    while (!list_is_empty(&waiters)) {
        struct domains_wait *wait = CONTAINER_OF(list_pop(&waiters), struct domains_wait, link);
        wait->done(wait, state);
    }
}

static void free_lookup(struct lookup *lookup)
{
    lookup->name->lookup = NULL;
    place(lookup->name);
    lookup->name->domains->lookup_count--;
    resolver_cancel(&lookup->query);
    timer_forget(&lookup->deadline);
    free(lookup);
}

/* The caller has remembered the result. */
static void finish(struct lookup *lookup)
{
    struct name *name = lookup->name;
    free_lookup(lookup);
    tell_waiters(name);
}

/* The next name to ask for, "" if there is none any more. */
static void next_question(struct lookup *lookup, char ret_name[HOSTNAME_MAX + 1])
{
    static const char *const prefixes[QUESTIONS] = {"_dstack-app-address.", "_tapp-address.",
                                                    "_dstack-app-address-wildcard."};
    ret_name[0] = '\0';
    while (lookup->question < QUESTIONS && ret_name[0] == '\0') {
        const char *of = lookup->name->text;
        bool is_wildcard = lookup->question == QUESTIONS - 1;
        const char *dot = strchr(of, '.');
        bool is_possible = !is_wildcard || (dot && strchr(dot + 1, '.')); /* a parent of two labels at least */
        if (is_wildcard && is_possible)
            of = dot + 1;
        const char *prefix = prefixes[lookup->question++];
        if (is_possible && strlen(prefix) + strlen(of) <= HOSTNAME_MAX)
            snprintf(ret_name, HOSTNAME_MAX + 1, "%s%s", prefix, of);
    }
}

static void on_answer(void *arg, enum resolver_result result, const uint8_t *message, size_t len);

/* Asks what comes next, or ends with "not found". */
static void ask(struct lookup *lookup)
{
    char name[HOSTNAME_MAX + 1];
    next_question(lookup, name);
    if (name[0] != '\0') {
        lookup->query = resolver_query_txt(lookup->name->domains->resolver, name, on_answer, lookup);
        return;
    }
    remember(lookup->name, NULL, 0);
    finish(lookup);
}

static void on_answer(void *arg, enum resolver_result result, const uint8_t *message, size_t len)
{
    struct lookup *lookup = arg;
    struct txt_target target;
    uint32_t ttl = 0;
    lookup->query = NULL;
    enum txt_result said = result == RESOLVER_NOTHING  ? TXT_NONE
                           : result == RESOLVER_FAILED ? TXT_MALFORMED
                                                       : txt_answer_parse(message, len, &target, &ttl);
    switch (said) {
    case TXT_FOUND:
        remember(lookup->name, &target, ttl);
        finish(lookup);
        return;
    case TXT_NONE:
        ask(lookup);
        return;
    case TXT_AMBIGUOUS:
        remember(lookup->name, NULL, 0);
        finish(lookup);
        return;
    case TXT_MALFORMED:
        remember_failure(lookup->name);
        finish(lookup);
        return;
    }
}

static void on_deadline(struct timer *timer)
{
    struct lookup *lookup = CONTAINER_OF(timer, struct lookup, deadline);
    remember_failure(lookup->name);
    finish(lookup);
}

/* False, and counted, if too much is being looked up. */
static bool may_start(struct domains *domains)
{
    if (domains->lookup_count < DOMAINS_MAX_LOOKUPS)
        return true;
    COUNTER_INC(domains->loop->counters, dns_refused_total);
    return false;
}

/* Does nothing if too much is being looked up. */
static void start(struct name *name)
{
    struct domains *domains = name->domains;
    if (!may_start(domains))
        return;
    struct lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup)
        abort();
    lookup->name = name;
    name->lookup = lookup;
    place(name);
    domains->lookup_count++;
    COUNTER_INC(domains->loop->counters, dns_lookups_total);
    timer_init(&lookup->deadline, on_deadline);
    loop_timer_arm(domains->loop, &lookup->deadline, domains->deadline_ms);
    ask(lookup);
}

/* ---- what others ask ---- */

/* NULL: it is not known, and can't be looked up now. */
static struct name *find_or_add(struct domains *domains, struct slice text)
{
    struct name *name = find_name(domains, text);
    if (name)
        place(name);
    else if (may_start(domains))
        name = add_name(domains, text);
    return name;
}

enum domains_state domains_look_up(struct domains *domains, struct slice text, struct domains_wait *wait)
{
    if (!domains || !domains->resolver || text.len == 0 || text.len > HOSTNAME_MAX)
        return DOMAINS_UNKNOWN;
    struct name *name = find_or_add(domains, text);
    if (!name)
        return DOMAINS_UNKNOWN;
    if (is_fresh(name)) {
        COUNTER_INC(domains->loop->counters, dns_cache_hits_total);
        return is_usable(name) ? DOMAINS_KNOWN : DOMAINS_UNKNOWN;
    }
    if (!name->lookup)
        start(name);
    if (!name->lookup) /* refused, or there is nothing to ask for */
        return is_usable(name) ? DOMAINS_KNOWN : DOMAINS_UNKNOWN;
    list_push(&name->waiters, &wait->link);
    return DOMAINS_PENDING;
}

void domains_cancel(struct domains_wait *wait)
{
    if (wait->link.next)
        list_remove(&wait->link);
}

bool domains_is_on(const struct domains *domains)
{
    return domains && domains->resolver;
}

enum domains_state domains_peek(struct domains *domains, struct slice text, struct txt_target *ret_target)
{
    struct domains_wait wait = {.done = NULL};
    enum domains_state state = domains_look_up(domains, text, &wait);
    domains_cancel(&wait);
    if (state == DOMAINS_KNOWN)
        *ret_target = find_name(domains, text)->target;
    return state;
}

void domains_resolve_txt(const struct route_table *table, const struct txt_target *txt, struct route_target *ret_target)
{
    struct hostname hostname = {.kind = HOSTNAME_APP, .mode = HOSTNAME_MODE_DEFAULT, .port = txt->port};
    size_t len = strlen(txt->id);
    hostname.has_port = true;
    hostname.id_len = hostname.whole_len = (uint8_t)len;
    memcpy(hostname.label, txt->id, len + 1);
    route_table_resolve(table, &hostname, SLICE_NONE, ret_target);
}

void domains_resolve(struct domains *domains, const struct route_table *table, const struct hostname *hostname,
                     struct slice custom, struct route_target *ret_target, bool *ret_pending)
{
    route_table_resolve(table, hostname, custom, ret_target);
    *ret_pending = false;
    bool by_record = hostname->kind != HOSTNAME_CUSTOM || ret_target->app;
    if (by_record || !domains || !domains->resolver || custom.len == 0)
        return;
    struct name *name = find_or_add(domains, custom);
    if (!name)
        return;
    if (!is_fresh(name) && !name->lookup)
        start(name);
    if (is_usable(name))
        domains_resolve_txt(table, &name->target, ret_target);
    else
        *ret_pending = name->lookup != NULL;
}

/* ---- life ---- */

struct domains *domains_new(struct loop *loop, struct resolver *resolver, uint32_t deadline_ms)
{
    struct domains *domains = calloc(1, sizeof *domains);
    if (!domains)
        abort();
    *domains = (struct domains){.loop = loop, .resolver = resolver, .deadline_ms = deadline_ms};
    name_table_init(&domains->names);
    list_init(&domains->found);
    list_init(&domains->not_found);
    list_init(&domains->asked);
    return domains;
}

static void free_names(struct list *list)
{
    while (!list_is_empty(list)) {
        struct name *name = CONTAINER_OF(list->next, struct name, link);
        assert(list_is_empty(&name->waiters));
        free_name(name);
    }
}

void domains_free(struct domains **domains_ptr)
{
    struct domains *domains = *domains_ptr;
    if (!domains)
        return;
    *domains_ptr = NULL;
    while (!list_is_empty(&domains->asked))
        free_lookup(CONTAINER_OF(domains->asked.next, struct name, link)->lookup);
    free_names(&domains->found);
    free_names(&domains->not_found);
    resolver_free(&domains->resolver);
    name_table_fini(&domains->names);
    free(domains);
}
