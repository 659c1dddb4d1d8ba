/*
 * config_reader: from YAML nodes to values, with errors that name file, line and key. Private to config.
 *
 * What a mapping may hold is a table of keys; each key has a reader that checks its value and writes it to its place in
 * a structure. A reader that fails has set the error text and returns false.
 */
#ifndef GATEWAY_CONTROL_CONFIG_READER_H
#define GATEWAY_CONTROL_CONFIG_READER_H

#include "gateway/control/config.h"

#include <yaml.h>

enum { CONFIG_PATH_TEXT_MAX = 256, CONFIG_MAX_KEYS = 32 };

struct config_reader {
    yaml_document_t *document;
    struct config *config;           /* what is being made; strings go into its arena */
    const char *file;                /* as errors name it */
    struct slice folder;             /* relative paths begin here; with its final slash, empty: none */
    char *error;                     /* CONFIG_ERROR_TEXT_MAX bytes */
    yaml_node_t *node;               /* the value that is being read */
    char path[CONFIG_PATH_TEXT_MAX]; /* of that value: "listeners[0].address" */
};

struct config_key;
typedef bool (*config_read_cb)(struct config_reader *reader, const struct config_key *key, void *target);

struct config_key {
    const char *name;
    config_read_cb read; /* gets the structure's address + offset */
    size_t offset;
    uint64_t min; /* of numbers, in the unit of the value: milliseconds, bytes */
    uint64_t max;
    const char *const *names; /* of choices, NULL-terminated; the value is the index */
    bool required;
};

/* Sets the error "FILE:LINE: path: text" for the value that is being read. Returns false. */
bool config_refuse(struct config_reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a member of it, or for the value itself if there is no such member. */
bool config_refuse_member(struct config_reader *reader, const char *member, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A mapping with these keys, at most CONFIG_MAX_KEYS. */
bool config_read_mapping(struct config_reader *reader, const struct config_key *keys, size_t count, void *base);

/* A list of min to max elements; `what` says in errors what they are ("networks"). */
typedef bool (*config_element_cb)(struct config_reader *reader, size_t index, void *arg);
bool config_read_list(struct config_reader *reader, size_t min, size_t max, const char *what, config_element_cb each,
                      void *arg);
/* How many elements the list has that is being read; 0 if it is no list. */
size_t config_list_length(const struct config_reader *reader);

/* The text of a string, which lives as long as the document. */
bool config_text(struct config_reader *reader, struct slice *ret_text);

/* How many bytes at the front of a URL's authority can be a host's name or IPv4 address. */
size_t config_host_length(struct slice text);

/* How much of a value errors quote, for printf's "%.*s". */
int config_shown(struct slice text);

/* Readers for keys; the target's type is in the comment. */
bool config_read_string(struct config_reader *reader, const struct config_key *key, void *target);   /* const char * */
bool config_read_path(struct config_reader *reader, const struct config_key *key, void *target);     /* const char * */
bool config_read_bool(struct config_reader *reader, const struct config_key *key, void *target);     /* bool */
bool config_read_count(struct config_reader *reader, const struct config_key *key, void *target);    /* uint32_t */
bool config_read_duration(struct config_reader *reader, const struct config_key *key, void *target); /* uint32_t, ms */
bool config_read_size(struct config_reader *reader, const struct config_key *key, void *target);     /* size_t */
bool config_read_rate(struct config_reader *reader, const struct config_key *key, void *target);     /* uint32_t */
bool config_read_choice(struct config_reader *reader, const struct config_key *key, void *target);   /* unsigned */

#endif
