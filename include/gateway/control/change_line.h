/*
 * change_line: one line of POST /v1/changes and of GET /v1/watch as text and as values, both ways. Pure.
 *
 *   {"revision":7,"op":"put","app":{…}}
 *   {"revision":8,"op":"delete","app_id":"…"}
 *   {"revision":8,"op":"heartbeat","apps":120,"digest":"0123456789abcdef"}   watch: all up to this revision was sent
 *   {"op":"end","code":"…","detail":"…"}                                     watch: the last line, and why
 */
#ifndef GATEWAY_CONTROL_CHANGE_LINE_H
#define GATEWAY_CONTROL_CHANGE_LINE_H

#include "gateway/control/app_document.h"
#include "gateway/http/hostname.h"
#include "gateway/route/route_record.h"

/* A put of the longest document fits, with room for spaces around it. */
enum { CHANGE_LINE_MAX_BYTES = APP_DOCUMENT_MAX_BYTES + 1024 };

enum change_op { CHANGE_PUT, CHANGE_DELETE, CHANGE_HEARTBEAT, CHANGE_END };

struct change_line {
    enum change_op op;
    uint64_t revision;                   /* 0: none is given */
    char app_id[HOSTNAME_MAX_LABEL + 1]; /* put, delete; "" if it could not be read */
    struct route_app *app;               /* put; the caller's to free */
    uint64_t apps;                       /* heartbeat */
    uint64_t digest;                     /* heartbeat */
    char code[64];                       /* end */
    char detail[256];                    /* end */
};

/*
 * INVALID_JSON, INVALID_RECORD or PAYLOAD_TOO_LARGE with the problem filled; then revision and app_id are there as far
 * as they could be read, and nothing is left to free. Unknown members and lines over CHANGE_LINE_MAX_BYTES are refused,
 * and so are a revision over max_revision and an app's over CHANGES_MAX_REVISION.
 */
MUST_CHECK enum status change_line_parse(struct slice json, uint64_t max_revision, struct change_line *ret_line,
                                         struct route_problem *ret_problem);

/* Each with its newline; malloc'ed. */
char *change_line_put(const struct route_app *app);
char *change_line_delete(struct slice app_id, uint64_t revision);
char *change_line_heartbeat(uint64_t revision, size_t apps, uint64_t digest);
char *change_line_end(enum status status, const char *detail);

#endif
