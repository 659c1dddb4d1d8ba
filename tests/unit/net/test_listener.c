#include "gateway/net/listener.h"

#include "net/sockets.h"

#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct counters counters;
static int accepted_fd = -1;
static unsigned accepted_count;
static struct ip_addr accepted_peer;
static uint16_t accepted_port;

static void on_accepted(void *owner, int fd, const struct ip_addr *peer, uint16_t peer_port)
{
    assert_ptr_equal(owner, &counters);
    if (accepted_fd >= 0)
        close(accepted_fd);
    accepted_fd = fd;
    accepted_count++;
    accepted_peer = *peer;
    accepted_port = peer_port;
}

static int set_up(void **state)
{
    accepted_count = 0;
    *state = loop_new(&counters);
    return 0;
}

static int tear_down(void **state)
{
    if (accepted_fd >= 0)
        close(accepted_fd);
    accepted_fd = -1;
    loop_free((struct loop **)state);
    return 0;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    assert_return_code(getsockname(fd, (struct sockaddr *)(void *)&at, &len), errno);
    return ntohs(at.sin_port);
}

static int open_tcp(uint16_t port)
{
    char error[LISTENER_ERROR_TEXT_MAX] = "";
    struct ip_addr addr = loopback_ip();
    int fd = listener_open_tcp(&addr, port, true, error);
    if (fd < 0)
        fail_msg("%s", error);
    return fd;
}

