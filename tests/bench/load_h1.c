/* HTTP/1.1, one request at a time on a connection, and WebSocket over it. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS                                                                                                         \
    "User-Agent: " LOAD_USER_AGENT "\r\nAccept: " LOAD_ACCEPT "\r\nAccept-Language: en-US,en;q=0.5\r\n"                \
    "Cookie: " LOAD_COOKIE "\r\n"

enum { FRAME_HEAD = 2, MASK_BYTES = 4 };

static void put_head(struct load_conn *conn)
{
    char head[1024];
    int length;
    if (load_options.protocol == &load_websocket)
        length = snprintf(head, sizeof head,
                          "GET /websocket HTTP/1.1\r\nHost: %s\r\n" FIELDS "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
                          conn->host_name, TRAFFIC_WEBSOCKET_KEY);
    else if (load_options.upload_bytes > 0)
        length =
            snprintf(head, sizeof head, "POST /upload HTTP/1.1\r\nHost: %s\r\n" FIELDS "Content-Length: %llu\r\n\r\n",
                     conn->host_name, (unsigned long long)load_options.upload_bytes);
    else
        length = snprintf(head, sizeof head, "GET /bytes/%llu HTTP/1.1\r\nHost: %s\r\n" FIELDS "\r\n",
                          (unsigned long long)load_options.answer_bytes, conn->host_name);
    load_put(conn, head, (size_t)length);
}

static void begin_request(struct load_conn *conn)
{
    conn->requests = 1;
    conn->head_length = 0;
    conn->in_body = false;
    conn->body_at = conn->upload_at = 0;
    put_head(conn);
}

static void fill_upload(struct load_conn *conn)
{
    uint64_t left = load_options.upload_bytes - conn->upload_at;
    size_t room = load_out_room(conn), piece = left < room ? (size_t)left : room;
    if (conn->requests == 0 || piece == 0)
        return;
    load_put(conn, traffic_pattern(conn->upload_at), piece);
    conn->upload_at += piece;
    load_count_bytes(piece);
}

static void on_answered(struct load_conn *conn)
{
    if (conn->upload_at != load_options.upload_bytes)
        load_fail(conn, "an answer before the whole upload was sent");
    conn->requests = 0;
    load_answered(conn);
    if (load_wants_request(conn))
        begin_request(conn);
}

/* ---- answers ---- */

static void check_head(struct load_conn *conn, int status)
{
    size_t length = 0;
    char prefix[16];
    snprintf(prefix, sizeof prefix, "HTTP/1.1 %d ", status);
    if (strncmp(conn->head, prefix, strlen(prefix)) != 0)
        load_fail(conn, "the answer begins \"%.*s\", not \"%s\"", (int)strcspn(conn->head, "\r\n"), conn->head, prefix);
    if (status == 101)
        return;
    const char *value = traffic_field(conn->head, "Content-Length", &length);
    if (!value || strtoull(value, NULL, 10) != load_options.answer_bytes)
        load_fail(conn, "Content-Length of the answer is %.*s, not %llu", (int)length, value ? value : "",
                  (unsigned long long)load_options.answer_bytes);
}

/* Takes the part of the head that is in `data`; returns its length. */
static size_t take_head(struct load_conn *conn, int status, const uint8_t *data, size_t length)
{
    size_t before = conn->head_length, room = LOAD_MAX_HEAD - before, taken = length < room ? length : room;
    memcpy(conn->head + before, data, taken);
    conn->head[before + taken] = 0;
    const char *end = strstr(conn->head, "\r\n\r\n");
    if (!end) {
        conn->head_length += taken;
        if (conn->head_length == LOAD_MAX_HEAD)
            load_fail(conn, "the answer's head is longer than %d bytes", LOAD_MAX_HEAD);
        return taken;
    }
    size_t head = (size_t)(end + 4 - conn->head);
    conn->head[head] = 0;
    check_head(conn, status);
    conn->head_length = 0;
    conn->in_body = true;
    return head - before;
}

