#include "gateway/http/message.h"

#include <assert.h>

static const struct slice names[] = {[METHOD_OTHER] = SLICE_INIT(""),
#define X(name) [METHOD_##name] = SLICE_INIT(#name),
                                     METHODS_TABLE(X)
#undef X
};

enum { METHOD_COUNT = sizeof names / sizeof names[0] };

/* Method names are case-sensitive (RFC 9110 section 9.1). */
static enum method either(struct slice text, enum method a, enum method b)
{
    if (slice_eq(text, names[a]))
        return a;
    return slice_eq(text, names[b]) ? b : METHOD_OTHER;
}

enum method method_of(struct slice text)
{
    switch (text.len) {
    case 3:
        return either(text, METHOD_GET, METHOD_PUT);
    case 4:
        return either(text, METHOD_POST, METHOD_HEAD);
    case 5:
        return either(text, METHOD_PATCH, METHOD_TRACE);
    case 6:
        return either(text, METHOD_DELETE, METHOD_OTHER);
    case 7:
        return either(text, METHOD_OPTIONS, METHOD_CONNECT);
    default:
        return METHOD_OTHER;
    }
}

struct slice method_name(enum method method)
{
    assert((unsigned)method < METHOD_COUNT);
    return names[method];
}

bool method_is_idempotent(enum method method)
{
    switch (method) {
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_PUT:
    case METHOD_DELETE:
    case METHOD_OPTIONS:
    case METHOD_TRACE:
        return true;
    case METHOD_OTHER:
    case METHOD_POST:
    case METHOD_CONNECT:
    case METHOD_PATCH:
        return false;
    }
    return false;
}

bool head_is_grpc(const struct message_head *head)
{
    const struct slice grpc = SLICE("application/grpc");
    struct slice type = fields_value(&head->fields, FIELD_CONTENT_TYPE);
    if (type.len < grpc.len || !slice_eq_nocase(slice_make(type.ptr, grpc.len), grpc))
        return false;
    char next = type.len > grpc.len ? type.ptr[grpc.len] : ';';
    return next == '+' || next == ';' || next == ' ' || next == '\t';
}
