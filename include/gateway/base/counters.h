/*
 * counters: what a loop counts, in one table that is also the list of metrics.
 *
 * Each worker owns one `struct counters` on cache lines of its own and writes it without locks; the control thread
 * reads and adds them up. Gauges go up and down, counters only up.
 */
#ifndef GATEWAY_BASE_COUNTERS_H
#define GATEWAY_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

/* X(name, kind, help) */
#define COUNTERS_TABLE(X)                                                                                              \
    X(connections, GAUGE, "Open client connections")                                                                   \
    X(connections_idle, GAUGE, "Client connections that wait for a request")                                           \
    X(connections_total, COUNTER, "Client connections accepted")                                                       \
    X(connections_evicted_total, COUNTER, "Idle client connections closed to make room")                               \
    X(connections_refused_total, COUNTER, "Client connections closed at once because none could be evicted")           \
    X(closings_cut_total, COUNTER, "Closed connections cut off because too much waited for their peers to take it")    \
    X(handshakes_total, COUNTER, "TLS handshakes completed")                                                           \
    X(handshakes_resumed_total, COUNTER, "TLS handshakes that resumed a session")                                      \
    X(handshakes_failed_total, COUNTER, "TLS handshakes that failed")                                                  \
    X(requests_total, COUNTER, "Requests received")                                                                    \
    X(requests_active, GAUGE, "Requests in progress")                                                                  \
    X(responses_1xx_total, COUNTER, "Interim responses passed on")                                                     \
    X(responses_2xx_total, COUNTER, "Responses with a 2xx status")                                                     \
    X(responses_3xx_total, COUNTER, "Responses with a 3xx status")                                                     \
    X(responses_4xx_total, COUNTER, "Responses with a 4xx status")                                                     \
    X(responses_5xx_total, COUNTER, "Responses with a 5xx status")                                                     \
    X(gateway_errors_total, COUNTER, "Responses made by the gateway because of an error")                              \
    X(requests_aborted_total, COUNTER, "Requests that ended before their response was complete")                       \
    X(h2_glitches_total, COUNTER, "HTTP/2 frames that did no work")                                                    \
    X(h2_floods_total, COUNTER, "HTTP/2 connections closed because of too many frames that did no work")               \
    X(h2_windows_extra_bytes, GAUGE, "Bytes that HTTP/2 peers may send beyond the usual windows, summed over workers") \
    X(h2_streams_refused_total, COUNTER, "HTTP/2 streams refused before a request could be read")                      \
    X(tunnels_active, GAUGE, "Upgraded connections and tunnels in progress")                                           \
    X(tunnels_total, COUNTER, "Upgraded connections and tunnels begun")                                                \
    X(tunnels_tcp_total, COUNTER, "Raw TCP tunnels begun")                                                             \
    X(tunnels_passthrough_total, COUNTER, "TLS passthrough tunnels begun")                                             \
    X(proxy_headers_refused_total, COUNTER, "Client connections closed for their PROXY header, or for the lack of it") \
    X(bytes_received_total, COUNTER, "Body and tunnel bytes received from clients")                                    \
    X(bytes_sent_total, COUNTER, "Body and tunnel bytes sent to clients")                                              \
    X(upstream_connections, GAUGE, "Open connections to instances")                                                    \
    X(upstream_connections_idle, GAUGE, "Pooled connections to instances")                                             \
    X(upstream_connects_total, COUNTER, "Connections to instances attempted")                                          \
    X(upstream_connect_errors_total, COUNTER, "Connections to instances that failed")                                  \
    X(upstream_reused_total, COUNTER, "Requests sent on a pooled connection")                                          \
    X(upstream_retries_total, COUNTER, "Requests tried again")                                                         \
    X(upstream_revoked_total, COUNTER, "Connections closed because their instance lost its address")                   \
    X(dns_lookups_total, COUNTER, "Custom domains looked up by DNS")                                                   \
    X(dns_failures_total, COUNTER, "Look-ups that no DNS server answered in time or soundly")                          \
    X(dns_cache_hits_total, COUNTER, "Custom domains answered from the cache of look-ups")                             \
    X(dns_refused_total, COUNTER, "Look-ups not made because too many were in progress")                               \
    X(app_limits_total, COUNTER, "Requests and tunnels refused because of their app's own limits")                     \
    X(upstream_ejected, GAUGE, "Ports of instances that get no requests for a while, summed over workers")             \
    X(upstream_ejections_total, COUNTER, "Ports of instances ejected because of failures in a row")                    \
    X(upstream_down, GAUGE, "Ports of instances that their active check found down, summed over workers")              \
    X(upstream_checks_total, COUNTER, "Active checks of instances made")                                               \
    X(upstream_checks_failed_total, COUNTER, "Active checks of instances that failed")                                 \
    X(access_log_lines_total, COUNTER, "Access log lines handed to the log thread")                                    \
    X(access_log_dropped_total, COUNTER, "Access log lines dropped because the log thread was behind")

struct counters {
#define X(name, kind, help) _Atomic uint64_t name;
    COUNTERS_TABLE(X)
#undef X
} __attribute__((aligned(64)));

/* For the owner only: plain load and store, no locked instruction. */
#define COUNTER_ADD(counters, name, n)                                                                                 \
    atomic_store_explicit(&(counters)->name,                                                                           \
                          atomic_load_explicit(&(counters)->name, memory_order_relaxed) + (uint64_t)(n),               \
                          memory_order_relaxed)
#define COUNTER_INC(counters, name) COUNTER_ADD(counters, name, 1)
#define COUNTER_DEC(counters, name) COUNTER_ADD(counters, name, -1)

/* Adds the values of `from` (any thread's) to `sum` (the caller's). */
void counters_add(struct counters *sum, const struct counters *from);

#endif
