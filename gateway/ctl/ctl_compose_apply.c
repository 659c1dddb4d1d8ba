/* How gatewayctl compose changes apps: only if they are still what was looked at. */
#include "ctl_compose.h"

#include <stdlib.h>

enum { MAX_MOVES = 5 };

long long ctl_compose_revision(const json_t *app)
{
    return (long long)json_integer_value(json_object_get(app, "revision"));
}

enum ctl_exit ctl_compose_fetch(const struct ctl_options *options, const char *id, json_t **ret_app)
{
    struct ctl_reply reply;
    char *path = ctl_app_path(id);
    enum ctl_exit result = ctl_http_try(options, &(struct ctl_call){.method = "GET", .path = path}, &reply);
    if (result == CTL_OK) {
        *ret_app = ctl_reply_json(&reply);
        result = *ret_app ? CTL_OK : CTL_UNREACHABLE;
    } else if (result == CTL_REFUSED && reply.status == 404) {
        result = CTL_OK;
    } else if (result == CTL_REFUSED) {
        ctl_http_print_problem(options, &reply);
    }
    ctl_reply_free(&reply);
    free(path);
    return result;
}

static bool is_refused_as(const struct ctl_reply *reply, const char *code)
{
    json_t *problem = json_loadb(reply->body, reply->len, 0, NULL);
    bool is = strcmp(ctl_string(problem, "code"), code) == 0;
    json_decref(problem);
    return is;
}

/* A call about one app that only counts if the app is still as `seen`; NULL: if there is still none. */
static enum ctl_exit call_app(const struct ctl_options *options, const char *method, const json_t *document,
                              const json_t *seen, struct ctl_reply *ret_reply)
{
    char revision[24];
    char *path = ctl_app_path(ctl_string(document, "app_id"));
    bool puts = strcmp(method, "PUT") == 0;
    char *text = puts ? json_dumps(document, JSON_COMPACT) : NULL;
    snprintf(revision, sizeof revision, "%lld", ctl_compose_revision(seen));
    struct ctl_call call = {.method = method,
                            .path = path,
                            .body = slice_str(text ? text : ""),
                            .content_type = puts ? "application/json" : NULL,
                            .if_match = seen ? revision : NULL,
                            .if_none_match = !seen};
    enum ctl_exit result = ctl_http_try(options, &call, ret_reply);
    free(path);
    free(text);
    return result;
}

static void print_refusal(const struct ctl_project *p, const struct ctl_reply *reply)
{
    ctl_http_print_problem(p->options, reply);
    if (!p->options->json && !p->options->replace && is_refused_as(reply, "claim_conflict"))
        fprintf(stderr, "  If this app takes the place of that instance's app, say --replace and that app's id;\n"
                        "  if it is a new boot at the same address, give a higher --generation.\n");
}

/* Sets *ret_again when somebody else has changed the app meanwhile, instead of saying so. */
static enum ctl_exit put_planned(struct ctl_project *p, json_t **ret_app, bool *ret_again)
{
    struct ctl_reply reply;
    enum ctl_exit result = call_app(p->options, "PUT", p->planned, p->stored, &reply);
    if (result == CTL_OK)
        result = (*ret_app = ctl_reply_json(&reply)) ? CTL_OK : CTL_UNREACHABLE;
    else if (result == CTL_REFUSED && is_refused_as(&reply, "revision_conflict"))
        *ret_again = true;
    else if (result == CTL_REFUSED)
        print_refusal(p, &reply);
    ctl_reply_free(&reply);
    return result;
}

static enum ctl_exit remove_replaced(const struct ctl_project *p, bool *ret_again)
{
    struct ctl_reply reply;
    enum ctl_exit result = call_app(p->options, "DELETE", p->replaced, p->replaced, &reply);
    if (result == CTL_REFUSED && (reply.status == 404 || is_refused_as(&reply, "revision_conflict")))
        *ret_again = true;
    else if (result == CTL_REFUSED)
        ctl_http_print_problem(p->options, &reply);
    ctl_reply_free(&reply);
    return result;
}

/* The document is all that is left of the app if this fails: then it is shown. */
static void put_replaced_back(const struct ctl_project *p)
{
    struct ctl_reply reply;
    const char *id = ctl_string(p->replaced, "app_id");
    enum ctl_exit result = call_app(p->options, "PUT", p->replaced, NULL, &reply);
    char *text = json_dumps(p->replaced, JSON_COMPACT);
    if (result == CTL_OK)
        ctl_error("app %s was put back as it was", id);
    else
        ctl_error("app %s is deleted and could not be put back; this was its document:\n%s", id, text ? text : "");
    free(text);
    ctl_reply_free(&reply);
}

