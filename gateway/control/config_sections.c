#include "config_sections.h"

#include "gateway/http/hostname.h"

#include <stdlib.h>

enum { SECOND = 1000, HOUR = 3600 * SECOND, DAY = 24 * HOUR, KIB = 1024, MIB = 1024 * KIB };
enum { MAX_DNS_SERVERS = 8 };
enum { BASE_DOMAIN_MAX = HOSTNAME_MAX - HOSTNAME_MAX_LABEL - 1 };

/* A number of the settings: its key, kind, member, and the least and the greatest value. */
#define NUMBER(text, kind, member, low, high)                                                                          \
    {                                                                                                                  \
        .name = (text), .read = config_read_##kind, .offset = offsetof(struct settings, member), .min = (low),         \
        .max = (high)                                                                                                  \
    }

/* ---- numbers ---- */

static bool read_max_apps(struct config_reader *reader, const struct config_key *key, void *target)
{
    (void)target;
    return config_read_count(reader, key, &reader->config->max_apps);
}

bool config_sections_limits(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        {.name = "apps", .read = read_max_apps, .min = 1, .max = 100000000},
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
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), settings))
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

bool config_sections_timeouts(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        NUMBER("proxy_header", duration, proxy_header_ms, 100, HOUR),
        NUMBER("handshake", duration, handshake_ms, 100, HOUR),
        NUMBER("sniff", duration, sniff_ms, 10, HOUR),
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
    return config_read_mapping(reader, keys, CONFIG_COUNT(keys), reader->config->settings);
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
                         "%.*s is not a network; write an address and a prefix such as 10.0.0.0/8 or fd00::/8, with "
                         "no bits after the prefix",
                         config_shown(text), text.ptr);
}

/* Into an array of its own, which is the settings' whether reading succeeds or not. */
static bool read_networks(struct config_reader *reader, size_t min, struct ip_network **ret_networks, size_t *ret_count)
{
    size_t length = config_list_length(reader);
    *ret_count = length < CONFIG_MAX_NETWORKS ? length : CONFIG_MAX_NETWORKS;
    *ret_networks = calloc(*ret_count + 1, sizeof **ret_networks);
    if (!*ret_networks)
        abort();
    return config_read_list(reader, min, CONFIG_MAX_NETWORKS, "networks", read_network, *ret_networks);
}

bool config_sections_trusted_proxies(struct config_reader *reader, const struct config_key *key, void *target)
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

static bool read_ejection(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        NUMBER("failures", count, ejection.failures, 0, 1000),
        NUMBER("pause", duration, ejection.base_ms, 100, HOUR),
        NUMBER("max_pause", duration, ejection.max_ms, 100, HOUR),
        NUMBER("panic_percent", count, ejection.panic_percent, 0, 100),
        NUMBER("server_errors", bool, ejection.server_errors, 0, 0),
    };
    (void)key;
    (void)target;
    const struct ejection_settings *ejection = &reader->config->settings->ejection;
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), reader->config->settings))
        return false;
    if (ejection->base_ms <= ejection->max_ms)
        return true;
    return config_refuse_member(reader, "max_pause", "%ums is shorter than the first pause of %ums; use that or more",
                                (unsigned)ejection->max_ms, (unsigned)ejection->base_ms);
}

bool config_sections_upstream(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        {.name = "allow", .read = read_allow, .required = true},
        NUMBER("max_idle_per_instance", count, max_idle_per_instance, 0, 100000),
        {.name = "ejection", .read = read_ejection},
    };
    (void)key;
    (void)target;
    return config_read_mapping(reader, keys, CONFIG_COUNT(keys), reader->config->settings);
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
        return config_refuse(reader,
                             "%.*s is not a domain name; write one such as prod5.phala.network, without a star "
                             "or a port",
                             config_shown(text), text.ptr);
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
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), &domains[index]))
        return false;
    for (size_t i = 0; i < index; i++)
        if (strcmp(domains[i].name, domains[index].name) == 0)
            return config_refuse_member(reader, "name", "%s is also base_domains[%zu]; keep one", domains[i].name, i);
    return true;
}

bool config_sections_base_domains(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config *config = reader->config;
    (void)key;
    (void)target;
    size_t count = config_list_length(reader);
    config->base_domain_count = count < CONFIG_MAX_BASE_DOMAINS ? count : CONFIG_MAX_BASE_DOMAINS;
    struct config_base_domain *domains =
        arena_alloc_zeroed(&config->arena, (config->base_domain_count + 1) * sizeof *domains);
    config->base_domains = domains;
    return config_read_list(reader, 1, CONFIG_MAX_BASE_DOMAINS, "base domains", read_base_domain, domains);
}

/* ---- dns ---- */

static bool read_server(struct config_reader *reader, size_t index, void *arg)
{
    const char **servers = arg;
    struct slice text = SLICE_NONE;
    struct ip_addr addr;
    char shown[IP_PORT_TEXT_MAX];
    uint16_t port = 53;
    if (!config_text(reader, &text))
        return false;
    if (!ip_parse(text, &addr) && (!ip_port_parse(text, &addr, &port) || port == 0))
        return config_refuse(reader,
                             "%.*s is not the address of a DNS server; write 192.0.2.53, or with a port "
                             "192.0.2.53:5353 or [2001:db8::53]:5353",
                             config_shown(text), text.ptr);
    ip_port_format(&addr, port, shown);
    *servers = index == 0 ? arena_printf(&reader->config->arena, "%s", shown).ptr
                          : arena_printf(&reader->config->arena, "%s,%s", *servers, shown).ptr;
    return true;
}

static bool read_servers(struct config_reader *reader, const struct config_key *key, void *target)
{
    (void)key;
    return config_read_list(reader, 0, MAX_DNS_SERVERS, "DNS servers", read_server, target);
}

bool config_sections_dns(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        {.name = "enabled", .read = config_read_bool, .offset = offsetof(struct config_dns, enabled)},
        {.name = "servers", .read = read_servers, .offset = offsetof(struct config_dns, servers)},
        {.name = "timeout",
         .read = config_read_duration,
         .offset = offsetof(struct config_dns, timeout_ms),
         .min = 100,
         .max = 30 * SECOND},
    };
    (void)key;
    return config_read_mapping(reader, keys, CONFIG_COUNT(keys), target);
}
