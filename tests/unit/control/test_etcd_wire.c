/* etcd_wire: requests as etcd's JSON gateway takes them, and answers as etcd 3.4 writes them. */
#include "gateway/control/etcd_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define GREATEST "4611686018427387904" /* ETCD_WIRE_MAX_REVISION */
#define BEYOND   "4611686018427387905"
#define HEADER                                                                                                         \
    "\"header\":{\"cluster_id\":\"14841639068965178418\",\"member_id\":\"2\",\"revision\":\"7\",\"raft_term\":\"2\"}"

static void assert_text(char *text, const char *wanted)
{
    assert_non_null(text);
    assert_string_equal(text, wanted);
    free(text);
}

/* ---- requests ---- */

static void range_requests(void **state)
{
    (void)state;
    assert_text(etcd_wire_range_request(&(struct etcd_wire_range){.key = SLICE("/g/apps/a")}),
                "{\"key\":\"L2cvYXBwcy9h\"}");
    assert_text(etcd_wire_range_request(&(struct etcd_wire_range){
                    .key = SLICE("a"), .range_end = SLICE("b"), .revision = 5, .limit = 10, .count_only = true}),
                "{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"revision\":\"5\",\"limit\":\"10\",\"count_only\":true}");
}

static void txn_requests(void **state)
{
    (void)state;
    const struct etcd_wire_op ops[] = {
        {.key = SLICE("a"), .value = SLICE("x"), .has_expected = true, .expected_mod_revision = 3},
        {.key = SLICE("b"), .is_delete = true},
        {.key = SLICE("c"), .range_end = SLICE("d"), .is_delete = true, .has_expected = true},
    };
    assert_text(etcd_wire_txn_request(ops, 3),
                "{\"compare\":[{\"result\":\"EQUAL\",\"target\":\"MOD\",\"mod_revision\":\"3\",\"key\":\"YQ==\"},"
                "{\"result\":\"EQUAL\",\"target\":\"MOD\",\"mod_revision\":\"0\",\"key\":\"Yw==\"}],\"success\":["
                "{\"request_put\":{\"key\":\"YQ==\",\"value\":\"eA==\"}},"
                "{\"request_delete_range\":{\"key\":\"Yg==\"}},"
                "{\"request_delete_range\":{\"key\":\"Yw==\",\"range_end\":\"ZA==\"}}],\"failure\":["
                "{\"request_range\":{\"key\":\"YQ==\"}},{\"request_range\":{\"key\":\"Yw==\"}}]}");
    assert_text(etcd_wire_txn_request(NULL, 0), "{\"compare\":[],\"success\":[],\"failure\":[]}");
}

static void large_values_are_encoded_whole(void **state)
{
    (void)state;
    size_t len = 100000;
    char *value = malloc(len);
    assert_non_null(value);
    memset(value, 0, len);
    const struct etcd_wire_op op = {.key = SLICE("a"), .value = slice_make(value, len)};
    char *text = etcd_wire_txn_request(&op, 1);
    const char *found = strstr(text, "\"value\":\"AAAA");
    assert_non_null(found);
    assert_int_equal(strspn(found + 9, "A"), 133334);
    assert_memory_equal(found + 9 + 133334, "==\"", 3);
    free(text);
    free(value);
}

static void other_requests(void **state)
{
    (void)state;
    assert_text(etcd_wire_prefix_end(SLICE("/g/apps/")), "/g/apps0");
    assert_text(etcd_wire_watch_request(SLICE("/g/"), 8),
                "{\"create_request\":{\"key\":\"L2cv\",\"range_end\":\"L2cw\",\"start_revision\":\"8\","
                "\"progress_notify\":true,\"fragment\":true}}");
    assert_text(etcd_wire_authenticate_request(SLICE("me"), SLICE("a\"b")),
                "{\"name\":\"me\",\"password\":\"a\\\"b\"}");
    assert_null(etcd_wire_authenticate_request(SLICE("me"), SLICE("\xff")));
}

/* ---- answers ---- */

static char seen[512];

static void note(void *arg, const struct etcd_wire_kv *kv)
{
    (void)arg;
    size_t len = strlen(seen);
    snprintf(seen + len, sizeof seen - len, "%s%.*s=%.*s@%d|", kv->is_delete ? "-" : "", SLICE_ARG(kv->key),
             SLICE_ARG(kv->value), (int)kv->mod_revision);
}

