/* store: what was acknowledged is there after kill -9; damage, missing rights and a second process are told apart. */
#include "gateway/control/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILL_ROUNDS = 20, BIG_BATCH = 20000 };

static struct counters counters;

struct place {
    char dir[64];
    struct loop *loop;
    struct store *store;
};

static int set_up(void **state)
{
    struct place *place = test_calloc(1, sizeof *place);
    snprintf(place->dir, sizeof place->dir, "/tmp/store-test-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    place->loop = loop_new(&counters);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;
    char path[512];
    store_close(&place->store);
    loop_free(&place->loop);
    chmod(place->dir, 0700);
    DIR *dir = opendir(place->dir);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", place->dir, entry->d_name);
        unlink(path);
    }
    closedir(dir);
    rmdir(place->dir);
    test_free(place);
    return 0;
}

static void open_store(struct place *place)
{
    char error[STORE_ERROR_TEXT_MAX] = "";
    if (store_open(place->dir, place->loop, &place->store, error) != STATUS_OK)
        fail_msg("%s", error);
}

/* What store_open says when it must fail. */
static void refuse_to_open(struct place *place, const char *dir, const char *fragment)
{
    char error[STORE_ERROR_TEXT_MAX] = "";
    assert_int_equal(store_open(dir, place->loop, &place->store, error), STATUS_STORE_FAILED);
    assert_null(place->store);
    if (!strstr(error, fragment))
        fail_msg("%s\n  should say: %s", error, fragment);
}

struct outcome {
    int count;
    enum status status;
    char text[STORE_ERROR_TEXT_MAX];
};

static void on_done(void *arg, enum status status, const char *text)
{
    struct outcome *outcome = arg;
    outcome->count++;
    outcome->status = status;
    snprintf(outcome->text, sizeof outcome->text, "%s", text);
}

static void add(struct store_batch *batch, const char *id, uint64_t revision, const char *document)
{
    store_batch_add(batch, slice_str(id), revision, document ? strdup(document) : NULL);
}

static struct outcome wait_for(struct place *place, struct store_batch *batch, uint64_t revision)
{
    struct outcome outcome = {0};
    store_commit(place->store, batch, revision, on_done, &outcome);
    assert_int_equal(outcome.count, 0);
    while (outcome.count == 0)
        loop_turn(place->loop, 1000);
    return outcome;
}

static enum status commit_one(struct place *place, const char *id, uint64_t revision, const char *document)
{
    struct store_batch *batch = store_batch_new();
    add(batch, id, revision, document);
    return wait_for(place, batch, revision).status;
}

struct contents {
    size_t count;
    uint64_t revision;
    char text[1024]; /* "id=document@revision " of each, as far as it fits */
};

static void see(void *arg, struct slice app_id, uint64_t revision, struct slice document)
{
    struct contents *contents = arg;
    size_t len = strlen(contents->text);
    contents->count++;
    snprintf(contents->text + len, sizeof contents->text - len, "%.*s=%.*s@%ju ", SLICE_ARG(app_id),
             SLICE_ARG(document), (uintmax_t)revision);
}

/* Closes the store if it is open, and opens it again. */
static struct contents reopen(struct place *place)
{
    struct contents contents = {0};
    char error[STORE_ERROR_TEXT_MAX] = "";
    store_close(&place->store);
    open_store(place);
    assert_int_equal(store_load(place->store, see, &contents, &contents.revision, error), STATUS_OK);
    return contents;
}

static void changes_are_there_after_reopening(void **state)
{
    struct place *place = *state;
    struct contents contents = reopen(place);
    assert_int_equal(contents.count, 0);
    assert_int_equal(contents.revision, 0);
    struct store_batch *batch = store_batch_new();
    assert_true(store_batch_is_empty(batch));
    add(batch, "b", 1, "{1}");
    add(batch, "a", 2, "{2}");
    add(batch, "c", 3, "{3}");
    assert_false(store_batch_is_empty(batch));
    assert_int_equal(wait_for(place, batch, 3).status, STATUS_OK);
    batch = store_batch_new();
    add(batch, "c", 0, NULL);
    add(batch, "unknown", 0, NULL);
    add(batch, "b", 5, "{5 \xc3\xa4}");
    assert_int_equal(wait_for(place, batch, 9).status, STATUS_OK);
    contents = reopen(place);
    assert_string_equal(contents.text, "a={2}@2 b={5 \xc3\xa4}@5 ");
    assert_int_equal(contents.revision, 9);
}

