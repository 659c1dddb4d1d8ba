/*
 * What the files of `store` share. Private.
 *
 *   store.c       batches, reading, the store thread
 *   store_open.c  opening: what is set aside, migrations, why it cannot be opened
 */
#ifndef GATEWAY_CONTROL_STORE_INTERNAL_H
#define GATEWAY_CONTROL_STORE_INTERNAL_H

#include "gateway/base/log.h"
#include "gateway/control/store.h"

#include <pthread.h>
#include <sqlite3.h>

enum store_statement {
    STORE_PUT_APP,
    STORE_DELETE_APP,
    STORE_SET_REVISION,
    STORE_BURY,
    STORE_UNBURY,
    STORE_PUT_CERTIFICATE,
    STORE_DELETE_CERTIFICATE,
    STORE_STATEMENTS,
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STORE_STATEMENTS];
    struct loop *loop;
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct store_batch *first; /* waiting */
    struct store_batch **last;
    bool closing;
    struct store_health health;
    struct log_limit failures; /* the store thread's */
};

/* Opens, repairs by setting aside, migrates, prepares the statements. The caller closes whatever the result. */
MUST_CHECK enum status store_open_file(struct store *store, const char *state_dir, char *ret_error);
void store_close_file(struct store *store);

/* Fills the text from the connection's last error. */
enum status store_fail(sqlite3 *db, char *ret_error, const char *what);
int store_exec(sqlite3 *db, const char *sql);
/* The first value of the first row; *ret stays if there is none. */
int store_read_int(sqlite3 *db, const char *sql, long long *ret);

#endif
