#include "route_fixture.h"

#include "gateway/route/claims.h"

static void count_revoked(void *arg, struct claim *claim)
{
    assert_true(claim_is_revoked(claim));
    ++*(size_t *)arg;
}

static size_t publish(struct claims *claims)
{
    size_t revoked = 0;
    claims_publish(claims);
    claims_report_revoked(claims, count_revoked, &revoked);
    return revoked;
}

/* Records that the tests have made. */
struct records {
    struct route_app *apps[20000];
    size_t count;
};

static struct records records;

static int begin(void **state)
{
    *state = claims_new();
    records.count = 0;
    return 0;
}

static int end(void **state)
{
    struct claims *claims = *state;
    claims_free(&claims);
    assert_null(claims);
    claims_free(&claims);
    for (size_t i = 0; i < records.count; i++)
        route_app_free(&records.apps[i]);
    return 0;
}

/* A record with one instance, which takes the address. */
static const struct route_instance *take_for(struct claims *claims, const char *app_id, const char *id,
                                             uint64_t generation, const char *address)
{
    struct route_app *app = fixture_app(app_id, id, address, generation);
    assert_true(records.count < sizeof records.apps / sizeof records.apps[0]);
    records.apps[records.count++] = app;
    claims_stage_take(claims, app, 0);
    assert_non_null(app->instances[0].claim);
    return &app->instances[0];
}

static const struct route_instance *take(struct claims *claims, const char *id, uint64_t generation,
                                         const char *address)
{
    return take_for(claims, "app", id, generation, address);
}

static void test_take_publish_release(void **state)
{
    struct claims *claims = *state;
    struct ip_addr addr = fixture_ip("10.0.0.1");
    const struct route_instance *instance = take(claims, "i", 3, "10.0.0.1");
    const struct claim *claim = instance->claim;
    assert_null(claims_owner(claims, &addr));
    assert_ptr_equal(claims_staged_owner(claims, &addr), instance);
    assert_int_equal(publish(claims), 0);
    assert_ptr_equal(claims_owner(claims, &addr), instance);
    assert_ptr_equal(claims_staged_owner(claims, &addr), instance);
    assert_int_equal(claim->generation, 3);
    assert_true(ip_equal(&claim->address, &addr));
    claims_stage_release(claims, instance);
    assert_ptr_equal(claims_owner(claims, &addr), instance);
    assert_null(claims_staged_owner(claims, &addr));
    assert_false(claim_is_revoked(claim));
    assert_int_equal(publish(claims), 1);
    assert_true(claim_is_revoked(claim));
    assert_null(claims_owner(claims, &addr));
}

