#include "gateway/proxy/access_text.h"

#include <assert.h>

static const char hex_digits[] = "0123456789abcdef";

void access_text_put(struct access_text *text, const char *bytes, size_t len)
{
    if (len > access_text_room(text))
        len = access_text_room(text);
    memcpy(text->next, bytes, len);
    text->next += len;
}

/* Room for a whole value, which is then written in place, or NULL: half a number would be a wrong one. */
static char *take(struct access_text *text, size_t len)
{
    char *place = text->next;
    if (len > access_text_room(text))
        return NULL;
    text->next += len;
    return place;
}

/* ---- escaping ---- */

static bool is_safe(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* True if one of eight bytes may be unsafe. Each term sets the high bit of a byte that it catches. */
static bool word_is_unsafe(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101U, high = 0x8080808080808080U;
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
    uint64_t caught = word | (word - ones * 0x20) | (word + ones) | (quote - ones) | (backslash - ones);
    return (caught & high) != 0;
}

enum { HALF_BYTES = 4, WORD_BYTES = 8, LANES = 16 };
typedef signed char lanes __attribute__((vector_size(LANES)));
typedef uint64_t lane_words __attribute__((vector_size(LANES)));

/* Of sixteen bytes. Those of 0x80 and more are negative. */
static bool lanes_are_unsafe(lanes bytes)
{
    lane_words caught = (lane_words)((bytes < 0x20) | (bytes == 0x7f) | (bytes == '"') | (bytes == '\\'));
    return (caught[0] | caught[1]) != 0;
}

/* Steps of sixteen bytes as long as all of them are safe, the last over bytes of the one before; returns how many. */
static size_t copy_lanes(char *to, const char *from, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t at = i + LANES <= len ? i : len - LANES;
        lanes bytes;
        memcpy(&bytes, from + at, LANES);
        if (lanes_are_unsafe(bytes))
            break;
        memcpy(to + at, &bytes, LANES);
        i = at + LANES;
    }
    return i;
}

/* 8 to 16 bytes, or none of them. */
static size_t copy_words(char *to, const char *from, size_t len)
{
    uint64_t first, last;
    memcpy(&first, from, WORD_BYTES);
    memcpy(&last, from + len - WORD_BYTES, WORD_BYTES);
    if (word_is_unsafe(first) || word_is_unsafe(last))
        return 0;
    memcpy(to, &first, WORD_BYTES);
    memcpy(to + len - WORD_BYTES, &last, WORD_BYTES);
    return len;
}

/* 4 to 8 bytes, or none of them. */
static size_t copy_halves(char *to, const char *from, size_t len)
{
    uint32_t first, last;
    memcpy(&first, from, HALF_BYTES);
    memcpy(&last, from + len - HALF_BYTES, HALF_BYTES);
    if (word_is_unsafe((uint64_t)last << 32 | first))
        return 0;
    memcpy(to, &first, HALF_BYTES);
    memcpy(to + len - HALF_BYTES, &last, HALF_BYTES);
    return len;
}

/* Copies up to len bytes, as long as they need no escape; returns how many. */
static size_t copy_safe(char *to, const char *from, size_t len)
{
    size_t i = len >= LANES        ? copy_lanes(to, from, len)
               : len >= WORD_BYTES ? copy_words(to, from, len)
               : len >= HALF_BYTES ? copy_halves(to, from, len)
                                   : 0;
    for (; i < len && is_safe((unsigned char)from[i]); i++)
        to[i] = from[i];
    return i;
}

