#include "etcd_write.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_OPS = 100,
    MAX_ANSWER = 256 << 20, /* a failed txn answers with the documents that stand in its way */
    PAUSE_MS = 300,         /* before a txn is sent again */
    CERTAIN_MS = 12000,     /* for etcd to say how it ended */
    LOOK_MS = 100,
    AWAY_MS = 3000,     /* that a call waits for etcd to come back, as after the failure of a member */
    APPLIED_MS = 15000, /* for the own watch to bring it */
    CATCH_UP_MS = 2000, /* for the own watch to bring what stood in the way */
    MAX_ADJUSTMENTS = 3,
};

enum stage {
    STAGE_IDLE,
    STAGE_AWAY, /* until the routes follow etcd (again), or for too long: the timer looks */
    STAGE_SENT,
    STAGE_PAUSED,   /* the timer sends it again */
    STAGE_CONFLICT, /* until the table has what stood in the way, or the timer */
    STAGE_WRITTEN,  /* until the table has it, or the timer */
};

struct etcd_write {
    struct etcd_write_params params;
    struct changes_gate gate;
    enum stage stage;
    struct changes_write *writes;
    size_t count;
    changes_written_cb done;
    void *done_arg;
    size_t next; /* of the writes: the first that is not written */
    struct etcd_wire_op ops[MAX_OPS];
    char *keys[MAX_OPS];
    size_t op_count;
    bool uncertain; /* an earlier attempt of this txn may have happened */
    unsigned adjustments;
    uint64_t deadline_us;
    uint64_t revision;           /* of the last txn that changed something; 0: none did */
    uint64_t conflict;           /* the revision that stands in the way; 0: a deletion */
    const char *conflict_app_id; /* of writes */
    struct etcd_call *call;
    struct timer timer;
    char text[ETCD_CLIENT_TEXT_MAX + 128];
};

/* ---- the end ---- */

static void free_ops(struct etcd_write *w)
{
    for (size_t i = 0; i < w->op_count; i++)
        free(w->keys[i]);
    w->op_count = 0;
}

static const char *which_part(const struct etcd_write *w, enum status status)
{
    if (w->next == 0 || w->next == w->count)
        return "";
    return status == STATUS_ETCD_UNCONFIRMED ? "only of a part of the apps it is known that it was written: "
                                             : "only a part of the apps was written: ";
}

static void note_problems(struct etcd_write *w)
{
    for (size_t i = 0; i < w->next; i++) {
        struct changes_write *write = &w->writes[i];
        write->problem = etcd_routes_problem(w->params.routes, slice_str(write->app_id), write->revision);
    }
}

static void finish(struct etcd_write *w, enum status status)
{
    changes_written_cb done = w->done;
    char text[sizeof w->text + 64] = "";
    struct changes_written written = {.status = status, .text = text, .revision = w->revision};
    if (status != STATUS_OK)
        snprintf(text, sizeof text, "%s%s", which_part(w, status), w->text);
    note_problems(w);
    timer_disarm(&w->timer);
    free_ops(w);
    w->stage = STAGE_IDLE;
    w->done = NULL;
    done(w->done_arg, &written);
}

static void arm(struct etcd_write *w, enum stage stage, uint64_t ms)
{
    w->stage = stage;
    loop_timer_arm(w->params.loop, &w->timer, ms);
}

static void refuse(struct etcd_write *w, const char *text)
{
    snprintf(w->text, sizeof w->text, "%s", text);
    finish(w, STATUS_ETCD_UNAVAILABLE);
}

/* ---- sending ---- */

static void send_txn(struct etcd_write *w);

/* The next ones that fit into a txn. */
static void take_ops(struct etcd_write *w)
{
    size_t bytes = 0;
    free_ops(w);
    w->uncertain = false;
    w->adjustments = 0;
    w->deadline_us = w->params.loop->now_us + CERTAIN_MS * 1000U;
    for (size_t i = w->next; i < w->count && w->op_count < MAX_OPS; i++) {
        const struct changes_write *write = &w->writes[i];
        struct slice value = slice_str(write->document);
        bytes += value.len + 2 * strlen(write->app_id) + 2 * w->params.prefix.len;
        if (w->op_count > 0 && bytes > ETCD_WIRE_MAX_BYTES)
            return;
        char **key = &w->keys[w->op_count];
        if (asprintf(key, "%.*sapps/%s", SLICE_ARG(w->params.prefix), write->app_id) < 0)
            abort();
        w->ops[w->op_count++] = (struct etcd_wire_op){
            .key = slice_str(*key),
            .value = value,
            .is_delete = !write->document,
            .has_expected = write->has_expected,
            .expected_mod_revision = write->expected_revision,
        };
    }
}

