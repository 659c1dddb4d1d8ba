/*
 * h1_fuzz: runs a parser over the same bytes whole, in single bytes and in random pieces; all must say the same.
 */
#ifndef GATEWAY_TESTS_FUZZ_H1_FUZZ_H
#define GATEWAY_TESTS_FUZZ_H1_FUZZ_H

#include "../unit/wire/h1_trace.h"

/* Small, so that the fuzzer reaches them. */
#define H1_FUZZ_LIMITS                                                                                                 \
    {                                                                                                                  \
        .max_head_bytes = 512, .max_target_bytes = 100, .max_fields = 10                                               \
    }

static inline char *h1_fuzz_random_pieces(const struct h1_run *run, const char *data, size_t len, uint32_t seed)
{
    struct h1_trace trace;
    h1_trace_init(&trace, run);
    for (size_t at = 0; at < len;) {
        seed = seed * 1664525 + 1013904223;
        size_t piece = 1 + (seed >> 16) % 40;
        piece = piece < len - at ? piece : len - at;
        h1_trace_feed(&trace, data + at, piece);
        at += piece;
    }
    h1_trace_eof(&trace);
    return h1_trace_fini(&trace);
}

static inline void h1_fuzz_run(const struct h1_run *run, const char *data, size_t len, uint32_t seed)
{
    char *whole = h1_trace_pieces(run, data, len, len, 1);
    char *bytes = h1_trace_pieces(run, data, len, 0, 1);
    char *random = h1_fuzz_random_pieces(run, data, len, seed);
    h1_trace_check(strcmp(whole, bytes) == 0, "single bytes say something else");
    h1_trace_check(strcmp(whole, random) == 0, "random pieces say something else");
    free(whole);
    free(bytes);
    free(random);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
