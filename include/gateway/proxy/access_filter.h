/*
 * access_filter: which lines of the access log somebody wants to see. Pure; works on the JSON lines that access_format
 * writes.
 *
 * A filter is a set of conditions by name, as in the query of GET /v1/logs; a line must fulfil all of them:
 *   app          the id of an app or an instance
 *   host         a pattern of the host name, in any case
 *   path         a pattern of the path, without its query
 *   method       GET, get
 *   status       404, 5xx, 400-499, >=500, <400, or several with commas between them
 *   slower_than  500ms, 2s, 1.5s, 1m: the whole exchange took longer
 *   error        the line has an error; or the code of one
 * In a pattern * stands for any bytes and ? for one.
 */
#ifndef GATEWAY_PROXY_ACCESS_FILTER_H
#define GATEWAY_PROXY_ACCESS_FILTER_H

#include "gateway/base/slice.h"

enum { ACCESS_FILTER_TEXT_MAX = 256, ACCESS_FILTER_MAX_RANGES = 8, ACCESS_FILTER_PROBLEM_MAX = 160 };

struct access_filter_text {
    char bytes[ACCESS_FILTER_TEXT_MAX];
    size_t len; /* 0: no condition */
};

struct access_filter_range {
    int from;
    int to;
};

/* Zeroed, it wants every line. */
struct access_filter {
    struct access_filter_text app;
    struct access_filter_text host;
    struct access_filter_text path;
    struct access_filter_text method;
    struct access_filter_text error; /* a code, "*" for any */
    struct access_filter_range statuses[ACCESS_FILTER_MAX_RANGES];
    size_t status_count;
    uint64_t slower_than_us;
    bool has_slower_than;
};

/* Adds a condition. False with the problem filled if the name or the value is not valid. */
bool access_filter_set(struct access_filter *filter, struct slice name, struct slice value,
                       char ret_problem[ACCESS_FILTER_PROBLEM_MAX]);

/* What filters look at, of one line; empty: not there. Strings are as in the line, escaped. */
struct access_line {
    struct slice app_id;
    struct slice instance_id;
    struct slice host;
    struct slice method;
    struct slice path;
    struct slice status;
    struct slice total_ms;
    struct slice error;
};

/* Finds the members of a JSON line of access_format; false if it is none. The slices point into it. */
bool access_line_parse(struct slice text, struct access_line *ret_line);

bool access_filter_wants(const struct access_filter *filter, const struct access_line *line);

#endif
