/*
 * snapshot save and load. A snapshot ends with an empty line, which readers of NDJSON pass over: what comes through a
 * pipe without it may have been cut off, and an app that is missing would be deleted.
 */
#include "ctl.h"
#include "ctl_etcd.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- save ---- */

/* How many lines a snapshot will have; 0: not known. */
static uint64_t count_apps(const struct ctl_options *options)
{
    struct ctl_reply reply;
    struct ctl_call call = {.method = "GET", .path = "/v1/status", .quiet = true};
    json_t *json = NULL;
    if (ctl_http_try(options, &call, &reply) == CTL_OK)
        json = json_loadb(reply.body, reply.len, 0, NULL);
    json_int_t apps = json_integer_value(json_object_get(json, "apps"));
    json_decref(json);
    ctl_reply_free(&reply);
    return apps > 0 ? (uint64_t)apps : 0;
}

/* One run of snapshot save. */
struct saving {
    const struct ctl_options *options;
    size_t left_out; /* apps that could not be saved */
};

static enum ctl_exit download_lines(struct saving *saving, FILE *out)
{
    const struct ctl_options *options = saving->options;
    if (options->etcd)
        return ctl_etcd_snapshot_save(options, out, &saving->left_out);
    struct ctl_reply reply;
    struct ctl_progress *progress = ctl_progress_new("saving", 0, isatty(STDERR_FILENO) ? count_apps(options) : 0);
    struct ctl_call call = {.method = "GET", .path = "/v1/snapshot", .download = out, .progress = progress};
    enum ctl_exit result = ctl_http_try(options, &call, &reply);
    ctl_progress_end(&progress);
    if (result == CTL_REFUSED)
        ctl_http_print_problem(options, &reply);
    ctl_reply_free(&reply);
    return result;
}

static enum ctl_exit download(struct saving *saving, FILE *out)
{
    enum ctl_exit result = download_lines(saving, out);
    if (result == CTL_OK && saving->left_out == 0)
        fputc('\n', out); /* whether it was written is asked when all of it is flushed */
    return result;
}

static enum ctl_exit complain(const char *path)
{
    ctl_error("%s: %s", path, strerror(errno));
    return CTL_USAGE;
}

static enum ctl_exit download_as(struct saving *saving, const char *path, bool syncs)
{
    FILE *out = fopen(path, "we");
    if (!out)
        return complain(path);
    enum ctl_exit result = download(saving, out);
    bool written = fflush(out) == 0 && (!syncs || fsync(fileno(out)) == 0);
    written = fclose(out) == 0 && written;
    return result == CTL_OK && !written ? complain(path) : result;
}

/* Into a file beside the wanted one, which then takes its place: a broken download leaves the old one as it was. */
static enum ctl_exit download_to_file(struct saving *saving, const char *path)
{
    char *part;
    if (asprintf(&part, "%s.part", path) < 0)
        abort();
    enum ctl_exit result = download_as(saving, part, true);
    if (result == CTL_OK && rename(part, path) != 0)
        result = complain(path);
    if (result != CTL_OK)
        unlink(part);
    free(part);
    return result;
}

/* Where links lead, so that they stay; a pipe or a device must not be replaced by a file. */
static enum ctl_exit download_to_path(struct saving *saving, const char *path)
{
    struct stat stat_buffer;
    bool exists = stat(path, &stat_buffer) == 0;
    if (exists && !S_ISREG(stat_buffer.st_mode))
        return download_as(saving, path, false);
    char *real = exists ? realpath(path, NULL) : NULL;
    enum ctl_exit result = download_to_file(saving, real ? real : path);
    free(real);
    return result;
}

static void print_saved(const struct saving *saving, const char *path)
{
    size_t left_out = saving->left_out;
    if (saving->options->json) {
        json_t *json = json_pack("{ss* sb}", "path", path, "saved", 1);
        if (left_out > 0)
            json_object_set_new(json, "left_out", json_integer((json_int_t)left_out));
        ctl_print_json(json);
        json_decref(json);
    } else if (left_out > 0) {
        printf("saved to %s, without %zu app%s\n", path, left_out, left_out == 1 ? "" : "s");
    } else {
        printf("saved to %s\n", path);
    }
}

enum ctl_exit ctl_snapshot_save(const struct ctl_options *options)
{
    const char *path = options->argv[0];
    bool is_stdout = strcmp(path, "-") == 0;
    struct saving saving = {.options = options};
    if (options->etcd && !ctl_etcd_check(options))
        return CTL_USAGE;
    enum ctl_exit result = is_stdout ? download(&saving, stdout) : download_to_path(&saving, path);
    if (result == CTL_OK && !is_stdout)
        print_saved(&saving, path);
    return result == CTL_OK && saving.left_out > 0 ? CTL_REFUSED : result;
}

/* ---- load ---- */

struct ctl_end {
    const struct ctl_options *options;
    bool is_wanted;
    bool is_in_line;    /* which is not empty */
    bool is_last_empty; /* of the lines that have ended, and nothing came since */
};

