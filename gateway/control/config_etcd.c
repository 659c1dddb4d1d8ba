/* The section sync.etcd. */
#include "config_sections.h"

enum { MAX_PREFIX = 200, MAX_USER = 200 };

static const char default_prefix[] = "/phala-gateway/";

#define KEY(text, how, member)                                                                                         \
    {                                                                                                                  \
        .name = (text), .read = (how), .offset = offsetof(struct config_etcd, member)                                  \
    }

/* ---- endpoints ---- */

/* name:port, address:port or [address]:port. */
static bool is_host_and_port(struct slice text)
{
    struct ip_addr addr;
    uint16_t port;
    uint64_t number;
    size_t len = config_host_length(text);
    if (ip_port_parse(text, &addr, &port))
        return port > 0;
    return len > 0 && len < text.len && text.ptr[len] == ':' && slice_to_u64(slice_from(text, len + 1), &number) &&
           number > 0 && number <= UINT16_MAX;
}

static bool read_endpoint(struct config_reader *reader, size_t index, void *arg)
{
    const char **endpoints = arg;
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    struct slice url = text;
    while (url.len > 0 && url.ptr[url.len - 1] == '/')
        url.len--;
    size_t scheme = slice_has_prefix(url, SLICE("https://"))  ? strlen("https://")
                    : slice_has_prefix(url, SLICE("http://")) ? strlen("http://")
                                                              : 0;
    if (scheme == 0 || !is_host_and_port(slice_from(url, scheme)))
        return config_refuse(reader, "%.*s is not the client URL of an etcd member; write one such as %s",
                             config_shown(text), text.ptr, "https://10.0.0.5:2379");
    endpoints[index] = arena_printf(&reader->config->arena, "%.*s", SLICE_ARG(url)).ptr;
    for (size_t i = 0; i < index; i++)
        if (strcmp(endpoints[i], endpoints[index]) == 0)
            return config_refuse(reader, "%s is also endpoints[%zu]; keep one", endpoints[index], i);
    return true;
}

static bool read_endpoints(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config_etcd *etcd = target;
    size_t count = config_list_length(reader);
    (void)key;
    etcd->endpoint_count = count < CONFIG_MAX_ENDPOINTS ? count : CONFIG_MAX_ENDPOINTS;
    const char **endpoints = arena_alloc_zeroed(&reader->config->arena, (etcd->endpoint_count + 1) * sizeof *endpoints);
    etcd->endpoints = endpoints;
    return config_read_list(reader, 1, CONFIG_MAX_ENDPOINTS, "URLs", read_endpoint, endpoints);
}

/* ---- the other keys ---- */

/* One slash at the beginning and the end, whether written or not. */
static bool read_prefix(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct slice text = SLICE_NONE;
    (void)key;
    if (!config_text(reader, &text))
        return false;
    struct slice name = text;
    while (name.len > 0 && name.ptr[name.len - 1] == '/')
        name.len--;
    while (name.len > 0 && name.ptr[0] == '/')
        name = slice_from(name, 1);
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] <= ' ' || name.ptr[i] > '~')
            name.len = 0;
    if (name.len == 0 || name.len > MAX_PREFIX)
        return config_refuse(reader,
                             "%.*s is not a prefix of keys; write a path of at most %d printable characters without "
                             "spaces, such as /phala-gateway",
                             config_shown(text), text.ptr, MAX_PREFIX);
    *(const char **)target = arena_printf(&reader->config->arena, "/%.*s/", SLICE_ARG(name)).ptr;
    return true;
}

static bool read_user(struct config_reader *reader, const struct config_key *key, void *target)
{
    if (!config_read_string(reader, key, target))
        return false;
    return strlen(*(const char **)target) <= MAX_USER ||
           config_refuse(reader, "the name is longer than %d bytes; use a shorter one", MAX_USER);
}

static bool read_tls(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        KEY("ca", config_read_path, ca),
        KEY("certificate", config_read_path, certificate),
        KEY("private_key", config_read_path, private_key),
    };
    const struct config_etcd *etcd = target;
    (void)key;
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), target))
        return false;
    if (etcd->certificate && !etcd->private_key)
        return config_refuse_member(reader, "private_key", "the key is missing; certificate needs one");
    return etcd->certificate || !etcd->private_key ||
           config_refuse_member(reader, "certificate", "the key is missing; private_key needs one");
}

/* ---- what they are together ---- */

static bool is_plain(const char *endpoint)
{
    return slice_has_prefix(slice_str(endpoint), SLICE("http://"));
}

static bool check_endpoints(struct config_reader *reader, const struct config_etcd *etcd)
{
    for (size_t i = 0; i < etcd->endpoint_count; i++) {
        const char *endpoint = etcd->endpoints[i];
        if (!is_plain(endpoint))
            continue;
        if (etcd->ca || etcd->certificate)
            return config_refuse_member(reader, "tls", "it is of no use with %s; write https:// there, or remove tls",
                                        endpoint);
        if (etcd->user && !ip_authority_is_loopback(slice_from(slice_str(endpoint), strlen("http://"))))
            return config_refuse_member(reader, "user", "%s would carry the password in the clear; write https://",
                                        endpoint);
    }
    return true;
}

bool config_etcd_read(struct config_reader *reader, const struct config_key *key, void *target)
{
    static const struct config_key keys[] = {
        {.name = "endpoints", .read = read_endpoints, .required = true},
        KEY("prefix", read_prefix, prefix),
        {.name = "tls", .read = read_tls},
        KEY("user", read_user, user),
        KEY("password_file", config_read_path, password_file),
        KEY("fleet_key_file", config_read_path, fleet_key_file),
    };
    struct config_etcd *etcd = target;
    (void)key;
    etcd->prefix = default_prefix;
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), target))
        return false;
    if (etcd->user && !etcd->password_file)
        return config_refuse_member(reader, "password_file", "the key is missing; user needs one");
    if (!etcd->user && etcd->password_file)
        return config_refuse_member(reader, "user", "the key is missing; password_file needs one");
    return check_endpoints(reader, etcd);
}
