/* --help, made of the tables. */
#include "ctl_commands.h"

#include <stdlib.h>

enum { NAME_COLUMN = 2, TEXT_COLUMN = 30, LINE_COLUMNS = 100 };

/* Letters, not bytes. */
static int columns_of(struct slice text)
{
    int columns = 0;
    for (size_t i = 0; i < text.len; i++)
        columns += ((unsigned char)text.ptr[i] & 0xc0) != 0x80;
    return columns;
}

/* Word by word, in lines that begin at TEXT_COLUMN. */
static void print_wrapped(FILE *out, int column, const char *text)
{
    while (*text) {
        struct slice word = {text, strcspn(text, " ")};
        int columns = columns_of(word);
        if (column > TEXT_COLUMN && column + 1 + columns > LINE_COLUMNS) {
            fprintf(out, "\n%*s", TEXT_COLUMN, "");
            column = TEXT_COLUMN;
        } else if (column > TEXT_COLUMN) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", SLICE_ARG(word));
        column += columns;
        text += word.len + (text[word.len] == ' ');
    }
    fputc('\n', out);
}

static void print_entry(FILE *out, const char *name, const char *text)
{
    int column = NAME_COLUMN + columns_of(slice_str(name));
    fprintf(out, "%*s%s", NAME_COLUMN, "", name);
    if (column + 2 > TEXT_COLUMN) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", TEXT_COLUMN - column, "");
    print_wrapped(out, TEXT_COLUMN, text);
}

static void print_command(FILE *out, const struct ctl_command *command)
{
    char name[CTL_COMMAND_NAME_MAX];
    char line[2 * CTL_COMMAND_NAME_MAX];
    snprintf(line, sizeof line, "%s%s%s", ctl_command_name(command, name), *command->arguments ? " " : "",
             command->arguments);
    print_entry(out, line, command->help);
}

static void print_option(FILE *out, const struct ctl_option *option, bool with_commands)
{
    char name[128], text[512], commands[CTL_COMMAND_LIST_MAX];
    char letter[8] = "";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(name, sizeof name, "%s--%s%s%s", letter, option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    if (with_commands && option->commands)
        snprintf(text, sizeof text, "%s: %s", ctl_option_commands(option, commands), option->help);
    else
        snprintf(text, sizeof text, "%s", option->help);
    print_entry(out, name, text);
}

/* Those of one command, or of some command for NULL; or those of all. */
static void print_options(FILE *out, const char *title, const struct ctl_command *command, bool general)
{
    bool begun = false;
    for (size_t i = 0; i < ctl_option_count; i++) {
        const struct ctl_option *option = &ctl_option_table[i];
        if (general != (option->commands == NULL) || (command && !ctl_option_fits(option, command)))
            continue;
        if (!begun)
            fprintf(out, "\n%s:\n", title);
        begun = true;
        print_option(out, option, command == NULL);
    }
}

static void print_usage(FILE *out, const struct ctl_command *command)
{
    char name[CTL_COMMAND_NAME_MAX];
    if (command)
        fprintf(out, "Usage: gatewayctl [OPTION…] %s %s\n\n%c%s.\n", ctl_command_name(command, name),
                command->arguments, command->help[0] & ~0x20, command->help + 1);
    else
        fputs("Usage: gatewayctl [OPTION…] COMMAND [ARGUMENT…]\n\nCommands:\n", out);
    for (size_t i = 0; !command && i < ctl_command_count; i++)
        print_command(out, &ctl_commands[i]);
}

void ctl_help_print(const struct ctl_command *command, FILE *out)
{
    char text[16];
    print_usage(out, command);
    print_options(out, command ? "Options of this command" : "Options of single commands", command, false);
    print_options(out, "Options", command, true);
    fputs("\nEnvironment:\n", out);
    for (size_t i = 0; i < ctl_variable_count; i++)
        print_entry(out, ctl_variables[i].name, ctl_variables[i].help);
    fputs("\nExit status:\n", out);
    for (size_t i = 0; i < ctl_exit_count; i++) {
        snprintf(text, sizeof text, "%d", (int)ctl_exit_table[i].status);
        print_entry(out, text, ctl_exit_table[i].help);
    }
}
