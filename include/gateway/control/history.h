/*
 * history: which apps changed at which revision, for watchers and late replays, without their documents: whoever asks
 * gets the present state of each app that changed, so that memory does not depend on how far a reader has fallen back.
 *
 * Two parts. The ring has the last changes, in order, from some revision on. The tombstones have the revision at which
 * each deleted app went, back to the floor: older ones are forgotten. Together with the apps themselves, which know
 * their own revisions, they tell what changed since any revision that is not older than the floor. Control thread only.
 */
#ifndef GATEWAY_CONTROL_HISTORY_H
#define GATEWAY_CONTROL_HISTORY_H

#include "gateway/base/slice.h"
#include "gateway/http/hostname.h"

#include <stdbool.h>
#include <stdint.h>

struct history;

struct history_limits {
    size_t ring_entries; /* 0: 65,536; a power of two */
    size_t tombstones;   /* 0: 65,536; one batch can take it to the double */
};

struct history_entry {
    uint64_t revision;
    char app_id[HOSTNAME_MAX_LABEL + 1];
};

struct history *history_new(const struct history_limits *limits); /* NULL: defaults */
void history_free(struct history **history);

/* At boot: what the store knows, then where the ring begins. */
void history_restore(struct history *history, struct slice app_id, uint64_t revision);
void history_begin(struct history *history, uint64_t floor, uint64_t revision);

/* One app that was put or deleted, in order of the revisions; several may have the same one. */
void history_put(struct history *history, struct slice app_id, uint64_t revision);
void history_delete(struct history *history, struct slice app_id, uint64_t revision);
/* The revisions of what comes now don't follow those that were before: nothing older is known any more. */
void history_restart(struct history *history, uint64_t revision);
/* Something changed that has no place in that order: who was told of changes has to begin anew, what is known stays. */
void history_interrupt(struct history *history);
uint64_t history_epoch(const struct history *history); /* how often either happened */

/* The revision at which a deleted app went, 0 if it is not known (any more). */
uint64_t history_tombstone(const struct history *history, struct slice app_id);
size_t history_max_tombstones(const struct history *history);
/* What changed since an older revision cannot be told. */
uint64_t history_floor(const struct history *history);
/* Raises the floor: tombstones up to it are forgotten. */
void history_forget(struct history *history, uint64_t floor);
/* The floor to forget up to, so that an eighth of the limit becomes free; 0 while there are not too many tombstones. */
uint64_t history_excess(const struct history *history);

/* Tombstones later than `since`, in no order. */
typedef void (*history_tombstone_cb)(void *arg, struct slice app_id, uint64_t revision);
void history_tombstones_each(const struct history *history, uint64_t since, history_tombstone_cb each, void *arg);

/* Places in the ring: [first, end). False if changes later than `since` have left it. */
bool history_seek(const struct history *history, uint64_t since, uint64_t *ret_place);
uint64_t history_end(const struct history *history);
/* NULL if the place has left the ring. */
const struct history_entry *history_at(const struct history *history, uint64_t place);

#endif
