/*
 * What the files of compose share: YAML nodes, the syntax of one `ports` entry, and a service as it is gathered from
 * the files of a project.
 */
#ifndef GATEWAY_CTL_COMPOSE_INTERNAL_H
#define GATEWAY_CTL_COMPOSE_INTERNAL_H

#include "gateway/ctl/compose.h"

#include <yaml.h>

/* ---- compose_yaml ---- */

/* One document, and how much of it has been looked at: a file of aliases to aliases must end too. */
struct compose_yaml {
    yaml_document_t document;
    unsigned visits;
};

/* One step of looking; false: it is so intricate that it is given up, and what was found does not count. */
bool compose_yaml_visit(struct compose_yaml *yaml);
yaml_node_t *compose_yaml_node(struct compose_yaml *yaml, int index);
/* The text of a scalar, else SLICE_NONE. */
struct slice compose_yaml_scalar(const yaml_node_t *node);
/* Not there, empty, ~ or null. */
bool compose_yaml_is_null(const yaml_node_t *node);
/* A key that is in its mapping a second time, which YAML forbids (1.2.2, section 3.2.1.1); NULL: there is none. */
const yaml_node_t *compose_yaml_doubled_key(struct compose_yaml *yaml);
/* "!reset", "!override"; false for NULL. */
bool compose_yaml_has_tag(const yaml_node_t *node, const char *tag);
/* A member of a mapping, its own or by merge keys (<<): own ones win, then the first mapping merged. NULL: none. */
yaml_node_t *compose_yaml_member(struct compose_yaml *yaml, const yaml_node_t *mapping, const char *key);
/*
 * Calls for each member, own and merged, that compose_yaml_member finds. Stops at false and returns it; false too if
 * what is merged is no mapping, or has no end.
 */
typedef bool (*compose_yaml_each_cb)(void *arg, struct slice name, const yaml_node_t *value);
bool compose_yaml_each(struct compose_yaml *yaml, const yaml_node_t *mapping, compose_yaml_each_cb each, void *arg);

/* ---- compose_entry ---- */

struct compose_range {
    unsigned first;
    unsigned last;
};

/* An entry of `ports`, short or long. */
struct compose_entry {
    struct ip_addr host_ip;         /* family 0: not given */
    char protocol[16];              /* tcp, udp, …; cut if longer */
    struct compose_range published; /* 0: Docker's choice */
    struct compose_range target;
    const char *app_protocol;     /* as in a route record, or NULL */
    char text[COMPOSE_ENTRY_MAX]; /* for messages */
};

/* [[IP:][PUBLISHED]:]TARGET[/PROTOCOL]. NULL, or what is wrong. */
const char *compose_entry_parse(struct slice text, struct compose_entry *ret_entry);
/* "80" or "8000-8010", 1..65535, in order. */
bool compose_range_parse(struct slice text, struct compose_range *ret_range);
/* The same, or "0", which leaves the choice to Docker. */
bool compose_published_parse(struct slice text, struct compose_range *ret_range);
/* An address that a port is bound to; the unspecified one becomes family 0. */
bool compose_host_ip_parse(struct slice text, struct ip_addr *ret_ip);
/* Whether two entries publish the same, so that the later one counts. */
bool compose_entry_same(const struct compose_entry *a, const struct compose_entry *b);
/* auto, http, h2c, tcp, passthrough for the many names of app_protocol; NULL if it is unknown. */
const char *compose_app_protocol(struct slice name);

/* ---- compose_service ---- */

struct compose_service {
    char *name;
    struct compose_entry *ports;
    size_t port_count;
    char **exposed; /* as in the file */
    size_t expose_count;
    char **profiles;
    size_t profile_count;
    char *network_mode; /* NULL: not given */
};

/* Reading one document of a project. */
struct compose_reading {
    struct compose_yaml yaml;
    const yaml_node_t *services;
    const struct compose_settings *settings;
    struct compose *compose; /* gets the notes */
    size_t *entry_count;     /* of all services of the project */
    char *error;
    struct slice service; /* for messages */
};

/* Merges a mapping into what is known of the service. */
bool compose_service_merge(struct compose_reading *reading, struct compose_service *service, const yaml_node_t *node);
void compose_service_clear(struct compose_service *service); /* all but the name */
void compose_service_fini(struct compose_service *service);

/* ---- compose ---- */

bool compose_fail(struct compose_reading *reading, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* entry: "" for the service as a whole. */
void compose_note(struct compose *compose, struct slice service, const char *entry, bool left_out, const char *format,
                  ...) __attribute__((format(printf, 5, 6)));

/* The text with NUL, cut to the size where a character of UTF-8 ends. */
void compose_copy_text(char *ret_text, size_t size, struct slice text);
/* Unless there is the port already; false if there is no room for it. */
bool compose_add_port(struct compose *compose, const struct compose_port *port);

#endif
