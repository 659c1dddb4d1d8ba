#include "etcd_secrets.h"

#include "gateway/base/backoff.h"
#include "gateway/base/base64.h"
#include "gateway/base/log.h"
#include "gateway/control/id_set.h"
#include "gateway/control/ticket_ring.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    TICK_MS = 20000, /* between two looks at the periods */
    PAUSE_MS = 300,
    CERTAIN_MS = 12000,
    APPLIED_MS = 15000,
    FIRST_APPLY_MS = 1000, /* before a certificate that could not be applied is tried again */
    MAX_APPLY_MS = 30000,
    MAX_ANSWER = 64 << 10,
    PERIOD_DIGITS = 10,
};

struct etcd_secrets {
    struct etcd_secrets_params params;
    struct certs_gate gate;
    struct list writes;
    struct list applying;
    struct list failed;  /* of those that could not be applied: the next try is to come */
    size_t failed_count; /* these, and those that are being tried again */
    struct id_set bad;   /* keys, without the prefix */
    size_t bad_count;
    struct ticket_ring ring;
    struct tls_ticket_keys in_use; /* count 0: none of the fleet's */
    struct etcd_call *making;
    struct timer tick;
};

/* A call that waits for its certificate to come back. */
struct secret_write {
    struct list link;
    struct etcd_secrets *secrets;
    char *name;
    char *body; /* of the txn */
    struct etcd_call *call;
    struct timer timer;
    uint64_t deadline_us;
    uint64_t revision; /* of the txn; 0: it is not written yet */
    uint64_t seen;     /* the latest revision of this name that was applied */
    bool uncertain;
    enum status failed; /* why, in text */
    char text[ETCD_CLIENT_TEXT_MAX + 64];
    certs_written_cb done;
    void *done_arg;
};

/* A certificate from etcd on its way to the workers. */
struct applying {
    struct list link;
    struct etcd_secrets *secrets;
    char *name;
    struct cert_custom *cert; /* NULL: it was deleted */
    uint64_t revision;
    unsigned failures;
    struct timer timer;
};

static char *copy(struct slice text)
{
    char *out = strndup(text.len > 0 ? text.ptr : "", text.len);
    if (!out)
        abort();
    return out;
}

static char *join(const struct etcd_secrets *s, const char *folder, const char *name)
{
    char *key;
    if (asprintf(&key, "%.*s%s%s", SLICE_ARG(s->params.prefix), folder, name) < 0)
        abort();
    return key;
}

static void wipe_free(char *bytes, size_t len)
{
    if (bytes)
        explicit_bzero(bytes, len);
    free(bytes);
}

/* ---- what is no good ---- */

/* Said once, until it is good or loaded again. */
static void leave_out(struct etcd_secrets *s, struct slice name, const char *why)
{
    char *id = copy(name);
    if (!id_set_has(&s->bad, id)) {
        id_set_add(&s->bad, id);
        s->bad_count++;
        log_error("etcd: %s is left out: %s", id, why);
    }
    free(id);
}

static void note_good(struct etcd_secrets *s, struct slice name)
{
    char *id = copy(name);
    if (id_set_has(&s->bad, id)) {
        id_set_remove(&s->bad, id);
        s->bad_count--;
    }
    free(id);
}

size_t etcd_secrets_left_out(const struct etcd_secrets *s)
{
    return s->bad_count + s->failed_count;
}

static const char other_key[] = "it can't be opened: it was sealed under another key than that of fleet_key_file, or "
                                "was damaged; what is in use stays";

/* ---- certificates that come ---- */

static void settle_write(struct secret_write *w);

static void note_applied(struct etcd_secrets *s, struct slice name, uint64_t revision)
{
    LIST_EACH_SAFE (link, &s->writes) {
        struct secret_write *w = CONTAINER_OF(link, struct secret_write, link);
        if (!slice_eq(slice_str(w->name), name))
            continue;
        w->seen = revision;
        settle_write(w);
    }
}

static void free_applying(struct applying *a)
{
    if (a->failures > 0)
        a->secrets->failed_count--;
    timer_forget(&a->timer);
    list_remove(&a->link);
    cert_custom_unref(&a->cert);
    free(a->name);
    free(a);
}

static struct applying *find_applying(const struct list *list, struct slice name)
{
    LIST_EACH (link, list) {
        struct applying *a = CONTAINER_OF(link, struct applying, link);
        if (slice_eq(slice_str(a->name), name))
            return a;
    }
    return NULL;
}

