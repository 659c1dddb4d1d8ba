/* config: what is accepted and what it becomes; what is refused, where, and with which words. */
#include "gateway/control/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAINS   "base_domains: [{name: a.example, certificate: a.pem, private_key: a.key}]\n"
#define LISTENERS "listeners: [{address: '127.0.0.1:8443'}]\n"
#define UPSTREAM  "upstream: {allow: [10.0.0.0/8]}\n"
#define MINIMAL   DOMAINS LISTENERS UPSTREAM
#define CONTROL   "certificate: c.pem, private_key: c.key"

/* ---- accepted ---- */

static struct config *parse(const char *text)
{
    struct config *config = NULL;
    char error[CONFIG_ERROR_TEXT_MAX] = "";
    enum status status = config_parse(slice_str(text), "conf/g.yaml", &config, error);
    if (status != STATUS_OK)
        print_error("%s\n", error);
    assert_int_equal(status, STATUS_OK);
    return config;
}

static void minimal_file_gets_defaults(void **state)
{
    (void)state;
    struct config *config = parse(MINIMAL);
    assert_string_equal(config->path, "conf/g.yaml");
    assert_true(config->workers >= 1 && config->workers <= CONFIG_MAX_WORKERS);
    assert_string_equal(config->state_dir, "/var/lib/phala-gateway");
    assert_int_equal(config->base_domain_count, 1);
    assert_string_equal(config->base_domains[0].certificate, "conf/a.pem");
    assert_int_equal(config->control_count, 1);
    assert_string_equal(config->controls[0].unix_socket, "/run/phala-gateway/control.sock");
    assert_null(config->access_log.path);
    assert_string_equal(config->access_log.format, "json");
    assert_int_equal(config->drain_ms, 30000);
    assert_true(config->dns.enabled && !config->dns.servers && config->dns.timeout_ms == 5000);
    assert_int_equal(config->log_level, LOG_LEVEL_INFO);
    assert_int_equal(config->settings->base_domain_count, 1);
    assert_int_equal(config->settings->rules.allow_count, 1);
    assert_int_equal(config->settings->trusted_proxy_count, 0);
    config_free(&config);
    assert_null(config);
    config_free(&config);
}

static void assert_upstream(const struct settings *settings)
{
    const struct ejection_settings *ejection = &settings->ejection;
    assert_int_equal(settings->rules.allow_count, 2);
    assert_int_equal(settings->max_idle_per_instance, 7);
    assert_int_equal(ejection->failures, 3);
    assert_int_equal(ejection->base_ms, 2000);
    assert_int_equal(ejection->max_ms, 9000);
    assert_int_equal(ejection->panic_percent, 70);
    assert_true(ejection->server_errors);
}

