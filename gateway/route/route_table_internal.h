/*
 * route_table_internal: what the parts of the route table share. Private.
 *
 *   route_table.c  readers: the index (an RCU hash table) from a name to an entry of an app
 *   route_stage.c  the writer: staging, publishing, forgetting
 *   app_order.c    the writer's treap of published apps in the order of their ids
 *
 * A published app is one block: its record, its place in the treap, and one index entry per name that leads to it. A
 * change makes a new block whose entries replace those of the old one; the old one is freed after a grace period. So
 * what readers see is never written to, and a change costs what its own record costs, whatever the table's size.
 */
#ifndef GATEWAY_ROUTE_ROUTE_TABLE_INTERNAL_H
#define GATEWAY_ROUTE_ROUTE_TABLE_INTERNAL_H

#include "gateway/base/list.h"
#include "gateway/route/route_table.h"
#include "name_map.h"

#include <urcu.h>

#include <urcu/rculfhash.h>

/* App ids and instance ids are one name space. */
enum name_space { NAME_ID, NAME_DOMAIN };

enum entry_kind { ENTRY_APP, ENTRY_INSTANCE, ENTRY_DOMAIN };

struct index_entry {
    struct cds_lfht_node node;
    uint32_t index;    /* of this entry in its app's */
    uint16_t position; /* of the instance or domain in its list */
    uint8_t kind;      /* enum entry_kind */
};

struct table_app {
    struct route_app *record;
    struct table_app *left; /* the treap; the writer's */
    struct table_app *right;
    uint32_t priority;
    uint32_t entry_count;
    struct index_entry entries[];
};

/* One app that is changed by what is staged. */
struct change {
    struct list link;         /* in stage.changes, the last changed one last */
    const char *app_id;       /* lives as long as the change: in `before`, `after` or a discarded one */
    struct table_app *before; /* as published; NULL: not there */
    struct table_app *after;  /* NULL: deleted */
};

struct stage {
    struct list changes;
    struct name_map changes_by_id;
    struct name_map owners[2];   /* by enum name_space: the change whose `after` had the name when it was staged */
    struct table_app *discarded; /* earlier states of staged changes, linked by `left`: their strings are still keys */
    uint64_t revision;
};

struct route_table {
    struct cds_lfht *index;
    struct name_hash_seed seed;
    _Atomic size_t suffixed_ids; /* ids that end as if a port followed: the whole label must be looked up for them */
    _Atomic size_t app_count;
    _Atomic size_t instance_count;
    _Atomic uint64_t revision;
    struct claims *claims;
    struct table_app *apps; /* root of the treap */
    struct stage stage;
};

static inline struct table_app *entry_app(const struct index_entry *entry)
{
    const struct index_entry *first = entry - entry->index;
    return CONTAINER_OF((uintptr_t)first, struct table_app, entries);
}

const char *entry_name(const struct index_entry *entry);
enum name_space entry_space(const struct index_entry *entry);

/* For cds_lfht: true if the node is the entry of this key. */
struct index_key {
    enum name_space space;
    struct slice name;
};
int index_match(struct cds_lfht_node *node, const void *key);

/* The published entry of a name, or NULL. Inside a read section. */
struct index_entry *index_find(const struct route_table *table, enum name_space space, struct slice name);

/* A block with the entries for the record's names; takes the record. */
struct table_app *table_app_new(const struct route_table *table, struct route_app *record);
void table_app_free(struct table_app **app);

void app_order_insert(struct table_app **root, struct table_app *app);
void app_order_replace(struct table_app **root, const struct table_app *before, struct table_app *after);
void app_order_remove(struct table_app **root, const struct table_app *app);
size_t app_order_each(const struct table_app *root, struct slice after, size_t limit, route_table_each_cb each,
                      void *arg);

void stage_init(struct stage *stage);
void stage_fini(struct stage *stage);

/*
 * liburcu is not built with ThreadSanitizer, so what it orders is told to it here: an entry is read after it was added,
 * and freed after the sections that could see it.
 */
#if defined(__SANITIZE_THREAD__)
#define ROUTE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ROUTE_TSAN 1
#endif
#endif

#ifdef ROUTE_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define ROUTE_ORDER_AFTER(addr)  __tsan_acquire(addr)
#define ROUTE_ORDER_BEFORE(addr) __tsan_release(addr)
#else
#define ROUTE_ORDER_AFTER(addr)  ((void)0)
#define ROUTE_ORDER_BEFORE(addr) ((void)0)
#endif

/* Their addresses stand for "entries were added" and "read sections have ended". */
extern char route_order_added;
extern char route_order_read;

#endif
