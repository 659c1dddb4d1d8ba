#include "gateway/net/tls_schedule.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <stddef.h>

/* ---- a derivation, as OpenSSL asks for it ---- */

/* EVP_KDF-TLS13_KDF(7). */
struct request {
    int mode;
    struct slice digest;
    struct slice key;
    struct slice salt;
    struct slice prefix;
    struct slice label;
    struct slice data;
};

static const struct {
    const char *name;
    size_t offset;
} text_params[] = {
    {OSSL_KDF_PARAM_DIGEST, offsetof(struct request, digest)},
    {OSSL_KDF_PARAM_KEY, offsetof(struct request, key)},
    {OSSL_KDF_PARAM_SALT, offsetof(struct request, salt)},
    {OSSL_KDF_PARAM_PREFIX, offsetof(struct request, prefix)},
    {OSSL_KDF_PARAM_LABEL, offsetof(struct request, label)},
    {OSSL_KDF_PARAM_DATA, offsetof(struct request, data)},
};

static struct request read_request(const OSSL_PARAM *params)
{
    struct request request = {.mode = -1};
    for (; params && params->key; params++) {
        if (strcmp(params->key, OSSL_KDF_PARAM_MODE) == 0 && !OSSL_PARAM_get_int(params, &request.mode))
            request.mode = -1;
        for (size_t i = 0; i < sizeof text_params / sizeof *text_params; i++)
            if (*params->key == *text_params[i].name && strcmp(params->key, text_params[i].name) == 0)
                *(struct slice *)(void *)((char *)&request + text_params[i].offset) =
                    slice_make(params->data, params->data_size);
    }
    return request;
}

static bool find_digest(struct slice name, enum tls_digest *ret_digest)
{
    if (slice_eq(name, SLICE("SHA2-256")) || slice_eq(name, SLICE("SHA256")))
        *ret_digest = TLS_SHA256;
    else if (slice_eq(name, SLICE("SHA2-384")) || slice_eq(name, SLICE("SHA384")))
        *ret_digest = TLS_SHA384;
    else
        return false;
    return true;
}

static bool refuse(const char *why)
{
    ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "TLS 1.3 key schedule: %s", why);
    return false;
}

static void keep(struct tls_secrets *secrets, struct slice label, const uint8_t *secret, size_t len)
{
    if (slice_eq(label, SLICE("c ap traffic"))) {
        memcpy(secrets->client, secret, len);
    } else if (slice_eq(label, SLICE("s ap traffic"))) {
        memcpy(secrets->server, secret, len);
        secrets->len = (uint8_t)len;
        secrets->sent = 0; /* the next record is the first under this secret */
    }
}

/* RFC 8446 section 7.1: Derive-Secret or another use of HKDF-Expand-Label. */
static bool expand(struct tls_schedule *schedule, enum tls_digest digest, const struct request *request,
                   uint8_t *ret_out, size_t len)
{
    char label[255];
    struct slice whole = slice_make(label, request->prefix.len + request->label.len);
    if (request->key.len != tls_digest_len(digest) || whole.len > sizeof label || request->data.len > 255 || len == 0 ||
        len > 255 * tls_digest_len(digest))
        return refuse("a length is out of range");
    if (request->prefix.len > 0)
        memcpy(label, request->prefix.ptr, request->prefix.len);
    if (request->label.len > 0)
        memcpy(label + request->prefix.len, request->label.ptr, request->label.len);
    if (!tls_hkdf_expand(&schedule->hkdf, digest, request->key, whole, request->data, ret_out, len))
        return false;
    if (schedule->secrets && len == tls_digest_len(digest))
        keep(schedule->secrets, request->label, ret_out, len);
    return true;
}

/*
 * The next of Early, Handshake and Master Secret: HKDF-Extract of the key, or zeros, with what Derive-Secret makes of
 * the one before and a transcript of nothing.
 */
