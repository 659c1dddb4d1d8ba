/* snapshot save and load with --etcd. */
#include "ctl_etcd.h"

#include "gateway/control/app_document.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>

/* ---- save ---- */

enum { REASON_MAX = JSON_ERROR_TEXT_LENGTH + 64 };

struct saving {
    const struct ctl_etcd *etcd;
    FILE *out;
    size_t left_out;
    int error; /* errno of the first line that could not be written; 0: none */
};

/*
 * One line; NULL, with the reason, for what a snapshot cannot hold. A document that this version refuses stays as it
 * is: a newer gateway may have written it.
 */
static char *format_line(const struct etcd_wire_kv *kv, struct slice id, char ret_reason[REASON_MAX])
{
    json_error_t error;
    struct route_app *app = NULL;
    struct route_problem problem;
    char *line = NULL;
    if (app_document_parse(kv->value, &app, &problem) == STATUS_OK && slice_eq(slice_str(app->id), id)) {
        app->revision = kv->mod_revision;
        line = app_document_format(app);
        route_app_free(&app);
        return line;
    }
    route_app_free(&app);
    json_t *json = json_loadb(kv->value.len > 0 ? kv->value.ptr : "", kv->value.len, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        snprintf(ret_reason, REASON_MAX, "what etcd has is not valid JSON: %s", error.text);
    else if (!json_is_object(json))
        snprintf(ret_reason, REASON_MAX, "what etcd has is no JSON object");
    else if (!slice_eq_nocase(slice_str(ctl_string(json, "app_id")), id))
        snprintf(ret_reason, REASON_MAX, "its document's app_id is another than its key's");
    else if (json_object_set_new(json, "revision", json_integer((json_int_t)kv->mod_revision)) != 0 ||
             !(line = json_dumps(json, JSON_COMPACT)))
        abort();
    json_decref(json);
    return line;
}

static bool on_saved(void *arg, const struct etcd_wire_kv *kv)
{
    struct saving *saving = arg;
    char reason[REASON_MAX];
    struct slice id = ctl_etcd_app_id(saving->etcd, kv->key);
    char *line = format_line(kv, id, reason);
    if (!line) {
        saving->left_out++;
        ctl_error("app %.*s is left out: %s", SLICE_ARG(id), reason);
        return true;
    }
    if (fprintf(saving->out, "%s\n", line) < 0)
        saving->error = errno;
    free(line);
    return saving->error == 0;
}

enum ctl_exit ctl_etcd_snapshot_save(const struct ctl_options *options, FILE *out, size_t *ret_left_out)
{
    struct ctl_etcd etcd;
    struct saving saving = {.etcd = &etcd, .out = out};
    enum ctl_exit result = ctl_etcd_open(options, &etcd);
    if (result != CTL_OK)
        return result;
    result = ctl_etcd_each(&etcd, on_saved, &saving);
    if (saving.error != 0) {
        ctl_error("cannot write: %s", strerror(saving.error));
        result = CTL_USAGE;
    }
    ctl_etcd_close(&etcd);
    *ret_left_out = saving.left_out;
    return result;
}

/* ---- load ---- */

/* An app of the file, or of etcd. */
struct item {
    char *id;
    char *document; /* NULL: etcd has it, the file not: to be deleted */
};

struct loading {
    struct ctl_etcd etcd;
    void *wanted; /* a tree of items by id: those to be written */
    json_t *kept; /* an object whose members are the ids of refused lines: those apps stay as etcd has them */
    size_t accepted;
    size_t refused;
    json_t *errors; /* of the refused lines */
    struct etcd_wire_op ops[CTL_ETCD_MAX_OPS];
    char *keys[CTL_ETCD_MAX_OPS];
    size_t op_count;
    size_t bytes;
    uint64_t revision;
    enum ctl_exit result;
};

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->id, ((const struct item *)b)->id);
}

static struct item *find(const struct loading *l, struct slice id)
{
    char *copy = strndup(id.ptr, id.len);
    if (!copy)
        abort();
    struct item key = {.id = copy};
    struct item **found = tfind(&key, &l->wanted, compare);
    free(copy);
    return found ? *found : NULL;
}

