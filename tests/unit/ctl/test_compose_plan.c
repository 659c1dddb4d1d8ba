#include "gateway/ctl/compose_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define PORT(port, rest) "{\"port\":" #port ",\"protocol\":\"auto\",\"proxy_protocol\":\"off\"" rest "}"
#define INSTANCE(id, address, generation)                                                                              \
    "{\"instance_id\":\"" id "\",\"address\":\"" address "\",\"generation\":" #generation                              \
    ",\"state\":\"running\",\"weight\":1}"
#define NO_LIMITS "{\"max_connections\":0,\"requests_per_second\":0}"
#define DOCUMENT(id, ports, domains, limits, instances)                                                                \
    "{\"app_id\":\"" id "\",\"revision\":7,\"ports\":[" ports "],\"restrict_ports\":true,\"domains\":[" domains        \
    "],\"limits\":" limits ",\"instances\":[" instances "]}"

static const char *nothing(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return NULL;
}

static json_t *load(const char *text)
{
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    assert_true(json || !text);
    return json;
}

static struct compose *parse(const char *entries)
{
    char text[512];
    char error[COMPOSE_ERROR_MAX];
    struct compose *compose = NULL;
    struct compose_settings settings = {.env = nothing};
    snprintf(text, sizeof text, "services: {web: {ports: [%s]}}", entries);
    assert_true(compose_parse(slice_str(text), &settings, &compose, error));
    return compose;
}

