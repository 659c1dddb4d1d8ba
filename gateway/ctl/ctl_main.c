/* gatewayctl: the command line client of the control API. */
#include "ctl.h"

#include <curl/curl.h>
#include <getopt.h>
#include <stdlib.h>

#define DEFAULT_CONTROL "unix:/run/phala-gateway/control.sock"

static const char help[] =
    "Usage: gatewayctl [OPTIONS] COMMAND …\n"
    "\n"
    "Commands:\n"
    "  app put FILE|-             store an app document (JSON); --if-match REV\n"
    "  app get ID                 show one\n"
    "  app rm ID                  delete one; --if-match REV\n"
    "  app ls                     list all; --q TEXT: those with TEXT in an id, domain or address\n"
    "  compose FILE|- …           register the host ports that Compose files publish, later ones merged into the\n"
    "                             first, and print their URLs; --app ID --address IP needed;\n"
    "                             --instance ID (default: <app id>-i1),\n"
    "                             --generation N (default: what the gateway knows, else 1),\n"
    "                             --profile NAME,… (default: $COMPOSE_PROFILES),\n"
    "                             --domain NAME (default: the gateway's base domains), --dry-run (changes nothing)\n"
    "  cert put NAME CHAIN KEY    store a certificate for a custom domain (PEM files); NAME may be *.example.com\n"
    "  cert get NAME              show one; the key never comes out\n"
    "  cert rm NAME               remove one\n"
    "  cert ls                    all certificates in force, with their ends\n"
    "  resolve HOST               what a host name routes to, and why not\n"
    "  snapshot save FILE|-       write all apps as NDJSON\n"
    "  snapshot load FILE|-       replace all apps; --strict: nothing is changed if any line is bad\n"
    "  status                     what the gateway does\n"
    "  drain                      finish what is in progress, then end\n"
    "  reload                     read configuration and certificates again\n"
    "\n"
    "Options:\n"
    "  --control unix:PATH|https://HOST:PORT   where the gateway listens; default: $GATEWAY_CONTROL,\n"
    "                                          else " DEFAULT_CONTROL "\n"
    "  --cacert FILE              CA that signed the gateway's control certificate\n"
    "  --cert FILE --key FILE     client certificate\n"
    "  --token-file FILE          bearer token\n"
    "  --json                     for scripts: JSON on stdout (app ls: one document a line), problems as JSON\n"
    "  --help, --version\n"
    "\n"
    "Exit status:\n"
    "  0  done\n"
    "  1  the gateway refused; the problem is shown with code, field and advice. Also: resolve of a name that does\n"
    "     not route, and snapshot load with refused lines\n"
    "  2  wrong usage, or a file that cannot be read or understood\n"
    "  3  the gateway cannot be reached\n";

struct command {
    const char *first;
    const char *second; /* NULL: one word */
    int arguments;      /* -1: one or more */
    const char *argument_name;
    enum ctl_exit (*run)(const struct ctl_options *options);
};

static const struct command commands[] = {
    {"app", "put", 1, "FILE", ctl_app_put},
    {"app", "get", 1, "ID", ctl_app_get},
    {"app", "rm", 1, "ID", ctl_app_rm},
    {"app", "ls", 0, "", ctl_app_ls},
    {"cert", "put", 3, "NAME CHAIN KEY", ctl_cert_put},
    {"cert", "get", 1, "NAME", ctl_cert_get},
    {"cert", "rm", 1, "NAME", ctl_cert_rm},
    {"cert", "ls", 0, "", ctl_cert_ls},
    {"compose", NULL, -1, "one or more FILEs", ctl_compose},
    {"resolve", NULL, 1, "HOST", ctl_resolve},
    {"snapshot", "save", 1, "FILE", ctl_snapshot_save},
    {"snapshot", "load", 1, "FILE", ctl_snapshot_load},
    {"status", NULL, 0, "", ctl_status},
    {"drain", NULL, 0, "", ctl_drain},
    {"reload", NULL, 0, "", ctl_reload},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

/* X(option on the command line, member): those that take text. */
#define TEXT_OPTIONS(X)                                                                                                \
    X("control", control)                                                                                              \
    X("cacert", cacert)                                                                                                \
    X("cert", cert)                                                                                                    \
    X("key", key)                                                                                                      \
    X("token-file", token_file)                                                                                        \
    X("q", q)                                                                                                          \
    X("if-match", if_match)                                                                                            \
    X("app", app)                                                                                                      \
    X("address", address)                                                                                              \
    X("instance", instance)                                                                                            \
    X("generation", generation)                                                                                        \
    X("domain", domain)                                                                                                \
    X("profile", profile)

enum option_id {
    OPTION_HELP = 256,
    OPTION_VERSION,
    OPTION_JSON,
    OPTION_DRY_RUN,
    OPTION_STRICT,
#define X(name, member) OPTION_##member,
    TEXT_OPTIONS(X)
#undef X
};

static const struct option long_options[] = {
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"json", no_argument, NULL, OPTION_JSON},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"strict", no_argument, NULL, OPTION_STRICT},
#define X(name, member) {name, required_argument, NULL, OPTION_##member},
    TEXT_OPTIONS(X)
