#include "gateway/proxy/access_follow.h"

#include "proxy/json_check.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 30000 };

struct place {
    char path[64];
    struct counters counters;
    struct access_log *log;
    struct access_log_ring *ring;
};

static void open_log(struct place *place, const char *path, const char *format)
{
    char error[ACCESS_LOG_ERROR_TEXT_MAX];
    struct access_log_options options = {.path = path, .format = format};
    assert_int_equal(access_log_start(&options, &place->log, error), STATUS_OK);
    place->ring = access_log_attach(place->log, &place->counters);
    assert_non_null(place->ring);
}

static void close_log(struct place *place)
{
    access_log_detach(&place->ring);
    access_log_stop(&place->log);
}

static void write_line(struct place *place, unsigned number, int status)
{
    struct access_record record = {.port = (uint16_t)number, .status = status, .path = SLICE("/a")};
    access_log_write(place->ring, &record);
}

static struct access_follower *follow(struct place *place, uint64_t history, bool goes_on, const char *status)
{
    struct access_follow_options options = {.history = history, .goes_on = goes_on};
    char problem[ACCESS_FILTER_PROBLEM_MAX];
    if (status)
        assert_true(access_filter_set(&options.filter, SLICE("status"), slice_str(status), problem));
    return access_log_follow(place->log, &options);
}

/* Waits until there is something to read; returns its length, 0 at the end. */
static struct slice wait_pending(struct access_follower *follower)
{
    for (;;) {
        bool done;
        struct slice pending = access_follower_pending(follower, &done);
        if (pending.len > 0 || done)
            return pending;
        struct pollfd fd = {.fd = access_follower_fd(follower), .events = POLLIN};
        assert_int_equal(poll(&fd, 1, WAIT_MS), 1);
    }
}

/* Takes the next line and checks one member of it. */
static void expect(struct access_follower *follower, const char *name, const char *value)
{
    struct slice pending = wait_pending(follower), found = SLICE_NONE;
    const char *end = pending.len > 0 ? memchr(pending.ptr, '\n', pending.len) : NULL;
    assert_non_null(end);
    struct slice line = slice_make(pending.ptr, (size_t)(end - pending.ptr));
    assert_true(json_check_object(line, name, &found));
    if (!slice_eq(found, slice_str(value)))
        fail_msg("%s is %.*s, not %s", name, SLICE_ARG(found), value);
    access_follower_consume(follower, line.len + 1);
}

/* All that comes until the end. */
static struct slice wait_done(struct access_follower *follower)
{
    for (;;) {
        bool done;
        struct slice pending = access_follower_pending(follower, &done);
        if (done)
            return pending;
        struct pollfd fd = {.fd = access_follower_fd(follower), .events = POLLIN};
        assert_int_equal(poll(&fd, 1, WAIT_MS), 1);
    }
}

static void expect_end(struct access_follower *follower)
{
    assert_int_equal(wait_pending(follower).len, 0);
}

static void test_lines_come_while_they_are_written(void **state)
{
    struct place place = {.log = NULL};
    (void)state;
    open_log(&place, "/dev/null", "json");
    struct access_follower *all = follow(&place, 0, true, NULL);
    struct access_follower *some = follow(&place, 0, true, "5xx");
    for (unsigned i = 1; i <= 100; i++) {
        char text[8];
        write_line(&place, i, i % 10 == 0 ? 502 : 200);
        snprintf(text, sizeof text, "%u", i);
        expect(all, "port", text);
        if (i % 10 == 0)
            expect(some, "port", text);
    }
    access_follower_close(&all);
    assert_null(all);
    access_follower_close(&all);
    access_follower_close(&some);
    close_log(&place);
}

static void test_the_end_comes_after_all_lines(void **state)
{
    static const char *const formats[] = {"json", "off"};
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct place place = {.log = NULL};
        char text[8];
        open_log(&place, "/dev/null", formats[i]);
        struct access_follower *before = follow(&place, 0, true, NULL);
        for (unsigned line = 1; line <= 100; line++)
            write_line(&place, line, 200);
        access_log_end_following(place.log);
        for (unsigned line = 1; line <= 100; line++) {
            snprintf(text, sizeof text, "%u", line);
            expect(before, "port", text);
        }
        expect_end(before);
        struct access_follower *after = follow(&place, 1, true, NULL);
        expect(after, "port", "100");
        expect_end(after);
        access_follower_close(&before);
        access_follower_close(&after);
        close_log(&place);
    }
}

static void test_history_is_the_last_lines_that_are_wanted(void **state)
{
    struct place place = {.log = NULL};
    (void)state;
    open_log(&place, "/dev/null", "json");
    for (unsigned i = 1; i <= 50; i++)
        write_line(&place, i, i % 2 == 0 ? 502 : 200);
    /* Lines are shown in order: when the first follower has the last one, the log thread has seen all. */
    struct access_follower *all = follow(&place, 50, true, NULL);
    char text[8];
    for (unsigned i = 1; i <= 50; i++) {
        snprintf(text, sizeof text, "%u", i);
        expect(all, "port", text);
    }
    struct access_follower *some = follow(&place, 3, false, "5xx");
    expect(some, "port", "46");
    expect(some, "port", "48");
    expect(some, "port", "50");
    expect_end(some);
    struct access_follower *none = follow(&place, 10, false, "404");
    expect_end(none);
    access_follower_close(&all);
    access_follower_close(&some);
    access_follower_close(&none);
    close_log(&place);
}

