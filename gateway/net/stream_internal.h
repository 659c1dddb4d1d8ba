/*
 * stream_internal: the inside of a stream, shared by stream.c (state, reading), stream_write.c (queue, flushing) and
 * stream_tls.c (OpenSSL over memory).
 */
#ifndef GATEWAY_NET_STREAM_INTERNAL_H
#define GATEWAY_NET_STREAM_INTERNAL_H

#include "gateway/net/block_queue.h"
#include "gateway/net/poller.h"
#include "gateway/net/stream.h"
#include "gateway/net/stream_flush.h"

enum { STREAM_LINGER_MS = 2000 };

enum stream_state {
    STREAM_CONNECTING,
    STREAM_HANDSHAKE,
    STREAM_OPEN,
    STREAM_FAILED,  /* the owner was told and must close it */
    STREAM_CLOSING, /* given up by its owner: sends what is queued */
    STREAM_LINGER,  /* sent all; reads and throws away until the peer ends */
    STREAM_DEAD,    /* freed at the end of the turn */
};

/* What splice(2) moves bytes through. */
struct stream_pipe {
    struct stream_pipe *next;
    int fds[2];
    size_t bytes; /* in it */
};

struct stream {
    struct loop *loop;
    const struct stream_events *events;
    void *owner;
    SSL *ssl;
    struct tls_record *record; /* TLS 1.3 after `ready`: takes the place of ssl */
    struct tls_server *tls;    /* that the record belongs to */
    struct block *partial;     /* the beginning of a record whose rest has not come */
    const char *again;         /* handed back: comes as data once more */
    size_t again_len;
    struct block *plain;      /* TLS: small writes of this callback, encrypted together */
    struct block_queue queue; /* bytes for the wire */
    struct list dirty_link;
    struct list ready_link;
    struct list all_link;
    struct list closing_link;
    size_t closing_bytes; /* its part of the loop's */
    size_t unsent_before; /* closing: the last time that it was looked at */
    struct timer timer;   /* handshake or connect, then closing */
    struct deferred deferred;
    struct poller_fd fd;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint32_t flight_bytes; /* of data, since there was no traffic, up to a first flight: see stream_record.c */
    uint32_t sent_at;      /* the last data, in seconds of the loop's clock */
    struct ip_addr peer;
    uint16_t peer_port;
    uint8_t state;
    uint8_t pauses;
    enum status broken;       /* to be told from the loop */
    struct stream *splice_to; /* of stream_splice */
    struct stream *splice_from;
    struct stream_pipe *pipe; /* while bytes are on their way from here */
    bool is_bulk;             /* the last read brought LOOP_READ_BYTES or more */
    bool readable;            /* the kernel may have more */
    bool hangup;              /* it has a FIN, a reset or an error behind what is unread */
    bool has_error;           /* which is no FIN */
    bool just_read;           /* in this round, and there is more: an end, or the rest of much */
    bool urgent;              /* urgent data has come: a read may end at its mark, before all is read */
    bool blocked;             /* the send buffer is full: wait for the edge */
    bool write_broken;
    bool was_reset; /* found by writing, without a FIN before it */
    bool eof;
    bool want_room;
    bool late;
    bool linger;
    bool shutdown; /* our direction ends when the queue is empty */
    bool shutdown_done;
    bool tls_broken;      /* OpenSSL must not be asked for a close_notify */
    uint8_t replies;      /* that the SSL has sent by itself */
    uint8_t idle_records; /* received in a row without data */
    bool owes_key_update; /* the peer has asked for one */
};

static inline bool stream_is_owned(const struct stream *stream)
{
    return stream->state < STREAM_FAILED;
}

void stream_set_state(struct stream *stream, enum stream_state state);
/* Tells the owner, from the loop. */
void stream_fail(struct stream *stream, enum status status);
/* The same, from an operation: the owner hears of it at the end of the round. */
void stream_fail_later(struct stream *stream, enum status status);
void stream_destroy(struct stream *stream);
/* Calls `data`, and again for what the owner hands back. */
void stream_tell_data(struct stream *stream, const char *data, size_t len);
void stream_mark_ready(struct stream *stream);
void stream_mark_dirty(struct stream *stream);

/* It has nothing to send any more. */
void stream_leave_closing(struct stream *stream);

/* Sends what is queued; true if nothing is left. */
bool stream_flush(struct stream *stream);
void stream_drop_queue(struct stream *stream);

/* A write has failed or would block: errno says which. */
void stream_send_failed(struct stream *stream);
/* The kernel took less than it was given: waits until it takes more. Not when writing has failed. */
void stream_block(struct stream *stream);

/* stream_splice's part of reading: is it due instead of a read; one turn of it, after which `readable` says if more. */
bool stream_splice_is_due(const struct stream *stream);
void stream_splice_run(struct stream *stream);
/* Its part of flushing: what is in the pipe; true if nothing is left. */
bool stream_splice_flush(struct stream *to);
/* The stream leaves its pairs. */
void stream_splice_end(struct stream *stream);
void stream_splice_loop_end(struct loop *loop);

/* Encrypts into the queue. */
void stream_tls_write(struct stream *stream, const char *data, size_t len);
void stream_tls_encrypt_plain(struct stream *stream);
void stream_tls_close_notify(struct stream *stream);
/* `len` bytes from the wire: handshakes, decrypts, tells the owner. */
void stream_tls_received(struct stream *stream, const char *data, size_t len);
/* Of a failure, with what OpenSSL says of it; now and then. */
void stream_tls_log_failure(struct stream *stream, const char *what);

/* The same after tls_hand_over. */
void stream_record_write(struct stream *stream, const char *data, size_t len);
void stream_record_close_notify(struct stream *stream);
void stream_record_received(struct stream *stream, const char *data, size_t len);

#endif
