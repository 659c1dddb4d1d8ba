#include "gateway/base/log.h"
#include "gateway/proxy/access_log.h"
#include "gateway/proxy/access_ring.h"
#include "proxy/json_check.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- helpers ---- */

struct place {
    char dir[64];
    char path[96];
    char moved[96];
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    snprintf(place->dir, sizeof place->dir, "/tmp/gateway-test-XXXXXX");
    if (!place || !mkdtemp(place->dir))
        return -1;
    snprintf(place->path, sizeof place->path, "%s/access.log", place->dir);
    snprintf(place->moved, sizeof place->moved, "%s/access.log.1", place->dir);
    *state = place;
    return 0;
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int tear_down(void **state)
{
    struct place *place = *state;
    limit_file_size(RLIM_INFINITY);
    log_set_level(LOG_LEVEL_INFO);
    unlink(place->path);
    unlink(place->moved);
    rmdir(place->dir);
    free(place);
    return 0;
}

static struct access_log *start(const char *path, const char *format)
{
    struct access_log *log = NULL;
    char error[ACCESS_LOG_ERROR_TEXT_MAX];
    assert_int_equal(access_log_start(&(struct access_log_options){.path = path, .format = format}, &log, error),
                     STATUS_OK);
    return log;
}

/* malloc'ed */
static struct slice read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    struct stat st;
    assert_int_equal(fstat(fileno(file), &st), 0);
    size_t size = (size_t)st.st_size;
    char *text = malloc(size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, size, file), size);
    fclose(file);
    return slice_make(text, size);
}

static size_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

static void wait_for_size(const char *path, size_t size)
{
    for (int i = 0; i < 1000 && file_size(path) < size; i++)
        usleep(5000);
    assert_int_equal(file_size(path), size);
}

static bool next_line(struct slice *rest, struct slice *ret_line)
{
    const char *newline = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    if (!newline)
        return false;
    *ret_line = slice_make(rest->ptr, (size_t)(newline - rest->ptr));
    *rest = slice_from(*rest, ret_line->len + 1);
    return true;
}

static void release(struct slice text)
{
    free((void *)(uintptr_t)text.ptr);
}

/* ---- the ring alone ---- */

static void test_ring_wraps(void **state)
{
    (void)state;
    struct access_ring *ring = access_ring_new(4096);
    assert_non_null(ring);
    for (unsigned round = 0; round < 50; round++) {
        char *place = access_ring_reserve(ring, 3000);
        assert_non_null(place);
        memset(place, (int)('a' + round % 26), 3000);
        assert_int_equal(access_ring_commit(ring, 3000), 3000);
        assert_null(access_ring_reserve(ring, 1097));
        assert_non_null(access_ring_reserve(ring, 1096));
        struct slice pending = access_ring_pending(ring);
        assert_int_equal(pending.len, 3000);
        for (size_t i = 0; i < pending.len; i++)
            assert_int_equal(pending.ptr[i], 'a' + round % 26);
        access_ring_consume(ring, 1000);
        assert_int_equal(access_ring_pending(ring).len, 2000);
        access_ring_consume(ring, 2000);
    }
    access_ring_free(&ring);
    assert_null(ring);
    access_ring_free(&ring);
}

/* ---- producers and a slow consumer ---- */

enum { PRODUCERS = 2, LINES = 40000 };

struct producer {
    pthread_t thread;
    struct access_log *log;
    const char *name;
    struct counters counters;
};

static void *produce(void *arg)
{
    struct producer *producer = arg;
    struct access_log_ring *ring = access_log_attach(producer->log, &producer->counters);
    char padding[300];
    memset(padding, producer->name[0], sizeof padding);
    for (uint64_t i = 1; i <= LINES; i++) {
        struct access_record record = {
            .app_id = slice_str(producer->name), .bytes_in = i, .user_agent = slice_make(padding, i % sizeof padding)};
        access_log_write(ring, &record);
        if (i % 1000 == 0)
            usleep(300);
    }
    access_log_detach(&ring);
    assert_null(ring);
    return NULL;
}

struct consumer {
    pthread_t thread;
    int fd;
    struct producer *producer;
    struct slice all;
};

