#include "store_internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum change_kind { CHANGE_APP, CHANGE_TOMBSTONE, CHANGE_FORGET, CHANGE_CERTIFICATE };

struct change {
    struct change *next;
    enum change_kind kind;
    char *document;    /* NULL deletes; of a certificate the chain */
    char *private_key; /* of a certificate */
    uint64_t revision; /* of a tombstone, 0: it goes; CHANGE_FORGET: the last one that goes */
    uint64_t floor;    /* CHANGE_FORGET */
    size_t id_len;
    char id[];
};

struct store_batch {
    struct store_batch *next;
    struct change *first;
    struct change **last;
    uint64_t last_revision;
    store_done_cb done;
    void *arg;
    enum status status;
    char text[STORE_ERROR_TEXT_MAX];
};

/* ---- batches ---- */

struct store_batch *store_batch_new(void)
{
    struct store_batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        abort();
    batch->last = &batch->first;
    return batch;
}

static struct change *add_change(struct store_batch *batch, enum change_kind kind, struct slice id)
{
    struct change *change = malloc(sizeof *change + id.len);
    if (!change)
        abort();
    *change = (struct change){.kind = kind, .id_len = id.len};
    if (id.len > 0)
        memcpy(change->id, id.ptr, id.len);
    *batch->last = change;
    batch->last = &change->next;
    return change;
}

void store_batch_add(struct store_batch *batch, struct slice app_id, uint64_t revision, char *document)
{
    struct change *change = add_change(batch, CHANGE_APP, app_id);
    change->document = document;
    change->revision = revision;
}

void store_batch_bury(struct store_batch *batch, struct slice app_id, uint64_t revision)
{
    add_change(batch, CHANGE_TOMBSTONE, app_id)->revision = revision;
}

void store_batch_unbury(struct store_batch *batch, struct slice app_id)
{
    add_change(batch, CHANGE_TOMBSTONE, app_id);
}

void store_batch_forget(struct store_batch *batch, uint64_t up_to, uint64_t floor)
{
    struct change *change = add_change(batch, CHANGE_FORGET, SLICE_NONE);
    change->revision = up_to;
    change->floor = floor;
}

static char *copy_text(struct slice text)
{
    char *copy = malloc(text.len + 1);
    if (!copy)
        abort();
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}

void store_batch_put_certificate(struct store_batch *batch, struct slice name, struct slice chain_pem,
                                 struct slice key_pem)
{
    struct change *change = add_change(batch, CHANGE_CERTIFICATE, name);
    change->document = copy_text(chain_pem);
    change->private_key = copy_text(key_pem);
}

void store_batch_delete_certificate(struct store_batch *batch, struct slice name)
{
    add_change(batch, CHANGE_CERTIFICATE, name);
}

bool store_batch_is_empty(const struct store_batch *batch)
{
    return batch->first == NULL;
}

static void free_changes(struct store_batch *batch)
{
    while (batch->first) {
        struct change *change = batch->first;
        batch->first = change->next;
        if (change->private_key)
            explicit_bzero(change->private_key, strlen(change->private_key));
        free(change->private_key);
        free(change->document);
        free(change);
    }
    batch->last = &batch->first;
}

/* ---- opening and reading ---- */

enum status store_open(const char *state_dir, struct loop *loop, struct store **ret_store,
                       char ret_error[STORE_ERROR_TEXT_MAX])
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->loop = loop;
    s->last = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    enum status status = store_open_file(s, state_dir, ret_error);
    if (status != STATUS_OK) {
        store_close(&s);
        return status;
    }
    *ret_store = s;
    return STATUS_OK;
}

enum status store_load(struct store *s, store_load_cb each, void *arg, uint64_t *ret_last_revision,
                       char ret_error[STORE_ERROR_TEXT_MAX])
{
    sqlite3_stmt *select = NULL;
    long long last = 0;
    int result = store_read_int(s->db, "SELECT value FROM meta WHERE name='revision'", &last);
    if (result == SQLITE_OK)
        result =
            sqlite3_prepare_v2(s->db, "SELECT app_id, revision, document FROM apps ORDER BY app_id", -1, &select, NULL);
    while (result == SQLITE_OK && (result = sqlite3_step(select)) == SQLITE_ROW) {
        struct slice id = {(const char *)sqlite3_column_text(select, 0), (size_t)sqlite3_column_bytes(select, 0)};
        struct slice document = {(const char *)sqlite3_column_text(select, 2), (size_t)sqlite3_column_bytes(select, 2)};
        each(arg, id, (uint64_t)sqlite3_column_int64(select, 1), document);
        result = SQLITE_OK;
    }
    sqlite3_finalize(select);
    if (result != SQLITE_DONE)
        return store_fail(s->db, ret_error, "store: reading the routes");
    *ret_last_revision = (uint64_t)last;
    return STATUS_OK;
}

