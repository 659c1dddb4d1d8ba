#include "../../../gateway/control/app_scan.h"

#include "../../../gateway/control/app_document_internal.h"

#include "gateway/control/app_document.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* By way of the JSON library; NULL if it is refused. */
static struct route_app *read_long(struct slice json)
{
    struct route_app *app = NULL;
    struct route_problem problem;
    json_t *root;
    if (app_document_load(json, APP_DOCUMENT_MAX_BYTES, &root, &problem) != STATUS_OK)
        return NULL;
    if (app_document_read(root, "", &app, &problem) != STATUS_OK)
        app = NULL;
    json_decref(root);
    return app;
}

/* Whether it is scanned; if so, the result must be that of the long way. */
static bool is_scanned(struct slice json)
{
    struct route_app *app = NULL;
    if (!app_scan(json, &app)) {
        assert_null(app);
        return false;
    }
    struct route_app *expected = read_long(json);
    if (!expected || !route_app_equal(app, expected) || app->revision != expected->revision)
        fail_msg("%.*s is scanned as another record", SLICE_ARG(json));
    route_app_free(&expected);
    route_app_free(&app);
    return true;
}

#define APP(rest) "{\"app_id\":\"a\"," rest "}"

static const char *const usual[] = {
    "{\"app_id\":\"a\"}",
    " {\t\"app_id\" : \"Abc-1\" ,\r\n\"revision\": 0 } \n",
    "{\"revision\":999999999999999999,\"app_id\":\"3327603e03f5bd1f830812ca4a789277fc31f577\"}",
    APP("\"ports\":[]"),
    APP("\"ports\":[{\"port\":1}]"),
    APP("\"ports\":[{\"port\":65535},{\"port\":80,\"protocol\":\"h2c\"},{\"protocol\":\"tcp\",\"port\":443}]"),
    APP("\"ports\":[{\"port\":2,\"proxy_protocol\":\"v2\"},{\"port\":1,\"proxy_protocol\":\"off\"},"
        "{\"port\":3,\"proxy_protocol\":\"v1\",\"protocol\":\"passthrough\"}],\"restrict_ports\":false"),
    APP("\"restrict_ports\":true"),
    APP("\"restrict_ports\":false,\"ports\":[{\"port\":1}]"),
    APP("\"domains\":[]"),
    APP("\"domains\":[{\"name\":\"Shop.Example.com\",\"port\":80},{\"port\":81,\"name\":\"x.example\"}]"),
    APP("\"limits\":{}"),
    APP("\"limits\":{\"requests_per_second\":7,\"max_connections\":4294967295}"),
    APP("\"instances\":[]"),
    APP("\"instances\":[{\"instance_id\":\"I\"}]"),
    APP("\"instances\":[{\"instance_id\":\"i\",\"address\":null,\"state\":\"starting\"}]"),
    APP("\"instances\":[{\"address\":\"fd00::12\",\"weight\":256,\"instance_id\":\"i\",\"generation\":3},"
        "{\"instance_id\":\"j\",\"address\":\"::ffff:10.0.0.1\",\"state\":\"stopped\",\"weight\":0}]"),
};

static const char *const unusual[] = {
    "",
    "{}",
    "[]",
    "null",
    "{\"app_id\":\"\"}",
    "{\"app_id\":1}",
    "{\"app_id\":\"a\"} x",
    "{\"app_id\":\"a\",}",
    "{,\"app_id\":\"a\"}",
    "{\"app_id\":\"a\"",
    "{\"app_id\":\"\\u0061\"}",
    "{\"app_id\":\"\xc3\xa4\"}",
    "{\"app_id\":\"a\",\"app_id\":\"a\"}",
    APP("\"what\":1"),
    APP("\"revision\":-1"),
    APP("\"revision\":01"),
    APP("\"revision\":1.0"),
    APP("\"revision\":1e2"),
    APP("\"revision\":\"1\""),
    APP("\"revision\":9223372036854775808"),
    APP("\"ports\":{}"),
    APP("\"ports\":[{\"port\":0}]"),
    APP("\"ports\":[{\"port\":65536}]"),
    APP("\"ports\":[{}]"),
    APP("\"ports\":[{\"port\":1},]"),
    APP("\"ports\":[{\"port\":1},{\"port\":1}]"),
    APP("\"ports\":[{\"port\":2},{\"port\":1},{\"port\":2}]"),
    APP("\"ports\":[{\"port\":1,\"protocol\":\"TCP\"}]"),
    APP("\"ports\":[{\"port\":1,\"proxy_protocol\":\"v3\"}]"),
    APP("\"ports\":[{\"port\":1,\"check\":{\"type\":\"tcp\"}}]"),
    APP("\"restrict_ports\":1"),
    APP("\"restrict_ports\":truex"),
    APP("\"domains\":[{\"name\":\"x.example\"}]"),
    APP("\"domains\":[{\"port\":80}]"),
    APP("\"limits\":[]"),
    APP("\"limits\":{\"max_connections\":4294967296}"),
    APP("\"instances\":[{\"state\":\"running\"}]"),
    APP("\"instances\":[{\"instance_id\":\"i\",\"state\":\"gone\"}]"),
    APP("\"instances\":[{\"instance_id\":\"i\",\"address\":\"10.0.0\"}]"),
    APP("\"instances\":[{\"instance_id\":\"i\",\"weight\":257}]"),
    APP("\"instances\":[{\"instance_id\":\"i\",\"weight\":1,\"weight\":1}]"),
};

