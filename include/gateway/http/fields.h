/*
 * fields: an ordered list of header or trailer fields (RFC 9110 section 5).
 *
 * Names and values are slices into the message's arena or into static data; nothing is copied. Names keep the sender's
 * spelling and are compared without letter case. Known names get a number when they are added, so that the rest of the
 * program compares integers. Order is kept, also among fields of the same name.
 */
#ifndef GATEWAY_HTTP_FIELDS_H
#define GATEWAY_HTTP_FIELDS_H

#include "gateway/base/arena.h"
#include "gateway/base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(NAME, spelling in lower case); at most 64 rows, so that a set of them is one word. */
#define FIELDS_TABLE(X)                                                                                                \
    X(ACCEPT, "accept")                                                                                                \
    X(AUTHORIZATION, "authorization")                                                                                  \
    X(CONNECTION, "connection")                                                                                        \
    X(CONTENT_LENGTH, "content-length")                                                                                \
    X(CONTENT_TYPE, "content-type")                                                                                    \
    X(COOKIE, "cookie")                                                                                                \
    X(DATE, "date")                                                                                                    \
    X(EXPECT, "expect")                                                                                                \
    X(FORWARDED, "forwarded")                                                                                          \
    X(HOST, "host")                                                                                                    \
    X(HTTP2_SETTINGS, "http2-settings")                                                                                \
    X(IF_MATCH, "if-match")                                                                                            \
    X(KEEP_ALIVE, "keep-alive")                                                                                        \
    X(LOCATION, "location")                                                                                            \
    X(MAX_FORWARDS, "max-forwards")                                                                                    \
    X(PRIORITY, "priority")                                                                                            \
    X(PROXY_AUTHENTICATE, "proxy-authenticate")                                                                        \
    X(PROXY_AUTHORIZATION, "proxy-authorization")                                                                      \
    X(PROXY_CONNECTION, "proxy-connection")                                                                            \
    X(REFERER, "referer")                                                                                              \
    X(RETRY_AFTER, "retry-after")                                                                                      \
    X(SEC_WEBSOCKET_ACCEPT, "sec-websocket-accept")                                                                    \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key")                                                                          \
    X(SERVER, "server")                                                                                                \
    X(TE, "te")                                                                                                        \
    X(TRACEPARENT, "traceparent")                                                                                      \
    X(TRAILER, "trailer")                                                                                              \
    X(TRANSFER_ENCODING, "transfer-encoding")                                                                          \
    X(UPGRADE, "upgrade")                                                                                              \
    X(USER_AGENT, "user-agent")                                                                                        \
    X(VIA, "via")                                                                                                      \
    X(X_FORWARDED_FOR, "x-forwarded-for")                                                                              \
    X(X_FORWARDED_HOST, "x-forwarded-host")                                                                            \
    X(X_FORWARDED_PORT, "x-forwarded-port")                                                                            \
    X(X_FORWARDED_PROTO, "x-forwarded-proto")                                                                          \
    X(X_GATEWAY_ERROR, "x-gateway-error")                                                                              \
    X(X_REAL_IP, "x-real-ip")                                                                                          \
    X(X_REQUEST_ID, "x-request-id")

enum field_id {
    FIELD_OTHER, /* not in the table */
#define X(name, spelling) FIELD_##name,
    FIELDS_TABLE(X)
#undef X
        FIELD_COUNT
};

struct field {
    struct slice name;
    struct slice value;
    enum field_id id;
};

struct fields {
    struct field *items;
    size_t count;
    size_t capacity;
    uint64_t present; /* bit `id` is set if such a field is there */
};

/* The id of a name, letter case ignored. */
enum field_id field_id_of(struct slice name);

/* The lower-case spelling of a known field; "" for FIELD_OTHER. */
struct slice field_name(enum field_id id);

/* An empty list. */
#define FIELDS_NONE ((struct fields){.items = NULL})

/* Appends; the array grows in the arena. name and value must live as long as the arena. */
void fields_add(struct fields *fields, struct arena *arena, struct slice name, struct slice value);
void fields_add_known(struct fields *fields, struct arena *arena, enum field_id id, struct slice value);

/* Makes room for more. */
void fields_grow(struct fields *fields, struct arena *arena);

/* Appends a field of another list as it is, without looking its name up again. */
static inline void fields_append(struct fields *fields, struct arena *arena, struct field field)
{
    if (fields->count == fields->capacity)
        fields_grow(fields, arena);
    fields->items[fields->count++] = field;
    fields->present |= 1ULL << field.id;
}

/* Makes room for `capacity` fields in all, so that adding them grows the array at most once. */
void fields_reserve(struct fields *fields, struct arena *arena, size_t capacity);

static inline bool fields_has(const struct fields *fields, enum field_id id)
{
    return (fields->present >> id & 1U) != 0;
}

/* The first field with this id, or NULL. */
const struct field *fields_find(const struct fields *fields, enum field_id id);

/* The value of the first field with this id; empty if there is none. */
struct slice fields_value(const struct fields *fields, enum field_id id);

/* How many fields have this id. */
size_t fields_count_of(const struct fields *fields, enum field_id id);

/* True if any field with this id, read as comma-separated lists, has the token (letter case ignored). */
bool fields_list_has(const struct fields *fields, enum field_id id, struct slice token);

#endif
