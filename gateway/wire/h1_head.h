/*
 * h1_head: splits a complete HTTP/1 head or trailer section into its parts (RFC 9112 sections 3 to 5).
 *
 * Private to wire. A section is contiguous, ends with its empty line, and each LF in it follows a CR: h1_parser has
 * seen to that. Slices of the result point into the section.
 */
#ifndef GATEWAY_WIRE_H1_HEAD_H
#define GATEWAY_WIRE_H1_HEAD_H

#include "gateway/wire/h1_parser.h"

/* Fill method_text, target, version / status, reason, version, and fields. `path` and `method` are set for logs. */
MUST_CHECK enum status h1_head_parse_request(struct slice section, const struct h1_limits *limits, struct arena *arena,
                                             struct message_head *ret_head);
MUST_CHECK enum status h1_head_parse_response(struct slice section, const struct h1_limits *limits, struct arena *arena,
                                              struct message_head *ret_head);

/* Field lines up to the empty line at the end of the section. */
MUST_CHECK enum status h1_head_parse_fields(struct slice lines, const struct h1_limits *limits, struct arena *arena,
                                            struct fields *ret_fields);

/* Fills what can be told from the beginning of a request that was refused before its head was complete. */
void h1_head_name_request(struct slice section, struct message_head *ret_head);

#endif
