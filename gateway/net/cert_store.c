#include "gateway/net/cert_store.h"

#include "cert_parse.h"

#include "gateway/base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DATE_TEXT_MAX = 32 };

struct cert_snapshot {
    _Atomic unsigned refs;
    size_t count;
    struct cert_identity identities[];
};

/* One source while it is checked: the parsed certificates and the place for the message. */
struct check {
    const struct cert_source *source;
    STACK_OF(X509) * chain; /* leaf first */
    EVP_PKEY *key;
    char *error;
};

__attribute__((format(printf, 3, 4))) static enum status fail(struct check *check, const char *path, const char *format,
                                                              ...)
{
    int len = snprintf(check->error, CERT_ERROR_TEXT_MAX, "%s: ", path);
    if (len >= 0 && len < CERT_ERROR_TEXT_MAX) {
        va_list args;
        va_start(args, format);
        vsnprintf(check->error + len, (size_t)(CERT_ERROR_TEXT_MAX - len), format, args);
        va_end(args);
    }
    ERR_clear_error();
    return STATUS_TLS_FAILED;
}

static void wipe(struct slice *bytes)
{
    OPENSSL_clear_free((void *)(uintptr_t)bytes->ptr, bytes->len);
    *bytes = SLICE_NONE;
}

/* ---- files ---- */

static enum status read_open_file(struct check *check, const char *path, int fd, struct slice *ret_bytes)
{
    struct stat stat;
    if (fstat(fd, &stat) != 0)
        return fail(check, path, "%s", strerror(errno));
    if (!S_ISREG(stat.st_mode))
        return fail(check, path, "not a regular file; name a PEM file");
    if (stat.st_size == 0)
        return fail(check, path, "the file is empty; put PEM into it");
    if (stat.st_size > CERT_MAX_FILE_BYTES)
        return fail(check, path, "larger than %d bytes; name a PEM file with one chain or key", CERT_MAX_FILE_BYTES);
    size_t size = (size_t)stat.st_size;
    char *bytes = OPENSSL_malloc(size);
    if (!bytes)
        return fail(check, path, "out of memory");
    size_t len = 0;
    ssize_t got = 0;
    while (len < size && (got = read(fd, bytes + len, size - len)) != 0) {
        if (got > 0)
            len += (size_t)got;
        else if (errno != EINTR)
            break;
    }
    if (len < size) {
        OPENSSL_clear_free(bytes, size);
        return fail(check, path, "%s", got < 0 ? strerror(errno) : "the file shrank while it was read; try again");
    }
    *ret_bytes = slice_make(bytes, size);
    return STATUS_OK;
}