void ctl_end_feed(struct ctl_end *end, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (data[i] == '\n') {
            end->is_last_empty = !end->is_in_line;
            end->is_in_line = false;
        } else if (data[i] != '\r') {
            end->is_in_line = true;
            end->is_last_empty = false;
        }
    }
}

bool ctl_end_check(const struct ctl_end *end)
{
    if (end->is_last_empty || !end->is_wanted)
        return true;
    ctl_error("%s: it ends without the empty line that snapshot save ends with, so it may have been cut off; nothing "
              "was changed. --unmarked takes it as it is",
              end->options->argv[0]);
    return false;
}

/* A pipe says the same at its end whether its writer has finished or failed. */
static struct ctl_end end_of(const struct ctl_options *options, FILE *in)
{
    struct stat stat;
    bool is_pipe = fstat(fileno(in), &stat) == 0 && (S_ISFIFO(stat.st_mode) || S_ISSOCK(stat.st_mode));
    return (struct ctl_end){.options = options, .is_wanted = is_pipe && !options->unmarked};
}

static bool on_upload(void *arg, const char *data, size_t len)
{
    ctl_end_feed(arg, data, len);
    return len > 0 || ctl_end_check(arg);
}

/* The line that is wrong, or the app whose line is right, but in conflict with others. */
static char *what_is_refused(const json_t *error)
{
    json_int_t line = json_integer_value(json_object_get(error, "line"));
    const char *app_id = ctl_string(error, "app_id");
    char *text;
    int len = line > 0 ? asprintf(&text, "line %lld: ", (long long)line)
                       : asprintf(&text, "%s%s%s", *app_id ? "app " : "", app_id, *app_id ? ": " : "");
    if (len < 0)
        abort();
    return text;
}

void ctl_print_line_errors(const json_t *errors)
{
    size_t i;
    const json_t *error;
    json_array_foreach(errors, i, error)
    {
        const char *field = ctl_string(error, "field");
        char *what = what_is_refused(error);
        char *text;
        if (asprintf(&text, "  %s%s%s%s (%s)", what, field, *field ? ": " : "", ctl_string(error, "detail"),
                     ctl_string(error, "code")) < 0)
            abort();
        ctl_put_text(stderr, text, SIZE_MAX);
        fputc('\n', stderr);
        free(text);
        free(what);
    }
}

static enum ctl_exit print_loaded(const struct ctl_options *options, const struct ctl_reply *reply)
{
    json_t *json = ctl_reply_json(reply);
    if (!json)
        return CTL_UNREACHABLE;
    long long refused = (long long)json_integer_value(json_object_get(json, "refused"));
    if (options->json)
        ctl_print_json(json);
    else
        printf("%lld apps loaded, %lld refused, revision %lld\n",
               (long long)json_integer_value(json_object_get(json, "apps")), refused,
               (long long)json_integer_value(json_object_get(json, "revision")));
    if (!options->json)
        ctl_print_line_errors(json_object_get(json, "errors"));
    json_decref(json);
    return refused > 0 ? CTL_REFUSED : CTL_OK;
}

static void print_refused_lines(const struct ctl_options *options, const struct ctl_reply *reply)
{
    json_t *json = options->json ? NULL : json_loadb(reply->body, reply->len, 0, NULL);
    ctl_print_line_errors(json_object_get(json, "errors"));
    json_decref(json);
}

/* 0: not known. */
static uint64_t size_of(FILE *in)
{
    struct stat stat;
    return fstat(fileno(in), &stat) == 0 && S_ISREG(stat.st_mode) ? (uint64_t)stat.st_size : 0;
}

static enum ctl_exit load(const struct ctl_options *options, FILE *in)
{
    struct ctl_reply reply;
    struct ctl_end end = end_of(options, in);
    if (options->etcd)
        return ctl_etcd_snapshot_load(options, in, &end);
    char path[64];
    snprintf(path, sizeof path, "/v1/snapshot?strict=%d&empty=%d", options->strict, options->empty);
    struct ctl_call call = {.method = "PUT",
                            .path = path,
                            .content_type = "application/x-ndjson",
                            .upload = in,
                            .uploads = on_upload,
                            .uploads_arg = &end,
                            .progress = ctl_progress_new("loading", size_of(in), 0)};
    enum ctl_exit result = ctl_http_try(options, &call, &reply);
    ctl_progress_end(&call.progress);
    if (result == CTL_REFUSED)
        ctl_http_print_problem(options, &reply);
    if (result == CTL_OK)
        result = print_loaded(options, &reply);
    else if (result == CTL_REFUSED)
        print_refused_lines(options, &reply);
    ctl_reply_free(&reply);
    return result;
}

enum ctl_exit ctl_snapshot_load(const struct ctl_options *options)
{
    bool is_stdin = strcmp(options->argv[0], "-") == 0;
    FILE *in = is_stdin ? stdin : fopen(options->argv[0], "re");
    if (!in) {
        ctl_error("%s: %s", options->argv[0], strerror(errno));
        return CTL_USAGE;
    }
    enum ctl_exit result = load(options, in);
    if (!is_stdin)
        fclose(in);
    return result;
}