static void free_item(void *arg)
{
    struct item *item = arg;
    free(item->id);
    free(item->document);
    free(item);
}

static void add(struct loading *l, const char *id, size_t id_len, char *document)
{
    struct item *item = malloc(sizeof *item);
    if (!item)
        abort();
    *item = (struct item){.id = strndup(id, id_len), .document = document};
    if (!item->id || !tsearch(item, &l->wanted, compare))
        abort();
}

static void refuse_line(struct loading *l, size_t number, const struct route_problem *problem)
{
    l->refused++;
    json_t *error = json_pack("{sI ss ss ss}", "line", (json_int_t)number, "code", status_code(problem->status),
                              "field", problem->field, "detail", problem->detail);
    if (!error) /* what was in the line is no text */
        error = json_pack("{sI ss}", "line", (json_int_t)number, "code", status_code(problem->status));
    json_array_append_new(l->errors, error);
}

/* Whose line it is, as far as it says so. */
static void keep(struct loading *l, struct slice line)
{
    struct slice id;
    while (app_document_next_id(&line, &id)) {
        char *lower = strndup(id.ptr, id.len);
        if (!lower)
            abort();
        ascii_lower_copy(lower, slice_str(lower));
        json_object_set_new(l->kept, lower, json_true());
        free(lower);
    }
}

static bool is_kept(const struct loading *l, struct slice id)
{
    char *copy = strndup(id.ptr, id.len);
    if (!copy)
        abort();
    bool is = json_object_get(l->kept, copy) != NULL;
    free(copy);
    return is;
}

static void take_line(struct loading *l, size_t number, struct slice line)
{
    struct route_app *app = NULL;
    struct route_problem problem = {.status = STATUS_OK};
    enum status status = app_document_parse(line, &app, &problem);
    if (status == STATUS_OK && find(l, slice_str(app->id)))
        status = route_problem_set(&problem, STATUS_INVALID_RECORD, "app_id", "%s is in the file twice", app->id);
    if (status == STATUS_OK)
        status = route_app_check(app, NULL, &problem);
    problem.status = status;
    if (status == STATUS_OK) {
        l->accepted++;
        add(l, app->id, strlen(app->id), app_document_format_bare(app));
    } else {
        refuse_line(l, number, &problem);
        keep(l, line);
    }
    route_app_free(&app);
}

/* False after saying that the input cannot be read to its end. */
static bool read_lines(struct loading *l, FILE *in, struct ctl_end *end)
{
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t len;
    while ((len = getline(&line, &capacity, in)) >= 0) {
        number++;
        ctl_end_feed(end, line, (size_t)len);
        while (len > 0 && strchr(" \t\r\n", line[len - 1]))
            len--;
        if (len > 0)
            take_line(l, number, slice_make(line, (size_t)len));
    }
    free(line);
    if (!ferror(in))
        return ctl_end_check(end);
    ctl_error("%s: %s; nothing was changed", l->etcd.options->argv[0], strerror(errno));
    return false;
}

/* NULL: it may be written. */
static const char *why_not(const struct loading *l)
{
    const struct ctl_options *options = l->etcd.options;
    if (l->refused > 0 && options->strict)
        return "not every line is valid";
    if (l->refused > 0 && l->accepted == 0)
        return "no line is valid";
    return l->accepted == 0 && !options->empty ? "there is no app in it; --empty deletes every app" : NULL;
}

/* What is there already needs no writing; what the file has no line of goes. */
static bool on_present(void *arg, const struct etcd_wire_kv *kv)
{
    struct loading *l = arg;
    struct slice id = ctl_etcd_app_id(&l->etcd, kv->key);
    struct item *item = find(l, id);
    if (!item) {
        if (!is_kept(l, id))
            add(l, id.ptr, id.len, NULL);
    } else if (slice_eq(slice_str(item->document), kv->value)) {
        tdelete(item, &l->wanted, compare);
        free_item(item);
    }
    return true;
}

