/* app put, get, rm and ls with --etcd. */
#include "ctl_etcd.h"

#include "gateway/control/app_document.h"

#include <stdlib.h>

/* ---- put, rm ---- */

/* What the gateways are to get: checked, and with all defaults written out. NULL after saying what is wrong. */
static char *read_document(const char *file, char **ret_id)
{
    size_t len;
    struct route_app *app = NULL;
    struct route_problem problem;
    char *text = ctl_read_file(file, &len), *document = NULL;
    if (!text)
        return NULL;
    if (app_document_parse(slice_make(text, len), &app, &problem) == STATUS_OK &&
        route_app_check(app, NULL, &problem) == STATUS_OK) {
        document = app_document_format_bare(app);
        *ret_id = strdup(app->id);
        if (!*ret_id)
            abort();
    } else {
        ctl_error("%s: %s%s%s", file, problem.field, problem.field[0] ? ": " : "", problem.detail);
    }
    route_app_free(&app);
    free(text);
    return document;
}

/* False after saying that it is no revision. */
static bool expect(const struct ctl_options *options, struct etcd_wire_op *op)
{
    op->has_expected = options->if_match != NULL;
    if (!options->if_match || slice_to_u64(slice_str(options->if_match), &op->expected_mod_revision))
        return true;
    ctl_error("--if-match %s: give the revision that app get shows", options->if_match);
    return false;
}

static enum ctl_exit refuse(const struct ctl_options *options, const char *code, const char *detail)
{
    if (!options->json) {
        ctl_error("refused: %s\n  code:   %s", detail, code);
        return CTL_REFUSED;
    }
    json_t *problem = json_pack("{ss ss}", "code", code, "detail", detail);
    if (!problem) /* what it quotes is no text */
        problem = json_pack("{ss}", "code", code);
    json_dumpf(problem, stderr, JSON_COMPACT | ctl_json_flags(stderr));
    fputc('\n', stderr);
    json_decref(problem);
    return CTL_REFUSED;
}

static enum ctl_exit change(struct ctl_etcd *etcd, struct etcd_wire_op *op, uint64_t *ret_revision)
{
    struct etcd_wire_txn_answer answer;
    if (!expect(etcd->options, op))
        return CTL_USAGE;
    enum ctl_exit result = ctl_etcd_txn(etcd, op, 1, !op->is_delete, &answer);
    if (result == CTL_OK && !answer.succeeded)
        return refuse(etcd->options, "revision_conflict", "the app has changed meanwhile, or does not exist");
    *ret_revision = answer.header.revision;
    return result;
}

static enum ctl_exit put(const struct ctl_options *options, const char *id, const char *document)
{
    struct ctl_etcd etcd;
    uint64_t revision = 0;
    enum ctl_exit result = ctl_etcd_open(options, &etcd);
    if (result != CTL_OK)
        return result;
    char *key = ctl_etcd_key(&etcd, id);
    struct etcd_wire_op op = {.key = slice_str(key), .value = slice_str(document)};
    result = change(&etcd, &op, &revision);
    if (result == CTL_OK && options->json)
        printf("{\"app_id\":\"%s\",\"revision\":%ju}\n", id, (uintmax_t)revision);
    else if (result == CTL_OK)
        printf("app %s stored in etcd, revision %ju\n", id, (uintmax_t)revision);
    free(key);
    ctl_etcd_close(&etcd);
    return result;
}

enum ctl_exit ctl_etcd_app_put(const struct ctl_options *options)
{
    char *id = NULL;
    char *document = read_document(options->argv[0], &id);
    enum ctl_exit result = document ? put(options, id, document) : CTL_USAGE;
    free(document);
    free(id);
    return result;
}

static void note_found(void *arg, const struct etcd_wire_kv *kv)
{
    (void)kv;
    *(bool *)arg = true;
}

static bool is_lower(const char *text)
{
    while (*text && ascii_lower(*text) == *text)
        text++;
    return *text == '\0';
}

/* The key of the app that is meant: as it was said if etcd has such a one, else in lower case, as gateways take it. */
static enum ctl_exit find_key(struct ctl_etcd *etcd, char **ret_key)
{
    bool found = false;
    char *id = etcd->options->argv[0];
    enum ctl_exit result = CTL_OK;
    *ret_key = ctl_etcd_key(etcd, id);
    if (!is_lower(id))
        result = ctl_etcd_get(etcd, *ret_key, note_found, &found);
    if (found || is_lower(id))
        return result;
    free(*ret_key);
    ascii_lower_copy(id, slice_str(id));
    *ret_key = ctl_etcd_key(etcd, id);
    return result;
}

