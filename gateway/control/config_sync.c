/* The section sync: where the routes come from. */
#include "config_sections.h"

enum { SECOND = 1000, HOUR = 3600 * SECOND, HEARTBEAT_MS = 10 * SECOND };
enum { DEFAULT_CONNECT_MS = 5 * SECOND, DEFAULT_IDLE_MS = 3 * HEARTBEAT_MS };

/* The parts of an http or https URL that matter here. */
struct url {
    bool is_tls;
    struct slice host; /* without brackets */
    struct slice path;
};

/* Takes "name", "1.2.3.4" or "[::1]" from the front. */
static bool take_host(struct slice *text, struct slice *ret_host)
{
    struct ip_addr addr;
    if (text->len > 0 && text->ptr[0] == '[') {
        const char *end = memchr(text->ptr, ']', text->len);
        if (!end)
            return false;
        *ret_host = slice_make(text->ptr + 1, (size_t)(end - text->ptr) - 1);
        *text = slice_from(*text, ret_host->len + 2);
        return ip_parse(*ret_host, &addr) && addr.family == AF_INET6;
    }
    *ret_host = slice_make(text->ptr, config_host_length(*text));
    *text = slice_from(*text, ret_host->len);
    return ret_host->len > 0;
}

static bool take_port(struct slice *text)
{
    uint64_t port = 0;
    size_t len = 1;
    if (text->len == 0 || text->ptr[0] != ':')
        return true;
    while (len < text->len && ascii_is_digit(text->ptr[len]))
        len++;
    bool ok = slice_to_u64(slice_make(text->ptr + 1, len - 1), &port) && port > 0 && port <= UINT16_MAX;
    *text = slice_from(*text, len);
    return ok;
}

/* No user, query or fragment: the first would end in logs, the others make no sense before /v1/snapshot. */
static bool parse_url(struct slice text, struct url *ret_url)
{
    struct slice https = SLICE("https://"), http = SLICE("http://");
    ret_url->is_tls = slice_has_prefix(text, https);
    if (!ret_url->is_tls && !slice_has_prefix(text, http))
        return false;
    struct slice rest = slice_from(text, ret_url->is_tls ? https.len : http.len);
    if (!take_host(&rest, &ret_url->host) || !take_port(&rest))
        return false;
    for (size_t i = 0; i < rest.len; i++)
        if (rest.ptr[i] <= ' ' || rest.ptr[i] > '~' || strchr("?#\\", rest.ptr[i]))
            return false;
    ret_url->path = rest;
    return rest.len == 0 || rest.ptr[0] == '/';
}

static bool read_unix_source(struct config_reader *reader, struct slice path, void *target)
{
    if (path.len == 0)
        return config_refuse(reader, "the path is missing; write unix:/run/phala-gateway/control.sock");
    struct slice folder = path.ptr[0] == '/' ? SLICE_NONE : reader->folder;
    *(const char **)target =
        arena_printf(&reader->config->arena, "unix:%.*s%.*s", SLICE_ARG(folder), SLICE_ARG(path)).ptr;
    return true;
}

static bool read_source(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct slice text = SLICE_NONE;
    struct url url;
    (void)key;
    if (!config_text(reader, &text))
        return false;
    if (slice_has_prefix(text, SLICE("unix:")))
        return read_unix_source(reader, slice_from(text, strlen("unix:")), target);
    if (!parse_url(text, &url))
        return config_refuse(reader,
                             "%.*s is not where a control API can be; write https://host, https://host:port/path, or "
                             "unix:/path of a socket, without user, query and fragment",
                             config_shown(text), text.ptr);
    if (!url.is_tls && !ip_host_is_loopback(url.host))
        return config_refuse(reader, "%.*s can be read and changed on its way; use https://, or http:// to 127.0.0.1",
                             config_shown(text), text.ptr);
    while (text.ptr[text.len - 1] == '/')
        text.len--;
    *(const char **)target = arena_printf(&reader->config->arena, "%.*s", SLICE_ARG(text)).ptr;
    return true;
}

static bool check(struct config_reader *reader, const struct config *config)
{
    const struct sync_options *sync = &config->sync;
    if (sync->source && config->etcd.endpoint_count > 0)
        return config_refuse_member(reader, "etcd", "the routes can't come from source too; keep one of them");
    if (!sync->source && config->etcd.endpoint_count > 0 && !sync->token_file && !sync->ca && !sync->certificate &&
        !sync->private_key)
        return true;
    bool is_tls = sync->source && slice_has_prefix(slice_str(sync->source), SLICE("https://"));
    if (!sync->source)
        return config_refuse_member(reader, "source", "the key is missing; it says whom to follow (or etcd does)");
    if (sync->certificate && !sync->private_key)
        return config_refuse_member(reader, "private_key", "the key is missing; certificate needs one");
    if (!sync->certificate && sync->private_key)
        return config_refuse_member(reader, "certificate", "the key is missing; private_key needs one");
    if (!is_tls && (sync->ca || sync->certificate))
        return config_refuse_member(reader, sync->ca ? "ca" : "certificate",
                                    "it is of no use with %s, which has no TLS; use https://, or remove it",
                                    sync->source);
    return true;
}

bool config_sync_read(struct config_reader *reader, const struct config_key *key, void *target)
{
#define MEMBER(text, how, member, low, high)                                                                           \
    {                                                                                                                  \
        .name = (text), .read = (how), .offset = offsetof(struct config, sync.member), .min = (low), .max = (high)     \
    }
    static const struct config_key keys[] = {
        MEMBER("source", read_source, source, 0, 0),
        MEMBER("token_file", config_read_path, token_file, 0, 0),
        MEMBER("ca", config_read_path, ca, 0, 0),
        MEMBER("certificate", config_read_path, certificate, 0, 0),
        MEMBER("private_key", config_read_path, private_key, 0, 0),
        {.name = "etcd", .read = config_etcd_read, .offset = offsetof(struct config, etcd)},
        MEMBER("connect_timeout", config_read_duration, connect_ms, 100, HOUR),
        MEMBER("idle_timeout", config_read_duration, idle_ms, HEARTBEAT_MS + SECOND, HOUR),
    };
#undef MEMBER
    struct config *config = target;
    (void)key;
    config->sync.connect_ms = DEFAULT_CONNECT_MS;
    config->sync.idle_ms = DEFAULT_IDLE_MS;
    return config_read_mapping(reader, keys, CONFIG_COUNT(keys), config) && check(reader, config);
}
