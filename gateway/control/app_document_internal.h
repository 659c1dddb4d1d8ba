/* What readers of other JSON texts share with app_document. Private to control. */
#ifndef GATEWAY_CONTROL_APP_DOCUMENT_INTERNAL_H
#define GATEWAY_CONTROL_APP_DOCUMENT_INTERNAL_H

#include "gateway/control/app_document.h"
#include "gateway/http/hostname.h"

#include <jansson.h>

/* A JSON object of at most max_bytes, read as strictly as an app document; json_decref it. */
MUST_CHECK enum status app_document_load(struct slice json, size_t max_bytes, json_t **ret_root,
                                         struct route_problem *ret_problem);

/* The record of an object that is a member of another: `path` leads to it, such as "app.". */
MUST_CHECK enum status app_document_read(const json_t *root, const char *path, struct route_app **ret_app,
                                         struct route_problem *ret_problem);

/* Values of members, as app_document reads them. Each leaves *ret as it is if the member is absent. */
MUST_CHECK enum status app_document_check_members(const json_t *object, const char *const known[],
                                                  struct route_problem *ret_problem);
MUST_CHECK enum status app_document_integer(const json_t *object, const char *member, uint64_t max, uint64_t *ret,
                                            struct route_problem *ret_problem);
/* A name of letters, digits, hyphens in lower case; it must be there. */
MUST_CHECK enum status app_document_id(const json_t *object, const char *member, char ret[HOSTNAME_MAX_LABEL + 1],
                                       struct route_problem *ret_problem);

#endif