static void every_key_is_taken(void **state)
{
    (void)state;
    struct config *config =
        parse("workers: 3\nstate_dir: /s\nlog_level: debug\ntrusted_proxies: [192.0.2.1, 'fd00::/8']\n"
              "base_domains:\n  - name: B.Example\n    certificate: /c.pem\n    private_key: ../k.key\n"
              "  - {name: x.b.example, certificate: x, private_key: y}\n"
              "listeners:\n  - {address: '[::1]:443', proxy_protocol: required}\n"
              "  - {address: 127.0.0.1:80, redirect_to_https: true, proxy_protocol: off}\n"
              "control:\n  - unix_socket: c.sock\n  - {address: '127.0.0.1:9443', " CONTROL ", token_file: t}\n"
              "upstream: {allow: [127.0.0.0/8, '::1'], max_idle_per_instance: 7,\n"
              "  ejection: {failures: 3, pause: 2s, max_pause: 9s, panic_percent: 70, server_errors: true}}\n"
              "access_log: {path: log/a, format: combined, client: masked, query: hashed}\n"
              "limits: {apps: 12, max_connections: 9, max_retries: 1, request_head: 16KiB, request_fields: 50,\n"
              "  request_target: 1024, requests_per_connection: 5, response_head: 1MiB, response_fields: 60}\n"
              "timeouts: {proxy_header: 800ms, sniff: 900ms, handshake: 1s, request_head: 2s, request_body_idle: 3s, "
              "request_body_min_rate: 1KiB,\n"
              "  keepalive: 4s, send_stall: 5s, connect: 600ms, first_byte: 7m, response_idle: 1h, tunnel_idle: 9s,\n"
              "  upstream_idle: 10s, drain: 0s}\n");
    const struct settings *settings = config->settings;
    assert_int_equal(config->workers, 3);
    assert_string_equal(config->base_domains[0].name, "b.example");
    assert_string_equal(config->base_domains[0].certificate, "/c.pem");
    assert_string_equal(config->base_domains[0].private_key, "conf/../k.key");
    assert_true(slice_eq(settings->base_domains[1], SLICE("x.b.example")));
    assert_true(config->listeners[0].proxy_protocol_required && !config->listeners[0].redirect_to_https);
    assert_true(!config->listeners[1].proxy_protocol_required && config->listeners[1].redirect_to_https);
    assert_int_equal(config->listeners[1].port, 80);
    assert_string_equal(config->controls[0].unix_socket, "conf/c.sock");
    assert_string_equal(config->controls[1].token_file, "conf/t");
    assert_null(config->controls[1].client_ca);
    assert_int_equal(settings->rules.own_listener_count, 3);
    assert_int_equal(settings->trusted_proxy_count, 2);
    assert_upstream(settings);
    assert_string_equal(config->access_log.path, "conf/log/a");
    assert_int_equal(config->access_log.client, ACCESS_CLIENT_MASKED);
    assert_int_equal(config->access_log.query, ACCESS_QUERY_HASHED);
    assert_true(config->max_apps == 12 && settings->max_connections == 9);
    assert_int_equal(settings->max_retries, 1);
    assert_int_equal(settings->mux.request_limits.max_head_bytes, 16384);
    assert_int_equal(settings->mux.request_limits.max_fields, 50);
    assert_int_equal(settings->mux.request_limits.max_target_bytes, 1024);
    assert_int_equal(settings->mux.max_requests, 5);
    assert_int_equal(settings->mux.response_limits.max_head_bytes, 1048576);
    assert_int_equal(settings->mux.response_limits.max_fields, 60);
    assert_true(settings->proxy_header_ms == 800 && settings->sniff_ms == 900 && settings->handshake_ms == 1000);
    assert_int_equal(settings->mux.head_ms, 2000);
    assert_int_equal(settings->mux.body_idle_ms, 3000);
    assert_int_equal(settings->mux.body_min_rate, 1024);
    assert_int_equal(settings->mux.keepalive_ms, 4000);
    assert_int_equal(settings->mux.send_stall_ms, 5000);
    assert_int_equal(settings->connect_ms, 600);
    assert_int_equal(settings->first_byte_ms, 420000);
    assert_int_equal(settings->response_idle_ms, 3600000);
    assert_int_equal(settings->tunnel_idle_ms, 9000);
    assert_int_equal(settings->upstream_idle_ms, 10000);
    assert_int_equal(config->drain_ms, 0);
    assert_int_equal(config->log_level, LOG_LEVEL_DEBUG);
    config_free(&config);
}

static void dns_servers_get_their_ports(void **state)
{
    (void)state;
    struct config *config = parse(
        MINIMAL
        "dns: {enabled: false, servers: [192.0.2.53, '192.0.2.1:5353', '::1', '[fd00::1]:54'], timeout: 900ms}\n");
    assert_string_equal(config->dns.servers, "192.0.2.53:53,192.0.2.1:5353,[::1]:53,[fd00::1]:54");
    assert_true(!config->dns.enabled && config->dns.timeout_ms == 900);
    config_free(&config);
    config = parse(MINIMAL "dns: {servers: []}\n");
    assert_null(config->dns.servers);
    config_free(&config);
}

static void etcd_keys_are_taken(void **state)
{
    (void)state;
    struct config *config =
        parse(MINIMAL "sync: {etcd: {endpoints: ['https://e1.test:2379', 'https://[fd00::1]:1/'],\n"
                      "  prefix: fleet/a/, tls: {ca: ca.pem, certificate: c.pem, private_key: /k},\n"
                      "  user: gw, password_file: pw, fleet_key_file: fleet.key}}\n");
    const struct config_etcd *etcd = &config->etcd;
    assert_int_equal(etcd->endpoint_count, 2);
    assert_string_equal(etcd->endpoints[0], "https://e1.test:2379");
    assert_string_equal(etcd->endpoints[1], "https://[fd00::1]:1");
    assert_string_equal(etcd->prefix, "/fleet/a/");
    assert_string_equal(etcd->ca, "conf/ca.pem");
    assert_string_equal(etcd->certificate, "conf/c.pem");
    assert_string_equal(etcd->private_key, "/k");
    assert_string_equal(etcd->user, "gw");
    assert_string_equal(etcd->password_file, "conf/pw");
    assert_string_equal(etcd->fleet_key_file, "conf/fleet.key");
    config_free(&config);
    config = parse(MINIMAL "sync: {etcd: {endpoints: ['http://localhost:2379'], user: gw, password_file: pw}}\n");
    assert_string_equal(config->etcd.prefix, "/phala-gateway/");
    assert_null(config->etcd.ca);
    assert_null(config->etcd.fleet_key_file);
    config_free(&config);
}

