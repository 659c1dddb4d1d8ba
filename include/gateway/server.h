/*
 * server: the whole program behind main: what the control thread owns and how it starts, reloads, drains and ends.
 */
#ifndef GATEWAY_SERVER_H
#define GATEWAY_SERVER_H

#include "gateway/control/config.h"

struct server;

enum { SERVER_ERROR_TEXT_MAX = 1200 };

/* Checks what --check promises beyond the file's text: certificates, keys, files of secrets. */
MUST_CHECK enum status server_check(const struct config *config, char ret_error[SERVER_ERROR_TEXT_MAX]);

/* Opens everything and starts the workers; the configuration passes to the server. */
MUST_CHECK enum status server_start(struct config *config, struct server **ret_server,
                                    char ret_error[SERVER_ERROR_TEXT_MAX]);

/* Runs until it is told to end by a signal and the last exchange is over. */
void server_run(struct server *server);
void server_free(struct server **server);

#endif
