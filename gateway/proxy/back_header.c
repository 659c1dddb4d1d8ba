#include "gateway/proxy/back_header.h"

/* Where the client connected to. */
static void find_destination(const struct connection *c, struct proxy_header *header)
{
    const struct stream *stream = c->mux ? c->mux->stream : c->stream;
    struct ip_addr addr = c->destination;
    uint16_t port = c->destination_port;
    if (addr.family == 0 && (!stream || !stream_local(stream, &addr, &port)))
        return;
    union ip_sockaddr local;
    ip_to_sockaddr(&addr, port, &local);
    if (addr.family == AF_INET)
        header->destination.in = local.in;
    else
        header->destination.in6 = local.in6;
}

size_t back_header_write(const struct connection *c, struct slice authority, unsigned version,
                         uint8_t buffer[PROXY_WRITE_MAX_BYTES])
{
    struct proxy_header header = {
        .is_local = c->client.family == 0,
        .alpn = slice_str(c->alpn),
        .authority = authority,
        .tls_version = slice_str(c->tls_version),
        .tls_cipher = slice_str(c->tls_cipher),
    };
    if (!header.is_local) {
        union ip_sockaddr client;
        ip_to_sockaddr(&c->client, c->client_port, &client);
        if (c->client.family == AF_INET)
            header.source.in = client.in;
        else
            header.source.in6 = client.in6;
        find_destination(c, &header);
    }
    return proxy_protocol_write(&header, (int)version, buffer);
}