static void on_applied(void *arg, enum status status, bool created, const char *text);

static void start_applying(struct applying *a)
{
    struct etcd_secrets *s = a->secrets;
    list_push(&s->applying, &a->link);
    certs_apply(s->params.certs, slice_str(a->name), a->cert ? cert_custom_ref(a->cert) : NULL, on_applied, a);
}

static void on_apply_timer(struct timer *timer)
{
    struct applying *a = CONTAINER_OF(timer, struct applying, timer);
    list_remove(&a->link);
    start_applying(a);
}

static void apply_later(struct applying *a, const char *text)
{
    struct etcd_secrets *s = a->secrets;
    if (a->failures == 0) {
        log_error("etcd: the certificate of %s could not be applied, and will be tried again: %s", a->name, text);
        s->failed_count++;
    }
    list_push(&s->failed, &a->link);
    loop_timer_arm(s->params.loop, &a->timer, backoff_ms(FIRST_APPLY_MS, MAX_APPLY_MS, a->failures++));
}

static void on_applied(void *arg, enum status status, bool created, const char *text)
{
    struct applying *a = arg;
    struct etcd_secrets *s = a->secrets;
    (void)created;
    list_remove(&a->link);
    if (status != STATUS_OK && !find_applying(&s->applying, slice_str(a->name))) {
        apply_later(a, text);
        return;
    }
    if (status == STATUS_OK)
        note_applied(s, slice_str(a->name), a->revision);
    free_applying(a);
}

/* What is on its way to the workers is not to be found yet, and would come after this. */
static bool is_in_force(const struct etcd_secrets *s, struct slice name, const struct cert_custom *cert)
{
    const struct cert_custom *now = certs_find(s->params.certs, name);
    bool is_same = cert ? now && slice_eq(now->chain_pem, cert->chain_pem) && slice_eq(now->key_pem, cert->key_pem)
                        : !certs_has(s->params.certs, name);
    return is_same && !find_applying(&s->applying, name) && !find_applying(&s->failed, name);
}

static void apply(struct etcd_secrets *s, struct slice name, struct cert_custom *cert, uint64_t revision)
{
    if (is_in_force(s, name, cert)) {
        cert_custom_unref(&cert);
        note_applied(s, name, revision);
        return;
    }
    struct applying *a = find_applying(&s->failed, name);
    if (a)
        free_applying(a); /* this is newer */
    a = calloc(1, sizeof *a);
    if (!a)
        abort();
    *a = (struct applying){.secrets = s, .name = copy(name), .cert = cert, .revision = revision};
    list_init(&a->link);
    timer_init(&a->timer, on_apply_timer);
    start_applying(a);
}

/* The private key's PEM, malloc'ed; NULL if it is not under our key. */
static char *open_key(const struct etcd_secrets *s, struct slice key, struct slice base64, size_t *ret_len)
{
    size_t len = 0;
    char *sealed = malloc(base64_decoded_bytes(base64.len) + 1);
    if (!sealed)
        abort();
    bool ok = base64_decode(base64, sealed, &len) && len > FLEET_KEY_SEAL_BYTES;
    char *plain = ok ? malloc(len) : NULL;
    if (plain && !fleet_key_open(s->params.key, key, slice_make(sealed, len), plain)) {
        free(plain);
        plain = NULL;
    }
    free(sealed);
    *ret_len = len - FLEET_KEY_SEAL_BYTES;
    return plain;
}

static struct slice text_of(const json_t *json, const char *name)
{
    const json_t *value = json_object_get(json, name);
    return slice_make(json_string_value(value), json_string_length(value));
}

static void take_pair(struct etcd_secrets *s, struct slice name, struct slice host, const json_t *json,
                      const struct etcd_wire_kv *kv)
{
    size_t len = 0;
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    struct slice chain = text_of(json, "certificate"), sealed = text_of(json, "private_key");
    if (!chain.ptr || !sealed.ptr) {
        leave_out(s, name, "it is no certificate document");
        return;
    }
    char *key = open_key(s, kv->key, sealed, &len);
    if (!key) {
        leave_out(s, name, other_key);
        return;
    }
    enum status status = cert_custom_new_accepted(host, chain, slice_make(key, len), time(NULL), &cert, &problem);
    wipe_free(key, len);
    if (status != STATUS_OK) {
        leave_out(s, name, problem.detail);
        return;
    }
    note_good(s, name);
    apply(s, host, cert, kv->mod_revision);
}

