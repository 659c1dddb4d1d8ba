#include "gateway/base/slice.h"

void ascii_lower_copy(char *to, struct slice s)
{
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= s.len; i += sizeof word) {
        memcpy(&word, s.ptr + i, sizeof word);
        word = ascii_lower_word(word);
        memcpy(to + i, &word, sizeof word);
    }
    for (; i < s.len; i++)
        to[i] = ascii_lower(s.ptr[i]);
}

/* Most words are equal, or differ in more than the bit of the case. */
static bool words_eq_nocase(const char *a, const char *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    uint64_t other = x ^ y;
    return other == 0 || ((other & ~UINT64_C(0x2020202020202020)) == 0 && ascii_lower_word(x) == ascii_lower_word(y));
}

/* By words, of which the last overlaps the one before. */
bool slice_eq_nocase(struct slice a, struct slice b)
{
    const size_t step = sizeof(uint64_t);
    size_t i = 0;
    if (a.len != b.len)
        return false;
    for (; i + step <= a.len; i += step)
        if (!words_eq_nocase(a.ptr + i, b.ptr + i))
            return false;
    if (i > 0)
        return i == a.len || words_eq_nocase(a.ptr + a.len - step, b.ptr + a.len - step);
    for (; i < a.len; i++)
        if (ascii_lower(a.ptr[i]) != ascii_lower(b.ptr[i]))
            return false;
    return true;
}

bool slice_has_prefix(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && slice_eq((struct slice){s.ptr, prefix.len}, prefix);
}

static bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

struct slice slice_trim(struct slice s)
{
    while (s.len > 0 && is_ows(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_ows(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

/* The offset of the next comma outside a quoted string, or the length. */
static size_t element_end(struct slice list)
{
    bool quoted = false;
    for (size_t i = 0; i < list.len; i++) {
        char c = list.ptr[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (c == ',' && !quoted)
            return i;
    }
    return list.len;
}

bool slice_next_element(struct slice *list, struct slice *ret_element)
{
    while (list->len > 0) {
        size_t end = element_end(*list);
        struct slice element = slice_trim((struct slice){list->ptr, end});
        *list = slice_from(*list, end + 1);
        if (element.len > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}

bool slice_list_has(struct slice list, struct slice token)
{
    struct slice element;
    while (slice_next_element(&list, &element))
        if (slice_eq_nocase(element, token))
            return true;
    return false;
}

bool slice_to_u64(struct slice s, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (!ascii_is_digit(s.ptr[i]))
            return false;
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value))
            return false;
    }
    *ret_value = value;
    return true;
}
