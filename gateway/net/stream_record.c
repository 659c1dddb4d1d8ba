/* TLS 1.3 of a stream after its handshake: records, alerts and key updates (RFC 8446 sections 4.6.3, 5 and 6). */
#include "stream_internal.h"

#include "gateway/base/log.h"
#include "gateway/net/tls_record.h"

#include <assert.h>

enum {
    KEY_UPDATE = 24,      /* section 4.6.3 */
    KEY_UPDATE_BYTES = 5, /* type, length of three bytes, request_update */
    WARNING = 1,          /* alert levels, which TLS 1.3 ignores but for how they look */
    FATAL = 2,
    MAX_IDLE_RECORDS = 32, /* received in a row without data: a peer that makes us work for nothing */
};

/*
 * A record can be read when all of it has come. While TCP has not sent more than a first flight, which takes a round
 * trip to acknowledge, a record is what fits into one segment: the peer reads it as soon as that one is there, whatever
 * becomes of the others. Then, large records are cheaper. Without traffic for a second it begins again, as TCP does.
 */
enum {
    SEGMENT_PLAIN_BYTES = 1400, /* an Ethernet frame of IPv6 with TCP timestamps and a sealed record */
    FIRST_FLIGHT_BYTES = 10 * SEGMENT_PLAIN_BYTES, /* RFC 6928 section 2 */
    IDLE_SECONDS = 1, /* RFC 5681 section 4.1: a retransmission timeout, which is at least that */
};

/* ---- sending ---- */

static bool seal(struct stream *s, enum tls_content content, const void *data, size_t len)
{
    char *place = block_queue_reserve(s->loop, &s->queue, len + TLS_RECORD_OVERHEAD_BYTES);
    if (!tls_record_seal(s->record, content, data, len, (uint8_t *)place))
        return false;
    block_queue_commit(&s->queue, len + TLS_RECORD_OVERHEAD_BYTES);
    stream_mark_dirty(s);
    return true;
}

/* Owed only before the next data (section 4.6.3), so that a client that asks and does not read makes no queue grow. */
static bool send_key_update(struct stream *s)
{
    s->owes_key_update = false;
    static const uint8_t not_requested[KEY_UPDATE_BYTES] = {KEY_UPDATE, 0, 0, 1, 0};
    return seal(s, TLS_CONTENT_HANDSHAKE, not_requested, sizeof not_requested) && tls_record_update_sent(s->record);
}

static void send_alert(struct stream *s, uint8_t level, enum tls_alert alert)
{
    const uint8_t message[] = {level, (uint8_t)alert};
    if (!seal(s, TLS_CONTENT_ALERT, message, sizeof message))
        s->tls_broken = true;
}

/* How much of the data the next record has. */
static size_t record_len(struct stream *s, size_t len)
{
    uint32_t now = (uint32_t)(s->loop->now_us / 1000000U);
    if (now - s->sent_at > IDLE_SECONDS)
        s->flight_bytes = 0;
    s->sent_at = now;
    size_t max = s->flight_bytes < FIRST_FLIGHT_BYTES ? SEGMENT_PLAIN_BYTES : TLS_RECORD_MAX_PLAIN_BYTES;
    size_t n = len < max ? len : max;
    s->flight_bytes += s->flight_bytes < FIRST_FLIGHT_BYTES ? (uint32_t)n : 0;
    return n;
}

void stream_record_write(struct stream *s, const char *data, size_t len)
{
    while (len > 0 && !s->tls_broken) {
        size_t n = record_len(s, len);
        bool ready = !(s->owes_key_update || tls_record_must_update(s->record)) || send_key_update(s);
        if (!ready || !seal(s, TLS_CONTENT_DATA, data, n)) {
            s->tls_broken = true;
            stream_fail_later(s, STATUS_TLS_FAILED);
        }
        data += n;
        len -= n;
    }
}

void stream_record_close_notify(struct stream *s)
{
    send_alert(s, WARNING, TLS_ALERT_CLOSE_NOTIFY);
}

/* ---- receiving ---- */

enum { NO_ALERT = -1 };

struct incoming {
    size_t plain_len; /* in the loop's buffer */
    int alert;        /* that the peer's bytes are worth, or NO_ALERT */
    int peer_alert;   /* that the peer sent, or NO_ALERT */
    bool closed;      /* close_notify came: what follows is ignored */
};

/* A message must not span a change of keys, so a KeyUpdate is alone in its record. */
static int got_handshake(struct stream *s, const uint8_t *message, size_t len)
{
    if (len != KEY_UPDATE_BYTES || message[0] != KEY_UPDATE || message[1] != 0 || message[2] != 0 || message[3] != 1)
        return TLS_ALERT_UNEXPECTED_MESSAGE;
    if (message[4] > 1)
        return TLS_ALERT_DECODE_ERROR;
    s->owes_key_update |= message[4] == 1;
    return tls_record_update_received(s->record) ? NO_ALERT : TLS_ALERT_INTERNAL_ERROR;
}

/* Section 6: all but these two are the end, whatever their level. */
static void got_alert(const uint8_t *alert, size_t len, struct incoming *in)
{
    if (len != 2)
        in->alert = TLS_ALERT_DECODE_ERROR;
    else if (alert[1] == TLS_ALERT_CLOSE_NOTIFY)
        in->closed = true;
    else if (alert[1] != TLS_ALERT_USER_CANCELED)
        in->peer_alert = alert[1];
}

