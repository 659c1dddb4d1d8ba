#include "gateway/ctl/compose_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *outer(void *arg, const char *name)
{
    (void)arg;
    if (strcmp(name, "HOME") == 0)
        return "mine";
    return strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

/* Whole files; expected: the value of A, or a part of the error after "!"; NULL: it is not set. */
static const struct {
    const char *text;
    const char *expected;
} files[] = {
    {"A=1", "1"},
    {"A=1\n", "1"},
    {"\xef\xbb\xbf"
     "A=1\n",
     "1"},
    {"A=1\r\nB=2\r\n", "1"},
    {"\n\n  # comment\nB=0\n\tA = 1 \t\n", "1"},
    {"export A=1", "1"},
    {"export\tA=1", "1"},
    {"exported=1\nA=2", "2"},
    {"A: 1", "1"},
    {"A=1:2=3", "1:2=3"},
    {"A=", ""},
    {"A=\nB=1", ""},
    {"A=1\nA=2", "2"},
    {"A=1\nA", "1"},
    {"A", NULL},
    {"export A", NULL},
    {"a=1", NULL},
    {"", NULL},
    {"HOME=other\nA=$HOME", "mine"},
    /* in no quotes */
    {"A=a b  c  ", "a b  c"},
    {"A=a # b", "a"},
    {"A=a\t# b", "a"},
    {"A=a#b", "a#b"},
    {"A= # b\n", ""},
    {"A=a\\nb", "a\\nb"},
    {"A=a'b'", "a'b'"},
    {"B=1\nA=$B${B}0", "110"},
    {"A=$B\nB=1", ""},
    {"A=a$NOBODY-b", "a-b"},
    {"A=${NOBODY}x", "x"},
    {"A=${NOBODY:-8080}", "8080"},
    {"A=${NOBODY-8080}", "8080"},
    {"A=${EMPTY-8080}", ""},
    {"A=${NOBODY+x}", ""},
    {"A=${HOME:+x}", "x"},
    {"A=a$$b", "a$b"},
    /* in quotes */
    {"A=\"\"", ""},
    {"A=\"a # b\" # c", "a # b"},
    {"A=\"a\"#c", "a"},
    {"A=\"a\\tb\\\\\\\"\\$HOME\\z\"", "a\tb\\\"$HOME\\z"},
    {"A=\"\\\\$HOME\"", "\\mine"},
    {"A=\"x$HOME\"", "xmine"},
    {"A=\"x\ny\"\nB=1", "x\ny"},
    {"A=''", ""},
    {"A='a $HOME # \"b\" \\n'", "a $HOME # \"b\" \\n"},
    {"A='it\\'s'", "it's"},
    {"A='x\ny' # z\n", "x\ny"},
    {"B=\"1\"\nexport A='2'", "2"},
    /* what is wrong */
    {"A=1\n=2", "!line 2: there is no name"},
    {"A=1\n\nA B=2", "!line 3: after the name A comes = or :"},
    {"A=1\n%=2", "!line 2: there is no name"},
    {"A%=2", "!line 1: after the name A comes = or :"},
    {"A=1\nB=\"x\ny", "!line 2: the quote is not closed"},
    {"A='x\\'", "!line 1: the quote is not closed"},
    {"B='x\ny' z", "!line 2: after the closing quote comes the end of the line or a comment"},
    {"A=a$%", "!line 1: a single $ is not followed by a name; write $$"},
    {"\nA=${B", "!line 2: ${ has no closing brace"},
    {"A=${NOBODY?the port}", "!line 1: the variable NOBODY is not set: the port"},
    {"A=${NOBODY:?}", "!line 1: the variable NOBODY is not set"},
};

static void files_are_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char error[COMPOSE_ERROR_MAX] = "";
        const char *expected = files[i].expected;
        struct compose_env *env = compose_env_new(outer, NULL);
        bool ok = compose_env_read(env, slice_str(files[i].text), error);
        const char *value = compose_env_value(env, "A");
        if (expected && expected[0] == '!' && (ok || !strstr(error, expected + 1)))
            fail_msg("%s: %s, expected %s", files[i].text, ok ? "taken" : error, expected);
        else if (!expected && (!ok || value))
            fail_msg("%s: %s, expected nothing", files[i].text, ok ? value : error);
        else if (expected && expected[0] != '!' && (!ok || !value || strcmp(value, expected) != 0))
            fail_msg("%s: %s, expected %s", files[i].text, ok ? value : error, expected);
        compose_env_free(&env);
    }
}

static void the_environment_wins(void **state)
{
    char error[COMPOSE_ERROR_MAX];
    (void)state;
    struct compose_env *env = compose_env_new(outer, NULL);
    assert_true(compose_env_read(env, SLICE("HOME=a\nEMPTY=b\nA=c"), error));
    assert_string_equal(compose_env_value(env, "HOME"), "mine");
    assert_string_equal(compose_env_value(env, "EMPTY"), "");
    assert_string_equal(compose_env_value(env, "A"), "c");
    compose_env_free(&env);
    assert_null(env);
}

static void later_files_count(void **state)
{
    char error[COMPOSE_ERROR_MAX];
    (void)state;
    struct compose_env *env = compose_env_new(outer, NULL);
    assert_true(compose_env_read(env, SLICE("A=1\nB=2"), error));
    assert_true(compose_env_read(env, SLICE("A=${A}3\n"), error));
    assert_string_equal(compose_env_value(env, "A"), "13");
    assert_string_equal(compose_env_value(env, "B"), "2");
    compose_env_free(&env);
}

static void files_have_limits(void **state)
{
    enum { VARIABLES = 200, LONG = 60000 };
    char error[COMPOSE_ERROR_MAX];
    char *text = malloc(LONG + VARIABLES * 16 + 16);
    (void)state;
    assert_non_null(text);
    size_t len = (size_t)sprintf(text, "A=");
    memset(text + len, 'a', LONG);
    len += LONG;
    for (int i = 0; i < VARIABLES; i++)
        len += (size_t)sprintf(text + len, "\nB%d=$A", i);
    struct compose_env *env = compose_env_new(outer, NULL);
    assert_false(compose_env_read(env, slice_make(text, len), error));
    assert_non_null(strstr(error, "the variables have more than"));
    compose_env_free(&env);
    env = compose_env_new(outer, NULL);
    assert_false(compose_env_read(env, SLICE("A=1\nB=a\0b\n"), error));
    assert_string_equal(error, "line 2: there is a NUL byte; it must be text");
    compose_env_free(&env);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_understood),
        cmocka_unit_test(the_environment_wins),
        cmocka_unit_test(later_files_count),
        cmocka_unit_test(files_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
