/*
 * Priorities (RFC 9218). nghttp2 reads the `priority` field and PRIORITY_UPDATE, and chooses by them what to send next.
 * Here: what requests get whose client says nothing. The default of section 4 would send their responses one after the
 * other, and one that never ends would hold up all others; they share the connection instead.
 */
#include "h2_mux_internal.h"

void h2_priority_update(struct h2_mux *m, const nghttp2_extension *frame)
{
    const nghttp2_ext_priority_update *update = frame->payload;
    int32_t id = update->stream_id;
    struct h2_stream *s = nghttp2_session_get_stream_user_data(m->session, id);
    if (s)
        return; /* it has its own, or the default, which nghttp2 has just replaced */
    m->early_priority[m->early_priority_count++ % H2_REMEMBERED] = id;
}

static bool is_told_early(const struct h2_mux *m, int32_t id)
{
    for (size_t i = 0; i < H2_REMEMBERED; i++)
        if (m->early_priority[i] == id)
            return true;
    return false;
}

void h2_priority_begin(struct h2_stream *s)
{
    const nghttp2_extpri fair = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};
    if (!fields_has(&s->head.fields, FIELD_PRIORITY) && !is_told_early(s->mux, s->id))
        (void)nghttp2_session_change_extpri_stream_priority(s->mux->session, s->id, &fair, 0);
}