static void tcp_connections_come_ready_to_use(void **state)
{
    struct loop *loop = *state;
    int fd = open_tcp(0);
    struct listener *listener = listener_new(loop, fd, on_accepted, &counters);
    int client = connect_to(port_of(fd));
    TURN_UNTIL(loop, accepted_count == 1);
    struct ip_addr expected = loopback_ip();
    assert_true(ip_equal(&accepted_peer, &expected));
    assert_int_equal(accepted_port, port_of(client));
    assert_true(fcntl(accepted_fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(accepted_fd, F_GETFD) & FD_CLOEXEC);
    int nodelay = 0;
    socklen_t len = sizeof nodelay;
    assert_return_code(getsockopt(accepted_fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len), errno);
    assert_true(nodelay);
    close(client);
    listener_free(&listener);
    listener_free(&listener); /* accepts NULL */
}

static void more_connections_than_one_callback_takes_all_come(void **state)
{
    enum { MANY = 50 };
    struct loop *loop = *state;
    int fd = open_tcp(0), clients[MANY];
    struct listener *listener = listener_new(loop, fd, on_accepted, &counters);
    for (int i = 0; i < MANY; i++)
        clients[i] = connect_to(port_of(fd));
    TURN_UNTIL(loop, accepted_count == MANY);
    for (int i = 0; i < MANY; i++)
        close(clients[i]);
    listener_free(&listener);
}

static void on_readable(void *arg)
{
    ++*(unsigned *)arg;
}

/* The listener's turn comes after that of all others that are ready: one connection each time would be little. */
static void nobody_waits_behind_a_crowd(void **state)
{
    enum { CROWD = 600, CLIENTS = 32 };
    struct loop *loop = *state;
    int fd = open_tcp(0), clients[CLIENTS], ready[CROWD];
    struct listener *listener = listener_new(loop, fd, on_accepted, &counters);
    struct loop_watch *crowd[CROWD];
    unsigned calls = 0;
    for (size_t i = 0; i < CROWD; i++) {
        ready[i] = eventfd(1, EFD_CLOEXEC);
        crowd[i] = loop_watch_new(loop, ready[i], on_readable, &calls);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i] = connect_to(port_of(fd));
    while (calls < 4 * CROWD)
        loop_turn(loop, 0);
    assert_int_equal(accepted_count, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        close(clients[i]);
    for (size_t i = 0; i < CROWD; i++) {
        loop_watch_free(&crowd[i]);
        close(ready[i]);
    }
    listener_free(&listener);
}

static void who_waits_is_taken_before_the_end(void **state)
{
    enum { MANY = 50 };
    struct loop *loop = *state;
    int fd = open_tcp(0), clients[MANY];
    struct listener *listener = listener_new(loop, fd, on_accepted, &counters);
    for (int i = 0; i < MANY; i++)
        clients[i] = connect_to(port_of(fd));
    listener_close(&listener);
    assert_null(listener);
    assert_int_equal(accepted_count, MANY);
    listener_close(&listener); /* accepts NULL */
    for (int i = 0; i < MANY; i++)
        close(clients[i]);
}

static void a_connection_may_come_in_any_turn(void **state)
{
    struct loop *loop = *state;
    for (unsigned turns = 0; turns < 4; turns++) {
        int fd = open_tcp(0);
        struct listener *listener = listener_new(loop, fd, on_accepted, &counters);
        accepted_count = 0;
        while (loop_turns(loop) < turns)
            loop_turn(loop, 0);
        int client = connect_to(port_of(fd));
        TURN_UNTIL(loop, accepted_count == 1);
        close(client);
        listener_free(&listener);
        loop_free(&loop);
        loop = loop_new(&counters);
    }
    *state = loop;
}

static void workers_share_a_port(void **state)
{
    (void)state;
    int first = open_tcp(0), second = open_tcp(port_of(first));
    close(first);
    close(second);
}

static void a_taken_port_is_said_so(void **state)
{
    (void)state;
    uint16_t port;
    int other = listen_any(&port); /* without SO_REUSEPORT */
    char error[LISTENER_ERROR_TEXT_MAX] = "";
    struct ip_addr addr = loopback_ip();
    assert_int_equal(listener_open_tcp(&addr, port, true, error), -1);
    assert_non_null(strstr(error, "127.0.0.1:"));
    assert_non_null(strstr(error, "another program"));
    close(other);
}

static void only_what_is_shared_stands_beside_another(void **state)
{
    (void)state;
    char error[LISTENER_ERROR_TEXT_MAX] = "";
    struct ip_addr addr = loopback_ip();
    int alone = listener_open_tcp(&addr, 0, false, error);
    assert_return_code(alone, errno);
    assert_int_equal(listener_open_tcp(&addr, port_of(alone), false, error), -1);
    assert_non_null(strstr(error, "another program"));
    int shared = open_tcp(0);
    assert_int_equal(listener_open_tcp(&addr, port_of(shared), false, error), -1);
    assert_int_equal(listener_open_tcp(&addr, port_of(alone), true, error), -1);
    close(alone);
    close(shared);
}

/* ---- unix sockets ---- */

static char folder[] = "/tmp/gateway-listener-XXXXXX";
static char path[128];

static int make_folder(void **state)
{
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/control.sock", folder);
    return set_up(state);
}

static int remove_folder(void **state)
{
    unlink(path);
    rmdir(folder);
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    return tear_down(state);
}

static int connect_unix(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(connect(fd, (struct sockaddr *)(void *)&to, sizeof to), errno);
    return fd;
}

static void a_unix_socket_has_its_mode_and_no_peer(void **state)
{
    struct loop *loop = *state;
    char error[LISTENER_ERROR_TEXT_MAX] = "";
    struct stat what;
    int fd = listener_open_unix(path, 0660, error);
    assert_return_code(fd, errno);
    assert_return_code(stat(path, &what), errno);
    assert_int_equal(what.st_mode & 0777, 0660);
    struct listener *listener = listener_new(loop, fd, on_accepted, &counters);
    int client = connect_unix();
    TURN_UNTIL(loop, accepted_count == 1);
    assert_int_equal(accepted_peer.family, 0);
    close(client);
    listener_free(&listener);
}

static void a_stale_socket_is_replaced_a_live_one_is_not(void **state)
{
    (void)state;
    char error[LISTENER_ERROR_TEXT_MAX] = "";
    int fd = listener_open_unix(path, 0600, error);
    assert_return_code(fd, errno);
    assert_int_equal(listener_open_unix(path, 0600, error), -1);
    assert_non_null(strstr(error, path));
    close(fd); /* as a killed process leaves it */
    fd = listener_open_unix(path, 0600, error);
    assert_return_code(fd, errno);
    close(fd);
}

static void another_file_at_the_path_is_left_alone(void **state)
{
    (void)state;
    char error[LISTENER_ERROR_TEXT_MAX] = "";
    struct stat what;
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(listener_open_unix(path, 0600, error), -1);
    assert_return_code(stat(path, &what), errno);
    assert_true(S_ISREG(what.st_mode));
}

static void a_path_that_is_too_long_is_said_so(void **state)
{
    (void)state;
    char error[LISTENER_ERROR_TEXT_MAX] = "", long_path[200];
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    assert_int_equal(listener_open_unix(long_path, 0600, error), -1);
    assert_non_null(strstr(error, "too long"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tcp_connections_come_ready_to_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_connections_than_one_callback_takes_all_come, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_waits_behind_a_crowd, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_waits_is_taken_before_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_connection_may_come_in_any_turn, set_up, tear_down),
        cmocka_unit_test(workers_share_a_port),
        cmocka_unit_test(a_taken_port_is_said_so),
        cmocka_unit_test(only_what_is_shared_stands_beside_another),
        cmocka_unit_test_setup_teardown(a_unix_socket_has_its_mode_and_no_peer, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_stale_socket_is_replaced_a_live_one_is_not, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(another_file_at_the_path_is_left_alone, make_folder, remove_folder),
        cmocka_unit_test(a_path_that_is_too_long_is_said_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
