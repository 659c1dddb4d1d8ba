/* cert_custom: the table of what an upload may be, and the names that a certificate serves. */
#include "gateway/net/cert_custom.h"
#include "net/certificates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

enum { PEM_MAX = 32768 };

static struct {
    EVP_PKEY *root_key, *middle_key, *leaf_key, *other_key, *weak_key, *ed_key;
    X509 *root, *middle, *old_middle, *not_a_ca;
} made;

static X509 *issue(const char *common_name, const char *names, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
                   bool is_ca)
{
    struct cert_recipe recipe = {common_name, names, key, issuer, issuer_key, 0, 0, is_ca};
    return make_certificate(&recipe);
}

static int set_up(void **state)
{
    (void)state;
    made.root_key = make_key("P-256");
    made.middle_key = make_key("P-256");
    made.leaf_key = make_key("P-256");
    made.other_key = make_key("P-384");
    made.weak_key = make_key("RSA1024");
    made.ed_key = make_key("ED25519");
    made.root = issue("root", NULL, made.root_key, NULL, NULL, true);
    made.middle = issue("middle", NULL, made.middle_key, made.root, made.root_key, true);
    struct cert_recipe old = {"middle", NULL, made.middle_key, made.root, made.root_key, -20000, -10000, true};
    made.old_middle = make_certificate(&old);
    made.not_a_ca = issue("middle", NULL, made.middle_key, made.root, made.root_key, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    EVP_PKEY *keys[] = {made.root_key, made.middle_key, made.leaf_key, made.other_key, made.weak_key, made.ed_key};
    X509 *certs[] = {made.root, made.middle, made.old_middle, made.not_a_ca};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        EVP_PKEY_free(keys[i]);
    for (size_t i = 0; i < sizeof certs / sizeof certs[0]; i++)
        X509_free(certs[i]);
    return 0;
}

static void append_pem(char *text, X509 *cert)
{
    size_t len = strlen(text);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, cert);
    int got = BIO_read(bio, text + len, (int)(PEM_MAX - len - 1));
    assert_true(got > 0);
    text[len + (size_t)got] = '\0';
    BIO_free(bio);
}

static void key_pem(char *text, EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    int got = BIO_read(bio, text, PEM_MAX - 1);
    assert_true(got > 0);
    text[got] = '\0';
    BIO_free(bio);
}

/* A leaf with these issuers behind it, up to a NULL; takes the leaf. */
static enum status upload(const char *name, X509 *leaf, X509 *const *issuers, EVP_PKEY *key, struct cert_custom **ret,
                          struct cert_problem *problem)
{
    static char chain[PEM_MAX], key_text[PEM_MAX];
    chain[0] = '\0';
    append_pem(chain, leaf);
    for (; issuers && *issuers; issuers++)
        append_pem(chain, *issuers);
    key_pem(key_text, key);
    X509_free(leaf);
    return cert_custom_new(slice_str(name), slice_str(chain), slice_str(key_text), time(NULL), ret, problem);
}

#define MIDDLE ((X509 *[]){made.middle, NULL})

static void check(enum status wanted, const char *field, const char *fragment, X509 *leaf, X509 *const *issuers,
                  EVP_PKEY *key)
{
    struct cert_custom *cert = NULL;
    struct cert_problem problem = {.status = STATUS_OK, .field = "", .detail = ""};
    enum status status = upload("shop.test", leaf, issuers, key, &cert, &problem);
    if (status != wanted ||
        (wanted != STATUS_OK && (strcmp(problem.field, field) || !strstr(problem.detail, fragment))))
        fail_msg("wanted %s, got %s: %s: %s", status_code(wanted), status_code(status), problem.field, problem.detail);
    assert_int_equal(cert != NULL, wanted == STATUS_OK);
    cert_custom_unref(&cert);
}

static X509 *leaf(void)
{
    return issue("leaf", "DNS:shop.test", made.leaf_key, made.middle, made.middle_key, false);
}

