#include "gateway/net/fleet_key.h"

#include "gateway/base/base64.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>

enum { VERSION = 1, NONCE_BYTES = 12, TAG_BYTES = 16, HEX_CHARS = 2 * FLEET_KEY_BYTES, BASE64_CHARS = 44 };

struct fleet_key {
    unsigned char bytes[FLEET_KEY_BYTES];
};

/* ---- the text ---- */

static int hex_value(char c)
{
    char lower = ascii_lower(c);
    return ascii_is_digit(c) ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool read_hex(struct slice text, unsigned char *ret_bytes)
{
    for (size_t i = 0; i < FLEET_KEY_BYTES; i++) {
        int high = hex_value(text.ptr[2 * i]), low = hex_value(text.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret_bytes[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static bool read_base64(struct slice text, unsigned char *ret_bytes)
{
    char bytes[BASE64_CHARS];
    size_t len = 0;
    bool ok = base64_decode(text, bytes, &len) && len == FLEET_KEY_BYTES;
    if (ok)
        memcpy(ret_bytes, bytes, FLEET_KEY_BYTES);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return ok;
}

struct fleet_key *fleet_key_new(struct slice text)
{
    struct fleet_key *key = calloc(1, sizeof *key);
    size_t end = 0;
    if (!key)
        abort();
    while (end < text.len && text.ptr[end] != '\n' && text.ptr[end] != '\r')
        end++;
    struct slice line = slice_trim(slice_make(text.ptr, end));
    if ((line.len == HEX_CHARS && read_hex(line, key->bytes)) ||
        (line.len == BASE64_CHARS && read_base64(line, key->bytes)))
        return key;
    fleet_key_free(&key);
    return NULL;
}

void fleet_key_free(struct fleet_key **key)
{
    if (*key)
        OPENSSL_cleanse(*key, sizeof **key);
    free(*key);
    *key = NULL;
}

bool fleet_key_equal(const struct fleet_key *a, const struct fleet_key *b)
{
    return a && b ? CRYPTO_memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0 : a == b;
}

/* ---- sealing ---- */

static const unsigned char *octets(struct slice s)
{
    return (const unsigned char *)(s.ptr ? s.ptr : "");
}

static bool encrypt(EVP_CIPHER_CTX *cipher, const struct fleet_key *key, struct slice name, struct slice plain,
                    unsigned char *sealed)
{
    unsigned char *nonce = sealed + 1, *text = nonce + NONCE_BYTES;
    int len = 0;
    return EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key->bytes, nonce) == 1 &&
           EVP_EncryptUpdate(cipher, NULL, &len, octets(name), (int)name.len) == 1 &&
           EVP_EncryptUpdate(cipher, text, &len, octets(plain), (int)plain.len) == 1 &&
           EVP_EncryptFinal_ex(cipher, text + len, &len) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, text + plain.len) == 1;
}

enum status fleet_key_seal(const struct fleet_key *key, struct slice name, struct slice plain, char *ret_sealed)
{
    unsigned char *sealed = (unsigned char *)ret_sealed;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    sealed[0] = VERSION;
    bool ok = cipher && plain.len <= INT_MAX && RAND_bytes(sealed + 1, NONCE_BYTES) == 1 &&
              encrypt(cipher, key, name, plain, sealed);
    EVP_CIPHER_CTX_free(cipher);
    return ok ? STATUS_OK : STATUS_TLS_FAILED;
}

static bool decrypt(EVP_CIPHER_CTX *cipher, const struct fleet_key *key, struct slice name, struct slice sealed,
                    unsigned char *plain)
{
    const unsigned char *nonce = octets(sealed) + 1, *text = nonce + NONCE_BYTES;
    size_t text_len = sealed.len - FLEET_KEY_SEAL_BYTES;
    unsigned char tag[TAG_BYTES];
    int len = 0;
    memcpy(tag, text + text_len, TAG_BYTES);
    return EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key->bytes, nonce) == 1 &&
           EVP_DecryptUpdate(cipher, NULL, &len, octets(name), (int)name.len) == 1 &&
           EVP_DecryptUpdate(cipher, plain, &len, text, (int)text_len) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1 &&
           EVP_DecryptFinal_ex(cipher, plain + len, &len) == 1;
}

bool fleet_key_open(const struct fleet_key *key, struct slice name, struct slice sealed, char *ret_plain)
{
    if (sealed.len < FLEET_KEY_SEAL_BYTES || sealed.len > INT_MAX || sealed.ptr[0] != VERSION)
        return false;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    bool ok = cipher && decrypt(cipher, key, name, sealed, (unsigned char *)ret_plain);
    EVP_CIPHER_CTX_free(cipher);
    if (!ok)
        OPENSSL_cleanse(ret_plain, sealed.len - FLEET_KEY_SEAL_BYTES);
    return ok;
}
