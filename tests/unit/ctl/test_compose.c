#include "gateway/ctl/compose.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *lookup(void *arg, const char *name)
{
    (void)arg;
    if (strcmp(name, "PORT") == 0)
        return "8123";
    if (strcmp(name, "EMPTY") == 0)
        return "";
    return NULL;
}

static const struct compose_settings settings = {.env = lookup};

/* "port>target/protocol …", or "!error". */
static void describe(const struct compose *compose, char *ret, size_t size, char *notes, size_t notes_size)
{
    size_t len = 0;
    size_t notes_len = 0;
    notes[0] = ret[0] = '\0';
    for (size_t i = 0; i < compose->port_count; i++) {
        const struct compose_port *port = &compose->ports[i];
        len += (size_t)snprintf(ret + len, size - len, "%s%u>%u%s%s", i > 0 ? " " : "", port->port, port->target,
                                port->protocol ? "/" : "", port->protocol ? port->protocol : "");
    }
    for (size_t i = 0; i < compose->note_count; i++) {
        char *line = compose_note_line(&compose->notes[i]);
        notes_len += (size_t)snprintf(notes + notes_len, notes_size - notes_len, "%s\n", line);
        free(line);
    }
}

/* One entry of the ports of service web; expected: the ports, or a part of the error after "!", or of the note. */
static const struct {
    const char *entry;
    const char *expected;
    const char *note; /* NULL: there is none */
} entries[] = {
    {"\"8000:8000\"", "8000>8000", NULL},
    {"8000:8000", "8000>8000", NULL},
    {"49100:22", "49100>22", NULL},
    {"22:22", "22>22", NULL},
    {"\"49100:22/tcp\"", "49100>22", NULL},
    {"\"49100:22/TCP\"", "49100>22", NULL},
    {"\"9090-9091:8080-8081\"", "9090>8080 9091>8081", NULL},
    {"\"127.0.0.1:8001:8001\"", "8001>8001", "bound to 127.0.0.1"},
    {"\"127.0.0.1:5000-5002:5000-5002\"", "5000>5000 5001>5001 5002>5002", "bound to 127.0.0.1"},
    {"\"0.0.0.0:80:8080\"", "80>8080", NULL},
    {"\"[::1]:80:80\"", "80>80", "bound to ::1"},
    {"\"[::]:80:80\"", "80>80", NULL},
    {"\"6060:6060/udp\"", "", "service web: 6060:6060/udp: left out: the gateway carries TCP only, not udp"},
    {"\"6060:6060/sctp\"", "", "not sctp"},
    {"3000", "", "write \"3000:3000\""},
    {"\"3000\"", "", "at random"},
    {"\"3000-3005\"", "", "at random"},
    {"\"127.0.0.1::80\"", "", "at random"},
    {"\"8000-8010:80\"", "", "Docker picks one of the 11 published ports at random"},
    {"\"8000-8010:80-81\"", "!the ranges differ in size (11 published, 2 in the container)", NULL},
    {"\"80:8000-8001\"", "!the ranges differ in size", NULL},
    {"\"0:80\"", "", "at random"},
    {"\"00:80\"", "!the published port is not 1..65535", NULL},
    {"\"10.0.0.300:80:80\"", "!no IP address", NULL},
    {"\"localhost:80:80\"", "!no IP address", NULL},
    {"\"80:0\"", "!the container port is not 1..65535", NULL},
    {"\"70000:80\"", "!the published port is not", NULL},
    {"\"80:abc\"", "!the container port is not", NULL},
    {"\"90-80:90-80\"", "!is not 1..65535", NULL},
    {"\"80:80/\"", "!the protocol after / is empty", NULL},
    {"\":80\"", "!empty", NULL},
    {"\"::1:80:80\"", "!too many colons", NULL},
    {"\"[::1:80:80\"", "!the bracket", NULL},
    {"\"\"", "!the container port", NULL},
    {"\"80 80\"", "!the container port", NULL},
    {"3000.5", "!the container port", NULL},
    {"[80]", "!not a list", NULL},
    {"\"${PORT}:80\"", "8123>80", NULL},
    {"\"$PORT:80\"", "8123>80", NULL},
    {"\"${NONE:-81}:80\"", "81>80", NULL},
    {"\"${EMPTY:-82}:80\"", "82>80", NULL},
    {"\"${EMPTY-82}80:80\"", "80>80", NULL},
    {"\"${NONE:-${PORT}}:80\"", "8123>80", NULL},
    {"\"${PORT:+83}:80\"", "83>80", NULL},
    {"\"${NONE}:80\"", "!the variable NONE is not set", NULL},
    {"\"$NONE:80\"", "!the variable NONE is not set", NULL},
    {"\"${NONE?}:80\"", "!the variable NONE is not set; export it", NULL},
    {"\"${NONE:?say which}:80\"", "!the variable NONE is not set: say which", NULL},
    {"\"${NONE:?say which}:80\"", "!say which", NULL},
    {"\"${PORT:80\"", "!no closing brace", NULL},
    {"\"$$:80\"", "!the published port", NULL},
    {"\"$:80\"", "!a single $", NULL},
    {"{target: 80, published: 8080}", "8080>80", NULL},
    {"{target: 80, published: \"8080\", protocol: tcp, mode: host, name: web}", "8080>80", NULL},
    {"{target: 80, published: \"${PORT}\"}", "8123>80", NULL},
    {"{target: 80-81, published: 8080-8081}", "8080>80 8081>81", NULL},
    {"{target: 80, published: 8080-8090}", "", "Docker picks one of the 11"},
    {"{target: 80-82, published: 8080-8090}", "!the ranges differ", NULL},
    {"{target: 80, published: 0}", "", "80: left out: without a published port"},
    {"{target: 80, published: 80, host_ip: local}", "!host_ip \"local\" is not an IP address", NULL},
    {"{target: 80}", "", "at random"},
    {"{target: 80, published: \"\"}", "", "at random"},
    {"{target: 80, published: 80, protocol: udp}", "", "TCP only"},
    {"{target: 80, published: 80, host_ip: 127.0.0.1}", "80>80", "bound to 127.0.0.1"},
    {"{target: 80, published: 80, app_protocol: http}", "80>80/http", NULL},
    {"{target: 80, published: 80, app_protocol: gRPC}", "80>80/h2c", NULL},
    {"{target: 80, published: 80, app_protocol: tls}", "80>80/passthrough", NULL},
    {"{target: 80, published: 80, app_protocol: h2c}", "80>80/h2c", NULL},
    {"{target: 80, published: 80, app_protocol: postgresql}", "80>80/tcp", NULL},
    {"{target: 80, published: 80, app_protocol: ssh}", "80>80/tcp", NULL},
    {"{target: 80, published: 80, app_protocol: http/1.1}", "80>80/http", NULL},
    {"{target: 80, published: 80, app_protocol: auto}", "80>80/auto", NULL},
    {"{target: 80, published: 80, app_protocol: quic}", "80>80", "app_protocol quic is not known here"},
    {"{published: 80}", "!no target", NULL},
    {"{target: x, published: 80}", "!target \"x\"", NULL},
    {"{target: 80, published: 80, mode: bridge}", "!mode \"bridge\"", NULL},
    {"{target: 80, publish: 80}", "!unknown key \"publish\"", NULL},
    {"{target: [80], published: 80}", "!single value", NULL},
};

