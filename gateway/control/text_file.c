#include "gateway/control/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* All that is there, up to `size`; -1: errno says why. */
static ssize_t read_all(int fd, char *buffer, size_t size)
{
    size_t len = 0;
    ssize_t n = 0;
    while (len < size && ((n = read(fd, buffer + len, size - len)) > 0 || (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    return n < 0 ? -1 : (ssize_t)len;
}

char *text_file_read(const char *path, size_t *ret_len, char ret_error[TEXT_FILE_ERROR_TEXT_MAX])
{
    char *text = malloc(TEXT_FILE_MAX_BYTES);
    if (!text)
        abort();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read_all(fd, text, TEXT_FILE_MAX_BYTES);
    const char *why = len < 0 ? strerror(errno) : "the file is too large";
    if (fd >= 0)
        close(fd);
    if (len >= 0 && len < TEXT_FILE_MAX_BYTES) {
        *ret_len = (size_t)len;
        return text;
    }
    snprintf(ret_error, TEXT_FILE_ERROR_TEXT_MAX, "%s: %s", path, why);
    free(text);
    return NULL;
}

enum status text_file_token(const char *path, struct slice *ret_token, char ret_error[TEXT_FILE_ERROR_TEXT_MAX])
{
    size_t len = 0, end = 0;
    char *text = text_file_read(path, &len, ret_error);
    if (!text)
        return STATUS_INVALID_RECORD;
    while (end < len && text[end] > ' ' && text[end] < 0x7f)
        end++;
    if (end >= TEXT_FILE_MIN_TOKEN && (end == len || text[end] == '\n' || text[end] == '\r')) {
        *ret_token = slice_make(text, end);
        return STATUS_OK;
    }
    snprintf(ret_error, TEXT_FILE_ERROR_TEXT_MAX,
             "%s: the first line must be a token of at least %d printable characters without spaces", path,
             TEXT_FILE_MIN_TOKEN);
    struct slice whole = {text, len};
    text_file_wipe(&whole);
    return STATUS_INVALID_RECORD;
}

void text_file_wipe(struct slice *token)
{
    union {
        const char *in;
        char *out;
    } unconst = {.in = token->ptr};
    if (unconst.out)
        explicit_bzero(unconst.out, token->len);
    free(unconst.out);
    *token = SLICE_NONE;
}
