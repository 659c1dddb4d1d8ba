#include "gateway/wire/proxy_protocol.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>

enum {
    V2_HEADER_LEN = 16,
    V2_VERSION = 2,
    V2_LOCAL = 0,
    V2_PROXY = 1,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    V2_MAX_TRANSPORT = 0x32, /* UNIX datagram, the last that the specification names */
    V2_TCP4_LEN = 12,
    V2_TCP6_LEN = 36,
    TLV_HEADER_LEN = 3,
    TLV_ALPN = 0x01,
    TLV_AUTHORITY = 0x02,
    TLV_SSL = 0x20,
    TLV_SSL_VERSION = 0x21,
    TLV_SSL_CIPHER = 0x23,
    SSL_CLIENT_USED_TLS = 0x01,
    SSL_FIXED_LEN = 5,
    MAX_TLV_WRITTEN = 255,
};

static const uint8_t v2_signature[12] = {'\r', '\n', '\r', '\n', '\0', '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};
static const char v1_signature[6] = {'P', 'R', 'O', 'X', 'Y', ' '};

/* True if the bytes are a beginning of the signature, or begin with it. */
static bool may_begin_with(const uint8_t *data, size_t len, const void *signature, size_t signature_len)
{
    return memcmp(data, signature, len < signature_len ? len : signature_len) == 0;
}

/* ---- reading version 1 ---- */

/* The next part, which a single space or the end of the line ends. */
static struct slice next_part(struct slice *line)
{
    const char *space = line->len > 0 ? memchr(line->ptr, ' ', line->len) : NULL;
    struct slice part = slice_make(line->ptr, space ? (size_t)(space - line->ptr) : line->len);
    *line = slice_from(*line, part.len + 1);
    return part;
}

static bool read_v1_port(struct slice text, in_port_t *ret_port)
{
    uint64_t port;
    if (!slice_to_u64(text, &port) || port > UINT16_MAX || (text.len > 1 && text.ptr[0] == '0'))
        return false;
    *ret_port = htons((uint16_t)port);
    return true;
}

static bool read_v1_address(int family, struct slice text, void *ret_address)
{
    char address[INET6_ADDRSTRLEN];
    if (text.len >= sizeof address || (text.len > 0 && memchr(text.ptr, '\0', text.len)))
        return false;
    memcpy(address, text.ptr, text.len);
    address[text.len] = '\0';
    return inet_pton(family, address, ret_address) == 1;
}

static bool read_v1_line(struct slice line, struct proxy_header *header)
{
    bool is_v6;
    struct slice protocol = next_part(&line);
    if (slice_eq(protocol, SLICE("UNKNOWN"))) { /* the rest of the line is to be ignored */
        header->is_local = true;
        return true;
    }
    is_v6 = slice_eq(protocol, SLICE("TCP6"));
    if (!is_v6 && !slice_eq(protocol, SLICE("TCP4")))
        return false;
    sa_family_t family = is_v6 ? AF_INET6 : AF_INET;
    void *source = is_v6 ? (void *)&header->source.in6.sin6_addr : &header->source.in.sin_addr;
    void *destination = is_v6 ? (void *)&header->destination.in6.sin6_addr : &header->destination.in.sin_addr;
    header->source.sa.sa_family = header->destination.sa.sa_family = family;
    /* The port is at the same place in both kinds of address. */
    return read_v1_address(family, next_part(&line), source) &&
           read_v1_address(family, next_part(&line), destination) &&
           read_v1_port(next_part(&line), &header->source.in.sin_port) && line.len > 0 &&
           read_v1_port(line, &header->destination.in.sin_port);
}

static enum proxy_result read_v1(const uint8_t *data, size_t len, struct proxy_header *header, size_t *ret_used)
{
    size_t looked_at = len < PROXY_V1_MAX_BYTES ? len : PROXY_V1_MAX_BYTES;
    if (looked_at < sizeof v1_signature)
        return PROXY_NEED_MORE;
    const uint8_t *lf = memchr(data, '\n', looked_at);
    if (!lf)
        return looked_at < PROXY_V1_MAX_BYTES ? PROXY_NEED_MORE : PROXY_INVALID;
    if (lf[-1] != '\r')
        return PROXY_INVALID;
    const uint8_t *text = data + sizeof v1_signature;
    if (lf - 1 < text || !read_v1_line(slice_make(text, (size_t)(lf - 1 - text)), header))
        return PROXY_INVALID;
    *ret_used = (size_t)(lf + 1 - data);
    return PROXY_DONE;
}

/* ---- reading version 2 ---- */

static bool read_v2_tlvs(const uint8_t *data, size_t len, struct proxy_header *header)
{
    while (len > 0) {
        if (len < TLV_HEADER_LEN)
            return false;
        size_t value_len = (size_t)data[1] << 8 | data[2];
        if (value_len > len - TLV_HEADER_LEN)
            return false;
        if (data[0] == TLV_ALPN)
            header->alpn = slice_make(data + TLV_HEADER_LEN, value_len);
        else if (data[0] == TLV_AUTHORITY)
            header->authority = slice_make(data + TLV_HEADER_LEN, value_len);
        data += TLV_HEADER_LEN + value_len;
        len -= TLV_HEADER_LEN + value_len;
    }
    return true;
}

static bool read_v2_tcp4(const uint8_t *data, size_t len, struct proxy_header *header)
{
    if (len < V2_TCP4_LEN)
        return false;
    header->is_local = false;
    header->source.in.sin_family = header->destination.in.sin_family = AF_INET;
    memcpy(&header->source.in.sin_addr, data, 4);
    memcpy(&header->destination.in.sin_addr, data + 4, 4);
    memcpy(&header->source.in.sin_port, data + 8, 2);
    memcpy(&header->destination.in.sin_port, data + 10, 2);
    return read_v2_tlvs(data + V2_TCP4_LEN, len - V2_TCP4_LEN, header);
}

static bool read_v2_tcp6(const uint8_t *data, size_t len, struct proxy_header *header)
{
    if (len < V2_TCP6_LEN)
        return false;
    header->is_local = false;
    header->source.in6.sin6_family = header->destination.in6.sin6_family = AF_INET6;
    memcpy(&header->source.in6.sin6_addr, data, 16);
    memcpy(&header->destination.in6.sin6_addr, data + 16, 16);
    memcpy(&header->source.in6.sin6_port, data + 32, 2);
    memcpy(&header->destination.in6.sin6_port, data + 34, 2);
    return read_v2_tlvs(data + V2_TCP6_LEN, len - V2_TCP6_LEN, header);
}

static bool read_v2_block(unsigned command, unsigned transport, struct slice block, struct proxy_header *header)
{
    const uint8_t *data = (const uint8_t *)block.ptr;
    header->is_local = true; /* a health check, or addresses that no TCP connection can have */
    if (command == V2_LOCAL)
        return true;
    if ((transport & 0xf) > 2 || transport > V2_MAX_TRANSPORT)
        return false;
    if (transport == V2_TCP4)
        return read_v2_tcp4(data, block.len, header);
    if (transport == V2_TCP6)
        return read_v2_tcp6(data, block.len, header);
    return true;
}

static enum proxy_result read_v2(const uint8_t *data, size_t len, struct proxy_header *header, size_t *ret_used)
{
    if (len > sizeof v2_signature &&
        (data[12] >> 4 != V2_VERSION || ((data[12] & 0xf) != V2_LOCAL && (data[12] & 0xf) != V2_PROXY)))
        return PROXY_INVALID;
    if (len < V2_HEADER_LEN)
        return PROXY_NEED_MORE;
    size_t block_len = (size_t)data[14] << 8 | data[15];
    if (len - V2_HEADER_LEN < block_len)
        return PROXY_NEED_MORE;
    if (!read_v2_block(data[12] & 0xf, data[13], slice_make(data + V2_HEADER_LEN, block_len), header))
        return PROXY_INVALID;
    *ret_used = V2_HEADER_LEN + block_len;
    return PROXY_DONE;
}

enum proxy_result proxy_protocol_read(const uint8_t *data, size_t len, struct proxy_header *ret_header,
                                      size_t *ret_used)
{
    struct proxy_header header = {.is_local = false};
    enum proxy_result result = PROXY_INVALID;
    size_t used = 0;
    if (len == 0)
        return PROXY_NEED_MORE;
    if (may_begin_with(data, len, v2_signature, sizeof v2_signature))
        result = read_v2(data, len, &header, &used);
    else if (may_begin_with(data, len, v1_signature, sizeof v1_signature))
        result = read_v1(data, len, &header, &used);
    if (result == PROXY_DONE) {
        *ret_header = header;
        *ret_used = used;
    }
    return result;
}

/* ---- writing ---- */

/* The two ends in the form that goes on the wire: both IPv4, or both IPv6. */
struct ends {
    bool is_v6;
    struct in6_addr source; /* an IPv4 address is mapped (RFC 4291 section 2.5.5.2) */
    struct in6_addr destination;
    in_port_t source_port; /* network order */
    in_port_t destination_port;
};

static bool map_address(const struct sockaddr *sa, struct in6_addr *ret_address, in_port_t *ret_port)
{
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        *ret_address = in6->sin6_addr;
        *ret_port = in6->sin6_port;
        return true;
    }
    if (sa->sa_family != AF_INET)
        return false;
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
    *ret_address = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(&ret_address->s6_addr[12], &in->sin_addr, 4);
    *ret_port = in->sin_port;
    return true;
}

