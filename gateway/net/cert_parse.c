#include "cert_parse.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

__attribute__((format(printf, 2, 3))) static enum status fail(char *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, CERT_ERROR_TEXT_MAX, format, args);
    va_end(args);
    ERR_clear_error();
    return STATUS_TLS_FAILED;
}

/* Instead of OpenSSL's default, which asks on the terminal. */
static int refuse_passphrase(char *buffer, int size, int writing, void *data)
{
    (void)buffer, (void)size, (void)writing, (void)data;
    return -1;
}

static enum status read_chain(BIO *bio, STACK_OF(X509) * chain, char *why)
{
    X509 *cert;
    bool stored = true;
    while (stored && (cert = PEM_read_bio_X509(bio, NULL, refuse_passphrase, NULL)) != NULL)
        if (!(stored = sk_X509_push(chain, cert) > 0))
            X509_free(cert);
    /* The end of a PEM file shows as the missing start of another block. */
    unsigned long error = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    int count = sk_X509_num(chain);
    if (!stored)
        return fail(why, "out of memory");
    if (!at_end)
        return fail(why, "certificate %d is malformed; copy the PEM file again, whole", count + 1);
    if (count == 0)
        return fail(why, "no certificate found; put the chain in PEM, leaf first");
    ERR_clear_error();
    return STATUS_OK;
}

enum status cert_parse_chain(struct slice pem, STACK_OF(X509) * *ret_chain, char ret_why[CERT_ERROR_TEXT_MAX])
{
    BIO *bio = BIO_new_mem_buf(pem.len > 0 ? pem.ptr : "", (int)pem.len);
    STACK_OF(X509) *chain = sk_X509_new_null();
    enum status status = bio && chain ? read_chain(bio, chain, ret_why) : fail(ret_why, "out of memory");
    BIO_free(bio);
    if (status == STATUS_OK)
        *ret_chain = chain;
    else
        sk_X509_pop_free(chain, X509_free);
    return status;
}

enum status cert_parse_key(struct slice pem, EVP_PKEY **ret_key, char ret_why[CERT_ERROR_TEXT_MAX])
{
    BIO *bio = BIO_new_mem_buf(pem.len > 0 ? pem.ptr : "", (int)pem.len);
    if (!bio)
        return fail(ret_why, "out of memory");
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    if (key) {
        *ret_key = key;
        return STATUS_OK;
    }
    if (memmem(pem.ptr, pem.len, "ENCRYPTED", 9))
        return fail(ret_why,
                    "the private key is encrypted; remove the passphrase with: openssl pkey -in FILE -out NEW");
    if (!memmem(pem.ptr, pem.len, "PRIVATE KEY-----", 16))
        return fail(ret_why, "no private key found; put the key of the leaf certificate in PEM");
    return fail(ret_why, "the private key is malformed; copy the PEM file again, whole");
}

enum status cert_check_key_kind(const EVP_PKEY *key, char ret_why[CERT_ERROR_TEXT_MAX])
{
    char group[32] = "";
    if (EVP_PKEY_is_a(key, "RSA")) {
        int bits = EVP_PKEY_get_bits(key);
        if (bits < 2048)
            return fail(ret_why, "RSA with %d bits is too weak; use ECDSA P-256 or RSA with 2048 or more", bits);
        return STATUS_OK;
    }
    if (!EVP_PKEY_is_a(key, "EC"))
        return fail(ret_why, "keys of this kind are not supported; use ECDSA P-256, P-384 or RSA");
    if (!EVP_PKEY_get_group_name(key, group, sizeof group, NULL))
        return fail(ret_why, "an elliptic curve without a name is not supported; use P-256 or P-384");
    if (strcmp(group, "prime256v1") != 0 && strcmp(group, "secp384r1") != 0)
        return fail(ret_why, "the elliptic curve %s is not supported; use P-256 or P-384", group);
    return STATUS_OK;
}

bool cert_dates(const X509 *cert, int64_t *ret_not_before, int64_t *ret_not_after)
{
    struct tm from, until;
    if (!ASN1_TIME_to_tm(X509_get0_notBefore(cert), &from) || !ASN1_TIME_to_tm(X509_get0_notAfter(cert), &until)) {
        ERR_clear_error();
        return false;
    }
    *ret_not_before = (int64_t)timegm(&from);
    *ret_not_after = (int64_t)timegm(&until);
    return true;
}

void cert_list_names(const X509 *cert, char *text, size_t size)
{
    size_t len = 0;
    text[0] = '\0';
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        int more = snprintf(text + len, size - len, "%s%.*s", len > 0 ? ", " : "", ASN1_STRING_length(name->d.dNSName),
                            (const char *)ASN1_STRING_get0_data(name->d.dNSName));
        if (more < 0 || (size_t)more >= size - len)
            break;
        len += (size_t)more;
    }
    GENERAL_NAMES_free(names);
    if (text[0] == '\0')
        snprintf(text, size, "none");
}
