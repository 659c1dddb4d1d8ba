#include "gateway/http/semantics.h"

#include <assert.h>

#define SET(id) (1ULL << FIELD_##id)

/*
 * Fields of one connection only (RFC 9110 section 7.6.1), and those that are rewritten from members of the head. In
 * trailers the same must not be (RFC 9110 section 6.5.1).
 */
static const uint64_t hop_by_hop = SET(CONNECTION) | SET(CONTENT_LENGTH) | SET(EXPECT) | SET(HOST) |
                                   SET(HTTP2_SETTINGS) | SET(KEEP_ALIVE) | SET(PROXY_AUTHENTICATE) |
                                   SET(PROXY_AUTHORIZATION) | SET(PROXY_CONNECTION) | SET(TE) | SET(TRANSFER_ENCODING) |
                                   SET(UPGRADE);

/* What tells the CVM who asks. Only a trusted peer may say it. */
static const uint64_t identity = SET(FORWARDED) | SET(X_FORWARDED_FOR) | SET(X_FORWARDED_HOST) | SET(X_FORWARDED_PORT) |
                                 SET(X_FORWARDED_PROTO) | SET(X_REAL_IP) | SET(X_REQUEST_ID);

static bool is_in(uint64_t set, enum field_id id)
{
    return (set >> id & 1U) != 0;
}

/* ---- fields named by Connection ---- */

struct named {
    uint64_t ids;
    size_t other_count;
    struct slice others[SEMANTICS_MAX_CONNECTION_OPTIONS];
};

static void collect_named(const struct fields *fields, struct named *named)
{
    named->ids = 0;
    named->other_count = 0;
    if (!fields_has(fields, FIELD_CONNECTION))
        return;
    for (size_t i = 0; i < fields->count; i++) {
        struct slice list = fields->items[i].value, option;
        if (fields->items[i].id != FIELD_CONNECTION)
            continue;
        while (slice_next_element(&list, &option)) {
            enum field_id id = field_id_of(option);
            named->ids |= 1ULL << id;
            if (id != FIELD_OTHER || slice_eq_nocase(option, SLICE("close")))
                continue;
            assert(named->other_count < SEMANTICS_MAX_CONNECTION_OPTIONS);
            named->others[named->other_count++] = option;
        }
    }
    named->ids &= ~(1ULL << FIELD_OTHER);
}

static bool is_named(const struct named *named, struct slice name)
{
    for (size_t i = 0; i < named->other_count; i++)
        if (slice_eq_nocase(named->others[i], name))
            return true;
    return false;
}

/* ---- names ---- */

/* "Proxy" itself too: CGI programs read it as the variable HTTP_PROXY. */
static bool is_proxy_name(struct slice name)
{
    return name.len >= 5 && ascii_lower(name.ptr[0]) == 'p' &&
           slice_eq_nocase(slice_make(name.ptr, 5), SLICE("proxy")) && (name.len == 5 || name.ptr[5] == '-');
}

/*
 * Many servers hand fields to programs as variables in which every mark has become "_". A name that is a known one but
 * for its marks (X_Forwarded_For, Content_Length, X.Real-IP) would there pass for the known one. Returns its id.
 */
static enum field_id id_of_lookalike(struct slice name)
{
    char plain[24];
    size_t marks = 0;
    if (name.len > sizeof plain)
        return FIELD_OTHER;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], lower = (char)(c | 0x20);
        bool is_plain = c == '-' || ascii_is_digit(c) || (lower >= 'a' && lower <= 'z');
        plain[i] = is_plain ? c : '-';
        marks += !is_plain;
    }
    return marks > 0 ? field_id_of(slice_make(plain, name.len)) : FIELD_OTHER;
}

/* Whether a field of a request whose name is not in the table stays here. */
static bool is_dropped_name(const struct named *named, struct slice name)
{
    return is_proxy_name(name) || is_in(hop_by_hop | identity, id_of_lookalike(name)) || is_named(named, name);
}

/* ---- values ---- */

