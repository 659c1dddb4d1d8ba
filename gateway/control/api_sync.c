/* What the program tells about whom it follows. */
#include "api_internal.h"

#include <inttypes.h>

json_t *api_sync_json(const struct sync_status *sync)
{
    if (sync->state == SYNC_OFF)
        return NULL;
    return json_pack("{so ss sb sI sf sf sI sI sI sb so}", "source", api_json_text(slice_str(sync->source)), "state",
                     sync->state_name, "connected", sync->connected, "revision", (json_int_t)sync->revision,
                     "word_age_seconds", (double)sync->word_age_ms / 1e3, "retry_in_seconds",
                     (double)sync->retry_ms / 1e3, "resyncs", (json_int_t)sync->resyncs_total, "failures",
                     (json_int_t)sync->failures_total, "refused_records", (json_int_t)sync->refused, "digest_differs",
                     sync->digest_differs, "error", api_json_text(slice_str(sync->error)));
}

/* "following https://… at revision 7, last word 3 s ago". */
struct slice api_sync_text(const struct sync_status *sync, struct arena *arena)
{
    if (sync->state == SYNC_OFF)
        return SLICE_NONE;
    struct slice trouble = SLICE("");
    if (sync->state == SYNC_WAITING)
        trouble = arena_printf(arena, "; next try in %" PRIu64 " s", (sync->retry_ms + 999) / 1000);
    if (sync->error[0])
        trouble = arena_printf(arena, "; %s%.*s", sync->error, SLICE_ARG(trouble));
    if (sync->refused > 0)
        trouble = arena_printf(arena, "; %zu records left out%.*s", sync->refused, SLICE_ARG(trouble));
    if (sync->digest_differs)
        trouble = arena_printf(arena, "; the routes are not equal%.*s", SLICE_ARG(trouble));
    return arena_printf(arena, "%s %s at revision %" PRIu64 ", last word %" PRIu64 " s ago%.*s", sync->state_name,
                        sync->source, sync->revision, sync->word_age_ms / 1000, SLICE_ARG(trouble));
}