static void range_answers(void **state)
{
    (void)state;
    struct etcd_wire_range_answer answer;
    seen[0] = '\0';
    assert_true(etcd_wire_range_read(
        SLICE("{" HEADER ",\"kvs\":[{\"key\":\"L2cvYXBwcy9h\",\"create_revision\":\"2\",\"mod_revision\":\"4\","
              "\"version\":\"2\",\"value\":\"eA==\"},{\"key\":\"Yg==\",\"mod_revision\":5}],\"more\":true,"
              "\"count\":\"9\",\"new_member\":[]}"),
        note, NULL, &answer));
    assert_string_equal(seen, "/g/apps/a=x@4|b=@5|");
    assert_true(answer.more && answer.count == 9);
    assert_true(answer.header.cluster_id == 14841639068965178418U && answer.header.member_id == 2);
    assert_int_equal(answer.header.revision, 7);
    assert_true(etcd_wire_range_read(SLICE("{" HEADER "}"), note, NULL, &answer));
    assert_true(!answer.more && answer.count == 0);
    assert_true(etcd_wire_range_read(SLICE("{\"header\":{\"revision\":\"" GREATEST "\"}}"), note, NULL, &answer));
    assert_true(answer.header.revision == ETCD_WIRE_MAX_REVISION);
}

static void a_bad_message_is_refused_as_a_whole(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"header\":5}",
        "{\"header\":{\"revision\":\"x\"}}",
        "{\"header\":{\"revision\":\"-1\"}}",
        "{\"header\":{\"revision\":-1}}",
        "{\"header\":{\"cluster_id\":\"1\"}}",
        "{\"header\":{\"revision\":\"0\"}}",
        "{\"header\":{\"revision\":\"" BEYOND "\"}}",
        "{\"header\":{\"revision\":" BEYOND "}}",
        "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"" BEYOND "\"}]}",
        "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"18446744073709551615\"}]}",
        "{" HEADER ",\"more\":1}",
        "{" HEADER ",\"kvs\":{}}",
        "{" HEADER ",\"kvs\":[5]}",
        "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"1\"},{\"mod_revision\":\"1\"}]}",
        "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\"}]}",
        "{" HEADER ",\"kvs\":[{\"key\":\"YQ=\",\"mod_revision\":\"1\"}]}",
        "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\",\"value\":7,\"mod_revision\":\"1\"}]}",
    };
    (void)state;
    seen[0] = '\0';
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct etcd_wire_range_answer answer;
        assert_false(etcd_wire_range_read(slice_str(bad[i]), note, NULL, &answer));
        assert_string_equal(seen, "");
    }
}

static void txn_answers(void **state)
{
    (void)state;
    struct etcd_wire_txn_answer answer;
    seen[0] = '\0';
    assert_true(etcd_wire_txn_read(SLICE("{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}"), note,
                                   NULL, &answer));
    assert_true(answer.succeeded && answer.changed && answer.header.revision == 7);
    assert_true(etcd_wire_txn_read(
        SLICE("{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_delete_range\":{}}]}"), note, NULL, &answer));
    assert_true(answer.succeeded && !answer.changed);
    assert_true(etcd_wire_txn_read(
        SLICE("{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_delete_range\":{\"deleted\":\"1\"}}]}"), note,
        NULL, &answer));
    assert_true(answer.changed);
    assert_string_equal(seen, "");
    assert_true(etcd_wire_txn_read(
        SLICE("{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"4\"}]}},"
              "{\"response_range\":{\"count\":\"0\"}}]}"),
        note, NULL, &answer));
    assert_true(!answer.succeeded && !answer.changed);
    assert_string_equal(seen, "a=@4|");
    assert_false(etcd_wire_txn_read(SLICE("{\"succeeded\":true}"), note, NULL, &answer));
    assert_false(etcd_wire_txn_read(SLICE("{" HEADER ",\"succeeded\":\"yes\"}"), note, NULL, &answer));
    assert_false(etcd_wire_txn_read(SLICE("{" HEADER ",\"responses\":5}"), note, NULL, &answer));
}

