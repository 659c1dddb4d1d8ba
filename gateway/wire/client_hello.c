#include "gateway/wire/client_hello.h"

enum {
    RECORD_HEADER_LEN = 5,
    RECORD_HANDSHAKE = 22,
    MAX_RECORD_LEN = 16384, /* RFC 8446 section 5.1 */
    MESSAGE_HEADER_LEN = 4,
    MESSAGE_CLIENT_HELLO = 1,
    MAX_MESSAGE_LEN = 16384,
    RANDOM_LEN = 32,
    MAX_SESSION_ID_LEN = 32,
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_ALPN = 16,
    EXTENSION_SUPPORTED_VERSIONS = 43,
    NAME_TYPE_HOST = 0,
    VERSION_TLS13 = 0x0304,
};

/* ---- reading of TLS's length-prefixed vectors ---- */

struct reader {
    const uint8_t *next;
    size_t left;
};

static bool take(struct reader *r, size_t len, struct reader *ret_part)
{
    if (r->left < len)
        return false;
    *ret_part = (struct reader){r->next, len};
    r->next += len;
    r->left -= len;
    return true;
}

/* A big-endian number of `bytes` bytes. */
static bool take_number(struct reader *r, size_t bytes, size_t *ret_value)
{
    struct reader digits;
    size_t value = 0;
    if (!take(r, bytes, &digits))
        return false;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | digits.next[i];
    *ret_value = value;
    return true;
}

/* A vector whose length stands before it in `bytes` bytes. */
static bool take_vector(struct reader *r, size_t bytes, struct reader *ret_part)
{
    size_t len;
    return take_number(r, bytes, &len) && take(r, len, ret_part);
}

/* ---- records ---- */

/* The handshake message, and how far its first record allows to read it in place. */
struct message {
    size_t len; /* with its header; 0: not known yet */
    size_t have;
    bool in_one_record;
};

static enum client_hello_result check_record_header(const uint8_t *record, size_t have, bool first)
{
    if (record[0] != RECORD_HANDSHAKE)
        return first ? CLIENT_HELLO_NOT_TLS : CLIENT_HELLO_INVALID;
    if (have >= 2 && record[1] != 3)
        return first ? CLIENT_HELLO_NOT_TLS : CLIENT_HELLO_INVALID;
    if (have < RECORD_HEADER_LEN)
        return CLIENT_HELLO_NEED_MORE;
    size_t len = (size_t)record[3] << 8 | record[4];
    return len == 0 || len > MAX_RECORD_LEN ? CLIENT_HELLO_INVALID : CLIENT_HELLO_DONE;
}

/* Appends what a record holds of the message's header, to learn its length. */
static enum client_hello_result note_message_header(struct message *message, uint8_t *header, const uint8_t *payload,
                                                    size_t len)
{
    for (size_t i = 0; i < len && message->have + i < MESSAGE_HEADER_LEN; i++)
        header[message->have + i] = payload[i];
    message->have += len;
    if (message->have > 0 && header[0] != MESSAGE_CLIENT_HELLO)
        return CLIENT_HELLO_INVALID;
    if (message->have < MESSAGE_HEADER_LEN)
        return CLIENT_HELLO_NEED_MORE;
    message->len = MESSAGE_HEADER_LEN + ((size_t)header[1] << 16 | (size_t)header[2] << 8 | header[3]);
    return message->len > MAX_MESSAGE_LEN ? CLIENT_HELLO_INVALID : CLIENT_HELLO_DONE;
}

/*
 * Walks over the record headers until the message is complete. Nothing is copied before that, so a hello that arrives
 * in small pieces costs little each time.
 */
static enum client_hello_result find_message(const uint8_t *data, size_t len, struct message *ret_message)
{
    struct message message = {.in_one_record = true};
    uint8_t header[MESSAGE_HEADER_LEN];
    size_t at = 0;
    while (at < len) {
        enum client_hello_result result = check_record_header(data + at, len - at, at == 0);
        if (result != CLIENT_HELLO_DONE)
            return result;
        size_t payload = (size_t)data[at + 3] << 8 | data[at + 4];
        size_t available = len - at - RECORD_HEADER_LEN;
        bool whole = available >= payload;
        message.in_one_record = at == 0;
        at += RECORD_HEADER_LEN;
        result = note_message_header(&message, header, data + at, whole ? payload : available);
        if (result == CLIENT_HELLO_INVALID)
            return result;
        if (result == CLIENT_HELLO_DONE && message.have >= message.len) {
            *ret_message = message;
            return CLIENT_HELLO_DONE;
        }
        if (!whole)
            break;
        at += payload;
    }
    return CLIENT_HELLO_NEED_MORE;
}

/* The message's bytes without the record headers; all of them are there. */
static struct reader join_records(const uint8_t *data, const struct message *message, uint8_t *scratch)
{
    size_t copied = 0;
    if (message->in_one_record)
        return (struct reader){data + RECORD_HEADER_LEN, message->len};
    while (copied < message->len) {
        size_t payload = (size_t)data[3] << 8 | data[4];
        size_t wanted = message->len - copied;
        memcpy(scratch + copied, data + RECORD_HEADER_LEN, payload < wanted ? payload : wanted);
        copied += payload;
        data += RECORD_HEADER_LEN + payload;
    }
    return (struct reader){scratch, message->len};
}

