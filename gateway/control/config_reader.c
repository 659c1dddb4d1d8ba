#include "config_reader.h"

#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

enum { SHOWN_VALUE_MAX = 64, SUGGESTION_MAX = 32 };

/* ---- errors ---- */

static bool refuse_at(struct config_reader *reader, const yaml_node_t *node, const char *path, const char *format,
                      va_list args) __attribute__((format(printf, 4, 0)));

static bool refuse_at(struct config_reader *reader, const yaml_node_t *node, const char *path, const char *format,
                      va_list args)
{
    int len = snprintf(reader->error, CONFIG_ERROR_TEXT_MAX, "%s:%zu: %s%s", reader->file, node->start_mark.line + 1,
                       path, *path ? ": " : "");
    assert(len >= 0);
    if (len < CONFIG_ERROR_TEXT_MAX)
        vsnprintf(reader->error + len, CONFIG_ERROR_TEXT_MAX - (size_t)len, format, args);
    return false;
}

bool config_refuse(struct config_reader *reader, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    refuse_at(reader, reader->node, reader->path, format, args);
    va_end(args);
    return false;
}

static struct slice scalar(const yaml_node_t *node)
{
    return slice_make(node->data.scalar.value, node->data.scalar.length);
}

/* The value of a key of a mapping, or NULL. */
static yaml_node_t *member_node(struct config_reader *reader, const yaml_node_t *mapping, const char *name)
{
    if (mapping->type != YAML_MAPPING_NODE)
        return NULL;
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        if (key && key->type == YAML_SCALAR_NODE && slice_eq(scalar(key), slice_str(name)))
            return yaml_document_get_node(reader->document, pair->value);
    }
    return NULL;
}

/* Appends to the path; what does not fit is cut. Returns the old length, for path_pop. */
static size_t path_push(struct config_reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));

static size_t path_push(struct config_reader *reader, const char *format, ...)
{
    size_t len = strlen(reader->path);
    va_list args;
    va_start(args, format);
    vsnprintf(reader->path + len, sizeof reader->path - len, format, args);
    va_end(args);
    return len;
}

static size_t path_push_key(struct config_reader *reader, struct slice name)
{
    return path_push(reader, "%s%.*s", reader->path[0] ? "." : "", SLICE_ARG(name));
}

static void path_pop(struct config_reader *reader, size_t len)
{
    reader->path[len] = '\0';
}

bool config_refuse_member(struct config_reader *reader, const char *member, const char *format, ...)
{
    const yaml_node_t *node = member_node(reader, reader->node, member);
    size_t len = path_push_key(reader, slice_str(member));
    va_list args;
    va_start(args, format);
    refuse_at(reader, node ? node : reader->node, reader->path, format, args);
    va_end(args);
    path_pop(reader, len);
    return false;
}

/* ---- what a value looks like ---- */

static const char *node_kind(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_NO_NODE:
        break;
    case YAML_SCALAR_NODE:
        return "a single value";
    case YAML_SEQUENCE_NODE:
        return "a list";
    case YAML_MAPPING_NODE:
        return "a mapping";
    }
    return "nothing";
}

static bool is_plain(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static bool is_null(const yaml_node_t *node)
{
    struct slice text = scalar(node);
    return is_plain(node) && (text.len == 0 || slice_eq(text, SLICE("~")) || slice_eq_nocase(text, SLICE("null")));
}

static bool is_boolean(const yaml_node_t *node)
{
    struct slice text = scalar(node);
    return is_plain(node) && (slice_eq_nocase(text, SLICE("true")) || slice_eq_nocase(text, SLICE("false")));
}

/* A number without a unit: an optional sign, digits, and at most one dot (so not an address). */
static bool is_number(const yaml_node_t *node)
{
    struct slice text = scalar(node);
    size_t digits = 0;
    size_t dots = 0;
    if (!is_plain(node))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (ascii_is_digit(text.ptr[i]))
            digits++;
        else if (text.ptr[i] == '.')
            dots++;
        else if (i > 0 || (text.ptr[i] != '-' && text.ptr[i] != '+'))
            return false;
    }
    return digits > 0 && dots <= 1;
}