static void take_certificate(struct etcd_secrets *s, struct slice name, struct slice host,
                             const struct etcd_wire_kv *kv)
{
    json_t *json = kv->is_delete ? NULL : json_loadb(kv->value.len > 0 ? kv->value.ptr : "", kv->value.len, 0, NULL);
    if (kv->is_delete || json_is_true(json_object_get(json, "deleted"))) {
        note_good(s, name);
        apply(s, host, NULL, kv->mod_revision);
    } else {
        take_pair(s, name, host, json, kv);
    }
    json_decref(json);
}

/* ---- ticket keys ---- */

static uint64_t period_now(const struct etcd_secrets *s)
{
    return s->params.loop->wall_us / 1000000U / TICKET_RING_PERIOD_S;
}

static void use_ticket_keys(struct etcd_secrets *s)
{
    struct tls_ticket_keys keys;
    if (!ticket_ring_keys(&s->ring, period_now(s), &keys)) {
        s->in_use.count = 0;
        return;
    }
    bool is_same =
        keys.count == s->in_use.count && memcmp(keys.keys, s->in_use.keys, keys.count * sizeof *keys.keys) == 0;
    if (!is_same) {
        s->in_use = keys;
        s->params.set_ticket_keys(s->params.set_arg, &keys);
    }
    explicit_bzero(&keys, sizeof keys);
}

static void take_ticket(struct etcd_secrets *s, struct slice name, struct slice digits, const struct etcd_wire_kv *kv)
{
    uint64_t period;
    struct tls_ticket_key key;
    char plain[sizeof key];
    if (kv->is_delete)
        note_good(s, name);
    if (kv->is_delete || !slice_to_u64(digits, &period) || digits.len != PERIOD_DIGITS)
        return;
    bool ok =
        kv->value.len == sizeof key + FLEET_KEY_SEAL_BYTES && fleet_key_open(s->params.key, kv->key, kv->value, plain);
    if (ok) {
        memcpy(&key, plain, sizeof key);
        note_good(s, name);
    } else {
        leave_out(s, name, other_key);
    }
    ticket_ring_add(&s->ring, period_now(s), period, ok ? &key : NULL);
    explicit_bzero(plain, sizeof plain);
    explicit_bzero(&key, sizeof key);
    use_ticket_keys(s);
}

static void make_missing(struct etcd_secrets *s);

/* The key that somebody else has made. When it came, it may have been too far ahead of the clock that we had. */
static void on_made_kv(void *arg, const struct etcd_wire_kv *kv)
{
    struct etcd_secrets *s = arg;
    if (slice_has_prefix(kv->key, s->params.prefix))
        etcd_secrets_take(s, slice_from(kv->key, s->params.prefix.len), kv);
}

static void on_made(void *arg, const struct etcd_result *result)
{
    struct etcd_secrets *s = arg;
    struct etcd_wire_txn_answer answer;
    s->making = NULL;
    if (result->end != ETCD_ANSWERED)
        log_warn("etcd: no new session ticket key could be written: %s", result->text);
    else if (!etcd_wire_txn_read(result->body, on_made_kv, s, &answer))
        log_warn("etcd: the answer to a new session ticket key makes no sense");
}

static char *ticket_name(uint64_t period)
{
    char *name;
    if (asprintf(&name, "%0*" PRIu64, PERIOD_DIGITS, period) < 0)
        abort();
    return name;
}

/* A new key, if nobody was faster, and the old ones away. What comes of it is told by the watch. */
static void make(struct etcd_secrets *s, uint64_t period)
{
    struct tls_ticket_keys fresh = {.count = 0};
    char sealed[sizeof fresh.keys[0] + FLEET_KEY_SEAL_BYTES];
    char *name = ticket_name(period);
    char *last = ticket_name(period > TICKET_RING_USED ? period - TICKET_RING_USED : 0);
    char *key = join(s, "tickets/", name), *first_key = join(s, "tickets/", ""), *last_key = join(s, "tickets/", last);
    struct slice plain = {(const char *)&fresh.keys[0], sizeof fresh.keys[0]};
    if (tls_ticket_keys_rotate(&fresh) == STATUS_OK &&
        fleet_key_seal(s->params.key, slice_str(key), plain, sealed) == STATUS_OK) {
        const struct etcd_wire_op ops[] = {
            {.key = slice_str(key), .value = slice_make(sealed, sizeof sealed), .has_expected = true},
            {.key = slice_str(first_key), .range_end = slice_str(last_key), .is_delete = true},
        };
        s->making =
            etcd_client_call(s->params.client, "/v3/kv/txn", etcd_wire_txn_request(ops, 2), MAX_ANSWER, on_made, s);
    }
    explicit_bzero(&fresh, sizeof fresh);
    free(name);
    free(last);
    free(key);
    free(first_key);
    free(last_key);
}

