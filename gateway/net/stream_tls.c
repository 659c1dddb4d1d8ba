/* TLS of a stream: OpenSSL reads from the loop's scratch buffer and writes into the stream's queue. */
#include "stream_internal.h"

#include "gateway/base/log.h"

#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

enum {
    RECORD_BYTES = 16384, /* RFC 8446 section 5.1 */
    GATHER_BYTES = 4096,  /* shorter writes of one callback become one record */
    MAX_REPLIES = 8,      /* by OpenSSL itself: alerts to renegotiations, key updates */
};

/* ---- the BIO: one for all streams of a loop; the loop says whose bytes it moves ---- */

static BIO_METHOD *bio_method;
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;

static int bio_read(BIO *bio, char *buffer, size_t size, size_t *ret_len)
{
    struct loop *loop = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (loop->bio_in_len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t n = size < loop->bio_in_len ? size : loop->bio_in_len;
    memcpy(buffer, loop->bio_in, n);
    loop->bio_in += n;
    loop->bio_in_len -= n;
    *ret_len = n;
    return 1;
}

static int bio_write(BIO *bio, const char *data, size_t len, size_t *ret_len)
{
    struct loop *loop = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    block_queue_append(loop, &loop->bio_stream->queue, data, len);
    *ret_len = len;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    if (!bio_method || !BIO_meth_set_read_ex(bio_method, bio_read) || !BIO_meth_set_write_ex(bio_method, bio_write) ||
        !BIO_meth_set_ctrl(bio_method, bio_ctrl))
        abort();
}

void stream_loop_begin(struct loop *loop)
{
    pthread_once(&bio_method_once, make_bio_method);
    loop->bio = BIO_new(bio_method);
    if (!loop->bio)
        abort();
    BIO_set_data(loop->bio, loop);
    BIO_set_init(loop->bio, 1);
}

void stream_loop_end(struct loop *loop)
{
    BIO_free(loop->bio);
    loop->bio = NULL;
    stream_splice_loop_end(loop);
}

/* ---- writing ---- */

static void encrypt(struct stream *s, const char *data, size_t len)
{
    if (s->record) {
        stream_record_write(s, data, len);
        return;
    }
    struct loop *loop = s->loop;
    size_t in_len = loop->bio_in_len; /* writing must not read what belongs to another stream */
    struct stream *reader = loop->bio_stream;
    loop->bio_in_len = 0;
    loop->bio_stream = s;
    while (len > 0 && !s->tls_broken) {
        size_t written = 0;
        if (SSL_write_ex(s->ssl, data, len < RECORD_BYTES ? len : RECORD_BYTES, &written) != 1) {
            ERR_clear_error();
            s->tls_broken = true;
            stream_fail_later(s, STATUS_TLS_FAILED);
        }
        data += written;
        len -= written;
    }
    loop->bio_in_len = in_len;
    loop->bio_stream = reader;
}

void stream_tls_encrypt_plain(struct stream *s)
{
    struct block *plain = s->plain;
    s->plain = NULL;
    encrypt(s, plain->data, plain->end);
    loop_block_give(s->loop, plain);
}

static size_t gather(struct stream *s, const char *data, size_t len)
{
    if (!s->plain)
        s->plain = loop_block_take(s->loop);
    size_t room = RECORD_BYTES - s->plain->end;
    size_t n = len < room ? len : room;
    memcpy(s->plain->data + s->plain->end, data, n);
    s->plain->end += (uint32_t)n;
    if (s->plain->end == RECORD_BYTES)
        stream_tls_encrypt_plain(s);
    return n;
}

void stream_tls_write(struct stream *s, const char *data, size_t len)
{
    assert(s->state == STREAM_OPEN || s->state == STREAM_FAILED);
    while (len > 0) {
        size_t n = 0;
        if (s->plain || len < GATHER_BYTES) {
            n = gather(s, data, len);
        } else {
            n = len < RECORD_BYTES ? len : RECORD_BYTES;
            encrypt(s, data, n);
        }
        data += n;
        len -= n;
    }
}

void stream_tls_close_notify(struct stream *s)
{
    if (s->plain)
        stream_tls_encrypt_plain(s);
    if (s->tls_broken || s->state == STREAM_HANDSHAKE || s->shutdown)
        return;
    if (s->record) {
        stream_record_close_notify(s);
        return;
    }
    s->loop->bio_stream = s;
    if (SSL_shutdown(s->ssl) < 0)
        ERR_clear_error();
}

/* ---- reading ---- */

void stream_tls_log_failure(struct stream *s, const char *what)
{
    static _Thread_local struct log_limit limit;
    char text[TLS_ERROR_TEXT_MAX], peer[IP_PORT_TEXT_MAX];
    tls_error_text(text);
    ip_port_format(&s->peer, s->peer_port, peer);
    if (log_limit_pass(&limit, 20))
        log_info("tls: client %s: %s: %s", peer, what, text);
}

enum result { RESULT_MORE, RESULT_CLOSE_NOTIFY, RESULT_FAILED };

static enum result result_of(struct stream *s, int ret)
{
    switch (SSL_get_error(s->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return RESULT_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return RESULT_CLOSE_NOTIFY;
    default:
        return RESULT_FAILED;
    }
}

static enum result handshake(struct stream *s)
{
    int ret = tls_handshake(s->ssl);
    if (ret == 1) {
        stream_set_state(s, STREAM_OPEN);
        timer_disarm(&s->timer);
        COUNTER_INC(s->loop->counters, handshakes_total);
        if (tls_is_resumed(s->ssl))
            COUNTER_INC(s->loop->counters, handshakes_resumed_total);
        return RESULT_MORE;
    }
    enum result result = result_of(s, ret);
    return result == RESULT_CLOSE_NOTIFY ? RESULT_FAILED : result;
}

/* Decrypts all that was received; a read can't hold more plaintext than the buffer. */
static enum result decrypt(struct stream *s, size_t *ret_len)
{
    size_t total = 0, n = 0;
    int ret;
    ERR_clear_error(); /* of another connection, whose owner had left: SSL_get_error would take it for this one's */
    while ((ret = SSL_read_ex(s->ssl, s->loop->decrypted + total, LOOP_DECRYPTED_BYTES - total, &n)) == 1) {
        total += n;
        assert(total < LOOP_DECRYPTED_BYTES);
    }
    *ret_len = total;
    return result_of(s, ret);
}

static void fail(struct stream *s, bool in_handshake)
{
    enum status status = in_handshake ? tls_failure(s->ssl) : STATUS_TLS_FAILED;
    s->tls_broken = true;
    stream_tls_log_failure(s, in_handshake ? "handshake failed" : "TLS failed");
    if (in_handshake)
        COUNTER_INC(s->loop->counters, handshakes_failed_total);
    stream_fail(s, status);
}

/* A client that makes the SSL speak and does not read must not make a queue grow without an end. */
static enum result check_replies(struct stream *s)
{
    if (++s->replies <= MAX_REPLIES)
        return RESULT_MORE;
    ERR_raise_data(ERR_LIB_USER, ERR_R_PASSED_INVALID_ARGUMENT, "too many renegotiations or key updates");
    return RESULT_FAILED;
}

/* What the SSL still makes of the bytes that were received. */
static enum result read_ssl(struct stream *s)
{
    size_t plain_len = 0, queued = s->queue.bytes;
    enum result result = decrypt(s, &plain_len);
    if (result == RESULT_MORE && s->queue.bytes > queued)
        result = check_replies(s);
    s->loop->bio_in_len = 0;
    if (stream_queued(s) > 0)
        stream_mark_dirty(s); /* alerts */
    s->bytes_in += plain_len;
    if (plain_len > 0)
        stream_tell_data(s, s->loop->decrypted, plain_len);
    return result;
}

static void end_received(struct stream *s, enum result result, bool in_handshake)
{
    if (result == RESULT_CLOSE_NOTIFY && s->state == STREAM_OPEN && !s->eof) {
        s->eof = true;
        s->events->eof(s->owner);
    } else if (result == RESULT_FAILED && stream_is_owned(s)) {
        fail(s, in_handshake);
    }
}

/* Complete: what the SSL knew was the owner's to ask in `ready`, and need not be kept. */
static void become_ready(struct stream *s)
{
    struct loop *loop = s->loop;
    const char *rest = loop->bio_in;
    size_t rest_len = loop->bio_in_len;
    loop->bio_in_len = 0;
    s->events->ready(s->owner);
    if (s->state != STREAM_OPEN)
        return;
    if (s->plain)
        stream_tls_encrypt_plain(s); /* counted by the SSL */
    s->record = tls_hand_over(&s->ssl, &s->tls);
    if (s->record) {
        if (rest_len > 0)
            stream_record_received(s, rest, rest_len);
        return;
    }
    loop->bio_in = rest;
    loop->bio_in_len = rest_len;
    loop->bio_stream = s;
    end_received(s, read_ssl(s), false);
}

void stream_tls_received(struct stream *s, const char *data, size_t len)
{
    struct loop *loop = s->loop;
    if (s->record) {
        stream_record_received(s, data, len);
        return;
    }
    loop->bio_in = data;
    loop->bio_in_len = len;
    loop->bio_stream = s;
    if (s->state != STREAM_HANDSHAKE) {
        end_received(s, read_ssl(s), false);
        return;
    }
    enum result result = handshake(s);
    if (stream_queued(s) > 0)
        stream_mark_dirty(s); /* handshake messages and alerts */
    if (s->state == STREAM_OPEN)
        become_ready(s);
    else
        end_received(s, result, true);
    loop->bio_in_len = 0;
}
