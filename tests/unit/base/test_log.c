#include "gateway/base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* stderr goes to a pipe between capture_begin and capture_end. */
struct capture {
    int saved;
    int pipe[2];
};

static void capture_begin(struct capture *capture)
{
    assert_int_equal(pipe2(capture->pipe, O_NONBLOCK | O_CLOEXEC), 0);
    capture->saved = dup(STDERR_FILENO);
    assert_true(capture->saved >= 0);
    assert_int_equal(dup2(capture->pipe[1], STDERR_FILENO), STDERR_FILENO);
}

static void capture_end(struct capture *capture, char *ret_text, size_t size)
{
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    close(capture->pipe[1]);
    ssize_t len = read(capture->pipe[0], ret_text, size - 1);
    ret_text[len > 0 ? len : 0] = '\0';
    close(capture->pipe[0]);
}

static void test_line(void **state)
{
    struct capture capture;
    char text[4096];
    int year, month, day;
    (void)state;
    capture_begin(&capture);
    log_warn("port %d", 8443);
    capture_end(&capture, text, sizeof text);
    assert_int_equal(sscanf(text, "%4d-%2d-%2dT", &year, &month, &day), 3);
    assert_true(year >= 2024 && month >= 1 && month <= 12);
    assert_string_equal(strchr(text, 'Z'), "Z warn port 8443\n");
}

static void test_bytes_are_escaped(void **state)
{
    struct capture capture;
    char text[4096];
    (void)state;
    capture_begin(&capture);
    log_error("%s", "a\r\nb\x1b[0m\t\xff\x7f~");
    capture_end(&capture, text, sizeof text);
    assert_string_equal(strchr(text, 'Z'), "Z error a\\x0d\\x0ab\\x1b[0m\\x09\\xff\\x7f~\n");
}

static void test_long_lines_are_cut(void **state)
{
    static const char fillers[] = {'x', '\n'};
    (void)state;
    for (size_t i = 0; i < sizeof fillers; i++) {
        struct capture capture;
        char filler[2 * LOG_MAX_LINE], text[2 * LOG_MAX_LINE];
        memset(filler, fillers[i], sizeof filler);
        filler[sizeof filler - 1] = '\0';
        capture_begin(&capture);
        log_info("%s", filler);
        capture_end(&capture, text, sizeof text);
        size_t len = strlen(text);
        assert_true(len > LOG_MAX_LINE / 2 && len <= LOG_MAX_LINE + 64);
        assert_ptr_equal(strchr(text, '\n'), text + len - 1);
    }
}

static void test_levels(void **state)
{
    struct capture capture;
    char text[4096];
    (void)state;
    capture_begin(&capture);
    assert_false(log_is_on(LOG_LEVEL_DEBUG));
    log_debug("not written");
    log_set_level(LOG_LEVEL_ERROR);
    log_info("not written");
    capture_end(&capture, text, sizeof text);
    assert_string_equal(text, "");
    capture_begin(&capture);
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("written");
    log_set_level(LOG_LEVEL_INFO);
    capture_end(&capture, text, sizeof text);
    assert_non_null(strstr(text, " debug written\n"));
}

static void test_limit(void **state)
{
    struct log_limit limit = {.count = 0};
    unsigned passed = 0;
    (void)state;
    for (int i = 0; i < 100; i++)
        passed += log_limit_pass(&limit, 3);
    assert_true(passed >= 3 && passed <= 6); /* the second may turn once meanwhile */
    assert_false(log_limit_pass(&limit, 0));
}

/* ---- nobody reads ---- */

static void open_pipe(int fds[2])
{
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
}

static void open_fifo(int fds[2])
{
    char folder[] = "/tmp/test_log.XXXXXX", path[sizeof folder + 8];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/fifo", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    fds[0] = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    fds[1] = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fds[0] >= 0 && fds[1] >= 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0);
    unlink(path);
    rmdir(folder);
}

static void open_socket(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static size_t read_all(int fd, char *ret_text, size_t size)
{
    size_t len = 0;
    for (struct pollfd ready = {.fd = fd, .events = POLLIN}; poll(&ready, 1, 0) > 0;) {
        ssize_t n = read(fd, ret_text + len, size - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
    }
    ret_text[len] = '\0';
    return len;
}

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (; (text = strchr(text, '\n')) != NULL; text++)
        count++;
    return count;
}

static void nobody_waits_for_the_reader(void (*open_both)(int fds[2]))
{
    enum { LINES = 2000, SIZE = LINES * 2 * LOG_MAX_LINE };
    int fds[2], saved = dup(STDERR_FILENO);
    char *text = malloc(SIZE), expected[80], filler[1000];
    assert_non_null(text);
    memset(filler, 'x', sizeof filler);
    filler[sizeof filler - 1] = '\0';
    open_both(fds);
    assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
    for (int i = 0; i < LINES; i++)
        log_info("%s", filler);
    read_all(fds[0], text, SIZE);
    size_t written = count_lines(text);
    log_info("again");
    log_info("and again");
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_true(written > 0 && written < LINES);
    assert_int_equal(strlen(text) % written, 0); /* whole lines */
    read_all(fds[0], text, SIZE);
    snprintf(expected, sizeof expected, "Z warn log: %zu lines are lost here: stderr was full\n", LINES - written);
    assert_int_equal(strncmp(strchr(text, 'Z'), expected, strlen(expected)), 0);
    assert_int_equal(count_lines(text), 3);
    assert_non_null(strstr(text, " info again\n"));
    assert_non_null(strstr(text, " info and again\n"));
    close(fds[0]);
    close(fds[1]);
    free(text);
}

static void test_full_pipe(void **state)
{
    (void)state;
    nobody_waits_for_the_reader(open_pipe);
}

static void test_full_fifo(void **state)
{
    (void)state;
    nobody_waits_for_the_reader(open_fifo);
}

static void test_full_socket(void **state)
{
    (void)state;
    nobody_waits_for_the_reader(open_socket);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_bytes_are_escaped),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_full_pipe),
        cmocka_unit_test(test_full_fifo),
        cmocka_unit_test(test_full_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
