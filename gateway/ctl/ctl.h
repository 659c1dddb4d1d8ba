/*
 * What the commands of gatewayctl share: options, exit statuses, the connection to the gateway, and output.
 */
#ifndef GATEWAY_CTL_CTL_H
#define GATEWAY_CTL_CTL_H

#include "gateway/base/slice.h"

#include <jansson.h>
#include <stdio.h>

#define CTL_DEFAULT_CONTROL "unix:/run/phala-gateway/control.sock"

/* The exit status of the program, told in --help. */
enum ctl_exit { CTL_OK, CTL_REFUSED, CTL_USAGE, CTL_UNREACHABLE, CTL_WOULD_CHANGE };

/* From the command line; NULL or false: not given. */
struct ctl_options {
    const char *control; /* unix:PATH or https://… */
    const char *cacert;
    const char *cert;
    const char *key;
    const char *token_file;
    char *token; /* what is in that file, which may be a pipe: it is read once */
    bool json;
    bool help;
    bool version;
    /* of single commands */
    const char *q;
    const char *if_match;
    const char *app;
    const char *address;
    const char *instance;
    const char *generation;
    const char *domain;
    const char *profile;
    const char *env_file;
    const char *replace;
    const char *count;
    const char *host;
    const char *path;
    const char *method;
    const char *status;
    const char *slower_than;
    const char *sort;
    const char *interval;
    bool once;
    bool follow;
    bool error;
    const char *etcd; /* client URLs, separated by commas */
    const char *etcd_prefix;
    const char *etcd_user;
    const char *etcd_password_file;
    bool dry_run;
    bool exit_code;
    bool strict;
    bool empty;
    bool unmarked;
    int argc; /* arguments after the command's words */
    char **argv;
};

/* ---- ctl_http ---- */

struct ctl_reply {
    long status;
    char *body; /* NUL-terminated, malloc'ed */
    size_t len;
    bool is_sent; /* the request or a part of it: without an answer, it may have had its effect */
};

struct ctl_call {
    const char *method;
    const char *base;          /* the URL of somebody else than the gateway; NULL: the gateway */
    const char *authorization; /* for those: the field's value, or NULL */
    const char *path;          /* with query, encoded */
    struct slice body;         /* sent if upload is NULL */
    const char *content_type;  /* NULL: no body */
    const char *if_match;      /* a revision, or NULL */
    bool if_none_match;        /* only if there is none yet */
    FILE *upload;              /* the body, streamed; or NULL */
    bool (*uploads)(void *arg, const char *data, size_t len); /* sees it before it is sent; len 0: that was all. NULL:
                                                                 nobody. false: the call is given up with CTL_USAGE */
    void *uploads_arg;
    FILE *download;                                        /* where a 2xx body goes; or NULL: into the reply */
    bool (*data)(void *arg, const char *data, size_t len); /* or here, as it comes; false: stop, it cannot be written */
    void *data_arg;
    struct ctl_progress *progress; /* told about both; may be NULL */
    const int *watch_fds;          /* two; while the call waits and one is readable, watch is called; NULL: none */
    bool (*watch)(void *arg);      /* false: give the call up, CTL_OK with an empty reply */
    void *watch_arg;
    long timeout_ms; /* of the whole call; 0: only a stall ends it */
    bool quiet;      /* no word about a gateway that cannot be reached */
};

/*
 * Makes one call. CTL_OK with the reply for 2xx; otherwise says on stderr what is wrong. The reply is to be freed in
 * every case.
 */
enum ctl_exit ctl_http_call(const struct ctl_options *options, const struct ctl_call *call,
                            struct ctl_reply *ret_reply);
