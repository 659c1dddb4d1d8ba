/*
 * check_run: one active check of one port: a connection that is made, perhaps asked, and closed. Private to checks.
 */
#ifndef GATEWAY_PROXY_CHECK_RUN_H
#define GATEWAY_PROXY_CHECK_RUN_H

#include "gateway/proxy/proxy.h"

struct check_run;

/* Called once, from the loop, unless it was cancelled. The run is gone afterwards. */
typedef void (*check_done_cb)(void *owner, enum status status, int http_status);

struct check_order {
    const struct route_check *check; /* used at once, not kept */
    const struct claim *claim;
    bool is_h2c;
    unsigned proxy_protocol; /* version of the header that comes first, 0: none */
    void (*gone)(void *gone_arg);
    void *gone_arg;
};

/*
 * NULL: the address is forbidden. `gone` is called when everything of the run is gone, at the end of a turn: after it
 * is done or was cancelled.
 */
struct check_run *check_run_start(struct loop *loop, struct settings *settings, const struct check_order *order,
                                  check_done_cb done, void *owner);
/* `done` is not called any more. */
void check_run_cancel(struct check_run **run);

#endif
