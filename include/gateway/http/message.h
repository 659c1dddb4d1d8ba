/*
 * message: the head of a request or response, the same for every HTTP version and for both directions.
 *
 * Heads are made by a codec (wire/h1_parser, mux/h2_mux) and checked by http/semantics, which also fills `body`,
 * `content_length`, `authority`, `path`. All slices live in the arena of the exchange. A head is a plain value: copying
 * the struct shares its field array.
 *
 * Framing is not kept in fields: senders write Content-Length, Transfer-Encoding and Connection from `body`,
 * `content_length`, `close` and `upgrade`.
 */
#ifndef GATEWAY_HTTP_MESSAGE_H
#define GATEWAY_HTTP_MESSAGE_H

#include "gateway/base/slice.h"
#include "gateway/http/fields.h"

#include <stdbool.h>
#include <stdint.h>

/* X(NAME): methods with a meaning to a proxy; all others are METHOD_OTHER and keep their text. */
#define METHODS_TABLE(X) X(GET) X(HEAD) X(POST) X(PUT) X(DELETE) X(CONNECT) X(OPTIONS) X(TRACE) X(PATCH)

enum method {
    METHOD_OTHER,
#define X(name) METHOD_##name,
    METHODS_TABLE(X)
#undef X
};

enum http_version { HTTP_1_0, HTTP_1_1, HTTP_2 };

/* How a body is delimited (RFC 9112 section 6.3), as its receiver must read it. */
enum body_kind {
    BODY_NONE,        /* the message ends with its head */
    BODY_LENGTH,      /* content_length bytes */
    BODY_CHUNKED,     /* self-delimiting, length unknown: chunked in HTTP/1.1, DATA until END_STREAM in HTTP/2 */
    BODY_UNTIL_CLOSE, /* response only */
    BODY_RAW,         /* after 101, or 2xx to CONNECT: bytes in both directions until each side ends */
};

struct message_head {
    /* requests */
    enum method method;
    struct slice method_text;
    struct slice target;    /* request-target as received (h1), for logs */
    struct slice scheme;    /* "http" or "https"; empty unless absolute-form or h2 */
    struct slice authority; /* host[:port] from the absolute-form, :authority or Host */
    struct slice path;      /* origin-form: absolute path with query; "*" for OPTIONS *; from an absolute-form without
                             * path "?query" alone, which semantics_forward_request turns into "/?query" */
    struct slice upgrade;   /* Upgrade field of an upgrade request, 101 or 426, or :protocol; else empty */
    bool expect_continue;
    bool te_trailers; /* the sender accepts trailers (TE: trailers) */

    /* responses */
    int status; /* 0 in a request */
    struct slice reason;

    /* both */
    enum http_version version; /* of the message as received */
    bool close;                /* the sender closes after this message, or must be told to */
    enum body_kind body;
    bool has_content_length; /* also true for a HEAD response or 304 that tells a length but has no body */
    uint64_t content_length; /* bytes */
    struct fields fields;
};

enum method method_of(struct slice text);
struct slice method_name(enum method method); /* empty for METHOD_OTHER */

/* A gRPC request by its content type: application/grpc, with or without a suffix; not gRPC-Web. */
bool head_is_grpc(const struct message_head *head);

/* RFC 9110 section 9.2.2: a request with this method may be sent again. */
bool method_is_idempotent(enum method method);

static inline bool head_is_request(const struct message_head *head)
{
    return head->status == 0;
}

/* A 1xx that is followed by another head. */
static inline bool head_is_interim(const struct message_head *head)
{
    return head->status >= 100 && head->status < 200 && head->status != 101;
}

#endif
