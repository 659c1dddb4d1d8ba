/*
 * fetch: the HTTP client of the control thread (libcurl behind it): calls other gateways, an orchestrator, etcd.
 *
 * One fetcher for each loop; everything happens on it, and nothing blocks but the reading of small local files (token,
 * certificates), which are read again for each connection. HTTP/1.1 over TCP, TLS or a unix socket. Redirects are not
 * followed, and no proxy is taken from the environment: an answer is what the named server says.
 *
 * Events come from the loop, never inside the call that starts, cancels or resumes a fetch.
 */
#ifndef GATEWAY_CONTROL_FETCH_H
#define GATEWAY_CONTROL_FETCH_H

#include "gateway/base/slice.h"
#include "gateway/net/loop.h"

enum { FETCH_ERROR_TEXT_MAX = 512 };

struct fetcher;
struct fetch;

/* Paths of PEM files. */
struct fetch_tls {
    const char *ca;          /* what the server's certificate is checked against; NULL: the system's */
    const char *certificate; /* ours, with its chain; NULL: none */
    const char *private_key; /* without a passphrase */
};

/* All of it is copied. */
struct fetch_request {
    const char *method;
    const char *url;           /* http:// or https:// */
    const char *unix_socket;   /* where to connect instead of to the URL's host; NULL: there */
    const char *const *fields; /* "Name: value", ends with NULL; may be NULL */
    const char *token_file;    /* Authorization: Bearer with its token; NULL: none */
    struct slice body;
    bool has_body; /* of Content-Type: application/json, if `fields` names no other */
    struct fetch_tls tls;
    uint32_t connect_ms; /* for name, connection and TLS */
    uint32_t idle_ms;    /* no byte of the answer for so long: the end; not while paused */
};

/* Of a final response; the slices live until the event returns. */
struct fetch_head {
    int status;
    struct slice etag;
    struct slice content_type;
    bool is_delimited; /* by a length or chunks: a broken connection can't be taken for its end */
};

enum fetch_end {
    FETCH_COMPLETE,    /* the response is whole, whatever its status */
    FETCH_UNREACHABLE, /* no connection: name, TCP, TLS, or one of our own files */
    FETCH_BROKEN,      /* the connection or the response ended early, or it was no HTTP */
    FETCH_SILENT,      /* idle_ms are over */
};

struct fetch_result {
    enum fetch_end end;
    int status;       /* of the response; 0: there was none */
    const char *text; /* what went wrong, for people; "" if complete */
};

struct fetch_events {
    void (*head)(void *arg, const struct fetch_head *head);
    void (*data)(void *arg, struct slice piece);
    void (*done)(void *arg, const struct fetch_result *result); /* the last one: the fetch is gone */
};

struct fetcher *fetcher_new(struct loop *loop);
/* Outside of events. What is in progress ends without one. Accepts NULL. */
void fetcher_free(struct fetcher **fetcher);

/* `events` is borrowed until the end of the fetch. */
struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_request *request,
                          const struct fetch_events *events, void *arg);

/* Ends it; no event comes any more. Accepts NULL. */
void fetch_cancel(struct fetch **fetch);

/*
 * No data until fetch_resume; what comes meanwhile waits in the socket and makes the server wait. `done` may still come
 * when the connection ends without more data.
 */
void fetch_pause(struct fetch *fetch);
void fetch_resume(struct fetch *fetch);

#endif