/* ---- extensions ---- */

static bool set_server_name(struct reader name, struct client_hello *hello)
{
    if (name.left > 0 && name.next[name.left - 1] == '.') /* RFC 6066 has no final dot; some clients send it */
        name.left--;
    if (name.left == 0 || name.left >= sizeof hello->server_name)
        return false;
    for (size_t i = 0; i < name.left; i++) {
        if (name.next[i] <= 0x20 || name.next[i] >= 0x7f)
            return false;
        hello->server_name[i] = ascii_lower((char)name.next[i]);
    }
    hello->server_name[name.left] = '\0';
    hello->server_name_len = name.left;
    return true;
}

/* RFC 6066 section 3: at most one name of each type. */
static bool read_server_name(struct reader body, struct client_hello *hello)
{
    struct reader names;
    if (!take_vector(&body, 2, &names) || body.left > 0 || names.left == 0)
        return false;
    while (names.left > 0) {
        struct reader name;
        size_t type;
        if (!take_number(&names, 1, &type) || !take_vector(&names, 2, &name))
            return false;
        if (type == NAME_TYPE_HOST && (hello->server_name_len > 0 || !set_server_name(name, hello)))
            return false;
    }
    return true;
}

/* RFC 7301 section 3.1: a non-empty list of non-empty names. */
static bool read_alpn(struct reader body, struct client_hello *hello)
{
    struct reader names;
    if (!take_vector(&body, 2, &names) || body.left > 0 || names.left == 0)
        return false;
    hello->alpn = slice_make(names.next, names.left);
    while (names.left > 0) {
        struct reader name;
        if (!take_vector(&names, 1, &name) || name.left == 0)
            return false;
    }
    return true;
}

static bool read_supported_versions(struct reader body, struct client_hello *hello)
{
    struct reader versions;
    if (!take_vector(&body, 1, &versions) || body.left > 0 || versions.left == 0 || versions.left % 2 != 0)
        return false;
    size_t version;
    while (take_number(&versions, 2, &version))
        hello->supports_tls13 |= version == VERSION_TLS13;
    return true;
}

/* Extensions that are known here and have been seen; RFC 8446 section 4.2: each comes once. */
struct seen {
    bool server_name;
    bool alpn;
    bool supported_versions;
};

static bool first_time(bool *seen)
{
    bool first = !*seen;
    *seen = true;
    return first;
}

static bool read_extension(size_t type, struct reader body, struct seen *seen, struct client_hello *hello)
{
    switch (type) {
    case EXTENSION_SERVER_NAME:
        return first_time(&seen->server_name) && read_server_name(body, hello);
    case EXTENSION_ALPN:
        return first_time(&seen->alpn) && read_alpn(body, hello);
    case EXTENSION_SUPPORTED_VERSIONS:
        return first_time(&seen->supported_versions) && read_supported_versions(body, hello);
    default:
        return true;
    }
}

static bool read_extensions(struct reader r, struct client_hello *hello)
{
    struct reader extensions;
    struct seen seen = {.server_name = false};
    if (r.left == 0) /* before TLS 1.3 a hello can end here */
        return true;
    if (!take_vector(&r, 2, &extensions) || r.left > 0)
        return false;
    while (extensions.left > 0) {
        struct reader body;
        size_t type;
        if (!take_number(&extensions, 2, &type) || !take_vector(&extensions, 2, &body) ||
            !read_extension(type, body, &seen, hello))
            return false;
    }
    return true;
}

/* RFC 8446 section 4.1.2. */
static bool read_hello(struct reader r, struct client_hello *hello)
{
    struct reader random, session_id, cipher_suites, compression;
    size_t header, version;
    if (!take_number(&r, MESSAGE_HEADER_LEN, &header) || !take_number(&r, 2, &version) || version >> 8 != 3)
        return false;
    hello->legacy_version = (uint16_t)version;
    if (!take(&r, RANDOM_LEN, &random) || !take_vector(&r, 1, &session_id) || session_id.left > MAX_SESSION_ID_LEN)
        return false;
    if (!take_vector(&r, 2, &cipher_suites) || cipher_suites.left == 0 || cipher_suites.left % 2 != 0)
        return false;
    if (!take_vector(&r, 1, &compression) || compression.left == 0)
        return false;
    return read_extensions(r, hello);
}

enum client_hello_result client_hello_parse(const uint8_t *data, size_t len, uint8_t *scratch,
                                            struct client_hello *ret_hello)
{
    struct message message;
    struct client_hello hello = {.server_name_len = 0};
    size_t looked_at = len < CLIENT_HELLO_MAX_BYTES ? len : CLIENT_HELLO_MAX_BYTES;
    enum client_hello_result result = find_message(data, looked_at, &message);
    if (result == CLIENT_HELLO_NEED_MORE && looked_at == CLIENT_HELLO_MAX_BYTES)
        return CLIENT_HELLO_INVALID;
    if (result != CLIENT_HELLO_DONE)
        return result;
    if (!read_hello(join_records(data, &message, scratch), &hello))
        return CLIENT_HELLO_INVALID;
    *ret_hello = hello;
    return CLIENT_HELLO_DONE;
}
