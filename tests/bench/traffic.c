#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATTERN_PERIOD = 251 };

void traffic_host_name(unsigned number, unsigned port, char ret_name[TRAFFIC_HOST_MAX])
{
    snprintf(ret_name, TRAFFIC_HOST_MAX, "app%u-%u.cluster.example", number, port);
}

uint32_t traffic_address(unsigned number)
{
    return htonl((UINT32_C(127) << 24 | UINT32_C(77) << 16) + number);
}

void traffic_tag(unsigned number, char ret_tag[TRAFFIC_TAG_BYTES + 1])
{
    snprintf(ret_tag, TRAFFIC_TAG_BYTES + 1, "%07u\n", number % 10000000);
}

void traffic_prefix(size_t bytes, uint8_t ret_prefix[TRAFFIC_PREFIX_BYTES])
{
    ret_prefix[0] = 0; /* not compressed */
    for (size_t i = 1; i < TRAFFIC_PREFIX_BYTES; i++)
        ret_prefix[i] = (uint8_t)(bytes >> (8 * (TRAFFIC_PREFIX_BYTES - 1 - i)));
}

const uint8_t *traffic_pattern(uint64_t offset)
{
    static uint8_t pattern[TRAFFIC_MAX_PIECE + PATTERN_PERIOD];
    static bool made;
    if (!made) {
        for (size_t i = 0; i < sizeof pattern; i++)
            pattern[i] = (uint8_t)(i % PATTERN_PERIOD);
        made = true;
    }
    return pattern + offset % PATTERN_PERIOD;
}

bool traffic_matches(uint64_t offset, const uint8_t *data, size_t length)
{
    while (length > 0) {
        size_t piece = length < TRAFFIC_MAX_PIECE ? length : TRAFFIC_MAX_PIECE;
        if (memcmp(traffic_pattern(offset), data, piece) != 0)
            return false;
        offset += piece;
        data += piece;
        length -= piece;
    }
    return true;
}

const char *traffic_field(const char *head, const char *name, size_t *ret_length)
{
    size_t name_length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, name_length) != 0 || line[name_length] != ':')
            continue;
        const char *value = line + name_length + 1;
        value += strspn(value, " ");
        *ret_length = strcspn(value, "\r\n");
        return value;
    }
    return NULL;
}

uint64_t traffic_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void traffic_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    ERR_print_errors_fp(stderr);
    exit(1);
}

void traffic_raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- link ---- */

static ssize_t ssl_result(struct link *link, int result)
{
    switch (SSL_get_error(link->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return LINK_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return LINK_END;
    default:
        return LINK_ERROR;
    }
}

static ssize_t socket_result(ssize_t result)
{
    if (result >= 0)
        return result;
    return errno == EAGAIN ? LINK_AGAIN : LINK_ERROR;
}

ssize_t link_read(struct link *link, void *buffer, size_t size)
{
    if (!link->ssl)
        return socket_result(recv(link->fd, buffer, size, 0));
    int got = SSL_read(link->ssl, buffer, (int)size);
    return got > 0 ? got : ssl_result(link, got);
}

ssize_t link_write(struct link *link, const void *data, size_t length)
{
    if (!link->ssl)
        return socket_result(send(link->fd, data, length, MSG_NOSIGNAL));
    int sent = SSL_write(link->ssl, data, (int)length);
    return sent > 0 ? sent : ssl_result(link, sent);
}

bool link_handshake(struct link *link, bool *ret_again)
{
    if (!link->ssl)
        return true;
    int result = SSL_do_handshake(link->ssl);
    if (result == 1)
        return true;
    *ret_again = ssl_result(link, result) == LINK_AGAIN;
    return false;
}

void link_close(struct link *link)
{
    if (link->ssl) {
        if (SSL_is_init_finished(link->ssl))
            SSL_shutdown(link->ssl);
        SSL_free(link->ssl);
        ERR_clear_error();
    }
    close(link->fd);
    link->ssl = NULL;
    link->fd = -1;
}
