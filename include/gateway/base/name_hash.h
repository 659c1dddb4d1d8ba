/*
 * name_hash: a fast keyed hash for ids, names and addresses.
 *
 * Names to look up come from clients, so the seed is random per process: nobody outside can aim at one bucket. Built on
 * 64 x 64 -> 128 bit multiplications folded to 64 bits, 16 bytes a step.
 */
#ifndef GATEWAY_BASE_NAME_HASH_H
#define GATEWAY_BASE_NAME_HASH_H

#include "gateway/base/slice.h"

struct name_hash_seed {
    uint64_t a;
    uint64_t b;
};

/* Random; aborts if the kernel gives no random bytes. */
struct name_hash_seed name_hash_seed_new(void);

__extension__ typedef unsigned __int128 name_hash_wide;

static inline uint64_t name_hash_fold(uint64_t a, uint64_t b)
{
    name_hash_wide product = (name_hash_wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* `len` bytes, at most 8, as a number. */
static inline uint64_t name_hash_load(const char *bytes, size_t len)
{
    uint64_t word = 0;
    memcpy(&word, bytes, len);
    return word;
}

/* `kind` separates name spaces. */
static inline uint64_t name_hash(const struct name_hash_seed *seed, unsigned kind, struct slice name)
{
    uint64_t hash = seed->a ^ name_hash_fold(name.len ^ UINT64_C(0x9e3779b97f4a7c15), seed->b ^ kind);
    const char *bytes = name.ptr;
    size_t len = name.len;
    for (; len >= 16; bytes += 16, len -= 16)
        hash = name_hash_fold(name_hash_load(bytes, 8) ^ seed->b, name_hash_load(bytes + 8, 8) ^ hash);
    if (len >= 8) {
        hash = name_hash_fold(name_hash_load(bytes, 8) ^ seed->b, hash ^ UINT64_C(0xd6e8feb86659fd93));
        bytes += 8;
        len -= 8;
    }
    if (len > 0)
        hash = name_hash_fold(name_hash_load(bytes, len) ^ seed->b, hash ^ UINT64_C(0xa0761d6478bd642f));
    return name_hash_fold(hash ^ seed->a, UINT64_C(0xe7037ed1a0b428db) ^ seed->b);
}

#endif
