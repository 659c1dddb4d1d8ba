/*
 * An app document by both ways of reading it, which must agree. Then through parse, check and format: what is accepted
 * must come back the same, and so must a second formatting. A patch of the first instance with the same bytes must not
 * break the record either.
 */
#include "../../gateway/control/app_document_internal.h"
#include "../../gateway/control/app_scan.h"

#include "gateway/control/app_document.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ip_network allow[] = {{{AF_INET, {0}}, 0}, {{AF_INET6, {0}}, 0}, {{AF_INET, {127}}, 8}};
static const struct route_rules rules = {.allow = allow, .allow_count = sizeof allow / sizeof allow[0]};

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_round_trip(const struct route_app *app)
{
    struct route_app *again = NULL;
    struct route_problem problem;
    char *text = app_document_format(app);
    must(app_document_parse(slice_str(text), &again, &problem) == STATUS_OK);
    must(route_app_equal(app, again));
    must(route_app_check(again, &rules, &problem) == STATUS_OK);
    struct route_app *copy = route_app_copy(app);
    char *second = app_document_format(copy);
    must(strcmp(text, second) == 0);
    route_app_free(&copy);
    route_app_free(&again);
    free(second);
    free(text);
}

static void check_scan(struct slice json)
{
    struct route_app *scanned = NULL, *read = NULL;
    struct route_problem problem;
    json_t *root;
    if (!app_scan(json, &scanned))
        return;
    must(app_document_load(json, APP_DOCUMENT_MAX_BYTES, &root, &problem) == STATUS_OK);
    must(app_document_read(root, "", &read, &problem) == STATUS_OK);
    must(route_app_equal(scanned, read) && scanned->revision == read->revision);
    json_decref(root);
    route_app_free(&scanned);
    route_app_free(&read);
}

static void check_problem(const struct route_problem *problem)
{
    must(problem->status != STATUS_OK);
    must(memchr(problem->field, '\0', sizeof problem->field) && memchr(problem->detail, '\0', sizeof problem->detail));
    must(problem->detail[0] != '\0');
}

/* A record that a patch is tried on. */
static void check_patch(struct slice json)
{
    static const char base[] = "{\"app_id\":\"a\",\"instances\":[{\"instance_id\":\"i\",\"address\":\"10.0.0.1\"}]}";
    struct route_app *app = NULL;
    struct route_problem problem = {0};
    must(app_document_parse(slice_make(base, sizeof base - 1), &app, &problem) == STATUS_OK);
    if (app_document_patch_instance(json, app, SLICE("i"), &problem) != STATUS_OK)
        check_problem(&problem);
    else if (route_app_check(app, &rules, &problem) == STATUS_OK)
        check_round_trip(app);
    route_app_free(&app);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice json = slice_make(data, size);
    struct route_app *app = NULL;
    struct route_problem problem = {0};
    check_scan(json);
    check_patch(json);
    if (app_document_parse(json, &app, &problem) != STATUS_OK) {
        check_problem(&problem);
        must(!app);
        return 0;
    }
    if (route_app_check(app, &rules, &problem) == STATUS_OK)
        check_round_trip(app);
    else
        check_problem(&problem);
    route_app_free(&app);
    return 0;
}
