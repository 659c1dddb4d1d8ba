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

/* The reference is dropped; the index has its own while it owns. */
static struct claim *take(struct claims *claims, const char *id, uint64_t generation, const char *address)
{
    struct ip_addr addr = fixture_ip(address);
    struct claim *claim = claims_stage_take(claims, id, generation, &addr);
    struct claim *kept = claim;
    claim_unref(&claim);
    assert_null(claim);
    return kept;
}

static void test_take_publish_release(void **state)
{
    struct claims *claims = claims_new();
    struct ip_addr addr = fixture_ip("10.0.0.1");
    (void)state;
    struct claim *claim = claim_ref(take(claims, "i", 3, "10.0.0.1"));
    assert_null(claims_owner(claims, &addr));
    assert_ptr_equal(claims_staged_owner(claims, &addr), claim);
    assert_int_equal(publish(claims), 0);
    assert_ptr_equal(claims_owner(claims, &addr), claim);
    assert_string_equal(claim->instance_id, "i");
    assert_int_equal(claim->generation, 3);
    claims_stage_release(claims, claim);
    assert_ptr_equal(claims_owner(claims, &addr), claim);
    assert_null(claims_staged_owner(claims, &addr));
    assert_false(claim_is_revoked(claim));
    assert_int_equal(publish(claims), 1);
    assert_true(claim_is_revoked(claim));
    assert_null(claims_owner(claims, &addr));
    claim_unref(&claim);
    claims_free(&claims);
    claims_free(&claims);
}

static void test_same_instance_keeps_its_claim(void **state)
{
    struct claims *claims = claims_new();
    (void)state;
    struct claim *first = take(claims, "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    assert_ptr_equal(take(claims, "i", 3, "10.0.0.1"), first);
    assert_int_equal(publish(claims), 0);
    assert_false(claim_is_revoked(first));
    claims_free(&claims);
}

static void test_newer_generation_is_a_new_claim(void **state)
{
    struct claims *claims = claims_new();
    struct ip_addr addr = fixture_ip("10.0.0.1");
    (void)state;
    struct claim *first = claim_ref(take(claims, "i", 3, "10.0.0.1"));
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    struct claim *second = take(claims, "i", 4, "10.0.0.1");
    assert_true(second->serial > first->serial);
    assert_int_equal(publish(claims), 1);
    assert_true(claim_is_revoked(first));
    assert_false(claim_is_revoked(second));
    assert_ptr_equal(claims_owner(claims, &addr), second);
    claim_unref(&first);
    claims_free(&claims);
}

static void test_abort_restores(void **state)
{
    struct claims *claims = claims_new();
    struct ip_addr one = fixture_ip("10.0.0.1");
    struct ip_addr two = fixture_ip("10.0.0.2");
    (void)state;
    struct claim *first = take(claims, "i", 3, "10.0.0.1");
    assert_int_equal(publish(claims), 0);
    claims_stage_release(claims, first);
    take(claims, "j", 4, "10.0.0.1");
    take(claims, "k", 4, "10.0.0.2");
    claims_abort(claims);
    assert_ptr_equal(claims_owner(claims, &one), first);
    assert_ptr_equal(claims_staged_owner(claims, &one), first);
    assert_null(claims_staged_owner(claims, &two));
    assert_false(claim_is_revoked(first));
    assert_int_equal(publish(claims), 0);
    claims_free(&claims);
}

static void test_taken_and_released_in_one_batch(void **state)
{
    struct claims *claims = claims_new();
    (void)state;
    for (int i = 0; i < 3; i++) {
        claims_stage_release(claims, take(claims, "i", 1, "10.0.0.1"));
        claims_stage_release(claims, take(claims, "j", 2, "10.0.0.1"));
    }
    assert_int_equal(publish(claims), 0);
    claims_free(&claims);
}

/* Against a plain array: many addresses come and go, some batches are aborted. */
static void test_many(void **state)
{
    enum { ADDRESSES = 500, ROUNDS = 200, PER_ROUND = 40 };
    struct claims *claims = claims_new();
    struct claim *published[ADDRESSES] = {0};
    struct claim *staged[ADDRESSES] = {0};
    uint32_t random = 12345;
    (void)state;
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
    claims_free(&claims);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_publish_release),
        cmocka_unit_test(test_same_instance_keeps_its_claim),
        cmocka_unit_test(test_newer_generation_is_a_new_claim),
        cmocka_unit_test(test_abort_restores),
        cmocka_unit_test(test_taken_and_released_in_one_batch),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