static void sync_source_is_taken(void **state)
{
    (void)state;
    struct config *config = parse(MINIMAL);
    assert_null(config->sync.source);
    config_free(&config);
    config =
        parse(MINIMAL "sync: {source: 'https://o.example:9443/api/', token_file: t, ca: /ca.pem, certificate: c.pem,\n"
                      "  private_key: c.key, connect_timeout: 1s, idle_timeout: 1m}\n");
    const struct sync_options *sync = &config->sync;
    assert_string_equal(sync->source, "https://o.example:9443/api");
    assert_string_equal(sync->token_file, "conf/t");
    assert_string_equal(sync->ca, "/ca.pem");
    assert_string_equal(sync->certificate, "conf/c.pem");
    assert_string_equal(sync->private_key, "conf/c.key");
    assert_int_equal(sync->connect_ms, 1000);
    assert_int_equal(sync->idle_ms, 60000);
    config_free(&config);
    static const char *const sources[][2] = {
        {"unix:a.sock", "unix:conf/a.sock"},
        {"unix:/run/a.sock", "unix:/run/a.sock"},
        {"http://127.0.0.1:80", "http://127.0.0.1:80"},
        {"http://[::1]/", "http://[::1]"},
        {"http://localhost:8080/a/b", "http://localhost:8080/a/b"},
        {"https://[2001:db8::1]:9443", "https://[2001:db8::1]:9443"},
    };
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, MINIMAL "sync: {source: '%s'}\n", sources[i][0]);
        config = parse(text);
        assert_string_equal(config->sync.source, sources[i][1]);
        assert_int_equal(config->sync.connect_ms, 5000);
        assert_int_equal(config->sync.idle_ms, 30000);
        config_free(&config);
    }
}

static void json_is_yaml(void **state)
{
    (void)state;
    struct config *config =
        parse("{\n \"workers\": 2, \"state_dir\": \"/tmp/s\",\n \"base_domains\": [{\"name\": \"cluster.example\", "
              "\"certificate\": \"/c\", \"private_key\": \"/k\"}],\n \"listeners\": [{\"address\": \"127.0.0.1:8443\", "
              "\"redirect_to_https\": false}],\n \"control\": [{\"unix_socket\": \"/tmp/c.sock\"}],\n"
              " \"upstream\": {\"allow\": [\"127.0.0.0/8\"]},\n \"access_log\": {\"format\": \"off\"}}");
    assert_int_equal(config->workers, 2);
    assert_string_equal(config->access_log.format, "off");
    config_free(&config);
}

static void any_address_stands_for_each_of_this_machine(void **state)
{
    (void)state;
    struct config *config = parse(DOMAINS UPSTREAM "listeners: [{address: '0.0.0.0:443'}]");
    const struct route_rules *rules = &config->settings->rules;
    struct ip_addr addr;
    uint16_t port;
    bool has_loopback = false;
    for (size_t i = 0; i < rules->own_listener_count; i++) {
        ip_from_sockaddr(&rules->own_listeners[i].sa, &addr, &port);
        assert_int_equal(port, 443);
        has_loopback = has_loopback || ip_kind(&addr) == IP_LOOPBACK;
    }
    assert_true(has_loopback);
    config_free(&config);
}

static void a_reload_keeps_the_listeners_of_the_start(void **state)
{
    (void)state;
    struct config *started = parse(DOMAINS UPSTREAM LISTENERS);
    struct config *config = parse(DOMAINS UPSTREAM "listeners: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]\n");
    struct ip_addr addr;
    uint16_t port;
    config_keep_own_listeners(config, started);
    const struct route_rules *rules = &config->settings->rules;
    assert_int_equal(rules->own_listener_count, 1);
    ip_from_sockaddr(&rules->own_listeners[0].sa, &addr, &port);
    assert_int_equal(port, 8443);
    config_free(&config);
    config_free(&started);
}

static void settings_outlive_the_config(void **state)
{
    (void)state;
    struct config *config = parse(MINIMAL);
    struct settings *settings = settings_ref(config->settings);
    config_free(&config);
    assert_true(slice_eq(settings->base_domains[0], SLICE("a.example")));
    settings_unref(&settings);
}

static void example_file_loads_and_names_the_defaults(void **state)
{
    (void)state;
    struct config *config = NULL;
    char error[CONFIG_ERROR_TEXT_MAX] = "";
    if (config_load(TEST_SOURCE_DIR "/../conf/gateway.example.yaml", &config, error) != STATUS_OK)
        fail_msg("%s", error);
    struct config *minimal = parse(MINIMAL);
    const struct settings *a = config->settings;
    const struct settings *b = minimal->settings;
    assert_memory_equal(&a->mux, &b->mux, sizeof a->mux);
    assert_int_equal(a->handshake_ms, b->handshake_ms);
    assert_int_equal(a->connect_ms, b->connect_ms);
    assert_int_equal(a->first_byte_ms, b->first_byte_ms);
    assert_int_equal(a->response_idle_ms, b->response_idle_ms);
    assert_int_equal(a->tunnel_idle_ms, b->tunnel_idle_ms);
    assert_int_equal(a->upstream_idle_ms, b->upstream_idle_ms);
    assert_int_equal(a->max_retries, b->max_retries);
    assert_int_equal(a->max_connections, b->max_connections);
    assert_int_equal(a->max_idle_per_instance, b->max_idle_per_instance);
    assert_memory_equal(&a->ejection, &b->ejection, sizeof a->ejection);
    assert_int_equal(config->drain_ms, minimal->drain_ms);
    assert_int_equal(config->max_apps, minimal->max_apps);
    assert_int_equal(config->workers, minimal->workers);
    assert_string_equal(config->state_dir, minimal->state_dir);
    assert_string_equal(config->controls[0].unix_socket, minimal->controls[0].unix_socket);
    config_free(&minimal);
    config_free(&config);
}

