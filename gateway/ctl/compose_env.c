#include "gateway/ctl/compose_env.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_BYTES = 4 << 20, SHOWN_NAME = 100, TEXT_MAX = 400 };

struct variable {
    char *name;
    char *value;
};

struct compose_env {
    compose_env_cb outer;
    void *outer_arg;
    struct variable *variables; /* of the files, each once */
    size_t count;
    size_t capacity;
    size_t bytes; /* of all that was read, also what was replaced */
};

/* One file. */
struct reading {
    struct compose_env *env;
    struct slice rest;
    size_t line;      /* where the statement begins */
    size_t next_line; /* where the rest begins */
    char *error;
};

static bool fail(const struct reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(const struct reading *r, const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(r->error, COMPOSE_ERROR_MAX, "line %zu: %s", r->line, text);
    return false;
}

/* ---- what is known ---- */

static struct variable *find(const struct compose_env *env, struct slice name)
{
    for (size_t i = 0; i < env->count; i++)
        if (slice_eq(slice_str(env->variables[i].name), name))
            return &env->variables[i];
    return NULL;
}

const char *compose_env_value(void *arg, const char *name)
{
    const struct compose_env *env = arg;
    const char *value = env->outer(env->outer_arg, name);
    const struct variable *variable = value ? NULL : find(env, slice_str(name));
    return variable ? variable->value : value;
}

static struct variable *add(struct compose_env *env, struct slice name)
{
    if (env->count == env->capacity) {
        env->capacity = env->capacity > 0 ? 2 * env->capacity : 16;
        env->variables = realloc(env->variables, env->capacity * sizeof *env->variables);
        if (!env->variables)
            abort();
    }
    struct variable *variable = &env->variables[env->count++];
    *variable = (struct variable){.name = strndup(name.ptr, name.len)};
    if (!variable->name)
        abort();
    return variable;
}

/* Takes the value. */
static bool set(struct reading *r, struct slice name, char *value)
{
    r->env->bytes += name.len + strlen(value);
    if (r->env->bytes > MAX_BYTES) {
        free(value);
        return fail(r, "the variables have more than %d bytes together", MAX_BYTES);
    }
    struct variable *variable = find(r->env, name);
    if (!variable)
        variable = add(r->env, name);
    free(variable->value);
    variable->value = value;
    return true;
}

/* ---- syntax ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static bool is_name_byte(char c)
{
    char lower = ascii_lower(c);
    return (lower >= 'a' && lower <= 'z') || ascii_is_digit(c) || (c != '\0' && strchr("_.-[]", c));
}

/* Goes over so many bytes. */
static void skip(struct reading *r, size_t len)
{
    for (size_t i = 0; i < len; i++)
        r->next_line += r->rest.ptr[i] == '\n';
    r->rest = slice_from(r->rest, len);
}

static void skip_blanks(struct reading *r)
{
    size_t len = 0;
    while (len < r->rest.len && is_blank(r->rest.ptr[len]))
        len++;
    skip(r, len);
}

static size_t line_len(struct slice text)
{
    const char *end = text.len > 0 ? memchr(text.ptr, '\n', text.len) : NULL;
    return end ? (size_t)(end - text.ptr) : text.len;
}

/* A comment too; false if something else is there. */
static bool skip_line_end(struct reading *r)
{
    skip_blanks(r);
    if (slice_has_prefix(r->rest, SLICE("#")))
        skip(r, line_len(r->rest));
    if (r->rest.len > 0 && r->rest.ptr[0] != '\n')
        return false;
    skip(r, r->rest.len > 0);
    return true;
}

static void skip_export(struct reading *r)
{
    const struct slice word = SLICE("export");
    if (!slice_has_prefix(r->rest, word) || r->rest.len == word.len || !is_blank(r->rest.ptr[word.len]))
        return;
    skip(r, word.len);
    skip_blanks(r);
}

/* ---- values ---- */

/* What follows a backslash in quotes. A dollar is doubled, for variables are filled in afterwards. */
static void put_escape(FILE *out, char c, char quote)
{
    static const char letters[] = "abfnrtv", values[] = "\a\b\f\n\r\t\v";
    const char *letter = c != '\0' ? strchr(letters, c) : NULL;
    if (quote == '"' && letter)
        fputc(values[letter - letters], out);
    else if (quote == '"' && c == '$')
        fputs("$$", out);
    else if (c == quote || (quote == '"' && c == '\\'))
        fputc(c, out);
    else
        fprintf(out, "\\%c", c);
}

/* The inside of the quotes, malloc'ed; the rest is what follows them. */
static char *take_quoted(struct reading *r, char quote)
{
    char *text = NULL;
    size_t len = 0, i = 1;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    for (; i < r->rest.len && r->rest.ptr[i] != quote; i++) {
        char c = r->rest.ptr[i];
        if (c == '\\' && i + 1 < r->rest.len)
            put_escape(out, r->rest.ptr[++i], quote);
        else if (c != '\r')
            fputc(c, out);
    }
    if (fclose(out) != 0)
        abort();
    if (i >= r->rest.len) {
        fail(r, "the quote is not closed");
        free(text);
        return NULL;
    }
    skip(r, i + 1);
    return text;
}

/* Up to the end of the line, or a comment. */
static char *take_plain(struct reading *r, bool is_after_blank)
{
    size_t end = line_len(r->rest), len = 0;
    for (; len < end && !(r->rest.ptr[len] == '#' && is_after_blank); len++)
        is_after_blank = is_blank(r->rest.ptr[len]);
    while (len > 0 && is_blank(r->rest.ptr[len - 1]))
        len--;
    char *text = strndup(r->rest.ptr ? r->rest.ptr : "", len);
    if (!text)
        abort();
    skip(r, len);
    return text;
}

/* Takes the text. */
static char *fill_in(const struct reading *r, char *text)
{
    char error[COMPOSE_ERROR_MAX];
    char *value = compose_interpolate_leniently(slice_str(text), compose_env_value, r->env, error);
    if (!value)
        fail(r, "%s", error);
    free(text);
    return value;
}

static bool take_value(struct reading *r, struct slice name)
{
    size_t len = r->rest.len;
    skip_blanks(r);
    char quote = r->rest.len > 0 ? r->rest.ptr[0] : '\0';
    bool is_quoted = quote == '"' || quote == '\'';
    char *text = is_quoted ? take_quoted(r, quote) : take_plain(r, r->rest.len < len);
    if (text && quote != '\'')
        text = fill_in(r, text);
    if (!text)
        return false;
    if (skip_line_end(r))
        return set(r, name, text);
    free(text);
    r->line = r->next_line;
    return fail(r, "after the closing quote comes the end of the line or a comment");
}

/* ---- the file ---- */

static bool take_statement(struct reading *r)
{
    r->line = r->next_line;
    if (skip_line_end(r))
        return true;
    skip_export(r);
    struct slice name = {r->rest.ptr, 0};
    while (name.len < r->rest.len && is_name_byte(r->rest.ptr[name.len]))
        name.len++;
    if (name.len == 0)
        return fail(r, "there is no name; write NAME=VALUE, with letters, digits and _ in the name");
    skip(r, name.len);
    if (skip_line_end(r))
        return true;
    if (r->rest.ptr[0] != '=' && r->rest.ptr[0] != ':')
        return fail(r, "after the name %.*s comes = or :", (int)(name.len < SHOWN_NAME ? name.len : SHOWN_NAME),
                    name.ptr);
    skip(r, 1);
    return take_value(r, name);
}

bool compose_env_read(struct compose_env *env, struct slice text, char ret_error[COMPOSE_ERROR_MAX])
{
    const struct slice mark = SLICE("\xef\xbb\xbf"); /* of UTF-8, as some editors write it */
    struct reading r = {.env = env, .rest = text, .line = 1, .next_line = 1, .error = ret_error};
    const char *nul = text.len > 0 ? memchr(text.ptr, '\0', text.len) : NULL;
    if (nul) {
        skip(&r, (size_t)(nul - text.ptr));
        r.line = r.next_line;
        return fail(&r, "there is a NUL byte; it must be text");
    }
    if (slice_has_prefix(r.rest, mark))
        skip(&r, mark.len);
    while (r.rest.len > 0)
        if (!take_statement(&r))
            return false;
    return true;
}

struct compose_env *compose_env_new(compose_env_cb outer, void *outer_arg)
{
    struct compose_env *env = calloc(1, sizeof *env);
    if (!env)
        abort();
    env->outer = outer;
    env->outer_arg = outer_arg;
    return env;
}

void compose_env_free(struct compose_env **env)
{
    if (!*env)
        return;
    for (size_t i = 0; i < (*env)->count; i++) {
        free((*env)->variables[i].name);
        free((*env)->variables[i].value);
    }
    free((*env)->variables);
    free(*env);
    *env = NULL;
}
