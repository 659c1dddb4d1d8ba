#include "ctl_etcd.h"

#include "gateway/base/ip.h"

#include <stdlib.h>

enum { PAGE = 256 };

/* ---- options ---- */

static bool add_endpoint(struct ctl_etcd *etcd, char *url)
{
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/')
        url[--len] = '\0';
    bool is_url =
        slice_has_prefix(slice_str(url), SLICE("https://")) || slice_has_prefix(slice_str(url), SLICE("http://"));
    if (!is_url || etcd->count == CTL_ETCD_MAX_ENDPOINTS) {
        ctl_error("--etcd %s: give at most %d client URLs of etcd members, such as https://10.0.0.5:2379", url,
                  CTL_ETCD_MAX_ENDPOINTS);
        return false;
    }
    etcd->endpoints[etcd->count++] = url;
    return true;
}

static bool check_secrecy(const struct ctl_etcd *etcd)
{
    const struct slice plain = SLICE("http://");
    for (size_t i = 0; i < etcd->count; i++) {
        struct slice url = slice_str(etcd->endpoints[i]);
        if (!slice_has_prefix(url, plain) || ip_authority_is_loopback(slice_from(url, plain.len)))
            continue;
        ctl_error("--etcd %s would carry the password of --etcd-user in the clear; write https://", etcd->endpoints[i]);
        return false;
    }
    return true;
}

static char *make_prefix(const char *text)
{
    char *prefix;
    struct slice name = slice_str(text ? text : "phala-gateway");
    while (name.len > 0 && name.ptr[0] == '/')
        name = slice_from(name, 1);
    while (name.len > 0 && name.ptr[name.len - 1] == '/')
        name.len--;
    if (asprintf(&prefix, "/%.*s/", SLICE_ARG(name)) < 0)
        abort();
    if (name.len > 0)
        return prefix;
    ctl_error("--etcd-prefix %s: give a path such as /phala-gateway", text);
    free(prefix);
    return NULL;
}

enum ctl_exit ctl_etcd_open(const struct ctl_options *options, struct ctl_etcd *ret_etcd)
{
    char *rest = NULL;
    *ret_etcd = (struct ctl_etcd){.options = options, .list = strdup(options->etcd)};
    if (!ret_etcd->list)
        abort();
    bool ok = !options->etcd_user == !options->etcd_password_file;
    if (!ok)
        ctl_error("--etcd-user and --etcd-password-file belong together");
    for (char *url = strtok_r(ret_etcd->list, ",", &rest); ok && url; url = strtok_r(NULL, ",", &rest))
        ok = add_endpoint(ret_etcd, url);
    if (ok && ret_etcd->count == 0)
        ok = add_endpoint(ret_etcd, ret_etcd->list);
    if (ok && options->etcd_user)
        ok = check_secrecy(ret_etcd);
    if (ok)
        ret_etcd->prefix = make_prefix(options->etcd_prefix);
    if (ok && ret_etcd->prefix)
        return CTL_OK;
    ctl_etcd_close(ret_etcd);
    return CTL_USAGE;
}

void ctl_etcd_close(struct ctl_etcd *etcd)
{
    if (etcd->token)
        explicit_bzero(etcd->token, strlen(etcd->token));
    free(etcd->token);
    free(etcd->list);
    free(etcd->prefix);
    *etcd = (struct ctl_etcd){.count = 0};
}

bool ctl_etcd_check(const struct ctl_options *options)
{
    struct ctl_etcd etcd;
    if (ctl_etcd_open(options, &etcd) != CTL_OK)
        return false;
    ctl_etcd_close(&etcd);
    return true;
}

char *ctl_etcd_key(const struct ctl_etcd *etcd, const char *app_id)
{
    char *key;
    if (asprintf(&key, "%sapps/%s", etcd->prefix, app_id) < 0)
        abort();
    return key;
}

struct slice ctl_etcd_app_id(const struct ctl_etcd *etcd, struct slice key)
{
    return slice_from(key, strlen(etcd->prefix) + strlen("apps/"));
}

/* ---- calls ---- */

/* What a call does to etcd: nothing, the same when it is sent twice, or what fails the second time. */
enum effect { EFFECT_NONE, EFFECT_REPEATABLE, EFFECT_ONCE };

