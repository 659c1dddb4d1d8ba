/* Answers that an exchange makes itself, and its line in the access log. */
#include "exchange_internal.h"

#include "gateway/http/semantics.h"
#include "gateway/proxy/error_page.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { RETRY_AFTER_S = 5, RETRY_AFTER_RATE_S = 1 };

static const struct slice allowed_methods = SLICE_INIT("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");

/* RFC 9110 section 5.6.7, IMF-fixdate; one text a second and thread. */
struct slice exchange_date(const struct loop *loop)
{
    static _Thread_local char text[32];
    static _Thread_local time_t second;
    static _Thread_local size_t len;
    time_t now = (time_t)(loop->wall_us / 1000000U);
    if (now != second) {
        struct tm tm;
        gmtime_r(&now, &tm);
        len = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        second = now;
    }
    return slice_make(text, len);
}

static void answer(struct exchange *x, struct message_head *head, struct slice body)
{
    bool no_body = x->request->method == METHOD_HEAD || body.len == 0;
    head->version = HTTP_1_1;
    head->has_content_length = !x->is_grpc;
    head->content_length = body.len;
    head->body = no_body ? BODY_NONE : BODY_LENGTH;
    head->close = !x->request_ended;
    fields_add_known(&head->fields, &x->arena, FIELD_DATE, exchange_date(x->proxy->loop));
    if (x->request_id.len > 0)
        fields_add_known(&head->fields, &x->arena, FIELD_X_REQUEST_ID, x->request_id);
    x->front_answered = true;
    x->response_status = head->status;
    x->first_byte_us = x->proxy->loop->now_us;
    block_queue_drop(x->proxy->loop, &x->kept);
    x->front->ops->send_head(x->front, head, no_body);
    if (!no_body) {
        x->front->ops->send_body(x->front, body.ptr, body.len, true);
        x->bytes_out += body.len;
        if (x->traffic)
            COUNTER_ADD(x->traffic, bytes_out, body.len);
    }
    x->response_ended = true;
    exchange_finish(x, STATUS_OK, STATUS_CLIENT_CANCELLED);
}

static void add_grpc_outcome(struct exchange *x, enum status status, struct fields *fields)
{
    fields_add(fields, &x->arena, SLICE("grpc-status"), arena_printf(&x->arena, "%u", status_grpc(status)));
    fields_add(fields, &x->arena, SLICE("grpc-message"), slice_str(status_what(status)));
    fields_add_known(fields, &x->arena, FIELD_X_GATEWAY_ERROR, slice_str(status_code(status)));
}

/* What the gRPC protocol calls Trailers-Only: clients look at nothing else. */
static void answer_grpc(struct exchange *x, enum status status)
{
    struct message_head head = {.status = 200};
    fields_add_known(&head.fields, &x->arena, FIELD_CONTENT_TYPE, SLICE("application/grpc"));
    add_grpc_outcome(x, status, &head.fields);
    answer(x, &head, SLICE_NONE);
}

void exchange_end_grpc(struct exchange *x, enum status status)
{
    struct fields trailers = FIELDS_NONE;
    add_grpc_outcome(x, status, &trailers);
    x->front->ops->send_trailers(x->front, &trailers);
    x->response_ended = true;
    exchange_finish(x, STATUS_OK, status);
}

void exchange_answer_error(struct exchange *x, enum status status)
{
    x->error = status;
    COUNTER_INC(x->proxy->loop->counters, gateway_errors_total);
    /* A client must see a 421 to know that it may ask on another connection. */
    x->is_grpc &= status != STATUS_MISDIRECTED;
    if (x->is_grpc) {
        answer_grpc(x, status);
        return;
    }
    struct message_head head = {.status = status_http(status) ? status_http(status) : 502};
    struct error_page page;
    struct slice accept = fields_value(&x->request->fields, FIELD_ACCEPT);
    error_page_make(status, accept, x->host, x->request_id, &x->arena, &page);
    fields_add_known(&head.fields, &x->arena, FIELD_CONTENT_TYPE, page.content_type);
    fields_add(&head.fields, &x->arena, SLICE("cache-control"), SLICE("no-store"));
    fields_add_known(&head.fields, &x->arena, FIELD_X_GATEWAY_ERROR, slice_str(status_code(status)));
    if (head.status == 503 || head.status == 429)
        fields_add_known(&head.fields, &x->arena, FIELD_RETRY_AFTER,
                         arena_printf(&x->arena, "%d", head.status == 429 ? RETRY_AFTER_RATE_S : RETRY_AFTER_S));
    if (head.status == 405)
        fields_add(&head.fields, &x->arena, SLICE("allow"), allowed_methods);
    answer(x, &head, page.body);
}

