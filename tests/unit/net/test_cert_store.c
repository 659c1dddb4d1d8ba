#include "gateway/net/cert_store.h"
#include "net/certificates.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#define WILDCARD "DNS:*.a.test,DNS:a.test"

static char folder[] = "/tmp/gateway-cert-XXXXXX";

static const char *path(const char *name)
{
    static char paths[8][320];
    static unsigned next;
    char *text = paths[next++ % 8];
    snprintf(text, sizeof paths[0], "%s/%s", folder, name);
    return text;
}

static enum status load(const char *name, const char *certificate, const char *key, struct cert_snapshot **ret_snapshot,
                        char *error)
{
    struct cert_source source = {.name = name, .certificate = path(certificate), .private_key = path(key)};
    error[0] = '\0';
    return cert_snapshot_load(&source, 1, ret_snapshot, error);
}

static void expect_loaded(const char *name, const char *certificate, const char *key)
{
    struct cert_snapshot *snapshot = NULL;
    char error[CERT_ERROR_TEXT_MAX];
    enum status status = load(name, certificate, key, &snapshot, error);
    if (status != STATUS_OK)
        fail_msg("%s", error);
    cert_snapshot_unref(&snapshot);
    assert_null(snapshot);
}

/* The message begins with the file that is wrong and contains the text. */
static void expect_refused(const char *name, const char *certificate, const char *key, const char *wrong,
                           const char *text)
{
    struct cert_snapshot *snapshot = NULL;
    char error[CERT_ERROR_TEXT_MAX];
    enum status status = load(name, certificate, key, &snapshot, error);
    assert_int_equal(status, STATUS_TLS_FAILED);
    assert_null(snapshot);
    if (strncmp(error, path(wrong), strlen(path(wrong))) != 0 || !strstr(error, text))
        fail_msg("'%s' should name %s and say '%s'", error, wrong, text);
}

static void make_chain(void)
{
    EVP_PKEY *ca_key = make_key("P-256"), *leaf_key = make_key("P-384");
    struct cert_recipe ca_recipe = {.common_name = "ca", .key = ca_key, .is_ca = true};
    X509 *ca = make_certificate(&ca_recipe);
    struct cert_recipe leaf_recipe = {
        .common_name = "leaf", .names = WILDCARD, .key = leaf_key, .issuer = ca, .issuer_key = ca_key};
    X509 *leaf = make_certificate(&leaf_recipe);
    write_chain(path("chain.pem"), (X509 *[]){leaf, ca, NULL});
    write_chain(path("reversed.pem"), (X509 *[]){ca, leaf, NULL});
    write_key(path("chain.key"), leaf_key, NULL);
    write_key(path("encrypted.key"), leaf_key, "secret");
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(leaf_key);
    EVP_PKEY_free(ca_key);
}

static void make_dated(const char *name, long from, long until)
{
    char file[64];
    struct cert_recipe recipe = {
        .common_name = "leaf", .names = WILDCARD, .key = make_key("P-256"), .from = from, .until = until};
    X509 *certs[] = {make_certificate(&recipe), NULL};
    snprintf(file, sizeof file, "%s.pem", name);
    write_chain(path(file), certs);
    snprintf(file, sizeof file, "%s.key", name);
    write_key(path(file), recipe.key, NULL);
    X509_free(certs[0]);
    EVP_PKEY_free(recipe.key);
}

