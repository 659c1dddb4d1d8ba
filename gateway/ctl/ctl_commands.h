/*
 * ctl_commands: the commands, options and exit statuses of gatewayctl as tables. What parses the command line, --help,
 * the manual page and shell completion are made from them, so that none can know more than another.
 */
#ifndef GATEWAY_CTL_CTL_COMMANDS_H
#define GATEWAY_CTL_CTL_COMMANDS_H

#include "ctl.h"

struct ctl_command {
    const char *first;
    const char *second;    /* NULL: one word */
    const char *arguments; /* separated by spaces, named for what completes them: ID (taken in lower case), HOST,
                              FILE, …; the last may be "NAME…" (one or more) or "[NAME…]" (any number) */
    const char *help;      /* a sentence without its end */
    enum ctl_exit (*run)(const struct ctl_options *options);
};

/* One option; several commands may take it. */
struct ctl_option {
    const char *name;
    char letter;          /* 0: none */
    const char *argument; /* its name, for help and completion, "NAME,…" for a list; ID and INSTANCE are taken in lower
                             case; NULL: none */
    size_t member;        /* offset in ctl_options: of a const char * if there is an argument, else of a bool */
    const char *commands; /* separated by commas; NULL: all of them */
    const char *help;
};

struct ctl_exit_status {
    enum ctl_exit status;
    const char *help;
};

/* An environment variable. */
struct ctl_variable {
    const char *name;
    const char *help;
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;
extern const struct ctl_option ctl_option_table[];
extern const size_t ctl_option_count;
extern const struct ctl_exit_status ctl_exit_table[];
extern const size_t ctl_exit_count;
extern const struct ctl_variable ctl_variables[];
extern const size_t ctl_variable_count;

/* By its long name, by its letter; NULL: unknown. */
const struct ctl_option *ctl_option_named(struct slice name);
const struct ctl_option *ctl_option_lettered(char letter);
/* Its argument is a list, so that it may be given several times. */
bool ctl_option_is_list(const struct ctl_option *option);
/* True if the command takes the option. */
bool ctl_option_fits(const struct ctl_option *option, const struct ctl_command *command);
/* The command that the words begin with; NULL: none. */
const struct ctl_command *ctl_command_named(char *const *words, size_t count);
/* "app put"; in a buffer of the caller's. */
enum { CTL_COMMAND_NAME_MAX = 64 };
const char *ctl_command_name(const struct ctl_command *command, char buffer[CTL_COMMAND_NAME_MAX]);

/* Its commands as a list in a sentence; in a buffer of the caller's. */
enum { CTL_COMMAND_LIST_MAX = 128 };
const char *ctl_option_commands(const struct ctl_option *option, char buffer[CTL_COMMAND_LIST_MAX]);

/* The usage of one command, or of all for NULL. */
void ctl_help_print(const struct ctl_command *command, FILE *out);

#endif
