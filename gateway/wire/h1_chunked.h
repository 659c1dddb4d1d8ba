/*
 * h1_chunked: the chunk-size line of the chunked coding (RFC 9112 section 7.1), a byte at a time.
 *
 * Private to wire. Extensions are checked against their grammar, counted, and dropped: no extension is known here, and
 * they belong to the connection, not to the message.
 */
#ifndef GATEWAY_WIRE_H1_CHUNKED_H
#define GATEWAY_WIRE_H1_CHUNKED_H

#include "gateway/wire/h1_parser.h"

enum { H1_CHUNK_MAX_DIGITS = 16, H1_CHUNK_MAX_EXTENSION_BYTES = 256, H1_BODY_MAX_EXTENSION_BYTES = 16384 };

enum h1_chunk_result { H1_CHUNK_MORE, H1_CHUNK_READY, H1_CHUNK_INVALID };

/* Begins the next line of the same body. */
void h1_chunk_line_begin(struct h1_chunk_line *line);

/* Uses bytes of input up to the line's LF; on H1_CHUNK_READY, line->size is the size of the data that follows. */
enum h1_chunk_result h1_chunk_line_feed(struct h1_chunk_line *line, struct slice *input);

#endif
