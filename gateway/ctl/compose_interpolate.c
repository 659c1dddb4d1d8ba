#include "gateway/ctl/compose.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_NESTING = 8, MAX_VALUE_BYTES = 1 << 16, MAX_NAME = 128 };

struct expansion {
    compose_env_cb env;
    void *env_arg;
    bool is_lenient; /* a variable that is not set is empty */
    char *error;
    FILE *out;
    size_t written;
};

static bool expand(struct expansion *e, struct slice text, unsigned depth);

static bool fail(struct expansion *e, const char *what, struct slice where)
{
    snprintf(e->error, COMPOSE_ERROR_MAX, "%s: %.*s", what, (int)(where.len < 200 ? where.len : 200), where.ptr);
    return false;
}

static bool put(struct expansion *e, struct slice text)
{
    if (text.len > MAX_VALUE_BYTES - e->written)
        return fail(e, "the value is too long after its variables were filled in", SLICE(""));
    e->written += text.len;
    fwrite(text.ptr ? text.ptr : "", 1, text.len, e->out);
    return true;
}

static bool is_name_byte(char c, bool first)
{
    char lower = ascii_lower(c);
    return c == '_' || (lower >= 'a' && lower <= 'z') || (!first && ascii_is_digit(c));
}

static size_t name_len(struct slice text)
{
    size_t len = 0;
    while (len < text.len && is_name_byte(text.ptr[len], len == 0))
        len++;
    return len;
}

static const char *value_of(struct expansion *e, struct slice name)
{
    char text[MAX_NAME];
    if (name.len >= sizeof text)
        return NULL;
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    return e->env(e->env_arg, text);
}

static bool fail_unset(struct expansion *e, struct slice name)
{
    int len = (int)(name.len < 100 ? name.len : 100);
    snprintf(e->error, COMPOSE_ERROR_MAX, "the variable %.*s is not set; export it, or write ${%.*s:-default}", len,
             name.ptr, len, name.ptr);
    return false;
}

static bool put_unset(struct expansion *e, struct slice name)
{
    return e->is_lenient || fail_unset(e, name);
}

/* ${NAME?why}: the file says what is missing. */
static bool fail_required(struct expansion *e, struct slice name, struct slice why)
{
    if (why.len == 0)
        return fail_unset(e, name);
    snprintf(e->error, COMPOSE_ERROR_MAX, "the variable %.*s is not set: %.*s", (int)(name.len < 100 ? name.len : 100),
             name.ptr, (int)(why.len < 200 ? why.len : 200), why.ptr);
    return false;
}

/* The inside of ${…}: a name and what to do when it is not set (or, with a colon, when it is empty too). */
static bool expand_braced(struct expansion *e, struct slice inside, unsigned depth)
{
    struct slice name = {inside.ptr, name_len(inside)};
    struct slice rest = slice_from(inside, name.len);
    if (name.len == 0)
        return fail(e, "${ is not followed by the name of a variable", inside);
    const char *value = value_of(e, name);
    bool has_colon = slice_has_prefix(rest, SLICE(":"));
    bool is_set = value && !(has_colon && value[0] == '\0');
    rest = slice_from(rest, has_colon ? 1 : 0);
    struct slice word = slice_from(rest, 1);
    switch (rest.len > 0 ? rest.ptr[0] : has_colon ? ':' : '\0') {
    case '\0':
        return is_set ? put(e, slice_str(value)) : put_unset(e, name);
    case '-':
        return is_set ? put(e, slice_str(value)) : expand(e, word, depth + 1);
    case '+':
        return is_set ? expand(e, word, depth + 1) : true;
    case '?':
        return is_set ? put(e, slice_str(value)) : fail_required(e, name, word);
    default:
        return fail(e, "after the variable's name comes } or one of :- - :? ? :+ +", inside);
    }
}

/* The length of text up to the brace that closes it, which may hold further ${…}; text.len if none does. */
static size_t braced_len(struct slice text)
{
    size_t open = 1;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '$' && i + 1 < text.len && text.ptr[i + 1] == '{')
            open++;
        else if (text.ptr[i] == '}' && --open == 0)
            return i;
    }
    return text.len;
}

/* One variable; text begins after the dollar. Returns how much of it was used, 0 on failure. */
static size_t expand_variable(struct expansion *e, struct slice text, unsigned depth)
{
    size_t len = name_len(text);
    if (slice_has_prefix(text, SLICE("$")))
        return put(e, SLICE("$")) ? 1 : 0;
    if (slice_has_prefix(text, SLICE("{"))) {
        struct slice inside = slice_from(text, 1);
        inside.len = braced_len(inside);
        if (inside.len + 1 >= text.len)
            return fail(e, "${ has no closing brace", text) ? 1 : 0;
        return expand_braced(e, inside, depth) ? inside.len + 2 : 0;
    }
    if (len == 0)
        return fail(e, "a single $ is not followed by a name; write $$ for a dollar", text) ? 1 : 0;
    const char *value = value_of(e, slice_make(text.ptr, len));
    bool ok = value ? put(e, slice_str(value)) : put_unset(e, slice_make(text.ptr, len));
    return ok ? len : 0;
}

static bool expand(struct expansion *e, struct slice text, unsigned depth)
{
    if (depth > MAX_NESTING)
        return fail(e, "variables are nested too deeply", text);
    while (text.len > 0) {
        const char *dollar = memchr(text.ptr, '$', text.len);
        struct slice plain = {text.ptr, dollar ? (size_t)(dollar - text.ptr) : text.len};
        if (!put(e, plain))
            return false;
        text = slice_from(text, plain.len);
        if (text.len == 0)
            break;
        text = slice_from(text, 1);
        size_t used = expand_variable(e, text, depth);
        if (used == 0)
            return false;
        text = slice_from(text, used);
    }
    return true;
}

static char *interpolate(struct slice text, struct expansion *e)
{
    char *result = NULL;
    size_t len = 0;
    e->out = open_memstream(&result, &len);
    if (!e->out)
        abort();
    bool ok = expand(e, text, 0);
    if (fclose(e->out) != 0)
        abort();
    if (!ok) {
        free(result);
        result = NULL;
    }
    return result;
}

char *compose_interpolate(struct slice text, compose_env_cb env, void *env_arg, char ret_error[COMPOSE_ERROR_MAX])
{
    return interpolate(text, &(struct expansion){.env = env, .env_arg = env_arg, .error = ret_error});
}

char *compose_interpolate_leniently(struct slice text, compose_env_cb env, void *env_arg,
                                    char ret_error[COMPOSE_ERROR_MAX])
{
    struct expansion e = {.env = env, .env_arg = env_arg, .is_lenient = true, .error = ret_error};
    return interpolate(text, &e);
}
