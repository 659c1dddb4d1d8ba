/*
 * route_table_internal: what the parts of the route table share. Private.
 *
 *   route_table.c  readers
 *   route_stage.c  the writer: staging, publishing, forgetting
 *   name_index.c   from a name to a record and the number of the name in it, lock-free
 *   app_order.c    the writer's order of published apps by their ids
 *
 * A published app is one record, in one block. A change makes a new record whose names replace those of the old one;
 * the old one is freed after a grace period. So what readers see is never written to, and a change costs what its own
 * record costs, whatever the table's size.
 */
#ifndef GATEWAY_ROUTE_ROUTE_TABLE_INTERNAL_H
#define GATEWAY_ROUTE_ROUTE_TABLE_INTERNAL_H

#include "app_order.h"
#include "gateway/base/list.h"
#include "gateway/route/route_table.h"
#include "name_index.h"
#include "name_map.h"

#include <urcu.h>

/* One app that is changed by what is staged. */
struct change {
    struct list link;         /* in stage.changes, the last changed one last */
    const char *app_id;       /* lives as long as the change: in `before`, `after` or a discarded one */
    struct route_app *before; /* as published; NULL: not there */
    struct route_app *after;  /* NULL: deleted */
};

/* Earlier states of staged changes: their strings are still keys. */
struct discarded {
    struct route_app **apps;
    size_t count;
    size_t capacity;
};

struct stage {
    struct list changes;
    struct name_map changes_by_id;
    struct name_map owners[2]; /* NAME_ID, NAME_DOMAIN: the change whose `after` had the name when it was staged */
    struct discarded discarded;
    size_t app_count; /* that the table will have */
    uint64_t revision;
};

struct route_table {
    struct name_index names;
    _Atomic size_t suffixed_ids; /* ids that end as if a port followed: the whole label must be looked up for them */
    _Atomic size_t app_count;
    _Atomic size_t instance_count;
    _Atomic uint64_t revision;
    _Atomic bool awaited;
    struct claims *claims;
    struct app_order apps;
    struct stage stage;
};

void stage_init(struct stage *stage);
void stage_fini(struct stage *stage);

/*
 * liburcu is not built with ThreadSanitizer, so what it orders is told to it here: a record is freed after the sections
 * that could see it.
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

/* Its address stands for "read sections have ended". */
extern char route_order_read;

#endif