static void an_empty_batch_stores_the_revision(void **state)
{
    struct place *place = *state;
    open_store(place);
    assert_int_equal(wait_for(place, store_batch_new(), 77).status, STATUS_OK);
    assert_int_equal(reopen(place).revision, 77);
}

static void files_are_private(void **state)
{
    struct place *place = *state;
    char path[128];
    struct stat info;
    open_store(place);
    assert_int_equal(commit_one(place, "a", 1, "{}"), STATUS_OK);
    snprintf(path, sizeof path, "%s/routes.db", place->dir);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    snprintf(path, sizeof path, "%s/routes.db-wal", place->dir);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void a_missing_folder_is_made(void **state)
{
    struct place *place = *state;
    char dir[128];
    char path[160];
    char error[STORE_ERROR_TEXT_MAX] = "";
    snprintf(dir, sizeof dir, "%s/state", place->dir);
    assert_int_equal(store_open(dir, place->loop, &place->store, error), STATUS_OK);
    store_close(&place->store);
    snprintf(path, sizeof path, "%s/routes.db", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    snprintf(dir, sizeof dir, "%s/no/such", place->dir);
    refuse_to_open(place, dir, "cannot make");
}

static void big_batches_and_order(void **state)
{
    struct place *place = *state;
    open_store(place);
    struct store_batch *batch = store_batch_new();
    char id[32];
    for (int i = 0; i < BIG_BATCH; i++) {
        snprintf(id, sizeof id, "app%06d", i);
        add(batch, id, (uint64_t)i + 1, "{}");
    }
    struct outcome first = {0};
    struct outcome second = {0};
    store_commit(place->store, batch, BIG_BATCH, on_done, &first);
    batch = store_batch_new();
    add(batch, "app000000", 0, NULL);
    store_commit(place->store, batch, BIG_BATCH + 1, on_done, &second);
    /* Closing waits for both; their outcomes are still posted. */
    struct contents contents = reopen(place);
    assert_int_equal(contents.count, BIG_BATCH - 1);
    assert_int_equal(contents.revision, BIG_BATCH + 1);
    while (second.count == 0)
        loop_turn(place->loop, 1000);
    assert_int_equal(first.count, 1);
    assert_int_equal(first.status, STATUS_OK);
}

/* A batch is written in the order of the ids; changes of one id keep theirs. */
static void changes_of_one_app_keep_their_order(void **state)
{
    struct place *place = *state;
    char ids[26][2];
    open_store(place);
    struct store_batch *batch = store_batch_new();
    add(batch, "z", 1, "{\"z\":1}");
    for (size_t i = 0; i < 26; i++) {
        snprintf(ids[i], sizeof ids[i], "%c", (char)('a' + i * 7 % 26));
        add(batch, ids[i], i + 2, i % 2 ? NULL : "{}");
    }
    add(batch, "h", 0, NULL);   /* the second of the loop, deleted there already */
    add(batch, "h", 100, "{}"); /* and put again */
    add(batch, "a", 101, "{}"); /* put in the loop, deleted, put again, deleted */
    add(batch, "a", 0, NULL);
    assert_int_equal(wait_for(place, batch, 101).status, STATUS_OK);
    struct contents contents = reopen(place);
    assert_int_equal(contents.count, 13); /* half of the letters, h, but not a */
    assert_int_equal(contents.revision, 101);
}

/* A file size limit stands for a full disk. */
static void a_failed_transaction_changes_nothing(void **state)
{
    struct place *place = *state;
    struct rlimit old;
    open_store(place);
    assert_int_equal(commit_one(place, "a", 1, "{old}"), STATUS_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit small = {.rlim_cur = 65536, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct store_batch *batch = store_batch_new();
    add(batch, "a", 2, "{new}");
    for (int i = 0; i < 4000; i++) {
        char id[32];
        snprintf(id, sizeof id, "big%d", i);
        add(batch, id, 2, "{a document of some length, so that the file grows over its limit}");
    }
    struct outcome outcome = wait_for(place, batch, 2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(outcome.status, STATUS_STORE_FAILED);
    assert_non_null(strstr(outcome.text, "the transaction failed: "));
    assert_non_null(strstr(outcome.text, "disk"));
    assert_int_equal(commit_one(place, "b", 3, "{}"), STATUS_OK);
    assert_string_equal(reopen(place).text, "a={old}@1 b={}@3 ");
}

/* ---- what is wrong with the file or its folder ---- */

static void write_file(const struct place *place, const char *name, long offset, const void *bytes, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", place->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, offset), len);
    close(fd);
}

static size_t count_files(const struct place *place, const char *prefix)
{
    size_t count = 0;
    DIR *dir = opendir(place->dir);
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return count;
}

static void a_file_that_is_no_database_is_set_aside(void **state)
{
    struct place *place = *state;
    char garbage[5000];
    memset(garbage, 'x', sizeof garbage);
    write_file(place, "routes.db", 0, garbage, sizeof garbage);
    open_store(place);
    assert_int_equal(count_files(place, "routes.db.corrupt-"), 1);
    assert_int_equal(commit_one(place, "a", 1, "{}"), STATUS_OK);
    assert_string_equal(reopen(place).text, "a={}@1 ");
    assert_int_equal(count_files(place, "routes.db.corrupt-"), 1);
}

static void a_damaged_page_is_noticed(void **state)
{
    struct place *place = *state;
    char garbage[4096];
    open_store(place);
    struct store_batch *batch = store_batch_new();
    for (int i = 0; i < 1000; i++) {
        char id[32];
        snprintf(id, sizeof id, "app%d", i);
        add(batch, id, 1, "{a document of some length, so that there are many pages}");
    }
    assert_int_equal(wait_for(place, batch, 1).status, STATUS_OK);
    store_close(&place->store);
    memset(garbage, 0xee, sizeof garbage);
    write_file(place, "routes.db", 5 * 4096, garbage, sizeof garbage);
    assert_int_equal(reopen(place).count, 0);
    assert_in_range(count_files(place, "routes.db.corrupt-"), 1, 2); /* and its log */
}

static void a_newer_schema_is_refused(void **state)
{
    struct place *place = *state;
    const unsigned char version[4] = {0, 0, 0, 99};
    open_store(place);
    store_close(&place->store);
    write_file(place, "routes.db", 60, version, sizeof version); /* user_version, in the file's header */
    refuse_to_open(place, place->dir, "schema version 99");
}

/* Run in a child that is not root, whom rights don't bind. */
static int open_as_nobody(struct place *place)
{
    char error[STORE_ERROR_TEXT_MAX] = "";
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 2;
    enum status status = store_open(place->dir, place->loop, &place->store, error);
    return status == STATUS_STORE_FAILED && strstr(error, "writable for this user") ? 0 : 1;
}

static int in_child(struct place *place, int (*run)(struct place *place))
{
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(run(place));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_folder_that_is_not_writable_is_refused(void **state)
{
    struct place *place = *state;
    assert_int_equal(chmod(place->dir, 0555), 0);
    assert_int_equal(in_child(place, open_as_nobody), 0);
}

/* SQLite then opens it for reading: the first write fails, of which nobody is told that rights are the cause. */
static void a_file_that_is_not_writable_is_refused(void **state)
{
    struct place *place = *state;
    char path[512];
    open_store(place);
    store_close(&place->store);
    snprintf(path, sizeof path, "%s/routes.db", place->dir);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(place->dir, 0777), 0);
    assert_int_equal(in_child(place, open_as_nobody), 0);
}

static int open_a_second_time(struct place *place)
{
    struct store *second = NULL;
    char error[STORE_ERROR_TEXT_MAX] = "";
    enum status status = store_open(place->dir, place->loop, &second, error);
    return status == STATUS_STORE_FAILED && strstr(error, "in use by another process") ? 0 : 1;
}

static void a_second_process_is_refused(void **state)
{
    struct place *place = *state;
    int opened[2];
    assert_int_equal(pipe(opened), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        open_store(place);
        if (write(opened[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    char byte;
    assert_int_equal(read(opened[0], &byte, 1), 1);
    assert_int_equal(open_a_second_time(place), 0);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    open_store(place);
    close(opened[0]);
    close(opened[1]);
}

/* ---- kill -9 ---- */

/* Commits one record after the other; tells each that was acknowledged. */
static off_t log_bytes(const struct place *place)
{
    char path[128];
    struct stat found;
    snprintf(path, sizeof path, "%s/routes.db-wal", place->dir);
    return stat(path, &found) == 0 ? found.st_size : 0;
}

/* After a large batch the log is empty before anyone asks for more, so that the next change need not wait for that. */
static void the_log_of_a_large_batch_does_not_stay(void **state)
{
    struct place *place = *state;
    open_store(place);
    assert_int_equal(commit_one(place, "app", 1, "{}"), STATUS_OK);
    assert_true(log_bytes(place) > 0);
    struct store_batch *batch = store_batch_new();
    for (unsigned i = 0; i < BIG_BATCH; i++) {
        char id[16];
        snprintf(id, sizeof id, "app%u", i);
        add(batch, id, 2, "{\"a\":\"document\"}");
    }
    assert_int_equal(wait_for(place, batch, 2).status, STATUS_OK);
    for (int i = 0; i < 600 && log_bytes(place) > 0; i++)
        poll(NULL, 0, 100);
    assert_int_equal(log_bytes(place), 0);
}

static void commit_until_killed(struct place *place, int fd, uint64_t first)
{
    open_store(place);
    for (uint64_t i = first;; i++) {
        char id[32];
        snprintf(id, sizeof id, "app%ju", (uintmax_t)i);
        if (commit_one(place, id, i, "{}") != STATUS_OK || write(fd, &i, sizeof i) != sizeof i)
            _exit(1);
    }
}

/* The last record that a child acknowledged before it was killed after this time. */
static uint64_t kill_one(struct place *place, uint64_t first, unsigned after_us)
{
    int fds[2];
    uint64_t last = first - 1;
    uint64_t value;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        commit_until_killed(place, fds[1], first);
    close(fds[1]);
    assert_int_equal(read(fds[0], &value, sizeof value), sizeof value);
    usleep(after_us);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    for (last = value; read(fds[0], &value, sizeof value) == sizeof value; last = value)
        assert_int_equal(value, last + 1);
    close(fds[0]);
    return last;
}

static void acknowledged_changes_survive_kill(void **state)
{
    struct place *place = *state;
    uint64_t last = 0;
    for (unsigned round = 0; round < KILL_ROUNDS; round++) {
        last = kill_one(place, last + 1, 1000 + round * 1700);
        struct contents contents = reopen(place);
        store_close(&place->store);
        /* One more may have been written, and not been acknowledged any more. */
        assert_in_range(contents.count, last, last + 1);
        assert_int_equal(contents.revision, contents.count);
        last = contents.count;
    }
}

/* ---- certificates ---- */

static void append_certificate(void *arg, struct slice name, struct slice chain_pem, struct slice key_pem)
{
    char *text = arg;
    size_t len = strlen(text);
    snprintf(text + len, 256 - len, "%.*s=%.*s/%.*s;", SLICE_ARG(name), SLICE_ARG(chain_pem), SLICE_ARG(key_pem));
}

static void check_certificates(struct place *place, const char *wanted)
{
    char text[256] = "";
    char error[STORE_ERROR_TEXT_MAX] = "";
    assert_int_equal(store_load_certificates(place->store, append_certificate, text, error), STATUS_OK);
    assert_string_equal(text, wanted);
}

static void certificates_are_kept_beside_the_routes(void **state)
{
    struct place *place = *state;
    open_store(place);
    assert_int_equal(commit_one(place, "app", 7, "{}"), STATUS_OK);
    struct store_batch *batch = store_batch_new();
    store_batch_put_certificate(batch, slice_str("b.example"), slice_str("chain-b"), slice_str("key-b"));
    store_batch_put_certificate(batch, slice_str("*.a.example"), slice_str("chain-a"), slice_str("key-a"));
    assert_int_equal(wait_for(place, batch, STORE_SAME_REVISION).status, STATUS_OK);
    batch = store_batch_new();
    store_batch_put_certificate(batch, slice_str("b.example"), slice_str("chain-2"), slice_str("key-2"));
    assert_int_equal(wait_for(place, batch, STORE_SAME_REVISION).status, STATUS_OK);
    store_close(&place->store);
    assert_int_equal(reopen(place).revision, 7);
    check_certificates(place, "*.a.example=chain-a/key-a;b.example=chain-2/key-2;");
    batch = store_batch_new();
    store_batch_delete_certificate(batch, slice_str("b.example"));
    assert_int_equal(wait_for(place, batch, STORE_SAME_REVISION).status, STATUS_OK);
    store_close(&place->store);
    assert_int_equal(reopen(place).count, 1);
    check_certificates(place, "*.a.example=chain-a/key-a;");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(changes_are_there_after_reopening),
        TEST(an_empty_batch_stores_the_revision),
        TEST(files_are_private),
        TEST(a_missing_folder_is_made),
        TEST(big_batches_and_order),
        TEST(changes_of_one_app_keep_their_order),
        TEST(the_log_of_a_large_batch_does_not_stay),
        TEST(a_failed_transaction_changes_nothing),
        TEST(a_file_that_is_no_database_is_set_aside),
        TEST(a_damaged_page_is_noticed),
        TEST(a_newer_schema_is_refused),
        TEST(a_folder_that_is_not_writable_is_refused),
        TEST(a_file_that_is_not_writable_is_refused),
        TEST(a_second_process_is_refused),
        TEST(acknowledged_changes_survive_kill),
        TEST(certificates_are_kept_beside_the_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
