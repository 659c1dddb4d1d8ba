#include "gateway/proxy/access_filter.h"

#include <stdio.h>
#include <stdlib.h>

enum { UNESCAPED_MAX = 4096, MAX_STATUS = 999 };

/* ---- conditions ---- */

static bool set_text(struct access_filter_text *text, struct slice value, bool lower, char *ret_problem)
{
    if (value.len == 0 || value.len > sizeof text->bytes) {
        snprintf(ret_problem, ACCESS_FILTER_PROBLEM_MAX, "it must have 1 to %d bytes", ACCESS_FILTER_TEXT_MAX);
        return false;
    }
    for (size_t i = 0; i < value.len; i++)
        text->bytes[i] = lower ? ascii_lower(value.ptr[i]) : value.ptr[i];
    text->len = value.len;
    return true;
}

/* A status of one to three digits. */
static bool parse_status(struct slice text, int *ret_status)
{
    uint64_t value;
    if (text.len == 0 || text.len > 3 || !slice_to_u64(text, &value))
        return false;
    *ret_status = (int)value;
    return true;
}

/* ">=500" and relatives. */
static bool parse_comparison(struct slice text, struct access_filter_range *ret_range)
{
    int status;
    bool less = text.ptr[0] == '<';
    bool equal = text.len > 1 && text.ptr[1] == '=';
    if (!parse_status(slice_from(text, equal ? 2 : 1), &status))
        return false;
    *ret_range = less ? (struct access_filter_range){0, equal ? status : status - 1}
                      : (struct access_filter_range){equal ? status : status + 1, MAX_STATUS};
    return true;
}

static bool parse_range(struct slice text, struct access_filter_range *ret_range)
{
    if (text.len == 3 && ascii_is_digit(text.ptr[0]) && ascii_lower(text.ptr[1]) == 'x' &&
        ascii_lower(text.ptr[2]) == 'x') {
        int class = (text.ptr[0] - '0') * 100;
        *ret_range = (struct access_filter_range){class, class + 99};
        return true;
    }
    if (text.len > 0 && (text.ptr[0] == '<' || text.ptr[0] == '>'))
        return parse_comparison(text, ret_range);
    const char *dash = text.len > 0 ? memchr(text.ptr, '-', text.len) : NULL;
    size_t first = dash ? (size_t)(dash - text.ptr) : text.len;
    return parse_status(slice_make(text.ptr, first), &ret_range->from) &&
           parse_status(dash ? slice_from(text, first + 1) : text, &ret_range->to) && ret_range->from <= ret_range->to;
}

static bool set_statuses(struct access_filter *filter, struct slice value, char *ret_problem)
{
    struct slice element;
    filter->status_count = 0;
    while (slice_next_element(&value, &element)) {
        if (filter->status_count == ACCESS_FILTER_MAX_RANGES ||
            !parse_range(element, &filter->statuses[filter->status_count++])) {
            filter->status_count = 0;
            break;
        }
    }
    if (filter->status_count == 0)
        snprintf(ret_problem, ACCESS_FILTER_PROBLEM_MAX,
                 "write 404, 5xx, 400-499, >=500 or <400, or up to %d of these with commas", ACCESS_FILTER_MAX_RANGES);
    return filter->status_count > 0;
}

static bool unit_us(struct slice unit, uint64_t *ret_us)
{
    static const struct {
        const char *name;
        uint64_t us;
    } units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}, {"m", 60000000}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (slice_eq(unit, slice_str(units[i].name))) {
            *ret_us = units[i].us;
            return true;
        }
    return false;
}

/* "1.5s": digits, up to three more behind a point, a unit. */
static bool set_slower_than(struct access_filter *filter, struct slice value, char *ret_problem)
{
    uint64_t whole = 0, thousandths = 0, us;
    size_t at = 0, digits = 0;
    for (; at < value.len && at < 9 && ascii_is_digit(value.ptr[at]); at++)
        whole = whole * 10 + (uint64_t)(value.ptr[at] - '0');
    bool ok = at > 0;
    if (ok && at < value.len && value.ptr[at] == '.') {
        for (at++; at < value.len && digits < 3 && ascii_is_digit(value.ptr[at]); at++, digits++)
            thousandths = thousandths * 10 + (uint64_t)(value.ptr[at] - '0');
        ok = digits > 0;
        for (; digits < 3; digits++)
            thousandths *= 10;
    }
    if (!ok || !unit_us(slice_from(value, at), &us)) {
        snprintf(ret_problem, ACCESS_FILTER_PROBLEM_MAX, "write a number with a unit: 500ms, 2s, 1.5s, 1m");
        return false;
    }
    filter->slower_than_us = whole * us + thousandths * us / 1000;
    filter->has_slower_than = true;
    return true;
}

