/*
 * certs: the uploaded certificates: validated (net/cert_custom) -> stored -> published to all workers -> acknowledged.
 *
 * Lives on the control thread. Also knows the base domains' certificates, to tell about all of them in one place.
 */
#ifndef GATEWAY_CONTROL_CERTS_H
#define GATEWAY_CONTROL_CERTS_H

#include "gateway/control/store.h"
#include "gateway/net/cert_custom.h"

struct certs;

/* Tells all workers: serve `cert`, or nothing any more under this name when it is NULL; then calls done(done_arg) on
 * the loop. */
typedef void (*certs_publish_cb)(void *arg, struct slice name, struct cert_custom *cert, void (*done)(void *done_arg),
                                 void *done_arg);

struct certs *certs_new(struct loop *loop, struct store *store, certs_publish_cb publish, void *publish_arg);
/* Answers what is in progress with SHUTDOWN. Accepts NULL. */
void certs_free(struct certs **certs);

/* Reads all from the store. One that has expired is in force all the same; one that cannot be used is said in the log
 * and left out, but stays stored until it is deleted or replaced. */
MUST_CHECK enum status certs_load(struct certs *certs, char ret_error[STORE_ERROR_TEXT_MAX]);

/* Called on the loop, never from inside the call; `text` says what failed. */
typedef void (*certs_done_cb)(void *arg, enum status status, bool created, const char *text);
void certs_put(struct certs *certs, struct cert_custom *cert, certs_done_cb done, void *arg); /* takes the reference */
void certs_delete(struct certs *certs, struct slice name, certs_done_cb done, void *arg);
/* The same past the gate, see below; cert NULL deletes. */
void certs_apply(struct certs *certs, struct slice name, struct cert_custom *cert, certs_done_cb done, void *arg);
/* The caller goes away: its `done` is not called. */
void certs_forget(struct certs *certs, const void *arg);

/*
 * Set when the certificates are shared with other gateways: puts and deletions are handed over, and are done when they
 * have come back through certs_apply. `done` comes exactly once and never inside the call; the certificate is borrowed
 * until then.
 */
typedef void (*certs_written_cb)(void *done_arg, enum status status, const char *text);
struct certs_gate {
    void (*write)(void *arg, struct slice name, const struct cert_custom *cert, certs_written_cb done, void *done_arg);
    /* One is shared under this name, but no good here. */
    bool (*is_left_out)(void *arg, struct slice name);
    void *arg;
};
void certs_set_gate(struct certs *certs, const struct certs_gate *gate); /* borrowed; NULL: none */

/* Those in force, in the order of their names. */
size_t certs_count(const struct certs *certs);
struct cert_custom *certs_at(const struct certs *certs, size_t index); /* borrowed */
struct cert_custom *certs_find(const struct certs *certs, struct slice name);
/* True if one is stored, or shared by the gate, under this name, in force or left out. */
bool certs_has(const struct certs *certs, struct slice name);

/* True if any of them covers the host (lower case). Looks at all of them. */
bool certs_cover(const struct certs *certs, struct slice host);

/* The base domains' certificates; takes a reference of its own. */
void certs_set_base(struct certs *certs, struct cert_snapshot *snapshot);
const struct cert_snapshot *certs_base(const struct certs *certs); /* NULL before certs_set_base */

/* The soonest end of any certificate in force, seconds since 1970; 0 if there is none. */
int64_t certs_first_not_after(const struct certs *certs);

#endif
