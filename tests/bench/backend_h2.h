/*
 * backend_h2: HTTP/2 of the backend (backend.c), for gRPC: each call's message of TRAFFIC_CALL_BYTES is answered with
 * one of TRAFFIC_REPLY_BYTES, which is a body as traffic.h has it, and a status of 0. Bytes in, bytes out. Whatever is
 * wrong ends the program.
 */
#ifndef TESTS_BENCH_BACKEND_H2_H
#define TESTS_BENCH_BACKEND_H2_H

#include "traffic.h"

struct backend_h2;

struct backend_h2 *backend_h2_new(unsigned host, unsigned port);
void backend_h2_free(struct backend_h2 **h2);

void backend_h2_feed(struct backend_h2 *h2, const uint8_t *data, size_t length);

/* What is to be sent next, 0 when there is nothing; the bytes are good until the next call. */
size_t backend_h2_next(struct backend_h2 *h2, const uint8_t **ret_data);

#endif
