#include "h1_chunked.h"

#include "gateway/http/semantics.h"

/*
 * chunk-size [ chunk-ext ] CRLF, with
 * chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
 */
enum line_state {
    LINE_SIZE,
    LINE_BEFORE_SEMICOLON, /* white space after the size or a value: only another extension can follow */
    LINE_BEFORE_NAME,
    LINE_NAME,
    LINE_AFTER_NAME,
    LINE_BEFORE_VALUE,
    LINE_VALUE,
    LINE_QUOTED,
    LINE_ESCAPE,
    LINE_QUOTED_END,
    LINE_LF,
    LINE_READY,
    LINE_INVALID,
};

static bool is_tchar(char c)
{
    return is_token(slice_make(&c, 1));
}

static bool is_bws(char c)
{
    return c == ' ' || c == '\t';
}

/* RFC 9110 section 5.6.4: what may stand in a quoted string, also behind a backslash. */
static bool is_quotable(char c)
{
    return is_field_value(slice_make(&c, 1));
}

static int hex_value(char c)
{
    char lower = ascii_lower(c);
    if (ascii_is_digit(c))
        return c - '0';
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static enum line_state after_size_byte(struct h1_chunk_line *line, char c)
{
    int digit = hex_value(c);
    if (digit >= 0) {
        if (line->digits == H1_CHUNK_MAX_DIGITS)
            return LINE_INVALID;
        line->digits++;
        line->size = line->size << 4 | (uint64_t)digit;
        return LINE_SIZE;
    }
    if (line->digits == 0)
        return LINE_INVALID;
    if (c == '\r')
        return LINE_LF;
    if (c == ';')
        return LINE_BEFORE_NAME;
    return is_bws(c) ? LINE_BEFORE_SEMICOLON : LINE_INVALID;
}

/* After a name, a value or a quoted string; `more` is the state if the byte continues the same element. */
static enum line_state after_element(char c, bool continues, enum line_state more, enum line_state on_space)
{
    if (continues)
        return more;
    if (c == '\r')
        return LINE_LF;
    if (c == ';')
        return LINE_BEFORE_NAME;
    return is_bws(c) ? on_space : LINE_INVALID;
}

static enum line_state after_name_byte(char c)
{
    if (c == '=')
        return LINE_BEFORE_VALUE;
    return after_element(c, is_tchar(c), LINE_NAME, LINE_AFTER_NAME);
}

static enum line_state after_gap_behind_name(char c)
{
    if (c == '=')
        return LINE_BEFORE_VALUE;
    if (c == ';')
        return LINE_BEFORE_NAME;
    return is_bws(c) ? LINE_AFTER_NAME : LINE_INVALID;
}

static enum line_state after_gap_before_value(char c)
{
    if (c == '"')
        return LINE_QUOTED;
    if (is_bws(c))
        return LINE_BEFORE_VALUE;
    return is_tchar(c) ? LINE_VALUE : LINE_INVALID;
}

static enum line_state after_quoted_byte(char c)
{
    if (c == '"')
        return LINE_QUOTED_END;
    if (c == '\\')
        return LINE_ESCAPE;
    return is_quotable(c) ? LINE_QUOTED : LINE_INVALID;
}

static enum line_state next_state(struct h1_chunk_line *line, char c)
{
    switch ((enum line_state)line->state) {
    case LINE_SIZE:
        return after_size_byte(line, c);
    case LINE_BEFORE_SEMICOLON:
        if (c == ';')
            return LINE_BEFORE_NAME;
        return is_bws(c) ? LINE_BEFORE_SEMICOLON : LINE_INVALID;
    case LINE_BEFORE_NAME:
        if (is_bws(c))
            return LINE_BEFORE_NAME;
        return is_tchar(c) ? LINE_NAME : LINE_INVALID;
    case LINE_NAME:
        return after_name_byte(c);
    case LINE_AFTER_NAME:
        return after_gap_behind_name(c);
    case LINE_BEFORE_VALUE:
        return after_gap_before_value(c);
    case LINE_VALUE:
        return after_element(c, is_tchar(c), LINE_VALUE, LINE_BEFORE_SEMICOLON);
    case LINE_QUOTED:
        return after_quoted_byte(c);
    case LINE_ESCAPE:
        return is_quotable(c) ? LINE_QUOTED : LINE_INVALID;
    case LINE_QUOTED_END:
        return after_element(c, false, LINE_INVALID, LINE_BEFORE_SEMICOLON);
    case LINE_LF:
        return c == '\n' ? LINE_READY : LINE_INVALID;
    case LINE_READY:
    case LINE_INVALID:
        break;
    }
    return LINE_INVALID;
}

/* Bounds what a sender can make us read that carries no data. */
static bool extension_fits(struct h1_chunk_line *line)
{
    line->extension_bytes++;
    line->body_extension_bytes++;
    return line->extension_bytes <= H1_CHUNK_MAX_EXTENSION_BYTES &&
           line->body_extension_bytes <= H1_BODY_MAX_EXTENSION_BYTES;
}

void h1_chunk_line_begin(struct h1_chunk_line *line)
{
    line->size = 0;
    line->extension_bytes = 0;
    line->digits = 0;
    line->state = LINE_SIZE;
}

enum h1_chunk_result h1_chunk_line_feed(struct h1_chunk_line *line, struct slice *input)
{
    while (input->len > 0) {
        char c = *input->ptr;
        *input = slice_from(*input, 1);
        enum line_state state = next_state(line, c);
        if (state != LINE_SIZE && state < LINE_LF && !extension_fits(line))
            state = LINE_INVALID;
        line->state = (uint8_t)state;
        if (state == LINE_READY)
            return H1_CHUNK_READY;
        if (state == LINE_INVALID)
            return H1_CHUNK_INVALID;
    }
    return H1_CHUNK_MORE;
}
