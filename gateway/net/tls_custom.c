#include "tls_custom.h"

#include "gateway/base/list.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>

struct tls_custom_name {
    struct name_entry entry;
    struct tls_custom *custom;
};

void tls_customs_init(struct tls_customs *customs, OSSL_LIB_CTX *library)
{
    customs->library = library;
    name_table_init(&customs->uploaded);
    name_table_init(&customs->served);
}

/* ---- one certificate ---- */

void tls_custom_release(struct tls_custom **custom)
{
    struct tls_custom *old = *custom;
    *custom = NULL;
    if (!old || --old->users > 0)
        return;
    X509_free(old->leaf);
    sk_X509_pop_free(old->issuers, X509_free);
    EVP_PKEY_free(old->key);
    cert_custom_unref(&old->cert);
    free(old->served);
    free(old);
}

static X509 *read_certificate(OSSL_LIB_CTX *library, BIO *bio)
{
    X509 *cert = X509_new_ex(library, NULL);
    if (cert && !PEM_read_bio_X509(bio, &cert, NULL, NULL)) {
        X509_free(cert);
        cert = NULL;
    }
    return cert;
}

static bool read_chain(struct tls_custom *custom, OSSL_LIB_CTX *library)
{
    BIO *bio = BIO_new_mem_buf(custom->cert->chain_pem.ptr, (int)custom->cert->chain_pem.len);
    custom->issuers = sk_X509_new_null();
    custom->leaf = bio && custom->issuers ? read_certificate(library, bio) : NULL;
    X509 *cert;
    bool stored = custom->leaf != NULL;
    while (stored && (cert = read_certificate(library, bio)) != NULL)
        if (!(stored = sk_X509_push(custom->issuers, cert) > 0))
            X509_free(cert);
    BIO_free(bio);
    if (stored)
        ERR_clear_error(); /* "no start line": the end of the text */
    return stored;
}

static bool read_key(struct tls_custom *custom, OSSL_LIB_CTX *library)
{
    BIO *bio = BIO_new_mem_buf(custom->cert->key_pem.ptr, (int)custom->cert->key_pem.len);
    custom->key = bio ? PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, library, NULL) : NULL;
    BIO_free(bio);
    return custom->key != NULL;
}

static void forget_parsed(struct tls_custom *custom)
{
    X509_free(custom->leaf);
    sk_X509_pop_free(custom->issuers, X509_free);
    custom->leaf = NULL;
    custom->issuers = NULL;
}

/*
 * A session is resumed only with the certificate that it began with: never under a name that this one does not cover,
 * and never past its replacement.
 */
static bool set_session_scope(const struct tls_custom *custom, SSL *ssl)
{
    return SSL_set_session_id_context(ssl, (const unsigned char *)custom->cert->facts.fingerprint,
                                      SSL_MAX_SID_CTX_LENGTH) == 1;
}

bool tls_custom_use(struct tls_custom *custom, OSSL_LIB_CTX *library, SSL *ssl, SSL_CTX *blank)
{
    if (!custom->key && !(read_chain(custom, library) && read_key(custom, library))) {
        forget_parsed(custom);
        return false;
    }
    if (!SSL_set_SSL_CTX(ssl, blank) || SSL_use_cert_and_key(ssl, custom->leaf, custom->key, custom->issuers, 1) != 1 ||
        !set_session_scope(custom, ssl))
        return false;
    custom->users++;
    return true;
}

/* ---- all of them ---- */

static void take_out(struct tls_customs *customs, struct tls_custom *custom)
{
    name_table_remove(&customs->uploaded, &custom->uploaded);
    for (size_t i = 0; i < custom->cert->facts.name_count; i++)
        name_table_remove(&customs->served, &custom->served[i].entry);
    tls_custom_release(&custom);
}

void tls_customs_put(struct tls_customs *customs, struct cert_custom *cert)
{
    size_t count = cert->facts.name_count;
    tls_customs_remove(customs, cert->name);
    struct tls_custom *custom = calloc(1, sizeof *custom);
    struct tls_custom_name *served = calloc(count, sizeof *served);
    if (!custom || !served)
        abort();
    custom->cert = cert_custom_ref(cert);
    custom->served = served;
    custom->users = 1;
    custom->uploaded.name = cert->name;
    name_table_add(&customs->uploaded, &custom->uploaded);
    for (size_t i = 0; i < count; i++) {
        served[i].custom = custom;
        served[i].entry.name = cert->facts.names[i];
        name_table_add(&customs->served, &served[i].entry);
    }
}

static struct tls_custom *find_uploaded(const struct tls_customs *customs, struct slice name)
{
    struct name_entry *entry = name_table_find(&customs->uploaded, name);
    return entry ? CONTAINER_OF(entry, struct tls_custom, uploaded) : NULL;
}

void tls_customs_remove(struct tls_customs *customs, struct slice name)
{
    struct tls_custom *custom = find_uploaded(customs, name);
    if (custom)
        take_out(customs, custom);
}

static struct tls_custom *find_pattern(const struct tls_customs *customs, struct slice pattern)
{
    struct tls_custom *custom = find_uploaded(customs, pattern);
    struct name_entry *entry = custom ? NULL : name_table_find(&customs->served, pattern);
    return entry ? CONTAINER_OF(entry, struct tls_custom_name, entry)->custom : custom;
}

struct tls_custom *tls_customs_find(const struct tls_customs *customs, struct slice host)
{
    char wildcard[256];
    if (customs->uploaded.count == 0)
        return NULL;
    struct tls_custom *custom = find_pattern(customs, host);
    const char *dot = host.len > 0 ? memchr(host.ptr, '.', host.len) : NULL;
    if (custom || !dot || dot == host.ptr)
        return custom;
    struct slice parent = slice_from(host, (size_t)(dot - host.ptr));
    if (parent.len + 1 > sizeof wildcard)
        return NULL;
    wildcard[0] = '*';
    memcpy(wildcard + 1, parent.ptr, parent.len);
    return find_pattern(customs, slice_make(wildcard, parent.len + 1));
}

static void take_all_out(struct tls_customs *customs)
{
    for (size_t i = 0; i < customs->uploaded.bucket_count; i++)
        while (customs->uploaded.buckets[i])
            take_out(customs, CONTAINER_OF(customs->uploaded.buckets[i], struct tls_custom, uploaded));
}

void tls_customs_fini(struct tls_customs *customs)
{
    take_all_out(customs);
    assert(customs->served.count == 0);
    name_table_fini(&customs->uploaded);
    name_table_fini(&customs->served);
}
