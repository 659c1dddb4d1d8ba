/* A hello that is done must be done with the same result when more follows, and asks for more at each shorter length.
 */
#include "gateway/wire/client_hello.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static void check_hello(const struct client_hello *hello)
{
    check(hello->server_name_len < sizeof hello->server_name);
    check(strlen(hello->server_name) == hello->server_name_len);
    for (size_t at = 0; at < hello->alpn.len;)
        at += 1 + (size_t)(unsigned char)hello->alpn.ptr[at];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t scratch[CLIENT_HELLO_MAX_BYTES];
    struct client_hello whole = {.server_name_len = 0};
    enum client_hello_result expected = client_hello_parse(data, size, scratch, &whole);
    if (expected == CLIENT_HELLO_DONE)
        check_hello(&whole);
    bool ended = false;
    for (size_t len = 0; len <= size; len++) {
        struct client_hello part = {.server_name_len = 0};
        enum client_hello_result result = client_hello_parse(data, len, scratch, &part);
        check(!ended || result == expected);
        ended = result != CLIENT_HELLO_NEED_MORE;
        if (result == CLIENT_HELLO_DONE)
            check(strcmp(part.server_name, whole.server_name) == 0);
    }
    return 0;
}