enum status store_load_tombstones(struct store *s, store_tombstone_cb each, void *arg, uint64_t *ret_floor,
                                  char ret_error[STORE_ERROR_TEXT_MAX])
{
    sqlite3_stmt *select = NULL;
    long long floor = 0;
    int result = store_read_int(s->db, "SELECT value FROM meta WHERE name='floor'", &floor);
    if (result == SQLITE_OK)
        result = sqlite3_prepare_v2(s->db, "SELECT app_id, revision FROM tombstones", -1, &select, NULL);
    while (result == SQLITE_OK && (result = sqlite3_step(select)) == SQLITE_ROW) {
        struct slice id = {(const char *)sqlite3_column_text(select, 0), (size_t)sqlite3_column_bytes(select, 0)};
        each(arg, id, (uint64_t)sqlite3_column_int64(select, 1));
        result = SQLITE_OK;
    }
    sqlite3_finalize(select);
    if (result != SQLITE_DONE)
        return store_fail(s->db, ret_error, "store: reading the tombstones");
    *ret_floor = (uint64_t)floor;
    return STATUS_OK;
}

enum status store_load_certificates(struct store *s, store_certificate_cb each, void *arg,
                                    char ret_error[STORE_ERROR_TEXT_MAX])
{
    sqlite3_stmt *select = NULL;
    int result =
        sqlite3_prepare_v2(s->db, "SELECT name, chain, private_key FROM certificates ORDER BY name", -1, &select, NULL);
    while (result == SQLITE_OK && (result = sqlite3_step(select)) == SQLITE_ROW) {
        struct slice columns[3];
        for (int i = 0; i < 3; i++)
            columns[i] = slice_make(sqlite3_column_text(select, i), (size_t)sqlite3_column_bytes(select, i));
        each(arg, columns[0], columns[1], columns[2]);
        result = SQLITE_OK;
    }
    sqlite3_finalize(select);
    return result == SQLITE_DONE ? STATUS_OK : store_fail(s->db, ret_error, "store: reading the certificates");
}

/* ---- the store thread ---- */