static bool extract(struct tls_schedule *schedule, enum tls_digest digest, const struct request *request,
                    uint8_t *ret_out, size_t len)
{
    static const char zeros[TLS_HKDF_MAX_BYTES];
    uint8_t salt[TLS_HKDF_MAX_BYTES], nothing[TLS_HKDF_MAX_BYTES];
    size_t digest_len = tls_digest_len(digest);
    if (len != digest_len)
        return refuse("a secret has the length of the digest");
    struct slice input = request->key.ptr ? request->key : slice_make(zeros, digest_len);
    if (!request->salt.ptr)
        return tls_hkdf_extract(&schedule->hkdf, digest, SLICE_NONE, input, ret_out);
    struct request derived = *request;
    derived.key = request->salt;
    derived.data = slice_make((const char *)nothing, digest_len);
    bool done = tls_hkdf_empty(&schedule->hkdf, digest, nothing) &&
                expand(schedule, digest, &derived, salt, digest_len) &&
                tls_hkdf_extract(&schedule->hkdf, digest, slice_make((const char *)salt, digest_len), input, ret_out);
    OPENSSL_cleanse(salt, sizeof salt);
    return done;
}

static int derive(void *context, unsigned char *ret_out, size_t len, const OSSL_PARAM params[])
{
    struct request request = read_request(params);
    enum tls_digest digest;
    if (!find_digest(request.digest, &digest))
        return refuse("the digest must be SHA2-256 or SHA2-384");
    if (request.mode == EVP_KDF_HKDF_MODE_EXTRACT_ONLY)
        return extract(context, digest, &request, ret_out, len);
    if (request.mode == EVP_KDF_HKDF_MODE_EXPAND_ONLY)
        return expand(context, digest, &request, ret_out, len);
    return refuse("the mode must be EXTRACT_ONLY or EXPAND_ONLY");
}

/* ---- the provider ---- */

/* A derivation's parameters all come with it, so there is no state between two. */
static void *new_context(void *provider_context)
{
    return provider_context;
}

static void free_context(void *context)
{
    (void)context;
}

static void reset_context(void *context)
{
    (void)context;
}

static int set_params(void *context, const OSSL_PARAM params[])
{
    (void)context;
    return !params || !params->key || refuse("parameters must come with the derivation");
}

#define FUNCTION(id, function)                                                                                         \
    {                                                                                                                  \
        id, (void (*)(void))(function)                                                                                 \
    }

static const OSSL_DISPATCH kdf_functions[] = {
    FUNCTION(OSSL_FUNC_KDF_NEWCTX, new_context),        FUNCTION(OSSL_FUNC_KDF_FREECTX, free_context),
    FUNCTION(OSSL_FUNC_KDF_RESET, reset_context),       FUNCTION(OSSL_FUNC_KDF_DERIVE, derive),
    FUNCTION(OSSL_FUNC_KDF_SET_CTX_PARAMS, set_params), {0, NULL},
};

static const OSSL_ALGORITHM *query(void *provider_context, int operation, int *ret_no_cache)
{
    static const OSSL_ALGORITHM kdfs[] = {{"TLS13-KDF", "provider=gateway", kdf_functions, "net/tls_hkdf"},
                                          {NULL, NULL, NULL, NULL}};
    (void)provider_context;
    *ret_no_cache = 0;
    return operation == OSSL_OP_KDF ? kdfs : NULL;
}

static _Thread_local struct tls_schedule *loading; /* OpenSSL hands nothing of ours through */

static int start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **ret_functions,
                 void **ret_provider_context)
{
    static const OSSL_DISPATCH functions[] = {FUNCTION(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query), {0, NULL}};
    (void)handle, (void)core;
    *ret_functions = functions;
    *ret_provider_context = loading;
    return 1;
}

enum status tls_schedule_init(struct tls_schedule *schedule, OSSL_LIB_CTX *library)
{
    *schedule = (struct tls_schedule){.secrets = NULL};
    if (tls_hkdf_init(&schedule->hkdf, library) != STATUS_OK ||
        OSSL_PROVIDER_add_builtin(library, "gateway", start) != 1)
        return STATUS_TLS_FAILED;
    loading = schedule;
    schedule->provider = OSSL_PROVIDER_load(library, "gateway");
    loading = NULL;
    return schedule->provider ? STATUS_OK : STATUS_TLS_FAILED;
}

void tls_schedule_fini(struct tls_schedule *schedule)
{
    if (schedule->provider)
        OSSL_PROVIDER_unload(schedule->provider);
    tls_hkdf_fini(&schedule->hkdf);
    *schedule = (struct tls_schedule){.secrets = NULL};
}