/* ---- refused ---- */

struct bad {
    const char *text;
    const char *error; /* how it begins */
    const char *also;  /* what it says too */
};

static const struct bad bad_yaml[] = {
    {"", "g.yaml:1: the file is empty", "base_domains"},
    {"# nothing\n", "g.yaml:1: the file is empty", ""},
    {"workers: [1", "g.yaml:2: this is not valid YAML", ""},
    {"workers: 1\n\tstate_dir: x\n", "g.yaml:2: this is not valid YAML", ""},
    {"a: *nowhere\n", "g.yaml:1: this is not valid YAML", "alias"},
    {"workers: \"\xff\"\n", "g.yaml:1: this is not valid YAML", ""},
    {"- workers\n", "g.yaml:1: this is a list; write a mapping", ""},
    {"workers\n", "g.yaml:1: this is a single value; write a mapping", ""},
    {MINIMAL "---\nworkers: 1\n", "g.yaml:5: a second YAML document", ""},
    {MINIMAL "[a]: 1\n", "g.yaml:4: a key is a list", ""},
    {MINIMAL "worker: 1\n", "g.yaml:4: worker: unknown key; did you mean workers?", ""},
    {MINIMAL "zzzzzzzz: 1\n", "g.yaml:4: zzzzzzzz: unknown key; known here: workers, state_dir", "log_level"},
    {MINIMAL "<<: {workers: 1}\n", "g.yaml:4: <<: unknown key", ""},
    {"workers: 1\nworkers: 2\n", "g.yaml:2: workers: the key is here twice", ""},
    {LISTENERS UPSTREAM, "g.yaml:1: base_domains: the key is missing", ""},
    {DOMAINS UPSTREAM, "g.yaml:1: listeners: the key is missing", ""},
    {DOMAINS LISTENERS, "g.yaml:1: upstream: the key is missing", ""},
};

