/*
 * certificates: makes keys and certificates for the tests of net, in a temporary folder.
 */
#ifndef TESTS_UNIT_NET_CERTIFICATES_H
#define TESTS_UNIT_NET_CERTIFICATES_H

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CERT_DAY = 86400 };

struct cert_recipe {
    const char *common_name;
    const char *names; /* "DNS:*.a.test,DNS:a.test"; NULL: none */
    EVP_PKEY *key;
    X509 *issuer; /* NULL: self-signed */
    EVP_PKEY *issuer_key;
    long from, until; /* seconds from now; both 0: valid for a day */
    bool is_ca;
};

static inline EVP_PKEY *make_key(const char *kind)
{
    EVP_PKEY *key = strncmp(kind, "RSA", 3) == 0   ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)atoi(kind + 3))
                    : strcmp(kind, "ED25519") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, kind)
                                                   : EVP_PKEY_Q_keygen(NULL, NULL, "EC", kind);
    assert(key);
    return key;
}

static inline void add_extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    assert(extension);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

static inline X509 *make_certificate(const struct cert_recipe *recipe)
{
    static long serial = 1;
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)recipe->common_name, -1, -1, 0);
    X509_set_issuer_name(cert, recipe->issuer ? X509_get_subject_name(recipe->issuer) : name);
    X509_gmtime_adj(X509_getm_notBefore(cert), recipe->from || recipe->until ? recipe->from : -CERT_DAY);
    X509_gmtime_adj(X509_getm_notAfter(cert), recipe->from || recipe->until ? recipe->until : CERT_DAY);
    X509_set_pubkey(cert, recipe->key);
    add_extension(cert, NID_basic_constraints, recipe->is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (recipe->names)
        add_extension(cert, NID_subject_alt_name, recipe->names);
    EVP_PKEY *signer = recipe->issuer ? recipe->issuer_key : recipe->key;
    int done = X509_sign(cert, signer, EVP_PKEY_is_a(signer, "ED25519") ? NULL : EVP_sha256());
    assert(done > 0);
    (void)done;
    return cert;
}

static inline void write_bytes(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "w");
    assert(file);
    size_t done = fwrite(bytes, 1, len, file);
    assert(done == len);
    (void)done;
    fclose(file);
}

/* Certificates in this order, up to a NULL. */
static inline void write_chain(const char *path, X509 *const *certs)
{
    FILE *file = fopen(path, "w");
    assert(file);
    for (; *certs; certs++)
        PEM_write_X509(file, *certs);
    fclose(file);
}

static inline void write_key(const char *path, EVP_PKEY *key, const char *passphrase)
{
    FILE *file = fopen(path, "w");
    assert(file);
    PEM_write_PKCS8PrivateKey(file, key, passphrase ? EVP_aes_128_cbc() : NULL, passphrase,
                              passphrase ? (int)strlen(passphrase) : 0, NULL, NULL);
    fclose(file);
}

/* A key and a self-signed certificate for these names, as <base>.pem and <base>.key. */
static inline void write_pair(const char *base, const char *kind, const char *names)
{
    char path[256];
    struct cert_recipe recipe = {.common_name = "leaf", .names = names, .key = make_key(kind)};
    X509 *certs[] = {make_certificate(&recipe), NULL};
    snprintf(path, sizeof path, "%s.pem", base);
    write_chain(path, certs);
    snprintf(path, sizeof path, "%s.key", base);
    write_key(path, recipe.key, NULL);
    X509_free(certs[0]);
    EVP_PKEY_free(recipe.key);
}

#endif
