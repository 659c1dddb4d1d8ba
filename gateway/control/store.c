#include "gateway/control/store.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCHEMA_VERSION = 3, MAX_PATH_BYTES = 4096, LARGE_BATCH = 10000 };

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

struct store {
    sqlite3 *db;
    sqlite3_stmt *put;
    sqlite3_stmt *delete;
    sqlite3_stmt *set_revision;
    sqlite3_stmt *bury;
    sqlite3_stmt *unbury;
    sqlite3_stmt *put_certificate;
    sqlite3_stmt *delete_certificate;
    struct loop *loop;
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct store_batch *first; /* waiting */
    struct store_batch **last;
    bool closing;
    struct log_limit failures; /* the store thread's */
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

/* ---- SQL ---- */

static const char *advice_for(int result)
{
    switch (result & 0xff) {
    case SQLITE_FULL:
        return "; free some space on its disk";
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return "; make state_dir and what is in it writable for this user";
    case SQLITE_IOERR:
        return "; check its disk and the kernel's log";
    default:
        return "";
    }
}

static bool is_damage(int result)
{
    return (result & 0xff) == SQLITE_CORRUPT || (result & 0xff) == SQLITE_NOTADB;
}

static enum status fail(sqlite3 *db, char *ret_error, const char *what)
{
    int result = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    /* A file that may not be written is opened for reading instead; what then fails, and errno, say nothing of why. */
    if (db && !is_damage(result) && sqlite3_db_readonly(db, "main") == 1) {
        snprintf(ret_error, STORE_ERROR_TEXT_MAX, "%.250s: it is not writable%s", what, advice_for(SQLITE_READONLY));
        return STATUS_STORE_FAILED;
    }
    int reason = db && (result == SQLITE_IOERR || result == SQLITE_CANTOPEN) ? sqlite3_system_errno(db) : 0;
    snprintf(ret_error, STORE_ERROR_TEXT_MAX, "%.200s: %.100s%s%.50s%s", what,
             db ? sqlite3_errmsg(db) : "not enough memory", reason ? ": " : "", reason ? strerror(reason) : "",
             advice_for(result));
    return STATUS_STORE_FAILED;
}

static int exec(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int read_int(void *ret, int count, char **values, char **names)
{
    (void)names;
    if (count > 0 && values[0])
        *(long long *)ret = atoll(values[0]);
    return 0;
}

static int read_check(void *ret, int count, char **values, char **names)
{
    (void)names;
    *(bool *)ret = count == 1 && values[0] && strcmp(values[0], "ok") == 0;
    return 0;
}

/* SQLITE_OK, damage, or another error. */
static int open_db(const char *path, sqlite3 **ret_db)
{
    bool sound = false;
    int result = sqlite3_open_v2(path, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (result == SQLITE_OK)
        result = exec(*ret_db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                               "PRAGMA trusted_schema=OFF; PRAGMA journal_size_limit=67108864;"
                               "BEGIN IMMEDIATE; COMMIT;");
    if (result == SQLITE_OK)
        result = sqlite3_exec(*ret_db, "PRAGMA quick_check(1)", read_check, &sound, NULL);
    return result == SQLITE_OK && !sound ? SQLITE_CORRUPT : result;
}

static void set_aside(const char *path, const char *why)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    unsigned long long now = clock_wall_us() / 1000000U;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char from[MAX_PATH_BYTES + 8], to[MAX_PATH_BYTES + 64];
        snprintf(from, sizeof from, "%s%s", path, suffixes[i]);
        snprintf(to, sizeof to, "%s.corrupt-%llu%s", path, now, suffixes[i]);
        rename(from, to);
    }
    log_error("store: %s is damaged (%s); it was set aside as %s.corrupt-%llu and a new one begins WITHOUT the routes; "
              "push them again",
              path, why, path, now);
}

static enum status migrate(struct store *s, char *ret_error)
{
    long long version = 0;
    if (sqlite3_exec(s->db, "PRAGMA user_version", read_int, &version, NULL))
        return fail(s->db, ret_error, "store: reading the schema version");
    if (version > SCHEMA_VERSION) {
        snprintf(ret_error, STORE_ERROR_TEXT_MAX,
                 "store: routes.db has schema version %lld, this program knows up to %d; run a newer phala-gateway",
                 version, SCHEMA_VERSION);
        return STATUS_STORE_FAILED;
    }
    if (version < 1 &&
        exec(s->db, "BEGIN IMMEDIATE;"
                    "CREATE TABLE apps(app_id TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL,"
                    " document TEXT NOT NULL) STRICT, WITHOUT ROWID;"
                    "CREATE TABLE meta(name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
                    "INSERT INTO meta VALUES('revision', 0);"
                    "PRAGMA user_version=1; COMMIT;"))
        return fail(s->db, ret_error, "store: making the tables");
    if (version < 2 && exec(s->db, "BEGIN IMMEDIATE;"
                                   "CREATE TABLE certificates(name TEXT PRIMARY KEY NOT NULL, chain TEXT NOT NULL,"
                                   " private_key TEXT NOT NULL) STRICT, WITHOUT ROWID;"
                                   "PRAGMA user_version=2; COMMIT;"))
        return fail(s->db, ret_error, "store: making the table of certificates");
    if (version < 3 && exec(s->db, "BEGIN IMMEDIATE;"
                                   "CREATE TABLE tombstones(app_id TEXT PRIMARY KEY NOT NULL,"
                                   " revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
                                   "INSERT INTO meta SELECT 'floor', value FROM meta WHERE name='revision';"
                                   "PRAGMA user_version=3; COMMIT;"))
        return fail(s->db, ret_error, "store: making the table of tombstones");
    return STATUS_OK;
}

static enum status prepare(struct store *s, char *ret_error)
{
    if (sqlite3_prepare_v3(s->db,
                           "INSERT INTO apps VALUES(?1, ?2, ?3) ON CONFLICT(app_id) DO UPDATE SET"
                           " revision=excluded.revision, document=excluded.document",
                           -1, SQLITE_PREPARE_PERSISTENT, &s->put, NULL) ||
        sqlite3_prepare_v3(s->db, "DELETE FROM apps WHERE app_id=?1", -1, SQLITE_PREPARE_PERSISTENT, &s->delete,
                           NULL) ||
        sqlite3_prepare_v3(s->db, "UPDATE meta SET value=?1 WHERE name='revision'", -1, SQLITE_PREPARE_PERSISTENT,
                           &s->set_revision, NULL) ||
        sqlite3_prepare_v3(s->db,
                           "INSERT INTO tombstones VALUES(?1, ?2) ON CONFLICT(app_id) DO UPDATE SET"
                           " revision=excluded.revision",
                           -1, SQLITE_PREPARE_PERSISTENT, &s->bury, NULL) ||
        sqlite3_prepare_v3(s->db, "DELETE FROM tombstones WHERE app_id=?1", -1, SQLITE_PREPARE_PERSISTENT, &s->unbury,
                           NULL) ||
        sqlite3_prepare_v3(s->db,
                           "INSERT INTO certificates VALUES(?1, ?2, ?3) ON CONFLICT(name) DO UPDATE SET"
                           " chain=excluded.chain, private_key=excluded.private_key",
                           -1, SQLITE_PREPARE_PERSISTENT, &s->put_certificate, NULL) ||
        sqlite3_prepare_v3(s->db, "DELETE FROM certificates WHERE name=?1", -1, SQLITE_PREPARE_PERSISTENT,
                           &s->delete_certificate, NULL))
        return fail(s->db, ret_error, "store: preparing statements");
    return STATUS_OK;
}

static enum status open_file(struct store *s, const char *path, char *ret_error)
{
    int result = open_db(path, &s->db);
    if (is_damage(result)) {
        /* What is in the log stays there, for a repair by hand. */
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_close(s->db);
        s->db = NULL;
        set_aside(path, sqlite3_errstr(result));
        result = open_db(path, &s->db);
    }
    if ((result & 0xff) == SQLITE_BUSY) {
        snprintf(ret_error, STORE_ERROR_TEXT_MAX,
                 "store: %.300s is in use by another process; each gateway needs a state_dir of its own", path);
        return STATUS_STORE_FAILED;
    }
    if (result != SQLITE_OK) {
        char what[256];
        snprintf(what, sizeof what, "store: cannot open %.200s", path);
        return fail(s->db, ret_error, what);
    }
    enum status status = migrate(s, ret_error);
    return status == STATUS_OK ? prepare(s, ret_error) : status;
}

static void close_db(struct store *s)
{
    sqlite3_finalize(s->put);
    sqlite3_finalize(s->delete);
    sqlite3_finalize(s->set_revision);
    sqlite3_finalize(s->bury);
    sqlite3_finalize(s->unbury);
    sqlite3_finalize(s->put_certificate);
    sqlite3_finalize(s->delete_certificate);
    sqlite3_close(s->db);
}

enum status store_open(const char *state_dir, struct loop *loop, struct store **ret_store,
                       char ret_error[STORE_ERROR_TEXT_MAX])
{
    char path[MAX_PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/routes.db", state_dir) >= sizeof path ||
        (mkdir(state_dir, 0750) && errno != EEXIST)) {
        snprintf(ret_error, STORE_ERROR_TEXT_MAX, "state_dir: cannot make %.300s: %s", state_dir, strerror(errno));
        return STATUS_STORE_FAILED;
    }
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->loop = loop;
    s->last = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    mode_t mask = umask(0077);
    enum status status = open_file(s, path, ret_error);
    umask(mask);
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
    int result = sqlite3_exec(s->db, "SELECT value FROM meta WHERE name='revision'", read_int, &last, NULL);
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
        return fail(s->db, ret_error, "store: reading the routes");
    *ret_last_revision = (uint64_t)last;
    return STATUS_OK;
}

enum status store_load_tombstones(struct store *s, store_tombstone_cb each, void *arg, uint64_t *ret_floor,
                                  char ret_error[STORE_ERROR_TEXT_MAX])
{
    sqlite3_stmt *select = NULL;
    long long floor = 0;
    int result = sqlite3_exec(s->db, "SELECT value FROM meta WHERE name='floor'", read_int, &floor, NULL);
    if (result == SQLITE_OK)
        result = sqlite3_prepare_v2(s->db, "SELECT app_id, revision FROM tombstones", -1, &select, NULL);
    while (result == SQLITE_OK && (result = sqlite3_step(select)) == SQLITE_ROW) {
        struct slice id = {(const char *)sqlite3_column_text(select, 0), (size_t)sqlite3_column_bytes(select, 0)};
        each(arg, id, (uint64_t)sqlite3_column_int64(select, 1));
        result = SQLITE_OK;
    }
    sqlite3_finalize(select);
    if (result != SQLITE_DONE)
        return fail(s->db, ret_error, "store: reading the tombstones");
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
    return result == SQLITE_DONE ? STATUS_OK : fail(s->db, ret_error, "store: reading the certificates");
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
    sqlite3_stmt *statement = change->document ? s->put_certificate : s->delete_certificate;
    int result = sqlite3_bind_text(statement, 1, change->id, (int)change->id_len, SQLITE_STATIC);
    if (change->document && result == SQLITE_OK)
        result = sqlite3_bind_text(statement, 2, change->document, -1, SQLITE_STATIC);
    if (change->document && result == SQLITE_OK)
        result = sqlite3_bind_text(statement, 3, change->private_key, -1, SQLITE_STATIC);
    return result == SQLITE_OK ? step(statement) : result;
}

static int store_app(struct store *s, const struct change *change)
{
    sqlite3_stmt *statement = change->document ? s->put : s->delete;
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
    sqlite3_stmt *statement = change->revision > 0 ? s->bury : s->unbury;
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
    return exec(s->db, sql);
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

/* ---- the order of a batch ---- */

static bool is_before(const struct change *a, const struct change *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind;
    size_t common = a->id_len < b->id_len ? a->id_len : b->id_len;
    int order = memcmp(a->id, b->id, common);
    return order != 0 ? order < 0 : a->id_len < b->id_len;
}

/* Of two sorted lists; what is equal keeps its order. */
static struct change *merge(struct change *a, struct change *b)
{
    struct change *merged = NULL;
    struct change **end = &merged;
    while (a && b) {
        struct change **next = is_before(b, a) ? &b : &a;
        *end = *next;
        end = &(*next)->next;
        *next = *end;
    }
    *end = a ? a : b;
    return merged;
}

/* The first `count` of a list, sorted; *rest is what follows. */
static struct change *sort_some(struct change *first, size_t count, struct change **rest)
{
    if (count == 1) {
        *rest = first->next;
        first->next = NULL;
        return first;
    }
    struct change *middle;
    struct change *a = sort_some(first, count / 2, &middle);
    struct change *b = sort_some(middle, count - count / 2, rest);
    return merge(a, b);
}

/*
 * In the order of the tables' keys, so that each page is written once: changes of different keys do not depend on each
 * other, tombstones are forgotten after they were put down. Returns how many there are.
 */
static size_t sort_changes(struct store_batch *batch)
{
    size_t count = 0;
    struct change *rest;
    for (const struct change *change = batch->first; change; change = change->next)
        count++;
    if (count > 1)
        batch->first = sort_some(batch->first, count, &rest);
    for (batch->last = &batch->first; *batch->last;)
        batch->last = &(*batch->last)->next;
    return count;
}

/* Returns the number of changes. */
static size_t commit(struct store *s, struct store_batch *batch)
{
    size_t count = sort_changes(batch);
    int result = exec(s->db, "BEGIN IMMEDIATE");
    for (const struct change *change = batch->first; change && result == SQLITE_OK; change = change->next)
        result = store_change(s, change);
    if (result == SQLITE_OK && batch->last_revision != STORE_SAME_REVISION) {
        result = sqlite3_bind_int64(s->set_revision, 1, (sqlite3_int64)batch->last_revision);
        if (result == SQLITE_OK)
            result = step(s->set_revision);
    }
    if (result == SQLITE_OK)
        result = exec(s->db, "COMMIT");
    batch->status = STATUS_OK;
    if (result == SQLITE_OK)
        return count;
    batch->status = fail(s->db, batch->text, "the transaction failed");
    if (log_limit_pass(&s->failures, 1))
        log_error("store: %s", batch->text);
    if (!sqlite3_get_autocommit(s->db))
        exec(s->db, "ROLLBACK");
    return count;
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

/*
 * A log as long as a large transaction's is cut off by the next one that begins it again, and a single change would
 * wait for that. It is cut off right away instead. Should that fail, it is the next one's to do after all.
 */
static void shorten_log(struct store *s)
{
    sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

static void *run(void *arg)
{
    struct store *s = arg;
    struct store_batch *batch;
    pthread_setname_np(pthread_self(), "store");
    while ((batch = take(s)) != NULL) {
        bool is_large = commit(s, batch) >= LARGE_BATCH;
        free_changes(batch);
        loop_post(s->loop, tell, batch);
        if (is_large)
            shorten_log(s);
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
    close_db(s);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
