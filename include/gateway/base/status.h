/*
 * status: every way in which something can fail, in one table: the stable code that clients and logs see
 * (X-Gateway-Error, access log field "error"), the HTTP status it becomes, the HTTP/2 error code for a stream that can
 * only be reset, what happened, and what the reader can do about it.
 *
 * A function that can fail returns `enum status` and is marked MUST_CHECK. STATUS_OK is 0.
 */
#ifndef GATEWAY_BASE_STATUS_H
#define GATEWAY_BASE_STATUS_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum {
    H2_NO_ERROR = 0,
    H2_PROTOCOL_ERROR = 1,
    H2_INTERNAL_ERROR = 2,
    H2_REFUSED_STREAM = 7,
    H2_CANCEL = 8,
    H2_ENHANCE_YOUR_CALM = 11,
    H2_HTTP_1_1_REQUIRED = 13
};

/* X(NAME, code, http status (0: never answered), h2 error, what happened, what to do) */
#define STATUS_TABLE(X)                                                                                                \
    X(OK, "ok", 200, H2_NO_ERROR, "no error", "")                                                                      \
    /* requests that are wrong */                                                                                      \
    X(BAD_REQUEST_LINE, "bad_request_line", 400, H2_PROTOCOL_ERROR, "the request line is malformed",                   \
      "Send METHOD SP target SP HTTP/1.1 CRLF.")                                                                       \
    X(BAD_METHOD, "bad_method", 400, H2_PROTOCOL_ERROR, "the method is not a token", "Use letters, as in GET.")        \
    X(BAD_TARGET, "bad_target", 400, H2_PROTOCOL_ERROR, "the request target is malformed",                             \
      "Send an origin-form target such as /path?query, percent-encoded.")                                              \
    X(BAD_VERSION, "bad_version", 505, H2_PROTOCOL_ERROR, "the HTTP version is not supported", "Use HTTP/1.1 or 1.0.") \
    X(BAD_FIELD_NAME, "bad_field_name", 400, H2_PROTOCOL_ERROR, "a header field name is not a token",                  \
      "Use letters, digits and hyphens, and no space before the colon.")                                               \
    X(BAD_FIELD_VALUE, "bad_field_value", 400, H2_PROTOCOL_ERROR, "a header field value has a forbidden byte",         \
      "Remove control characters from header fields.")                                                                 \
    X(BARE_CR, "bare_cr", 400, H2_PROTOCOL_ERROR, "a CR stands without its LF", "End lines with CRLF.")                \
    X(OBS_FOLD, "obs_fold", 400, H2_PROTOCOL_ERROR, "a header field is folded over lines", "Send each on one line.")   \
    X(HOST_MISSING, "host_missing", 400, H2_PROTOCOL_ERROR, "the request has no Host", "Send one Host field.")         \
    X(HOST_DUPLICATE, "host_duplicate", 400, H2_PROTOCOL_ERROR, "the request has several Host fields", "Send one.")    \
    X(HOST_INVALID, "host_invalid", 400, H2_PROTOCOL_ERROR, "the Host is not a host name with an optional port",       \
      "Send the name from the URL.")                                                                                   \
    X(HOST_MISMATCH, "host_mismatch", 400, H2_PROTOCOL_ERROR, "the target's authority and Host differ",                \
      "Send the same name in both.")                                                                                   \
    X(CONTENT_LENGTH_INVALID, "content_length_invalid", 400, H2_PROTOCOL_ERROR, "Content-Length is not a number",      \
      "Send decimal digits, once.")                                                                                    \
    X(FRAMING_CONFLICT, "framing_conflict", 400, H2_PROTOCOL_ERROR,                                                    \
      "the request has both Content-Length and Transfer-Encoding", "Send one of them.")                                \
    X(TRANSFER_CODING_INVALID, "transfer_coding_invalid", 400, H2_PROTOCOL_ERROR,                                      \
      "Transfer-Encoding is not exactly chunked", "Send Transfer-Encoding: chunked, once, in HTTP/1.1.")               \
    X(CHUNK_INVALID, "chunk_invalid", 400, H2_PROTOCOL_ERROR, "the chunked body is malformed",                         \
      "Send the size in hex, CRLF, the data, CRLF.")                                                                   \
    X(TRAILER_INVALID, "trailer_invalid", 400, H2_PROTOCOL_ERROR, "the trailer section is malformed",                  \
      "Send well-formed fields that are allowed in trailers.")                                                         \
    X(CONNECTION_FIELD, "connection_field", 400, H2_PROTOCOL_ERROR,                                                    \
      "an HTTP/2 message has a connection-specific field",                                                             \
      "Remove Connection, Transfer-Encoding, Upgrade, Keep-Alive and TE other than trailers.")                         \
    X(PSEUDO_HEADER_INVALID, "pseudo_header_invalid", 400, H2_PROTOCOL_ERROR, "the pseudo-header fields are wrong",    \
      "Send :method, :scheme, :path and :authority once, first.")                                                      \
    X(UPGRADE_WITH_BODY, "upgrade_with_body", 400, H2_PROTOCOL_ERROR, "an Upgrade request has a body", "Send none.")   \
    X(METHOD_NOT_ALLOWED, "method_not_allowed", 405, H2_PROTOCOL_ERROR, "the method is not allowed here",              \
      "Use a method from the Allow field.")                                                                            \
    X(EXPECTATION_FAILED, "expectation_failed", 417, H2_PROTOCOL_ERROR, "the Expect field asks for something unknown", \
      "Only 100-continue is known.")                                                                                   \
    X(HEAD_TOO_LARGE, "head_too_large", 431, H2_ENHANCE_YOUR_CALM, "the header section is too large",                  \
      "Send fewer or shorter header fields (often: cookies).")                                                         \
    X(TOO_MANY_FIELDS, "too_many_fields", 431, H2_ENHANCE_YOUR_CALM, "there are too many header fields",               \
      "Send fewer header fields.")                                                                                     \
    X(TARGET_TOO_LONG, "target_too_long", 414, H2_PROTOCOL_ERROR, "the request target is too long",                    \
      "Move data from the query to the body.")                                                                         \
    X(HEAD_TIMEOUT, "head_timeout", 408, H2_CANCEL, "the request head did not arrive in time", "Send it at once.")     \
    X(BODY_TIMEOUT, "body_timeout", 408, H2_CANCEL, "the request body stopped arriving",                               \
      "Send it without long pauses.")                                                                                  \
    X(BODY_TOO_SLOW, "body_too_slow", 408, H2_CANCEL, "the request body arrives too slowly", "Use a faster network.")  \
    X(MISDIRECTED, "misdirected", 421, H2_PROTOCOL_ERROR, "this connection must not serve that host name",             \
      "Open a new connection for it.")                                                                                 \
    X(RATE_LIMITED, "rate_limited", 429, H2_ENHANCE_YOUR_CALM, "the app's request limit is reached", "Retry later.")   \
    /* routing */                                                                                                      \
    X(HOST_UNKNOWN, "host_unknown", 404, H2_PROTOCOL_ERROR, "no app is published under this host name",                \
      "Check the URL: <app id or instance id>-<port>.<cluster domain>.")                                               \
    X(APP_UNKNOWN, "app_unknown", 404, H2_PROTOCOL_ERROR, "there is no app or instance with this id",                  \
      "Check the id in the URL; the app may have been deleted.")                                                       \
    X(PORT_NOT_PUBLISHED, "port_not_published", 404, H2_PROTOCOL_ERROR, "the app does not publish this port",          \
      "Publish it under ports: in the Compose file.")                                                                  \
    X(APP_STARTING, "app_starting", 503, H2_REFUSED_STREAM, "the app is starting", "Retry in a few seconds.")          \
    X(APP_STOPPED, "app_stopped", 503, H2_REFUSED_STREAM, "the app is stopped", "Start it from the dashboard.")        \
    X(NO_INSTANCE, "no_instance", 503, H2_REFUSED_STREAM, "the app has no running instance", "Start one.")             \
    X(APP_BUSY, "app_busy", 503, H2_REFUSED_STREAM, "the app's connection limit is reached", "Retry later.")           \
    X(OVERLOADED, "overloaded", 503, H2_REFUSED_STREAM, "the gateway is overloaded", "Retry later.")                   \
    X(DRAINING, "draining", 503, H2_REFUSED_STREAM, "the gateway is shutting down", "Retry: another one answers.")     \
    /* the CVM's side */                                                                                               \
    X(CONNECT_REFUSED, "connect_refused", 502, H2_INTERNAL_ERROR, "the app refused the connection",                    \
      "Check that it listens on this port, on 0.0.0.0 rather than on 127.0.0.1.")                                      \
    X(CONNECT_UNREACHABLE, "connect_unreachable", 502, H2_INTERNAL_ERROR, "the app's machine cannot be reached",       \
      "Check that its CVM is running.")                                                                                \
    X(CONNECT_TIMEOUT, "connect_timeout", 504, H2_INTERNAL_ERROR, "the app's machine did not accept in time",          \
      "Check that its CVM is running and not overloaded.")                                                             \
    X(ADDRESS_REVOKED, "address_revoked", 502, H2_INTERNAL_ERROR, "the instance lost its address while it answered",   \
      "Retry: the app has moved.")                                                                                     \
    X(ADDRESS_FORBIDDEN, "address_forbidden", 502, H2_INTERNAL_ERROR, "the instance's address is not allowed",         \
      "Ask the operator: upstream.allow does not cover it, or the gateway itself listens there.")                      \
    X(UPSTREAM_RESET, "upstream_reset", 502, H2_INTERNAL_ERROR, "the app reset the connection", "Check its logs.")     \
    X(UPSTREAM_CLOSED, "upstream_closed", 502, H2_INTERNAL_ERROR, "the app closed the connection without an answer",   \
      "Check its logs.")                                                                                               \
    X(UPSTREAM_REFUSED, "upstream_refused", 502, H2_REFUSED_STREAM, "the app refused the request unprocessed",         \
      "Retry: it may be restarting or busy.")                                                                          \
    X(UPSTREAM_NO_STREAMS, "upstream_no_streams", 503, H2_REFUSED_STREAM,                                              \
      "the app's HTTP/2 server allows no requests (SETTINGS_MAX_CONCURRENT_STREAMS is 0)",                             \
      "Retry: it may be starting or busy.")                                                                            \
    X(UPSTREAM_NO_TUNNEL, "upstream_no_tunnel", 501, H2_INTERNAL_ERROR,                                                \
      "the app's HTTP/2 server takes no WebSocket (RFC 8441)", "Publish the port with protocol http.")                 \
    X(UPSTREAM_TRUNCATED, "upstream_truncated", 502, H2_INTERNAL_ERROR, "the app's answer ended early",                \
      "Check its logs.")                                                                                               \
    X(UPSTREAM_BAD_RESPONSE, "upstream_bad_response", 502, H2_INTERNAL_ERROR, "the app's answer is not valid HTTP",    \
      "Check that the port speaks HTTP; for TLS use an s name, for other protocols a tcp port.")                       \
    X(UPSTREAM_NO_UPGRADE, "upstream_no_upgrade", 502, H2_INTERNAL_ERROR,                                              \
      "the app ignored the upgrade and answered as to any request", "Check that this path serves WebSocket.")          \
    X(UPSTREAM_HEAD_TOO_LARGE, "upstream_head_too_large", 502, H2_INTERNAL_ERROR,                                      \
      "the app's answer has too large a head", "Send fewer or shorter header fields.")                                 \
    X(UPSTREAM_TIMEOUT, "upstream_timeout", 504, H2_INTERNAL_ERROR, "the app did not begin to answer in time",         \
      "Send the first byte sooner, or stream.")                                                                        \
    X(UPSTREAM_STALLED, "upstream_stalled", 504, H2_INTERNAL_ERROR, "the app stopped in the middle of its answer",     \
      "Check its logs.")                                                                                               \
    /* ends of connections; answered only where a request is open */                                                   \
    X(CLIENT_CANCELLED, "client_cancelled", 499, H2_CANCEL, "the client left before the answer was complete", "")      \
    X(CLIENT_PROTOCOL, "client_protocol_error", 400, H2_PROTOCOL_ERROR, "the client broke a rule of HTTP/2", "")       \
    X(CLIENT_FLOOD, "client_flood", 429, H2_ENHANCE_YOUR_CALM, "the client sent too many frames that do no work", "")  \
    X(CLIENT_STALLED, "client_stalled", 499, H2_CANCEL, "the client stopped reading", "")                              \
    X(PEER_CLOSED, "peer_closed", 0, H2_CANCEL, "the peer closed the connection", "")                                  \
    X(PEER_RESET, "peer_reset", 0, H2_CANCEL, "the peer reset the connection", "")                                     \
    X(IDLE_TIMEOUT, "idle_timeout", 0, H2_NO_ERROR, "the connection was idle too long", "")                            \
    X(TUNNEL_IDLE, "tunnel_idle", 0, H2_CANCEL, "the tunnel was idle too long", "")                                    \
    X(EVICTED, "evicted", 0, H2_NO_ERROR, "an idle connection made room for a new one", "")                            \
    X(SHUTDOWN, "shutdown", 503, H2_CANCEL, "the gateway is stopping", "Retry: another one answers.")                  \
    /* TLS */                                                                                                          \
    X(TLS_FAILED, "tls_failed", 0, H2_INTERNAL_ERROR, "TLS failed", "")                                                \
    X(TLS_TIMEOUT, "tls_timeout", 0, H2_INTERNAL_ERROR, "the TLS handshake did not end in time", "")                   \
    X(TLS_TRUNCATED, "tls_truncated", 0, H2_INTERNAL_ERROR, "the connection ended without close_notify", "")           \
    X(TLS_UNKNOWN_NAME, "tls_unknown_name", 0, H2_INTERNAL_ERROR, "the SNI is not a name of this gateway", "")         \
    /* control API */                                                                                                  \
    X(UNAUTHORIZED, "unauthorized", 401, H2_PROTOCOL_ERROR, "the call is not authenticated",                           \
      "Send Authorization: Bearer with the token from token_file.")                                                    \
    X(NOT_FOUND, "not_found", 404, H2_PROTOCOL_ERROR, "there is nothing at this path",                                 \
      "See the control API in README.")                                                                                \
    X(INVALID_JSON, "invalid_json", 400, H2_PROTOCOL_ERROR, "the body is not valid JSON", "Send one JSON object.")     \
    X(INVALID_PARAMETER, "invalid_parameter", 400, H2_PROTOCOL_ERROR, "a query parameter or field is not valid",       \
      "See the named field.")                                                                                          \
    X(UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", 415, H2_PROTOCOL_ERROR, "the body is not JSON by its type",    \
      "Send Content-Type: application/json (application/x-ndjson for a snapshot), or none.")                           \
    X(RELOAD_FAILED, "reload_failed", 422, H2_INTERNAL_ERROR, "the new configuration was refused; the old one stays",  \
      "Correct the configuration, then reload again.")                                                                 \
    X(INVALID_RECORD, "invalid_record", 422, H2_PROTOCOL_ERROR, "the record breaks a rule", "See the named field.")    \
    X(CLAIM_CONFLICT, "claim_conflict", 409, H2_PROTOCOL_ERROR, "another live instance owns the address",              \
      "Stop that instance first, or send a newer generation.")                                                         \
    X(REVISION_CONFLICT, "revision_conflict", 412, H2_PROTOCOL_ERROR, "the app has changed meanwhile",                 \
      "Read it again and repeat the change.")                                                                          \
    X(REVISION_TAKEN, "revision_taken", 409, H2_PROTOCOL_ERROR, "the revision is not newer than what is known",        \
      "Continue from the known revision.")                                                                             \
    X(REVISION_GAP, "revision_gap", 409, H2_PROTOCOL_ERROR, "revisions before this one are missing",                   \
      "Send what follows the known revision, or a snapshot.")                                                          \
    X(REVISION_GONE, "revision_gone", 410, H2_PROTOCOL_ERROR, "the changes since this revision are not known",         \
      "Load the snapshot, then watch from its revision.")                                                              \
    X(ROUTES_FOLLOW, "routes_follow", 409, H2_PROTOCOL_ERROR, "the routes of this gateway come from elsewhere",        \
      "Change them at their source.")                                                                                  \
    X(CERT_UNKNOWN, "certificate_unknown", 404, H2_PROTOCOL_ERROR, "no certificate was uploaded for this name",        \
      "GET /v1/certificates lists them.")                                                                              \
    X(CERT_NAME_RESERVED, "certificate_name_reserved", 409, H2_PROTOCOL_ERROR,                                         \
      "the name belongs to a base domain of the gateway", "Configure its certificate under base_domains.")             \
    X(CERT_MALFORMED, "certificate_malformed", 422, H2_PROTOCOL_ERROR, "the certificate or key can't be read",         \
      "Send PEM text without a passphrase.")                                                                           \
    X(CERT_KEY_UNSUITABLE, "certificate_key_unsuitable", 422, H2_PROTOCOL_ERROR, "the key is too weak or of no use",   \
      "Use ECDSA P-256, P-384 or RSA with 2048 bits or more.")                                                         \
    X(CERT_KEY_MISMATCH, "certificate_key_mismatch", 422, H2_PROTOCOL_ERROR, "the key is not the certificate's",       \
      "Send the pair.")                                                                                                \
    X(CERT_CHAIN_BROKEN, "certificate_chain_broken", 422, H2_PROTOCOL_ERROR, "the chain is not complete and in order", \
      "Send the leaf first, then each issuer; only the root may be missing.")                                          \
    X(CERT_EXPIRED, "certificate_expired", 422, H2_PROTOCOL_ERROR, "the certificate has expired", "Renew it.")         \
    X(CERT_NOT_YET_VALID, "certificate_not_yet_valid", 422, H2_PROTOCOL_ERROR, "the certificate is not valid yet",     \
      "Upload it when it is, or check the clocks.")                                                                    \
    X(CERT_NAME_MISMATCH, "certificate_name_mismatch", 422, H2_PROTOCOL_ERROR,                                         \
      "the certificate does not serve this name", "Get one with the name as subjectAltName.")                          \
    X(PAYLOAD_TOO_LARGE, "payload_too_large", 413, H2_PROTOCOL_ERROR, "the body is too large", "Send a smaller one.")  \
    X(TABLE_FULL, "table_full", 507, H2_INTERNAL_ERROR, "there are as many apps as the gateway may have",              \
      "Delete apps that are gone, or raise limits.apps.")                                                              \
    X(STORE_FAILED, "store_failed", 507, H2_INTERNAL_ERROR, "the change could not be stored and was not applied",      \
      "Check the disk of state_dir, then repeat it.")                                                                  \
    X(ETCD_UNAVAILABLE, "etcd_unavailable", 503, H2_REFUSED_STREAM,                                                    \
      "etcd cannot take the change; nothing was changed", "Retry; /readyz?verbose says what is wrong with etcd.")      \
    X(ETCD_UNCONFIRMED, "etcd_unconfirmed", 504, H2_INTERNAL_ERROR, "it is not known whether etcd took the change",    \
      "Look at the app, and repeat the call if need be: that does no harm.")                                           \
    X(INTERNAL, "internal", 500, H2_INTERNAL_ERROR, "the gateway failed", "Report it with the request id.")

enum status {
#define X(name, code, http, h2, what, advice) STATUS_##name,
    STATUS_TABLE(X)
#undef X
        STATUS_COUNT
};

/* All of these return static data and accept every value of the enum. */
const char *status_code(enum status status);   /* "host_unknown" */
int status_http(enum status status);           /* 404; 0: nothing can be answered */
unsigned status_h2(enum status status);        /* RFC 9113 section 7 */
unsigned status_grpc(enum status status);      /* a grpc-status, as gRPC's http-grpc-status-mapping has it */
const char *status_what(enum status status);   /* "no app is published under this host name" */
const char *status_advice(enum status status); /* a sentence, or "" */

/* The reason phrase of an HTTP status code (RFC 9110 section 15), "" if unknown. */
const char *status_reason(int http_status);

#endif
