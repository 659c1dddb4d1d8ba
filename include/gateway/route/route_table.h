/*
 * route_table: all apps, by app id, instance id and custom domain. Reads are lock-free (RCU); one writer thread.
 *
 * Readers (workers, and the control thread) register once, then look up inside a read section. What a look-up returns
 * is valid until the section ends; a claim can be kept longer with claim_ref.
 *
 * The writer stages changes, one by one, against the table as it would be after those already staged, then the caller
 * makes them durable and publishes or aborts them all: validate -> store -> publish -> acknowledge.
 */
#ifndef GATEWAY_ROUTE_ROUTE_TABLE_H
#define GATEWAY_ROUTE_ROUTE_TABLE_H

#include "gateway/http/hostname.h"
#include "gateway/route/claims.h"
#include "gateway/route/route_record.h"

struct route_table;

struct route_table *route_table_new(void);
/* No reader and nothing staged is left; the calling thread has done route_table_thread_begin. */
void route_table_free(struct route_table **table);

/* ---- readers ---- */

void route_table_thread_begin(void); /* once per thread that reads */
void route_table_thread_end(void);
void route_table_read_begin(void);
void route_table_read_end(void);

/* The app with this id, or NULL. */
const struct route_app *route_table_app(const struct route_table *table, struct slice app_id);

struct route_target {
    /*
     * OK, or why not: HOST_UNKNOWN, APP_UNKNOWN, PORT_NOT_PUBLISHED, or MISDIRECTED: the protocol is PASSTHROUGH and
     * all else is filled too, which is what a tunnel needs and an HTTP request must not get.
     */
    enum status status;
    const struct route_app *app;           /* also set when the port is what is wrong */
    const struct route_instance *instance; /* the one that the name means; NULL: any of the app's */
    uint16_t port;
    enum route_protocol protocol; /* of the port; PASSTHROUGH for s names; H2C for g names of other than those */
    uint8_t proxy_protocol;
};

/*
 * What a host name leads to: the whole label as an exact instance id, then as an exact app id; then the part before the
 * suffix as instance id, then as app id (DESIGN section 2). Custom names by the domains of app records.
 * `custom` is the host in lower case, used for HOSTNAME_CUSTOM.
 */
void route_table_resolve(const struct route_table *table, const struct hostname *hostname, struct slice custom,
                         struct route_target *ret_target);

size_t route_table_app_count(const struct route_table *table);
size_t route_table_instance_count(const struct route_table *table);
uint64_t route_table_revision(const struct route_table *table); /* of the last published change */
/* There are no routes yet, since where they come from has never been read: the gateway is not ready. */
bool route_table_is_awaited(const struct route_table *table);
void route_table_set_awaited(struct route_table *table, bool awaited); /* control thread only */

/*
 * Apps in the order of their ids (that of strcmp) after `after` (exclusive; empty: from the start; not looked at any
 * more once `each` is called), at most `limit`, calling each; returns how many. Control thread only.
 */
typedef void (*route_table_each_cb)(void *arg, const struct route_app *app);
size_t route_table_each(struct route_table *table, struct slice after, size_t limit, route_table_each_cb each,
                        void *arg);

/* ---- the writer: control thread only ---- */

/*
 * Stages putting `app` (ownership moves to the table when STATUS_OK; it must have passed route_app_check). Its revision
 * is app->revision, 0: the next one; the table's becomes at least that. Refused with CLAIM_CONFLICT if a live instance
 * of another id owns an address with an equal or newer generation, or if the same instance id comes with an older
 * generation than the one it replaces (INVALID_RECORD), or if an id or domain belongs to another app (INVALID_RECORD;
 * app and instance ids are one name space, in which an app may give one of its instances its own id). An owner with an
 * older generation is superseded: its instance is STOPPED in a staged change of its own app, with the same revision
 * (which the caller must store too, see route_table_staged_each).
 */
MUST_CHECK enum status route_table_stage_put(struct route_table *table, struct route_app *app,
                                             struct route_problem *ret_problem);

/* What apps of the table become that change in one step with others. */
struct route_successors {
    /* The record that the app is to get; NULL: not known. */
    const struct route_app *(*of)(void *arg, const struct route_app *now);
    void *arg;
};

/*
 * As route_table_stage_put; but what an app has and its successor has not stands in nobody's way, whatever the
 * generation: the instance that owns the address is STOPPED, the instance or domain of the name is taken out, in a
 * staged change of that app as above. `successors` may be NULL.
 */
MUST_CHECK enum status route_table_stage_put_among(struct route_table *table, struct route_app *app,
                                                   const struct route_successors *successors,
                                                   struct route_problem *ret_problem);

/* As route_table_stage_put, but an owner is not superseded: whatever its generation, the app is refused. */
MUST_CHECK enum status route_table_stage_put_beside(struct route_table *table, struct route_app *app,
                                                    struct route_problem *ret_problem);

/*
 * Of the other apps that have a name of this one, or live at an address that it would live at, the one with the newest
 * revision, as staged; NULL: there is none.
 */
const struct route_app *route_table_newest_rival(const struct route_table *table, const struct route_app *app);

/* Stages the table's revision: for deletions, which leave no record, and for what follows another table. */
void route_table_stage_revision(struct route_table *table, uint64_t revision);

/* APP_UNKNOWN if there is none. */
MUST_CHECK enum status route_table_stage_delete(struct route_table *table, struct slice app_id,
                                                struct route_problem *ret_problem);

/* The app as it will be when what is staged is published; NULL if it won't be there. */
const struct route_app *route_table_staged_app(const struct route_table *table, struct slice app_id);

/*
 * Every app that is changed by what is staged, in the order of their last changes (so of their revisions), the last
 * state of each: app is NULL for a deleted one.
 */
typedef void (*route_table_staged_cb)(void *arg, struct slice app_id, const struct route_app *app);
void route_table_staged_each(struct route_table *table, route_table_staged_cb each, void *arg);

/* Apps that there will be when what is staged is published. */
size_t route_table_staged_app_count(const struct route_table *table);
bool route_table_has_staged(const struct route_table *table);

/* What route_table_revision will be when what is staged is published. */
uint64_t route_table_staged_revision(const struct route_table *table);

/*
 * Makes what is staged visible to readers that begin afterwards, revokes the claims that ended, and waits until no
 * reader can still be inside a section that saw the old state. `revoked` is called for each such claim after that (tell
 * the workers to close its connections); old records are freed.
 */
typedef void (*route_table_revoked_cb)(void *arg, struct claim *claim);
void route_table_publish(struct route_table *table, route_table_revoked_cb revoked, void *arg);

/* Forgets what is staged. */
void route_table_abort(struct route_table *table);

#endif