static bool set_error(struct access_filter *filter, struct slice value, char *ret_problem)
{
    bool any = value.len == 0 || slice_eq(value, SLICE("1")) || slice_eq(value, SLICE("true"));
    return set_text(&filter->error, any ? SLICE("*") : value, true, ret_problem);
}

bool access_filter_set(struct access_filter *filter, struct slice name, struct slice value,
                       char ret_problem[ACCESS_FILTER_PROBLEM_MAX])
{
    if (slice_eq(name, SLICE("app")))
        return set_text(&filter->app, value, true, ret_problem);
    if (slice_eq(name, SLICE("host")))
        return set_text(&filter->host, value, true, ret_problem);
    if (slice_eq(name, SLICE("path")))
        return set_text(&filter->path, value, false, ret_problem);
    if (slice_eq(name, SLICE("method")))
        return set_text(&filter->method, value, true, ret_problem);
    if (slice_eq(name, SLICE("status")))
        return set_statuses(filter, value, ret_problem);
    if (slice_eq(name, SLICE("slower_than")))
        return set_slower_than(filter, value, ret_problem);
    if (slice_eq(name, SLICE("error")))
        return set_error(filter, value, ret_problem);
    snprintf(ret_problem, ACCESS_FILTER_PROBLEM_MAX, "there is no such condition");
    return false;
}

/* ---- lines ---- */

/* Takes a string up to its closing quote; escapes stay. */
static bool take_string(struct slice *rest, struct slice *ret_text)
{
    if (rest->len == 0 || rest->ptr[0] != '"')
        return false;
    for (size_t i = 1; i < rest->len; i++) {
        if (rest->ptr[i] == '\\') {
            i++;
        } else if (rest->ptr[i] == '"') {
            *ret_text = slice_make(rest->ptr + 1, i - 1);
            *rest = slice_from(*rest, i + 1);
            return true;
        }
    }
    return false;
}

static bool take_value(struct slice *rest, struct slice *ret_text)
{
    size_t len = 0;
    if (rest->len > 0 && rest->ptr[0] == '"')
        return take_string(rest, ret_text);
    while (len < rest->len && rest->ptr[len] != ',' && rest->ptr[len] != '}')
        len++;
    *ret_text = slice_make(rest->ptr, len);
    *rest = slice_from(*rest, len);
    return len > 0;
}