static int make_files(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    write_pair(path("ec"), "P-256", WILDCARD);
    write_pair(path("rsa"), "RSA2048", WILDCARD);
    write_pair(path("weak"), "RSA1024", WILDCARD);
    write_pair(path("p521"), "P-521", WILDCARD);
    write_pair(path("ed"), "ED25519", WILDCARD);
    write_pair(path("other"), "P-256", "DNS:*.b.test,DNS:www.a.test");
    write_pair(path("nosan"), "P-256", NULL);
    write_pair(path("exact"), "P-256", "DNS:a.test");
    make_chain();
    make_dated("expired", -2 * CERT_DAY, -CERT_DAY);
    make_dated("future", CERT_DAY, 2 * CERT_DAY);
    write_bytes(path("empty"), "", 0);
    write_bytes(path("garbage"), "hello\n", 6);
    static const char broken[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    write_bytes(path("broken.pem"), broken, sizeof broken - 1);
    static const char broken_key[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    write_bytes(path("broken.key"), broken_key, sizeof broken_key - 1);
    write_bytes(path("large"), "", 0);
    assert_int_equal(truncate(path("large"), CERT_MAX_FILE_BYTES + 1), 0);
    assert_int_equal(mkfifo(path("fifo"), 0600), 0);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            unlink(path(entry->d_name));
    closedir(dir);
    return rmdir(folder);
}

static void good_pairs_load(void **state)
{
    (void)state;
    expect_loaded("a.test", "ec.pem", "ec.key");
    expect_loaded("a.test", "rsa.pem", "rsa.key");
    expect_loaded("a.test", "chain.pem", "chain.key");
    expect_loaded("", "nosan.pem", "nosan.key");
}

static void wrong_dates_are_loaded(void **state)
{
    (void)state;
    expect_loaded("a.test", "expired.pem", "expired.key");
    expect_loaded("a.test", "future.pem", "future.key");
}

static void unreadable_files_are_refused(void **state)
{
    (void)state;
    expect_refused("a.test", "missing", "ec.key", "missing", "No such file");
    expect_refused("a.test", "ec.pem", "missing", "missing", "No such file");
    expect_refused("a.test", "empty", "ec.key", "empty", "the file is empty");
    expect_refused("a.test", "ec.pem", "empty", "empty", "the file is empty");
    expect_refused("a.test", "large", "ec.key", "large", "larger than 1048576 bytes");
    expect_refused("a.test", "fifo", "ec.key", "fifo", "not a regular file");
    expect_refused("a.test", "", "ec.key", "", "not a regular file");
}

static void bad_pem_is_refused(void **state)
{
    (void)state;
    expect_refused("a.test", "garbage", "ec.key", "garbage", "no certificate found; put the chain in PEM, leaf first");
    expect_refused("a.test", "ec.key", "ec.key", "ec.key", "no certificate found");
    expect_refused("a.test", "broken.pem", "ec.key", "broken.pem", "certificate 1 is malformed");
    expect_refused("a.test", "ec.pem", "garbage", "garbage", "no private key found");
    expect_refused("a.test", "ec.pem", "broken.key", "broken.key", "the private key is malformed");
    expect_refused("a.test", "chain.pem", "encrypted.key", "encrypted.key", "the private key is encrypted");
}

static void expect_no_authorities(const char *file, const char *text)
{
    char error[CERT_ERROR_TEXT_MAX] = "", expected[CERT_ERROR_TEXT_MAX];
    assert_int_equal(cert_authorities_check(path(file), error), STATUS_TLS_FAILED);
    snprintf(expected, sizeof expected, "%s: %s", path(file), text);
    assert_memory_equal(error, expected, strlen(expected));
}

static void authorities_are_checked(void **state)
{
    char error[CERT_ERROR_TEXT_MAX] = "";
    (void)state;
    assert_int_equal(cert_authorities_check(path("reversed.pem"), error), STATUS_OK);
    assert_string_equal(error, "");
    expect_no_authorities("missing", "No such file");
    expect_no_authorities("empty", "the file is empty");
    expect_no_authorities("garbage", "no certificate found; put those of the CAs in PEM");
    expect_no_authorities("broken.pem", "certificate 1 is malformed");
    expect_no_authorities("ec.key", "no certificate found");
}

static void unfit_pairs_are_refused(void **state)
{
    (void)state;
    expect_refused("a.test", "ec.pem", "rsa.key", "rsa.key", "does not match the certificate");
    expect_refused("a.test", "ec.pem", "other.key", "other.key", "does not match the certificate");
    expect_refused("a.test", "reversed.pem", "chain.key", "reversed.pem", "belongs to certificate 2; put the leaf");
    expect_refused("a.test", "weak.pem", "weak.key", "weak.key", "RSA with 1024 bits is too weak");
    expect_refused("a.test", "p521.pem", "p521.key", "p521.key", "curve secp521r1 is not supported");
    expect_refused("a.test", "ed.pem", "ed.key", "ed.key", "of this kind are not supported");
}

static void a_client_may_have_a_key_of_any_kind(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"p521.pem", "p521.key"}, {"ed.pem", "ed.key"}};
    for (size_t i = 0; i < 2; i++) {
        char certificate[512], key[512], error[CERT_ERROR_TEXT_MAX];
        snprintf(certificate, sizeof certificate, "%s", path(names[i][0]));
        snprintf(key, sizeof key, "%s", path(names[i][1]));
        struct cert_source source = {.name = "", .certificate = certificate, .private_key = key, .is_client = true};
        struct cert_snapshot *snapshot = NULL;
        assert_int_equal(cert_snapshot_load(&source, 1, &snapshot, error), STATUS_OK);
        cert_snapshot_unref(&snapshot);
    }
}

