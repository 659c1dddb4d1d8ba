#include "api_calls.h"

#define LINE(id) "{\"app_id\":\"" id "\",\"ports\":[{\"port\":80}]}\n"

static void a_snapshot_replaces_the_table(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/apps/old", "{}"), 201);
    assert_int_equal(call(f, "PUT", "/v1/snapshot", LINE("a") "\r\n\n" LINE("b")), 200);
    assert_member(f, "apps", "2");
    assert_member(f, "refused", "0");
    assert_member(f, "errors", "[]");
    assert_int_equal(call(f, "GET", "/v1/apps/old", NULL), 404);
    assert_int_equal(call(f, "GET", "/v1/snapshot", NULL), 200);
    assert_field(f, "content-type: application/x-ndjson\n");
    assert_int_equal(strncmp(f->body, "{\"app_id\":\"a\"", 13), 0);
    assert_in_body(f, "}\n{\"app_id\":\"b\"");
    assert_int_equal(f->body[f->body_len - 1], '\n');
    char *saved = strdup(f->body);
    assert_int_equal(call(f, "PUT", "/v1/snapshot", saved), 200);
    assert_member(f, "apps", "2");
    free(saved);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct fixture *f = *state;
    static const char text[] = LINE("a") "x\n" LINE("b") "{\"app_id\":\"c\"}";
    begin_call(f, "PUT", "/v1/snapshot", "", true);
    for (size_t i = 0; i < sizeof text - 1; i++)
        send_piece(f, text + i, 1, i == sizeof text - 2);
    await_answer(f);
    assert_int_equal(f->status, 200);
    assert_member(f, "apps", "3");
    assert_member(f, "refused", "1");
    assert_in_body(f, "\"line\":2,\"code\":\"invalid_json\"");
}

static void bad_lines_are_told(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/snapshot?strict=1", LINE("a") "x\n" LINE("b")), 422);
    assert_int_equal(f->changes.commits, 0);
    assert_int_equal(f->changes.aborts, 1);
    assert_in_body(f, "\"line\":2");
    assert_member(f, "apps", "2");
    assert_int_equal(call(f, "PUT", "/v1/snapshot?strict=0", LINE("a") "x\n" LINE("a")), 200);
    assert_member(f, "refused", "2");
    assert_int_equal(call(f, "PUT", "/v1/snapshot?strict=perhaps", LINE("a")), 400);
    assert_int_equal(call(f, "PUT", "/v1/snapshot", "<html>\n</html>\n"), 422);
    assert_int_equal(call(f, "GET", "/v1/apps/a", NULL), 200);
    assert_int_equal(call(f, "PUT", "/v1/snapshot", ""), 422);
    assert_int_equal(call(f, "PUT", "/v1/snapshot", "\n \n"), 422);
    assert_int_equal(call(f, "GET", "/v1/apps/a", NULL), 200);
    assert_int_equal(call(f, "PUT", "/v1/snapshot?empty=1", ""), 200);
    assert_int_equal(call(f, "GET", "/v1/snapshot", NULL), 200);
    assert_int_equal(f->body_len, 0);
}

static void only_the_first_errors_are_listed(void **state)
{
    struct fixture *f = *state;
    char text[2 * 250 + 64] = "";
    for (int i = 0; i < 250; i++)
        strcat(text, "x\n");
    strcat(text, "{\"app_id\":\"a\"}");
    assert_int_equal(call(f, "PUT", "/v1/snapshot", text), 200);
    assert_member(f, "refused", "250");
    assert_in_body(f, "\"line\":100,");
    assert_null(strstr(f->body, "\"line\":101,"));
}

static void a_long_line_is_refused_alone(void **state)
{
    struct fixture *f = *state;
    size_t len = 3 << 20;
    char *text = malloc(len + 256);
    assert_non_null(text);
    memset(text, ' ', len);
    strcpy(text + len, "\n" LINE("a"));
    assert_int_equal(call(f, "PUT", "/v1/snapshot", text), 200);
    free(text);
    assert_member(f, "apps", "1");
    assert_in_body(f, "\"line\":1,\"code\":\"payload_too_large\"");
}

/* Whatever is wrong with them, as long as they say whose they are. */
static void apps_of_refused_lines_are_left_alone(void **state)
{
    struct fixture *f = *state;
    static const char refused[] = "{\"app_id\":\"unknown-member\",\"x\":1}\n"
                                  "{\"app_id\":\"cut-off\",\"ports\":[{\"port\":\n"
                                  "{\"ports\":[{\"port\":NaN}], \"app_id\" : \"Not-JSON\"}\n"
                                  "{\"app_id\":\"one\",\"app_id\":\"other\"}\n"
                                  "{\"app_id\":7}\nnonsense\n";
    size_t len = (3 << 20) + sizeof refused;
    char *text = malloc(len + 256);
    assert_non_null(text);
    memset(text, ' ', len);
    memcpy(text, refused, sizeof refused - 1);
    static const char long_line[] = "{\"app_id\":\"too-long\"";
    memcpy(text + sizeof refused - 1, long_line, sizeof long_line - 1);
    strcpy(text + len, "}\n" LINE("a"));
    assert_int_equal(call(f, "PUT", "/v1/snapshot", text), 200);
    free(text);
    assert_member(f, "refused", "7");
    assert_string_equal(f->changes.left_alone, "unknown-member cut-off not-json one other too-long ");
}

static void an_interrupted_upload_changes_nothing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "PUT", "/v1/apps/old", "{}"), 201);
    begin_call(f, "PUT", "/v1/snapshot", "", true);
    send_piece(f, LINE("a") "{\"app", strlen(LINE("a")) + 5, false);
    hang_up(f);
    assert_int_equal(f->changes.aborts, 1);
    assert_int_equal(f->changes.commits, 0);
    assert_int_equal(call(f, "GET", "/v1/apps/old", NULL), 200);
}

static void fill_table(struct fixture *f, int count)
{
    size_t len = 0;
    char *text = malloc((size_t)count * 200);
    assert_non_null(text);
    for (int i = 0; i < count; i++)
        len += (size_t)sprintf(text + len, "{\"app_id\":\"app%05d\",\"ports\":[{\"port\":80},{\"port\":81}]}\n", i);
    assert_int_equal(call(f, "PUT", "/v1/snapshot", text), 200);
    free(text);
}

static void a_large_export_is_whole_and_waits_for_its_reader(void **state)
{
    struct fixture *f = *state;
    fill_table(f, 3000);
    begin_call(f, "GET", "/v1/snapshot", "", false);
    f->stalled = true;
    for (int i = 0; i < 20; i++)
        turn(f);
    assert_true(f->body_len < 200000);
    assert_false(f->ended);
    f->stalled = false;
    await_answer(f);
    assert_true(f->max_uncredited < 200000);
    int lines = 0;
    for (const char *at = f->body; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, 3000);
    begin_call(f, "GET", "/v1/snapshot", "", false);
    hang_up(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_snapshot_replaces_the_table, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_may_come_one_by_one, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_lines_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_first_errors_are_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_line_is_refused_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(apps_of_refused_lines_are_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupted_upload_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_export_is_whole_and_waits_for_its_reader, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
