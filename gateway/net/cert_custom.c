#include "gateway/net/cert_custom.h"

#include "cert_parse.h"

#include "gateway/base/log.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* One upload while it is checked. */
struct check {
    struct slice name;
    STACK_OF(X509) * chain; /* leaf first */
    EVP_PKEY *key;
    int64_t now;
    bool was_accepted; /* dates are no reason to refuse it */
    struct cert_facts *facts;
    struct cert_problem *problem;
};

__attribute__((format(printf, 4, 5))) static enum status refuse(struct check *check, enum status status,
                                                                const char *field, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(check->problem->detail, sizeof check->problem->detail, format, args);
    va_end(args);
    check->problem->status = status;
    check->problem->field = field;
    ERR_clear_error();
    return status;
}

static X509 *leaf_of(const struct check *check)
{
    return sk_X509_value(check->chain, 0);
}

/* ---- names ---- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* A name that a client could ask for, or a wildcard for one label in front of such a name. */
static bool is_servable(struct slice name)
{
    if (slice_has_prefix(name, SLICE("*.")))
        name = slice_from(name, 2);
    if (name.len == 0 || name.len > 253 || name.ptr[0] == '.' || name.ptr[name.len - 1] == '.')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = lower(name.ptr[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_')
            return false;
    }
    return true;
}

static void add_name(struct cert_facts *facts, struct slice name)
{
    char *copy = malloc(name.len);
    if (!copy)
        abort();
    for (size_t i = 0; i < name.len; i++)
        copy[i] = lower(name.ptr[i]);
    facts->names[facts->name_count++] = slice_make(copy, name.len);
}

/* False if there are too many. */
static bool read_names(const X509 *leaf, struct cert_facts *facts)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int count = names ? sk_GENERAL_NAME_num(names) : 0;
    bool fits = count <= CERT_MAX_NAMES;
    facts->names = calloc((size_t)(count > 0 && fits ? count : 1), sizeof *facts->names);
    if (!facts->names)
        abort();
    for (int i = 0; i < count && fits; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        struct slice text =
            slice_make(ASN1_STRING_get0_data(name->d.dNSName), (size_t)ASN1_STRING_length(name->d.dNSName));
        if (is_servable(text))
            add_name(facts, text);
    }
    GENERAL_NAMES_free(names);
    return fits;
}

/* RFC 6125 section 6.4.3: a wildcard stands for exactly one label. */
static bool matches(struct slice pattern, struct slice host)
{
    if (slice_eq(pattern, host))
        return true;
    if (!slice_has_prefix(pattern, SLICE("*.")))
        return false;
    const char *dot = host.len > 0 ? memchr(host.ptr, '.', host.len) : NULL;
    return dot && dot > host.ptr && slice_eq(slice_from(host, (size_t)(dot - host.ptr)), slice_from(pattern, 1));
}

static bool covers(const struct cert_facts *facts, struct slice host)
{
    for (size_t i = 0; i < facts->name_count; i++)
        if (matches(facts->names[i], host))
            return true;
    return false;
}

bool cert_custom_covers(const struct cert_custom *cert, struct slice host)
{
    return covers(&cert->facts, host);
}

/* ---- facts ---- */

static void describe_key(const X509 *leaf, char *text, size_t size)
{
    const EVP_PKEY *key = X509_get0_pubkey(leaf);
    char group[32] = "";
    if (!key)
        snprintf(text, size, "unknown");
    else if (EVP_PKEY_is_a(key, "RSA"))
        snprintf(text, size, "RSA %d", EVP_PKEY_get_bits(key));
    else if (EVP_PKEY_get_group_name(key, group, sizeof group, NULL))
        snprintf(text, size, "ECDSA %s",
                 strcmp(group, "prime256v1") == 0  ? "P-256"
                 : strcmp(group, "secp384r1") == 0 ? "P-384"
                                                   : group);
    else
        snprintf(text, size, "%s", EVP_PKEY_get0_type_name(key));
}

