/*
 * exchange_internal: the inside of an exchange: exchange.c (the pump), exchange_route.c (finding and opening the back
 * side, retries), exchange_answer.c (answers made here, the access log line).
 */
#ifndef GATEWAY_PROXY_EXCHANGE_INTERNAL_H
#define GATEWAY_PROXY_EXCHANGE_INTERNAL_H

#include "gateway/net/block_queue.h"
#include "gateway/proxy/app_traffic.h"
#include "gateway/proxy/exchange.h"
#include "gateway/proxy/pool.h"
#include "gateway/proxy/upstream.h"

enum exchange_state {
    EXCHANGE_HEAD,      /* the request head is not complete */
    EXCHANGE_WAITING,   /* sent on; no final response head yet */
    EXCHANGE_STREAMING, /* the response is under way */
    EXCHANGE_TUNNEL,    /* upgraded: bytes both ways */
    EXCHANGE_OVER,
};

struct exchange {
    struct connection *connection;
    struct proxy *proxy;
    struct endpoint *front;
    struct endpoint *back;
    struct arena arena;
    struct timer timer;
    struct deferred deferred;
    struct exchange *next_free;
    const struct message_head *request; /* as received; NULL before its head */
    struct message_head *forward;       /* as sent on, in the arena */
    struct block_queue kept;            /* request body from its beginning, so that it can go to another connection */
    size_t front_owed;                  /* received from the front and not credited */
    size_t back_owed;
    const struct claim *claim; /* that `back` uses; valid while it does, since its pool holds a reference */
    uint64_t back_serial;      /* of that claim, and its address, for the retry and the log */
    struct ip_addr back_address;
    struct app_traffic_entry *traffic; /* of the app, since it is known; NULL: not counted */
    struct meter *meter;               /* of the app, until the exchange is over; NULL: it has no limits */
    struct upstream_tried tried;
    struct slice host; /* without port, lower case */
    struct slice request_id;
    struct slice app_id;
    struct slice instance_id;
    uint64_t started_us;
    uint64_t started_wall_us;
    uint64_t dialed_us;
    uint64_t connect_us;
    uint64_t first_byte_us;
    uint64_t bytes_in;
    uint64_t bytes_out;
    enum status error;
    int response_status;
    uint16_t port;
    uint8_t state;
    uint8_t retries;
    bool request_ended;
    bool response_ended;
    bool front_answered; /* a final response head was sent */
    bool connecting;     /* the back side is not connected: the request body is kept */
    bool body_sent;      /* some of the request body left */
    bool request_lost;   /* something left that is not kept: no retry */
    bool back_reused;
    bool back_lost; /* it ended with its connection (HTTP/2) */
    bool is_queued; /* the instance allows no requests at present: waits until it does, `connecting` but for trailers */
    bool is_h2c;    /* what is spoken to the instance */
    bool is_grpc;   /* an error is told as such a client understands it */
    bool is_local;
    bool is_tunnel; /* for the log */
    bool app_ended_first;
};

extern const struct endpoint_events exchange_front_events;
extern const struct endpoint_events exchange_back_events;

void exchange_set_state(struct exchange *x, enum exchange_state state);

/* Finds out what the request's host means and begins to send the request there, or answers with an error. */
void exchange_route(struct exchange *x);
/* For the choice of instances: the back side, still bound, failed before it answered. */
void exchange_tell_failure(const struct exchange *x, enum status why);
/* The back side failed before it answered: tries another instance or connection; false: nothing is left to try. */
bool exchange_retry(struct exchange *x, enum status why);
/* Sends the kept part of the request body. It stays kept while an HTTP/2 instance may still refuse the request. */
void exchange_flush_kept(struct exchange *x);
/* The back side takes bytes: sends what is kept and lets more of the request come. */
void exchange_resume_front(struct exchange *x);
/* Keeps a piece that is sent on, for the same purpose. */
void exchange_keep_sent(struct exchange *x, const char *data, size_t len);

/* A complete answer made here. */
void exchange_answer_error(struct exchange *x, enum status status);
/* Ends a response of gRPC that has begun with the status as its outcome. */
void exchange_end_grpc(struct exchange *x, enum status status);
void exchange_answer_health(struct exchange *x);
void exchange_answer_redirect(struct exchange *x);
/* To an OPTIONS or TRACE that may go no farther. */
void exchange_answer_last_hop(struct exchange *x);

/* Ends both sides with what happened to them, writes the log line, frees at the end of the turn. */
void exchange_finish(struct exchange *x, enum status front, enum status back);
void exchange_log(struct exchange *x);

/* The value of Date in this second; valid until the next turn of the loop. */
struct slice exchange_date(const struct loop *loop);

/* Our name in Via. */
extern const struct slice exchange_via;

#endif
