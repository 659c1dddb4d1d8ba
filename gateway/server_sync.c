/* Following where the routes come from. */
#include "gateway/server_internal.h"

void server_start_sync(struct server *s)
{
    const struct config *config = s->started;
    if (config->etcd.endpoint_count == 0)
        return;
    s->fetcher = fetcher_new(s->loop);
    s->etcd = etcd_sync_new(&(struct etcd_sync_params){
        .loop = s->loop,
        .fetcher = s->fetcher,
        .config = &config->etcd,
        .changes = s->changes,
        .table = s->table,
    });
}

void server_stop_sync(struct server *s)
{
    etcd_sync_free(&s->etcd);
    fetcher_free(&s->fetcher);
}