/* What moves belongs to one app at a time, so the old one goes first. */
static enum ctl_exit move_in_two_steps(struct ctl_project *p, json_t **ret_app, bool *ret_again)
{
    enum ctl_exit result = remove_replaced(p, ret_again);
    if (result != CTL_OK)
        return result;
    result = put_planned(p, ret_app, ret_again);
    if (result != CTL_OK)
        put_replaced_back(p);
    return result;
}

/* ---- moving in one step: both changes in one transaction, on a table that nobody else changes meanwhile ---- */

static enum ctl_exit fetch_table_revision(const struct ctl_options *options, char ret_revision[24])
{
    json_t *json;
    enum ctl_exit result = ctl_http_json(options, &(struct ctl_call){.method = "GET", .path = "/v1/status"}, &json);
    snprintf(ret_revision, 24, "%lld", ctl_compose_revision(json));
    json_decref(json);
    return result;
}

static enum ctl_exit compare_app(const struct ctl_options *options, const char *id, const json_t *seen, bool *same)
{
    json_t *now = NULL;
    enum ctl_exit result = ctl_compose_fetch(options, id, &now);
    *same &= result == CTL_OK && ctl_compose_revision(now) == ctl_compose_revision(seen);
    json_decref(now);
    return result;
}

/* Whether both apps are still as the plan saw them. */
static enum ctl_exit compare_both(const struct ctl_project *p, bool *ret_same)
{
    *ret_same = true;
    enum ctl_exit result = compare_app(p->options, p->app_id, p->stored, ret_same);
    if (result == CTL_OK)
        result = compare_app(p->options, ctl_string(p->replaced, "app_id"), p->replaced, ret_same);
    return result;
}

static enum ctl_exit post_move(const struct ctl_project *p, const char *revision, struct ctl_reply *ret_reply)
{
    char *body;
    json_t *removal = json_pack("{ss sO}", "op", "delete", "app_id", json_object_get(p->replaced, "app_id"));
    json_t *put = json_pack("{ss sO}", "op", "put", "app", p->planned);
    char *first = json_dumps(removal, JSON_COMPACT);
    char *second = json_dumps(put, JSON_COMPACT);
    if (!first || !second || asprintf(&body, "%s\n%s\n", first, second) < 0)
        abort();
    struct ctl_call call = {.method = "POST",
                            .path = "/v1/changes",
                            .body = slice_str(body),
                            .content_type = "application/x-ndjson",
                            .if_match = revision};
    enum ctl_exit result = ctl_http_try(p->options, &call, ret_reply);
    json_decref(removal);
    json_decref(put);
    free(first);
    free(second);
    free(body);
    return result;
}

/* The outcomes of both lines: the app as it is now, or the old one back. */
static enum ctl_exit finish_move(struct ctl_project *p, const struct ctl_reply *reply, json_t **ret_app)
{
    json_t *answer = ctl_reply_json(reply);
    json_t *outcome = json_array_get(json_object_get(answer, "results"), 1);
    enum ctl_exit result = answer ? CTL_REFUSED : CTL_UNREACHABLE;
    if (strcmp(ctl_string(outcome, "outcome"), "applied") == 0) {
        result = ctl_compose_fetch(p->options, p->app_id, ret_app);
        if (result == CTL_OK && !*ret_app)
            *ret_app = json_incref(p->planned); /* deleted again already */
    } else if (answer) {
        struct ctl_reply refusal = {.status = reply->status, .body = json_dumps(outcome, JSON_COMPACT)};
        if (!refusal.body)
            abort();
        refusal.len = strlen(refusal.body);
        ctl_http_print_problem(p->options, &refusal);
        ctl_reply_free(&refusal);
        put_replaced_back(p);
    }
    json_decref(answer);
    return result;
}

/* On a table that others change all the time, the two steps have to do: the app is gone between them. */
static enum ctl_exit move(struct ctl_project *p, json_t **ret_app, bool *ret_again)
{
    for (unsigned i = 0; i < MAX_MOVES; i++) {
        char revision[24];
        bool same;
        struct ctl_reply reply;
        enum ctl_exit result = fetch_table_revision(p->options, revision);
        if (result == CTL_OK)
            result = compare_both(p, &same);
        if (result != CTL_OK)
            return result;
        if (!same) {
            *ret_again = true;
            return CTL_REFUSED;
        }
        result = post_move(p, revision, &reply);
        bool is_busy = result == CTL_REFUSED && is_refused_as(&reply, "revision_conflict");
        if (result == CTL_OK)
            result = finish_move(p, &reply, ret_app);
        else if (result == CTL_REFUSED && !is_busy)
            ctl_http_print_problem(p->options, &reply);
        ctl_reply_free(&reply);
        if (!is_busy)
            return result;
    }
    return move_in_two_steps(p, ret_app, ret_again);
}

enum ctl_exit ctl_compose_apply(struct ctl_project *p, json_t **ret_app, bool *ret_again)
{
    return p->replaced ? move(p, ret_app, ret_again) : put_planned(p, ret_app, ret_again);
}
