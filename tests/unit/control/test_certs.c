/* certs: stored, then published, then acknowledged; what fails or comes too late changes nothing. */
#include "gateway/control/certs.h"
#include "net/certificates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/stat.h>

static struct {
    char dir[64];
    struct counters counters;
    struct loop *loop;
    struct store *store;
    struct certs *certs;
    char trace[256]; /* what happened, in order */
    bool keep;       /* publications are not finished at once */
    void (*publish_done)(void *arg);
    void *publish_arg;
} f;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    size_t len = strlen(f.trace);
    va_list args;
    va_start(args, format);
    vsnprintf(f.trace + len, sizeof f.trace - len, format, args);
    va_end(args);
}

static void check_trace(const char *wanted)
{
    assert_string_equal(f.trace, wanted);
    f.trace[0] = '\0';
}

static void publish(void *arg, struct slice name, struct cert_custom *cert, void (*done)(void *done_arg),
                    void *done_arg)
{
    (void)arg;
    note("%s %.*s;", cert ? "serve" : "drop", SLICE_ARG(name));
    f.publish_done = done;
    f.publish_arg = done_arg;
    if (!f.keep)
        done(done_arg);
}

static void on_done(void *arg, enum status status, bool created, const char *text)
{
    (void)text;
    note("%s %s%s;", (const char *)arg, status_code(status), created ? " new" : "");
}

static void on_committed(void *arg, enum status status, const char *text)
{
    (void)arg;
    (void)text;
    assert_int_equal(status, STATUS_OK);
    note("stored;");
}

static void open_all(void)
{
    char error[STORE_ERROR_TEXT_MAX];
    f.loop = loop_new(&f.counters);
    if (store_open(f.dir, f.loop, &f.store, error) != STATUS_OK)
        fail_msg("%s", error);
    f.certs = certs_new(f.loop, f.store, publish, NULL);
    assert_int_equal(certs_load(f.certs, error), STATUS_OK);
}

static void close_all(void)
{
    certs_free(&f.certs);
    store_close(&f.store);
    loop_free(&f.loop);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(f.dir, sizeof f.dir, "/tmp/certs-test-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    f.trace[0] = '\0';
    f.keep = false;
    open_all();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char path[512];
    close_all();
    DIR *dir = opendir(f.dir);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", f.dir, entry->d_name);
        unlink(path);
    }
    closedir(dir);
    rmdir(f.dir);
    return 0;
}

static struct slice text_of(BIO *bio)
{
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    return slice_make(text, (size_t)len);
}

/* Valid from and until so many seconds from now, and when it is uploaded. */
static struct cert_custom *make_dated(const char *name, long from, long until)
{
    static EVP_PKEY *key;
    char alternatives[128];
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    BIO *chain_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_mem());
    if (!key)
        key = make_key("P-256");
    snprintf(alternatives, sizeof alternatives, "DNS:%s", name);
    X509 *leaf = make_certificate(
        &(struct cert_recipe){.common_name = "leaf", .names = alternatives, .key = key, .from = from, .until = until});
    PEM_write_bio_X509(chain_pem, leaf);
    PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL);
    if (cert_custom_new(slice_str(name), text_of(chain_pem), text_of(key_pem), time(NULL) + (from + until) / 2, &cert,
                        &problem) != STATUS_OK)
        fail_msg("%s", problem.detail);
    X509_free(leaf);
    BIO_free(chain_pem);
    BIO_free(key_pem);
    return cert;
}

static struct cert_custom *make(const char *name)
{
    return make_dated(name, -CERT_DAY, CERT_DAY);
}

static void put(const char *name, char *label)
{
    certs_put(f.certs, make(name), on_done, label);
    assert_string_equal(f.trace, "");
}

static void wait_for(const char *what)
{
    for (int i = 0; i < 2000 && !strstr(f.trace, what); i++)
        loop_turn(f.loop, 10);
    assert_non_null(strstr(f.trace, what));
}

static char first[] = "first", second[] = "second";

static void in_order(void **state)
{
    (void)state;
    put("b.test", first);
    wait_for("first");
    check_trace("serve b.test;first ok new;");
    put("a.test", first);
    wait_for("first");
    check_trace("serve a.test;first ok new;");
    put("b.test", second);
    wait_for("second");
    check_trace("serve b.test;second ok;");
    assert_int_equal(certs_count(f.certs), 2);
    assert_true(slice_eq(certs_at(f.certs, 0)->name, slice_str("a.test")));
    assert_true(certs_cover(f.certs, slice_str("b.test")) && !certs_cover(f.certs, slice_str("c.test")));
    assert_true(certs_first_not_after(f.certs) > (int64_t)time(NULL));
    close_all();
    open_all();
    assert_int_equal(certs_count(f.certs), 2);
    certs_delete(f.certs, slice_str("a.test"), on_done, first);
    wait_for("first");
    check_trace("drop a.test;first ok;");
    close_all();
    open_all();
    assert_null(certs_find(f.certs, slice_str("a.test")));
    assert_non_null(certs_find(f.certs, slice_str("b.test")));
}

