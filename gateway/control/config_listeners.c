#include "config_sections.h"

#include <sys/un.h>

enum { UNIX_PATH_MAX = sizeof((struct sockaddr_un *)0)->sun_path - 1 };

#define KEY(text, how, type, member)                                                                                   \
    {                                                                                                                  \
        .name = (text), .read = (how), .offset = offsetof(type, member)                                                \
    }

/* ---- listeners ---- */

static bool read_address(struct config_reader *reader, struct ip_addr *ret_addr, uint16_t *ret_port)
{
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    if (!ip_port_parse(text, ret_addr, ret_port))
        return config_refuse(reader, "%.*s is not an address with a port; write one such as 0.0.0.0:443 or [::]:443",
                             config_shown(text), text.ptr);
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
        KEY("redirect_to_https", config_read_bool, struct config_listener, redirect_to_https),
        KEY("proxy_protocol", read_proxy_protocol, struct config_listener, proxy_protocol_required),
    };
    struct config_listener *listeners = arg;
    struct config_listener *own = &listeners[index];
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), own))
        return false;
    for (size_t i = 0; i < index; i++)
        if (overlaps(&own->addr, own->port, &listeners[i].addr, listeners[i].port))
            return refuse_overlap(reader, &listeners[i].addr, listeners[i].port, "listeners", i);
    return true;
}

bool config_listeners_data(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config *config = reader->config;
    (void)key;
    (void)target;
    size_t count = config_list_length(reader);
    config->listener_count = count < CONFIG_MAX_LISTENERS ? count : CONFIG_MAX_LISTENERS;
    struct config_listener *listeners =
        arena_alloc_zeroed(&config->arena, (config->listener_count + 1) * sizeof *listeners);
    config->listeners = listeners;
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
#define PATH_KEY(member) KEY(#member, config_read_path, struct config_control, member)
    static const struct config_key keys[] = {
        PATH_KEY(unix_socket), {.name = "address", .read = read_control_address},
        PATH_KEY(certificate), PATH_KEY(private_key),
        PATH_KEY(client_ca),   PATH_KEY(token_file),
    };
#undef PATH_KEY
    struct config_control *controls = arg;
    struct config_control *own = &controls[index];
    if (!config_read_mapping(reader, keys, CONFIG_COUNT(keys), own))
        return false;
    bool ok = own->unix_socket ? check_unix_control(reader, own) : check_tcp_control(reader, own);
    return ok && check_control_overlap(reader, controls, index);
}

bool config_listeners_control(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct config *config = reader->config;
    (void)key;
    (void)target;
    size_t count = config_list_length(reader);
    config->control_count = count < CONFIG_MAX_LISTENERS ? count : CONFIG_MAX_LISTENERS;
    struct config_control *controls =
        arena_alloc_zeroed(&config->arena, (config->control_count + 1) * sizeof *controls);
    config->controls = controls;
    return config_read_list(reader, 1, CONFIG_MAX_LISTENERS, "control listeners", read_control, controls);
}

bool config_listeners_check(struct config_reader *reader)
{
    const struct config *config = reader->config;
    for (size_t i = 0; i < config->control_count; i++) {
        const struct config_control *control = &config->controls[i];
        for (size_t j = 0; j < config->listener_count && control->port != 0; j++)
            if (overlaps(&control->addr, control->port, &config->listeners[j].addr, config->listeners[j].port))
                return config_refuse_member(
                    reader, "control", "control[%zu] overlaps with listeners[%zu]; use another address or port", i, j);
    }
    for (size_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].proxy_protocol_required && config->settings->trusted_proxy_count == 0)
            return config_refuse_member(
                reader, "listeners",
                "listeners[%zu] requires a PROXY header, which only peers in trusted_proxies may "
                "send, and there are none; list the load balancers there",
                i);
    return true;
}