static void send_next(struct etcd_write *w)
{
    take_ops(w);
    send_txn(w);
}

/* ---- what stood in the way ---- */

struct found {
    struct etcd_write *write;
    uint64_t revisions[MAX_OPS]; /* 0: there is no such key */
    bool same[MAX_OPS];          /* it is as we want it */
};

static void on_found(void *arg, const struct etcd_wire_kv *kv)
{
    struct found *found = arg;
    const struct etcd_write *w = found->write;
    for (size_t i = 0; i < w->op_count; i++) {
        const struct etcd_wire_op *op = &w->ops[i];
        if (!slice_eq(op->key, kv->key))
            continue;
        found->revisions[i] = kv->mod_revision;
        found->same[i] = !op->is_delete && slice_eq(op->value, kv->value);
    }
}

static void go_on(struct etcd_write *w, uint64_t revision);

/* An attempt that seemed to fail has done it. */
static bool is_done_already(const struct found *found)
{
    const struct etcd_write *w = found->write;
    for (size_t i = 0; i < w->op_count; i++) {
        const struct etcd_wire_op *op = &w->ops[i];
        bool same = found->same[i] || (op->is_delete && found->revisions[i] == 0);
        if (op->has_expected && !same)
            return false;
    }
    return w->uncertain;
}

/*
 * An app that has lost an address to another one has the other's revision in the table, though in etcd it is as old as
 * it was written. Then the table is ahead, and knows all that etcd has. False: something is new to the table.
 */
static bool adjust(struct etcd_write *w, const struct found *found)
{
    w->conflict = 0;
    for (size_t i = 0; i < w->op_count; i++) {
        struct etcd_wire_op *op = &w->ops[i];
        uint64_t revision = found->revisions[i];
        if (!op->has_expected || revision == op->expected_mod_revision)
            continue;
        if (revision == 0 || revision > op->expected_mod_revision) {
            w->conflict = revision;
            w->conflict_app_id = w->writes[w->next + i].app_id;
            snprintf(w->text, sizeof w->text, "%s was changed by somebody else at the same time", w->keys[i]);
            return false;
        }
        op->expected_mod_revision = revision;
    }
    return ++w->adjustments <= MAX_ADJUSTMENTS;
}

static uint64_t latest(const struct found *found)
{
    uint64_t revision = 0;
    for (size_t i = 0; i < found->write->op_count; i++)
        revision = found->revisions[i] > revision ? found->revisions[i] : revision;
    return revision;
}

/* With what stood in the way, and with what was written before. */
static bool has_caught_up(const struct etcd_write *w)
{
    uint64_t revision = etcd_routes_revision(w->params.routes);
    return revision >= w->conflict && revision >= w->revision;
}

/* Who reads again sees the revision from before for as long as the newer document is left out. */
static void finish_conflict(struct etcd_write *w)
{
    const struct route_problem *problem =
        etcd_routes_problem(w->params.routes, slice_str(w->conflict_app_id), w->conflict);
    if (problem)
        snprintf(w->text, sizeof w->text,
                 "etcd's document of the app, revision %ju, is left out here (%s%s%.96s): replace the app as a whole, "
                 "without If-Match",
                 (uintmax_t)w->conflict, problem->field, problem->field[0] ? ": " : "", problem->detail);
    finish(w, STATUS_REVISION_CONFLICT);
}

static void take_failure(struct etcd_write *w, const struct found *found)
{
    if (is_done_already(found)) {
        go_on(w, latest(found));
    } else if (adjust(w, found)) {
        send_txn(w);
    } else if (w->conflict > 0 && has_caught_up(w)) {
        finish_conflict(w);
    } else {
        arm(w, STAGE_CONFLICT, w->revision > 0 ? APPLIED_MS : CATCH_UP_MS);
    }
}

/* ---- answers ---- */

void etcd_write_applied(struct etcd_write *w)
{
    if (w->stage == STAGE_WRITTEN && etcd_routes_revision(w->params.routes) >= w->revision)
        finish(w, STATUS_OK);
    else if (w->stage == STAGE_CONFLICT && has_caught_up(w))
        finish_conflict(w);
}

static void give_up_waiting(struct etcd_write *w)
{
    snprintf(w->text, sizeof w->text, "etcd has it at revision %ju, but it has not reached this gateway yet",
             (uintmax_t)w->revision);
    finish(w, STATUS_ETCD_UNCONFIRMED);
}

/* One txn is through: the next, or the end. */
static void go_on(struct etcd_write *w, uint64_t revision)
{
    w->revision = revision > w->revision ? revision : w->revision;
    for (size_t i = 0; i < w->op_count; i++) {
        w->writes[w->next + i].is_written = true;
        w->writes[w->next + i].revision = revision;
    }
    w->next += w->op_count;
    if (w->next < w->count) {
        send_next(w);
        return;
    }
    arm(w, STAGE_WRITTEN, APPLIED_MS);
    etcd_write_applied(w);
}