/* What the plan changes, as people see it, from what is stored or else replaced. */
static void check(const char *stored_text, const char *replaced_text, const char *entries, struct compose_wish wish,
                  const char *expected)
{
    char *got = NULL;
    size_t len = 0;
    struct compose *compose = parse(entries);
    json_t *stored = load(stored_text);
    json_t *replaced = load(replaced_text);
    wish.compose = compose;
    json_t *planned = compose_plan(stored, replaced, &wish);
    assert_non_null(planned);
    assert_null(json_object_get(planned, "revision"));
    json_t *changes = compose_diff(stored ? stored : replaced, planned);
    if (stored && replaced)
        compose_diff_remove_app(changes, replaced, planned);
    FILE *out = open_memstream(&got, &len);
    assert_non_null(out);
    compose_diff_print(changes, out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(got, expected);
    assert_true((len > 0) == (json_array_size(changes) > 0));
    free(got);
    json_decref(changes);
    json_decref(planned);
    json_decref(stored);
    json_decref(replaced);
    compose_free(&compose);
}

static void a_new_app(void **state)
{
    (void)state;
    check(NULL, NULL, "\"80:80\", {target: 81, published: 81, app_protocol: grpc}",
          (struct compose_wish){.app_id = "a", .address = "10.0.0.1"},
          "  + app: a\n"
          "  + port 80: protocol auto, proxy_protocol off\n"
          "  + port 81: protocol h2c, proxy_protocol off\n"
          "  + instance a-i1: address 10.0.0.1, generation 1, state running, weight 1\n");
    check(NULL, NULL, "\"80:80\"",
          (struct compose_wish){
              .app_id = "a", .address = "10.0.0.1", .instance = "b", .has_generation = true, .generation = 9},
          "  + app: a\n"
          "  + port 80: protocol auto, proxy_protocol off\n"
          "  + instance b: address 10.0.0.1, generation 9, state running, weight 1\n");
}

#define STORED                                                                                                         \
    DOCUMENT("a", PORT(80, ",\"check\":{\"type\":\"tcp\"}") "," PORT(90, ""), "{\"name\":\"x.example\",\"port\":80}",  \
             "{\"max_connections\":5,\"requests_per_second\":0}",                                                      \
             INSTANCE("a-i1", "10.0.0.1", 3) "," INSTANCE("other", "10.0.0.2", 4))

static void what_the_files_do_not_know_stays(void **state)
{
    (void)state;
    const struct compose_wish silent = {.app_id = "a"};
    check(STORED, NULL, "\"80:1\", \"90:2\"", silent, "");
    check(STORED, NULL, "\"80:1\", {target: 2, published: 90, app_protocol: auto}", silent, "");
    check(STORED, NULL, "\"80:1\", {target: 2, published: 90, app_protocol: tcp}, \"100:3\"", silent,
          "  ~ port 90: protocol auto -> tcp\n"
          "  + port 100: protocol auto, proxy_protocol off\n");
    check(STORED, NULL, "\"90:2\"", silent,
          "  - port 80: protocol auto, proxy_protocol off, check {\"type\":\"tcp\"}\n");
}

static void the_instance_is_found_or_added(void **state)
{
    (void)state;
    const char *same = "\"80:1\", \"90:2\"";
    check(STORED, NULL, same, (struct compose_wish){.app_id = "a", .address = "10.0.0.1"}, "");
    check(STORED, NULL, same, (struct compose_wish){.app_id = "a", .address = "10.0.0.2"}, "");
    check(STORED, NULL, same, (struct compose_wish){.app_id = "a", .address = "10.0.0.9"},
          "  ~ instance a-i1: address 10.0.0.1 -> 10.0.0.9\n");
    check(STORED, NULL, same, (struct compose_wish){.app_id = "a", .address = "10.0.0.9", .instance = "other"},
          "  ~ instance other: address 10.0.0.2 -> 10.0.0.9\n");
    check(STORED, NULL, same, (struct compose_wish){.app_id = "a", .address = "10.0.0.9", .instance = "new"},
          "  + instance new: address 10.0.0.9, generation 1, state running, weight 1\n");
    check(STORED, NULL, same,
          (struct compose_wish){.app_id = "a", .address = "10.0.0.2", .has_generation = true, .generation = 5},
          "  ~ instance other: generation 4 -> 5\n");
    check(DOCUMENT("a", PORT(80, ""), "", NO_LIMITS,
                   "{\"instance_id\":\"x\",\"generation\":2,\"state\":\"starting\",\"weight\":0}"),
          NULL, "\"80:80\"", (struct compose_wish){.app_id = "a", .address = "10.0.0.2", .instance = "x"},
          "  ~ instance x: state starting -> running, address 10.0.0.2\n");
}

#define OLD                                                                                                            \
    DOCUMENT("old", "{\"port\":80,\"protocol\":\"tcp\",\"proxy_protocol\":\"v1\"}",                                    \
             "{\"name\":\"x.example\",\"port\":80}", "{\"max_connections\":5,\"requests_per_second\":6}",              \
             INSTANCE("old-i1", "10.0.0.1", 3))

static void another_app_is_replaced(void **state)
{
    (void)state;
    const struct compose_wish wish = {.app_id = "new"};
    check(NULL, OLD, "\"80:80\", \"81:81\"", wish,
          "  ~ app: old -> new\n"
          "  + port 81: protocol auto, proxy_protocol off\n");
    check(DOCUMENT("new", PORT(80, ""), "", "{\"max_connections\":0,\"requests_per_second\":9}",
                   INSTANCE("new-i1", "10.0.0.5", 1)),
          OLD, "\"80:80\"", wish,
          "  + domain x.example: port 80\n"
          "  ~ limit max_connections: 0 -> 5\n"
          "  - app old: its domains and limits move\n"
          "  - instance old-i1: address 10.0.0.1, generation 3, state running, weight 1\n");
    check(DOCUMENT("new", PORT(80, ""), "{\"name\":\"x.example\",\"port\":81}", NO_LIMITS, ""), OLD, "\"80:80\"", wish,
          "  + instance old-i1: address 10.0.0.1, generation 3, state running, weight 1\n"
          "  ~ limit max_connections: 0 -> 5\n"
          "  ~ limit requests_per_second: 0 -> 6\n"
          "  - app old: its domains and limits move\n");
    check(NULL, OLD, "\"80:80\"", (struct compose_wish){.app_id = "new", .address = "10.0.0.1"},
          "  ~ app: old -> new\n");
}

static void documents_differ_in_all_parts(void **state)
{
    (void)state;
    json_t *from = load(DOCUMENT("a", PORT(80, ""), "{\"name\":\"x.example\",\"port\":80},{\"name\":\"y\",\"port\":1}",
                                 NO_LIMITS, INSTANCE("i", "10.0.0.1", 1)));
    json_t *to = load("{\"app_id\":\"a\",\"restrict_ports\":false,\"domains\":[{\"name\":\"x.example\",\"port\":81}]}");
    json_t *changes = compose_diff(from, to);
    static const struct {
        const char *change;
        const char *what;
    } expected[] = {{"removed", "port"},
                    {"changed", "domain"},
                    {"removed", "domain"},
                    {"removed", "instance"},
                    {"changed", "restrict_ports"}};
    (void)state;
    assert_int_equal(json_array_size(changes), sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const json_t *change = json_array_get(changes, i);
        assert_string_equal(json_string_value(json_object_get(change, "change")), expected[i].change);
        assert_string_equal(json_string_value(json_object_get(change, "what")), expected[i].what);
    }
    json_decref(changes);
    json_decref(from);
    json_decref(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_app),
        cmocka_unit_test(what_the_files_do_not_know_stays),
        cmocka_unit_test(the_instance_is_found_or_added),
        cmocka_unit_test(another_app_is_replaced),
        cmocka_unit_test(documents_differ_in_all_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
