/*
 * compose: which host ports a Docker Compose project publishes (compose-spec, `ports` of all services).
 *
 * Pure: texts in, ports out. What the gateway cannot serve (UDP, a host port that Docker chooses at random, …) is left
 * out with a note that says why; what is malformed fails the whole project, with an error that names the service and
 * the entry.
 */
#ifndef GATEWAY_CTL_COMPOSE_H
#define GATEWAY_CTL_COMPOSE_H

#include "gateway/base/ip.h"
#include "gateway/base/slice.h"

enum { COMPOSE_MAX_PORTS = 256, COMPOSE_ERROR_MAX = 512, COMPOSE_NAME_MAX = 64, COMPOSE_ENTRY_MAX = 96 };

struct compose_port {
    uint16_t port;                  /* on the host: what the gateway connects to */
    uint16_t target;                /* in the container */
    const char *protocol;           /* of a route record; NULL: not given */
    const char *proxy_protocol;     /* the same */
    bool is_bound;                  /* only to addresses of the bindings; false: to all of the host's */
    char service[COMPOSE_NAME_MAX]; /* cut if longer */
};

/* An address of the host that a port is bound to; a port may have several. */
struct compose_binding {
    uint16_t port;
    struct ip_addr ip;
};

/* For the user: one sentence about a service or one of its entries. */
struct compose_note {
    char service[COMPOSE_NAME_MAX];
    char entry[COMPOSE_ENTRY_MAX]; /* as in the file; "": the service as a whole */
    bool left_out;                 /* the entry is not served, and the text is the reason */
    char *text;
};

struct compose {
    struct compose_port ports[COMPOSE_MAX_PORTS]; /* sorted by port, each once */
    size_t port_count;
    struct compose_binding *bindings; /* of ports that are bound, as in the files, each once */
    size_t binding_count;
    struct compose_note *notes;
    size_t note_count;
};

/* The value of a variable, or NULL if it is not set. */
typedef const char *(*compose_env_cb)(void *arg, const char *name);

/* What a project depends on besides its files. Borrowed. */
struct compose_settings {
    compose_env_cb env;
    void *env_arg;
    const char *profiles; /* comma-separated; "*": all; NULL: none */
};

/*
 * A project of one or more files, each merged into those before it: `ports` are joined, an entry that publishes the
 * same again replaces the first; !reset and !override are honoured. `extends` is followed within a file.
 */
struct compose_reader;
struct compose_reader *compose_reader_new(const struct compose_settings *settings);
void compose_reader_free(struct compose_reader **reader); /* accepts NULL */
/* After false, with the error filled, the reader is only good to be freed. */
bool compose_reader_add(struct compose_reader *reader, struct slice text, char ret_error[COMPOSE_ERROR_MAX]);
/* The ports of all that was added; once. The object is freed by compose_free. */
bool compose_reader_finish(struct compose_reader *reader, struct compose **ret_compose,
                           char ret_error[COMPOSE_ERROR_MAX]);

/* The same for a single file. */
bool compose_parse(struct slice text, const struct compose_settings *settings, struct compose **ret_compose,
                   char ret_error[COMPOSE_ERROR_MAX]);
void compose_free(struct compose **compose); /* accepts NULL */

/*
 * Looks at the ports that are bound to some addresses of the host only, knowing at which addresses the gateway will
 * connect: those it can reach at none of them are left out. Without addresses nothing is known, and nothing changes.
 */
void compose_check_addresses(struct compose *compose, const struct ip_addr *addresses, size_t count);

/* "service web: 53:53/udp: left out: …", malloc'ed. */
char *compose_note_line(const struct compose_note *note);

/*
 * Replaces $NAME, ${NAME}, ${NAME:-default}, ${NAME-default}, ${NAME:?text}, ${NAME?text}, ${NAME:+text}, ${NAME+text};
 * $$ is a dollar. The result is malloc'ed; NULL with the error filled when a variable without default is not set.
 */
char *compose_interpolate(struct slice text, compose_env_cb env, void *env_arg, char ret_error[COMPOSE_ERROR_MAX]);
/* The same, but that a variable without default that is not set is empty. */
char *compose_interpolate_leniently(struct slice text, compose_env_cb env, void *env_arg,
                                    char ret_error[COMPOSE_ERROR_MAX]);

#endif
