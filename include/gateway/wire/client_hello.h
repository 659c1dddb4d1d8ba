/*
 * client_hello: the TLS ClientHello as far as routing needs it (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301).
 *
 * Sans I/O and without decryption: given the first bytes of a connection, says the SNI and whether ALPN is offered. The
 * hello may be split over several TLS records (up to 16 KiB of handshake message); unknown extensions, GREASE (RFC
 * 8701) and large key shares are passed over.
 */
#ifndef GATEWAY_WIRE_CLIENT_HELLO_H
#define GATEWAY_WIRE_CLIENT_HELLO_H

#include "gateway/base/slice.h"

enum { CLIENT_HELLO_MAX_BYTES = 20480 }; /* of the records that hold it */

enum client_hello_result {
    CLIENT_HELLO_NEED_MORE,
    CLIENT_HELLO_DONE,
    CLIENT_HELLO_NOT_TLS, /* the first bytes are no TLS handshake record */
    CLIENT_HELLO_INVALID, /* a malformed or too long hello */
};

struct client_hello {
    char server_name[254]; /* host_name in lower case, NUL-terminated; "" if none */
    size_t server_name_len;
    struct slice alpn; /* ProtocolNameList body, in `scratch`; empty if none */
    uint16_t legacy_version;
    bool supports_tls13;
};

/*
 * Parses the first `len` bytes of the connection. `scratch` (CLIENT_HELLO_MAX_BYTES) receives the handshake message
 * when it spans records; ret_hello->alpn points into it or into data.
 */
enum client_hello_result client_hello_parse(const uint8_t *data, size_t len, uint8_t *scratch,
                                            struct client_hello *ret_hello);

#endif