static void make_missing(struct etcd_secrets *s)
{
    uint64_t period = ticket_ring_missing(&s->ring, period_now(s));
    if (period > 0 && !s->making && !s->params.away(s->params.arg))
        make(s, period);
}

/* Members look at different moments, so that mostly one makes the next key. */
static void arm_tick(struct etcd_secrets *s, uint32_t ms)
{
    loop_timer_arm(s->params.loop, &s->tick, backoff_jittered(ms));
}

static void on_tick(struct timer *timer)
{
    struct etcd_secrets *s = CONTAINER_OF(timer, struct etcd_secrets, tick);
    make_missing(s);
    use_ticket_keys(s);
    arm_tick(s, TICK_MS);
}

void etcd_secrets_following(struct etcd_secrets *s)
{
    make_missing(s);
    arm_tick(s, PAUSE_MS);
}

bool etcd_secrets_has_ticket_keys(const struct etcd_secrets *s)
{
    return s->in_use.count > 0;
}

/* ---- calls that write ---- */

static void finish(struct secret_write *w, enum status status, const char *text)
{
    certs_written_cb done = w->done;
    void *arg = w->done_arg;
    char message[sizeof w->text];
    snprintf(message, sizeof message, "%s", text);
    etcd_call_cancel(&w->call);
    timer_forget(&w->timer);
    list_remove(&w->link);
    free(w->name);
    wipe_free(w->body, strlen(w->body));
    free(w);
    done(arg, status, message);
}

static void settle_write(struct secret_write *w)
{
    if (w->revision > 0 && w->seen >= w->revision)
        finish(w, STATUS_OK, "");
}

static void send_write(struct secret_write *w);

static void on_answer(void *arg, const struct etcd_result *result)
{
    struct secret_write *w = arg;
    const struct etcd_secrets *s = w->secrets;
    struct etcd_wire_txn_answer answer;
    w->call = NULL;
    if (result->end == ETCD_ANSWERED && etcd_wire_txn_read(result->body, NULL, NULL, &answer)) {
        w->revision = answer.header.revision;
        loop_timer_arm(s->params.loop, &w->timer, APPLIED_MS);
        settle_write(w);
        return;
    }
    bool is_certain = result->end == ETCD_REFUSED || (result->end == ETCD_UNSENT && !w->uncertain);
    w->uncertain = !is_certain;
    snprintf(w->text, sizeof w->text, "%s", result->text);
    if (is_certain)
        finish(w, STATUS_ETCD_UNAVAILABLE, w->text);
    else if (s->params.loop->now_us >= w->deadline_us)
        finish(w, STATUS_ETCD_UNCONFIRMED, w->text);
    else
        loop_timer_arm(s->params.loop, &w->timer, PAUSE_MS);
    s->params.moved(s->params.arg);
}

static void send_write(struct secret_write *w)
{
    char *body = copy(slice_str(w->body));
    w->call = etcd_client_call(w->secrets->params.client, "/v3/kv/txn", body, MAX_ANSWER, on_answer, w);
}

static void on_write_timer(struct timer *timer)
{
    struct secret_write *w = CONTAINER_OF(timer, struct secret_write, timer);
    if (w->failed != STATUS_OK)
        finish(w, w->failed, w->text);
    else if (w->revision > 0)
        finish(w, STATUS_ETCD_UNCONFIRMED, "etcd has it, but it has not reached this gateway yet");
    else
        send_write(w);
}

static void fail_later(struct secret_write *w, enum status status, const char *text)
{
    w->failed = status;
    snprintf(w->text, sizeof w->text, "%s", text);
    loop_timer_arm(w->secrets->params.loop, &w->timer, 1);
}

