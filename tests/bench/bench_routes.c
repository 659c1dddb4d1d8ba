/*
 * bench_routes: a route table of so many apps with one instance each, from a real store.
 *
 * usage: bench_routes [APPS] [start]     (default: 1000000 apps; start: no more than that)
 *
 * One line a figure: name<TAB>value<TAB>unit. The documents are like those of dstack: ids of 40 hex digits, a port, a
 * private address. What is resident is anonymous memory of the process (RssAnon), before and after.
 */
#include "bench.h"

#include "gateway/control/app_document.h"
#include "gateway/control/changes.h"
#include "gateway/control/store.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    HOT_NAMES = 1000,
    BATCH = 4096, /* look-ups that are measured at once */
    COLD_LOOKUPS = 300,
    SWEEP_BYTES = 64 << 20, /* more than a core's caches */
    CHANGES = 100,
    MAX_DOCUMENT = 512,
};

#define BASE_DOMAIN "cluster.example"

struct place {
    char dir[64];
    unsigned long apps;
    struct counters counters;
    struct loop *loop;
    struct store *store;
    struct route_table *table;
    struct changes *changes;
    struct change_result result; /* of the last request */
    bool done;
};

static const struct ip_network allowed = {{AF_INET, {10}}, 8};
static const struct route_rules rules = {&allowed, 1, NULL, 0};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench_routes: %s: %s\n", what, why);
    exit(1);
}

/* ---- the apps ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void make_id(char *buffer, unsigned long n, unsigned kind)
{
    uint64_t x = mix(n * 2 + kind + 1), y = mix(x);
    snprintf(buffer, 41, "%016llx%016llx%08llx", (unsigned long long)x, (unsigned long long)y,
             (unsigned long long)(mix(y) & UINT32_MAX));
}

static struct slice make_document(char *buffer, unsigned long n, unsigned generation)
{
    char app_id[41], instance_id[41];
    make_id(app_id, n, 0);
    make_id(instance_id, n, 1);
    int len = snprintf(buffer, MAX_DOCUMENT,
                       "{\"app_id\":\"%s\",\"ports\":[{\"port\":8080,\"protocol\":\"http\"}],"
                       "\"instances\":[{\"instance_id\":\"%s\",\"address\":\"10.%lu.%lu.%lu\",\"generation\":%u,"
                       "\"state\":\"running\",\"weight\":1}]}",
                       app_id, instance_id, n >> 16 & 255, n >> 8 & 255, n & 255, generation);
    return slice_make(buffer, (size_t)len);
}

static struct route_app *make_app(unsigned long n, unsigned generation)
{
    char buffer[MAX_DOCUMENT];
    struct route_app *app;
    struct route_problem problem;
    if (app_document_parse(make_document(buffer, n, generation), &app, &problem) != STATUS_OK)
        fail(problem.field, problem.detail);
    return app;
}

static void make_hostname(struct hostname *hostname, unsigned long n)
{
    const struct slice base = SLICE(BASE_DOMAIN);
    char id[41], host[128];
    make_id(id, n, 0);
    snprintf(host, sizeof host, "%s-8080." BASE_DOMAIN, id);
    hostname_parse(slice_str(host), &base, 1, hostname);
}

/* ---- the store and the table ---- */

static void ignore_revoked(void *arg, struct claim *claim)
{
    (void)arg;
    (void)claim;
}

static void place_open(struct place *place)
{
    char error[STORE_ERROR_TEXT_MAX];
    place->loop = loop_new(&place->counters);
    if (store_open(place->dir, place->loop, &place->store, error) != STATUS_OK)
        fail(place->dir, error);
    route_table_thread_begin();
    place->table = route_table_new();
    place->changes = changes_new(place->loop, place->table, place->store, ignore_revoked, NULL);
    changes_set_rules(place->changes, &rules);
}

static void place_close(struct place *place)
{
    changes_free(&place->changes);
    store_close(&place->store);
    loop_turn(place->loop, 0);
    route_table_free(&place->table);
    route_table_thread_end();
    loop_free(&place->loop);
}

static void on_done(void *arg, const struct change_result *result)
{
    struct place *place = arg;
    place->result = *result;
    place->done = true;
}

static void wait_for_done(struct place *place)
{
    while (!place->done)
        loop_turn(place->loop, 1000);
    place->done = false;
    if (place->result.status != STATUS_OK || place->result.refused > 0)
        fail(place->result.problem.field, place->result.problem.detail);
}

/* The seconds it took: parse all, check, stage, store in one transaction, publish. */
static double put_snapshot(struct place *place, unsigned generation)
{
    struct changes_snapshot_options options = {.strict = true};
    uint64_t begun = bench_now_ns();
    struct changes_snapshot *snapshot = changes_snapshot_begin(place->changes, CHANGES_REPLACE);
    for (unsigned long n = 0; n < place->apps; n++) {
        struct route_problem problem;
        if (changes_snapshot_add(snapshot, make_app(n, generation), &problem) != STATUS_OK)
            fail(problem.field, problem.detail);
    }
    changes_snapshot_commit(&snapshot, &options, on_done, place);
    wait_for_done(place);
    return (double)(bench_now_ns() - begun) / 1e9;
}

