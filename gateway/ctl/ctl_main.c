/* gatewayctl: the command line client of the control API. */
#include "ctl_commands.h"

#include <curl/curl.h>
#include <getopt.h>
#include <locale.h>
#include <stdlib.h>

enum { MAX_OPTIONS = 64, LONG_BASE = 256 };

/* The options that were given, to be checked when the command is known. */
struct given {
    const struct ctl_option *options[MAX_OPTIONS];
    size_t count;
    char *lists[MAX_OPTIONS]; /* joined of what several gave; to be freed */
    size_t list_count;
};

static int usage(void)
{
    fputs("Try gatewayctl --help.\n", stderr);
    return CTL_USAGE;
}

/* ---- options ---- */

/* getopt's two forms of the table; long options are numbered from LONG_BASE. */
static void fill_getopt(struct option *ret_long, char *ret_short)
{
    for (size_t i = 0; i < ctl_option_count; i++) {
        const struct ctl_option *option = &ctl_option_table[i];
        int has = option->argument ? required_argument : no_argument;
        ret_long[i] = (struct option){option->name, has, NULL, LONG_BASE + (int)i};
        if (option->letter)
            *ret_short++ = option->letter;
        if (option->letter && option->argument)
            *ret_short++ = ':';
    }
    ret_long[ctl_option_count] = (struct option){NULL, 0, NULL, 0};
    *ret_short = '\0';
}

static bool was_given(const struct given *given, const struct ctl_option *option)
{
    for (size_t i = 0; i < given->count; i++)
        if (given->options[i] == option)
            return true;
    return false;
}

/* Ids have no case; the gateway and etcd have them in lower case. */
static void take_id(const char *argument, char *value)
{
    if (strcmp(argument, "ID") == 0 || strcmp(argument, "INSTANCE") == 0)
        ascii_lower_copy(value, slice_str(value));
}

/* A list may come in parts; of anything else the first would be lost. */
static bool take_value(struct ctl_options *options, struct given *given, const struct ctl_option *option, char *value)
{
    char *before, **list = &given->lists[given->list_count];
    take_id(option->argument, value);
    memcpy(&before, (char *)options + option->member, sizeof before);
    if (was_given(given, option) && !ctl_option_is_list(option)) {
        ctl_error("--%s is given twice, as %s and as %s; give it once", option->name, before, value);
        return false;
    }
    if (was_given(given, option)) {
        if (asprintf(list, "%s,%s", before, value) < 0)
            abort();
        given->list_count++;
        value = *list;
    }
    memcpy((char *)options + option->member, &value, sizeof value);
    return true;
}

static bool take_option(struct ctl_options *options, struct given *given, int code)
{
    const struct ctl_option *option =
        code >= LONG_BASE ? &ctl_option_table[code - LONG_BASE] : ctl_option_lettered((char)code);
    if (!option)
        return false; /* getopt_long has said what is wrong */
    if (given->count == MAX_OPTIONS) {
        ctl_error("there are more than %d options; a list may be given at once, as a,b,c", MAX_OPTIONS);
        return false;
    }
    if (option->argument && !take_value(options, given, option, optarg))
        return false;
    if (!option->argument)
        *((bool *)((char *)options + option->member)) = true;
    given->options[given->count++] = option;
    return true;
}

static bool parse(struct ctl_options *options, struct given *given, int argc, char **argv)
{
    struct option long_options[MAX_OPTIONS + 1];
    char letters[2 * MAX_OPTIONS + 1];
    fill_getopt(long_options, letters);
    for (int code; (code = getopt_long(argc, argv, letters, long_options, NULL)) != -1;)
        if (!take_option(options, given, code))
            return false;
    return true;
}

static bool check_options(const struct given *given, const struct ctl_command *command)
{
    char name[CTL_COMMAND_NAME_MAX], list[CTL_COMMAND_LIST_MAX];
    for (size_t i = 0; i < given->count; i++)
        if (!ctl_option_fits(given->options[i], command)) {
            ctl_error("%s does not take --%s; it is for: %s", ctl_command_name(command, name), given->options[i]->name,
                      ctl_option_commands(given->options[i], list));
            return false;
        }
    return true;
}

/* Given alone they would be passed over, and a gateway changed instead of a fleet. */
static bool check_etcd_options(const struct ctl_options *options)
{
    if (options->etcd || (!options->etcd_prefix && !options->etcd_user && !options->etcd_password_file))
        return true;
    ctl_error("--etcd-prefix, --etcd-user and --etcd-password-file are about --etcd; give it too");
    return false;
}