static const struct bad bad_values[] = {
    {MINIMAL "dns: {servers: [resolver.test]}\n", "g.yaml:4: dns.servers[0]: resolver.test is not the address", "53"},
    {MINIMAL "dns: {servers: ['192.0.2.1:0']}\n", "g.yaml:4: dns.servers[0]: 192.0.2.1:0 is not", ""},
    {MINIMAL "dns: {timeout: 1m}\n", "g.yaml:4: dns.timeout:", "30s"},
    {"workers: -1\n", "g.yaml:1: workers: -1 is not understood; write a whole number", ""},
    {"workers: two\n", "g.yaml:1: workers: two is not understood", ""},
    {"workers: 1.5\n", "g.yaml:1: workers: 1.5 is not understood", ""},
    {"workers: '1'\n", "g.yaml:1: workers: \"1\" is a string; write a whole number without quotes", ""},
    {"workers: 257\n", "g.yaml:1: workers: 257 is out of range; use 0 to 256", ""},
    {"workers: 99999999999999999999\n", "g.yaml:1: workers: 99999999999999999999 is not understood", ""},
    {"workers:\n", "g.yaml:1: workers: there is no value", "leave the key out"},
    {"workers: {a: 1}\n", "g.yaml:1: workers: this is a mapping", ""},
    {"state_dir: 5\n", "g.yaml:1: state_dir: 5 is not a string", ""},
    {"state_dir: ''\n", "g.yaml:1: state_dir: the string is empty", ""},
    {"state_dir: \"a\\0b\"\n", "g.yaml:1: state_dir: the value has a NUL byte", ""},
    {"state_dir: [a]\n", "g.yaml:1: state_dir: this is a list; write a string", ""},
    {"log_level: loud\n", "g.yaml:1: log_level: loud is not known; write error, warn, info or debug", ""},
    {"trusted_proxies: 10.0.0.0/8\n", "g.yaml:1: trusted_proxies: this is a single value; write a list of networks",
     ""},
    {"trusted_proxies:\n  - 10.0.0.0/8\n  - 10.0.0.1/8\n", "g.yaml:3: trusted_proxies[1]: 10.0.0.1/8 is not a network",
     "no bits after the prefix"},
    {"trusted_proxies: [example.com]\n", "g.yaml:1: trusted_proxies[0]: example.com is not a network", ""},
    {"access_log: {format: '$nonsense_name'}\n", "g.yaml:1: access_log.format: ", "nonsense_name"},
    {"access_log: {client: half}\n", "g.yaml:1: access_log.client: half is not known; write full, masked or off", ""},
    {"access_log: {query: none}\n", "g.yaml:1: access_log.query: none is not known; write full, dropped or hashed", ""},
    {"access_log: {fromat: json}\n", "g.yaml:1: access_log.fromat: unknown key; did you mean format?", ""},
    {"access_log: off\n", "g.yaml:1: access_log: this is a single value; write a mapping", ""},
    {"limits:\n", "g.yaml:1: limits: this is empty; write a mapping", ""},
    {"limits: {request_head: 12 bananas}\n", "g.yaml:1: limits.request_head: 12 bananas is not understood", "64KiB"},
    {"limits: {request_head: 64KB}\n", "g.yaml:1: limits.request_head: 64KB is not understood", "64KiB"},
    {"limits: {request_head: 2GiB}\n", "g.yaml:1: limits.request_head: 2GiB is out of range; use 1KiB to 1MiB", ""},
    {"limits: {request_head: 99999999999999999GiB}\n", "g.yaml:1: limits.request_head: 9999", "is not understood"},
    {"limits:\n  request_head: 4KiB\n  request_target: 4KiB\n",
     "g.yaml:3: limits.request_target: 4096 bytes do not fit", "request_head"},
    {"limits: {request_head: 4KiB}\n", "g.yaml:1: limits.request_target: 8192 bytes do not fit", ""},
    {"limits: {apps: 0}\n", "g.yaml:1: limits.apps: 0 is out of range; use 1 to 100000000", ""},
    {"limits: {max_connections: 0}\n", "g.yaml:1: limits.max_connections: 0 is out of range", ""},
    {"limits: {max_retries: 11}\n", "g.yaml:1: limits.max_retries: 11 is out of range; use 0 to 10", ""},
    {"timeouts: {connect: 5}\n", "g.yaml:1: timeouts.connect: 5 is not understood; write a number with a unit", ""},
    {"timeouts: {connect: 5 s}\n", "g.yaml:1: timeouts.connect: 5 s is not understood", ""},
    {"timeouts: {connect: 1ms}\n", "g.yaml:1: timeouts.connect: 1ms is out of range; use 10ms to 1h", ""},
    {"timeouts: {conect: 1s}\n", "g.yaml:1: timeouts.conect: unknown key; did you mean connect?", ""},
    {"timeouts: {drain: 25h}\n", "g.yaml:1: timeouts.drain: 25h is out of range; use 0ms to 24h", ""},
    {"timeouts: {request_body_min_rate: fast}\n", "g.yaml:1: timeouts.request_body_min_rate: fast is not", "1KiB"},
};

static const struct bad bad_domains[] = {
    {"base_domains: []\n", "g.yaml:1: base_domains: the list is empty; give at least 1", ""},
    {"base_domains: a.example\n", "g.yaml:1: base_domains: this is a single value; write a list", ""},
    {"base_domains: [{certificate: c, private_key: k}]\n", "g.yaml:1: base_domains[0].name: the key is missing", ""},
    {"base_domains: [{name: a.b, private_key: k}]\n", "g.yaml:1: base_domains[0].certificate: the key is missing", ""},
    {"base_domains: [{name: a.b, certificate: k}]\n", "g.yaml:1: base_domains[0].private_key: the key is missing", ""},
    {"base_domains: [{name: '*.a.b', certificate: c, private_key: k}]\n",
     "g.yaml:1: base_domains[0].name: *.a.b is not", "without a star"},
    {"base_domains: [{name: 'a.b:443', certificate: c, private_key: k}]\n",
     "g.yaml:1: base_domains[0].name: a.b:443 is", "or a port"},
    {"base_domains:\n- {name: a.b, certificate: c, private_key: k}\n- {name: A.B, certificate: c, private_key: k}\n",
     "g.yaml:3: base_domains[1].name: a.b is also base_domains[0]", ""},
};

