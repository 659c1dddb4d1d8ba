/*
 * proxy_protocol: the PROXY protocol header, versions 1 and 2 (HAProxy's specification), to and from bytes.
 *
 * Sans I/O. Reading accepts both versions by their signature. Writing makes the header for a connection to a CVM.
 */
#ifndef GATEWAY_WIRE_PROXY_PROTOCOL_H
#define GATEWAY_WIRE_PROXY_PROTOCOL_H

#include "gateway/base/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum { PROXY_V1_MAX_BYTES = 107, PROXY_V2_MAX_BYTES = 16 + 65535, PROXY_WRITE_MAX_BYTES = 2048 };

enum proxy_result { PROXY_NEED_MORE, PROXY_DONE, PROXY_INVALID };

struct proxy_header {
    bool is_local; /* LOCAL or UNKNOWN: the addresses are those of the connection itself */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } source, destination; /* AF_UNSPEC when unknown */
    struct slice alpn;     /* v2 TLVs, in the input; empty if absent */
    struct slice authority;
    struct slice tls_version; /* writing: "TLSv1.3"; empty: the client's side is not TLS */
    struct slice tls_cipher;
};

/* Reads a header at the start of data. On PROXY_DONE, ret_used bytes belong to it. */
enum proxy_result proxy_protocol_read(const uint8_t *data, size_t len, struct proxy_header *ret_header,
                                      size_t *ret_used);

/* Writes version 1 or 2; returns the length. `buffer` has PROXY_WRITE_MAX_BYTES; over-long TLVs are left out. */
size_t proxy_protocol_write(const struct proxy_header *header, int version, uint8_t *buffer);

#endif
