/*
 * sniff: do the first bytes of a connection begin an HTTP request? For ports whose protocol is not known (`auto`), on
 * connections that negotiated no protocol.
 *
 * Whatever a lenient HTTP server might take for a request is HTTP here, so that raw bytes are never a way around the
 * strict parser. A request line is: optional blank space, a method, blank space, a target. So bytes are RAW when
 *   - the first word holds a byte that no method has (all binary protocols, and TLS in TLS),
 *   - the first word is too long for a method (SNIFF_MAX_METHOD bytes or more), or
 *   - the whole first line is there, its first word is not a method that servers know, in any letter case, and nowhere
 *     in it stands "HTTP/".
 * Sans I/O; the answer for a prefix is NEED_MORE or the answer for the whole.
 */
#ifndef GATEWAY_WIRE_SNIFF_H
#define GATEWAY_WIRE_SNIFF_H

#include "gateway/base/slice.h"

enum { SNIFF_MAX_METHOD = 64, SNIFF_MAX_LINE = 8192 };

enum sniff_result {
    SNIFF_NEED_MORE,
    SNIFF_HTTP, /* also when the line is longer than SNIFF_MAX_LINE without an answer */
    SNIFF_RAW,
};

enum sniff_result sniff_first_bytes(struct slice bytes);

#endif