#undef X
        {NULL, 0, NULL, 0},
};

static int usage(void)
{
    fputs("Try gatewayctl --help.\n", stderr);
    return CTL_USAGE;
}

/* -1: go on; else the exit status. */
static int take_option(struct ctl_options *options, int option)
{
    switch (option) {
    case OPTION_HELP:
        fputs(help, stdout);
        return CTL_OK;
    case OPTION_VERSION:
        puts("gatewayctl " GW_VERSION);
        return CTL_OK;
    case OPTION_JSON:
        options->json = true;
        return -1;
    case OPTION_DRY_RUN:
        options->dry_run = true;
        return -1;
    case OPTION_STRICT:
        options->strict = true;
        return -1;
#define X(name, member)                                                                                                \
    case OPTION_##member:                                                                                              \
        options->member = optarg;                                                                                      \
        return -1;
        TEXT_OPTIONS(X)
#undef X
    default:
        return usage(); /* getopt_long has said what is wrong */
    }
}

static const struct command *find_command(char *const *words, int count)
{
    bool first_known = false;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const struct command *command = &commands[i];
        if (count == 0 || strcmp(command->first, words[0]) != 0)
            continue;
        first_known = true;
        if (!command->second || (count > 1 && strcmp(command->second, words[1]) == 0))
            return command;
    }
    if (count == 0)
        ctl_error("say what to do: app, cert, compose, resolve, snapshot, status, drain or reload");
    else if (!first_known)
        ctl_error("there is no command %s; use app, cert, compose, resolve, snapshot, status, drain or reload",
                  words[0]);
    else
        ctl_error("%s: %s %s", words[0], count > 1 ? "there is no" : "say which of",
                  count > 1                           ? words[1]
                  : strcmp(words[0], "snapshot") == 0 ? "save, load"
                                                      : "put, get, rm, ls");
    return NULL;
}

static int run(struct ctl_options *options, char **words, int count)
{
    const struct command *command = find_command(words, count);
    if (!command)
        return usage();
    int skip = command->second ? 2 : 1;
    options->argv = words + skip;
    options->argc = count - skip;
    if (command->arguments >= 0 ? options->argc != command->arguments : options->argc == 0) {
        ctl_error("%s%s%s takes %s", command->first, command->second ? " " : "", command->second ? command->second : "",
                  command->arguments == 0 ? "no argument" : command->argument_name);
        return usage();
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
    enum ctl_exit result = command->run(options);
    curl_global_cleanup();
    if (fflush(stdout) != 0 && result == CTL_OK) {
        ctl_error("cannot write to standard output");
        result = CTL_USAGE;
    }
    return (int)result;
}

int main(int argc, char **argv)
{
    struct ctl_options options = {.control = getenv("GATEWAY_CONTROL")};
    if (!options.control || !*options.control)
        options.control = DEFAULT_CONTROL;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        int status = take_option(&options, option);
        if (status != -1)
            return status;
    }
    return run(&options, argv + optind, argc - optind);
}
