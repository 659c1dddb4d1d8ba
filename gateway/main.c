/* phala-gateway: command line and start. */
#include "gateway/base/log.h"
#include "gateway/server.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char usage[] = "usage: phala-gateway --config FILE [--check]\n"
                            "\n"
                            "The ingress gateway of a confidential-VM cloud. Stays in the foreground, logs to stderr.\n"
                            "\n"
                            "  --config FILE  the configuration (YAML); see conf/gateway.example.yaml\n"
                            "  --check        check the configuration, its certificates and keys, and exit\n"
                            "  --version      print the version\n"
                            "  --help         print this\n"
                            "\n"
                            "signals: TERM drain and exit, INT and QUIT exit at once, HUP reload, USR1 reopen logs\n"
                            "exit status: 0 ended as told, 1 could not start, 2 wrong usage\n";

struct options {
    const char *config;
    bool check;
};

static int parse(int argc, char **argv, struct options *ret_options)
{
    static const struct option known[] = {{"config", required_argument, NULL, 'c'},
                                          {"check", no_argument, NULL, 'k'},
                                          {"version", no_argument, NULL, 'v'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'c') {
            ret_options->config = optarg;
        } else if (option == 'k') {
            ret_options->check = true;
        } else if (option == 'v') {
            puts("phala-gateway " GW_VERSION);
            return 0;
        } else if (option == 'h') {
            fputs(usage, stdout);
            return 0;
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind == argc && ret_options->config)
        return -1;
    fputs(usage, stderr);
    return 2;
}

/* A connection to a client and one to an instance each need a descriptor. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int check(struct config *config)
{
    char error[SERVER_ERROR_TEXT_MAX];
    enum status status = server_check(config, error);
    if (status != STATUS_OK)
        log_error("%s", error);
    else
        printf("%s: the configuration is valid\n", config->path);
    config_free(&config);
    return status == STATUS_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct options options = {.config = NULL};
    int end = parse(argc, argv, &options);
    if (end >= 0)
        return end;
    struct config *config = NULL;
    char config_error[CONFIG_ERROR_TEXT_MAX], error[SERVER_ERROR_TEXT_MAX];
    if (config_load(options.config, &config, config_error) != STATUS_OK) {
        log_error("%s", config_error);
        return 1;
    }
    if (options.check)
        return check(config);
    log_set_level(config->log_level);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    struct server *server = NULL;
    if (server_start(config, &server, error) != STATUS_OK) {
        log_error("%s", error);
        return 1;
    }
    server_run(server);
    server_free(&server);
    return 0;
}
