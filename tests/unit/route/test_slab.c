#include "../../../gateway/route/slab.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_sizes(void **state)
{
    (void)state;
    size_t before = 0;
    for (size_t size = 0; size <= SLAB_MAX_SHARED + 2 * SLAB_CHUNK_BYTES; size += size < 2000 ? 1 : 997) {
        size_t block_size = slab_block_size(size);
        assert_true(block_size >= size && block_size >= before);
        assert_int_equal(slab_block_size(block_size), block_size);
        assert_int_equal(block_size % SLAB_ALIGN, 0);
        /* At most an eighth is lost, beyond the step of small ones. */
        assert_true(size > SLAB_MAX_SHARED || block_size - size <= size / 8 + SLAB_ALIGN);
        before = block_size;
    }
}

static void check_block(size_t size)
{
    char *block = slab_alloc(size);
    size_t block_size = slab_block_size(size);
    assert_int_equal((uintptr_t)block % SLAB_ALIGN, 0);
    if (block_size % SLAB_LINE == 0)
        assert_int_equal((uintptr_t)block % SLAB_LINE, 0);
    memset(block, 0x5a, block_size);
    slab_free(block);
}

static void test_all_of_a_block_is_usable(void **state)
{
    (void)state;
    const size_t sizes[] = {0,
                            1,
                            32,
                            33,
                            64,
                            206,
                            512,
                            513,
                            36864,
                            SLAB_MAX_SHARED - 1,
                            SLAB_MAX_SHARED,
                            SLAB_MAX_SHARED + 1,
                            SLAB_CHUNK_BYTES - SLAB_LINE,
                            SLAB_CHUNK_BYTES,
                            3 * SLAB_CHUNK_BYTES};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_block(sizes[i]);
    slab_free(NULL);
}

struct item {
    unsigned char *block;
    size_t size;
    unsigned char fill;
};

static void fill(struct item *item, uint32_t random)
{
    static const size_t sizes[] = {24, 206, 300, 700, 5000, 36864, 100000};
    item->size = sizes[random % (sizeof sizes / sizeof sizes[0])];
    item->fill = (unsigned char)(random >> 16);
    item->block = slab_alloc(item->size);
    memset(item->block, item->fill, item->size);
}

static void empty(struct item *item)
{
    for (size_t i = 0; i < item->size; i++)
        if (item->block[i] != item->fill)
            fail_msg("a byte of a block of %zu was overwritten", item->size);
    slab_free(item->block);
    item->block = NULL;
}

/* Blocks of all sizes come and go; what is in one stays, whatever happens to others. */
static void *churn(void *arg)
{
    enum { ITEMS = 400, STEPS = 20000 };
    uint32_t random = *(uint32_t *)arg;
    struct item *items = calloc(ITEMS, sizeof *items);
    for (unsigned step = 0; items && step < STEPS; step++) {
        random = random * 1664525 + 1013904223;
        struct item *item = &items[(random >> 8) % ITEMS];
        if (item->block)
            empty(item);
        else
            fill(item, random);
    }
    for (unsigned i = 0; items && i < ITEMS; i++)
        if (items[i].block)
            empty(&items[i]);
    free(items);
    return NULL;
}

static void test_churn_in_threads(void **state)
{
    (void)state;
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    uint32_t seeds[THREADS] = {1, 2, 3};
    size_t before = slab_mapped();
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &seeds[i]), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(slab_mapped() <= before + SLAB_CHUNK_BYTES); /* one is kept */
}

/* Memory goes back when nothing is left in it, and what is free is used before there is more of it. */
static void test_memory_goes_back(void **state)
{
    (void)state;
    enum { BLOCKS = 50000, SIZE = 224 };
    static void *blocks[BLOCKS];
    size_t before = slab_mapped();
    for (unsigned i = 0; i < BLOCKS; i++)
        blocks[i] = slab_alloc(SIZE);
    size_t full = slab_mapped();
    assert_true(full - before >= (size_t)BLOCKS * SIZE - SLAB_CHUNK_BYTES);
    assert_true(full - before <= (size_t)BLOCKS * SIZE * 102 / 100 + SLAB_CHUNK_BYTES);
    for (unsigned i = 0; i < BLOCKS; i += 2)
        slab_free(blocks[i]);
    for (unsigned i = 0; i < BLOCKS; i += 2)
        blocks[i] = slab_alloc(SIZE);
    assert_int_equal(slab_mapped(), full);
    for (unsigned i = 0; i < BLOCKS; i++)
        slab_free(blocks[i]);
    assert_true(slab_mapped() <= before + SLAB_CHUNK_BYTES);
    void *large = slab_alloc(5 * SLAB_CHUNK_BYTES);
    assert_true(slab_mapped() >= before + 5 * SLAB_CHUNK_BYTES);
    slab_free(large);
    assert_true(slab_mapped() <= before + SLAB_CHUNK_BYTES);
}

/* Few blocks that changed one by one don't keep the memory of all others that were replaced at once afterwards. */
static void test_replaced_memory_goes_back(void **state)
{
    (void)state;
    enum { BLOCKS = 100000, SIZE = 224, CHANGED_EACH = 1000 };
    static void *blocks[BLOCKS], *replaced[BLOCKS];
    size_t before = slab_mapped();
    for (unsigned i = 0; i < BLOCKS; i++)
        blocks[i] = slab_alloc(SIZE);
    size_t full = slab_mapped();
    for (unsigned i = 0; i < BLOCKS; i += CHANGED_EACH) {
        void *changed = slab_alloc(SIZE);
        slab_free(blocks[i]);
        blocks[i] = changed;
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        replaced[i] = slab_alloc(SIZE);
    for (unsigned i = 0; i < BLOCKS; i++)
        slab_free(blocks[i]);
    assert_true(slab_mapped() <= full + 2 * SLAB_CHUNK_BYTES);
    for (unsigned i = 0; i < BLOCKS; i++)
        slab_free(replaced[i]);
    assert_true(slab_mapped() <= before + SLAB_CHUNK_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_all_of_a_block_is_usable),
        cmocka_unit_test(test_churn_in_threads),
        cmocka_unit_test(test_memory_goes_back),
        cmocka_unit_test(test_replaced_memory_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
