#include "gateway/base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct item {
    int value;
    struct list link;
};

static int value_of(struct list *link)
{
    return CONTAINER_OF(link, struct item, link)->value;
}

static void test_order(void **state)
{
    struct list head;
    struct item items[4];
    int expected = 0;
    (void)state;
    list_init(&head);
    assert_true(list_is_empty(&head));
    assert_null(list_pop(&head));
    for (int i = 0; i < 4; i++)
        items[i].value = i;
    list_push(&head, &items[2].link);
    list_push(&head, &items[3].link);
    list_push_front(&head, &items[1].link);
    list_push_front(&head, &items[0].link);
    LIST_EACH (it, &head)
        assert_int_equal(value_of(it), expected++);
    assert_int_equal(expected, 4);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(list_pop(&head), &items[i].link);
    assert_true(list_is_empty(&head));
}

static void test_remove_in_a_walk(void **state)
{
    struct list head;
    struct item items[6];
    int left = 0;
    (void)state;
    list_init(&head);
    for (int i = 0; i < 6; i++) {
        items[i].value = i;
        list_push(&head, &items[i].link);
    }
    LIST_EACH_SAFE (it, &head)
        if (value_of(it) % 2 == 0)
            list_remove(it);
    LIST_EACH (it, &head)
        left = left * 10 + value_of(it);
    assert_int_equal(left, 135);
}

static void test_remove_twice_and_move(void **state)
{
    struct list a, b;
    struct item item = {.value = 1};
    (void)state;
    list_init(&a);
    list_init(&b);
    list_init(&item.link);
    list_remove(&item.link);
    list_push(&a, &item.link);
    list_remove(&item.link);
    list_remove(&item.link);
    list_push(&b, &item.link);
    assert_true(list_is_empty(&a));
    assert_false(list_is_empty(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_remove_in_a_walk),
        cmocka_unit_test(test_remove_twice_and_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
