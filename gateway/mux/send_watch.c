#include "gateway/mux/send_watch.h"

bool send_watch_is_stalled(struct send_watch *watch, const struct stream *stream, uint32_t stall_ms)
{
    uint64_t now_ms = loop_now_ms(stream_loop(stream));
    uint64_t queued = stream_queued(stream), written = stream_bytes_out(stream);
    uint64_t sent = written - (queued < written ? queued : written); /* what is queued may be larger: it is encrypted */
    if (queued == 0 || sent != watch->sent) {
        watch->sent = sent;
        watch->seen_ms = now_ms;
        return false;
    }
    return now_ms - watch->seen_ms + TIMER_TICK_MS >= stall_ms;
}