static bool read_facts(X509 *leaf, struct cert_facts *facts)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    BIO *issuer = BIO_new(BIO_s_mem());
    if (!issuer || !cert_dates(leaf, &facts->not_before, &facts->not_after) ||
        X509_digest(leaf, EVP_sha256(), digest, &len) != 1) {
        BIO_free(issuer);
        return false;
    }
    for (unsigned i = 0; i < len && i < 32; i++)
        snprintf(facts->fingerprint + (size_t)2 * i, 3, "%02x", digest[i]);
    X509_NAME_print_ex(issuer, X509_get_issuer_name(leaf), 0, XN_FLAG_RFC2253);
    int text_len = BIO_read(issuer, facts->issuer, sizeof facts->issuer - 1);
    facts->issuer[text_len > 0 ? text_len : 0] = '\0';
    BIO_free(issuer);
    describe_key(leaf, facts->key, sizeof facts->key);
    return read_names(leaf, facts);
}

void cert_facts_fini(struct cert_facts *facts)
{
    for (size_t i = 0; i < facts->name_count; i++)
        free((void *)(uintptr_t)facts->names[i].ptr);
    free(facts->names);
    *facts = (struct cert_facts){.names = NULL};
}

enum status cert_facts_read(struct slice chain_pem, struct cert_facts *ret_facts)
{
    char why[CERT_ERROR_TEXT_MAX];
    STACK_OF(X509) *chain = NULL;
    struct cert_facts facts = {.names = NULL};
    enum status status = cert_parse_chain(chain_pem, &chain, why);
    if (status != STATUS_OK)
        return status;
    if (read_facts(sk_X509_value(chain, 0), &facts)) {
        *ret_facts = facts;
    } else {
        cert_facts_fini(&facts);
        status = STATUS_TLS_FAILED;
    }
    sk_X509_pop_free(chain, X509_free);
    ERR_clear_error();
    return status;
}

/* ---- checks ---- */

static enum status check_key(struct check *check)
{
    char why[CERT_ERROR_TEXT_MAX];
    if (cert_check_key_kind(check->key, why) != STATUS_OK)
        return refuse(check, STATUS_CERT_KEY_UNSUITABLE, "private_key", "%s", why);
    for (int i = 0; i < sk_X509_num(check->chain); i++) {
        bool is_its = X509_check_private_key(sk_X509_value(check->chain, i), check->key) == 1;
        if (is_its && i == 0)
            return STATUS_OK;
        if (is_its)
            return refuse(check, STATUS_CERT_CHAIN_BROKEN, "certificate",
                          "the key belongs to certificate %d; put the leaf first, then what signed it", i + 1);
    }
    return refuse(check, STATUS_CERT_KEY_MISMATCH, "private_key",
                  "the private key does not belong to the certificate; send the key that it was requested with");
}

/* Certificate i + 1 must have signed certificate i. */
static enum status check_link(struct check *check, int i)
{
    X509 *cert = sk_X509_value(check->chain, i);
    X509 *issuer = sk_X509_value(check->chain, i + 1);
    EVP_PKEY *key = X509_get0_pubkey(issuer);
    if (X509_check_issued(issuer, cert) != X509_V_OK || !key || X509_verify(cert, key) != 1)
        return refuse(check, STATUS_CERT_CHAIN_BROKEN, "certificate",
                      "certificate %d did not sign certificate %d; put the leaf first, then each issuer in order",
                      i + 2, i + 1);
    if (X509_check_ca(issuer) != 1)
        return refuse(check, STATUS_CERT_CHAIN_BROKEN, "certificate",
                      "certificate %d is no CA (basicConstraints); use the chain that the CA gave", i + 2);
    return STATUS_OK;
}

/*
 * A chain that stops before its root looks like one that lost its intermediate. What tells: a public CA never issues
 * from its root, and its leaves say where their issuer's certificate can be had (RFC 5280 section 4.2.2.1).
 */
static bool lacks_intermediate(const struct check *check)
{
    X509 *leaf = leaf_of(check);
    bool found = false;
    if (sk_X509_num(check->chain) > 1 || X509_check_issued(leaf, leaf) == X509_V_OK)
        return false;
    AUTHORITY_INFO_ACCESS *access = X509_get_ext_d2i(leaf, NID_info_access, NULL, NULL);
    for (int i = 0; access && i < sk_ACCESS_DESCRIPTION_num(access); i++)
        found = found || OBJ_obj2nid(sk_ACCESS_DESCRIPTION_value(access, i)->method) == NID_ad_ca_issuers;
    AUTHORITY_INFO_ACCESS_free(access);
    return found;
}