static void send_again_or_give_up(struct etcd_write *w, const struct etcd_result *result)
{
    w->uncertain = w->uncertain || result->end != ETCD_UNSENT;
    snprintf(w->text, sizeof w->text, "%s", result->text);
    w->params.moved(w->params.arg);
    if (w->params.loop->now_us < w->deadline_us)
        arm(w, STAGE_PAUSED, PAUSE_MS);
    else
        finish(w, STATUS_ETCD_UNCONFIRMED);
}

static void on_answer(void *arg, const struct etcd_result *result)
{
    struct etcd_write *w = arg;
    struct found found = {.write = w};
    struct etcd_wire_txn_answer answer;
    w->call = NULL;
    if (result->end == ETCD_REFUSED || (result->end == ETCD_UNSENT && !w->uncertain)) {
        refuse(w, result->text);
        w->params.moved(w->params.arg);
    } else if (result->end != ETCD_ANSWERED) {
        send_again_or_give_up(w, result);
    } else if (!etcd_wire_txn_read(result->body, on_found, &found, &answer)) {
        snprintf(w->text, sizeof w->text, "etcd's answer makes no sense");
        finish(w, STATUS_ETCD_UNCONFIRMED);
    } else if (answer.succeeded) {
        go_on(w, answer.changed ? answer.header.revision : 0);
    } else {
        take_failure(w, &found);
    }
}

static void send_txn(struct etcd_write *w)
{
    w->stage = STAGE_SENT;
    w->call = etcd_client_call(w->params.client, "/v3/kv/txn", etcd_wire_txn_request(w->ops, w->op_count), MAX_ANSWER,
                               on_answer, w);
}

static void send_or_wait(struct etcd_write *w)
{
    const char *away = w->params.away(w->params.arg);
    if (!away)
        send_next(w);
    else if (w->params.is_brief(w->params.arg) && w->params.loop->now_us < w->deadline_us)
        arm(w, STAGE_AWAY, LOOK_MS);
    else
        refuse(w, away);
}

static void on_timer(struct timer *timer)
{
    struct etcd_write *w = CONTAINER_OF(timer, struct etcd_write, timer);
    switch (w->stage) {
    case STAGE_IDLE:
    case STAGE_SENT:
        break;
    case STAGE_AWAY:
        send_or_wait(w);
        break;
    case STAGE_PAUSED:
        send_txn(w);
        break;
    case STAGE_CONFLICT:
        if (etcd_routes_revision(w->params.routes) >= w->revision)
            finish_conflict(w);
        else
            give_up_waiting(w);
        break;
    case STAGE_WRITTEN:
        give_up_waiting(w);
        break;
    }
}

/* ---- the gate ---- */

static void start(void *arg, struct changes_write *writes, size_t count, changes_written_cb done, void *done_arg)
{
    struct etcd_write *w = arg;
    assert(w->stage == STAGE_IDLE);
    w->writes = writes;
    w->count = count;
    w->done = done;
    w->done_arg = done_arg;
    w->next = 0;
    w->revision = 0;
    w->deadline_us = w->params.loop->now_us + AWAY_MS * 1000U;
    if (w->params.away(w->params.arg))
        arm(w, STAGE_AWAY, 1);
    else
        send_next(w);
}

static bool is_left_out(void *arg, const char *app_id)
{
    const struct etcd_write *w = arg;
    return etcd_routes_is_left_out(w->params.routes, slice_str(app_id));
}

static void left_out_each(void *arg, void (*each)(void *each_arg, const char *app_id), void *each_arg)
{
    const struct etcd_write *w = arg;
    etcd_routes_left_out_each(w->params.routes, each, each_arg);
}

struct etcd_write *etcd_write_new(const struct etcd_write_params *params)
{
    struct etcd_write *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->params = *params;
    w->gate =
        (struct changes_gate){.write = start, .is_left_out = is_left_out, .left_out_each = left_out_each, .arg = w};
    timer_init(&w->timer, on_timer);
    return w;
}

void etcd_write_free(struct etcd_write **write)
{
    struct etcd_write *w = *write;
    if (!w)
        return;
    *write = NULL;
    etcd_call_cancel(&w->call);
    snprintf(w->text, sizeof w->text, "%s", status_what(STATUS_SHUTDOWN));
    if (w->stage != STAGE_IDLE)
        finish(w, STATUS_SHUTDOWN);
    timer_forget(&w->timer);
    free(w);
}

const struct changes_gate *etcd_write_gate(const struct etcd_write *w)
{
    return &w->gate;
}
