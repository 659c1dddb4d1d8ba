/*
 * error_page: the body of an answer that the gateway makes because of an error, for who asks (DESIGN section 5).
 *
 * HTML for browsers (Accept prefers text/html), JSON (RFC 9457 problem+json) if asked for, short text otherwise. All
 * say what happened, the code, what to do, and the request id. Pure; text goes into the arena. Bytes from the request
 * are escaped for their medium.
 */
#ifndef GATEWAY_PROXY_ERROR_PAGE_H
#define GATEWAY_PROXY_ERROR_PAGE_H

#include "gateway/base/arena.h"
#include "gateway/base/slice.h"
#include "gateway/base/status.h"

struct error_page {
    struct slice content_type; /* static */
    struct slice body;
};

/* accept: the request's Accept field, empty if none. host, request_id: shown; may be empty. */
void error_page_make(enum status status, struct slice accept, struct slice host, struct slice request_id,
                     struct arena *arena, struct error_page *ret_page);

#endif
