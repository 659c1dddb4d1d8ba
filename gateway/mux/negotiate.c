#include "gateway/mux/negotiate.h"

#include "gateway/mux/h1_mux.h"

const char *const negotiate_alpn[] = {"http/1.1", NULL};

struct mux *negotiate_server(struct stream *stream, const struct mux_settings *settings,
                             const struct mux_events *events, void *owner)
{
    return h1_mux_server(stream, settings, events, owner);
}

const char *negotiate_alpn_name(struct slice alpn)
{
    for (size_t i = 0; negotiate_alpn[i]; i++)
        if (slice_eq(alpn, slice_str(negotiate_alpn[i])))
            return negotiate_alpn[i];
    return "";
}
