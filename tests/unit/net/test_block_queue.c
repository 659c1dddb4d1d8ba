/* A queue of blocks: what goes in comes out, in order, and an empty queue owns nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/net/block_queue.h"

enum { MANY = 200000 };

static struct counters counters;

static char byte_at(size_t i)
{
    return (char)(i * 7 + i / 251);
}

static int set_up(void **state)
{
    *state = loop_new(&counters);
    return 0;
}

static int tear_down(void **state)
{
    struct loop *loop = *state;
    loop_free(&loop);
    return 0;
}

static void append_from(struct loop *loop, struct block_queue *queue, size_t from, size_t len)
{
    static char bytes[MANY];
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(from + i);
    block_queue_append(loop, queue, bytes, len);
}

static void check_pieces(const struct iovec *pieces, int count, size_t from, size_t len)
{
    size_t at = from;
    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < pieces[i].iov_len; j++, at++)
            assert_int_equal(((const char *)pieces[i].iov_base)[j], byte_at(at));
    assert_int_equal(at - from, len);
}

static void bytes_come_out_in_order(void **state)
{
    static const size_t steps[] = {1, 16384, 32752, 32751, 100000, 7};
    struct loop *loop = *state;
    struct block_queue queue = {.bytes = 0};
    size_t in = 0, out = 0;
    for (size_t i = 0; out < MANY; i = (i + 1) % 6) {
        size_t n = steps[i] < MANY - in ? steps[i] : MANY - in;
        append_from(loop, &queue, in, n);
        in += n;
        struct iovec pieces[16];
        size_t wanted = steps[(i + 3) % 6] < queue.bytes ? steps[(i + 3) % 6] : queue.bytes;
        check_pieces(pieces, block_queue_pieces(&queue, wanted, pieces, 16), out, wanted);
        block_queue_consume(loop, &queue, wanted);
        out += wanted;
        assert_int_equal(queue.bytes, in - out);
    }
    assert_null(queue.first);
    assert_null(queue.last);
}

static void pieces_are_bounded(void **state)
{
    struct loop *loop = *state;
    struct block_queue queue = {.bytes = 0};
    struct iovec pieces[2];
    assert_int_equal(block_queue_pieces(&queue, SIZE_MAX, pieces, 2), 0);
    append_from(loop, &queue, 0, MANY);
    assert_int_equal(block_queue_pieces(&queue, SIZE_MAX, pieces, 2), 2);
    assert_true(pieces[0].iov_len + pieces[1].iov_len < MANY);
    assert_int_equal(block_queue_pieces(&queue, 5, pieces, 2), 1);
    assert_int_equal(pieces[0].iov_len, 5);
    block_queue_drop(loop, &queue);
    assert_null(queue.first);
    assert_int_equal(queue.bytes, 0);
    block_queue_drop(loop, &queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_come_out_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pieces_are_bounded, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
