/* What the files of compose share: one reading of a file, and the syntax of one `ports` entry. */
#ifndef GATEWAY_CTL_COMPOSE_INTERNAL_H
#define GATEWAY_CTL_COMPOSE_INTERNAL_H

#include "gateway/ctl/compose.h"

struct compose_range {
    unsigned first;
    unsigned last;
};

/* An entry of `ports`, short or long; empty slices and zero ranges for what is not given. */
struct compose_entry {
    struct slice host_ip;
    struct slice protocol; /* tcp, udp, … */
    struct compose_range published;
    struct compose_range target;
    const char *app_protocol; /* as in a route record, or NULL */
};

/* [[IP:][PUBLISHED]:]TARGET[/PROTOCOL]. NULL, or what is wrong. Slices point into the text. */
const char *compose_entry_parse(struct slice text, struct compose_entry *ret_entry);

/* "80" or "8000-8010", 1..65535, in order. */
bool compose_range_parse(struct slice text, struct compose_range *ret_range);

/* http, h2c, tcp, passthrough for the many names of app_protocol; NULL if it is unknown. */
const char *compose_app_protocol(struct slice name);

#endif