/* ---- commands ---- */

/* The second words of a command, or all first words for NULL, as a sentence's list. */
static void print_words(const char *first, FILE *out)
{
    const char *before = "";
    for (size_t i = 0; i < ctl_command_count; i++) {
        const struct ctl_command *command = &ctl_commands[i];
        bool is_repeated = i > 0 && strcmp(ctl_commands[i - 1].first, command->first) == 0;
        if (first ? strcmp(first, command->first) != 0 : is_repeated)
            continue;
        fprintf(out, "%s%s", before, first ? command->second : command->first);
        before = ", ";
    }
}

static void explain_words(char *const *words, size_t count)
{
    char *list = NULL;
    size_t len = 0;
    const char *first = NULL;
    for (size_t i = 0; count > 0 && i < ctl_command_count; i++)
        if (strcmp(ctl_commands[i].first, words[0]) == 0)
            first = ctl_commands[i].first;
    FILE *out = open_memstream(&list, &len);
    if (!out)
        abort();
    print_words(first, out);
    if (fclose(out) != 0)
        abort();
    if (count == 0)
        ctl_error("say what to do: %s", list);
    else if (!first)
        ctl_error("there is no command %s; use %s", words[0], list);
    else if (count == 1)
        ctl_error("%s: say which of %s", first, list);
    else
        ctl_error("%s: there is no %s; use %s", first, words[1], list);
    free(list);
}

/* How many arguments the command takes; those of a last one that may be repeated count as one. */
static int count_arguments(const struct ctl_command *command, bool *ret_repeats, bool *ret_optional)
{
    int count = *command->arguments ? 1 : 0;
    for (const char *c = command->arguments; *c; c++)
        count += *c == ' ';
    *ret_repeats = strstr(command->arguments, "…") != NULL;
    *ret_optional = strchr(command->arguments, '[') != NULL;
    return count;
}

static bool check_arguments(const struct ctl_options *options, const struct ctl_command *command)
{
    char name[CTL_COMMAND_NAME_MAX];
    bool repeats, optional;
    int count = count_arguments(command, &repeats, &optional);
    int least = optional ? count - 1 : count;
    if (options->argc >= least && (repeats || options->argc <= count))
        return true;
    ctl_error("%s takes %s", ctl_command_name(command, name), count == 0 ? "no argument" : command->arguments);
    return false;
}

static int run(struct ctl_options *options, const struct ctl_command *command, char **words, int count)
{
    int skip = command->second ? 2 : 1;
    options->argv = words + skip;
    options->argc = count - skip;
    if (!check_arguments(options, command))
        return usage();
    if (options->argc > 0 && !options->etcd) /* where a key in any case may lie, by a mistake */
        take_id(command->arguments, options->argv[0]);
    if (options->token_file && !options->etcd && !(options->token = ctl_http_read_token(options->token_file)))
        return CTL_USAGE;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
    enum ctl_exit result = command->run(options);
    curl_global_cleanup();
    ctl_http_free_token(&options->token);
    return (int)result;
}

static int choose(struct ctl_options *options, const struct given *given, char **words, int count)
{
    const struct ctl_command *command = ctl_command_named(words, (size_t)count);
    if (options->version) {
        puts("gatewayctl " GW_VERSION);
        return CTL_OK;
    }
    if (options->help && (command || count == 0)) {
        ctl_help_print(command, stdout);
        return CTL_OK;
    }
    if (!command) {
        explain_words(words, (size_t)count);
        return usage();
    }
    return check_options(given, command) && check_etcd_options(options) ? run(options, command, words, count) : usage();
}

int main(int argc, char **argv)
{
    struct ctl_options options = {.control = getenv("GATEWAY_CONTROL")};
    struct given given = {.count = 0};
    setlocale(LC_CTYPE, "");
    if (!options.control || !*options.control)
        options.control = CTL_DEFAULT_CONTROL;
    int result = parse(&options, &given, argc, argv) ? choose(&options, &given, argv + optind, argc - optind) : usage();
    while (given.list_count > 0)
        free(given.lists[--given.list_count]);
    if (fflush(stdout) != 0 && result == CTL_OK) {
        ctl_error("cannot write to standard output");
        result = CTL_USAGE;
    }
    return result;
}
