#include "h1_head.h"

#include "gateway/http/semantics.h"

#include <assert.h>

enum { VERSION_LEN = sizeof "HTTP/1.1" - 1, STATUS_DIGITS = 3, MIN_STATUS = 100 };

#define REPEATED(byte) (UINT64_C(0x0101010101010101) * (byte))

/* The high bit of some byte is set if any byte of the word is below 0x20 or is DEL. */
static uint64_t control_bits(const char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    uint64_t below = (word - REPEATED(0x20)) & ~word;
    uint64_t del = word ^ REPEATED(0x7f);
    return (below | ((del - REPEATED(1)) & ~del)) & REPEATED(0x80);
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

/* Eight bytes at a time: most of a head is field values, and almost none has a control character. */
static bool has_control(struct slice s)
{
    size_t i = 0;
    for (; i + sizeof(uint64_t) <= s.len; i += sizeof(uint64_t))
        if (control_bits(s.ptr + i))
            return true;
    for (; i < s.len; i++)
        if (is_control(s.ptr[i]))
            return true;
    return false;
}

static bool text_is_valid(struct slice text)
{
    return !has_control(text) || is_field_value(text);
}

/* Takes bytes up to `separator`, or all. Returns false if there is no separator. */
static bool take_until(struct slice *rest, char separator, struct slice *ret_part)
{
    const char *at = rest->len > 0 ? memchr(rest->ptr, separator, rest->len) : NULL;
    size_t len = at ? (size_t)(at - rest->ptr) : rest->len;
    *ret_part = slice_make(rest->ptr, len);
    *rest = slice_from(*rest, at ? len + 1 : len);
    return at != NULL;
}

/* A line without its CRLF. Returns false at a CR without LF. */
static bool take_line(struct slice *rest, struct slice *ret_line)
{
    bool found = take_until(rest, '\r', ret_line);
    if (!found || rest->len == 0 || rest->ptr[0] != '\n')
        return false;
    *rest = slice_from(*rest, 1);
    return true;
}

/*
 * RFC 9112 section 2.3. Minor versions above 1 are understood as 1 (RFC 9110 section 2.5); `malformed` is for what is
 * no version at all.
 */
static enum status parse_version(struct slice text, enum status malformed, enum http_version *ret_version)
{
    if (text.len != VERSION_LEN || memcmp(text.ptr, "HTTP/", 5) != 0 || !ascii_is_digit(text.ptr[5]) ||
        text.ptr[6] != '.' || !ascii_is_digit(text.ptr[7]))
        return malformed;
    if (text.ptr[5] != '1')
        return STATUS_BAD_VERSION;
    *ret_version = text.ptr[7] == '0' ? HTTP_1_0 : HTTP_1_1;
    return STATUS_OK;
}

/* RFC 9112 section 3: method SP request-target SP HTTP-version. */
static enum status parse_request_line(struct slice line, const struct h1_limits *limits, struct message_head *head)
{
    h1_head_name_request(line, head);
    struct slice version = slice_from(line, head->method_text.len + head->target.len + 2);
    if (head->target.len > limits->max_target_bytes)
        return STATUS_TARGET_TOO_LONG;
    if (head->method_text.len == 0 || head->target.len == 0)
        return STATUS_BAD_REQUEST_LINE;
    enum status status = parse_version(version, STATUS_BAD_REQUEST_LINE, &head->version);
    if (status == STATUS_OK && !is_token(head->method_text))
        status = STATUS_BAD_METHOD;
    return status;
}

void h1_head_name_request(struct slice section, struct message_head *ret_head)
{
    struct slice line;
    take_until(&section, '\r', &line);
    take_until(&line, ' ', &ret_head->method_text);
    take_until(&line, ' ', &ret_head->target);
    ret_head->method = method_of(ret_head->method_text);
    ret_head->path = ret_head->target;
}

enum status h1_head_parse_request(struct slice section, const struct h1_limits *limits, struct arena *arena,
                                  struct message_head *ret_head)
{
    struct slice line;
    if (!take_line(&section, &line))
        return STATUS_BARE_CR;
    enum status status = parse_request_line(line, limits, ret_head);
    return status != STATUS_OK ? status : h1_head_parse_fields(section, limits, arena, &ret_head->fields);
}

/*
 * RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ]. Servers that end the line after the code, and
 * there are many, mean an empty reason.
 */
static enum status parse_status_line(struct slice line, struct message_head *head)
{
    struct slice version;
    struct slice code;
    take_until(&line, ' ', &version);
    take_until(&line, ' ', &code);
    if (parse_version(version, STATUS_UPSTREAM_BAD_RESPONSE, &head->version) != STATUS_OK)
        return STATUS_UPSTREAM_BAD_RESPONSE;
    uint64_t number;
    if (code.len != STATUS_DIGITS || !slice_to_u64(code, &number) || number < MIN_STATUS || !text_is_valid(line))
        return STATUS_UPSTREAM_BAD_RESPONSE;
    head->status = (int)number;
    head->reason = line;
    return STATUS_OK;
}

enum status h1_head_parse_response(struct slice section, const struct h1_limits *limits, struct arena *arena,
                                   struct message_head *ret_head)
{
    struct slice line;
    if (!take_line(&section, &line))
        return STATUS_BARE_CR;
    enum status status = parse_status_line(line, ret_head);
    return status != STATUS_OK ? status : h1_head_parse_fields(section, limits, arena, &ret_head->fields);
}

/* RFC 9112 section 5. What stands before a colon of some later line is no token: there is a CR in it. */
static enum status parse_field(struct slice *lines, struct slice *ret_name, struct slice *ret_value)
{
    struct slice all = *lines;
    struct slice line;
    if (all.ptr[0] == ' ' || all.ptr[0] == '\t')
        return STATUS_OBS_FOLD;
    take_until(lines, ':', ret_name);
    if (!is_token(*ret_name))
        return take_line(&all, &line) ? STATUS_BAD_FIELD_NAME : STATUS_BARE_CR;
    if (!take_line(lines, ret_value))
        return STATUS_BARE_CR;
    *ret_value = slice_trim(*ret_value);
    return text_is_valid(*ret_value) ? STATUS_OK : STATUS_BAD_FIELD_VALUE;
}

enum status h1_head_parse_fields(struct slice lines, const struct h1_limits *limits, struct arena *arena,
                                 struct fields *ret_fields)
{
    assert(lines.len >= 2);
    while (lines.ptr[0] != '\r' || lines.ptr[1] != '\n') {
        struct slice name;
        struct slice value;
        enum status status = parse_field(&lines, &name, &value);
        if (status != STATUS_OK)
            return status;
        if (ret_fields->count == limits->max_fields)
            return STATUS_TOO_MANY_FIELDS;
        fields_add(ret_fields, arena, name, value);
    }
    assert(lines.len == 2);
    return STATUS_OK;
}
