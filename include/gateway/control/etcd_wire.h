/*
 * etcd_wire: the messages of etcd's v3 JSON gateway (protobuf JSON: bytes in base64, 64-bit numbers as strings). Sans
 * I/O: makes request bodies, and reads answers and the lines of a watch.
 *
 * What comes from etcd is checked: a message that is not what it should be is refused as a whole. Unknown members are
 * ignored, as protobuf has it.
 */
#ifndef GATEWAY_CONTROL_ETCD_WIRE_H
#define GATEWAY_CONTROL_ETCD_WIRE_H

#include "gateway/base/slice.h"

enum {
    ETCD_WIRE_MAX_OPS = 128,       /* of a txn, etcd's own limit by default (--max-txn-ops) */
    ETCD_WIRE_MAX_BYTES = 1 << 20, /* of the values of a txn; etcd takes 1.5 MiB of a request (--max-request-bytes) */
};

/* Greater ones make no sense: etcd counts in signed 64 bits, and what follows has to fit too. */
#define ETCD_WIRE_MAX_REVISION (UINT64_C(1) << 62)

/* ---- requests: each is malloc'ed text ---- */

struct etcd_wire_range {
    struct slice key;
    struct slice range_end; /* exclusive; empty: only the key */
    uint64_t revision;      /* 0: the newest */
    uint64_t limit;         /* 0: none */
    bool count_only;
};
char *etcd_wire_range_request(const struct etcd_wire_range *range);

/* One key that a txn puts or deletes. */
struct etcd_wire_op {
    struct slice key;
    struct slice value;
    struct slice range_end;         /* of a deletion; empty: only the key */
    bool is_delete;                 /* else a put */
    bool has_expected;              /* the txn succeeds only if the key has this revision */
    uint64_t expected_mod_revision; /* 0: there is no such key */
};
/*
 * All or nothing: the puts and deletions happen if every expectation holds. Else the answer has those keys as they are.
 * At most ETCD_WIRE_MAX_OPS.
 */
char *etcd_wire_txn_request(const struct etcd_wire_op *ops, size_t count);

/* Everything with the prefix that changes from the revision on. Large events come in parts. */
char *etcd_wire_watch_request(struct slice prefix, uint64_t start_revision);
char *etcd_wire_authenticate_request(struct slice user, struct slice password);

/* The end of the range of keys that begin with the prefix, malloc'ed. The prefix ends in a byte below 0xff. */
char *etcd_wire_prefix_end(struct slice prefix);

/* ---- answers ---- */

struct etcd_wire_header {
    uint64_t cluster_id;
    uint64_t member_id;
    uint64_t revision;
};

/* Slices live until the callback returns. */
struct etcd_wire_kv {
    struct slice key;
    struct slice value;
    uint64_t mod_revision;
    bool is_delete; /* of a watch: the key was deleted at mod_revision */
};
typedef void (*etcd_wire_kv_cb)(void *arg, const struct etcd_wire_kv *kv);

struct etcd_wire_range_answer {
    struct etcd_wire_header header;
    uint64_t count; /* of the whole range, also of what the limit left out */
    bool more;
};
/* Calls `each` (may be NULL) only if the whole message is sound. */
bool etcd_wire_range_read(struct slice json, etcd_wire_kv_cb each, void *arg,
                          struct etcd_wire_range_answer *ret_answer);

struct etcd_wire_txn_answer {
    struct etcd_wire_header header;
    bool succeeded; /* false: an expectation did not hold, nothing happened */
    bool changed;   /* something was put, or was there to be deleted: at header.revision */
};
/* Calls `each` (may be NULL) with the keys that were expected otherwise, those that exist. */
bool etcd_wire_txn_read(struct slice json, etcd_wire_kv_cb each, void *arg, struct etcd_wire_txn_answer *ret_answer);

enum { ETCD_WIRE_TEXT_MAX = 256 };

struct etcd_wire_watch_answer {
    struct etcd_wire_header header;
    bool created;
    bool canceled;             /* the watch is over */
    uint64_t compact_revision; /* not 0: it asked for what is compacted away; there is nothing before this revision */
    bool is_fragment;          /* more events of the same revision follow in the next message */
    size_t event_count;
    char text[ETCD_WIRE_TEXT_MAX]; /* why it is over, or the error that came instead */
};
/* One line. `each` gets its events in order, only if the whole message is sound. */
bool etcd_wire_watch_read(struct slice json, etcd_wire_kv_cb each, void *arg,
                          struct etcd_wire_watch_answer *ret_answer);

/* The token is malloc'ed. */
bool etcd_wire_authenticate_read(struct slice json, char **ret_token);

/* gRPC's codes that are told apart. */
enum {
    ETCD_WIRE_INVALID = 3,
    ETCD_WIRE_DEADLINE_EXCEEDED = 4,
    ETCD_WIRE_DENIED = 7,
    ETCD_WIRE_OUT_OF_RANGE = 11,
    ETCD_WIRE_INTERNAL = 13,
    ETCD_WIRE_UNAVAILABLE = 14,
    ETCD_WIRE_UNAUTHENTICATED = 16,
};

/* Of an answer that is not 2xx. */
struct etcd_wire_error {
    int code;
    char text[ETCD_WIRE_TEXT_MAX];
};
bool etcd_wire_error_read(struct slice json, struct etcd_wire_error *ret_error);

/* The member is well, but can't say yes or no now: it has no majority, or is behind. `error`: zero if none was read. */
bool etcd_wire_error_is_uncertain(long http_status, const struct etcd_wire_error *error);

/* The error is of a member that has no auth token of ours (any more). */
bool etcd_wire_error_is_token(const struct etcd_wire_error *error);

#endif
