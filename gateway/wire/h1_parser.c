#include "gateway/wire/h1_parser.h"

#include "gateway/http/semantics.h"

#include "h1_chunked.h"
#include "h1_head.h"

#include <assert.h>

enum state {
    STATE_START,      /* request: nothing has arrived but empty lines */
    STATE_START_LF,   /* the CR of an empty line has arrived */
    STATE_HEAD,       /* start line and fields */
    STATE_LENGTH,     /* `remaining` bytes of body */
    STATE_CHUNK_LINE, /* the chunk size */
    STATE_CHUNK_DATA, /* `remaining` bytes of the chunk */
    STATE_CHUNK_CR,   /* CRLF behind the data */
    STATE_CHUNK_LF,
    STATE_TRAILERS,
    STATE_UNTIL_CLOSE, /* all there is, also raw bytes */
    STATE_END,         /* H1_END comes next */
    STATE_DONE,        /* between messages: waits for h1_parser_begin */
    STATE_FAILED,
};

enum {
    MAX_EMPTY_LINES = 4,
    MIN_PARTIAL_BYTES = 512,
    /* Interim responses have no end of their own: a server must not fill the exchange's arena with them. Each costs its
     * bytes and a surcharge for what the arena adds; the sum is bounded by this many heads of the largest size. */
    INTERIM_SURCHARGE_BYTES = 256,
    MAX_INTERIM_HEADS = 4,
};

void h1_parser_init(struct h1_parser *parser, enum h1_direction direction, const struct h1_limits *limits)
{
    *parser = (struct h1_parser){.limits = limits, .direction = (uint8_t)direction, .state = STATE_DONE};
}

void h1_parser_begin(struct h1_parser *parser, struct arena *arena, enum method request_method, bool upgrade_asked)
{
    assert(!h1_parser_has_begun(parser));
    parser->arena = arena;
    parser->request_method = request_method;
    parser->upgrade_asked = upgrade_asked;
    parser->head = NULL;
    parser->preamble = 0;
    parser->partial = NULL;
    parser->partial_len = parser->partial_capacity = 0;
    parser->chunk = (struct h1_chunk_line){.size = 0};
    parser->state = parser->direction == H1_REQUESTS ? STATE_START : STATE_HEAD;
}

/* What is wrong with a response is the upstream's fault, whatever the detail. */
static enum status for_direction(const struct h1_parser *parser, enum status status)
{
    if (parser->direction == H1_REQUESTS)
        return status;
    if (status == STATUS_HEAD_TOO_LARGE || status == STATUS_TOO_MANY_FIELDS)
        return STATUS_UPSTREAM_HEAD_TOO_LARGE;
    return STATUS_UPSTREAM_BAD_RESPONSE;
}

static enum h1_event fail(struct h1_parser *parser, enum status status)
{
    parser->state = STATE_FAILED;
    parser->status = status;
    return H1_FAILED;
}

static enum h1_event refuse(struct h1_parser *parser, enum status status)
{
    return fail(parser, for_direction(parser, status));
}

/* ---- sections: a head or a trailer section, up to its empty line ---- */

enum gathered { GATHERED_MORE, GATHERED_ALL, GATHERED_BARE_LF, GATHERED_TOO_LONG };

/*
 * Looks for the empty line in bytes[from..len); what lies before `from` has been looked at, so a head that arrives
 * slowly costs no more than one that arrives at once. ret_end is set behind the LF that decides.
 */
static enum gathered find_end(const char *bytes, size_t from, size_t len, size_t *ret_end)
{
    for (size_t i = from; i < len; i++) {
        const char *lf = memchr(bytes + i, '\n', len - i);
        if (!lf)
            return GATHERED_MORE;
        i = (size_t)(lf - bytes);
        bool bare = i == 0 || lf[-1] != '\r';
        if (bare || i == 1 || lf[-2] == '\n') {
            *ret_end = i + 1;
            return bare ? GATHERED_BARE_LF : GATHERED_ALL;
        }
    }
    return GATHERED_MORE;
}

