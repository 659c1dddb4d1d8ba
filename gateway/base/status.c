#include "gateway/base/status.h"

#include <assert.h>
#include <stddef.h>

struct row {
    const char *code;
    const char *what;
    const char *advice;
    int http;
    unsigned h2;
};

static const struct row rows[STATUS_COUNT] = {
#define X(name, code_, http_, h2_, what_, advice_)                                                                     \
    [STATUS_##name] = {.code = code_, .what = what_, .advice = advice_, .http = http_, .h2 = h2_},
    STATUS_TABLE(X)
#undef X
};

static const struct row *row_of(enum status status)
{
    assert((unsigned)status < STATUS_COUNT);
    return &rows[status];
}

const char *status_code(enum status status)
{
    return row_of(status)->code;
}

int status_http(enum status status)
{
    return row_of(status)->http;
}

unsigned status_h2(enum status status)
{
    return row_of(status)->h2;
}

unsigned status_grpc(enum status status)
{
    enum { UNKNOWN = 2, DEADLINE_EXCEEDED = 4, PERMISSION_DENIED = 7, UNIMPLEMENTED = 12, INTERNAL = 13 };
    enum { UNAVAILABLE = 14, UNAUTHENTICATED = 16 };
    if (status == STATUS_UPSTREAM_TIMEOUT || status == STATUS_UPSTREAM_STALLED)
        return DEADLINE_EXCEEDED;
    switch (status_http(status)) {
    case 400:
        return INTERNAL;
    case 401:
        return UNAUTHENTICATED;
    case 403:
        return PERMISSION_DENIED;
    case 404:
        return UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return UNAVAILABLE;
    default:
        return UNKNOWN;
    }
}

const char *status_what(enum status status)
{
    return row_of(status)->what;
}

const char *status_advice(enum status status)
{
    return row_of(status)->advice;
}

static const struct {
    int http;
    const char *phrase;
} reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

const char *status_reason(int http_status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].http == http_status)
            return reasons[i].phrase;
    return "";
}
