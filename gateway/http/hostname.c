#include "gateway/http/hostname.h"

#include <assert.h>

enum { MAX_PORT_DIGITS = 5 };

static bool is_alnum(char c)
{
    return ascii_is_digit(c) || (c >= 'a' && c <= 'z');
}

bool hostname_is_id(struct slice id)
{
    if (id.len == 0 || id.len > HOSTNAME_MAX_LABEL || !is_alnum(id.ptr[0]) || !is_alnum(id.ptr[id.len - 1]))
        return false;
    for (size_t i = 0; i < id.len; i++)
        if (!is_alnum(id.ptr[i]) && id.ptr[i] != '-')
            return false;
    return true;
}

/* The bytes before the first dot. */
static struct slice first_label(struct slice name)
{
    const char *dot = name.len > 0 ? memchr(name.ptr, '.', name.len) : NULL;
    return slice_make(name.ptr, dot ? (size_t)(dot - name.ptr) : name.len);
}

/*
 * A label has the same letters as an id. The last one begins with a letter (RFC 3696 section 2): that keeps IPv4
 * addresses in all their spellings out.
 */
bool hostname_is_dns_name(struct slice name)
{
    if (name.len > HOSTNAME_MAX)
        return false;
    struct slice label = first_label(name);
    while (hostname_is_id(label)) {
        if (label.len == name.len)
            return !ascii_is_digit(label.ptr[0]);
        name = slice_from(name, label.len + 1);
        label = first_label(name);
    }
    return false;
}

static bool is_under(struct slice name, struct slice base)
{
    return name.len > base.len && name.ptr[name.len - base.len - 1] == '.' &&
           slice_eq(slice_from(name, name.len - base.len), base);
}

/* The longest base domain that `name` is or is under; base_count if there is none. */
static size_t find_base(struct slice name, const struct slice *bases, size_t base_count)
{
    size_t found = base_count;
    for (size_t i = 0; i < base_count; i++) {
        if (!slice_eq(name, bases[i]) && !is_under(name, bases[i]))
            continue;
        if (found == base_count || bases[i].len > bases[found].len)
            found = i;
    }
    return found;
}

/* [<port>][s|g], not empty: fills mode, port and has_port. */
static bool parse_suffix(struct slice suffix, struct hostname *h)
{
    enum hostname_mode mode = HOSTNAME_MODE_DEFAULT;
    uint64_t port;
    if (suffix.len == 0)
        return false;
    char last = suffix.ptr[suffix.len - 1];
    if (last == 's' || last == 'g') {
        mode = last == 's' ? HOSTNAME_MODE_PASSTHROUGH : HOSTNAME_MODE_GRPC;
        suffix.len--;
    }
    if (suffix.len > 0) {
        if (suffix.len > MAX_PORT_DIGITS || suffix.ptr[0] == '0' || !slice_to_u64(suffix, &port) || port > UINT16_MAX)
            return false;
        h->has_port = true;
        h->port = (uint16_t)port;
    } else if (mode == HOSTNAME_MODE_PASSTHROUGH) {
        h->port = HOSTNAME_DEFAULT_TLS_PORT;
    }
    h->mode = mode;
    return true;
}

/* The label is an id; so is what precedes a hyphen in it, if it ends like one. */
static void parse_app_label(struct slice label, struct hostname *h)
{
    h->kind = HOSTNAME_APP;
    h->port = HOSTNAME_DEFAULT_PORT;
    memcpy(h->label, label.ptr, label.len);
    h->id_len = h->whole_len = (uint8_t)label.len;
    const char *hyphen = memrchr(label.ptr, '-', label.len);
    if (!hyphen)
        return;
    struct slice id = slice_make(label.ptr, (size_t)(hyphen - label.ptr));
    if (is_alnum(hyphen[-1]) && parse_suffix(slice_from(label, id.len + 1), h))
        h->id_len = (uint8_t)id.len;
}

/* A name under the base domain: one label, and nothing else. */
static void parse_label(struct slice label, struct hostname *h)
{
    if (!hostname_is_id(label))
        h->kind = HOSTNAME_INVALID;
    else if (slice_eq(label, SLICE("health")))
        h->kind = HOSTNAME_HEALTH;
    else
        parse_app_label(label, h);
}

void hostname_parse(struct slice host, const struct slice *base_domains, size_t base_count, struct hostname *ret)
{
    char lower[HOSTNAME_MAX];
    assert(base_count <= UINT8_MAX + 1);
    *ret = (struct hostname){.kind = HOSTNAME_INVALID};
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (host.len > HOSTNAME_MAX)
        return;
    ascii_lower_copy(lower, host);
    struct slice name = slice_make(lower, host.len);
    size_t base = find_base(name, base_domains, base_count);
    if (base == base_count) {
        ret->kind = hostname_is_dns_name(name) ? HOSTNAME_CUSTOM : HOSTNAME_INVALID;
        return;
    }
    ret->base_index = (uint8_t)base;
    if (name.len == base_domains[base].len)
        ret->kind = HOSTNAME_BASE;
    else
        parse_label(slice_make(name.ptr, name.len - base_domains[base].len - 1), ret);
}

size_t hostname_plain(struct slice host, char ret_name[HOSTNAME_MAX + 1])
{
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (host.len > HOSTNAME_MAX)
        host.len = 0;
    ascii_lower_copy(ret_name, host);
    ret_name[host.len] = '\0';
    return host.len;
}
