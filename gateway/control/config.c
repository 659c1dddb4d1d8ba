#include "gateway/control/config.h"

#include "config_reader.h"
#include "gateway/http/hostname.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

enum { SECOND = 1000, HOUR = 3600 * SECOND, DAY = 24 * HOUR, KIB = 1024, MIB = 1024 * KIB };
enum { LOCAL_ADDRESSES_MAX = 256, BASE_DOMAIN_MAX = HOSTNAME_MAX - HOSTNAME_MAX_LABEL - 1 };
enum { UNIX_PATH_MAX = sizeof((struct sockaddr_un *)0)->sun_path - 1, DEFAULT_DRAIN = 30 * SECOND };

static const char default_socket[] = "/run/phala-gateway/control.sock";
static const char default_state_dir[] = "/var/lib/phala-gateway";

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define KEY(text, how, type, member, low, high)                                                                        \
    {                                                                                                                  \
        .name = (text), .read = (how), .offset = offsetof(type, member), .min = (low), .max = (high)                   \
    }
#define NUMBER(text, how, member, low, high) KEY(text, config_read_##how, struct settings, member, low, high)
#define SECTION(text, how, must)                                                                                       \
    {                                                                                                                  \
        .name = (text), .read = (how), .required = (must)                                                              \
    }

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        abort();
    return memory;
}

/* ---- numbers ---- */

static bool read_limits(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        NUMBER("max_connections", count, max_connections, 1, 10000000),
        NUMBER("max_retries", count, max_retries, 0, 10),
        NUMBER("request_head", size, mux.request_limits.max_head_bytes, KIB, MIB),
        NUMBER("request_fields", count, mux.request_limits.max_fields, 4, 1000),
        NUMBER("request_target", size, mux.request_limits.max_target_bytes, 64, MIB),
        NUMBER("requests_per_connection", count, mux.max_requests, 0, 1000000000),
        NUMBER("response_head", size, mux.response_limits.max_head_bytes, KIB, MIB),
        NUMBER("response_fields", count, mux.response_limits.max_fields, 4, 1000),
    };
    (void)key;
    (void)target;
    struct settings *settings = reader->config->settings;
    if (!config_read_mapping(reader, keys, COUNT(keys), settings))
        return false;
    size_t head = settings->mux.request_limits.max_head_bytes;
    if (settings->mux.request_limits.max_target_bytes < head)
        return true;
    return config_refuse_member(reader, "request_target",
                                "%zu bytes do not fit into a request_head of %zu; use fewer, or a larger request_head",
                                settings->mux.request_limits.max_target_bytes, head);
}

static bool read_drain(struct config_reader *reader, const struct config_key *key, void *target)
{
    (void)target;
    return config_read_duration(reader, key, &reader->config->drain_ms);
}

static bool read_timeouts(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        NUMBER("handshake", duration, handshake_ms, 100, HOUR),
        NUMBER("request_head", duration, mux.head_ms, 100, HOUR),
        NUMBER("request_body_idle", duration, mux.body_idle_ms, 100, DAY),
        NUMBER("request_body_min_rate", rate, mux.body_min_rate, 0, 100 * MIB),
        NUMBER("keepalive", duration, mux.keepalive_ms, 100, DAY),
        NUMBER("send_stall", duration, mux.send_stall_ms, 100, DAY),
        NUMBER("connect", duration, connect_ms, 10, HOUR),
        NUMBER("first_byte", duration, first_byte_ms, 100, DAY),
        NUMBER("response_idle", duration, response_idle_ms, 100, DAY),
        NUMBER("tunnel_idle", duration, tunnel_idle_ms, 100, 10 * DAY),
        NUMBER("upstream_idle", duration, upstream_idle_ms, 100, DAY),
        {.name = "drain", .read = read_drain, .max = DAY},
    };
    (void)key;
    (void)target;
    return config_read_mapping(reader, keys, COUNT(keys), reader->config->settings);
}

static bool read_workers(struct config_reader *reader, const struct config_key *key, void *target)
{
    unsigned *workers = target;
    if (!config_read_count(reader, key, workers))
        return false;
    return true;
}

/* ---- networks ---- */

static bool read_network(struct config_reader *reader, size_t index, void *arg)
{
    struct ip_network *networks = arg;
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    if (ip_network_parse(text, &networks[index]))
        return true;
    return config_refuse(reader,
                         "%.64s is not a network; write an address and a prefix such as 10.0.0.0/8 or fd00::/8, with "
                         "no bits after the prefix",
                         arena_printf(&reader->config->arena, "%.*s", SLICE_ARG(text)).ptr);
}

/* Into an array of its own, which is the settings' whether reading succeeds or not. */
static bool read_networks(struct config_reader *reader, size_t min, struct ip_network **ret_networks, size_t *ret_count)
{
    size_t count = config_list_length(reader);
    *ret_networks = zeroed(count + 1, sizeof **ret_networks);
    *ret_count = count;
    return config_read_list(reader, min, CONFIG_MAX_NETWORKS, "networks", read_network, *ret_networks);
}

