#include "../../../gateway/control/api_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* "seg|seg?name=value;name=value", or "!code field" when the target is refused. */
static void describe(const char *path, char *ret, size_t size)
{
    struct arena arena;
    struct api_target target;
    struct route_problem problem;
    size_t len = 0;
    arena_init(&arena, NULL);
    enum status status = api_target_parse(slice_str(path), &arena, &target, &problem);
    if (status != STATUS_OK) {
        assert_int_equal(problem.status, status);
        snprintf(ret, size, "!%s %s", status_code(status), problem.field);
        arena_reset(&arena);
        return;
    }
    for (size_t i = 0; i < target.segment_count; i++)
        len += (size_t)snprintf(ret + len, size - len, "%s%.*s", i > 0 ? "|" : "", SLICE_ARG(target.segments[i]));
    for (size_t i = 0; i < target.parameter_count; i++)
        len += (size_t)snprintf(ret + len, size - len, "%c%.*s=%.*s", i > 0 ? ';' : '?',
                                SLICE_ARG(target.parameters[i].name), SLICE_ARG(target.parameters[i].value));
    arena_reset(&arena);
}

static const struct {
    const char *path;
    const char *expected;
} cases[] = {
    {"/", ""},
    {"", ""},
    {"?a=1", "?a=1"},
    {"/v1/apps", "v1|apps"},
    {"/v1/apps/", "v1|apps|"},
    {"//v1", "|v1"},
    {"/v1/apps/a%62c", "v1|apps|abc"},
    {"/v1/apps/a%2Fb", "v1|apps|a/b"},
    {"/v1/apps/a%2fb/instances/x", "v1|apps|a/b|instances|x"},
    {"/a+b", "a+b"},
    {"/a?b+c=d+e", "a?b c=d e"},
    {"/a?b=%2B%26%3D", "a?b=+&="},
    {"/a?b", "a?b="},
    {"/a?b=", "a?b="},
    {"/a?b=c=d", "a?b=c=d"},
    {"/a?&&b=1&", "a?b=1"},
    {"/a?b=1&c=2", "a?b=1;c=2"},
    {"/a?b=1?2", "a?b=1?2"},
    {"/a?=x", "a?=x"},
    {"/%", "!bad_target "},
    {"/%4", "!bad_target "},
    {"/%zz", "!bad_target "},
    {"/%00", "!bad_target "},
    {"/a?b=%", "!bad_target "},
    {"/a?%g0=1", "!bad_target "},
    {"/a?b=1&b=2", "!invalid_parameter b"},
    {"/a?b=1&%62=2", "!invalid_parameter b"},
    {"/a?1&2&3&4&5&6&7&8&9&10&11&12&13", "!invalid_parameter 13"},
    {"/1/2/3/4/5/6", "1|2|3|4|5|6"},
    {"/1/2/3/4/5/6/7", "!not_found "},
};

static void targets_are_split_and_decoded(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256] = "";
        describe(cases[i].path, text, sizeof text);
        if (strcmp(text, cases[i].expected) != 0)
            fail_msg("%s: %s instead of %s", cases[i].path, text, cases[i].expected);
    }
}

static void unknown_parameters_are_named(void **state)
{
    (void)state;
    struct arena arena;
    struct api_target target;
    struct route_problem problem;
    struct slice value;
    arena_init(&arena, NULL);
    assert_int_equal(api_target_parse(SLICE("/v1/apps?limit=5&aft=x"), &arena, &target, &problem), STATUS_OK);
    assert_true(api_target_parameter(&target, "limit", &value));
    assert_true(slice_eq(value, SLICE("5")));
    assert_false(api_target_parameter(&target, "lim", &value));
    assert_true(api_target_check(&target, "limit aft", &problem));
    assert_false(api_target_check(&target, "after limit q", &problem));
    assert_string_equal(problem.field, "aft");
    assert_non_null(strstr(problem.detail, "after limit q"));
    arena_reset(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_split_and_decoded),
        cmocka_unit_test(unknown_parameters_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