/* The same without a word about refusals: CTL_REFUSED with the reply filled. */
enum ctl_exit ctl_http_try(const struct ctl_options *options, const struct ctl_call *call, struct ctl_reply *ret_reply);
/* Shows a refusal, an RFC 9457 problem: what, the code, the field, what to do. */
void ctl_http_print_problem(const struct ctl_options *options, const struct ctl_reply *reply);
/* The same for an answer that must be JSON: *ret_json is NULL unless CTL_OK. */
enum ctl_exit ctl_http_json(const struct ctl_options *options, const struct ctl_call *call, json_t **ret_json);
/* The path of an app, malloc'ed. */
char *ctl_app_path(const char *app_id);
/* GETs the path and prints the JSON that it answers. */
enum ctl_exit ctl_http_show(const struct ctl_options *options, const char *path);
void ctl_reply_free(struct ctl_reply *reply);
/* The first line of the file ("-": standard input), malloc'ed; NULL after saying that it is no bearer token. */
char *ctl_http_read_token(const char *file);
void ctl_http_free_token(char **token); /* accepts NULL in it */
/* The reply as JSON; NULL after saying that it is not. */
json_t *ctl_reply_json(const struct ctl_reply *reply);
/* Percent-encodes everything but unreserved characters; malloc'ed. */
char *ctl_http_encode(const char *text);

/* ---- output ---- */

/* One line on stderr, after the program's name. */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The JSON on one line of stdout. */
void ctl_print_json(const json_t *json);
/* {"<key>":"<value>","<done>":true} for what answers nothing by itself. */
void ctl_print_done(const char *key, const char *value, const char *done);
/* "line N: field: detail (code)" of each error of a snapshot, on stderr. */
void ctl_print_line_errors(const json_t *errors);
/* For jansson's dumps to `out`. */
size_t ctl_json_flags(FILE *out);
/* A string member, "" if it is not there. */
const char *ctl_string(const json_t *json, const char *key);
/* A file's whole text ("-": standard input), malloc'ed; NULL after saying what is wrong. */
char *ctl_read_file(const char *path, size_t *ret_len);

/* "1.5 MiB", with at most five digits. */
enum { CTL_AMOUNT_MAX = 24 };
void ctl_format_bytes(uint64_t bytes, char ret_text[CTL_AMOUNT_MAX]);

/* What others wrote, safe for a terminal (see text.h), in at most `max` columns. */
void ctl_put_text(FILE *out, const char *text, size_t max);
/* The width of the terminal; 0: `out` is none. */
size_t ctl_terminal_columns(FILE *out);

/*
 * A table with columns as wide as their widest cell; on a terminal, columns that are too wide for it are cut. Cells are
 * copied; rows have `columns` cells.
 */
struct ctl_table;
struct ctl_table *ctl_table_new(size_t columns);
void ctl_table_cell(struct ctl_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ctl_table_print(struct ctl_table **table, FILE *out);                 /* and frees it */
void ctl_table_write(struct ctl_table **table, FILE *out, size_t columns); /* the same for a width; 0: any */
void ctl_table_free(struct ctl_table **table);                             /* accepts NULL */

/* ---- ctl_progress: all of it accepts NULL ---- */

struct ctl_progress;
/* NULL if standard error is no terminal. Totals: 0 if they are not known. */
struct ctl_progress *ctl_progress_new(const char *label, uint64_t total_bytes, uint64_t total_lines);
void ctl_progress_add(struct ctl_progress *progress, const char *data, size_t len);
void ctl_progress_tick(struct ctl_progress *progress);
/* Says what is waited for after the last byte. */
void ctl_progress_phase(struct ctl_progress *progress, const char *phase);
/* Removes the line. */
void ctl_progress_end(struct ctl_progress **progress);

/* ---- the commands ---- */

/* The table of app ls, with its titles. */
struct ctl_table *ctl_app_table_new(void);
void ctl_app_table_add(struct ctl_table *table, const json_t *app);

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
enum ctl_exit ctl_completion(const struct ctl_options *options);
enum ctl_exit ctl_complete(const struct ctl_options *options);
enum ctl_exit ctl_top(const struct ctl_options *options);
enum ctl_exit ctl_logs(const struct ctl_options *options);
enum ctl_exit ctl_man(const struct ctl_options *options);

#endif
