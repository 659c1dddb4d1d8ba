#include "gateway/control/certs.h"

#include "gateway/base/list.h"
#include "gateway/base/log.h"
#include "gateway/control/id_set.h"

#include <stdlib.h>
#include <time.h>

/* One put or delete on its way. */
struct change {
    struct list link;
    struct certs *certs;
    struct cert_custom *cert; /* NULL: delete */
    char *name;
    bool created;
    certs_done_cb done; /* NULL: nobody waits any more */
    void *arg;
};

struct certs {
    struct loop *loop;
    struct store *store;
    certs_publish_cb publish;
    void *publish_arg;
    struct cert_custom **items; /* sorted by name */
    size_t count;
    size_t capacity;
    struct id_set left_out; /* names of those that are stored, but not in force */
    struct cert_snapshot *base;
    const struct certs_gate *gate;
    struct list changes;
    bool ended; /* freed by its owner; goes when the last change comes back */
};

struct certs *certs_new(struct loop *loop, struct store *store, certs_publish_cb publish, void *publish_arg)
{
    struct certs *certs = calloc(1, sizeof *certs);
    if (!certs)
        abort();
    *certs = (struct certs){.loop = loop, .store = store, .publish = publish, .publish_arg = publish_arg};
    list_init(&certs->changes);
    return certs;
}

static void release(struct certs *certs)
{
    if (!list_is_empty(&certs->changes))
        return;
    for (size_t i = 0; i < certs->count; i++)
        cert_custom_unref(&certs->items[i]);
    cert_snapshot_unref(&certs->base);
    id_set_clear(&certs->left_out);
    free(certs->items);
    free(certs);
}

static char *text_of(struct slice name)
{
    char *text = strndup(name.ptr, name.len);
    if (!text)
        abort();
    return text;
}

/* ---- the sorted array ---- */

