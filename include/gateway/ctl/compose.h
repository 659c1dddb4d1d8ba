/*
 * compose: which host ports a Docker Compose file publishes (compose-spec, `ports` of all services).
 *
 * Pure: text in, ports out. Ports that the gateway cannot serve (UDP, a host port that Docker chooses at random) are
 * left out with a note that says why; what is malformed or ambiguous fails the whole file, with an error that names the
 * service and entry.
 */
#ifndef GATEWAY_CTL_COMPOSE_H
#define GATEWAY_CTL_COMPOSE_H

#include "gateway/base/slice.h"

enum { COMPOSE_MAX_PORTS = 256, COMPOSE_ERROR_MAX = 512, COMPOSE_NAME_MAX = 64 };

struct compose_port {
    uint16_t port;                  /* on the host: what the gateway connects to */
    uint16_t target;                /* in the container */
    const char *protocol;           /* of a route record; NULL: not given */
    char service[COMPOSE_NAME_MAX]; /* cut if longer */
};

struct compose {
    struct compose_port ports[COMPOSE_MAX_PORTS]; /* sorted by port, each once */
    size_t port_count;
    char **notes; /* for the user, one sentence each */
    size_t note_count;
};

/* The value of a variable, or NULL if it is not set. */
typedef const char *(*compose_env_cb)(void *arg, const char *name);

/* False with the error filled, or true with an object to be freed by compose_free. */
bool compose_parse(struct slice text, compose_env_cb env, void *env_arg, struct compose **ret_compose,
                   char ret_error[COMPOSE_ERROR_MAX]);
void compose_free(struct compose **compose);

/*
 * Replaces $NAME, ${NAME}, ${NAME:-default}, ${NAME-default}, ${NAME:?text}, ${NAME?text}, ${NAME:+text}, ${NAME+text};
 * $$ is a dollar. The result is malloc'ed; NULL with the error filled when a variable without default is not set.
 */
char *compose_interpolate(struct slice text, compose_env_cb env, void *env_arg, char ret_error[COMPOSE_ERROR_MAX]);

#endif
