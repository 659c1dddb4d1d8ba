/*
 * Whatever Compose files and app-compose.json say, what comes out is sorted ports, each once, and reasons for the rest.
 */
#include "gateway/ctl/compose_app.h"

#include <stdlib.h>

enum { MAX_FILES = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static const char *lookup(void *arg, const char *name)
{
    (void)arg;
    if (name[0] == 'P')
        return "8123";
    return name[0] == 'E' ? "" : NULL;
}

static void check_compose(const struct compose *compose)
{
    check(compose->port_count <= COMPOSE_MAX_PORTS);
    for (size_t i = 0; i < compose->port_count; i++) {
        const struct compose_port *port = &compose->ports[i];
        check(port->port > 0 && port->target > 0);
        check(i == 0 || compose->ports[i - 1].port < port->port);
        check(memchr(port->service, '\0', sizeof port->service) != NULL);
    }
    for (size_t i = 0; i < compose->note_count; i++) {
        char *line = compose_note_line(&compose->notes[i]);
        check(compose->notes[i].text[0] != '\0' && line[0] != '\0');
        free(line);
    }
}

/* Files with NUL between them. */
static bool read_files(struct slice rest, const struct compose_settings *settings, struct compose **ret_compose,
                       char *error)
{
    struct compose_reader *reader = compose_reader_new(settings);
    bool ok = true;
    for (size_t i = 0; i < MAX_FILES && ok && (i == 0 || rest.len > 0); i++) {
        const char *end = rest.len > 0 ? memchr(rest.ptr, '\0', rest.len) : NULL;
        size_t len = end ? (size_t)(end - rest.ptr) : rest.len;
        ok = compose_reader_add(reader, (struct slice){rest.ptr, len}, error);
        rest = slice_from(rest, len + 1);
    }
    ok = ok && compose_reader_finish(reader, ret_compose, error);
    compose_reader_free(&reader);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[COMPOSE_ERROR_MAX] = "";
    struct compose *compose = NULL;
    struct compose_settings settings = {.env = lookup, .profiles = "x"};
    struct slice input = slice_make(data, size);
    bool ok = compose_app_is(input) ? compose_app_parse(input, &settings, &compose, error)
                                    : read_files(input, &settings, &compose, error);
    check(ok ? compose != NULL : error[0] != '\0');
    if (ok) {
        struct ip_addr address = {.family = AF_INET, .bytes = {10, 8, 0, 1}};
        check_compose(compose);
        compose_check_addresses(compose, &address, 1);
        check_compose(compose);
    }
    compose_free(&compose);
    return 0;
}
