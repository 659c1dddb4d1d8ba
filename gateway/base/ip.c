#include "gateway/base/ip.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ifaddrs.h>

enum { IPV4_BITS = 32, IPV6_BITS = 128, MAPPED_BITS = 96 };

/* ::ffff:0:0/96, the IPv4-mapped addresses (RFC 4291 section 2.5.5.2). */
static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

/*
 * Special networks (RFC 6890). The first that matches wins, so single metadata addresses stand before the networks that
 * hold them. They are the well-known instance metadata services of cloud hosts.
 */
static const struct special {
    enum ip_kind kind;
    struct ip_network network;
} specials[] = {
    {IP_METADATA, {{AF_INET, {169, 254, 169, 254}}, 32}},
    {IP_METADATA, {{AF_INET, {169, 254, 170, 2}}, 32}},
    {IP_METADATA, {{AF_INET, {100, 100, 100, 200}}, 32}},
    {IP_METADATA, {{AF_INET, {168, 63, 129, 16}}, 32}},
    {IP_METADATA, {{AF_INET6, {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54}}, 128}},
    {IP_METADATA, {{AF_INET6, {0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}}, 128}},
    {IP_METADATA, {{AF_INET6, {0xfd, 0x00, 0x00, 0x42, [15] = 0x42}}, 128}},
    {IP_UNSPECIFIED, {{AF_INET, {0}}, 8}},
    {IP_LOOPBACK, {{AF_INET, {127}}, 8}},
    {IP_LINK_LOCAL, {{AF_INET, {169, 254}}, 16}},
    {IP_MULTICAST, {{AF_INET, {224}}, 4}},
    {IP_BROADCAST, {{AF_INET, {255, 255, 255, 255}}, 32}},
    {IP_UNSPECIFIED, {{AF_INET6, {0}}, 128}},
    {IP_LOOPBACK, {{AF_INET6, {[15] = 1}}, 128}},
    {IP_LINK_LOCAL, {{AF_INET6, {0xfe, 0x80}}, 10}},
    {IP_MULTICAST, {{AF_INET6, {0xff}}, 8}},
};

static unsigned family_bits(const struct ip_addr *addr)
{
    return addr->family == AF_INET ? IPV4_BITS : IPV6_BITS;
}

static bool is_mapped(const struct ip_addr *addr)
{
    return addr->family == AF_INET6 && memcmp(addr->bytes, mapped_prefix, sizeof mapped_prefix) == 0;
}

static void unmap(struct ip_addr *addr)
{
    struct ip_addr v4 = {.family = AF_INET};
    memcpy(v4.bytes, addr->bytes + sizeof mapped_prefix, 4);
    *addr = v4;
}

/* The address as it is written, a mapped one still as IPv6. */
static bool parse_as_written(struct slice text, struct ip_addr *ret_addr)
{
    char buffer[IP_TEXT_MAX];
    struct ip_addr addr = {0};
    if (text.len == 0 || text.len >= sizeof buffer || memchr(text.ptr, '\0', text.len))
        return false;
    memcpy(buffer, text.ptr, text.len);
    buffer[text.len] = '\0';
    addr.family = strchr(buffer, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(addr.family, buffer, addr.bytes) != 1)
        return false;
    *ret_addr = addr;
    return true;
}

bool ip_parse(struct slice text, struct ip_addr *ret_addr)
{
    struct ip_addr addr;
    if (!parse_as_written(text, &addr))
        return false;
    if (is_mapped(&addr))
        unmap(&addr);
    *ret_addr = addr;
    return true;
}

/* Decimal digits without a leading zero. */
static bool parse_number(struct slice text, uint64_t max, uint64_t *ret_value)
{
    uint64_t value;
    if (text.len == 0 || (text.len > 1 && text.ptr[0] == '0') || !slice_to_u64(text, &value) || value > max)
        return false;
    *ret_value = value;
    return true;
}