/* The text of a scalar that is not null, in `expected` words else. */
static bool scalar_text(struct config_reader *reader, const char *expected, struct slice *ret_text)
{
    const yaml_node_t *node = reader->node;
    if (node->type != YAML_SCALAR_NODE)
        return config_refuse(reader, "this is %s; write %s", node_kind(node), expected);
    if (is_null(node))
        return config_refuse(reader, "there is no value; write %s, or leave the key out", expected);
    *ret_text = scalar(node);
    if (memchr(ret_text->ptr, '\0', ret_text->len))
        return config_refuse(reader, "the value has a NUL byte; write %s", expected);
    return true;
}

static bool is_host_byte(char c)
{
    char lower = ascii_lower(c);
    return (lower >= 'a' && lower <= 'z') || ascii_is_digit(c) || c == '-' || c == '.' || c == '_';
}

size_t config_host_length(struct slice text)
{
    size_t len = 0;
    while (len < text.len && is_host_byte(text.ptr[len]))
        len++;
    return len;
}

int config_shown(struct slice text)
{
    return (int)(text.len < SHOWN_VALUE_MAX ? text.len : SHOWN_VALUE_MAX);
}

/* ---- mappings and lists ---- */

/* How many letters must be put in, taken out or changed to get from a to b (Levenshtein's distance). */
static size_t edit_distance(struct slice a, struct slice b)
{
    size_t row[SUGGESTION_MAX + 1];
    if (a.len > SUGGESTION_MAX || b.len > SUGGESTION_MAX)
        return SUGGESTION_MAX;
    for (size_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t best = diagonal + (ascii_lower(a.ptr[i - 1]) == ascii_lower(b.ptr[j - 1]) ? 0 : 1);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b.len];
}

static bool refuse_unknown_key(struct config_reader *reader, struct slice name, const struct config_key *keys,
                               size_t count)
{
    const char *nearest = NULL;
    size_t nearest_distance = name.len / 3 + 2;
    char known[512] = "";
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(name, slice_str(keys[i].name));
        if (distance < nearest_distance) {
            nearest = keys[i].name;
            nearest_distance = distance;
        }
        size_t len = strlen(known);
        snprintf(known + len, sizeof known - len, "%s%s", len ? ", " : "", keys[i].name);
    }
    if (nearest)
        return config_refuse(reader, "unknown key; did you mean %s?", nearest);
    return config_refuse(reader, "unknown key; known here: %s", known);
}

static bool read_pair(struct config_reader *reader, struct slice name, const struct config_key *keys, size_t count,
                      uint32_t *seen, void *base)
{
    for (size_t i = 0; i < count; i++) {
        if (!slice_eq(name, slice_str(keys[i].name)))
            continue;
        if (*seen & 1U << i)
            return config_refuse(reader, "the key is here twice; keep one");
        *seen |= 1U << i;
        return keys[i].read(reader, &keys[i], (char *)base + keys[i].offset);
    }
    return refuse_unknown_key(reader, name, keys, count);
}

static bool read_members(struct config_reader *reader, const struct config_key *keys, size_t count, uint32_t *seen,
                         void *base)
{
    yaml_node_t *mapping = reader->node;
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top;
         pair++) {
        yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        reader->node = key;
        if (key->type != YAML_SCALAR_NODE)
            return config_refuse(reader, "a key is %s; write a name", node_kind(key));
        struct slice name = scalar(key);
        name.len = (size_t)config_shown(name);
        size_t len = path_push_key(reader, name);
        reader->node = yaml_document_get_node(reader->document, pair->value);
        if (!read_pair(reader, scalar(key), keys, count, seen, base))
            return false;
        path_pop(reader, len);
    }
    reader->node = mapping;
    return true;
}