/* Reads a pipe, but only when lines have been dropped, and slowly at first. malloc'ed. */
static void *consume_slowly(void *arg)
{
    struct consumer *consumer = arg;
    size_t capacity = 64U << 20, len = 0;
    char *text = malloc(capacity);
    while (atomic_load(&consumer->producer->counters.access_log_dropped_total) == 0)
        usleep(1000);
    for (ssize_t got; (got = read(consumer->fd, text + len, capacity - len)) > 0;) {
        len += (size_t)got;
        if (len < 2U << 20)
            usleep(2000);
    }
    consumer->all = slice_make(text, len);
    return NULL;
}

/* Every line is valid, each producer's are in order, and there are as many as were counted. */
static void check_lines(struct slice text, struct producer *producers)
{
    uint64_t last[PRODUCERS] = {0}, count[PRODUCERS] = {0};
    struct slice line;
    while (next_line(&text, &line)) {
        struct slice app = SLICE_NONE, number = SLICE_NONE;
        assert_true(json_check_object(line, "app_id", &app));
        assert_true(json_check_object(line, "bytes_in", &number));
        size_t who = slice_eq(app, slice_str(producers[0].name)) ? 0 : 1;
        assert_true(slice_eq(app, slice_str(producers[who].name)));
        uint64_t value;
        assert_true(slice_to_u64(number, &value));
        assert_true(value > last[who]);
        last[who] = value;
        count[who]++;
    }
    assert_int_equal(text.len, 0);
    for (size_t i = 0; i < PRODUCERS; i++) {
        assert_int_equal(count[i], producers[i].counters.access_log_lines_total);
        assert_int_equal(count[i] + producers[i].counters.access_log_dropped_total, LINES);
    }
}

static void test_slow_consumer(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
    struct access_log *log = start(path, "json");
    close(fds[1]);
    static struct producer producers[PRODUCERS];
    memset(producers, 0, sizeof producers);
    struct consumer consumer = {.fd = fds[0], .producer = &producers[0]};
    assert_int_equal(pthread_create(&consumer.thread, NULL, consume_slowly, &consumer), 0);
    for (size_t i = 0; i < PRODUCERS; i++) {
        producers[i].log = log;
        producers[i].name = i == 0 ? "a" : "b";
        assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    for (size_t i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i].thread, NULL);
    access_log_stop(&log);
    assert_null(log);

    pthread_join(consumer.thread, NULL);
    close(fds[0]);
    check_lines(consumer.all, producers);
    release(consumer.all);
}

