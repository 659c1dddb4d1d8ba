/*
 * config: the configuration file (DESIGN section 8) as a parsed and validated value.
 *
 * YAML, of which JSON is a part. Every key is described in conf/gateway.example.yaml. An unknown or doubled key, a
 * wrong type or an impossible value is refused with "FILE:LINE: key.path: what is wrong; what would be right". Relative
 * paths in the file are relative to its folder. Certificates and tokens are not read here (see net/cert_store).
 */
#ifndef GATEWAY_CONTROL_CONFIG_H
#define GATEWAY_CONTROL_CONFIG_H

#include "gateway/base/arena.h"
#include "gateway/base/ip.h"
#include "gateway/base/log.h"
#include "gateway/base/status.h"
#include "gateway/control/sync.h"
#include "gateway/proxy/access_log.h"
#include "gateway/proxy/settings.h"

enum {
    CONFIG_ERROR_TEXT_MAX = 1024,
    CONFIG_MAX_FILE_BYTES = 1 << 20,
    CONFIG_MAX_WORKERS = 256,
    CONFIG_MAX_BASE_DOMAINS = 128, /* hostname.base_index is a byte */
    CONFIG_MAX_LISTENERS = 64,     /* also of control listeners */
    CONFIG_MAX_NETWORKS = 4096,    /* of upstream.allow and of trusted_proxies */
    CONFIG_MAX_ENDPOINTS = 16,     /* of sync.etcd */
};

struct config_base_domain {
    const char *name; /* lower case, no dot at the ends */
    const char *certificate;
    const char *private_key;
};

struct config_listener {
    struct ip_addr addr;
    uint16_t port;
    bool redirect_to_https;       /* plain HTTP that answers with redirects; else TLS */
    bool proxy_protocol_required; /* a PROXY header comes first on every connection */
};

/* Either unix_socket, or an address with certificate, private_key and at least one of client_ca and token_file. */
struct config_control {
    const char *unix_socket; /* NULL: TCP; file mode 0660 is the authentication */
    struct ip_addr addr;
    uint16_t port;
    const char *certificate;
    const char *private_key;
    const char *client_ca;  /* NULL: client certificates are not asked for */
    const char *token_file; /* NULL: no token; else the bearer token is the file's first line */
};

/* Custom domains by TXT records. */
struct config_dns {
    bool enabled;
    const char *servers; /* "address:port,address:port"; NULL: those of /etc/resolv.conf */
    uint32_t timeout_ms; /* of a whole look-up */
};

/* The etcd cluster that the fleet shares; paths of files are read when they are needed. */
struct config_etcd {
    const char *const *endpoints; /* client URLs of its members, without a slash at the end */
    size_t endpoint_count;        /* 0: no etcd */
    const char *prefix;           /* of all keys; begins and ends with a slash */
    const char *ca;               /* NULL: the system's */
    const char *certificate;      /* ours, and its key; or both NULL */
    const char *private_key;
    const char *user; /* NULL: no authentication by name; else with password_file, whose first line is the password */
    const char *password_file;
    const char *fleet_key_file; /* NULL: certificates and session ticket keys stay with each gateway */
};

struct config {
    struct arena arena; /* owns all strings and arrays below */
    const char *path;
    unsigned workers; /* never 0 */
    const char *state_dir;
    const struct config_base_domain *base_domains; /* same order as settings->base_domains; at least one */
    size_t base_domain_count;
    const struct config_listener *listeners; /* at least one */
    size_t listener_count;
    const struct config_control *controls; /* at least one */
    size_t control_count;
    struct access_log_options access_log;
    struct config_dns dns;
    struct config_etcd etcd;
    struct sync_options sync; /* source is NULL: the routes come by calls to the control API */
    uint32_t drain_ms;
    uint32_t max_apps; /* that the table may come to have */
    enum log_level log_level;
    struct settings *settings; /* one reference; take more with settings_ref */
};

/* Reads and checks a file. On failure INVALID_RECORD and the text. */
MUST_CHECK enum status config_load(const char *path, struct config **ret_config, char ret_error[CONFIG_ERROR_TEXT_MAX]);

/* The same for text in memory; `path` is only a name, no file is touched. */
MUST_CHECK enum status config_parse(struct slice text, const char *path, struct config **ret_config,
                                    char ret_error[CONFIG_ERROR_TEXT_MAX]);

/*
 * Listeners stay what they were at the start until a restart: a reloaded config that is not in use yet refuses routes
 * to the addresses of `running`, not to those that its own file names.
 */
void config_keep_own_listeners(struct config *config, const struct config *running);

/*
 * A listener of `running` requires a PROXY header until a restart, also if the file does not any more: then those who
 * may send it, the trusted_proxies, stay those of `in_force`. True if they are others than the file's.
 */
bool config_keep_trusted_proxies(struct config *config, const struct config *running, const struct config *in_force);

void config_free(struct config **config); /* accepts NULL */

#endif