static void chains(void **state)
{
    (void)state;
    X509 *with_root[] = {made.middle, made.root, NULL};
    X509 *skipped[] = {made.root, NULL};
    X509 *expired[] = {made.old_middle, NULL};
    X509 *no_ca[] = {made.not_a_ca, NULL};
    X509 *trailing[] = {made.middle, made.root, made.middle, NULL};
    X509 *self = issue("self", "DNS:shop.test", made.leaf_key, NULL, NULL, false);
    check(STATUS_OK, "", "", leaf(), MIDDLE, made.leaf_key);
    check(STATUS_OK, "", "", leaf(), with_root, made.leaf_key);
    check(STATUS_OK, "", "", leaf(), NULL, made.leaf_key);
    check(STATUS_OK, "", "", self, NULL, made.leaf_key);
    check(STATUS_CERT_CHAIN_BROKEN, "certificate", "2 did not sign certificate 1", leaf(), skipped, made.leaf_key);
    check(STATUS_CERT_CHAIN_BROKEN, "certificate", "4 did not sign certificate 3", leaf(), trailing, made.leaf_key);
    check(STATUS_CERT_CHAIN_BROKEN, "certificate", "no CA", leaf(), no_ca, made.leaf_key);
    check(STATUS_CERT_EXPIRED, "certificate", "certificate 2 expired", leaf(), expired, made.leaf_key);
}

static void a_leaf_of_a_public_ca_needs_its_intermediate(void **state)
{
    (void)state;
    X509 *leafs[] = {leaf(), leaf()};
    for (int i = 0; i < 2; i++) {
        add_extension(leafs[i], NID_info_access, "caIssuers;URI:http://ca.test/middle.der");
        assert_true(X509_sign(leafs[i], made.middle_key, EVP_sha256()) > 0);
    }
    check(STATUS_CERT_CHAIN_BROKEN, "certificate", "intermediate", leafs[0], NULL, made.leaf_key);
    check(STATUS_OK, "", "", leafs[1], MIDDLE, made.leaf_key);
}

static void keys(void **state)
{
    (void)state;
    X509 *reversed = X509_dup(made.middle), *own = leaf();
    X509 *after[] = {own, NULL};
    check(STATUS_CERT_CHAIN_BROKEN, "certificate", "belongs to certificate 2", reversed, after, made.leaf_key);
    X509_free(own);
    check(STATUS_CERT_KEY_MISMATCH, "private_key", "does not belong", leaf(), MIDDLE, made.other_key);
    struct {
        EVP_PKEY *key;
        const char *fragment;
    } unsuitable[] = {{made.weak_key, "1024 bits"}, {made.ed_key, "not supported"}};
    for (size_t i = 0; i < sizeof unsuitable / sizeof unsuitable[0]; i++)
        check(STATUS_CERT_KEY_UNSUITABLE, "private_key", unsuitable[i].fragment,
              issue("leaf", "DNS:shop.test", unsuitable[i].key, made.middle, made.middle_key, false), MIDDLE,
              unsuitable[i].key);
    X509 *weak_ca = issue("weak", NULL, made.weak_key, NULL, NULL, true);
    X509 *weak[] = {weak_ca, NULL};
    check(STATUS_CERT_KEY_UNSUITABLE, "certificate", "too weak",
          issue("leaf", "DNS:shop.test", made.leaf_key, weak_ca, made.weak_key, false), weak, made.leaf_key);
    X509_free(weak_ca);
}

