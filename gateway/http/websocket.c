#include "gateway/http/websocket.h"

#include <stdint.h>

enum { BLOCK_BYTES = 64, DIGEST_BYTES = 20, ACCEPT_BYTES = 28 };

/* ---- SHA-1 (RFC 3174): the protocol's choice; nothing is kept secret or safe by it ---- */

static uint32_t rotate(uint32_t word, unsigned bits)
{
    return word << bits | word >> (32 - bits);
}

static uint32_t mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
    if (round < 20)
        return ((b & c) | (~b & d)) + 0x5A827999U;
    if (round < 40)
        return (b ^ c ^ d) + 0x6ED9EBA1U;
    if (round < 60)
        return ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCU;
    return (b ^ c ^ d) + 0xCA62C1D6U;
}

static void add_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t words[80];
    for (unsigned i = 0; i < 16; i++, block += 4)
        words[i] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 | block[3];
    for (unsigned i = 16; i < 80; i++)
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (unsigned i = 0; i < 80; i++) {
        uint32_t next = rotate(a, 5) + mix(i, b, c, d) + e + words[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

static void digest(struct slice text, struct arena *arena, unsigned char ret_digest[DIGEST_BYTES])
{
    uint32_t state[5] = {0x67452301U, 0xEFCDAB89U, 0x98BADCFEU, 0x10325476U, 0xC3D2E1F0U};
    size_t padded = (text.len + 9 + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    unsigned char *bytes = arena_alloc(arena, padded);
    memset(bytes, 0, padded);
    memcpy(bytes, text.ptr, text.len);
    bytes[text.len] = 0x80;
    for (unsigned i = 0; i < 8; i++)
        bytes[padded - 1 - i] = (unsigned char)((uint64_t)text.len * 8 >> (8 * i));
    for (size_t at = 0; at < padded; at += BLOCK_BYTES)
        add_block(state, bytes + at);
    for (unsigned i = 0; i < DIGEST_BYTES; i++)
        ret_digest[i] = (unsigned char)(state[i / 4] >> (24 - i % 4 * 8));
}

/* ---- base64 (RFC 4648 section 4) ---- */

/* Of as many bytes as leave one of the last group empty. */
static struct slice encode(const unsigned char bytes[DIGEST_BYTES], struct arena *arena)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = arena_alloc(arena, ACCEPT_BYTES);
    for (unsigned i = 0, at = 0; i < DIGEST_BYTES; i += 3) {
        unsigned last = i + 2 < DIGEST_BYTES ? bytes[i + 2] : 0;
        unsigned group = (unsigned)bytes[i] << 16 | (unsigned)bytes[i + 1] << 8 | last;
        for (unsigned shift = 24; shift > 0;)
            text[at++] = alphabet[group >> (shift -= 6) & 63];
    }
    text[ACCEPT_BYTES - 1] = '=';
    return slice_make(text, ACCEPT_BYTES);
}

struct slice websocket_accept(struct slice key, struct arena *arena)
{
    unsigned char bytes[DIGEST_BYTES];
    struct slice text = arena_printf(arena, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", SLICE_ARG(key));
    digest(text, arena, bytes);
    return encode(bytes, arena);
}
