/*
 * stream_owner: an owner of a stream that writes down what it hears.
 */
#ifndef TESTS_UNIT_NET_STREAM_OWNER_H
#define TESTS_UNIT_NET_STREAM_OWNER_H

#include "gateway/net/stream.h"

#include "net/sockets.h"

struct stream_owner {
    struct stream *stream;
    struct inbox in;
    int readies;
    int eofs;
    int rooms;
    int failures;
    enum status status;
    bool pauses_on_data;
    bool closes_on_eof;
    bool resets_on_data;
    const char *answers_data; /* written once for each piece of data */
};

static inline void owner_ready(void *arg)
{
    struct stream_owner *owner = arg;
    owner->readies++;
}

static inline void owner_data(void *arg, const char *data, size_t len)
{
    struct stream_owner *owner = arg;
    assert_int_equal(owner->eofs + owner->failures, 0);
    inbox_add(&owner->in, data, len);
    if (owner->pauses_on_data)
        stream_pause(owner->stream, STREAM_PAUSE_CREDIT);
    if (owner->resets_on_data)
        stream_reset(&owner->stream);
    else if (owner->answers_data)
        stream_write(owner->stream, owner->answers_data, strlen(owner->answers_data));
}

static inline void owner_eof(void *arg)
{
    struct stream_owner *owner = arg;
    assert_int_equal(owner->failures, 0);
    owner->eofs++;
    if (owner->closes_on_eof)
        stream_close(&owner->stream, false);
}

static inline void owner_room(void *arg)
{
    struct stream_owner *owner = arg;
    owner->rooms++;
}

static inline void owner_failed(void *arg, enum status status)
{
    struct stream_owner *owner = arg;
    owner->failures++;
    owner->status = status;
    stream_close(&owner->stream, false);
}

static const struct stream_events owner_events = {
    .ready = owner_ready, .data = owner_data, .eof = owner_eof, .room = owner_room, .failed = owner_failed};

/* Closes what is left and turns until the loop has no stream any more. */
static inline void owner_end(struct loop *loop, struct stream_owner *owner)
{
    if (owner->stream)
        stream_reset(&owner->stream);
    TURN_UNTIL(loop, list_is_empty(&loop->streams));
    inbox_clear(&owner->in);
}

/* Bytes that show where they come from. */
static inline char *pattern_new(size_t len)
{
    char *bytes = malloc(len + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)('a' + (i * 7 + i / 4093) % 26);
    bytes[len] = '\0';
    return bytes;
}

static inline bool is_pattern(const struct inbox *inbox, const char *pattern, size_t len)
{
    return inbox->len == len && (len == 0 || memcmp(inbox->bytes, pattern, len) == 0);
}

#endif
