#include "gateway/ctl/compose_app.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define APP                                                                                                            \
    "{\"manifest_version\":2,\"name\":\"n\",\"runner\":\"docker-compose\","                                            \
    "\"docker_compose_file\":\"services: {web: {ports: [\\\"8000:80\\\"]}}\",\"gateway_enabled\":true}"

static const char *nothing(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return NULL;
}

static void bytes_make_the_id(void **state)
{
    char id[COMPOSE_APP_ID_SIZE];
    (void)state;
    compose_app_id(SLICE(APP), id);
    assert_string_equal(id, "9e557d956502ff433d75909cd0fac6b806502233");
    compose_app_id(SLICE(APP "\n"), id);
    assert_string_equal(id, "bb1cfda3c800b02e8d92e1f148e6eebb5661ec6f");
    compose_app_id(SLICE_NONE, id);
    assert_string_equal(id, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4");
}

static void it_is_told_from_a_compose_file(void **state)
{
    (void)state;
    assert_true(compose_app_is(SLICE(APP)));
    assert_true(compose_app_is(SLICE(" {\"runner\": \"bash\"}\n")));
    assert_true(compose_app_is(SLICE("{\"docker_compose_file\": 5}")));
    assert_false(compose_app_is(SLICE("{\"services\": {}, \"runner\": \"x\"}")));
    assert_false(compose_app_is(SLICE("services: {}")));
    assert_false(compose_app_is(SLICE("[1]")));
    assert_false(compose_app_is(SLICE("{\"runner\":")));
    assert_false(compose_app_is(SLICE_NONE));
}

/* Members after a Compose file that publishes 8000 and 9000; "port/proxy_protocol …" or "!error"; a part of the notes.
 */
#define COMPOSE "\"docker_compose_file\":\"services: {web: {ports: [\\\"8000:80\\\", \\\"9000:90\\\"]}}\""
static const struct {
    const char *members;
    const char *expected;
    const char *note;
} apps[] = {
    {COMPOSE ",\"gateway_enabled\":true", "8000 9000", NULL},
    {COMPOSE ",\"tproxy_enabled\":true,\"gateway_enabled\":false", "8000 9000", NULL},
    {COMPOSE ",\"features\":[\"kms\",\"tproxy-net\"]", "8000 9000", NULL},
    {COMPOSE, "8000 9000", "gateway_enabled is not set"},
    {COMPOSE ",\"gateway_enabled\":null", "8000 9000", "gateway_enabled is not set"},
    {COMPOSE ",\"gateway_enabled\":false", "!gateway_enabled is false: the app asks for no public names", NULL},
    {COMPOSE ",\"tproxy_enabled\":false,\"features\":[\"x\"]", "!gateway_enabled is false", NULL},
    {COMPOSE ",\"gateway_enabled\":\"yes\"", "!gateway_enabled: it must be true or false", NULL},
    {COMPOSE ",\"gateway_enabled\":true,\"gateway_enabled\":true", "!line 1", NULL},
    {COMPOSE ",\"gateway_enabled\":true,\"runner\":5", "!runner: it must be a string", NULL},
    {"\"docker_compose_file\":5", "!docker_compose_file: it must be the text of a Compose file", NULL},
    {"\"docker_compose_file\":\"services: {a: 5}\"", "!docker_compose_file: service a: it must be a mapping", NULL},
    {"\"docker_compose_file\":\"services: {a: {ports: [\\\"${X}:80\\\"]}}\"", "!the variable X is not set", NULL},
    {"\"docker_compose_file\":\"services: {a: {ports: [\\\"53:53/udp\\\"]}}\",\"gateway_enabled\":true", "",
     "service a: 53:53/udp: left out"},
    {"\"runner\":\"bash\"", "!its ports cannot be known", NULL},
    {"\"runner\":\"bash\"," COMPOSE, "!its ports cannot be known", NULL},
    {"\"runner\":\"bash\",\"gateway_enabled\":true,\"port_policy\":{\"ports\":[{\"port\":22}]}", "22/off", NULL},
    {COMPOSE ",\"gateway_enabled\":true,\"port_policy\":{\"ports\":[{\"port\":8000,\"pp\":true},{\"port\":70}]}",
     "70/off 8000/v2 9000", NULL},
    {COMPOSE ",\"gateway_enabled\":true,\"port_policy\":{\"restrict_mode\":true,\"ports\":[{\"port\":8000}]}",
     "8000/off", "service web: 9000:90: left out: port_policy restricts"},
    {COMPOSE ",\"gateway_enabled\":true,\"port_policy\":{\"restrict_mode\":true}", "", "9000:90: left out"},
    {COMPOSE ",\"gateway_enabled\":true,\"port_policy\":{}", "8000 9000", NULL},
    {COMPOSE ",\"port_policy\":[]", "!port_policy: it must be an object", NULL},
    {COMPOSE ",\"port_policy\":{\"ports\":{}}", "!port_policy.ports: it must be an array", NULL},
    {COMPOSE ",\"port_policy\":{\"ports\":[1]}", "!port_policy.ports[0].port: it must be 1..65535", NULL},
    {COMPOSE ",\"port_policy\":{\"ports\":[{\"port\":1,\"pp\":2}]}", "!pp: it must be true or false", NULL},
    {COMPOSE ",\"port_policy\":{\"restrict_mode\":1}", "!restrict_mode: it must be true or false", NULL},
};

static void describe(const struct compose *compose, char *ret, size_t size, char *notes, size_t notes_size)
{
    size_t len = 0;
    size_t notes_len = 0;
    for (size_t i = 0; i < compose->port_count; i++) {
        const char *proxy = compose->ports[i].proxy_protocol;
        len += (size_t)snprintf(ret + len, size - len, "%s%u%s%s", i > 0 ? " " : "", compose->ports[i].port,
                                proxy ? "/" : "", proxy ? proxy : "");
    }
    for (size_t i = 0; i < compose->note_count; i++) {
        char *line = compose_note_line(&compose->notes[i]);
        notes_len += (size_t)snprintf(notes + notes_len, notes_size - notes_len, "%s\n", line);
        free(line);
    }
}

static void members_are_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof apps / sizeof apps[0]; i++) {
        char text[1024];
        char got[COMPOSE_ERROR_MAX + 1] = "!";
        char notes[1024] = "";
        struct compose *compose = NULL;
        struct compose_settings settings = {.env = nothing};
        snprintf(text, sizeof text, "{\"name\":\"n\",%s}", apps[i].members);
        if (compose_app_parse(slice_str(text), &settings, &compose, got + 1)) {
            got[0] = '\0';
            describe(compose, got, sizeof got, notes, sizeof notes);
        }
        compose_free(&compose);
        const char *expected = apps[i].expected;
        if (expected[0] == '!' ? got[0] != '!' || !strstr(got, expected + 1) : strcmp(got, expected) != 0)
            fail_msg("%s\ngave: %s\ninstead of: %s", text, got, expected);
        if (apps[i].note ? !strstr(notes, apps[i].note) : notes[0] != '\0')
            fail_msg("%s\nnotes: %s\ninstead of: %s", text, notes, apps[i].note ? apps[i].note : "none");
    }
}

static void a_policy_may_ask_for_too_many_ports(void **state)
{
    char error[COMPOSE_ERROR_MAX];
    char *text = NULL;
    size_t len = 0;
    struct compose *compose = NULL;
    struct compose_settings settings = {.env = nothing};
    (void)state;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    fputs("{\"gateway_enabled\":true,\"port_policy\":{\"ports\":[{\"port\":1}", out);
    for (unsigned i = 2; i <= COMPOSE_MAX_PORTS + 1; i++)
        fprintf(out, ",{\"port\":%u}", i);
    fputs("]}}", out);
    assert_int_equal(fclose(out), 0);
    assert_false(compose_app_parse(slice_make(text, len), &settings, &compose, error));
    assert_non_null(strstr(error, "more than 256 ports"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_make_the_id),
        cmocka_unit_test(it_is_told_from_a_compose_file),
        cmocka_unit_test(members_are_understood),
        cmocka_unit_test(a_policy_may_ask_for_too_many_ports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
