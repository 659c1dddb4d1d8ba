#include "gateway/base/name_hash.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

struct name_hash_seed name_hash_seed_new(void)
{
    struct name_hash_seed seed;
    ssize_t got;
    do
        got = getrandom(&seed, sizeof seed, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof seed)
        abort();
    return seed;
}