static enum status check_chain(struct check *check)
{
    int count = sk_X509_num(check->chain);
    if (count > CERT_MAX_CHAIN)
        return refuse(check, STATUS_CERT_CHAIN_BROKEN, "certificate", "the chain has %d certificates; at most %d",
                      count, CERT_MAX_CHAIN);
    for (int i = 0; i + 1 < count; i++) {
        enum status status = check_link(check, i);
        if (status != STATUS_OK)
            return status;
    }
    if (lacks_intermediate(check))
        return refuse(check, STATUS_CERT_CHAIN_BROKEN, "certificate",
                      "the chain ends at the leaf; add the CA's intermediate certificate (often: use fullchain.pem)");
    return STATUS_OK;
}

static void format_date(int64_t seconds, char *text, size_t size)
{
    struct tm tm;
    time_t when = (time_t)seconds;
    gmtime_r(&when, &tm);
    strftime(text, size, "%Y-%m-%d %H:%M UTC", &tm);
}

static enum status check_date(struct check *check, int i)
{
    int64_t from, until;
    char text[32];
    if (!cert_dates(sk_X509_value(check->chain, i), &from, &until))
        return refuse(check, STATUS_CERT_MALFORMED, "certificate", "certificate %d has no readable dates", i + 1);
    format_date(until < check->now ? until : from, text, sizeof text);
    if (until < check->now)
        return refuse(check, STATUS_CERT_EXPIRED, "certificate", "certificate %d expired at %s; renew it", i + 1, text);
    if (from > check->now)
        return refuse(check, STATUS_CERT_NOT_YET_VALID, "certificate",
                      "certificate %d is not valid before %s; upload it then, or check the gateway's clock", i + 1,
                      text);
    return STATUS_OK;
}

static enum status check_dates(struct check *check)
{
    enum status status = STATUS_OK;
    for (int i = 0; i < sk_X509_num(check->chain) && status == STATUS_OK; i++)
        status = check_date(check, i);
    if (!check->was_accepted || (status != STATUS_CERT_EXPIRED && status != STATUS_CERT_NOT_YET_VALID))
        return status;
    log_warn("certificates: that of %.*s is used all the same, clients will refuse it: %s", SLICE_ARG(check->name),
             check->problem->detail);
    return STATUS_OK;
}

static enum status check_purpose(struct check *check)
{
    if (X509_check_purpose(leaf_of(check), X509_PURPOSE_SSL_SERVER, 0) == 1)
        return STATUS_OK;
    return refuse(check, STATUS_CERT_NAME_MISMATCH, "certificate",
                  "the leaf is not for TLS servers; get one with extendedKeyUsage serverAuth");
}

static enum status check_name(struct check *check)
{
    char names[160];
    if (covers(check->facts, check->name))
        return STATUS_OK;
    cert_list_names(leaf_of(check), names, sizeof names);
    return refuse(check, STATUS_CERT_NAME_MISMATCH, "certificate",
                  "it does not cover %.*s (its names: %s); get one with DNS:%.*s as subjectAltName",
                  SLICE_ARG(check->name), names, SLICE_ARG(check->name));
}

/* Made once: it costs more than all other checks together. */
static SSL_CTX *trial;

static void make_trial(void)
{
    trial = SSL_CTX_new(TLS_server_method());
    if (!trial)
        abort();
    SSL_CTX_set_security_level(trial, 2);
}

/* The last word is OpenSSL's: weak signatures and keys in the chain, by the level that connections use. */
static enum status check_usable(struct check *check)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_trial);
    SSL *ssl = SSL_new(trial);
    STACK_OF(X509) *issuers = sk_X509_dup(check->chain);
    if (!ssl || !issuers)
        abort();
    (void)sk_X509_shift(issuers);
    bool usable = SSL_use_cert_and_key(ssl, leaf_of(check), check->key, issuers, 1) == 1;
    unsigned long error = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(error);
    sk_X509_free(issuers);
    SSL_free(ssl);
    if (usable)
        return STATUS_OK;
    return refuse(check, STATUS_CERT_KEY_UNSUITABLE, "certificate",
                  "a key or signature of the chain is too weak (%s); use SHA-256 and RSA 2048, P-256 or better",
                  reason ? reason : "refused by OpenSSL");
}