/* What the member says, after what that means: a verb. */
static void print_error(const struct ctl_etcd *etcd, const struct ctl_reply *reply, const char *code, const char *verb)
{
    struct etcd_wire_error error;
    const char *text = reply->body;
    if (etcd_wire_error_read(slice_make(reply->body, reply->len), &error))
        text = error.text;
    if (etcd->options->json) {
        json_t *problem = json_pack("{ss ss sI}", "code", code, "detail", text, "status", (json_int_t)reply->status);
        if (problem) /* NULL: what came is no text */
            json_dumpf(problem, stderr, JSON_COMPACT);
        fputc('\n', stderr);
        json_decref(problem);
        return;
    }
    ctl_error("etcd at %s %s: %.300s", etcd->endpoints[etcd->current], verb, text);
}

static void print_unknown(const struct ctl_etcd *etcd)
{
    static const char text[] = "it is not known whether etcd took the change; look before you send it again";
    if (etcd->options->json)
        fprintf(stderr, "{\"code\":\"etcd_outcome_unknown\",\"detail\":\"%s\"}\n", text);
    else
        ctl_error("etcd at %s: %s", etcd->endpoints[etcd->current], text);
}

/* After the last member that is asked; one that cannot be reached has been named already. */
static void print_unanswered(const struct ctl_etcd *etcd, const struct ctl_reply *reply, bool is_unknown)
{
    bool has_error = reply->status >= 400;
    if (has_error && !(is_unknown && etcd->options->json))
        print_error(etcd, reply, "etcd_unavailable", "cannot say yes or no now");
    if (is_unknown)
        print_unknown(etcd);
}

static bool is_uncertain(const struct ctl_reply *reply)
{
    struct etcd_wire_error error = {.code = 0};
    if (!etcd_wire_error_read(slice_make(reply->body, reply->len), &error))
        error.code = 0;
    return etcd_wire_error_is_uncertain(reply->status, &error);
}

/* CTL_UNREACHABLE too if the member can't say yes or no. */
static enum ctl_exit ask(const struct ctl_etcd *etcd, const char *path, const char *body, bool quiet,
                         struct ctl_reply *ret_reply)
{
    struct ctl_call call = {
        .method = "POST",
        .base = etcd->endpoints[etcd->current],
        .authorization = etcd->token,
        .path = path,
        .body = slice_str(body),
        .content_type = "application/json",
        .quiet = quiet,
    };
    enum ctl_exit result = ctl_http_try(etcd->options, &call, ret_reply);
    return result == CTL_REFUSED && is_uncertain(ret_reply) ? CTL_UNREACHABLE : result;
}

static void leave(struct ctl_etcd *etcd)
{
    etcd->current = (etcd->current + 1) % etcd->count;
}

/* The first member that can be reached and has a majority is asked, from then on. */
static enum ctl_exit post(struct ctl_etcd *etcd, const char *path, const char *body, enum effect effect,
                          struct ctl_reply *ret_reply)
{
    bool is_unknown = false;
    for (size_t i = 1;; i++) {
        enum ctl_exit result = ask(etcd, path, body, i < etcd->count, ret_reply);
        if (result == CTL_REFUSED)
            print_error(etcd, ret_reply, "etcd_refused", "refused");
        if (result != CTL_UNREACHABLE)
            return result;
        is_unknown |= effect != EFFECT_NONE && ret_reply->is_sent;
        if (i == etcd->count || (is_unknown && effect == EFFECT_ONCE))
            break;
        leave(etcd);
        ctl_reply_free(ret_reply);
    }
    print_unanswered(etcd, ret_reply, is_unknown);
    leave(etcd);
    return CTL_UNREACHABLE;
}

static enum ctl_exit make_no_sense(const struct ctl_etcd *etcd)
{
    ctl_error("the answer of %s makes no sense; is it the client URL of etcd 3.4 or newer?",
              etcd->endpoints[etcd->current]);
    return CTL_UNREACHABLE;
}

static enum ctl_exit authenticate(struct ctl_etcd *etcd)
{
    size_t len = 0;
    struct ctl_reply reply;
    char *text = ctl_read_file(etcd->options->etcd_password_file, &len);
    if (!text)
        return CTL_USAGE;
    struct slice password = {text, strcspn(text, "\r\n")};
    char *body = etcd_wire_authenticate_request(slice_str(etcd->options->etcd_user), password);
    explicit_bzero(text, len);
    free(text);
    if (!body) {
        ctl_error("%s: the password is not UTF-8", etcd->options->etcd_password_file);
        return CTL_USAGE;
    }
    enum ctl_exit result = post(etcd, "/v3/auth/authenticate", body, EFFECT_NONE, &reply);
    if (result == CTL_OK && !etcd_wire_authenticate_read(slice_make(reply.body, reply.len), &etcd->token))
        result = make_no_sense(etcd);
    explicit_bzero(body, strlen(body));
    free(body);
    ctl_reply_free(&reply);
    return result;
}