static void test_the_tail_is_bounded_and_has_the_newest(void **state)
{
    struct place place = {.log = NULL};
    (void)state;
    open_log(&place, "/dev/null", "json");
    struct access_follower *last = follow(&place, 0, true, "299");
    for (unsigned i = 1; i <= 20000; i++) {
        write_line(&place, i, 200);
        if (i % 1000 == 0) { /* the worker's ring does not overflow */
            write_line(&place, i, 299);
            expect(last, "status", "299");
        }
    }
    assert_int_equal(place.counters.access_log_dropped_total, 0);
    struct access_follower *all = follow(&place, UINT64_MAX, false, NULL);
    struct slice lines = wait_done(all);
    assert_in_range(lines.len, ACCESS_FOLLOW_TAIL_BYTES - 1000, ACCESS_FOLLOW_TAIL_BYTES);
    assert_int_equal(lines.ptr[0], '{');
    assert_non_null(memmem(lines.ptr + lines.len - 400, 400, "\"port\":20000", 12));
    access_follower_consume(all, lines.len);
    expect_end(all);
    access_follower_close(&all);
    access_follower_close(&last);
    close_log(&place);
}

static void test_a_slow_reader_loses_lines_and_is_told(void **state)
{
    struct place place = {.log = NULL};
    uint64_t got = 0, dropped = 0, wrote = 0;
    bool done;
    (void)state;
    open_log(&place, "/dev/null", "json");
    struct access_follower *slow = follow(&place, 0, true, "200");
    struct access_follower *quick = follow(&place, 0, true, "299");
    while (access_follower_pending(slow, &done).len < ACCESS_FOLLOW_RING_BYTES - 200 || wrote < 60000) {
        for (int i = 0; i < 1000; i++, wrote++)
            write_line(&place, 1, 200);
        write_line(&place, 1, 299);
        expect(quick, "status", "299");
    }
    while (got + dropped < wrote) {
        struct slice pending = wait_pending(slow);
        const char *end = memchr(pending.ptr, '\n', pending.len);
        struct slice line = slice_make(pending.ptr, (size_t)(end - pending.ptr)), number = SLICE_NONE;
        uint64_t value = 0;
        assert_true(json_check_object(line, "dropped", &number));
        assert_true(number.len == 0 || slice_to_u64(number, &value));
        dropped += value;
        got += number.len == 0;
        access_follower_consume(slow, line.len + 1);
    }
    assert_int_equal(got + dropped, wrote);
    assert_true(dropped > 0);
    write_line(&place, 7, 200);
    expect(slow, "port", "7");
    assert_int_equal(place.counters.access_log_dropped_total, 0);
    access_follower_close(&slow);
    access_follower_close(&quick);
    close_log(&place);
}

static void test_other_formats_make_json_only_for_followers(void **state)
{
    static const char *const formats[] = {"combined", "off", "$status"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct place place = {.log = NULL};
        open_log(&place, "/dev/null", formats[i]);
        assert_int_equal(access_log_is_wanted(place.ring), strcmp(formats[i], "off") != 0);
        write_line(&place, 1, 200);
        struct access_follower *all = follow(&place, 10, true, NULL);
        assert_true(access_log_is_wanted(place.ring));
        write_line(&place, 2, 200);
        expect(all, "port", "2");
        struct access_follower *again = follow(&place, 10, false, NULL);
        expect(again, "port", "2");
        expect_end(again);
        access_follower_close(&all);
        access_follower_close(&again);
        assert_int_equal(access_log_is_wanted(place.ring), strcmp(formats[i], "off") != 0);
        close_log(&place);
    }
}

static void test_a_file_that_cannot_be_written_hides_nothing(void **state)
{
    struct place place = {.log = NULL};
    (void)state;
    open_log(&place, "/dev/full", "json");
    struct access_follower *all = follow(&place, 0, true, NULL);
    for (unsigned i = 1; i <= 3; i++) {
        char text[8];
        write_line(&place, i, 200);
        snprintf(text, sizeof text, "%u", i);
        expect(all, "port", text);
    }
    access_follower_close(&all);
    close_log(&place);
}

static void test_there_are_only_so_many(void **state)
{
    struct place place = {.log = NULL};
    struct access_follower *all[ACCESS_FOLLOW_MAX];
    (void)state;
    open_log(&place, "/dev/null", "json");
    for (size_t i = 0; i < ACCESS_FOLLOW_MAX; i++)
        assert_non_null(all[i] = follow(&place, 0, true, NULL));
    assert_null(follow(&place, 0, true, NULL));
    access_follower_close(&all[3]);
    assert_non_null(all[3] = follow(&place, 0, true, NULL));
    for (size_t i = 0; i < ACCESS_FOLLOW_MAX; i++)
        access_follower_close(&all[i]);
    close_log(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_come_while_they_are_written),
        cmocka_unit_test(test_the_end_comes_after_all_lines),
        cmocka_unit_test(test_history_is_the_last_lines_that_are_wanted),
        cmocka_unit_test(test_the_tail_is_bounded_and_has_the_newest),
        cmocka_unit_test(test_a_slow_reader_loses_lines_and_is_told),
        cmocka_unit_test(test_other_formats_make_json_only_for_followers),
        cmocka_unit_test(test_a_file_that_cannot_be_written_hides_nothing),
        cmocka_unit_test(test_there_are_only_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
