#include "compose_internal.h"

#include <stdlib.h>

enum { MAX_MERGE_DEPTH = 16, MAX_VISITS = 1000000 };

bool compose_yaml_visit(struct compose_yaml *yaml)
{
    yaml->visits += yaml->visits <= MAX_VISITS;
    return yaml->visits <= MAX_VISITS;
}

yaml_node_t *compose_yaml_node(struct compose_yaml *yaml, int index)
{
    return yaml_document_get_node(&yaml->document, index);
}

struct slice compose_yaml_scalar(const yaml_node_t *node)
{
    if (!node || node->type != YAML_SCALAR_NODE)
        return SLICE_NONE;
    return slice_make(node->data.scalar.value, node->data.scalar.length);
}

bool compose_yaml_is_null(const yaml_node_t *node)
{
    struct slice text = compose_yaml_scalar(node);
    if (!node)
        return true;
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text.len == 0 || slice_eq(text, SLICE("~")) || slice_eq_nocase(text, SLICE("null")));
}

bool compose_yaml_has_tag(const yaml_node_t *node, const char *tag)
{
    return node && node->tag && strcmp((const char *)node->tag, tag) == 0;
}

static int by_text(const void *a, const void *b)
{
    const yaml_node_t *x = *(yaml_node_t *const *)a, *y = *(yaml_node_t *const *)b;
    struct slice p = compose_yaml_scalar(x), q = compose_yaml_scalar(y);
    int order = p.len != q.len ? (p.len < q.len ? -1 : 1) : memcmp(p.ptr, q.ptr, p.len);
    return order != 0 ? order : x->start_mark.index < y->start_mark.index ? -1 : 1;
}

static const yaml_node_t *doubled_key_of(struct compose_yaml *yaml, const yaml_node_t *mapping)
{
    size_t count = 0;
    const yaml_node_t *found = NULL;
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start, *end = mapping->data.mapping.pairs.top;
    yaml_node_t **keys = malloc((size_t)(end - pair + 1) * sizeof(yaml_node_t *));
    if (!keys)
        abort();
    for (; pair < end; pair++)
        if (compose_yaml_node(yaml, pair->key)->type == YAML_SCALAR_NODE)
            keys[count++] = compose_yaml_node(yaml, pair->key);
    qsort(keys, count, sizeof(yaml_node_t *), by_text);
    for (size_t i = 1; i < count && !found; i++)
        if (slice_eq(compose_yaml_scalar(keys[i - 1]), compose_yaml_scalar(keys[i])))
            found = keys[i];
    free(keys);
    return found;
}

const yaml_node_t *compose_yaml_doubled_key(struct compose_yaml *yaml)
{
    const yaml_node_t *found = NULL;
    for (yaml_node_t *node = yaml->document.nodes.start; node < yaml->document.nodes.top && !found; node++)
        if (node->type == YAML_MAPPING_NODE)
            found = doubled_key_of(yaml, node);
    return found;
}

static yaml_node_t *direct_member(struct compose_yaml *yaml, const yaml_node_t *mapping, struct slice key)
{
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top; pair++)
        if (compose_yaml_visit(yaml) && slice_eq(compose_yaml_scalar(compose_yaml_node(yaml, pair->key)), key))
            return compose_yaml_node(yaml, pair->value);
    return NULL;
}

static yaml_node_t *member_at(struct compose_yaml *yaml, const yaml_node_t *mapping, struct slice key, unsigned depth)
{
    if (!mapping || mapping->type != YAML_MAPPING_NODE || depth > MAX_MERGE_DEPTH || !compose_yaml_visit(yaml))
        return NULL;
    yaml_node_t *found = direct_member(yaml, mapping, key);
    yaml_node_t *merged = found ? NULL : direct_member(yaml, mapping, SLICE("<<"));
    if (!merged || merged->type != YAML_SEQUENCE_NODE)
        return found ? found : member_at(yaml, merged, key, depth + 1);
    for (yaml_node_item_t *item = merged->data.sequence.items.start; item < merged->data.sequence.items.top; item++)
        if ((found = member_at(yaml, compose_yaml_node(yaml, *item), key, depth + 1)) != NULL)
            return found;
    return NULL;
}

yaml_node_t *compose_yaml_member(struct compose_yaml *yaml, const yaml_node_t *mapping, const char *key)
{
    return member_at(yaml, mapping, slice_str(key), 0);
}

struct walk {
    struct compose_yaml *yaml;
    const yaml_node_t *top;
    compose_yaml_each_cb each;
    void *arg;
};

/* A member counts where the look-up from the top finds it: what is overridden is passed over. */
static bool walk(const struct walk *w, const yaml_node_t *mapping, unsigned depth)
{
    if (!mapping || mapping->type != YAML_MAPPING_NODE || depth > MAX_MERGE_DEPTH || !compose_yaml_visit(w->yaml))
        return false;
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top; pair++) {
        struct slice name = compose_yaml_scalar(compose_yaml_node(w->yaml, pair->key));
        yaml_node_t *value = compose_yaml_node(w->yaml, pair->value);
        if (!slice_eq(name, SLICE("<<"))) {
            if (member_at(w->yaml, w->top, name, 0) == value && !w->each(w->arg, name, value))
                return false;
        } else if (value->type != YAML_SEQUENCE_NODE) {
            if (!walk(w, value, depth + 1))
                return false;
        } else {
            for (yaml_node_item_t *i = value->data.sequence.items.start; i < value->data.sequence.items.top; i++)
                if (!walk(w, compose_yaml_node(w->yaml, *i), depth + 1))
                    return false;
        }
    }
    return compose_yaml_visit(w->yaml);
}

bool compose_yaml_each(struct compose_yaml *yaml, const yaml_node_t *mapping, compose_yaml_each_cb each, void *arg)
{
    return walk(&(struct walk){.yaml = yaml, .top = mapping, .each = each, .arg = arg}, mapping, 0);
}
