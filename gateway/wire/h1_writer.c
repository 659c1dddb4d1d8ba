#include "gateway/wire/h1_writer.h"

#include "gateway/base/status.h"

#include <assert.h>

enum { LINE_OVERHEAD = 4 /* ": " and CRLF */ };

/* Where the next byte goes. Callers have reserved the room: see the bounds. */
struct out {
    char *next;
};

static void put(struct out *out, struct slice s)
{
    if (s.len > 0)
        memcpy(out->next, s.ptr, s.len);
    out->next += s.len;
}

#define PUT(out, literal) put((out), SLICE(literal))

static void put_char(struct out *out, char c)
{
    *out->next++ = c;
}

static void put_u64(struct out *out, uint64_t value)
{
    char digits[SLICE_U64_BYTES];
    put(out, slice_from_u64(value, digits + sizeof digits));
}

static void put_hex(struct out *out, uint64_t value)
{
    unsigned digits = 1;
    while (digits < 16 && value >> (4 * digits) != 0)
        digits++;
    while (digits-- > 0)
        put_char(out, "0123456789abcdef"[value >> (4 * digits) & 0xf]);
}

/* Written from the head's members instead. */
static bool is_framing(enum field_id id)
{
    const uint64_t framing = UINT64_C(1) << FIELD_CONTENT_LENGTH | UINT64_C(1) << FIELD_TRANSFER_ENCODING |
                             UINT64_C(1) << FIELD_CONNECTION | UINT64_C(1) << FIELD_UPGRADE;
    return (framing >> id & 1U) != 0;
}

static void put_fields(struct out *out, const struct fields *fields)
{
    for (size_t i = 0; i < fields->count; i++) {
        const struct field *field = &fields->items[i];
        if (is_framing(field->id))
            continue;
        put(out, field->name);
        PUT(out, ": ");
        put(out, field->value);
        PUT(out, "\r\n");
    }
}

static size_t fields_bound(const struct fields *fields)
{
    size_t len = 0;
    for (size_t i = 0; i < fields->count; i++)
        len += fields->items[i].name.len + fields->items[i].value.len + LINE_OVERHEAD;
    return len;
}

static struct slice reason_of(const struct message_head *head)
{
    return head->reason.len > 0 ? head->reason : slice_str(status_reason(head->status));
}

size_t h1_head_bound(const struct message_head *head)
{
    /* The start line's fixed parts, every line that put_framing and put_connection can write, and the empty line. */
    static const char fixed[] = "HTTP/1.1 \r\n\r\n"
                                "Content-Length: 18446744073709551615\r\n"
                                "Transfer-Encoding: chunked\r\n"
                                "Connection: keep-alive, upgrade, TE\r\n"
                                "Upgrade: \r\n"
                                "TE: trailers\r\n"
                                "Expect: 100-continue\r\n";
    size_t start =
        head_is_request(head) ? head->method_text.len + head->path.len + 2 : reason_of(head).len + SLICE_U64_BYTES;
    return sizeof fixed + start + head->upgrade.len + fields_bound(&head->fields);
}

static void put_start_line(struct out *out, const struct message_head *head)
{
    if (head_is_request(head)) {
        put(out, head->method_text);
        put_char(out, ' ');
        put(out, head->path);
        PUT(out, " HTTP/1.1\r\n");
    } else {
        PUT(out, "HTTP/1.1 ");
        put_u64(out, (uint64_t)head->status);
        put_char(out, ' ');
        put(out, reason_of(head));
        PUT(out, "\r\n");
    }
}

/* RFC 9112 section 6: neither length nor coding in 1xx and 204. */
static void put_framing(struct out *out, const struct message_head *head)
{
    if (!head_is_request(head) && (head->status < 200 || head->status == 204))
        return;
    if (head->body == BODY_CHUNKED) {
        PUT(out, "Transfer-Encoding: chunked\r\n");
    } else if (head->body == BODY_LENGTH || head->has_content_length) {
        PUT(out, "Content-Length: ");
        put_u64(out, head->content_length);
        PUT(out, "\r\n");
    }
}

static void put_option(struct out *out, bool *first, struct slice option)
{
    if (*first)
        PUT(out, "Connection: ");
    else
        PUT(out, ", ");
    put(out, option);
    *first = false;
}

/* Connection, and the fields that it must name (RFC 9110 sections 7.6.1, 7.8 and 10.1.4). */
static void put_connection(struct out *out, const struct message_head *head, bool keep_alive)
{
    bool te = head->te_trailers && head_is_request(head);
    bool first = true;
    if (head->upgrade.len > 0)
        put_option(out, &first, SLICE("upgrade"));
    if (head->close)
        put_option(out, &first, SLICE("close"));
    else if (keep_alive)
        put_option(out, &first, SLICE("keep-alive"));
    if (te)
        put_option(out, &first, SLICE("TE"));
    if (!first)
        PUT(out, "\r\n");
    if (te)
        PUT(out, "TE: trailers\r\n");
    if (head->upgrade.len > 0) {
        PUT(out, "Upgrade: ");
        put(out, head->upgrade);
        PUT(out, "\r\n");
    }
}

size_t h1_write_head(const struct message_head *head, bool keep_alive, char *buffer, size_t size)
{
    struct out out = {buffer};
    assert(size >= h1_head_bound(head));
    put_start_line(&out, head);
    put_fields(&out, &head->fields);
    put_framing(&out, head);
    put_connection(&out, head, keep_alive);
    if (head->expect_continue && head_is_request(head))
        PUT(&out, "Expect: 100-continue\r\n");
    PUT(&out, "\r\n");
    size_t len = (size_t)(out.next - buffer);
    assert(len <= size);
    return len;
}

size_t h1_write_chunk_prefix(size_t data_len, char buffer[H1_CHUNK_PREFIX_MAX])
{
    struct out out = {buffer};
    assert(data_len > 0); /* a chunk of no bytes would end the body */
    put_hex(&out, data_len);
    PUT(&out, "\r\n");
    return (size_t)(out.next - buffer);
}

size_t h1_last_chunk_bound(const struct fields *trailers)
{
    return sizeof "0\r\n\r\n" + fields_bound(trailers);
}

size_t h1_write_last_chunk(const struct fields *trailers, char *buffer, size_t size)
{
    struct out out = {buffer};
    assert(size >= h1_last_chunk_bound(trailers));
    PUT(&out, "0\r\n");
    put_fields(&out, trailers);
    PUT(&out, "\r\n");
    size_t len = (size_t)(out.next - buffer);
    assert(len <= size);
    return len;
}
