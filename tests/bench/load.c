#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * OPENING_AT_ONCE: handshakes in progress. PATIENCE: seconds for all that is not the measurement. ENOUGH_BYTES: worth a
 * figure, before any answer is whole.
 */
enum {
    OPENING_AT_ONCE = 64,
    ENOUGH_BYTES = 1 << 20,
    MAX_EVENTS = 256,
    READ_BYTES = 32 * 1024,
    READS_A_TURN = 16,
    MAX_CLOCKS = 64,
    PATIENCE = 60
};

enum phase {
    PHASE_OPEN, /* until every connection has had an answer */
    PHASE_WARM_UP,
    PHASE_MEASURE, /* until there is a figure, too; with --idle: until standard input ends, and nothing is sent */
    PHASE_DRAIN,   /* until what is in progress has been answered */
};

struct load_options load_options = {
    .hosts = 1, .connections = 1, .streams = 1, .answer_bytes = 128, .warm_up = 0.3, .seconds = 1};

static struct {
    enum phase phase;
    uint64_t since;                /* that the phase began */
    uint64_t measured_ns, cpu_ns;  /* of the measurement, once it is over */
    uint64_t answered, bytes;      /* in it */
    uint64_t all_answered;         /* ever */
    uint64_t connections, resumed; /* ever */
    unsigned served, opening, open, next_to_open;
    struct load_conn *conns;
    SSL_CTX *tls;
    int epoll;
    clockid_t clocks[MAX_CLOCKS];
    unsigned clock_count;
} load;

void load_fail(const struct load_conn *conn, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    traffic_die("%s, %s: %s (after %llu answers)", load_options.protocol->name, conn->host_name, text,
                (unsigned long long)load.all_answered);
}

/* ---- what the protocols ask for ---- */

bool load_wants_request(const struct load_conn *conn)
{
    if (load.phase == PHASE_DRAIN || conn->over)
        return false;
    return !load_options.idle || !conn->served;
}

void load_answered(struct load_conn *conn)
{
    load.all_answered++;
    if (load.phase == PHASE_MEASURE)
        load.answered++;
    if (!conn->served) {
        conn->served = true;
        load.served++;
    }
    if (load_options.new_connections)
        conn->over = true;
}

void load_count_bytes(size_t bytes)
{
    if (load.phase == PHASE_MEASURE)
        load.bytes += bytes;
}

void load_check_body(struct load_conn *conn, uint64_t offset, const uint8_t *data, size_t length)
{
    char tag[TRAFFIC_TAG_BYTES + 1];
    traffic_tag(conn->host, tag);
    load_count_bytes(length);
    if (offset + length > load_options.answer_bytes)
        load_fail(conn, "the body has more than %llu bytes", (unsigned long long)load_options.answer_bytes);
    if (offset < TRAFFIC_TAG_BYTES) {
        size_t in_tag = TRAFFIC_TAG_BYTES - (size_t)offset;
        in_tag = length < in_tag ? length : in_tag;
        if (memcmp(tag + offset, data, in_tag) != 0)
            load_fail(conn, "the body begins with %.*s, which is another host's",
                      (int)(in_tag < TRAFFIC_TAG_BYTES ? in_tag : TRAFFIC_TAG_BYTES - 1), (const char *)data);
        offset += in_tag;
        data += in_tag;
        length -= in_tag;
    }
    if (!traffic_matches(offset, data, length))
        load_fail(conn, "wrong bytes in the body, near byte %llu", (unsigned long long)offset);
}

size_t load_out_room(const struct load_conn *conn)
{
    return LOAD_OUT_BYTES - conn->out_length;
}

void load_put(struct load_conn *conn, const void *data, size_t length)
{
    if (!conn->out && !(conn->out = malloc(LOAD_OUT_BYTES)))
        traffic_die("load: no memory");
    if (length > load_out_room(conn))
        load_fail(conn, "%zu bytes to send and no room for them", length);
    memcpy(conn->out + conn->out_length, data, length);
    conn->out_length += length;
}

/* ---- connections ---- */

static void watch(struct load_conn *conn, int operation, bool wants_out)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0U), .data.ptr = conn};
    if (epoll_ctl(load.epoll, operation, conn->link.fd, &event) != 0)
        load_fail(conn, "epoll_ctl: %s", strerror(errno));
    conn->wants_out = wants_out;
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct load_conn *conn = SSL_get_app_data(ssl);
    SSL_SESSION_free(conn->session);
    conn->session = session;
    return 1;
}