/* A dual-stack listener sees IPv4 clients as mapped addresses; the CVM is told IPv4. False: addresses are unknown. */
static bool find_ends(const struct proxy_header *header, struct ends *ret_ends)
{
    struct ends ends;
    if (header->is_local || !map_address(&header->source.sa, &ends.source, &ends.source_port) ||
        !map_address(&header->destination.sa, &ends.destination, &ends.destination_port))
        return false;
    ends.is_v6 = !IN6_IS_ADDR_V4MAPPED(&ends.source) || !IN6_IS_ADDR_V4MAPPED(&ends.destination);
    *ret_ends = ends;
    return true;
}

static const char *address_text(const struct ends *ends, const struct in6_addr *address, char *buffer, socklen_t size)
{
    const char *text = ends->is_v6 ? inet_ntop(AF_INET6, address, buffer, size)
                                   : inet_ntop(AF_INET, &address->s6_addr[12], buffer, size);
    assert(text);
    return text;
}

static size_t write_v1(const struct proxy_header *header, uint8_t *buffer)
{
    struct ends ends;
    char source[INET6_ADDRSTRLEN];
    char destination[INET6_ADDRSTRLEN];
    int len;
    if (!find_ends(header, &ends))
        len = snprintf((char *)buffer, PROXY_WRITE_MAX_BYTES, "PROXY UNKNOWN\r\n");
    else
        len = snprintf((char *)buffer, PROXY_WRITE_MAX_BYTES, "PROXY TCP%c %s %s %u %u\r\n", ends.is_v6 ? '6' : '4',
                       address_text(&ends, &ends.source, source, sizeof source),
                       address_text(&ends, &ends.destination, destination, sizeof destination), ntohs(ends.source_port),
                       ntohs(ends.destination_port));
    assert(len > 0 && len <= PROXY_V1_MAX_BYTES);
    return (size_t)len;
}

