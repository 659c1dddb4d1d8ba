/*
 * route_record: one app's routes as a value, and the rules that one record must keep on its own (DESIGN section 4).
 *
 * A `struct route_app` is built by the control layer from a JSON document (control/app_document), checked here, and
 * handed to the route table, which owns it from then on and shows it to readers as const. Ids and names are lower case.
 * A record is an allocation tree while it is filled, and one block once it is packed: a table of a million apps has a
 * million blocks. route_app_free releases either.
 */
#ifndef GATEWAY_ROUTE_ROUTE_RECORD_H
#define GATEWAY_ROUTE_ROUTE_RECORD_H

#include "gateway/base/ip.h"
#include "gateway/base/slice.h"
#include "gateway/base/status.h"

struct claim;
struct meter;

enum { ROUTE_MAX_PORTS = 256, ROUTE_MAX_INSTANCES = 1024, ROUTE_MAX_DOMAINS = 256, ROUTE_MAX_WEIGHT = 256 };

/* X(NAME, text in documents) */
#define ROUTE_PROTOCOL_TABLE(X)                                                                                        \
    X(AUTO, "auto")                                                                                                    \
    X(HTTP, "http")                                                                                                    \
    X(H2C, "h2c")                                                                                                      \
    X(TCP, "tcp")                                                                                                      \
    X(PASSTHROUGH, "passthrough")

#define ROUTE_STATE_TABLE(X)                                                                                           \
    X(STARTING, "starting")                                                                                            \
    X(RUNNING, "running")                                                                                              \
    X(DRAINING, "draining")                                                                                            \
    X(STOPPED, "stopped")

enum route_protocol {
#define X(name, text) ROUTE_PROTOCOL_##name,
    ROUTE_PROTOCOL_TABLE(X)
#undef X
};

enum route_state {
#define X(name, text) ROUTE_STATE_##name,
    ROUTE_STATE_TABLE(X)
#undef X
};

struct route_port {
    uint16_t port;
    uint8_t protocol;       /* enum route_protocol */
    uint8_t proxy_protocol; /* 0: off, else the version to send: 1 or 2 */
};

#define ROUTE_CHECK_TABLE(X)                                                                                           \
    X(TCP, "tcp")                                                                                                      \
    X(HTTP, "http")

enum route_check_type {
#define X(name, text) ROUTE_CHECK_##name,
    ROUTE_CHECK_TABLE(X)
#undef X
};

enum {
    ROUTE_CHECK_MIN_INTERVAL_MS = 1000,
    ROUTE_CHECK_MAX_INTERVAL_MS = 300000,
    ROUTE_CHECK_MIN_TIMEOUT_MS = 100,
    ROUTE_CHECK_MAX_TIMEOUT_MS = 60000,
    ROUTE_CHECK_MAX_COUNT = 10, /* of rise and fall */
    ROUTE_CHECK_MAX_PATH = 255,
};

/* How the instances of a port are looked at, see proxy/checks. */
struct route_check {
    uint16_t port;
    uint8_t type; /* enum route_check_type */
    uint8_t rise; /* good answers in a row that make it up again */
    uint8_t fall; /* bad ones in a row that make it down */
    uint32_t interval_ms;
    uint32_t timeout_ms; /* at most interval_ms */
    const char *path;    /* HTTP; else NULL */
};

struct route_domain {
    const char *name;
    uint16_t port;
};

struct route_instance {
    struct claim *claim; /* set by the route table when the record is published; NULL: owns no address */
    const char *id;
    uint64_t generation;    /* of this boot; grows */
    struct ip_addr address; /* family 0: none yet (only while STARTING or STOPPED) */
    uint8_t state;          /* enum route_state */
    uint16_t weight;        /* 0..ROUTE_MAX_WEIGHT; 0: gets nothing new */
};

