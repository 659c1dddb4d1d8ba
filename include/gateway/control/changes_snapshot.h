/*
 * changes_snapshot: a whole table that is to replace the present one (see control/changes). For control/changes only.
 */
#ifndef GATEWAY_CONTROL_CHANGES_SNAPSHOT_H
#define GATEWAY_CONTROL_CHANGES_SNAPSHOT_H

#include "gateway/control/changes.h"

struct changes *changes_snapshot_owner(const struct changes_snapshot *snapshot);

/* What changes knows and a snapshot needs. */
const struct route_rules *changes_rules(const struct changes *changes);

/*
 * Stages the difference: deletions first, then what is new or differs. Apps that conflict with others are counted in
 * ret_result->refused, the first with its problem.
 */
void changes_snapshot_stage(struct changes_snapshot *snapshot, struct route_table *table,
                            struct change_result *ret_result);

#endif
