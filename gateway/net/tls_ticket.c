#include "gateway/net/tls_ticket.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

enum { IV_BYTES = 16 };

enum status tls_ticket_keys_rotate(struct tls_ticket_keys *keys)
{
    assert(keys->count <= TLS_TICKET_KEYS);
    struct tls_ticket_key fresh;
    if (RAND_bytes(fresh.name, sizeof fresh.name) != 1 || RAND_priv_bytes(fresh.aes, sizeof fresh.aes) != 1 ||
        RAND_priv_bytes(fresh.hmac, sizeof fresh.hmac) != 1) {
        OPENSSL_cleanse(&fresh, sizeof fresh);
        return STATUS_TLS_FAILED;
    }
    memmove(&keys->keys[1], &keys->keys[0], (TLS_TICKET_KEYS - 1) * sizeof keys->keys[0]);
    keys->keys[0] = fresh;
    if (keys->count < TLS_TICKET_KEYS)
        keys->count++;
    OPENSSL_cleanse(&fresh, sizeof fresh);
    return STATUS_OK;
}

enum status tls_tickets_init(struct tls_tickets *tickets, OSSL_LIB_CTX *library, const struct tls_ticket_keys *keys)
{
    tickets->library = library;
    tls_tickets_set_keys(tickets, keys);
    tickets->cipher = EVP_CIPHER_fetch(library, "AES-256-CBC", NULL);
    return tickets->cipher ? STATUS_OK : STATUS_TLS_FAILED;
}

void tls_tickets_fini(struct tls_tickets *tickets)
{
    EVP_CIPHER_free(tickets->cipher);
    OPENSSL_cleanse(tickets, sizeof *tickets);
}

void tls_tickets_set_keys(struct tls_tickets *tickets, const struct tls_ticket_keys *keys)
{
    assert(keys->count >= 1 && keys->count <= TLS_TICKET_KEYS);
    tickets->keys = *keys;
}

static bool set_mac_key(EVP_MAC_CTX *mac, const struct tls_ticket_key *key)
{
    /* OSSL_PARAM has no const form; OpenSSL only reads these. */
    char digest[] = "SHA256";
    uint8_t secret[sizeof key->hmac];
    memcpy(secret, key->hmac, sizeof secret);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, secret, sizeof secret),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    bool done = EVP_MAC_CTX_set_params(mac, params) == 1;
    OPENSSL_cleanse(secret, sizeof secret);
    return done;
}

int tls_tickets_seal(const struct tls_tickets *tickets, unsigned char *ret_name, unsigned char *ret_iv,
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    const struct tls_ticket_key *key = &tickets->keys.keys[0];
    if (RAND_bytes_ex(tickets->library, ret_iv, IV_BYTES, 0) != 1 ||
        EVP_EncryptInit_ex2(cipher, tickets->cipher, key->aes, ret_iv, NULL) != 1 || !set_mac_key(mac, key))
        return -1;
    memcpy(ret_name, key->name, sizeof key->name);
    return 1;
}

int tls_tickets_unseal(const struct tls_tickets *tickets, const unsigned char *name, const unsigned char *iv,
                       EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    for (unsigned i = 0; i < tickets->keys.count; i++) {
        const struct tls_ticket_key *key = &tickets->keys.keys[i];
        if (memcmp(name, key->name, sizeof key->name) != 0)
            continue;
        if (EVP_DecryptInit_ex2(cipher, tickets->cipher, key->aes, iv, NULL) != 1 || !set_mac_key(mac, key))
            return -1;
        return i == 0 ? 1 : 2;
    }
    return 0;
}
