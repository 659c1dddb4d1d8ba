#include "check_run.h"

#include "gateway/mux/h1_mux.h"
#include "gateway/mux/h2_mux.h"
#include "gateway/wire/proxy_protocol.h"

#include <stdlib.h>

struct check_run {
    struct loop *loop;
    struct settings *settings; /* a reference */
    struct stream *stream;     /* TCP; NULL: the mux has it */
    struct mux *mux;
    struct endpoint *endpoint;
    struct arena arena;
    struct timer timer;
    struct deferred deferred;
    void (*gone)(void *gone_arg);
    void *gone_arg;
    check_done_cb done; /* NULL: told, or cancelled */
    void *owner;
};

static void free_run(struct deferred *deferred)
{
    struct check_run *run = CONTAINER_OF(deferred, struct check_run, deferred);
    timer_forget(&run->timer);
    arena_reset(&run->arena);
    settings_unref(&run->settings);
    run->gone(run->gone_arg);
    free(run);
}

/* Closes what is open. What a mux needs to end lives until it says so. */
static void end(struct check_run *run)
{
    timer_disarm(&run->timer);
    if (run->endpoint)
        run->endpoint->ops->release(&run->endpoint, STATUS_CLIENT_CANCELLED);
    if (run->mux) {
        run->mux->ops->close(run->mux, STATUS_SHUTDOWN);
        return;
    }
    if (run->stream)
        stream_reset(&run->stream);
    loop_defer(run->loop, &run->deferred, free_run);
}

static void tell(struct check_run *run, enum status status, int http_status)
{
    check_done_cb done = run->done;
    if (!done)
        return;
    run->done = NULL;
    end(run);
    done(run->owner, status, http_status);
}

static void on_timer(struct timer *timer)
{
    tell(CONTAINER_OF(timer, struct check_run, timer), STATUS_UPSTREAM_TIMEOUT, 0);
}

static void on_room(void *owner)
{
    (void)owner;
}

/* ---- TCP ---- */

static void on_ready(void *owner)
{
    tell(owner, STATUS_OK, 0);
}

static void on_failed(void *owner, enum status status)
{
    tell(owner, status, 0);
}

static void on_data(void *owner, const char *data, size_t len)
{
    (void)owner;
    (void)data;
    (void)len;
}

static void on_eof(void *owner)
{
    (void)owner;
}

static const struct stream_events stream_events = {
    .ready = on_ready, .data = on_data, .eof = on_eof, .room = on_room, .failed = on_failed};

/* ---- HTTP ---- */

static void on_head(void *owner, const struct message_head *head, bool at_end)
{
    (void)at_end;
    if (!head_is_interim(head))
        tell(owner, STATUS_OK, head->status);
}

static void on_body(void *owner, const char *data, size_t len, bool at_end)
{
    on_data(owner, data, len);
    (void)at_end;
}

static void on_reset(void *owner, enum status status)
{
    struct check_run *run = owner;
    tell(run, status, 0);
}

static const struct endpoint_events endpoint_events = {
    .head = on_head, .body = on_body, .room = on_room, .reset = on_reset};

static void on_idle(void *owner)
{
    (void)owner;
}

static void on_closed(void *owner, enum status status)
{
    struct check_run *run = owner;
    run->mux = NULL;
    tell(run, status, 0);
    if (!run->deferred.queued)
        loop_defer(run->loop, &run->deferred, free_run);
}

static const struct mux_events mux_events = {.idle = on_idle, .closed = on_closed};

static void ask(struct check_run *run, const struct check_order *order)
{
    char address[IP_PORT_TEXT_MAX];
    size_t len = ip_port_format(&order->claim->address, order->check->port, address);
    struct message_head head = {
        .method = METHOD_GET,
        .method_text = SLICE("GET"),
        .path = arena_copy(&run->arena, slice_str(order->check->path)),
        .authority = arena_copy(&run->arena, slice_make(address, len)),
        .version = HTTP_1_1,
    };
    fields_add_known(&head.fields, &run->arena, FIELD_HOST, head.authority);
    fields_add_known(&head.fields, &run->arena, FIELD_USER_AGENT, SLICE("phala-gateway-check"));
    run->mux = order->is_h2c ? h2_mux_client(run->stream, &run->settings->mux, &mux_events, run)
                             : h1_mux_client(run->stream, &run->settings->mux, &mux_events, run);
    run->stream = NULL;
    run->endpoint = run->mux->ops->open(run->mux);
    endpoint_bind(run->endpoint, &endpoint_events, run, &run->arena);
    run->endpoint->ops->send_head(run->endpoint, &head, true);
}

/* ---- the beginning ---- */

static void send_header(struct check_run *run, unsigned version)
{
    uint8_t buffer[PROXY_WRITE_MAX_BYTES];
    struct proxy_header header = {.is_local = true}; /* nobody's connection but ours */
    stream_write(run->stream, buffer, proxy_protocol_write(&header, (int)version, buffer));
}

struct check_run *check_run_start(struct loop *loop, struct settings *settings, const struct check_order *order,
                                  check_done_cb done, void *owner)
{
    const struct claim *claim = order->claim;
    uint16_t port = order->check->port;
    if (route_rules_check(&settings->rules, &claim->address, port, NULL) != STATUS_OK)
        return NULL;
    struct check_run *run = calloc(1, sizeof *run);
    if (!run)
        abort();
    *run = (struct check_run){.loop = loop,
                              .settings = settings_ref(settings),
                              .gone = order->gone,
                              .gone_arg = order->gone_arg,
                              .done = done,
                              .owner = owner};
    arena_init(&run->arena, &loop->arenas);
    timer_init(&run->timer, on_timer);
    loop_timer_arm(loop, &run->timer, order->check->timeout_ms);
    run->stream = stream_connect(loop, &claim->address, port, order->check->timeout_ms, &stream_events, run);
    if (order->proxy_protocol > 0)
        send_header(run, order->proxy_protocol);
    if (order->check->type == ROUTE_CHECK_HTTP)
        ask(run, order);
    return run;
}

void check_run_cancel(struct check_run **run_ptr)
{
    struct check_run *run = *run_ptr;
    *run_ptr = NULL;
    if (!run || !run->done)
        return;
    run->done = NULL;
    end(run);
}