/* The project of some files, its instance at this address (NULL: not known). */
static void check_project(const char *const *texts, size_t count, const char *address, const char *profiles,
                          const char *expected, const char *note)
{
    char got[4096] = "!";
    char notes[8192] = "";
    struct ip_addr ip;
    struct compose *compose = NULL;
    struct compose_settings with_profiles = settings;
    with_profiles.profiles = profiles;
    struct compose_reader *reader = compose_reader_new(&with_profiles);
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = compose_reader_add(reader, slice_str(texts[i]), got + 1);
    ok = ok && compose_reader_finish(reader, &compose, got + 1);
    if (ok && address) {
        assert_true(ip_parse(slice_str(address), &ip));
        compose_check_addresses(compose, &ip, 1);
    }
    if (ok)
        describe(compose, got, sizeof got, notes, sizeof notes);
    compose_free(&compose);
    compose_reader_free(&reader);
    bool right = expected[0] == '!' ? got[0] == '!' && strstr(got, expected + 1) : strcmp(got, expected) == 0;
    if (!right)
        fail_msg("%s\ngave: %s\ninstead of: %s", texts[count - 1], got, expected);
    if (note ? !strstr(notes, note) : notes[0] != '\0')
        fail_msg("%s\nnotes: %s\ninstead of: %s", texts[count - 1], notes, note ? note : "none");
}

static void check(const char *text, const char *expected, const char *note)
{
    check_project(&text, 1, "127.0.0.9", NULL, expected, note);
}

static void entries_are_understood(void **state)
{
    char text[512];
    (void)state;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        snprintf(text, sizeof text, "services:\n  web:\n    image: x\n    ports:\n      - %s\n", entries[i].entry);
        check(text, entries[i].expected, entries[i].note);
    }
}

