#include "ctl.h"
#include "ctl_etcd.h"

#include <stdlib.h>

/* ---- put ---- */

/* The app_id of a document, malloc'ed; NULL after saying what is wrong. */
static char *document_id(const char *file, const char *text, size_t len)
{
    json_error_t error;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    char *id = NULL;
    if (!json)
        ctl_error("%s:%d:%d: not valid JSON: %s", file, error.line, error.column, error.text);
    else if (*ctl_string(json, "app_id") == '\0')
        ctl_error("%s: the document has no \"app_id\"; add one", file);
    else if (!(id = strdup(ctl_string(json, "app_id"))))
        abort();
    json_decref(json);
    return id;
}

static enum ctl_exit print_stored(const struct ctl_options *options, const struct ctl_reply *reply)
{
    json_t *json = ctl_reply_json(reply);
    if (json && options->json)
        ctl_print_json(json);
    else if (json)
        printf("app %s %s, revision %lld\n", ctl_string(json, "app_id"), reply->status == 201 ? "created" : "replaced",
               (long long)json_integer_value(json_object_get(json, "revision")));
    json_decref(json);
    return json ? CTL_OK : CTL_UNREACHABLE;
}

enum ctl_exit ctl_app_put(const struct ctl_options *options)
{
    if (options->etcd)
        return ctl_etcd_app_put(options);
    size_t len;
    struct ctl_reply reply;
    char *text = ctl_read_file(options->argv[0], &len);
    char *id = text ? document_id(options->argv[0], text, len) : NULL;
    if (!id) {
        free(text);
        return CTL_USAGE;
    }
    char *path = ctl_app_path(id);
    struct ctl_call call = {.method = "PUT",
                            .path = path,
                            .body = {text, len},
                            .content_type = "application/json",
                            .if_match = options->if_match};
    enum ctl_exit result = ctl_http_call(options, &call, &reply);
    if (result == CTL_OK)
        result = print_stored(options, &reply);
    ctl_reply_free(&reply);
    free(path);
    free(id);
    free(text);
    return result;
}

/* ---- get, rm ---- */

enum ctl_exit ctl_app_get(const struct ctl_options *options)
{
    if (options->etcd)
        return ctl_etcd_app_show(options);
    char *path = ctl_app_path(options->argv[0]);
    enum ctl_exit result = ctl_http_show(options, path);
    free(path);
    return result;
}

enum ctl_exit ctl_app_rm(const struct ctl_options *options)
{
    if (options->etcd)
        return ctl_etcd_app_rm(options);
    struct ctl_reply reply;
    char *path = ctl_app_path(options->argv[0]);
    struct ctl_call call = {.method = "DELETE", .path = path, .if_match = options->if_match};
    enum ctl_exit result = ctl_http_call(options, &call, &reply);
    if (result == CTL_OK && options->json)
        ctl_print_done("app_id", options->argv[0], "deleted");
    else if (result == CTL_OK)
        printf("app %s deleted\n", options->argv[0]);
    ctl_reply_free(&reply);
    free(path);
    return result;
}

/* ---- ls ---- */

/* The strings of one member of each item, comma-separated, malloc'ed. */
static char *join(const json_t *array, const char *key)
{
    char *text = NULL;
    size_t len = 0;
    size_t i;
    const json_t *item;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    json_array_foreach(array, i, item)
    {
        const json_t *value = json_object_get(item, key);
        if (json_is_integer(value))
            fprintf(out, "%s%lld", i > 0 ? "," : "", (long long)json_integer_value(value));
        else
            fprintf(out, "%s%s", i > 0 ? "," : "", json_string_value(value) ? json_string_value(value) : "");
    }
    if (fclose(out) != 0)
        abort();
    return text;
}

static unsigned count_running(const json_t *instances)
{
    unsigned count = 0;
    size_t i;
    const json_t *item;
    json_array_foreach(instances, i, item) if (strcmp(ctl_string(item, "state"), "running") == 0) count++;
    return count;
}

struct ctl_table *ctl_app_table_new(void)
{
    static const char *const titles[] = {"APP", "RUNNING", "PORTS", "DOMAINS", "REVISION"};
    enum { COLUMNS = sizeof titles / sizeof titles[0] };
    struct ctl_table *table = ctl_table_new(COLUMNS);
    for (size_t i = 0; i < COLUMNS; i++)
        ctl_table_cell(table, "%s", titles[i]);
    return table;
}

void ctl_app_table_add(struct ctl_table *table, const json_t *app)
{
    const json_t *instances = json_object_get(app, "instances");
    char *ports = join(json_object_get(app, "ports"), "port");
    char *domains = join(json_object_get(app, "domains"), "name");
    ctl_table_cell(table, "%s", ctl_string(app, "app_id"));
    ctl_table_cell(table, "%u/%zu", count_running(instances), json_array_size(instances));
    ctl_table_cell(table, "%s", *ports ? ports : "any");
    ctl_table_cell(table, "%s", *domains ? domains : "-");
    ctl_table_cell(table, "%lld", (long long)json_integer_value(json_object_get(app, "revision")));
    free(ports);
    free(domains);
}

static char *list_path(const struct ctl_options *options, const char *after)
{
    char *path;
    char *q = ctl_http_encode(options->q ? options->q : "");
    char *encoded = ctl_http_encode(after);
    if (asprintf(&path, "/v1/apps?limit=500&q=%s&after=%s", q, encoded) < 0)
        abort();
    free(q);
    free(encoded);
    return path;
}

/* Fetches one page; `after` becomes the cursor of the next, "" at the end. */
static enum ctl_exit list_page(const struct ctl_options *options, struct ctl_table *table, char **after)
{
    size_t i;
    const json_t *app;
    json_t *json;
    char *path = list_path(options, *after);
    enum ctl_exit result = ctl_http_json(options, &(struct ctl_call){.method = "GET", .path = path}, &json);
    json_array_foreach(json_object_get(json, "apps"), i, app)
    {
        if (options->json)
            ctl_print_json(app);
        else
            ctl_app_table_add(table, app);
    }
    free(*after);
    *after = strdup(ctl_string(json, "next"));
    if (!*after)
        abort();
    json_decref(json);
    free(path);
    return result;
}

enum ctl_exit ctl_app_ls(const struct ctl_options *options)
{
    if (options->etcd)
        return ctl_etcd_app_ls(options);
    struct ctl_table *table = options->json ? NULL : ctl_app_table_new();
    char *after = strdup("");
    enum ctl_exit result;
    if (!after)
        abort();
    do {
        result = list_page(options, table, &after);
    } while (result == CTL_OK && *after);
    free(after);
    if (result == CTL_OK && table)
        ctl_table_print(&table, stdout);
    ctl_table_free(&table);
    return result;
}
