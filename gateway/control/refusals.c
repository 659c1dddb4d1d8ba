#include "refusals.h"

#include "gateway/control/changes.h"
#include "gateway/http/hostname.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

struct refusal {
    char app_id[HOSTNAME_MAX_LABEL + 1];
    uint64_t revision;
};

static struct refusal make(struct slice app_id, uint64_t revision)
{
    struct refusal refusal = {.revision = revision};
    assert(app_id.len < sizeof refusal.app_id);
    memcpy(refusal.app_id, app_id.ptr, app_id.len);
    return refusal;
}

static int compare(const void *a, const void *b)
{
    const struct refusal *x = a, *y = b;
    return strcmp(x->app_id, y->app_id);
}

static struct refusal *find(const struct refusals *r, struct slice app_id)
{
    struct refusal wanted = make(app_id, 0);
    struct refusal *const *found = tfind(&wanted, &r->root, compare);
    return found ? *found : NULL;
}

bool refusals_has(const struct refusals *r, struct slice app_id, uint64_t revision)
{
    const struct refusal *found = find(r, app_id);
    return found && found->revision == revision;
}

void refusals_remove(struct refusals *r, struct slice app_id)
{
    struct refusal *found = find(r, app_id);
    if (!found)
        return;
    tdelete(found, &r->root, compare);
    r->count--;
    r->digest ^= changes_digest_of(app_id, found->revision);
    free(found);
}

void refusals_put(struct refusals *r, struct slice app_id, uint64_t revision)
{
    refusals_remove(r, app_id);
    struct refusal *refusal = malloc(sizeof *refusal);
    if (!refusal)
        abort();
    *refusal = make(app_id, revision);
    if (!tsearch(refusal, &r->root, compare))
        abort();
    r->count++;
    r->digest ^= changes_digest_of(app_id, revision);
}

void refusals_clear(struct refusals *r)
{
    tdestroy(r->root, free);
    *r = (struct refusals){.root = NULL};
}