#define ETCD(text) MINIMAL "sync: {etcd: {" text "}}\n"
#define ENDPOINT   "endpoints: ['https://e:1']"
static const struct bad bad_etcd[] = {
    {ETCD("prefix: a"), "g.yaml:4: sync.etcd.endpoints: the key is missing", ""},
    {ETCD("endpoints: []"), "g.yaml:4: sync.etcd.endpoints: the list is empty; give at least 1", ""},
    {ETCD("endpoints: ['e:1']"), "g.yaml:4: sync.etcd.endpoints[0]: e:1 is not the client URL", "https://"},
    {ETCD("endpoints: ['https://e']"), "g.yaml:4: sync.etcd.endpoints[0]: https://e is not", ""},
    {ETCD("endpoints: ['https://e:0']"), "g.yaml:4: sync.etcd.endpoints[0]: https://e:0 is not", ""},
    {ETCD("endpoints: ['https://e:1/v3']"), "g.yaml:4: sync.etcd.endpoints[0]: https://e:1/v3 is not", ""},
    {ETCD("endpoints: ['https://u@e:1']"), "g.yaml:4: sync.etcd.endpoints[0]: https://u@e:1 is not", ""},
    {ETCD("endpoints: ['https://e:1', 'https://e:1/']"), "g.yaml:4: sync.etcd.endpoints[1]: https://e:1 is also", ""},
    {ETCD(ENDPOINT ", prefix: /"), "g.yaml:4: sync.etcd.prefix: / is not a prefix of keys", ""},
    {ETCD(ENDPOINT ", prefix: 'a b'"), "g.yaml:4: sync.etcd.prefix: a b is not a prefix of keys", ""},
    {ETCD(ENDPOINT ", tls: {certificate: c}"), "g.yaml:4: sync.etcd.tls.private_key: the key is missing", ""},
    {ETCD(ENDPOINT ", tls: {private_key: c}"), "g.yaml:4: sync.etcd.tls.certificate: the key is missing", ""},
    {ETCD(ENDPOINT ", user: gw"), "g.yaml:4: sync.etcd.password_file: the key is missing", ""},
    {ETCD(ENDPOINT ", password_file: p"), "g.yaml:4: sync.etcd.user: the key is missing", ""},
    {ETCD("endpoints: ['http://e:1'], tls: {ca: c}"), "g.yaml:4: sync.etcd.tls: it is of no use with http://e:1", ""},
    {ETCD("endpoints: ['http://e:1'], user: u, password_file: p"), "g.yaml:4: sync.etcd.user: http://e:1 would", ""},
};

#define SYNC(text) MINIMAL "sync: {" text "}\n"
static const struct bad bad_sync[] = {
    {SYNC("token_file: t"), "g.yaml:4: sync.source: the key is missing", ""},
    {SYNC("source: 'https://o', etcd: {endpoints: ['https://e:1']}"), "g.yaml:4: sync.etcd: the routes can't", "one"},
    {SYNC("token_file: t, etcd: {endpoints: ['https://e:1']}"), "g.yaml:4: sync.source: the key is missing", ""},
    {SYNC("source: o.example"), "g.yaml:4: sync.source: o.example is not where", "https://"},
    {SYNC("source: 'ftp://o.example'"), "g.yaml:4: sync.source: ftp://o.example is not", ""},
    {SYNC("source: 'https://'"), "g.yaml:4: sync.source: https:// is not", ""},
    {SYNC("source: 'https://u:p@o.example'"), "g.yaml:4: sync.source: https://u:p@o.example is not", "without user"},
    {SYNC("source: 'https://o.example:0'"), "g.yaml:4: sync.source: https://o.example:0 is not", ""},
    {SYNC("source: 'https://o.example:65536'"), "g.yaml:4: sync.source: https://o.example:65536 is not", ""},
    {SYNC("source: 'https://o.example:'"), "g.yaml:4: sync.source: https://o.example: is not", ""},
    {SYNC("source: 'https://[::1'"), "g.yaml:4: sync.source: https://[::1 is not", ""},
    {SYNC("source: 'https://[1.2.3.4]'"), "g.yaml:4: sync.source: https://[1.2.3.4] is not", ""},
    {SYNC("source: 'https://o.example?a=b'"), "g.yaml:4: sync.source: https://o.example?a=b is not", ""},
    {SYNC("source: 'https://o.example/a b'"), "g.yaml:4: sync.source: https://o.example/a b is not", ""},
    {SYNC("source: 'https://o.example/#a'"), "g.yaml:4: sync.source: https://o.example/#a is not", ""},
    {SYNC("source: 'http://o.example'"), "g.yaml:4: sync.source: http://o.example can be read", "127.0.0.1"},
    {SYNC("source: 'http://10.0.0.1'"), "g.yaml:4: sync.source: http://10.0.0.1 can be read", ""},
    {SYNC("source: 'unix:'"), "g.yaml:4: sync.source: the path is missing", ""},
    {SYNC("source: 'https://o', certificate: c"), "g.yaml:4: sync.private_key: the key is missing", ""},
    {SYNC("source: 'https://o', private_key: c"), "g.yaml:4: sync.certificate: the key is missing", ""},
    {SYNC("source: 'unix:s', ca: c"), "g.yaml:4: sync.ca: it is of no use with unix:", ""},
    {SYNC("source: 'http://localhost', certificate: c, private_key: k"), "g.yaml:4: sync.certificate: it is of no", ""},
    {SYNC("source: 'https://o', idle_timeout: 10s"), "g.yaml:4: sync.idle_timeout: 10s is out of range", "11s"},
};

