/*
 * h1_cases: a table of inputs and expected traces, each run whole, byte by byte, and cut at every position.
 */
#ifndef GATEWAY_TESTS_UNIT_WIRE_H1_CASES_H
#define GATEWAY_TESTS_UNIT_WIRE_H1_CASES_H

#include "h1_trace.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct h1_case {
    const char *name;
    struct slice input;
    const char *expected;
};

/* { "name", CASE("bytes"), "trace" } */
#define CASE(literal) SLICE_INIT(literal)

static inline void h1_case_compare(const struct h1_case *c, const char *how, char *text, const char *expected)
{
    if (!text || strcmp(text, expected) != 0)
        fail_msg("%s, %s:\n  got      %s\n  expected %s", c->name, how, text ? text : "", expected);
    free(text);
}

static inline void h1_case_run(const struct h1_run *run, const struct h1_case *c)
{
    const char *data = c->input.ptr;
    size_t len = c->input.len;
    h1_case_compare(c, "whole", h1_trace_pieces(run, data, len, len, 1), c->expected);
    h1_case_compare(c, "byte by byte", h1_trace_pieces(run, data, len, 0, 1), c->expected);
    for (size_t cut = 1; cut < len; cut++)
        h1_case_compare(c, "in two pieces", h1_trace_pieces(run, data, len, cut, len), c->expected);
}

static inline void h1_cases_run(const struct h1_run *run, const struct h1_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        h1_case_run(run, &cases[i]);
}

#endif
