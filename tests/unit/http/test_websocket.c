#include "gateway/http/websocket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* RFC 6455 section 1.3 */
static void test_the_example(void **state)
{
    struct arena arena;
    (void)state;
    arena_init(&arena, NULL);
    struct slice accept = websocket_accept(SLICE("dGhlIHNhbXBsZSBub25jZQ=="), &arena);
    assert_true(slice_eq(accept, SLICE("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    arena_reset(&arena);
}

/* Around the ends of blocks, computed by python3's hashlib. */
static void test_keys_of_any_length(void **state)
{
    static const struct {
        size_t len;
        const char *accept;
    } cases[] = {
        {0, "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w="},   {1, "FtgH8qqfEKHvZKEZYEWkYDhlXNY="},
        {18, "CvXZAEVT+3WGGcleYlP3oRTwsJM="},  {19, "WmZalHyeWkcaW76MWEUKdMZJVsY="},
        {20, "E3PVHX60vqzhw9A+fnUl3rpZIiM="},  {24, "Ztn1AJVko1pRzFpHK5PO3rPPDZ0="},
        {27, "vOEQatjhluzXA7JQtkSIWeVGpyo="},  {28, "N5xpLd0GaKAgRQLC2ih7hdJdecM="},
        {29, "cUIy4WDzcHr361hvX2BXf24iaYk="},  {82, "9SCQ4A5imU774jbsgts81NKLYuk="},
        {83, "robyJ11FrYFHwS3/7u4Jtxf3vm0="},  {84, "AmvwDM5i2fg6Mvx2Hv5ImOyFUq4="},
        {200, "7LGlezE1FfvPOK44UVRr/05LLd0="},
    };
    char key[200];
    (void)state;
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (char)('a' + i % 10);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, NULL);
        assert_true(slice_eq(websocket_accept(slice_make(key, cases[i].len), &arena), slice_str(cases[i].accept)));
        arena_reset(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example),
        cmocka_unit_test(test_keys_of_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