static enum status check_all(struct check *check, struct slice chain_pem, struct slice key_pem)
{
    char why[CERT_ERROR_TEXT_MAX];
    if (cert_parse_chain(chain_pem, &check->chain, why) != STATUS_OK)
        return refuse(check, STATUS_CERT_MALFORMED, "certificate", "%s", why);
    if (cert_parse_key(key_pem, &check->key, why) != STATUS_OK)
        return refuse(check, STATUS_CERT_MALFORMED, "private_key", "%s", why);
    if (!read_facts(leaf_of(check), check->facts))
        return refuse(check, STATUS_CERT_MALFORMED, "certificate", "the leaf has no readable dates or over %d names",
                      CERT_MAX_NAMES);
    static enum status (*const checks[])(struct check *) = {check_key,     check_chain, check_dates,
                                                            check_purpose, check_name,  check_usable};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        enum status status = checks[i](check);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---- life ---- */

static struct slice take_text(BIO *bio)
{
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    char *copy = OPENSSL_malloc((size_t)len);
    if (len <= 0 || !copy)
        abort();
    memcpy(copy, text, (size_t)len);
    OPENSSL_cleanse(text, (size_t)len);
    BIO_free(bio);
    return slice_make(copy, (size_t)len);
}

static BIO *new_text(void)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio)
        abort();
    return bio;
}

static void encode(const struct check *check, struct cert_custom *cert)
{
    BIO *chain = new_text(), *key = new_text();
    for (int i = 0; i < sk_X509_num(check->chain); i++)
        PEM_write_bio_X509(chain, sk_X509_value(check->chain, i));
    PEM_write_bio_PKCS8PrivateKey(key, check->key, NULL, NULL, 0, NULL, NULL);
    cert->chain_pem = take_text(chain);
    cert->key_pem = take_text(key);
}

/* `check` says by which rules. */
static enum status make(struct check *check, struct slice name, struct slice chain_pem, struct slice key_pem,
                        struct cert_custom **ret_cert)
{
    struct cert_custom *cert = calloc(1, sizeof *cert);
    char *copy = malloc(name.len + 1);
    if (!cert || !copy)
        abort();
    atomic_init(&cert->refs, 1);
    for (size_t i = 0; i < name.len; i++)
        copy[i] = lower(name.ptr[i]);
    cert->name = slice_make(copy, name.len);
    check->name = cert->name;
    check->facts = &cert->facts;
    enum status status = check_all(check, chain_pem, key_pem);
    if (status == STATUS_OK)
        encode(check, cert);
    sk_X509_pop_free(check->chain, X509_free);
    EVP_PKEY_free(check->key);
    ERR_clear_error();
    if (status == STATUS_OK)
        *ret_cert = cert;
    else
        cert_custom_unref(&cert);
    return status;
}

enum status cert_custom_new(struct slice name, struct slice chain_pem, struct slice key_pem, int64_t now,
                            struct cert_custom **ret_cert, struct cert_problem *ret_problem)
{
    struct check check = {.now = now, .problem = ret_problem};
    return make(&check, name, chain_pem, key_pem, ret_cert);
}

enum status cert_custom_new_accepted(struct slice name, struct slice chain_pem, struct slice key_pem, int64_t now,
                                     struct cert_custom **ret_cert, struct cert_problem *ret_problem)
{
    struct check check = {.now = now, .was_accepted = true, .problem = ret_problem};
    return make(&check, name, chain_pem, key_pem, ret_cert);
}

struct cert_custom *cert_custom_ref(struct cert_custom *cert)
{
    unsigned before = atomic_fetch_add_explicit(&cert->refs, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return cert;
}

void cert_custom_unref(struct cert_custom **cert)
{
    struct cert_custom *old = *cert;
    *cert = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
        return;
    OPENSSL_clear_free((void *)(uintptr_t)old->key_pem.ptr, old->key_pem.len);
    OPENSSL_free((void *)(uintptr_t)old->chain_pem.ptr);
    free((void *)(uintptr_t)old->name.ptr);
    cert_facts_fini(&old->facts);
    free(old);
}
