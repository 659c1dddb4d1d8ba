#include "ctl_commands.h"

const struct ctl_command ctl_commands[] = {
    {"app", "put", "FILE|-", "store an app document (JSON)", ctl_app_put},
    {"app", "get", "ID", "show one app", ctl_app_get},
    {"app", "rm", "ID", "delete one app", ctl_app_rm},
    {"app", "ls", "", "list all apps", ctl_app_ls},
    {"compose", NULL, "FILE|-…",
     "register the host ports that Compose files publish (later ones merged into the first), or those of a dstack "
     "app-compose.json; show what changes and the URLs. What the files don't know, such as domains, limits and other "
     "instances, stays",
     ctl_compose},
    {"cert", "put", "NAME CHAIN KEY", "store a certificate for a custom domain (PEM files); NAME may be *.example.com",
     ctl_cert_put},
    {"cert", "get", "NAME", "show one certificate; the key never comes out", ctl_cert_get},
    {"cert", "rm", "NAME", "remove one certificate", ctl_cert_rm},
    {"cert", "ls", "", "list all certificates in force, with their ends", ctl_cert_ls},
    {"resolve", NULL, "HOST", "show what a host name routes to, step by step, and why not", ctl_resolve},
    {"snapshot", "save", "FILE|-", "write all apps as NDJSON, with an empty line at the end", ctl_snapshot_save},
    {"snapshot", "load", "FILE|-", "replace all apps by those of the file", ctl_snapshot_load},
    {"status", NULL, "", "show what the gateway does", ctl_status},
    {"top", NULL, "",
     "show the busiest apps, refreshed on a terminal: rates, latencies, errors, what is in progress, bytes", ctl_top},
    {"logs", NULL, "", "show the last lines of the access log; for people on a terminal, else as NDJSON", ctl_logs},
    {"drain", NULL, "", "finish what is in progress, then end", ctl_drain},
    {"reload", NULL, "", "read configuration and certificates again", ctl_reload},
    {"completion", NULL, "SHELL", "print the completion script for bash, zsh or fish", ctl_completion},
    {"complete", NULL, "[WORD…]",
     "print what may stand in the place of the last WORD, one candidate a line; for completion scripts, which write -- "
     "before the words",
     ctl_complete},
    {"man", NULL, "", "print the manual page of gatewayctl (roff)", ctl_man},
};
const size_t ctl_command_count = sizeof ctl_commands / sizeof ctl_commands[0];

#define MEMBER(name)      offsetof(struct ctl_options, name)
#define CTL_ETCD_COMMANDS "app put,app get,app rm,app ls,snapshot save,snapshot load"

const struct ctl_option ctl_option_table[] = {
    {"if-match", 0, "REV", MEMBER(if_match), "app put,app rm", "only if the app is still at this revision"},
    {"q", 0, "TEXT", MEMBER(q), "app ls", "only apps with TEXT in an id, domain or address"},
    {"follow", 'f', NULL, MEMBER(follow), "logs", "go on with lines to come, until interrupted"},
    {"once", 0, NULL, MEMBER(once), "top", "measure once, print, and exit; so do --json, --count and pipes"},
    {"sort", 0, "FIELD", MEMBER(sort), "top", "requests (default), active, p50, p99, errors, in, out or app"},
    {"interval", 0, "SECONDS", MEMBER(interval), "top", "how long it measures each time; default: 1"},
    {"count", 'n', "N", MEMBER(count), "top,logs",
     "top: how many apps, default 200; logs: how many of the last lines, default 50, with --follow 10 (the gateway "
     "keeps 1 MiB of them)"},
    {"status", 0, "STATUS,…", MEMBER(status), "logs", "404, 5xx, 400-499, >=500 or <400; any of these"},
    {"slower-than", 0, "TIME", MEMBER(slower_than), "logs", "what took longer: 500ms, 2s"},
    {"path", 0, "PATTERN", MEMBER(path), "logs", "a path without its query; * stands for any letters, ? for one"},
    {"host", 0, "PATTERN", MEMBER(host), "logs", "a host name, or a pattern"},
    {"method", 0, "METHOD", MEMBER(method), "logs", "GET, POST, …"},
    {"error", 0, NULL, MEMBER(error), "logs", "only what ended in an error of the gateway"},
    {"app", 0, "ID", MEMBER(app), "compose,logs",
     "compose: the app; default for an app-compose.json: the id that its bytes make; logs: an app or instance"},
    {"address", 0, "IP", MEMBER(address), "compose",
     "where the instance to register is; may be left out for an app that has some"},
    {"instance", 0, "INSTANCE", MEMBER(instance), "compose",
     "the instance at --address; default: the one known there, else <app id>-i1"},
    {"generation", 0, "N", MEMBER(generation), "compose", "of the instance; default: what the gateway knows, else 1"},
    {"replace", 0, "ID", MEMBER(replace), "compose",
     "take the place of that app, which goes: its domains and limits move, and its instances if this one has none yet"},
    {"domain", 0, "DOMAIN", MEMBER(domain), "compose", "for the URLs; default: the gateway's base domains"},
    {"profile", 0, "NAME,…", MEMBER(profile), "compose", "active profiles; default: $COMPOSE_PROFILES"},
    {"env-file", 0, "FILE,…", MEMBER(env_file), "compose",
     "files of variables (NAME=VALUE), later ones win, the environment over all; default: .env beside the first "
     "Compose file, if it is there"},
    {"dry-run", 0, NULL, MEMBER(dry_run), "compose", "change nothing, and show what would change"},
    {"exit-code", 0, NULL, MEMBER(exit_code), "compose", "with --dry-run: tell by the exit status if something would"},
    {"strict", 0, NULL, MEMBER(strict), "snapshot load", "change nothing if any line is bad"},
    {"empty", 0, NULL, MEMBER(empty), "snapshot load", "a file without apps is meant: delete every app"},
    {"unmarked", 0, NULL, MEMBER(unmarked), "snapshot load",
     "what comes through a pipe is taken without the empty line that snapshot save ends with, which tells that nothing "
     "was cut off"},

    {"etcd", 0, "URL,…", MEMBER(etcd), CTL_ETCD_COMMANDS,
     "talk to the members of a fleet's etcd with these client URLs instead of to a gateway; all gateways follow"},
    {"etcd-prefix", 0, "PREFIX", MEMBER(etcd_prefix), CTL_ETCD_COMMANDS,
     "of the fleet's keys; default: /phala-gateway"},
    {"etcd-user", 0, "NAME", MEMBER(etcd_user), CTL_ETCD_COMMANDS, "if etcd has authentication enabled"},
    {"etcd-password-file", 0, "FILE", MEMBER(etcd_password_file), CTL_ETCD_COMMANDS,
     "file with that user's password in its first line"},

    {"control", 0, "unix:PATH|https://HOST:PORT", MEMBER(control), NULL,
     "where the gateway listens; default: $GATEWAY_CONTROL, else " CTL_DEFAULT_CONTROL},
    {"cacert", 0, "FILE", MEMBER(cacert), NULL, "CA that signed the gateway's control certificate"},
    {"cert", 0, "FILE", MEMBER(cert), NULL, "client certificate (PEM)"},
    {"key", 0, "FILE", MEMBER(key), NULL, "key of the client certificate (PEM)"},
    {"token-file", 0, "FILE", MEMBER(token_file), NULL,
     "file with a bearer token in its first line, read once: a pipe will do"},
    {"json", 0, NULL, MEMBER(json), NULL,
     "for scripts: JSON on standard output (lists: one document a line), problems as JSON on standard error"},
    {"help", 0, NULL, MEMBER(help), NULL, "show this, or the help of the command, and exit"},
    {"version", 0, NULL, MEMBER(version), NULL, "show the version and exit"},
};
const size_t ctl_option_count = sizeof ctl_option_table / sizeof ctl_option_table[0];

