#include "gateway/control/etcd_wire.h"

#include "gateway/base/base64.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- requests ---- */

struct text {
    FILE *out;
    char *ptr;
    size_t len;
};

static void text_begin(struct text *text)
{
    *text = (struct text){.out = NULL};
    text->out = open_memstream(&text->ptr, &text->len);
    if (!text->out)
        abort();
}

static char *text_end(struct text *text)
{
    if (fclose(text->out) != 0)
        abort();
    return text->ptr;
}

/* In quotes; base64 needs no escapes. */
static void write_bytes(FILE *out, struct slice bytes)
{
    enum { PIECE = 3 * 1024 };
    char encoded[PIECE / 3 * 4];
    fputc('"', out);
    while (bytes.len > 0) {
        struct slice piece = {bytes.ptr, bytes.len < PIECE ? bytes.len : PIECE};
        base64_encode(piece, encoded);
        fwrite(encoded, 1, base64_encoded_bytes(piece.len), out);
        bytes = slice_from(bytes, piece.len);
    }
    fputc('"', out);
}

static void write_key(FILE *out, struct slice key, struct slice range_end)
{
    fputs("\"key\":", out);
    write_bytes(out, key);
    if (range_end.len > 0) {
        fputs(",\"range_end\":", out);
        write_bytes(out, range_end);
    }
}

char *etcd_wire_range_request(const struct etcd_wire_range *range)
{
    struct text text;
    text_begin(&text);
    fputc('{', text.out);
    write_key(text.out, range->key, range->range_end);
    if (range->revision > 0)
        fprintf(text.out, ",\"revision\":\"%" PRIu64 "\"", range->revision);
    if (range->limit > 0)
        fprintf(text.out, ",\"limit\":\"%" PRIu64 "\"", range->limit);
    if (range->count_only)
        fputs(",\"count_only\":true", text.out);
    fputc('}', text.out);
    return text_end(&text);
}

static void write_expectations(FILE *out, const struct etcd_wire_op *ops, size_t count)
{
    const char *comma = "";
    fputs("\"compare\":[", out);
    for (size_t i = 0; i < count; i++) {
        if (!ops[i].has_expected)
            continue;
        fprintf(out, "%s{\"result\":\"EQUAL\",\"target\":\"MOD\",\"mod_revision\":\"%" PRIu64 "\",", comma,
                ops[i].expected_mod_revision);
        write_key(out, ops[i].key, SLICE_NONE);
        fputc('}', out);
        comma = ",";
    }
    fputs("]", out);
}

static void write_op(FILE *out, const struct etcd_wire_op *op)
{
    fputs(op->is_delete ? "{\"request_delete_range\":{" : "{\"request_put\":{", out);
    write_key(out, op->key, op->range_end);
    if (!op->is_delete) {
        fputs(",\"value\":", out);
        write_bytes(out, op->value);
    }
    fputs("}}", out);
}

static void write_questions(FILE *out, const struct etcd_wire_op *ops, size_t count)
{
    const char *comma = "";
    for (size_t i = 0; i < count; i++) {
        if (!ops[i].has_expected)
            continue;
        fprintf(out, "%s{\"request_range\":{", comma);
        write_key(out, ops[i].key, SLICE_NONE);
        fputs("}}", out);
        comma = ",";
    }
}

char *etcd_wire_txn_request(const struct etcd_wire_op *ops, size_t count)
{
    struct text text;
    text_begin(&text);
    fputc('{', text.out);
    write_expectations(text.out, ops, count);
    fputs(",\"success\":[", text.out);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            fputc(',', text.out);
        write_op(text.out, &ops[i]);
    }
    fputs("],\"failure\":[", text.out);
    write_questions(text.out, ops, count);
    fputs("]}", text.out);
    return text_end(&text);
}

char *etcd_wire_watch_request(struct slice prefix, uint64_t start_revision)
{
    struct text text;
    char *end = etcd_wire_prefix_end(prefix);
    text_begin(&text);
    fputs("{\"create_request\":{", text.out);
    write_key(text.out, prefix, slice_str(end));
    fprintf(text.out, ",\"start_revision\":\"%" PRIu64 "\",\"progress_notify\":true,\"fragment\":true}}",
            start_revision);
    free(end);
    return text_end(&text);
}

char *etcd_wire_authenticate_request(struct slice user, struct slice password)
{
    json_t *json = json_pack("{ss% ss%}", "name", user.ptr ? user.ptr : "", user.len, "password",
                             password.ptr ? password.ptr : "", password.len);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL; /* NULL: no UTF-8, which etcd would not take either */
    json_decref(json);
    return text;
}

char *etcd_wire_prefix_end(struct slice prefix)
{
    char *end = malloc(prefix.len + 1);
    if (!end)
        abort();
    memcpy(end, prefix.ptr, prefix.len);
    end[prefix.len] = '\0';
    end[prefix.len - 1]++;
    return end;
}

/* ---- reading members; one that is not there has its type's zero ---- */