struct route_app {
    uint64_t revision;            /* of the last change to this app */
    uint32_t max_connections;     /* requests and tunnels in progress; 0: unlimited */
    uint32_t requests_per_second; /* 0: unlimited */
    struct route_check *checks;   /* sorted by port; each is of one that is in `ports` */
    struct route_domain *domains;
    /* From here on, what each look-up needs: with what follows it in the block, it is two or three cache lines. */
    const char *id;
    struct meter *meter; /* set by the route table; NULL: no limits */
    bool restrict_ports : 1;
    bool is_packed : 1; /* route_record's own */
    uint16_t check_count : 14;
    uint16_t port_count;
    uint16_t domain_count;
    uint16_t instance_count;
    struct route_port *ports; /* sorted by port */
    struct route_instance *instances;
};

/* Where instances may live, and where never (the gateway's own listeners). Owned by the config snapshot. */
struct route_rules {
    const struct ip_network *allow;
    size_t allow_count;
    /*
     * Port 0 matches every port; the any address matches loopback addresses, since which others are the machine's own
     * is the config's to find out (ip_local_addresses) and list.
     */
    const union ip_sockaddr *own_listeners;
    size_t own_listener_count;
};

/* What is wrong, for a problem+json answer. */
struct route_problem {
    enum status status; /* INVALID_RECORD, CLAIM_CONFLICT, … */
    char field[96];     /* "instances[0].address" */
    char detail[256];   /* "127.0.0.1 is a loopback address and no upstream.allow network is one; use …" */
};

const char *route_protocol_name(enum route_protocol protocol);
const char *route_state_name(enum route_state state);
bool route_protocol_parse(struct slice text, enum route_protocol *ret);
bool route_state_parse(struct slice text, enum route_state *ret);
const char *route_check_name(enum route_check_type type);
bool route_check_parse(struct slice text, enum route_check_type *ret);

/* Fills the problem (may be NULL) and returns `status`. Bytes that are not printable ASCII become '?'. */
enum status route_problem_set(struct route_problem *problem, enum status status, const char *field, const char *format,
                              ...) __attribute__((format(printf, 4, 5)));

/*
 * A zeroed record, and copies of strings that live as long as it; see route_app_free. The arrays are malloc'ed by
 * whoever fills the record and are the record's from then on.
 */
struct route_app *route_app_new(const char *id);
const char *route_app_strdup(struct route_app *app, struct slice text);

/* Replaces a record that is filled, and not given to a table yet, by an equal one in one block: no list can grow. */
void route_app_pack(struct route_app **app);
struct route_app *route_app_copy(const struct route_app *app); /* packed, without claims and meter */
void route_app_free(struct route_app **app);                   /* drops the references to claims and meter too */

/* The same but for revision and claims, lists compared in order. */
bool route_app_equal(const struct route_app *a, const struct route_app *b);

/* Running or draining with an address: owns it. */
bool route_instance_is_live(const struct route_instance *instance);

/* The app's instance of this id, or NULL. */
struct route_instance *route_app_instance(const struct route_app *app, struct slice id);

/*
 * Checks the record alone: id syntax, counts, unique ports, domains, instance ids and live addresses, weights, state
 * and address (running and draining need one), addresses against the rules (NULL: not judged), those that are live with
 * each listed port. STATUS_OK or STATUS_INVALID_RECORD with the problem filled.
 */
MUST_CHECK enum status route_app_check(const struct route_app *app, const struct route_rules *rules,
                                       struct route_problem *ret_problem);

/*
 * The rule for one address and port, also asked at connect time: STATUS_OK or ADDRESS_FORBIDDEN. port 0: not known yet,
 * own listeners on a port of theirs are then not looked at. ret_problem may be NULL.
 */
MUST_CHECK enum status route_rules_check(const struct route_rules *rules, const struct ip_addr *addr, uint16_t port,
                                         struct route_problem *ret_problem);

/* The port's check, or NULL if it has none. */
const struct route_check *route_app_port_check(const struct route_app *app, uint16_t port);

/* The port's entry, or NULL if it is not listed. */
const struct route_port *route_app_port(const struct route_app *app, uint16_t port);

#endif
