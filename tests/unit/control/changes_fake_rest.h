/* The part of the fake `changes` that has nothing to do: one answer, or none since no test here gets there. */
#ifndef TESTS_CONTROL_CHANGES_FAKE_REST_H
#define TESTS_CONTROL_CHANGES_FAKE_REST_H

#include "gateway/control/changes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Batches and watches are tested with the real thing. */
struct changes_batch *changes_batch_new(void)
{
    fail();
    return NULL;
}

struct changes_line *changes_batch_add(struct changes_batch *batch)
{
    fail_msg("%p", (void *)batch);
    return NULL;
}

void changes_batch_free(struct changes_batch **batch)
{
    (void)batch;
}

void changes_submit(struct changes *changes, struct changes_batch **batch, uint64_t expected_revision,
                    change_done_cb done, void *arg)
{
    (void)changes, (void)batch, (void)expected_revision, (void)done, (void)arg;
    fail();
}

bool changes_leaves_out(const struct changes *changes, struct slice app_id)
{
    (void)changes, (void)app_id;
    return false;
}

void changes_watch(struct changes *changes, struct changes_watcher *watcher)
{
    (void)changes;
    list_init(&watcher->link);
}

void changes_unwatch(struct changes_watcher *watcher)
{
    (void)watcher;
}

const struct history *changes_history(const struct changes *changes)
{
    fail_msg("%p", (const void *)changes);
    return NULL;
}

uint64_t changes_digest(const struct changes *changes)
{
    (void)changes;
    return 0;
}

size_t changes_left_out(const struct changes *changes)
{
    (void)changes;
    return 0;
}

/* Every ordinary address. */
const struct route_rules *changes_rules(const struct changes *changes)
{
    static const struct ip_network all = {.addr = {.family = AF_INET}};
    static const struct route_rules rules = {.allow = &all, .allow_count = 1};
    (void)changes;
    return &rules;
}

#endif