static bool read_trusted_proxies(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct settings *settings = reader->config->settings;
    (void)key;
    (void)target;
    return read_networks(reader, 0, &settings->trusted_proxies, &settings->trusted_proxy_count);
}

static bool read_allow(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct settings *settings = reader->config->settings;
    struct ip_network *networks = NULL;
    (void)key;
    (void)target;
    bool ok = read_networks(reader, 1, &networks, &settings->rules.allow_count);
    settings->rules.allow = networks;
    return ok;
}

static bool read_upstream(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        SECTION("allow", read_allow, true),
        NUMBER("max_idle_per_instance", count, max_idle_per_instance, 0, 100000),
    };
    (void)key;
    (void)target;
    return config_read_mapping(reader, keys, COUNT(keys), reader->config->settings);
}

/* ---- base domains ---- */

static bool read_domain_name(struct config_reader *reader, const struct config_key *key, void *target)
{
    char name[BASE_DOMAIN_MAX + 1];
    struct slice text = SLICE_NONE;
    (void)key;
    if (!config_text(reader, &text))
        return false;
    if (text.len > BASE_DOMAIN_MAX)
        return config_refuse(reader, "the name has %zu bytes; use at most %d, so that an id fits before it", text.len,
                             BASE_DOMAIN_MAX);
    for (size_t i = 0; i < text.len; i++)
        name[i] = ascii_lower(text.ptr[i]);
    if (!hostname_is_dns_name(slice_make(name, text.len)))
        return config_refuse(reader, "%.*s is not a domain name; write one such as prod5.phala.network, without a star "
                                     "or a port",
                             SLICE_ARG(text));
    *(const char **)target = arena_printf(&reader->config->arena, "%.*s", (int)text.len, name).ptr;
    return true;
}

static bool read_base_domain(struct config_reader *reader, size_t index, void *arg)
{
#define MEMBER(text, how, member)                                                                                      \
    {                                                                                                                  \
        .name = (text), .read = (how), .offset = offsetof(struct config_base_domain, member), .required = true         \
    }
    static const struct config_key keys[] = {
        MEMBER("name", read_domain_name, name),
        MEMBER("certificate", config_read_path, certificate),
        MEMBER("private_key", config_read_path, private_key),
    };
#undef MEMBER
    struct config_base_domain *domains = arg;
    if (!config_read_mapping(reader, keys, COUNT(keys), &domains[index]))
        return false;
    for (size_t i = 0; i < index; i++)
        if (strcmp(domains[i].name, domains[index].name) == 0)
            return config_refuse_member(reader, "name", "%s is also base_domains[%zu]; keep one", domains[i].name, i);
    return true;
}

static bool read_base_domains(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config *config = reader->config;
    (void)key;
    (void)target;
    size_t count = config_list_length(reader);
    struct config_base_domain *domains = arena_alloc_zeroed(&config->arena, (count + 1) * sizeof *domains);
    config->base_domains = domains;
    config->base_domain_count = count;
    return config_read_list(reader, 1, CONFIG_MAX_BASE_DOMAINS, "base domains", read_base_domain, domains);
}

/* ---- listeners ---- */

/* Where something listens; for reading an address. */
struct place {
    struct ip_addr addr;
    uint16_t port;
};

static bool read_address(struct config_reader *reader, struct ip_addr *ret_addr, uint16_t *ret_port)
{
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    if (!ip_port_parse(text, ret_addr, ret_port))
        return config_refuse(reader, "%.*s is not an address with a port; write one such as 0.0.0.0:443 or [::]:443",
                             (int)(text.len < 64 ? text.len : 64), text.ptr);
    if (*ret_port == 0)
        return config_refuse(reader, "port 0 cannot be listened on; use 1 to 65535");
    return true;
}

static bool read_listener_address(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config_listener *listener = target;
    (void)key;
    return read_address(reader, &listener->addr, &listener->port);
}

static bool read_control_address(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config_control *control = target;
    (void)key;
    return read_address(reader, &control->addr, &control->port);
}

static bool read_proxy_protocol(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const char *const names[] = {"off", "required", NULL};
    unsigned choice = 0;
    if (!config_read_choice(reader, &(struct config_key){.name = key->name, .names = names}, &choice))
        return false;
    *(bool *)target = choice == 1;
    return true;
}

/* Listening on both would be an accident: which of them gets a connection is the kernel's choice. */
static bool overlaps(const struct ip_addr *a, uint16_t a_port, const struct ip_addr *b, uint16_t b_port)
{
    return a->family == b->family && a_port == b_port &&
           (ip_equal(a, b) || ip_kind(a) == IP_UNSPECIFIED || ip_kind(b) == IP_UNSPECIFIED);
}