static struct slice *member_of(struct access_line *line, struct slice name)
{
    const struct {
        struct slice name;
        struct slice *place;
    } members[] = {
        {SLICE("app_id"), &line->app_id},     {SLICE("instance_id"), &line->instance_id},
        {SLICE("host"), &line->host},         {SLICE("method"), &line->method},
        {SLICE("path"), &line->path},         {SLICE("status"), &line->status},
        {SLICE("total_ms"), &line->total_ms}, {SLICE("error"), &line->error},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        if (slice_eq(name, members[i].name))
            return members[i].place;
    return NULL;
}

bool access_line_parse(struct slice text, struct access_line *ret_line)
{
    struct access_line line = {.app_id = SLICE_NONE};
    struct slice name, value;
    char before = '{';
    while (text.len > 0 && text.ptr[0] == before) {
        text = slice_from(text, 1);
        if (!take_string(&text, &name) || text.len == 0 || text.ptr[0] != ':')
            return false;
        text = slice_from(text, 1);
        if (!take_value(&text, &value))
            return false;
        struct slice *place = member_of(&line, name);
        if (place)
            *place = value;
        before = ',';
    }
    if (text.len == 0 || text.ptr[0] != '}')
        return false;
    *ret_line = line;
    return true;
}

/* ---- do they match ---- */

static int hex_digit(char c)
{
    if (ascii_is_digit(c))
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \u escapes of our own writer are control characters and the like: their UTF-8 has up to three bytes. */
static size_t unescape_unicode(struct slice digits, char *to)
{
    unsigned value = 0;
    for (size_t i = 0; i < 4; i++)
        value = value << 4 | (unsigned)(i < digits.len && hex_digit(digits.ptr[i]) >= 0 ? hex_digit(digits.ptr[i]) : 0);
    if (value < 0x80) {
        to[0] = (char)value;
        return 1;
    }
    if (value < 0x800) {
        to[0] = (char)(0xc0 | value >> 6);
        to[1] = (char)(0x80 | (value & 0x3f));
        return 2;
    }
    to[0] = (char)(0xe0 | value >> 12);
    to[1] = (char)(0x80 | (value >> 6 & 0x3f));
    to[2] = (char)(0x80 | (value & 0x3f));
    return 3;
}

/* The string without its escapes, in the buffer if it has any. */
static struct slice unescape(struct slice text, char *buffer)
{
    size_t len = 0;
    if (text.len == 0 || !memchr(text.ptr, '\\', text.len))
        return text;
    for (size_t i = 0; i < text.len && len + 3 <= UNESCAPED_MAX; i++) {
        if (text.ptr[i] != '\\' || i + 1 == text.len) {
            buffer[len++] = text.ptr[i];
            continue;
        }
        const char *short_form = strchr("b\bf\fn\nr\rt\t", text.ptr[++i]);
        if (text.ptr[i] == 'u') {
            len += unescape_unicode(slice_from(text, i + 1), buffer + len);
            i += 4;
        } else {
            buffer[len++] = short_form && text.ptr[i] >= 'a' ? short_form[1] : text.ptr[i];
        }
    }
    return slice_make(buffer, len);
}

/* Each * is tried at its last place only: that is enough, and takes len times len steps at most. */
static bool matches(struct slice pattern, struct slice text, bool lower)
{
    size_t p = 0, t = 0, star = SIZE_MAX, star_text = 0;
    while (t < text.len) {
        char c = lower ? ascii_lower(text.ptr[t]) : text.ptr[t];
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            star_text = t;
        } else if (p < pattern.len && (pattern.ptr[p] == '?' || pattern.ptr[p] == c)) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

static bool fits(const struct access_filter_text *wanted, struct slice value, bool lower)
{
    char buffer[UNESCAPED_MAX];
    return wanted->len == 0 || matches(slice_make(wanted->bytes, wanted->len), unescape(value, buffer), lower);
}

static struct slice without_query(struct slice path)
{
    const char *mark = path.len > 0 ? memchr(path.ptr, '?', path.len) : NULL;
    return mark ? slice_make(path.ptr, (size_t)(mark - path.ptr)) : path;
}

static bool fits_status(const struct access_filter *filter, struct slice text)
{
    int status;
    if (filter->status_count == 0)
        return true;
    if (!parse_status(text, &status))
        return false;
    for (size_t i = 0; i < filter->status_count; i++)
        if (status >= filter->statuses[i].from && status <= filter->statuses[i].to)
            return true;
    return false;
}

/* Milliseconds with three decimals: without the point they are microseconds. */
static bool is_slower(const struct access_filter *filter, struct slice total_ms)
{
    uint64_t us = 0;
    if (!filter->has_slower_than)
        return true;
    for (size_t i = 0; i < total_ms.len && us < UINT64_MAX / 20; i++)
        if (ascii_is_digit(total_ms.ptr[i]))
            us = us * 10 + (uint64_t)(total_ms.ptr[i] - '0');
    return us > filter->slower_than_us;
}

bool access_filter_wants(const struct access_filter *filter, const struct access_line *line)
{
    return fits_status(filter, line->status) && is_slower(filter, line->total_ms) &&
           (filter->error.len == 0 || line->error.len > 0) && fits(&filter->error, line->error, true) &&
           (fits(&filter->app, line->app_id, true) || fits(&filter->app, line->instance_id, true)) &&
           fits(&filter->method, line->method, true) && fits(&filter->host, line->host, true) &&
           fits(&filter->path, without_query(line->path), false);
}
