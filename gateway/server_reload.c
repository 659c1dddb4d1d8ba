/* Certificates, and what a reload changes. */
#include "gateway/server_internal.h"

#include "gateway/mux/negotiate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status server_load_certificates(const struct config *config, struct cert_snapshot **ret_snapshot,
                                     char ret_error[SERVER_ERROR_TEXT_MAX])
{
    struct cert_source sources[CONFIG_MAX_BASE_DOMAINS];
    char text[CERT_ERROR_TEXT_MAX];
    for (size_t i = 0; i < config->base_domain_count; i++)
        sources[i] = (struct cert_source){
            .name = config->base_domains[i].name,
            .certificate = config->base_domains[i].certificate,
            .private_key = config->base_domains[i].private_key,
        };
    enum status status = cert_snapshot_load(sources, config->base_domain_count, ret_snapshot, text);
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "%s: base_domains: %s", config->path, text);
    return status;
}

static enum status make_tls(const struct cert_snapshot *snapshot, const struct tls_ticket_keys *keys,
                            struct tls_server **ret_tls, char *ret_error)
{
    struct tls_options options = {.alpn = negotiate_alpn};
    char text[TLS_ERROR_TEXT_MAX];
    enum status status = tls_server_new(snapshot, &options, keys, ret_tls, text);
    if (status != STATUS_OK)
        snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "base_domains: %s", text);
    return status;
}

static void put_uploaded(const struct server *s, struct tls_server *tls)
{
    for (size_t i = 0; i < certs_count(s->certs); i++)
        tls_server_put_custom(tls, certs_at(s->certs, i));
}

/* ---- an uploaded certificate's way to the workers ---- */

struct publication {
    unsigned waiting; /* workers that have not applied it yet */
    void (*done)(void *done_arg);
    void *done_arg;
};

static void on_applied(void *arg)
{
    struct publication *publication = arg;
    if (--publication->waiting > 0)
        return;
    publication->done(publication->done_arg);
    free(publication);
}

void server_publish_certificate(void *arg, struct slice name, struct cert_custom *cert, void (*done)(void *done_arg),
                                void *done_arg)
{
    struct server *s = arg;
    struct publication *publication = malloc(sizeof *publication);
    if (!publication)
        abort();
    *publication = (struct publication){.waiting = s->worker_count, .done = done, .done_arg = done_arg};
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_set_certificate(s->workers[i], name, cert, on_applied, publication);
}

enum status server_make_tls(struct server *s, struct tls_server **ret_tls, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    enum status status = make_tls(s->certificates, &s->ticket_keys, ret_tls, ret_error);
    if (status == STATUS_OK)
        put_uploaded(s, *ret_tls);
    return status;
}

static enum status check_control_keys(const struct config *config, char *ret_error)
{
    struct server_control_keys keys[CONFIG_MAX_LISTENERS];
    enum status status = server_load_control_keys(config, keys, ret_error);
    if (status == STATUS_OK)
        server_free_control_keys(keys, config->control_count);
    return status;
}

enum status server_check(const struct config *config, char ret_error[SERVER_ERROR_TEXT_MAX])
{
    struct cert_snapshot *snapshot = NULL;
    struct tls_server *tls = NULL;
    struct tls_ticket_keys keys = {.count = 0};
    snprintf(ret_error, SERVER_ERROR_TEXT_MAX, "no randomness for session tickets");
    enum status status = tls_ticket_keys_rotate(&keys);
    if (status == STATUS_OK)
        status = server_load_certificates(config, &snapshot, ret_error);
    if (status == STATUS_OK)
        status = make_tls(snapshot, &keys, &tls, ret_error);
    if (status == STATUS_OK)
        status = check_control_keys(config, ret_error);
    if (status == STATUS_OK)
        status = server_check_sync(config, ret_error);
    tls_server_free(&tls);
    cert_snapshot_unref(&snapshot);
    return status;
}