static void reserve_partial(struct h1_parser *parser, size_t capacity)
{
    if (capacity <= parser->partial_capacity)
        return;
    char *bytes = arena_alloc(parser->arena, capacity);
    if (parser->partial_len > 0)
        memcpy(bytes, parser->partial, parser->partial_len);
    parser->partial = bytes;
    parser->partial_capacity = capacity;
}

static size_t capacity_for(const struct h1_parser *parser, size_t len)
{
    if (len <= parser->partial_capacity)
        return len;
    size_t capacity = len * 2 > MIN_PARTIAL_BYTES ? len * 2 : MIN_PARTIAL_BYTES;
    return capacity < parser->limits->max_head_bytes ? capacity : parser->limits->max_head_bytes;
}

static void append(struct h1_parser *parser, struct slice bytes, size_t capacity)
{
    reserve_partial(parser, capacity);
    memcpy(parser->partial + parser->partial_len, bytes.ptr, bytes.len);
    parser->partial_len += bytes.len;
}

/*
 * Moves input into the arena until the section is complete. One that arrives whole is looked at in place and copied
 * once, to exactly its length; one in pieces grows by doubling.
 */
static enum gathered gather(struct h1_parser *parser, struct slice *input)
{
    size_t before = parser->partial_len;
    size_t room = parser->limits->max_head_bytes - before;
    struct slice bytes = slice_make(input->ptr, input->len < room ? input->len : room);
    size_t end = before + bytes.len;
    enum gathered result;
    if (before == 0) {
        result = find_end(bytes.ptr, 0, bytes.len, &end);
        append(parser, slice_make(bytes.ptr, end), result == GATHERED_MORE ? capacity_for(parser, end) : end);
    } else {
        append(parser, bytes, capacity_for(parser, end));
        result = find_end(parser->partial, before, parser->partial_len, &end);
        parser->partial_len = end;
    }
    *input = slice_from(*input, end - before);
    return result == GATHERED_MORE && end == parser->limits->max_head_bytes ? GATHERED_TOO_LONG : result;
}

/* The gathered bytes; from here on only the arena owns them. */
static struct slice take_section(struct h1_parser *parser)
{
    struct slice section = slice_make(parser->partial, parser->partial_len);
    parser->partial = NULL;
    parser->partial_len = parser->partial_capacity = 0;
    return section;
}

/* ---- heads ---- */

static enum h1_event step_start(struct h1_parser *parser, struct slice *input)
{
    /* RFC 9112 section 2.2: a server should ignore an empty line before the request line. */
    if (input->ptr[0] != '\r') {
        parser->state = STATE_HEAD;
        return H1_NEED_MORE;
    }
    *input = slice_from(*input, 1);
    parser->state = STATE_START_LF;
    return H1_NEED_MORE;
}

static enum h1_event step_start_lf(struct h1_parser *parser, struct slice *input)
{
    if (input->ptr[0] != '\n')
        return refuse(parser, STATUS_BARE_CR);
    *input = slice_from(*input, 1);
    if (++parser->preamble > MAX_EMPTY_LINES)
        return refuse(parser, STATUS_BAD_REQUEST_LINE);
    parser->state = STATE_START;
    return H1_NEED_MORE;
}

/* The section ends before its empty line; still the access log wants to know what was asked for. */
static enum h1_event refuse_partial_head(struct h1_parser *parser, enum gathered why)
{
    struct slice section = take_section(parser);
    size_t start_len = why == GATHERED_BARE_LF ? section.len - 1 : section.len;
    bool in_start_line = memchr(section.ptr, '\n', start_len) == NULL;
    if (parser->direction == H1_REQUESTS)
        h1_head_name_request(section, parser->head);
    if (why == GATHERED_BARE_LF)
        return refuse(parser, in_start_line ? STATUS_BAD_REQUEST_LINE : STATUS_BAD_FIELD_VALUE);
    bool is_target = in_start_line && parser->direction == H1_REQUESTS;
    return refuse(parser, is_target ? STATUS_TARGET_TOO_LONG : STATUS_HEAD_TOO_LARGE);
}

static enum status read_request(struct h1_parser *parser, struct slice section)
{
    enum status status = h1_head_parse_request(section, parser->limits, parser->arena, parser->head);
    return status == STATUS_OK ? semantics_check_request(parser->head) : status;
}

