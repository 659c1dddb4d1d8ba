/*
 * base64: RFC 4648 section 4, with padding, as JSON protocols carry bytes. Pure.
 */
#ifndef GATEWAY_BASE_BASE64_H
#define GATEWAY_BASE_BASE64_H

#include "gateway/base/slice.h"

/* Bytes that the encoding of `len` bytes takes, and that a decoding of `len` characters takes at most. */
static inline size_t base64_encoded_bytes(size_t len)
{
    return (len + 2) / 3 * 4;
}
static inline size_t base64_decoded_bytes(size_t len)
{
    return len / 4 * 3;
}

/* Writes base64_encoded_bytes(bytes.len) characters, without a NUL. */
void base64_encode(struct slice bytes, char *ret_text);

/*
 * Strict: whole groups of four, padding only at the end, unused bits zero. `ret_bytes` has room for
 * base64_decoded_bytes(text.len), and may be the text itself; false if it is not base64.
 */
bool base64_decode(struct slice text, char *ret_bytes, size_t *ret_len);

#endif
