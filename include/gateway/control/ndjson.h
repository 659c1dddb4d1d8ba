/*
 * ndjson: cuts a stream of bytes into lines, one JSON text each (NDJSON). Pure; the lines are not parsed here.
 *
 * Lines end in LF or CR LF; blank ones are skipped but counted; the last one may lack its end. A line that is whole in
 * one piece is passed on from there without a copy.
 */
#ifndef GATEWAY_CONTROL_NDJSON_H
#define GATEWAY_CONTROL_NDJSON_H

#include "gateway/base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* `too_long`: the line has more than max_bytes, of which these are the first. `number` counts from 1. */
typedef void (*ndjson_line_cb)(void *arg, uint64_t number, struct slice line, bool too_long);

struct ndjson {
    size_t max_bytes; /* of a line */
    ndjson_line_cb each;
    void *arg;
    char *part; /* what came of a line so far; malloc'ed */
    size_t part_len;
    size_t part_capacity;
    bool too_long;
    uint64_t number;
};

void ndjson_init(struct ndjson *ndjson, size_t max_bytes, ndjson_line_cb each, void *arg);
void ndjson_feed(struct ndjson *ndjson, struct slice piece);
void ndjson_end(struct ndjson *ndjson); /* the stream is complete: passes on a last line without an end */
void ndjson_free(struct ndjson *ndjson);

#endif
