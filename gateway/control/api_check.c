#include "api_internal.h"

/* The media type without parameters. */
static struct slice media_type(struct slice value)
{
    const char *end = value.len > 0 ? memchr(value.ptr, ';', value.len) : NULL;
    return slice_trim(slice_make(value.ptr, end ? (size_t)(end - value.ptr) : value.len));
}

static bool is_json_type(struct slice type)
{
    static const struct slice known[] = {
        SLICE_INIT("application/json"),      SLICE_INIT("text/json"),
        SLICE_INIT("application/x-ndjson"),  SLICE_INIT("application/ndjson"),
        SLICE_INIT("application/jsonlines"), SLICE_INIT("application/x-jsonlines"),
        SLICE_INIT("application/jsonl"),
    };
    const struct slice suffix = SLICE("+json");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slice_eq_nocase(type, known[i]))
            return true;
    return type.len > suffix.len && slice_eq_nocase(slice_from(type, type.len - suffix.len), suffix);
}

bool api_check_content_type(struct api_call *call)
{
    struct slice type = media_type(fields_value(&call->head->fields, FIELD_CONTENT_TYPE));
    if (type.len == 0 || is_json_type(type))
        return true;
    api_answer_refuse(call, STATUS_UNSUPPORTED_MEDIA_TYPE, "Content-Type",
                      "%.*s is not a JSON type; send "
                      "application/json, or application/x-ndjson for a snapshot, or no Content-Type",
                      (int)(type.len < 100 ? type.len : 100), type.ptr);
    return false;
}

/* The inside of a strong entity tag (RFC 9110 section 8.8.3) that could be a revision. */
static bool parse_etag(struct slice value, uint64_t *ret_revision)
{
    return value.len > 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"' &&
           slice_to_u64(slice_make(value.ptr + 1, value.len - 2), ret_revision);
}

static bool app_exists(const struct api_call *call)
{
    route_table_read_begin();
    bool exists = route_table_app(call->api->params.table, call->captures[0]) != NULL;
    route_table_read_end();
    return exists;
}

/*
 * RFC 9110 section 13.1.1. An ETag is a revision, so that one that is no number can match none. `zero` is what "0"
 * stands for; CHANGES_ANY_REVISION: nothing has it.
 */
static bool check_if_match(struct api_call *call, const char *of, bool exists, uint64_t zero, uint64_t *ret_revision)
{
    uint64_t revision = CHANGES_ANY_REVISION, tag;
    struct slice value = slice_trim(fields_value(&call->head->fields, FIELD_IF_MATCH));
    size_t count = fields_count_of(&call->head->fields, FIELD_IF_MATCH);
    if (count > 1 || (count == 1 && value.len == 0) || (value.len > 0 && memchr(value.ptr, ',', value.len))) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "If-Match",
                          "send one revision in quotes, as in \"42\", or *");
        return false;
    }
    if (parse_etag(value, &tag) && tag <= INT64_MAX)
        revision = tag > 0 ? tag : zero;
    if (count > 0 && revision == CHANGES_ANY_REVISION && !(slice_eq(value, SLICE("*")) && exists)) {
        api_answer_refuse(call, STATUS_REVISION_CONFLICT, "If-Match", "no revision of the %s matches %.*s", of,
                          (int)(value.len < 40 ? value.len : 40), value.ptr);
        return false;
    }
    *ret_revision = revision;
    return true;
}

bool api_check_if_match(struct api_call *call, uint64_t *ret_revision)
{
    return check_if_match(call, "app", app_exists(call), CHANGES_ANY_REVISION, ret_revision);
}

/* How many If-None-Match there are, and the last one's value. */
static size_t find_if_none_match(const struct api_call *call, struct slice *ret_value)
{
    size_t count = 0;
    const struct fields *fields = &call->head->fields;
    for (size_t i = 0; i < fields->count; i++)
        if (slice_eq_nocase(fields->items[i].name, SLICE("If-None-Match"))) {
            *ret_value = slice_trim(fields->items[i].value);
            count++;
        }
    return count;
}

/* RFC 9110 section 13.1.2: of If-None-Match, only * makes sense for a PUT here. */
bool api_check_put_condition(struct api_call *call, uint64_t *ret_revision)
{
    struct slice value;
    size_t count = find_if_none_match(call, &value);
    if (count == 0)
        return api_check_if_match(call, ret_revision);
    if (count > 1 || !slice_eq(value, SLICE("*")) || fields_has(&call->head->fields, FIELD_IF_MATCH)) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, "If-None-Match",
                          "send *, for an app that must not be there yet, and no If-Match");
        return false;
    }
    *ret_revision = CHANGES_NO_APP;
    return true;
}

bool api_check_table_if_match(struct api_call *call, uint64_t *ret_revision)
{
    return check_if_match(call, "table", true, CHANGES_NEVER, ret_revision);
}

bool api_check_flag(struct api_call *call, const char *name, bool *ret_on)
{
    struct slice value;
    bool given = api_target_parameter(&call->target, name, &value);
    bool on = given && (value.len == 0 || slice_eq(value, SLICE("1")) || slice_eq(value, SLICE("true")));
    if (given && !on && !slice_eq(value, SLICE("0")) && !slice_eq(value, SLICE("false"))) {
        api_answer_refuse(call, STATUS_INVALID_PARAMETER, name, "it is 1 or 0");
        return false;
    }
    *ret_on = on;
    return true;
}