static const struct {
    const char *text;
    const char *expected;
    const char *note;
} files[] = {
    {"services: {a: {ports: [\"80:80\"]}, b: {ports: [\"70:70\", \"90:90\"]}, c: {}, d: }", "70>70 80>80 90>90", NULL},
    {"services: {a: {ports: [\"80:80\"]}, b: {ports: [\"80:81\"]}}", "80>80",
     "service b: 80:81: host port 80 is published twice (also by service a)"},
    {"services: {a: {ports: }, b: {image: x}}", "", NULL},
    {"services: {a: {ports: \"80:80\"}}", "!ports must be a list", NULL},
    {"services: {a: 5}", "!service a: it must be a mapping", NULL},
    {"services: [a]", "!services must be a mapping", NULL},
    {"version: \"3\"", "!no services", NULL},
    {"[]", "!not a Compose file", NULL},
    {"", "!not a Compose file", NULL},
    {"services: {a: {ports: [80", "!not valid YAML", NULL},
    {"services: {a: &x\n  b", "!line", NULL},
    {"include: [x.yml]\nservices: {a: {}}", "!include: is not followed", NULL},
    {"services: {a: {extends: b, ports: [\"80:80\"]}}", "80>80",
     "extends b, which is not in this file and not followed"},
    {"x-web: &web\n  ports: [\"80:80\"]\nservices:\n  a: *web\n", "80>80", NULL},
    {"x-p: &p [\"80:80\", \"81:81\"]\nservices:\n  a:\n    ports: *p\n", "80>80 81>81", NULL},
    {"x-web: &web\n  ports: [\"80:80\"]\nservices:\n  a:\n    <<: *web\n    image: x\n", "80>80", NULL},
    {"x-web: &web\n  ports: [\"80:80\"]\nservices:\n  a:\n    <<: *web\n    ports: [\"81:81\"]\n", "81>81", NULL},
    {"x-a: &a {ports: [\"80:80\"]}\nx-b: &b {ports: [\"81:81\"]}\nservices:\n  a:\n    <<: [*b, *a]\n", "81>81", NULL},
    {"x-a: &a {ports: [\"80:80\"]}\nx-b: &b {<<: *a}\nservices:\n  a:\n    <<: *b\n", "80>80", NULL},
    {"x-p: &p {target: 80, protocol: tcp}\nservices:\n  a:\n    ports:\n      - <<: *p\n        published: 8080\n",
     "8080>80", NULL},
    {"x-all: &all\n  a: {ports: [\"80:80\"]}\nservices:\n  <<: *all\n  b: {ports: [\"81:81\"]}\n", "80>80 81>81", NULL},
    {"services: &s\n  a: &a\n    <<: *a\n", "", NULL},
    {"services: &s\n  <<: *s\n", "!services must be", NULL},
    {"services: {a: {expose: [\"80\"]}}", "", "80: left out: expose opens it to other services only"},
    {"services: {a: {expose: [\"81\", \"$NONE\"], ports: [\"80:80\"]}}", "80>80", NULL},
    {"services: {a: {network_mode: host, expose: [\"$NONE\"]}}", "!expose: the variable NONE", NULL},
    {"services: {a: {network_mode: host}}", "", "cannot be known"},
    {"services: {a: {network_mode: host, expose: [\"8000\", 8001, \"8002-8003\"]}}",
     "8000>8000 8001>8001 8002>8002 8003>8003", "taken as ports of the host"},
    {"services: {a: {network_mode: host, expose: [\"53/udp\"]}}", "", "TCP only"},
    {"services: {a: {network_mode: host, expose: [\"80:80\"]}}", "!expose", NULL},
    {"services: {a: {network_mode: host, ports: [\"80:80\"]}}", "", "Docker ignores ports"},
    {"services: {a: {network_mode: bridge, ports: [\"80:80\"]}}", "80>80", NULL},
    {"services: {a: {network_mode: none, ports: [\"80:80\"]}}", "", "network_mode: none Docker publishes no ports"},
    {"services: {a: {network_mode: \"service:b\", ports: [\"80:80\"]}}", "", "publishes no ports of this service"},
    {"services: {a: {ports: [\"1000-1300:1000-1300\", \"80:80\"]}}", "80>80",
     "with its 301 ports the app has more than 256"},
    {"services: {a: {ports: [\"1-65535:1-65535\"]}}", "", "with its 65535 ports the app has more than 256"},
    {"services: {a: {ports: [\"127.0.0.1:80:80\", \"[::1]:80:80\", \"10.1.1.1:80:80\"]}}", "80>80",
     "bound to 127.0.0.1"},
    {"services: {a: {ports: [\"127.0.0.1:80:80\", \"80:80\"]}}", "80>80", NULL},
    {"services: {a: {ports: [\"80:80\", \"80:80/udp\"]}}", "80>80", "80:80/udp: left out"},
    {"services: {a: {ports: [\"80:80\"]}}\n---\nservices: {b: {ports: [\"81:81\"]}}", "80>80 81>81", NULL},
    {"services:\n  a: {ports: [\"80:80\"]}\n  b: {extends: a, ports: [\"81:81\"], network_mode: none}\n", "80>80",
     "service b: 80:80: left out"},
    {"services:\n  a: {ports: [\"80:80\"], network_mode: none}\n"
     "  b: {extends: {service: a}, ports: [\"81:81\"], network_mode: bridge}\n",
     "80>80 81>81", "service a: 80:80: left out"},
    {"services:\n  a: {extends: {service: b, file: x.yml}, ports: [\"80:80\"]}\n  b: {ports: [\"81:81\"]}\n",
     "80>80 81>81", "extends b, which is not in this file"},
    {"services:\n  a: {extends: b}\n  b: {extends: a}\n", "!it extends itself", NULL},
    {"services: {a: {ports: [\"80:80\"], profiles: [debug]}, b: {ports: [\"81:81\"]}}", "81>81",
     "service a: 80:80: left out: the service is not started unless its profile is active; give --profile debug"},
    {"services: {a: {ports: [\"80:80\"], profiles: debug}}", "!profiles must be a list", NULL},
    {"x-all: &all\n  a: {ports: [\"80:80\"]}\nservices:\n  <<: *all\n  a: {ports: [\"81:81\"]}\n", "81>81", NULL},
    {"x-x: &x {a: {ports: [\"80:80\"]}}\nx-y: &y {a: {ports: [\"81:81\"]}}\nservices:\n  <<: [*x, *y]\n", "80>80",
     NULL},
    {"services: {<<: 5}", "!services must be", NULL},
    {"services: 5", "!services must be", NULL},
    {"services:\n  a: {ports: [\"80:80\"]}\n  a: {ports: [\"81:81\"]}", "!line 3: the key \"a\" is here twice", NULL},
    {"services: {a: {ports: [\"80:80\"],\n ports: [\"81:81\"]}}", "!line 2: the key \"ports\" is here twice", NULL},
};

