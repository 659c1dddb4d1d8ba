/*
 * json_check: a strict JSON validator (RFC 8259) for tests, which also finds the members of one flat object.
 */
#ifndef TESTS_UNIT_PROXY_JSON_CHECK_H
#define TESTS_UNIT_PROXY_JSON_CHECK_H

#include "gateway/base/slice.h"

struct json_check {
    const unsigned char *next;
    const unsigned char *end;
};

static inline bool json_check_byte(struct json_check *c, char byte)
{
    if (c->next == c->end || *c->next != (unsigned char)byte)
        return false;
    c->next++;
    return true;
}

static inline bool json_check_hex4(struct json_check *c)
{
    for (int i = 0; i < 4; i++, c->next++)
        if (c->next == c->end || !strchr("0123456789abcdefABCDEF", *c->next) || *c->next == 0)
            return false;
    return true;
}

static inline bool json_check_escape(struct json_check *c)
{
    if (json_check_byte(c, 'u'))
        return json_check_hex4(c);
    if (c->next == c->end || *c->next == 0 || !strchr("\"\\/bfnrt", *c->next))
        return false;
    c->next++;
    return true;
}

/* A UTF-8 sequence of two to four bytes (RFC 3629, the table of section 4). */
static inline bool json_check_utf8(struct json_check *c)
{
    static const unsigned char rows[][4] = {
        /* first byte from, to; second byte from, to */
        {0xc2, 0xdf, 0x80, 0xbf}, {0xe0, 0xe0, 0xa0, 0xbf}, {0xe1, 0xec, 0x80, 0xbf}, {0xed, 0xed, 0x80, 0x9f},
        {0xee, 0xef, 0x80, 0xbf}, {0xf0, 0xf0, 0x90, 0xbf}, {0xf1, 0xf3, 0x80, 0xbf}, {0xf4, 0xf4, 0x80, 0x8f},
    };
    unsigned char first = *c->next;
    int len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (c->end - c->next < len)
        return false;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const unsigned char *row = rows[i];
        if (first < row[0] || first > row[1])
            continue;
        if (c->next[1] < row[2] || c->next[1] > row[3])
            return false;
        for (int j = 2; j < len; j++)
            if (c->next[j] < 0x80 || c->next[j] > 0xbf)
                return false;
        c->next += len;
        return true;
    }
    return false;
}

static inline bool json_check_string(struct json_check *c)
{
    if (!json_check_byte(c, '"'))
        return false;
    while (c->next < c->end && *c->next != '"') {
        if (*c->next < 0x20 || *c->next == 0x7f)
            return false;
        if (*c->next >= 0x80) {
            if (!json_check_utf8(c))
                return false;
        } else if (*c->next++ == '\\' && !json_check_escape(c)) {
            return false;
        }
    }
    return json_check_byte(c, '"');
}

static inline bool json_check_digits(struct json_check *c)
{
    const unsigned char *start = c->next;
    while (c->next < c->end && ascii_is_digit((char)*c->next))
        c->next++;
    return c->next > start;
}

/* No exponents: the gateway writes none. */
static inline bool json_check_number(struct json_check *c)
{
    (void)json_check_byte(c, '-');
    if (!json_check_byte(c, '0') && !json_check_digits(c))
        return false;
    return !json_check_byte(c, '.') || json_check_digits(c);
}

static inline bool json_check_word(struct json_check *c, struct slice word)
{
    if ((size_t)(c->end - c->next) < word.len || memcmp(c->next, word.ptr, word.len) != 0)
        return false;
    c->next += word.len;
    return true;
}

static inline bool json_check_scalar(struct json_check *c)
{
    if (c->next < c->end && *c->next == '"')
        return json_check_string(c);
    return json_check_word(c, SLICE("true")) || json_check_word(c, SLICE("false")) || json_check_number(c);
}

/*
 * True if text is one object of scalars without white space between them. With a name: ret_value gets that member's
 * value as it stands (strings without quotes), or stays as it is.
 */
static inline bool json_check_object(struct slice text, const char *name, struct slice *ret_value)
{
    struct json_check c = {(const unsigned char *)text.ptr, (const unsigned char *)text.ptr + text.len};
    if (!json_check_byte(&c, '{'))
        return false;
    do {
        const unsigned char *start = c.next;
        if (!json_check_string(&c))
            return false;
        struct slice key = slice_make(start + 1, (size_t)(c.next - start) - 2);
        if (!json_check_byte(&c, ':'))
            return false;
        start = c.next;
        if (!json_check_scalar(&c))
            return false;
        size_t quotes = *start == '"' ? 1 : 0;
        if (name && slice_eq(key, slice_str(name)))
            *ret_value = slice_make(start + quotes, (size_t)(c.next - start) - 2 * quotes);
    } while (json_check_byte(&c, ','));
    return json_check_byte(&c, '}') && c.next == c.end;
}

#endif
