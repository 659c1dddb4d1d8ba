/*
 * semantics_internal: steps that the checks of HTTP/1 heads (semantics.c) and of HTTP/2 heads (semantics_h2.c) share.
 */
#ifndef GATEWAY_HTTP_SEMANTICS_INTERNAL_H
#define GATEWAY_HTTP_SEMANTICS_INTERNAL_H

#include "gateway/http/semantics.h"

/* Forgets what earlier checks found. */
void semantics_clear_framing(struct message_head *head);
/* At most one Content-Length, digits only (RFC 9110 section 8.6). */
bool semantics_read_content_length(struct message_head *head);
/* Host, and that it agrees with an authority that is there already. */
enum status semantics_read_host(struct message_head *head);
enum status semantics_read_expect(struct message_head *head);

#endif
