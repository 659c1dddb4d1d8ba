/*
 * The end of a server's connection in order (RFC 9113 section 6.8), in two phases: a GOAWAY that only warns, and the
 * one that names the last stream when every request that was on its way by then has arrived.
 */
#include "h2_mux_internal.h"

#include <string.h>

enum { GRACE_MS = 1000 }; /* for clients that do not answer the PING */

static const uint8_t mark[8] = "goodbye";

void h2_drain_begin(struct h2_mux *m)
{
    m->drain_phase = H2_DRAIN_NOTICE;
    nghttp2_submit_shutdown_notice(m->session);
    nghttp2_submit_ping(m->session, NGHTTP2_FLAG_NONE, mark);
    loop_timer_arm(m->loop, &m->timer, GRACE_MS);
    h2_mux_defer(m);
}

static void finish(struct h2_mux *m)
{
    m->drain_phase = H2_DRAIN_FINAL;
    nghttp2_submit_goaway(m->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(m->session),
                          NGHTTP2_NO_ERROR, NULL, 0);
    h2_mux_defer(m);
}

void h2_drain_on_ping(struct h2_mux *m, const nghttp2_ping *ping)
{
    bool is_ours = ping->hd.flags & NGHTTP2_FLAG_ACK && memcmp(ping->opaque_data, mark, sizeof mark) == 0;
    if (is_ours && m->drain_phase == H2_DRAIN_NOTICE)
        finish(m);
}

void h2_drain_on_timer(struct h2_mux *m)
{
    if (m->drain_phase == H2_DRAIN_NOTICE)
        finish(m);
}
