/*
 * name_index: from a name to the place in an app's record that has it, for readers without locks and one writer.
 * Private to the route layer.
 *
 * A name is an app id, an instance id, a custom domain, or (for claims) an instance's address; a place is a record and
 * the number of one of its names. One word of memory stands for both, so that a place is read and replaced at once, and
 * a table of a million apps costs about 12 bytes a name: buckets of one cache line with seven words and a byte of hash
 * for each, by which a look-up knows the word to follow without trying others.
 *
 * The buckets are spread over many small arrays (shards). When one is full, the writer makes a new one and replaces it,
 * which takes well under a millisecond at any size of the whole; readers may go on in the old one, so it is kept until
 * name_index_collect. A removed name leaves nothing behind.
 *
 * Readers are inside an RCU read section; the writer frees a record, and collects, after a grace period.
 */
#ifndef GATEWAY_ROUTE_NAME_INDEX_H
#define GATEWAY_ROUTE_NAME_INDEX_H

#include "gateway/base/name_hash.h"
#include "gateway/route/route_record.h"

#include <stdatomic.h>

/* App ids and instance ids are one name space. */
enum name_space { NAME_ID, NAME_DOMAIN, NAME_ADDRESS };

/* The numbers of an app's names: the first of each kind. */
enum {
    NAME_OF_APP,
    NAME_OF_INSTANCES,
    NAME_OF_DOMAINS = NAME_OF_INSTANCES + ROUTE_MAX_INSTANCES,
    NAME_OF_ADDRESSES = NAME_OF_DOMAINS + ROUTE_MAX_DOMAINS,
    NAME_NUMBERS = NAME_OF_ADDRESSES + ROUTE_MAX_INSTANCES,
};

enum { NAME_INDEX_SHARDS = 1024 };

struct name_place {
    struct route_app *app;
    unsigned number;
};

struct name_shard;

struct name_index {
    struct name_hash_seed seed;
    _Atomic uint64_t shards[NAME_INDEX_SHARDS]; /* address and size of an array */
    struct name_shard *replaced;
};

void name_index_init(struct name_index *index);
void name_index_fini(struct name_index *index); /* no reader is left; records are not touched */

enum name_space name_space(unsigned number);
/* Ids and domains without their NUL; of an address its bytes. */
struct slice name_text(const struct route_app *app, unsigned number);
struct slice name_of_address(const struct ip_addr *address);

/* False if nobody has the name. For the writer, and for readers in a read section. */
bool name_index_find(const struct name_index *index, enum name_space space, struct slice name,
                     struct name_place *ret_place);

/* Makes the place the one of its name, instead of any other: readers see no gap. */
void name_index_put(struct name_index *index, struct route_app *app, unsigned number);

/* Removes the name if it leads to this record. */
void name_index_remove(struct name_index *index, const struct route_app *app, unsigned number);

/* Frees what was replaced: a grace period has passed since. */
void name_index_collect(struct name_index *index);

#endif
