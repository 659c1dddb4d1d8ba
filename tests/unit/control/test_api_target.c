#include "../gateway/control/api_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct api_target parse(struct arena *arena, const char *path)
{
    struct api_target target;
    struct route_problem problem;
    assert_int_equal(api_target_parse(slice_str(path), arena, &target, &problem), STATUS_OK);
    return target;
}
