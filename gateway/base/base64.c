#include "gateway/base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct slice bytes, char *ret_text)
{
    const unsigned char *in = (const unsigned char *)bytes.ptr;
    size_t left = bytes.len;
    for (; left >= 3; left -= 3, in += 3, ret_text += 4) {
        ret_text[0] = alphabet[in[0] >> 2];
        ret_text[1] = alphabet[(in[0] & 0x03) << 4 | in[1] >> 4];
        ret_text[2] = alphabet[(in[1] & 0x0f) << 2 | in[2] >> 6];
        ret_text[3] = alphabet[in[2] & 0x3f];
    }
    if (left == 0)
        return;
    unsigned first = in[0], second = left == 2 ? in[1] : 0;
    ret_text[0] = alphabet[in[0] >> 2];
    ret_text[1] = alphabet[(first & 0x03) << 4 | second >> 4];
    ret_text[2] = left == 2 ? alphabet[(second & 0x0f) << 2] : '=';
    ret_text[3] = '=';
}

/* The six bits of a character; -1 if it is none. */
static int bits_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct slice text, char *ret_bytes, size_t *ret_len)
{
    size_t padding = 0, len = 0;
    if (text.len % 4 != 0)
        return false;
    while (padding < 2 && padding < text.len && text.ptr[text.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text.len; i += 4) {
        unsigned group = 0;
        size_t missing = i + 4 == text.len ? padding : 0;
        for (size_t k = 0; k < 4; k++) {
            int bits = k < 4 - missing ? bits_of(text.ptr[i + k]) : 0;
            if (bits < 0)
                return false;
            group = group << 6 | (unsigned)bits;
        }
        if ((group & ((1U << (8 * missing)) - 1)) != 0)
            return false;
        for (size_t k = 0; k < 3 - missing; k++)
            ret_bytes[len++] = (char)(group >> (16 - 8 * k) & 0xff);
    }
    *ret_len = len;
    return true;
}
