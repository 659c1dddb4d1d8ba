/*
 * fuzz_access_log: whatever a record holds, its line has one newline, at its end, and as JSON it is valid.
 *
 * The first byte chooses format and privacy, four more the numbers; the rest is cut at newlines into the strings.
 */
#include "../unit/proxy/json_check.h"
#include "gateway/proxy/access_filter.h"
#include "gateway/proxy/access_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static struct slice take_string(struct slice *rest)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    struct slice s = slice_make(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
    *rest = slice_from(*rest, s.len + 1);
    return s;
}

static struct access_record make_record(uint32_t number, struct slice rest)
{
    struct access_record record = {
        .wall_us = (uint64_t)number * number,
        .client = {.family = number % 3 == 0   ? AF_INET
                             : number % 3 == 1 ? AF_INET6
                                               : 0},
        .client_port = (uint16_t)number,
        .port = (uint16_t)(number >> 16),
        .status = (int)(number % 1000),
        .bytes_in = number,
        .bytes_out = (uint64_t)number << 32,
        .total_us = number,
        .tls_resumed = number % 2,
        .error = (enum status)(number % STATUS_COUNT),
        .path = take_string(&rest),
        .user_agent = take_string(&rest),
        .referer = take_string(&rest),
        .host = take_string(&rest),
        .method = take_string(&rest),
        .request_id = rest, /* newlines too */
    };
    memcpy(record.client.bytes, &number, sizeof number);
    return record;
}

/* What filters read is what the line says; and a filter for the line's own path wants it. */
static void check_filter(struct slice text)
{
    struct access_line line;
    struct slice path = SLICE_NONE, error = SLICE_NONE;
    struct access_filter filter = {.status_count = 0};
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    require(access_line_parse(text, &line) && access_filter_wants(&filter, &line));
    require(json_check_object(text, "path", &path) && json_check_object(text, "error", &error));
    require(slice_eq(line.path, path) && slice_eq(line.error, error));
    if (path.len == 0 || path.len > ACCESS_FILTER_TEXT_MAX || memchr(path.ptr, '\\', path.len) ||
        memchr(path.ptr, '?', path.len) || memchr(path.ptr, '*', path.len))
        return;
    require(access_filter_set(&filter, SLICE("path"), path, problem) && access_filter_wants(&filter, &line));
}

static void check_line(const struct access_log_options *options, const struct access_record *record)
{
    char buffer[ACCESS_LOG_MAX_LINE], error[ACCESS_LOG_ERROR_TEXT_MAX];
    struct access_format format;
    struct access_time time = {.second = UINT64_MAX};
    require(access_format_init(&format, options, error));
    size_t len = access_format_line(&format, &time, record, buffer);
    require(len > 0 && len <= sizeof buffer);
    require(memchr(buffer, '\n', len) == buffer + len - 1);
    require(!format.json || json_check_object(slice_make(buffer, len - 1), NULL, NULL));
    if (format.json)
        check_filter(slice_make(buffer, len - 1));
    access_format_fini(&format);
}

/* A format string of any bytes is refused with a text or works. */
static void check_any_format(struct access_log_options *options, struct slice rest)
{
    struct slice text = take_string(&rest);
    char *format = strndup(text.ptr ? text.ptr : "", text.len), error[ACCESS_LOG_ERROR_TEXT_MAX] = "";
    options->format = format;
    if (strcmp(format, "off") != 0 && access_log_check_format(format, error))
        check_line(options, &(struct access_record){.user_agent = rest});
    else
        require(strcmp(format, "off") == 0 || error[0] != 0);
    free(format);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5)
        return 0;
    uint32_t number;
    memcpy(&number, data + 1, sizeof number);
    struct slice rest = slice_make(data + 5, size - 5);
    struct access_record record = make_record(number, rest);
    struct access_log_options options = {
        .format = "json",
        .client = (enum access_client)(data[0] / 4 % 3),
        .query = (enum access_query)(data[0] / 16 % 3),
    };
    if (data[0] % 4 == 1)
        options.format = "combined";
    if (data[0] % 4 == 2)
        check_any_format(&options, rest);
    else
        check_line(&options, &record);
    return 0;
}