static bool bits_are_zero_from(const struct ip_addr *addr, unsigned bit)
{
    for (unsigned i = bit; i < family_bits(addr); i++)
        if (addr->bytes[i / 8] & (0x80U >> (i % 8)))
            return false;
    return true;
}

bool ip_network_parse(struct slice text, struct ip_network *ret_network)
{
    struct ip_addr addr;
    const char *slash = text.len > 0 ? memchr(text.ptr, '/', text.len) : NULL;
    size_t addr_len = slash ? (size_t)(slash - text.ptr) : text.len;
    if (!parse_as_written(slice_make(text.ptr, addr_len), &addr))
        return false;
    uint64_t prefix = family_bits(&addr);
    if (slash && !parse_number(slice_from(text, addr_len + 1), prefix, &prefix))
        return false;
    if (is_mapped(&addr)) {
        if (prefix < MAPPED_BITS)
            return false;
        prefix -= MAPPED_BITS;
        unmap(&addr);
    }
    if (!bits_are_zero_from(&addr, (unsigned)prefix))
        return false;
    *ret_network = (struct ip_network){addr, (uint8_t)prefix};
    return true;
}

bool ip_port_parse(struct slice text, struct ip_addr *ret_addr, uint16_t *ret_port)
{
    struct ip_addr addr;
    uint64_t port;
    const char *colon = text.len > 0 ? memrchr(text.ptr, ':', text.len) : NULL;
    if (!colon)
        return false;
    struct slice host = slice_make(text.ptr, (size_t)(colon - text.ptr));
    bool bracketed = host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    if (bracketed)
        host = slice_make(host.ptr + 1, host.len - 2);
    /* Without brackets "::1:443" would be an address of its own. */
    if (bracketed != (host.len > 0 && memchr(host.ptr, ':', host.len) != NULL))
        return false;
    if (!ip_parse(host, &addr) || !parse_number(slice_from(text, (size_t)(colon - text.ptr) + 1), UINT16_MAX, &port))
        return false;
    *ret_addr = addr;
    *ret_port = (uint16_t)port;
    return true;
}

bool ip_host_is_loopback(struct slice host)
{
    struct ip_addr addr;
    return slice_eq_nocase(host, SLICE("localhost")) || (ip_parse(host, &addr) && ip_kind(&addr) == IP_LOOPBACK);
}

bool ip_authority_is_loopback(struct slice authority)
{
    struct ip_addr addr;
    uint16_t port;
    if (ip_port_parse(authority, &addr, &port))
        return ip_kind(&addr) == IP_LOOPBACK;
    const char *colon = authority.len > 0 ? memchr(authority.ptr, ':', authority.len) : NULL;
    return ip_host_is_loopback(colon ? slice_make(authority.ptr, (size_t)(colon - authority.ptr)) : authority);
}

static size_t format_ipv4(const uint8_t *bytes, char *buffer)
{
    char *next = buffer;
    for (int i = 0; i < 4; i++) {
        unsigned byte = bytes[i];
        if (i > 0)
            *next++ = '.';
        if (byte >= 100)
            *next++ = (char)('0' + byte / 100);
        if (byte >= 10)
            *next++ = (char)('0' + byte / 10 % 10);
        *next++ = (char)('0' + byte % 10);
    }
    *next = '\0';
    return (size_t)(next - buffer);
}

/* IPv4 without the C library, whose inet_ntop goes through printf: each connection has an address to write. */
size_t ip_format(const struct ip_addr *addr, char *buffer)
{
    assert(addr->family == AF_INET || addr->family == AF_INET6);
    if (addr->family == AF_INET)
        return format_ipv4(addr->bytes, buffer);
    const char *text = inet_ntop(AF_INET6, addr->bytes, buffer, IP_TEXT_MAX);
    assert(text);
    return strlen(text);
}

