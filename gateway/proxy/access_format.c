#include "gateway/proxy/access_format.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum kind {
    KIND_TIME,
    KIND_TIME_CLF,
    KIND_SLICE,
    KIND_URL,
    KIND_STRING,
    KIND_VERSION,
    KIND_CLIENT,
    KIND_CLIENT_PORT,
    KIND_PORT,
    KIND_UNSIGNED,
    KIND_COUNT,
    KIND_MS,
    KIND_MS_IF_ANY,
    KIND_TLS_RESUMED,
    KIND_BACK_ADDRESS,
    KIND_BACK_REUSED,
    KIND_ERROR
};

enum { JSON_NAME_BYTES = 24 };

struct member {
    const char *name;
    char json[JSON_NAME_BYTES]; /* ,"name": and the opening quote of a string; copied as a whole */
    uint8_t json_len;
    uint8_t kind;
    uint16_t offset; /* in access_record */
    uint16_t max;
    bool quoted;
};

#define QUOTE_TIME         "\""
#define QUOTE_TIME_CLF     "\""
#define QUOTE_SLICE        "\""
#define QUOTE_URL          "\""
#define QUOTE_STRING       "\""
#define QUOTE_VERSION      "\""
#define QUOTE_CLIENT       "\""
#define QUOTE_CLIENT_PORT  ""
#define QUOTE_PORT         ""
#define QUOTE_UNSIGNED     ""
#define QUOTE_COUNT        ""
#define QUOTE_MS           ""
#define QUOTE_MS_IF_ANY    ""
#define QUOTE_TLS_RESUMED  ""
#define QUOTE_BACK_ADDRESS "\""
#define QUOTE_BACK_REUSED  ""
#define QUOTE_ERROR        "\""