bool config_read_mapping(struct config_reader *reader, const struct config_key *keys, size_t count, void *base)
{
    assert(count <= CONFIG_MAX_KEYS);
    uint32_t seen = 0;
    if (reader->node->type != YAML_MAPPING_NODE)
        return config_refuse(reader, "this is %s; write a mapping of keys to values",
                             reader->node->type == YAML_SCALAR_NODE && is_null(reader->node) ? "empty"
                                                                                             : node_kind(reader->node));
    if (!read_members(reader, keys, count, &seen, base))
        return false;
    for (size_t i = 0; i < count; i++)
        if (keys[i].required && !(seen & 1U << i))
            return config_refuse_member(reader, keys[i].name, "the key is missing; it has no default");
    return true;
}

size_t config_list_length(const struct config_reader *reader)
{
    const yaml_node_t *node = reader->node;
    if (node->type != YAML_SEQUENCE_NODE)
        return 0;
    return (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
}

bool config_read_list(struct config_reader *reader, size_t min, size_t max, const char *what, config_element_cb each,
                      void *arg)
{
    yaml_node_t *list = reader->node;
    size_t length = config_list_length(reader);
    if (list->type != YAML_SEQUENCE_NODE)
        return config_refuse(reader, "this is %s; write a list of %s",
                             list->type == YAML_SCALAR_NODE && is_null(list) ? "empty" : node_kind(list), what);
    if (length < min)
        return config_refuse(reader, "the list is empty; give at least %zu of %s", min, what);
    if (length > max)
        return config_refuse(reader, "%zu %s are too many; give at most %zu", length, what, max);
    for (size_t i = 0; i < length; i++) {
        reader->node = yaml_document_get_node(reader->document, list->data.sequence.items.start[i]);
        size_t len = path_push(reader, "[%zu]", i);
        if (!each(reader, i, arg))
            return false;
        path_pop(reader, len);
    }
    reader->node = list;
    return true;
}

/* ---- single values ---- */

bool config_text(struct config_reader *reader, struct slice *ret_text)
{
    struct slice text = SLICE_NONE;
    if (!scalar_text(reader, "a string", &text))
        return false;
    if (is_number(reader->node) || is_boolean(reader->node))
        return config_refuse(reader, "%.*s is not a string; write one, in quotes if it must look like that",
                             config_shown(text), text.ptr);
    if (text.len == 0)
        return config_refuse(reader, "the string is empty; write one, or leave the key out");
    *ret_text = text;
    return true;
}

bool config_read_string(struct config_reader *reader, const struct config_key *key, void *target)
{
    (void)key;
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    *(const char **)target = arena_printf(&reader->config->arena, "%.*s", SLICE_ARG(text)).ptr;
    return true;
}

bool config_read_path(struct config_reader *reader, const struct config_key *key, void *target)
{
    (void)key;
    struct slice text = SLICE_NONE;
    if (!config_text(reader, &text))
        return false;
    struct slice folder = text.ptr[0] == '/' ? SLICE_NONE : reader->folder;
    if (folder.len + text.len >= PATH_MAX)
        return config_refuse(reader, "the path is too long; use at most %d bytes", PATH_MAX - 1);
    *(const char **)target = arena_printf(&reader->config->arena, "%.*s%.*s", SLICE_ARG(folder), SLICE_ARG(text)).ptr;
    return true;
}

bool config_read_bool(struct config_reader *reader, const struct config_key *key, void *target)
{
    (void)key;
    struct slice text = SLICE_NONE;
    if (!scalar_text(reader, "true or false", &text))
        return false;
    if (!is_boolean(reader->node))
        return config_refuse(reader, "%.*s is neither true nor false; write one of them", config_shown(text), text.ptr);
    *(bool *)target = slice_eq_nocase(text, SLICE("true"));
    return true;
}

bool config_read_choice(struct config_reader *reader, const struct config_key *key, void *target)
{
    struct slice text = SLICE_NONE;
    char known[128] = "";
    for (unsigned i = 0; key->names[i]; i++) {
        size_t len = strlen(known);
        snprintf(known + len, sizeof known - len, "%s%s", !len ? "" : key->names[i + 1] ? ", " : " or ", key->names[i]);
    }
    if (!scalar_text(reader, known, &text))
        return false;
    for (unsigned i = 0; key->names[i]; i++) {
        if (!slice_eq(text, slice_str(key->names[i])))
            continue;
        *(unsigned *)target = i;
        return true;
    }
    return config_refuse(reader, "%.*s is not known; write %s", config_shown(text), text.ptr, known);
}

/* ---- numbers with units ---- */

struct unit {
    struct slice name;
    uint64_t factor;
};
static const struct unit no_units[] = {{SLICE_INIT(""), 1}};
static const struct unit time_units[] = {
    {SLICE_INIT("h"), 3600000}, {SLICE_INIT("m"), 60000}, {SLICE_INIT("s"), 1000}, {SLICE_INIT("ms"), 1}};
static const struct unit size_units[] = {
    {SLICE_INIT("GiB"), 1U << 30}, {SLICE_INIT("MiB"), 1 << 20}, {SLICE_INIT("KiB"), 1 << 10}, {SLICE_INIT(""), 1}};

/* The number in its largest unit that fits without a rest. */
static const char *format_number(uint64_t value, const struct unit *units, size_t count, char buffer[32])
{
    size_t i = 0;
    while (i + 1 < count && (value == 0 || value % units[i].factor != 0))
        i++;
    snprintf(buffer, 32, "%ju%.*s", (uintmax_t)(value / units[i].factor), SLICE_ARG(units[i].name));
    return buffer;
}

static bool parse_number(struct slice text, const struct unit *units, size_t count, uint64_t *ret_value)
{
    size_t digits = 0;
    uint64_t value = 0;
    while (digits < text.len && ascii_is_digit(text.ptr[digits]))
        digits++;
    if (!slice_to_u64(slice_make(text.ptr, digits), &value))
        return false;
    for (size_t i = 0; i < count; i++)
        if (slice_eq(slice_from(text, digits), units[i].name))
            return !__builtin_mul_overflow(value, units[i].factor, ret_value);
    return false;
}

static bool read_number(struct config_reader *reader, const struct config_key *key, const struct unit *units,
                        size_t count, const char *expected, uint64_t *ret_value)
{
    struct slice text = SLICE_NONE;
    uint64_t value = 0;
    char min[32];
    char max[32];
    if (!scalar_text(reader, expected, &text))
        return false;
    if (units == no_units && !is_plain(reader->node))
        return config_refuse(reader, "\"%.*s\" is a string; write %s without quotes", config_shown(text), text.ptr,
                             expected);
    if (!parse_number(text, units, count, &value))
        return config_refuse(reader, "%.*s is not understood; write %s", config_shown(text), text.ptr, expected);
    if (value < key->min || value > key->max)
        return config_refuse(reader, "%.*s is out of range; use %s to %s", config_shown(text), text.ptr,
                             format_number(key->min, units, count, min), format_number(key->max, units, count, max));
    *ret_value = value;
    return true;
}

bool config_read_count(struct config_reader *reader, const struct config_key *key, void *target)
{
    uint64_t value = 0;
    assert(key->max <= UINT32_MAX);
    if (!read_number(reader, key, no_units, 1, "a whole number", &value))
        return false;
    *(uint32_t *)target = (uint32_t)value;
    return true;
}

bool config_read_duration(struct config_reader *reader, const struct config_key *key, void *target)
{
    uint64_t value = 0;
    assert(key->max <= UINT32_MAX);
    if (!read_number(reader, key, time_units, 4, "a number with a unit: 100ms, 5s, 10m or 1h", &value))
        return false;
    *(uint32_t *)target = (uint32_t)value;
    return true;
}

bool config_read_size(struct config_reader *reader, const struct config_key *key, void *target)
{
    uint64_t value = 0;
    if (!read_number(reader, key, size_units, 4, "bytes, or a number with a unit: 64KiB or 8MiB", &value))
        return false;
    *(size_t *)target = (size_t)value;
    return true;
}

bool config_read_rate(struct config_reader *reader, const struct config_key *key, void *target)
{
    uint64_t value = 0;
    assert(key->max <= UINT32_MAX);
    if (!read_number(reader, key, size_units, 4, "bytes a second: 100 or 1KiB", &value))
        return false;
    *(uint32_t *)target = (uint32_t)value;
    return true;
}