static int step(sqlite3_stmt *statement)
{
    int result = sqlite3_step(statement);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int store_certificate(struct store *s, const struct change *change)
{
    sqlite3_stmt *statement =
        change->document ? s->statements[STORE_PUT_CERTIFICATE] : s->statements[STORE_DELETE_CERTIFICATE];
    int result = sqlite3_bind_text(statement, 1, change->id, (int)change->id_len, SQLITE_STATIC);
    if (change->document && result == SQLITE_OK)
        result = sqlite3_bind_text(statement, 2, change->document, -1, SQLITE_STATIC);
    if (change->document && result == SQLITE_OK)
        result = sqlite3_bind_text(statement, 3, change->private_key, -1, SQLITE_STATIC);
    return result == SQLITE_OK ? step(statement) : result;
}

static int store_app(struct store *s, const struct change *change)
{
    sqlite3_stmt *statement = change->document ? s->statements[STORE_PUT_APP] : s->statements[STORE_DELETE_APP];
    int result = sqlite3_bind_text(statement, 1, change->id, (int)change->id_len, SQLITE_STATIC);
    if (change->document && result == SQLITE_OK) {
        result = sqlite3_bind_int64(statement, 2, (sqlite3_int64)change->revision);
        if (result == SQLITE_OK)
            result = sqlite3_bind_text(statement, 3, change->document, -1, SQLITE_STATIC);
    }
    return result == SQLITE_OK ? step(statement) : result;
}

static int store_tombstone(struct store *s, const struct change *change)
{
    sqlite3_stmt *statement = change->revision > 0 ? s->statements[STORE_BURY] : s->statements[STORE_UNBURY];
    int result = sqlite3_bind_text(statement, 1, change->id, (int)change->id_len, SQLITE_STATIC);
    if (change->revision > 0 && result == SQLITE_OK)
        result = sqlite3_bind_int64(statement, 2, (sqlite3_int64)change->revision);
    return result == SQLITE_OK ? step(statement) : result;
}

/* Rare, so not prepared ahead. */
static int forget_tombstones(struct store *s, const struct change *change)
{
    char sql[160];
    uint64_t up_to = change->revision < INT64_MAX ? change->revision : INT64_MAX;
    snprintf(sql, sizeof sql,
             "DELETE FROM tombstones WHERE revision<=%ju; UPDATE meta SET value=%ju WHERE name='floor'",
             (uintmax_t)up_to, (uintmax_t)change->floor);
    return store_exec(s->db, sql);
}

static int store_change(struct store *s, const struct change *change)
{
    switch (change->kind) {
    case CHANGE_APP:
        return store_app(s, change);
    case CHANGE_TOMBSTONE:
        return store_tombstone(s, change);
    case CHANGE_FORGET:
        return forget_tombstones(s, change);
    case CHANGE_CERTIFICATE:
        return store_certificate(s, change);
    }
    return SQLITE_INTERNAL;
}

static int run_transaction(struct store *s, const struct store_batch *batch)
{
    sqlite3_stmt *set_revision = s->statements[STORE_SET_REVISION];
    int result = store_exec(s->db, "BEGIN IMMEDIATE");
    for (const struct change *change = batch->first; change && result == SQLITE_OK; change = change->next)
        result = store_change(s, change);
    if (result == SQLITE_OK && batch->last_revision != STORE_SAME_REVISION) {
        result = sqlite3_bind_int64(set_revision, 1, (sqlite3_int64)batch->last_revision);
        if (result == SQLITE_OK)
            result = step(set_revision);
    }
    return result == SQLITE_OK ? store_exec(s->db, "COMMIT") : result;
}

static void note_health(struct store *s, const struct store_batch *batch)
{
    bool failing = batch->status != STATUS_OK;
    pthread_mutex_lock(&s->lock);
    bool was_failing = s->health.failing;
    s->health.failing = failing;
    s->health.commits += !failing;
    s->health.failed_commits += failing;
    snprintf(s->health.failure, sizeof s->health.failure, "%s", failing ? batch->text : "");
    pthread_mutex_unlock(&s->lock);
    if (failing && log_limit_pass(&s->failures, 1))
        log_error("store: %s; changes are refused until it works again", batch->text);
    if (was_failing && !failing)
        log_info("store: it works again");
}

static void commit(struct store *s, struct store_batch *batch)
{
    batch->status = STATUS_OK;
    if (run_transaction(s, batch) != SQLITE_OK) {
        batch->status = store_fail(s->db, batch->text, "the transaction failed");
        if (!sqlite3_get_autocommit(s->db))
            store_exec(s->db, "ROLLBACK");
    }
    note_health(s, batch);
}

void store_health_read(struct store *s, struct store_health *ret_health)
{
    pthread_mutex_lock(&s->lock);
    *ret_health = s->health;
    pthread_mutex_unlock(&s->lock);
}

static void tell(void *arg)
{
    struct store_batch *batch = arg;
    batch->done(batch->arg, batch->status, batch->text);
    free(batch);
}

static struct store_batch *take(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->first && !s->closing)
        pthread_cond_wait(&s->wake, &s->lock);
    struct store_batch *batch = s->first;
    if (batch) {
        s->first = batch->next;
        if (!s->first)
            s->last = &s->first;
    }
    pthread_mutex_unlock(&s->lock);
    return batch;
}

static void *run(void *arg)
{
    struct store *s = arg;
    struct store_batch *batch;
    pthread_setname_np(pthread_self(), "store");
    while ((batch = take(s)) != NULL) {
        commit(s, batch);
        free_changes(batch);
        loop_post(s->loop, tell, batch);
    }
    return NULL;
}

/* Signals are the control thread's. */
static void start_thread(struct store *s)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&s->thread, NULL, run, s))
        abort();
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    s->thread_runs = true;
}

void store_commit(struct store *s, struct store_batch *batch, uint64_t last_revision, store_done_cb done, void *arg)
{
    batch->last_revision = last_revision;
    batch->done = done;
    batch->arg = arg;
    batch->next = NULL;
    pthread_mutex_lock(&s->lock);
    *s->last = batch;
    s->last = &batch->next;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    if (!s->thread_runs)
        start_thread(s);
}

void store_close(struct store **store)
{
    struct store *s = *store;
    if (!s)
        return;
    *store = NULL;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    if (s->thread_runs)
        pthread_join(s->thread, NULL);
    store_close_file(s);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