#define LISTENER(text) DOMAINS UPSTREAM "listeners:\n" text
#define CONTROLS(text) MINIMAL "control:\n" text
static const struct bad bad_listeners[] = {
    {DOMAINS UPSTREAM "listeners: []\n", "g.yaml:3: listeners: the list is empty", ""},
    {LISTENER("- {redirect_to_https: true}\n"), "g.yaml:4: listeners[0].address: the key is missing", ""},
    {LISTENER("- {address: '1.2.3.4:0'}\n"), "g.yaml:4: listeners[0].address: port 0 cannot", "1 to 65535"},
    {LISTENER("- {address: 1.2.3.4}\n"), "g.yaml:4: listeners[0].address: 1.2.3.4 is not an address with a port", ""},
    {LISTENER("- {address: ':443'}\n"), "g.yaml:4: listeners[0].address: :443 is not an address", "0.0.0.0:443"},
    {LISTENER("- {address: '1.2.3.4:65536'}\n"), "g.yaml:4: listeners[0].address: 1.2.3.4:65536 is not", ""},
    {LISTENER("- {address: '1.2.3.4:443', proxy_protocol: maybe}\n"),
     "g.yaml:4: listeners[0].proxy_protocol: maybe is not known; write off or required", ""},
    {LISTENER("- {address: '1.2.3.4:443', proxy_protocol: required}\n"),
     "g.yaml:4: listeners: listeners[0] requires a PROXY header", "trusted_proxies"},
    {LISTENER("- {address: '1.2.3.4:443', redirect_to_https: yes}\n"),
     "g.yaml:4: listeners[0].redirect_to_https: yes is neither true nor false", ""},
    {LISTENER("- {address: '1.2.3.4:443'}\n- {address: '1.2.3.4:443'}\n"),
     "g.yaml:5: listeners[1].address: it overlaps with listeners[0], 1.2.3.4:443", ""},
    {LISTENER("- {address: '1.2.3.4:443'}\n- {address: '0.0.0.0:443'}\n"),
     "g.yaml:5: listeners[1].address: it overlaps", ""},
    {CONTROLS(" []\n"), "g.yaml:5: control: the list is empty", ""},
    {CONTROLS("- {}\n"), "g.yaml:5: control[0]: it says not where to listen; give unix_socket or address", ""},
    {CONTROLS("- {address: '127.0.0.1:9'}\n"), "g.yaml:5: control[0].certificate: the key is missing", ""},
    {CONTROLS("- {address: '127.0.0.1:9', certificate: c}\n"), "g.yaml:5: control[0].private_key: the key is missing",
     ""},
    {CONTROLS("- {address: '127.0.0.1:9', " CONTROL "}\n"), "g.yaml:5: control[0]: no authentication is configured",
     "client_ca (mutual TLS), token_file"},
    {CONTROLS("- {address: '127.0.0.1:0', " CONTROL ", token_file: t}\n"), "g.yaml:5: control[0].address: port 0", ""},
    {CONTROLS("- {unix_socket: s, token_file: t}\n"), "g.yaml:5: control[0].token_file: it is of no use", ""},
    {CONTROLS("- {unix_socket: s, address: '127.0.0.1:9'}\n"), "g.yaml:5: control[0].address: it is of no use", ""},
    {CONTROLS("- {unix_socket: s}\n- {unix_socket: s}\n"), "g.yaml:6: control[1].unix_socket: it is also control[0]",
     ""},
    {CONTROLS("- {socket: s}\n"), "g.yaml:5: control[0].socket: unknown key; known here: unix_socket, address", ""},
    {CONTROLS("- {address: '127.0.0.1:8443', " CONTROL ", client_ca: c}\n"), "g.yaml:5: control: control[0] overlaps",
     "listeners[0]"},
    {CONTROLS("- {address: '127.0.0.1:9', " CONTROL ", client_ca: c}\n- {address: '127.0.0.1:9', " CONTROL
              ", client_ca: c}\n"),
     "g.yaml:6: control[1].address: it overlaps with control[0], 127.0.0.1:9", ""},
    {DOMAINS LISTENERS "upstream: {}\n", "g.yaml:3: upstream.allow: the key is missing", ""},
    {DOMAINS LISTENERS "upstream: {allow: []}\n", "g.yaml:3: upstream.allow: the list is empty", ""},
    {DOMAINS LISTENERS "upstream: {allow: [10.0.0.0/33]}\n", "g.yaml:3: upstream.allow[0]: 10.0.0.0/33 is not a", ""},
    {DOMAINS LISTENERS "upstream: {allow: [10.0.0.0/8], ejection: {failures: 1001}}\n",
     "g.yaml:3: upstream.ejection.failures: 1001 is out of range; use 0 to 1000", ""},
    {DOMAINS LISTENERS "upstream: {allow: [10.0.0.0/8], ejection: {panic_percent: 101}}\n",
     "g.yaml:3: upstream.ejection.panic_percent: 101 is out of range", ""},
    {DOMAINS LISTENERS "upstream: {allow: [10.0.0.0/8], ejection: {pause: 2m}}\n",
     "g.yaml:3: upstream.ejection.max_pause: 60000ms is shorter than the first pause of 120000ms", ""},
    {DOMAINS LISTENERS "upstream: {allow: [5]}\n", "g.yaml:3: upstream.allow[0]: 5 is not a string", ""},
};

