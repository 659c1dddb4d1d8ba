/* The listeners of the control API. */
#include "gateway/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT_FILE_BYTES = 65536, MIN_TOKEN_BYTES = 16, UNIX_SOCKET_MODE = 0660 };

/* The whole file, malloc'ed; NULL with the error text. */
static char *read_file(const char *path, size_t *ret_len, char *ret_error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(MAX_TEXT_FILE_BYTES);
    ssize_t len = -1;
    if (text)
        len = read(fd, text, MAX_TEXT_FILE_BYTES);
    if (fd >= 0)
        close(fd);
    if (len >= 0 && len < MAX_TEXT_FILE_BYTES) {
        *ret_len = (size_t)len;
        return text;
    }
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: %s: %s", path,
             len < 0 ? strerror(errno) : "the file is too large");
    free(text);
    return NULL;
}

/* The first line; empty slice and STATUS_OK if there is no file to read. The text is malloc'ed. */
static enum status load_token(const char *path, struct slice *ret_token, char *ret_error)
{
    *ret_token = SLICE_NONE;
    if (!path)
        return STATUS_OK;
    size_t len = 0;
    char *text = read_file(path, &len, ret_error);
    if (!text)
        return STATUS_INVALID_RECORD;
    size_t end = 0;
    while (end < len && text[end] > ' ' && text[end] < 0x7f)
        end++;
    if (end < MIN_TOKEN_BYTES || (end < len && text[end] != '\n' && text[end] != '\r')) {
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX,
                 "control: token_file %s: the first line must be a token of at least %d printable characters without "
                 "spaces",
                 path, MIN_TOKEN_BYTES);
        explicit_bzero(text, len);
        free(text);
        return STATUS_INVALID_RECORD;
    }
    *ret_token = slice_make(text, end);
    return STATUS_OK;
}

static void free_token(struct slice *token)
{
    if (!token->ptr)
        return;
    union {
        const char *in;
        char *out;
    } unconst = {.in = token->ptr};
    explicit_bzero(unconst.out, token->len);
    free(unconst.out);
    *token = SLICE_NONE;
}

static enum status make_tls(const struct config_control *control, struct tls_server **ret_tls, char *ret_error)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    struct cert_source source = {.name = "", .certificate = control->certificate, .private_key = control->private_key};
    struct tls_options options = {.alpn = alpn, .accept_unknown_names = true};
    struct tls_ticket_keys keys = {.count = 0};
    struct cert_snapshot *snapshot = NULL;
    char text[CERT_ERROR_TEXT_MAX] = "no randomness", *ca = NULL;
    size_t ca_len = 0;
    if (control->client_ca && !(ca = read_file(control->client_ca, &ca_len, ret_error)))
        return STATUS_INVALID_RECORD;
    options.client_ca_pem = slice_make(ca, ca_len);
    enum status status = tls_ticket_keys_rotate(&keys);
    if (status == STATUS_OK)
        status = cert_snapshot_load(&source, 1, &snapshot, text);
    if (status == STATUS_OK)
        status = tls_server_new(snapshot, &options, &keys, ret_tls, text);
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: %s", text);
    cert_snapshot_unref(&snapshot);
    free(ca);
    return status;
}

enum status server_check_controls(const struct config *config, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    for (size_t i = 0; i < config->control_count; i++) {
        const struct config_control *control = &config->controls[i];
        struct slice token;
        struct tls_server *tls = NULL;
        enum status status = load_token(control->token_file, &token, ret_error);
        free_token(&token);
        if (status == STATUS_OK && !control->unix_socket)
            status = make_tls(control, &tls, ret_error);
        tls_server_free(&tls);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static int open_control(const struct config_control *control, char *ret_error)
{
    char text[LISTENER_ERROR_TEXT_MAX];
    int fd = control->unix_socket ? listener_open_unix(control->unix_socket, UNIX_SOCKET_MODE, text)
                                  : listener_open_tcp(&control->addr, control->port, text);
    if (fd < 0)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: %s", text);
    return fd;
}

static enum status start_control(struct server *s, const struct config_control *control, char *ret_error)
{
    struct server_control *c = &s->controls[s->control_count];
    struct frontend_params params = {
        .kind = FRONTEND_LOCAL,
        .port = control->port,
        .service = &api_service,
        .service_arg = &c->listener,
    };
    c->listener.api = s->api;
    enum status status = load_token(control->token_file, &c->listener.token, ret_error);
    if (status == STATUS_OK && !control->unix_socket)
        status = make_tls(control, &params.tls, ret_error);
    int fd = status == STATUS_OK ? open_control(control, ret_error) : -1;
    if (fd < 0) {
        free_token(&c->listener.token);
        tls_server_free(&params.tls);
        return status == STATUS_OK ? STATUS_INTERNAL : status;
    }
    c->unix_path = control->unix_socket ? strdup(control->unix_socket) : NULL;
    c->frontend = frontend_new(s->control_proxy, fd, &params);
    s->control_count++;
    return STATUS_OK;
}

enum status server_start_controls(struct server *s, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    s->controls = calloc(s->config->control_count, sizeof *s->controls);
    if (!s->controls)
        abort();
    for (size_t i = 0; i < s->config->control_count; i++) {
        enum status status = start_control(s, &s->config->controls[i], ret_error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

void server_free_controls(struct server *s)
{
    for (size_t i = 0; i < s->control_count; i++) {
        struct server_control *c = &s->controls[i];
        frontend_free(&c->frontend);
        free_token(&c->listener.token);
        if (c->unix_path)
            unlink(c->unix_path);
        free(c->unix_path);
    }
    free(s->controls);
}