static enum status read_file(struct check *check, const char *path, struct slice *ret_bytes)
{
    /* O_NONBLOCK: opening a FIFO by mistake must not hang the control thread. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail(check, path, "%s; check the path and that the gateway's user may read it", strerror(errno));
    enum status status = read_open_file(check, path, fd, ret_bytes);
    close(fd);
    return status;
}

/* ---- what they say ---- */

static enum status check_key_matches(struct check *check)
{
    const struct cert_source *source = check->source;
    for (int i = 0; i < sk_X509_num(check->chain); i++) {
        bool matches = X509_check_private_key(sk_X509_value(check->chain, i), check->key) == 1;
        if (matches && i == 0)
            return STATUS_OK;
        if (matches)
            return fail(check, source->certificate, "the key %s belongs to certificate %d; put the leaf first",
                        source->private_key, i + 1);
    }
    return fail(check, source->private_key, "the private key does not match the certificate %s; use the pair",
                source->certificate);
}

static enum status check_names(struct check *check)
{
    const char *name = check->source->name;
    X509 *leaf = sk_X509_value(check->chain, 0);
    if (name[0] == '\0')
        return STATUS_OK;
    char host[258];
    int len = snprintf(host, sizeof host, "x.%s", name);
    if (len < 0 || (size_t)len >= sizeof host)
        return fail(check, check->source->certificate, "the base domain is longer than 255 bytes; shorten it");
    unsigned flags = X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
    if (X509_check_host(leaf, host, 0, flags, NULL) == 1)
        return STATUS_OK;
    char names[160];
    cert_list_names(leaf, names, sizeof names);
    return fail(check, check->source->certificate,
                "does not cover *.%s (its names: %s); get a certificate with DNS:*.%s as subjectAltName", name, names,
                name);
}

static void warn_chain_order(const struct check *check)
{
    for (int i = 0; i + 1 < sk_X509_num(check->chain); i++) {
        X509 *cert = sk_X509_value(check->chain, i);
        if (X509_check_issued(sk_X509_value(check->chain, i + 1), cert) == X509_V_OK)
            continue;
        log_warn("%s: certificate %d is not issued by certificate %d; put the chain in order, leaf first",
                 check->source->certificate, i + 1, i + 2);
    }
}

static void date_text(int64_t seconds, char ret_text[DATE_TEXT_MAX])
{
    struct tm tm;
    time_t when = (time_t)seconds;
    gmtime_r(&when, &tm);
    strftime(ret_text, DATE_TEXT_MAX, "%Y-%m-%d %H:%M UTC", &tm);
}

static enum status check_dates(struct check *check, int64_t *ret_not_after)
{
    const char *path = check->source->certificate;
    const X509 *leaf = sk_X509_value(check->chain, 0);
    int64_t not_before, not_after;
    if (!cert_dates(leaf, &not_before, &not_after))
        return fail(check, path, "its validity has no readable dates; get a new certificate");
    time_t now = time(NULL);
    char text[DATE_TEXT_MAX];
    if (not_after < now) {
        date_text(not_after, text);
        log_warn("%s: the certificate expired at %s; clients will refuse it, renew it", path, text);
    } else if (not_before > now) {
        date_text(not_before, text);
        log_warn("%s: the certificate is not valid before %s; clients will refuse it until then", path, text);
    }
    *ret_not_after = not_after;
    return STATUS_OK;
}

static enum status check_identity(struct check *check, struct cert_identity *identity)
{
    const struct cert_source *source = check->source;
    char why[CERT_ERROR_TEXT_MAX];
    enum status status = cert_parse_chain(identity->chain_pem, &check->chain, why);
    if (status != STATUS_OK)
        return fail(check, source->certificate, "%s", why);
    status = cert_parse_key(identity->key_pem, &check->key, why);
    if (status == STATUS_OK && !source->is_client)
        status = cert_check_key_kind(check->key, why);
    if (status != STATUS_OK)
        status = fail(check, source->private_key, "%s", why);
    if (status == STATUS_OK)
        status = check_key_matches(check);
    if (status == STATUS_OK)
        status = check_names(check);
    if (status == STATUS_OK)
        status = check_dates(check, &identity->not_after);
    if (status == STATUS_OK)
        warn_chain_order(check);
    sk_X509_pop_free(check->chain, X509_free);
    EVP_PKEY_free(check->key);
    ERR_clear_error();
    return status;
}

/* ---- snapshots ---- */

static enum status load_identity(const struct cert_source *source, struct cert_identity *identity, char *ret_error)
{
    struct check check = {.source = source, .error = ret_error};
    char *name = OPENSSL_strdup(source->name);
    if (!name)
        return fail(&check, source->certificate, "out of memory");
    identity->name = slice_str(name);
    enum status status = read_file(&check, source->certificate, &identity->chain_pem);
    if (status == STATUS_OK)
        status = read_file(&check, source->private_key, &identity->key_pem);
    return status == STATUS_OK ? check_identity(&check, identity) : status;
}

enum status cert_snapshot_load(const struct cert_source *sources, size_t count, struct cert_snapshot **ret_snapshot,
                               char ret_error[CERT_ERROR_TEXT_MAX])
{
    assert(count > 0);
    struct cert_snapshot *snapshot = calloc(1, sizeof *snapshot + count * sizeof snapshot->identities[0]);
    if (!snapshot) {
        snprintf(ret_error, CERT_ERROR_TEXT_MAX, "out of memory");
        return STATUS_INTERNAL;
    }
    atomic_init(&snapshot->refs, 1);
    snapshot->count = count;
    for (size_t i = 0; i < count; i++) {
        enum status status = load_identity(&sources[i], &snapshot->identities[i], ret_error);
        if (status != STATUS_OK) {
            cert_snapshot_unref(&snapshot);
            return status;
        }
    }
    *ret_snapshot = snapshot;
    return STATUS_OK;
}

enum status cert_authorities_check(const char *path, char ret_error[CERT_ERROR_TEXT_MAX])
{
    struct check check = {.error = ret_error};
    struct slice pem = SLICE_NONE;
    char why[CERT_ERROR_TEXT_MAX] = "no certificate found; put those of the CAs in PEM";
    enum status status = read_file(&check, path, &pem);
    if (status != STATUS_OK)
        return status;
    status = memmem(pem.ptr, pem.len, "-----BEGIN", 10) ? cert_parse_chain(pem, &check.chain, why) : STATUS_TLS_FAILED;
    if (status != STATUS_OK)
        status = fail(&check, path, "%s", why);
    sk_X509_pop_free(check.chain, X509_free);
    wipe(&pem);
    return status;
}

struct cert_snapshot *cert_snapshot_ref(struct cert_snapshot *snapshot)
{
    unsigned before = atomic_fetch_add_explicit(&snapshot->refs, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return snapshot;
}

void cert_snapshot_unref(struct cert_snapshot **snapshot)
{
    struct cert_snapshot *old = *snapshot;
    *snapshot = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < old->count; i++) {
        /* A certificate file may hold the key as well, so all of it is wiped. */
        OPENSSL_free((void *)(uintptr_t)old->identities[i].name.ptr);
        wipe(&old->identities[i].chain_pem);
        wipe(&old->identities[i].key_pem);
    }
    free(old);
}

size_t cert_snapshot_count(const struct cert_snapshot *snapshot)
{
    return snapshot->count;
}

const struct cert_identity *cert_snapshot_identity(const struct cert_snapshot *snapshot, size_t index)
{
    assert(index < snapshot->count);
    return &snapshot->identities[index];
}

/* ---- server names ---- */

bool cert_name_covers(struct slice name, struct slice server_name)
{
    if (server_name.len > 0 && server_name.ptr[server_name.len - 1] == '.')
        server_name.len--;
    if (name.len == 0 || server_name.len < name.len)
        return false;
    size_t below = server_name.len - name.len;
    if (!slice_eq_nocase(slice_from(server_name, below), name))
        return false;
    if (below == 0)
        return true;
    /* A wildcard stands for exactly one label (RFC 6125 section 6.4.3). */
    size_t label = below - 1;
    return label > 0 && server_name.ptr[label] == '.' && !memchr(server_name.ptr, '.', label);
}

int cert_snapshot_find(const struct cert_snapshot *snapshot, struct slice server_name)
{
    int found = -1;
    size_t longest = 0;
    for (size_t i = 0; i < snapshot->count; i++) {
        struct slice name = snapshot->identities[i].name;
        if (name.len > longest && cert_name_covers(name, server_name)) {
            found = (int)i;
            longest = name.len;
        }
    }
    return found;
}