/* The document, malloc'ed; NULL without randomness. */
static char *make_document(const struct etcd_secrets *s, const char *key, const struct cert_custom *cert)
{
    if (!cert)
        return copy(SLICE("{\"deleted\":true}"));
    size_t len = cert->key_pem.len + FLEET_KEY_SEAL_BYTES;
    char *sealed = malloc(len), *text = malloc(base64_encoded_bytes(len)), *document = NULL;
    if (!sealed || !text)
        abort();
    if (fleet_key_seal(s->params.key, slice_str(key), cert->key_pem, sealed) == STATUS_OK) {
        base64_encode(slice_make(sealed, len), text);
        json_t *json = json_pack("{ss% ss%}", "certificate", cert->chain_pem.ptr, cert->chain_pem.len, "private_key",
                                 text, base64_encoded_bytes(len));
        document = json_dumps(json, JSON_COMPACT);
        json_decref(json);
    }
    free(sealed);
    free(text);
    return document;
}

static void start_write(void *arg, struct slice name, const struct cert_custom *cert, certs_written_cb done,
                        void *done_arg)
{
    struct etcd_secrets *s = arg;
    struct secret_write *w = calloc(1, sizeof *w);
    const char *away = s->params.away(s->params.arg);
    if (!w)
        abort();
    *w = (struct secret_write){.secrets = s, .name = copy(name), .done = done, .done_arg = done_arg};
    w->deadline_us = s->params.loop->now_us + CERTAIN_MS * 1000U;
    timer_init(&w->timer, on_write_timer);
    list_init(&w->link);
    list_push(&s->writes, &w->link);
    char *key = join(s, "certificates/", w->name);
    char *document = make_document(s, key, cert);
    struct etcd_wire_op op = {.key = slice_str(key), .value = slice_str(document)};
    w->body = etcd_wire_txn_request(&op, document ? 1 : 0);
    if (away)
        fail_later(w, STATUS_ETCD_UNAVAILABLE, away);
    else if (!document)
        fail_later(w, STATUS_INTERNAL, "there is no randomness to seal the key with");
    else
        send_write(w);
    free(document);
    free(key);
}

static bool is_left_out(void *arg, struct slice name)
{
    const struct etcd_secrets *s = arg;
    char *key;
    if (asprintf(&key, "certificates/%.*s", SLICE_ARG(name)) < 0)
        abort();
    bool is_bad = id_set_has(&s->bad, key);
    free(key);
    return is_bad;
}

/* ---- life ---- */

void etcd_secrets_begin_load(struct etcd_secrets *s)
{
    id_set_clear(&s->bad);
    s->bad_count = 0;
}

bool etcd_secrets_take(struct etcd_secrets *s, struct slice name, const struct etcd_wire_kv *kv)
{
    static const struct slice certificates = SLICE_INIT("certificates/"), tickets = SLICE_INIT("tickets/");
    if (slice_has_prefix(name, certificates) && name.len > certificates.len)
        take_certificate(s, name, slice_from(name, certificates.len), kv);
    else if (slice_has_prefix(name, tickets))
        take_ticket(s, name, slice_from(name, tickets.len), kv);
    else
        return false;
    return true;
}

struct etcd_secrets *etcd_secrets_new(const struct etcd_secrets_params *params)
{
    struct etcd_secrets *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->params = *params;
    s->gate = (struct certs_gate){.write = start_write, .is_left_out = is_left_out, .arg = s};
    list_init(&s->writes);
    list_init(&s->applying);
    list_init(&s->failed);
    timer_init(&s->tick, on_tick);
    certs_set_gate(params->certs, &s->gate);
    return s;
}

void etcd_secrets_free(struct etcd_secrets **secrets)
{
    struct etcd_secrets *s = *secrets;
    if (!s)
        return;
    *secrets = NULL;
    certs_set_gate(s->params.certs, NULL);
    etcd_call_cancel(&s->making);
    timer_forget(&s->tick);
    while (!list_is_empty(&s->writes))
        finish(CONTAINER_OF(s->writes.next, struct secret_write, link), STATUS_SHUTDOWN, status_what(STATUS_SHUTDOWN));
    while (!list_is_empty(&s->applying)) {
        struct applying *a = CONTAINER_OF(s->applying.next, struct applying, link);
        certs_forget(s->params.certs, a);
        free_applying(a);
    }
    while (!list_is_empty(&s->failed))
        free_applying(CONTAINER_OF(s->failed.next, struct applying, link));
    id_set_clear(&s->bad);
    explicit_bzero(&s->ring, sizeof s->ring);
    explicit_bzero(&s->in_use, sizeof s->in_use);
    free(s);
}