static json_t *parse(struct slice json)
{
    json_t *root = json_loadb(json.len > 0 ? json.ptr : "", json.len, 0, NULL);
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

/* Text, or a number if a gateway of another version writes one. */
static bool read_u64(const json_t *object, const char *name, uint64_t *ret_value)
{
    const json_t *value = json_object_get(object, name);
    if (!value) {
        *ret_value = 0;
        return true;
    }
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *ret_value = (uint64_t)json_integer_value(value);
        return true;
    }
    return json_is_string(value) &&
           slice_to_u64(slice_make(json_string_value(value), json_string_length(value)), ret_value);
}

static bool read_revision(const json_t *object, const char *name, uint64_t *ret_revision)
{
    return read_u64(object, name, ret_revision) && *ret_revision <= ETCD_WIRE_MAX_REVISION;
}

static bool read_bool(const json_t *object, const char *name, bool *ret_value)
{
    const json_t *value = json_object_get(object, name);
    *ret_value = json_is_true(value);
    return !value || json_is_boolean(value);
}

static void copy_text(const json_t *object, const char *name, char ret_text[ETCD_WIRE_TEXT_MAX])
{
    const char *text = json_string_value(json_object_get(object, name));
    snprintf(ret_text, ETCD_WIRE_TEXT_MAX, "%s", text ? text : "");
}

static bool read_header(const json_t *object, struct etcd_wire_header *ret_header)
{
    const json_t *header = json_object_get(object, "header");
    return json_is_object(header) && read_u64(header, "cluster_id", &ret_header->cluster_id) &&
           read_u64(header, "member_id", &ret_header->member_id) &&
           read_revision(header, "revision", &ret_header->revision);
}

/* ---- keys and values ---- */

/* Decoded into `at`, which has room; it moves behind the bytes. */
static bool read_bytes(const json_t *object, const char *name, char **at, struct slice *ret_bytes)
{
    const json_t *value = json_object_get(object, name);
    size_t len = 0;
    *ret_bytes = slice_make(*at, 0);
    if (!value)
        return true;
    if (!json_is_string(value) ||
        !base64_decode(slice_make(json_string_value(value), json_string_length(value)), *at, &len))
        return false;
    ret_bytes->len = len;
    *at += len;
    return true;
}

static size_t room_of(const json_t *kv)
{
    return base64_decoded_bytes(json_string_length(json_object_get(kv, "key"))) +
           base64_decoded_bytes(json_string_length(json_object_get(kv, "value")));
}

/* Those of one message, decoded. */
struct kvs {
    struct etcd_wire_kv *list;
    size_t count;
    char *bytes;
};

static void kvs_free(struct kvs *kvs)
{
    free(kvs->list);
    free(kvs->bytes);
}

/* An event has its kv one level down, and says of which type it is. */
static const json_t *kv_of(const json_t *item, bool is_event)
{
    return is_event ? json_object_get(item, "kv") : item;
}

static bool read_kv(const json_t *item, bool is_event, char **at, struct etcd_wire_kv *kv)
{
    const json_t *json = kv_of(item, is_event);
    const json_t *type = is_event ? json_object_get(item, "type") : NULL;
    const char *name = type ? json_string_value(type) : "PUT";
    if (!json_is_object(json) || !name || (strcmp(name, "PUT") != 0 && strcmp(name, "DELETE") != 0))
        return false;
    kv->is_delete = strcmp(name, "DELETE") == 0;
    return read_bytes(json, "key", at, &kv->key) && kv->key.len > 0 && read_bytes(json, "value", at, &kv->value) &&
           read_revision(json, "mod_revision", &kv->mod_revision) && kv->mod_revision > 0;
}

/* An array that may be missing. */
static bool read_kvs(const json_t *array, bool is_event, struct kvs *ret_kvs)
{
    size_t room = 1, count = json_array_size(array);
    *ret_kvs = (struct kvs){.list = NULL};
    if (!array)
        return true;
    if (!json_is_array(array))
        return false;
    for (size_t i = 0; i < count; i++)
        room += room_of(kv_of(json_array_get(array, i), is_event));
    ret_kvs->list = calloc(count + 1, sizeof *ret_kvs->list);
    ret_kvs->bytes = malloc(room);
    if (!ret_kvs->list || !ret_kvs->bytes)
        abort();
    char *at = ret_kvs->bytes;
    for (size_t i = 0; i < count; i++) {
        if (!read_kv(json_array_get(array, i), is_event, &at, &ret_kvs->list[i])) {
            kvs_free(ret_kvs);
            return false;
        }
    }
    ret_kvs->count = count;
    return true;
}

static void call_each(const struct kvs *kvs, etcd_wire_kv_cb each, void *arg)
{
    for (size_t i = 0; each && i < kvs->count; i++)
        each(arg, &kvs->list[i]);
}

/* ---- answers ---- */

bool etcd_wire_range_read(struct slice json, etcd_wire_kv_cb each, void *arg, struct etcd_wire_range_answer *ret_answer)
{
    struct kvs kvs;
    struct etcd_wire_range_answer answer;
    json_t *root = parse(json);
    bool ok = root && read_header(root, &answer.header) && answer.header.revision > 0 &&
              read_u64(root, "count", &answer.count) && read_bool(root, "more", &answer.more) &&
              read_kvs(json_object_get(root, "kvs"), false, &kvs);
    json_decref(root);
    if (!ok)
        return false;
    *ret_answer = answer;
    call_each(&kvs, each, arg);
    kvs_free(&kvs);
    return true;
}

