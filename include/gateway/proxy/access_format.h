/*
 * access_format: turns an access_record into one line, as JSON, Combined, or by a format string.
 *
 * Private to access_log. Compiled once, then shared by all workers as const. A line ends with the only newline in it
 * and has at most ACCESS_LOG_MAX_LINE bytes; members that are too long are cut, so that JSON stays valid.
 */
#ifndef GATEWAY_PROXY_ACCESS_FORMAT_H
#define GATEWAY_PROXY_ACCESS_FORMAT_H

#include "gateway/proxy/access_log.h"
#include "gateway/proxy/access_text.h"

/*
 * X(NAME, name, KIND, member of access_record, most bytes of its value)
 * Quoted kinds are strings in JSON. The first list is the JSON object, in its order; the second is only for format
 * strings. Empty members are left out of JSON and are "-" in the other formats.
 */
#define ACCESS_MEMBER_TABLE(X)                                                                                         \
    X(TIME, "time", TIME, wall_us, 24)                                                                                 \
    X(REQUEST_ID, "request_id", SLICE, request_id, 128)                                                                \
    X(CLIENT, "client", CLIENT, client, 46)                                                                            \
    X(CLIENT_PORT, "client_port", CLIENT_PORT, client_port, 5)                                                         \
    X(HOST, "host", SLICE, host, 256)                                                                                  \
    X(APP_ID, "app_id", SLICE, app_id, 64)                                                                             \
    X(INSTANCE_ID, "instance_id", SLICE, instance_id, 64)                                                              \
    X(PORT, "port", PORT, port, 5)                                                                                     \
    X(METHOD, "method", SLICE, method, 64)                                                                             \
    X(PATH, "path", URL, path, 4096)                                                                                   \
    X(PROTOCOL, "protocol", STRING, protocol, 32)                                                                      \
    X(STATUS, "status", UNSIGNED, status, 10)                                                                          \
    X(BYTES_IN, "bytes_in", COUNT, bytes_in, 20)                                                                       \
    X(BYTES_OUT, "bytes_out", COUNT, bytes_out, 20)                                                                    \
    X(TOTAL_MS, "total_ms", MS, total_us, 21)                                                                          \
    X(CONNECT_MS, "connect_ms", MS_IF_ANY, connect_us, 21)                                                             \
    X(FIRST_BYTE_MS, "first_byte_ms", MS_IF_ANY, first_byte_us, 21)                                                    \
    X(TLS_VERSION, "tls_version", STRING, tls_version, 16)                                                             \
    X(TLS_CIPHER, "tls_cipher", STRING, tls_cipher, 64)                                                                \
    X(TLS_RESUMED, "tls_resumed", TLS_RESUMED, tls_resumed, 5)                                                         \
    X(ALPN, "alpn", STRING, alpn, 32)                                                                                  \
    X(BACK_ADDRESS, "back_address", BACK_ADDRESS, back_address, 54)                                                    \
    X(BACK_PROTOCOL, "back_protocol", STRING, back_protocol, 32)                                                       \
    X(BACK_REUSED, "back_reused", BACK_REUSED, back_reused, 5)                                                         \
    X(RETRIES, "retries", UNSIGNED, retries, 10)                                                                       \
    X(ERROR, "error", ERROR, error, 32)                                                                                \
    X(CLOSE, "close", STRING, close, 16)                                                                               \
    X(USER_AGENT, "user_agent", SLICE, user_agent, 768)                                                                \
    X(REFERER, "referer", URL, referer, 768)

#define ACCESS_EXTRA_MEMBER_TABLE(X)                                                                                   \
    X(TIME_CLF, "time_clf", TIME_CLF, wall_us, 26)                                                                     \
    X(VERSION, "version", VERSION, protocol, 32)

enum access_member {
#define X(name, text, kind, field, max) ACCESS_MEMBER_##name,
    ACCESS_MEMBER_TABLE(X) ACCESS_EXTRA_MEMBER_TABLE(X)
#undef X
        ACCESS_MEMBER_COUNT
};

/* A literal, then a member; ACCESS_MEMBER_COUNT: none. */
struct access_format_step {
    const char *literal;
    size_t len;
    enum access_member member;
};

struct access_format {
    bool json; /* no steps */
    char *text;
    struct access_format_step *steps;
    size_t count;
    enum access_client client;
    enum access_query query;
    uint64_t key[2]; /* for hashed queries; of this process */
};

/* `format` is "json", "combined" or a format string. On false the text says why, and there is nothing to free. */
bool access_format_init(struct access_format *format, const struct access_log_options *options,
                        char ret_error[ACCESS_LOG_ERROR_TEXT_MAX]);
void access_format_fini(struct access_format *format);

/* Writes a line into a buffer of ACCESS_LOG_MAX_LINE; returns its length. `time` belongs to the calling thread. */
size_t access_format_line(const struct access_format *format, struct access_time *time,
                          const struct access_record *record, char *buffer);

#endif