static size_t take_body(struct load_conn *conn, const uint8_t *data, size_t length)
{
    uint64_t left = load_options.answer_bytes - conn->body_at;
    size_t taken = length < left ? length : (size_t)left;
    load_check_body(conn, conn->body_at, data, taken);
    conn->body_at += taken;
    if (conn->body_at == load_options.answer_bytes)
        on_answered(conn);
    return taken;
}

static void h1_input(struct load_conn *conn, const uint8_t *data, size_t length)
{
    for (size_t taken; length > 0; data += taken, length -= taken) {
        if (conn->requests == 0)
            load_fail(conn, "%zu bytes that nobody asked for", length);
        taken = conn->in_body ? take_body(conn, data, length) : take_head(conn, 200, data, length);
    }
}

static void h1_close(struct load_conn *conn)
{
    conn->upgraded = false;
}

/* ---- WebSocket (RFC 6455) ---- */

static uint8_t payload_byte(const struct load_conn *conn, size_t at)
{
    return (uint8_t)(conn->body_at + at); /* differs from message to message */
}

static void begin_message(struct load_conn *conn)
{
    static const uint8_t mask[MASK_BYTES] = {0x9d, 0x2c, 0x51, 0xe8};
    uint8_t frame[FRAME_HEAD + MASK_BYTES + TRAFFIC_MESSAGE_BYTES] = {0x82, 0x80 | TRAFFIC_MESSAGE_BYTES};
    memcpy(frame + FRAME_HEAD, mask, MASK_BYTES);
    conn->body_at++;
    for (size_t i = 0; i < TRAFFIC_MESSAGE_BYTES; i++)
        frame[FRAME_HEAD + MASK_BYTES + i] = payload_byte(conn, i) ^ mask[i % MASK_BYTES];
    load_put(conn, frame, sizeof frame);
    conn->requests = 1;
    conn->head_length = 0;
}

static void on_message(struct load_conn *conn)
{
    const uint8_t *frame = (const uint8_t *)conn->head;
    if (frame[0] != 0x82 || frame[1] != TRAFFIC_MESSAGE_BYTES)
        load_fail(conn, "the WebSocket frame starts with %02x %02x", frame[0], frame[1]);
    for (size_t i = 0; i < TRAFFIC_MESSAGE_BYTES; i++)
        if (frame[FRAME_HEAD + i] != payload_byte(conn, i))
            load_fail(conn, "another message came back");
    conn->requests = 0;
    load_answered(conn);
    if (load_wants_request(conn))
        begin_message(conn);
}

static size_t take_message(struct load_conn *conn, const uint8_t *data, size_t length)
{
    size_t room = FRAME_HEAD + TRAFFIC_MESSAGE_BYTES - conn->head_length, taken = length < room ? length : room;
    memcpy(conn->head + conn->head_length, data, taken);
    conn->head_length += taken;
    if (conn->head_length == FRAME_HEAD + TRAFFIC_MESSAGE_BYTES)
        on_message(conn);
    return taken;
}

static void websocket_input(struct load_conn *conn, const uint8_t *data, size_t length)
{
    for (size_t taken; length > 0; data += taken, length -= taken) {
        if (conn->requests == 0)
            load_fail(conn, "%zu bytes that nobody asked for", length);
        if (conn->upgraded) {
            taken = take_message(conn, data, length);
            continue;
        }
        taken = take_head(conn, 101, data, length);
        if (conn->in_body) {
            conn->upgraded = true;
            begin_message(conn);
        }
    }
}

static void websocket_fill(struct load_conn *conn)
{
    (void)conn; /* a message is put as soon as the one before it has come back */
}

const struct load_protocol load_h1 = {"h1", "http/1.1", begin_request, h1_input, fill_upload, h1_close};
const struct load_protocol load_websocket = {"websocket",     "http/1.1",     begin_request,
                                             websocket_input, websocket_fill, h1_close};