static struct slice join(struct arena *arena, struct slice a, struct slice b)
{
    char *text = arena_alloc(arena, a.len + b.len);
    if (a.len > 0)
        memcpy(text, a.ptr, a.len);
    if (b.len > 0)
        memcpy(text + a.len, b.ptr, b.len);
    return slice_make(text, a.len + b.len);
}

static size_t put_element(char *list, size_t len, struct slice element)
{
    if (element.len == 0)
        return len;
    if (len > 0) {
        memcpy(list + len, ", ", 2);
        len += 2;
    }
    memcpy(list + len, element.ptr, element.len);
    return len + element.len;
}

/* The values of all fields with this id and `last`, as one list. */
static struct slice extend_list(const struct fields *fields, enum field_id id, struct slice last, struct arena *arena)
{
    size_t size = last.len, len = 0;
    for (size_t i = 0; i < fields->count; i++)
        size += fields->items[i].id == id ? fields->items[i].value.len + 2 : 0;
    char *text = arena_alloc(arena, size);
    for (size_t i = 0; i < fields->count; i++)
        if (fields->items[i].id == id)
            len = put_element(text, len, fields->items[i].value);
    return slice_make(text, put_element(text, len, last));
}

/* RFC 9110 section 7.6.3: the version received, and who received it. */
static struct slice via_value(enum http_version version, struct slice pseudonym, struct arena *arena)
{
    switch (version) {
    case HTTP_1_0:
        return join(arena, SLICE("1.0 "), pseudonym);
    case HTTP_1_1:
        if (slice_eq(pseudonym, SLICE("phala-gateway")))
            return SLICE("1.1 phala-gateway");
        return join(arena, SLICE("1.1 "), pseudonym);
    case HTTP_2:
        return join(arena, SLICE("2 "), pseudonym);
    }
    return SLICE_NONE;
}

/* Via of several hops is one list (RFC 9110 section 5.3): ours ends it as a field of its own, nothing is copied. */
static void add_via(struct fields *out, enum http_version version, struct slice pseudonym, struct arena *arena)
{
    fields_add_known(out, arena, FIELD_VIA, via_value(version, pseudonym, arena));
}

/* ---- requests ---- */

static void add_unless_kept(struct fields *out, struct arena *arena, enum field_id id, struct slice value)
{
    if (value.len > 0 && !fields_has(out, id))
        fields_add_known(out, arena, id, value);
}

/*
 * Those that a trusted peer has sent were copied before and stay. X-Forwarded-For is never copied but extended, and
 * X-Request-Id is what the caller has taken from it, so that the CVM gets what the access log has.
 */
static void add_identity(const struct message_head *in, const struct forward_params *params, struct arena *arena,
                         struct fields *out)
{
    struct slice addresses = params->client_address;
    if (params->peer_is_trusted && fields_has(&in->fields, FIELD_X_FORWARDED_FOR))
        addresses = extend_list(&in->fields, FIELD_X_FORWARDED_FOR, addresses, arena);
    add_unless_kept(out, arena, FIELD_X_FORWARDED_FOR, addresses);
    add_unless_kept(out, arena, FIELD_X_FORWARDED_PROTO, params->proto);
    add_unless_kept(out, arena, FIELD_X_FORWARDED_HOST, in->authority);
    add_unless_kept(out, arena, FIELD_X_FORWARDED_PORT, params->port);
    add_unless_kept(out, arena, FIELD_X_REAL_IP, params->client_address);
    add_unless_kept(out, arena, FIELD_X_REQUEST_ID, params->request_id);
}

/* Connection cannot name away what the gateway vouches for. */
static uint64_t dropped_of_request(const struct named *named, bool peer_is_trusted)
{
    uint64_t claimed = peer_is_trusted ? SET(X_FORWARDED_FOR) | SET(X_REQUEST_ID) : identity;
    return hop_by_hop | claimed | (named->ids & ~identity);
}