/* The ranges' keys become one array, and what was changed is noted. */
static bool read_responses(const json_t *responses, json_t *kvs, bool *ret_changed)
{
    size_t i;
    const json_t *response;
    *ret_changed = false;
    if (responses && !json_is_array(responses))
        return false;
    json_array_foreach(responses, i, response)
    {
        uint64_t deleted = 0;
        const json_t *range = json_object_get(json_object_get(response, "response_range"), "kvs");
        const json_t *deletion = json_object_get(response, "response_delete_range");
        if ((range && json_array_extend(kvs, (json_t *)(uintptr_t)range) != 0) ||
            !read_u64(deletion, "deleted", &deleted))
            return false;
        *ret_changed = *ret_changed || deleted > 0 || json_object_get(response, "response_put");
    }
    return true;
}

bool etcd_wire_txn_read(struct slice json, etcd_wire_kv_cb each, void *arg, struct etcd_wire_txn_answer *ret_answer)
{
    struct kvs kvs;
    struct etcd_wire_txn_answer answer;
    json_t *root = parse(json);
    json_t *found = json_array();
    bool ok = root && read_header(root, &answer.header) && read_bool(root, "succeeded", &answer.succeeded) &&
              read_responses(json_object_get(root, "responses"), found, &answer.changed) &&
              read_kvs(found, false, &kvs);
    json_decref(found);
    json_decref(root);
    if (!ok)
        return false;
    *ret_answer = answer;
    call_each(&kvs, each, arg);
    kvs_free(&kvs);
    return true;
}

static bool read_watch_result(const json_t *result, struct etcd_wire_watch_answer *answer, struct kvs *ret_kvs)
{
    copy_text(result, "cancel_reason", answer->text);
    return read_header(result, &answer->header) && read_bool(result, "created", &answer->created) &&
           read_bool(result, "canceled", &answer->canceled) && read_bool(result, "fragment", &answer->is_fragment) &&
           read_revision(result, "compact_revision", &answer->compact_revision) &&
           read_kvs(json_object_get(result, "events"), true, ret_kvs);
}

/* An error in the middle of a stream stands where a result would. */
static bool read_watch(const json_t *root, struct etcd_wire_watch_answer *answer, struct kvs *ret_kvs)
{
    const json_t *result = json_object_get(root, "result");
    const json_t *error = json_object_get(root, "error");
    if (json_is_object(result))
        return read_watch_result(result, answer, ret_kvs);
    if (!json_is_object(error))
        return false;
    answer->canceled = true;
    copy_text(error, "message", answer->text);
    return true;
}

bool etcd_wire_watch_read(struct slice json, etcd_wire_kv_cb each, void *arg, struct etcd_wire_watch_answer *ret_answer)
{
    struct kvs kvs = {.list = NULL};
    struct etcd_wire_watch_answer answer = {.created = false};
    json_t *root = parse(json);
    bool ok = root && read_watch(root, &answer, &kvs);
    json_decref(root);
    if (!ok)
        return false;
    answer.event_count = kvs.count;
    *ret_answer = answer;
    call_each(&kvs, each, arg);
    kvs_free(&kvs);
    return true;
}

bool etcd_wire_authenticate_read(struct slice json, char **ret_token)
{
    json_t *root = parse(json);
    const char *token = json_string_value(json_object_get(root, "token"));
    bool ok = token && *token && strlen(token) == json_string_length(json_object_get(root, "token"));
    for (const char *c = token; ok && *c; c++)
        ok = *c > ' ' && *c < 0x7f; /* it goes into a header field */
    if (ok && !(*ret_token = strdup(token)))
        abort();
    json_decref(root);
    return ok;
}

bool etcd_wire_error_read(struct slice json, struct etcd_wire_error *ret_error)
{
    json_t *root = parse(json);
    const json_t *code = json_object_get(root, "code");
    bool ok = root && (!code || json_is_integer(code)) && json_is_string(json_object_get(root, "error"));
    if (ok) {
        json_int_t number = json_integer_value(code);
        ret_error->code = number > 0 && number < 100 ? (int)number : 0;
        copy_text(root, "error", ret_error->text);
    }
    json_decref(root);
    return ok;
}

bool etcd_wire_error_is_uncertain(long http_status, const struct etcd_wire_error *error)
{
    return http_status >= 500 || error->code == ETCD_WIRE_DEADLINE_EXCEEDED || error->code == ETCD_WIRE_INTERNAL ||
           error->code == ETCD_WIRE_UNAVAILABLE;
}

bool etcd_wire_error_is_token(const struct etcd_wire_error *error)
{
    return error->code == ETCD_WIRE_UNAUTHENTICATED || strstr(error->text, "invalid auth token") ||
           strstr(error->text, "revision of auth store is old") || strstr(error->text, "user name is empty");
}
