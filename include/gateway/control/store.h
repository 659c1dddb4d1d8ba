/*
 * store: the durable copy of the routes and uploaded certificates, in SQLite (state_dir/routes.db). The only module
 * that knows SQL.
 *
 * Opened and loaded by the control thread before anything is committed; from the first commit on, a thread of its own
 * is the only one that touches the database (WAL, synchronous=FULL: a commit that was acknowledged survives kill -9 and
 * power loss). One process per database: the file stays locked. It holds private keys, so only its user may read it.
 */
#ifndef GATEWAY_CONTROL_STORE_H
#define GATEWAY_CONTROL_STORE_H

#include "gateway/base/slice.h"
#include "gateway/base/status.h"
#include "gateway/net/loop.h"

enum { STORE_ERROR_TEXT_MAX = 512 };
#define STORE_SAME_REVISION UINT64_MAX

struct store;

/*
 * Opens or creates the database; the folder is created if its parent exists. A file that is damaged or no database is
 * set aside as routes.db.corrupt-<time>, said loudly, and a new one begins. On failure STORE_FAILED and the text
 * (locked by another gateway, newer schema, no permission, …).
 */
MUST_CHECK enum status store_open(const char *state_dir, struct loop *loop, struct store **ret_store,
                                  char ret_error[STORE_ERROR_TEXT_MAX]);

/* Every record, in the order of the ids, and the last revision. Only before the first commit. */
typedef void (*store_load_cb)(void *arg, struct slice app_id, uint64_t revision, struct slice document);
MUST_CHECK enum status store_load(struct store *store, store_load_cb each, void *arg, uint64_t *ret_last_revision,
                                  char ret_error[STORE_ERROR_TEXT_MAX]);

/* Every tombstone: a deleted app and the revision at which it went. Only before the first commit. */
typedef void (*store_tombstone_cb)(void *arg, struct slice app_id, uint64_t revision);
MUST_CHECK enum status store_load_tombstones(struct store *store, store_tombstone_cb each, void *arg,
                                             uint64_t *ret_floor, char ret_error[STORE_ERROR_TEXT_MAX]);

/* Every certificate, in the order of the names. Only before the first commit. */
typedef void (*store_certificate_cb)(void *arg, struct slice name, struct slice chain_pem, struct slice key_pem);
MUST_CHECK enum status store_load_certificates(struct store *store, store_certificate_cb each, void *arg,
                                               char ret_error[STORE_ERROR_TEXT_MAX]);

/* What one transaction changes; filled by the caller, taken by store_commit. */
struct store_batch;
struct store_batch *store_batch_new(void);
/* document: malloc'ed, taken; NULL deletes. app_id is copied. */
void store_batch_add(struct store_batch *batch, struct slice app_id, uint64_t revision, char *document);
/* app_id is copied. */
void store_batch_bury(struct store_batch *batch, struct slice app_id, uint64_t revision);
void store_batch_unbury(struct store_batch *batch, struct slice app_id);
/* Tombstones up to this revision go. floor: what changed since an older revision is not known any more. */
void store_batch_forget(struct store_batch *batch, uint64_t up_to, uint64_t floor);
/* All copied. */
void store_batch_put_certificate(struct store_batch *batch, struct slice name, struct slice chain_pem,
                                 struct slice key_pem);
void store_batch_delete_certificate(struct store_batch *batch, struct slice name);
bool store_batch_is_empty(const struct store_batch *batch);

/* Called on the loop. `text` says what failed when the status is STORE_FAILED; nothing of the batch is stored then. */
typedef void (*store_done_cb)(void *arg, enum status status, const char *text);

/* Commits in one transaction, in the order of the calls. STORE_SAME_REVISION: the last revision does not change. */
void store_commit(struct store *store, struct store_batch *batch, uint64_t last_revision, store_done_cb done,
                  void *arg);

/* Finishes what was given to it (`done` is still posted), then closes. Accepts NULL. */
void store_close(struct store **store);

#endif