static uint8_t *put_u16(uint8_t *out, size_t value)
{
    *out++ = (uint8_t)(value >> 8);
    *out++ = (uint8_t)value;
    return out;
}

static uint8_t *put_bytes(uint8_t *out, const void *bytes, size_t len)
{
    memcpy(out, bytes, len);
    return out + len;
}

static uint8_t *put_tlv(uint8_t *out, uint8_t type, struct slice value)
{
    if (value.len == 0 || value.len > MAX_TLV_WRITTEN)
        return out;
    *out++ = type;
    out = put_u16(out, value.len);
    return put_bytes(out, value.ptr, value.len);
}

/* Says that the client used TLS, with which version and cipher, and that it showed no certificate. */
static uint8_t *put_tls(uint8_t *out, const struct proxy_header *header)
{
    static const uint8_t fixed[SSL_FIXED_LEN] = {SSL_CLIENT_USED_TLS, 0, 0, 0, 1};
    if (header->tls_version.len == 0)
        return out;
    *out = TLV_SSL;
    uint8_t *value = out + TLV_HEADER_LEN;
    uint8_t *end = put_bytes(value, fixed, sizeof fixed);
    end = put_tlv(end, TLV_SSL_VERSION, header->tls_version);
    end = put_tlv(end, TLV_SSL_CIPHER, header->tls_cipher);
    put_u16(out + 1, (size_t)(end - value));
    return end;
}

static uint8_t *put_ends(uint8_t *out, const struct ends *ends)
{
    size_t skip = ends->is_v6 ? 0 : 12;
    out = put_bytes(out, &ends->source.s6_addr[skip], 16 - skip);
    out = put_bytes(out, &ends->destination.s6_addr[skip], 16 - skip);
    out = put_bytes(out, &ends->source_port, 2);
    return put_bytes(out, &ends->destination_port, 2);
}

static size_t write_v2(const struct proxy_header *header, uint8_t *buffer)
{
    struct ends ends;
    bool known = find_ends(header, &ends);
    uint8_t *out = put_bytes(buffer, v2_signature, sizeof v2_signature);
    *out++ = V2_VERSION << 4 | (known ? V2_PROXY : V2_LOCAL);
    *out++ = (uint8_t)(!known ? 0 : ends.is_v6 ? V2_TCP6 : V2_TCP4);
    uint8_t *block = out + 2;
    uint8_t *end = block;
    if (known) {
        end = put_ends(end, &ends);
        end = put_tlv(end, TLV_ALPN, header->alpn);
        end = put_tlv(end, TLV_AUTHORITY, header->authority);
        end = put_tls(end, header);
    }
    put_u16(out, (size_t)(end - block));
    assert(end - buffer <= PROXY_WRITE_MAX_BYTES);
    return (size_t)(end - buffer);
}

size_t proxy_protocol_write(const struct proxy_header *header, int version, uint8_t *buffer)
{
    assert(version == 1 || version == 2);
    return version == 1 ? write_v1(header, buffer) : write_v2(header, buffer);
}
