/*
 * gatewayctl complete: what may stand in the place of the last word of a command line. Made of the tables; ids, names
 * and hosts come from the gateway that the line names, if it answers at once.
 *
 * Output: one candidate a line, then a tab and what it is, if that is known. A line ":files" asks for names of files.
 */
#include "ctl_commands.h"

#include <stdlib.h>

enum { MAX_CANDIDATES = 100, MAX_WORDS = 64, ASK_MS = 1500, ID_MAX = 63, MIN_SEARCHED = 3 };

struct line {
    struct ctl_options options;        /* as far as they are given; for the connection */
    const struct ctl_option *awaiting; /* an option whose argument comes next */
    char *words[MAX_WORDS];            /* that are no options */
    size_t count;
    const char *before; /* of each candidate: "--name=" */
    const char *prefix; /* what candidates begin with */
    size_t candidates;
};

/* For arguments with few values. */
static const struct {
    const char *argument;
    const char *values;
} value_lists[] = {
    {"SHELL", "bash zsh fish"},
    {"FIELD", "requests active p50 p99 errors in out app"},
    {"STATUS,…", "2xx 3xx 4xx 5xx 404 499 502 503 504"},
    {"METHOD", "GET HEAD POST PUT PATCH DELETE OPTIONS"},
};

static void candidate(struct line *line, const char *text, const char *help)
{
    if (strncmp(text, line->prefix, strlen(line->prefix)) != 0 || line->candidates == MAX_CANDIDATES)
        return;
    line->candidates++;
    printf("%s%s%s%s\n", line->before, text, *help ? "\t" : "", help);
}

/* ---- from the gateway ---- */

static json_t *ask(const struct line *line, const char *path)
{
    struct ctl_reply reply;
    struct ctl_call call = {.method = "GET", .path = path, .timeout_ms = ASK_MS, .quiet = true};
    json_t *json = NULL;
    if (ctl_http_try(&line->options, &call, &reply) == CTL_OK)
        json = json_loadb(reply.body, reply.len, 0, NULL);
    ctl_reply_free(&reply);
    return json;
}

/* The apps whose ids begin so: those after the greatest id that is less. */
static json_t *apps_from(const struct line *line, const char *prefix)
{
    char after[ID_MAX + 1] = "";
    char path[256];
    size_t len = strlen(prefix);
    for (size_t i = 0; i < len; i++)
        if (!ascii_is_digit(prefix[i]) && prefix[i] != '-' && (prefix[i] < 'a' || prefix[i] > 'z'))
            return NULL;
    if (len > ID_MAX)
        return NULL;
    if (len > 0) {
        memset(after, 'z', ID_MAX);
        memcpy(after, prefix, len);
        after[len - 1]--; /* '/' for '0', ',' for '-', '`' for 'a': less than any letter of an id that is greater */
    }
    char *encoded = ctl_http_encode(after);
    snprintf(path, sizeof path, "/v1/apps?limit=%d&after=%s", MAX_CANDIDATES, encoded);
    free(encoded);
    return ask(line, path);
}

static void complete_apps(struct line *line)
{
    size_t i;
    const json_t *app;
    json_t *page = apps_from(line, line->prefix);
    json_array_foreach(json_object_get(page, "apps"), i, app) candidate(line, ctl_string(app, "app_id"), "");
    json_decref(page);
}

static void complete_certificates(struct line *line)
{
    size_t i;
    const json_t *cert;
    json_t *answer = ask(line, "/v1/certificates");
    json_array_foreach(json_object_get(answer, "certificates"), i, cert) candidate(line, ctl_string(cert, "name"), "");
    json_decref(answer);
}

static void offer_app_hosts(struct line *line, const json_t *app, const json_t *bases)
{
    char host[512];
    size_t i, k;
    const json_t *port, *base, *domain;
    const json_t *ports = json_object_get(app, "ports");
    json_array_foreach(bases, k, base)
    {
        if (json_array_size(ports) == 0) {
            snprintf(host, sizeof host, "%s.%s", ctl_string(app, "app_id"), json_string_value(base));
            candidate(line, host, "");
        }
        json_array_foreach(ports, i, port)
        {
            snprintf(host, sizeof host, "%s-%lld.%s", ctl_string(app, "app_id"),
                     (long long)json_integer_value(json_object_get(port, "port")), json_string_value(base));
            candidate(line, host, "");
        }
    }
    json_array_foreach(json_object_get(app, "domains"), i, domain) candidate(line, ctl_string(domain, "name"), "");
}