/* In a process of its own, which leaves this one's memory as it is. */
static void fill_store(struct place *place)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork", "no process");
    if (child == 0) {
        place_open(place);
        bench_report("snapshot into an empty table", put_snapshot(place, 1), "s");
        place_close(place);
        exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("filling the store", "the process failed");
}

/* ---- memory and start ---- */

/* Bytes of a line of /proc/self/status. */
static double resident_bytes(const char *line)
{
    char text[256];
    double bytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(text, sizeof text, file))
        if (strncmp(text, line, strlen(line)) == 0)
            bytes = strtod(text + strlen(line), NULL) * 1024;
    if (file)
        fclose(file);
    return bytes;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void load(struct place *place)
{
    char error[CHANGES_ERROR_TEXT_MAX];
    double cpu_before = cpu_seconds();
    double before = resident_bytes("RssAnon:");
    uint64_t begun = bench_now_ns();
    place_open(place);
    uint64_t opened = bench_now_ns();
    if (changes_load(place->changes, error) != STATUS_OK)
        fail(place->dir, error);
    uint64_t loaded = bench_now_ns();
    double cpu = cpu_seconds() - cpu_before;
    double apps = (double)place->apps;
    double each = (resident_bytes("RssAnon:") - before) / apps;
    double strings = 2 * 40; /* the two ids */
    bench_report("start: open the store, check it", (double)(opened - begun) / 1e9, "s");
    bench_report("start: read the store, build the table", (double)(loaded - opened) / 1e9, "s");
    bench_report("start: CPU of both", cpu, "s");
    bench_report("resident, all", each, "B/app");
    bench_report("resident, beyond the strings", each - strings, "B/app");
    bench_report("resident at the peak of the start", (resident_bytes("VmHWM:") - before) / apps, "B/app");
}

/* ---- look-ups ---- */

static uint64_t lookup_all(const struct route_table *table, const struct hostname *names, size_t count)
{
    uint64_t found = 0;
    for (size_t i = 0; i < count; i++) {
        struct route_target target;
        route_table_read_begin();
        route_table_resolve(table, &names[i], SLICE_NONE, &target);
        found += target.status == STATUS_OK && target.app->instances[0].claim;
        route_table_read_end();
    }
    return found;
}

static uint64_t timed_lookups(struct place *place, const struct hostname *names, size_t count)
{
    uint64_t begun = bench_now_ns();
    uint64_t found = lookup_all(place->table, names, count);
    uint64_t took = bench_now_ns() - begun;
    if (found != count)
        fail("look-up", "a name was not found");
    return took;
}

static int compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* One name after caches were filled with other things, less what the clock costs; the median. */
static double cold_lookup_ns(struct place *place, struct hostname *names)
{
    static uint64_t times[COLD_LOOKUPS], clock_times[COLD_LOOKUPS];
    volatile char *sweep = malloc(SWEEP_BYTES);
    for (size_t i = 0; i < COLD_LOOKUPS; i++) {
        make_hostname(&names[0], mix(i) % place->apps);
        for (size_t k = 0; sweep && k < SWEEP_BYTES; k += 64)
            sweep[k]++;
        bench_use(names);
        clock_times[i] = timed_lookups(place, names, 0);
        times[i] = timed_lookups(place, names, 1);
    }
    free((void *)(uintptr_t)sweep);
    qsort(times, COLD_LOOKUPS, sizeof times[0], compare_times);
    qsort(clock_times, COLD_LOOKUPS, sizeof clock_times[0], compare_times);
    return (double)times[COLD_LOOKUPS / 2] - (double)clock_times[COLD_LOOKUPS / 2];
}

static void look_up(struct place *place)
{
    struct hostname *names = calloc(BATCH, sizeof *names);
    uint64_t took = 0, best = UINT64_MAX, count = 0;
    if (!names)
        abort();
    for (size_t i = 0; i < HOT_NAMES; i++)
        make_hostname(&names[i], mix(i) % place->apps);
    for (int round = 0; round < 200; round++) {
        uint64_t once = timed_lookups(place, names, HOT_NAMES);
        best = once < best ? once : best;
    }
    bench_report("look-up, the same 1,000 names", (double)best / HOT_NAMES, "ns");
    for (unsigned round = 0; round < 100; round++) {
        for (size_t i = 0; i < BATCH; i++)
            make_hostname(&names[i], mix((uint64_t)round << 32 | i) % place->apps);
        took += timed_lookups(place, names, BATCH);
        count += BATCH;
    }
    bench_report("look-up, any of all names", (double)took / (double)count, "ns");
    bench_report("look-up, one with cold caches", cold_lookup_ns(place, names), "ns");
    free(names);
}

/* ---- changes beside a reader ---- */

