/*
 * Whatever env files say, they are taken whole or refused with the line that is wrong; the environment always wins, and
 * what a file sets is there afterwards.
 */
#include "gateway/ctl/compose_env.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static const char *outer(void *arg, const char *name)
{
    (void)arg;
    check(name[0] != '\0');
    return name[0] == 'P' ? "8123" : NULL;
}

/* The rest is a second file, after NUL. */
static bool read_files(struct compose_env *env, struct slice input, char *error)
{
    const char *end = input.len > 0 ? memchr(input.ptr, '\0', input.len) : NULL;
    size_t len = end ? (size_t)(end - input.ptr) : input.len;
    return compose_env_read(env, slice_make(input.ptr, len), error) &&
           compose_env_read(env, slice_from(input, len + 1), error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[COMPOSE_ERROR_MAX] = "";
    struct compose_env *env = compose_env_new(outer, NULL);
    bool ok = read_files(env, slice_make(data, size), error);
    check(ok || slice_has_prefix(slice_str(error), SLICE("line ")));
    check(strcmp(compose_env_value(env, "P"), "8123") == 0);
    if (ok) {
        check(compose_env_read(env, SLICE("A=a\nP=b\nB=$A$P"), error));
        check(strcmp(compose_env_value(env, "A"), "a") == 0);
        check(strcmp(compose_env_value(env, "P"), "8123") == 0);
        check(strcmp(compose_env_value(env, "B"), "a8123") == 0);
    }
    compose_env_free(&env);
    return 0;
}
