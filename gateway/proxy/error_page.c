#include "gateway/proxy/error_page.h"

#include "gateway/proxy/access_text.h"

#include <stdio.h>

/* In the order of preference when the client has none. */
enum media { MEDIA_TEXT, MEDIA_JSON, MEDIA_HTML, MEDIA_COUNT };

static const struct slice content_types[MEDIA_COUNT] = {
    [MEDIA_TEXT] = SLICE_INIT("text/plain; charset=utf-8"),
    [MEDIA_JSON] = SLICE_INIT("application/problem+json"),
    [MEDIA_HTML] = SLICE_INIT("text/html; charset=utf-8"),
};

/* ---- Accept (RFC 9110 section 12.5.1) ---- */

/* How much the client wants a media type: by weight, then by how closely it names it, then by who is named first. */
struct wish {
    unsigned weight;    /* thousandths */
    unsigned precision; /* 0: not named, 1: all types, 2: type with any subtype, 3: the type */
    unsigned position;
};

/* The qvalue of RFC 9110 section 12.4.2 in thousandths; a malformed one counts as 0. */
static unsigned parse_weight(struct slice s)
{
    if (s.len == 0 || s.len > 5 || (s.ptr[0] != '0' && s.ptr[0] != '1') || (s.len > 1 && s.ptr[1] != '.'))
        return 0;
    unsigned value = s.ptr[0] == '1' ? 1000 : 0, digit = 100;
    for (size_t i = 2; i < s.len; i++, digit /= 10) {
        if (!ascii_is_digit(s.ptr[i]))
            return 0;
        value += (unsigned)(s.ptr[i] - '0') * digit;
    }
    return value <= 1000 ? value : 0;
}

/* Cuts off what stands before the next separator. */
static struct slice next_part(struct slice *rest, char separator)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, separator, rest->len) : NULL;
    struct slice part = slice_make(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
    *rest = slice_from(*rest, part.len + 1);
    return slice_trim(part);
}

static unsigned weight_of(struct slice parameters)
{
    while (parameters.len > 0) {
        struct slice parameter = next_part(&parameters, ';');
        if (parameter.len >= 2 && ascii_lower(parameter.ptr[0]) == 'q' && parameter.ptr[1] == '=')
            return parse_weight(slice_from(parameter, 2));
    }
    return 1000;
}

static bool is_json_suffix(struct slice subtype)
{
    const struct slice suffix = SLICE("+json");
    return subtype.len > suffix.len && slice_eq_nocase(slice_from(subtype, subtype.len - suffix.len), suffix);
}

/* How closely the media range names what we can send; 0 if it does not. */
static unsigned precision_for(struct slice range, enum media media)
{
    struct slice subtype = range;
    struct slice type = next_part(&subtype, '/');
    bool any = slice_eq(subtype, SLICE("*"));
    if (any && slice_eq(type, SLICE("*")))
        return 1;
    bool is_ours = slice_eq_nocase(type, media == MEDIA_JSON ? SLICE("application") : SLICE("text"));
    if (!is_ours || any)
        return is_ours ? 2 : 0;
    bool named = false;
    switch (media) {
    case MEDIA_TEXT:
        named = slice_eq_nocase(subtype, SLICE("plain"));
        break;
    case MEDIA_JSON:
        named = slice_eq_nocase(subtype, SLICE("json")) || is_json_suffix(subtype);
        break;
    case MEDIA_HTML:
        named = slice_eq_nocase(subtype, SLICE("html"));
        break;
    case MEDIA_COUNT:
        break;
    }
    return named ? 3 : 0;
}

/* The closest range decides about a type, and of several as close (both of our JSON types) the heaviest. */
static void note_range(struct wish *wish, unsigned precision, unsigned weight, unsigned position)
{
    if (precision > wish->precision || (precision == wish->precision && precision > 0 && weight > wish->weight))
        *wish = (struct wish){.weight = weight, .precision = precision, .position = position};
}

