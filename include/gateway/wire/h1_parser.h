/*
 * h1_parser: HTTP/1.0 and HTTP/1.1 messages from bytes (RFC 9112), strict, incremental, no I/O.
 *
 * One parser serves one connection and one direction. Feed it what arrived; each call returns one event and how many
 * bytes it used. Body slices point into the input (no copy). The head is copied into the arena once and parsed there,
 * so its slices live as long as the arena. A parser between messages owns no memory.
 *
 *   h1_parser_init(&p, H1_REQUESTS, &limits);
 *   h1_parser_begin(&p, &arena, METHOD_OTHER, false);
 *   while ((event = h1_parser_feed(&p, data, len, &used)) != H1_NEED_MORE) { data += used; len -= used; … }
 *
 * Refused here, as bytes: bare CR, NUL and other control characters, obs-fold, space before the colon, names that are
 * not tokens, anything but a single SP between the parts of the start line, heads over the limits, malformed chunk
 * sizes (over 16 hex digits, signs, spaces), chunk data without its CRLF, chunk extensions over the limit. A bare LF as
 * line end is refused. Leading empty lines (CRLF) before a request line are skipped (section 2.2), at most 4. What
 * heads mean is checked by http/semantics, which the parser calls.
 *
 * In responses every failure is UPSTREAM_BAD_RESPONSE, or UPSTREAM_HEAD_TOO_LARGE for the limits, which also bound all
 * 1xx heads before a final one together. A request whose head fails leaves its method and path in `head` for the log.
 */
#ifndef GATEWAY_WIRE_H1_PARSER_H
#define GATEWAY_WIRE_H1_PARSER_H

#include "gateway/base/arena.h"
#include "gateway/base/status.h"
#include "gateway/http/message.h"

enum h1_direction { H1_REQUESTS, H1_RESPONSES };

enum h1_event {
    H1_NEED_MORE, /* all input used */
    H1_HEAD,      /* parser.head is the message's; for 1xx another head follows */
    H1_BODY,      /* parser.body is a piece of the body, or of raw bytes after BODY_RAW */
    H1_TRAILERS,  /* parser.trailers has at least one field (already filtered) */
    H1_END,       /* the message is complete; input after it belongs to the next one */
    H1_FAILED,    /* parser.status says why; the connection cannot be used any more */
};

struct h1_limits {
    size_t max_head_bytes;   /* start line and fields; also the trailer section */
    size_t max_target_bytes; /* request target */
    unsigned max_fields;
};

/* A chunk-size line as far as it has arrived. */
struct h1_chunk_line {
    uint64_t size;
    uint32_t body_extension_bytes; /* over all chunks of the body */
    uint16_t extension_bytes;      /* in this line */
    uint8_t digits;
    uint8_t state;
};

struct h1_parser {
    /* results of the last event */
    struct message_head *head; /* in the arena; NULL before the first one of a message is complete, or refused */
    struct slice body;
    struct fields trailers;
    enum status status;

    /* private */
    const struct h1_limits *limits;
    struct arena *arena;
    char *partial; /* an incomplete head or trailer section, in the arena */
    size_t partial_len;
    size_t partial_capacity;
    uint64_t remaining; /* of the body or chunk */
    struct h1_chunk_line chunk;
    uint32_t preamble; /* before the head: empty lines of a request, cost in bytes of a response's 1xx heads */
    enum method request_method;
    uint8_t direction;
    uint8_t state;
    bool upgrade_asked;
};

/* limits must outlive the parser. */
void h1_parser_init(struct h1_parser *parser, enum h1_direction direction, const struct h1_limits *limits);

/*
 * Begins the next message, whose head is kept in the arena. For responses: the method of the request it answers, and
 * whether that asked for an upgrade.
 */
void h1_parser_begin(struct h1_parser *parser, struct arena *arena, enum method request_method, bool upgrade_asked);

MUST_CHECK enum h1_event h1_parser_feed(struct h1_parser *parser, const char *data, size_t len, size_t *ret_used);

/* The peer has ended its direction: H1_END if the body is delimited by that, H1_NEED_MORE if nothing of a message has
 * arrived, else H1_FAILED (status PEER_CLOSED within a head, UPSTREAM_TRUNCATED or CLIENT_CANCELLED within a body). */
MUST_CHECK enum h1_event h1_parser_eof(struct h1_parser *parser);

/* After H1_HEAD or H1_BODY: nothing but H1_END can follow, so the piece is the last one. */
bool h1_parser_is_last(const struct h1_parser *parser);

/* True once a byte of the message's head has arrived (a lone CRLF before a request does not count). */
bool h1_parser_has_begun(const struct h1_parser *parser);

#endif