static void test_same_instance_keeps_its_claim(void **state)
{
    struct claims *claims = *state;
    struct ip_addr addr = fixture_ip("10.0.0.1");
    const struct route_instance *first = take(claims, "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    const struct route_instance *second = take(claims, "i", 3, "10.0.0.1");
    assert_ptr_equal(second->claim, first->claim);
    assert_int_equal(publish(claims), 0);
    assert_ptr_equal(claims_owner(claims, &addr), second);
    assert_false(claim_is_revoked(first->claim));
}

static void test_newer_generation_is_a_new_claim(void **state)
{
    struct claims *claims = *state;
    struct ip_addr addr = fixture_ip("10.0.0.1");
    const struct route_instance *first = take(claims, "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    const struct route_instance *second = take(claims, "i", 4, "10.0.0.1");
    assert_true(second->claim->serial > first->claim->serial);
    assert_int_equal(publish(claims), 1);
    assert_true(claim_is_revoked(first->claim));
    assert_false(claim_is_revoked(second->claim));
    assert_ptr_equal(claims_owner(claims, &addr), second);
}

static void test_other_instance_is_a_new_claim(void **state)
{
    struct claims *claims = *state;
    const struct route_instance *first = take(claims, "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    take(claims, "j", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 1);
    assert_true(claim_is_revoked(first->claim));
}

/* What is in progress is of the clients of the app that had it. */
static void test_same_instance_in_another_app_is_a_new_claim(void **state)
{
    struct claims *claims = *state;
    const struct route_instance *first = take_for(claims, "a", "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    const struct route_instance *second = take_for(claims, "b", "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 1);
    assert_true(claim_is_revoked(first->claim));
    assert_false(claim_is_revoked(second->claim));
}

static void test_abort_restores(void **state)
{
    struct claims *claims = *state;
    struct ip_addr one = fixture_ip("10.0.0.1");
    struct ip_addr two = fixture_ip("10.0.0.2");
    const struct route_instance *first = take(claims, "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    take(claims, "j", 4, "10.0.0.1");
    take(claims, "k", 4, "10.0.0.2");
    claims_abort(claims);
    assert_ptr_equal(claims_owner(claims, &one), first);
    assert_ptr_equal(claims_staged_owner(claims, &one), first);
    assert_null(claims_staged_owner(claims, &two));
    assert_false(claim_is_revoked(first->claim));
    assert_int_equal(publish(claims), 0);
}

static void test_taken_and_released_in_one_batch(void **state)
{
    struct claims *claims = *state;
    for (int i = 0; i < 3; i++) {
        claims_stage_release(claims, take(claims, "i", 1, "10.0.0.1"));
        claims_stage_release(claims, take(claims, "j", 2, "10.0.0.1"));
    }
    assert_int_equal(publish(claims), 0);
}

static void test_release_of_one_that_does_not_own(void **state)
{
    struct claims *claims = *state;
    struct ip_addr addr = fixture_ip("10.0.0.1");
    const struct route_instance *first = take(claims, "i", 1, "10.0.0.1");
    claims_stage_release(claims, first);
    const struct route_instance *second = take(claims, "j", 1, "10.0.0.1");
    claims_stage_release(claims, first);
    assert_ptr_equal(claims_staged_owner(claims, &addr), second);
    assert_int_equal(publish(claims), 0);
    assert_ptr_equal(claims_owner(claims, &addr), second);
}

/* Against a plain array: many addresses come and go, some batches are aborted. */
static void test_many(void **state)
{
    enum { ADDRESSES = 500, ROUNDS = 200, PER_ROUND = 40 };
    struct claims *claims = *state;
    const struct route_instance *published[ADDRESSES] = {0};
    const struct route_instance *staged[ADDRESSES] = {0};
    uint32_t random = 12345;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < PER_ROUND; i++) {
            char text[IP_TEXT_MAX];
            random = random * 1664525 + 1013904223;
            size_t n = (random >> 8) % ADDRESSES;
            snprintf(text, sizeof text, "10.0.%zu.%zu", n / 250, n % 250);
            if (staged[n])
                claims_stage_release(claims, staged[n]);
            staged[n] = staged[n] ? NULL : take(claims, "i", round, text);
        }
        if (round % 5 == 0) {
            claims_abort(claims);
            memcpy(staged, published, sizeof staged);
        } else {
            publish(claims);
            memcpy(published, staged, sizeof published);
        }
        for (size_t n = 0; n < ADDRESSES; n++) {
            char text[IP_TEXT_MAX];
            snprintf(text, sizeof text, "10.0.%zu.%zu", n / 250, n % 250);
            struct ip_addr addr = fixture_ip(text);
            assert_ptr_equal(claims_owner(claims, &addr), published[n]);
            assert_ptr_equal(claims_staged_owner(claims, &addr), staged[n]);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_take_publish_release),
        TEST(test_same_instance_keeps_its_claim),
        TEST(test_newer_generation_is_a_new_claim),
        TEST(test_other_instance_is_a_new_claim),
        TEST(test_same_instance_in_another_app_is_a_new_claim),
        TEST(test_abort_restores),
        TEST(test_taken_and_released_in_one_batch),
        TEST(test_release_of_one_that_does_not_own),
        TEST(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