static bool refuse_overlap(struct config_reader *reader, const struct ip_addr *addr, uint16_t port, const char *list,
                           size_t index)
{
    char text[IP_PORT_TEXT_MAX];
    ip_port_format(addr, port, text);
    return config_refuse_member(reader, "address", "it overlaps with %s[%zu], %s; use another address or port", list,
                                index, text);
}

static bool read_listener(struct config_reader *reader, size_t index, void *arg)
{
    static const struct config_key keys[] = {
        {.name = "address", .read = read_listener_address, .required = true},
        KEY("redirect_to_https", config_read_bool, struct config_listener, redirect_to_https, 0, 0),
        KEY("proxy_protocol", read_proxy_protocol, struct config_listener, proxy_protocol_required, 0, 0),
    };
    struct config_listener *listeners = arg;
    struct config_listener *own = &listeners[index];
    if (!config_read_mapping(reader, keys, COUNT(keys), own))
        return false;
    for (size_t i = 0; i < index; i++)
        if (overlaps(&own->addr, own->port, &listeners[i].addr, listeners[i].port))
            return refuse_overlap(reader, &listeners[i].addr, listeners[i].port, "listeners", i);
    return true;
}

static bool read_listeners(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config *config = reader->config;
    (void)key;
    (void)target;
    size_t count = config_list_length(reader);
    struct config_listener *listeners = arena_alloc_zeroed(&config->arena, (count + 1) * sizeof *listeners);
    config->listeners = listeners;
    config->listener_count = count;
    return config_read_list(reader, 1, CONFIG_MAX_LISTENERS, "listeners", read_listener, listeners);
}

/* ---- control listeners ---- */

static bool check_unix_control(struct config_reader *reader, const struct config_control *control)
{
    static const char rule[] = "it is of no use with unix_socket; remove it, or give an address instead of the socket";
    if (strlen(control->unix_socket) > UNIX_PATH_MAX)
        return config_refuse_member(reader, "unix_socket", "the path is longer than %d bytes; use a shorter one",
                                    UNIX_PATH_MAX);
    if (control->port != 0)
        return config_refuse_member(reader, "address", "%s", rule);
    if (control->certificate)
        return config_refuse_member(reader, "certificate", "%s", rule);
    if (control->private_key)
        return config_refuse_member(reader, "private_key", "%s", rule);
    if (control->client_ca)
        return config_refuse_member(reader, "client_ca", "%s", rule);
    return !control->token_file || config_refuse_member(reader, "token_file", "%s", rule);
}

/* No way in without authentication, and none in the clear. */
static bool check_tcp_control(struct config_reader *reader, const struct config_control *control)
{
    if (control->port == 0)
        return config_refuse(reader, "it says not where to listen; give unix_socket or address");
    if (!control->certificate)
        return config_refuse_member(reader, "certificate", "the key is missing; a TCP control listener needs one");
    if (!control->private_key)
        return config_refuse_member(reader, "private_key", "the key is missing; a TCP control listener needs one");
    if (!control->client_ca && !control->token_file)
        return config_refuse(reader, "no authentication is configured; give client_ca (mutual TLS), token_file, or "
                                     "both");
    return true;
}

static bool check_control_overlap(struct config_reader *reader, const struct config_control *controls, size_t index)
{
    const struct config_control *own = &controls[index];
    for (size_t i = 0; i < index; i++) {
        const struct config_control *other = &controls[i];
        if (own->unix_socket && other->unix_socket && strcmp(own->unix_socket, other->unix_socket) == 0)
            return config_refuse_member(reader, "unix_socket", "it is also control[%zu]; keep one", i);
        if (own->port != 0 && overlaps(&own->addr, own->port, &other->addr, other->port))
            return refuse_overlap(reader, &other->addr, other->port, "control", i);
    }
    return true;
}

static bool read_control(struct config_reader *reader, size_t index, void *arg)
{
#define PATH_KEY(member) KEY(#member, config_read_path, struct config_control, member, 0, 0)
    static const struct config_key keys[] = {
        PATH_KEY(unix_socket), {.name = "address", .read = read_control_address},
        PATH_KEY(certificate), PATH_KEY(private_key),
        PATH_KEY(client_ca),   PATH_KEY(token_file),
    };
#undef PATH_KEY
    struct config_control *controls = arg;
    struct config_control *own = &controls[index];
    if (!config_read_mapping(reader, keys, COUNT(keys), own))
        return false;
    bool ok = own->unix_socket ? check_unix_control(reader, own) : check_tcp_control(reader, own);
    return ok && check_control_overlap(reader, controls, index);
}

static bool read_controls(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config *config = reader->config;
    (void)key;
    (void)target;
    size_t count = config_list_length(reader);
    struct config_control *controls = arena_alloc_zeroed(&config->arena, (count + 1) * sizeof *controls);
    config->controls = controls;
    config->control_count = count;
    return config_read_list(reader, 1, CONFIG_MAX_LISTENERS, "control listeners", read_control, controls);
}
