#include "gateway/http/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void test_methods_are_named_both_ways(void **state)
{
    (void)state;
#define X(name)                                                                                                        \
    assert_int_equal(method_of(SLICE(#name)), METHOD_##name);                                                          \
    assert_true(slice_eq(method_name(METHOD_##name), SLICE(#name)));
    METHODS_TABLE(X)
#undef X
}

static void test_other_methods(void **state)
{
    static const char *const others[] = {"", "get", "Get", "GE", "GETT", "PROPFIND", "PRI", "DELETED", "HEAt", "TRACK"};
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(method_of(slice_str(others[i])), METHOD_OTHER);
    assert_int_equal(method_of(SLICE_NONE), METHOD_OTHER);
    assert_int_equal(method_name(METHOD_OTHER).len, 0);
}

static void test_idempotent(void **state)
{
    (void)state;
    assert_true(method_is_idempotent(METHOD_GET));
    assert_true(method_is_idempotent(METHOD_HEAD));
    assert_true(method_is_idempotent(METHOD_PUT));
    assert_true(method_is_idempotent(METHOD_DELETE));
    assert_true(method_is_idempotent(METHOD_OPTIONS));
    assert_true(method_is_idempotent(METHOD_TRACE));
    assert_false(method_is_idempotent(METHOD_POST));
    assert_false(method_is_idempotent(METHOD_PATCH));
    assert_false(method_is_idempotent(METHOD_CONNECT));
    assert_false(method_is_idempotent(METHOD_OTHER));
}

static void test_kinds_of_heads(void **state)
{
    (void)state;
    assert_true(head_is_request(&(struct message_head){.status = 0}));
    assert_false(head_is_request(&(struct message_head){.status = 200}));
    assert_true(head_is_interim(&(struct message_head){.status = 100}));
    assert_true(head_is_interim(&(struct message_head){.status = 103}));
    assert_false(head_is_interim(&(struct message_head){.status = 101}));
    assert_false(head_is_interim(&(struct message_head){.status = 200}));
}

static void test_grpc_is_told_by_its_content_type(void **state)
{
    static const struct {
        const char *type;
        bool is_grpc;
    } cases[] = {
        {"application/grpc", true},           {"application/grpc+proto", true},
        {"Application/gRPC;charset=x", true}, {"application/grpc ; x=y", true},
        {"application/grpc-web", false},      {"application/grpc-web+proto", false},
        {"application/grpcish", false},       {"application/json", false},
        {"application/grp", false},           {"", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        struct message_head head = {.status = 0};
        arena_init(&arena, NULL);
        fields_add_known(&head.fields, &arena, FIELD_CONTENT_TYPE, slice_str(cases[i].type));
        assert_int_equal(head_is_grpc(&head), cases[i].is_grpc);
        arena_reset(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods_are_named_both_ways),
        cmocka_unit_test(test_other_methods),
        cmocka_unit_test(test_idempotent),
        cmocka_unit_test(test_kinds_of_heads),
        cmocka_unit_test(test_grpc_is_told_by_its_content_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
