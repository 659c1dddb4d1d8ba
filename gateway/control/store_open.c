#include "store_internal.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PATH_BYTES = 4096 };

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
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return "; the file is damaged: save a snapshot of the routes, restart (the file is set aside), load it again";
    default:
        return "";
    }
}

enum status store_fail(sqlite3 *db, char *ret_error, const char *what)
{
    int result = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    int reason = db && (result == SQLITE_IOERR || result == SQLITE_CANTOPEN) ? sqlite3_system_errno(db) : 0;
    snprintf(ret_error, STORE_ERROR_TEXT_MAX, "%.200s: %.100s%s%.50s%s", what,
             db ? sqlite3_errmsg(db) : "not enough memory", reason ? ": " : "", reason ? strerror(reason) : "",
             advice_for(result));
    return STATUS_STORE_FAILED;
}

int store_exec(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int take_int(void *ret, int count, char **values, char **names)
{
    (void)names;
    if (count > 0 && values[0])
        *(long long *)ret = atoll(values[0]);
    return 0;
}

int store_read_int(sqlite3 *db, const char *sql, long long *ret)
{
    return sqlite3_exec(db, sql, take_int, ret, NULL);
}

static int read_check(void *ret, int count, char **values, char **names)
{
    (void)names;
    *(bool *)ret = count == 1 && values[0] && strcmp(values[0], "ok") == 0;
    return 0;
}

static bool is_damage(int result)
{
    return (result & 0xff) == SQLITE_CORRUPT || (result & 0xff) == SQLITE_NOTADB;
}

/* SQLITE_OK, damage, or another error. */
static int open_db(const char *path, sqlite3 **ret_db)
{
    bool sound = false;
    int result = sqlite3_open_v2(path, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (result == SQLITE_OK)
        result = store_exec(*ret_db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                                     "PRAGMA trusted_schema=OFF; PRAGMA journal_size_limit=67108864;"
                                     "BEGIN IMMEDIATE; COMMIT;");
    if (result == SQLITE_OK)
        result = sqlite3_exec(*ret_db, "PRAGMA quick_check(1)", read_check, &sound, NULL);
    return result == SQLITE_OK && !sound ? SQLITE_CORRUPT : result;
}

static void set_aside(struct store *s, const char *path, const char *why)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    unsigned long long now = clock_wall_us() / 1000000U;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char from[MAX_PATH_BYTES + 8], to[MAX_PATH_BYTES + 64];
        snprintf(from, sizeof from, "%s%s", path, suffixes[i]);
        snprintf(to, sizeof to, "%s.corrupt-%llu%s", path, now, suffixes[i]);
        rename(from, to);
    }
    snprintf(s->health.set_aside, sizeof s->health.set_aside, "%s.corrupt-%llu", path, now);
    log_error("store: %s is damaged (%s); it was set aside as %s.corrupt-%llu and a new one begins WITHOUT the routes; "
              "push them again",
              path, why, path, now);
}

/* ---- the schema ---- */

/* Element n takes a database from version n to n + 1, in one transaction. A new version adds one at the end. */
static const char *const migrations[] = {
    "CREATE TABLE apps(app_id TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE meta(name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO meta VALUES('revision', 0);",

    "CREATE TABLE certificates(name TEXT PRIMARY KEY NOT NULL, chain TEXT NOT NULL, private_key TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID;",

    /* What was deleted before is not known, so the floor is where the table is. */
    "CREATE TABLE tombstones(app_id TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO meta SELECT 'floor', value FROM meta WHERE name='revision';",
};
enum { SCHEMA_VERSION = sizeof migrations / sizeof migrations[0] };

static enum status migrate_to(struct store *s, int version, char *ret_error)
{
    char pragma[64];
    char what[80];
    snprintf(pragma, sizeof pragma, "PRAGMA user_version=%d; COMMIT;", version);
    if (store_exec(s->db, "BEGIN IMMEDIATE") == SQLITE_OK && store_exec(s->db, migrations[version - 1]) == SQLITE_OK &&
        store_exec(s->db, pragma) == SQLITE_OK)
        return STATUS_OK;
    snprintf(what, sizeof what, "store: bringing routes.db to schema version %d", version);
    return store_fail(s->db, ret_error, what); /* closing it rolls back */
}

static enum status migrate(struct store *s, char *ret_error)
{
    long long version = 0;
    if (store_read_int(s->db, "PRAGMA user_version", &version))
        return store_fail(s->db, ret_error, "store: reading the schema version");
    if (version < 0 || version > SCHEMA_VERSION) {
        snprintf(ret_error, STORE_ERROR_TEXT_MAX,
                 "store: routes.db has schema version %lld, this program knows up to %d; run a newer phala-gateway",
                 version, SCHEMA_VERSION);
        return STATUS_STORE_FAILED;
    }
    enum status status = STATUS_OK;
    for (int next = (int)version + 1; next <= SCHEMA_VERSION && status == STATUS_OK; next++)
        status = migrate_to(s, next, ret_error);
    return status;
}

static enum status prepare(struct store *s, char *ret_error)
{
    static const char *const sql[STORE_STATEMENTS] = {
        [STORE_PUT_APP] = "INSERT INTO apps VALUES(?1, ?2, ?3) ON CONFLICT(app_id) DO UPDATE SET"
                          " revision=excluded.revision, document=excluded.document",
        [STORE_DELETE_APP] = "DELETE FROM apps WHERE app_id=?1",
        [STORE_SET_REVISION] = "UPDATE meta SET value=?1 WHERE name='revision'",
        [STORE_BURY] = "INSERT INTO tombstones VALUES(?1, ?2) ON CONFLICT(app_id) DO UPDATE SET"
                       " revision=excluded.revision",
        [STORE_UNBURY] = "DELETE FROM tombstones WHERE app_id=?1",
        [STORE_PUT_CERTIFICATE] = "INSERT INTO certificates VALUES(?1, ?2, ?3) ON CONFLICT(name) DO UPDATE SET"
                                  " chain=excluded.chain, private_key=excluded.private_key",
        [STORE_DELETE_CERTIFICATE] = "DELETE FROM certificates WHERE name=?1",
    };
    for (size_t i = 0; i < STORE_STATEMENTS; i++)
        if (sqlite3_prepare_v3(s->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i], NULL))
            return store_fail(s->db, ret_error, "store: preparing statements");
    return STATUS_OK;
}

/* ---- the file ---- */

static enum status open_path(struct store *s, const char *path, char *ret_error)
{
    int result = open_db(path, &s->db);
    if (is_damage(result)) {
        /* What is in the log stays there, for a repair by hand. */
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_close(s->db);
        s->db = NULL;
        set_aside(s, path, sqlite3_errstr(result));
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
        return store_fail(s->db, ret_error, what);
    }
    enum status status = migrate(s, ret_error);
    return status == STATUS_OK ? prepare(s, ret_error) : status;
}

enum status store_open_file(struct store *s, const char *state_dir, char *ret_error)
{
    char path[MAX_PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/routes.db", state_dir) >= sizeof path ||
        (mkdir(state_dir, 0750) && errno != EEXIST)) {
        snprintf(ret_error, STORE_ERROR_TEXT_MAX, "state_dir: cannot make %.300s: %s", state_dir, strerror(errno));
        return STATUS_STORE_FAILED;
    }
    mode_t mask = umask(0077);
    enum status status = open_path(s, path, ret_error);
    umask(mask);
    return status;
}

void store_close_file(struct store *s)
{
    for (size_t i = 0; i < STORE_STATEMENTS; i++)
        sqlite3_finalize(s->statements[i]);
    sqlite3_close(s->db);
}