struct reader {
    const struct route_table *table;
    unsigned long apps;
    pthread_t thread;
    _Atomic unsigned long wanted;       /* the app whose change is waited for */
    _Atomic uint64_t wanted_generation; /* 0: none */
    _Atomic uint64_t seen_ns;
    _Atomic bool stop;
    uint64_t lookups;
    uint64_t failed;
};

/* Looks up random names all the time, and the wanted one in between. */
static void *read_on(void *arg)
{
    struct reader *reader = arg;
    struct hostname names[64];
    route_table_thread_begin();
    for (uint64_t i = 0; !atomic_load(&reader->stop); i++) {
        for (size_t k = 0; k < 64; k++)
            make_hostname(&names[k], mix(i * 64 + k) % reader->apps);
        for (size_t k = 0; k < 64; k++) {
            uint64_t generation = atomic_load(&reader->wanted_generation);
            reader->failed += lookup_all(reader->table, &names[k], 1) != 1;
            reader->lookups++;
            if (generation == 0)
                continue;
            struct hostname wanted;
            struct route_target target;
            make_hostname(&wanted, atomic_load(&reader->wanted));
            route_table_read_begin();
            route_table_resolve(reader->table, &wanted, SLICE_NONE, &target);
            bool is_new = target.status == STATUS_OK && target.app->instances[0].generation == generation;
            route_table_read_end();
            if (is_new) {
                atomic_store(&reader->seen_ns, bench_now_ns());
                atomic_store(&reader->wanted_generation, 0);
            }
        }
    }
    route_table_thread_end();
    return NULL;
}

static void begin_reading(struct reader *reader, struct place *place)
{
    *reader = (struct reader){.table = place->table, .apps = place->apps};
    if (pthread_create(&reader->thread, NULL, read_on, reader))
        fail("reader", "no thread");
}

static void end_reading(struct reader *reader)
{
    atomic_store(&reader->stop, true);
    pthread_join(reader->thread, NULL);
    bench_report("failed look-ups of the reader", (double)reader->failed, "");
}

/* From the call until the reader sees it, with and without the store. */
static void change_one(struct place *place, struct reader *reader, unsigned long n, unsigned generation, bool is_stored,
                       uint64_t *ret_took)
{
    struct route_app *app = make_app(n, generation);
    struct route_problem problem;
    atomic_store(&reader->seen_ns, 0);
    atomic_store(&reader->wanted, n);
    atomic_store(&reader->wanted_generation, generation);
    uint64_t begun = bench_now_ns();
    if (is_stored) {
        changes_put(place->changes, app, CHANGES_ANY_REVISION, on_done, place);
        wait_for_done(place);
    } else {
        if (route_table_stage_put(place->table, app, &problem) != STATUS_OK)
            fail(problem.field, problem.detail);
        route_table_publish(place->table, NULL, NULL);
    }
    while (atomic_load(&reader->seen_ns) == 0) {
    }
    *ret_took = atomic_load(&reader->seen_ns) - begun;
}

static void change(struct place *place)
{
    static uint64_t times[CHANGES];
    struct reader reader;
    begin_reading(&reader, place);
    for (unsigned i = 0; i < CHANGES; i++)
        change_one(place, &reader, mix(i) % place->apps, 2 + i, false, &times[i]);
    qsort(times, CHANGES, sizeof times[0], compare_times);
    bench_report("one change until a reader sees it, median", (double)times[CHANGES / 2] / 1e6, "ms");
    bench_report("one change until a reader sees it, worst", (double)times[CHANGES - 1] / 1e6, "ms");
    for (unsigned i = 0; i < CHANGES; i++)
        change_one(place, &reader, mix(i) % place->apps, 2 + CHANGES + i, true, &times[i]);
    qsort(times, CHANGES, sizeof times[0], compare_times);
    bench_report("one change stored and seen, median", (double)times[CHANGES / 2] / 1e6, "ms");
    bench_report("one change stored and seen, worst", (double)times[CHANGES - 1] / 1e6, "ms");
    bench_report("snapshot that changes every app", put_snapshot(place, 1000), "s");
    bench_report("the same snapshot again", put_snapshot(place, 1000), "s");
    end_reading(&reader);
    bench_report("resident after the snapshots", resident_bytes("RssAnon:") / (double)place->apps, "B/app");
}

/* ---- all ---- */

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(path);
}

int main(int argc, char **argv)
{
    static struct place place = {.dir = "/tmp/bench-routes-XXXXXX"};
    place.apps = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    bool only_start = argc == 3 && strcmp(argv[2], "start") == 0;
    if (argc > 3 || (argc == 3 && !only_start) || place.apps == 0 || place.apps > 1 << 24) {
        fprintf(stderr, "usage: bench_routes [APPS] [start]     (1 to %d apps)\n", 1 << 24);
        return 2;
    }
    if (!mkdtemp(place.dir))
        fail(place.dir, "cannot be made");
    fill_store(&place);
    load(&place);
    if (!only_start) {
        look_up(&place);
        change(&place);
    }
    place_close(&place);
    remove_dir(place.dir);
    return 0;
}
