/* gatewayctl man: the manual page in roff (man(7)), made of the tables. */
#include "ctl_commands.h"

enum { LINE_BYTES = 78 };

/* One letter as roff shows it: hyphens that can be copied, no escapes. Returns its bytes. */
static size_t put_letter(FILE *out, const char *text)
{
    const struct slice dots = SLICE("…");
    if (slice_has_prefix(slice_str(text), dots))
        fputs("\\&...", out);
    else if (*text == '-' || *text == '\\')
        fputs(*text == '-' ? "\\-" : "\\e", out);
    else
        fputc(*text, out);
    return slice_has_prefix(slice_str(text), dots) ? dots.len : 1;
}

static void put(FILE *out, const char *text)
{
    while (*text)
        text += put_letter(out, text);
}

/* In lines of a readable length, none of which is taken for a request. */
static void put_paragraph(FILE *out, const char *text)
{
    size_t used = 0;
    while (*text) {
        size_t len = strcspn(text, " ");
        bool begins = used == 0 || used + len + 1 > LINE_BYTES - 8; /* escapes take room too */
        if (used > 0)
            fputc(begins ? '\n' : ' ', out);
        if (begins && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        used = begins ? len : used + 1 + len;
        for (const char *end = text + len; text < end;)
            text += put_letter(out, text);
        text += *text == ' ';
    }
    fputc('\n', out);
}

static void put_title(FILE *out, const char *bold, const char *argument)
{
    fputs(".TP\n\\fB", out);
    put(out, bold);
    fputs("\\fR", out);
    if (argument && *argument) {
        fputs(" \\fI", out);
        put(out, argument);
        fputs("\\fR", out);
    }
    fputc('\n', out);
}

static void put_option(FILE *out, const struct ctl_option *option, bool with_commands)
{
    char names[64], commands[CTL_COMMAND_LIST_MAX];
    char letter[8] = "";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(names, sizeof names, "%s--%s", letter, option->name);
    put_title(out, names, option->argument);
    put_paragraph(out, option->help);
    if (with_commands && option->commands) {
        fputs("(", out);
        put(out, ctl_option_commands(option, commands));
        fputs(")\n", out);
    }
}

static void put_options(FILE *out, bool general)
{
    for (size_t i = 0; i < ctl_option_count; i++)
        if (general == (ctl_option_table[i].commands == NULL))
            put_option(out, &ctl_option_table[i], true);
}

static void put_tables(FILE *out)
{
    char name[CTL_COMMAND_NAME_MAX];
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; i < ctl_command_count; i++) {
        put_title(out, ctl_command_name(&ctl_commands[i], name), ctl_commands[i].arguments);
        put_paragraph(out, ctl_commands[i].help);
    }
    fputs(".SH OPTIONS\n.SS Of single commands\n", out);
    put_options(out, false);
    fputs(".SS Of all commands\n", out);
    put_options(out, true);
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < ctl_exit_count; i++) {
        snprintf(name, sizeof name, "%d", (int)ctl_exit_table[i].status);
        put_title(out, name, NULL);
        put_paragraph(out, ctl_exit_table[i].help);
    }
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < ctl_variable_count; i++) {
        put_title(out, ctl_variables[i].name, NULL);
        put_paragraph(out, ctl_variables[i].help);
    }
}

static const char before[] = ".TH GATEWAYCTL 1 2026-11-26 \"Phala Gateway " GW_VERSION "\" \"User Commands\"\n"
                             ".SH NAME\n"
                             "gatewayctl \\- command line client of the Phala Gateway control API\n"
                             ".SH SYNOPSIS\n"
                             ".B gatewayctl\n"
                             "[\\fIOPTION\\fR ...]\n"
                             "\\fICOMMAND\\fR\n"
                             "[\\fIARGUMENT\\fR ...]\n"
                             ".SH DESCRIPTION\n"
                             "Shows and changes what a running\n"
                             ".BR phala\\-gateway (8)\n"
                             "routes, through its control API.\n"
                             "It needs nothing but that API, so a script with\n"
                             ".BR curl (1)\n"
                             "can do the same.\n"
                             ".PP\n"
                             "On a terminal, answers are tables that fit its width;\n"
                             "columns that are too wide end in an ellipsis.\n"
                             "Elsewhere nothing is cut.\n"
                             "What clients or tenants wrote is shown with control characters escaped.\n"
                             "With\n"
                             ".B \\-\\-json\n"
                             "standard output is JSON for programs.\n"
                             ".PP\n"
                             "On a terminal,\n"
                             ".B top\n"
                             "goes on until\n"
                             ".B q\n"
                             "is typed;\n"
                             ".B p\n"
                             "holds the figures, and\n"
                             ".BR r ,\n"
                             ".BR a ,\n"
                             ".BR 5 ,\n"
                             ".BR 9 ,\n"
                             ".BR e ,\n"
                             ".BR i ,\n"
                             ".B o\n"
                             "and\n"
                             ".B n\n"
                             "sort by requests, what is in progress, median and 99th percentile of the\n"
                             "latency, errors, bytes in, bytes out and name.\n"
                             "Each worker counts about a thousand busy apps by themselves;\n"
                             "the rest is shown together as (others).\n"
                             ".PP\n"
                             "What\n"
                             ".B logs\n"
                             "shows of the past is in memory only.\n"
                             "With an access_log.format other than json, the gateway makes lines for it\n"
                             "only while somebody follows.\n"
                             "A reader that is too slow is told how many lines it has lost.\n"
                             ".PP\n"
                             "Where FILE is\n"
                             ".B \\-\n"
                             "standard input or output takes its place.\n"
                             ".PP\n"
                             "A line of a snapshot that is refused leaves the app that it names as it is.\n"
                             "A saved snapshot ends with an empty line.\n"
                             "If it comes through a pipe and the empty line does not, something before it\n"
                             "has failed: nothing is changed.\n"
                             "What other programs write needs that line too, or\n"
                             ".BR \\-\\-unmarked .\n"
                             ".PP\n"
                             "An option whose argument is a list may be given several times;\n"
                             "any other with an argument once.\n";

static const char after[] = ".SH FILES\n"
                            ".TP\n"
                            ".I /run/phala\\-gateway/control.sock\n"
                            "the control socket; its file mode says who may use it\n"
                            ".SH EXAMPLES\n"
                            "What a name leads to:\n"
                            ".PP\n"
                            ".RS 4\n"
                            ".EX\n"
                            "gatewayctl resolve shop.example.com\n"
                            ".EE\n"
                            ".RE\n"
                            ".PP\n"
                            "All apps of one gateway into another, which drops what it had:\n"
                            ".PP\n"
                            ".RS 4\n"
                            ".EX\n"
                            "gatewayctl \\-\\-control unix:a.sock snapshot save all.ndjson\n"
                            "gatewayctl \\-\\-control unix:b.sock snapshot load \\-\\-strict all.ndjson\n"
                            ".EE\n"
                            ".RE\n"
                            ".PP\n"
                            "Completion for this shell only:\n"
                            ".PP\n"
                            ".RS 4\n"
                            ".EX\n"
                            "source <(gatewayctl completion bash)\n"
                            ".EE\n"
                            ".RE\n"
                            ".SH SEE ALSO\n"
                            ".BR phala\\-gateway (8),\n"
                            ".BR phala\\-gateway.yaml (5)\n";

enum ctl_exit ctl_man(const struct ctl_options *options)
{
    (void)options;
    fputs(before, stdout);
    put_tables(stdout);
    fputs(after, stdout);
    return CTL_OK;
}
