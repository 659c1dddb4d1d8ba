/* Whatever etcd says: no message is taken in part, texts end, keys are never empty, and tokens fit into a header. */
#include "gateway/base/base64.h"
#include "gateway/control/etcd_wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static size_t counted;

static void on_kv(void *arg, const struct etcd_wire_kv *kv)
{
    (void)arg;
    check(kv->key.len > 0 && kv->mod_revision > 0);
    /* What came in goes out again. */
    const struct etcd_wire_op op = {.key = kv->key, .value = kv->value, .is_delete = kv->is_delete};
    free(etcd_wire_txn_request(&op, 1));
    counted++;
}

static void check_base64(struct slice text)
{
    size_t len = 0;
    char *bytes = malloc(base64_decoded_bytes(text.len) + 1);
    char *again = malloc(text.len + 1);
    check(bytes && again);
    if (base64_decode(text, bytes, &len)) {
        check(base64_encoded_bytes(len) == text.len);
        base64_encode(slice_make(bytes, len), again);
        check(slice_eq(slice_make(again, text.len), text));
    }
    free(again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice json = slice_make(data, size);
    struct etcd_wire_range_answer range;
    struct etcd_wire_watch_answer watch;
    struct etcd_wire_txn_answer txn;
    struct etcd_wire_error error;
    char *token = NULL;
    counted = 0;
    if (!etcd_wire_range_read(json, on_kv, NULL, &range))
        check(counted == 0);
    counted = 0;
    if (etcd_wire_watch_read(json, on_kv, NULL, &watch))
        check(counted == watch.event_count && memchr(watch.text, '\0', sizeof watch.text));
    else
        check(counted == 0);
    counted = 0;
    if (!etcd_wire_txn_read(json, on_kv, NULL, &txn))
        check(counted == 0);
    if (etcd_wire_error_read(json, &error))
        check(memchr(error.text, '\0', sizeof error.text) && error.code >= 0);
    if (etcd_wire_authenticate_read(json, &token))
        check(*token && !strpbrk(token, "\r\n "));
    free(token);
    check_base64(json);
    return 0;
}