static void wrong_names_are_refused(void **state)
{
    (void)state;
    expect_refused("a.test", "other.pem", "other.key", "other.pem", "does not cover *.a.test (its names: *.b.test, ");
    expect_refused("a.test", "exact.pem", "exact.key", "exact.pem", "does not cover *.a.test (its names: a.test)");
    expect_refused("a.test", "nosan.pem", "nosan.key", "nosan.pem", "does not cover *.a.test (its names: none)");
}

static void one_bad_source_fails_all(void **state)
{
    (void)state;
    struct cert_source sources[] = {
        {.name = "a.test", .certificate = path("ec.pem"), .private_key = path("ec.key")},
        {.name = "b.test", .certificate = path("other.pem"), .private_key = path("ec.key")},
    };
    struct cert_snapshot *snapshot = NULL;
    char error[CERT_ERROR_TEXT_MAX];
    assert_int_equal(cert_snapshot_load(sources, 2, &snapshot, error), STATUS_TLS_FAILED);
    assert_null(snapshot);
}

static void snapshot_has_what_was_read(void **state)
{
    (void)state;
    struct cert_snapshot *snapshot = NULL;
    char error[CERT_ERROR_TEXT_MAX];
    assert_int_equal(load("a.test", "ec.pem", "ec.key", &snapshot, error), STATUS_OK);
    assert_int_equal(cert_snapshot_count(snapshot), 1);
    const struct cert_identity *identity = cert_snapshot_identity(snapshot, 0);
    assert_true(slice_eq(identity->name, SLICE("a.test")));
    assert_true(slice_has_prefix(identity->chain_pem, SLICE("-----BEGIN CERTIFICATE-----")));
    assert_true(slice_has_prefix(identity->key_pem, SLICE("-----BEGIN PRIVATE KEY-----")));
    assert_in_range(identity->not_after, time(NULL) + CERT_DAY - 60, time(NULL) + CERT_DAY + 60);
    struct cert_snapshot *second = cert_snapshot_ref(snapshot);
    cert_snapshot_unref(&snapshot);
    assert_true(slice_eq(cert_snapshot_identity(second, 0)->name, SLICE("a.test")));
    cert_snapshot_unref(&second);
    cert_snapshot_unref(&second);
}

static void names_choose_identities(void **state)
{
    (void)state;
    write_pair(path("sub"), "P-256", "DNS:*.sub.a.test");
    struct cert_source sources[] = {
        {.name = "a.test", .certificate = path("ec.pem"), .private_key = path("ec.key")},
        {.name = "sub.a.test", .certificate = path("sub.pem"), .private_key = path("sub.key")},
        {.name = "b.test", .certificate = path("other.pem"), .private_key = path("other.key")},
        {.name = "", .certificate = path("ec.pem"), .private_key = path("ec.key")},
    };
    static const struct {
        const char *name;
        int index;
    } cases[] = {
        {"a.test", 0},     {"A.TEST.", 0},      {"x.a.test", 0},    {"X.a.Test.", 0},
        {"sub.a.test", 1}, {"x.sub.a.test", 1}, {"y.x.a.test", -1}, {"y.x.sub.a.test", -1},
        {"x.b.test", 2},   {".a.test", -1},     {"xa.test", -1},    {"test", -1},
        {"", -1},          {".", -1},           {"a.test..", -1},   {"..a.test", -1},
        {"c.test", -1},    {"a.test.x", -1},
    };
    struct cert_snapshot *snapshot = NULL;
    char error[CERT_ERROR_TEXT_MAX];
    assert_int_equal(cert_snapshot_load(sources, 4, &snapshot, error), STATUS_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int found = cert_snapshot_find(snapshot, slice_str(cases[i].name));
        if (found != cases[i].index)
            fail_msg("'%s' got identity %d instead of %d", cases[i].name, found, cases[i].index);
    }
    cert_snapshot_unref(&snapshot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_pairs_load),
        cmocka_unit_test(wrong_dates_are_loaded),
        cmocka_unit_test(unreadable_files_are_refused),
        cmocka_unit_test(bad_pem_is_refused),
        cmocka_unit_test(authorities_are_checked),
        cmocka_unit_test(unfit_pairs_are_refused),
        cmocka_unit_test(a_client_may_have_a_key_of_any_kind),
        cmocka_unit_test(wrong_names_are_refused),
        cmocka_unit_test(one_bad_source_fails_all),
        cmocka_unit_test(snapshot_has_what_was_read),
        cmocka_unit_test(names_choose_identities),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
