/*
 * slice: a read-only view of bytes that somebody else owns.
 *
 * A slice is two words and is passed by value. It is not NUL-terminated and may hold any byte. An empty slice may have
 * a NULL ptr. Whoever hands a slice out says how long the bytes live (usually: as long as the exchange's arena, or
 * until the callback returns).
 */
#ifndef GATEWAY_BASE_SLICE_H
#define GATEWAY_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *ptr;
    size_t len;
};

/* A slice of a string literal, as an expression and as an initializer. */
#define SLICE(literal) ((struct slice){("" literal), sizeof(literal) - 1})
#define SLICE_INIT(literal)                                                                                            \
    {                                                                                                                  \
        ("" literal), sizeof(literal) - 1                                                                              \
    }
#define SLICE_NONE ((struct slice){NULL, 0})

/* For printf: printf("%.*s", SLICE_ARG(s)). */
#define SLICE_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct slice slice_make(const void *ptr, size_t len)
{
    return (struct slice){ptr, len};
}

static inline struct slice slice_str(const char *str)
{
    return (struct slice){str, str ? strlen(str) : 0};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* The same for the eight bytes of a word. */
static inline uint64_t ascii_lower_word(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101U, high = 0x8080808080808080U;
    uint64_t low = word & ~high; /* a sum below sets the high bit of a byte and carries into none */
    uint64_t from_a = low + ones * (0x80 - 'A'), past_z = low + ones * (0x7f - 'Z');
    return word | (from_a & ~past_z & ~word & high) >> 2;
}

/* Copies s; `to` has s.len bytes. */
void ascii_lower_copy(char *to, struct slice s);

static inline bool ascii_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Equal but for the case of ASCII letters. */
bool slice_eq_nocase(struct slice a, struct slice b);

/* True if s begins with prefix. */
bool slice_has_prefix(struct slice s, struct slice prefix);

/* The part of s from offset on; empty if offset is past its end. */
static inline struct slice slice_from(struct slice s, size_t offset)
{
    return offset < s.len ? (struct slice){s.ptr + offset, s.len - offset} : (struct slice){s.ptr, 0};
}

/* s without leading and trailing SP and HTAB (RFC 9110 section 5.6.3, OWS). */
struct slice slice_trim(struct slice s);

/*
 * Takes the next element of a comma-separated list (RFC 9110 section 5.6.1), trimmed, empty elements skipped. Quoted
 * strings are kept whole. Returns false at the end. `list` advances.
 */
bool slice_next_element(struct slice *list, struct slice *ret_element);

/* True if the comma-separated list has this token, letter case ignored. */
bool slice_list_has(struct slice list, struct slice token);

/* Decimal digits only, no sign, no space; false when empty, not digits, or over UINT64_MAX. */
bool slice_to_u64(struct slice s, uint64_t *ret_value);

/* The decimal digits, which end at `end` of a buffer with at least SLICE_U64_BYTES before it. */
enum { SLICE_U64_BYTES = 20 };
static inline struct slice slice_from_u64(uint64_t value, char *end)
{
    char *first = end;
    do {
        *--first = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return slice_make(first, (size_t)(end - first));
}

#endif
