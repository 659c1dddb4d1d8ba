#include "gateway/http/semantics.h"

#include "semantics_internal.h"

#include <assert.h>

/* What the Connection fields say (RFC 9110 section 7.6.1). */
struct connection {
    bool close;
    bool keep_alive;
    bool upgrade;
};

static bool note_option(struct connection *connection, struct slice option)
{
    if (slice_eq_nocase(option, SLICE("keep-alive")))
        connection->keep_alive = true;
    else if (slice_eq_nocase(option, SLICE("close")))
        connection->close = true;
    else if (slice_eq_nocase(option, SLICE("upgrade")))
        connection->upgrade = true;
    else
        return is_token(option);
    return true;
}

/* False if an option is not a token, or if there are too many. */
static bool read_connection(const struct fields *fields, struct connection *ret_connection)
{
    struct connection connection = {.close = false};
    unsigned options = 0;
    if (fields_has(fields, FIELD_CONNECTION)) {
        for (size_t i = 0; i < fields->count; i++) {
            struct slice list = fields->items[i].value, option;
            if (fields->items[i].id != FIELD_CONNECTION)
                continue;
            while (slice_next_element(&list, &option))
                if (!note_option(&connection, option) || ++options > SEMANTICS_MAX_CONNECTION_OPTIONS)
                    return false;
        }
    }
    *ret_connection = connection;
    return true;
}

/* RFC 9112 section 9.3: does the connection end after this message? */
static bool ends_connection(enum http_version version, const struct connection *connection)
{
    return connection->close || (version == HTTP_1_0 && !connection->keep_alive);
}

/*
 * False unless Content-Length is absent, or there once and a number (RFC 9110 section 8.6). Identical repeats are
 * allowed to be refused, and are, since the next reader may take another one. Lengths over INT64_MAX are refused, so
 * that sums of lengths cannot overflow.
 */
bool semantics_read_content_length(struct message_head *head)
{
    uint64_t length;
    if (!fields_has(&head->fields, FIELD_CONTENT_LENGTH))
        return true;
    if (fields_count_of(&head->fields, FIELD_CONTENT_LENGTH) != 1 ||
        !slice_to_u64(fields_value(&head->fields, FIELD_CONTENT_LENGTH), &length) || length > INT64_MAX)
        return false;
    head->has_content_length = true;
    head->content_length = length;
    return true;
}

/*
 * The one Transfer-Encoding that is understood: "chunked", once, in HTTP/1.1 (RFC 9112 sections 6.1 and 7). Lists such
 * as "gzip, chunked", "identity", "chunked, chunked" or ", chunked" are what parsers disagree about.
 */
static bool is_chunked_once(const struct message_head *head)
{
    return head->version == HTTP_1_1 && fields_count_of(&head->fields, FIELD_TRANSFER_ENCODING) == 1 &&
           slice_eq_nocase(fields_value(&head->fields, FIELD_TRANSFER_ENCODING), SLICE("chunked"));
}

void semantics_clear_framing(struct message_head *head)
{
    head->upgrade = SLICE_NONE;
    head->close = false;
    head->body = BODY_NONE;
    head->has_content_length = false;
    head->content_length = 0;
}

/* ---- requests ---- */

static enum status read_method(struct message_head *head)
{
    if (!is_token(head->method_text))
        return STATUS_BAD_METHOD;
    head->method = method_of(head->method_text);
    return head->method == METHOD_CONNECT ? STATUS_METHOD_NOT_ALLOWED : STATUS_OK;
}

static bool has_prefix_nocase(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && slice_eq_nocase(slice_make(s.ptr, prefix.len), prefix);
}

static size_t authority_len(struct slice s)
{
    size_t len = 0;
    while (len < s.len && s.ptr[len] != '/' && s.ptr[len] != '?')
        len++;
    return len;
}

/* RFC 9112 section 3.2.2. Userinfo is refused (RFC 9110 section 4.2.4), an empty host too (section 4.2.1). */
static enum status read_absolute_form(struct message_head *head)
{
    struct slice rest;
    if (has_prefix_nocase(head->target, SLICE("https://"))) {
        head->scheme = SLICE("https");
        rest = slice_from(head->target, 8);
    } else if (has_prefix_nocase(head->target, SLICE("http://"))) {
        head->scheme = SLICE("http");
        rest = slice_from(head->target, 7);
    } else {
        return STATUS_BAD_TARGET;
    }
    size_t len = authority_len(rest);
    head->authority = slice_make(rest.ptr, len);
    if (!is_authority(head->authority))
        return STATUS_BAD_TARGET;
    head->path = slice_from(rest, len);
    if (head->path.len == 0) /* section 3.2.4 for OPTIONS */
        head->path = head->method == METHOD_OPTIONS ? SLICE("*") : SLICE("/");
    return STATUS_OK;
}

