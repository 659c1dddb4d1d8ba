/*
 * h1_trace: runs a parser over bytes that arrive in pieces and writes what it said as text, so that runs with different
 * pieces can be compared. Used by unit tests and by fuzz targets.
 *
 *   GET /x length {Host: a} <body> END     a head, its body (pieces joined), its end
 *   200 OK chunked close {A: b} <…> trailers {C: d} END
 *   FAIL bare_cr                           nothing follows
 *   eof                                    at the end of input, no message was begun
 */
#ifndef GATEWAY_TESTS_UNIT_WIRE_H1_TRACE_H
#define GATEWAY_TESTS_UNIT_WIRE_H1_TRACE_H

#include "gateway/wire/h1_parser.h"

#include <stdio.h>
#include <stdlib.h>

struct h1_run {
    enum h1_direction direction;
    struct h1_limits limits;
    enum method request_method;
    bool upgrade_asked;
};

struct h1_trace {
    const struct h1_run *run;
    struct h1_parser parser;
    struct arena arena;
    bool in_body;
    bool expect_end;
    bool failed;
    char *text;
    size_t len;
    size_t capacity;
};

static inline void h1_trace_check(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "h1_trace: %s\n", what);
    abort();
}

static inline void h1_trace_bytes(struct h1_trace *trace, struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (trace->len + 8 > trace->capacity) {
            trace->capacity = trace->capacity * 2 + 256;
            trace->text = realloc(trace->text, trace->capacity);
            h1_trace_check(trace->text, "no memory");
        }
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= 0x20 && c < 0x7f)
            trace->text[trace->len++] = (char)c;
        else
            trace->len += (size_t)snprintf(trace->text + trace->len, 5, "\\x%02x", c);
        trace->text[trace->len] = '\0';
    }
}

static inline void h1_trace_word(struct h1_trace *trace, const char *word)
{
    if (trace->len > 0)
        h1_trace_bytes(trace, SLICE(" "));
    h1_trace_bytes(trace, slice_str(word));
}

static inline void h1_trace_fields(struct h1_trace *trace, const struct fields *fields)
{
    for (size_t i = 0; i < fields->count; i++) {
        h1_trace_word(trace, "{");
        h1_trace_bytes(trace, fields->items[i].name);
        h1_trace_bytes(trace, SLICE(": "));
        h1_trace_bytes(trace, fields->items[i].value);
        h1_trace_bytes(trace, SLICE("}"));
    }
}

static inline void h1_trace_head(struct h1_trace *trace)
{
    static const char *const kinds[] = {
        [BODY_NONE] = "none", [BODY_LENGTH] = "length", [BODY_CHUNKED] = "chunked", [BODY_UNTIL_CLOSE] = "until-close",
        [BODY_RAW] = "raw",
    };
    const struct message_head *head = trace->parser.head;
    char status[16];
    snprintf(status, sizeof status, "%d", head->status);
    h1_trace_word(trace, head->status ? status : "");
    h1_trace_bytes(trace, head->status ? SLICE(" ") : SLICE_NONE);
    h1_trace_bytes(trace, head->status ? head->reason : head->method_text);
    h1_trace_word(trace, "");
    h1_trace_bytes(trace, head->path);
    h1_trace_word(trace, kinds[head->body]);
    if (head->version == HTTP_1_0)
        h1_trace_word(trace, "1.0");
    if (head->close)
        h1_trace_word(trace, "close");
    h1_trace_fields(trace, &head->fields);
}

static inline void h1_trace_begin(struct h1_trace *trace)
{
    arena_reset(&trace->arena);
    h1_parser_begin(&trace->parser, &trace->arena, trace->run->request_method, trace->run->upgrade_asked);
    h1_trace_check(!h1_parser_has_begun(&trace->parser), "a new message has begun");
}

static inline void h1_trace_event(struct h1_trace *trace, enum h1_event event)
{
    h1_trace_check(!trace->expect_end || event == H1_END, "the last piece is followed by something");
    trace->expect_end = (event == H1_HEAD || event == H1_BODY) && h1_parser_is_last(&trace->parser);
    if (event == H1_BODY) {
        h1_trace_check(trace->parser.body.len > 0, "an empty piece of body");
        if (!trace->in_body)
            h1_trace_word(trace, "<");
        h1_trace_bytes(trace, trace->parser.body);
        trace->in_body = true;
        return;
    }
    if (event != H1_NEED_MORE && trace->in_body) {
        h1_trace_bytes(trace, SLICE(">"));
        trace->in_body = false;
    }
    if (event == H1_HEAD)
        h1_trace_head(trace);
    if (event == H1_TRAILERS) {
        h1_trace_word(trace, "trailers");
        h1_trace_fields(trace, &trace->parser.trailers);
    }
    if (event == H1_FAILED) {
        h1_trace_word(trace, "FAIL ");
        h1_trace_bytes(trace, slice_str(status_code(trace->parser.status)));
        trace->failed = true;
    }
    if (event == H1_END) {
        h1_trace_word(trace, "END");
        h1_trace_begin(trace);
    }
}

static inline void h1_trace_init(struct h1_trace *trace, const struct h1_run *run)
{
    *trace = (struct h1_trace){.run = run};
    arena_init(&trace->arena, NULL);
    h1_parser_init(&trace->parser, run->direction, &run->limits);
    h1_trace_begin(trace);
}

/* The piece is copied to memory of just its size, so that a read past its end is noticed. */
static inline void h1_trace_feed(struct h1_trace *trace, const char *data, size_t len)
{
    char *piece = malloc(len ? len : 1);
    h1_trace_check(piece, "no memory");
    memcpy(piece, data, len);
    enum h1_event event = H1_HEAD;
    for (size_t at = 0; event != H1_NEED_MORE && !trace->failed;) {
        size_t used;
        event = h1_parser_feed(&trace->parser, piece + at, len - at, &used);
        h1_trace_check(used <= len - at, "more used than was given");
        at += used;
        h1_trace_check(event != H1_NEED_MORE || at == len, "input is left, and more is needed");
        h1_trace_event(trace, event);
    }
    free(piece);
}

static inline void h1_trace_eof(struct h1_trace *trace)
{
    if (trace->failed)
        return;
    enum h1_event event = h1_parser_eof(&trace->parser);
    h1_trace_event(trace, event);
    if (event == H1_NEED_MORE)
        h1_trace_word(trace, "eof");
}

/* Returns the text, which the caller frees. */
static inline char *h1_trace_fini(struct h1_trace *trace)
{
    arena_reset(&trace->arena);
    return trace->text;
}

/* Feeds the first `cut` bytes at once, and the rest in pieces of `step`. */
static inline char *h1_trace_pieces(const struct h1_run *run, const char *data, size_t len, size_t cut, size_t step)
{
    struct h1_trace trace;
    h1_trace_init(&trace, run);
    h1_trace_feed(&trace, data, cut);
    for (size_t at = cut; at < len; at += step)
        h1_trace_feed(&trace, data + at, len - at < step ? len - at : step);
    h1_trace_eof(&trace);
    return h1_trace_fini(&trace);
}

#endif
