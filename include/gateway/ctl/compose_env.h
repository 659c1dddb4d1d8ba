/*
 * compose_env: the variables of a Compose project: those of the environment, then those of its env files (.env), by
 * Docker Compose's rules.
 *
 * A file has lines NAME=VALUE or NAME: VALUE, with an optional `export` before them, blank ones, and comments after #.
 * In "…" the escapes \n \r \t \a \b \f \v \" \\ \$ count, in '…' only \'; both may go over several lines. What is in no
 * quotes ends with the line, or before a # that follows a space. Variables (compose_interpolate) are filled in but in
 * '…', from the environment and from what stands before; those that nobody sets are empty. NAME alone says nothing: the
 * environment wins anyway.
 */
#ifndef GATEWAY_CTL_COMPOSE_ENV_H
#define GATEWAY_CTL_COMPOSE_ENV_H

#include "gateway/ctl/compose.h"

struct compose_env;
/* `outer` is the environment. */
struct compose_env *compose_env_new(compose_env_cb outer, void *outer_arg);
void compose_env_free(struct compose_env **env); /* accepts NULL */

/* One file; what later ones say again counts. False, with the line in the error, if it cannot be understood. */
bool compose_env_read(struct compose_env *env, struct slice text, char ret_error[COMPOSE_ERROR_MAX]);

/* A compose_env_cb of a struct compose_env: the value, as long as nothing more is read; NULL if it is not set. */
const char *compose_env_value(void *env, const char *name);

#endif
