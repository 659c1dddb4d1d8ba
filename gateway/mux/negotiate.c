#include "gateway/mux/negotiate.h"

#include "gateway/mux/h1_mux.h"
#include "gateway/mux/h2_mux.h"

const char *const negotiate_alpn[] = {"h2", "http/1.1", "http/1.0", NULL};

struct mux *negotiate_server(struct stream *stream, const struct mux_settings *settings,
                             const struct mux_events *events, void *owner)
{
    SSL *ssl = stream_ssl(stream);
    if (ssl && slice_eq(tls_alpn(ssl), SLICE("h2")))
        return h2_mux_server(stream, settings, events, owner);
    return h1_mux_server(stream, settings, events, owner);
}

const char *negotiate_alpn_name(struct slice alpn)
{
    for (size_t i = 0; negotiate_alpn[i]; i++)
        if (slice_eq(alpn, slice_str(negotiate_alpn[i])))
            return negotiate_alpn[i];
    return "";
}
