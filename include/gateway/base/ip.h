/*
 * ip: IPv4 and IPv6 addresses, networks, and "address:port" texts. Values, no ownership.
 *
 * IPv4-mapped IPv6 addresses (::ffff:a.b.c.d) are turned into IPv4 when parsed, so that no second spelling of an
 * address gets around a rule.
 */
#ifndef GATEWAY_BASE_IP_H
#define GATEWAY_BASE_IP_H

#include "gateway/base/slice.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { IP_TEXT_MAX = 46, IP_PORT_TEXT_MAX = 54 }; /* with NUL */

struct ip_addr {
    uint8_t family;    /* AF_INET, AF_INET6, or 0: none */
    uint8_t bytes[16]; /* network order; the first 4 for AF_INET, the rest zero */
};

struct ip_network {
    struct ip_addr addr;
    uint8_t prefix; /* bits */
};

/* What special kind of address this is (RFC 6890), for the rules of DESIGN section 4. */
enum ip_kind { IP_ORDINARY, IP_UNSPECIFIED, IP_LOOPBACK, IP_LINK_LOCAL, IP_MULTICAST, IP_BROADCAST, IP_METADATA };

union ip_sockaddr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

bool ip_parse(struct slice text, struct ip_addr *ret_addr);
/* "10.0.0.0/8", or a bare address as one with all bits. Bits after the prefix must be zero. */
bool ip_network_parse(struct slice text, struct ip_network *ret_network);
/* "1.2.3.4:443", "[::1]:443". Port 0 is allowed. */
bool ip_port_parse(struct slice text, struct ip_addr *ret_addr, uint16_t *ret_port);
/* "localhost" or a loopback address: what is sent there stays on this machine. */
bool ip_host_is_loopback(struct slice host);
bool ip_authority_is_loopback(struct slice authority); /* the same, with a port or without */

/* Writes the text with NUL into a buffer of IP_TEXT_MAX; returns its length. */
size_t ip_format(const struct ip_addr *addr, char *buffer);
/* "1.2.3.4:443" or "[::1]:443" into a buffer of IP_PORT_TEXT_MAX. */
size_t ip_port_format(const struct ip_addr *addr, uint16_t port, char *buffer);

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b);
bool ip_network_has(const struct ip_network *network, const struct ip_addr *addr);
/* True if every address of `inner` is in `outer`. */
bool ip_network_covers(const struct ip_network *outer, const struct ip_network *inner);
enum ip_kind ip_kind(const struct ip_addr *addr);
const char *ip_kind_name(enum ip_kind kind); /* "loopback" */
/* The network of that special kind that holds the address (127.0.0.0/8 for 127.1.2.3); for IP_ORDINARY false. */
bool ip_kind_network(const struct ip_addr *addr, struct ip_network *ret_network);

/* To and from socket addresses; the length for bind and connect is returned. Not an IP family: 0, port 0. */
socklen_t ip_to_sockaddr(const struct ip_addr *addr, uint16_t port, union ip_sockaddr *ret);
void ip_from_sockaddr(const struct sockaddr *sa, struct ip_addr *ret_addr, uint16_t *ret_port);

/* The addresses of this machine's interfaces, at most `max`; returns how many. Asks the kernel: not for the data path.
 */
size_t ip_local_addresses(struct ip_addr *ret_addrs, size_t max);

#endif