static void dates(void **state)
{
    (void)state;
    struct {
        long from, until;
        enum status status;
        const char *fragment;
    } rows[] = {
        {-1000, 1000, STATUS_OK, ""},
        {-2000, -1000, STATUS_CERT_EXPIRED, "certificate 1 expired"},
        {1000, 2000, STATUS_CERT_NOT_YET_VALID, "certificate 1 is not valid before"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cert_recipe recipe = {"leaf",          "DNS:shop.test", made.leaf_key, made.middle,
                                     made.middle_key, rows[i].from,    rows[i].until, false};
        check(rows[i].status, "certificate", rows[i].fragment, make_certificate(&recipe), MIDDLE, made.leaf_key);
    }
}

static void names(void **state)
{
    (void)state;
    struct {
        const char *name, *alternatives;
        bool is_right;
    } rows[] = {
        {"shop.test", "DNS:shop.test", true},
        {"shop.test", "DNS:SHOP.Test", true},
        {"shop.test", "DNS:other.test,DNS:shop.test", true},
        {"a.shop.test", "DNS:*.shop.test", true},
        {"*.shop.test", "DNS:*.shop.test", true},
        {"*.shop.test", "DNS:a.shop.test", false},
        {"shop.test", "DNS:*.shop.test", false},
        {"a.b.shop.test", "DNS:*.shop.test", false},
        {"shop.test", "DNS:shop.test.evil", false},
        {"shop.test", "DNS:s*.test", false},
        {"shop.test", "DNS:*", false},
        {"shop.test", "email:shop.test", false},
        {"shop.test", NULL, false}, /* the common name is no host name (RFC 6125 section 6.4.4) */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cert_custom *cert = NULL;
        struct cert_problem problem;
        X509 *own = issue("shop.test", rows[i].alternatives, made.leaf_key, made.middle, made.middle_key, false);
        enum status status = upload(rows[i].name, own, MIDDLE, made.leaf_key, &cert, &problem);
        if (status != (rows[i].is_right ? STATUS_OK : STATUS_CERT_NAME_MISMATCH))
            fail_msg("%s for %s: %s", rows[i].name, rows[i].alternatives, status_code(status));
        cert_custom_unref(&cert);
    }
}

static void what_it_covers(void **state)
{
    (void)state;
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    X509 *own =
        issue("leaf", "DNS:shop.test,DNS:*.wild.test,IP:10.0.0.1", made.leaf_key, made.middle, made.middle_key, false);
    assert_int_equal(upload("shop.test", own, MIDDLE, made.leaf_key, &cert, &problem), STATUS_OK);
    assert_true(cert_custom_covers(cert, slice_str("shop.test")));
    assert_true(cert_custom_covers(cert, slice_str("a.wild.test")));
    assert_false(cert_custom_covers(cert, slice_str("wild.test")));
    assert_false(cert_custom_covers(cert, slice_str(".wild.test")));
    assert_false(cert_custom_covers(cert, slice_str("a.b.wild.test")));
    assert_false(cert_custom_covers(cert, slice_str("10.0.0.1")));
    assert_false(cert_custom_covers(cert, SLICE_NONE));
    assert_string_equal(cert->facts.key, "ECDSA P-256");
    assert_string_equal(cert->facts.issuer, "CN=middle");
    assert_int_equal(cert->facts.name_count, 2);
    struct cert_facts facts;
    assert_int_equal(cert_facts_read(cert->chain_pem, &facts), STATUS_OK);
    assert_string_equal(facts.fingerprint, cert->facts.fingerprint);
    cert_facts_fini(&facts);
    struct cert_custom *second = cert_custom_ref(cert);
    cert_custom_unref(&cert);
    cert_custom_unref(&second);
}

static void only_certificates_and_the_key_are_kept(void **state)
{
    (void)state;
    static char chain[PEM_MAX], key[PEM_MAX];
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    X509 *own = leaf();
    key_pem(key, made.leaf_key);
    strcpy(chain, key);
    append_pem(chain, own);
    append_pem(chain, made.middle);
    strcat(chain, "a remark\n");
    X509_free(own);
    assert_int_equal(
        cert_custom_new(slice_str("Shop.Test"), slice_str(chain), slice_str(key), time(NULL), &cert, &problem),
        STATUS_OK);
    assert_null(memmem(cert->chain_pem.ptr, cert->chain_pem.len, "PRIVATE", 7));
    assert_null(memmem(cert->chain_pem.ptr, cert->chain_pem.len, "remark", 6));
    assert_true(slice_eq(cert->name, slice_str("shop.test")));
    cert_custom_unref(&cert);
}

static void text_that_is_no_pem(void **state)
{
    (void)state;
    struct cert_custom *cert = NULL;
    struct cert_problem problem;
    static const char *const texts[] = {"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(cert_custom_new(slice_str("a.test"), slice_str(texts[i]), slice_str("x"), 0, &cert, &problem),
                         STATUS_CERT_MALFORMED);
        assert_string_equal(problem.field, "certificate");
    }
    assert_null(cert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains),
        cmocka_unit_test(a_leaf_of_a_public_ca_needs_its_intermediate),
        cmocka_unit_test(keys),
        cmocka_unit_test(dates),
        cmocka_unit_test(names),
        cmocka_unit_test(what_it_covers),
        cmocka_unit_test(only_certificates_and_the_key_are_kept),
        cmocka_unit_test(text_that_is_no_pem),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