size_t ip_port_format(const struct ip_addr *addr, uint16_t port, char *buffer)
{
    char digits[SLICE_U64_BYTES], *next = buffer;
    bool v6 = addr->family == AF_INET6;
    if (v6)
        *next++ = '[';
    next += ip_format(addr, next);
    if (v6)
        *next++ = ']';
    *next++ = ':';
    struct slice text = slice_from_u64(port, digits + sizeof digits);
    memcpy(next, text.ptr, text.len);
    next[text.len] = '\0';
    return (size_t)(next - buffer) + text.len;
}

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool ip_network_has(const struct ip_network *network, const struct ip_addr *addr)
{
    if (network->addr.family != addr->family)
        return false;
    size_t whole = network->prefix / 8U;
    unsigned rest = network->prefix % 8U;
    if (memcmp(network->addr.bytes, addr->bytes, whole) != 0)
        return false;
    return rest == 0 || (network->addr.bytes[whole] ^ addr->bytes[whole]) >> (8U - rest) == 0;
}

bool ip_network_covers(const struct ip_network *outer, const struct ip_network *inner)
{
    return outer->prefix <= inner->prefix && ip_network_has(outer, &inner->addr);
}

static const struct special *find_special(const struct ip_addr *addr)
{
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++)
        if (ip_network_has(&specials[i].network, addr))
            return &specials[i];
    return NULL;
}

enum ip_kind ip_kind(const struct ip_addr *addr)
{
    const struct special *special = find_special(addr);
    return special ? special->kind : IP_ORDINARY;
}

const char *ip_kind_name(enum ip_kind kind)
{
    switch (kind) {
    case IP_ORDINARY:
        return "ordinary";
    case IP_UNSPECIFIED:
        return "unspecified";
    case IP_LOOPBACK:
        return "loopback";
    case IP_LINK_LOCAL:
        return "link-local";
    case IP_MULTICAST:
        return "multicast";
    case IP_BROADCAST:
        return "broadcast";
    case IP_METADATA:
        return "metadata";
    }
    return "unknown";
}

bool ip_kind_network(const struct ip_addr *addr, struct ip_network *ret_network)
{
    const struct special *special = find_special(addr);
    if (special)
        *ret_network = special->network;
    return special != NULL;
}

socklen_t ip_to_sockaddr(const struct ip_addr *addr, uint16_t port, union ip_sockaddr *ret)
{
    memset(ret, 0, sizeof *ret);
    if (addr->family == AF_INET) {
        ret->in.sin_family = AF_INET;
        ret->in.sin_port = htons(port);
        memcpy(&ret->in.sin_addr, addr->bytes, sizeof ret->in.sin_addr);
        return sizeof ret->in;
    }
    assert(addr->family == AF_INET6);
    ret->in6.sin6_family = AF_INET6;
    ret->in6.sin6_port = htons(port);
    memcpy(&ret->in6.sin6_addr, addr->bytes, sizeof ret->in6.sin6_addr);
    return sizeof ret->in6;
}

void ip_from_sockaddr(const struct sockaddr *sa, struct ip_addr *ret_addr, uint16_t *ret_port)
{
    struct ip_addr addr = {0};
    uint16_t port = 0;
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        addr.family = AF_INET;
        memcpy(addr.bytes, &in.sin_addr, sizeof in.sin_addr);
        port = ntohs(in.sin_port);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        addr.family = AF_INET6;
        memcpy(addr.bytes, &in6.sin6_addr, sizeof in6.sin6_addr);
        port = ntohs(in6.sin6_port);
        if (is_mapped(&addr))
            unmap(&addr);
    }
    *ret_addr = addr;
    *ret_port = port;
}

size_t ip_local_addresses(struct ip_addr *ret_addrs, size_t max)
{
    struct ifaddrs *all;
    size_t count = 0;
    if (getifaddrs(&all) != 0)
        return 0;
    for (const struct ifaddrs *it = all; it && count < max; it = it->ifa_next) {
        struct ip_addr addr = {0};
        uint16_t port;
        if (it->ifa_addr)
            ip_from_sockaddr(it->ifa_addr, &addr, &port);
        if (addr.family != 0)
            ret_addrs[count++] = addr;
    }
    freeifaddrs(all);
    return count;
}
