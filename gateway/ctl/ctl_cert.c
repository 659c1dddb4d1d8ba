#include "ctl.h"

#include <stdlib.h>

static char *cert_path(const char *name)
{
    char *path;
    char *encoded = ctl_http_encode(name);
    if (asprintf(&path, "/v1/certificates/%s", encoded) < 0)
        abort();
    free(encoded);
    return path;
}

static void wipe_free(char *text, size_t len)
{
    if (text)
        explicit_bzero(text, len);
    free(text);
}

/* ---- put ---- */

/* {"certificate":…,"private_key":…} of two files, malloc'ed; NULL after saying what is wrong. */
static char *read_document(const char *chain_file, const char *key_file)
{
    size_t chain_len = 0, key_len = 0;
    char *chain = ctl_read_file(chain_file, &chain_len);
    char *key = chain ? ctl_read_file(key_file, &key_len) : NULL;
    json_t *json = key ? json_pack("{ss% ss%}", "certificate", chain, chain_len, "private_key", key, key_len) : NULL;
    char *document = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (key && !json)
        ctl_error("%s, %s: not text; name PEM files", chain_file, key_file);
    json_decref(json);
    free(chain);
    wipe_free(key, key_len);
    return document;
}

static void print_stored(const struct ctl_options *options, const struct ctl_reply *reply)
{
    json_t *json = ctl_reply_json(reply);
    if (json && options->json)
        ctl_print_json(json);
    else if (json)
        printf("certificate of %s %s, valid until %s\n", ctl_string(json, "name"),
               reply->status == 201 ? "created" : "replaced", ctl_string(json, "not_after"));
    json_decref(json);
}

enum ctl_exit ctl_cert_put(const struct ctl_options *options)
{
    struct ctl_reply reply;
    char *document = read_document(options->argv[1], options->argv[2]);
    if (!document)
        return CTL_USAGE;
    char *path = cert_path(options->argv[0]);
    struct ctl_call call = {
        .method = "PUT", .path = path, .body = slice_str(document), .content_type = "application/json"};
    enum ctl_exit result = ctl_http_call(options, &call, &reply);
    if (result == CTL_OK)
        print_stored(options, &reply);
    ctl_reply_free(&reply);
    free(path);
    wipe_free(document, strlen(document));
    return result;
}

/* ---- get, rm ---- */

enum ctl_exit ctl_cert_get(const struct ctl_options *options)
{
    char *path = cert_path(options->argv[0]);
    enum ctl_exit result = ctl_http_show(options, path);
    free(path);
    return result;
}

enum ctl_exit ctl_cert_rm(const struct ctl_options *options)
{
    struct ctl_reply reply;
    char *path = cert_path(options->argv[0]);
    enum ctl_exit result = ctl_http_call(options, &(struct ctl_call){.method = "DELETE", .path = path}, &reply);
    if (result == CTL_OK && options->json)
        ctl_print_done("name", options->argv[0], "removed");
    else if (result == CTL_OK)
        printf("certificate of %s removed\n", options->argv[0]);
    ctl_reply_free(&reply);
    free(path);
    return result;
}

/* ---- ls ---- */

static void add_names(struct ctl_table *table, const json_t *names)
{
    const char *first = json_string_value(json_array_get(names, 0));
    size_t count = json_array_size(names);
    if (count > 1)
        ctl_table_cell(table, "%s +%zu", first, count - 1);
    else
        ctl_table_cell(table, "%s", first ? first : "-");
}

static void add_row(struct ctl_table *table, const json_t *cert)
{
    ctl_table_cell(table, "%s", ctl_string(cert, "name"));
    ctl_table_cell(table, "%s", ctl_string(cert, "source"));
    add_names(table, json_object_get(cert, "names"));
    ctl_table_cell(table, "%s", ctl_string(cert, "not_after"));
    ctl_table_cell(table, "%lld", (long long)json_integer_value(json_object_get(cert, "days_left")));
    ctl_table_cell(table, "%.16s", ctl_string(cert, "fingerprint"));
}

static void print_list(const json_t *certificates, bool as_json)
{
    static const char *const titles[] = {"NAME", "SOURCE", "COVERS", "UNTIL", "DAYS", "FINGERPRINT"};
    struct ctl_table *table = ctl_table_new(sizeof titles / sizeof titles[0]);
    size_t i;
    const json_t *cert;
    for (i = 0; i < sizeof titles / sizeof titles[0]; i++)
        ctl_table_cell(table, "%s", titles[i]);
    json_array_foreach(certificates, i, cert)
    {
        if (as_json)
            ctl_print_json(cert);
        else
            add_row(table, cert);
    }
    if (!as_json)
        ctl_table_print(&table, stdout);
    ctl_table_free(&table);
}

enum ctl_exit ctl_cert_ls(const struct ctl_options *options)
{
    json_t *json;
    struct ctl_call call = {.method = "GET", .path = "/v1/certificates"};
    enum ctl_exit result = ctl_http_json(options, &call, &json);
    if (json)
        print_list(json_object_get(json, "certificates"), options->json);
    json_decref(json);
    return result;
}
