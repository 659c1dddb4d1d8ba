/* Uploaded certificates of a tls_server: which names it serves as they come, are replaced and go. */
#include "gateway/net/cert_custom.h"
#include "gateway/net/tls.h"
#include "net/certificates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

enum { MANY = 600 };

static struct {
    struct cert_snapshot *base;
    struct tls_ticket_keys keys;
    struct tls_server *server;
} fixture;

static int set_up(void **state)
{
    (void)state;
    char folder[] = "/tmp/gateway-custom-XXXXXX", base[64], chain[80], key[80], error[CERT_ERROR_TEXT_MAX];
    assert_non_null(mkdtemp(folder));
    snprintf(base, sizeof base, "%s/base", folder);
    snprintf(chain, sizeof chain, "%s.pem", base);
    snprintf(key, sizeof key, "%s.key", base);
    write_pair(base, "P-256", "DNS:*.base.test,DNS:base.test");
    assert_int_equal(
        cert_snapshot_load(&(struct cert_source){.name = "base.test", .certificate = chain, .private_key = key}, 1,
                           &fixture.base, error),
        STATUS_OK);
    unlink(chain);
    unlink(key);
    rmdir(folder);
    assert_int_equal(tls_ticket_keys_rotate(&fixture.keys), STATUS_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cert_snapshot_unref(&fixture.base);
    return 0;
}

static int start(void **state)
{
    (void)state;
    char error[TLS_ERROR_TEXT_MAX];
    return tls_server_new(fixture.base, &(struct tls_options){.alpn = NULL}, &fixture.keys, &fixture.server, error) ==
                   STATUS_OK
               ? 0
               : -1;
}

static int stop(void **state)
{
    (void)state;
    tls_server_free(&fixture.server);
    return 0;
}

static struct slice text_of(BIO *bio)
{
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    return slice_make(text, (size_t)len);
}

/* Uploads a self-signed certificate with these alternatives under this name. */
static void put(const char *name, const char *alternatives)
{
    static EVP_PKEY *key;
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    BIO *chain_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_mem());
    if (!key)
        key = make_key("P-256");
    X509 *leaf = make_certificate(&(struct cert_recipe){.common_name = "leaf", .names = alternatives, .key = key});
    PEM_write_bio_X509(chain_pem, leaf);
    PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL);
    if (cert_custom_new(slice_str(name), text_of(chain_pem), text_of(key_pem), time(NULL), &cert, &problem) !=
        STATUS_OK)
        fail_msg("%s", problem.detail);
    tls_server_put_custom(fixture.server, cert);
    cert_custom_unref(&cert); /* the server has a reference of its own */
    X509_free(leaf);
    BIO_free(chain_pem);
    BIO_free(key_pem);
}

static bool has(const char *host)
{
    return tls_server_has_custom(fixture.server, slice_str(host));
}

static void every_covered_name_is_served(void **state)
{
    (void)state;
    assert_false(has("a.test"));
    put("a.test", "DNS:a.test,DNS:b.test,DNS:*.wild.test");
    assert_true(has("a.test"));
    assert_true(has("A.TEST."));
    assert_true(has("b.test"));
    assert_true(has("x.wild.test"));
    assert_false(has("wild.test"));
    assert_false(has("x.y.wild.test"));
    assert_false(has("c.test"));
    assert_false(has(""));
    assert_false(has("."));
    assert_false(has(".wild.test"));
}

static void replacing_and_removing_leave_no_name_behind(void **state)
{
    (void)state;
    put("a.test", "DNS:a.test,DNS:b.test");
    put("a.test", "DNS:a.test,DNS:c.test");
    assert_true(has("a.test"));
    assert_false(has("b.test"));
    assert_true(has("c.test"));
    put("c.test", "DNS:c.test");
    tls_server_remove_custom(fixture.server, slice_str("a.test"));
    assert_false(has("a.test"));
    assert_true(has("c.test"));
    tls_server_remove_custom(fixture.server, slice_str("a.test"));
    tls_server_remove_custom(fixture.server, slice_str("c.test"));
    assert_false(has("c.test"));
}

static void thousands(void **state)
{
    (void)state;
    char name[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "n%d.many.test", i);
        put(name, "DNS:*.many.test");
    }
    assert_true(has("n599.many.test"));
    for (int i = 0; i < MANY - 1; i++) {
        snprintf(name, sizeof name, "n%d.many.test", i);
        tls_server_remove_custom(fixture.server, slice_str(name));
    }
    assert_true(has("anything.many.test"));
    tls_server_remove_custom(fixture.server, slice_str("n599.many.test"));
    assert_false(has("anything.many.test"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_covered_name_is_served),
        TEST(replacing_and_removing_leave_no_name_behind),
        TEST(thousands),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