/* Takes the body. */
static enum ctl_exit call(struct ctl_etcd *etcd, const char *path, char *body, enum effect effect,
                          struct ctl_reply *ret_reply)
{
    enum ctl_exit result = CTL_OK;
    *ret_reply = (struct ctl_reply){.status = 0};
    if (etcd->options->etcd_user && !etcd->token)
        result = authenticate(etcd);
    if (result == CTL_OK)
        result = post(etcd, path, body, effect, ret_reply);
    free(body);
    return result;
}

static enum ctl_exit range(struct ctl_etcd *etcd, const struct etcd_wire_range *wanted, etcd_wire_kv_cb each, void *arg,
                           struct etcd_wire_range_answer *ret_answer)
{
    struct ctl_reply reply;
    enum ctl_exit result = call(etcd, "/v3/kv/range", etcd_wire_range_request(wanted), EFFECT_NONE, &reply);
    if (result == CTL_OK && !etcd_wire_range_read(slice_make(reply.body, reply.len), each, arg, ret_answer))
        result = make_no_sense(etcd);
    ctl_reply_free(&reply);
    return result;
}

enum ctl_exit ctl_etcd_get(struct ctl_etcd *etcd, const char *key, etcd_wire_kv_cb each, void *arg)
{
    struct etcd_wire_range_answer answer;
    return range(etcd, &(struct etcd_wire_range){.key = slice_str(key)}, each, arg, &answer);
}

struct page {
    ctl_etcd_each_cb each;
    void *arg;
    char *next; /* the key after the last one */
    size_t next_len;
    bool advanced; /* with a key that is not one of the pages before */
    bool stopped;  /* by the callback */
};

static void on_kv(void *arg, const struct etcd_wire_kv *kv)
{
    struct page *page = arg;
    size_t common = kv->key.len < page->next_len ? kv->key.len : page->next_len;
    int order = memcmp(kv->key.ptr, page->next, common);
    if (page->stopped || order < 0 || (order == 0 && kv->key.len < page->next_len))
        return;
    page->advanced = true;
    free(page->next);
    page->next_len = kv->key.len + 1;
    page->next = calloc(1, page->next_len);
    if (!page->next)
        abort();
    memcpy(page->next, kv->key.ptr, kv->key.len);
    page->stopped = !page->each(page->arg, kv);
}

enum ctl_exit ctl_etcd_each(struct ctl_etcd *etcd, ctl_etcd_each_cb each, void *arg)
{
    char *first = ctl_etcd_key(etcd, "");
    char *end = etcd_wire_prefix_end(slice_str(first));
    struct page page = {.each = each, .arg = arg, .next = first, .next_len = strlen(first)};
    struct etcd_wire_range_answer answer = {.more = true};
    enum ctl_exit result = CTL_OK;
    while (result == CTL_OK && answer.more && !page.stopped) {
        struct etcd_wire_range wanted = {
            .key = slice_make(page.next, page.next_len),
            .range_end = slice_str(end),
            .revision = answer.header.revision,
            .limit = PAGE,
        };
        uint64_t revision = answer.header.revision;
        page.advanced = false;
        result = range(etcd, &wanted, on_kv, &page, &answer);
        if (result == CTL_OK && answer.more && !page.advanced)
            result = make_no_sense(etcd);
        if (revision > 0)
            answer.header.revision = revision;
    }
    free(page.next);
    free(end);
    return result;
}

static enum effect effect_of(const struct etcd_wire_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ops[i].has_expected)
            return EFFECT_ONCE;
    return EFFECT_REPEATABLE;
}

enum ctl_exit ctl_etcd_txn(struct ctl_etcd *etcd, const struct etcd_wire_op *ops, size_t count, bool with_mark,
                           struct etcd_wire_txn_answer *ret_answer)
{
    struct etcd_wire_op all[CTL_ETCD_MAX_OPS + 1];
    struct ctl_reply reply;
    char *mark;
    if (asprintf(&mark, "%sformat", etcd->prefix) < 0)
        abort();
    if (count > 0)
        memcpy(all, ops, count * sizeof *ops);
    all[count] = (struct etcd_wire_op){.key = slice_str(mark), .value = SLICE("1")};
    char *body = etcd_wire_txn_request(all, count + with_mark);
    enum ctl_exit result = call(etcd, "/v3/kv/txn", body, effect_of(ops, count), &reply);
    if (result == CTL_OK && !etcd_wire_txn_read(slice_make(reply.body, reply.len), NULL, NULL, ret_answer))
        result = make_no_sense(etcd);
    ctl_reply_free(&reply);
    free(mark);
    return result;
}
