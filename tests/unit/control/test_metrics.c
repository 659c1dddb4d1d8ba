#include "gateway/control/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *format(void)
{
    static struct counters totals;
    COUNTER_ADD(&totals, requests_total, 42);
    struct metrics_facts facts = {
        .totals = &totals, .apps = 3, .instances = 5, .revision = 9, .routes_left_out = 4, .workers = 2, .ready = true};
    facts.sync = (struct sync_status){.state = SYNC_FOLLOWING, .connected = true, .word_age_ms = 2500};
    facts.process.cpu_us = 1500000;
    facts.started_wall_us = 1700000000000001U;
    return metrics_format(&facts);
}

static void values_are_there(void **state)
{
    (void)state;
    char *text = format();
    assert_non_null(strstr(text, "\nphala_gateway_requests_total 42\n"));
    assert_non_null(strstr(text, "# TYPE phala_gateway_requests_total counter\n"));
    assert_non_null(strstr(text, "# TYPE phala_gateway_connections gauge\n"));
    assert_non_null(strstr(text, "\nphala_gateway_build_info{version=\"" GW_VERSION "\"} 1\n"));
    assert_non_null(strstr(text, "\nphala_gateway_apps 3\n"));
    assert_non_null(strstr(text, "\nphala_gateway_revision 9\n"));
    assert_non_null(strstr(text, "\nphala_gateway_routes_left_out 4\n"));
    assert_non_null(strstr(text, "\nphala_gateway_sync_connected 1\n"));
    assert_non_null(strstr(text, "\nphala_gateway_sync_word_age_seconds 2.500000\n"));
    assert_non_null(strstr(text, "\nphala_gateway_sync_resyncs_total 0\n"));
    assert_non_null(strstr(text, "\nprocess_cpu_seconds_total 1.500000\n"));
    assert_non_null(strstr(text, "\nprocess_start_time_seconds 1700000000.000001\n"));
    free(text);
}

/* Every sample has its HELP and TYPE just before it, and no name comes twice. */
static void the_text_is_well_formed(void **state)
{
    (void)state;
    char *text = format();
    char name[128] = "";
    char type[16] = "";
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char found[128];
        if (sscanf(line, "# HELP %127s", found) == 1) {
            assert_string_not_equal(found, name);
            snprintf(name, sizeof name, "%s", found);
        } else if (sscanf(line, "# TYPE %127s %15s", found, type) == 2) {
            assert_string_equal(found, name);
            assert_true(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0);
            assert_int_equal(strcmp(type, "counter") == 0, strstr(name, "_total") != NULL);
        } else {
            assert_int_equal(strncmp(line, name, strlen(name)), 0);
            assert_true(line[strlen(name)] == ' ' || line[strlen(name)] == '{');
        }
    }
    free(text);
}

static void the_kernel_is_asked(void **state)
{
    (void)state;
    struct metrics_process process;
    metrics_process_read(&process);
    assert_true(process.rss_bytes > 100000);
    assert_true(process.open_fds >= 3);
    assert_true(process.max_fds >= process.open_fds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_there),
        cmocka_unit_test(the_text_is_well_formed),
        cmocka_unit_test(the_kernel_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