static void files_are_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        check(files[i].text, files[i].expected, files[i].note);
}

/* A second file, merged into the first. */
static const struct {
    const char *first;
    const char *second;
    const char *expected;
    const char *note;
} projects[] = {
    {"services: {a: {ports: [\"80:80\"]}}", "services: {b: {ports: [\"81:81\"]}}", "80>80 81>81", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {ports: [\"81:81\"]}}", "80>80 81>81", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {image: x}}", "80>80", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {ports: !override [\"81:81\"]}}", "81>81", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {ports: !reset []}, b: {ports: [\"81:81\"]}}", "81>81",
     NULL},
    {"services: {a: {ports: [\"80:80\"]}, b: {ports: [\"81:81\"]}}", "services: {a: !reset null}", "81>81", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: !override {ports: [\"81:81\"]}}", "81>81", NULL},
    {"services: {a: {ports: [{target: 80, published: 8000, app_protocol: http}]}}",
     "services: {a: {ports: [{target: 80, published: \"8000\", app_protocol: grpc}]}}", "8000>80/h2c", NULL},
    {"services: {a: {ports: [{target: 80, published: 8000, app_protocol: http}]}}",
     "services: {a: {ports: [\"8000:80\"]}}", "8000>80/http", NULL},
    {"services: {a: {ports: [\"8000:80\"]}}", "services: {a: {ports: [\"8000:81\"]}}", "8000>80", "published twice"},
    {"services: {a: {ports: [\"80:80\"]}}", "networks: {x: }", "80>80", NULL},
    {"networks: {x: }", "networks: {y: }", "!no services", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {network_mode: host, expose: [\"90\"]}}", "90>90",
     "Docker ignores ports"},
    {"services: {a: {ports: [\"80:80\"], network_mode: none}}", "services: {a: {network_mode: !reset null}}", "80>80",
     NULL},
    {"services: {a: {ports: [\"80:80\"], profiles: [x]}}", "services: {a: {profiles: !reset []}}", "80>80", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {extends: b}}", "80>80",
     "extends b, which is not in this file"},
    {"services: {a: {ports: [\"80:80\"]}}", "services: {a: {ports: [x]}}", "!service a: ports", NULL},
    {"services: {a: {ports: [\"80:80\"]}}", "", "!it is empty", NULL},
};

static void files_are_merged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof projects / sizeof projects[0]; i++) {
        const char *texts[] = {projects[i].first, projects[i].second};
        check_project(texts, 2, NULL, NULL, projects[i].expected, projects[i].note);
    }
}

static void profiles_are_chosen(void **state)
{
    (void)state;
    const char *text = "services: {a: {ports: [\"80:80\"], profiles: [x, \"$PORT\"]}}";
    check_project(&text, 1, NULL, "y, x", "80>80", NULL);
    check_project(&text, 1, NULL, "8123", "80>80", NULL);
    check_project(&text, 1, NULL, "*", "80>80", NULL);
    check_project(&text, 1, NULL, "y", "", "give --profile x");
}

static const char *const bound_twice[] = {
    "services: {a: {ports: [\"127.0.0.1:80:80\", \"10.8.0.12:80:80\"]}}",
    "services: {a: {ports: [\"10.8.0.12:80:80\", \"127.0.0.1:80:80\"]}}",
};

static void bound_ports_are_compared_with_the_address(void **state)
{
    (void)state;
    const char *text =
        "services: {a: {ports: [\"127.0.0.1:80:80\", \"10.8.0.1:81:81\", \"0.0.0.0:82:82\", \"83:83\"]}}";
    check_project(&text, 1, "10.8.0.1", NULL, "81>81 82>82 83>83",
                  "127.0.0.1:80:80: left out: bound to 127.0.0.1, which the gateway cannot reach");
    check_project(&text, 1, "10.8.0.2", NULL, "81>81 82>82 83>83", "10.8.0.1:81:81: bound to 10.8.0.1: the gateway");
    check_project(&text, 1, "127.0.0.5", NULL, "80>80 81>81 82>82 83>83", "only when it runs on the same host");
    check_project(&text, 1, NULL, NULL, "80>80 81>81 82>82 83>83", NULL);
    for (size_t i = 0; i < sizeof bound_twice / sizeof bound_twice[0]; i++) {
        check_project(&bound_twice[i], 1, "10.8.0.12", NULL, "80>80", NULL);
        check_project(&bound_twice[i], 1, "10.8.0.13", NULL, "80>80", "10.8.0.12:80:80: bound to 10.8.0.12: the");
        check_project(&bound_twice[i], 1, NULL, NULL, "80>80", NULL);
    }
    text = "services: {a: {ports: [\"127.0.0.1:80:80\", \"127.0.0.2:80:80\"]}}";
    check_project(&text, 1, "10.8.0.12", NULL, "", "127.0.0.2:80:80: left out: bound to 127.0.0.2");
    text = "services: {a: {ports: [\"127.0.0.1:80:80\"]}, b: {ports: [\"10.8.0.12:80:80\"]}}";
    check_project(&text, 1, "10.8.0.12", NULL, "80>80", "published twice");
}

/* Each alias doubles what is to be looked at: it is given up, and said. */
static void intricate_files_end(void **state)
{
    char *text = NULL;
    size_t len = 0;
    (void)state;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    fputs("x-0: &m0 {k: v}\n", out);
    for (unsigned i = 1; i < 15; i++)
        fprintf(out, "x-%u: &m%u\n  <<: [*m%u, *m%u, *m%u, *m%u]\n", i, i, i - 1, i - 1, i - 1, i - 1);
    fputs("services:\n  a: *m14\n", out);
    assert_int_equal(fclose(out), 0);
    check_project(&(const char *){text}, 1, NULL, NULL, "!too intricate", NULL);
    free(text);
}

static void values_have_a_limit(void **state)
{
    char error[COMPOSE_ERROR_MAX];
    (void)state;
    char *text = malloc(200001);
    assert_non_null(text);
    for (size_t i = 0; i < 200000; i += 5)
        memcpy(text + i, "$PORT", 6);
    assert_null(compose_interpolate(slice_make(text, 200000), lookup, NULL, error));
    assert_non_null(strstr(error, "too long"));
    free(text);
    assert_null(compose_interpolate(SLICE("${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-1}}}}}}}}}}"), lookup,
                                    NULL, error));
    assert_non_null(strstr(error, "nested too deeply"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_understood),
        cmocka_unit_test(files_are_understood),
        cmocka_unit_test(files_are_merged),
        cmocka_unit_test(profiles_are_chosen),
        cmocka_unit_test(bound_ports_are_compared_with_the_address),
        cmocka_unit_test(intricate_files_end),
        cmocka_unit_test(values_have_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
