/*
 * id_set: a set of app ids, or other names, which it owns copies of. An empty one is zeroed.
 */
#ifndef GATEWAY_CONTROL_ID_SET_H
#define GATEWAY_CONTROL_ID_SET_H

#include <stdbool.h>
#include <stddef.h>

struct id_set {
    void *root; /* of a balanced tree */
    size_t count;
};

bool id_set_has(const struct id_set *set, const char *id);
void id_set_add(struct id_set *set, const char *id);    /* nothing if it is there */
void id_set_remove(struct id_set *set, const char *id); /* nothing if it is not */
void id_set_clear(struct id_set *set);
void id_set_each(const struct id_set *set, void (*each)(void *arg, const char *id), void *arg); /* in order */

#endif
