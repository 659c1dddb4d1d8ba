/* What heads in HTTP/2 mean (RFC 9113 section 8). */
#include "semantics_internal.h"

#include "gateway/http/websocket.h"

#define SET(name) (1ULL << FIELD_##name)

/* RFC 9113 section 8.2.2. TE is looked at on its own. */
static const uint64_t connection_specific =
    SET(CONNECTION) | SET(KEEP_ALIVE) | SET(PROXY_CONNECTION) | SET(TRANSFER_ENCODING) | SET(UPGRADE);

static enum status read_method(struct message_head *head, bool end)
{
    if (!is_token(head->method_text))
        return STATUS_BAD_METHOD;
    head->method = method_of(head->method_text);
    bool extended = head->upgrade.len > 0;
    if (extended)
        return !end && head->method == METHOD_CONNECT && is_token(head->upgrade) ? STATUS_OK
                                                                                 : STATUS_PSEUDO_HEADER_INVALID;
    return head->method == METHOD_CONNECT ? STATUS_METHOD_NOT_ALLOWED : STATUS_OK;
}

static enum status read_target(struct message_head *head)
{
    if (!slice_eq(head->scheme, SLICE("https")) && !slice_eq(head->scheme, SLICE("http")))
        return STATUS_PSEUDO_HEADER_INVALID;
    head->path = head->target;
    if (!is_target(head->target))
        return STATUS_BAD_TARGET;
    bool is_asterisk = slice_eq(head->target, SLICE("*")) && head->method == METHOD_OPTIONS;
    if (head->target.ptr[0] != '/' && !is_asterisk)
        return STATUS_BAD_TARGET;
    return head->authority.len == 0 || is_authority(head->authority) ? STATUS_OK : STATUS_HOST_INVALID;
}

static enum status read_fields(struct message_head *head)
{
    if (head->fields.present & connection_specific)
        return STATUS_CONNECTION_FIELD;
    if (!fields_has(&head->fields, FIELD_TE))
        return STATUS_OK;
    head->te_trailers = slice_eq_nocase(fields_value(&head->fields, FIELD_TE), SLICE("trailers"));
    return head->te_trailers && fields_count_of(&head->fields, FIELD_TE) == 1 ? STATUS_OK : STATUS_CONNECTION_FIELD;
}

static enum status frame(struct message_head *head, bool end)
{
    if (!semantics_read_content_length(head))
        return STATUS_CONTENT_LENGTH_INVALID;
    if (end) {
        head->body = BODY_NONE;
        return head->content_length == 0 ? STATUS_OK : STATUS_CONTENT_LENGTH_INVALID;
    }
    head->body = !head->has_content_length ? BODY_CHUNKED : head->content_length > 0 ? BODY_LENGTH : BODY_NONE;
    return STATUS_OK;
}

/* RFC 9113 section 8.2.3: joined before they leave HTTP/2. */
static void join_cookies(struct fields *fields, struct arena *arena)
{
    size_t len = 0, kept = 0;
    if (fields_count_of(fields, FIELD_COOKIE) < 2)
        return;
    for (size_t i = 0; i < fields->count; i++)
        len += fields->items[i].id == FIELD_COOKIE ? fields->items[i].value.len + 2 : 0;
    char *joined = arena_alloc(arena, len), *at = joined;
    struct field *first = NULL;
    for (size_t i = 0; i < fields->count; i++) {
        struct field field = fields->items[i];
        if (field.id != FIELD_COOKIE) {
            fields->items[kept++] = field;
            continue;
        }
        if (first) {
            memcpy(at, "; ", 2);
            at += 2;
        }
        if (field.value.len > 0)
            memcpy(at, field.value.ptr, field.value.len);
        at += field.value.len;
        if (!first) {
            first = &fields->items[kept];
            fields->items[kept++] = field;
        }
    }
    fields->count = kept;
    first->value = slice_make(joined, (size_t)(at - joined));
}

/* RFC 8441 section 5: what an HTTP/1.1 client would have sent. The key only has to be there: no cache sees it. */
static void become_upgrade(struct message_head *head, struct arena *arena)
{
    head->method = METHOD_GET;
    head->method_text = SLICE("GET");
    head->body = BODY_NONE;
    head->has_content_length = false;
    if (slice_eq_nocase(head->upgrade, SLICE("websocket")) && !fields_has(&head->fields, FIELD_SEC_WEBSOCKET_KEY))
        fields_add_known(&head->fields, arena, FIELD_SEC_WEBSOCKET_KEY, SLICE("cGhhbGEtZ2F0ZXdheS0wMA=="));
}

enum status semantics_check_h2_request(struct message_head *head, bool end, struct arena *arena)
{
    struct slice protocol = head->upgrade;
    head->version = HTTP_2;
    semantics_clear_framing(head);
    head->upgrade = protocol;
    head->status = 0;
    head->close = head->expect_continue = head->te_trailers = false;
    enum status status = read_method(head, end);
    if (status == STATUS_OK)
        status = read_target(head);
    if (status == STATUS_OK)
        status = read_fields(head);
    if (status == STATUS_OK)
        status = semantics_read_host(head);
    if (status == STATUS_OK)
        status = frame(head, end);
    if (status == STATUS_OK)
        status = semantics_read_expect(head);
    if (status != STATUS_OK)
        return status;
    join_cookies(&head->fields, arena);
    if (head->upgrade.len > 0)
        become_upgrade(head, arena);
    return STATUS_OK;
}

/* ---- responses ---- */

static enum status frame_response(struct message_head *head, bool end, enum method method)
{
    bool never = method == METHOD_HEAD || head->status == 204 || head->status == 304;
    if (!semantics_read_content_length(head))
        return STATUS_UPSTREAM_BAD_RESPONSE;
    if (head->status == 204) { /* RFC 9110 section 8.6: it has no length to tell */
        if (head->content_length > 0)
            return STATUS_UPSTREAM_BAD_RESPONSE;
        head->has_content_length = false;
    }
    if (end || never) {
        head->body = BODY_NONE;
        return never || head->content_length == 0 ? STATUS_OK : STATUS_UPSTREAM_BAD_RESPONSE;
    }
    head->body = head->has_content_length ? BODY_LENGTH : BODY_CHUNKED;
    return STATUS_OK;
}

/* RFC 8441 section 5: what an HTTP/1.1 server would have answered. */
static void become_switch(struct message_head *head, const struct semantics_asked *asked, struct arena *arena)
{
    head->status = 101;
    head->upgrade = asked->protocol;
    head->body = BODY_RAW;
    if (asked->websocket_key.len > 0)
        fields_add_known(&head->fields, arena, FIELD_SEC_WEBSOCKET_ACCEPT,
                         websocket_accept(asked->websocket_key, arena));
}

enum status semantics_check_h2_response(struct message_head *head, bool end, const struct semantics_asked *asked,
                                        struct arena *arena)
{
    head->version = HTTP_2;
    semantics_clear_framing(head);
    if (head->status < 100 || head->status > 999 || head->status == 101 ||
        head->fields.present & (connection_specific | SET(TE)))
        return STATUS_UPSTREAM_BAD_RESPONSE;
    if (head_is_interim(head))
        return end || fields_has(&head->fields, FIELD_CONTENT_LENGTH) ? STATUS_UPSTREAM_BAD_RESPONSE : STATUS_OK;
    if (asked->protocol.len > 0 && head->status < 300) {
        become_switch(head, asked, arena);
        return STATUS_OK;
    }
    return frame_response(head, end, asked->method);
}