static enum status read_response(struct h1_parser *parser, struct slice section)
{
    enum status status = h1_head_parse_response(section, parser->limits, parser->arena, parser->head);
    if (status == STATUS_OK)
        status = semantics_check_response(parser->head, parser->request_method, parser->upgrade_asked);
    return status;
}

static void enter_body(struct h1_parser *parser)
{
    switch (parser->head->body) {
    case BODY_NONE:
        parser->state = STATE_END;
        break;
    case BODY_LENGTH:
        parser->remaining = parser->head->content_length;
        parser->state = parser->remaining > 0 ? STATE_LENGTH : STATE_END;
        break;
    case BODY_CHUNKED:
        parser->state = STATE_CHUNK_LINE;
        break;
    case BODY_UNTIL_CLOSE:
    case BODY_RAW:
        parser->state = STATE_UNTIL_CLOSE;
        break;
    }
}

static enum h1_event step_head(struct h1_parser *parser, struct slice *input)
{
    enum gathered gathered = gather(parser, input);
    if (gathered == GATHERED_MORE)
        return H1_NEED_MORE;
    parser->head = arena_alloc_zeroed(parser->arena, sizeof *parser->head);
    if (gathered != GATHERED_ALL)
        return refuse_partial_head(parser, gathered);
    struct slice section = take_section(parser);
    enum status status =
        parser->direction == H1_REQUESTS ? read_request(parser, section) : read_response(parser, section);
    if (status != STATUS_OK)
        return refuse(parser, status);
    if (!head_is_interim(parser->head)) {
        enter_body(parser);
        return H1_HEAD;
    }
    parser->preamble += (uint32_t)section.len + INTERIM_SURCHARGE_BYTES;
    if (parser->preamble > parser->limits->max_head_bytes * MAX_INTERIM_HEADS)
        return refuse(parser, STATUS_HEAD_TOO_LARGE);
    return H1_HEAD;
}

/* ---- bodies ---- */

static enum h1_event step_counted(struct h1_parser *parser, struct slice *input, enum state next)
{
    size_t len = input->len < parser->remaining ? input->len : (size_t)parser->remaining;
    parser->body = slice_make(input->ptr, len);
    *input = slice_from(*input, len);
    parser->remaining -= len;
    if (parser->remaining == 0)
        parser->state = (uint8_t)next;
    return H1_BODY;
}

static enum h1_event step_until_close(struct h1_parser *parser, struct slice *input)
{
    parser->body = *input;
    *input = slice_from(*input, input->len);
    return H1_BODY;
}

static enum h1_event step_chunk_line(struct h1_parser *parser, struct slice *input)
{
    switch (h1_chunk_line_feed(&parser->chunk, input)) {
    case H1_CHUNK_MORE:
        break;
    case H1_CHUNK_READY:
        parser->remaining = parser->chunk.size;
        parser->state = parser->remaining > 0 ? STATE_CHUNK_DATA : STATE_TRAILERS;
        h1_chunk_line_begin(&parser->chunk);
        break;
    case H1_CHUNK_INVALID:
        return refuse(parser, STATUS_CHUNK_INVALID);
    }
    return H1_NEED_MORE;
}

static enum h1_event step_chunk_crlf(struct h1_parser *parser, struct slice *input, char expected, enum state next)
{
    if (input->ptr[0] != expected)
        return refuse(parser, STATUS_CHUNK_INVALID);
    *input = slice_from(*input, 1);
    parser->state = (uint8_t)next;
    return H1_NEED_MORE;
}

static enum h1_event step_trailers(struct h1_parser *parser, struct slice *input)
{
    enum gathered gathered = gather(parser, input);
    if (gathered == GATHERED_MORE)
        return H1_NEED_MORE;
    struct slice section = take_section(parser);
    if (gathered != GATHERED_ALL)
        return refuse(parser, gathered == GATHERED_TOO_LONG ? STATUS_HEAD_TOO_LARGE : STATUS_TRAILER_INVALID);
    parser->trailers = FIELDS_NONE;
    enum status status = h1_head_parse_fields(section, parser->limits, parser->arena, &parser->trailers);
    if (status != STATUS_OK)
        return refuse(parser, status == STATUS_TOO_MANY_FIELDS ? status : STATUS_TRAILER_INVALID);
    semantics_filter_trailers(&parser->trailers);
    parser->state = STATE_END;
    return parser->trailers.count > 0 ? H1_TRAILERS : H1_NEED_MORE;
}