/* Whoever reads the output has stopped: the program can end all the same. */
static void test_stop_while_stuck(void **state)
{
    (void)state;
    int fds[2];
    char path[32];
    struct counters counters = {0};
    assert_int_equal(pipe(fds), 0);
    assert_true(fcntl(fds[1], F_SETPIPE_SZ, 4096) > 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
    struct access_log *log = start(path, "json");
    close(fds[1]);
    struct access_log_ring *ring = access_log_attach(log, &counters);
    for (int i = 0; i < 1000; i++)
        access_log_write(ring, &(struct access_record){.status = 200});
    access_log_detach(&ring);
    alarm(60);
    access_log_stop(&log);
    alarm(0);
    assert_null(log);
    close(fds[0]);
}

/* ---- sleeping and waking, reopening, failing ---- */

static void write_status(struct access_log_ring *ring, int status)
{
    access_log_write(ring, &(struct access_record){.status = status});
}

/* Each line must wake a thread that sleeps for good. */
static void test_wakes(void **state)
{
    struct place *place = *state;
    struct access_log *log = start(place->path, "$status");
    struct counters counters = {0};
    struct access_log_ring *ring = access_log_attach(log, &counters);
    for (size_t i = 1; i <= 10; i++) {
        write_status(ring, 200);
        wait_for_size(place->path, 4 * i);
        usleep(i % 2 ? 120000 : 1000);
    }
    access_log_detach(&ring);
    access_log_stop(&log);
    struct stat st;
    assert_int_equal(stat(place->path, &st), 0);
    assert_int_equal(st.st_mode & 0027, 0);
}

static void assert_file(const char *path, const char *expected)
{
    struct slice text = read_file(path);
    assert_true(slice_eq(text, slice_str(expected)));
    release(text);
}

static void test_reopen(void **state)
{
    struct place *place = *state;
    struct access_log *log = start(place->path, "$status");
    struct counters counters = {0};
    struct access_log_ring *ring = access_log_attach(log, &counters);
    write_status(ring, 201);
    wait_for_size(place->path, 4);
    assert_int_equal(rename(place->path, place->moved), 0);
    write_status(ring, 202);
    wait_for_size(place->moved, 8);
    access_log_reopen(log);
    for (int i = 0; i < 1000 && access(place->path, F_OK) != 0; i++)
        usleep(5000);
    usleep(20000);
    write_status(ring, 203);
    access_log_detach(&ring);
    access_log_stop(&log);
    assert_file(place->moved, "201\n202\n");
    assert_file(place->path, "203\n");
}

/* A full disk: a line is torn in the middle, lines are dropped and counted, then all goes on where it stopped. */
static void test_write_error_and_recovery(void **state)
{
    struct place *place = *state;
    log_set_level(LOG_LEVEL_ERROR);
    struct access_log *log = start(place->path, "$bytes_in");
    static struct counters counters;
    struct access_log_ring *ring = access_log_attach(log, &counters);
    limit_file_size(10);
    enum { COUNT = 200000 };
    for (uint64_t i = 0; i < COUNT; i++)
        access_log_write(ring, &(struct access_record){.bytes_in = 100000 + i});
    wait_for_size(place->path, 10);
    limit_file_size(RLIM_INFINITY);
    access_log_detach(&ring);
    access_log_stop(&log);
    log_set_level(LOG_LEVEL_INFO);

    assert_int_equal(counters.access_log_lines_total + counters.access_log_dropped_total, COUNT);
    assert_true(counters.access_log_dropped_total > 0);
    struct slice text = read_file(place->path), rest = text, line;
    assert_int_equal(text.len, counters.access_log_lines_total * 7);
    for (uint64_t expected = 100000, value; next_line(&rest, &line); expected++) {
        assert_true(slice_to_u64(line, &value));
        assert_int_equal(value, expected);
    }
    release(text);
}

/* A line that is torn when the file is exchanged is whole in the new file. */
static void test_reopen_with_torn_line(void **state)
{
    struct place *place = *state;
    log_set_level(LOG_LEVEL_ERROR);
    struct access_log *log = start(place->path, "$status");
    struct counters counters = {0};
    struct access_log_ring *ring = access_log_attach(log, &counters);
    limit_file_size(6);
    write_status(ring, 201);
    write_status(ring, 202);
    wait_for_size(place->path, 6);
    assert_int_equal(rename(place->path, place->moved), 0);
    access_log_reopen(log);
    wait_for_size(place->path, 4);
    limit_file_size(RLIM_INFINITY);
    access_log_detach(&ring);
    access_log_stop(&log);
    log_set_level(LOG_LEVEL_INFO);
    assert_file(place->moved, "201\n20");
    assert_file(place->path, "202\n");
}

static void test_start_failures(void **state)
{
    struct place *place = *state;
    struct access_log *log = NULL;
    char error[ACCESS_LOG_ERROR_TEXT_MAX] = "", path[128];
    snprintf(path, sizeof path, "%s/missing/access.log", place->dir);
    assert_int_equal(access_log_start(&(struct access_log_options){.path = path, .format = "json"}, &log, error),
                     STATUS_INTERNAL);
    assert_non_null(strstr(error, path));
    assert_int_equal(access_log_start(&(struct access_log_options){.path = place->path, .format = "$x"}, &log, error),
                     STATUS_INTERNAL);
    assert_non_null(strstr(error, "\"x\""));
    assert_null(log);
    assert_int_equal(access(place->path, F_OK), -1);
}

static void test_off(void **state)
{
    struct place *place = *state;
    struct access_log *log = start(place->path, "off");
    struct counters counters = {0};
    struct access_log_ring *ring = access_log_attach(log, &counters);
    write_status(ring, 200);
    access_log_reopen(log);
    access_log_detach(&ring);
    access_log_stop(&log);
    access_log_stop(&log);
    assert_int_equal(counters.access_log_lines_total, 0);
    assert_int_equal(access(place->path, F_OK), -1);
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_wraps),
        cmocka_unit_test(test_slow_consumer),
        cmocka_unit_test(test_stop_while_stuck),
        cmocka_unit_test_setup_teardown(test_wakes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reopen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_write_error_and_recovery, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reopen_with_torn_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_start_failures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_off, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