/* The length of the multi-byte character at the start of s (RFC 3629 section 4), 0 if it is malformed. */
static size_t utf8_decode(struct slice s, uint32_t *ret_char)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)s.ptr[0];
    size_t len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || s.len < len)
        return 0;
    uint32_t value = first & (0x7fU >> len);
    for (size_t i = 1; i < len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (c & 0x3f);
    }
    if (value < least[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *ret_char = value;
    return len;
}

/* C1 controls, line and paragraph separators, and marks that reorder the text on a screen. */
static bool is_disruptive(uint32_t c)
{
    return c < 0xa0 || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

struct escaped {
    size_t used; /* bytes of input */
    size_t len;
    char text[8];
};

static struct escaped escape_unicode(uint32_t c, size_t used)
{
    struct escaped e = {.used = used, .len = 6, .text = "\\u"};
    for (unsigned i = 0; i < 4; i++)
        e.text[2 + i] = hex_digits[c >> (12 - 4 * i) & 15];
    return e;
}

static struct escaped escape_json(struct slice s)
{
    unsigned char first = (unsigned char)s.ptr[0];
    if (first < 0x80)
        return escape_unicode(first, 1);
    uint32_t c;
    size_t len = utf8_decode(s, &c);
    if (len == 0)
        return escape_unicode(0xfffd, 1);
    if (is_disruptive(c))
        return escape_unicode(c, len);
    struct escaped e = {.used = len, .len = len};
    memcpy(e.text, s.ptr, len);
    return e;
}

/* Of the first character of s, which is not safe. */
static struct escaped escape_first(struct slice s, enum access_escape escape)
{
    unsigned char c = (unsigned char)s.ptr[0];
    if (c == '"' || c == '\\')
        return (struct escaped){.used = 1, .len = 2, .text = {'\\', (char)c}};
    if (escape == ACCESS_ESCAPE_JSON)
        return escape_json(s);
    return (struct escaped){.used = 1, .len = 4, .text = {'\\', 'x', hex_digits[c >> 4], hex_digits[c & 15]}};
}

/* From a character on that is not safe. */
static void put_unsafe(struct access_text *text, struct slice s, size_t left, enum access_escape escape)
{
    while (s.len > 0) {
        struct escaped e = escape_first(s, escape);
        if (e.len > left)
            return;
        memcpy(text->next, e.text, e.len);
        text->next += e.len;
        left -= e.len;
        s = slice_from(s, e.used);
        size_t run = copy_safe(text->next, s.ptr, s.len < left ? s.len : left);
        text->next += run;
        left -= run;
        s = slice_from(s, run);
    }
}

void access_text_put_escaped(struct access_text *text, struct slice s, size_t max, enum access_escape escape)
{
    size_t room = access_text_room(text), left = max < room ? max : room;
    size_t run = copy_safe(text->next, s.ptr, s.len < left ? s.len : left);
    text->next += run;
    if (run < s.len)
        put_unsafe(text, slice_from(s, run), left - run, escape);
}

/* ---- numbers ---- */

static void put_two(char *to, unsigned value)
{
    to[0] = (char)('0' + value / 10 % 10);
    to[1] = (char)('0' + value % 10);
}

static void put_three(char *to, unsigned value)
{
    to[0] = (char)('0' + value / 100);
    put_two(to + 1, value % 100);
}

static size_t count_digits(uint64_t value)
{
    for (size_t n = 1;; n += 4, value /= 10000)
        if (value < 10000)
            return n + (value >= 10) + (value >= 100) + (value >= 1000);
}

void access_text_put_u64(struct access_text *text, uint64_t value)
{
    size_t len = count_digits(value);
    char *place = take(text, len);
    if (place)
        slice_from_u64(value, place + len);
}

void access_text_put_ms(struct access_text *text, uint64_t us)
{
    size_t len = count_digits(us / 1000);
    char *place = take(text, len + 4);
    if (!place)
        return;
    slice_from_u64(us / 1000, place + len);
    place[len] = '.';
    put_three(place + len + 1, (unsigned)(us % 1000));
}

void access_text_put_hex64(struct access_text *text, uint64_t value)
{
    char *place = take(text, 16);
    for (unsigned i = 0; place && i < 16; i++)
        place[i] = hex_digits[value >> (60 - 4 * i) & 15];
}

/* ---- addresses ---- */

static void put_made(struct access_text *text, const char *made, size_t len)
{
    char *place = take(text, len);
    if (place && place != made)
        memcpy(place, made, len);
}

/* In place if it fits for sure, else it is made elsewhere. */
void access_text_put_ip(struct access_text *text, const struct ip_addr *addr)
{
    char buffer[IP_TEXT_MAX], *at = access_text_room(text) >= sizeof buffer ? text->next : buffer;
    put_made(text, at, ip_format(addr, at));
}

void access_text_put_ip_port(struct access_text *text, const struct ip_addr *addr, uint16_t port)
{
    char buffer[IP_PORT_TEXT_MAX], *at = access_text_room(text) >= sizeof buffer ? text->next : buffer;
    put_made(text, at, ip_port_format(addr, port, at));
}

/* ---- times ---- */

struct date {
    unsigned year, month, day; /* month from 0 */
};

static bool is_leap(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* gmtime_r takes a lock of the C library, and workers do not wait for locks. */
static struct date date_of(uint64_t days)
{
    static const unsigned short before[2][13] = {
        {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365},
        {0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366},
    };
    unsigned day = (unsigned)days, year = 1970;
    for (unsigned length; day >= (length = is_leap(year) ? 366 : 365); year++)
        day -= length;
    const unsigned short *table = before[is_leap(year)];
    unsigned month = 0;
    while (day >= table[month + 1])
        month++;
    return (struct date){year, month, day - table[month] + 1};
}

static void put_clock(char *to, unsigned second_of_day)
{
    put_two(to, second_of_day / 3600);
    to[2] = ':';
    put_two(to + 3, second_of_day / 60 % 60);
    to[5] = ':';
    put_two(to + 6, second_of_day % 60);
}

static void set_second(struct access_time *cache, uint64_t second)
{
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct date date = date_of(second / 86400);
    char year[4];
    put_two(year, date.year / 100);
    put_two(year + 2, date.year % 100);

    memcpy(cache->rfc3339, year, 4);
    cache->rfc3339[4] = cache->rfc3339[7] = '-';
    put_two(cache->rfc3339 + 5, date.month + 1);
    put_two(cache->rfc3339 + 8, date.day);
    cache->rfc3339[10] = 'T';
    put_clock(cache->rfc3339 + 11, (unsigned)(second % 86400));

    put_two(cache->clf, date.day);
    cache->clf[2] = cache->clf[6] = '/';
    memcpy(cache->clf + 3, months[date.month], 3);
    memcpy(cache->clf + 7, year, 4);
    cache->clf[11] = ':';
    put_clock(cache->clf + 12, (unsigned)(second % 86400));
    memcpy(cache->clf + 20, " +0000", 6);
    cache->second = second;
}

/* Both formats have four digits for the year. */
static uint64_t second_of(uint64_t wall_us)
{
    const uint64_t last = 253402300799U; /* of the year 9999 */
    uint64_t second = wall_us / 1000000;
    return second < last ? second : last;
}

void access_text_put_time(struct access_text *text, struct access_time *cache, uint64_t wall_us)
{
    if (cache->second != second_of(wall_us))
        set_second(cache, second_of(wall_us));
    char *place = take(text, 24);
    if (!place)
        return;
    memcpy(place, cache->rfc3339, sizeof cache->rfc3339);
    place[19] = '.';
    put_three(place + 20, (unsigned)(wall_us / 1000 % 1000));
    place[23] = 'Z';
}

void access_text_put_clf_time(struct access_text *text, struct access_time *cache, uint64_t wall_us)
{
    if (cache->second != second_of(wall_us))
        set_second(cache, second_of(wall_us));
    char *place = take(text, sizeof cache->clf);
    if (place)
        memcpy(place, cache->clf, sizeof cache->clf);
}
