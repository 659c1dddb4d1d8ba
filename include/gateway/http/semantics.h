/*
 * semantics: everything that RFC 9110, 9112 and 9113 say about what a head means and what must be refused. The only
 * home of request-smuggling rules: codecs split bytes into lines and fields, this decides what they mean.
 *
 * All functions are pure: they read and write the head that they are given, allocate in the arena, and do no I/O.
 */
#ifndef GATEWAY_HTTP_SEMANTICS_H
#define GATEWAY_HTTP_SEMANTICS_H

#include "gateway/base/arena.h"
#include "gateway/base/status.h"
#include "gateway/http/message.h"

/* A Connection field with more options than this is refused: real ones have one or two. */
enum { SEMANTICS_MAX_CONNECTION_OPTIONS = 32 };

/* RFC 9110 section 5.6.2: a non-empty sequence of tchar. */
bool is_token(struct slice s);

/* RFC 9110 section 5.5: no control characters but HTAB; obs-text is allowed. */
bool is_field_value(struct slice s);

/* Bytes that a request target may have: a non-empty sequence of 0x21-0x7e but '#' (a fragment is never sent). */
bool is_target(struct slice s);

/*
 * host [":" port] as in RFC 3986 section 3.2 without userinfo. A host is an [IPv6] address or a name of letters,
 * digits, "-", "." and "_"; the sub-delims and percent-encodings of reg-name are refused, since host names have none
 * and two readers could differ about them. The port is empty or in 1..65535.
 */
bool is_authority(struct slice s);

/* Splits an authority; the port is empty if there is none. Brackets stay on an IPv6 host. */
void authority_split(struct slice authority, struct slice *ret_host, struct slice *ret_port);

/*
 * Checks a request head whose method_text, target, version and fields come from an HTTP/1 codec, and fills method,
 * scheme, authority, path, upgrade, expect_continue, te_trailers, close, body, content_length.
 *   - target forms (RFC 9112 section 3.2): origin, absolute (its authority replaces Host after comparison), "*" for
 *     OPTIONS only; CONNECT is METHOD_NOT_ALLOWED; no control characters, no fragment, no bytes above 0x7e
 *   - Host (section 3.2): exactly one in HTTP/1.1, at most one in 1.0, valid, same as the target's authority
 *   - framing (section 6): CL + TE, several or malformed CL (identical repeats too), TE that is not exactly one
 *     "chunked", TE in HTTP/1.0, are errors; a body of no bytes is BODY_NONE
 *   - Connection (RFC 9110 section 7.6.1): anything but tokens is BAD_FIELD_VALUE
 *   - Upgrade: honoured only in HTTP/1.1 with Connection: upgrade; upgrades to HTTP itself (h2c) are ignored; of
 *     several protocols the first is asked for; with a body UPGRADE_WITH_BODY
 *   - Expect other than 100-continue is EXPECTATION_FAILED; ignored in HTTP/1.0; 100-continue without a body is ignored
 */
MUST_CHECK enum status semantics_check_request(struct message_head *head);

/*
 * Checks a response head from an HTTP/1 codec to a request with this method, and fills close, upgrade, body,
 * content_length (RFC 9112 section 6.3). Every violation is STATUS_UPSTREAM_BAD_RESPONSE: framing faults as in requests
 * (CL + TE, several CL, TE other than one "chunked", TE in HTTP/1.0), Connection options that are not tokens, a 1xx
 * with a body. `upgrade_asked`: the request was an upgrade; a 101 without it, or without Connection: upgrade and
 * Upgrade, is a violation; of the others only a 426 keeps what it says there. A 204 that announces a body is taken
 * without it, and the connection is closed.
 */
MUST_CHECK enum status semantics_check_response(struct message_head *head, enum method request_method,
                                                bool upgrade_asked);

/*
 * Checks a request head whose method_text, scheme, authority, target (:path), upgrade (:protocol) and fields come from
 * HTTP/2 (RFC 9113 section 8.3.1), and fills the rest as semantics_check_request does; several Cookie fields become one
 * (section 8.2.3). `end`: the head ends the stream. Extended CONNECT (RFC 8441) becomes the upgrade request that it
 * stands for in HTTP/1.1: GET with `upgrade` and, for WebSocket, a Sec-WebSocket-Key.
 */
MUST_CHECK enum status semantics_check_h2_request(struct message_head *head, bool end, struct arena *arena);

/* What a response answers. */
struct semantics_asked {
    enum method method;
    struct slice protocol;      /* of extended CONNECT (RFC 8441); empty: none was asked for */
    struct slice websocket_key; /* the Sec-WebSocket-Key of a client that will look for the answer to it */
};

/*
 * Checks a response head whose status and fields come from HTTP/2 (RFC 9113 section 8.3.2), and fills body and
 * content_length. `end`: the head ends the stream. Every violation is UPSTREAM_BAD_RESPONSE: fields of a connection, a
 * 101, a 1xx that ends the stream, several or malformed Content-Length or one that the end contradicts. BODY_NONE
 * without `end`: none may follow. A 2xx to extended CONNECT becomes the 101 that it stands for in HTTP/1.1.
 */
MUST_CHECK enum status semantics_check_h2_response(struct message_head *head, bool end,
                                                   const struct semantics_asked *asked, struct arena *arena);

/* Trailers (RFC 9110 section 6.5.1): fields that frame, route, authenticate or control are removed from the list. */
void semantics_filter_trailers(struct fields *trailers);

/* What the gateway adds to a request on its way to the CVM. Slices live at least as long as the arena. */
struct forward_params {
    struct slice client_address; /* IP text without port */
    struct slice proto;          /* "https" or "http" */
    struct slice port;           /* of our listener: "443" */
    struct slice request_id;     /* for X-Request-Id, whatever was received */
    struct slice via;            /* pseudonym: "phala-gateway" */
    bool peer_is_trusted;        /* in trusted_proxies: keep and extend what it says; else drop its copies */
};

/*
 * Makes the request head to send upstream from the received one (RFC 9110 section 7.6): hop-by-hop fields and those
 * named by Connection are removed (also Proxy-*, Keep-Alive, TE other than trailers, HTTP2-Settings, Expect handled by
 * expect_continue); X-Forwarded-For/-Proto/-Host/-Port, X-Real-IP, Via, X-Request-Id are set; Forwarded and all
 * spellings with underscores of the fields set here are dropped unless the peer is trusted (underscore spellings
 * always). Host is written first, from authority; then the received fields in their order; then ours. Framing members
 * are copied, but not close, which concerns the received connection only. `in` has passed semantics_check_request, and
 * may be *ret_out.
 */
void semantics_forward_request(const struct message_head *in, const struct forward_params *params, struct arena *arena,
                               struct message_head *ret_out);

/*
 * The same for a response: hop-by-hop fields removed, Via added; X-Gateway-Error from a CVM is dropped.
 * `in` has passed semantics_check_response, and may be *ret_out.
 */
void semantics_forward_response(const struct message_head *in, struct slice via, struct arena *arena,
                                struct message_head *ret_out);

#endif