static const struct member members[ACCESS_MEMBER_COUNT] = {
#define X(name_, text, kind_, field, max_)                                                                             \
    [ACCESS_MEMBER_##name_] = {                                                                                        \
        .name = (text),                                                                                                \
        .json = ",\"" text "\":" QUOTE_##kind_,                                                                        \
        .json_len = (uint8_t)(sizeof(",\"" text "\":" QUOTE_##kind_) - 1),                                             \
        .kind = KIND_##kind_,                                                                                          \
        .offset = offsetof(struct access_record, field),                                                               \
        .max = (max_),                                                                                                 \
        .quoted = sizeof(QUOTE_##kind_) > 1,                                                                           \
    },
    ACCESS_MEMBER_TABLE(X) ACCESS_EXTRA_MEMBER_TABLE(X)
#undef X
};

#define X(name, text, kind, field, max)                                                                                \
    _Static_assert(sizeof(",\"" text "\":\"") <= JSON_NAME_BYTES, "the name of a member has a fixed place");
ACCESS_MEMBER_TABLE(X)
#undef X

/* Every member with the longest value, its name, three quotes or less, comma and colon; then "}\n". */
#define X(name, text, kind, field, max) +sizeof(text) + 5 + (max)
_Static_assert(ACCESS_MEMBER_TABLE(X) + 2 + JSON_NAME_BYTES <= ACCESS_LOG_MAX_LINE, "a JSON line is never cut");
#undef X

/* ---- one member ---- */

struct line {
    struct access_text text;
    const struct access_format *format;
    const struct access_record *record;
    struct access_time *time;
    enum access_escape escape;
};

static void put_string(struct line *line, struct slice s, size_t max)
{
    if (s.len > 0)
        access_text_put_escaped(&line->text, s, max, line->escape);
}

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int rounds)
{
    for (; rounds > 0; rounds--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

/* SipHash-2-4 on a little-endian machine: equal queries are seen to be equal, and nobody can guess at them. */
static uint64_t keyed_hash(const uint64_t key[2], struct slice s)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575U, key[1] ^ 0x646f72616e646f6dU, key[0] ^ 0x6c7967656e657261U,
                     key[1] ^ 0x7465646279746573U};
    uint64_t last = (uint64_t)s.len << 56;
    for (; s.len >= 8; s = slice_make(s.ptr + 8, s.len - 8)) {
        uint64_t word;
        memcpy(&word, s.ptr, 8);
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    for (size_t i = 0; i < s.len; i++)
        last |= (uint64_t)(unsigned char)s.ptr[i] << (8 * i);
    v[3] ^= last;
    sip_rounds(v, 2);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The query may hold secrets: it is kept, left out, or replaced by its hash. */
__attribute__((noinline)) static void put_url(struct line *line, struct slice url, size_t max)
{
    const char *mark = url.len > 0 ? memchr(url.ptr, '?', url.len) : NULL;
    if (!mark || line->format->query == ACCESS_QUERY_FULL) {
        put_string(line, url, max);
        return;
    }
    size_t path_len = (size_t)(mark - url.ptr);
    put_string(line, slice_make(url.ptr, path_len), max - 17);
    if (line->format->query == ACCESS_QUERY_HASHED) {
        access_text_put(&line->text, "?", 1);
        access_text_put_hex64(&line->text, keyed_hash(line->format->key, slice_from(url, path_len + 1)));
    }
}

/* As it stands in a request line. */
__attribute__((noinline)) static void put_version(struct line *line, const char *protocol, size_t max)
{
    struct slice s = slice_str(protocol);
    if (slice_eq(s, SLICE("http/1.1")))
        s = SLICE("HTTP/1.1");
    else if (slice_eq(s, SLICE("http/1.0")))
        s = SLICE("HTTP/1.0");
    else if (slice_eq(s, SLICE("h2")))
        s = SLICE("HTTP/2.0");
    put_string(line, s, max);
}

__attribute__((noinline)) static void put_client(struct line *line)
{
    struct ip_addr addr = line->record->client;
    if (addr.family == 0 || line->format->client == ACCESS_CLIENT_OFF)
        return;
    if (line->format->client == ACCESS_CLIENT_MASKED) {
        size_t kept = addr.family == AF_INET ? 3 : 6;
        memset(addr.bytes + kept, 0, sizeof addr.bytes - kept);
    }
    access_text_put_ip(&line->text, &addr);
}

static void put_if_any(struct line *line, uint64_t value)
{
    if (value > 0)
        access_text_put_u64(&line->text, value);
}

/* Nothing when what it is about does not exist. */
static void put_bool(struct line *line, bool value, bool exists)
{
    if (exists && value)
        access_text_put(&line->text, "true", 4);
    else if (exists)
        access_text_put(&line->text, "false", 5);
}

static void put_error(struct line *line, size_t max)
{
    if (line->record->error != STATUS_OK)
        put_string(line, slice_str(status_code(line->record->error)), max);
}

static void put_ms_if_any(struct line *line, uint64_t us)
{
    if (us > 0)
        access_text_put_ms(&line->text, us);
}

__attribute__((noinline)) static void put_back_address(struct line *line)
{
    if (line->record->back_address.family != 0)
        access_text_put_ip_port(&line->text, &line->record->back_address, line->record->back_port);
}

/* Puts nothing if the member is empty. */
static void put_member(struct line *line, const struct member *member)
{
    const struct access_record *record = line->record;
    const void *at = (const char *)record + member->offset;
    switch ((enum kind)member->kind) {
    case KIND_TIME:
        access_text_put_time(&line->text, line->time, record->wall_us);
        break;
    case KIND_TIME_CLF:
        access_text_put_clf_time(&line->text, line->time, record->wall_us);
        break;
    case KIND_SLICE:
        put_string(line, *(const struct slice *)at, member->max);
        break;
    case KIND_URL:
        put_url(line, *(const struct slice *)at, member->max);
        break;
    case KIND_STRING:
        put_string(line, slice_str(*(const char *const *)at), member->max);
        break;
    case KIND_VERSION:
        put_version(line, record->protocol, member->max);
        break;
    case KIND_CLIENT:
        put_client(line);
        break;
    case KIND_CLIENT_PORT:
        put_if_any(line, line->format->client == ACCESS_CLIENT_FULL ? record->client_port : 0);
        break;
    case KIND_PORT:
        put_if_any(line, *(const uint16_t *)at);
        break;
    case KIND_UNSIGNED:
        put_if_any(line, *(const unsigned *)at);
        break;
    case KIND_COUNT:
        access_text_put_u64(&line->text, *(const uint64_t *)at);
        break;
    case KIND_MS:
        access_text_put_ms(&line->text, *(const uint64_t *)at);
        break;
    case KIND_MS_IF_ANY:
        put_ms_if_any(line, *(const uint64_t *)at);
        break;
    case KIND_TLS_RESUMED:
        put_bool(line, record->tls_resumed, record->tls_version && *record->tls_version);
        break;
    case KIND_BACK_ADDRESS:
        put_back_address(line);
        break;
    case KIND_BACK_REUSED:
        put_bool(line, record->back_reused, record->back_address.family != 0);
        break;
    case KIND_ERROR:
        put_error(line, member->max);
        break;
    }
}

/* ---- lines ---- */

/* There is room for all of it. */
static void put_json(struct line *line)
{
    for (int i = 0; i <= ACCESS_MEMBER_REFERER; i++) {
        const struct member *member = &members[i];
        char *before = line->text.next, *value = before + member->json_len;
        assert(access_text_room(&line->text) >= JSON_NAME_BYTES);
        memcpy(before, member->json, JSON_NAME_BYTES);
        line->text.next = value;
        put_member(line, member);
        if (line->text.next == value)
            line->text.next = before;
        else if (member->quoted)
            *line->text.next++ = '"';
    }
    *line->text.next++ = '}';
}

static void put_steps(struct line *line)
{
    for (size_t i = 0; i < line->format->count; i++) {
        const struct access_format_step *step = &line->format->steps[i];
        access_text_put(&line->text, step->literal, step->len);
        if (step->member == ACCESS_MEMBER_COUNT)
            continue;
        const char *value = line->text.next;
        put_member(line, &members[step->member]);
        if (line->text.next == value)
            access_text_put(&line->text, "-", 1);
    }
}

size_t access_format_line(const struct access_format *format, struct access_time *time,
                          const struct access_record *record, char *buffer)
{
    struct line line = {.text = {buffer, buffer + ACCESS_LOG_MAX_LINE - 1},
                        .format = format,
                        .record = record,
                        .time = time,
                        .escape = format->json ? ACCESS_ESCAPE_JSON : ACCESS_ESCAPE_PLAIN};
    if (format->json) {
        put_json(&line);
        buffer[0] = '{'; /* in place of the first member's comma */
    } else {
        put_steps(&line);
    }
    *line.text.next++ = '\n';
    return (size_t)(line.text.next - buffer);
}

/* ---- format strings ---- */

static const char combined[] =
    "$client - - [$time_clf] \"$method $path $version\" $status $bytes_out \"$referer\" \"$user_agent\"";

static bool find_member(struct slice name, enum access_member *ret_member)
{
    for (unsigned i = 0; i < ACCESS_MEMBER_COUNT; i++) {
        if (slice_eq(name, slice_str(members[i].name))) {
            *ret_member = (enum access_member)i;
            return true;
        }
    }
    return false;
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || c == '_';
}

static void explain_unknown(struct slice name, char *ret_error)
{
    int len = snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX,
                       "there is no member \"%.*s\"; valid are:", name.len < 64 ? (int)name.len : 64, name.ptr);
    for (unsigned i = 0; i < ACCESS_MEMBER_COUNT; i++) {
        size_t room = ACCESS_LOG_ERROR_TEXT_MAX - (size_t)len;
        len += snprintf(ret_error + len, room, " %s", members[i].name);
        assert(len < ACCESS_LOG_ERROR_TEXT_MAX);
    }
}

/* Reads name or {name} after a dollar sign. `rest` advances. */
static bool parse_member(struct slice *rest, enum access_member *ret_member, char *ret_error)
{
    bool braces = rest->len > 0 && rest->ptr[0] == '{';
    struct slice name = slice_from(*rest, braces ? 1 : 0);
    size_t len = 0;
    while (len < name.len && is_name_byte(name.ptr[len]))
        len++;
    if (braces && (len == name.len || name.ptr[len] != '}')) {
        snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX, "\"${\" must be followed by a member's name and \"}\"");
        return false;
    }
    if (!braces && len == 0) {
        snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX,
                 "\"$\" must be followed by a member's name; write \"$$\" for a dollar sign");
        return false;
    }
    name.len = len;
    if (!find_member(name, ret_member)) {
        explain_unknown(name, ret_error);
        return false;
    }
    *rest = slice_from(*rest, len + (braces ? 2 : 0));
    return true;
}

/* Cuts one step off; a literal dollar sign ends a step too. */
static bool parse_step(struct slice *rest, struct access_format_step *ret_step, char *ret_error)
{
    const char *dollar = memchr(rest->ptr, '$', rest->len);
    size_t len = dollar ? (size_t)(dollar - rest->ptr) : rest->len;
    *ret_step = (struct access_format_step){.literal = rest->ptr, .len = len, .member = ACCESS_MEMBER_COUNT};
    *rest = slice_from(*rest, len + 1);
    if (!dollar)
        return true;
    if (rest->len > 0 && rest->ptr[0] == '$') {
        ret_step->len++;
        *rest = slice_from(*rest, 1);
        return true;
    }
    return parse_member(rest, &ret_step->member, ret_error);
}

static bool check_bytes(const char *text, char *ret_error)
{
    bool has_dollar = false;
    for (const char *c = text; *c; c++) {
        has_dollar |= *c == '$';
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f) {
            snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX, "a format string is one line without control characters");
            return false;
        }
    }
    if (!has_dollar)
        snprintf(ret_error, ACCESS_LOG_ERROR_TEXT_MAX,
                 "\"%.64s\" is not json, combined or off, and names no member such as $status", text);
    return has_dollar;
}

static bool compile(struct access_format *format, const char *text, char *ret_error)
{
    if (!check_bytes(text, ret_error))
        return false;
    size_t len = strlen(text);
    format->text = strdup(text);
    format->steps = calloc(len + 1, sizeof *format->steps); /* a step is a byte at least */
    if (!format->text || !format->steps)
        abort();
    struct slice rest = slice_make(format->text, len);
    while (rest.len > 0) {
        if (!parse_step(&rest, &format->steps[format->count++], ret_error)) {
            access_format_fini(format);
            return false;
        }
    }
    return true;
}

bool access_format_init(struct access_format *format, const struct access_log_options *options,
                        char ret_error[ACCESS_LOG_ERROR_TEXT_MAX])
{
    *format = (struct access_format){.client = options->client, .query = options->query};
    if (getrandom(format->key, sizeof format->key, 0) != (ssize_t)sizeof format->key)
        abort();
    format->json = strcmp(options->format, "json") == 0;
    if (format->json)
        return true;
    bool is_combined = strcmp(options->format, "combined") == 0;
    return compile(format, is_combined ? combined : options->format, ret_error);
}

void access_format_fini(struct access_format *format)
{
    free(format->text);
    free(format->steps);
    *format = (struct access_format){0};
}
