/*
 * What the files of the control API share: one call, its parsed target, and how it is answered.
 *
 * A call lives in the arena of its request, until the `gone` event. A route either answers inside `run`, or takes the
 * request with local_handle and answers later. Everything is on the control thread.
 */
#ifndef GATEWAY_CONTROL_API_INTERNAL_H
#define GATEWAY_CONTROL_API_INTERNAL_H

#include "gateway/control/api.h"

#include <jansson.h>

enum {
    API_MAX_DOCUMENT_BYTES = 1 << 20, /* of a JSON body, and of one line of a snapshot */
    API_MAX_SEGMENTS = 6,
    API_MAX_PARAMETERS = 12,
    API_MAX_CAPTURES = 2,
};

struct api {
    struct api_params params;
    unsigned top_calls;  /* GET /v1/top in progress */
    struct list watches; /* GET /v1/watch in progress */
    struct list logs;    /* GET /v1/logs in progress */
    bool ending;         /* see api_end_streams */
};

/* ---- api_target: a request target, split and percent-decoded ---- */

struct api_parameter {
    struct slice name;
    struct slice value;
};

struct api_target {
    struct slice segments[API_MAX_SEGMENTS]; /* "/v1/apps" has two, "/" has one that is empty */
    size_t segment_count;
    struct api_parameter parameters[API_MAX_PARAMETERS];
    size_t parameter_count;
};

/* Pure. BAD_TARGET, NOT_FOUND (too many segments) or INVALID_PARAMETER (twice, too many) with the problem filled. */
MUST_CHECK enum status api_target_parse(struct slice path, struct arena *arena, struct api_target *ret_target,
                                        struct route_problem *ret_problem);
/* False, and an empty value, if there is none of this name. */
bool api_target_parameter(const struct api_target *target, const char *name, struct slice *ret_value);
/* True if each parameter's name is one of the space-separated `known`; else the problem is filled. */
bool api_target_check(const struct api_target *target, const char *known, struct route_problem *ret_problem);

/* ---- one call ---- */

/* Bytes that grow; malloc'ed. */
struct api_text {
    char *ptr;
    size_t len;
    size_t capacity;
};

void api_text_append(struct api_text *text, struct slice bytes);
void api_text_free(struct api_text *text);

struct api_call;

struct api_route {
    enum method method;     /* GET serves HEAD too */
    const char *pattern;    /* segments without the first slash; "*" matches one and captures it */
    const char *parameters; /* known ones, separated by spaces */
    bool takes_document;    /* run is called when the whole body is in call->body */
    void (*run)(struct api_call *call);
};

struct api_call {
    struct api *api;
    struct local *local;
    struct arena *arena;
    const struct message_head *head;
    const struct api_route *route;
    struct api_target target;
    struct slice captures[API_MAX_CAPTURES]; /* what "*" stood for */
    struct api_text body;
    bool answered;
    bool changing;   /* a change is under way: forget it when the call goes */
    bool certifying; /* the same of a certificate */
    void *state;     /* of the route */
};

/* Takes what is left of a body without reading it; for handlers that do not want one. */
void api_call_skip_body(void *call, struct slice piece);
/* The `gone` event of every call that was handled: forgets its change, frees its body. */
void api_call_gone(void *call);
/* Waits for a change to be done, for calls without a body. */
void api_call_await(struct api_call *call);

/* ---- api_answer ---- */

/* Each answers the call whole. */
void api_answer_text(struct api_call *call, int http_status, struct slice content_type, struct slice body);
void api_answer_json(struct api_call *call, int http_status, json_t *json); /* takes the reference */
void api_answer_problem(struct api_call *call, const struct route_problem *problem);
/* With extension members; takes the reference. */
void api_answer_problem_with(struct api_call *call, const struct route_problem *problem, json_t *members);
void api_answer_refuse(struct api_call *call, enum status status, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The ETag field of an app's revision. */
void api_answer_add_etag(struct api_call *call, uint64_t revision);
/* Fields that every answer has; before local_begin. */
void api_answer_add_common(struct api_call *call);

void api_problem_fill(struct route_problem *problem, enum status status, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The problem as an RFC 9457 object. */
json_t *api_problem_json(const struct route_problem *problem);
/* A JSON string of any bytes: what is not UTF-8 is replaced. */
json_t *api_json_text(struct slice text);

/* True if the content type is none or a JSON one; else the call is refused. */
bool api_check_content_type(struct api_call *call);
/* Reads If-Match; false if the call was refused. */
bool api_check_if_match(struct api_call *call, uint64_t *ret_revision);
/* The same of the table's revision, for calls on all of it. */
bool api_check_table_if_match(struct api_call *call, uint64_t *ret_revision);
/* If-Match, or `If-None-Match: *`, for which the revision is CHANGES_NO_APP. */
bool api_check_put_condition(struct api_call *call, uint64_t *ret_revision);
/* A yes/no parameter: absent is no, "" is yes; false if the call was refused. */
bool api_check_flag(struct api_call *call, const char *name, bool *ret_on);

/* ---- api_sync ---- */

/* Whom this gateway follows; NULL and empty if it follows nobody. */
json_t *api_sync_json(const struct sync_status *sync);
struct slice api_sync_text(const struct sync_status *sync, struct arena *arena);

/* ---- the routes ---- */

void api_apps_get(struct api_call *call);
void api_apps_put(struct api_call *call);
void api_apps_delete(struct api_call *call);
void api_apps_patch_instance(struct api_call *call);
void api_export_apps(struct api_call *call);
void api_export_snapshot(struct api_call *call);
void api_import_snapshot(struct api_call *call);
void api_changes_post(struct api_call *call);
void api_watch_changes(struct api_call *call);
void api_watch_end_all(struct api *api);
void api_logs_end_all(struct api *api);
void api_certs_list(struct api_call *call);
void api_certs_get(struct api_call *call);
void api_certs_put(struct api_call *call);
void api_certs_delete(struct api_call *call);
void api_resolve_host(struct api_call *call);
void api_logs_get(struct api_call *call);
void api_top_get(struct api_call *call);
void api_status_get(struct api_call *call);
void api_status_drain(struct api_call *call);
void api_status_reload(struct api_call *call);
void api_status_healthz(struct api_call *call);
void api_status_readyz(struct api_call *call);
void api_status_metrics(struct api_call *call);
void api_status_page(struct api_call *call);

#endif