static bool is_stronger(struct wish a, struct wish b)
{
    if (a.weight != b.weight)
        return a.weight > b.weight;
    if (a.weight == 0) /* refused, or not named */
        return false;
    if (a.precision != b.precision)
        return a.precision > b.precision;
    return a.position < b.position;
}

static enum media choose(struct slice accept)
{
    struct wish wishes[MEDIA_COUNT] = {0};
    struct slice element;
    for (unsigned position = 0; slice_next_element(&accept, &element); position++) {
        struct slice parameters = element;
        struct slice range = next_part(&parameters, ';');
        unsigned weight = weight_of(parameters);
        for (int media = 0; media < MEDIA_COUNT; media++)
            note_range(&wishes[media], precision_for(range, (enum media)media), weight, position);
    }
    int best = MEDIA_TEXT;
    for (int media = MEDIA_TEXT + 1; media < MEDIA_COUNT; media++)
        if (is_stronger(wishes[media], wishes[best]))
            best = media;
    return (enum media)best;
}

/* ---- text ---- */

enum { SHOWN_MAX = 512 }; /* bytes of a value that comes from the request */

static struct slice escape(struct slice s, enum access_escape how, struct arena *arena)
{
    char *buffer = arena_alloc(arena, SHOWN_MAX);
    struct access_text text = {buffer, buffer + SHOWN_MAX};
    access_text_put_escaped(&text, s, SHOWN_MAX, how);
    return slice_make(buffer, (size_t)(text.next - buffer));
}

static struct slice entity_of(char c)
{
    switch (c) {
    case '&':
        return SLICE("&amp;");
    case '<':
        return SLICE("&lt;");
    case '>':
        return SLICE("&gt;");
    case '"':
        return SLICE("&quot;");
    case '\'':
        return SLICE("&#39;");
    default:
        return SLICE_NONE;
    }
}

/* For text and for quoted attributes. */
static struct slice escape_html(struct slice s, struct arena *arena)
{
    struct slice plain = escape(s, ACCESS_ESCAPE_PLAIN, arena);
    char *buffer = arena_alloc(arena, plain.len * 6);
    size_t len = 0;
    for (size_t i = 0; i < plain.len; i++) {
        struct slice entity = entity_of(plain.ptr[i]);
        if (entity.len == 0)
            entity = slice_make(&plain.ptr[i], 1);
        memcpy(buffer + len, entity.ptr, entity.len);
        len += entity.len;
    }
    return slice_make(buffer, len);
}

/* ---- the three bodies ---- */

struct problem {
    int http;
    const char *reason;
    const char *code;
    struct slice what;
    struct slice advice;
    struct slice host;
    struct slice request_id;
    bool reloads; /* the page asks again by itself */
};

static struct slice make_text(const struct problem *p, struct arena *arena)
{
    struct slice id = escape(p->request_id, ACCESS_ESCAPE_PLAIN, arena);
    struct slice host = escape(p->host, ACCESS_ESCAPE_PLAIN, arena);
    return arena_printf(arena, "%d %s: %.*s (%s)\n%.*s%s%s%.*s%s%s%.*s%s", p->http, p->reason, SLICE_ARG(p->what),
                        p->code, SLICE_ARG(p->advice), p->advice.len ? "\n" : "", host.len ? "Host: " : "",
                        SLICE_ARG(host), host.len ? "\n" : "", id.len ? "Request id: " : "", SLICE_ARG(id),
                        id.len ? "\n" : "");
}

/* , "name": "value", or nothing. */
static struct slice json_member(const char *name, struct slice value, struct arena *arena)
{
    if (value.len == 0)
        return SLICE_NONE;
    struct slice escaped = escape(value, ACCESS_ESCAPE_JSON, arena);
    return arena_printf(arena, ",\"%s\":\"%.*s\"", name, SLICE_ARG(escaped));
}

