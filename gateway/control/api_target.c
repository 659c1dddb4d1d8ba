#include "api_internal.h"

static int hex_value(char c)
{
    char lower = ascii_lower(c);
    if (ascii_is_digit(c))
        return c - '0';
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* RFC 3986 section 2.1; NUL is refused. In a query, "+" is a space, as HTML forms send it. */
static bool percent_decode(struct slice in, bool plus_is_space, struct arena *arena, struct slice *ret_out)
{
    char *out = arena_alloc(arena, in.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < in.len; i++) {
        char c = in.ptr[i];
        if (c == '%') {
            int high = i + 2 < in.len ? hex_value(in.ptr[i + 1]) : -1;
            int low = i + 2 < in.len ? hex_value(in.ptr[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        out[len++] = c;
    }
    *ret_out = slice_make(out, len);
    return true;
}

/* Takes what precedes the separator off the front; all of it if there is none. */
static struct slice take_until(struct slice *rest, char separator)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, separator, rest->len) : NULL;
    struct slice part = {rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len};
    *rest = slice_from(*rest, part.len + (end ? 1 : 0));
    return part;
}

static enum status bad_encoding(struct route_problem *problem, const char *where)
{
    api_problem_fill(problem, STATUS_BAD_TARGET, "", "the %s has a %% that no two hex digits follow, or %%00", where);
    return STATUS_BAD_TARGET;
}

static enum status parse_path(struct slice path, struct arena *arena, struct api_target *target,
                              struct route_problem *problem)
{
    struct slice rest = slice_from(path, slice_has_prefix(path, SLICE("/")) ? 1 : 0);
    bool more = true;
    while (more) {
        more = rest.len > 0 && memchr(rest.ptr, '/', rest.len) != NULL;
        struct slice part = take_until(&rest, '/');
        if (target->segment_count == API_MAX_SEGMENTS) {
            api_problem_fill(problem, STATUS_NOT_FOUND, "", "%s", status_what(STATUS_NOT_FOUND));
            return STATUS_NOT_FOUND;
        }
        if (!percent_decode(part, false, arena, &target->segments[target->segment_count]))
            return bad_encoding(problem, "path");
        target->segment_count++;
    }
    return STATUS_OK;
}

static bool has_parameter(const struct api_target *target, struct slice name)
{
    for (size_t i = 0; i < target->parameter_count; i++)
        if (slice_eq(target->parameters[i].name, name))
            return true;
    return false;
}

static enum status add_parameter(struct api_target *target, struct slice name, struct slice value,
                                 struct route_problem *problem)
{
    const char *wrong = NULL;
    char text[64];
    if (has_parameter(target, name))
        wrong = "the parameter is given twice; give it once";
    else if (target->parameter_count == API_MAX_PARAMETERS)
        wrong = "there are too many query parameters";
    if (wrong) {
        snprintf(text, sizeof text, "%.*s", (int)(name.len < sizeof text ? name.len : sizeof text - 1), name.ptr);
        api_problem_fill(problem, STATUS_INVALID_PARAMETER, text, "%s", wrong);
        return STATUS_INVALID_PARAMETER;
    }
    target->parameters[target->parameter_count++] = (struct api_parameter){name, value};
    return STATUS_OK;
}

static enum status parse_query(struct slice query, struct arena *arena, struct api_target *target,
                               struct route_problem *problem)
{
    while (query.len > 0) {
        struct slice value = take_until(&query, '&');
        struct slice name = take_until(&value, '=');
        if (name.len == 0 && value.len == 0)
            continue;
        if (!percent_decode(name, true, arena, &name) || !percent_decode(value, true, arena, &value))
            return bad_encoding(problem, "query");
        enum status status = add_parameter(target, name, value, problem);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

enum status api_target_parse(struct slice path, struct arena *arena, struct api_target *ret_target,
                             struct route_problem *ret_problem)
{
    struct api_target target = {.segment_count = 0};
    struct slice query = path;
    struct slice only_path = take_until(&query, '?');
    enum status status = parse_path(only_path, arena, &target, ret_problem);
    if (status == STATUS_OK)
        status = parse_query(query, arena, &target, ret_problem);
    if (status == STATUS_OK)
        *ret_target = target;
    return status;
}

bool api_target_parameter(const struct api_target *target, const char *name, struct slice *ret_value)
{
    *ret_value = SLICE_NONE;
    for (size_t i = 0; i < target->parameter_count; i++) {
        if (slice_eq(target->parameters[i].name, slice_str(name))) {
            *ret_value = target->parameters[i].value;
            return true;
        }
    }
    return false;
}

static bool is_known(struct slice name, const char *known)
{
    struct slice rest = slice_str(known);
    while (rest.len > 0)
        if (slice_eq(take_until(&rest, ' '), name))
            return true;
    return false;
}

bool api_target_check(const struct api_target *target, const char *known, struct route_problem *ret_problem)
{
    char field[64];
    for (size_t i = 0; i < target->parameter_count; i++) {
        struct slice name = target->parameters[i].name;
        if (is_known(name, known))
            continue;
        snprintf(field, sizeof field, "%.*s", (int)(name.len < sizeof field ? name.len : sizeof field - 1), name.ptr);
        api_problem_fill(ret_problem, STATUS_INVALID_PARAMETER, field, "this call does not know the parameter; %s%s",
                         *known ? "it takes: " : "it takes none", known);
        return false;
    }
    return true;
}
