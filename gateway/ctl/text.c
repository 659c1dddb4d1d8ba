#include "gateway/ctl/text.h"

#include <stdio.h>
#include <wchar.h>

enum { ESCAPED_MAX = 16 };

/* One character as it is shown. */
struct shown {
    char escaped[ESCAPED_MAX];
    struct slice bytes;
    size_t columns;
};

static void escape(struct shown *shown, char kind, int digits, unsigned value)
{
    int len = snprintf(shown->escaped, sizeof shown->escaped, "\\%c%0*x", kind, digits, value);
    shown->bytes = slice_make(shown->escaped, (size_t)len);
    shown->columns = (size_t)len;
}

/* The first character of a text that is not empty; returns how many bytes it has. */
static size_t next(struct slice text, struct shown *shown)
{
    wchar_t letter = 0;
    mbstate_t state = {0};
    unsigned char first = (unsigned char)text.ptr[0];
    if (first >= 0x20 && first < 0x7f) { /* nearly all, in tables of a million rows too */
        shown->bytes = slice_make(text.ptr, 1);
        shown->columns = 1;
        return 1;
    }
    size_t len = first == 0 ? 1 : mbrtowc(&letter, text.ptr, text.len, &state);
    if (first < 0x20 || first == 0x7f || len > text.len) {
        escape(shown, 'x', 2, first);
        return 1;
    }
    int columns = wcwidth(letter);
    if (columns <= 0) {
        escape(shown, 'u', 4, (unsigned)letter);
    } else {
        shown->bytes = slice_make(text.ptr, len);
        shown->columns = (size_t)columns;
    }
    return len;
}

size_t text_columns(struct slice text)
{
    struct shown shown;
    size_t columns = 0;
    while (text.len > 0) {
        text = slice_from(text, next(text, &shown));
        columns += shown.columns;
    }
    return columns;
}

/* One column where the locale has the letter, else three. */
static struct slice ellipsis(size_t *ret_columns)
{
    static const char letter[] = "\xe2\x80\xa6";
    wchar_t wide = 0;
    mbstate_t state = {0};
    bool has_letter = mbrtowc(&wide, letter, sizeof letter - 1, &state) == sizeof letter - 1 && wide == 0x2026;
    *ret_columns = has_letter ? 1 : 3;
    return has_letter ? slice_str(letter) : SLICE("...");
}

size_t text_put(FILE *out, struct slice text, size_t max)
{
    struct shown shown;
    size_t columns = 0, tail_columns;
    struct slice tail = ellipsis(&tail_columns);
    bool is_cut = text_columns(text) > max;
    size_t room = !is_cut ? max : max > tail_columns ? max - tail_columns : 0;
    while (text.len > 0) {
        text = slice_from(text, next(text, &shown));
        if (columns + shown.columns > room)
            break;
        fwrite(shown.bytes.ptr, 1, shown.bytes.len, out);
        columns += shown.columns;
    }
    if (is_cut && tail_columns <= max) {
        fwrite(tail.ptr, 1, tail.len, out);
        columns += tail_columns;
    }
    return columns;
}

void text_fit(size_t *widths, size_t count, size_t total, size_t least)
{
    for (;;) {
        size_t sum = 0, widest = 0;
        for (size_t i = 0; i < count; i++) {
            sum += widths[i];
            if (widths[i] >= widths[widest])
                widest = i;
        }
        if (count == 0 || sum <= total || widths[widest] <= least)
            return;
        widths[widest]--;
    }
}
