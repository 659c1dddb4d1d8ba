#include "compose_internal.h"

static bool parse_port(struct slice text, unsigned *ret_port)
{
    uint64_t value;
    if (text.len > 5 || !slice_to_u64(text, &value) || value < 1 || value > UINT16_MAX)
        return false;
    *ret_port = (unsigned)value;
    return true;
}

bool compose_range_parse(struct slice text, struct compose_range *ret_range)
{
    struct compose_range range;
    const char *dash = text.len > 0 ? memchr(text.ptr, '-', text.len) : NULL;
    size_t len = dash ? (size_t)(dash - text.ptr) : text.len;
    if (!parse_port(slice_make(text.ptr, len), &range.first))
        return false;
    range.last = range.first;
    if (dash && !parse_port(slice_from(text, len + 1), &range.last))
        return false;
    if (range.last < range.first)
        return false;
    *ret_range = range;
    return true;
}

bool compose_published_parse(struct slice text, struct compose_range *ret_range)
{
    if (!slice_eq(text, SLICE("0")))
        return compose_range_parse(text, ret_range);
    *ret_range = (struct compose_range){.first = 0};
    return true;
}

bool compose_host_ip_parse(struct slice text, struct ip_addr *ret_ip)
{
    struct ip_addr ip;
    if (!ip_parse(text, &ip))
        return false;
    *ret_ip = ip_kind(&ip) == IP_UNSPECIFIED ? (struct ip_addr){.family = 0} : ip;
    return true;
}

bool compose_entry_same(const struct compose_entry *a, const struct compose_entry *b)
{
    return a->published.first == b->published.first && a->published.last == b->published.last &&
           a->target.first == b->target.first && a->target.last == b->target.last &&
           ip_equal(&a->host_ip, &b->host_ip) && slice_eq_nocase(slice_str(a->protocol), slice_str(b->protocol));
}

static bool cut_last(struct slice *text, char separator, struct slice *ret_tail)
{
    const char *at = text->len > 0 ? memrchr(text->ptr, separator, text->len) : NULL;
    if (!at)
        return false;
    size_t len = (size_t)(at - text->ptr);
    *ret_tail = slice_from(*text, len + 1);
    text->len = len;
    return true;
}

/* What stands before the published port: nothing, an IPv4 address, or an IPv6 address in brackets. */
static const char *parse_host_ip(struct slice ip, struct compose_entry *entry)
{
    if (ip.len > 0 && ip.ptr[0] == '[') {
        if (ip.len < 3 || ip.ptr[ip.len - 1] != ']')
            return "the bracket of the address is not closed; write [::1]:8000:8000";
        ip = slice_make(ip.ptr + 1, ip.len - 2);
    } else if (ip.len > 0 && memchr(ip.ptr, ':', ip.len)) {
        return "there are too many colons; write [IP:]PUBLISHED:TARGET, an IPv6 address in brackets";
    }
    if (ip.len == 0)
        return "the address before the colon is empty; leave the colon out";
    return compose_host_ip_parse(ip, &entry->host_ip) ? NULL : "what comes before the published port is no IP address";
}

static const char *parse_published(struct slice text, struct compose_entry *entry)
{
    struct slice published = text;
    bool has_ip = cut_last(&text, ':', &published);
    if (published.len > 0 && !compose_published_parse(published, &entry->published))
        return "the published port is not 1..65535 or a range such as 8000-8010";
    if (!has_ip && published.len == 0)
        return "the published port before the colon is empty";
    return has_ip ? parse_host_ip(text, entry) : NULL;
}

const char *compose_entry_parse(struct slice text, struct compose_entry *ret_entry)
{
    struct compose_entry entry = {.protocol = "tcp"};
    struct slice protocol = SLICE("tcp");
    struct slice target;
    compose_copy_text(entry.text, sizeof entry.text, text);
    if (cut_last(&text, '/', &protocol) && protocol.len == 0)
        return "the protocol after / is empty; write /tcp or nothing";
    compose_copy_text(entry.protocol, sizeof entry.protocol, protocol);
    if (cut_last(&text, ':', &target)) {
        const char *wrong = parse_published(text, &entry);
        if (wrong)
            return wrong;
    } else {
        target = text;
    }
    if (!compose_range_parse(target, &entry.target))
        return "the container port is not 1..65535 or a range such as 8000-8010";
    *ret_entry = entry;
    return NULL;
}

const char *compose_app_protocol(struct slice name)
{
    static const struct {
        const char *protocol;
        const char *names; /* comma-separated */
    } known[] = {
        {"auto", "auto"},
        {"http", "http,http1,http1.1,http/1.1,ws,kubernetes.io/ws"},
        {"h2c", "h2c,http2,grpc,kubernetes.io/h2c"},
        {"tcp",
         "tcp,postgres,postgresql,mysql,mariadb,mongo,mongodb,redis,memcached,mqtt,amqp,kafka,nats,ssh,smtp,ldap"},
        {"passthrough", "passthrough,tls,https,wss,grpcs,kubernetes.io/wss"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slice_list_has(slice_str(known[i].names), name))
            return known[i].protocol;
    return NULL;
}
