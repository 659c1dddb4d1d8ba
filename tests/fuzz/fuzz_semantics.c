/*
 * Lines as a request and as a response: what is accepted has one framing and one host, and what is forwarded has none
 * of the fields that must stay here. Input: "METHOD\ntarget\nname:value\n…".
 */
#include "gateway/http/semantics.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) ((condition) ? (void)0 : abort())

static struct slice next_line(struct slice *rest)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    struct slice line = slice_make(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
    *rest = slice_from(*rest, line.len + 1);
    return line;
}

static struct fields read_fields(struct arena *arena, struct slice rest)
{
    struct fields fields = FIELDS_NONE;
    while (rest.len > 0) {
        struct slice line = next_line(&rest);
        const char *colon = line.len > 0 ? memchr(line.ptr, ':', line.len) : NULL;
        size_t name_len = colon ? (size_t)(colon - line.ptr) : line.len;
        struct slice name = slice_make(line.ptr, name_len), value = slice_trim(slice_from(line, name_len + 1));
        if (is_token(name) && is_field_value(value))
            fields_add(&fields, arena, name, value);
    }
    return fields;
}

static void check_forwarded(const struct fields *fields)
{
    CHECK(!fields_has(fields, FIELD_CONTENT_LENGTH) && !fields_has(fields, FIELD_TRANSFER_ENCODING));
    CHECK(!fields_has(fields, FIELD_CONNECTION) && !fields_has(fields, FIELD_UPGRADE) && !fields_has(fields, FIELD_TE));
    for (size_t i = 0; i < fields->count; i++)
        CHECK(fields->items[i].id == field_id_of(fields->items[i].name));
}

static void check_framing(const struct message_head *head)
{
    CHECK(head->body != BODY_LENGTH || (head->has_content_length && head->content_length > 0));
    CHECK(head->body != BODY_CHUNKED || !head->has_content_length);
    CHECK(head->body != BODY_UNTIL_CLOSE || head->close);
}

static void try_request(struct arena *arena, struct message_head head, bool trusted)
{
    struct forward_params params = {.client_address = SLICE("192.0.2.1"),
                                    .proto = SLICE("https"),
                                    .port = SLICE("443"),
                                    .request_id = SLICE("r"),
                                    .via = SLICE("gw"),
                                    .peer_is_trusted = trusted};
    struct message_head out;
    if (semantics_check_request(&head) != STATUS_OK)
        return;
    check_framing(&head);
    CHECK(head.authority.len == 0 ? head.version == HTTP_1_0 : is_authority(head.authority));
    CHECK(head.path.len > 0 && head.body != BODY_UNTIL_CLOSE && head.body != BODY_RAW);
    semantics_forward_request(&head, &params, arena, &out);
    check_forwarded(&out.fields);
    CHECK(out.fields.items[0].id == FIELD_HOST && fields_count_of(&out.fields, FIELD_HOST) == 1);
    CHECK(fields_count_of(&out.fields, FIELD_X_FORWARDED_FOR) == 1);
    CHECK(trusted || slice_eq(fields_value(&out.fields, FIELD_X_FORWARDED_FOR), params.client_address));
    CHECK(out.path.ptr[0] == '/' || slice_eq(out.path, SLICE("*")));
}

static void try_response(struct arena *arena, struct message_head head, enum method request_method)
{
    struct message_head out;
    if (semantics_check_response(&head, request_method, head.status == 101) != STATUS_OK)
        return;
    check_framing(&head);
    CHECK(head.upgrade.len == 0 || head.status == 426 || head.body == BODY_RAW);
    semantics_forward_response(&head, SLICE("gw"), arena, &out);
    check_forwarded(&out.fields);
    CHECK(!fields_has(&out.fields, FIELD_X_GATEWAY_ERROR));
}

static void try_h2_response(struct arena *arena, struct message_head head, enum method request_method, bool end)
{
    struct semantics_asked asked = {.method = request_method};
    struct message_head out;
    if (end)
        asked.protocol = SLICE("websocket");
    if (semantics_check_h2_response(&head, end, &asked, arena) != STATUS_OK)
        return;
    CHECK(head.body != BODY_CHUNKED || !head.has_content_length);
    CHECK(head.body != BODY_LENGTH || head.has_content_length);
    CHECK(head.body != BODY_UNTIL_CLOSE && (head.status == 101) == (head.body == BODY_RAW));
    CHECK(!end || head.body == BODY_NONE || head.body == BODY_RAW);
    semantics_forward_response(&head, SLICE("gw"), arena, &out);
    check_forwarded(&out.fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int statuses[] = {100, 101, 103, 200, 204, 304, 404, 426};
    struct slice rest = slice_make(data, size);
    struct arena arena;
    arena_init(&arena, NULL);
    struct message_head head = {.method_text = next_line(&rest), .version = size % 2 ? HTTP_1_1 : HTTP_1_0};
    head.target = next_line(&rest);
    head.fields = read_fields(&arena, rest);
    try_request(&arena, head, size % 3 == 0);
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        head.status = statuses[i];
        try_response(&arena, head, method_of(head.method_text));
        try_h2_response(&arena, head, method_of(head.method_text), size % 2);
    }
    semantics_filter_trailers(&head.fields);
    CHECK(!fields_has(&head.fields, FIELD_HOST) && !fields_has(&head.fields, FIELD_TRANSFER_ENCODING));
    arena_reset(&arena);
    return 0;
}
