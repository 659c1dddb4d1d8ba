/*
 * GET /v1/logs: lines of the access log as NDJSON, the last ones and, with follow, those to come. The log thread
 * filters and drops; here bytes are only passed on, as fast as the client takes them. Between lines an empty one comes
 * now and then, so that both ends notice when the other is gone.
 */
#include "api_internal.h"

#include "gateway/proxy/access_follow.h"

enum { HEARTBEAT_MS = 15000, END_MS = 2000, PIECE_BYTES = 16384, LINES = 50, LINES_BEFORE_FOLLOWING = 10 };

struct stream {
    struct api_call *call;
    struct list link; /* in the api's list */
    struct access_follower *follower;
    struct loop_watch *watch;
    struct timer heartbeat;
    bool at_line_start;
    bool finished;
};

static void finish(struct stream *stream)
{
    stream->finished = true;
    loop_watch_free(&stream->watch); /* what tells of `done` may come after it was seen, and nobody would read it */
    local_finish(stream->call->local);
}

/* `all`: also what the client does not take at present. */
static void pass_on(struct stream *stream, bool all)
{
    bool done;
    struct local *local = stream->call->local;
    struct slice pending = access_follower_pending(stream->follower, &done);
    while (pending.len > 0 && (all || local_room(local) > 0)) {
        struct slice piece = slice_make(pending.ptr, pending.len < PIECE_BYTES ? pending.len : PIECE_BYTES);
        local_send(local, piece);
        stream->at_line_start = piece.ptr[piece.len - 1] == '\n';
        access_follower_consume(stream->follower, piece.len);
        pending = slice_from(pending, piece.len);
    }
    if ((done || all) && pending.len == 0)
        finish(stream);
}

static void advance(struct stream *stream)
{
    if (!stream->finished)
        pass_on(stream, false);
}

static void on_news(void *arg)
{
    advance(arg);
}

static void on_room(void *self)
{
    advance(self);
}

static void on_heartbeat(struct timer *timer)
{
    struct stream *stream = CONTAINER_OF(timer, struct stream, heartbeat);
    if (stream->finished)
        return;
    if (stream->call->api->ending) { /* neither a client nor the log's file, however slow, holds up the process */
        pass_on(stream, true);
        return;
    }
    if (stream->at_line_start && local_room(stream->call->local) > 0)
        local_send(stream->call->local, SLICE("\n"));
    loop_timer_arm(stream->call->api->params.loop, timer, HEARTBEAT_MS);
}

static void on_body(void *self, struct slice piece)
{
    const struct stream *stream = self;
    local_credit(stream->call->local, piece.len);
}

static void on_gone(void *self)
{
    struct stream *stream = self;
    list_remove(&stream->link);
    timer_forget(&stream->heartbeat);
    loop_watch_free(&stream->watch);
    access_follower_close(&stream->follower);
    api_call_gone(stream->call);
}

/* ---- the end of the process ---- */

void api_logs_end_all(struct api *api)
{
    access_log_end_following(api->params.access_log);
    LIST_EACH (link, &api->logs)
        loop_timer_arm(api->params.loop, &CONTAINER_OF(link, struct stream, link)->heartbeat, END_MS);
}

/* ---- what is asked for ---- */

static bool read_filter(struct api_call *call, struct access_filter *filter)
{
    static const char *const conditions[] = {"app", "host", "path", "method", "status", "slower_than", "error"};
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    struct slice value;
    for (size_t i = 0; i < sizeof conditions / sizeof conditions[0]; i++) {
        if (api_target_parameter(&call->target, conditions[i], &value) &&
            !access_filter_set(filter, slice_str(conditions[i]), value, problem)) {
            api_answer_refuse(call, STATUS_INVALID_PARAMETER, conditions[i], "%s", problem);
            return false;
        }
    }
    return true;
}

static bool read_options(struct api_call *call, struct access_follow_options *options)
{
    struct slice lines;
    if (!api_check_flag(call, "follow", &options->goes_on) || !read_filter(call, &options->filter))
        return false;
    options->history = options->goes_on ? LINES_BEFORE_FOLLOWING : LINES;
    if (api_target_parameter(&call->target, "lines", &lines) && !slice_to_u64(lines, &options->history)) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "lines", "it is a number of lines");
        return false;
    }
    return true;
}

void api_logs_get(struct api_call *call)
{
    static const struct local_handler handler = {.body = on_body, .room = on_room, .gone = on_gone};
    struct access_follow_options options = {.history = 0};
    if (!read_options(call, &options))
        return;
    struct stream *stream = arena_alloc_zeroed(call->arena, sizeof *stream);
    stream->call = call;
    stream->at_line_start = true;
    list_init(&stream->link);
    timer_init(&stream->heartbeat, on_heartbeat);
    stream->follower = access_log_follow(call->api->params.access_log, &options);
    if (!stream->follower) {
        api_answer_refuse(call, STATUS_OVERLOADED, "", "%d others follow the log already", ACCESS_FOLLOW_MAX);
        return;
    }
    call->answered = true;
    local_handle(call->local, &handler, stream);
    api_answer_add_common(call);
    local_begin(call->local, 200, SLICE("application/x-ndjson"));
    if (call->head->method == METHOD_HEAD) {
        stream->finished = true;
        local_finish(call->local);
        return;
    }
    stream->watch = loop_watch_new(call->api->params.loop, access_follower_fd(stream->follower), on_news, stream);
    list_push(&call->api->logs, &stream->link);
    loop_timer_arm(call->api->params.loop, &stream->heartbeat, call->api->ending ? END_MS : HEARTBEAT_MS);
}