static bool is_over(const struct incoming *in)
{
    return in->closed || in->alert != NO_ALERT || in->peer_alert != NO_ALERT;
}

static void open_record(struct stream *s, const uint8_t *header, size_t len, struct incoming *in)
{
    uint8_t content = 0, *place = (uint8_t *)s->loop->decrypted + in->plain_len;
    size_t n = 0;
    assert(in->plain_len + len <= LOOP_DECRYPTED_BYTES);
    int alert = tls_record_open(s->record, header, len, place, &n, &content);
    if (alert != 0) {
        in->alert = alert;
        return;
    }
    s->idle_records = content == TLS_CONTENT_DATA && n > 0 ? 0 : (uint8_t)(s->idle_records + 1);
    if (s->idle_records > MAX_IDLE_RECORDS)
        in->alert = TLS_ALERT_UNEXPECTED_MESSAGE;
    else if (content == TLS_CONTENT_DATA)
        in->plain_len += n;
    else if (content == TLS_CONTENT_HANDSHAKE)
        in->alert = got_handshake(s, place, n);
    else if (content == TLS_CONTENT_ALERT)
        got_alert(place, n, in);
    else
        in->alert = TLS_ALERT_UNEXPECTED_MESSAGE;
}

/* The length that a header announces, or the alert that it is worth. */
static size_t sealed_len(const uint8_t *header, struct incoming *in)
{
    size_t len = (size_t)header[3] << 8 | header[4];
    if (header[0] != TLS_CONTENT_DATA) /* nothing goes unprotected after the handshake */
        in->alert = TLS_ALERT_UNEXPECTED_MESSAGE;
    else if (len > TLS_RECORD_MAX_SEALED_BYTES)
        in->alert = TLS_ALERT_RECORD_OVERFLOW;
    else if (len < TLS_RECORD_MIN_SEALED_BYTES)
        in->alert = TLS_ALERT_BAD_RECORD_MAC;
    return len;
}

/* Moves up to `wanted` bytes of the record into the block; true if it has them. */
static bool fill(struct block *block, size_t wanted, const uint8_t **data, size_t *len)
{
    size_t missing = wanted - block->end, n = missing < *len ? missing : *len;
    memcpy(block->data + block->end, *data, n);
    block->end += (uint32_t)n;
    *data += n;
    *len -= n;
    return n == missing;
}

/* The record that an earlier read began; true if nothing of it is missing any more. */
static bool complete_partial(struct stream *s, const uint8_t **data, size_t *len, struct incoming *in)
{
    struct block *block = s->partial;
    const uint8_t *header = (const uint8_t *)block->data;
    if (block->end < TLS_RECORD_HEADER_BYTES && !fill(block, TLS_RECORD_HEADER_BYTES, data, len))
        return false;
    size_t sealed = sealed_len(header, in);
    if (in->alert != NO_ALERT)
        return true;
    if (!fill(block, TLS_RECORD_HEADER_BYTES + sealed, data, len))
        return false;
    open_record(s, header, sealed, in);
    loop_block_give(s->loop, block);
    s->partial = NULL;
    return true;
}

static void keep_partial(struct stream *s, const uint8_t *data, size_t len)
{
    s->partial = loop_block_take(s->loop);
    memcpy(s->partial->data, data, len);
    s->partial->end = (uint32_t)len;
}

static void open_all(struct stream *s, const uint8_t *data, size_t len, struct incoming *in)
{
    if (s->partial && !complete_partial(s, &data, &len, in))
        return;
    while (len > 0 && !is_over(in)) {
        size_t sealed = len < TLS_RECORD_HEADER_BYTES ? 0 : sealed_len(data, in);
        if (in->alert != NO_ALERT)
            return;
        if (len < TLS_RECORD_HEADER_BYTES || len < TLS_RECORD_HEADER_BYTES + sealed) {
            keep_partial(s, data, len);
            return;
        }
        open_record(s, data, sealed, in);
        data += TLS_RECORD_HEADER_BYTES + sealed;
        len -= TLS_RECORD_HEADER_BYTES + sealed;
    }
}

static void fail(struct stream *s, const struct incoming *in)
{
    static _Thread_local struct log_limit limit;
    char peer[IP_PORT_TEXT_MAX];
    bool by_peer = in->peer_alert != NO_ALERT;
    if (!by_peer && !s->shutdown)
        send_alert(s, FATAL, (enum tls_alert)in->alert);
    s->tls_broken = true;
    ip_port_format(&s->peer, s->peer_port, peer);
    if (log_limit_pass(&limit, 20))
        log_info("tls: client %s: TLS failed: %s: %s", peer, by_peer ? "alert from client" : "its records deserve",
                 tls_alert_name(by_peer ? in->peer_alert : in->alert));
    stream_fail(s, STATUS_TLS_FAILED);
}

void stream_record_received(struct stream *s, const char *data, size_t len)
{
    struct incoming in = {.alert = NO_ALERT, .peer_alert = NO_ALERT};
    if (s->eof) /* after close_notify */
        return;
    open_all(s, (const uint8_t *)data, len, &in);
    s->bytes_in += in.plain_len;
    if (in.plain_len > 0)
        stream_tell_data(s, s->loop->decrypted, in.plain_len);
    if (!is_over(&in) || s->state != STREAM_OPEN)
        return;
    if (in.closed) {
        s->eof = true;
        s->events->eof(s->owner);
    } else {
        fail(s, &in);
    }
}