/* It was good when it was uploaded; to take it away would not help its clients, and the clock may be wrong. */
static void dates_are_no_reason_to_leave_one_out(void **state)
{
    (void)state;
    certs_put(f.certs, make_dated("old.test", -2 * CERT_DAY, -CERT_DAY), on_done, first);
    wait_for("first");
    certs_put(f.certs, make_dated("new.test", CERT_DAY, 2 * CERT_DAY), on_done, second);
    wait_for("second");
    check_trace("serve old.test;first ok new;serve new.test;second ok new;");
    close_all();
    open_all();
    assert_int_equal(certs_count(f.certs), 2);
    assert_true(certs_cover(f.certs, slice_str("old.test")) && certs_cover(f.certs, slice_str("new.test")));
    assert_true(certs_first_not_after(f.certs) < (int64_t)time(NULL));
}

static void store_damaged(const char *name)
{
    struct store_batch *batch = store_batch_new();
    store_batch_put_certificate(batch, slice_str(name), slice_str("damaged"), slice_str("damaged"));
    store_commit(f.store, batch, STORE_SAME_REVISION, on_committed, NULL);
    wait_for("stored");
    check_trace("stored;");
    close_all();
    open_all();
    assert_int_equal(certs_count(f.certs), 0);
    assert_null(certs_find(f.certs, slice_str(name)));
    assert_true(certs_has(f.certs, slice_str(name)));
}

static void what_is_left_out_can_be_deleted_and_replaced(void **state)
{
    (void)state;
    store_damaged("a.test");
    certs_delete(f.certs, slice_str("a.test"), on_done, first);
    wait_for("first");
    check_trace("drop a.test;first ok;");
    assert_false(certs_has(f.certs, slice_str("a.test")));
    close_all();
    open_all();
    assert_false(certs_has(f.certs, slice_str("a.test")));
    store_damaged("a.test");
    put("a.test", first);
    wait_for("first");
    close_all();
    open_all();
    assert_non_null(certs_find(f.certs, slice_str("a.test")));
    f.trace[0] = '\0';
    certs_delete(f.certs, slice_str("a.test"), on_done, first);
    wait_for("first");
    assert_false(certs_has(f.certs, slice_str("a.test")));
}

static void acknowledged_after_the_last_worker(void **state)
{
    (void)state;
    f.keep = true;
    put("a.test", first);
    wait_for("serve");
    for (int i = 0; i < 5; i++)
        loop_turn(f.loop, 2);
    check_trace("serve a.test;");
    f.publish_done(f.publish_arg);
    check_trace("first ok new;");
}

static void who_left_is_not_told(void **state)
{
    (void)state;
    put("a.test", first);
    certs_forget(f.certs, first);
    wait_for("serve");
    check_trace("serve a.test;");
    assert_int_equal(certs_count(f.certs), 1);
}

static void the_end_while_one_is_on_its_way(void **state)
{
    (void)state;
    put("a.test", first);
    certs_free(&f.certs);
    check_trace("first shutdown;");
    store_close(&f.store); /* it is stored, and told to nobody */
    loop_free(&f.loop);
    check_trace("");
    open_all();
    assert_int_equal(certs_count(f.certs), 1);
}

static void the_end_while_one_is_published(void **state)
{
    (void)state;
    f.keep = true;
    put("a.test", first);
    wait_for("serve");
    certs_free(&f.certs);
    check_trace("serve a.test;first shutdown;");
    f.publish_done(f.publish_arg);
    check_trace("");
}

/* ---- a gate: others have it first, and it comes back ---- */

static certs_written_cb written;
static void *written_arg;

static void on_write(void *arg, struct slice name, const struct cert_custom *cert, certs_written_cb done,
                     void *done_arg)
{
    (void)arg;
    note("%s %.*s elsewhere;", cert ? "put" : "delete", SLICE_ARG(name));
    written = done;
    written_arg = done_arg;
}

static void what_is_shared_is_applied_when_it_comes_back(void **state)
{
    static const struct certs_gate gate = {.write = on_write};
    (void)state;
    certs_set_gate(f.certs, &gate);
    certs_put(f.certs, make("a.test"), on_done, first);
    check_trace("put a.test elsewhere;");
    certs_apply(f.certs, slice_str("a.test"), make("a.test"), on_done, second);
    wait_for("second");
    check_trace("serve a.test;second ok new;");
    written(written_arg, STATUS_OK, "");
    check_trace("first ok new;");
    certs_delete(f.certs, slice_str("a.test"), on_done, first);
    check_trace("delete a.test elsewhere;");
    written(written_arg, STATUS_ETCD_UNAVAILABLE, "nobody there");
    check_trace("first etcd_unavailable;");
    assert_int_equal(certs_count(f.certs), 1);
    certs_apply(f.certs, slice_str("a.test"), NULL, on_done, second);
    wait_for("second");
    check_trace("drop a.test;second ok;");
    certs_put(f.certs, make("b.test"), on_done, first);
    certs_forget(f.certs, first);
    written(written_arg, STATUS_SHUTDOWN, "");
    certs_set_gate(f.certs, NULL);
    check_trace("put b.test elsewhere;");
    put("b.test", first);
    wait_for("first");
    check_trace("serve b.test;first ok new;");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_order),
        TEST(dates_are_no_reason_to_leave_one_out),
        TEST(what_is_left_out_can_be_deleted_and_replaced),
        TEST(acknowledged_after_the_last_worker),
        TEST(who_left_is_not_told),
        TEST(the_end_while_one_is_on_its_way),
        TEST(the_end_while_one_is_published),
        TEST(what_is_shared_is_applied_when_it_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
