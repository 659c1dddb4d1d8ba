/* domains: the order of questions, the cache and its times, waiting and leaving, bounds, and who has the last word. */
#include "gateway/proxy/domains.h"

#include "route/route_fixture.h"

enum { MAX_QUERIES = 2048, DEADLINE_MS = 5000 };

/* ---- a resolver that the test answers for ---- */

struct resolver {
    bool freed;
};

struct resolver_query {
    char name[260];
    resolver_cb done; /* NULL: answered or cancelled */
    void *arg;
};

static struct {
    struct counters counters;
    struct loop *loop;
    struct domains *domains;
    struct route_table *table;
    struct resolver resolver;
    struct resolver_query queries[MAX_QUERIES];
    size_t asked;
} f;

struct resolver_query *resolver_query_txt(struct resolver *resolver, const char *name, resolver_cb done, void *arg)
{
    assert_ptr_equal(resolver, &f.resolver);
    assert_true(f.asked < MAX_QUERIES);
    struct resolver_query *query = &f.queries[f.asked++];
    snprintf(query->name, sizeof query->name, "%s", name);
    query->done = done;
    query->arg = arg;
    return query;
}

void resolver_cancel(struct resolver_query **query)
{
    if (*query)
        (*query)->done = NULL;
    *query = NULL;
}

void resolver_free(struct resolver **resolver)
{
    if (*resolver)
        (*resolver)->freed = true;
    *resolver = NULL;
}

static void answer(const char *name, enum resolver_result result, const uint8_t *message, size_t len)
{
    for (size_t i = f.asked; i-- > 0;) {
        struct resolver_query *query = &f.queries[i];
        resolver_cb done = query->done;
        if (strcmp(query->name, name) != 0 || !done)
            continue;
        query->done = NULL;
        done(query->arg, result, message, len);
        return;
    }
    fail_msg("nobody asks for %s", name);
}

/* One record of this text for each, with this TTL. */
static void answer_txt(const char *name, uint8_t ttl, const char *const *texts)
{
    uint8_t message[512] = {0, 0, 0x81, 0x80};
    size_t len = 12;
    for (; *texts; texts++) {
        size_t text_len = strlen(*texts);
        uint8_t head[] = {0, 0, 16, 0, 1, 0, 0, 0, ttl, 0, (uint8_t)(text_len + 1), (uint8_t)text_len};
        memcpy(message + len, head, sizeof head);
        memcpy(message + len + sizeof head, *texts, text_len);
        len += sizeof head + text_len;
        message[7]++;
    }
    answer(name, RESOLVER_ANSWER, message, len);
}

#define FOUND(name, ttl, text) answer_txt(name, ttl, (const char *const[]){text, NULL})
#define NOTHING(name)          answer(name, RESOLVER_NOTHING, NULL, 0)

static void answer_nothing_for(const char *name)
{
    char question[300];
    snprintf(question, sizeof question, "_dstack-app-address.%s", name);
    NOTHING(question);
    snprintf(question, sizeof question, "_tapp-address.%s", name);
    NOTHING(question);
    snprintf(question, sizeof question, "_dstack-app-address-wildcard.%s", strchr(name, '.') + 1);
    NOTHING(question);
}

/* ---- who waits ---- */

struct waiter {
    struct domains_wait wait;
    unsigned told;
    enum domains_state state;
};

static void on_told(struct domains_wait *wait, enum domains_state state)
{
    struct waiter *waiter = CONTAINER_OF(wait, struct waiter, wait);
    waiter->told++;
    waiter->state = state;
}

static enum domains_state look_up(struct waiter *waiter, const char *name)
{
    *waiter = (struct waiter){.wait = {.done = on_told}};
    return domains_look_up(f.domains, slice_str(name), &waiter->wait);
}

static enum domains_state peek(const char *name)
{
    struct waiter waiter;
    enum domains_state state = look_up(&waiter, name);
    domains_cancel(&waiter.wait);
    return state;
}

static struct route_target resolve(const char *name, bool *ret_pending)
{
    struct route_target target;
    struct hostname hostname = {.kind = HOSTNAME_CUSTOM};
    bool pending;
    route_table_read_begin();
    domains_resolve(f.domains, f.table, &hostname, slice_str(name), &target, &pending);
    route_table_read_end();
    if (ret_pending)
        *ret_pending = pending;
    return target;
}

