/* A line of changes: what is read must come back the same from its own text; what is refused says why. */
#include "gateway/control/app_document.h"
#include "gateway/control/change_line.h"
#include "gateway/control/changes.h"
#include "gateway/control/ndjson.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ip_network allow[] = {{{AF_INET, {0}}, 0}, {{AF_INET6, {0}}, 0}};
static const struct route_rules rules = {.allow = allow, .allow_count = sizeof allow / sizeof allow[0]};

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* Of a line that was read, if it has a text of its own; malloc'ed. */
static char *text_of(const struct change_line *line)
{
    struct route_problem problem;
    switch (line->op) {
    case CHANGE_PUT:
        return route_app_check(line->app, &rules, &problem) == STATUS_OK ? change_line_put(line->app) : NULL;
    case CHANGE_DELETE:
        return hostname_is_id(slice_str(line->app_id)) ? change_line_delete(slice_str(line->app_id), line->revision)
                                                       : NULL;
    case CHANGE_HEARTBEAT:
        return change_line_heartbeat(line->revision, line->apps, line->digest);
    case CHANGE_END:
        break;
    }
    return NULL;
}

static void check_again(const struct change_line *line, struct slice text)
{
    struct change_line again;
    struct route_problem problem;
    must(change_line_parse(text, CHANGES_MAX_REVISION, &again, &problem) == STATUS_OK);
    must(again.op == line->op && again.apps == line->apps && again.digest == line->digest);
    must(strcmp(again.app_id, line->app_id) == 0);
    must(again.revision == (line->app ? line->app->revision : line->revision));
    must(!line->app || route_app_equal(line->app, again.app));
    route_app_free(&again.app);
}

static void on_line(void *arg, uint64_t number, struct slice text, bool too_long)
{
    struct change_line line;
    struct route_problem problem = {.status = STATUS_OK};
    (void)arg;
    must(number > 0);
    if (too_long)
        return;
    if (change_line_parse(text, CHANGES_MAX_REVISION, &line, &problem) != STATUS_OK) {
        must(!line.app && problem.status != STATUS_OK && problem.detail[0]);
        return;
    }
    must(line.revision <= CHANGES_MAX_REVISION && (!line.app || line.app->revision <= CHANGES_MAX_REVISION));
    must(memchr(line.app_id, '\0', sizeof line.app_id) && memchr(line.detail, '\0', sizeof line.detail));
    char *own = text_of(&line);
    if (own)
        check_again(&line, slice_str(own));
    free(own);
    route_app_free(&line.app);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ndjson ndjson;
    size_t half = size / 2;
    ndjson_init(&ndjson, 4096, on_line, NULL);
    ndjson_feed(&ndjson, slice_make((const char *)data, half));
    ndjson_feed(&ndjson, slice_make((const char *)data + half, size - half));
    ndjson_end(&ndjson);
    ndjson_free(&ndjson);
    return 0;
}