/* The id in the beginning of a host name: "abc-80" and "abc-" are taken for the id abc. */
static void id_of(const char *prefix, char *ret_id)
{
    size_t len = strcspn(prefix, ".");
    size_t digits = len;
    while (digits > 0 && ascii_is_digit(prefix[digits - 1]))
        digits--;
    if (digits > 1 && prefix[digits - 1] == '-')
        len = digits - 1;
    snprintf(ret_id, ID_MAX + 1, "%.*s", (int)len, prefix);
}

static void offer_page(struct line *line, json_t *page, const json_t *bases)
{
    size_t i;
    const json_t *app;
    json_array_foreach(json_object_get(page, "apps"), i, app) offer_app_hosts(line, app, bases);
    json_decref(page);
}

static void complete_hosts(struct line *line)
{
    char id[ID_MAX + 1];
    char path[256];
    json_t *status = ask(line, "/v1/status");
    const json_t *bases = json_object_get(status, "base_domains");
    id_of(line->prefix, id);
    offer_page(line, apps_from(line, id), bases);
    if (line->candidates == 0 && strlen(line->prefix) >= MIN_SEARCHED && strlen(line->prefix) <= ID_MAX) {
        char *encoded = ctl_http_encode(line->prefix);
        snprintf(path, sizeof path, "/v1/apps?limit=20&q=%s", encoded);
        free(encoded);
        offer_page(line, ask(line, path), bases);
    }
    json_decref(status);
}

/* ---- by the kind of word ---- */

static void complete_values(struct line *line, struct slice argument)
{
    for (size_t i = 0; i < sizeof value_lists / sizeof value_lists[0]; i++) {
        if (!slice_eq(argument, slice_str(value_lists[i].argument)))
            continue;
        for (const char *next = value_lists[i].values; *next;) {
            char value[32];
            size_t len = strcspn(next, " ");
            snprintf(value, sizeof value, "%.*s", (int)len, next);
            candidate(line, value, "");
            next += len + (next[len] == ' ');
        }
    }
}

/* One argument of a command or an option, by its name in the table. */
static void complete_argument(struct line *line, struct slice argument)
{
    if (slice_has_prefix(argument, SLICE("FILE")) || slice_eq(argument, SLICE("CHAIN")) ||
        slice_eq(argument, SLICE("KEY")))
        puts(":files");
    else if (slice_eq(argument, SLICE("ID")))
        complete_apps(line);
    else if (slice_eq(argument, SLICE("HOST")))
        complete_hosts(line);
    else if (slice_eq(argument, SLICE("NAME")))
        complete_certificates(line);
    else
        complete_values(line, argument);
}

static void complete_option_name(struct line *line, const struct ctl_command *command)
{
    char name[64];
    for (size_t i = 0; i < ctl_option_count; i++) {
        const struct ctl_option *option = &ctl_option_table[i];
        if (option->commands && !(command && ctl_option_fits(option, command)))
            continue;
        snprintf(name, sizeof name, "--%s", option->name);
        candidate(line, name, option->help);
    }
}

static void complete_word(struct line *line, const struct ctl_command *command)
{
    size_t skip = command && command->second ? 2 : 1;
    for (size_t i = 0; !command && i < ctl_command_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        bool is_repeated = i > 0 && strcmp(ctl_commands[i - 1].first, c->first) == 0;
        if (line->count == 0 && !is_repeated)
            candidate(line, c->first, c->second ? "" : c->help);
        else if (line->count == 1 && c->second && strcmp(line->words[0], c->first) == 0)
            candidate(line, c->second, c->help);
    }
    if (!command)
        return;
    const char *argument = command->arguments;
    for (size_t i = skip; i < line->count && *argument; i++) {
        const char *next = argument + strcspn(argument, " ");
        if (*next == ' ')
            argument = next + 1;
        else if (!strstr(argument, "…"))
            argument = next;
    }
    if (*argument)
        complete_argument(line, slice_make(argument, strcspn(argument, " ")));
}

/* ---- the line ---- */

static void set_option(struct line *line, const struct ctl_option *option, const char *value)
{
    memcpy((char *)&line->options + option->member, &value, sizeof value);
}

/* A word before the last. */
static void take_word(struct line *line, char *word)
{
    const struct ctl_option *option = NULL;
    size_t len = strcspn(word, "=");
    if (line->awaiting) {
        set_option(line, line->awaiting, word);
        line->awaiting = NULL;
    } else if (word[0] == '-' && word[1] == '-') {
        option = ctl_option_named(slice_make(word + 2, len - 2));
        if (option && option->argument && word[len] == '=')
            set_option(line, option, word + len + 1);
        else if (option && option->argument)
            line->awaiting = option;
    } else if (word[0] == '-' && word[1] != '\0') {
        option = ctl_option_lettered(word[1]);
        line->awaiting = option && option->argument && word[2] == '\0' ? option : NULL;
    } else if (line->count < MAX_WORDS) {
        line->words[line->count++] = word;
    }
}

