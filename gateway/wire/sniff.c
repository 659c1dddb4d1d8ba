#include "gateway/wire/sniff.h"

#include "gateway/http/message.h"
#include "gateway/http/semantics.h"

/* Methods that servers know besides those that http/message has a number for. */
static const struct slice other_methods[] = {
    SLICE_INIT("PRI"),      SLICE_INIT("QUERY"),  SLICE_INIT("PROPFIND"),  SLICE_INIT("PROPPATCH"),
    SLICE_INIT("MKCOL"),    SLICE_INIT("COPY"),   SLICE_INIT("MOVE"),      SLICE_INIT("LOCK"),
    SLICE_INIT("UNLOCK"),   SLICE_INIT("SEARCH"), SLICE_INIT("PURGE"),     SLICE_INIT("BAN"),
    SLICE_INIT("REPORT"),   SLICE_INIT("LINK"),   SLICE_INIT("UNLINK"),    SLICE_INIT("MERGE"),
    SLICE_INIT("CHECKOUT"), SLICE_INIT("NOTIFY"), SLICE_INIT("SUBSCRIBE"), SLICE_INIT("M-SEARCH"),
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f';
}

static bool is_method(struct slice word)
{
    char upper[SNIFF_MAX_METHOD];
    for (size_t i = 0; i < word.len; i++)
        upper[i] = word.ptr[i] >= 'a' && word.ptr[i] <= 'z' ? (char)(word.ptr[i] - 'a' + 'A') : word.ptr[i];
    if (method_of(slice_make(upper, word.len)) != METHOD_OTHER)
        return true;
    for (size_t i = 0; i < sizeof other_methods / sizeof other_methods[0]; i++)
        if (slice_eq_nocase(word, other_methods[i]))
            return true;
    return false;
}

static bool names_http(struct slice line)
{
    static const struct slice name = SLICE_INIT("HTTP");
    size_t at = name.len;
    while (at < line.len) {
        const char *slash = memchr(line.ptr + at, '/', line.len - at);
        if (!slash)
            return false;
        if (slice_eq_nocase(slice_make(slash - name.len, name.len), name))
            return true;
        at = (size_t)(slash - line.ptr) + 1;
    }
    return false;
}

/* The rest of a line whose first word could be a method that nobody knows. */
static enum sniff_result sniff_line(struct slice line)
{
    const char *end = memchr(line.ptr, '\n', line.len);
    if (end)
        line.len = (size_t)(end - line.ptr);
    if (names_http(line))
        return SNIFF_HTTP;
    return end ? SNIFF_RAW : line.len >= SNIFF_MAX_LINE ? SNIFF_HTTP : SNIFF_NEED_MORE;
}

enum sniff_result sniff_first_bytes(struct slice bytes)
{
    size_t blanks = 0, len = 0;
    while (blanks < bytes.len && is_blank(bytes.ptr[blanks]))
        blanks++;
    struct slice line = slice_from(bytes, blanks);
    if (line.len == 0)
        return blanks >= SNIFF_MAX_LINE ? SNIFF_HTTP : SNIFF_NEED_MORE;
    while (len < line.len && len < SNIFF_MAX_METHOD && !is_blank(line.ptr[len]))
        len++;
    struct slice word = slice_make(line.ptr, len);
    if (!is_token(word))
        return SNIFF_RAW;
    if (len == SNIFF_MAX_METHOD)
        return SNIFF_RAW;
    if (len == line.len) /* the word may go on */
        return SNIFF_NEED_MORE;
    return is_method(word) ? SNIFF_HTTP : sniff_line(line);
}