void exchange_answer_health(struct exchange *x)
{
    bool draining = x->proxy->draining;
    bool ready = !draining && !route_table_is_awaited(x->proxy->table);
    struct message_head head = {.status = ready ? 200 : 503};
    fields_add_known(&head.fields, &x->arena, FIELD_CONTENT_TYPE, SLICE("text/plain; charset=utf-8"));
    fields_add(&head.fields, &x->arena, SLICE("cache-control"), SLICE("no-store"));
    answer(x, &head, ready ? SLICE("ready\n") : draining ? SLICE("draining\n") : SLICE("no routes yet\n"));
}

void exchange_answer_last_hop(struct exchange *x)
{
    struct message_head head = {.status = 204};
    if (x->request->method == METHOD_TRACE) { /* reflecting it would show what we add */
        exchange_answer_error(x, STATUS_METHOD_NOT_ALLOWED);
        return;
    }
    fields_add(&head.fields, &x->arena, SLICE("allow"), allowed_methods);
    answer(x, &head, SLICE_NONE);
}

/* RFC 9110 section 15.4.9: 308 keeps method and body. */
void exchange_answer_redirect(struct exchange *x)
{
    struct slice host, port, path = x->request->path;
    unsigned https_port = frontend_params(x->connection->frontend)->https_port;
    authority_split(x->request->authority, &host, &port);
    x->host = host;
    if (host.len == 0) {
        exchange_answer_error(x, STATUS_HOST_MISSING);
        return;
    }
    if (path.len == 0 || path.ptr[0] != '/')
        path = SLICE("/");
    char port_text[8] = "";
    if (https_port != 443)
        snprintf(port_text, sizeof port_text, ":%u", https_port);
    struct message_head head = {.status = 308};
    struct slice location = arena_printf(&x->arena, "https://%.*s%s%.*s", SLICE_ARG(host), port_text, SLICE_ARG(path));
    fields_add_known(&head.fields, &x->arena, FIELD_LOCATION, location);
    answer(x, &head, SLICE_NONE);
}

/* ---- the log ---- */

static const char *protocol_name(const struct exchange *x)
{
    if (x->is_tunnel)
        return slice_eq_nocase(x->request->upgrade, SLICE("websocket")) ? "websocket" : "upgrade";
    if (!x->request) /* its head did not come */
        return strcmp(x->connection->alpn, "h2") == 0 ? "h2" : "http/1.1";
    return x->request->version == HTTP_1_1 ? "http/1.1" : x->request->version == HTTP_1_0 ? "http/1.0" : "h2";
}

static void fill_back(const struct exchange *x, struct access_record *record)
{
    record->back_protocol = "";
    if (x->back_address.family == 0)
        return;
    record->back_address = x->back_address;
    record->back_port = x->port;
    record->back_protocol = x->is_h2c ? "h2c" : "http/1.1";
    record->back_reused = x->back_reused;
    record->retries = x->retries;
}

/* Who ended an upgraded connection. */
static const char *closed_by(const struct exchange *x)
{
    if (!x->is_tunnel)
        return "";
    if (x->app_ended_first)
        return "app";
    if (x->error == STATUS_OK)
        return "client";
    if (x->error == STATUS_TUNNEL_IDLE)
        return "idle";
    if (x->error == STATUS_ADDRESS_REVOKED || x->error == STATUS_SHUTDOWN)
        return "gateway";
    return x->error >= STATUS_CLIENT_CANCELLED ? "client" : "app"; /* the table has the CVM's side first */
}

void exchange_log(struct exchange *x)
{
    static const struct message_head nothing;
    const struct connection *c = x->connection;
    if (!access_log_is_wanted(x->proxy->log) || (!x->request && x->error == STATUS_CLIENT_CANCELLED))
        return;
    const struct message_head *request = x->request ? x->request : &nothing;
    uint64_t now = x->proxy->loop->now_us;
    struct access_record record = {
        .wall_us = x->started_wall_us,
        .request_id = x->request_id,
        .client = c->client,
        .client_port = c->client_port,
        .host = x->host.len > 0 ? x->host : request->authority,
        .app_id = x->app_id,
        .instance_id = x->instance_id,
        .port = x->port,
        .method = request->method_text,
        .path = request->path.len > 0 ? request->path : request->target,
        .protocol = protocol_name(x),
        .status = x->front_answered ? x->response_status : 499,
        .bytes_in = x->bytes_in,
        .bytes_out = x->bytes_out,
        .total_us = now - x->started_us,
        .connect_us = x->connect_us,
        .first_byte_us = x->first_byte_us ? x->first_byte_us - x->started_us : 0,
        .tls_version = c->tls_version,
        .tls_cipher = c->tls_cipher,
        .alpn = c->alpn,
        .tls_resumed = c->tls_resumed,
        .error = x->error,
        .close = closed_by(x),
        .user_agent = fields_value(&request->fields, FIELD_USER_AGENT),
        .referer = fields_value(&request->fields, FIELD_REFERER),
    };
    fill_back(x, &record);
    access_log_write(x->proxy->log, &record);
}
