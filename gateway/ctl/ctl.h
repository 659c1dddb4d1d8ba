/*
 * What the commands of gatewayctl share: options, exit statuses, the connection to the gateway, and output.
 */
#ifndef GATEWAY_CTL_CTL_H
#define GATEWAY_CTL_CTL_H

#include "gateway/base/slice.h"

#include <jansson.h>
#include <stdio.h>

/* The exit status of the program, told in --help. */
enum ctl_exit { CTL_OK, CTL_REFUSED, CTL_USAGE, CTL_UNREACHABLE };

/* From the command line; NULL or false: not given. */
struct ctl_options {
    const char *control; /* unix:PATH or https://… */
    const char *cacert;
    const char *cert;
    const char *key;
    const char *token_file;
    bool json;
    /* of single commands */
    const char *q;
    const char *if_match;
    const char *app;
    const char *address;
    const char *instance;
    const char *generation;
    const char *domain;
    const char *profile;
    bool dry_run;
    bool strict;
    int argc; /* arguments after the command's words */
    char **argv;
};

/* ---- ctl_http ---- */

struct ctl_reply {
    long status;
    char *body; /* NUL-terminated, malloc'ed */
    size_t len;
};

struct ctl_call {
    const char *method;
    const char *path;         /* with query, encoded */
    struct slice body;        /* sent if upload is NULL */
    const char *content_type; /* NULL: no body */
    const char *if_match;     /* a revision, or NULL */
    FILE *upload;             /* the body, streamed; or NULL */
    FILE *download;           /* where a 2xx body goes; or NULL: into the reply */
};

/*
 * Makes one call. CTL_OK with the reply for 2xx; otherwise says on stderr what is wrong. The reply is to be freed in
 * every case.
 */
enum ctl_exit ctl_http_call(const struct ctl_options *options, const struct ctl_call *call,
                            struct ctl_reply *ret_reply);
/* The same without a word about refusals: CTL_REFUSED with the reply filled. */
enum ctl_exit ctl_http_try(const struct ctl_options *options, const struct ctl_call *call, struct ctl_reply *ret_reply);
/* GETs the path and prints the JSON that it answers. */
enum ctl_exit ctl_http_show(const struct ctl_options *options, const char *path);
void ctl_reply_free(struct ctl_reply *reply);
/* The reply as JSON; NULL after saying that it is not. */
json_t *ctl_reply_json(const struct ctl_reply *reply);
/* Percent-encodes everything but unreserved characters; malloc'ed. */
char *ctl_http_encode(const char *text);

/* ---- output ---- */

/* One line on stderr, after the program's name. */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The JSON on one line of stdout. */
void ctl_print_json(const json_t *json);
/* A string member, "" if it is not there. */
const char *ctl_string(const json_t *json, const char *key);
/* A file's whole text ("-": standard input), malloc'ed; NULL after saying what is wrong. */
char *ctl_read_file(const char *path, size_t *ret_len);

/* A table with columns as wide as their widest cell. Cells are copied; rows have `columns` cells. */
struct ctl_table;
struct ctl_table *ctl_table_new(size_t columns);
void ctl_table_cell(struct ctl_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ctl_table_print(struct ctl_table **table, FILE *out); /* and frees it */
void ctl_table_free(struct ctl_table **table);             /* accepts NULL */

/* ---- the commands ---- */

enum ctl_exit ctl_app_put(const struct ctl_options *options);
enum ctl_exit ctl_app_get(const struct ctl_options *options);
enum ctl_exit ctl_app_rm(const struct ctl_options *options);
enum ctl_exit ctl_app_ls(const struct ctl_options *options);
enum ctl_exit ctl_cert_put(const struct ctl_options *options);
enum ctl_exit ctl_cert_get(const struct ctl_options *options);
enum ctl_exit ctl_cert_rm(const struct ctl_options *options);
enum ctl_exit ctl_cert_ls(const struct ctl_options *options);
enum ctl_exit ctl_compose(const struct ctl_options *options);
enum ctl_exit ctl_resolve(const struct ctl_options *options);
enum ctl_exit ctl_snapshot_save(const struct ctl_options *options);
enum ctl_exit ctl_snapshot_load(const struct ctl_options *options);
enum ctl_exit ctl_status(const struct ctl_options *options);
enum ctl_exit ctl_drain(const struct ctl_options *options);
enum ctl_exit ctl_reload(const struct ctl_options *options);

#endif
