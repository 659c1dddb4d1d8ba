/* Where the routes come from: another control API, or etcd. */
#include "gateway/server_internal.h"

#include "gateway/control/text_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is given of a TLS client's files; `key` is where the configuration names them. */
static enum status check_tls(const char *key, const char *ca, const struct cert_source *pair, char *ret_error)
{
    struct cert_snapshot *snapshot = NULL;
    char text[CERT_ERROR_TEXT_MAX];
    enum status status = ca ? cert_authorities_check(ca, text) : STATUS_OK;
    if (status == STATUS_OK && pair->certificate)
        status = cert_snapshot_load(pair, 1, &snapshot, text);
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "%s: %s", key, text);
    cert_snapshot_unref(&snapshot);
    return status;
}

/* NULL and OK if there is none. */
static enum status load_fleet_key(const struct config_etcd *etcd, struct fleet_key **ret_key, char *ret_error)
{
    char text[TEXT_FILE_ERROR_TEXT_MAX];
    size_t len = 0;
    *ret_key = NULL;
    if (!etcd->fleet_key_file)
        return STATUS_OK;
    char *content = text_file_read(etcd->fleet_key_file, &len, text);
    if (content) {
        *ret_key = fleet_key_new(slice_make(content, len));
        snprintf(text, sizeof text,
                 "%.300s: the first line must be 32 bytes as hex or base64; openssl rand -hex 32 makes one",
                 etcd->fleet_key_file);
        explicit_bzero(content, len);
    }
    free(content);
    if (*ret_key)
        return STATUS_OK;
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "sync.etcd.fleet_key_file: %s", text);
    return STATUS_INVALID_RECORD;
}

bool server_has_fleet_key_of(const struct server *s, const struct config *config)
{
    char error[SERVER_ERROR_TEXT_MAX];
    struct fleet_key *key;
    bool has = load_fleet_key(&config->etcd, &key, error) == STATUS_OK && fleet_key_equal(s->fleet_key, key);
    fleet_key_free(&key);
    return has;
}

static enum status check_password(const struct config_etcd *etcd, char *ret_error)
{
    char text[TEXT_FILE_ERROR_TEXT_MAX];
    struct slice password = SLICE_NONE;
    if (!etcd->password_file)
        return STATUS_OK;
    password.ptr = text_file_read(etcd->password_file, &password.len, text);
    bool is_there = password.ptr;
    text_file_wipe(&password);
    if (is_there)
        return STATUS_OK;
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "sync.etcd.password_file: %s", text);
    return STATUS_INVALID_RECORD;
}

static enum status check_etcd(const struct config_etcd *etcd, char *ret_error)
{
    struct cert_source pair = {
        .name = "", .is_client = true, .certificate = etcd->certificate, .private_key = etcd->private_key};
    struct fleet_key *key = NULL;
    enum status status = check_tls("sync.etcd.tls", etcd->ca, &pair, ret_error);
    if (status == STATUS_OK)
        status = check_password(etcd, ret_error);
    if (status == STATUS_OK)
        status = load_fleet_key(etcd, &key, ret_error);
    fleet_key_free(&key);
    return status;
}

static enum status check_source(const struct sync_options *sync, char *ret_error)
{
    struct cert_source pair = {
        .name = "", .is_client = true, .certificate = sync->certificate, .private_key = sync->private_key};
    struct slice token = SLICE_NONE;
    char text[TEXT_FILE_ERROR_TEXT_MAX];
    enum status status = sync->token_file ? text_file_token(sync->token_file, &token, text) : STATUS_OK;
    text_file_wipe(&token);
    if (status == STATUS_OK)
        return check_tls("sync", sync->ca, &pair, ret_error);
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "sync: %s", text);
    return status;
}

enum status server_check_sync(const struct config *config, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    enum status status = check_source(&config->sync, ret_error);
    return status == STATUS_OK ? check_etcd(&config->etcd, ret_error) : status;
}

/* Only a restart leads to etcd, or away from it: until then what was followed is followed. */
void server_apply_sync(struct server *s)
{
    if (!s->etcd && s->config->etcd.endpoint_count == 0)
        sync_configure(s->sync, &s->config->sync);
    sync_rules_changed(s->sync);
    if (s->etcd)
        etcd_sync_rules_changed(s->etcd);
}

static void set_ticket_keys(void *arg, const struct tls_ticket_keys *keys)
{
    struct server *s = arg;
    s->ticket_keys = *keys;
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_set_ticket_keys(s->workers[i], keys);
}

void server_start_sync(struct server *s)
{
    const struct config *config = s->started;
    char error[SERVER_ERROR_TEXT_MAX];
    if (load_fleet_key(&config->etcd, &s->fleet_key, error) != STATUS_OK)
        log_error("%s; certificates and ticket keys are not shared", error); /* it was well a moment ago */
    if (config->etcd.endpoint_count > 0)
        s->etcd = etcd_sync_new(&(struct etcd_sync_params){
            .loop = s->loop,
            .fetcher = s->fetcher,
            .config = &config->etcd,
            .changes = s->changes,
            .table = s->table,
            .certs = s->certs,
            .fleet_key = s->fleet_key,
            .set_ticket_keys = set_ticket_keys,
            .arg = s,
        });
    server_apply_sync(s);
}

void server_stop_sync(struct server *s)
{
    etcd_sync_free(&s->etcd);
    fleet_key_free(&s->fleet_key);
    sync_free(&s->sync);
    fetcher_free(&s->fetcher);
}