static void refuse_each(const struct bad *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct config *config = NULL;
        char error[CONFIG_ERROR_TEXT_MAX] = "";
        enum status status = config_parse(slice_str(table[i].text), "g.yaml", &config, error);
        if (status != STATUS_INVALID_RECORD || strncmp(error, table[i].error, strlen(table[i].error)) != 0 ||
            !strstr(error, table[i].also))
            fail_msg("%s\n  should say: %s … %s\n  but says:   %s\n", table[i].text, table[i].error, table[i].also,
                     error);
        assert_null(config);
    }
}

#define REFUSE(table)                                                                                                  \
    static void table##_are_refused(void **state)                                                                      \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        refuse_each(table, sizeof table / sizeof *table);                                                              \
    }
REFUSE(bad_yaml)
REFUSE(bad_values)
REFUSE(bad_domains)
REFUSE(bad_etcd)
REFUSE(bad_sync)
REFUSE(bad_listeners)

static void long_paths_and_lists_are_refused(void **state)
{
    (void)state;
    char *text = malloc(CONFIG_MAX_FILE_BYTES + 2);
    char error[CONFIG_ERROR_TEXT_MAX];
    struct config *config = NULL;
    assert_non_null(text);
    int len = snprintf(text, 8192, "control: [{unix_socket: /%0200d}]\n", 1);
    assert_int_equal(config_parse(slice_make(text, (size_t)len), "g", &config, error), STATUS_INVALID_RECORD);
    assert_non_null(strstr(error, "the path is longer than 107 bytes"));
    len = snprintf(text, 8192, "state_dir: /%05000d\n", 1);
    assert_int_equal(config_parse(slice_make(text, (size_t)len), "g", &config, error), STATUS_INVALID_RECORD);
    assert_non_null(strstr(error, "the path is too long"));
    len = snprintf(text, 8192, "trusted_proxies: [");
    for (int i = 0; i <= CONFIG_MAX_NETWORKS; i++)
        len += snprintf(text + len, 16, "1.1.1.1,");
    text[len++] = ']';
    assert_int_equal(config_parse(slice_make(text, (size_t)len), "g", &config, error), STATUS_INVALID_RECORD);
    assert_non_null(strstr(error, "4097 networks are too many; give at most 4096"));
    memset(text, ' ', CONFIG_MAX_FILE_BYTES + 1);
    assert_int_equal(config_parse(slice_make(text, CONFIG_MAX_FILE_BYTES + 1), "g", &config, error),
                     STATUS_INVALID_RECORD);
    assert_non_null(strstr(error, "larger than"));
    free(text);
}

static void unreadable_files_are_refused(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_TEXT_MAX] = "";
    struct config *config = NULL;
    assert_int_equal(config_load("/nowhere/g.yaml", &config, error), STATUS_INVALID_RECORD);
    assert_string_equal(error, "/nowhere/g.yaml: No such file or directory; give the path of a readable YAML file");
    assert_int_equal(config_load("/", &config, error), STATUS_INVALID_RECORD);
    assert_non_null(strstr(error, "directory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minimal_file_gets_defaults),
        cmocka_unit_test(every_key_is_taken),
        cmocka_unit_test(dns_servers_get_their_ports),
        cmocka_unit_test(etcd_keys_are_taken),
        cmocka_unit_test(sync_source_is_taken),
        cmocka_unit_test(json_is_yaml),
        cmocka_unit_test(any_address_stands_for_each_of_this_machine),
        cmocka_unit_test(a_reload_keeps_the_listeners_of_the_start),
        cmocka_unit_test(settings_outlive_the_config),
        cmocka_unit_test(example_file_loads_and_names_the_defaults),
        cmocka_unit_test(bad_yaml_are_refused),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(bad_domains_are_refused),
        cmocka_unit_test(bad_etcd_are_refused),
        cmocka_unit_test(bad_sync_are_refused),
        cmocka_unit_test(bad_listeners_are_refused),
        cmocka_unit_test(long_paths_and_lists_are_refused),
        cmocka_unit_test(unreadable_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