static enum status read_target(struct message_head *head)
{
    head->scheme = head->authority = SLICE_NONE;
    if (!is_target(head->target))
        return STATUS_BAD_TARGET;
    head->path = head->target;
    if (head->target.ptr[0] == '/')
        return STATUS_OK;
    if (slice_eq(head->target, SLICE("*")))
        return head->method == METHOD_OPTIONS ? STATUS_OK : STATUS_BAD_TARGET;
    return read_absolute_form(head);
}

/* Letter case and the scheme's default port make no difference (RFC 9110 section 4.2.3). */
static bool is_same_authority(struct slice a, struct slice b, struct slice scheme)
{
    struct slice host_a, port_a, host_b, port_b;
    uint64_t default_port = slice_eq(scheme, SLICE("https")) ? 443 : 80;
    uint64_t number_a = default_port, number_b = default_port;
    authority_split(a, &host_a, &port_a);
    authority_split(b, &host_b, &port_b);
    bool is_number_a = slice_to_u64(port_a, &number_a), is_number_b = slice_to_u64(port_b, &number_b);
    assert((is_number_a || port_a.len == 0) && (is_number_b || port_b.len == 0));
    return number_a == number_b && slice_eq_nocase(host_a, host_b);
}

/* RFC 9112 section 3.2 and 3.2.2; RFC 9110 section 7.2. */
enum status semantics_read_host(struct message_head *head)
{
    if (!fields_has(&head->fields, FIELD_HOST)) {
        bool may_lack_it = head->version == HTTP_1_0 || (head->version == HTTP_2 && head->authority.len > 0);
        return may_lack_it ? STATUS_OK : STATUS_HOST_MISSING;
    }
    if (fields_count_of(&head->fields, FIELD_HOST) > 1)
        return STATUS_HOST_DUPLICATE;
    struct slice host = fields_value(&head->fields, FIELD_HOST);
    if (!is_authority(host))
        return STATUS_HOST_INVALID;
    if (head->authority.len > 0)
        return is_same_authority(head->authority, host, head->scheme) ? STATUS_OK : STATUS_HOST_MISMATCH;
    head->authority = host;
    return STATUS_OK;
}

static enum status frame_request(struct message_head *head)
{
    if (fields_has(&head->fields, FIELD_TRANSFER_ENCODING)) {
        if (fields_has(&head->fields, FIELD_CONTENT_LENGTH))
            return STATUS_FRAMING_CONFLICT;
        head->body = BODY_CHUNKED;
        return is_chunked_once(head) ? STATUS_OK : STATUS_TRANSFER_CODING_INVALID;
    }
    if (!semantics_read_content_length(head))
        return STATUS_CONTENT_LENGTH_INVALID;
    head->body = head->content_length > 0 ? BODY_LENGTH : BODY_NONE;
    return STATUS_OK;
}

/* protocol-name ["/" protocol-version], both tokens (RFC 9110 section 7.8). */
static bool is_upgradable_protocol(struct slice protocol)
{
    const char *slash = memchr(protocol.ptr, '/', protocol.len);
    size_t name_len = slash ? (size_t)(slash - protocol.ptr) : protocol.len;
    struct slice name = slice_make(protocol.ptr, name_len);
    if (!is_token(name) || (slash && !is_token(slice_from(protocol, name_len + 1))))
        return false;
    /* Requests inside an upgraded connection are not seen: HTTP must never be spoken there. */
    return !slice_eq_nocase(name, SLICE("h2c")) && !slice_eq_nocase(name, SLICE("h2")) &&
           !slice_eq_nocase(name, SLICE("http"));
}

/* The first protocol that may be passed on, or empty. */
static struct slice first_upgrade(const struct fields *fields)
{
    for (size_t i = 0; i < fields->count; i++) {
        struct slice list = fields->items[i].value, protocol;
        if (fields->items[i].id != FIELD_UPGRADE)
            continue;
        while (slice_next_element(&list, &protocol))
            if (is_upgradable_protocol(protocol))
                return protocol;
    }
    return SLICE_NONE;
}

static enum status read_upgrade(struct message_head *head, const struct connection *connection)
{
    if (!connection->upgrade || head->version != HTTP_1_1 || !fields_has(&head->fields, FIELD_UPGRADE))
        return STATUS_OK;
    head->upgrade = first_upgrade(&head->fields);
    return head->upgrade.len > 0 && head->body != BODY_NONE ? STATUS_UPGRADE_WITH_BODY : STATUS_OK;
}

/* RFC 9110 section 10.1.1. */
enum status semantics_read_expect(struct message_head *head)
{
    if (head->version == HTTP_1_0 || !fields_has(&head->fields, FIELD_EXPECT))
        return STATUS_OK;
    for (size_t i = 0; i < head->fields.count; i++) {
        struct slice list = head->fields.items[i].value, expectation;
        if (head->fields.items[i].id != FIELD_EXPECT)
            continue;
        while (slice_next_element(&list, &expectation)) {
            if (!slice_eq_nocase(expectation, SLICE("100-continue")))
                return STATUS_EXPECTATION_FAILED;
            head->expect_continue = head->body != BODY_NONE;
        }
    }
    return STATUS_OK;
}