static void later(unsigned seconds)
{
    f.loop->now_us += seconds * UINT64_C(1000000);
}

/* ---- fixture ---- */

static void ignore_revoked(void *arg, struct claim *claim)
{
    (void)arg;
    (void)claim;
}

static void put(struct route_app *app)
{
    struct route_problem problem;
    assert_int_equal(route_table_stage_put(f.table, app, &problem), STATUS_OK);
    route_table_publish(f.table, ignore_revoked, NULL);
}

static int set_up(void **state)
{
    (void)state;
    f.loop = loop_new(&f.counters);
    f.resolver.freed = false;
    f.asked = 0;
    f.domains = domains_new(f.loop, &f.resolver, DEADLINE_MS);
    f.table = route_table_new();
    struct route_app *app = fixture_app("app", "app-i1", "10.0.0.1", 1);
    fixture_add_port(app, 80, ROUTE_PROTOCOL_AUTO);
    fixture_add_port(app, 443, ROUTE_PROTOCOL_PASSTHROUGH);
    app->restrict_ports = true;
    put(app);
    app = fixture_app("other", "other-i1", "10.0.0.2", 1);
    fixture_add_domain(app, "claimed.test", 8080);
    put(app);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct route_problem problem;
    domains_free(&f.domains);
    assert_true(f.resolver.freed);
    assert_int_equal(route_table_stage_delete(f.table, slice_str("app"), &problem), STATUS_OK);
    assert_int_equal(route_table_stage_delete(f.table, slice_str("other"), &problem), STATUS_OK);
    route_table_publish(f.table, ignore_revoked, NULL);
    route_table_free(&f.table);
    loop_free(&f.loop);
    return 0;
}

/* ---- tests ---- */

static void three_questions_in_order(void **state)
{
    (void)state;
    struct waiter waiter;
    assert_int_equal(look_up(&waiter, "www.shop.test"), DOMAINS_PENDING);
    assert_int_equal(f.asked, 1);
    NOTHING("_dstack-app-address.www.shop.test");
    answer_txt("_tapp-address.www.shop.test", 5, (const char *const[]){"v=spf1 -all", NULL});
    assert_int_equal(waiter.told, 0);
    FOUND("_dstack-app-address-wildcard.shop.test", 60, "app:80");
    assert_int_equal(waiter.told, 1);
    assert_int_equal(waiter.state, DOMAINS_KNOWN);
    assert_int_equal(resolve("www.shop.test", NULL).port, 80);
    assert_string_equal(resolve("www.shop.test", NULL).app->id, "app");
}

static void the_first_answer_ends_it(void **state)
{
    (void)state;
    struct waiter waiter;
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.shop.test", 60, "APP-i1:80");
    assert_int_equal(waiter.state, DOMAINS_KNOWN);
    assert_int_equal(f.asked, 1);
    assert_string_equal(resolve("shop.test", NULL).instance->id, "app-i1");
}

static void a_top_level_parent_has_no_wildcard(void **state)
{
    (void)state;
    struct waiter waiter;
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    NOTHING("_dstack-app-address.shop.test");
    NOTHING("_tapp-address.shop.test");
    assert_int_equal(waiter.state, DOMAINS_UNKNOWN);
    assert_int_equal(f.asked, 2);
}