static int compare(struct slice a, struct slice b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* The name's place; true if it is there. */
static bool find_place(const struct certs *certs, struct slice name, size_t *ret_place)
{
    size_t low = 0, high = certs->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(certs->items[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_place = low;
    return low < certs->count && slice_eq(certs->items[low]->name, name);
}

static void insert(struct certs *certs, struct cert_custom *cert)
{
    size_t place;
    if (find_place(certs, cert->name, &place)) {
        cert_custom_unref(&certs->items[place]);
        certs->items[place] = cert;
        return;
    }
    if (certs->count == certs->capacity) {
        certs->capacity = certs->capacity > 0 ? certs->capacity * 2 : 16;
        certs->items = realloc(certs->items, certs->capacity * sizeof(struct cert_custom *));
        if (!certs->items)
            abort();
    }
    memmove(&certs->items[place + 1], &certs->items[place], (certs->count - place) * sizeof(struct cert_custom *));
    certs->items[place] = cert;
    certs->count++;
}

static void take_out(struct certs *certs, struct slice name)
{
    size_t place;
    if (!find_place(certs, name, &place))
        return;
    cert_custom_unref(&certs->items[place]);
    certs->count--;
    memmove(&certs->items[place], &certs->items[place + 1], (certs->count - place) * sizeof(struct cert_custom *));
}

size_t certs_count(const struct certs *certs)
{
    return certs->count;
}

struct cert_custom *certs_at(const struct certs *certs, size_t index)
{
    return certs->items[index];
}

struct cert_custom *certs_find(const struct certs *certs, struct slice name)
{
    size_t place;
    return find_place(certs, name, &place) ? certs->items[place] : NULL;
}

bool certs_has(const struct certs *certs, struct slice name)
{
    char *text = text_of(name);
    bool is_left_out = id_set_has(&certs->left_out, text);
    free(text);
    return is_left_out || certs_find(certs, name) || (certs->gate && certs->gate->is_left_out(certs->gate->arg, name));
}

bool certs_cover(const struct certs *certs, struct slice host)
{
    for (size_t i = 0; i < certs->count; i++)
        if (cert_custom_covers(certs->items[i], host))
            return true;
    return false;
}

/* ---- changes ---- */

static void finish(struct change *change, enum status status, const char *text)
{
    struct certs *certs = change->certs;
    if (change->done)
        change->done(change->arg, status, change->created, text);
    list_remove(&change->link);
    cert_custom_unref(&change->cert);
    free(change->name);
    free(change);
    if (certs->ended)
        release(certs);
}

static void on_published(void *arg)
{
    finish(arg, STATUS_OK, "");
}

static void on_stored(void *arg, enum status status, const char *text)
{
    struct change *change = arg;
    struct certs *certs = change->certs;
    struct slice name = slice_str(change->name);
    if (status != STATUS_OK || certs->ended) {
        finish(change, status, text);
        return;
    }
    change->created = change->cert && !certs_find(certs, name);
    if (change->cert)
        insert(certs, cert_custom_ref(change->cert));
    else
        take_out(certs, name);
    id_set_remove(&certs->left_out, change->name);
    log_info("certificates: %s %s", change->name, change->cert ? change->cert->facts.fingerprint : "removed");
    certs->publish(certs->publish_arg, name, change->cert, on_published, change);
}

static struct change *new_change(struct certs *certs, struct slice name, struct cert_custom *cert, certs_done_cb done,
                                 void *arg)
{
    struct change *change = calloc(1, sizeof *change);
    if (!change)
        abort();
    *change = (struct change){.certs = certs, .cert = cert, .name = text_of(name), .done = done, .arg = arg};
    list_push(&certs->changes, &change->link);
    return change;
}

void certs_apply(struct certs *certs, struct slice name, struct cert_custom *cert, certs_done_cb done, void *arg)
{
    struct change *change = new_change(certs, name, cert, done, arg);
    struct store_batch *batch = store_batch_new();
    if (cert)
        store_batch_put_certificate(batch, name, cert->chain_pem, cert->key_pem);
    else
        store_batch_delete_certificate(batch, name);
    store_commit(certs->store, batch, STORE_SAME_REVISION, on_stored, change);
}

static void on_written(void *arg, enum status status, const char *text)
{
    finish(arg, status, text);
}

static void submit(struct certs *certs, struct slice name, struct cert_custom *cert, certs_done_cb done, void *arg)
{
    if (!certs->gate) {
        certs_apply(certs, name, cert, done, arg);
        return;
    }
    struct change *change = new_change(certs, name, cert, done, arg);
    change->created = cert && !certs_find(certs, name);
    certs->gate->write(certs->gate->arg, slice_str(change->name), cert, on_written, change);
}

void certs_set_gate(struct certs *certs, const struct certs_gate *gate)
{
    certs->gate = gate;
}

void certs_put(struct certs *certs, struct cert_custom *cert, certs_done_cb done, void *arg)
{
    submit(certs, cert->name, cert, done, arg);
}

void certs_delete(struct certs *certs, struct slice name, certs_done_cb done, void *arg)
{
    submit(certs, name, NULL, done, arg);
}

void certs_forget(struct certs *certs, const void *arg)
{
    LIST_EACH (link, &certs->changes) {
        struct change *change = CONTAINER_OF(link, struct change, link);
        if (change->arg == arg)
            change->done = NULL;
    }
}

void certs_free(struct certs **certs_ptr)
{
    struct certs *certs = *certs_ptr;
    if (!certs)
        return;
    *certs_ptr = NULL;
    certs->ended = true;
    LIST_EACH (link, &certs->changes) {
        struct change *change = CONTAINER_OF(link, struct change, link);
        if (change->done)
            change->done(change->arg, STATUS_SHUTDOWN, false, status_what(STATUS_SHUTDOWN));
        change->done = NULL;
    }
    release(certs);
}

/* ---- at boot ---- */

static void load_one(void *arg, struct slice name, struct slice chain_pem, struct slice key_pem)
{
    struct certs *certs = arg;
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    if (cert_custom_new_accepted(name, chain_pem, key_pem, time(NULL), &cert, &problem) == STATUS_OK) {
        insert(certs, cert);
        return;
    }
    log_error("certificates: the stored one of %.*s is left out: %s", SLICE_ARG(name), problem.detail);
    char *text = text_of(name);
    id_set_add(&certs->left_out, text);
    free(text);
}

enum status certs_load(struct certs *certs, char ret_error[STORE_ERROR_TEXT_MAX])
{
    return store_load_certificates(certs->store, load_one, certs, ret_error);
}

/* ---- the base domains' ---- */

void certs_set_base(struct certs *certs, struct cert_snapshot *snapshot)
{
    cert_snapshot_unref(&certs->base);
    certs->base = cert_snapshot_ref(snapshot);
}

const struct cert_snapshot *certs_base(const struct certs *certs)
{
    return certs->base;
}

int64_t certs_first_not_after(const struct certs *certs)
{
    int64_t first = 0;
    for (size_t i = 0; i < certs->count; i++)
        if (first == 0 || certs->items[i]->facts.not_after < first)
            first = certs->items[i]->facts.not_after;
    for (size_t i = 0; certs->base && i < cert_snapshot_count(certs->base); i++) {
        int64_t not_after = cert_snapshot_identity(certs->base, i)->not_after;
        if (first == 0 || not_after < first)
            first = not_after;
    }
    return first;
}
