/*
 * text_file: the small files that a configuration names: CA certificates, tokens. Reading blocks; for local files only.
 *
 * Errors are a text that begins with the path.
 */
#ifndef GATEWAY_CONTROL_TEXT_FILE_H
#define GATEWAY_CONTROL_TEXT_FILE_H

#include "gateway/base/slice.h"
#include "gateway/base/status.h"

enum { TEXT_FILE_MAX_BYTES = 65536, TEXT_FILE_ERROR_TEXT_MAX = 512, TEXT_FILE_MIN_TOKEN = 16 };

/* The whole file, malloc'ed, not NUL-terminated; NULL with the error. */
char *text_file_read(const char *path, size_t *ret_len, char ret_error[TEXT_FILE_ERROR_TEXT_MAX]);

/*
 * The token in the first line: at least TEXT_FILE_MIN_TOKEN printable characters without spaces. It is the caller's,
 * who gives it to text_file_wipe. INVALID_RECORD with the error.
 */
MUST_CHECK enum status text_file_token(const char *path, struct slice *ret_token,
                                       char ret_error[TEXT_FILE_ERROR_TEXT_MAX]);

/* Overwrites and frees a token. */
void text_file_wipe(struct slice *token);

#endif