void semantics_forward_request(const struct message_head *in, const struct forward_params *params, struct arena *arena,
                               struct message_head *ret_out)
{
    enum { ADDED = 8 };
    struct named named;
    struct fields out = FIELDS_NONE;
    collect_named(&in->fields, &named);
    uint64_t dropped = dropped_of_request(&named, params->peer_is_trusted);
    fields_reserve(&out, arena, in->fields.count + ADDED);
    fields_add_known(&out, arena, FIELD_HOST, in->authority);
    for (size_t i = 0; i < in->fields.count; i++) {
        const struct field *field = &in->fields.items[i];
        if (!is_in(dropped, field->id) && (field->id != FIELD_OTHER || !is_dropped_name(&named, field->name)))
            fields_append(&out, arena, *field);
    }
    add_identity(in, params, arena, &out);
    add_via(&out, in->version, params->via, arena);
    *ret_out = *in;
    ret_out->fields = out;
    ret_out->close = false;
    if (in->path.len > 0 && in->path.ptr[0] == '?')
        ret_out->path = join(arena, SLICE("/"), in->path);
}

/* ---- responses ---- */

void semantics_forward_response(const struct message_head *in, struct slice via, struct arena *arena,
                                struct message_head *ret_out)
{
    enum { ADDED = 2 }; /* Via, and the caller's Date */
    struct named named;
    struct fields out = FIELDS_NONE;
    collect_named(&in->fields, &named);
    uint64_t dropped = hop_by_hop | SET(X_GATEWAY_ERROR) | named.ids;
    fields_reserve(&out, arena, in->fields.count + ADDED);
    for (size_t i = 0; i < in->fields.count; i++) {
        const struct field *field = &in->fields.items[i];
        if (!is_in(dropped, field->id) && !(field->id == FIELD_OTHER && is_named(&named, field->name)))
            fields_append(&out, arena, *field);
    }
    add_via(&out, in->version, via, arena);
    *ret_out = *in;
    ret_out->fields = out;
    ret_out->close = false;
}

/* ---- trailers ---- */

/* Known fields that steer how a message is read, routed, authenticated or answered (RFC 9110 section 6.5.1). */
static const uint64_t never_in_trailers = SET(AUTHORIZATION) | SET(CONTENT_TYPE) | SET(COOKIE) | SET(DATE) |
                                          SET(IF_MATCH) | SET(LOCATION) | SET(MAX_FORWARDS) | SET(PRIORITY) |
                                          SET(RETRY_AFTER) | SET(SEC_WEBSOCKET_ACCEPT) | SET(SEC_WEBSOCKET_KEY) |
                                          SET(TRAILER) | SET(VIA) | SET(X_GATEWAY_ERROR);

static bool is_control_name(struct slice name)
{
    static const struct slice names[] = {
        SLICE_INIT("age"),           SLICE_INIT("cache-control"), SLICE_INIT("content-encoding"),
        SLICE_INIT("content-range"), SLICE_INIT("expires"),       SLICE_INIT("if-modified-since"),
        SLICE_INIT("if-none-match"), SLICE_INIT("if-range"),      SLICE_INIT("if-unmodified-since"),
        SLICE_INIT("pragma"),        SLICE_INIT("range"),         SLICE_INIT("set-cookie"),
        SLICE_INIT("vary"),          SLICE_INIT("warning"),       SLICE_INIT("www-authenticate"),
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (slice_eq_nocase(name, names[i]))
            return true;
    return is_proxy_name(name);
}

static bool is_trailer_allowed(const struct field *field)
{
    uint64_t forbidden = hop_by_hop | identity | never_in_trailers;
    if (field->id != FIELD_OTHER)
        return !is_in(forbidden, field->id);
    return !is_in(forbidden, id_of_lookalike(field->name)) && !is_control_name(field->name);
}

void semantics_filter_trailers(struct fields *trailers)
{
    size_t kept = 0;
    trailers->present = 0;
    for (size_t i = 0; i < trailers->count; i++) {
        struct field field = trailers->items[i];
        if (!is_trailer_allowed(&field))
            continue;
        trailers->items[kept++] = field;
        trailers->present |= 1ULL << field.id;
    }
    trailers->count = kept;
}
