#include "gateway/wire/txt_record.h"

enum { HEADER_BYTES = 12, TYPE_CNAME = 5, TYPE_TXT = 16, CLASS_IN = 1, FLAG_RESPONSE = 0x80 };

/* ---- one record ---- */

static bool parse_port(struct slice text, uint16_t *ret_port)
{
    uint64_t port;
    if (text.len == 0 || text.len > 5 || text.ptr[0] == '0' || !slice_to_u64(text, &port) || port > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

bool txt_record_parse(struct slice text, struct txt_target *ret_target)
{
    struct txt_target target;
    text = slice_trim(text);
    const char *colon = text.len > 0 ? memchr(text.ptr, ':', text.len) : NULL;
    size_t id_len = colon ? (size_t)(colon - text.ptr) : 0;
    if (!colon || id_len > HOSTNAME_MAX_LABEL || !parse_port(slice_from(text, id_len + 1), &target.port))
        return false;
    for (size_t i = 0; i < id_len; i++)
        target.id[i] = ascii_lower(text.ptr[i]);
    target.id[id_len] = '\0';
    if (!hostname_is_id(slice_make(target.id, id_len)))
        return false;
    *ret_target = target;
    return true;
}

/* ---- a whole answer ---- */

struct reader {
    const uint8_t *bytes;
    size_t len;
    size_t at;
};

struct answer {
    unsigned found; /* records that say something, once each */
    bool differs;
    bool has_ttl;
    uint32_t ttl;
    struct txt_target target;
};

static bool read_u16(struct reader *reader, unsigned *ret)
{
    if (reader->len - reader->at < 2)
        return false;
    *ret = (unsigned)(reader->bytes[reader->at] << 8 | reader->bytes[reader->at + 1]);
    reader->at += 2;
    return true;
}

static bool skip(struct reader *reader, size_t count)
{
    if (reader->len - reader->at < count)
        return false;
    reader->at += count;
    return true;
}

/* RFC 1035 section 4.1.4: labels up to an empty one, or up to a pointer. */
static bool skip_name(struct reader *reader)
{
    while (reader->at < reader->len) {
        uint8_t first = reader->bytes[reader->at];
        if ((first & 0xc0) == 0xc0)
            return skip(reader, 2);
        if ((first & 0xc0) != 0 || !skip(reader, (size_t)first + 1))
            return false;
        if (first == 0)
            return true;
    }
    return false;
}

static bool skip_questions(struct reader *reader, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!skip_name(reader) || !skip(reader, 4))
            return false;
    return true;
}

/* RFC 2181 section 8: a TTL with the highest bit set is 0. */
static bool read_ttl(struct reader *reader, uint32_t *ret_ttl)
{
    unsigned high, low;
    if (!read_u16(reader, &high) || !read_u16(reader, &low))
        return false;
    *ret_ttl = high & 0x8000 ? 0 : (uint32_t)high << 16 | low;
    return true;
}

static void note_ttl(struct answer *answer, uint32_t ttl)
{
    if (!answer->has_ttl || ttl < answer->ttl)
        answer->ttl = ttl;
    answer->has_ttl = true;
}

static bool is_same(const struct txt_target *a, const struct txt_target *b)
{
    return a->port == b->port && strcmp(a->id, b->id) == 0;
}

/* RFC 1035 section 3.3.14: strings with their lengths in front, which belong together. False if they are broken. */
static bool take_txt(struct answer *answer, const uint8_t *data, size_t len)
{
    char text[TXT_RECORD_MAX];
    size_t used = 0;
    bool fits = true;
    struct txt_target target;
    for (size_t at = 0; at < len;) {
        size_t part = data[at++];
        if (part > len - at)
            return false;
        fits = fits && part <= sizeof text - used;
        if (fits) {
            memcpy(text + used, data + at, part);
            used += part;
        }
        at += part;
    }
    if (!fits || !txt_record_parse(slice_make(text, used), &target))
        return true;
    answer->differs = answer->differs || (answer->found > 0 && !is_same(&target, &answer->target));
    answer->target = target;
    answer->found++;
    return true;
}

static bool read_record(struct reader *reader, struct answer *answer)
{
    unsigned type, class, len;
    uint32_t ttl;
    if (!skip_name(reader) || !read_u16(reader, &type) || !read_u16(reader, &class) || !read_ttl(reader, &ttl) ||
        !read_u16(reader, &len))
        return false;
    const uint8_t *data = reader->bytes + reader->at;
    if (!skip(reader, len))
        return false;
    if (class != CLASS_IN || (type != TYPE_TXT && type != TYPE_CNAME))
        return true;
    note_ttl(answer, ttl);
    return type == TYPE_CNAME || take_txt(answer, data, len);
}

enum txt_result txt_answer_parse(const uint8_t *message, size_t len, struct txt_target *ret_target, uint32_t *ret_ttl)
{
    struct reader reader = {message, len, 0};
    struct answer answer = {.found = 0};
    unsigned ignored, questions, records;
    if (len < HEADER_BYTES || !(message[2] & FLAG_RESPONSE))
        return TXT_MALFORMED;
    bool sound = skip(&reader, 4) && read_u16(&reader, &questions) && read_u16(&reader, &records) &&
                 read_u16(&reader, &ignored) && read_u16(&reader, &ignored) && skip_questions(&reader, questions);
    for (unsigned i = 0; sound && i < records; i++)
        sound = read_record(&reader, &answer);
    if (!sound)
        return TXT_MALFORMED;
    *ret_ttl = answer.ttl;
    if (answer.found == 0)
        return TXT_NONE;
    if (answer.differs)
        return TXT_AMBIGUOUS;
    *ret_target = answer.target;
    return TXT_FOUND;
}