const struct ctl_exit_status ctl_exit_table[] = {
    {CTL_OK, "done"},
    {CTL_REFUSED, "the gateway refused; the problem is shown with code, field and advice. Also: resolve of a name that "
                  "does not route, snapshot load with refused lines, and with --etcd what cannot be saved or shown"},
    {CTL_USAGE, "wrong usage, or a file that cannot be read, understood or written"},
    {CTL_UNREACHABLE, "the gateway cannot be reached, or what answers is no gateway"},
    {CTL_WOULD_CHANGE, "compose --dry-run --exit-code: something would change"},
};
const size_t ctl_exit_count = sizeof ctl_exit_table / sizeof ctl_exit_table[0];

const struct ctl_variable ctl_variables[] = {
    {"GATEWAY_CONTROL", "where the gateway listens, if --control does not say it"},
    {"COMPOSE_PROFILES",
     "the profiles that compose takes for active, if --profile does not say it; may stand in an env file"},
    {"NO_COLOR", "if it is not empty, nothing is coloured"},
    {"COLUMNS", "how wide tables may be on a terminal that does not tell its size"},
};
const size_t ctl_variable_count = sizeof ctl_variables / sizeof ctl_variables[0];

const struct ctl_option *ctl_option_named(struct slice name)
{
    for (size_t i = 0; i < ctl_option_count; i++)
        if (slice_eq(name, slice_str(ctl_option_table[i].name)))
            return &ctl_option_table[i];
    return NULL;
}

const struct ctl_option *ctl_option_lettered(char letter)
{
    for (size_t i = 0; i < ctl_option_count; i++)
        if (letter != 0 && ctl_option_table[i].letter == letter)
            return &ctl_option_table[i];
    return NULL;
}

bool ctl_option_is_list(const struct ctl_option *option)
{
    return option->argument && strstr(option->argument, ",…") != NULL;
}

const char *ctl_command_name(const struct ctl_command *command, char buffer[CTL_COMMAND_NAME_MAX])
{
    snprintf(buffer, CTL_COMMAND_NAME_MAX, "%s%s%s", command->first, command->second ? " " : "",
             command->second ? command->second : "");
    return buffer;
}

bool ctl_option_fits(const struct ctl_option *option, const struct ctl_command *command)
{
    char name[CTL_COMMAND_NAME_MAX];
    if (!option->commands)
        return true;
    return slice_list_has(slice_str(option->commands), slice_str(ctl_command_name(command, name)));
}

const struct ctl_command *ctl_command_named(char *const *words, size_t count)
{
    for (size_t i = 0; i < ctl_command_count; i++) {
        const struct ctl_command *command = &ctl_commands[i];
        if (count > 0 && strcmp(command->first, words[0]) == 0 &&
            (!command->second || (count > 1 && strcmp(command->second, words[1]) == 0)))
            return command;
    }
    return NULL;
}

const char *ctl_option_commands(const struct ctl_option *option, char buffer[CTL_COMMAND_LIST_MAX])
{
    size_t len = 0;
    for (const char *c = option->commands; *c && len + 3 < CTL_COMMAND_LIST_MAX; c++) {
        buffer[len++] = *c;
        if (*c == ',')
            buffer[len++] = ' ';
    }
    buffer[len] = '\0';
    return buffer;
}