/* ---- reload ---- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_listeners(const struct config *a, const struct config *b)
{
    if (a->listener_count != b->listener_count)
        return false;
    for (size_t i = 0; i < a->listener_count; i++) {
        const struct config_listener *x = &a->listeners[i], *y = &b->listeners[i];
        if (!ip_equal(&x->addr, &y->addr) || x->port != y->port || x->redirect_to_https != y->redirect_to_https ||
            x->proxy_protocol_required != y->proxy_protocol_required)
            return false;
    }
    return true;
}

static bool same_controls(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < a->control_count; i++)
        if (!server_find_control(b, &a->controls[i]))
            return false;
    return a->control_count == b->control_count;
}

static bool same_access_log(const struct access_log_options *a, const struct access_log_options *b)
{
    return same_text(a->path, b->path) && same_text(a->format, b->format) && a->client == b->client &&
           a->query == b->query;
}

static bool same_dns(const struct config_dns *a, const struct config_dns *b)
{
    return a->enabled == b->enabled && same_text(a->servers, b->servers) && a->timeout_ms == b->timeout_ms;
}

static bool same_etcd(const struct config_etcd *a, const struct config_etcd *b)
{
    if (a->endpoint_count != b->endpoint_count)
        return false;
    for (size_t i = 0; i < a->endpoint_count; i++)
        if (!same_text(a->endpoints[i], b->endpoints[i]))
            return false;
    return same_text(a->prefix, b->prefix) && same_text(a->ca, b->ca) && same_text(a->certificate, b->certificate) &&
           same_text(a->private_key, b->private_key) && same_text(a->user, b->user) &&
           same_text(a->password_file, b->password_file) && same_text(a->fleet_key_file, b->fleet_key_file);
}

/* What is fixed for the life of the process is kept, and said. */
static void note_unchanged(struct server *s, const struct config *new, bool keeps_trusted_proxies)
{
    const struct config *old = s->started;
    size_t count = 0;
    if (old->workers != new->workers)
        s->needs_restart[count++] = "workers";
    if (!same_text(old->state_dir, new->state_dir))
        s->needs_restart[count++] = "state_dir";
    if (!same_listeners(old, new))
        s->needs_restart[count++] = "listeners";
    if (!same_controls(old, new))
        s->needs_restart[count++] = "control";
    if (keeps_trusted_proxies)
        s->needs_restart[count++] = "trusted_proxies";
    if (!same_access_log(&old->access_log, &new->access_log))
        s->needs_restart[count++] = "access_log";
    if (!same_dns(&old->dns, &new->dns))
        s->needs_restart[count++] = "dns";
    if (!same_etcd(&old->etcd, &new->etcd) || !server_has_fleet_key_of(s, new))
        s->needs_restart[count++] = "sync.etcd";
    s->needs_restart[count] = NULL;
    for (size_t i = 0; i < count; i++)
        log_warn("reload: %s changed; that needs a restart, the old value stays in force", s->needs_restart[i]);
}

/* All that a reload reads and makes before anything changes. */
struct reload {
    struct config *config;
    struct cert_snapshot *certificates;
    struct server_control_keys control_keys[CONFIG_MAX_LISTENERS];
    struct tls_server *servers[CONFIG_MAX_WORKERS];
};

static void adopt(struct server *s, struct reload *r)
{
    struct config *config = r->config;
    note_unchanged(s, config, config_keep_trusted_proxies(config, s->started, s->config));
    server_set_control_keys(s, config, r->control_keys);
    config_keep_own_listeners(config, s->started);
    for (unsigned i = 0; i < s->worker_count; i++)
        worker_reload(s->workers[i], settings_ref(config->settings), r->servers[i]);
    proxy_reload(s->control_proxy, settings_ref(config->settings), NULL);
    changes_set_rules(s->changes, &config->settings->rules);
    changes_set_max_apps(s->changes, config->max_apps);
    api_set_base_domains(s->api, config->settings->base_domains, config->settings->base_domain_count);
    log_set_level(config->log_level);
    cert_snapshot_unref(&s->certificates);
    s->certificates = r->certificates;
    certs_set_base(s->certs, r->certificates);
    if (s->config != s->started)
        config_free(&s->config);
    s->config = config;
    server_apply_sync(s);
}

static enum status make_all_tls(struct server *s, const struct cert_snapshot *certificates, struct tls_server **servers)
{
    for (unsigned i = 0; i < s->worker_count; i++) {
        enum status status = make_tls(certificates, &s->ticket_keys, &servers[i], s->reload_error);
        if (status == STATUS_OK) {
            put_uploaded(s, servers[i]);
            continue;
        }
        while (i > 0)
            tls_server_free(&servers[--i]);
        return status;
    }
    return STATUS_OK;
}

static enum status load(struct server *s, struct reload *r)
{
    enum status status = config_load(s->config->path, &r->config, s->reload_error);
    if (status == STATUS_OK)
        status = server_load_certificates(r->config, &r->certificates, s->reload_error);
    if (status == STATUS_OK)
        status = server_check_sync(r->config, s->reload_error);
    if (status == STATUS_OK)
        status = server_load_control_keys(r->config, r->control_keys, s->reload_error);
    if (status != STATUS_OK)
        return status;
    status = make_all_tls(s, r->certificates, r->servers);
    if (status != STATUS_OK)
        server_free_control_keys(r->control_keys, r->config->control_count);
    return status;
}

void server_reload(struct server *s)
{
    struct reload r = {.config = NULL};
    if (s->draining) {
        snprintf(s->reload_error, sizeof s->reload_error, "the gateway is draining; a new one reads the file");
        log_error("reload: %s", s->reload_error);
        return;
    }
    if (load(s, &r) != STATUS_OK) {
        log_error("reload: %s; the old configuration stays in force", s->reload_error);
        cert_snapshot_unref(&r.certificates);
        config_free(&r.config);
        return;
    }
    s->reload_error[0] = 0;
    adopt(s, &r);
    log_info("reloaded %s", s->config->path);
}