static void test_usual(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (!is_scanned(slice_str(usual[i])))
            fail_msg("%s is not scanned", usual[i]);
}

static void test_unusual(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unusual / sizeof unusual[0]; i++)
        if (is_scanned(slice_str(unusual[i])))
            fail_msg("%s is scanned", unusual[i]);
}

/* In a block of its own, so that reading past the end is noticed. */
static void test_every_start_of_a_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        for (size_t len = 0; len < strlen(usual[i]); len++) {
            char *copy = malloc(len + !len);
            assert_non_null(copy);
            memcpy(copy, usual[i], len);
            is_scanned(slice_make(copy, len));
            free(copy);
        }
    }
}

static void test_every_byte_changed(void **state)
{
    static const char bytes[] = "{}[]\",:\\ 0919-.eatz\n\x7f\xc3";
    char text[512];
    (void)state;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        size_t len = strlen(usual[i]);
        assert_true(len < sizeof text);
        memcpy(text, usual[i], len);
        for (size_t at = 0; at < len; at++) {
            for (size_t k = 0; k < sizeof bytes; k++) {
                text[at] = bytes[k];
                is_scanned(slice_make(text, len));
            }
            text[at] = usual[i][at];
        }
    }
}

/* Up to what is counted as usual, and past it. */
static void test_many_members(void **state)
{
    static const struct {
        const char *before, *format;
        unsigned usual;
    } lists[] = {
        {"\"ports\"", "{\"port\":%u}", 32},
        {"\"domains\"", "{\"name\":\"d%u.example\",\"port\":80}", 8},
        {"\"instances\"", "{\"instance_id\":\"i%u\"}", 16},
    };
    char text[4096];
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (unsigned count = 1; count <= lists[i].usual + 2; count++) {
            size_t len = (size_t)snprintf(text, sizeof text, "{\"app_id\":\"a\",%s:[", lists[i].before);
            for (unsigned n = count; n > 0; n--) {
                char element[64];
                const char *number = strstr(lists[i].format, "%u");
                snprintf(element, sizeof element, "%.*s%u%s", (int)(number - lists[i].format), lists[i].format, n,
                         number + 2);
                len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", n < count ? "," : "", element);
            }
            len += (size_t)snprintf(text + len, sizeof text - len, "]}");
            assert_int_equal(is_scanned(slice_make(text, len)), count <= lists[i].usual);
        }
    }
}

static void test_long_names(void **state)
{
    char text[1024];
    (void)state;
    for (int len = 1; len <= 70; len++) {
        snprintf(text, sizeof text, "{\"app_id\":\"%0*d\"}", len, 1);
        assert_int_equal(is_scanned(slice_str(text)), len <= 63);
    }
    for (int len = 250; len <= 256; len++) {
        snprintf(text, sizeof text, "{\"app_id\":\"a\",\"domains\":[{\"name\":\"%0*d\",\"port\":80}]}", len, 1);
        assert_int_equal(is_scanned(slice_str(text)), len <= 253);
    }
    /* More text than there is room for goes the long way. */
    char *many = malloc(4096);
    assert_non_null(many);
    size_t end = (size_t)snprintf(many, 4096, "{\"app_id\":\"a\",\"domains\":[");
    for (unsigned n = 0; n < 8; n++)
        end += (size_t)snprintf(many + end, 4096 - end, "%s{\"name\":\"%0253u\",\"port\":80}", n > 0 ? "," : "", n);
    snprintf(many + end, 4096 - end, "],\"instances\":[{\"instance_id\":\"i\"}]}");
    assert_true(is_scanned(slice_str(many)));
    end -= 2;
    snprintf(many + end, 4096 - end, "0}],\"instances\":[{\"instance_id\":\"%060u\"}]}", 7U);
    assert_false(is_scanned(slice_str(many)));
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual),
        cmocka_unit_test(test_unusual),
        cmocka_unit_test(test_every_start_of_a_text),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_many_members),
        cmocka_unit_test(test_long_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