/* ---- the machine ---- */

/* Uses some input. H1_NEED_MORE: no event came of it. */
static enum h1_event step(struct h1_parser *parser, struct slice *input)
{
    switch ((enum state)parser->state) {
    case STATE_START:
        return step_start(parser, input);
    case STATE_START_LF:
        return step_start_lf(parser, input);
    case STATE_HEAD:
        return step_head(parser, input);
    case STATE_LENGTH:
        return step_counted(parser, input, STATE_END);
    case STATE_CHUNK_LINE:
        return step_chunk_line(parser, input);
    case STATE_CHUNK_DATA:
        return step_counted(parser, input, STATE_CHUNK_CR);
    case STATE_CHUNK_CR:
        return step_chunk_crlf(parser, input, '\r', STATE_CHUNK_LF);
    case STATE_CHUNK_LF:
        return step_chunk_crlf(parser, input, '\n', STATE_CHUNK_LINE);
    case STATE_TRAILERS:
        return step_trailers(parser, input);
    case STATE_UNTIL_CLOSE:
        return step_until_close(parser, input);
    case STATE_END:
    case STATE_DONE:
    case STATE_FAILED:
        break;
    }
    return H1_FAILED;
}

enum h1_event h1_parser_feed(struct h1_parser *parser, const char *data, size_t len, size_t *ret_used)
{
    struct slice input = slice_make(data, len);
    enum h1_event event = H1_NEED_MORE;
    assert(parser->state != STATE_DONE);
    while (event == H1_NEED_MORE && input.len > 0 && parser->state != STATE_END)
        event = step(parser, &input);
    if (event == H1_NEED_MORE && parser->state == STATE_END) {
        parser->state = STATE_DONE;
        event = H1_END;
    }
    *ret_used = len - input.len;
    return parser->state == STATE_FAILED ? H1_FAILED : event;
}

enum h1_event h1_parser_eof(struct h1_parser *parser)
{
    switch ((enum state)parser->state) {
    case STATE_DONE:
        return H1_NEED_MORE;
    case STATE_START:
    case STATE_START_LF:
    case STATE_HEAD:
        return h1_parser_has_begun(parser) ? fail(parser, STATUS_PEER_CLOSED) : H1_NEED_MORE;
    case STATE_END:
    case STATE_UNTIL_CLOSE:
        parser->state = STATE_DONE;
        return H1_END;
    case STATE_LENGTH:
    case STATE_CHUNK_LINE:
    case STATE_CHUNK_DATA:
    case STATE_CHUNK_CR:
    case STATE_CHUNK_LF:
    case STATE_TRAILERS:
        return fail(parser, parser->direction == H1_REQUESTS ? STATUS_CLIENT_CANCELLED : STATUS_UPSTREAM_TRUNCATED);
    case STATE_FAILED:
        break;
    }
    return H1_FAILED;
}

bool h1_parser_is_last(const struct h1_parser *parser)
{
    return parser->state == STATE_END;
}

bool h1_parser_has_begun(const struct h1_parser *parser)
{
    switch ((enum state)parser->state) {
    case STATE_START:
    case STATE_START_LF:
    case STATE_DONE:
        return false;
    case STATE_HEAD: /* an interim response is a part of the answer */
        return parser->partial_len > 0 || (parser->direction == H1_RESPONSES && parser->preamble > 0);
    case STATE_LENGTH:
    case STATE_CHUNK_LINE:
    case STATE_CHUNK_DATA:
    case STATE_CHUNK_CR:
    case STATE_CHUNK_LF:
    case STATE_TRAILERS:
    case STATE_UNTIL_CLOSE:
    case STATE_END:
    case STATE_FAILED:
        break;
    }
    return true;
}
