/* bench_router: from the text of a Host field to the route, in a table of 1,000 apps; bench_routes has larger ones. */
#include "bench.h"

#include "gateway/route/route_table.h"

enum { APPS = 1000 };

static const struct slice base_domain = {"prod5.phala.network", sizeof "prod5.phala.network" - 1};

struct names {
    struct route_table *table;
    struct hostname hostnames[APPS];
    char hosts[APPS][96];
};

static struct route_app *make_app(unsigned n)
{
    char id[41], instance_id[41];
    snprintf(id, sizeof id, "%040x", n);
    snprintf(instance_id, sizeof instance_id, "1%039x", n);
    struct route_app *app = route_app_new(id);
    app->ports = calloc(1, sizeof *app->ports);
    app->instances = calloc(1, sizeof *app->instances);
    if (!app->ports || !app->instances)
        abort();
    app->ports[app->port_count++] = (struct route_port){.port = 8080, .protocol = ROUTE_PROTOCOL_HTTP};
    app->instances[app->instance_count++] =
        (struct route_instance){.id = route_app_strdup(app, slice_str(instance_id)),
                                .address = {AF_INET, {10, 0, (uint8_t)(n >> 8), (uint8_t)n}},
                                .generation = 1,
                                .weight = 1,
                                .state = ROUTE_STATE_RUNNING};
    route_app_pack(&app);
    return app;
}

static void make_names(struct names *names)
{
    route_table_thread_begin();
    names->table = route_table_new();
    for (unsigned n = 0; n < APPS; n++) {
        struct route_problem problem;
        if (route_table_stage_put(names->table, make_app(n), &problem) != STATUS_OK)
            abort();
        snprintf(names->hosts[n], sizeof names->hosts[n], "%040x-8080.prod5.phala.network", n);
        hostname_parse(slice_str(names->hosts[n]), &base_domain, 1, &names->hostnames[n]);
    }
    route_table_publish(names->table, NULL, NULL);
}

static void parse(void *arg, uint64_t count)
{
    struct names *names = arg;
    for (uint64_t i = 0; i < count; i++) {
        struct hostname hostname;
        hostname_parse(slice_str(names->hosts[i % APPS]), &base_domain, 1, &hostname);
        bench_use(&hostname);
    }
}

static void resolve(void *arg, uint64_t count)
{
    struct names *names = arg;
    for (uint64_t i = 0; i < count; i++) {
        struct route_target target;
        route_table_read_begin();
        route_table_resolve(names->table, &names->hostnames[i % APPS], SLICE_NONE, &target);
        route_table_read_end();
        if (target.status != STATUS_OK)
            abort();
    }
}

static void put(void *arg, uint64_t count)
{
    struct names *names = arg;
    for (uint64_t i = 0; i < count; i++) {
        struct route_problem problem;
        if (route_table_stage_put(names->table, make_app((unsigned)(i % APPS)), &problem) != STATUS_OK)
            abort();
        route_table_publish(names->table, NULL, NULL);
    }
}

int main(int argc, char **argv)
{
    static struct names names;
    struct bench bench = bench_begin(argc, argv);
    make_names(&names);
    bench_run(&bench, "host name parsed", parse, &names);
    bench_run(&bench, "route looked up", resolve, &names);
    bench_run(&bench, "app made, put and published", put, &names);
    route_table_free(&names.table);
    route_table_thread_end();
    return 0;
}
