/* Conditions of any bytes, and lines of any bytes. The input is cut at newlines: name=value, value, …, then the line.
 */
#include "gateway/proxy/access_filter.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice take(struct slice *rest)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    struct slice piece = slice_make(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
    *rest = slice_from(*rest, piece.len + 1);
    return piece;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    struct access_filter filter = {.status_count = 0};
    struct access_line line;
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    for (int i = 0; i < 3; i++) {
        struct slice condition = take(&rest);
        const char *equal = condition.len > 0 ? memchr(condition.ptr, '=', condition.len) : NULL;
        problem[0] = '\0';
        if (equal &&
            !access_filter_set(&filter, slice_make(condition.ptr, (size_t)(equal - condition.ptr)),
                               slice_from(condition, (size_t)(equal - condition.ptr) + 1), problem) &&
            problem[0] == '\0')
            abort();
    }
    if (access_line_parse(rest, &line))
        (void)access_filter_wants(&filter, &line);
    return 0;
}