static void look_ups_are_shared(void **state)
{
    (void)state;
    struct waiter waiters[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(look_up(&waiters[i], "a.shop.test"), DOMAINS_PENDING);
    assert_int_equal(f.asked, 1);
    domains_cancel(&waiters[1].wait);
    domains_cancel(&waiters[1].wait);
    FOUND("_dstack-app-address.a.shop.test", 60, "app:80");
    assert_int_equal(waiters[0].told, 1);
    assert_int_equal(waiters[1].told, 0);
    assert_int_equal(waiters[2].told, 1);
    domains_cancel(&waiters[2].wait);
    assert_int_equal(peek("a.shop.test"), DOMAINS_KNOWN);
    assert_int_equal(f.asked, 1);
}

static void a_look_up_goes_on_without_its_client(void **state)
{
    (void)state;
    assert_int_equal(peek("a.shop.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.a.shop.test", 60, "app:80");
    assert_int_equal(peek("a.shop.test"), DOMAINS_KNOWN);
}

static void who_does_not_wait_is_told_what_was_found(void **state)
{
    (void)state;
    struct txt_target target;
    assert_true(domains_is_on(f.domains));
    assert_false(domains_is_on(NULL));
    assert_int_equal(domains_peek(f.domains, SLICE("a.shop.test"), &target), DOMAINS_PENDING);
    assert_int_equal(domains_peek(f.domains, SLICE("a.shop.test"), &target), DOMAINS_PENDING);
    assert_int_equal(f.asked, 1);
    FOUND("_dstack-app-address.a.shop.test", 60, "app:80");
    assert_int_equal(domains_peek(f.domains, SLICE("a.shop.test"), &target), DOMAINS_KNOWN);
    assert_string_equal(target.id, "app");
    assert_int_equal(target.port, 80);
}

static void times_of_the_cache(void **state)
{
    (void)state;
    static const struct {
        uint8_t ttl;
        unsigned lives;
    } rows[] = {{0, 1}, {1, 1}, {90, 90}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[32], question[64];
        snprintf(name, sizeof name, "n%zu.test", i);
        snprintf(question, sizeof question, "_dstack-app-address.%s", name);
        assert_int_equal(peek(name), DOMAINS_PENDING);
        FOUND(question, rows[i].ttl, "app:80");
        f.loop->now_us += rows[i].lives * UINT64_C(1000000) - 1000;
        assert_int_equal(peek(name), DOMAINS_KNOWN);
        f.loop->now_us += 1000;
        assert_int_equal(peek(name), DOMAINS_PENDING);
        NOTHING(question);
    }
    assert_int_equal(peek("none.x.test"), DOMAINS_PENDING);
    answer_nothing_for("none.x.test");
    later(DOMAINS_NEGATIVE_TTL - 1);
    assert_int_equal(peek("none.x.test"), DOMAINS_UNKNOWN);
    later(1);
    assert_int_equal(peek("none.x.test"), DOMAINS_PENDING);
}

static void what_was_found_serves_on_when_the_dns_fails(void **state)
{
    (void)state;
    struct waiter waiter;
    assert_int_equal(peek("shop.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.shop.test", 60, "app:80");
    later(61);
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    answer("_dstack-app-address.shop.test", RESOLVER_FAILED, NULL, 0);
    assert_int_equal(waiter.state, DOMAINS_KNOWN);
    assert_int_equal(peek("shop.test"), DOMAINS_KNOWN); /* no question for a while */
    later(DOMAINS_NEGATIVE_TTL);
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    answer("_dstack-app-address.shop.test", RESOLVER_ANSWER, (const uint8_t *)"?", 1);
    assert_int_equal(waiter.state, DOMAINS_KNOWN);
    later(DOMAINS_STALE_TTL);
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    answer("_dstack-app-address.shop.test", RESOLVER_FAILED, NULL, 0);
    assert_int_equal(waiter.state, DOMAINS_UNKNOWN);
    assert_int_equal(peek("shop.test"), DOMAINS_UNKNOWN);
    assert_int_equal(atomic_load(&f.counters.dns_failures_total), 3);
}

static void a_record_that_went_is_gone_at_once(void **state)
{
    (void)state;
    struct waiter waiter;
    assert_int_equal(peek("a.shop.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.a.shop.test", 60, "app:80");
    later(61);
    assert_int_equal(look_up(&waiter, "a.shop.test"), DOMAINS_PENDING);
    answer_nothing_for("a.shop.test");
    assert_int_equal(waiter.state, DOMAINS_UNKNOWN);
    assert_int_equal(resolve("a.shop.test", NULL).status, STATUS_HOST_UNKNOWN);
}

static void the_deadline_ends_a_look_up(void **state)
{
    (void)state;
    struct waiter waiter;
    domains_free(&f.domains);
    f.domains = domains_new(f.loop, &f.resolver, 100);
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    for (int i = 0; i < 400 && waiter.told == 0; i++)
        loop_turn(f.loop, 20);
    assert_int_equal(waiter.told, 1);
    assert_int_equal(waiter.state, DOMAINS_UNKNOWN);
    assert_null(f.queries[0].done);
}

static void several_different_records_are_none(void **state)
{
    (void)state;
    struct waiter waiter;
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_PENDING);
    answer_txt("_dstack-app-address.shop.test", 60, (const char *const[]){"app:80", "other:80", NULL});
    assert_int_equal(waiter.state, DOMAINS_UNKNOWN);
    assert_int_equal(f.asked, 1);
}

static void the_number_of_look_ups_is_bounded(void **state)
{
    (void)state;
    char name[32];
    for (int i = 0; i < DOMAINS_MAX_LOOKUPS; i++) {
        snprintf(name, sizeof name, "n%d.test", i);
        assert_int_equal(peek(name), DOMAINS_PENDING);
    }
    uint64_t refused = atomic_load(&f.counters.dns_refused_total);
    assert_int_equal(peek("more.test"), DOMAINS_UNKNOWN);
    assert_int_equal(atomic_load(&f.counters.dns_refused_total), refused + 1);
    FOUND("_dstack-app-address.n7.test", 60, "app:80");
    assert_int_equal(peek("more.test"), DOMAINS_PENDING);
}

static void the_cache_is_bounded(void **state)
{
    (void)state;
    char name[32], question[64];
    for (int i = 0; i < DOMAINS_MAX_NAMES + 10; i++) {
        snprintf(name, sizeof name, "n%d.test", i);
        snprintf(question, sizeof question, "_dstack-app-address.%s", name);
        f.asked = 0;
        assert_int_equal(peek(name), DOMAINS_PENDING);
        FOUND(question, 60, "app:80");
        assert_int_equal(peek("n0.test"), DOMAINS_KNOWN); /* what is used stays */
    }
    f.asked = 0;
    assert_int_equal(peek("n1.test"), DOMAINS_PENDING);
}

/* Somebody keeps all look-ups busy and then asks for names by the thousand. */
static void refused_look_ups_cost_no_room(void **state)
{
    (void)state;
    char name[32];
    bool pending;
    assert_int_equal(peek("first.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.first.test", 60, "app:80");
    for (int i = 0; i < DOMAINS_MAX_LOOKUPS; i++) {
        snprintf(name, sizeof name, "open%d.test", i);
        assert_int_equal(peek(name), DOMAINS_PENDING);
    }
    uint64_t refused = atomic_load(&f.counters.dns_refused_total);
    for (int i = 0; i < DOMAINS_MAX_NAMES + 10; i++) {
        snprintf(name, sizeof name, "n%d.test", i);
        assert_int_equal(peek(name), DOMAINS_UNKNOWN);
        assert_int_equal(resolve(name, &pending).status, STATUS_HOST_UNKNOWN);
        assert_false(pending);
    }
    assert_int_equal(atomic_load(&f.counters.dns_refused_total), refused + 2 * (DOMAINS_MAX_NAMES + 10));
    assert_int_equal(peek("first.test"), DOMAINS_KNOWN);
    later(61);
    assert_int_equal(resolve("first.test", &pending).status, STATUS_OK); /* it can't be refreshed now */
    assert_false(pending);
}

static void names_that_nobody_has_go_first(void **state)
{
    (void)state;
    char name[32];
    assert_int_equal(peek("first.x.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.first.x.test", 60, "app:80");
    for (int i = 0; i < DOMAINS_MAX_NAMES + 10; i++) {
        snprintf(name, sizeof name, "n%d.x.test", i);
        f.asked = 0;
        assert_int_equal(peek(name), DOMAINS_PENDING);
        answer_nothing_for(name);
    }
    assert_int_equal(peek("first.x.test"), DOMAINS_KNOWN);
    assert_int_equal(peek(name), DOMAINS_UNKNOWN);
    f.asked = 0;
    assert_int_equal(peek("n0.x.test"), DOMAINS_PENDING); /* forgotten */
}

static void a_record_of_the_control_plane_comes_first(void **state)
{
    (void)state;
    bool pending;
    assert_int_equal(peek("claimed.test"), DOMAINS_PENDING);
    FOUND("_dstack-app-address.claimed.test", 60, "app:80");
    struct route_target target = resolve("claimed.test", &pending);
    assert_string_equal(target.app->id, "other");
    assert_int_equal(target.port, 8080);
    assert_false(pending);
}

static void the_apps_rules_hold(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum status status;
        enum route_protocol protocol;
    } rows[] = {
        {"app:80", STATUS_OK, ROUTE_PROTOCOL_AUTO},
        {"app:81", STATUS_PORT_NOT_PUBLISHED, ROUTE_PROTOCOL_AUTO},
        {"app:443", STATUS_MISDIRECTED, ROUTE_PROTOCOL_PASSTHROUGH},
        {"nobody:80", STATUS_APP_UNKNOWN, ROUTE_PROTOCOL_AUTO},
        {"app-80:80", STATUS_APP_UNKNOWN, ROUTE_PROTOCOL_AUTO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[32], question[64];
        snprintf(name, sizeof name, "n%zu.test", i);
        snprintf(question, sizeof question, "_dstack-app-address.%s", name);
        assert_int_equal(peek(name), DOMAINS_PENDING);
        FOUND(question, 60, rows[i].text);
        struct route_target target = resolve(name, NULL);
        assert_int_equal(target.status, rows[i].status);
        assert_int_equal(target.protocol, rows[i].protocol);
    }
}

static void resolving_never_waits(void **state)
{
    (void)state;
    bool pending;
    assert_int_equal(resolve("a.shop.test", &pending).status, STATUS_HOST_UNKNOWN);
    assert_true(pending);
    FOUND("_dstack-app-address.a.shop.test", 1, "app:80");
    assert_int_equal(resolve("a.shop.test", &pending).status, STATUS_OK);
    later(2);
    f.asked = 0;
    assert_int_equal(resolve("a.shop.test", &pending).status, STATUS_OK); /* once more, and refreshed */
    assert_false(pending);
    assert_int_equal(f.asked, 1);
    answer_nothing_for("a.shop.test");
    assert_int_equal(resolve("a.shop.test", &pending).status, STATUS_HOST_UNKNOWN);
    assert_false(pending);
}

static void long_names_are_not_asked_for(void **state)
{
    (void)state;
    char name[HOSTNAME_MAX + 1];
    memset(name, 'a', sizeof name - 1);
    name[HOSTNAME_MAX] = '\0';
    name[60] = name[120] = name[180] = name[240] = '.';
    struct waiter waiter;
    assert_int_equal(look_up(&waiter, name), DOMAINS_PENDING); /* the wildcard of its parent fits */
    domains_cancel(&waiter.wait);
    name[2] = '.';
    assert_int_equal(look_up(&waiter, name), DOMAINS_UNKNOWN);
    assert_int_equal(f.asked, 1);
}

static void without_a_resolver(void **state)
{
    (void)state;
    struct waiter waiter;
    bool pending;
    struct domains *with = f.domains;
    f.domains = domains_new(f.loop, NULL, DEADLINE_MS);
    assert_int_equal(look_up(&waiter, "shop.test"), DOMAINS_UNKNOWN);
    assert_int_equal(resolve("shop.test", &pending).status, STATUS_HOST_UNKNOWN);
    assert_false(pending);
    assert_int_equal(resolve("claimed.test", &pending).status, STATUS_OK);
    domains_free(&f.domains);
    f.domains = with;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(three_questions_in_order),
        TEST(the_first_answer_ends_it),
        TEST(a_top_level_parent_has_no_wildcard),
        TEST(look_ups_are_shared),
        TEST(a_look_up_goes_on_without_its_client),
        TEST(who_does_not_wait_is_told_what_was_found),
        TEST(times_of_the_cache),
        TEST(what_was_found_serves_on_when_the_dns_fails),
        TEST(a_record_that_went_is_gone_at_once),
        TEST(the_deadline_ends_a_look_up),
        TEST(several_different_records_are_none),
        TEST(the_number_of_look_ups_is_bounded),
        TEST(the_cache_is_bounded),
        TEST(refused_look_ups_cost_no_room),
        TEST(names_that_nobody_has_go_first),
        TEST(a_record_of_the_control_plane_comes_first),
        TEST(the_apps_rules_hold),
        TEST(resolving_never_waits),
        TEST(long_names_are_not_asked_for),
        TEST(without_a_resolver),
    };
    route_table_thread_begin();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    route_table_thread_end();
    return failed;
}