static void make_ssl(struct load_conn *conn)
{
    SSL *ssl = conn->link.ssl = SSL_new(load.tls);
    if (!ssl || SSL_set_fd(ssl, conn->link.fd) != 1 || SSL_set_tlsext_host_name(ssl, conn->host_name) != 1 ||
        SSL_set1_host(ssl, conn->host_name) != 1)
        load_fail(conn, "cannot make an SSL");
    SSL_set_app_data(ssl, conn);
    SSL_set_connect_state(ssl);
    if (conn->session)
        SSL_set_session(ssl, conn->session);
}

/* Hosts take turns; with --resume a place keeps its host, whose session it has. */
static void conn_open(struct load_conn *conn)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load_options.port)};
    address.sin_addr.s_addr = load_options.is_direct ? traffic_address(0) : htonl(INADDR_LOOPBACK);
    if (!conn->session)
        conn->host = (unsigned)(load.connections % load_options.hosts);
    load.connections++;
    load.opening++;
    traffic_host_name(conn->host, load_options.backend_port, conn->host_name);
    conn->link.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->link.fd < 0)
        load_fail(conn, "socket: %s", strerror(errno));
    setsockopt(conn->link.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(conn->link.fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        load_fail(conn, "connect: %s", strerror(errno));
    make_ssl(conn);
    watch(conn, EPOLL_CTL_ADD, true);
}

static void conn_close(struct load_conn *conn)
{
    load_options.protocol->close(conn);
    link_close(&conn->link);
    free(conn->out);
    conn->out = NULL;
    conn->out_length = conn->out_sent = 0;
    conn->requests = 0;
    conn->open = conn->over = false;
    load.open--;
}

/* Checks what was agreed on: TLS 1.3, cipher suite and key exchange are the only ones that were offered. */
static void on_handshake_done(struct load_conn *conn)
{
    const unsigned char *alpn = NULL;
    unsigned length = 0;
    const char *expected = load_options.protocol->alpn;
    SSL_get0_alpn_selected(conn->link.ssl, &alpn, &length);
    if (length != strlen(expected) || memcmp(alpn, expected, length) != 0)
        load_fail(conn, "ALPN chose \"%.*s\", not %s", (int)length, (const char *)alpn, expected);
    if (SSL_session_reused(conn->link.ssl))
        load.resumed++;
    else if (conn->session)
        load_fail(conn, "the session was not resumed");
    conn->open = true;
    load.open++;
    load.opening--;
    load_options.protocol->open(conn);
}

static void conn_read(struct load_conn *conn)
{
    static uint8_t buffer[READ_BYTES];
    for (int i = 0; i < READS_A_TURN && !conn->over; i++) {
        ssize_t got = link_read(&conn->link, buffer, sizeof buffer);
        if (got == LINK_AGAIN)
            return;
        if (got == LINK_END || got == LINK_ERROR)
            load_fail(conn, "the proxy %s the connection, %u requests in progress",
                      got == LINK_END ? "closed" : "reset", conn->requests);
        load_options.protocol->input(conn, buffer, (size_t)got);
        if ((size_t)got < sizeof buffer / 8)
            return; /* most likely all; if not, there is another event */
    }
}

static void conn_write(struct load_conn *conn)
{
    bool again = false;
    while (!again) {
        if (conn->out_sent == conn->out_length) {
            conn->out_sent = conn->out_length = 0;
            load_options.protocol->fill(conn);
            if (conn->out_length == 0)
                break;
        }
        ssize_t sent = link_write(&conn->link, conn->out + conn->out_sent, conn->out_length - conn->out_sent);
        if (sent == LINK_ERROR || sent == LINK_END)
            load_fail(conn, "the proxy closed the connection while something was sent");
        again = sent == LINK_AGAIN;
        conn->out_sent += again ? 0 : (size_t)sent;
    }
    if (!again) {
        free(conn->out);
        conn->out = NULL;
    }
    if (conn->wants_out != again)
        watch(conn, EPOLL_CTL_MOD, again);
}

static void conn_turn(struct load_conn *conn, uint32_t events)
{
    bool again = false;
    if (!conn->open) {
        if (!link_handshake(&conn->link, &again)) {
            if (!again)
                load_fail(conn, "the handshake failed, the certificate is %s",
                          X509_verify_cert_error_string(SSL_get_verify_result(conn->link.ssl)));
            if (conn->wants_out)
                watch(conn, EPOLL_CTL_MOD, false); /* what is left to wait for is the server's word */
            return;
        }
        on_handshake_done(conn);
    }
    if (events & ~(uint32_t)EPOLLOUT)
        conn_read(conn);
    if (!conn->over)
        conn_write(conn);
    if (conn->over) {
        conn_close(conn);
        if (load.phase != PHASE_DRAIN)
            conn_open(conn);
    }
}

static void open_more(void)
{
    while (load.next_to_open < load_options.connections && load.opening < OPENING_AT_ONCE)
        conn_open(&load.conns[load.next_to_open++]);
}

/* ---- phases ---- */

static uint64_t cpu_ns(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < load.clock_count; i++) {
        struct timespec time;
        if (clock_gettime(load.clocks[i], &time) != 0)
            traffic_die("load: a process that is measured has ended");
        sum += (uint64_t)time.tv_sec * 1000000000U + (uint64_t)time.tv_nsec;
    }
    return sum;
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

static void enter(enum phase phase)
{
    uint64_t now = traffic_now_ns();
    if (load.phase == PHASE_MEASURE) {
        load.measured_ns = now - load.since;
        load.cpu_ns = cpu_ns() - load.cpu_ns;
        say("end");
    }
    if (phase == PHASE_MEASURE) {
        say("begin");
        load.cpu_ns = cpu_ns();
    }
    load.phase = phase;
    load.since = now;
}

static bool has_requests(void)
{
    for (unsigned i = 0; i < load_options.connections; i++)
        if (load.conns[i].requests > 0)
            return true;
    return false;
}

/* False: all is over. */
static bool advance(void)
{
    double seconds = (double)(traffic_now_ns() - load.since) / 1e9;
    switch (load.phase) {
    case PHASE_OPEN:
        if (load.served == load_options.connections)
            enter(load_options.idle ? PHASE_MEASURE : PHASE_WARM_UP);
        else if (seconds > PATIENCE)
            traffic_die("load: %u of %u connections had an answer within %d s", load.served, load_options.connections,
                        PATIENCE);
        break;
    case PHASE_WARM_UP:
        if (seconds >= load_options.warm_up)
            enter(PHASE_MEASURE);
        break;
    case PHASE_MEASURE:
        if (load_options.idle || seconds < load_options.seconds)
            break;
        if (load.answered > 0 || load.bytes >= ENOUGH_BYTES)
            enter(PHASE_DRAIN);
        else if (seconds > load_options.seconds + PATIENCE)
            traffic_die("load: no answer within %.1f s", seconds);
        break;
    case PHASE_DRAIN:
        if (seconds > PATIENCE)
            traffic_die("load: some requests got no answer within %d s", PATIENCE);
        return load.opening > 0 || has_requests();
    }
    return true;
}

/* What the driver does is over when it closes standard input. */
static void on_input(void)
{
    char byte;
    if (read(STDIN_FILENO, &byte, 1) > 0)
        return;
    if (!load_options.idle || load.phase != PHASE_MEASURE)
        exit(1);
    if (load.open != load_options.connections)
        traffic_die("load: %u of %u connections were open at the end", load.open, load_options.connections);
    enter(PHASE_DRAIN);
}

static void run(void)
{
    while (advance()) {
        struct epoll_event events[MAX_EVENTS];
        open_more();
        int count = epoll_wait(load.epoll, events, MAX_EVENTS, 5);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                conn_turn(events[i].data.ptr, events[i].events);
            else
                on_input();
        }
    }
}

