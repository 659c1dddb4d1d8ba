/*
 * heads: message heads from text, as an HTTP/1 codec would make them: lines "name: value", OWS trimmed.
 */
#ifndef TESTS_UNIT_HTTP_HEADS_H
#define TESTS_UNIT_HTTP_HEADS_H

#include "gateway/http/semantics.h"

static inline struct fields heads_fields(struct arena *arena, const char *text)
{
    struct fields fields = FIELDS_NONE;
    struct slice rest = slice_str(text);
    while (rest.len > 0) {
        const char *end = memchr(rest.ptr, '\n', rest.len);
        struct slice line = slice_make(rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len);
        const char *colon = memchr(line.ptr, ':', line.len);
        size_t name_len = colon ? (size_t)(colon - line.ptr) : line.len;
        fields_add(&fields, arena, slice_make(line.ptr, name_len), slice_trim(slice_from(line, name_len + 1)));
        rest = slice_from(rest, line.len + 1);
    }
    return fields;
}

static inline struct message_head heads_request(struct arena *arena, const char *method, const char *target,
                                                enum http_version version, const char *fields)
{
    return (struct message_head){.method_text = slice_str(method),
                                 .target = slice_str(target),
                                 .version = version,
                                 .fields = heads_fields(arena, fields)};
}

static inline struct message_head heads_response(struct arena *arena, int status, enum http_version version,
                                                 const char *fields)
{
    return (struct message_head){.status = status, .version = version, .fields = heads_fields(arena, fields)};
}

/* The list as text again: "name: value\n" each. */
static inline struct slice heads_text(struct arena *arena, const struct fields *fields)
{
    struct slice text = SLICE("");
    for (size_t i = 0; i < fields->count; i++)
        text = arena_printf(arena, "%.*s%.*s: %.*s\n", SLICE_ARG(text), SLICE_ARG(fields->items[i].name),
                            SLICE_ARG(fields->items[i].value));
    return text;
}

#define assert_slice(actual, text)                                                                                     \
    do {                                                                                                               \
        struct slice assert_slice_ = (actual);                                                                         \
        char assert_copy_[2048];                                                                                       \
        snprintf(assert_copy_, sizeof assert_copy_, "%.*s", SLICE_ARG(assert_slice_));                                 \
        assert_string_equal(assert_copy_, text);                                                                       \
    } while (0)

#endif
