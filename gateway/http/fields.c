#include "gateway/http/fields.h"

#include <assert.h>
#include <string.h>

enum { FIRST_CAPACITY = 16, LONGEST_NAME = 20, MAX_SAME_LENGTH = 4 };

_Static_assert(FIELD_COUNT <= 64, "a set of field ids is one 64-bit word");

static const struct slice names[FIELD_COUNT] = {[FIELD_OTHER] = SLICE_INIT(""),
#define X(name, spelling) [FIELD_##name] = SLICE_INIT(spelling),
                                                FIELDS_TABLE(X)
#undef X
};

/* The known names of each length; FIELD_OTHER (0) ends a row. test_fields finds a name that is missing here. */
static const uint8_t by_length[LONGEST_NAME + 1][MAX_SAME_LENGTH + 1] = {
    [2] = {FIELD_TE},
    [3] = {FIELD_VIA},
    [4] = {FIELD_HOST, FIELD_DATE},
    [6] = {FIELD_ACCEPT, FIELD_COOKIE, FIELD_EXPECT, FIELD_SERVER},
    [7] = {FIELD_REFERER, FIELD_UPGRADE, FIELD_TRAILER},
    [8] = {FIELD_IF_MATCH, FIELD_LOCATION, FIELD_PRIORITY},
    [9] = {FIELD_FORWARDED, FIELD_X_REAL_IP},
    [10] = {FIELD_USER_AGENT, FIELD_CONNECTION, FIELD_KEEP_ALIVE},
    [11] = {FIELD_RETRY_AFTER, FIELD_TRACEPARENT},
    [12] = {FIELD_CONTENT_TYPE, FIELD_X_REQUEST_ID, FIELD_MAX_FORWARDS},
    [13] = {FIELD_AUTHORIZATION},
    [14] = {FIELD_CONTENT_LENGTH, FIELD_HTTP2_SETTINGS},
    [15] = {FIELD_X_FORWARDED_FOR, FIELD_X_GATEWAY_ERROR},
    [16] = {FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PORT, FIELD_PROXY_CONNECTION},
    [17] = {FIELD_TRANSFER_ENCODING, FIELD_X_FORWARDED_PROTO, FIELD_SEC_WEBSOCKET_KEY},
    [18] = {FIELD_PROXY_AUTHENTICATE},
    [19] = {FIELD_PROXY_AUTHORIZATION},
    [20] = {FIELD_SEC_WEBSOCKET_ACCEPT},
};

enum field_id field_id_of(struct slice name)
{
    if (name.len > LONGEST_NAME)
        return FIELD_OTHER;
    for (const uint8_t *id = by_length[name.len]; *id != FIELD_OTHER; id++)
        if (slice_eq_nocase(name, names[*id]))
            return (enum field_id) * id;
    return FIELD_OTHER;
}

struct slice field_name(enum field_id id)
{
    assert((unsigned)id < FIELD_COUNT);
    return names[id];
}

void fields_reserve(struct fields *fields, struct arena *arena, size_t capacity)
{
    if (capacity <= fields->capacity)
        return;
    struct field *items = arena_alloc(arena, capacity * sizeof *items);
    if (fields->count > 0)
        memcpy(items, fields->items, fields->count * sizeof *items);
    fields->items = items;
    fields->capacity = capacity;
}

void fields_grow(struct fields *fields, struct arena *arena)
{
    fields_reserve(fields, arena, fields->capacity > 0 ? 2 * fields->capacity : FIRST_CAPACITY);
}

void fields_add(struct fields *fields, struct arena *arena, struct slice name, struct slice value)
{
    fields_append(fields, arena, (struct field){.name = name, .value = value, .id = field_id_of(name)});
}

void fields_add_known(struct fields *fields, struct arena *arena, enum field_id id, struct slice value)
{
    assert(id != FIELD_OTHER);
    fields_append(fields, arena, (struct field){.name = field_name(id), .value = value, .id = id});
}

const struct field *fields_find(const struct fields *fields, enum field_id id)
{
    if (!fields_has(fields, id))
        return NULL;
    for (size_t i = 0; i < fields->count; i++)
        if (fields->items[i].id == id)
            return &fields->items[i];
    return NULL;
}

struct slice fields_value(const struct fields *fields, enum field_id id)
{
    const struct field *field = fields_find(fields, id);
    return field ? field->value : SLICE_NONE;
}

size_t fields_count_of(const struct fields *fields, enum field_id id)
{
    size_t count = 0;
    if (!fields_has(fields, id))
        return 0;
    for (size_t i = 0; i < fields->count; i++)
        count += fields->items[i].id == id;
    return count;
}

bool fields_list_has(const struct fields *fields, enum field_id id, struct slice token)
{
    if (!fields_has(fields, id))
        return false;
    for (size_t i = 0; i < fields->count; i++)
        if (fields->items[i].id == id && slice_list_has(fields->items[i].value, token))
            return true;
    return false;
}
