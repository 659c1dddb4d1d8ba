/* The listeners of the control API. */
#include "gateway/server_internal.h"

#include "gateway/control/text_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    UNIX_SOCKET_MODE = 0660,
    ARRIVED_MS = 1, /* until the next tick: time for some turns */
};

/* Empty and STATUS_OK if there is no file to read. */
static enum status load_token(const char *path, struct slice *ret_token, char *ret_error)
{
    char text[TEXT_FILE_ERROR_TEXT_MAX];
    *ret_token = SLICE_NONE;
    enum status status = path ? text_file_token(path, ret_token, text) : STATUS_OK;
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: token_file %s", text);
    return status;
}

/* What clients' certificates are checked against; malloc'ed. */
static enum status load_client_ca(const char *path, struct slice *ret_ca, char *ret_error)
{
    char text[TEXT_FILE_ERROR_TEXT_MAX];
    *ret_ca = SLICE_NONE;
    if (!path)
        return STATUS_OK;
    ret_ca->ptr = text_file_read(path, &ret_ca->len, text);
    if (ret_ca->ptr)
        return STATUS_OK;
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: client_ca %s", text);
    return STATUS_INVALID_RECORD;
}

static enum status make_tls(const struct config_control *control, struct tls_server **ret_tls, char *ret_error)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    struct cert_source source = {.name = "", .certificate = control->certificate, .private_key = control->private_key};
    struct tls_options options = {.alpn = alpn, .accept_unknown_names = true};
    struct tls_ticket_keys keys = {.count = 0};
    struct cert_snapshot *snapshot = NULL;
    char text[CERT_ERROR_TEXT_MAX] = "no randomness";
    enum status status = load_client_ca(control->client_ca, &options.client_ca_pem, ret_error);
    if (status != STATUS_OK)
        return status;
    status = tls_ticket_keys_rotate(&keys);
    if (status == STATUS_OK)
        status = cert_snapshot_load(&source, 1, &snapshot, text);
    if (status == STATUS_OK)
        status = tls_server_new(snapshot, &options, &keys, ret_tls, text);
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: %s", text);
    cert_snapshot_unref(&snapshot);
    explicit_bzero(&keys, sizeof keys);
    text_file_wipe(&options.client_ca_pem);
    return status;
}

static void free_keys(struct server_control_keys *keys)
{
    text_file_wipe(&keys->token);
    tls_server_free(&keys->tls);
}

static enum status load_keys(const struct config_control *control, struct server_control_keys *ret_keys,
                             char *ret_error)
{
    *ret_keys = (struct server_control_keys){.tls = NULL};
    enum status status = load_token(control->token_file, &ret_keys->token, ret_error);
    if (status == STATUS_OK && !control->unix_socket)
        status = make_tls(control, &ret_keys->tls, ret_error);
    if (status != STATUS_OK)
        free_keys(ret_keys);
    return status;
}

enum status server_load_control_keys(const struct config *config,
                                     struct server_control_keys ret_keys[CONFIG_MAX_LISTENERS],
                                     char ret_error[SERVER_ERROR_TEXT_MAX])
{
    for (size_t i = 0; i < config->control_count; i++) {
        enum status status = load_keys(&config->controls[i], &ret_keys[i], ret_error);
        if (status != STATUS_OK) {
            server_free_control_keys(ret_keys, i);
            return status;
        }
    }
    return STATUS_OK;
}

void server_free_control_keys(struct server_control_keys *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free_keys(&keys[i]);
}

const struct config_control *server_find_control(const struct config *config, const struct config_control *control)
{
    for (size_t i = 0; i < config->control_count; i++) {
        const struct config_control *c = &config->controls[i];
        bool same = control->unix_socket ? c->unix_socket && strcmp(c->unix_socket, control->unix_socket) == 0
                                         : ip_equal(&c->addr, &control->addr) && c->port == control->port;
        if (same)
            return c;
    }
    return NULL;
}

void server_set_control_keys(struct server *s, const struct config *config, struct server_control_keys *keys)
{
    for (size_t i = 0; i < s->control_count; i++) {
        struct server_control *c = &s->controls[i];
        const struct config_control *found = server_find_control(config, &s->started->controls[i]);
        if (!found)
            continue;
        struct server_control_keys *new = &keys[found - config->controls];
        text_file_wipe(&c->listener.token);
        c->listener.token = new->token;
        c->listener.needs_certificate = found->client_ca != NULL;
        frontend_set_tls(c->frontend, new->tls);
        *new = (struct server_control_keys){.tls = NULL};
    }
    server_free_control_keys(keys, config->control_count);
}

static int open_control(const struct config_control *control, char *ret_error)
{
    char text[LISTENER_ERROR_TEXT_MAX];
    int fd = control->unix_socket ? listener_open_unix(control->unix_socket, UNIX_SOCKET_MODE, text)
                                  : listener_open_tcp(&control->addr, control->port, false, text);
    if (fd < 0)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "control: %s", text);
    return fd;
}

/* path: NULL: TCP */
static void note_socket_file(struct server_control *c, const char *path)
{
    struct stat file = {.st_ino = 0};
    if (path && lstat(path, &file) == 0)
        c->unix_path = strdup(path);
    c->unix_dev = file.st_dev;
    c->unix_ino = file.st_ino;
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
    struct server_control_keys keys;
    enum status status = load_keys(control, &keys, ret_error);
    if (status != STATUS_OK)
        return status;
    int fd = open_control(control, ret_error);
    if (fd < 0) {
        free_keys(&keys);
        return STATUS_INTERNAL;
    }
    c->listener.api = s->api;
    c->listener.token = keys.token;
    c->listener.needs_certificate = control->client_ca != NULL;
    params.tls = keys.tls;
    note_socket_file(c, control->unix_socket);
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

/* ---- the end ---- */

/* Whoever has not asked by now has not been promised anything, and would only hold up the end. */
static void on_arrived(struct timer *timer)
{
    struct server *s = CONTAINER_OF(timer, struct server, arrived_timer);
    connections_close_unused(s->control_proxy, STATUS_SHUTDOWN);
}

static void on_drained(void *arg)
{
    struct server *s = arg;
    loop_stop(s->loop);
}

void server_init_controls(struct server *s)
{
    timer_init(&s->arrived_timer, on_arrived);
}

/*
 * A change may be stored before its caller hears of it, so calls in progress are answered, also those that have arrived
 * and were not read yet. The store ends after this loop.
 */
void server_end_controls(struct server *s)
{
    for (size_t i = 0; i < s->control_count; i++)
        frontend_stop(s->controls[i].frontend);
    api_end_streams(s->api);
    proxy_drain(s->control_proxy, on_drained, s);
    if (s->fast)
        proxy_close_all(s->control_proxy, STATUS_SHUTDOWN);
    else
        loop_timer_arm(s->loop, &s->arrived_timer, ARRIVED_MS);
}

/* Another gateway may have put its own there, if somebody removed ours. */
static void remove_socket_file(const struct server_control *c)
{
    struct stat now;
    if (c->unix_path && lstat(c->unix_path, &now) == 0 && now.st_dev == c->unix_dev && now.st_ino == c->unix_ino)
        unlink(c->unix_path);
}

void server_free_controls(struct server *s)
{
    for (size_t i = 0; i < s->control_count; i++) {
        struct server_control *c = &s->controls[i];
        frontend_free(&c->frontend);
        text_file_wipe(&c->listener.token);
        remove_socket_file(c);
        free(c->unix_path);
    }
    free(s->controls);
}
