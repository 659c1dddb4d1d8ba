#include "gateway/http/semantics.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* What a byte may be part of; one table lookup per byte. */
enum { IN_TOKEN = 1, IN_FIELD_VALUE = 2, IN_TARGET = 4, IN_HOST_NAME = 8, IN_IPV6 = 16 };

#define IS_DIGIT(c)      ((c) >= '0' && (c) <= '9')
#define IS_HEX_LETTER(c) (((c) | 0x20) >= 'a' && ((c) | 0x20) <= 'f')
#define IS_LETTER(c)     (((c) | 0x20) >= 'a' && ((c) | 0x20) <= 'z')
#define IS_ALNUM(c)      (IS_DIGIT(c) || IS_LETTER(c))
#define IS_TOKEN_MARK(c)                                                                                               \
    ((c) == '!' || (c) == '#' || (c) == '$' || (c) == '%' || (c) == '&' || (c) == '\'' || (c) == '*' || (c) == '+' ||  \
     (c) == '-' || (c) == '.' || (c) == '^' || (c) == '_' || (c) == '`' || (c) == '|' || (c) == '~')
#define CLASS(c)                                                                                                       \
    ((IS_ALNUM(c) || IS_TOKEN_MARK(c) ? IN_TOKEN : 0) |                                                                \
     ((c) == '\t' || ((c) >= 0x20 && (c) != 0x7f) ? IN_FIELD_VALUE : 0) |                                              \
     ((c) > 0x20 && (c) < 0x7f && (c) != '#' ? IN_TARGET : 0) |                                                        \
     (IS_ALNUM(c) || (c) == '-' || (c) == '.' || (c) == '_' ? IN_HOST_NAME : 0) |                                      \
     (IS_DIGIT(c) || IS_HEX_LETTER(c) || (c) == ':' || (c) == '.' ? IN_IPV6 : 0))
#define CLASS_4(c)  CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define CLASS_16(c) CLASS_4(c), CLASS_4((c) + 4), CLASS_4((c) + 8), CLASS_4((c) + 12)

static const uint8_t classes[256] = {
    CLASS_16(0x00), CLASS_16(0x10), CLASS_16(0x20), CLASS_16(0x30), CLASS_16(0x40), CLASS_16(0x50),
    CLASS_16(0x60), CLASS_16(0x70), CLASS_16(0x80), CLASS_16(0x90), CLASS_16(0xa0), CLASS_16(0xb0),
    CLASS_16(0xc0), CLASS_16(0xd0), CLASS_16(0xe0), CLASS_16(0xf0),
};

static bool all_in(struct slice s, unsigned class)
{
    unsigned common = class;
    for (size_t i = 0; i < s.len; i++)
        common &= classes[(unsigned char)s.ptr[i]];
    return common != 0;
}

bool is_token(struct slice s)
{
    return s.len > 0 && all_in(s, IN_TOKEN);
}

bool is_field_value(struct slice s)
{
    return all_in(s, IN_FIELD_VALUE);
}

bool is_target(struct slice s)
{
    return s.len > 0 && all_in(s, IN_TARGET);
}

/* The inside of the brackets (RFC 3986 section 3.2.2); zone identifiers and IPvFuture are refused. */
static bool is_ipv6(struct slice s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (s.len >= sizeof text || !all_in(s, IN_IPV6))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

static bool is_host(struct slice s)
{
    if (s.len > 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']')
        return is_ipv6(slice_make(s.ptr + 1, s.len - 2));
    return s.len > 0 && all_in(s, IN_HOST_NAME);
}

static bool is_port(struct slice s)
{
    uint64_t port;
    return s.len == 0 || (slice_to_u64(s, &port) && port >= 1 && port <= UINT16_MAX);
}

/* The offset of the colon before the port, or the length. */
static size_t port_colon(struct slice authority)
{
    size_t i = authority.len;
    while (i > 0 && ascii_is_digit(authority.ptr[i - 1]))
        i--;
    return i > 0 && authority.ptr[i - 1] == ':' ? i - 1 : authority.len;
}

void authority_split(struct slice authority, struct slice *ret_host, struct slice *ret_port)
{
    size_t colon = port_colon(authority);
    *ret_host = slice_make(authority.ptr, colon);
    *ret_port = slice_from(authority, colon + 1);
}

bool is_authority(struct slice s)
{
    struct slice host, port;
    authority_split(s, &host, &port);
    return is_host(host) && is_port(port);
}