static void report(void)
{
    printf("{\"seconds\": %.6f, \"cpu_seconds\": %.9f, \"answered\": %llu, \"bytes\": %llu, \"all_answered\": %llu, "
           "\"connections\": %llu, \"resumed\": %llu}\n",
           (double)load.measured_ns / 1e9, (double)load.cpu_ns / 1e9, (unsigned long long)load.answered,
           (unsigned long long)load.bytes, (unsigned long long)load.all_answered, (unsigned long long)load.connections,
           (unsigned long long)load.resumed);
}

/* ---- start ---- */

static void make_tls(void)
{
    unsigned char alpn[32];
    size_t length = strlen(load_options.protocol->alpn);
    alpn[0] = (unsigned char)length;
    memcpy(alpn + 1, load_options.protocol->alpn, length);
    load.tls = SSL_CTX_new(TLS_client_method());
    if (!load.tls || SSL_CTX_set_min_proto_version(load.tls, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(load.tls, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set1_groups_list(load.tls, "X25519") != 1 ||
        SSL_CTX_load_verify_locations(load.tls, load_options.certificate, NULL) != 1 ||
        SSL_CTX_set_alpn_protos(load.tls, alpn, (unsigned)length + 1) != 0)
        traffic_die("load: cannot make an SSL_CTX with %s", load_options.certificate);
    SSL_CTX_set_verify(load.tls, SSL_VERIFY_PEER, NULL);
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(load.tls), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_mode(load.tls,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(load.tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (load_options.resume)
        SSL_CTX_sess_set_new_cb(load.tls, keep_session);
}

static void find_clocks(const char *processes)
{
    char *end;
    for (const char *at = processes; at && *at; at = *end ? end + 1 : end) {
        long pid = strtol(at, &end, 10);
        if (end == at || load.clock_count == MAX_CLOCKS ||
            clock_getcpuclockid((pid_t)pid, &load.clocks[load.clock_count++]) != 0)
            traffic_die("load: no CPU clock of process %s", at);
    }
}

static const struct load_protocol *find_protocol(const char *name)
{
    static const struct load_protocol *const all[] = {&load_h1, &load_h2, &load_websocket, &load_grpc};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    traffic_die("load: no protocol %s", name);
}

static void set_option(int option, const char *value)
{
    switch (option) {
    case 'P':
        load_options.protocol = find_protocol(value);
        break;
    case 'C':
        load_options.certificate = value;
        break;
    case 'k':
        load_options.clocks = value;
        break;
    case 'p':
        load_options.port = (unsigned)atoi(value);
        break;
    case 'b':
        load_options.backend_port = (unsigned)atoi(value);
        break;
    case 'h':
        load_options.hosts = (unsigned)atoi(value);
        break;
    case 'c':
        load_options.connections = (unsigned)atoi(value);
        break;
    case 's':
        load_options.streams = (unsigned)atoi(value);
        break;
    case 'a':
        load_options.answer_bytes = strtoull(value, NULL, 10);
        break;
    case 'u':
        load_options.upload_bytes = strtoull(value, NULL, 10);
        load_options.answer_bytes = TRAFFIC_TAG_BYTES;
        break;
    case 'n':
        load_options.new_connections = true;
        break;
    case 'r':
        load_options.new_connections = load_options.resume = true;
        break;
    case 'i':
        load_options.idle = true;
        break;
    case 'd':
        load_options.is_direct = true;
        break;
    case 'w':
        load_options.warm_up = atof(value);
        break;
    case 't':
        load_options.seconds = atof(value);
        break;
    default:
        traffic_die(
            "usage: bench_load --protocol h1|h2|websocket|grpc --port PORT --backend-port PORT --certificate FILE "
            "[--clocks PID,...] [--hosts N] [--connections N] [--streams N] [--answer BYTES | --upload BYTES] "
            "[--new-connections | --resume | --idle] [--direct] [--warm-up S] [--seconds S]");
    }
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"protocol", required_argument, NULL, 'P'},
        {"certificate", required_argument, NULL, 'C'},
        {"clocks", required_argument, NULL, 'k'},
        {"port", required_argument, NULL, 'p'},
        {"backend-port", required_argument, NULL, 'b'},
        {"hosts", required_argument, NULL, 'h'},
        {"connections", required_argument, NULL, 'c'},
        {"streams", required_argument, NULL, 's'},
        {"answer", required_argument, NULL, 'a'},
        {"upload", required_argument, NULL, 'u'},
        {"new-connections", no_argument, NULL, 'n'},
        {"resume", no_argument, NULL, 'r'},
        {"idle", no_argument, NULL, 'i'},
        {"direct", no_argument, NULL, 'd'},
        {"warm-up", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 't'},
        {0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
        set_option(option, optarg);
    if (optind != argc || !load_options.protocol || !load_options.certificate || load_options.port == 0 ||
        load_options.backend_port == 0 || load_options.hosts == 0 || load_options.connections == 0 ||
        load_options.streams == 0 || load_options.streams > LOAD_MAX_STREAMS)
        set_option('?', NULL);
    if (load_options.protocol == &load_grpc) {
        load_options.upload_bytes = TRAFFIC_CALL_BYTES;
        load_options.answer_bytes = TRAFFIC_REPLY_BYTES;
    }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    traffic_raise_limits();
    find_clocks(load_options.clocks);
    make_tls();
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.conns = calloc(load_options.connections, sizeof *load.conns);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (!load.conns || epoll_ctl(load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0)
        traffic_die("load: standard input must be a pipe");
    enter(PHASE_OPEN);
    run();
    report();
    return 0;
}
