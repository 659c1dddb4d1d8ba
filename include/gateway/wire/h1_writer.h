/*
 * h1_writer: HTTP/1.1 messages to bytes. Writes what it is told into the caller's buffer; no I/O, no allocation.
 *
 * Heads are written from parsed members, never copied through. Content-Length, Transfer-Encoding, Connection and
 * Upgrade come from the head's framing members; fields with those ids in the list are skipped.
 */
#ifndef GATEWAY_WIRE_H1_WRITER_H
#define GATEWAY_WIRE_H1_WRITER_H

#include "gateway/http/message.h"

enum { H1_CHUNK_PREFIX_MAX = 20, H1_CHUNK_SUFFIX_LEN = 2 };

/* An upper bound of what h1_write_head writes. */
size_t h1_head_bound(const struct message_head *head);

/*
 * Writes a request or response head with its empty line; returns its length. `size` is at least h1_head_bound().
 *   request:  "METHOD path HTTP/1.1"; Host is in fields (semantics_forward_request put it there)
 *   response: "HTTP/1.1 status reason"
 *   body BODY_LENGTH, or has_content_length: Content-Length (not for 1xx, 204)
 *   body BODY_CHUNKED: Transfer-Encoding: chunked
 *   upgrade not empty: Connection: upgrade and Upgrade
 *   close: Connection: close (without it in a response to HTTP/1.0 that stays open: see keep_alive)
 *   keep_alive: Connection: keep-alive, for HTTP/1.0 peers
 *   te_trailers in a request: TE: trailers, named by Connection
 *   expect_continue in a request: Expect: 100-continue
 */
size_t h1_write_head(const struct message_head *head, bool keep_alive, char *buffer, size_t size);

/* "1f4\r\n"; returns its length. The data and CRLF follow. */
size_t h1_write_chunk_prefix(size_t data_len, char buffer[H1_CHUNK_PREFIX_MAX]);

/* "0\r\n" trailers "\r\n". */
size_t h1_last_chunk_bound(const struct fields *trailers);
size_t h1_write_last_chunk(const struct fields *trailers, char *buffer, size_t size);

#endif