static void flush(struct loading *l, bool is_last)
{
    struct etcd_wire_txn_answer answer;
    if (l->result == CTL_OK)
        l->result = ctl_etcd_txn(&l->etcd, l->ops, l->op_count, is_last, &answer);
    if (l->result == CTL_OK)
        l->revision = answer.header.revision;
    for (size_t i = 0; i < l->op_count; i++)
        free(l->keys[i]);
    l->op_count = l->bytes = 0;
}

static void write_item(struct loading *l, const struct item *item)
{
    struct slice value = slice_str(item->document);
    if (l->op_count == CTL_ETCD_MAX_OPS || (l->op_count > 0 && l->bytes + value.len > ETCD_WIRE_MAX_BYTES))
        flush(l, false);
    char *key = ctl_etcd_key(&l->etcd, item->id);
    l->keys[l->op_count] = key;
    l->ops[l->op_count++] = (struct etcd_wire_op){.key = slice_str(key), .value = value, .is_delete = !item->document};
    l->bytes += value.len + strlen(key);
}

static void visit_deletion(const void *node, VISIT order, void *closure)
{
    const struct item *item = *(const struct item *const *)node;
    if ((order == postorder || order == leaf) && !item->document)
        write_item(closure, item);
}

static void visit_put(const void *node, VISIT order, void *closure)
{
    const struct item *item = *(const struct item *const *)node;
    if ((order == postorder || order == leaf) && item->document)
        write_item(closure, item);
}

static enum ctl_exit write_all(struct loading *l)
{
    l->result = ctl_etcd_each(&l->etcd, on_present, l);
    if (l->result != CTL_OK)
        return l->result;
    twalk_r(l->wanted, visit_deletion, l); /* first, so that addresses and names are free */
    twalk_r(l->wanted, visit_put, l);
    flush(l, true); /* if only to mark the prefix */
    return l->result;
}

static enum ctl_exit tell_loaded(const struct loading *l)
{
    if (!l->etcd.options->json) {
        printf("%zu apps loaded into etcd, %zu refused, revision %ju\n", l->accepted, l->refused,
               (uintmax_t)l->revision);
        ctl_print_line_errors(l->errors);
    } else {
        json_t *json = json_pack("{sI sI sI sO}", "apps", (json_int_t)l->accepted, "refused", (json_int_t)l->refused,
                                 "revision", (json_int_t)l->revision, "errors", l->errors);
        ctl_print_json(json);
        json_decref(json);
    }
    return l->refused > 0 ? CTL_REFUSED : CTL_OK;
}

static void tell_refused(const struct loading *l, const char *reason)
{
    if (!l->etcd.options->json) {
        ctl_error("%s; nothing was changed", reason);
        ctl_print_line_errors(l->errors);
        return;
    }
    json_t *json =
        json_pack("{ss ss sO}", "code", status_code(STATUS_INVALID_RECORD), "detail", reason, "errors", l->errors);
    json_dumpf(json, stderr, JSON_COMPACT | ctl_json_flags(stderr));
    fputc('\n', stderr);
    json_decref(json);
}

enum ctl_exit ctl_etcd_snapshot_load(const struct ctl_options *options, FILE *in, struct ctl_end *end)
{
    struct loading l = {.wanted = NULL};
    enum ctl_exit result = ctl_etcd_open(options, &l.etcd);
    if (result != CTL_OK)
        return result;
    l.errors = json_array();
    l.kept = json_object();
    const char *reason = NULL;
    if (!read_lines(&l, in, end)) {
        result = CTL_USAGE;
    } else if ((reason = why_not(&l)) != NULL) {
        tell_refused(&l, reason);
        result = CTL_REFUSED;
    } else {
        result = write_all(&l);
    }
    if (result == CTL_OK)
        result = tell_loaded(&l);
    tdestroy(l.wanted, free_item);
    json_decref(l.errors);
    json_decref(l.kept);
    ctl_etcd_close(&l.etcd);
    return result;
}
