/*
 * compose_app: dstack's app-compose.json, the JSON document that a CVM is measured by. It has a Compose file inside.
 *
 * The app's id is the first 20 bytes of the SHA-256 of the file's bytes, as 40 hex digits: each change of the file, be
 * it a space, is another app.
 */
#ifndef GATEWAY_CTL_COMPOSE_APP_H
#define GATEWAY_CTL_COMPOSE_APP_H

#include "gateway/ctl/compose.h"

enum { COMPOSE_APP_ID_SIZE = 41 };

/* True for a JSON object with the members of an app-compose.json; a Compose file in JSON is none. */
bool compose_app_is(struct slice text);

/* The id; with NUL. */
void compose_app_id(struct slice text, char ret_id[COMPOSE_APP_ID_SIZE]);

/*
 * The ports of the Compose file inside (docker_compose_file), with what port_policy says: `pp` asks for a PROXY header,
 * a port that only the policy lists is one too, and with `restrict_mode` no others are. Refused: a file that asks for
 * no gateway (gateway_enabled, formerly tproxy_enabled, is false).
 */
bool compose_app_parse(struct slice text, const struct compose_settings *settings, struct compose **ret_compose,
                       char ret_error[COMPOSE_ERROR_MAX]);

#endif