static void watch_answers(void **state)
{
    (void)state;
    struct etcd_wire_watch_answer answer;
    assert_true(etcd_wire_watch_read(SLICE("{\"result\":{" HEADER ",\"created\":true}}"), note, NULL, &answer));
    assert_true(answer.created && !answer.canceled && answer.event_count == 0);
    seen[0] = '\0';
    assert_true(etcd_wire_watch_read(
        SLICE("{\"result\":{" HEADER
              ",\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"6\",\"value\":\"eA==\"}},"
              "{\"type\":\"DELETE\",\"kv\":{\"key\":\"Yg==\",\"mod_revision\":\"7\"}}],\"fragment\":true}}"),
        note, NULL, &answer));
    assert_string_equal(seen, "a=x@6|-b=@7|");
    assert_true(answer.event_count == 2 && answer.is_fragment && !answer.created);
    assert_true(etcd_wire_watch_read(
        SLICE("{\"result\":{\"header\":{\"cluster_id\":\"1\"},\"canceled\":true,\"compact_revision\":\"4\"}}"), note,
        NULL, &answer));
    assert_true(answer.canceled && answer.compact_revision == 4);
    assert_true(etcd_wire_watch_read(SLICE("{\"result\":{" HEADER ",\"canceled\":true,\"cancel_reason\":\"denied\"}}"),
                                     note, NULL, &answer));
    assert_string_equal(answer.text, "denied");
    assert_true(
        etcd_wire_watch_read(SLICE("{\"error\":{\"grpc_code\":14,\"message\":\"no leader\"}}"), note, NULL, &answer));
    assert_true(answer.canceled);
    assert_string_equal(answer.text, "no leader");
    assert_false(etcd_wire_watch_read(SLICE("{\"result\":5}"), note, NULL, &answer));
    assert_false(
        etcd_wire_watch_read(SLICE("{\"result\":{\"header\":{\"revision\":\"" BEYOND "\"}}}"), note, NULL, &answer));
    assert_false(etcd_wire_watch_read(SLICE("{\"result\":{" HEADER ",\"compact_revision\":\"" BEYOND "\"}}"), note,
                                      NULL, &answer));
    assert_false(etcd_wire_watch_read(
        SLICE("{\"result\":{" HEADER ",\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"" BEYOND "\"}}]}}"),
        note, NULL, &answer));
    assert_false(etcd_wire_watch_read(
        SLICE("{\"result\":{" HEADER
              ",\"events\":[{\"type\":\"MOVE\",\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"6\"}}]}}"),
        note, NULL, &answer));
}

static void tokens(void **state)
{
    (void)state;
    char *token = NULL;
    assert_true(etcd_wire_authenticate_read(SLICE("{" HEADER ",\"token\":\"abc.12\"}"), &token));
    assert_text(token, "abc.12");
    assert_false(etcd_wire_authenticate_read(SLICE("{" HEADER "}"), &token));
    assert_false(etcd_wire_authenticate_read(SLICE("{\"token\":\"a\\r\\nX: y\"}"), &token));
    assert_false(etcd_wire_authenticate_read(SLICE("{\"token\":\"\"}"), &token));
}

static void errors(void **state)
{
    (void)state;
    struct etcd_wire_error error;
    assert_true(etcd_wire_error_read(
        SLICE("{\"error\":\"etcdserver: mvcc: required revision has been compacted\",\"message\":\"x\",\"code\":11}"),
        &error));
    assert_int_equal(error.code, ETCD_WIRE_OUT_OF_RANGE);
    assert_string_equal(error.text, "etcdserver: mvcc: required revision has been compacted");
    assert_false(etcd_wire_error_is_token(&error));
    assert_true(etcd_wire_error_read(SLICE("{\"error\":\"etcdserver: invalid auth token\",\"code\":16}"), &error));
    assert_true(etcd_wire_error_is_token(&error));
    assert_true(etcd_wire_error_read(SLICE("{\"error\":\"etcdserver: user name is empty\",\"code\":3}"), &error));
    assert_true(etcd_wire_error_is_token(&error));
    assert_false(etcd_wire_error_read(SLICE("404 page not found"), &error));
    assert_false(etcd_wire_error_read(SLICE("{\"code\":1}"), &error));
}

static void errors_of_members_that_are_well(void **state)
{
    (void)state;
    struct etcd_wire_error error;
    assert_true(etcd_wire_error_read(SLICE("{\"error\":\"etcdserver: no leader\",\"code\":14}"), &error));
    assert_true(etcd_wire_error_is_uncertain(400, &error));
    assert_true(etcd_wire_error_read(SLICE("{\"error\":\"etcdserver: request timed out\",\"code\":4}"), &error));
    assert_true(etcd_wire_error_is_uncertain(400, &error));
    assert_true(etcd_wire_error_read(SLICE("{\"error\":\"etcdserver: permission denied\",\"code\":7}"), &error));
    assert_false(etcd_wire_error_is_uncertain(403, &error));
    error = (struct etcd_wire_error){.code = 0};
    assert_true(etcd_wire_error_is_uncertain(502, &error));
    assert_false(etcd_wire_error_is_uncertain(404, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_requests),
        cmocka_unit_test(txn_requests),
        cmocka_unit_test(large_values_are_encoded_whole),
        cmocka_unit_test(other_requests),
        cmocka_unit_test(range_answers),
        cmocka_unit_test(a_bad_message_is_refused_as_a_whole),
        cmocka_unit_test(txn_answers),
        cmocka_unit_test(watch_answers),
        cmocka_unit_test(tokens),
        cmocka_unit_test(errors),
        cmocka_unit_test(errors_of_members_that_are_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
