/* Where the routes come from: another control API, or etcd. */
#include "gateway/server_internal.h"

#include "gateway/control/text_file.h"

#include <stdio.h>

static enum status check_pair(const struct sync_options *sync, char *ret_error)
{
    struct cert_source source = {.name = "", .certificate = sync->certificate, .private_key = sync->private_key};
    struct cert_snapshot *snapshot = NULL;
    char text[CERT_ERROR_TEXT_MAX];
    if (!sync->certificate)
        return STATUS_OK;
    enum status status = cert_snapshot_load(&source, 1, &snapshot, text);
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "sync: %s", text);
    cert_snapshot_unref(&snapshot);
    return status;
}

enum status server_check_sync(const struct config *config, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    const struct sync_options *sync = &config->sync;
    struct slice token = SLICE_NONE, ca = SLICE_NONE;
    char text[TEXT_FILE_ERROR_TEXT_MAX];
    enum status status = sync->token_file ? text_file_token(sync->token_file, &token, text) : STATUS_OK;
    text_file_wipe(&token);
    if (status == STATUS_OK && sync->ca && !(ca.ptr = text_file_read(sync->ca, &ca.len, text)))
        status = STATUS_INVALID_RECORD;
    text_file_wipe(&ca);
    if (status == STATUS_OK)
        return check_pair(sync, ret_error);
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "sync: %s", text);
    return status;
}

/* etcd is followed until a restart, whatever the configuration says now. */
void server_apply_sync(struct server *s)
{
    static const struct sync_options none = {.source = NULL};
    sync_configure(s->sync, s->etcd ? &none : &s->config->sync);
    sync_rules_changed(s->sync);
}

void server_start_sync(struct server *s)
{
    const struct config *config = s->started;
    if (config->etcd.endpoint_count > 0)
        s->etcd = etcd_sync_new(&(struct etcd_sync_params){
            .loop = s->loop,
            .fetcher = s->fetcher,
            .config = &config->etcd,
            .changes = s->changes,
            .table = s->table,
        });
    server_apply_sync(s);
}

void server_stop_sync(struct server *s)
{
    etcd_sync_free(&s->etcd);
    sync_free(&s->sync);
    fetcher_free(&s->fetcher);
}