/* RFC 9457; the type about:blank has the status's reason as its title. */
static struct slice make_json(const struct problem *p, struct arena *arena)
{
    struct slice detail = json_member("detail", p->what, arena);
    struct slice advice = json_member("advice", p->advice, arena);
    struct slice host = json_member("host", p->host, arena);
    struct slice id = json_member("request_id", p->request_id, arena);
    return arena_printf(
        arena, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\"%.*s%.*s%.*s%.*s}\n", p->reason,
        p->http, p->code, SLICE_ARG(detail), SLICE_ARG(advice), SLICE_ARG(host), SLICE_ARG(id));
}

static const char style[] =
    ":root{color-scheme:light dark}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;font:1rem/1.5 system-ui,sans-serif;"
    "color:#1b1f24;background:#f6f7f9}"
    "main{max-width:34rem;padding:2rem}"
    "h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0 1rem}"
    ".status{margin:0;color:#57606a}"
    "dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;margin:2rem 0 0;font-size:.9rem}"
    "dt{color:#57606a}"
    "dd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,monospace}"
    "@media(prefers-color-scheme:dark){body{color:#e6e9ed;background:#14171b}.status,dt{color:#9aa4af}}";

static struct slice html_row(const char *name, struct slice value, struct arena *arena)
{
    if (value.len == 0)
        return SLICE_NONE;
    struct slice escaped = escape_html(value, arena);
    return arena_printf(arena, "<dt>%s</dt><dd>%.*s</dd>\n", name, SLICE_ARG(escaped));
}

static struct slice html_head(const struct problem *p, struct slice what, struct arena *arena)
{
    return arena_printf(arena,
                        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                        "<meta name=\"robots\" content=\"noindex\">\n%s"
                        "<title>%d %.*s</title>\n<style>%s</style>\n</head>\n",
                        p->reloads ? "<meta http-equiv=\"refresh\" content=\"5\">\n" : "", p->http, SLICE_ARG(what),
                        style);
}

static struct slice make_html(const struct problem *p, struct arena *arena)
{
    struct slice what = escape_html(p->what, arena);
    struct slice head = html_head(p, what, arena);
    struct slice advice = escape_html(p->advice, arena);
    struct slice host = html_row("Host", p->host, arena);
    struct slice id = html_row("Request id", p->request_id, arena);
    return arena_printf(arena,
                        "%.*s<body>\n<main>\n<p class=\"status\">%d %s</p>\n<h1>%c%.*s</h1>\n<p>%.*s</p>\n%s"
                        "<dl>\n%.*s<dt>Error code</dt><dd>%s</dd>\n%.*s</dl>\n</main>\n</body>\n</html>\n",
                        SLICE_ARG(head), p->http, p->reason, what.ptr[0] & ~0x20, SLICE_ARG(slice_from(what, 1)),
                        SLICE_ARG(advice), p->reloads ? "<p>This page asks again every 5 seconds.</p>\n" : "",
                        SLICE_ARG(host), p->code, SLICE_ARG(id));
}

static struct slice make_body(enum media media, const struct problem *p, struct arena *arena)
{
    switch (media) {
    case MEDIA_TEXT:
        return make_text(p, arena);
    case MEDIA_JSON:
        return make_json(p, arena);
    case MEDIA_HTML:
        return make_html(p, arena);
    case MEDIA_COUNT:
        break;
    }
    return SLICE_NONE;
}

void error_page_make(enum status status, struct slice accept, struct slice host, struct slice request_id,
                     struct arena *arena, struct error_page *ret_page)
{
    int http = status_http(status) != 0 ? status_http(status) : status_http(STATUS_INTERNAL);
    struct problem problem = {
        .http = http,
        .reason = status_reason(http),
        .code = status_code(status),
        .what = slice_str(status_what(status)),
        .advice = slice_str(status_advice(status)),
        .host = host,
        .request_id = request_id,
        .reloads = status == STATUS_APP_STARTING,
    };
    enum media media = choose(accept);
    *ret_page = (struct error_page){.content_type = content_types[media], .body = make_body(media, &problem, arena)};
}