static enum status read_connection_use(struct message_head *head)
{
    struct connection connection;
    if (!read_connection(&head->fields, &connection))
        return STATUS_BAD_FIELD_VALUE;
    head->close = ends_connection(head->version, &connection);
    head->te_trailers = head->version == HTTP_1_1 && fields_list_has(&head->fields, FIELD_TE, SLICE("trailers"));
    enum status status = read_upgrade(head, &connection);
    return status == STATUS_OK ? semantics_read_expect(head) : status;
}

enum status semantics_check_request(struct message_head *head)
{
    assert(head->version != HTTP_2);
    semantics_clear_framing(head);
    head->status = 0;
    head->expect_continue = head->te_trailers = false;
    enum status status = read_method(head);
    if (status == STATUS_OK)
        status = read_target(head);
    if (status == STATUS_OK)
        status = semantics_read_host(head);
    if (status == STATUS_OK)
        status = frame_request(head);
    if (status == STATUS_OK)
        status = read_connection_use(head);
    return status;
}

/* ---- responses ---- */

/* RFC 9110 section 15.2.2: only when asked, and it says what it switches to. */
static enum status switch_protocols(struct message_head *head, const struct connection *connection, bool upgrade_asked)
{
    if (!upgrade_asked || head->version != HTTP_1_1 || !connection->upgrade)
        return STATUS_UPSTREAM_BAD_RESPONSE;
    head->upgrade = first_upgrade(&head->fields);
    head->body = BODY_RAW;
    head->close = false;
    return head->upgrade.len > 0 ? STATUS_OK : STATUS_UPSTREAM_BAD_RESPONSE;
}

/*
 * RFC 9112 section 6.3 rule 1: ends with its head whatever the fields say. A 1xx or 204 must have neither field
 * (sections 6.1 and RFC 9110 8.6); "Content-Length: 0" is a widespread harmless fault, others may be followed by a body
 * that would be read as the next response, so nothing more is read from there.
 */
static enum status frame_without_body(struct message_head *head, bool may_tell_length)
{
    bool chunked = fields_has(&head->fields, FIELD_TRANSFER_ENCODING);
    if (may_tell_length)
        return STATUS_OK;
    if (chunked || head->content_length > 0)
        head->close = true;
    head->has_content_length = false;
    head->content_length = 0;
    return head_is_interim(head) && head->close ? STATUS_UPSTREAM_BAD_RESPONSE : STATUS_OK;
}

static void frame_with_body(struct message_head *head)
{
    if (fields_has(&head->fields, FIELD_TRANSFER_ENCODING)) {
        head->body = BODY_CHUNKED;
    } else if (head->has_content_length) {
        head->body = head->content_length > 0 ? BODY_LENGTH : BODY_NONE;
    } else {
        head->body = BODY_UNTIL_CLOSE;
        head->close = true;
    }
}

/* RFC 9112 section 6.3; faults of framing are faults whether or not there is a body. */
static bool is_framing_sound(struct message_head *head)
{
    bool coded = fields_has(&head->fields, FIELD_TRANSFER_ENCODING);
    if (coded && (!is_chunked_once(head) || fields_has(&head->fields, FIELD_CONTENT_LENGTH)))
        return false;
    return semantics_read_content_length(head);
}

enum status semantics_check_response(struct message_head *head, enum method request_method, bool upgrade_asked)
{
    struct connection connection;
    assert(head->version != HTTP_2);
    semantics_clear_framing(head);
    if (head->status < 100 || head->status > 999 || !read_connection(&head->fields, &connection) ||
        !is_framing_sound(head))
        return STATUS_UPSTREAM_BAD_RESPONSE;
    if (head_is_interim(head)) /* the final response decides about the connection */
        return frame_without_body(head, false);
    head->close = ends_connection(head->version, &connection);
    if (head->status == 101) {
        enum status status = frame_without_body(head, false);
        return status == STATUS_OK ? switch_protocols(head, &connection, upgrade_asked) : status;
    }
    if (head->status == 426 && connection.upgrade) /* RFC 9110 section 15.5.22: must tell what to upgrade to */
        head->upgrade = first_upgrade(&head->fields);
    if (request_method == METHOD_CONNECT && head->status < 300) {
        head->body = BODY_RAW;
        return frame_without_body(head, false);
    }
    if (head->status == 204)
        return frame_without_body(head, false);
    if (request_method == METHOD_HEAD || head->status == 304)
        return frame_without_body(head, true);
    frame_with_body(head);
    return STATUS_OK;
}
