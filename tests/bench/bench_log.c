/* bench_log: one line of the access log, formatted. */
#include "bench.h"

#include "gateway/proxy/access_format.h"

static const struct access_record record = {
    .wall_us = UINT64_C(1795665600123456),
    .request_id = {"0123456789abcdef0123456789abcdef", 32},
    .client = {AF_INET, {203, 0, 113, 77}},
    .client_port = 51234,
    .host = {"3327603e03f5bd1f830812ca4a789277fc31f577-8080.prod5.phala.network", 65},
    .app_id = {"3327603e03f5bd1f830812ca4a789277fc31f577", 40},
    .instance_id = {"f577fc31a7892777ca4a0812f8305bd13e033327", 40},
    .port = 8080,
    .method = {"GET", 3},
    .path = {"/dashboard/stats?range=7d&user=4711", 35},
    .protocol = "h2",
    .status = 200,
    .bytes_out = 5120,
    .total_us = 12345,
    .first_byte_us = 12001,
    .tls_version = "TLSv1.3",
    .tls_cipher = "TLS_AES_128_GCM_SHA256",
    .alpn = "h2",
    .back_address = {AF_INET, {10, 8, 0, 12}},
    .back_port = 8080,
    .back_protocol = "http/1.1",
    .back_reused = true,
    .user_agent = {"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", 71},
};

static void format_lines(void *arg, uint64_t count)
{
    const struct access_format *format = arg;
    struct access_time time = {.second = UINT64_MAX};
    char line[ACCESS_LOG_MAX_LINE];
    for (uint64_t i = 0; i < count; i++) {
        access_format_line(format, &time, &record, line);
        bench_use(line);
    }
}

static void run(const struct bench *bench, const char *name, const char *text)
{
    struct access_log_options options = {.format = text};
    struct access_format format;
    char error[ACCESS_LOG_ERROR_TEXT_MAX];
    if (!access_format_init(&format, &options, error)) {
        fprintf(stderr, "bench_log: %s\n", error);
        exit(1);
    }
    bench_run(bench, name, format_lines, &format);
    access_format_fini(&format);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_begin(argc, argv);
    run(&bench, "log line, json", "json");
    run(&bench, "log line, combined", "combined");
    run(&bench, "log line, a format string", "$time $client $host $method $path $status $total_ms");
    return 0;
}