static enum ctl_exit rm(struct ctl_etcd *etcd, const char *id, const char *key)
{
    bool found = false;
    uint64_t revision;
    struct etcd_wire_op op = {.key = slice_str(key), .is_delete = true};
    enum ctl_exit result = ctl_etcd_get(etcd, key, note_found, &found);
    if (result == CTL_OK && !found)
        return refuse(etcd->options, "app_unknown", "there is no app with this id");
    if (result == CTL_OK)
        result = change(etcd, &op, &revision);
    if (result == CTL_OK && etcd->options->json)
        ctl_print_done("app_id", id, "deleted");
    else if (result == CTL_OK)
        printf("app %s deleted\n", id);
    return result;
}

enum ctl_exit ctl_etcd_app_rm(const struct ctl_options *options)
{
    struct ctl_etcd etcd;
    enum ctl_exit result = ctl_etcd_open(options, &etcd);
    if (result != CTL_OK)
        return result;
    char *key;
    result = find_key(&etcd, &key);
    if (result == CTL_OK)
        result = rm(&etcd, options->argv[0], key);
    free(key);
    ctl_etcd_close(&etcd);
    return result;
}

/* ---- get, ls ---- */

/* The document with its revision; NULL if it is no JSON object. */
static json_t *parse_app(const struct etcd_wire_kv *kv)
{
    json_t *app = json_loadb(kv->value.len > 0 ? kv->value.ptr : "", kv->value.len, 0, NULL);
    if (json_object_set_new(app, "revision", json_integer((json_int_t)kv->mod_revision)) == 0)
        return app;
    json_decref(app);
    return NULL;
}

struct shown {
    const struct ctl_options *options;
    const struct ctl_etcd *etcd;
    struct ctl_table *table;
    size_t count;
    enum ctl_exit result; /* CTL_REFUSED if anything could not be shown */
};

static void complain(struct shown *shown, const struct etcd_wire_kv *kv)
{
    struct slice id = ctl_etcd_app_id(shown->etcd, kv->key);
    char *detail;
    if (asprintf(&detail, "app %.*s: what etcd has is no JSON object; app put replaces it, app rm deletes it",
                 SLICE_ARG(id)) < 0)
        abort();
    shown->result = refuse(shown->options, status_code(STATUS_INVALID_JSON), detail);
    free(detail);
}

static void on_shown(void *arg, const struct etcd_wire_kv *kv)
{
    struct shown *shown = arg;
    json_t *app = parse_app(kv);
    shown->count++;
    if (app) {
        json_dumpf(app, stdout, (shown->options->json ? JSON_COMPACT : JSON_INDENT(2)) | ctl_json_flags(stdout));
        putchar('\n');
    } else {
        complain(shown, kv);
    }
    json_decref(app);
}

enum ctl_exit ctl_etcd_app_show(const struct ctl_options *options)
{
    struct ctl_etcd etcd;
    struct shown shown = {.options = options, .etcd = &etcd};
    enum ctl_exit result = ctl_etcd_open(options, &etcd);
    if (result != CTL_OK)
        return result;
    char *key;
    result = find_key(&etcd, &key);
    if (result == CTL_OK)
        result = ctl_etcd_get(&etcd, key, on_shown, &shown);
    if (result == CTL_OK && shown.count == 0)
        result = refuse(options, "app_unknown", "there is no app with this id");
    free(key);
    ctl_etcd_close(&etcd);
    return result == CTL_OK ? shown.result : result;
}

static bool has_in(const json_t *items, const char *member, const char *q)
{
    size_t i;
    const json_t *item;
    json_array_foreach(items, i, item)
    {
        if (strcasestr(ctl_string(item, member), q))
            return true;
    }
    return false;
}

/* As the gateway searches: in an id, a domain or an address. */
static bool is_wanted(const json_t *app, const char *q)
{
    const json_t *instances = json_object_get(app, "instances");
    return !q || strcasestr(ctl_string(app, "app_id"), q) || has_in(json_object_get(app, "domains"), "name", q) ||
           has_in(instances, "instance_id", q) || has_in(instances, "address", q);
}

static bool on_listed(void *arg, const struct etcd_wire_kv *kv)
{
    struct shown *shown = arg;
    json_t *app = parse_app(kv);
    if (app && !is_wanted(app, shown->options->q)) {
        json_decref(app);
        return true;
    }
    if (!app)
        complain(shown, kv);
    else if (shown->options->json)
        ctl_print_json(app);
    else
        ctl_app_table_add(shown->table, app);
    json_decref(app);
    return true;
}

enum ctl_exit ctl_etcd_app_ls(const struct ctl_options *options)
{
    struct ctl_etcd etcd;
    struct shown shown = {.options = options, .etcd = &etcd};
    enum ctl_exit result = ctl_etcd_open(options, &etcd);
    if (result != CTL_OK)
        return result;
    if (!options->json)
        shown.table = ctl_app_table_new();
    result = ctl_etcd_each(&etcd, on_listed, &shown);
    if (result == CTL_OK && shown.table)
        ctl_table_print(&shown.table, stdout);
    ctl_table_free(&shown.table);
    ctl_etcd_close(&etcd);
    return result == CTL_OK ? shown.result : result;
}
