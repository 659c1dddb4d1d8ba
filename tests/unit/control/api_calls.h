/* Calls of the control API in tests, and what to look for in the answers. */
#ifndef TESTS_CONTROL_API_CALLS_H
#define TESTS_CONTROL_API_CALLS_H

#include "api_fixture.h"

#include <jansson.h>

/* Begins a request; `fields` is "name: value\n…". The body follows with send_piece. */
static void begin_call(struct fixture *f, const char *method, const char *path, const char *fields, bool has_body)
{
    struct message_head head = {.method = method_of(slice_str(method)),
                                .method_text = slice_str(method),
                                .target = slice_str(path),
                                .path = slice_str(path),
                                .version = HTTP_1_1,
                                .body = has_body ? BODY_CHUNKED : BODY_NONE};
    hang_up(f);
    free(f->body);
    f->body = NULL;
    f->body_len = f->uncredited = f->max_uncredited = 0;
    f->status = 0;
    f->ended = f->was_reset = false;
    f->fields[0] = '\0';
    arena_init(&f->arena, NULL);
    while (*fields) {
        const char *colon = strchr(fields, ':');
        const char *end = strchr(fields, '\n');
        fields_add(&head.fields, &f->arena, slice_make(fields, (size_t)(colon - fields)),
                   slice_make(colon + 2, (size_t)(end - colon - 2)));
        fields = end + 1;
    }
    f->endpoint = local_open(f->loop, &api_service, &f->listener, f->is_verified);
    endpoint_bind(f->endpoint, &recorder, f, &f->arena);
    f->endpoint->ops->send_head(f->endpoint, &head, !has_body);
    turn(f);
}

static void send_piece(struct fixture *f, const char *data, size_t len, bool end)
{
    f->endpoint->ops->send_body(f->endpoint, data, len, end);
    turn(f);
}

static void await_answer(struct fixture *f)
{
    for (int i = 0; i < 20000 && !f->ended; i++) {
        loop_turn(f->loop, 5);
        turn(f);
    }
    assert_true(f->ended);
}

/* A whole call; body NULL: none. Returns the status. */
static int call_with(struct fixture *f, const char *method, const char *path, const char *fields, const char *body)
{
    begin_call(f, method, path, fields, body != NULL);
    for (size_t sent = 0, len = body ? strlen(body) : 0; body && sent <= len && !f->ended; sent += 50000) {
        size_t part = len - sent < 50000 ? len - sent : 50000;
        send_piece(f, body + sent, part, sent + part == len);
        if (part == len - sent)
            break;
    }
    await_answer(f);
    return f->status;
}

static int call(struct fixture *f, const char *method, const char *path, const char *body)
{
    return call_with(f, method, path, body ? "Content-Type: application/json\n" : "", body);
}

/* A member of the last answer as JSON text, in a static buffer. */
static const char *answer_member(struct fixture *f, const char *key)
{
    static char text[512];
    json_t *json = json_loadb(f->body, f->body_len, 0, NULL);
    assert_non_null(json);
    char *dumped = json_dumps(json_object_get(json, key), JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(text, sizeof text, "%s", dumped ? dumped : "-");
    free(dumped);
    json_decref(json);
    return text;
}

#define assert_field(f, line)   assert_non_null(strstr((f)->fields, line))
#define assert_member(f, k, v)  assert_string_equal(answer_member(f, k), v)
#define assert_in_body(f, text) assert_non_null(strstr((f)->body, text))

#endif
