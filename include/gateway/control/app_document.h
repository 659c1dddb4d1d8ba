/*
 * app_document: the JSON text of one app (DESIGN section 4) and its record, both ways.
 *
 * Parsing is strict: unknown and repeated members, wrong types, values out of range, NUL, invalid UTF-8, deep nesting
 * and documents over APP_DOCUMENT_MAX_BYTES are refused, and the problem names the member by its path, such as
 * "instances[0].address". Ids and domains become lower case. What only concerns the record as a whole is left to
 * route_app_check.
 */
#ifndef GATEWAY_CONTROL_APP_DOCUMENT_H
#define GATEWAY_CONTROL_APP_DOCUMENT_H

#include "gateway/route/route_record.h"

enum { APP_DOCUMENT_MAX_BYTES = 1 << 20, APP_DOCUMENT_MAX_DEPTH = 16 };

/*
 * The record of a document; the caller's to free. Only app_id is required. Defaults: ports, domains, instances none;
 * protocol auto; proxy_protocol off; restrict_ports true when ports are listed; limits 0, no limit; state running;
 * weight 1; generation 0. `revision` 0. Else PAYLOAD_TOO_LARGE, INVALID_JSON or INVALID_RECORD.
 */
MUST_CHECK enum status app_document_parse(struct slice json, struct route_app **ret_app,
                                          struct route_problem *ret_problem);

/*
 * Whose document a text says to be that is no good one, be it no JSON, cut off, or of more than one app: the next id in
 * it, as it stands there; `text` goes on behind it. False: there is no more.
 */
bool app_document_next_id(struct slice *text, struct slice *ret_id);

/*
 * Applies {"state","weight","address","generation"}, each optional, to one instance of the app. An address of null
 * takes it away. NOT_FOUND if the app has no such instance. The app is untouched on failure.
 */
MUST_CHECK enum status app_document_patch_instance(struct slice json, struct route_app *app, struct slice instance_id,
                                                   struct route_problem *ret_problem);

/*
 * Compact JSON of the app with its revision and all defaults written out, members always in the same order; free with
 * free(). Parsing it gives an equal record.
 */
char *app_document_format(const struct route_app *app);
/* The same without the revision, for where it is given. */
char *app_document_format_bare(const struct route_app *app);

#endif