static void complete_last(struct line *line, char *word)
{
    const struct ctl_command *command = ctl_command_named(line->words, line->count);
    const char *value = strchr(word, '=');
    line->prefix = word;
    if (line->awaiting) {
        complete_argument(line, slice_str(line->awaiting->argument));
    } else if (word[0] == '-' && word[1] == '-' && value) {
        const struct ctl_option *option = ctl_option_named(slice_make(word + 2, (size_t)(value - word) - 2));
        char before[64];
        snprintf(before, sizeof before, "%.*s", (int)(value - word) + 1, word);
        line->before = before;
        line->prefix = value + 1;
        if (option && option->argument)
            complete_argument(line, slice_str(option->argument));
    } else if (word[0] == '-') {
        complete_option_name(line, command);
    } else {
        complete_word(line, command);
    }
}

enum ctl_exit ctl_complete(const struct ctl_options *options)
{
    struct line line = {.options = *options, .before = "", .prefix = ""};
    char nothing[] = "", *token = NULL;
    for (int i = 0; i + 1 < options->argc; i++)
        take_word(&line, options->argv[i]);
    const char *file = line.options.token_file;
    if (file && file != options->token_file && strcmp(file, "-") != 0) /* what is being typed is no token */
        line.options.token = token = ctl_http_read_token(file);
    complete_last(&line, options->argc > 0 ? options->argv[options->argc - 1] : nothing);
    ctl_http_free_token(&token);
    return CTL_OK;
}

/* ---- the scripts ---- */

static const char bash_script[] =
    "# bash completion for gatewayctl: asks the program itself.\n"
    "_gatewayctl() {\n"
    "    local program=${1/#\\~/$HOME} line=${COMP_LINE:0:COMP_POINT} words candidate word\n"
    "    read -ra words <<<\"${line#*\"$1\"}\"\n"
    "    [[ $line == *[[:space:]] ]] && words+=(\"\")\n"
    "    [[ ${#words[@]} = 0 ]] && return\n"
    "    word=${words[-1]}\n"
    "    COMPREPLY=()\n"
    "    while IFS=$'\\t' read -r candidate _; do\n"
    "        if [[ $candidate == :files ]]; then\n"
    "            compopt -o default\n"
    "            COMPREPLY=()\n"
    "            return\n"
    "        fi\n"
    "        # readline replaces only what follows the last = or :\n"
    "        [[ $word == *[=:]* ]] && candidate=${candidate#\"${word%\"${word##*[=:]}\"}\"}\n"
    "        COMPREPLY+=(\"$candidate\")\n"
    "    done < <(\"$program\" complete -- \"${words[@]}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _gatewayctl gatewayctl\n";

static const char zsh_script[] =
    "#compdef gatewayctl\n"
    "# zsh completion for gatewayctl: asks the program itself.\n"
    "_gatewayctl() {\n"
    "    local line\n"
    "    local -a candidates\n"
    "    for line in \"${(@f)$(\"${(Q)words[1]}\" complete -- \"${(@Q)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
    "        if [[ $line == :files ]]; then\n"
    "            _files\n"
    "            return\n"
    "        fi\n"
    "        [[ -n $line ]] && candidates+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
    "    done\n"
    "    _describe gatewayctl candidates\n"
    "}\n"
    "if [[ ${funcstack[1]} == _gatewayctl ]]; then\n"
    "    _gatewayctl \"$@\"\n"
    "else\n"
    "    compdef _gatewayctl gatewayctl\n"
    "fi\n";

static const char fish_script[] = "# fish completion for gatewayctl: asks the program itself.\n"
                                  "function __gatewayctl_candidates\n"
                                  "    set -l words (commandline -opc)\n"
                                  "    set -l program $words[1]\n"
                                  "    set -e words[1]\n"
                                  "    set -l word (commandline -ct)\n"
                                  "    for line in ($program complete -- $words \"$word\" 2>/dev/null)\n"
                                  "        if test \"$line\" = :files\n"
                                  "            __fish_complete_path $word\n"
                                  "        else\n"
                                  "            printf '%s\\n' $line\n"
                                  "        end\n"
                                  "    end\n"
                                  "end\n"
                                  "complete -c gatewayctl -f -a '(__gatewayctl_candidates)'\n";

enum ctl_exit ctl_completion(const struct ctl_options *options)
{
    static const struct {
        const char *shell;
        const char *script;
    } scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++)
        if (strcmp(options->argv[0], scripts[i].shell) == 0) {
            fputs(scripts[i].script, stdout);
            return CTL_OK;
        }
    ctl_error("completion %s: say bash, zsh or fish", options->argv[0]);
    return CTL_USAGE;
}
