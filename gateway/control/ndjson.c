#include "gateway/control/ndjson.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 4096 };

void ndjson_init(struct ndjson *n, size_t max_bytes, ndjson_line_cb each, void *arg)
{
    *n = (struct ndjson){.max_bytes = max_bytes, .each = each, .arg = arg};
}

static void end_line(struct ndjson *n, struct slice line)
{
    bool too_long = n->too_long;
    n->too_long = false;
    n->part_len = 0;
    n->number++;
    if (too_long) {
        n->each(n->arg, n->number, line, true);
        return;
    }
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    line = slice_trim(line);
    if (line.len > 0)
        n->each(n->arg, n->number, line, false);
}

/* Keeps a piece of a line whose end has not come, as far as the line may go. */
static void keep(struct ndjson *n, struct slice part)
{
    size_t room = n->max_bytes - n->part_len;
    if (part.len > room) {
        n->too_long = true;
        part.len = room;
    }
    if (part.len == 0)
        return;
    if (n->part_capacity - n->part_len < part.len) {
        size_t capacity = n->part_capacity > 0 ? n->part_capacity : FIRST_CAPACITY;
        while (capacity - n->part_len < part.len)
            capacity *= 2;
        n->part = realloc(n->part, capacity);
        if (!n->part)
            abort();
        n->part_capacity = capacity;
    }
    memcpy(n->part + n->part_len, part.ptr, part.len);
    n->part_len += part.len;
}

void ndjson_feed(struct ndjson *n, struct slice piece)
{
    const char *newline;
    while (piece.len > 0 && (newline = memchr(piece.ptr, '\n', piece.len)) != NULL) {
        struct slice part = {piece.ptr, (size_t)(newline - piece.ptr)};
        piece = slice_from(piece, part.len + 1);
        if (n->part_len == 0 && !n->too_long && part.len <= n->max_bytes) {
            end_line(n, part);
        } else {
            keep(n, part);
            end_line(n, slice_make(n->part, n->part_len));
        }
    }
    keep(n, piece);
}

void ndjson_end(struct ndjson *n)
{
    if (n->part_len > 0 || n->too_long)
        end_line(n, slice_make(n->part, n->part_len));
}

void ndjson_free(struct ndjson *n)
{
    free(n->part);
    n->part = NULL;
    n->part_len = n->part_capacity = 0;
}
